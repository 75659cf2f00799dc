//! A key has leaked: two policies, evictions, and no way back.

use std::time::Duration;

use reseal::app::OpenError;
use reseal::key::KeyState;

use super::house::{BRIEF, House, Kind, PATIENT, TABLES, eventually, gate};

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
