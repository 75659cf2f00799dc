//! Instances and rotations in the control tables: leases by the database's clock, one open rotation a keyset, and state of older
//! versions.

use std::time::Duration;

use reseal::store::control::STATE_VERSION;
use reseal::store::ledger::ending::{EndingCounts, EndingName, Endings, NewEnding};
use reseal::store::ledger::instance::{Instance, Instances, LEASE_MAX, Report};
use reseal::store::ledger::request::Requests;
use reseal::store::ledger::rotation::{Change, NewRotation, Rotations};
use reseal::store::ledger::running::Runs;
use reseal::store::{Control, StoreError};

use super::fencing::identity;
use crate::stores::fixture::{Fixture, texts};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn control(fixture: &dyn Fixture) -> Box<dyn Control> {
    let mut control = fixture.store().control().await.unwrap();
    control.migrate().await.unwrap();
    control
}

fn says(instance: &'static str, revision: u64, lease: Duration) -> Report<'static> {
    Report {
        instance,
        keyset: "customer-data",
        revision,
        seals_with: Some(u32::MAX),
        compromised_opens: 3,
        version: "reseal 0.1.0",
        lease,
    }
}

async fn listed(control: &mut dyn Control) -> Vec<Instance> {
    Instances::of(control).list(Some("customer-data")).await.unwrap()
}

pub async fn an_instance_is_known_by_its_last_report(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    assert!(listed(&mut *control).await.is_empty());
    let mut instances = Instances::of(&mut *control);
    instances.report(&says("web-2", 4, MINUTE)).await.unwrap();
    instances.report(&says("web-1", 7, MINUTE)).await.unwrap();
    // It came back with an older keyring.
    instances.report(&says("web-1", 6, MINUTE)).await.unwrap();
    let elsewhere = Report {
        keyset: "orders",
        seals_with: None,
        ..says("web-1", 1, MINUTE)
    };
    instances.report(&elsewhere).await.unwrap();
    let known = listed(&mut *control).await;
    let names: Vec<_> = known.iter().map(|one| one.instance.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    let one = &known[0];
    assert_eq!((one.revision, one.newest_revision), (6, 7));
    assert_eq!((one.seals_with, one.compromised_opens), (Some(u32::MAX), 3));
    assert_eq!(one.version, "reseal 0.1.0");
    assert!(one.is_live());
    assert!((0..10_000).contains(&one.seen_ms_ago), "{one:?}");
    assert!((50_000..=60_000).contains(&one.lease_left_ms), "{one:?}");
    for time in [&one.first_seen_at, &one.seen_at] {
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
    }
    assert!(one.first_seen_at <= one.seen_at);

    let mut instances = Instances::of(&mut *control);
    assert_eq!(instances.list(None).await.unwrap().len(), 3);
    assert!(instances.leave("web-1", "customer-data").await.unwrap());
    assert!(!instances.leave("web-1", "customer-data").await.unwrap());
    let left = instances.list(None).await.unwrap();
    let left: Vec<_> = left.iter().map(|one| (one.instance.as_str(), one.keyset.as_str())).collect();
    assert_eq!(left, [("web-2", "customer-data"), ("web-1", "orders")]);
    assert_eq!(instances.list(Some("orders")).await.unwrap()[0].seals_with, None);
}

pub async fn a_lease_ends_by_the_clock_of_the_database(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let mut instances = Instances::of(&mut *control);
    instances.report(&says("gone", 5, Duration::ZERO)).await.unwrap();
    instances.report(&says("for-ever", 5, Duration::MAX)).await.unwrap();
    let known = listed(&mut *control).await;
    assert!(
        known[0].is_live() && known[0].lease_left_ms <= LEASE_MAX.as_millis() as i64,
        "{known:?}"
    );
    assert!(!known[1].is_live(), "{known:?}");
    // What the database says is over is over, whatever the clock here says.
    let table = fixture.control_table("instance");
    fixture
        .execute(&format!("UPDATE {table} SET lease_until = '2001-01-01T00:00:00.000Z'"))
        .await;
    assert!(listed(&mut *control).await.iter().all(|one| !one.is_live()));
    let mut instances = Instances::of(&mut *control);
    instances.report(&says("gone", 5, MINUTE)).await.unwrap();
    instances.forget().await.unwrap();
    let left = listed(&mut *control).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].instance == "gone" && left[0].is_live(), "{left:?}");
}

pub async fn hostile_names_of_instances_are_only_names(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let name = "x'); DROP TABLE reseal_instance; -- \u{202e}é ?1 $1";
    let mut instances = Instances::of(&mut *control);
    instances.report(&says(name, 5, MINUTE)).await.unwrap();
    let known = listed(&mut *control).await;
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].instance, name);
}

pub fn rotation(id: &str, keyset: &str) -> NewRotation {
    NewRotation {
        id: id.to_owned(),
        keyset: keyset.to_owned(),
        from_key: 1,
        to_key: u32::MAX,
        mode: "scheduled".to_owned(),
        policy: None,
        direction: "forward".to_owned(),
        phase: "introduce".to_owned(),
        owner: "ada@host".to_owned(),
        keyring_generation: 3,
        follows: None,
    }
}

pub async fn of_a_keyset_one_rotation_is_open(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let mut rotations = Rotations::of(&mut *control);
    assert!(rotations.open("customer-data").await.unwrap().is_none());
    let first = rotations.begin(&rotation("r1", "customer-data")).await.unwrap().unwrap();
    assert_eq!((first.to_key, first.generation, first.policy.as_deref()), (u32::MAX, 1, None));
    assert!(rotations.begin(&rotation("r2", "customer-data")).await.unwrap().is_none());
    assert!(rotations.begin(&rotation("r1", "customer-data")).await.unwrap().is_none());
    rotations.begin(&rotation("r3", "orders")).await.unwrap().unwrap();
    assert_eq!(rotations.open("customer-data").await.unwrap().unwrap(), first);

    let end = Change {
        phase: Some("done"),
        is_end: true,
        ..Change::default()
    };
    let done = rotations.change(&first, &end).await.unwrap();
    assert!(done.finished_at.is_some());
    let phases: Vec<_> = done.history.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(phases, ["introduce", "done"]);
    assert!(
        done.history.iter().all(|(_, at)| at.ends_with('Z') && at.contains('T')),
        "{:?}",
        done.history
    );
    // What has ended is not changed and not claimed any more.
    assert!(matches!(rotations.change(&done, &end).await, Err(StoreError::Superseded)));
    assert!(matches!(rotations.claim("r1", "bob@host").await, Err(StoreError::Superseded)));
    assert!(rotations.open("customer-data").await.unwrap().is_none());
    rotations.begin(&rotation("r4", "customer-data")).await.unwrap().unwrap();
    assert_eq!(rotations.latest_finished("customer-data").await.unwrap().unwrap().id, "r1");
    assert_eq!(rotations.list().await.unwrap().len(), 3);
}

pub async fn a_rotation_changes_under_its_generation_only(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let mut rotations = Rotations::of(&mut *control);
    let ours = rotations.begin(&rotation("r1", "customer-data")).await.unwrap().unwrap();
    let theirs = rotations.claim("r1", "bob@host").await.unwrap();
    assert_eq!((theirs.generation, theirs.owner.as_str()), (2, "bob@host"));
    let promote = Change {
        phase: Some("promote"),
        keyring_generation: Some(9),
        ..Change::default()
    };
    assert!(matches!(rotations.change(&ours, &promote).await, Err(StoreError::Superseded)));
    assert_eq!(rotations.open("customer-data").await.unwrap().unwrap().phase, "introduce");
    let moved = rotations.change(&theirs, &promote).await.unwrap();
    assert_eq!((moved.phase.as_str(), moved.keyring_generation), ("promote", 9));
    let turn = Change {
        direction: Some("back"),
        mode: Some("compromised"),
        policy: Some("lock-down"),
        keyring_generation: Some(4),
        ..Change::default()
    };
    let turned = rotations.change(&moved, &turn).await.unwrap();
    assert_eq!((turned.direction.as_str(), turned.mode.as_str()), ("back", "compromised"));
    assert_eq!(
        (turned.policy.as_deref(), turned.phase.as_str()),
        (Some("lock-down"), "promote")
    );
    // The newest file that was ever seen counts.
    assert_eq!(turned.keyring_generation, 9);
    assert_eq!(turned.history.len(), 2);
}

pub async fn of_a_cut_off_the_first_one_counts(fixture: &dyn Fixture) {
    let mut control = control(fixture).await;
    let mut endings = Endings::of(&mut *control);
    let name = |mode: &str| EndingName {
        rotation: "r1".to_owned(),
        session: "web".to_owned(),
        mode: mode.to_owned(),
    };
    let taken = |mode: &str, snapshot: &str, cut_off_us: i64| NewEnding {
        name: name(mode),
        snapshot: snapshot.to_owned(),
        cut_off_us,
        decided_by: "snapshot".to_owned(),
        matched: 3,
    };
    for (part, digests) in [(1, "second"), (0, "first"), (0, "again")] {
        endings.keep("r1", "one", part, digests).await.unwrap();
    }
    endings.keep("r1", "two", 0, "of another operator").await.unwrap();
    let first = endings.begin(&taken("scheduled", "one", 1_000)).await.unwrap();
    let second = endings.begin(&taken("scheduled", "two", 2_000)).await.unwrap();
    assert_eq!(first, second, "whoever is second goes on with the first one");
    assert_eq!(endings.parts(&second.snapshot).await.unwrap(), ["first", "second"]);
    // An emergency has one of its own.
    assert_eq!(
        endings.begin(&taken("compromised", "two", 2_000)).await.unwrap().cut_off_us,
        2_000
    );

    let counts = |ended, left| EndingCounts {
        matched: 3,
        ended,
        left,
        passes: 2,
        ..EndingCounts::default()
    };
    endings.record(&name("scheduled"), counts(2, 1), false).await.unwrap();
    assert_eq!(endings.list("r1").await.unwrap()[1].ended_at, None);
    endings.record(&name("scheduled"), counts(3, 0), true).await.unwrap();
    // What has ended stays ended, whoever comes late.
    endings.record(&name("scheduled"), counts(0, 9), false).await.unwrap();
    let ended = endings.list("r1").await.unwrap().remove(1);
    assert!(ended.ended_at.is_some());
    assert_eq!(ended.counts, counts(3, 0));
    endings.forget("r1").await.unwrap();
    assert!(endings.parts("one").await.unwrap().is_empty());
    assert!(endings.list("r2").await.unwrap().is_empty());
}

pub async fn state_of_version_1_is_upgraded_in_place(fixture: &dyn Fixture) {
    fixture.execute(fixture.state_of_version_1()).await;
    let mut control = fixture.store().control().await.unwrap();
    // Reading works on it, and leaves it as it is.
    assert_eq!(control.version().await.unwrap(), Some(1));
    assert_eq!(control.plans().await.unwrap().len(), 1);
    assert!(Instances::of(&mut *control).list(None).await.unwrap().is_empty());
    assert!(Rotations::of(&mut *control).list().await.unwrap().is_empty());
    assert!(Rotations::of(&mut *control).open("customer-data").await.unwrap().is_none());
    assert!(Endings::of(&mut *control).list("r1").await.unwrap().is_empty());
    assert!(Requests::of(&mut *control).list().await.unwrap().is_empty());
    assert!(Runs::of(&mut *control).list().await.unwrap().is_empty());
    assert_eq!(control.version().await.unwrap(), Some(1));

    // Two programs at once: one upgrades, the other finds it done.
    let mut other = fixture.store().control().await.unwrap();
    let (one, two) = tokio::join!(control.migrate(), other.migrate());
    one.unwrap();
    two.unwrap();
    assert_eq!(control.version().await.unwrap(), Some(STATE_VERSION));
    let plan = control.plan("old").await.unwrap().unwrap();
    assert_eq!((plan.generation, plan.owner.as_str()), (4, "ada@host"));
    let range = control.range("old", 0).await.unwrap().unwrap();
    assert_eq!((range.epoch, range.counters.rows_reencrypted), (4, 12));
    assert_eq!(control.claim_plan(&identity("old"), "bob@host").await.unwrap().generation, 5);
    Instances::of(&mut *control).report(&says("web-1", 1, MINUTE)).await.unwrap();
    Rotations::of(&mut *control)
        .begin(&rotation("r1", "customer-data"))
        .await
        .unwrap()
        .unwrap();
    let meta = fixture.control_table("meta");
    let version = texts(fixture, &format!("SELECT value FROM {meta} WHERE name = 'version'")).await;
    assert_eq!(version, [STATE_VERSION.to_string()]);

    // Who the database is stays the same from here on.
    let who = control.identity().await.unwrap();
    assert!(who.id.is_some());
    control.migrate().await.unwrap();
    assert_eq!(other.identity().await.unwrap(), who);
}

/// Not one of the contract: it takes two.
pub async fn have_ids_of_their_own(one: &dyn Fixture, other: &dyn Fixture) {
    let mut ids = Vec::new();
    for fixture in [one, other] {
        let mut control = fixture.store().control().await.unwrap();
        control.migrate().await.unwrap();
        ids.push(control.identity().await.unwrap());
    }
    assert!(ids.iter().all(|identity| identity.id.is_some()), "{ids:?}");
    assert!(ids[0].is_another_than(&ids[1]) && ids[1].is_another_than(&ids[0]), "{ids:?}");
}

pub async fn one_operator_a_keyset(fixture: &dyn Fixture) {
    let store = fixture.store();
    let mut first = store.lock_keyset("customer-data", "ada@host", false).await.unwrap();
    let other = store.lock_keyset("orders", "bob@host", false).await.unwrap();
    let refused = fixture
        .store()
        .lock_keyset("customer-data", "bob@host", false)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, StoreError::Held { holder } if holder.contains("ada@host")),
        "{refused:?}"
    );
    first.still_held().await.unwrap();
    let mut second = store.lock_keyset("customer-data", "cy@host", true).await.unwrap();
    assert!(first.still_held().await.is_err());
    drop((first, other));
    second.still_held().await.unwrap();
}
