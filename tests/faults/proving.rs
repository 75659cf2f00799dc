//! kill -9 while a rotation proves its end, in sweeps and in the verification scan, and while `reseal verify` reads alone. What is
//! proven afterwards is what an undisturbed run proves.

use std::process::Command;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::Value;

use crate::Scene;
use crate::support::people::Home;
use crate::support::reseal_process;
use crate::support::rotation::{Finished, Rotation, Running, wait_until};

const PEOPLE: i64 = 4_000;
const KILLS: u32 = 6;
/// With rests between pages, so that there is a middle to be killed in.
const GENTLY: &[&str] = &["--profile", "gentle"];

#[test]
fn heavy_killed_on_postgres_while_it_proves() {
    let (Some(home), Some(twin)) = (Home::postgres(), Home::postgres()) else {
        return;
    };
    kill_while_it_proves(&home, &twin);
}

#[test]
fn heavy_killed_on_sqlite_while_it_proves() {
    kill_while_it_proves(&Home::sqlite("wal"), &Home::sqlite("wal"));
}

fn kill_while_it_proves(home: &Home, twin: &Home) {
    let mut undisturbed = Scene::new(twin, PEOPLE);
    let whole = undisturbed.rotation(twin).complete(GENTLY);
    undisturbed.assert_complete(&whole);

    let mut scene = Scene::new(home, PEOPLE);
    let seconds = proving(&whole);
    for _ in 0..KILLS {
        let mut running = Running::start(scene.rotation(home).command(GENTLY));
        let mut live = home.connect();
        wait_until("every row is moved", || live.rows_moved() == PEOPLE.unsigned_abs());
        // A run that finds everything moved starts, and then proves.
        killed_within(&mut running, seconds);
        scene.assert_exact();
        verify_again_and_again(&scene.rotation(home), seconds, scene.values);
    }
    let last = scene.rotation(home).complete(GENTLY);
    scene.assert_exact();
    assert_eq!(proven(&last), proven(&whole));
    assert_eq!(
        last.document["late_values_total"], 0,
        "nobody is accused of what a killed run has left"
    );
}

/// `reseal verify` is killed, leaves no trace, and then says what is there.
fn verify_again_and_again(rotation: &Rotation<'_>, seconds: f64, values: u64) {
    let mut live = rotation.home.connect();
    if let Some(database) = rotation.home.database() {
        // A server ends the last statement of a client that was killed.
        let left =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'reseal%'";
        wait_until("nothing of the killed run is left", || database.count(left) == 0);
    }
    let before = (live.snapshot().rows, live.control());
    let mut running = Running::start(verify(rotation));
    killed_within(&mut running, seconds);
    let verified = Running::start(verify(rotation)).wait();
    assert_eq!(verified.code, Some(0), "{}", verified.text());
    assert_eq!(verified.count("rows_scanned"), PEOPLE.unsigned_abs());
    assert_eq!(counts(&verified), [values]);
    assert_eq!((live.snapshot().rows, live.control()), before, "it has written");
}

fn verify(rotation: &Rotation<'_>) -> Command {
    let mut command = reseal_process();
    command
        .args(["verify", "--database", "env:DATABASE_URL", "--table", "people"])
        .args(["--column", "email", "--column", "note", "--format", "fernet"])
        .args(["--from", "env:OLD_KEY", "--to", "env:NEW_KEY", "--json"])
        .args(GENTLY)
        .env("DATABASE_URL", rotation.home.url())
        .env("OLD_KEY", rotation.old.text())
        .env("NEW_KEY", rotation.new.text());
    command
}

/// Killed at some moment of the next seconds, or over by then.
fn killed_within(running: &mut Running, seconds: f64) {
    let moment = rand::rng().random_range(0.0..seconds);
    std::thread::sleep(Duration::from_secs_f64(moment));
    running.kill();
}

/// How long an undisturbed run was at it, its start included.
fn proving(whole: &Finished) -> f64 {
    let phases = whole.document["phases"].as_array().unwrap();
    let proving = phases
        .iter()
        .filter(|phase| ["preflight", "sweep", "verify"].iter().any(|name| phase["name"] == *name));
    let seconds: f64 = proving.map(|phase| phase["seconds"].as_f64().unwrap()).sum();
    assert!(seconds > 0.0, "{}", whole.text());
    seconds
}

/// What was proven. A run that finds a verified rotation proves it again, and has re-encrypted nothing.
fn proven(finished: &Finished) -> (u64, u64, u64, u64, Vec<u64>) {
    (
        finished.count("rows_scanned"),
        finished.count("values_reencrypted") + finished.count("values_already_current"),
        finished.count("values_null"),
        finished.count("quarantined_total"),
        counts(finished),
    )
}

/// Values per key, without the keys' names.
fn counts(finished: &Finished) -> Vec<u64> {
    let census = finished.document["census"].as_object().unwrap();
    census.values().filter_map(Value::as_u64).filter(|count| *count > 0).collect()
}
