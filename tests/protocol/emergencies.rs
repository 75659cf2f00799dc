//! A key has leaked: two policies, evictions, and no way back.

use std::time::Duration;

use reseal::app::OpenError;
use reseal::key::KeyState;

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT, TABLES, eventually, gate};

const HOUR: Duration = Duration::from_secs(3600);
const AT_ONCE: &[&str] = &["--compromised", "--evict-after", "1s", "--gate-timeout", "60s"];

pub fn availability_first_keeps_values_readable_and_evicts_whoever_is_missing(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let stale = house.stale_app("web-2");
    let leaked = app.handle.primary();
    let slowly = [AT_ONCE, &["--profile", "gentle", "--batch-rows", "10", "--workers", "1"]].concat();
    let mut running = house.rotate_until("re-encrypt", &slowly);
    eventually("batches are committed", || (house.moved() > 0).then_some(()));
    assert!(running.kill());
    // Compromised since the promotion, and offered until its values are moved.
    assert_eq!(house.keys()[0], (leaked, KeyState::Compromised, false, true));
    eventually("the application follows", || (app.handle.primary() != leaked).then_some(()));
    house.assert_readable(&app);

    // What was an emergency stays one, also for whoever does not say so again.
    let finished = house.rotate(&["--evict-after", "1s", "--gate-timeout", "60s"]);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(
        (&finished.document["mode"], &finished.document["policy"]),
        (&"compromised".into(), &"availability-first".into())
    );
    let stood = gate(&finished.document, "promote");
    assert_eq!(stood["evicted"], serde_json::json!([stale.reporting.instance()]), "{stood}");
    assert_eq!(
        stood["acknowledged"],
        serde_json::json!([app.reporting.instance()]),
        "{stood}"
    );
    assert_eq!(house.keys()[0], (leaked, KeyState::Compromised, true, false));
    assert_eq!(house.keys_in_data().len(), 1);
    house.assert_readable(&app);
    // Each value that was opened under the leaked key meanwhile was counted.
    let counted = house
        .instances()
        .into_iter()
        .find(|one| one.instance == app.reporting.instance())
        .unwrap();
    assert!(counted.compromised_opens > 0, "{counted:?}");
}

pub fn lock_down_takes_the_leaked_key_from_applications_at_once(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    // Waits after the promotion, before any value is moved: evictions come late.
    house.ack("php-1", 2, HOUR);
    let late = [
        "--compromised",
        "--policy",
        "lock-down",
        "--evict-after",
        "1h",
        "--gate-timeout",
        "60s",
    ];
    let mut running = house.rotate_until("promote", &late);
    eventually("the application follows", || (app.handle.revision() == 3).then_some(()));
    let (id, value) = house.values("customers", "email").remove(0);
    let place = format!("{}.{}:{id}", TABLES[0].0, TABLES[0].1);
    let opened = app.handle.open(value.as_bytes(), place.as_bytes()).err().unwrap();
    assert!(
        matches!(
            opened,
            OpenError::Withheld {
                standing: "compromised",
                ..
            }
        ),
        "{opened}"
    );
    assert_eq!(house.keys()[0].1, KeyState::Compromised);
    running.kill();
    let finished = house.rotate(&["--evict-after", "1s", "--gate-timeout", "60s"]);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(finished.document["policy"], "lock-down");
    assert_eq!(gate(&finished.document, "promote")["evicted"], serde_json::json!(["php-1"]));
    house.assert_readable(&app);
    assert_eq!((house.keys()[0].1, house.keys()[0].2), (KeyState::Compromised, true));
}

pub fn a_rotation_becomes_an_emergency_and_does_not_go_back(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    house.ack("php-1", 2, HOUR);
    let mut running = house.rotate_until("promote", PATIENT);
    eventually("the promotion is durable", || {
        (house.keys()[0].1 == KeyState::Retiring).then_some(())
    });
    running.kill();
    house.ack("php-1", 3, HOUR);
    let stopped = house.rotate(&[BRIEF, &["--compromised", "--evict-after", "1h"]].concat());
    // It stops at the gate, because the revision has grown: the leak is recorded all the same.
    assert_eq!(stopped.code, Some(5), "{}", stopped.text());
    assert_eq!((house.keys()[0].1, house.keys()[0].3), (KeyState::Compromised, true));
    let back = house.rotate(&[BRIEF, &["--rollback"]].concat());
    assert_eq!(back.code, Some(4), "{}", back.text());
    assert!(back.text().contains("leaked"), "{}", back.text());
    house.ack("php-1", 99, HOUR);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let back = house.rotate(&[BRIEF, &["--rollback"]].concat());
    assert_eq!(back.code, Some(4), "{}", back.text());
    house.assert_readable(&app);
}

/// Whoever has the leaked key can seal with it for years, and write into the table once more.
pub fn what_turns_up_under_a_leaked_key_that_was_retired_is_never_moved(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    let (id, forged) = house.values("customers", "email").remove(0);
    let done = house.rotate(AT_ONCE);
    assert_eq!(done.code, Some(0), "{}", done.text());
    let leaked = house.keys()[0].0;
    assert_eq!((house.keys()[0].1, house.keys()[0].2), (KeyState::Compromised, true));

    house.execute(&format!("UPDATE customers SET email = '{forged}' WHERE id = {id}"));
    let found = house.run(&["verify", KEYSET]);
    assert_eq!(found.code, Some(7), "{}", found.text());
    // Scheduled, as every quarter: nobody remembers the leak.
    let scheduled = house.rotate(PATIENT);
    assert_eq!(scheduled.code, Some(7), "{}", scheduled.text());
    let quarantined = scheduled.document["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 1, "{}", scheduled.text());
    assert_eq!(
        quarantined[0]["reason"],
        format!("sealed with key {leaked}, which has leaked and under which nothing was left: it may be forged")
    );
    assert_eq!(house.values("customers", "email").remove(0).1, forged, "it was touched");
    let again = house.rotate(PATIENT);
    assert_eq!(again.code, Some(7), "{}", again.text());
    assert_eq!(house.values("customers", "email").remove(0).1, forged, "it was touched");

    // Somebody has looked at it: it came from a backup.
    let accepted = house.rotate(&[PATIENT, &["--accept", "may-be-forged"]].concat());
    assert_eq!(accepted.code, Some(0), "{}", accepted.text());
    assert_eq!(house.keys_in_data(), [house.keys()[2].0]);
    house.assert_readable(&app);
}

/// A rotation away from a leaked key that another one takes the place of: what comes late under the leaked key may be forged still.
pub fn a_third_key_launders_no_forgery(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let (id, forged) = house.values("customers", "email").remove(0);
    let slowly = [AT_ONCE, &["--profile", "gentle", "--batch-rows", "10", "--workers", "1"]].concat();
    let mut running = house.rotate_until("re-encrypt", &slowly);
    eventually("batches are committed", || (house.moved() > 0).then_some(()));
    assert!(running.kill());
    house.hold_before("verify");
    let mut running = house.start(&[&["rotate", KEYSET, "--yes", "--supersede"], PATIENT].concat());
    eventually("both tables are moved", || {
        let third = house.keys().get(2).map(|key| key.0);
        third.filter(|third| house.keys_in_data() == [*third])
    });
    assert!(running.kill());
    house.let_pass();
    house.execute(&format!("UPDATE customers SET email = '{forged}' WHERE id = {id}"));
    let ended = house.rotate(PATIENT);
    assert_eq!(ended.code, Some(7), "{}", ended.text());
    assert_eq!(house.values("customers", "email").remove(0).1, forged, "it was touched");
    let quarantined = ended.document["quarantined"].as_array().unwrap();
    assert_eq!(quarantined.len(), 1, "{}", ended.text());
    assert!(
        quarantined[0]["reason"].as_str().unwrap().contains("it may be forged"),
        "{}",
        ended.text()
    );
    assert!(
        ended.stderr.contains("they may be forged, and were left as they are"),
        "{}",
        ended.text()
    );
    // Whoever asks again does not get it moved either.
    let again = house.rotate(PATIENT);
    assert_eq!(again.code, Some(7), "{}", again.text());
    assert_eq!(house.values("customers", "email").remove(0).1, forged, "it was touched");
    let fourth = house.rotate(&[PATIENT, &["--supersede"]].concat());
    assert_eq!(fourth.code, Some(4), "{}", fourth.text());
    assert!(fourth.text().contains("--accept may-be-forged"), "{}", fourth.text());
    assert_eq!(house.keys().len(), 3, "it came too late");

    // Rewritten through the application, it is done.
    let sealed = app
        .handle
        .seal(b"genuine", format!("customers.email:{id}").as_bytes())
        .unwrap();
    house.execute(&format!(
        "UPDATE customers SET email = '{}' WHERE id = {id}",
        String::from_utf8(sealed).unwrap()
    ));
    let done = house.rotate(PATIENT);
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(house.keys_in_data(), [house.keys()[2].0]);
}
