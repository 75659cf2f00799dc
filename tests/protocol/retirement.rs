//! What keeps a key with readers, each reason with its count; and what a keyset's other commands say.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reseal::key::{Entry, KeyState, KeysetError, OldPrimary};
use reseal::rotation::protocol::{Managed, ProtocolError, destroy};
use reseal::store;
use serde_json::Value;

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT};
use crate::support::rotation::Finished;

const HOUR: Duration = Duration::from_secs(3600);

/// The reasons of a refusal, by name, with their counts.
pub fn needs(document: &Value) -> Vec<(&str, u64)> {
    let needs = document["needs"].as_array().unwrap_or_else(|| panic!("no needs: {document}"));
    needs
        .iter()
        .map(|need| (need["name"].as_str().unwrap(), need["count"].as_u64().unwrap()))
        .collect()
}

pub fn a_key_that_anything_needs_is_not_retired(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    let old = app.handle.primary().to_string();
    let (kept, keys) = (house.values("customers", "email"), house.keys());
    assert_eq!(keys.len(), 1);
    let done = house.rotate(&[PATIENT, &["--no-retire"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(done.document["retired"], serde_json::json!([]));
    assert_eq!((house.keys()[0].1, house.keys()[0].3), (KeyState::Retiring, true));

    // An instance that lags behind, values that came back, an undecided horizon: all at once.
    house.ack("php-1", 1, HOUR);
    for (id, value) in &kept[..3] {
        house.execute(&format!("UPDATE customers SET email = '{value}' WHERE id = {id}"));
    }
    house.execute("UPDATE notes SET note = 'AQAAAAB' || substr(note, 8) WHERE id = 5");
    house.configure("");
    let retire = ["keys", "retire", KEYSET, &old, "--config", "reseal.toml"];
    let refused = house.run(&retire);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(
        needs(&refused.document),
        [("values", 3), ("quarantine", 1), ("instances", 1), ("backup-horizon", 1)],
        "{}",
        refused.text()
    );
    assert!(
        refused.stderr.contains("php-1") && refused.stderr.contains(&format!("3 values are under key {old}")),
        "{}",
        refused.stderr
    );
    assert!(!house.keys()[0].2);

    house.execute("DELETE FROM notes WHERE id = 5");
    house.configure("[policy]\nbackup_horizon = \"35d\"\n");
    // The configuration in the folder is read unasked, as by rotate, plan and verify.
    for retire in [&retire[..], &retire[..4]] {
        let refused = house.run(retire);
        assert_eq!(refused.code, Some(4), "{}", refused.text());
        assert_eq!(needs(&refused.document), [("values", 3), ("instances", 1)]);
    }
    house.ack("php-1", 99, HOUR);
    let refused = house.run(&retire);
    assert_eq!(needs(&refused.document), [("values", 3)]);
    for (id, _) in &kept[..3] {
        house.execute(&format!("DELETE FROM customers WHERE id = {id}"));
    }
    let retired = house.run(&retire);
    assert_eq!(retired.code, Some(0), "{}", retired.text());
    assert!(house.keys()[0].2);
    let early = house.run(&["keys", "destroy", KEYSET, &old, "--yes"]);
    assert_eq!(early.code, Some(4), "{}", early.text());
    assert!(early.stderr.contains("must be kept until"), "{}", early.stderr);

    // Without a configuration nobody looks, and that is said.
    house.change(|keyset| {
        let id = keyset.keys()[0].id();
        keyset.stage(id, jiff::Timestamp::now()).unwrap();
    });
    std::fs::remove_file(house.path("reseal.toml")).unwrap();
    let identity = house.path("identity").display().to_string();
    let retired = house.run(&["keys", "retire", KEYSET, &old, "--identity", &identity]);
    assert_eq!(retired.code, Some(0), "{}", retired.text());
    assert!(retired.stderr.contains("Nobody has checked"), "{}", retired.stderr);
}

pub fn a_keyset_without_a_decision_on_backups_is_not_rotated(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let _app = house.app("web-1");
    house.configure("");
    let keyring = std::fs::read(house.path("reseal.keyring")).unwrap();
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("backup_horizon"), "{}", refused.text());
    assert_eq!(std::fs::read(house.path("reseal.keyring")).unwrap(), keyring);
    let done = house.rotate(&[PATIENT, &["--no-retire"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(house.keys()[0].1, KeyState::Retiring);
}

pub fn a_damaged_value_keeps_the_old_key_with_readers(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let _app = house.app("web-1");
    let whole = house.values("notes", "note").remove(6).1;
    let damaged = format!("{}AAAA{}", &whole[..20], &whole[24..]);
    house.execute(&format!("UPDATE notes SET note = '{damaged}' WHERE id = 7"));
    let found = house.rotate(PATIENT);
    assert_eq!(found.code, Some(7), "{}", found.text());
    assert_eq!(needs(&found.document), [("quarantine", 1)]);
    assert_eq!(found.document["quarantined"][0]["primary_key"]["id"], 7);
    assert_eq!(found.document["phase"], "verify");
    assert_eq!((house.keys()[0].1, house.keys()[0].2), (KeyState::Retiring, false));
    let id = house.open_rotation().unwrap().id;
    // Mended, the same rotation goes on to its end.
    house.execute(&format!("UPDATE notes SET note = '{whole}' WHERE id = 7"));
    let done = house.rotate(PATIENT);
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(done.document["rotation"], Value::from(id));
    assert!(house.keys()[0].2);
    // The key id that a value names proves nothing: every value is opened.
    let moved = house.values("notes", "note").remove(6).1;
    let damaged = format!(
        "{}{}{}",
        &moved[..20],
        if &moved[20..24] == "AAAA" { "BBBB" } else { "AAAA" },
        &moved[24..]
    );
    house.execute(&format!("UPDATE notes SET note = '{damaged}' WHERE id = 7"));
    let verified = house.run(&["verify", KEYSET]);
    assert_eq!(verified.code, Some(7), "{}", verified.text());
}

pub fn an_older_keyring_is_not_gone_on_with(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    house.ack("php-1", 1, HOUR);
    let old = std::fs::read(house.path("reseal.keyring")).unwrap();
    let stopped = house.rotate(BRIEF);
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    let newer = std::fs::read(house.path("reseal.keyring")).unwrap();
    std::fs::write(house.path("reseal.keyring"), &old).unwrap();
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(9), "{}", refused.text());
    assert!(refused.text().contains("older"), "{}", refused.text());
    std::fs::write(house.path("reseal.keyring"), &newer).unwrap();
    house.ack("php-1", 99, HOUR);
    assert_eq!(house.rotate(PATIENT).code, Some(0));
}

pub fn plan_and_verify_look_at_every_dataset(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let plan = house.run(&["plan", KEYSET]);
    assert_eq!(plan.code, Some(0), "{}", plan.text());
    let datasets = plan.document["datasets"].as_array().unwrap();
    assert_eq!(datasets.len(), 2);
    assert_eq!(
        (&datasets[0]["dataset"], &datasets[1]["dataset"]),
        (&"customers".into(), &"notes".into())
    );
    assert_eq!(plan.document["allowed"], true);
    // The configuration has one keyset with datasets: it need not be named.
    let verify = house.run(&["verify"]);
    assert_eq!(verify.code, Some(0), "{}", verify.text());
    assert_eq!(
        (verify.count("rows_scanned"), verify.count("values_already_current")),
        (40, 40)
    );
    assert_eq!(verify.document["census"].as_object().unwrap().len(), 1);
    // What belongs to a table is not passed over in silence where a keyset is meant, or the table was forgotten.
    let before = house.values("customers", "email");
    for command in ["plan", "rotate", "verify"] {
        for (option, value) in [
            ("--where", "id < 5"),
            ("--database", "sqlite:elsewhere.db"),
            ("--from", "env:OLD_KEY"),
            ("--plaintext", "refuse"),
        ] {
            let refused = house.run(&[command, KEYSET, option, value]);
            assert_eq!(refused.code, Some(2), "{command} {option}: {}", refused.text());
            assert!(
                refused.text().contains(&format!("{option} belongs to --table")),
                "{}",
                refused.text()
            );
        }
    }
    assert_eq!(house.values("customers", "email"), before);
    let unknown = house.run(&["verify", "orders"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.text());
    assert!(unknown.text().contains(KEYSET), "{}", unknown.text());
    assert!(!house.has_state());
}

pub fn a_key_is_destroyed_when_nothing_needs_it_and_no_backup_does(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    let old_value = house.values("customers", "email")[0].1.clone();
    let done = house.rotate(PATIENT);
    assert_eq!(done.code, Some(0), "{}", done.text());
    let old = house.keys()[0].0.to_string();
    let destroy =
        |more: &[&str]| house.run(&[&["keys", "destroy", KEYSET, &old, "--config", "reseal.toml", "--yes"], more].concat());
    let needs = |refused: &Finished| -> Vec<String> {
        assert_eq!(refused.code, Some(4), "{}", refused.text());
        let needs = refused.document["needs"].as_array().unwrap().iter();
        needs.map(|need| need["name"].as_str().unwrap().to_owned()).collect()
    };
    let kept = destroy(&[]);
    assert_eq!(kept.code, Some(4), "{}", kept.text());
    assert!(kept.text().contains("must be kept until"), "{}", kept.text());
    // The operator may wait longer than the configuration says, and not shorter.
    assert!(destroy(&["--backup-horizon", "0d"]).text().contains("must be kept until"));
    house.configure("");
    assert_eq!(needs(&destroy(&[])), ["backup-horizon"]);
    house.configure("[policy]\nbackup_horizon = \"1s\"\n");
    assert!(destroy(&["--backup-horizon", "35d"]).text().contains("must be kept until"));

    // The second after the retirement passes.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    // A value from a backup, and an instance that still holds the key.
    house.execute(&format!("UPDATE customers SET email = '{old_value}' WHERE id = 1"));
    house.ack("php-1", 1, std::time::Duration::from_secs(3600));
    assert_eq!(needs(&destroy(&[])), ["values", "instances"]);
    assert_eq!(house.keys()[0].1, KeyState::Retiring);
    house.ack("php-1", 99, std::time::Duration::from_secs(3600));
    assert_eq!(needs(&destroy(&[])), ["values"]);
    house.execute("DELETE FROM customers WHERE id = 1");

    let destroyed = destroy(&[]);
    assert_eq!(destroyed.code, Some(0), "{}", destroyed.text());
    assert_eq!(house.keys()[0].1, KeyState::Destroyed);
    assert_eq!(destroy(&[]).code, Some(0), "asked again it has happened");
    house.assert_readable(&app);
}

pub fn a_clock_that_is_ahead_destroys_no_key(kind: Kind) {
    let Some(house) = House::build(kind, 0) else { return };
    // A minute before the end of the horizon, which is a day.
    house.change(|keyset| {
        let (old, at) = (
            keyset.primary().id(),
            Timestamp::now() - SignedDuration::from_mins(24 * 60 - 1),
        );
        let new = keyset.add(keyset.primary().algorithm(), Entry::Staged, at).unwrap();
        keyset.promote(new, OldPrimary::Retires, at).unwrap();
        keyset.retire(old, at).unwrap();
    });
    let old = house.keys()[0].0;
    let store = store::open(&house.url(), "tests").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let destroy_at = |now: fn() -> Timestamp| {
        let managed = Managed {
            now,
            ..house.managed(Arc::clone(&store))
        };
        runtime.block_on(destroy(&managed, old, SignedDuration::ZERO, &Arc::default(), &Arc::default()))
    };
    let wrong: [fn() -> Timestamp; 2] = [
        || Timestamp::now() + SignedDuration::from_hours(48),
        || Timestamp::now() - SignedDuration::from_hours(48),
    ];
    for now in wrong {
        match destroy_at(now) {
            Err(ProtocolError::Refused { why, next }) => {
                assert!(why.contains("database main") && why.matches(":").count() >= 5, "{why}");
                assert!(next.contains(&format!("reseal keys destroy {KEYSET} {old}")), "{next}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Close enough to be believed, and not believed alone.
    match destroy_at(|| Timestamp::now() + SignedDuration::from_mins(2)) {
        Err(ProtocolError::Keyset(KeysetError::BackupHorizon { .. })) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(house.keys()[0].1, KeyState::Retiring, "nothing was changed");
}

pub fn a_dataset_may_be_a_part_of_its_table(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    let path = house.path("reseal.toml");
    let whole = std::fs::read_to_string(&path).unwrap();
    let restrict = |condition: &str| {
        let table = "table = \"customers\"\n";
        std::fs::write(&path, whole.replace(table, &format!("{table}where = \"{condition}\"\n"))).unwrap();
    };
    restrict("id <= 5) OR (1 = 1");
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert_eq!(house.keys().len(), 1);
    restrict("id <= 5");
    let before = house.values("customers", "email");
    let done = house.rotate(&[PATIENT, &["--no-retire"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(done.document["datasets"][0]["rows_scanned"], 5);
    for ((id, was), (_, is)) in before.iter().zip(house.values("customers", "email")) {
        assert_eq!(*was == is, *id > 5, "row {id}");
    }
    let verified = house.run(&["verify", KEYSET]);
    assert_eq!(verified.code, Some(0), "{}", verified.text());
    house.assert_readable(&app);
}
