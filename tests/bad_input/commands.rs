//! The command line's contract with scripts and people: exit codes, error texts in four parts, one JSON document with its schema.

use std::process::Stdio;

use reseal::key::{KeyEncoding, KeyMaterial};

use super::desk::{Column, Desk, Pair, Run, on_t, plaintext, seal};
use super::schema::wait_until;

fn table(desk: &Desk, rows: i64) -> Pair {
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    let values: Vec<_> = (1..=rows).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(Column::Text, 1, &values);
    pair
}

/// Every part of an error, for people and for programs.
#[track_caller]
fn explains(run: &Run, exit: i32, parts: &[(&str, &str)]) {
    run.expect(exit);
    assert!(run.stderr.contains("error: "), "{}", run.stderr);
    for (part, text) in parts {
        let key = if *part == "error" { "failed" } else { part };
        let told = run.json["error"][key].as_str().unwrap_or_default();
        assert!(told.contains(text), "{part}: {text:?} is not in {}", run.json);
        assert!(run.stderr.contains(&format!("{part}: ")), "{}", run.stderr);
    }
}

/// The fields of a document of `rotate` and `verify`, which are there also when the command fails.
#[track_caller]
fn tells_what_is_known(run: &Run) {
    for name in [
        "rows_scanned",
        "values_reencrypted",
        "values_already_current",
        "values_null",
        "values_plaintext",
        "lost_races",
        "quarantined_total",
        "not_current_total",
        "elapsed_seconds",
        "rows_per_second",
        "exit",
    ] {
        assert!(run.json[name].is_number(), "{name}: {}", run.json);
    }
    for name in ["quarantined", "not_current", "phases"] {
        assert!(run.json[name].is_array(), "{name}: {}", run.json);
    }
    assert!(run.json["census"].is_object(), "{}", run.json);
    assert_eq!(run.json["verified"], false, "{}", run.json);
}

#[test]
fn values_beyond_those_that_are_listed_are_counted() {
    let desk = Desk::sqlite();
    let pair = table(&desk, 10_050);
    let run = desk.on_t("verify", &pair, &[]);
    run.expect(7);
    assert_eq!(run.json["not_current_total"], 10_050);
    assert_eq!(run.json["not_current"].as_array().unwrap().len(), 10_000);
    assert!(
        run.stderr.contains("10050 values readable, but not under the new key"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_key_typed_literally_is_told_before_a_database_that_is_not() {
    let desk = Desk::sqlite();
    let pair = table(&desk, 3);
    for (option, other) in [("--from", "--to"), ("--to", "--from")] {
        let mut process = desk.process(
            &[
                "plan",
                "--table",
                "t",
                "--column",
                "c",
                "--format",
                "fernet",
                option,
                &pair.old_text,
                other,
                "env:NEW",
                "--json",
            ],
            &[("NEW", &pair.new_text)],
        );
        let run = Run::of(&process.env_remove("DATABASE_URL").output().unwrap());
        explains(&run, 2, &[("next", "env:NAME")]);
    }
}

#[test]
fn a_key_typed_literally_is_refused_and_not_repeated() {
    let desk = Desk::sqlite();
    let pair = table(&desk, 3);
    for literal in [
        pair.old_text.clone(),
        format!("literal:{}", pair.old_text),
        pair.old_text.to_uppercase(),
    ] {
        for option in ["--from", "--to"] {
            for command in ["plan", "rotate", "verify"] {
                let other = if option == "--from" { "--to" } else { "--from" };
                let run = desk.run(
                    &[
                        command, "--table", "t", "--column", "c", "--format", "fernet", option, &literal, other, "env:NEW",
                    ],
                    &[("NEW", &pair.new_text)],
                );
                run.expect(2);
                assert_eq!(run.json["schema"], format!("reseal.{command}/1"));
                for spelling in [&literal, &pair.old_text, &pair.old_text[4..40].to_owned()] {
                    assert!(
                        !run.stderr.contains(spelling.as_str()) && !run.stdout.contains(spelling.as_str()),
                        "{command} {option}"
                    );
                }
                // One that begins with a dash is not even taken for a value.
                let forms = if literal.starts_with('-') {
                    [].as_slice()
                } else {
                    &["env:", "file:"]
                };
                assert!(forms.iter().all(|form| run.stderr.contains(form)), "{}", run.stderr);
            }
        }
    }
    // In a place where no key belongs, it is not repeated either.
    for arguments in [
        vec!["rotate", &pair.old_text],
        vec![&pair.old_text[..]],
        vec!["plan", "--batch-rows", &pair.old_text],
    ] {
        let run = desk.run(&arguments, &[]);
        run.expect(2);
        assert!(
            !run.stderr.contains(&pair.old_text) && !run.stdout.contains(&pair.old_text),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn what_makes_no_sense_is_usage() {
    let desk = Desk::sqlite();
    let pair = table(&desk, 3);
    let keys = [("OLD", pair.old_text.as_str()), ("NEW", &pair.new_text)];
    let base = ["--table", "t", "--format", "fernet", "--to", "env:NEW"];
    for (command, more) in [
        ("rotate", vec!["--column", "c", "--yes", "--dual-read-confirmed"]),
        (
            "rotate",
            vec![
                "--column",
                "c",
                "--column",
                "c",
                "--from",
                "env:OLD",
                "--yes",
                "--dual-read-confirmed",
            ],
        ),
        ("plan", vec!["--column", "c", "--from", "env:OLD", "--aad", "a", "--aad", "b"]),
        ("plan", vec!["--column", "c", "--from", "env:OLD", "--aad", "t.c:{id}"]),
        ("plan", vec!["--column", "c", "--from", "env:OLD", "--to-format", "rot13"]),
        (
            "plan",
            vec!["--column", "c", "--from", "env:OLD", "--format", "fernet", "--format", "tink"],
        ),
        ("plan", vec!["--from", "env:OLD"]),
        ("plan", vec!["--column", "c", "--from", "env:OLD", "--workers", "0"]),
        ("plan", vec!["--column", "c", "--from", "env:OLD", "--no-such-option"]),
        ("conquer", vec![]),
    ] {
        let arguments: Vec<&str> = [command].into_iter().chain(base).chain(more).collect();
        let run = desk.run(&arguments, &keys);
        run.expect(2);
        let schema = if command == "conquer" { "usage" } else { command };
        assert_eq!(
            run.json["schema"],
            format!("reseal.{schema}/1"),
            "{arguments:?}: {}",
            run.stderr
        );
        assert!(!run.json["error"]["failed"].as_str().unwrap().is_empty() && !run.stderr.is_empty());
    }
}

#[test]
fn keys_and_databases_that_are_unusable() {
    for desk in Desk::each() {
        let pair = table(&desk, 3);
        let before = desk.values(Column::Text);
        let with = |keys: &[(&str, &str)], command: &str, more: &[&str]| {
            let arguments = on_t(command, "fernet", more);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            desk.run(&arguments, keys)
        };
        let (old, new) = (pair.old_text.as_str(), pair.new_text.as_str());
        for command in ["plan", "rotate", "verify"] {
            explains(
                &with(&[("NEW", new)], command, &[]),
                3,
                &[("error", "OLD"), ("next", "export OLD")],
            );
            explains(
                &with(&[("OLD", old), ("NEW", "too short")], command, &[]),
                3,
                &[("where", "env:NEW")],
            );
            explains(
                &with(&[("OLD", old), ("NEW", old)], command, &[]),
                3,
                &[("error", "the same"), ("next", "--to")],
            );
            // A condition that is none, a table and a column that are not there.
            let run = with(&[("OLD", old), ("NEW", new)], command, &["--where", "1 = 1) OR (1 = 1"]);
            run.expect(4);
            for (table, column) in [("no_such_table", "c"), ("t", "no_such_column")] {
                let mut arguments = vec![command, "--table", table, "--column", column, "--format", "fernet"];
                arguments.extend(["--from", "env:OLD", "--to", "env:NEW"]);
                if command == "rotate" {
                    arguments.extend(["--yes", "--dual-read-confirmed"]);
                }
                let run = desk.run(&arguments, &[("OLD", old), ("NEW", new)]);
                explains(&run, 4, &[("error", "no_such_"), ("durable", "nothing was touched")]);
                if command != "plan" {
                    tells_what_is_known(&run);
                }
            }
        }
        // Strangers' keys open nothing.
        let stranger = Pair::of("fernet");
        let run = with(&[("OLD", &stranger.old_text), ("NEW", &stranger.new_text)], "verify", &[]);
        run.expect(7);
        assert!(run.stderr.contains("not one value opens"), "{}", run.stderr);
        // Neither a table nor a configuration.
        let run = desk.run(&["plan"], &[]);
        explains(&run, 3, &[("where", "reseal.toml"), ("next", "--table")]);
        explains(
            &with(&[("OLD", old), ("NEW", new), ("DATABASE_URL", "oracle://x")], "plan", &[]),
            3,
            &[("next", "postgres://")],
        );
        explains(
            &with(
                &[
                    ("OLD", old),
                    ("NEW", new),
                    ("DATABASE_URL", "postgres://u:hunter2pw@127.0.0.1:1/db"),
                ],
                "rotate",
                &[],
            ),
            8,
            &[
                ("error", "127.0.0.1:1"),
                ("where", "step"),
                ("durable", "every batch"),
                ("next", "run the same command"),
            ],
        );
        assert_eq!(desk.values(Column::Text), before);
    }
}

#[test]
fn a_wrong_password_and_a_database_that_does_not_exist_are_no_outage() {
    let Some(desk) = Desk::postgres() else { return };
    let pair = table(&desk, 3);
    let url = desk.url();
    let (front, place) = url.rsplit_once('@').unwrap();
    let (user, _) = front.rsplit_once(':').unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    for url in [format!("{user}:wrong-hunter2@{place}"), format!("{server}/no_such_database")] {
        for command in ["rotate", "plan", "verify", "status"] {
            let arguments = if command == "status" {
                vec!["status".to_owned()]
            } else {
                on_t(command, "fernet", &[])
            };
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let run = desk.run(
                &arguments,
                &[("OLD", &pair.old_text), ("NEW", &pair.new_text), ("DATABASE_URL", &url)],
            );
            explains(&run, 3, &[("error", "cannot use PostgreSQL database"), ("next", "password")]);
            assert_eq!(run.json["schema"], format!("reseal.{command}/1"));
            assert!(!run.stderr.contains("hunter2") && !run.stdout.contains("hunter2"));
        }
    }
}

#[test]
fn a_missing_sqlite_database_is_never_made() {
    let desk = Desk::sqlite();
    let pair = table(&desk, 1);
    let keys = [("OLD", pair.old_text.as_str()), ("NEW", pair.new_text.as_str())];
    let before: Vec<_> = entries(&desk);
    for command in ["rotate", "plan", "verify", "status"] {
        for url in [
            "sqlite:missing.db",
            "sqlite:missing/app.db",
            "sqlite:.",
            "sqlite://missing.db?mode=rwc",
        ] {
            let arguments = if command == "status" {
                vec!["status".to_owned()]
            } else {
                on_t(command, "fernet", &[])
            };
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--database", url]).collect();
            let run = desk.run(&arguments, &keys);
            explains(
                &run,
                3,
                &[("error", "cannot use sqlite:"), ("next", "nothing is ever created")],
            );
        }
    }
    assert_eq!(entries(&desk), before);
    // A file that is no database.
    std::fs::write(
        desk.folder.path().join("text.db"),
        "not a database, but a text that is long enough to look at",
    )
    .unwrap();
    let arguments = on_t("rotate", "fernet", &["--database", "sqlite:text.db"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    explains(&desk.run(&arguments, &keys), 4, &[("error", "not an SQLite database")]);
}

fn entries(desk: &Desk) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(&desk.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_starts_without_the_operators_word() {
    for desk in Desk::each() {
        let pair = table(&desk, 3);
        let before = desk.values(Column::Text);
        let keys = [("OLD", pair.old_text.as_str()), ("NEW", pair.new_text.as_str())];
        let base = [
            "rotate", "--table", "t", "--column", "c", "--from", "env:OLD", "--to", "env:NEW",
        ];
        for (more, next) in [
            (vec!["--yes"], "--dual-read-confirmed"),
            (vec!["--dual-read-confirmed"], "--yes"),
            (vec![], "--dual-read-confirmed"),
        ] {
            let arguments: Vec<&str> = base.into_iter().chain(more).collect();
            let mut command = desk.process(&arguments, &keys);
            let run = Run::of(&command.arg("--json").stdin(Stdio::null()).output().unwrap());
            explains(&run, 4, &[("durable", "nothing was touched"), ("next", next)]);
        }
        assert_eq!(desk.values(Column::Text), before);
        // Detected: --format was left out.
        let arguments: Vec<&str> = base.into_iter().chain(["--yes", "--dual-read-confirmed"]).collect();
        desk.run(&arguments, &keys).expect(0);
    }
}

#[test]
fn a_wrong_key_is_noticed_before_everything_is_quarantined() {
    for desk in Desk::each() {
        let pair = table(&desk, 300);
        let stranger = Pair::of("fernet");
        let arguments = on_t("rotate", "fernet", &[]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = desk.run(&arguments, &[("OLD", &stranger.old_text), ("NEW", &pair.new_text)]);
        explains(
            &run,
            4,
            &[
                ("error", "opens under the old or the new key"),
                ("durable", "nothing was touched"),
                ("next", "check the keys"),
            ],
        );
        // A few values are listed instead, and counted as what they are.
        desk.execute("DELETE FROM t WHERE id > 5");
        let run = desk.run(&arguments, &[("OLD", &stranger.old_text), ("NEW", &pair.new_text)]);
        assert_eq!(run.expect(7).quarantined().len(), 5);
    }
}

/// Somebody else holds the table (6); asked to stop (5); run again (0).
#[test]
fn heavy_a_table_in_use_is_left_alone_and_a_signal_ends_the_run_after_a_batch() {
    for desk in Desk::each() {
        let pair = table(&desk, 4000);
        let keys = [("OLD", pair.old_text.as_str()), ("NEW", pair.new_text.as_str())];
        let slow = on_t(
            "rotate",
            "fernet",
            &["--profile", "gentle", "--batch-rows", "5", "--workers", "1"],
        );
        let slow: Vec<&str> = slow.iter().map(String::as_str).collect();
        let mut first = desk.process(&slow, &keys);
        let first = first
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if desk.is_postgres() {
            wait_until(&desk, "SELECT (to_regclass('reseal.range') IS NOT NULL)::text", "true");
            wait_until(&desk, "SELECT (sum(rows_reencrypted) > 0)::text FROM reseal.range", "true");
        } else {
            wait_until(
                &desk,
                "SELECT CAST(count(*) AS text) FROM sqlite_schema WHERE name = 'reseal_range'",
                "1",
            );
            wait_until(&desk, "SELECT CAST(sum(rows_reencrypted) > 0 AS text) FROM reseal_range", "1");
        }
        let second = desk.on_t("rotate", &pair, &[]);
        explains(
            &second,
            6,
            &[
                ("error", "reseal rotate"),
                ("error", "pid"),
                ("durable", "nothing was touched by this run"),
                ("next", "--take-over"),
            ],
        );
        let pid = rustix::process::Pid::from_child(&first);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let stopped = Run::of(&first.wait_with_output().unwrap());
        explains(
            &stopped,
            5,
            &[
                ("error", "stopped on request"),
                ("durable", "every batch"),
                ("next", "run the same command again"),
            ],
        );
        assert_eq!(
            (&stopped.json["schema"], &stopped.json["verified"]),
            (&"reseal.rotate/1".into(), &false.into())
        );
        let done = stopped.json["rows_scanned"].as_u64().unwrap();
        assert!(0 < done && done < 4000, "{}", stopped.stdout);
        let run = desk.on_t("rotate", &pair, &[]);
        assert_eq!(
            run.expect(0).json["rows_scanned"],
            4000,
            "over both runs, each row once: {}",
            run.stdout
        );
    }
}

/// Names and keys that would draw on a terminal, move its cursor or reorder its text.
#[test]
fn escapes_in_names_and_keys_reach_no_terminal_and_json_stays_valid() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        let hostile = "ta\u{1b}[2Jble\u{202e}\nnext \"quoted\" \u{9b}31m";
        let quoted = format!("\"{}\"", hostile.replace('"', "\"\""));
        desk.execute(&format!(
            "CREATE TABLE {quoted} (id text PRIMARY KEY NOT NULL, {quoted} text)"
        ));
        let good = String::from_utf8(pair.old_value(b"x", b"")).unwrap();
        desk.execute(&format!(
            "INSERT INTO {quoted} VALUES ('{hostile}', 'plain'), ('b', '{good}')"
        ));
        let keys = [("OLD", pair.old_text.as_str()), ("NEW", pair.new_text.as_str())];
        for (command, exit) in [("plan", 0), ("rotate", 7), ("verify", 7), ("status", 0)] {
            let mut arguments = vec![command];
            if command != "status" {
                arguments.extend([
                    "--table", hostile, "--column", hostile, "--format", "fernet", "--from", "env:OLD", "--to", "env:NEW",
                ]);
            }
            if command == "rotate" {
                arguments.extend(["--yes", "--dual-read-confirmed"]);
            }
            let run = desk.run(&arguments, &keys);
            run.expect(exit);
            for said in [&run.stderr, &run.stdout] {
                let deceives = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!said.chars().any(deceives), "{command}: {said:?}");
            }
            assert_eq!(run.stdout.lines().count(), 1);
            if exit == 7 {
                let entry = &run.json["quarantined"][0];
                assert_eq!(
                    (&entry["primary_key"]["id"], &entry["column"]),
                    (&hostile.into(), &hostile.into())
                );
            }
        }
        for (table, column) in [(hostile, "no\u{1b}[31msuch"), ("no\u{1b}]0;such", "c")] {
            let arguments = [
                "plan", "--table", table, "--column", column, "--format", "fernet", "--from", "env:OLD", "--to", "env:NEW",
            ];
            let run = desk.run(&arguments, &keys);
            assert!(
                !run.expect(4).stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'),
                "{:?}",
                run.stderr
            );
        }
    }
}

#[test]
fn conditions_select_rows_and_cannot_do_more() {
    for desk in Desk::each() {
        let pair = table(&desk, 20);
        desk.execute("CREATE TABLE victim (id integer)");
        for hostile in [
            "1=1; DROP TABLE victim",
            "1=1) --",
            "id = 1 UNION SELECT 1",
            "",
            "nonsense nonsense",
            "id IN (DELETE FROM victim RETURNING id)",
        ] {
            let run = desk.on_t("rotate", &pair, &["--where", hostile, "--no-state"]);
            run.expect(4);
        }
        desk.on_t("rotate", &pair, &["--where", "id > 10 OR id = 3", "--no-state"])
            .expect(0);
        let values = desk.values(Column::Text);
        for id in 1..=20_i64 {
            let mut out = Vec::with_capacity(300);
            let is_new = pair.new.open(values[&id].as_ref().unwrap(), b"", &mut out).is_ok();
            assert_eq!(is_new, id > 10 || id == 3, "{id}");
        }
        assert_eq!(desk.texts("SELECT CAST(count(*) AS text) FROM victim"), ["0"]);
    }
}

#[test]
fn the_same_key_under_two_names_is_one_key() {
    // Same bytes, different spellings: nothing would change, and a run that says so is better than one that does nothing.
    let desk = Desk::sqlite();
    let key = KeyMaterial::generate().unwrap();
    let hex: String = key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(key.expose());
    let pair = Pair::join("aes-gcm", (&key, None, hex), (&key, None, text));
    desk.table(Column::Bytes);
    desk.insert(Column::Bytes, 1, &[Some(seal(&*pair.old, b"x", b""))]);
    explains(&desk.on_t("rotate", &pair, &[]), 3, &[("error", "the same")]);
}

#[test]
fn a_new_key_that_repeats_a_pattern_is_refused_and_an_old_one_is_rotated_away_from() {
    let material = |bytes: &[u8]| KeyMaterial::import(bytes).unwrap();
    let text = |material: &KeyMaterial| String::from_utf8(KeyEncoding::Fernet.encode(material).to_vec()).unwrap();
    let poor = material(b"abcdefghijklmnopabcdefghijklmnop");
    let good = KeyMaterial::generate().unwrap();
    for desk in Desk::each() {
        let away = Pair::join("fernet", (&poor, None, text(&poor)), (&good, None, text(&good)));
        let back = Pair::join("fernet", (&good, None, text(&good)), (&poor, None, text(&poor)));
        desk.table(Column::Text);
        desk.insert(Column::Text, 1, &[Some(away.old_value(b"one", b""))]);
        desk.on_t("rotate", &away, &[]).expect(0);
        let rotated = desk.values(Column::Text);
        for command in ["plan", "rotate"] {
            explains(
                &desk.on_t(command, &back, &[]),
                4,
                &[
                    ("error", "a short pattern, repeated"),
                    ("where", "env:NEW"),
                    ("durable", "nothing was touched"),
                    ("next", "--accept weak-key"),
                ],
            );
        }
        assert_eq!(desk.values(Column::Text), rotated);
        desk.on_t("rotate", &back, &["--accept", "weak-key"]).expect(0);
        // What is there is looked at whatever its key.
        desk.on_t("verify", &back, &[]).expect(0);
    }
}
