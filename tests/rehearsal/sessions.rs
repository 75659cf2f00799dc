//! Users who are logged in: a scheduled rotation logs nobody out, an emergency ends every session of before and no other.

use super::drilled::{Drilled, SMALL, assert_leaves_no_file, assert_leaves_no_schema, drill, drill_with};
use crate::support::{postgres, private_redis};

#[test]
fn heavy_a_key_that_leaked_takes_the_sessions_of_before_with_it_and_no_others() {
    let drilled = drill(None, &[&SMALL[..], &["--compromised"]].concat());
    drilled.assert_good();
    assert_ended(&drilled, "sqlite");
    assert!(
        drilled.told.contains("sessions of before the leak are dead"),
        "{}",
        drilled.told
    );
}

#[test]
fn heavy_on_postgres_with_sessions_in_redis_a_leaked_key_takes_them_with_it() {
    let Some(database) = postgres() else { return };
    let Some(server) = private_redis() else { return };
    let mine = ["--compromised", "--sessions", "env:SESSIONS_URL"];
    let arguments = [&SMALL[..], &mine].concat();
    let drilled = drill_with(Some(&database), &arguments, &[("SESSIONS_URL", server.url())]);
    drilled.assert_good();
    assert_ended(&drilled, "redis");
    assert_leaves_no_schema(&database);
    assert_eq!(server.run::<Vec<String>>("KEYS *"), Vec::<String>::new(), "its keys are gone");
}

#[test]
fn heavy_a_store_of_sessions_that_is_not_there_is_told_before_anything_is_made() {
    let url = "redis://:secret-word@127.0.0.1:1/";
    let drilled = drill_with(None, &["--sessions", "env:SESSIONS_URL"], &[("SESSIONS_URL", url)]);
    assert_eq!(drilled.code, Some(8), "{}", drilled.told);
    assert!(!drilled.told.contains("secret-word"), "{}", drilled.told);
    assert_leaves_no_file(drilled.temporary.path());
}

fn assert_ended(drilled: &Drilled, store: &str) {
    let sessions = &drilled.document["sessions"];
    assert_eq!(drilled.document["compromised"], true);
    assert_eq!(sessions["store"], store);
    for field in ["lost", "left", "failed"] {
        assert_eq!(sessions[field], 0, "{field}: {sessions}");
    }
    // Two hundred were logged in when it began, and some of them had logged out by themselves.
    assert!(sessions["ended"].as_u64().unwrap() > 50, "{sessions}");
    assert!(sessions["old_dead_after_seconds"].as_f64().is_some(), "{sessions}");
    // The rotation died when it had taken their cut-off, and kept it.
    let faults = drilled.document["faults"].as_array().unwrap();
    let killed = faults
        .iter()
        .find(|fault| fault["name"] == "kill -9 of the rotation while it ended sessions");
    let outcome = killed.and_then(|fault| fault["outcome"].as_str()).unwrap_or_default();
    assert!(
        outcome.contains("it ended the sessions of that cut-off and no others"),
        "{faults:?}"
    );
}
