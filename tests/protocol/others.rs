//! Another database behind the name that a keyset was rotated under.

use serde_json::{Value, json};

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT};

const NOBODY: &[&str] = &["--expect-instances", "0"];
const ACCEPTED: &[&str] = &["--accept", "other-database"];

/// A staging copy that was made before the first rotation, in the place of what was rotated since.
pub fn a_file_in_which_no_rotation_has_run_is_refused_where_one_had() {
    let house = House::build(Kind::Sqlite, 40).unwrap();
    let staging = house.path("staging.db");
    house.execute(&format!("VACUUM INTO '{}'", staging.display()));
    let finished = house.rotate(&[PATIENT, NOBODY].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let keys = house.keys().len();

    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", house.path("app.db").display()));
    }
    std::fs::rename(&staging, house.path("app.db")).unwrap();
    is_refused(&house, keys);
    assert!(!house.has_state(), "nothing was touched");
    goes_on_when_accepted(&house);
}

/// Whatever the kind, another id is another database.
pub fn a_database_with_another_id_is_refused_until_it_is_accepted(kind: Kind) {
    let Some(house) = House::build(kind, 40) else { return };
    let finished = house.rotate(&[PATIENT, NOBODY].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let again = house.rotate(&[PATIENT, NOBODY].concat());
    assert_eq!(again.code, Some(0), "{}", again.text());
    let keys = house.keys().len();

    let mut seen = seen(&house);
    assert_eq!(seen["version"], 2);
    seen["databases"]["main"]["id"] = json!("somebody else's");
    write_seen(&house, &seen);
    is_refused(&house, keys);
    goes_on_when_accepted(&house);
}

/// A server that keeps its id to itself for once was told by it before, and is told by it again.
pub fn an_id_that_is_not_told_once_is_not_forgotten() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    let rotate = || {
        let finished = house.rotate(&[PATIENT, NOBODY].concat());
        assert_eq!(finished.code, Some(0), "{}", finished.text());
        seen(&house)["databases"]["main"]["id"].clone()
    };
    let known = rotate();
    assert!(known.is_string());
    house.execute("ALTER FUNCTION pg_catalog.pg_control_system() RENAME TO not_told");
    assert_eq!(rotate(), known);
}

/// What an older version has seen says less, and is read; what a newer one has seen is not guessed at.
pub fn what_other_versions_have_seen_is_read_or_refused() {
    let house = House::build(Kind::Sqlite, 40).unwrap();
    write_seen(&house, &json!({"version": 1, "open": false, "runs": {"main": 0}}));
    let finished = house.rotate(&[PATIENT, NOBODY].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(seen(&house)["databases"]["main"]["id"].is_string());
    write_seen(&house, &json!({"version": 3, "another field": []}));
    let refused = house.rotate(&[BRIEF, NOBODY].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("a newer reseal wrote it"), "{}", refused.text());
}

fn is_refused(house: &House, keys: usize) {
    let before = house.values("customers", "email");
    let refused = house.rotate(&[BRIEF, NOBODY].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    let error = &refused.document["error"];
    let failed = error["failed"].as_str().unwrap();
    assert!(failed.contains("not the database that") && failed.contains("main"), "{error}");
    let next = error["next"].as_str().unwrap();
    assert!(
        next.contains("pg_upgrade") && next.contains("--accept other-database"),
        "{error}"
    );
    assert_eq!(house.values("customers", "email"), before);
    assert_eq!(house.keys().len(), keys, "no key was made for it");
}

fn goes_on_when_accepted(house: &House) {
    let accepted = house.rotate(&[PATIENT, NOBODY, ACCEPTED].concat());
    assert_eq!(accepted.code, Some(0), "{}", accepted.text());
    assert_eq!(house.keys_in_data().len(), 1);
    let known = house.rotate(&[PATIENT, NOBODY].concat());
    assert_eq!(known.code, Some(0), "it is known now: {}", known.text());
}

fn seen(house: &House) -> Value {
    serde_json::from_slice(&std::fs::read(house.path(&seen_file())).unwrap()).unwrap()
}

fn write_seen(house: &House, seen: &Value) {
    std::fs::write(house.path(&seen_file()), serde_json::to_vec(seen).unwrap()).unwrap();
}

fn seen_file() -> String {
    format!("reseal.keyring.seen.{KEYSET}")
}
