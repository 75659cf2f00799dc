//! Gates that open, and gates that do not.

use std::time::Duration;

use reseal::key::KeyState;
use serde_json::Value;

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT, eventually, gate};

pub fn a_keyset_is_rotated_while_instances_follow(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let (one, two) = (house.app("web-1"), house.app("web-2"));
    let old = one.handle.primary();
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let document = &finished.document;
    assert_eq!(
        (&document["schema"], &document["verified"]),
        (&"reseal.rotate/1".into(), &true.into())
    );
    assert_eq!((&document["phase"], &document["mode"]), (&"done".into(), &"scheduled".into()));
    assert_eq!(finished.count("values_reencrypted"), 600);
    let phases: Vec<&str> = document["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["introduce", "promote", "re-encrypt", "verify", "retire"]);
    for phase in ["introduce", "promote", "retire"] {
        let gate = gate(document, phase);
        assert_eq!(gate["acknowledged"].as_array().unwrap().len(), 2, "{gate}");
        assert_eq!(gate["missing"].as_array().unwrap().len(), 0, "{gate}");
    }
    assert_eq!(document["datasets"].as_array().unwrap().len(), 2);
    assert_eq!(document["instances"].as_array().unwrap().len(), 2);
    assert_eq!(document["retired"], serde_json::json!([old.0]));

    let new = house.keys_in_data();
    assert_eq!(new.len(), 1);
    let keys = house.keys();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], (old, KeyState::Retiring, true, false));
    assert_eq!((keys[1].0, keys[1].1), (new[0], KeyState::Primary));
    for app in [&one, &two] {
        assert_eq!(app.handle.primary(), new[0]);
        house.assert_readable(app);
    }
    // The next quarter's is a rotation of its own, and ends with a single key again.
    let again = house.rotate(PATIENT);
    assert_eq!(again.code, Some(0), "{}", again.text());
    assert_ne!(again.document["rotation"], document["rotation"]);
    let third = house.keys_in_data();
    assert!(third.len() == 1 && third != new, "{third:?}");
    house.assert_readable(&one);
}

pub fn nothing_is_promoted_before_every_live_instance_has_acknowledged(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let follows = house.app("web-1");
    let stale = house.stale_app("web-2");
    let before = house.values("customers", "email");
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    assert!(refused.text().contains(stale.reporting.instance()), "{}", refused.text());
    assert!(
        !refused.document["error"]["failed"]
            .as_str()
            .unwrap()
            .contains(follows.reporting.instance())
    );
    let stood = &refused.document["gate"];
    assert_eq!(
        (&stood["name"], &stood["missing"][0]["instance"]),
        (&"introduce".into(), &stale.reporting.instance().into())
    );
    let states: Vec<KeyState> = house.keys().iter().map(|key| key.1).collect();
    assert_eq!(states, [KeyState::Primary, KeyState::Staged]);
    assert_eq!(house.values("customers", "email"), before);
    let id = refused.document["gate"]["revision"].clone();
    assert_eq!(id, 2);
    let record = house.open_rotation().unwrap();
    assert_eq!(record.phase, "introduce");

    // It ends cleanly, and nobody waits for it any more. The same command goes on with the same rotation.
    drop(stale);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(finished.document["rotation"], Value::from(record.id));
    assert_eq!(house.keys().len(), 2);
    house.assert_readable(&follows);
}

pub fn nobody_at_all_is_not_everybody(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let keyring = std::fs::read(house.path("reseal.keyring")).unwrap();
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("--expect-instances"), "{}", refused.text());
    assert_eq!(std::fs::read(house.path("reseal.keyring")).unwrap(), keyring);
    assert!(!house.has_state());
    // Somebody whose lease has ended is nobody.
    house.ack("php-1", 9, Duration::ZERO);
    assert_eq!(house.rotate(BRIEF).code, Some(4));
    assert_eq!(std::fs::read(house.path("reseal.keyring")).unwrap(), keyring);
    let finished = house.rotate(&["--expect-instances", "0"]);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(house.keys_in_data().len(), 1);
}

pub fn as_many_as_expected_must_be_there(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let _one = house.app("web-1");
    let refused = house.rotate(&[BRIEF, &["--expect-instances", "2"]].concat());
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    assert!(refused.text().contains("1 of 2 expected instances"), "{}", refused.text());
    assert_eq!(house.keys()[0].1, KeyState::Primary);
    let _two = house.app("web-2");
    let finished = house.rotate(&[PATIENT, &["--expect-instances", "2"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
}

pub fn whoever_vanishes_is_waited_for_until_the_lease_ends(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    house.ack("php-1", 1, Duration::from_secs(3));
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let stood = gate(&finished.document, "introduce");
    assert_eq!(stood["gone"], serde_json::json!(["php-1"]), "{stood}");
    assert_eq!(
        stood["acknowledged"],
        serde_json::json!([app.reporting.instance()]),
        "{stood}"
    );
    assert!(finished.stderr.contains("php-1"), "{}", finished.stderr);
}

pub fn a_database_clock_that_jumps_forward_opens_no_gate(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let minute = Duration::from_secs(60);
    let report = |of_the_second: u64| {
        house.ack("php-1", 2, minute);
        house.ack("php-2", of_the_second, minute);
    };
    report(1);
    let mut running = house.rotate_until("introduce", PATIENT);
    eventually("the new key is staged", || (house.keys().len() == 2).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    house.execute(match kind {
        Kind::Sqlite => {
            "UPDATE reseal_instance SET seen_at = strftime('%Y-%m-%dT%H:%M:%fZ', seen_at, '-1 hour'),
             lease_until = strftime('%Y-%m-%dT%H:%M:%fZ', lease_until, '-1 hour')"
        }
        Kind::Postgres => {
            "UPDATE reseal.instance SET seen_at = seen_at - interval '1 hour', lease_until = lease_until - interval '1 hour'"
        }
    });
    // The one that has the key is the first to report by the new clock.
    house.ack("php-1", 2, minute);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(house.keys()[0].1, KeyState::Primary, "promoted while php-2 lags behind");
    report(1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(house.keys()[0].1, KeyState::Primary);
    report(2);
    eventually("the promotion", || (house.keys()[1].1 == KeyState::Primary).then_some(()));
    running.kill();
}

pub fn nobody_is_listened_to_for_longer_than_the_operator_waits(kind: Kind) {
    let Some(house) = House::build(kind, 5) else { return };
    house.ack("php-1", 3, Duration::from_secs(3600));
    house.ack("php-2", 1, Duration::from_secs(3600));
    house.execute(match kind {
        Kind::Sqlite => {
            "UPDATE reseal_instance SET seen_at = strftime('%Y-%m-%dT%H:%M:%fZ', seen_at, '-2 hours'),
             lease_until = strftime('%Y-%m-%dT%H:%M:%fZ', lease_until, '-2 hours') WHERE instance = 'php-2'"
        }
        Kind::Postgres => {
            "UPDATE reseal.instance SET seen_at = seen_at - interval '2 hours', lease_until = lease_until - interval '2 hours'
              WHERE instance = 'php-2'"
        }
    });
    let passed = house.rotate(BRIEF);
    assert!(passed.text().contains("php-2 is gone"), "{}", passed.text());
    assert_eq!(house.keys()[1].1, KeyState::Primary, "{}", passed.text());
}

pub fn whoever_comes_back_with_an_older_revision_blocks_again(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let hour = Duration::from_secs(3600);
    house.ack("php-1", 2, hour);
    // It has the new key, and the promotion it has not.
    let mut running = house.rotate_until("promote", PATIENT);
    house.ack("php-1", 3, hour);
    // A rolled-back deployment.
    house.ack("php-1", 1, hour);
    running.kill();
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(5), "{}", refused.text());
    assert!(
        refused.text().contains("php-1 came back with revision 1, after 3"),
        "{}",
        refused.text()
    );
    assert_eq!(refused.document["gate"]["missing"][0]["newest_revision"], 3);
    house.ack("php-1", 4, hour);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(house.keys_in_data().len(), 1);
    let status = house.run(&["status"]);
    assert_eq!(status.document["keyset_rotations"][0]["keyset"], KEYSET);
    eventually("the record has ended", || house.open_rotation().is_none().then_some(()));
}

pub fn a_revision_that_nobody_can_have_is_not_reported(kind: Kind) {
    let Some(house) = House::build(kind, 5) else { return };
    let ack = |revision: &str, keyring: &str| {
        let report = [
            "ack",
            "--database",
            "env:DATABASE_URL",
            "--keyset",
            KEYSET,
            "--instance",
            "php-1",
            "--revision",
            revision,
        ];
        house.run(&[&report[..], &["--identity", "identity", "--keyring", keyring]].concat())
    };
    let refused = ack("99", "reseal.keyring");
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(
        refused.text().contains("has revision 1; nobody has loaded revision 99"),
        "{}",
        refused.text()
    );
    assert!(!house.has_state(), "nothing is written");
    assert_eq!(ack("1", "reseal.keyring").code, Some(0));
    // A host without the keyring is believed: there is nothing to compare.
    assert_eq!(ack("2", "elsewhere.keyring").code, Some(0));
    assert_eq!(house.instances()[0].revision, 2);
}
