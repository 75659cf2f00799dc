//! kill -9 while the rotation of a keyset proves that nothing is left under the old key, and while `reseal verify` reads alone.

use std::time::Duration;

use rand::RngExt as _;

use super::house::{House, KEYSET, Kind, eventually};
use crate::support::rotation::{Finished, Running};

const ROWS: i64 = 1_000;
const KILLS: u32 = 5;
/// With rests between pages, so that there is a middle to be killed in.
const GENTLY: &[&str] = &["--gate-timeout", "60s", "--profile", "gentle"];

pub fn killed_while_it_proves_it_proves_the_same(kind: Kind) {
    let (Some(house), Some(twin)) = (House::build(kind, ROWS), House::build(kind, ROWS)) else {
        return;
    };
    let _instance = twin.app("web-1");
    let whole = twin.rotate(GENTLY);
    assert_eq!(whole.code, Some(0), "{}", whole.text());
    let seconds = proving(&whole);

    let app = house.app("web-1");
    let all = 2 * ROWS.unsigned_abs();
    let mut last = None;
    for _ in 0..KILLS {
        let mut running = house.start(&[&["rotate", KEYSET, "--yes"], GENTLY].concat());
        eventually("every value is moved", || (house.moved() == all).then_some(()));
        if !killed_within(&mut running, seconds) {
            last = Some(running.wait());
            break;
        }
        house.assert_readable(&app);
        if house.open_rotation().is_none() {
            // Its end was durable, and only nobody has heard of it.
            break;
        }
        let mut reading = house.start(&["verify", KEYSET, "--profile", "gentle"]);
        killed_within(&mut reading, seconds);
        let verified = house.run(&["verify", KEYSET]);
        assert_eq!(verified.code, Some(0), "{}", verified.text());
        assert_eq!(verified.count("values_already_current"), all, "{}", verified.text());
    }
    if house.open_rotation().is_some() {
        last = Some(house.rotate(GENTLY));
    }
    if let Some(last) = last {
        assert_eq!(last.code, Some(0), "{}", last.text());
        assert_eq!(last.document["phase"], "done");
        // Killed when all was proven, it is left with the key's end alone.
        if proved(&last) {
            assert_eq!(counts(&last), counts(&whole));
        }
    }
    assert!(house.open_rotation().is_none());
    let states = |house: &House| house.keys().into_iter().map(|key| (key.1, key.2, key.3)).collect::<Vec<_>>();
    assert_eq!(states(&house), states(&twin));
    assert_eq!(house.keys_in_data(), [house.keys()[1].0]);
    house.assert_readable(&app);
}

/// Killed at some moment of the next seconds. `false`: it was over by then.
fn killed_within(running: &mut Running, seconds: f64) -> bool {
    let moment = rand::rng().random_range(0.0..seconds);
    std::thread::sleep(Duration::from_secs_f64(moment));
    running.kill()
}

/// How long an undisturbed run was at it. A run after a kill looks at the datasets anew, which is a part of re-encrypt.
fn proving(whole: &Finished) -> f64 {
    let phases = whole.document["phases"].as_array().unwrap();
    let proving = phases
        .iter()
        .filter(|phase| phase["name"] == "re-encrypt" || phase["name"] == "verify");
    let seconds: f64 = proving.map(|phase| phase["seconds"].as_f64().unwrap()).sum();
    assert!(seconds > 0.0, "{}", whole.text());
    seconds
}

fn proved(finished: &Finished) -> bool {
    let phases = finished.document["phases"].as_array().unwrap();
    phases.iter().any(|phase| phase["name"] == "verify")
}

/// What was proven, of all datasets together. A dataset that was verified before the kill is proven again, and nothing in it re-encrypted.
fn counts(finished: &Finished) -> [u64; 4] {
    [
        finished.count("rows_scanned"),
        finished.count("values_reencrypted") + finished.count("values_already_current"),
        finished.count("values_null"),
        finished.count("quarantined_total"),
    ]
}
