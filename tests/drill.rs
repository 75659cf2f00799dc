//! The rehearsal, rehearsed: sound, it is good; broken on purpose, it is bad and says why.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use reseal::drill::{Cancel, DrillError, Report, Sabotage, Settings, Verdict, run};
use serde_json::Value;
use support::{reseal_process, tempdir};

const SMALL: [&str; 10] = [
    "--rows",
    "4000",
    "--readers",
    "4",
    "--writers",
    "2",
    "--duration",
    "1",
    "--seed",
    "7",
];

#[test]
fn heavy_a_sound_rotation_gets_a_good_verdict_and_leaves_nothing_behind() {
    let temporary = tempdir();
    let output = reseal_process()
        .args(["drill", "--json"])
        .args(SMALL)
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).expect(&told);
    assert_eq!(output.status.code(), Some(0), "{told}\n{document:#}");
    assert!(output.stdout.starts_with(br#"{"schema":"reseal.drill/1","#));
    for (field, expected) in [
        ("failed_reads", 0),
        ("failed_writes", 0),
        ("lost_writes", 0),
        ("resurrected_rows", 0),
        ("wrong_values", 0),
        ("values_under_old_key", 0),
        ("unreadable_values", 0),
        ("seed", 7),
        ("exit", 0),
        ("instances", 6),
        ("rows_before", 4000),
    ] {
        assert_eq!(document[field], expected, "{field}");
    }
    assert_eq!(document["verdict"], "good");
    assert_eq!(document["findings"], serde_json::json!([]));
    assert!(document["reads"].as_u64().unwrap() > 100);
    assert!(document["writes"].as_u64().unwrap() > 20);
    assert!(document["rows_checked"].as_u64() > document["reads"].as_u64());

    let (old, new) = (document["old_key"].to_string(), document["new_key"].to_string());
    let keys = |census: &str| -> Vec<String> { document[census].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys("census_before"), [old]);
    assert_eq!(keys("census_after"), [new]);

    let phases: Vec<&str> = document["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
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
    assert_eq!(phases, expected);
    for kind in ["reads", "writes"] {
        for window in ["before", "during", "after"] {
            let percentiles = &document["latency_ms"][kind][window];
            let [p50, p99, max] = ["p50", "p99", "max"].map(|name| percentiles[name].as_f64().unwrap());
            assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{kind} {window}: {percentiles}");
        }
    }
    let faults = document["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0]["name"], "kill -9 of the rotation");
    assert!(
        faults[0]["outcome"].as_str().unwrap().contains("went on from there"),
        "{}",
        faults[0]
    );

    assert!(told.contains("Verdict: good."), "{told}");
    assert_eq!(
        fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn heavy_ctrl_c_ends_a_drill_and_removes_its_folder() {
    let temporary = tempdir();
    let mut drill = reseal_process()
        .args(["drill", "--json", "--rows", "4000", "--duration", "600"])
        .env("TMPDIR", temporary.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_running = || {
        let mut folders = fs::read_dir(temporary.path()).unwrap();
        folders.any(|folder| folder.unwrap().path().join("customers.db-wal").exists())
    };
    for _ in 0..2000 {
        if is_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(is_running(), "the drill never began");
    let id = rustix::process::Pid::from_raw(i32::try_from(drill.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let status = drill.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(5), None));
    assert_eq!(
        fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

/// A small drill with something broken.
fn sabotaged(sabotage: Sabotage) -> Report {
    let settings = Settings {
        rows: 3000,
        readers: 2,
        writers: 2,
        duration: Duration::from_secs(1),
        seed: 11,
        keep: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_reseal")),
        now: jiff::Timestamp::now,
        sabotage: Some(sabotage),
    };
    let report = run(&settings, &Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!(report.verdict, Verdict::Bad, "{sabotage:?} went unnoticed: {report:#?}");
    let evidence = report.evidence.clone().expect("a failed drill keeps its evidence");
    assert!(evidence.join("customers.db").exists() && evidence.join("incidents.txt").exists());
    fs::remove_dir_all(evidence).unwrap();
    report
}

#[track_caller]
fn says(report: &Report, name: &str, words: &str) {
    let said = report
        .findings
        .iter()
        .any(|finding| finding.name == name && finding.sentence.contains(words));
    assert!(said, "no {name} with {words:?}: {:#?}", report.findings);
}

#[test]
fn heavy_a_reader_with_only_the_old_key_is_found_out() {
    let report = sabotaged(Sabotage::ReaderWithOldKeyOnly);
    let new = report.new_key.unwrap();
    says(
        &report,
        "failed-reads",
        &format!("a value under key {new}, which the instance did not have"),
    );
    assert!(report.failed_reads > 0);
    assert_eq!((report.lost_writes, report.unreadable_values), (0, 0));
}

#[test]
fn heavy_a_writer_that_keeps_the_old_key_is_found_out() {
    let report = sabotaged(Sabotage::WriterWithOldKeyOnly);
    says(
        &report,
        "values-under-old-key",
        "a writer sealed with it after the last sweep",
    );
    assert!(report.values_under_old_key > 0);
}

#[test]
fn heavy_no_key_is_promoted_before_every_instance_has_it() {
    let report = sabotaged(Sabotage::InstanceLagsBehind);
    says(&report, "not-acknowledged", "reader-0 did not load revision 2");
    // The gate kept its promise: nothing was sealed with a key that somebody lacked.
    assert_eq!(report.failed_reads, 0);
    assert!(report.phases.iter().all(|phase| phase.name != "promote"));
}

#[test]
fn heavy_a_rotation_to_a_key_that_is_not_promoted_is_refused() {
    let report = sabotaged(Sabotage::RotateBeforePromote);
    says(&report, "rotation-failed", "only the primary key seals; promote it first");
    assert_eq!((report.failed_reads, report.lost_writes), (0, 0));
}

#[test]
fn heavy_a_key_that_is_retired_too_early_fails_reads() {
    let report = sabotaged(Sabotage::RetireBeforeRotate);
    says(&report, "failed-reads", "a key was retired before the last value had left it");
    assert_eq!((report.lost_writes, report.unreadable_values), (0, 0));
}

#[test]
fn heavy_a_swap_without_comparison_loses_writes_and_is_found_out() {
    let report = sabotaged(Sabotage::SwapWithoutComparison);
    says(&report, "failed-reads", "a write was overwritten");
    says(&report, "lost-writes", "writes that the database had confirmed were lost");
    assert!(report.lost_writes > 0);
}

#[test]
fn a_cancelled_drill_ends_with_an_error() {
    let settings = Settings {
        rows: 500,
        readers: 1,
        writers: 1,
        duration: Duration::from_secs(3600),
        seed: 1,
        keep: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_reseal")),
        now: jiff::Timestamp::now,
        sabotage: None,
    };
    let cancel = Cancel::default();
    let canceller = cancel.clone();
    let outcome = run(&settings, &cancel, &mut |phase| {
        if phase == "before" {
            canceller.request();
        }
    });
    assert!(matches!(outcome.err().unwrap(), DrillError::Cancelled));
}
