//! What operators ask of a rotation that is under way, from another process: pause, resume, throttle, abort. On both databases, with the
//! real program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::people::{FernetKey, Home, Live};
use support::rotation::{Finished, Rotation, Running, wait_until};

const PEOPLE: i64 = 8_000;
/// So slow that it is far from its end when a request is heard.
const SLOWLY: &[&str] = &["--profile", "gentle", "--batch-rows", "4", "--workers", "1"];

/// A table on each database that this machine has.
fn homes() -> Vec<Home> {
    [Some(Home::sqlite("wal")), Home::postgres()].into_iter().flatten().collect()
}

fn reseal(home: &Home, arguments: &[&str]) -> Finished {
    let mut command = support::reseal_process();
    command
        .args(arguments)
        .args(["--database", "env:DATABASE_URL", "--json"])
        .env("DATABASE_URL", home.url());
    Running::start(command).wait()
}

/// Asks for something, and gives the request as it stands then.
fn ask(home: &Home, arguments: &[&str]) -> Value {
    let asked = reseal(home, arguments);
    assert_eq!(asked.code, Some(0), "{}", asked.text());
    assert_eq!(asked.document["schema"], format!("reseal.{}/1", arguments[0]));
    asked.document["request"].clone()
}

/// Waits until no batch has been committed for longer than one takes to hear of a request, and gives the rows moved so far.
fn standstill(live: &mut Live) -> u64 {
    let mut rows = live.rows_moved();
    let mut since = std::time::Instant::now();
    wait_until("no batch is committed any more", || {
        let now = live.rows_moved();
        if now != rows {
            (rows, since) = (now, std::time::Instant::now());
        }
        since.elapsed() > Duration::from_secs(2)
    });
    rows
}

#[test]
fn heavy_a_paused_rotation_holds_nothing_and_goes_on_when_it_may() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(PEOPLE, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let mut running = rotation.start_and_get_going(SLOWLY);
        let request = ask(&home, &["pause"]);
        assert_eq!(request["order"], "pause");
        let mut live = home.connect();
        let rows = standstill(&mut live);
        assert!(running.is_running() && rows < PEOPLE.unsigned_abs(), "{rows}");
        if let Some(database) = home.database() {
            let held = "SELECT count(*) FROM pg_stat_activity a
                         WHERE a.datname = current_database() AND a.application_name LIKE 'reseal rotate%'
                           AND (a.xact_start < clock_timestamp() - interval '1 second'
                                OR EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'people'::regclass))";
            assert_eq!(database.count(held), 0, "a transaction or a lock is held");
        }
        assert!(live.touch(support::people::GAP), "the application writes");
        let status = reseal(&home, &["status"]);
        let plan = &status.document["rotations"][0]["plan"];
        assert_eq!(status.document["requests"][0]["plan"], *plan, "{}", status.text());
        assert_eq!(status.document["requests"][0]["order"], "pause");
        assert!(status.stderr.contains("WAITS: paused by"), "{}", status.stderr);
        let line = format!("{}  running  ", plan.as_str().unwrap());
        assert!(status.stderr.contains(&line), "{}", status.stderr);
        let run = &status.document["runs"][0];
        assert_eq!(run["plan"], *plan, "{}", status.text());
        assert!(
            run["waits_for"][0].as_str().unwrap().contains("paused by"),
            "{}",
            status.text()
        );
        // A line is printed every ten seconds.
        std::thread::sleep(Duration::from_secs(10));

        // Ctrl-C ends the wait, and whoever starts it again waits as well.
        running.signal(Signal::INT);
        let stopped = running.wait();
        assert_eq!(stopped.code, Some(5), "{}", stopped.text());
        assert!(
            stopped.document["throttled_seconds"]["paused"].as_f64().unwrap() > 0.0,
            "{}",
            stopped.text()
        );
        assert!(stopped.stderr.contains("WAITING: paused by"), "{}", stopped.stderr);
        let status = reseal(&home, &["status"]);
        assert_eq!(status.document["runs"], serde_json::json!([]));
        let line = format!("{}  unfinished  ", plan.as_str().unwrap());
        assert!(status.stderr.contains(&line), "{}", status.stderr);
        let mut again = Running::start(rotation.command(&[]));
        assert_eq!(standstill(&mut live), rows);
        assert!(again.is_running());
        let request = ask(&home, &["resume", "--plan", plan.as_str().unwrap()]);
        assert_eq!(request["order"], Value::Null);
        again.wait().assert_verified();
        assert_eq!(reseal(&home, &["status"]).document["requests"], serde_json::json!([]));
    }
}

#[test]
fn heavy_an_aborted_rotation_ends_after_its_batch_and_the_same_command_goes_on() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(PEOPLE, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let running = rotation.start_and_get_going(SLOWLY);
        assert_eq!(ask(&home, &["abort"])["order"], "abort");
        let ended = running.wait();
        assert_eq!(ended.code, Some(5), "{}", ended.text());
        let text = ended.text();
        for said in [
            "aborted by",
            "every batch that was committed",
            "run the same command again",
            "--from and --to exchanged",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        let rows = home.connect().rows_moved();
        assert!(rows > 0 && rows < PEOPLE.unsigned_abs(), "{rows}");
        assert_eq!(
            reseal(&home, &["status"]).document["requests"],
            serde_json::json!([]),
            "it was obeyed once"
        );
        // Every value opens under one of the two keys, and nobody is there to be asked anything.
        for row in home.connect().snapshot().rows {
            assert!(old.open(&row.email).or_else(|| new.open(&row.email)).is_some());
        }
        let commands: [&[&str]; 3] = [&["pause"], &["throttle", "--max-rows-per-second", "9"], &["abort"]];
        for command in commands {
            let refused = reseal(&home, command);
            assert_eq!(refused.code, Some(4), "{}", refused.text());
            assert!(refused.text().contains("nobody runs it"), "{}", refused.text());
        }
        assert_eq!(reseal(&home, &["status"]).document["requests"], serde_json::json!([]));
        // What takes something back needs nobody to hear it.
        ask(&home, &["resume"]);
        rotation.complete(&[]);
    }
}

/// SQLite goes on with what it was asked, also when nobody waits for its answer any more: a report that was held up must not be written
/// after the run has left.
#[test]
fn heavy_the_last_word_of_a_run_is_that_it_leaves() {
    let home = Home::sqlite("wal");
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(PEOPLE, &old);
    let mut live = home.connect();
    let running = Rotation::new(&home, &old, &new).start_and_get_going(SLOWLY);
    ask(&home, &["pause"]);
    standstill(&mut live);
    let heard = || reseal(&home, &["status"]).document["runs"][0]["heard_at"].clone();
    let said = heard();
    wait_until("it is heard again", || heard() != said);
    // The next report comes five seconds after the last one, and finds the file locked.
    std::thread::sleep(Duration::from_millis(4_600));
    live.execute("BEGIN IMMEDIATE");
    std::thread::sleep(Duration::from_millis(1_400));
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    live.execute("COMMIT");
    assert_eq!(running.wait().code, Some(5));
    assert_eq!(reseal(&home, &["status"]).document["runs"], serde_json::json!([]));
}

#[test]
fn heavy_a_limit_of_rows_holds_across_runs_until_it_is_taken_away() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(PEOPLE, &old);
        let rotation = Rotation::new(&home, &old, &new);
        let mut running = rotation.start_and_get_going(SLOWLY);
        let request = ask(&home, &["throttle", "--max-rows-per-second", "1"]);
        assert_eq!(
            (&request["order"], &request["max_rows_per_second"]),
            (&Value::Null, &1.into())
        );
        let mut live = home.connect();
        std::thread::sleep(Duration::from_secs(2));
        let before = live.rows_moved();
        std::thread::sleep(Duration::from_secs(3));
        let now = live.rows_moved();
        assert!(running.is_running());
        assert!(now - before < 20, "{before} rows, then {now}");
        // A run that begins later goes no faster, in batches of a second's worth.
        assert!(running.kill());
        let running = Running::start(rotation.command(&["--profile", "fast"]));
        std::thread::sleep(Duration::from_secs(3));
        assert!(live.rows_moved() - now < 20, "{now} rows, then {}", live.rows_moved());
        // By its name: without the limit it may be over before the next question.
        let plan = reseal(&home, &["status"]).document["rotations"][0]["plan"]
            .as_str()
            .unwrap()
            .to_owned();
        let request = ask(&home, &["throttle", "--plan", &plan, "--profile", "gentle"]);
        assert_eq!(
            (&request["max_rows_per_second"], &request["profile"]),
            (&Value::Null, &"gentle".into())
        );
        let request = ask(&home, &["throttle", "--plan", &plan, "--off"]);
        assert_eq!(
            (&request["max_rows_per_second"], &request["profile"]),
            (&Value::Null, &Value::Null)
        );
        running.wait().assert_verified();
    }
}

#[test]
fn a_request_names_a_rotation_that_is_there() {
    for home in homes() {
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(3, &old);
        let commands: [&[&str]; 4] = [&["pause"], &["resume"], &["throttle", "--off"], &["abort"]];
        for command in commands {
            let refused = reseal(&home, command);
            assert_eq!(refused.code, Some(4), "{}", refused.text());
            assert!(refused.text().contains("no rotation is unfinished"), "{}", refused.text());
        }
        assert!(home.connect().totals().is_none(), "nothing was touched");
        Rotation::new(&home, &old, &new).complete(&[]);
        for (arguments, code, what) in [
            (&["pause"][..], 4, "no rotation is unfinished"),
            (&["pause", "--plan", "0123"], 4, "no rotation 0123 is known"),
            (&["abort", "--keyset", "orders"], 4, "no rotation of keyset orders is open"),
            (&["throttle"], 2, "--off"),
            (&["throttle", "--off", "--profile", "fast"], 2, "cannot be used with"),
            (&["throttle", "--max-rows-per-second", "0"], 2, "0"),
        ] {
            let refused = reseal(&home, arguments);
            assert_eq!(refused.code, Some(code), "{arguments:?}: {}", refused.text());
            assert!(refused.text().contains(what), "{arguments:?}: {}", refused.text());
        }
    }
}
