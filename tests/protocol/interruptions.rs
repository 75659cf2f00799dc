//! kill -9 in each phase, two operators, a third key, and the way back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reseal::key::{KeyState, OldPrimary};
use reseal::rotation::protocol::{Direction, Watch, Wish, rotate};
use reseal::store::postgres::PostgresStore;
use serde_json::Value;

use super::house::{BRIEF, House, KEYSET, Kind, PATIENT, SLOWLY, TABLES, eventually};
use crate::support::proxy::{Prey, Proxy};
use crate::support::reseal_process;

const HOUR: Duration = Duration::from_secs(3600);

pub fn a_killed_rotation_goes_on_in_its_phase(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let hour = HOUR;
    // Somebody who is a step behind holds it up wherever it is to be killed.
    house.ack("php-1", 1, hour);
    house.rotate_until("introduce", PATIENT).kill();
    let id = house.open_rotation().unwrap().id;
    assert_eq!(house.keys().len(), 2);
    house.assert_readable(&app);

    house.ack("php-1", 2, hour);
    let mut running = house.rotate_until("promote", PATIENT);
    eventually("the promotion is durable", || {
        (house.keys()[1].1 == KeyState::Primary).then_some(())
    });
    assert!(running.kill());
    house.assert_readable(&app);

    house.ack("php-1", 3, hour);
    let before = house.moved();
    let mut running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("batches are committed", || {
        assert!(running.is_running(), "it ended early");
        (house.moved() > before).then_some(())
    });
    assert!(running.kill());
    assert_eq!(house.keys_in_data().len(), 2, "killed in the middle");
    house.assert_readable(&app);

    let mut running = house.rotate_until("retire", PATIENT);
    eventually("the retirement is durable", || house.keys()[0].2.then_some(()));
    running.kill();
    house.assert_readable(&app);
    let record = house.open_rotation().unwrap();
    assert_eq!((record.id.as_str(), record.phase.as_str()), (id.as_str(), "retire"));

    house.ack("php-1", 4, hour);
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(finished.document["rotation"], Value::from(id));
    assert_eq!(finished.document["phase"], "done");
    // One key was made, whatever happened, and nothing is left under the other.
    assert_eq!(house.keys().len(), 2);
    assert_eq!(house.keys_in_data(), [house.keys()[1].0]);
    house.assert_readable(&app);
    assert!(house.open_rotation().is_none());
}

/// A value that comes back under the old key in a dataset that was done, while the next one is being moved.
pub fn what_comes_back_meanwhile_is_found_before_the_end(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let (old, notes) = (house.values("customers", "email").remove(0).1, house.values("notes", "note"));
    let mut running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("the second dataset is being moved", || {
        assert!(running.is_running(), "it ended early");
        (house.values("notes", "note") != notes).then_some(())
    });
    house.execute(&format!("UPDATE customers SET email = '{old}' WHERE id = 1"));
    let finished = running.wait();
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(house.keys_in_data(), [house.keys()[1].0]);
    house.assert_readable(&app);
}

/// Killed in every phase while the step to the next one is not durable yet: the phase is over, and nobody has written that down.
pub fn killed_at_the_end_of_every_phase_it_goes_on(kind: Kind) {
    let Some(house) = House::build(kind, 40) else { return };
    let app = house.app("web-1");
    let mut id = None;
    for (phase, next) in [
        ("introduce", "promote"),
        ("promote", "re-encrypt"),
        ("re-encrypt", "verify"),
        ("verify", "retire"),
        ("retire", "done"),
    ] {
        house.hold_before(next);
        let mut running = house.rotate_until(phase, PATIENT);
        // What this phase does is done before the next one is written down.
        let primary = |house: &House| house.keys()[1].1 == KeyState::Primary;
        let (old, new) = (house.keys()[0].0, house.keys()[1].0);
        eventually(phase, || {
            assert!(running.is_running(), "it ended in {phase}");
            let done = match phase {
                "introduce" => house.keys()[1].3,
                "promote" => primary(&house),
                "re-encrypt" => house.keys_in_data() == [new],
                "verify" => true,
                _ => house.keys()[0].2,
            };
            done.then_some(())
        });
        assert!(running.kill(), "it ended in {phase}");
        house.let_pass();
        let record = house.open_rotation().unwrap();
        assert_eq!(record.phase, phase);
        assert_eq!(id.get_or_insert_with(|| record.id.clone()), &record.id);
        assert_eq!(house.keys().len(), 2);
        assert_eq!(
            house.keys()[0].2,
            phase == "retire",
            "the old key is with readers until everything is verified"
        );
        assert!(primary(&house) || house.keys_in_data() == [old]);
        house.assert_readable(&app);
    }
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(finished.document["rotation"], Value::from(id));
    assert_eq!(finished.document["verified"], true);
    assert_eq!(house.keys_in_data(), [house.keys()[1].0]);
    house.assert_readable(&app);
}

/// A connection that swallows requests without closing is as lost as one that closed, whatever the rotation is doing.
pub fn requests_that_are_swallowed_hold_up_no_phase() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    let proxy = Proxy::swallowing(&house.url(), Prey::Record, 3);
    rotate_through(&proxy, &house);
    assert!(proxy.swallowed() >= 3, "{}", proxy.swallowed());
}

/// Whatever is asked of a server for the first time, before the first batch, at a gate or in the end, the connection may be lost with it.
pub fn any_statement_of_a_rotation_may_be_cut_off() {
    for number in 0..PARTS {
        let Some(house) = House::build(Kind::Postgres, 40) else {
            return;
        };
        let proxy = Proxy::before(&house.url(), Prey::News(number, PARTS), 1);
        rotate_through(&proxy, &house);
        assert!(proxy.cuts().iter().all(|cuts| *cuts >= 3), "{number}: {:?}", proxy.cuts());
    }
}

/// What is attempted as a whole is some twenty statements; if each of them were cut, patience would come to its end.
const PARTS: usize = 5;

/// All the work is done when replicas are asked, before the old key is retired.
pub fn a_connection_lost_when_replicas_are_asked_is_made_again() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    // The first question is asked before anything is touched.
    let proxy = Proxy::before(&house.url(), Prey::Position, 2);
    rotate_through(&proxy, &house);
    assert_eq!(proxy.cuts().iter().sum::<u32>(), 1);
}

/// A whole rotation, to the retirement of the old key.
fn rotate_through(proxy: &Proxy, house: &House) {
    let store = PostgresStore::new(&proxy.url(&house.url()), "reseal test").unwrap();
    let managed = house.managed(Arc::new(store.answer_within(Duration::from_millis(500))));
    let wish = Wish {
        direction: Direction::Forward,
        compromised: None,
        supersede: false,
        retire: true,
        sessions: true,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(rotate(&managed, &wish, &Arc::default(), &Arc::default(), &Silent));
    assert!(report.unwrap().record.finished_at.is_some());
    assert_eq!(house.keys_in_data(), [house.keys()[1].0]);
    assert!(house.keys()[0].2, "the old key is retired");
}

/// Commands that only ask or say something, too, come to an end over such a connection.
pub fn requests_that_are_swallowed_hold_up_no_command() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    house.ack("web-1", 1, HOUR);
    let url = house.url();
    let proxy = Proxy::swallowing(&url, Prey::Record, 1);
    let through = proxy.url(&url);
    std::thread::scope(|scope| {
        let commands: [&[&str]; 2] = [&["status"], &["ack", "--keyset", KEYSET, "--instance", "web-1", "--gone"]];
        let asked = commands.map(|arguments| {
            let mut command = reseal_process();
            command
                .args(arguments)
                .args(["--database", "env:THROUGH", "--json"])
                .env("THROUGH", &through);
            scope.spawn(move || (arguments, command.output().unwrap()))
        });
        for thread in asked {
            let (arguments, output) = thread.join().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(8), "{arguments:?}: {said}");
            assert!(said.contains("no answer within 60 s"), "{arguments:?}: {said}");
        }
    });
    assert_eq!(proxy.swallowed(), 2);
    assert_eq!(house.instances().len(), 1, "nobody has left");
}

/// Nor does a connection that is lost once fail them.
pub fn any_statement_of_a_command_may_be_cut_off() {
    let Some(house) = House::build(Kind::Postgres, 40) else {
        return;
    };
    let url = house.url();
    let ack: &[&str] = &["ack", "--keyset", KEYSET, "--instance", "web-1", "--revision", "1"];
    let remove: &[&str] = &["guard", "remove", "--table", "public.customers"];
    let run = |arguments: &[&str], url: &str| {
        let mut command = reseal_process();
        command.args(arguments).args(["--database", "env:THROUGH", "--json"]);
        let output = command.env("THROUGH", url).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        output.stdout
    };
    let scan: &[&str] = &["scan"];
    for arguments in [ack, &["status"], &["guard", "list"], remove, scan] {
        let straight = run(arguments, &url);
        let mut cuts = 0;
        for number in 0..PARTS {
            let proxy = Proxy::before(&url, Prey::News(number, PARTS), 1);
            let told = run(arguments, &proxy.url(&url));
            assert!(
                arguments != scan || told == straight,
                "what was found before the cut is told twice"
            );
            cuts += proxy.cuts().iter().sum::<u32>();
        }
        assert!(cuts > 0, "{arguments:?}");
        assert_eq!(house.instances().len(), 1, "web-1");
    }
}

struct Silent;

impl Watch for Silent {
    fn say(&self, _line: &str) {}
}

pub fn a_database_that_was_restored_is_not_gone_on_with_unseen() {
    let house = House::build(Kind::Sqlite, 40).unwrap();
    let file = house.path("app.db");
    let app = house.app("web-1");
    house.rotate_until("re-encrypt", SLOWLY).kill();
    let backup = house.path("backup.db");
    house.execute(&format!("VACUUM INTO '{}'", backup.display()));
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let new = house.keys()[1].0;
    assert_eq!(house.keys_in_data(), [new]);
    drop(app);

    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    std::fs::copy(&backup, &file).unwrap();
    // Whoever was there when it was copied is not any more.
    house.execute("DELETE FROM reseal_instance");
    let before = house.values("customers", "email");
    let expect = ["--expect-instances", "0"];
    let refused = house.rotate(&[BRIEF, &expect].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    let error = &refused.document["error"];
    assert!(
        error["failed"]
            .as_str()
            .unwrap()
            .contains("restored from a backup: database main"),
        "{error}"
    );
    assert!(error["next"].as_str().unwrap().contains("--accept restored"), "{error}");
    assert_eq!(house.values("customers", "email"), before);

    let accepted = house.rotate(&[PATIENT, &expect, &["--accept", "restored"]].concat());
    assert_eq!(accepted.code, Some(0), "{}", accepted.text());
    assert_eq!(
        house.keys_in_data(),
        [new],
        "values under a key that readers had lost are back"
    );
    house.assert_readable(&house.app("web-2"));
    // It is known again; and progress tables may be dropped when nothing is under way.
    house.execute("DROP TABLE reseal_rotation; DROP TABLE reseal_plan; DROP TABLE reseal_range; DROP TABLE reseal_quarantine; DROP TABLE reseal_late_value; DROP TABLE reseal_instance; DROP TABLE reseal_meta");
    let next = house.rotate(&[PATIENT, &expect].concat());
    assert_eq!(next.code, Some(0), "{}", next.text());
}

pub fn a_second_operator_is_refused_with_id_and_owner(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    house.ack("php-1", 1, HOUR);
    let mut first = house.rotate_until("introduce", PATIENT);
    let record = house.open_rotation().unwrap();
    let second = house.rotate(BRIEF);
    assert_eq!(second.code, Some(6), "{}", second.text());
    assert_eq!(
        second.document["rotation"],
        Value::from(record.id.as_str()),
        "{}",
        second.text()
    );
    assert!(second.stderr.contains(&record.id), "{}", second.text());
    assert!(second.text().contains(&format!("pid {}", first.id())), "{}", second.text());
    assert!(first.is_running());
    assert_eq!(house.open_rotation().unwrap().generation, record.generation);
    house.ack("php-1", 9, HOUR);
    assert_eq!(first.wait().code, Some(0));
}

pub fn a_third_key_takes_the_place_of_a_rotation_that_is_moving_values(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let mut running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("batches are committed", || (house.moved() > 0).then_some(()));
    let first = house.open_rotation().unwrap().id;
    // It need not be dead: its successor takes it over.
    let finished = house.rotate(&[PATIENT, &["--supersede"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    running.kill();
    assert_ne!(finished.document["rotation"], Value::from(first.as_str()));
    let keys = house.keys();
    assert_eq!(keys.len(), 3);
    assert_eq!(house.keys_in_data(), [keys[2].0]);
    for old in &keys[..2] {
        assert_eq!((old.1, old.2), (KeyState::Retiring, true));
    }
    house.assert_readable(&app);
    let status = house.run(&["status"]);
    let rotations = status.document["keyset_rotations"].as_array().unwrap();
    let of = |id: &str| rotations.iter().find(|one| one["id"] == id).unwrap();
    assert_eq!(of(&first)["phase"], "superseded");
    assert_eq!(
        of(finished.document["rotation"].as_str().unwrap())["follows"],
        Value::from(first)
    );
}

pub fn keys_that_change_while_a_rotation_is_taken_over_are_looked_at_anew() {
    let Some(house) = House::build(Kind::Postgres, 20) else {
        return;
    };
    house.ack("php-1", 1, HOUR);
    house.rotate_until("introduce", PATIENT).kill();
    house.ack("php-1", 99, HOUR);
    house.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(4); RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE UPDATE ON reseal.rotation FOR EACH ROW
         WHEN (NEW.generation <> OLD.generation) EXECUTE FUNCTION hold()",
    );
    let claiming = house.start(&[&["rotate", KEYSET, "--yes"], PATIENT].concat());
    let held = "SELECT 'x' FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    eventually("the claim is held", || house.texts(held).pop());
    // The one that had the rotation was about to promote.
    let target = house.keys()[1].0;
    house.change(|keyset| keyset.promote(target, OldPrimary::Retires, Timestamp::now()).unwrap());
    let refused = claiming.wait();
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(
        refused.text().contains("while its rotation was taken over"),
        "{}",
        refused.text()
    );
    house.execute("DROP TRIGGER hold ON reseal.rotation; DROP FUNCTION hold()");
    let finished = house.rotate(PATIENT);
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    assert_eq!(house.keys_in_data(), [target]);
}

pub fn a_third_key_takes_the_place_of_one_that_nobody_seals_with_yet(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    house.ack("php-1", 1, HOUR);
    house.rotate_until("introduce", PATIENT).kill();
    // A key beside the one that the rotation leads to is nobody's guess.
    house.change(|keyset| {
        let algorithm = keyset.primary().algorithm();
        keyset
            .add(algorithm, reseal::key::Entry::Staged, jiff::Timestamp::now())
            .unwrap();
    });
    let refused = house.rotate(BRIEF);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("--supersede"), "{}", refused.text());
    house.ack("php-1", 99, HOUR);
    let finished = house.rotate(&[PATIENT, &["--supersede"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.text());
    let keys = house.keys();
    assert_eq!(keys.len(), 3, "the staged key is used, no other is made");
    assert_eq!((keys[1].1, keys[1].2), (KeyState::Retiring, true));
    assert_eq!(house.keys_in_data(), [keys[2].0]);
    let nothing = house.rotate(&[BRIEF, &["--supersede"]].concat());
    assert_eq!(nothing.code, Some(4), "{}", nothing.text());
}

pub fn a_rotation_is_rolled_back_before_its_promotion(kind: Kind) {
    let Some(house) = House::build(kind, 20) else { return };
    let app = house.app("web-1");
    house.ack("php-1", 1, HOUR);
    house.rotate_until("introduce", PATIENT).kill();
    let before = house.values("customers", "email");
    house.ack("php-1", 99, HOUR);
    let back = house.rotate(&[PATIENT, &["--rollback"]].concat());
    assert_eq!(back.code, Some(0), "{}", back.text());
    assert_eq!(
        (&back.document["phase"], &back.document["direction"]),
        (&"rolled-back".into(), &"back".into())
    );
    assert_eq!(house.values("customers", "email"), before);
    let keys = house.keys();
    assert_eq!(
        (keys[0].1, keys[1].1, keys[1].2),
        (KeyState::Primary, KeyState::Retiring, true)
    );
    house.assert_readable(&app);
    let again = house.rotate(&[PATIENT, &["--rollback"]].concat());
    assert_eq!(again.code, Some(4), "{}", again.text());
}

pub fn a_column_renamed_in_the_middle_leaves_it_incomplete(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("batches are committed", || (house.moved() > 0).then_some(()));
    for (table, column) in TABLES {
        house.execute(&format!("ALTER TABLE {table} RENAME COLUMN {column} TO other"));
    }
    let ended = running.wait();
    for (table, column) in TABLES {
        house.execute(&format!("ALTER TABLE {table} RENAME COLUMN other TO {column}"));
    }
    assert_eq!(ended.code, Some(5), "{}", ended.text());
    let durable = ended.document["error"]["durable"].as_str().unwrap();
    assert!(durable.contains("every batch that was committed"), "{}", ended.text());
    assert!(ended.document["rotation"].is_string(), "{}", ended.text());
    for name in [
        "values_already_current",
        "values_null",
        "quarantined_total",
        "rows_per_second",
    ] {
        assert!(ended.document[name].is_number(), "{name}: {}", ended.text());
    }
    house.assert_readable(&app);
    let done = house.rotate(PATIENT);
    assert_eq!(done.code, Some(0), "{}", done.text());
    house.assert_readable(&app);
}

pub fn a_rotation_is_rolled_back_from_its_middle(kind: Kind) {
    let Some(house) = House::build(kind, 300) else { return };
    let app = house.app("web-1");
    let mut running = house.rotate_until("re-encrypt", SLOWLY);
    eventually("batches are committed", || (house.moved() > 0).then_some(()));
    assert!(running.kill());
    let id = house.open_rotation().unwrap().id;
    // The way back is a rotation like any other: killed, refused without its flag, and gone on with.
    house.ack("php-1", 1, HOUR);
    let mut running = house.rotate_until("introduce", &[PATIENT, &["--rollback"]].concat());
    assert!(running.kill());
    let forward = house.rotate(BRIEF);
    assert_eq!(forward.code, Some(4), "{}", forward.text());
    assert!(forward.text().contains("--rollback"), "{}", forward.text());
    house.assert_readable(&app);
    house.ack("php-1", 99, HOUR);
    let back = house.rotate(&[PATIENT, &["--rollback"]].concat());
    assert_eq!(back.code, Some(0), "{}", back.text());
    assert_eq!(
        (&back.document["rotation"], &back.document["phase"]),
        (&Value::from(id), &"rolled-back".into())
    );
    let keys = house.keys();
    assert_eq!(house.keys_in_data(), [keys[0].0]);
    assert_eq!(
        (keys[0].1, keys[1].1, keys[1].2),
        (KeyState::Primary, KeyState::Retiring, true)
    );
    house.assert_readable(&app);
}

pub fn a_finished_rotation_is_rolled_back(kind: Kind) {
    let Some(house) = House::build(kind, 50) else { return };
    let app = house.app("web-1");
    assert_eq!(
        house.rotate(&[BRIEF, &["--rollback"]].concat()).code,
        Some(4),
        "there is none"
    );
    let done = house.rotate(PATIENT);
    assert_eq!(done.code, Some(0), "{}", done.text());
    let back = house.rotate(&[PATIENT, &["--rollback"]].concat());
    assert_eq!(back.code, Some(0), "{}", back.text());
    assert_eq!(back.document["phase"], "rolled-back");
    let keys = house.keys();
    assert_eq!(house.keys_in_data(), [keys[0].0]);
    assert_eq!(
        (keys[0].1, keys[1].1, keys[1].2),
        (KeyState::Primary, KeyState::Retiring, true)
    );
    house.assert_readable(&app);
    // Once destroyed, a key does not come back.
    let forward = house.rotate(PATIENT);
    assert_eq!(forward.code, Some(0), "{}", forward.text());
    let old = house.keys()[0].0;
    house.change(|keyset| {
        keyset
            .destroy(old, jiff::SignedDuration::ZERO, jiff::Timestamp::now())
            .unwrap()
    });
    let refused = house.rotate(&[BRIEF, &["--rollback"]].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("destroyed"), "{}", refused.text());
}
