//! Values that appear under the old key after every writer was to have switched: reported with the time at which they were seen, and
//! after a compromise never sealed anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use reseal::rotation::Options;
use reseal::store::Store;
use serde_json::Value;
use support::faulty::{Faulty, Order, Settling, What, When};
use support::people::{Column, FernetKey, GAP, Home, Live, Person, Stored};
use support::rotation::{Finished, Rotation, Running, SLOWLY, wait_until};

fn homes() -> Vec<Home> {
    [Some(Home::sqlite("wal")), Home::postgres()].into_iter().flatten().collect()
}

/// Column and key of each late value.
fn late(finished: &Finished) -> Vec<(String, i64)> {
    let values = finished.document["late_values"].as_array().unwrap();
    assert_eq!(finished.count("late_values_total"), values.len() as u64);
    let mut found: Vec<_> = values
        .iter()
        .map(|value| {
            assert!(value["table"].as_str().unwrap().ends_with("people"), "{value}");
            for time in ["seen_at", "last_seen_at"] {
                let time: jiff::Timestamp = value[time].as_str().unwrap().parse().unwrap();
                assert!(time > jiff::Timestamp::UNIX_EPOCH);
            }
            (
                value["column"].as_str().unwrap().to_owned(),
                value["primary_key"]["id"].as_i64().unwrap(),
            )
        })
        .collect();
    found.sort();
    found
}

fn stored(live: &mut Live, id: i64) -> Stored {
    live.snapshot().rows.into_iter().find(|row| row.id == id).unwrap()
}

#[test]
fn heavy_a_writer_that_still_uses_the_old_key_is_reported() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let first = rotation.complete(&[]);
        assert_eq!(late(&first), [], "nobody is accused of what the ranges found");
        assert_eq!(
            first.count("sweeps"),
            2,
            "one clean sweep may have looked behind a writer's back"
        );

        let mut live = home.connect();
        live.replace(3 * GAP, Column::Email, Some(&old.seal("stale")));
        live.insert(&Person::new(700, 1).seal(700 * GAP, &old));
        let expected = [
            ("email".to_owned(), 3 * GAP),
            ("email".to_owned(), 700 * GAP),
            ("note".to_owned(), 700 * GAP),
        ];
        let second = rotation.complete(&[]);
        assert_eq!(late(&second), expected);
        assert_eq!(new.open(&stored(&mut live, 3 * GAP).email).unwrap(), "stale");
        assert!(second.stderr.contains("a writer still uses the old key"), "{}", second.stderr);
        assert!(!second.text().contains("gAAAA"), "{}", second.text());

        // The record stays, and is not news.
        let third = rotation.complete(&[]);
        assert_eq!(third.document["late_values"], second.document["late_values"]);
        assert_eq!(third.count("values_reencrypted"), 0);
    }
}

#[test]
fn heavy_what_an_application_writes_behind_the_ranges_is_found_by_the_first_sweep() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(2_000, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let mut running = rotation.start_and_get_going(SLOWLY);
        let mut live = home.connect();
        wait_until("the first rows are behind it", || {
            old.open(&stored(&mut live, GAP).email).is_none()
        });
        live.replace(GAP, Column::Email, Some(&old.seal("stale")));
        assert!(live.touch(2 * GAP), "another column of a row that was re-encrypted");
        let around = [1, 9_999 * GAP];
        for id in around {
            live.insert(&Person::new(700, 1).seal(id, &old));
        }
        assert!(running.is_running(), "it was over too soon to prove anything");
        let done = running.wait();
        done.assert_verified();
        assert_eq!(new.open(&stored(&mut live, GAP).email).unwrap(), "stale");
        for id in around {
            assert!(
                new.open(&stored(&mut live, id).email).is_some(),
                "before and behind all ranges"
            );
        }
        assert_eq!(
            done.count("sweeps"),
            3,
            "one that found it, and two that found nothing: {}",
            done.text()
        );
    }
}

#[test]
fn heavy_a_value_that_was_quarantined_and_mended_is_not_late() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        let mut live = home.connect();
        let strange = FernetKey::generate().seal("nobody's");
        live.replace(3 * GAP, Column::Email, Some(&strange));
        let rotation = Rotation::new(&home, &old, &new);
        let found = rotation.run(&[]);
        assert_eq!(found.code, Some(7), "{}", found.text());
        live.replace(3 * GAP, Column::Email, Some(&old.seal("mended from a backup")));
        assert_eq!(late(&rotation.complete(&[])), []);
        assert_eq!(new.open(&stored(&mut live, 3 * GAP).email).unwrap(), "mended from a backup");
    }
}

#[test]
fn heavy_after_a_compromise_late_values_are_quarantined_and_never_sealed_anew() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        let rotation = Rotation::new(&home, &old, &new);
        rotation.complete(&["--compromised"]);

        let mut live = home.connect();
        let forged = old.seal("forged");
        live.replace(3 * GAP, Column::Email, Some(&forged));
        let before = live.snapshot().rows;
        for _ in ["the run that meets it", "one after that"] {
            let run = rotation.run(&["--compromised"]);
            assert_eq!(run.code, Some(7), "{}", run.text());
            assert_eq!(late(&run), [("email".to_owned(), 3 * GAP)]);
            assert_eq!(run.count("quarantined_total"), 1);
            assert_eq!(run.document["not_current"], Value::Array(Vec::new()));
            let reason = run.document["quarantined"][0]["reason"].as_str().unwrap();
            assert!(reason.contains("may be forged"), "{reason}");
            assert_eq!(run.count("values_reencrypted"), before_rotated(&before));
            assert!(run.count("sweeps") <= 3, "what stays is not swept for ever: {}", run.document);
            assert_eq!(live.snapshot().rows, before, "byte for byte");
        }

        // Nor by a run that has forgotten what happened.
        let forgetful = rotation.run(&[]);
        assert_eq!(forgetful.code, Some(4), "{}", forgetful.text());
        assert!(forgetful.text().contains("--compromised"), "{}", forgetful.text());
        assert_eq!(live.snapshot().rows, before, "byte for byte");

        // Mended through the application, it is done; found genuine, it may be accepted by name.
        live.replace(3 * GAP, Column::Email, Some(&new.seal("genuine")));
        rotation.complete(&["--compromised"]);
        live.replace(4 * GAP, Column::Email, Some(&old.seal("a slow clerk")));
        assert_eq!(rotation.run(&["--compromised"]).code, Some(7));
        rotation.complete(&["--accept", "may-be-forged"]);
        assert_eq!(new.open(&stored(&mut live, 4 * GAP).email).unwrap(), "a slow clerk");
    }
}

/// Everything was re-encrypted by the first run; the totals are over all runs.
fn before_rotated(rows: &[Stored]) -> u64 {
    rows.iter().map(|row| 1 + u64::from(row.note.is_some())).sum()
}

#[test]
fn heavy_a_value_written_behind_the_cursor_is_late_with_state_and_without() {
    for home in homes() {
        for (state, compromised) in [(true, false), (false, false), (true, true), (false, true)] {
            let (old, new) = (FernetKey::generate(), FernetKey::generate());
            home.connect().execute("DELETE FROM people");
            home.fill(200, &old);
            let forged = old.seal("behind the cursor");
            let live = Mutex::new(home.connect());
            let behind = forged.clone();
            // The first batch was written: row 1 is done with.
            let order: Order = Arc::new(move |number| {
                if number == 4 {
                    std::thread::scope(|scope| {
                        scope.spawn(|| live.lock().unwrap().replace(GAP, Column::Email, Some(&behind)));
                    });
                }
                None
            });
            let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
            let options = Options {
                state,
                compromised,
                ..Options::default()
            };
            let report = Rotation::new(&home, &old, &new).here_with(&store, options).unwrap();
            assert_eq!(report.late.total, 1, "{report:?}");
            let found = &report.late.values[0];
            assert_eq!(found.value.key.cells().next().unwrap().as_int(), Some(GAP));
            assert!(found.seen_at.parse::<jiff::Timestamp>().is_ok(), "{found:?}");
            let email = stored(&mut home.connect(), GAP).email;
            if compromised {
                assert_eq!((report.verified, report.census.quarantined()), (false, 1));
                assert_eq!(email, forged, "byte for byte");
            } else {
                assert!(report.verified);
                assert_eq!(new.open(&email).unwrap(), "behind the cursor");
            }
        }
    }
}

/// The verification has been there, and would be believed.
#[test]
fn heavy_a_value_written_behind_the_verification_is_found_before_the_run_ends() {
    for home in homes() {
        for compromised in [false, true] {
            let (old, new) = (FernetKey::generate(), FernetKey::generate());
            home.connect().execute("DELETE FROM people");
            home.fill(200, &old);
            let stale = old.seal("behind the verification");
            let (live, behind) = (Mutex::new(home.connect()), stale.clone());
            let settling: Settling = Arc::new(move |number| {
                if number == BEHIND_THE_VERIFICATION {
                    live.lock().unwrap().replace(GAP, Column::Email, Some(&behind));
                }
            });
            let store: Arc<dyn Store> = Arc::new(Faulty::settling(home.store(), settling));
            let options = Options {
                compromised,
                ..Options::default()
            };
            let report = Rotation::new(&home, &old, &new).here_with(&store, options).unwrap();
            assert_eq!((report.late.total, report.verified), (1, !compromised), "{report:?}");
            let email = stored(&mut home.connect(), GAP).email;
            if compromised {
                assert_eq!(email, stale, "byte for byte");
                assert_eq!(report.census.quarantined(), 1);
            } else {
                assert_eq!(new.open(&email).unwrap(), "behind the verification");
                assert!(report.sweeps > 2, "{report:?}");
            }
        }
    }
}

/// Whoever sealed with the old key before it was retired from sealing, and commits after everything was looked at.
#[test]
fn heavy_a_transaction_that_was_open_before_the_run_is_waited_for() {
    // On a server of its own: what is young elsewhere is told by the oldest transaction.
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(20, &old);
    let mut slow = home.connect();
    slow.execute("BEGIN");
    slow.insert(&Person::new(700, 1).seal(700 * GAP, &old));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let url = home.url().to_owned();
    let rotation = Rotation::new(&home, &old, &new);
    let committing = std::thread::spawn(move || {
        released.recv().unwrap();
        slow.execute("COMMIT");
    });
    let mut running = Running::start(rotation.command(&[]));
    // Others come and go: they have switched, and nobody waits for them.
    let mut quick = Live::open(&url);
    for number in 0..50 {
        assert!(running.is_running(), "it did not wait");
        quick.insert(&Person::new(800, 1).seal(800 * GAP + number, &new));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    release.send(()).unwrap();
    committing.join().unwrap();
    let done = running.wait();
    done.assert_verified();
    assert_eq!(late(&done), [], "nobody is accused");
    let waited = done.document["throttled_seconds"]["open-transactions"].as_f64().unwrap();
    assert!(waited > 1.0, "{}", done.text());
    assert!(new.open(&stored(&mut home.connect(), 700 * GAP).email).is_some());
}

#[test]
fn heavy_a_transaction_that_does_not_end_is_named_and_nothing_is_called_finished() {
    // On a server of its own: what is young elsewhere is told by the oldest transaction.
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(20, &old);
    let mut slow = home.connect();
    slow.execute("SET application_name = 'the slow one'; BEGIN");
    slow.insert(&Person::new(700, 1).seal(700 * GAP, &old));
    let options = Options {
        outlast_max: std::time::Duration::from_millis(300),
        ..Options::default()
    };
    let rotation = Rotation::new(&home, &old, &new);
    let error = rotation.here_with(&home.store(), options.clone()).unwrap_err();
    assert!(error.to_string().contains("the slow one"), "{error}");
    slow.execute("COMMIT");
    let report = rotation.here_with(&home.store(), options).unwrap();
    assert!(report.verified, "{report:?}");
    assert!(new.open(&stored(&mut slow, 700 * GAP).email).is_some());
}

/// The run dies after the commit of the batch that met the value, and before it could tell anybody.
#[test]
fn heavy_a_crash_between_seeing_and_reporting_loses_nothing() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        let rotation = Rotation::new(&home, &old, &new);
        rotation.complete(&[]);
        let mut live = home.connect();
        live.replace(3 * GAP, Column::Email, Some(&old.seal("stale")));

        let order: Order = Arc::new(|number| (number == 1).then_some((When::After, What::Full)));
        let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
        rotation.here(&store).unwrap_err();
        assert_eq!(
            new.open(&stored(&mut live, 3 * GAP).email).unwrap(),
            "stale",
            "it was committed"
        );

        assert_eq!(late(&rotation.complete(&[])), [("email".to_owned(), 3 * GAP)]);
    }
}

/// A row that somebody else holds locked while its range is worked through is this run's own remainder.
#[test]
fn heavy_rows_of_lost_races_are_not_late() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(60, &old);
    for compromised in [false, true] {
        home.connect().execute("DELETE FROM people");
        home.connect().execute("DROP SCHEMA IF EXISTS reseal CASCADE");
        home.fill(60, &old);
        let mut holder = home.connect();
        holder.execute(&format!("BEGIN; SELECT 1 FROM people WHERE id = {} FOR UPDATE", 5 * GAP));
        let url = home.url().to_owned();
        let releasing = std::thread::spawn(move || {
            let mut live = Live::open(&url);
            wait_until("all ranges are worked through", || {
                live.totals().is_some() && live.control().iter().any(|row| row.contains(",swept,"))
            });
            holder.execute("ROLLBACK");
        });
        let options = Options {
            compromised,
            ..Options::default()
        };
        let store = home.store();
        let report = Rotation::new(&home, &old, &new).here_with(&store, options).unwrap();
        releasing.join().unwrap();
        assert!(report.counters.lost_races > 0, "the row was not held: {report:?}");
        assert_eq!(report.late.total, 0, "{report:?}");
        assert!(report.verified, "{report:?}");
    }
}

/// A run that dies between a batch and the second try of the rows that lost their race leaves nothing that looks late to the next one.
#[test]
fn heavy_rows_whose_race_was_lost_before_a_crash_are_not_late() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(60, &old);
    let mut holder = home.connect();
    holder.execute(&format!("BEGIN; SELECT 1 FROM people WHERE id = {} FOR UPDATE", 5 * GAP));
    // The first attempt on each page meets the lock or commits; the first commit is the last that this run makes.
    let committed = Arc::new(Mutex::new(0));
    let order: Order = Arc::new(move |_| {
        *committed.lock().unwrap() += 1;
        (*committed.lock().unwrap() > 1).then_some((When::After, What::Full))
    });
    let options = || Options {
        compromised: true,
        ..Options::default()
    };
    let store: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
    Rotation::new(&home, &old, &new).here_with(&store, options()).unwrap_err();
    let lost = home.connect().totals().unwrap().lost_races;
    assert!(lost > 0, "the run did not lose a race before its end");
    holder.execute("ROLLBACK");

    let report = Rotation::new(&home, &old, &new).here_with(&home.store(), options()).unwrap();
    assert_eq!(report.late.total, 0, "{report:?}");
    assert!(report.verified, "{report:?}");
    assert_eq!(report.counters.values_already_current, 0, "{report:?}");
    assert_eq!(report.counters.rows_scanned, 60, "{report:?}");
}

/// What was committed is settled before the first sweep, before the verification, and before the sweep behind it.
const BEHIND_THE_VERIFICATION: u32 = 3;
