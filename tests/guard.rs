//! The database guard: values under the old key are refused by PostgreSQL itself, updates of other columns are not, and nobody waits
//! for long because of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[allow(dead_code)]
#[path = "bad_input/desk.rs"]
mod desk;

use std::process::{Child, Stdio};

use desk::{Column, Desk, Pair, on_t, plaintext};
use reseal::format::by_name;
use reseal::key::KeyId;
use reseal::store::Store;
use reseal::store::guard::{GuardSpec, GuardedColumn};
use reseal::store::postgres::PostgresStore;
use reseal::store::survey::Survey;
use support::rotation::{SLOWLY_ALONE, wait_until};
use support::{Database, aes256_key};

const ROWS: i64 = 1_500;

/// A table of old values beside a column that is not encrypted.
fn filled(desk: &Desk, format: &'static str) -> (Pair, Column) {
    let pair = Pair::of(format);
    let column = if format == "tink" { Column::Bytes } else { Column::Text };
    desk.table(column);
    desk.execute("ALTER TABLE t ADD n int NOT NULL DEFAULT 0");
    let values: Vec<_> = (1..=ROWS).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(column, 1, &values);
    (pair, column)
}

fn database(desk: &Desk) -> &Database {
    match &desk.place {
        desk::Place::Postgres(database) => database,
        desk::Place::Sqlite => panic!("a PostgreSQL desk"),
    }
}

fn start(desk: &Desk, pair: &Pair, more: &[&str]) -> Child {
    let arguments = on_t("rotate", pair.format, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    desk.process(&arguments, &[("OLD", &pair.old_text), ("NEW", &pair.new_text)])
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn rewritten(desk: &Desk) -> i64 {
    if desk.texts("SELECT (to_regclass('reseal.range') IS NOT NULL)::text") == ["false"] {
        return 0;
    }
    database(desk).count("SELECT coalesce(sum(rows_reencrypted), 0) FROM reseal.range")
}

/// Everything that a guard consists of, by name.
fn parts(desk: &Desk) -> Vec<String> {
    desk.texts(
        "SELECT tgname::text FROM pg_trigger WHERE tgname LIKE '%reseal%' UNION ALL
         SELECT conname::text FROM pg_constraint WHERE conname LIKE '%reseal\\_guard%' UNION ALL
         SELECT proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('reseal')",
    )
}

/// SQLSTATE and message, hint, detail of a refusal; `None` when the statement went through.
fn refusal(desk: &Desk, sql: &str) -> Option<(String, String)> {
    let url = database(desk).url();
    let sql = sql.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::Connection as _;
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await;
            let error = done.err()?;
            let database = error.as_database_error().unwrap();
            let server = database.downcast_ref::<sqlx::postgres::PgDatabaseError>();
            let text = format!("{} / {:?} / {:?}", server.message(), server.hint(), server.detail());
            Some((server.code().to_owned(), text))
        })
    })
    .join()
    .unwrap()
}

#[test]
fn heavy_a_stale_writer_is_refused_while_others_go_on() {
    for format in ["tink", "tink-base64"] {
        let Some(desk) = Desk::postgres() else { return };
        let (pair, column) = filled(&desk, format);
        let slowly = [&["--guard"], SLOWLY_ALONE].concat();
        let mut running = start(&desk, &pair, &slowly);
        wait_until("batches are committed", || rewritten(&desk) > 40);
        // kill -9: the guard stays, and there are rows on both sides.
        running.kill().unwrap();
        running.wait().unwrap();
        let values = desk.values(column);
        let is_old = |id: i64| {
            pair.old
                .open(values[&id].as_ref().unwrap(), b"", &mut Vec::with_capacity(500))
                .is_ok()
        };
        let (migrated, unmigrated) = (1, ROWS);
        assert!(!is_old(migrated) && is_old(unmigrated), "the middle of a rotation");

        let old = desk.literal(column, Some(&pair.old_value(b"stale", b"")));
        let new = desk.literal(column, Some(&pair.new_value(b"fresh", b"")));
        let its_own = desk.literal(column, values[&unmigrated].as_deref());
        for stale in [
            format!("INSERT INTO t VALUES (9001, {old})"),
            format!("INSERT INTO t VALUES (9001, {new}), (9002, {old})"),
            format!("UPDATE t SET c = {old} WHERE id = {migrated}"),
            format!("UPDATE t SET c = {old} WHERE id = {unmigrated}"),
            format!("INSERT INTO t VALUES ({unmigrated}, {old}) ON CONFLICT (id) DO UPDATE SET c = excluded.c"),
        ] {
            let (code, text) = refusal(&desk, &stale).expect("a stale writer is refused");
            assert_eq!(code, "23514");
            let id = pair.old_id.unwrap().to_string();
            assert!(
                text.contains("old key") && text.contains(&id) && text.contains("t.c"),
                "{text}"
            );
            assert!(text.contains("give it the new key") && text.contains("/ None"), "{text}");
        }
        for fine in [
            format!("INSERT INTO t VALUES (9001, {new}), (9002, NULL)"),
            format!("UPDATE t SET n = n + 1 WHERE id IN ({migrated}, {unmigrated})"),
            format!("UPDATE t SET c = c, n = n + 1 WHERE id = {unmigrated}"),
            format!("UPDATE t SET c = {new} WHERE id = {migrated}"),
            format!("INSERT INTO t VALUES ({unmigrated}, {its_own}) ON CONFLICT (id) DO UPDATE SET n = t.n + 1"),
            format!("UPDATE t SET id = 9003 WHERE id = {unmigrated}"),
            "UPDATE t SET c = NULL WHERE id = 2".to_owned(),
        ] {
            assert_eq!(refusal(&desk, &fine), None, "{fine}");
        }

        // The next run finds it, told of it or not, goes on under it, has the database's proof, and takes it away.
        let before = parts(&desk);
        assert_eq!(before.len(), 4, "two triggers, two functions: {before:?}");
        let again: &[&str] = if format == "tink" { &["--guard"] } else { &[] };
        let run = desk.on_t("rotate", &pair, again);
        run.expect(0);
        assert_eq!(run.json["guard"]["proved"], true, "{}", run.stdout);
        assert_eq!(run.json["guard"]["removed"], true, "{}", run.stdout);
        // The row that moved to another primary key behind the ranges is the only one that came late.
        let late = run.json["late_values"].as_array().unwrap().iter();
        let late: Vec<_> = late.map(|value| value["primary_key"]["id"].as_i64().unwrap()).collect();
        assert_eq!(late, [9003], "{}", run.stdout);
        assert!(run.stderr.contains("the database has validated"), "{}", run.stderr);
        assert_eq!(parts(&desk), Vec::<String>::new());
        let findings: Vec<_> = [run.findings("ask"), run.findings("refuse")].concat();
        assert!(findings.is_empty(), "{findings:?}");
    }
}

#[test]
fn heavy_writers_go_on_while_a_guarded_rotation_runs() {
    let Some(desk) = Desk::postgres() else { return };
    let (pair, column) = filled(&desk, "tink-base64");
    let mut running = start(&desk, &pair, &["--guard", "--profile", "gentle", "--batch-rows", "50"]);
    let (mut writes, mut refused) = (0, 0);
    while running.try_wait().unwrap().is_none() {
        let id = writes % ROWS + 1;
        let new = desk.literal(column, Some(&pair.new_value(&plaintext(id), b"")));
        assert_eq!(refusal(&desk, &format!("UPDATE t SET n = n + 1 WHERE id = {id}")), None);
        assert_eq!(
            refusal(&desk, &format!("UPDATE t SET c = {new} WHERE id = {}", ROWS - id + 1)),
            None
        );
        if !parts(&desk).is_empty() && running.try_wait().unwrap().is_none() {
            let old = desk.literal(column, Some(&pair.old_value(b"stale", b"")));
            refused += usize::from(refusal(&desk, &format!("UPDATE t SET c = {old} WHERE id = {id}")).is_some());
        }
        writes += 1;
    }
    let run = desk::Run::of(&running.wait_with_output().unwrap());
    run.expect(0);
    assert!(writes > 3 && refused > 0, "{writes} writes, {refused} refused");
    assert_eq!(run.json["guard"]["proved"], true, "{}", run.stdout);
}

/// Whoever waits for a lock makes everybody wait who comes later. A transaction that lasts must not stop the application behind us.
#[test]
fn heavy_a_long_transaction_does_not_block_the_application_behind_the_guard() {
    let Some(desk) = Desk::postgres() else { return };
    let (pair, _) = filled(&desk, "tink");
    let mut holder = support::people::Live::open(&desk.url());
    holder.execute("BEGIN; UPDATE t SET n = n + 1 WHERE id = 7");
    let mut running = start(&desk, &pair, &["--guard"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%zz_reseal_guard%'
                  AND datname = current_database() AND pid <> pg_backend_pid()";
    wait_until("the guard meets the lock", || database(&desk).count(waits) > 0);
    for id in 100..200 {
        let touch = format!("SET statement_timeout = '5s'; UPDATE t SET n = n + 1 WHERE id = {id}");
        assert_eq!(refusal(&desk, &touch), None, "the application waits behind the guard");
    }
    assert!(running.try_wait().unwrap().is_none(), "it has not given up");
    assert_eq!(rewritten(&desk), 0, "nothing is rewritten before the guard stands");
    holder.execute("COMMIT");
    let run = desk::Run::of(&running.wait_with_output().unwrap());
    run.expect(0);
    assert_eq!(run.json["guard"]["proved"], true, "{}", run.stdout);
    assert_eq!(run.json["guard"]["removed"], true, "{}", run.stdout);
}

#[test]
fn what_cannot_be_guarded_is_refused_before_anything_is_written() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        desk.insert(Column::Text, 1, &[Some(pair.old_value(b"x", b""))]);
        let before = desk.values(Column::Text);
        let run = desk.on_t("rotate", &pair, &["--guard"]);
        run.expect(4);
        let text = format!("{}{}", run.stderr, run.stdout);
        let why = if desk.is_postgres() {
            "does not say which key"
        } else {
            "only PostgreSQL"
        };
        assert!(text.contains(why), "{text}");
        if desk.is_postgres() {
            let tink = Pair::of("tink-base64");
            desk.execute(&format!(
                "TRUNCATE t; INSERT INTO t VALUES (1, {})",
                desk.literal(Column::Text, Some(&tink.old_value(b"x", b"")))
            ));
            let run = desk.on_t("rotate", &tink, &["--guard", "--where", "id < 7"]);
            assert!(run.expect(4).stderr.contains("the whole table"), "{}", run.stderr);
        } else {
            assert_eq!(desk.values(Column::Text), before);
        }
        assert_eq!(desk.run(&["status"], &[]).json["rotations"], serde_json::json!([]));
    }
}

#[test]
fn heavy_a_guard_that_was_left_is_listed_and_removed() {
    let Some(desk) = Desk::postgres() else { return };
    let (pair, column) = filled(&desk, "tink-base64");
    let slowly = [&["--guard"], SLOWLY_ALONE].concat();
    let mut running = start(&desk, &pair, &slowly);
    wait_until("batches are committed", || rewritten(&desk) > 0);
    running.kill().unwrap();
    running.wait().unwrap();

    let listed = desk.run(&["guard", "list"], &[]);
    let plan = desk.run(&["status"], &[]).json["rotations"][0]["plan"].clone();
    assert_eq!(
        listed.expect(0).json["guards"],
        serde_json::json!([{
            "table": "public.t", "plan": plan, "refuses": [pair.old_id.unwrap().to_string()], "proof": false, "removed": false
        }])
    );
    // Another rotation does not run under it without being told.
    let other = Pair::of("tink-base64");
    let run = desk.on_t("plan", &other, &[]);
    assert!(
        run.findings("ask").iter().any(|name| name.starts_with("guard:")),
        "{}",
        run.stdout
    );
    // This one may, with the option or without.
    let run = desk.on_t("plan", &pair, &[]);
    assert_eq!(run.findings("ask"), Vec::<&str>::new(), "{}", run.stdout);

    for (arguments, removed) in [
        (&["--table", "public.other"][..], 0),
        (&["--plan", "00"], 0),
        (&[], 1),
        (&[], 0),
    ] {
        let mut all = vec!["guard", "remove"];
        all.extend(arguments);
        let run = desk.run(&all, &[]);
        assert_eq!(
            run.expect(0).json["guards"].as_array().unwrap().len(),
            removed,
            "{arguments:?}"
        );
    }
    assert_eq!(parts(&desk), Vec::<String>::new());
    let old = desk.literal(column, Some(&pair.old_value(b"stale", b"")));
    assert_eq!(refusal(&desk, &format!("INSERT INTO t VALUES (9001, {old})")), None);
    // What was written meanwhile is late.
    let run = desk.on_t("rotate", &pair, &[]);
    assert_eq!(run.expect(0).json["guard"], serde_json::Value::Null);
}

/// The store's part alone: column `c` of table `t`, which holds bytes.
async fn guarding(desk: &Desk, pair: &Pair) -> (PostgresStore, Survey, GuardSpec) {
    let store = PostgresStore::new(&desk.url(), "reseal test").unwrap();
    let survey = store.survey(&support::target("t", "c")).await.unwrap();
    let spec = GuardSpec {
        plan: "0123abcd".to_owned(),
        columns: vec![GuardedColumn {
            column: 0,
            keys: vec![pair.old_id.unwrap().to_string()],
            beginnings: by_name("tink").unwrap().beginnings(pair.old_id.unwrap()).unwrap(),
            message: "it's the old key \\ of t.c".to_owned(),
            hint: "ask 'them'".to_owned(),
        }],
    };
    (store, survey, spec)
}

/// The constraint's own complaint would quote the row to the stale writer, and to the server's log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_quoted_while_the_proof_is_looked_for() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("tink");
    desk.table(Column::Bytes);
    desk.insert(Column::Bytes, 1, &[Some(pair.new_value(b"new", b""))]);
    let (store, survey, spec) = guarding(&desk, &pair).await;
    let mut guards = store.guards().await.unwrap();
    guards.put_up(&survey, &spec).await.unwrap();
    assert!(guards.prove(&survey, &spec).await.unwrap());
    let old = desk.literal(Column::Bytes, Some(&pair.old_value(b"stale", b"")));
    for stale in [format!("INSERT INTO t VALUES (2, {old})"), format!("UPDATE t SET c = {old}")] {
        let (_, text) = refusal(&desk, &stale).unwrap();
        assert!(text.contains("the old key") && text.ends_with("/ None"), "{text}");
    }
    // A run that died here is continued under the guard alone: the proof is looked for anew.
    guards.put_up(&survey, &spec).await.unwrap();
    assert_eq!(parts(&desk).len(), 4, "{:?}", parts(&desk));
}

/// The store's part alone, on a partitioned table: partitions that come later are guarded, rows that move are not held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_partitions_are_guarded_and_proof_is_refuted_by_what_was_smuggled_in() {
    let Some(database) = support::postgres() else { return };
    let desk = Desk {
        place: desk::Place::Postgres(database),
        folder: support::tempdir(),
    };
    let pair = Pair::of("tink");
    desk.execute(
        "CREATE TABLE t (id int8, region text, c bytea, n int DEFAULT 0, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE north PARTITION OF t FOR VALUES IN ('north'); CREATE TABLE south PARTITION OF t FOR VALUES IN ('south');",
    );
    let literal = |value: &[u8]| desk.literal(Column::Bytes, Some(value));
    let [first, second] = [b"a", b"b"].map(|text| pair.old_value(text, b""));
    desk.execute(&format!(
        "INSERT INTO t VALUES (1, 'north', {}), (2, 'north', NULL)",
        literal(&first)
    ));

    let (store, survey, spec) = guarding(&desk, &pair).await;
    let mut guards = store.guards().await.unwrap();
    guards.put_up(&survey, &spec).await.unwrap();
    let standing = parts(&desk);
    guards.put_up(&survey, &spec).await.unwrap();
    assert_eq!(parts(&desk), standing, "put up twice it stands once");
    desk.execute(
        "CREATE TABLE east PARTITION OF t FOR VALUES IN ('east'); CREATE TABLE west (LIKE t);
                  ALTER TABLE t ATTACH PARTITION west FOR VALUES IN ('west')",
    );

    for stale in [
        format!("INSERT INTO t VALUES (3, 'south', {})", literal(&second)),
        format!("INSERT INTO east VALUES (3, 'east', {})", literal(&second)),
        format!("INSERT INTO west VALUES (3, 'west', {})", literal(&second)),
        format!("UPDATE t SET c = {} WHERE id = 1", literal(&second)),
        format!("UPDATE t SET c = {}, region = 'south' WHERE id = 1", literal(&second)),
        format!(
            "BEGIN; UPDATE t SET region = 'east' WHERE id = 1; INSERT INTO t VALUES (3, 'south', {}); COMMIT",
            literal(&second)
        ),
    ] {
        let (code, text) = refusal(&desk, &stale).unwrap_or_else(|| panic!("not refused: {stale}"));
        assert_eq!(code, "23514", "{text}");
        assert!(
            text.contains("it's the old key \\ of t.c") && text.contains("ask 'them'"),
            "{text}"
        );
    }
    for region in ["south", "west", "east"] {
        assert_eq!(refusal(&desk, &format!("UPDATE t SET region = '{region}', n = n + 1")), None);
    }
    // Whoever does not own the table cannot guard it, and is told so before anything is written.
    guards.require_possible(&survey).await.unwrap();
    desk.execute(
        "DO $$ BEGIN CREATE ROLE guarded_stranger LOGIN PASSWORD 'nothing'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    );
    let url = desk.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    let stranger = PostgresStore::new(&format!("{scheme}://guarded_stranger:nothing@{place}"), "reseal test").unwrap();
    let refused = stranger.guards().await.unwrap().require_possible(&survey).await.unwrap_err();
    assert!(refused.to_string().contains("only the owner"), "{refused}");
    // The application needs no rights to what is ours.
    let (allowed, forbidden) = (
        "UPDATE t SET region = 'north', n = n + 1",
        "INSERT INTO t VALUES (4, 'south', ",
    );
    desk.execute(
        "DO $$ BEGIN CREATE ROLE guarded_application; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT SELECT, INSERT, UPDATE, DELETE ON t TO guarded_application",
    );
    assert_eq!(refusal(&desk, &format!("SET ROLE guarded_application; {allowed}")), None);
    let forbidden = format!("SET ROLE guarded_application; {forbidden}{})", literal(&second));
    assert_eq!(refusal(&desk, &forbidden).unwrap().0, "23514");
    // A disabled trigger does not count as standing.
    desk.execute("ALTER TABLE t DISABLE TRIGGER USER");
    desk.execute(&format!("INSERT INTO t VALUES (3, 'south', {})", literal(&second)));
    guards.put_up(&survey, &spec).await.unwrap();
    assert!(refusal(&desk, &format!("INSERT INTO t VALUES (4, 'south', {})", literal(&second))).is_some());

    // Old values are there: no proof, and nothing of it stays in the way of their rows.
    assert!(!guards.prove(&survey, &spec).await.unwrap());
    assert_eq!(refusal(&desk, "UPDATE t SET n = n + 1"), None);
    desk.execute(&format!("UPDATE t SET c = {}", literal(&pair.new_value(b"new", b""))));
    assert!(guards.prove(&survey, &spec).await.unwrap());
    let (_, text) = refusal(&desk, &format!("INSERT INTO t VALUES (5, 'south', {})", literal(&second))).unwrap();
    assert!(
        text.contains("the old key") && text.contains("/ None"),
        "the constraint would quote the row: {text}"
    );
    let validated = "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'reseal_guard%' AND convalidated";
    assert_eq!(
        desk.texts(&format!("SELECT ({validated})::text")),
        ["5"],
        "the table and each partition"
    );

    let listed = guards.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((listed[0].plan.as_str(), listed[0].proof), ("0123abcd", true));
    assert_eq!(listed[0].refuses, [pair.old_id.unwrap().to_string()]);
    guards.take_away(listed[0].table_id, "0123abcd").await.unwrap();
    guards.take_away(listed[0].table_id, "0123abcd").await.unwrap();
    assert_eq!(parts(&desk), Vec::<String>::new());
}

#[test]
fn every_value_has_one_of_its_keys_beginnings_and_no_other_value_has() {
    for name in ["tink", "tink-base64", "tink-crunchy", "tink-crunchy-base64"] {
        let format = by_name(name).unwrap();
        let material = || reseal::key::KeyMaterial::import(&aes256_key()).unwrap();
        for id in [0, 1, 0x0102_0304, 0xffff_ffff, u32::from_be_bytes(support::random_bytes())] {
            let other = KeyId(id ^ 1);
            let beginnings = [KeyId(id), other].map(|id| format.beginnings(id).unwrap());
            let cipher = format.cipher(&material(), Some(KeyId(id))).unwrap();
            for length in 0..40 {
                let value = desk::seal(&*cipher, &vec![7; length], b"");
                let of = |which: usize| beginnings[which].iter().filter(|each| value.starts_with(each)).count();
                assert_eq!((of(0), of(1)), (1, 0), "{name} {id} {length}");
            }
        }
    }
    assert_eq!(by_name("fernet").unwrap().beginnings(KeyId(7)), None);
    assert_eq!(by_name("aes-gcm").unwrap().beginnings(KeyId(7)), None);
}
