//! Whole rotations while an application works: under a storm of writes nothing is lost, resurrected or unreadable; a second run writes
//! nothing; a signal ends a run between two batches.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use reseal::rotation::RotationReport;
use reseal::store::Store;
use rustix::process::Signal;
use support::faulty::{Faulty, Order};
use support::people::{FernetKey, Home, Live};
use support::rotation::{Rotation, Running, SLOWLY, wait_until};
use support::storm::Storm;

const PEOPLE: i64 = 3_000;
const WRITERS: usize = 3;
const READERS: usize = 1;

#[test]
fn heavy_a_storm_of_writes_loses_nothing_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    storm(&home, &["--workers", "3", "--batch-rows", "25", "--profile", "gentle"]);
}

/// Places of dead versions are given to other rows between the reading and the writing of a batch.
#[test]
fn heavy_a_storm_of_writes_loses_nothing_on_postgres_beside_vacuum() {
    let Some(home) = Home::postgres() else { return };
    storm(
        &home,
        &["--workers", "3", "--batch-rows", "25", "--profile", "gentle", "--vacuum"],
    );
}

#[test]
fn heavy_a_storm_of_writes_loses_nothing_on_postgres_without_control_tables() {
    let Some(home) = Home::postgres() else { return };
    storm(
        &home,
        &["--workers", "3", "--batch-rows", "25", "--profile", "gentle", "--no-state"],
    );
}

#[test]
fn heavy_a_storm_of_writes_loses_nothing_on_sqlite() {
    storm(&Home::sqlite("wal"), &["--batch-rows", "25", "--profile", "gentle"]);
}

#[test]
fn heavy_a_storm_of_writes_loses_nothing_on_sqlite_with_a_rollback_journal() {
    // Each commit of either side waits for the disk and for the other: fewer, larger batches.
    storm(&Home::sqlite("delete"), &["--batch-rows", "100", "--profile", "gentle"]);
}

fn storm(home: &Home, arguments: &[&str]) {
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    let people = home.fill(PEOPLE, &old);
    let values: u64 = people.iter().map(|(_, person)| person.values()).sum();
    let mut storm = Storm::start(home, people, (&old, &new), WRITERS, READERS);
    wait_until("the storm blows", || storm.activity().0 > 50 && storm.activity().1 > 0);

    let rotation = Rotation::new(home, &old, &new);
    let first = rotation.complete(arguments);
    let (writes, reads) = storm.activity();
    storm.calm();

    let mut live = home.connect();
    let (audit, snapshot) = storm.audit(&mut live);
    eprintln!(
        "{writes} writes and {reads} reads meanwhile; {} lost races; {audit:?}",
        first.count("lost_races")
    );
    assert!(writes > 100, "no storm: {writes} writes");
    // A writer that read a value before it was rotated, was held up until the end, and then restored it byte for byte, leaves it under
    // the old key. The next run finds it.
    rotation.complete(arguments);
    let (audit, last) = storm.audit(&mut live);
    assert_eq!(audit.under_old, 0);
    assert_eq!(
        audit.under_new,
        snapshot.rows.iter().map(|row| 1 + u64::from(row.note.is_some())).sum::<u64>()
    );
    // Each value that was under the old key was re-encrypted once, or else a writer took it away before.
    if let Some(totals) = last.totals {
        assert_eq!(totals.values_reencrypted + storm.spared(), values);
    }
}

/// A storm may pass a batch by. This one blows between reading and writing of every single batch.
#[test]
fn heavy_writes_between_reading_and_writing_are_kept_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    let report = write_between(&home);
    assert!(report.counters.lost_races > 20, "{:?}", report.counters);
}

#[test]
fn heavy_writes_between_batches_are_kept_on_sqlite() {
    // Here nobody can come between reading and writing.
    assert_eq!(write_between(&Home::sqlite("wal")).counters.lost_races, 0);
}

fn write_between(home: &Home) -> RotationReport {
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    let people = home.fill(400, &old);
    let values: u64 = people.iter().map(|(_, person)| person.values()).sum();
    let storm = Storm::start(home, people, (&old, &new), 0, 0);
    let writer = Mutex::new(storm.writer(home));
    let order: Order = Arc::new(move |_| {
        // The writer has a runtime of its own, which may not be used on a thread of another.
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                writer.lock().unwrap().write_ahead_of_the_rotation();
            });
            writing.join().unwrap();
        });
        None
    });
    let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
    let report = Rotation::new(home, &old, &new).here(&store).unwrap();
    assert!(report.verified, "{report:?}");
    let (audit, snapshot) = storm.audit(&mut home.connect());
    assert_eq!(audit.under_old, 0);
    assert_eq!(snapshot.totals.unwrap().values_reencrypted + storm.spared(), values);
    report
}

/// PostgreSQL gives the address of a dead row version to a new one, and be it of the same row.
#[test]
fn heavy_an_address_that_is_used_again_is_another_version() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    // All on one page, with room for another version.
    let people = home.fill(8, &old);
    let (id, _) = people[3];
    // An indexed column: its change leaves nothing behind at the old address.
    home.connect().execute("CREATE INDEX ON people (seen)");
    let storm = Storm::start(&home, people, (&old, &new), 0, 0);
    let writer = Mutex::new((storm.writer(&home), home.connect()));
    let order: Order = Arc::new(move |number| {
        if number == 1 {
            std::thread::scope(|scope| {
                let writing = scope.spawn(|| {
                    let (writer, live) = &mut *writer.lock().unwrap();
                    let address = live.address(id);
                    for _ in 0..50 {
                        writer.change_email(id);
                        if live.address(id) == address {
                            return;
                        }
                        live.touch(id);
                        live.execute("VACUUM people");
                    }
                    panic!("the address was not used again");
                });
                writing.join().unwrap();
            });
        }
        None
    });
    let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
    let report = Rotation::new(&home, &old, &new).here(&store).unwrap();
    assert!(report.verified);
    assert_eq!(storm.audit(&mut home.connect()).0.under_old, 0);
    assert_eq!(report.counters.lost_races, 1);
}

/// After a bulk load all rows have one xmin, and VACUUM FULL and CLUSTER keep it: address and version of a row are then those of
/// another one. Only its key tells.
#[test]
fn heavy_rows_that_change_places_between_reading_and_writing_keep_their_values() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    let mut people = home.fill(400, &old);
    // Holes, so that the others move up.
    let database = home.database().unwrap();
    database.execute("CREATE INDEX backwards ON people ((-id)); DELETE FROM people WHERE id % 3000 = 0");
    people.retain(|(id, _)| id % 3000 != 0);
    let values: u64 = people.iter().map(|(_, person)| person.values()).sum();
    let still = Storm::start(&home, people, (&old, &new), 0, 0);

    let url = home.url().to_owned();
    let order: Order = Arc::new(move |number| {
        let moves = match number % 3 {
            0 => "VACUUM FULL people",
            1 => "CLUSTER people USING backwards",
            _ => return None,
        };
        let url = url.clone();
        // A connection with a runtime of its own cannot wait on a thread that has one.
        std::thread::spawn(move || Live::open(&url).execute(moves)).join().unwrap();
        None
    });
    let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
    let report = Rotation::new(&home, &old, &new).here(&store).unwrap();
    assert!(report.verified);
    assert!(report.counters.lost_races > 0, "no row has moved");
    let (audit, _) = still.audit(&mut home.connect());
    assert_eq!((audit.under_old, audit.under_new), (0, values));
    assert_eq!(report.counters.values_reencrypted, values);
}

#[test]
fn heavy_partitions_come_and_go_while_postgres_is_rotated() {
    let Some(database) = support::postgres() else { return };
    let home = Home::with(
        database,
        "CREATE TABLE people (id bigint NOT NULL PRIMARY KEY, email text NOT NULL, note text, seen bigint NOT NULL DEFAULT 0)
           PARTITION BY RANGE (id);
         CREATE TABLE first PARTITION OF people FOR VALUES FROM (0) TO (500500);
         CREATE TABLE second PARTITION OF people FOR VALUES FROM (500500) TO (1000500);
         CREATE TABLE third PARTITION OF people FOR VALUES FROM (1000500) TO (1500500)",
    );
    let database = home.database().unwrap();
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    let people = home.fill(1_500, &old);
    let values: u64 = people.iter().map(|(_, person)| person.values()).sum();
    let still = Storm::start(&home, people, (&old, &new), 0, 0);
    database.execute("ALTER TABLE people DETACH PARTITION third");

    let rotation = Rotation::new(&home, &old, &new);
    let running = rotation.start_and_get_going(SLOWLY);
    database.execute("ALTER TABLE people DETACH PARTITION second");
    database.execute("ALTER TABLE people ATTACH PARTITION third FOR VALUES FROM (1000500) TO (1500500)");
    let finished = running.wait();
    finished.assert_verified();
    let under_old = |table: &str| {
        let tokens = database.texts(&format!("SELECT email FROM {table}"));
        tokens
            .iter()
            .filter(|token| old.open(token.as_deref().unwrap()).is_some())
            .count()
    };
    assert_eq!((under_old("first"), under_old("third")), (0, 0));

    // What has been away under the old key is found again.
    database.execute("ALTER TABLE people ATTACH PARTITION second FOR VALUES FROM (500500) TO (1000500)");
    let again = rotation.complete(&[]);
    let (audit, _) = still.audit(&mut home.connect());
    assert_eq!((audit.under_old, audit.under_new), (0, values));
    assert_eq!(again.count("rows_scanned"), 1_500);
}

#[test]
fn heavy_a_second_run_writes_nothing_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(300, &old);
    let rotation = Rotation::new(&home, &old, &new);
    let first = rotation.complete(&[]);
    let database = home.database().unwrap();
    let versions = || {
        ["public.people", "reseal.meta", "reseal.plan", "reseal.range", "reseal.quarantine"].map(|table| {
            // Every update, delete and row lock would show here, rolled back or not.
            database.texts(&format!(
                "SELECT t.ctid::text || ' ' || t.xmin::text || ' ' || t.xmax::text || ' ' || t.tableoid::text FROM {table} t ORDER BY t.ctid"
            ))
        })
    };
    let before = versions();
    assert_eq!(before[0].len(), 300);
    assert_eq!(before[2].len(), 1);

    let second = rotation.complete(&[]);
    assert_eq!(versions(), before);
    assert_second(&first, &second, 300);
}

#[test]
fn a_second_run_leaves_every_byte_of_an_sqlite_file() {
    for journal in ["delete", "wal"] {
        let home = Home::sqlite(journal);
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(300, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let first = rotation.complete(&[]);
        let files = || {
            let folder = home.file().parent().unwrap().to_owned();
            let mut files: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.metadata().unwrap().len() > 0)
                .map(|path| (path.clone(), std::fs::read(path).unwrap()))
                .collect();
            files.sort();
            files
        };
        let before = files();
        assert_eq!(before.len(), 1, "the database and nothing else");
        let second = rotation.complete(&[]);
        assert!(files() == before, "{journal}: a byte changed");
        assert_second(&first, &second, 300);
    }
}

fn assert_second(first: &support::rotation::Finished, second: &support::rotation::Finished, rows: u64) {
    let values = first.count("values_reencrypted");
    assert!(values > rows);
    assert_eq!(second.count("values_reencrypted"), 0);
    assert_eq!(second.count("rows_scanned"), rows);
    assert_eq!(second.count("values_already_current"), values);
    assert_eq!(first.document["census"], second.document["census"]);
}

#[test]
fn heavy_an_interrupt_ends_after_a_batch_and_the_same_command_continues_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    interrupt(&home);
}

#[test]
fn heavy_an_interrupt_ends_after_a_batch_and_the_same_command_continues_on_sqlite() {
    interrupt(&Home::sqlite("wal"));
}

fn interrupt(home: &Home) {
    let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
    let people = home.fill(2_000, &old);
    let values: u64 = people.iter().map(|(_, person)| person.values()).sum();
    let still = Storm::start(home, people, (&old, &new), 0, 0);
    let rotation = Rotation::new(home, &old, &new);
    let mut live = home.connect();

    let mut done = 0;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let running: Running = rotation.start_and_get_going(SLOWLY);
        running.signal(signal);
        let stopped = running.wait();
        assert_eq!(stopped.code, Some(5), "{}", stopped.text());
        assert_eq!(stopped.document["verified"], false);
        assert_eq!(stopped.document["exit"], 5);
        assert_eq!(stopped.document["error"]["failed"], "stopped on request");
        let next = stopped.document["error"]["next"].as_str().unwrap();
        assert!(next.contains("run the same command again"), "{next}");

        let (audit, snapshot) = still.audit(&mut live);
        let totals = snapshot.totals.unwrap();
        assert!(audit.under_old > 0, "the signal came too late to prove anything");
        assert!(audit.under_new >= done, "a value went back");
        assert_eq!(totals.values_reencrypted, audit.under_new, "whole batches, each counted");
        assert_eq!(totals.rows_scanned, audit.rows_under_new);
        done = audit.under_new;
    }
    let finished = rotation.complete(&[]);
    assert_eq!(finished.count("values_reencrypted"), values);
    assert_eq!(finished.count("rows_scanned"), 2_000);
    assert_eq!(still.audit(&mut live).0.under_new, values);
}

#[test]
fn there_and_back_and_there_again_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    there_and_back_and_there_again(&home);
}

#[test]
fn there_and_back_and_there_again_on_sqlite() {
    there_and_back_and_there_again(&Home::sqlite("wal"));
}

/// The plan of the first way is there and verified when the way is gone a second time. Its ranges do the work again, and their cursors
/// resume it: what is left to the sweeps would begin from the start after every kill.
fn there_and_back_and_there_again(home: &Home) {
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let values: u64 = home.fill(800, &old).iter().map(|(_, person)| person.values()).sum();
    let (there, back) = (Rotation::new(home, &old, &new), Rotation::new(home, &new, &old));
    assert_eq!(there.complete(&[]).count("values_reencrypted"), values);
    assert_eq!(back.complete(&[]).count("values_reencrypted"), values);

    let mut running = there.start_and_get_going(SLOWLY);
    assert!(running.kill(), "it was over too soon to prove anything");
    let again = there.complete(&[]);
    assert_eq!(again.count("sweeps"), 2, "the sweeps had work to do: {}", again.text());
    assert_eq!(again.count("values_reencrypted"), 2 * values, "counted over all runs");
    assert_eq!(back.complete(&[]).count("sweeps"), 2);
}
