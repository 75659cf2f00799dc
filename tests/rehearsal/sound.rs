//! A sound rotation gets a good verdict under every fault, on either database.

use super::drilled::{SMALL, assert_leaves_no_schema, drill};
use super::leavings::is_child_of;
use crate::support::rotation::wait_until;
use crate::support::{Canary, postgres, tempdir};

#[test]
fn heavy_a_sound_rotation_gets_a_good_verdict_and_leaves_nothing_behind() {
    let drilled = drill(None, &SMALL);
    drilled.assert_good();
    let document = &drilled.document;
    assert_eq!(document["schema"], "reseal.drill/1");
    assert_eq!(document["seed"], 7);
    assert_eq!(document["instances"], 6);
    assert_eq!(document["rows_before"], 4000);
    let phases: Vec<&str> = document["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    // Killed twice, it asks again each time whether every instance seals with the new key, and goes on.
    let mut distinct = Vec::new();
    for phase in &phases {
        if !distinct.contains(phase) {
            distinct.push(*phase);
        }
    }
    let expected = [
        "prepare",
        "before",
        "introduce",
        "promote",
        "re-encrypt",
        "sweep",
        "verify",
        "retire",
        "after",
        "check",
    ];
    assert_eq!(distinct, expected, "{phases:?}");
    assert_eq!(phases.iter().filter(|phase| **phase == "introduce").count(), 1, "{phases:?}");
    let sessions = &document["sessions"];
    assert_eq!(sessions["store"], "sqlite");
    for field in ["lost", "left", "ended", "failed"] {
        assert_eq!(sessions[field], 0, "{field}: {sessions}");
    }
    assert!(
        sessions["logins"].as_u64() > Some(200) && sessions["requests"].as_u64() > Some(50),
        "{sessions}"
    );
    for kind in ["reads", "writes"] {
        for window in ["before", "during", "re_encryption", "after"] {
            let percentiles = &document["latency_ms"][kind][window];
            let [p50, p99, max] = ["p50", "p99", "max"].map(|name| percentiles[name].as_f64().unwrap());
            assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{kind} {window}: {percentiles}");
        }
        assert!(document["p99_ratio"][kind].as_f64().unwrap() > 0.0);
    }
    let killed = drilled.outcomes("kill -9 of the rotation");
    assert_eq!(killed.len(), 2, "{killed:?}");
    assert!(
        killed[0].contains("in phase re-encrypt; run again, it went on from there"),
        "{killed:?}"
    );
    assert!(killed[1].contains("run again, it proved everything anew"), "{killed:?}");
    for instance in ["kill -9 of reader-", "kill -9 of writer-"] {
        let killed = drilled.outcomes(instance);
        assert!(killed.len() == 1 && killed[0].starts_with("started again"), "{killed:?}");
    }
    assert_eq!(drilled.outcomes("keyring file of reader-").len(), 1);
}

#[test]
fn heavy_on_sqlite_it_survives_every_fault_that_a_file_can_have() {
    let arguments = ["--faults", "all", "--rows", "12000", "--duration", "1", "--seed", "5"];
    let drilled = drill(None, &arguments);
    drilled.assert_good();
    assert_eq!(drilled.outcomes("SIGSTOP of ").len(), 3, "{}", drilled.document["faults"]);
    let lag = drilled.outcomes("an instance that never gets the new key");
    assert!(
        lag.len() == 1 && lag[0].starts_with("the gate named it and stayed shut"),
        "{lag:?}"
    );
    assert!(drilled.outcomes("connection cut").is_empty());
}

#[test]
fn heavy_on_postgres_it_rehearses_the_profile_that_production_is_to_be_rotated_with() {
    let Some(database) = postgres() else { return };
    for (profile, wanted) in [("gentle", &[][..]), ("fast", &["--profile", "fast"])] {
        let page = tempdir();
        let arguments = ["--faults", "none", "--rows", "2000", "--duration", "1", "--report"];
        let arguments = [&arguments[..], &[page.path().to_str().unwrap()], wanted].concat();
        let drilled = std::thread::scope(|scope| {
            let drilled = scope.spawn(|| drill(Some(&database), &arguments));
            let rotates = format!("\0--profile\0{profile}\0");
            wait_until("the command has it", || {
                rotations().iter().any(|command| command.contains(&rotates))
            });
            drilled.join().unwrap()
        });
        drilled.assert_good();
        assert_eq!(drilled.document["profile"], profile);
        let page = std::fs::read_to_string(page.path().join("report.html")).unwrap();
        assert_eq!(page.contains(" --profile fast --rows 2000"), profile == "fast");
    }
    assert_leaves_no_schema(&database);
}

/// The commands of rotations that drills of this process have typed.
fn rotations() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let drills = processes.filter(|drill| is_child_of(&drill.path(), std::process::id()));
    let mut found = Vec::new();
    for drill in drills {
        let Ok(drill) = drill.file_name().to_string_lossy().parse() else {
            continue;
        };
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.contains("\0rotate\0") && is_child_of(&process.path(), drill) {
                found.push(command);
            }
        }
    }
    found
}

#[test]
fn heavy_on_postgres_it_survives_every_fault_and_leaves_nothing_behind() {
    let Some(database) = postgres() else { return };
    database.execute(
        "CREATE SCHEMA other; CREATE TABLE other.customers (id int8 PRIMARY KEY); INSERT INTO other.customers VALUES (1)",
    );
    let arguments = ["--faults", "all", "--rows", "12000", "--duration", "1", "--seed", "3"];
    let drilled = drill(Some(&database), &arguments);
    drilled.assert_good();
    assert_eq!(drilled.document["database"], "postgres");
    for place in [
        "connection cut in a transaction, before a request",
        "connection cut at a commit, its reply lost",
        "connection cut in a transaction, in the middle of a request",
    ] {
        let cut = drilled.outcomes(place);
        assert!(
            cut.len() == 1 && cut[0].starts_with("cut;"),
            "{place}: {}",
            drilled.document["faults"]
        );
    }
    assert_eq!(drilled.outcomes("all connections cut at once").len(), 1);
    assert!(drilled.document["interrupted_operations"].as_u64().unwrap() > 0);
    assert_leaves_no_schema(&database);
    assert_eq!(database.count("SELECT count(*) FROM other.customers"), 1);
    // The URL has a password, and everything that the drill starts needs it.
    let url = database.url();
    let password = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    if password.len() >= 8 {
        let canary = Canary::new("the database password", password.as_bytes());
        canary.assert_absent("standard error", drilled.told.as_bytes());
        canary.assert_absent("the document", drilled.document.to_string().as_bytes());
    }
}
