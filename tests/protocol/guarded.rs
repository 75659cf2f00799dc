//! The databases' own guards in the rotation of a keyset: up only when every instance seals with the new key, gone before writers are
//! told to use another one, and gone in the end, whatever happened in between.

use std::time::Duration;

use reseal::key::KeyState;
use rustix::process::Signal;

use crate::support::people::Live;

use super::house::{House, KEYSET, Kind, PATIENT, SLOWLY, TABLES, eventually};

/// Names of everything that guards consist of.
fn parts(house: &House) -> Vec<String> {
    house.texts(
        "SELECT tgname::text FROM pg_trigger WHERE tgname LIKE 'zz_reseal_guard%' UNION ALL
         SELECT conname::text FROM pg_constraint WHERE conname LIKE 'reseal_guard%' UNION ALL
         SELECT proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('reseal')",
    )
}

/// Whether the database takes a value that was sealed as this one.
fn takes(house: &House, (table, column): (&str, &str), value: &str) -> bool {
    house
        .try_execute(&format!(
            "BEGIN; INSERT INTO {table} (id, {column}) VALUES (900001, '{value}'); ROLLBACK"
        ))
        .is_ok()
}

const HOUR: Duration = Duration::from_secs(3600);
const GUARDED: &[&str] = &["--guard", "--gate-timeout", "60s"];
fn slowly() -> Vec<&'static str> {
    [&["--guard"], SLOWLY].concat()
}

#[test]
fn guards_stand_from_the_last_acknowledgement_to_the_end() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    let stale: Vec<String> = TABLES
        .iter()
        .map(|(table, column)| house.values(table, column)[0].1.clone())
        .collect();
    house.ack("php-1", 2, HOUR);
    let running = house.rotate_until("promote", GUARDED);
    // The instance has not acknowledged the promotion: what it seals with the old key is still taken.
    assert_eq!(parts(&house), Vec::<String>::new());
    for (at, stale) in TABLES.into_iter().zip(&stale) {
        assert!(takes(&house, at, stale), "{at:?}");
    }
    house.ack("php-1", 3, HOUR);
    eventually("the retire gate", || {
        house.open_rotation().filter(|record| record.phase == "retire")
    });
    // The rotation is verified and proved; until the last instance has let go of the old key the guards stay.
    for (at, stale) in TABLES.into_iter().zip(&stale) {
        assert!(!takes(&house, at, stale), "{at:?}");
    }
    house.ack("php-1", 4, HOUR);
    let finished = running.wait();
    finished.assert_verified();
    for dataset in finished.document["datasets"].as_array().unwrap() {
        assert_eq!(
            dataset["guard"],
            serde_json::json!({ "proved": true, "removed": true }),
            "{dataset}"
        );
    }
    assert_eq!(parts(&house), Vec::<String>::new());
}

#[test]
fn a_rollback_takes_the_guards_away_before_anybody_seals_with_the_old_key() {
    let Some(house) = House::build(Kind::Postgres, 400) else {
        return;
    };
    let app = house.app("shop");
    let stale: Vec<String> = TABLES
        .iter()
        .map(|(table, column)| house.values(table, column)[0].1.clone())
        .collect();
    let mut running = house.rotate_until("re-encrypt", &slowly());
    eventually("values are moved", || (house.moved() > 20).then_some(()));
    // kill -9: the guards stay.
    assert!(running.kill());
    for (at, stale) in TABLES.into_iter().zip(&stale) {
        assert!(!takes(&house, at, stale), "{at:?}");
    }
    // The way back: the old key is given to everybody, and whoever seals with it is not refused.
    let old = house.keys()[0].0;
    let running = house.start(&["rotate", KEYSET, "--yes", "--rollback", "--gate-timeout", "60s"]);
    eventually("the old key is primary again", || {
        house
            .keys()
            .iter()
            .any(|key| key.0 == old && key.1 == KeyState::Primary)
            .then_some(())
    });
    for (at, stale) in TABLES.into_iter().zip(&stale) {
        assert!(takes(&house, at, stale), "{at:?}");
    }
    let finished = running.wait();
    finished.assert_verified();
    assert_eq!(finished.document["phase"], "rolled-back");
    assert_eq!(house.keys_in_data(), [old]);
    assert_eq!(parts(&house), Vec::<String>::new());
    house.assert_readable(&app);
}

#[test]
fn heavy_a_guard_that_others_keep_from_going_ends_the_run_as_incomplete() {
    let Some(house) = House::build(Kind::Postgres, 400) else {
        return;
    };
    let app = house.app("shop");
    let mut running = house.rotate_until("re-encrypt", &slowly());
    eventually("values are moved", || (house.moved() > 20).then_some(()));
    assert!(running.kill());
    let mut reader = Live::open(&house.url());
    reader.execute("BEGIN; SELECT count(*) FROM notes");
    let back = ["rotate", KEYSET, "--yes", "--rollback", "--gate-timeout", "60s"];
    let stopped = house.run(&back);
    // Keys were given back to readers: this is not a run that has touched nothing.
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    assert!(
        stopped.text().contains("dataset notes") && stopped.text().contains("guard"),
        "{}",
        stopped.text()
    );
    assert_eq!(house.keys()[1].1, KeyState::Primary, "nobody is to seal with what is refused");
    reader.execute("COMMIT");
    let finished = house.run(&back);
    finished.assert_verified();
    assert_eq!(parts(&house), Vec::<String>::new());
    house.assert_readable(&app);
}

#[test]
fn a_run_that_died_under_its_guards_goes_on_under_them_and_a_third_key_replaces_them() {
    let Some(house) = House::build(Kind::Postgres, 400) else {
        return;
    };
    let app = house.app("shop");
    let running = house.rotate_until("re-encrypt", &slowly());
    eventually("values are moved", || (house.moved() > 20).then_some(()));
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, Some(5));
    let first = parts(&house);
    assert!(!first.is_empty());

    let mut running = house.start(&[&["rotate", KEYSET, "--yes", "--supersede"], slowly().as_slice()].concat());
    eventually("another guard stands", || {
        let now = parts(&house);
        (now.iter().any(|name| name.starts_with("zz") && !first.contains(name))).then_some(())
    });
    let second = parts(&house);
    assert!(running.kill());
    let finished = house.rotate(PATIENT);
    finished.assert_verified();
    for name in first.iter().filter(|name| name.starts_with("zz")) {
        assert!(!second.contains(name), "{name} of the rotation that was superseded");
    }
    assert_eq!(
        finished.document["datasets"][0]["guard"]["removed"], true,
        "{}",
        finished.document
    );
    assert_eq!(house.keys_in_data(), [house.keys()[2].0]);
    assert_eq!(parts(&house), Vec::<String>::new());
    house.assert_readable(&app);
}

#[test]
fn what_cannot_be_guarded_is_refused_before_a_key_is_made() {
    let house = House::build(Kind::Sqlite, 5).unwrap();
    house.ack("php-1", 1, HOUR);
    let refused = house.rotate(GUARDED);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("only PostgreSQL"), "{}", refused.text());
    assert_eq!(house.keys().len(), 1);
}
