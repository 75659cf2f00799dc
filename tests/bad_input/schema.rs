//! Schemas, permissions and other clients that stand in the way.

use std::time::Duration;

use super::desk::{Column, Desk, Pair, Place, on_t, plaintext};

/// A statement list that makes a table `t` which must be refused, the finding, and what it is about.
type Case = (&'static str, &'static str);

fn refused(desk: &Desk, (setup, finding): Case, format: &'static str) {
    desk.execute(setup);
    let pair = Pair::of(format);
    let plan = desk.on_t("plan", &pair, &[]);
    plan.expect(4);
    assert!(plan.findings("refuse").contains(&finding), "{finding}: {}", plan.stdout);
    assert_eq!(plan.json["allowed"], false);
    let rotate = desk.on_t("rotate", &pair, &[]);
    let error = &rotate.expect(4).json["error"];
    assert_eq!(error["durable"], "nothing was touched", "{finding}: {error}");
    assert!(rotate.stderr.contains("error: "), "{}", rotate.stderr);
    let control = if desk.is_postgres() {
        "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'reseal'"
    } else {
        "SELECT CAST(count(*) AS text) FROM sqlite_schema WHERE name LIKE 'reseal%'"
    };
    assert_eq!(desk.texts(control), ["0"], "{finding}");
}

#[test]
fn tables_that_cannot_be_rotated_safely_are_refused_in_postgres() {
    let cases: [(Case, &'static str); 16] = [
        (
            (
                "CREATE TABLE b (id int PRIMARY KEY, c text); CREATE VIEW t AS SELECT * FROM b",
                "not-a-table",
            ),
            "fernet",
        ),
        (
            (
                "CREATE TABLE b (id int PRIMARY KEY, c text); CREATE MATERIALIZED VIEW t AS SELECT * FROM b",
                "not-a-table",
            ),
            "fernet",
        ),
        (
            (
                "CREATE FOREIGN DATA WRAPPER n; CREATE SERVER s FOREIGN DATA WRAPPER n; CREATE FOREIGN TABLE t (id int, c text) SERVER s",
                "not-a-table",
            ),
            "fernet",
        ),
        (
            (
                "CREATE TABLE t (id int PRIMARY KEY, c text); CREATE TABLE child () INHERITS (t)",
                "not-a-table",
            ),
            "fernet",
        ),
        (
            (
                "CREATE TABLE t (id int, c text, PRIMARY KEY (id)) PARTITION BY RANGE (id); CREATE FOREIGN DATA WRAPPER n;
           CREATE SERVER s FOREIGN DATA WRAPPER n; CREATE FOREIGN TABLE leaf (id int NOT NULL, c text) SERVER s;
           ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ATTACH PARTITION leaf FOR VALUES FROM (0) TO (9)",
                "foreign-leaf",
            ),
            "fernet",
        ),
        (
            (
                "CREATE TABLE t (id int PRIMARY KEY, b text, c text GENERATED ALWAYS AS (b) STORED)",
                "generated",
            ),
            "fernet",
        ),
        (("CREATE TABLE t (id float8 PRIMARY KEY, c text)", "key-type"), "fernet"),
        (("CREATE TABLE t (id char(8) PRIMARY KEY, c text)", "key-type"), "fernet"),
        (("CREATE TABLE t (id numeric PRIMARY KEY, c text)", "key-type"), "fernet"),
        (("CREATE TABLE t (id int UNIQUE, c text)", "no-key"), "fernet"),
        (("CREATE TABLE t (id int, c text)", "no-key"), "fernet"),
        (
            (
                "CREATE TABLE t (a int, b int, d int, e int, f int, c text, PRIMARY KEY (a, b, d, e, f))",
                "key-width",
            ),
            "fernet",
        ),
        (("CREATE TABLE t (id int PRIMARY KEY, c char(200))", "value-type"), "fernet"),
        (("CREATE TABLE t (id int PRIMARY KEY, c json)", "value-type"), "fernet"),
        (("CREATE TABLE t (id int PRIMARY KEY, c text)", "value-type"), "aes-gcm"),
        (
            (
                "CREATE TABLE b (c text PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, c text REFERENCES b)",
                "foreign-key:t_c_fkey",
            ),
            "fernet",
        ),
    ];
    for (case, format) in cases {
        let Some(desk) = Desk::postgres() else { return };
        refused(&desk, case, format);
    }
    for (setup, finding) in [
        (
            "CREATE TABLE t (id int PRIMARY KEY, c text UNIQUE); CREATE TABLE other (c text REFERENCES t (c))",
            "foreign-key:other_c_fkey",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY, c text); CREATE RULE quiet AS ON UPDATE TO t DO INSTEAD NOTHING",
            "rule:quiet",
        ),
    ] {
        let Some(desk) = Desk::postgres() else { return };
        refused(&desk, (setup, finding), "fernet");
    }
}

#[test]
fn tables_that_cannot_be_rotated_safely_are_refused_in_sqlite() {
    for case in [
        (
            "CREATE TABLE b (id integer PRIMARY KEY, c text); CREATE VIEW t AS SELECT * FROM b",
            "not-a-table",
        ),
        ("CREATE VIRTUAL TABLE t USING fts5(c)", "not-a-table"),
        (
            "CREATE TABLE t (id integer PRIMARY KEY, b text, c text GENERATED ALWAYS AS (b))",
            "generated",
        ),
        (
            "CREATE TABLE b (c text PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, c text REFERENCES b)",
            "foreign-key:t.c refers to b",
        ),
    ] {
        refused(&Desk::sqlite(), case, "fernet");
    }
}

#[test]
fn what_is_unusual_but_safe_is_told_and_done() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.execute(
        "CREATE TABLE t (id int, c text, length int GENERATED ALWAYS AS (length(c)) STORED, touched int DEFAULT 0, CHECK (length(c) > 9));
         CREATE UNIQUE INDEX by_id ON t (id); ALTER TABLE t ALTER id SET NOT NULL; CREATE UNIQUE INDEX by_c ON t (c);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    desk.insert(
        Column::Text,
        1,
        &(1..=50)
            .map(|id| Some(pair.old_value(&plaintext(id), b"")))
            .collect::<Vec<_>>(),
    );
    let run = desk.on_t("rotate", &pair, &[]);
    let error = &run.expect(4).json["error"];
    assert!(error["next"].as_str().unwrap().contains("--accept trigger:touch"), "{error}");
    let plan = desk.on_t("plan", &pair, &[]);
    assert_eq!(plan.expect(4).findings("ask"), ["trigger:touch"]);
    let notes = plan.findings("note");
    assert!(notes.contains(&"index:by_c") && notes.contains(&"key"), "{notes:?}");
    desk.on_t("plan", &pair, &["--accept", "trigger:touch"]).expect(0);
    desk.on_t("rotate", &pair, &["--accept", "trigger:touch"]).expect(0);
    assert_eq!(
        desk.texts("SELECT DISTINCT touched::text FROM t"),
        ["1"],
        "every row was written once"
    );
}

#[test]
fn what_only_a_partition_has_is_found_before_the_first_write() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    // The encrypted column is the second of the table and the fourth of the partition that was attached.
    desk.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c text, CONSTRAINT everywhere CHECK (c <> '')) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (20);
         CREATE TABLE high (gone int, id int NOT NULL, also int, c text, CONSTRAINT everywhere CHECK (c <> ''));
         ALTER TABLE high DROP COLUMN gone; ALTER TABLE high DROP COLUMN also;
         ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (20) TO (100);
         CREATE TABLE other (c text PRIMARY KEY);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER all_of_them BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TRIGGER of_the_key BEFORE UPDATE OF id ON high FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TRIGGER of_high BEFORE UPDATE OF c ON high FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE INDEX of_all ON t (c); CREATE INDEX of_low ON low (c); CREATE INDEX of_an_expression ON high (lower(c));
         ALTER TABLE low ADD CONSTRAINT unique_low UNIQUE (c);
         CREATE RULE of_low_too AS ON UPDATE TO low DO ALSO SELECT 1;
         CREATE PUBLICATION of_t FOR TABLE t",
    );
    let values: Vec<_> = (1..=50).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(Column::Text, 1, &values);
    let plan = desk.on_t("plan", &pair, &[]);
    let findings = &plan.expect(4);
    let of_severity = |severity| {
        let mut names = findings.findings(severity);
        names.sort_unstable();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of_severity("ask"), ["trigger:all_of_them", "trigger:of_high"]);
    assert!(!of_severity("refuse").is_empty(), "a rule may turn an UPDATE into anything");
    let notes = of_severity("note").join(" ");
    for name in ["of_low", "of_an_expression", "of_all", "unique_low"] {
        assert!(notes.contains(&format!("index:{name}")), "{name}: {notes}");
    }
    for name in ["high_c_idx", "low_c_idx"] {
        assert!(!notes.contains(name), "{name} is a part of another: {notes}");
    }
    assert!(notes.contains("change-capture"), "{notes}");
    assert_eq!(notes.matches("check").count(), 1, "{notes}");
    desk.on_t(
        "rotate",
        &pair,
        &["--accept", "trigger:all_of_them", "--accept", "trigger:of_high"],
    )
    .expect(4);

    desk.execute("DROP RULE of_low_too ON low; ALTER TABLE low ADD FOREIGN KEY (c) REFERENCES other NOT VALID");
    let run = desk.on_t(
        "rotate",
        &pair,
        &["--accept", "trigger:all_of_them", "--accept", "trigger:of_high"],
    );
    run.expect(4);
    assert!(run.stdout.contains("low_c_fkey"), "{}", run.stdout);
}

#[test]
fn a_column_that_identifies_rows_is_not_rewritten() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.execute("CREATE TABLE t (id int, c text, PRIMARY KEY (c, id))");
    desk.insert(Column::Text, 1, &[Some(pair.old_value(&plaintext(1), b""))]);
    for command in ["plan", "rotate"] {
        let run = desk.on_t(command, &pair, &[]);
        run.expect(4);
        assert!(run.stdout.contains("identifies rows"), "{}", run.stdout);
    }
}

#[test]
fn a_column_that_is_named_twice_is_refused() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        desk.insert(Column::Text, 1, &[Some(pair.old_value(&plaintext(1), b""))]);
        for (again, exit) in [("c", 2), ("C", 4)] {
            let run = desk.on_t("rotate", &pair, &["--column", again]);
            run.expect(exit);
            assert!(run.stdout.contains("named twice"), "{again}: {}", run.stdout);
        }
    }
}

#[test]
fn a_column_that_is_too_narrow_is_refused_or_quarantined_and_never_cut() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("aes-gcm-hex");
    // 28 bytes more and two digits each: 60 bytes of plaintext take 176.
    desk.execute("CREATE TABLE t (id int PRIMARY KEY, c varchar(160))");
    let base64 = reseal::format::by_name("aes-gcm-base64").unwrap();
    let old = reseal::key::KeyEncoding::detect(pair.old_text.as_bytes()).unwrap();
    let old = base64.cipher(&old, None).unwrap();
    let sealed = |len: usize| Some(super::desk::seal(&*old, &vec![b'x'; len], b""));
    let mut values: Vec<_> = (1..=2000).map(|_| sealed(20)).collect();
    values[0] = sealed(60);
    desk.insert(Column::Text, 1, &values);
    let run = |command: &str| {
        let mut arguments = on_t(command, "aes-gcm-base64", &["--to-format", "aes-gcm-hex"]);
        arguments.push("--no-state".to_owned());
        if command != "rotate" {
            arguments.pop();
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        desk.run(&arguments, &[("OLD", &pair.old_text), ("NEW", &pair.new_text)])
    };
    // In sight of the sample.
    assert!(run("plan").expect(4).findings("refuse").contains(&"too-narrow"));
    run("rotate").expect(4);
    // Where the sample does not look: the first hundred rows of each tenth are sampled.
    desk.execute("UPDATE t SET c = (SELECT c FROM t WHERE id = 2) WHERE id = 1");
    let wide = String::from_utf8(sealed(60).unwrap()).unwrap();
    desk.execute(&format!("UPDATE t SET c = '{wide}' WHERE id = 190"));
    let rotated = run("rotate");
    let found = rotated.expect(7).quarantined();
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [(190, "its new form takes 176 bytes, the column holds 160".to_owned())]
    );
    assert_eq!(desk.values(Column::Text)[&190], Some(wide.into_bytes()));
    assert_eq!(rotated.json["values_reencrypted"], 1999);
    desk.execute("ALTER TABLE t ALTER c TYPE text");
    run("rotate").expect(0);
}

/// A role of its own in the desk's database, and the URL for it.
fn limited(desk: &Desk, name: &str, grants: &str) -> String {
    let Place::Postgres(database) = &desk.place else {
        panic!("a PostgreSQL desk")
    };
    let name = format!("{name}_{}", std::process::id());
    desk.execute(&format!(
        "DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD 'limited'; GRANT USAGE, CREATE ON SCHEMA public TO {name}; {}",
        grants.replace("ROLE", &name)
    ));
    let url = database.url();
    let (_, place) = url.rsplit_once('@').unwrap();
    format!("postgres://{name}:limited@{place}")
}

fn drop_role(desk: &Desk, name: &str) {
    let name = format!("{name}_{}", std::process::id());
    desk.execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
}

/// A grant on a partitioned table holds for statements about it, and rows are read and rewritten where they are.
#[test]
fn privileges_on_the_parent_of_partitions_alone_are_refused() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (5); CREATE TABLE high PARTITION OF t FOR VALUES FROM (5) TO (9)",
    );
    desk.insert(Column::Text, 1, &[Some(pair.old_value(&plaintext(1), b""))]);
    let url = limited(
        &desk,
        "reseal_parent",
        "GRANT SELECT, UPDATE ON t TO ROLE; GRANT UPDATE ON low, high TO ROLE; GRANT SELECT ON low TO ROLE",
    );
    let keys = [
        ("OLD", pair.old_text.as_str()),
        ("NEW", &pair.new_text),
        ("DATABASE_URL", &url),
    ];
    let command = on_t("rotate", "fernet", &[]);
    let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    let run = desk.run(&arguments, &keys);
    run.expect(4);
    assert!(run.stdout.contains("SELECT on the partition high"), "{}", run.stdout);
    assert_eq!(run.json["error"]["durable"], "nothing was touched", "{}", run.stdout);
    drop_role(&desk, "reseal_parent");
}

#[test]
fn missing_privileges_and_hidden_rows_are_refused() {
    for (role, grants, finding) in [
        ("reseal_nothing", "", "privilege"),
        ("reseal_reader", "GRANT SELECT ON t TO ROLE", "privilege"),
        ("reseal_other_column", "GRANT SELECT, UPDATE (id) ON t TO ROLE", "privilege"),
        (
            "reseal_hidden",
            "GRANT SELECT, UPDATE ON t TO ROLE; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id < 5)",
            "row-security",
        ),
    ] {
        let Some(desk) = Desk::postgres() else { return };
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        desk.insert(
            Column::Text,
            1,
            &(1..=9)
                .map(|id| Some(pair.old_value(&plaintext(id), b"")))
                .collect::<Vec<_>>(),
        );
        let before = desk.values(Column::Text);
        let url = limited(&desk, role, grants);
        let keys = [
            ("OLD", pair.old_text.as_str()),
            ("NEW", &pair.new_text),
            ("DATABASE_URL", &url),
        ];
        for command in ["plan", "rotate"] {
            let arguments = on_t(command, "fernet", &[]);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let run = desk.run(&arguments, &keys);
            run.expect(4);
            if command == "plan" {
                assert!(run.findings("refuse").contains(&finding), "{role}: {}", run.stdout);
            }
        }
        assert_eq!(desk.values(Column::Text), before);
        // Reading is enough to verify; a short count would be a lie.
        let arguments = on_t("verify", "fernet", &[]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let verify = desk.run(&arguments, &keys);
        verify.expect(if finding == "privilege" && role != "reseal_nothing" {
            7
        } else {
            4
        });
        drop_role(&desk, role);
    }
}

#[test]
fn without_the_right_to_make_tables_there_is_no_state_and_the_error_says_so() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    desk.insert(Column::Text, 1, &[Some(pair.old_value(b"one", b""))]);
    let url = limited(&desk, "reseal_no_ddl", "GRANT SELECT, UPDATE ON t TO ROLE");
    let keys = [
        ("OLD", pair.old_text.as_str()),
        ("NEW", &pair.new_text),
        ("DATABASE_URL", &url),
    ];
    let run = |more: &[&str]| {
        let arguments = on_t("rotate", "fernet", more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        desk.run(&arguments, &keys)
    };
    let refused = run(&[]);
    assert!(refused.expect(4).stderr.contains("--no-state"), "{}", refused.stderr);
    run(&["--no-state"]).expect(0);
    drop_role(&desk, "reseal_no_ddl");
}

#[test]
fn a_server_that_takes_no_writes_is_verified_and_not_rotated() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    desk.insert(Column::Text, 1, &[Some(pair.new_value(b"one", b""))]);
    let name = desk.texts("SELECT current_database()::text").remove(0);
    desk.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    let plan = desk.on_t("plan", &pair, &[]);
    assert!(plan.expect(4).findings("refuse").contains(&"read-only"));
    desk.on_t("rotate", &pair, &[]).expect(4);
    let verify = desk.on_t("verify", &pair, &[]);
    assert_eq!(verify.expect(0).json["verified"], true);
}

#[test]
fn a_row_that_an_application_holds_for_seconds_is_rotated_in_the_end() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    desk.insert(
        Column::Text,
        1,
        &(1..=300)
            .map(|id| Some(pair.old_value(&plaintext(id), b"")))
            .collect::<Vec<_>>(),
    );
    let late = pair.old_value(b"written by the application while it held the row", b"");
    std::thread::scope(|scope| {
        let (held, holding) = std::sync::mpsc::channel();
        let (desk, late) = (&desk, &late);
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                use sqlx::Connection as _;
                let mut application = sqlx::PgConnection::connect(&desk.url()).await.unwrap();
                let mut transaction = application.begin().await.unwrap();
                sqlx::query("UPDATE t SET c = $1 WHERE id = 150")
                    .bind(std::str::from_utf8(late).unwrap())
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                held.send(()).unwrap();
                // Longer than the lock timeout of a batch, several times over.
                tokio::time::sleep(Duration::from_secs(3)).await;
                transaction.commit().await.unwrap();
            });
        });
        holding.recv().unwrap();
        let run = desk.on_t("rotate", &pair, &[]);
        assert!(run.expect(0).json["lost_races"].as_u64().unwrap() >= 1, "{}", run.stdout);
    });
    let values = desk.values(Column::Text);
    for id in 1..=300 {
        let expected = if id == 150 {
            b"written by the application while it held the row".to_vec()
        } else {
            plaintext(id)
        };
        assert_eq!(pair.open_new(values[&id].as_ref().unwrap(), b""), expected);
    }
}

#[test]
fn heavy_partitions_attached_detached_and_dropped_meanwhile() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.execute("CREATE TABLE t (id int8 PRIMARY KEY, c text) PARTITION BY RANGE (id)");
    let value = |id: i64| Some(pair.old_value(&plaintext(id), b""));
    for part in 0..5 {
        let (from, to) = (part * 400, part * 400 + 400);
        desk.execute(&format!(
            "CREATE TABLE p{part} PARTITION OF t FOR VALUES FROM ({from}) TO ({to})"
        ));
        desk.insert(Column::Text, from, &(from..to).map(value).collect::<Vec<_>>());
    }
    desk.execute("CREATE TABLE late (id int8 PRIMARY KEY, c text)");
    for id in [2001, 2002] {
        desk.execute(&format!(
            "INSERT INTO late VALUES ({id}, {})",
            desk.literal(Column::Text, value(id).as_deref())
        ));
    }
    let arguments = on_t(
        "rotate",
        "fernet",
        &["--workers", "2", "--batch-rows", "10", "--profile", "gentle"],
    );
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = desk.process(&arguments, &[("OLD", &pair.old_text), ("NEW", &pair.new_text)]);
    command
        .arg("--json")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let running = command.spawn().unwrap();
    wait_until(&desk, "SELECT (to_regclass('reseal.range') IS NOT NULL)::text", "true");
    wait_until(&desk, "SELECT (sum(rows_reencrypted) > 20)::text FROM reseal.range", "true");
    desk.execute("ALTER TABLE t ATTACH PARTITION late FOR VALUES FROM (2000) TO (2400)");
    desk.execute("ALTER TABLE t DETACH PARTITION p3");
    desk.execute("DROP TABLE p3; DROP TABLE p1");
    let run = super::desk::Run::of(&running.wait_with_output().unwrap());
    run.expect(0);
    let values = desk.values(Column::Text);
    assert_eq!(values.len(), 1202);
    for (id, value) in values {
        assert_eq!(pair.open_new(value.as_ref().unwrap(), b""), plaintext(id));
    }
    // A plan whose range speaks of a table that is gone is no dead end.
    desk.execute("UPDATE reseal.plan SET status = 'running'; UPDATE reseal.range SET done = false, cursor = NULL");
    desk.on_t("rotate", &pair, &[]).expect(0);
}

#[test]
fn rows_of_a_partition_that_was_detached_between_two_runs_stay_untouched() {
    detached(|desk| {
        desk.execute("UPDATE reseal.plan SET status = 'running'; UPDATE reseal.range SET done = false, cursor = NULL");
        desk.execute("ALTER TABLE t DETACH PARTITION p1; UPDATE p1 SET c = was");
    });
}

#[test]
fn rows_of_a_partition_that_was_detached_before_the_sweeps_stay_untouched() {
    detached(|desk| {
        desk.execute("UPDATE reseal.plan SET status = 'running'; UPDATE reseal.range SET done = false, cursor = NULL");
        desk.execute(
            "UPDATE t SET c = was;
             CREATE FUNCTION detach() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN ALTER TABLE t DETACH PARTITION p1; UPDATE p1 SET c = was; RETURN NULL; END $$;
             CREATE TRIGGER detach AFTER UPDATE ON reseal.plan FOR EACH ROW
               WHEN (OLD.status = 'running' AND NEW.status = 'swept') EXECUTE FUNCTION detach()",
        );
    });
}

/// Two partitions are rotated, one is detached on the way as `detach` says, and the same command is given again.
fn detached(detach: impl Fn(&Desk)) {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.execute(
        "CREATE TABLE t (id int8 PRIMARY KEY, c text, was text) PARTITION BY RANGE (id);
         CREATE TABLE p0 PARTITION OF t FOR VALUES FROM (0) TO (20);
         CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (20) TO (40)",
    );
    for id in 0..40 {
        let value = pair.old_value(&plaintext(id), b"");
        let value = desk.literal(Column::Text, Some(&value));
        desk.execute(&format!("INSERT INTO t VALUES ({id}, {value}, {value})"));
    }
    desk.on_t("rotate", &pair, &[]).expect(0);
    detach(&desk);
    let again = desk.on_t("rotate", &pair, &[]);
    assert_eq!(desk.texts("SELECT count(*)::text FROM p1 WHERE c <> was"), ["0"]);
    again.expect(0);
    let values = desk.values(Column::Text);
    assert_eq!(values.len(), 20);
    for (id, value) in values {
        assert_eq!(pair.open_new(value.as_ref().unwrap(), b""), plaintext(id));
    }
}

/// Waits for the first column of a query to become `wanted`.
pub fn wait_until(desk: &Desk, sql: &str, wanted: &str) {
    for _ in 0..600 {
        if desk.texts(sql).first().map(String::as_str) == Some(wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it never came true: {sql}");
}

/// What Reseal remembers is never trusted over the rows.
#[test]
fn state_that_was_edited_or_dropped_is_derived_again_or_refused() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        desk.insert(
            Column::Text,
            1,
            &(1..=60)
                .map(|id| Some(pair.old_value(&plaintext(id), b"")))
                .collect::<Vec<_>>(),
        );
        desk.on_t("rotate", &pair, &[]).expect(0);
        let (plan, range, meta) = if desk.is_postgres() {
            ("reseal.plan", "reseal.range", "reseal.meta")
        } else {
            ("reseal_plan", "reseal_range", "reseal_meta")
        };
        // Marked as verified, while an old value stands in the table.
        let late = desk.literal(Column::Text, Some(&pair.old_value(b"late", b"")));
        desk.execute(&format!("INSERT INTO t (id, c) VALUES (61, {late})"));
        assert_eq!(
            desk.on_t("verify", &pair, &[]).expect(7).json["not_current"][0]["primary_key"]["id"],
            61
        );
        desk.on_t("rotate", &pair, &[]).expect(0);
        // A cursor that claims more than was done, and ranges that claim to be done.
        desk.execute(&format!("UPDATE t SET c = {late}"));
        desk.execute(&format!("UPDATE {plan} SET status = 'running'"));
        desk.on_t("rotate", &pair, &[]).expect(0);
        // Bytes that are no cursor.
        let garbage = desk.literal(Column::Bytes, Some(b"garbage"));
        let (done, cursor) = if desk.is_postgres() {
            ("false", "cursor")
        } else {
            ("0", "cursor_key")
        };
        desk.execute(&format!(
            "UPDATE {plan} SET status = 'running'; UPDATE {range} SET done = {done}, {cursor} = {garbage}"
        ));
        let run = desk.on_t("rotate", &pair, &[]);
        assert!(run.expect(4).stderr.contains("damaged"), "{}", run.stderr);
        // Written by a version to come.
        desk.execute(&format!("UPDATE {meta} SET value = '999' WHERE name = 'version'"));
        for command in ["rotate", "status"] {
            let run = if command == "status" {
                desk.run(&["status"], &[])
            } else {
                desk.on_t(command, &pair, &[])
            };
            assert!(run.expect(4).stderr.contains("newer"), "{}", run.stderr);
        }
        // Dropped.
        desk.execute(&format!("UPDATE t SET c = {late} WHERE id < 10"));
        desk.execute(if desk.is_postgres() {
            "DROP SCHEMA reseal CASCADE"
        } else {
            "DROP TABLE reseal_quarantine; DROP TABLE reseal_range; DROP TABLE reseal_plan; DROP TABLE reseal_meta"
        });
        let run = desk.on_t("rotate", &pair, &[]);
        assert_eq!(run.expect(0).json["values_reencrypted"], 9, "{}", run.stdout);
    }
}
