//! What happens to a rotation: kill -9, cut connections, lost replies, a server that crashes, a full disk, a busy file, a frozen process,
//! a table that is altered, nobody who reads what it says.
//! After each of them every value is readable, and the same command ends where an undisturbed run would have.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod faults {
    pub mod altered;
    pub mod back;
    pub mod busy;
    pub mod proving;
    pub mod unheard;
}

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use reseal::rotation::RotationError;
use reseal::store::postgres::PostgresStore;
use reseal::store::{Store, StoreError};
use rustix::process::{Pid, Signal};
use support::faulty::{Faulty, Order, What, When};
use support::people::{FernetKey, Home, Live, Person};
use support::proxy::{EARLY_CUTS_MAX, Prey, Proxy};
use support::rotation::{Finished, Rotation, Running, SLOWLY, SLOWLY_ALONE, wait_until};
use support::storm::Storm;

const PEOPLE: i64 = 1_500;

/// A table under the old key, and the ledger of what it says.
struct Scene {
    old: Arc<FernetKey>,
    new: Arc<FernetKey>,
    values: u64,
    /// Nobody writes: the ledger only remembers.
    still: Storm,
    live: Live,
}

impl Scene {
    fn new(home: &Home, people: i64) -> Self {
        let (old, new) = (Arc::new(FernetKey::generate()), Arc::new(FernetKey::generate()));
        let people = home.fill(people, &old);
        Self {
            values: values_of(&people),
            still: Storm::start(home, people, (&old, &new), 0, 0),
            live: home.connect(),
            old,
            new,
        }
    }

    fn rotation<'a>(&'a self, home: &'a Home) -> Rotation<'a> {
        Rotation::new(home, &self.old, &self.new)
    }

    /// Every row as it was, and as many values under the new key as the counters say: cursors and counters are committed with rows.
    fn assert_exact(&mut self) {
        assert_exact(&self.still, &mut self.live, 1);
    }

    /// Everything is under the new key, and every value was counted once, over all runs.
    fn assert_complete(&mut self, last: &Finished) {
        last.assert_verified();
        let (audit, _) = self.still.audit(&mut self.live);
        assert_eq!((audit.under_old, audit.under_new), (0, self.values));
        assert_eq!(last.count("values_reencrypted"), self.values, "{}", last.text());
        assert_eq!(last.count("rows_scanned"), audit.rows, "{}", last.text());
        assert_eq!(last.count("values_already_current"), 0, "{}", last.text());
    }
}

fn values_of(people: &[(i64, Person)]) -> u64 {
    people.iter().map(|(_, person)| person.values()).sum()
}

/// `plans` is how many rotations were begun when the present one has made its plan.
fn assert_exact(still: &Storm, live: &mut Live, plans: u64) {
    let (audit, snapshot) = still.audit(live);
    let totals = snapshot.totals.filter(|_| snapshot.plans == plans).unwrap_or_default();
    assert_eq!(totals.values_reencrypted, audit.under_new, "{audit:?}");
    assert_eq!(totals.rows_reencrypted, audit.rows_under_new, "{audit:?}");
    assert_eq!(totals.rows_scanned, audit.rows_under_new, "{audit:?}");
    assert_eq!(totals.values_already_current, 0);
}

// kill -9

#[test]
fn heavy_killed_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    kill_again_and_again(&home, 15, 0);
}

#[test]
fn heavy_killed_on_postgres_while_the_application_writes() {
    let Some(home) = Home::postgres() else { return };
    kill_again_and_again(&home, 15, 1);
}

#[test]
fn heavy_killed_on_sqlite() {
    kill_again_and_again(&Home::sqlite("delete"), 13, 0);
}

#[test]
fn heavy_killed_on_sqlite_while_the_application_writes() {
    kill_again_and_again(&Home::sqlite("wal"), 12, 1);
}

/// From key to key, with the process killed at any moment, until it has been killed often enough. After each kill every value opens and
/// says what it must; at the end of each rotation every value was re-encrypted exactly once or was taken away by the application.
fn kill_again_and_again(home: &Home, kills: u32, writers: usize) {
    let mut old = Arc::new(FernetKey::generate());
    let mut people = home.fill(PEOPLE, &old);
    let mut live = home.connect();
    let (mut killed, mut rotations) = (0, 0);
    while killed < kills {
        let new = Arc::new(FernetKey::generate());
        let values = values_of(&people);
        let mut storm = Storm::start(home, people, (&old, &new), writers, 0);
        let rotation = Rotation::new(home, &old, &new);
        rotations += 1;
        loop {
            let mut running = Running::start(rotation.command(SLOWLY));
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(20..900)));
            if !running.is_running() || killed == kills {
                running.wait().assert_verified();
                break;
            }
            killed += u32::from(running.kill());
            if writers == 0 {
                assert_exact(&storm, &mut live, rotations);
            } else {
                storm.audit(&mut live);
            }
        }
        storm.calm();
        // What a writer restored after it was verified.
        rotation.complete(&[]);
        let (audit, snapshot) = storm.audit(&mut live);
        assert_eq!(audit.under_old, 0);
        let totals = snapshot.totals.unwrap();
        assert_eq!(totals.values_reencrypted + storm.spared(), values);
        if writers == 0 {
            assert_eq!(totals.rows_scanned, audit.rows);
            assert_eq!(totals.values_already_current, 0);
        }
        people = storm.people();
        old = new;
    }
    eprintln!("{killed} kills over {rotations} rotations");
}

// Commits that fail

#[test]
fn heavy_batches_cut_off_on_their_way_to_postgres_are_written_once() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, PEOPLE);
    let proxy = Proxy::before(home.url(), Prey::Swaps, 4);
    let mut rotation = scene.rotation(&home);
    rotation.url = Some(proxy.url(home.url()));
    let finished = rotation.run(SLOWLY);
    let [before, reply_lost, middle] = proxy.cuts();
    assert!(before >= 3 && reply_lost >= 3 && middle >= 3, "cuts: {:?}", proxy.cuts());
    scene.assert_complete(&finished);
    scene.assert_exact();
    assert_eq!(finished.count("lost_races"), 0);
    // A cursor that was ahead of its rows would have left them to the sweeps.
    assert_eq!(finished.count("late_values_total"), 0);
}

/// Behind a connection that is lost another server may answer next, where the same transaction number stands for something else.
#[test]
fn heavy_no_connection_writes_rows_that_another_one_has_read() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let mut scene = Scene::new(&home, PEOPLE);
    let proxy = Proxy::before(home.url(), Prey::Swaps, 4);
    let mut rotation = scene.rotation(&home);
    rotation.url = Some(proxy.url(home.url()));
    let finished = rotation.run(SLOWLY_ALONE);
    let [_, replies_lost, _] = proxy.cuts();
    assert!(replies_lost >= 3, "cuts: {:?}", proxy.cuts());
    scene.assert_complete(&finished);
    let log = std::fs::read(server.log_path()).unwrap();
    let (mut readers, mut writers) = (HashSet::new(), HashSet::new());
    for line in String::from_utf8_lossy(&log).lines() {
        let Some((process, statement)) = line.split_once("] LOG:  execute ") else {
            continue;
        };
        let process = process.rsplit('[').next().unwrap().to_owned();
        if statement.contains(": SELECT ") && statement.contains("ctid") {
            readers.insert(process);
        } else if statement.contains(": WITH ") && statement.contains("AS MATERIALIZED") {
            assert!(readers.contains(&process), "connection {process} wrote before it had read");
            writers.insert(process);
        }
    }
    assert!(writers.len() > 3, "{writers:?}");
}

#[test]
fn heavy_any_request_to_postgres_may_be_cut_off() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, 300);
    let proxy = Proxy::before(home.url(), Prey::Anything, 9);
    let mut rotation = scene.rotation(&home);
    rotation.url = Some(proxy.url(home.url()));
    let finished = rotation.run(SLOWLY);
    assert!(proxy.cuts().iter().all(|cuts| *cuts >= 5), "cuts: {:?}", proxy.cuts());
    scene.assert_complete(&finished);
    scene.assert_exact();
}

#[test]
fn heavy_a_network_that_fails_before_the_first_batch_is_waited_for() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, 200);
    let proxy = Proxy::before(home.url(), Prey::Early, 7);
    let mut rotation = scene.rotation(&home);
    rotation.url = Some(proxy.url(home.url()));
    let finished = rotation.run(&[]);
    assert_eq!(proxy.cuts().iter().sum::<u32>(), EARLY_CUTS_MAX, "cuts: {:?}", proxy.cuts());
    scene.assert_complete(&finished);
}

#[test]
fn a_server_that_was_never_there_is_told_at_once() {
    let Some(home) = Home::postgres() else { return };
    let scene = Scene::new(&home, 1);
    let mut rotation = scene.rotation(&home);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    rotation.url = Some(format!("postgres://nobody@{free}/nothing"));
    let failed = rotation.run(&["--retry-for", "3600"]);
    assert_eq!(failed.code, Some(8), "{}", failed.text());
}

#[test]
fn heavy_a_connection_that_swallows_requests_is_given_up_and_the_work_goes_on() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, 200);
    let proxy = Proxy::swallowing(home.url(), Prey::Anything, 13);
    let store = PostgresStore::new(&proxy.url(home.url()), "reseal test").unwrap();
    let store: Arc<dyn Store> = Arc::new(store.answer_within(Duration::from_millis(500)));
    let report = scene.rotation(&home).here(&store).unwrap();
    assert!(proxy.swallowed() >= 3, "{}", proxy.swallowed());
    assert!(report.verified);
    assert_eq!(report.counters.values_reencrypted, scene.values);
    scene.assert_exact();
}

#[test]
fn heavy_statements_that_are_cancelled_are_done_again() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, PEOPLE);
    let mut running = scene.rotation(&home).start_and_get_going(SLOWLY);
    // As a statement timeout does: the statement ends, its connection stays.
    let mut cancelled = 0;
    while running.is_running() && cancelled < 200 {
        scene.live.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
              WHERE application_name LIKE 'reseal %' AND datname = current_database() AND state = 'active'",
        );
        cancelled += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(cancelled > 20, "it was over too soon to prove anything");
    let finished = running.wait();
    scene.assert_complete(&finished);
    scene.assert_exact();
}

#[test]
fn heavy_an_administrator_ends_all_connections_to_postgres_again_and_again() {
    let Some(home) = Home::postgres() else { return };
    let mut scene = Scene::new(&home, PEOPLE);
    let mut running = scene.rotation(&home).start_and_get_going(SLOWLY);
    let mut ended = 0;
    while running.is_running() && ended < 8 {
        scene.live.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE application_name LIKE 'reseal %' AND datname = current_database()",
        );
        ended += 1;
        std::thread::sleep(Duration::from_millis(400));
    }
    assert!(ended > 1, "it was over too soon to prove anything");
    let finished = running.wait();
    scene.assert_complete(&finished);
}

#[test]
fn heavy_what_was_called_verified_survives_a_crash_of_postgres() {
    let Some(server) = support::private_postgres() else { return };
    let database = server.database();
    // Commits that nobody waits for now stay in memory for seconds: what is there after the crash was made durable on purpose.
    for setting in ["wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'"] {
        database.execute(&format!("ALTER SYSTEM SET {setting}"));
    }
    database.execute("SELECT pg_reload_conf()");
    let home = Home::on(database);
    let mut scene = Scene::new(&home, PEOPLE);
    // On a busy machine seconds pass: nobody writes the log of his own accord.
    let writers =
        "SELECT pid::text FROM pg_stat_activity WHERE backend_type IN ('walwriter', 'background writer', 'checkpointer')";
    let writers = home.database().unwrap().texts(writers);
    assert_eq!(writers.len(), 3);
    for pid in writers {
        let pid = Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
    }
    // Without control tables no later commit of the run's own waits for the log.
    scene.rotation(&home).complete(&["--no-state", "--batch-rows", "50"]);
    server.kill();
    server.restart();
    scene.live = home.connect();
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert_eq!((audit.under_old, audit.under_new), (0, scene.values));
}

#[test]
fn heavy_a_crashed_postgres_that_comes_back_is_waited_for() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let mut scene = Scene::new(&home, PEOPLE);
    let arguments = [SLOWLY, &["--retry-for", "60"]].concat();
    let running = scene.rotation(&home).start_and_get_going(&arguments);
    for _ in 0..2 {
        server.kill();
        std::thread::sleep(Duration::from_millis(700));
        server.restart();
        scene.live = home.connect();
        scene.assert_exact();
        let (audit, _) = scene.still.audit(&mut scene.live);
        let going = audit.under_new;
        wait_until("the run goes on", || scene.still.audit(&mut scene.live).0.under_new > going);
    }
    let finished = running.wait();
    scene.assert_complete(&finished);
}

#[test]
fn heavy_a_postgres_that_stays_away_is_given_up() {
    let Some(server) = support::private_postgres() else { return };
    let home = Home::on(server.database());
    let mut scene = Scene::new(&home, PEOPLE);
    let arguments = [SLOWLY, &["--retry-for", "1"]].concat();
    let running = scene.rotation(&home).start_and_get_going(&arguments);
    server.kill();
    let given_up = running.wait();
    assert_eq!(given_up.code, Some(8), "{}", given_up.text());
    server.restart();
    scene.live = home.connect();
    scene.assert_exact();
    let finished = scene.rotation(&home).run(&[]);
    scene.assert_complete(&finished);
}

#[test]
fn heavy_a_batch_whose_cursor_cannot_be_written_is_not_written_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    refuse_the_cursor(
        &home,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON reseal.range FOR EACH ROW
           WHEN (NEW.rows_scanned > OLD.rows_scanned) EXECUTE FUNCTION refuse()",
        "DROP TRIGGER refuse ON reseal.range",
    );
}

#[test]
fn heavy_a_batch_whose_cursor_cannot_be_written_is_not_written_on_sqlite() {
    refuse_the_cursor(
        &Home::sqlite("wal"),
        "CREATE TRIGGER refuse BEFORE UPDATE ON reseal_range WHEN NEW.rows_scanned > OLD.rows_scanned
           BEGIN SELECT RAISE(ABORT, 'no room'); END",
        "DROP TRIGGER refuse",
    );
}

fn refuse_the_cursor(home: &Home, refuse: &str, relent: &str) {
    let mut scene = Scene::new(home, PEOPLE);
    let running = scene.rotation(home).start_and_get_going(SLOWLY);
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, Some(5));
    let before = scene.live.snapshot().rows;
    scene.live.execute(refuse);
    let failed = scene.rotation(home).run(SLOWLY);
    assert_eq!(failed.code, Some(5), "{}", failed.text());
    assert!(scene.live.snapshot().rows == before, "rows changed without their cursor");
    scene.live.execute(relent);
    let finished = scene.rotation(home).run(&[]);
    scene.assert_complete(&finished);
}

#[test]
fn heavy_another_program_holds_the_sqlite_file_for_longer_than_its_timeout() {
    let home = Home::sqlite("wal");
    let mut scene = Scene::new(&home, PEOPLE);
    let running = scene.rotation(&home).start_and_get_going(SLOWLY);
    for seconds in [1, 11] {
        scene.live.execute("BEGIN IMMEDIATE");
        std::thread::sleep(Duration::from_secs(seconds));
        scene.live.execute("COMMIT");
        scene.assert_exact();
    }
    let finished = running.wait();
    scene.assert_complete(&finished);
}

#[test]
fn heavy_a_full_disk_ends_the_run_and_harms_nothing_on_sqlite() {
    let home = Home::sqlite("wal");
    let mut scene = Scene::new(&home, PEOPLE);
    // No file may grow beyond the database: the write-ahead log meets the limit in the middle of the rotation.
    let blocks = std::fs::metadata(home.file()).unwrap().len().div_ceil(512) + 128;
    let wanted = scene.rotation(&home).command(SLOWLY);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(wanted.get_program())
        .args(wanted.get_args())
        .env_clear()
        .envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let full = Running::start(limited).wait();
    assert_eq!(full.code, Some(5), "{}", full.text());
    let next = full.document["error"]["next"].as_str().unwrap();
    assert!(next.contains("make room"), "{next}");
    let (audit, _) = scene.still.audit(&mut scene.live);
    assert!(
        audit.under_new > 0 && audit.under_old > 0,
        "the limit proves nothing: {audit:?}"
    );
    scene.assert_exact();
    let finished = scene.rotation(&home).run(&[]);
    scene.assert_complete(&finished);
}

// Every single commit, in this process

#[test]
fn every_commit_of_postgres_fails_before_and_after_and_the_run_goes_on() {
    let Some(home) = Home::postgres() else { return };
    every_commit_fails(&home);
}

#[test]
fn every_commit_of_sqlite_fails_before_and_after_and_the_run_goes_on() {
    every_commit_fails(&Home::sqlite("wal"));
}

fn every_commit_fails(home: &Home) {
    let mut scene = Scene::new(home, 120);
    // One worker: each batch fails before, then succeeds with its reply lost, and the next one is the third.
    let faulty = Arc::new(Faulty::new(
        home.store(),
        Arc::new(|number| match number % 3 {
            1 => Some((When::Before, What::Lost)),
            2 => Some((When::After, What::Lost)),
            _ => None,
        }),
    ));
    let report = scene.rotation(home).here(&(Arc::clone(&faulty) as Arc<dyn Store>)).unwrap();
    assert!(faulty.failed(When::Before) >= 3 && faulty.failed(When::After) >= 3);
    assert!(report.verified);
    assert_eq!(report.counters.values_reencrypted, scene.values);
    assert_eq!(report.counters.rows_scanned, 120);
    assert_eq!(report.counters.values_already_current, 0);
    scene.assert_exact();
}

#[test]
fn every_commit_of_postgres_may_be_the_last_of_a_run() {
    let Some(home) = Home::postgres() else { return };
    every_commit_ends_a_run(&home);
}

#[test]
fn every_commit_of_sqlite_may_be_the_last_of_a_run() {
    every_commit_ends_a_run(&Home::sqlite("delete"));
}

fn every_commit_ends_a_run(home: &Home) {
    let mut scene = Scene::new(home, 120);
    let mut runs = 0;
    let report = loop {
        runs += 1;
        assert!(runs < 50, "no progress");
        // One batch a run: done with its reply lost, or followed by one that is not done.
        let order: Order = match runs % 2 {
            0 => Arc::new(|number| (number == 1).then_some((When::After, What::Full))),
            _ => Arc::new(|number| (number == 2).then_some((When::Before, What::Full))),
        };
        let faulty: Arc<dyn Store> = Arc::new(Faulty::new(home.store(), order));
        match scene.rotation(home).here(&faulty) {
            Ok(report) => break report,
            Err(RotationError::Store {
                cause: StoreError::Storage { .. },
                ..
            }) => scene.assert_exact(),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert!(runs >= 6, "only {runs} runs");
    assert!(report.verified);
    assert_eq!(report.counters.values_reencrypted, scene.values);
    assert_eq!(report.counters.rows_scanned, 120);
    assert_eq!(report.counters.values_already_current, 0);
    scene.assert_exact();
}

// Two operators

#[test]
fn heavy_a_frozen_run_that_was_taken_over_cannot_write_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    freeze(&home);
}

#[test]
fn heavy_a_frozen_run_that_was_taken_over_cannot_write_on_sqlite() {
    freeze(&Home::sqlite("wal"));
}

fn freeze(home: &Home) {
    let mut scene = Scene::new(home, PEOPLE);
    let first = scene.rotation(home).start_and_get_going(SLOWLY);
    stop_between_batches(&first, &mut scene.live);

    let refused = scene.rotation(home).run(SLOWLY);
    assert_eq!(refused.code, Some(6), "{}", refused.text());
    let holder = format!("pid {}", first.id());
    assert!(refused.stderr.contains(&holder), "{}", refused.stderr);
    assert!(refused.document["error"]["failed"].as_str().unwrap().contains(&holder));
    scene.assert_exact();

    let take_over = [SLOWLY, &["--take-over"]].concat();
    let second = scene.rotation(home).start_and_get_going(&take_over);
    first.signal(Signal::CONT);
    let first = first.wait();
    assert_eq!(first.code, Some(6), "{}", first.text());
    assert_eq!(first.document["verified"], false);
    scene.assert_exact();
    let finished = second.wait();
    scene.assert_complete(&finished);
}

/// Not inside a transaction of SQLite: its lock could only be taken from a dead process.
fn stop_between_batches(run: &Running, live: &mut Live) {
    wait_until("it is frozen between two batches", || {
        run.freeze();
        let between = live.may_write();
        if !between {
            run.signal(Signal::CONT);
        }
        between
    });
}

#[test]
fn heavy_a_frozen_run_wakes_when_everything_is_done_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    wake_too_late(&home);
}

#[test]
fn heavy_a_frozen_run_wakes_when_everything_is_done_on_sqlite() {
    wake_too_late(&Home::sqlite("delete"));
}

fn wake_too_late(home: &Home) {
    let mut scene = Scene::new(home, PEOPLE);
    let first = scene.rotation(home).start_and_get_going(SLOWLY);
    stop_between_batches(&first, &mut scene.live);
    let finished = scene.rotation(home).run(&["--take-over"]);
    scene.assert_complete(&finished);
    let before = (scene.live.snapshot().rows, scene.live.control());
    first.signal(Signal::CONT);
    let first = first.wait();
    assert_eq!(first.code, Some(6), "{}", first.text());
    assert!(scene.live.snapshot().rows == before.0, "a stale run has written rows");
    assert_eq!(scene.live.control(), before.1, "a stale run has moved a cursor");
    scene.assert_complete(&finished);
}
