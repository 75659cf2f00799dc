//! Plans, ranges and locks: who may write, and what is remembered.

use reseal::store::control::{Counters, Fence, LateValues, Plan, PlanIdentity, PlanStatus, Range};
use reseal::store::survey::Survey;
use reseal::store::{Control, PageEnd, Store, StoreError};

use crate::stores::fixture::{Fixture, target, texts};
use crate::stores::toy::{batch, rows, session};

/// A plan's identity.
pub fn identity(id: &str) -> PlanIdentity {
    PlanIdentity {
        id: id.to_owned(),
        table: "t".to_owned(),
        columns: "c (toy)".to_owned(),
        from: "old".to_owned(),
        to: "new".to_owned(),
    }
}

/// A new plan with one range that covers the table as it is now.
pub async fn claimed(store: &dyn Store, survey: &Survey) -> (Box<dyn Control>, Plan) {
    let mut control = store.control().await.unwrap();
    control.migrate().await.unwrap();
    let plan = control.claim_plan(&identity("plan"), "ada@host").await.unwrap();
    let intervals = store.intervals(survey, 1, true).await.unwrap();
    control.add_ranges(&plan, &intervals).await.unwrap();
    (control, plan)
}

/// The proof of ownership of a range as it stands.
pub fn fence(range: &Range) -> Fence {
    Fence {
        plan: "plan".to_owned(),
        range: range.id,
        epoch: range.epoch,
    }
}

async fn table(fixture: &dyn Fixture, count: i64) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    for id in 1..=count {
        fixture.execute(&format!("INSERT INTO t VALUES ({id}, 'o:{id}')")).await;
    }
}

async fn count_new(fixture: &dyn Fixture) -> String {
    texts(fixture, "SELECT count(*) FROM t WHERE c LIKE 'n:%'").await.remove(0)
}

pub async fn cursor_and_counters_commit_with_the_rows(fixture: &dyn Fixture) {
    table(fixture, 10).await;
    fixture.execute("UPDATE t SET c = NULL WHERE id = 9").await;
    fixture.execute("UPDATE t SET c = 'n:10' WHERE id = 10").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    assert_eq!((plan.generation, plan.status), (1, PlanStatus::Running));
    let mut range = control.ranges("plan").await.unwrap().remove(0);
    let mut ends = Vec::new();
    while !range.done {
        let done = batch(
            &mut *session,
            &range.interval,
            range.cursor.as_ref(),
            rows(4),
            Some(&fence(&range)),
            true,
        )
        .await
        .unwrap();
        let now = control.range("plan", range.id).await.unwrap().unwrap();
        assert_eq!(now.cursor, done.cursor.or(range.cursor));
        assert_eq!(now.done, done.end == PageEnd::End);
        ends.push(now.cursor.as_ref().unwrap().cells().next().unwrap().as_int().unwrap());
        range = now;
    }
    assert_eq!(ends, [4, 8, 10]);
    let expected = Counters {
        rows_scanned: 10,
        values_reencrypted: 8,
        rows_reencrypted: 8,
        values_already_current: 1,
        values_null: 1,
        lost_races: 0,
    };
    assert_eq!(range.counters, expected);
    assert_eq!(control.totals("plan").await.unwrap(), expected);
}

pub async fn a_stale_epoch_writes_nothing(fixture: &dyn Fixture) {
    table(fixture, 10).await;
    fixture.execute("UPDATE t SET c = 'plain' WHERE id = 1").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, _) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    let mut stale = [
        Fence {
            epoch: range.epoch - 1,
            ..fence(&range)
        },
        Fence {
            epoch: range.epoch + 1,
            ..fence(&range)
        },
        Fence {
            range: range.id + 1000,
            ..fence(&range)
        },
        Fence {
            plan: "another".to_owned(),
            ..fence(&range)
        },
    ];
    for stale in &stale {
        for advance in [true, false] {
            let error = batch(&mut *session, &range.interval, None, rows(100), Some(stale), advance)
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::Superseded), "{stale:?}: {error:?}");
        }
    }
    // Even where there is nothing to write but an entry in quarantine; and when only the plan was taken over.
    fixture.execute("DELETE FROM t WHERE id > 1").await;
    for _ in ["a stale epoch", "a stale plan"] {
        let error = batch(&mut *session, &range.interval, None, rows(100), Some(&stale[0]), false)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Superseded), "{error:?}");
        let plans = fixture.control_table("plan");
        fixture
            .execute(&format!("UPDATE {plans} SET generation = generation + 1"))
            .await;
        stale[0].epoch = range.epoch;
    }
    assert_eq!(count_new(fixture).await, "0");
    let now = control.range("plan", range.id).await.unwrap().unwrap();
    assert_eq!((now.cursor, now.done, now.counters), (None, false, Counters::default()));
    assert!(control.quarantine("plan", usize::MAX).await.unwrap().is_empty());
}

pub async fn a_take_over_bumps_every_range(fixture: &dyn Fixture) {
    table(fixture, 20).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let mut control = store.control().await.unwrap();
    control.migrate().await.unwrap();
    let plan = control.claim_plan(&identity("plan"), "ada@host").await.unwrap();
    control
        .add_ranges(&plan, &store.intervals(&survey, 2, true).await.unwrap())
        .await
        .unwrap();
    let before = control.ranges("plan").await.unwrap();
    assert_eq!(before.len(), 2);
    // One range is finished, the other is not.
    batch(
        &mut *session,
        &before[0].interval,
        None,
        rows(100),
        Some(&fence(&before[0])),
        true,
    )
    .await
    .unwrap();
    let mut other = store.control().await.unwrap();
    let taken = other.claim_plan(&identity("plan"), "bob@host").await.unwrap();
    assert_eq!((taken.generation, taken.owner.as_str()), (2, "bob@host"));
    assert_eq!(taken.created_at, plan.created_at);
    for stale in &before {
        let error = batch(&mut *session, &stale.interval, None, rows(100), Some(&fence(stale)), true)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Superseded), "{error:?}");
    }
    assert!(matches!(control.add_ranges(&plan, &[]).await, Err(StoreError::Superseded)));
    let now = other.ranges("plan").await.unwrap();
    assert!(now[0].done && !now[1].done);
    let done = batch(
        &mut *session,
        &now[1].interval,
        now[1].cursor.as_ref(),
        rows(100),
        Some(&fence(&now[1])),
        true,
    )
    .await
    .unwrap();
    assert_eq!(done.end, PageEnd::End);
    assert_eq!(count_new(fixture).await, "20");
}

pub async fn a_claim_fences_off_every_plan_of_its_table(fixture: &dyn Fixture) {
    table(fixture, 10).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let stale = control.ranges("plan").await.unwrap().remove(0);
    let elsewhere = PlanIdentity {
        table: "another".to_owned(),
        ..identity("elsewhere")
    };
    let elsewhere = control.claim_plan(&elsewhere, "cy@host").await.unwrap();

    let back = PlanIdentity {
        from: "new".to_owned(),
        to: "old".to_owned(),
        ..identity("back")
    };
    let mut other = fixture.store().control().await.unwrap();
    assert_eq!(other.claim_plan(&back, "bob@host").await.unwrap().generation, 1);
    for advance in [true, false] {
        let error = batch(&mut *session, &stale.interval, None, rows(100), Some(&fence(&stale)), advance)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Superseded), "{error:?}");
    }
    for refused in [
        control.add_ranges(&plan, &[]).await,
        control.set_status(&plan, PlanStatus::Verified).await,
        control.restart(&plan).await,
        control.clear_quarantine(&plan).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Superseded)), "{refused:?}");
    }
    assert_eq!(count_new(fixture).await, "0");
    control.set_status(&elsewhere, PlanStatus::Verified).await.unwrap();

    // It is still the plan of its last holder, until it is claimed again.
    let now = control.plan("plan").await.unwrap().unwrap();
    assert_eq!((now.owner.as_str(), now.status), ("ada@host", PlanStatus::Running));
    let again = control.claim_plan(&identity("plan"), "ada@host").await.unwrap();
    assert!(again.generation > now.generation && now.generation > plan.generation);
    let range = control.ranges("plan").await.unwrap().remove(0);
    assert_eq!(range.epoch, again.generation);
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), true)
        .await
        .unwrap();
    assert_eq!(count_new(fixture).await, "10");
}

pub async fn of_two_claims_at_once_one_is_fenced_off(fixture: &dyn Fixture) {
    let store = fixture.store();
    let (mut one, mut two) = (store.control().await.unwrap(), store.control().await.unwrap());
    one.migrate().await.unwrap();
    for round in 0..30 {
        let (forth, back) = (identity(&format!("forth {round}")), identity(&format!("back {round}")));
        let claims = tokio::join!(one.claim_plan(&forth, "ada@host"), two.claim_plan(&back, "bob@host"));
        let mut current = 0;
        for claim in [claims.0.unwrap(), claims.1.unwrap()] {
            let now = one.plan(&claim.identity.id).await.unwrap().unwrap();
            current += i32::from(now.generation == claim.generation);
        }
        assert_eq!(current, 1, "round {round}");
    }
}

pub async fn what_a_plan_has_interrupted_and_undoes_begins_afresh(fixture: &dyn Fixture) {
    table(fixture, 10).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    batch(&mut *session, &range.interval, None, rows(4), Some(&fence(&range)), true)
        .await
        .unwrap();
    control.set_status(&plan, PlanStatus::Swept).await.unwrap();
    let before = control.ranges("plan").await.unwrap().remove(0);
    assert!(before.cursor.is_some());

    // Other columns, or the same with another condition on rows, leave it where it is.
    let beside = [
        PlanIdentity {
            columns: "d (toy)".to_owned(),
            from: "new".to_owned(),
            to: "old".to_owned(),
            ..identity("other columns")
        },
        identity("other rows"),
    ];
    for identity in &beside {
        control.claim_plan(identity, "ada@host").await.unwrap();
        assert_eq!(control.ranges("plan").await.unwrap()[0].cursor, before.cursor);
        assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Swept);
    }

    let back = PlanIdentity {
        from: "new".to_owned(),
        to: "old".to_owned(),
        ..identity("back")
    };
    let back = control.claim_plan(&back, "ada@host").await.unwrap();
    let afresh = control.ranges("plan").await.unwrap().remove(0);
    assert_eq!((&afresh.cursor, afresh.done), (&None, false));
    assert_eq!((afresh.counters, &afresh.interval), (before.counters, &before.interval));
    assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Running);

    // That one was verified stays on record: it is verified again before anybody believes it. What it moved was moved back.
    let again = control.ranges("plan").await.unwrap().remove(0);
    batch(&mut *session, &again.interval, None, rows(4), Some(&fence(&again)), true)
        .await
        .unwrap();
    let plan = control.plan("plan").await.unwrap().unwrap();
    control.set_status(&plan, PlanStatus::Verified).await.unwrap();
    assert_eq!(
        control.ranges("plan").await.unwrap()[0].counters.rows_scanned,
        before.counters.rows_scanned + 4
    );
    control.claim_plan(&back.identity, "ada@host").await.unwrap();
    assert_eq!(control.ranges("plan").await.unwrap()[0].cursor, None);
    assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Verified);
}

pub async fn stored_ranges_survive_a_new_connection(fixture: &dyn Fixture) {
    for table in crate::stores::fixture::key_tables(fixture) {
        table.fill(fixture).await;
        let store = fixture.store();
        let survey = store.survey(&target("t", &["c"], &["n"])).await.unwrap();
        let mut control = store.control().await.unwrap();
        control.migrate().await.unwrap();
        let plan = control.claim_plan(&identity(table.name), "ada@host").await.unwrap();
        let intervals = store.intervals(&survey, 3, true).await.unwrap();
        control.add_ranges(&plan, &intervals).await.unwrap();
        // Each batch on a connection of its own, as after a crash.
        for _ in 0..100 {
            let ranges = fixture.store().control().await.unwrap().ranges(table.name).await.unwrap();
            let stored: Vec<_> = ranges.iter().map(|range| range.interval.clone()).collect();
            assert_eq!(stored, intervals, "{}", table.name);
            let Some(range) = ranges.iter().find(|range| !range.done) else {
                break;
            };
            let owned = Fence {
                plan: table.name.to_owned(),
                ..fence(range)
            };
            let mut session = fixture.store().session(&survey).await.unwrap();
            batch(
                &mut *session,
                &range.interval,
                range.cursor.as_ref(),
                rows(2),
                Some(&owned),
                true,
            )
            .await
            .unwrap();
        }
        let totals = control.totals(table.name).await.unwrap();
        assert_eq!(totals.rows_reencrypted, table.rows.len() as u64, "{}", table.name);
        assert_eq!(totals.rows_scanned, table.rows.len() as u64, "{}", table.name);
        assert_eq!(count_new(fixture).await, table.rows.len().to_string(), "{}", table.name);
    }
}

pub async fn sweeps_leave_the_cursor_alone(fixture: &dyn Fixture) {
    table(fixture, 6).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, _) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), true)
        .await
        .unwrap();
    let finished = control.range("plan", range.id).await.unwrap().unwrap();
    fixture.execute("UPDATE t SET c = 'o:late' WHERE id = 3").await;
    let swept = batch(&mut *session, &range.interval, None, rows(2), Some(&fence(&range)), false)
        .await
        .unwrap();
    assert_eq!(swept.end, PageEnd::More);
    batch(
        &mut *session,
        &range.interval,
        swept.cursor.as_ref(),
        rows(100),
        Some(&fence(&range)),
        false,
    )
    .await
    .unwrap();
    let now = control.range("plan", range.id).await.unwrap().unwrap();
    assert_eq!((now.cursor, now.done), (finished.cursor, true));
    assert_eq!(now.counters.rows_reencrypted, finished.counters.rows_reencrypted + 1);
    assert_eq!(count_new(fixture).await, "6");
}

pub async fn migrating_twice_changes_nothing(fixture: &dyn Fixture) {
    let store = fixture.store();
    let mut control = store.control().await.unwrap();
    assert!(!control.exists().await.unwrap());
    assert!(control.plans().await.is_err(), "reading must not create tables");
    assert!(!control.exists().await.unwrap());
    control.migrate().await.unwrap();
    let plan = control.claim_plan(&identity("plan"), "ada@host").await.unwrap();
    control.migrate().await.unwrap();
    store.control().await.unwrap().migrate().await.unwrap();
    assert!(control.exists().await.unwrap());
    let plans = control.plans().await.unwrap();
    assert_eq!(plans.len(), 1);
    assert_eq!((&plans[0].identity, plans[0].generation), (&plan.identity, 1));
    assert!(control.plan("another").await.unwrap().is_none());
    assert!(control.range("plan", 0).await.unwrap().is_none());
    assert!(
        plan.created_at.ends_with('Z') && plan.created_at.contains('T'),
        "{}",
        plan.created_at
    );
}

pub async fn a_newer_state_is_refused(fixture: &dyn Fixture) {
    let store = fixture.store();
    store.control().await.unwrap().migrate().await.unwrap();
    let meta = fixture.control_table("meta");
    for (value, what) in [("'999'", "newer"), ("'not a number'", "damaged")] {
        fixture
            .execute(&format!("UPDATE {meta} SET value = {value} WHERE name = 'version'"))
            .await;
        let mut control = store.control().await.unwrap();
        assert!(matches!(control.migrate().await, Err(StoreError::State(_))), "{what}");
        assert!(matches!(control.exists().await, Err(StoreError::State(_))), "{what}");
        assert!(matches!(control.plans().await, Err(StoreError::State(_))), "{what}");
        let claim = control.claim_plan(&identity("plan"), "ada@host").await;
        assert!(matches!(claim, Err(StoreError::State(_))), "{what}");
    }
    assert_eq!(
        texts(fixture, &format!("SELECT count(*) FROM {}", fixture.control_table("plan"))).await,
        ["0"]
    );
}

pub async fn late_values_commit_with_their_batch(fixture: &dyn Fixture) {
    table(fixture, 6).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    assert_eq!(control.late("plan", 10).await.unwrap(), LateValues::default());
    fixture.execute("UPDATE t SET c = 'o:late' WHERE id IN (2, 5)").await;
    let range = control.ranges("plan").await.unwrap().remove(0);

    // A batch that is rejected leaves no record, whatever its fence is wrong about.
    for stale in [
        Fence {
            epoch: range.epoch - 1,
            ..fence(&range)
        },
        Fence {
            plan: "another".to_owned(),
            ..fence(&range)
        },
    ] {
        let refused = batch(&mut *session, &range.interval, None, rows(100), Some(&stale), false).await;
        assert!(matches!(refused, Err(StoreError::Superseded)), "{refused:?}");
    }
    assert_eq!(control.late("plan", 10).await.unwrap(), LateValues::default());

    let before = control.now().await.unwrap();
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), false)
        .await
        .unwrap();
    let after = control.now().await.unwrap();
    let late = control.late("plan", 10).await.unwrap();
    let ids = |late: &LateValues| -> Vec<i64> {
        let keys = late
            .values
            .iter()
            .map(|stored| stored.value.key.cells().next().unwrap().as_int());
        keys.map(Option::unwrap).collect()
    };
    assert_eq!((ids(&late), late.total), (vec![2, 5], 2));
    for stored in &late.values {
        assert_eq!((&stored.relation, stored.value.column), (&range.interval.relation, 0));
        assert!(
            before <= stored.seen_at && stored.seen_at <= after,
            "{before} {stored:?} {after}"
        );
        assert_eq!(stored.seen_at, stored.last_seen_at);
    }
    assert_eq!(count_new(fixture).await, "6");

    // Seen again it is one value still, with the time at which it was seen first; and a list may be short.
    fixture.execute("UPDATE t SET c = 'o:later' WHERE id = 5").await;
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), false)
        .await
        .unwrap();
    let again = control.late("plan", 10).await.unwrap();
    assert_eq!((&again.values[0], again.total), (&late.values[0], 2));
    assert_eq!(again.values[1].seen_at, late.values[1].seen_at);
    assert!(again.values[1].last_seen_at >= after, "{again:?}");
    let short = control.late("plan", 1).await.unwrap();
    assert_eq!((short.values.len(), short.total), (1, 2));
    assert_eq!(control.late("another", 10).await.unwrap().total, 0);

    // Tables of a Reseal that knew no late values: reading finds none, and migrating adds what is missing.
    fixture
        .execute(&format!("DROP TABLE {}", fixture.control_table("late_value")))
        .await;
    let version = format!(
        "UPDATE {} SET value = '1' WHERE name = 'version'",
        fixture.control_table("meta")
    );
    fixture.execute(&version).await;
    assert_eq!(control.late("plan", 10).await.unwrap(), LateValues::default());
    control.migrate().await.unwrap();
    assert_eq!(control.plan("plan").await.unwrap().unwrap().generation, plan.generation);
    fixture.execute("UPDATE t SET c = 'o:late' WHERE id = 1").await;
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), false)
        .await
        .unwrap();
    assert_eq!(ids(&control.late("plan", 10).await.unwrap()), [1]);
}

pub async fn quarantine_is_cleared_by_the_current_plan_only(fixture: &dyn Fixture) {
    table(fixture, 3).await;
    fixture.execute("UPDATE t SET c = 'plain' WHERE id = 2").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), true)
        .await
        .unwrap();
    let taken = control.claim_plan(&identity("plan"), "bob@host").await.unwrap();
    assert!(matches!(control.clear_quarantine(&plan).await, Err(StoreError::Superseded)));
    let stored = control.quarantine("plan", usize::MAX).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert!(control.quarantine("plan", 0).await.unwrap().is_empty());
    let reason = stored[0].entry.reason.as_str();
    for (reason, count) in [(None, 1), (Some(reason), 1), (Some("another"), 0)] {
        assert_eq!(control.quarantined("plan", reason).await.unwrap(), count, "{reason:?}");
    }
    assert_eq!(control.quarantined("another", None).await.unwrap(), 0);
    control.clear_quarantine(&taken).await.unwrap();
    assert!(control.quarantine("plan", usize::MAX).await.unwrap().is_empty());
}

pub async fn status_moves_under_the_current_generation_only(fixture: &dyn Fixture) {
    let store = fixture.store();
    let mut control = store.control().await.unwrap();
    control.migrate().await.unwrap();
    let old = control.claim_plan(&identity("plan"), "ada@host").await.unwrap();
    let new = control.claim_plan(&identity("plan"), "bob@host").await.unwrap();
    assert!(matches!(
        control.set_status(&old, PlanStatus::Verified).await,
        Err(StoreError::Superseded)
    ));
    assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Running);
    control.set_status(&new, PlanStatus::Swept).await.unwrap();
    assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Swept);
}

pub async fn a_plan_that_begins_afresh_keeps_its_counters(fixture: &dyn Fixture) {
    table(fixture, 5).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), true)
        .await
        .unwrap();
    control.set_status(&plan, PlanStatus::Verified).await.unwrap();
    let before = control.ranges("plan").await.unwrap().remove(0);
    assert!(before.done && before.cursor.is_some());

    let taken = control.claim_plan(&identity("plan"), "bob@host").await.unwrap();
    assert!(matches!(control.restart(&plan).await, Err(StoreError::Superseded)));
    assert!(control.ranges("plan").await.unwrap()[0].done);
    control.restart(&taken).await.unwrap();
    let after = control.ranges("plan").await.unwrap().remove(0);
    assert!(!after.done && after.cursor.is_none());
    assert_eq!((after.counters, &after.interval), (before.counters, &before.interval));
    assert_eq!(control.plan("plan").await.unwrap().unwrap().status, PlanStatus::Running);
}

pub async fn one_operator_at_a_time(fixture: &dyn Fixture) {
    table(fixture, 1).await;
    let store = fixture.store();
    let survey = store.survey(&target("t", &["c"], &[])).await.unwrap();
    let mut first = store.lock(&survey, "ada@host, pid 7", false).await.unwrap();
    first.still_held().await.unwrap();
    let refused = fixture.store().lock(&survey, "bob@host", false).await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::Held { holder } if holder.contains("ada@host")),
        "{refused:?}"
    );
    // As after a connection that swallows everything: the server still keeps it.
    first.retake().await.unwrap();
    first.still_held().await.unwrap();
    drop(first);
    // A server frees the lock when it sees that the connection ended, which may take a moment.
    for attempt in 0.. {
        match store.lock(&survey, "bob@host", false).await {
            Ok(mut second) => return second.still_held().await.unwrap(),
            Err(error) => assert!(attempt < 100, "{error:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub async fn a_lock_that_was_taken_over_is_noticed(fixture: &dyn Fixture) {
    table(fixture, 1).await;
    let store = fixture.store();
    let survey = store.survey(&target("t", &["c"], &[])).await.unwrap();
    let mut first = store.lock(&survey, "ada@host", false).await.unwrap();
    let mut second = store.lock(&survey, "bob@host", true).await.unwrap();
    assert!(first.still_held().await.is_err());
    let lost = first.retake().await.unwrap_err();
    assert!(
        matches!(&lost, StoreError::Held { holder } if holder.contains("bob@host")),
        "{lost:?}"
    );
    second.still_held().await.unwrap();
    // The loser's end must not free the winner's lock.
    drop(first);
    second.still_held().await.unwrap();
    let third = store.lock(&survey, "cy@host", false).await.err().unwrap();
    assert!(
        matches!(&third, StoreError::Held { holder } if holder.contains("bob@host")),
        "{third:?}"
    );
}
