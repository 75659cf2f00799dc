//! `reseal scan`: what it finds, what it asks about, and what it could not look at.

use serde_json::{Value, json};

use super::desk::{Column, Desk, Pair, plaintext};
use super::schema::wait_until;

/// The columns of a list, without the schema, which only PostgreSQL has.
fn columns(run: &Value, list: &str) -> Vec<String> {
    let entries = run[list].as_array().unwrap_or_else(|| panic!("no {list}: {run}"));
    let name = |entry: &Value| {
        let table = entry["table"].as_str().unwrap();
        format!(
            "{}.{}",
            table.strip_prefix("public.").unwrap_or(table),
            entry["column"].as_str().unwrap()
        )
    };
    entries.iter().map(name).collect()
}

#[test]
fn encrypted_columns_are_found_and_nothing_is_changed() {
    for desk in Desk::each() {
        let (fernet, tink) = (Pair::of("fernet"), Pair::of("tink-base64"));
        desk.table(Column::Text);
        let values: Vec<_> = (1..=30).map(|id| Some(fernet.old_value(&plaintext(id), b""))).collect();
        desk.insert(Column::Text, 1, &values);
        let literal = |value: &[u8]| desk.literal(Column::Text, Some(value));
        desk.execute(&format!(
            "CREATE TABLE other (id int, name text, tink text, hash text);
             INSERT INTO other VALUES (1, 'Ada', {}, '{}'), (2, 'Grace', NULL, '{}')",
            literal(&tink.old_value(b"secret", b"other")),
            "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ));
        let before = desk.values(Column::Text);
        let scan = |more: &[&str]| desk.run(&[&["scan", "--database", "env:DATABASE_URL"], more].concat(), &[]);
        let run = scan(&[]);
        assert_eq!(columns(&run.expect(0).json, "found"), ["t.c"], "{}", desk.name());
        let found = &run.json["found"][0];
        assert_eq!(
            (&found["certain"], &found["formats"], &found["sampled"]),
            (&json!(true), &json!(["fernet"]), &json!(30))
        );
        assert_eq!(run.json["not_looked_at"], json!([]));
        assert!(run.stderr.contains("holds fernet (30 values looked at)"), "{}", run.stderr);
        let looked_at = run.json["columns_sampled"].as_u64().unwrap();
        assert!(
            run.stderr
                .contains(&format!("{looked_at} columns looked at, 1 with sealed values"))
        );

        let id = tink.old_id.unwrap().to_string();
        let run = scan(&["--key-id", &id]);
        assert_eq!(
            columns(&run.expect(0).json, "found"),
            ["other.tink", "t.c"],
            "{}",
            desk.name()
        );
        let run = scan(&["--key-id", &id, "--all"]);
        assert_eq!(columns(&run.expect(0).json, "found"), ["other.tink", "other.hash", "t.c"]);
        assert_eq!(run.json["found"][1]["certain"], false);
        assert_eq!(desk.values(Column::Text), before);
    }
}

#[test]
fn a_column_that_cannot_be_looked_at_is_named_and_the_others_are_found() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    desk.insert(Column::Text, 1, &[Some(pair.old_value(b"secret", b""))]);
    desk.execute("CREATE TABLE a (c text); INSERT INTO a VALUES ('a')");
    let run = std::thread::scope(|scope| {
        let locked = "BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
        scope.spawn(|| desk.execute(locked));
        let locks =
            "SELECT count(*)::text FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        wait_until(&desk, locks, "1");
        desk.run(&["scan", "--database", "env:DATABASE_URL"], &[])
    });
    run.expect(5);
    assert_eq!(columns(&run.json, "found"), ["t.c"]);
    assert_eq!(columns(&run.json, "not_looked_at"), ["a.c"]);
    assert_eq!(run.json["columns_sampled"], 1);
    assert!(run.stderr.contains("public.a.c could not be looked at: "), "{}", run.stderr);
    let run = desk.run(&["scan", "--database", "env:DATABASE_URL"], &[]);
    assert_eq!(columns(&run.expect(0).json, "not_looked_at").len(), 0);
}
