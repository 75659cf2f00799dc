//! An application that hardly ever lets go of an SQLite file, in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::people::{FernetKey, GAP, Home};
use crate::support::rotation::{Rotation, wait_until};

const FILE: &str = "RESEAL_TEST_BUSY_FILE";
const HOW: &str = "RESEAL_TEST_BUSY_HOW";
const READY: &str = "the file is in use";

/// The process that keeps the file busy. Killed when dropped.
struct Busy(Child);

impl Busy {
    /// Returns when the file is in use.
    fn start(home: &Home, how: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::busy::child_that_keeps_a_file_busy", "--nocapture"])
            .env(FILE, home.file())
            .env(HOW, how)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains(READY)), "it did not begin");
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn child_that_keeps_a_file_busy() {
    let (Ok(file), Ok(how)) = (std::env::var(FILE), std::env::var(HOW)) else {
        return;
    };
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    // Whoever it belongs to may be killed.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        match how.as_str() {
            // One transaction after another, with a breath in between that a look every 100 ms hardly ever meets.
            "writing" => {
                connection
                    .execute_batch(&format!(
                        "BEGIN IMMEDIATE; UPDATE people SET seen = seen + 1 WHERE id = {GAP}"
                    ))
                    .unwrap();
                say_once();
                std::thread::sleep(Duration::from_millis(40));
                connection.execute_batch("COMMIT").unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
            "holding" => {
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                say_once();
                std::thread::sleep(Duration::from_secs(120));
            }
            _ => {
                connection.execute_batch("BEGIN").unwrap();
                connection.query_row("SELECT count(*) FROM people", [], |_| Ok(())).unwrap();
                say_once();
                std::thread::sleep(Duration::from_secs(120));
            }
        }
    }
}

fn say_once() {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| println!("{READY}"));
}

fn writes(home: &Home) -> i64 {
    let connection = rusqlite::Connection::open(home.file()).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let seen = format!("SELECT seen FROM people WHERE id = {GAP}");
    connection.query_row(&seen, [], |row| row.get(0)).unwrap()
}

#[test]
fn heavy_a_writer_without_a_pause_starves_no_rotation_of_a_file_with_a_rollback_journal() {
    let home = Home::sqlite("delete");
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let values: u64 = home.fill(200, &old).iter().map(|(_, person)| person.values()).sum();
    let busy = Busy::start(&home, "writing");
    let done = Rotation::new(&home, &old, &new).complete(&["--batch-rows", "20"]);
    assert_eq!(done.count("values_reencrypted"), values);
    let meanwhile = writes(&home);
    wait_until("the writer goes on", || writes(&home) > meanwhile + 3);
    drop(busy);
}

#[test]
fn heavy_whoever_holds_a_file_for_good_is_named() {
    for (how, why) in [
        ("holding", "another program keeps writing to the file"),
        ("reading", "another program keeps reading the file"),
    ] {
        let home = Home::sqlite("delete");
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(20, &old);
        let before = home.connect().snapshot().rows;
        let busy = Busy::start(&home, how);
        // A patience of its own: the command's is minutes long.
        let store = std::sync::Arc::new(
            reseal::store::sqlite::SqliteStore::open(&home.file())
                .unwrap()
                .busy_timeout(Duration::from_millis(30)),
        );
        let store: std::sync::Arc<dyn reseal::store::Store> = store;
        let error = Rotation::new(&home, &old, &new).here(&store).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains(&format!("for process {} (", busy.0.id())), "{error}");
        drop(busy);
        assert!(home.connect().snapshot().rows == before);
        Rotation::new(&home, &old, &new).complete(&[]);
    }
}
