//! However a drill ends, nothing is left: no process, no file, no schema.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::drilled::{SMALL, assert_leaves_no_file, assert_leaves_no_schema, drill, drill_with, within_seconds};
use crate::support::{Database, postgres, reseal_process, tempdir};

#[test]
fn heavy_reseals_own_schema_stays_when_it_was_there_before() {
    let Some(database) = postgres() else { return };
    database.execute("CREATE SCHEMA reseal; CREATE TABLE reseal.meta (name text PRIMARY KEY, value text NOT NULL)");
    database.execute("INSERT INTO reseal.meta VALUES ('version', '9999')");
    let refused = drill(Some(&database), &SMALL);
    assert_eq!(refused.code, Some(3), "{}", refused.told);
    assert!(refused.told.contains("written by a newer reseal"), "{}", refused.told);
    assert_eq!(
        database.count("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reseal_drill%'"),
        0
    );
    assert_eq!(
        database.count("SELECT count(*) FROM reseal.meta"),
        1,
        "it is not the drill's to remove"
    );
}

#[test]
fn heavy_ctrl_c_ends_a_drill_and_everything_that_it_started() {
    let temporary = tempdir();
    let mut drill = start(&temporary, None);
    let id = drill.id();
    kill_process(Pid::from_child(&drill), Signal::INT).unwrap();
    let status = drill.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(5), None));
    assert_leaves_no_file(temporary.path());
    assert_eq!(parts_of(id), Vec::<String>::new());
}

#[test]
fn heavy_a_drill_that_is_killed_leaves_no_process_no_file_and_no_schema() {
    let Some(database) = postgres() else { return };
    let temporary = tempdir();
    let mut drill = start(&temporary, Some(&database));
    let id = drill.id();
    // Six instances, the janitor, and the probe with its shell.
    within_seconds("all parts of it run", 30, || parts_of(id).len() >= 9);
    drill.kill().unwrap();
    drill.wait().unwrap();
    within_seconds("every process is gone", 30, || parts_of(id).is_empty());
    assert_leaves_no_file(temporary.path());
    assert_leaves_no_schema(&database);
}

#[test]
fn a_part_of_a_drill_is_nothing_without_one() {
    for part in ["instance", "janitor", "command", "probe"] {
        let output = reseal_process().args(["drill-part", part, "1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{part}");
    }
}

#[test]
fn a_file_has_no_connection_to_cut() {
    let drilled = drill(None, &["--faults", "cut"]);
    assert_eq!(drilled.code, Some(2), "{}", drilled.told);
    assert_eq!(
        drilled.document["error"]["next"],
        "leave cut out of --faults: kill,pause,replace,lag"
    );
    assert_leaves_no_file(drilled.temporary.path());
}

#[test]
fn a_database_that_is_not_there_is_told_once_and_nothing_is_made() {
    let Some(database) = postgres() else { return };
    let elsewhere = format!("{}_not", database.url());
    let arguments = ["--database", "env:STAGING"];
    let drilled = drill_with(None, &arguments, &[("STAGING", &elsewhere)]);
    assert_eq!(drilled.code, Some(3), "{}", drilled.told);
    let error = &drilled.document["error"];
    let failed = error["failed"].as_str().unwrap();
    assert_eq!(failed.matches("does not exist").count(), 1, "{failed}");
    assert_eq!(error["next"], "check the URL, user and password of --database");
    assert_leaves_no_file(drilled.temporary.path());
}

/// A long drill, when its instances are at work.
fn start(temporary: &tempfile::TempDir, database: Option<&Database>) -> Child {
    let mut command = reseal_process();
    command
        .args(["drill", "--json", "--rows", "2000", "--duration", "600"])
        .args(["--probe", &format!("sleep {ASLEEP}")])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(database) = database {
        command.args(["--database", "env:STAGING"]).env("STAGING", database.url());
    }
    let drill = command.spawn().unwrap();
    within_seconds("the instances work", 60, || {
        let folder = fs::read_dir(temporary.path()).unwrap().flatten().next();
        let journal = folder.map(|folder| folder.path().join("instances/writer-1/journal.0.0"));
        journal.is_some_and(|journal| fs::metadata(journal).is_ok_and(|journal| journal.len() > 500))
    });
    drill
}

/// Seconds that nobody else sleeps; the test of Ctrl-C has no such probe at the same time, because heavy tests run one at a time.
const ASLEEP: &str = "31117";

/// Every process that is a part of this drill, and what its probe started.
fn parts_of(drill: u32) -> Vec<String> {
    let wanted = format!("\0{drill}\0");
    let mut parts = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let is_part = command.contains("drill-part") && command.contains(&wanted);
        if is_part || command.contains(ASLEEP) || is_child_of(&entry.path(), drill) {
            parts.push(command.replace('\0', " "));
        }
    }
    parts
}

/// A command of the operator has taken the place of a part: its parent tells.
pub fn is_child_of(process: &Path, drill: u32) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line == format!("PPid:\t{drill}")) && !status.contains("State:\tZ")
}
