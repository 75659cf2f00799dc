//! What operators ask of the rotation of a keyset, from another process.

use std::time::Duration;

use reseal::key::KeyState;

use super::house::{House, Kind, PATIENT, SLOWLY, eventually};

/// Batch by batch of ten, they last for longer than it takes to be heard.
const ROWS: i64 = 3_000;
const HOUR: Duration = Duration::from_secs(3600);

fn ask(house: &House, arguments: &[&str]) {
    let asked = house.run(arguments);
    assert_eq!(asked.code, Some(0), "{}", asked.text());
    assert_eq!(asked.document["request"]["keyset"], super::house::KEYSET, "{}", asked.text());
}

pub fn a_paused_keyset_is_not_promoted_and_moves_nothing(kind: Kind) {
    let Some(house) = House::build(kind, ROWS) else { return };
    house.ack("php-1", 1, HOUR);
    let mut running = house.rotate_until("introduce", SLOWLY);
    ask(&house, &["pause"]);
    // Longer than it takes to hear of it.
    std::thread::sleep(Duration::from_secs(2));
    house.ack("php-1", 99, HOUR);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(house.keys()[1].1, KeyState::Staged, "nothing is promoted while it is paused");
    ask(&house, &["resume"]);
    eventually("values are moved", || (house.moved() > 0).then_some(()));
    ask(&house, &["pause"]);
    std::thread::sleep(Duration::from_secs(2));
    let moved = house.moved();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(house.moved(), moved, "nothing is moved while it is paused");
    assert!(moved < 2 * ROWS.unsigned_abs() && running.is_running());
    ask(&house, &["throttle", "--profile", "fast"]);
    ask(&house, &["resume"]);
    let finished = running.wait();
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert!(
        finished.document["throttled_seconds"]["paused"].as_f64().unwrap() > 0.0,
        "{}",
        finished.text()
    );
}

pub fn an_aborted_rotation_of_a_keyset_goes_on_with_the_same_command(kind: Kind) {
    let Some(house) = House::build(kind, ROWS) else { return };
    let app = house.app("web-1");
    let running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("values are moved", || (house.moved() > 0).then_some(()));
    ask(&house, &["abort"]);
    let ended = running.wait();
    assert_eq!(ended.code, Some(5), "{}", ended.text());
    assert!(
        ended.text().contains("aborted by") && ended.text().contains("--rollback"),
        "{}",
        ended.text()
    );
    assert!(house.open_rotation().is_some());
    house.assert_readable(&app);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    house.assert_readable(&app);
}
