//! VACUUM beside a rotation: the table does not grow to twice its size, nobody waits for it, and the rotation does not depend on it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[allow(dead_code)]
#[path = "bad_input/desk.rs"]
mod desk;

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desk::{Column, Desk, Pair, Place, plaintext};
use reseal::store::Store as _;
use reseal::store::postgres::PostgresStore;
use reseal::store::survey::Survey;
use reseal::store::vacuum::{VacuumOptions, Vacuumed};
use rustix::process::{Pid, Signal, kill_process};
use support::rotation::{SLOWLY_ALONE, wait_until};

const ROWS: i64 = 6_000;
const THOROUGH: VacuumOptions = VacuumOptions {
    indexes: true,
    gently: false,
};
const GENTLY: VacuumOptions = VacuumOptions {
    indexes: false,
    gently: true,
};

fn filled(desk: &Desk) -> Pair {
    let pair = Pair::of("tink");
    desk.table(Column::Bytes);
    let values: Vec<_> = (1..=ROWS).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(Column::Bytes, 1, &values);
    if desk.is_postgres() {
        // Only what Reseal does is to count.
        desk.execute("ALTER TABLE t SET (autovacuum_enabled = off); ANALYZE t");
    }
    pair
}

/// VACUUM goes over this database a block every few milliseconds.
const SLOW: &str = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET vacuum_cost_limit = 1', current_database()); END $$";

fn start(desk: &Desk, pair: &Pair, more: &[&str]) -> Child {
    let arguments = desk::on_t("rotate", pair.format, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = desk.process(&arguments, &[("OLD", &pair.old_text), ("NEW", &pair.new_text)]);
    command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn ended(running: Child) -> desk::Run {
    desk::Run::of(&running.wait_with_output().unwrap())
}

/// Each block takes VACUUM some milliseconds, and there are thousands.
fn slow_to_vacuum(desk: &Desk) {
    desk.execute(
        "CREATE TABLE t (id int8 PRIMARY KEY, c bytea) WITH (fillfactor = 10, autovacuum_enabled = off);
         INSERT INTO t SELECT i, convert_to(repeat('x', 400), 'UTF8') FROM generate_series(1, 8000) i",
    );
    desk.execute(SLOW);
}

async fn surveyed(desk: &Desk) -> (PostgresStore, Survey) {
    let store = PostgresStore::new(&desk.url(), "reseal test").unwrap();
    let survey = store.survey(&support::target("t", "c")).await.unwrap();
    (store, survey)
}

fn vacuums_under_way(desk: &Desk) -> usize {
    let seen = "SELECT pid::text FROM pg_stat_activity
                 WHERE datname = current_database() AND state = 'active' AND query LIKE 'VACUUM%'";
    desk.texts(seen).len()
}

#[test]
fn heavy_a_table_grows_little_where_it_is_vacuumed_beside_its_rotation() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = filled(&desk);
    let bytes = || desk.texts("SELECT pg_table_size('t')::text")[0].parse::<u64>().unwrap();
    let before = bytes();
    let run = desk.on_t("rotate", &pair, &[&["--vacuum"], SLOWLY_ALONE].concat());
    let told = &run.expect(0).json["vacuum"];
    assert_eq!(run.json["values_reencrypted"], ROWS);
    assert_eq!((&told["finished"], &told["failed"]), (&true.into(), &serde_json::Value::Null));
    assert!(told["runs"].as_u64().unwrap() >= 4, "{told}");
    assert_eq!(told["table_bytes_before"], before);
    let after = bytes();
    assert_eq!(told["table_bytes_after"], after);
    // Batches as small as these write each row to a new place.
    assert!(after * 10 < before * 15, "it grew from {before} to {after} bytes");
    assert!(run.stderr.contains("vacuum: "), "{}", run.stderr);
    assert!(
        run.json["phases"]
            .as_array()
            .unwrap()
            .iter()
            .any(|phase| phase["name"] == "vacuum")
    );
    // Where nothing is written, nothing is to be vacuumed.
    let again = desk.on_t("rotate", &pair, &["--vacuum"]);
    assert_eq!(again.expect(0).json["vacuum"], serde_json::Value::Null);
    assert_eq!(again.json["values_reencrypted"], 0);
}

#[test]
fn heavy_every_partition_is_vacuumed() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("tink");
    desk.execute(
        "CREATE TABLE t (id int8 PRIMARY KEY, c bytea) PARTITION BY HASH (id);
         CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (autovacuum_enabled = off);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1) WITH (autovacuum_enabled = off)",
    );
    let values: Vec<_> = (1..=ROWS).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(Column::Bytes, 1, &values);
    let run = desk.on_t("rotate", &pair, &[&["--vacuum"], SLOWLY_ALONE].concat());
    assert_eq!(run.expect(0).json["vacuum"]["finished"], true, "{}", run.stdout);
    wait_until("the server has counted them", || {
        desk.texts("SELECT vacuum_count::text FROM pg_stat_user_tables WHERE relname IN ('t_0', 't_1')")
            .iter()
            .all(|count| count.parse::<u64>().unwrap() >= 2)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_whoever_waits_for_the_table_is_made_way_for() {
    let Some(desk) = Desk::postgres() else { return };
    slow_to_vacuum(&desk);
    let (store, survey) = surveyed(&desk).await;
    let mut vacuum = store.vacuum().unwrap();
    let under_way = tokio::spawn(async move {
        let outcome = vacuum.vacuum(&survey.relations[0], GENTLY, &|| false).await;
        (vacuum, survey, outcome)
    });
    wait_until("it is under way", || vacuums_under_way(&desk) == 1);
    desk.execute("SET lock_timeout = '10s'; ALTER TABLE t ADD COLUMN added int");
    let (mut vacuum, survey, outcome) = under_way.await.unwrap();
    assert_eq!(outcome.unwrap(), Vacuumed::GaveWay);
    // Somebody holds what it needs: that is not waited for.
    let held = async {
        let database = match &desk.place {
            Place::Postgres(database) => database.pool(1),
            Place::Sqlite => panic!("a PostgreSQL desk"),
        };
        let mut transaction = database.begin().await.unwrap();
        sqlx::query("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction
    };
    let held = held.await;
    let outcome = vacuum.vacuum(&survey.relations[0], THOROUGH, &|| false).await;
    assert_eq!(outcome.unwrap(), Vacuumed::Busy);
    drop(held);
    let vanished = reseal::store::survey::Relation {
        sql_name: "public.gone".to_owned(),
        ..survey.relations[0].clone()
    };
    let outcome = vacuum.vacuum(&vanished, THOROUGH, &|| false).await;
    assert!(matches!(outcome, Err(reseal::store::StoreError::Vanished(_))), "{outcome:?}");
    // After an error it connects again. Without rests it takes a moment.
    wait_until("the lock is free", || {
        desk.texts("SELECT pid::text FROM pg_locks WHERE relation = 't'::regclass AND mode = 'ShareUpdateExclusiveLock'")
            .is_empty()
    });
    let outcome = vacuum.vacuum(&survey.relations[0], THOROUGH, &|| false).await;
    assert_eq!(outcome.unwrap(), Vacuumed::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_it_ends_on_the_callers_word_and_does_not_outlive_the_caller() {
    let Some(desk) = Desk::postgres() else { return };
    slow_to_vacuum(&desk);
    let (store, survey) = surveyed(&desk).await;
    let mut vacuum = store.vacuum().unwrap();
    let enough = AtomicBool::new(false);
    let is_over = || enough.load(Ordering::SeqCst);
    let (outcome, ()) = tokio::join!(vacuum.vacuum(&survey.relations[0], GENTLY, &is_over), async {
        while vacuums_under_way(&desk) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        enough.store(true, Ordering::SeqCst);
    });
    assert_eq!(outcome.unwrap(), Vacuumed::Ended);
    assert_eq!(vacuums_under_way(&desk), 0);

    let under_way = tokio::spawn(async move { vacuum.vacuum(&survey.relations[0], GENTLY, &|| false).await });
    wait_until("it is under way again", || vacuums_under_way(&desk) == 1);
    under_way.abort();
    assert!(under_way.await.unwrap_err().is_cancelled());
    wait_until("the server has noticed", || vacuums_under_way(&desk) == 0);
}

#[test]
fn heavy_a_rotation_goes_on_where_vacuum_fails() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = filled(&desk);
    desk.execute(SLOW);
    let running = start(&desk, &pair, &[&["--vacuum"], SLOWLY_ALONE].concat());
    let mut killed = 0;
    wait_until("one was ended from outside", || {
        killed += desk
            .texts(
                "SELECT pid::text FROM pg_stat_activity
                  WHERE datname = current_database() AND state = 'active' AND query LIKE 'VACUUM%' AND pg_terminate_backend(pid)",
            )
            .len();
        killed > 0
    });
    let run = ended(running);
    let told = &run.expect(0).json["vacuum"];
    assert!(told["failed"].is_string(), "{told}");
    assert_eq!(run.json["verified"], true);
    assert_eq!(told["finished"], true, "the last one went well");
}

#[test]
fn heavy_ctrl_c_ends_the_last_vacuum_and_what_is_verified_stays_so() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = filled(&desk);
    desk.execute("ALTER TABLE t ADD filler text; UPDATE t SET filler = repeat('x', 2000)");
    desk.execute(SLOW);
    let running = start(&desk, &pair, &["--vacuum", "--profile", "gentle", "--batch-rows", "100"]);
    wait_until("the last one is under way", || {
        let last = "SELECT pid::text FROM pg_stat_activity
                     WHERE datname = current_database() AND state = 'active' AND query LIKE 'VACUUM (INDEX_CLEANUP auto%'";
        !desk.texts(last).is_empty()
    });
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let run = ended(running);
    assert_eq!(run.expect(0).json["verified"], true);
    assert_eq!(run.json["vacuum"]["finished"], false, "{}", run.stdout);
    assert_eq!(vacuums_under_way(&desk), 0);
    assert!(desk.on_t("verify", &pair, &[]).expect(0).json["verified"] == true);
}

#[test]
fn heavy_where_batches_wait_nothing_is_vacuumed() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = filled(&desk);
    let Place::Postgres(database) = &desk.place else {
        panic!("a PostgreSQL desk")
    };
    // Nothing can be vacuumed yet, so that it is due all along.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let held = runtime.block_on(async {
        let mut transaction = database.pool(1).begin().await.unwrap();
        let lock = sqlx::query("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE");
        lock.execute(&mut *transaction).await.unwrap();
        transaction
    });
    let slowly = ["--vacuum", "--profile", "gentle", "--batch-rows", "5", "--workers", "1"];
    let running = start(&desk, &pair, &slowly);
    wait_until("it is due", || {
        desk.texts("SELECT (to_regclass('reseal.range') IS NOT NULL)::text") == ["true"]
            && database.count("SELECT coalesce(sum(rows_reencrypted), 0) FROM reseal.range") > 600
    });
    desk.run(&["pause"], &[]).expect(0);
    wait_until("it waits", || {
        desk.run(&["status"], &[]).json["runs"][0]["waits_for"][0].is_string()
    });
    runtime.block_on(held.rollback()).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let vacuumed = || database.count("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 't'");
    assert_eq!(vacuumed(), 0);
    desk.run(&["resume"], &[]).expect(0);
    let run = ended(running);
    let told = &run.expect(0).json["vacuum"];
    assert!(told["made_way"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["finished"], true, "{told}");
    wait_until("the server has counted it", || vacuumed() > 0);
}

#[test]
fn whoever_may_not_vacuum_is_refused_before_the_first_write() {
    for desk in Desk::each() {
        let pair = filled(&desk);
        let values = desk.values(Column::Bytes);
        let mut environment = vec![("OLD", pair.old_text.clone()), ("NEW", pair.new_text.clone())];
        let mut role = None;
        if let Place::Postgres(database) = &desk.place {
            let name = format!("not_the_owner_{}", std::process::id());
            desk.execute(&format!(
                "CREATE ROLE {name} LOGIN PASSWORD 'stranger'; GRANT SELECT, UPDATE ON t TO {name};
                 DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {name}', current_database()); END $$"
            ));
            let url = database.url();
            let (_, place) = url.rsplit_once('@').unwrap();
            environment.push(("DATABASE_URL", format!("postgres://{name}:stranger@{place}")));
            role = Some(name);
        }
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let rotate = |more: &[&str]| {
            let arguments = desk::on_t("rotate", pair.format, more);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            desk.run(&arguments, &environment)
        };
        let refused = rotate(&["--vacuum"]);
        let why = if desk.is_postgres() {
            "only the owner of t may vacuum it"
        } else {
            "only PostgreSQL"
        };
        assert!(refused.expect(4).stderr.contains(why), "{}", refused.stderr);
        assert!(refused.stderr.contains("without --vacuum"), "{}", refused.stderr);
        assert_eq!(desk.values(Column::Bytes), values, "{}", desk.name());
        rotate(&[]).expect(0);
        if let Some(name) = role {
            desk.execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"));
        }
    }
}
