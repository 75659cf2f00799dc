//! Rows whose new value the database refuses, by a constraint or a trigger: the row is isolated and left, the others go on.

use super::desk::{Column, Desk, Pair, plaintext};

fn filled(desk: &Desk, rows: i64) -> Pair {
    let pair = Pair::of("fernet");
    desk.table(Column::Text);
    let values: Vec<_> = (1..=rows).map(|id| Some(pair.old_value(&plaintext(id), b""))).collect();
    desk.insert(Column::Text, 1, &values);
    pair
}

/// A trigger that raises for rows that meet a condition, quoting them.
fn raising(desk: &Desk, condition: &str) {
    desk.execute(&if desk.is_postgres() {
        format!(
            "CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF {condition} THEN RAISE EXCEPTION 'raised for % and %', NEW.id, NEW.c; END IF; RETURN NEW; END $$;
             CREATE TRIGGER raising BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION raising()"
        )
    } else {
        format!(
            "CREATE TRIGGER raising BEFORE UPDATE ON t WHEN {condition} BEGIN SELECT RAISE(ABORT, 'raised for the row'); END"
        )
    });
}

#[test]
fn rows_that_a_trigger_refuses_are_isolated_and_the_rest_is_rotated() {
    for desk in Desk::each() {
        for state in [
            &["--accept", "trigger:raising"][..],
            &["--accept", "trigger:raising", "--no-state"],
        ] {
            desk.execute("DROP TABLE IF EXISTS t");
            if desk.is_postgres() {
                desk.execute("DROP FUNCTION IF EXISTS raising");
            }
            let pair = filled(&desk, 700);
            raising(&desk, "NEW.id IN (1, 333, 334, 700)");
            let before = desk.values(Column::Text);
            let run = desk.on_t("rotate", &pair, state);
            let found = run.expect(7).quarantined();
            assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 333, 334, 700]);
            let code = if desk.is_postgres() { "P0001" } else { "SQLITE 1811" };
            for reason in found.values() {
                assert_eq!(*reason, format!("the database refused the row with its new value ({code})"));
            }
            assert_eq!(run.json["values_reencrypted"], 696, "{}: {}", desk.name(), run.stdout);
            assert_eq!(run.json["not_current"].as_array().unwrap().len(), 0);
            assert!(
                run.json["sweeps"].as_u64().unwrap() <= 3,
                "what is refused is not swept for ever: {}",
                run.stdout
            );
            let after = desk.values(Column::Text);
            for id in 1..=700 {
                if found.contains_key(&id) {
                    assert_eq!(after[&id], before[&id]);
                } else {
                    assert_eq!(pair.open_new(after[&id].as_ref().unwrap(), b""), plaintext(id));
                }
            }
            // Mended, the same command finishes, and forgets the quarantine.
            desk.execute(if desk.is_postgres() {
                "DROP TRIGGER raising ON t"
            } else {
                "DROP TRIGGER raising"
            });
            let run = desk.on_t("rotate", &pair, state);
            assert_eq!(run.expect(0).json["quarantined_total"], 0);
            if state.len() == 2 {
                assert_eq!(desk.run(&["status"], &[]).json["rotations"][0]["quarantined"], 0);
                desk.execute(if desk.is_postgres() {
                    "DROP SCHEMA reseal CASCADE"
                } else {
                    "DELETE FROM reseal_range; DELETE FROM reseal_plan"
                });
            }
        }
    }
}

#[test]
fn a_check_constraint_that_only_the_old_value_meets_quarantines_its_row() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        let old = |id: i64| String::from_utf8(pair.old_value(&plaintext(id), b"")).unwrap();
        let kept = old(2);
        desk.execute(&format!(
            "CREATE TABLE t (id integer PRIMARY KEY, c text, CHECK (id <> 2 OR c = '{kept}'))"
        ));
        desk.execute(&format!(
            "INSERT INTO t VALUES (1, '{}'), (2, '{kept}'), (3, '{}')",
            old(1),
            old(3)
        ));
        let run = desk.on_t("rotate", &pair, &[]);
        let found = run.expect(7).quarantined();
        let code = if desk.is_postgres() { "23514" } else { "SQLITE 275" };
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(2, format!("the database refused the row with its new value ({code})"))]
        );
        assert_eq!(desk.values(Column::Text)[&2], Some(kept.into_bytes()));
        assert!(
            !run.stderr.contains("gAAAA") && !run.stdout.contains("gAAAA"),
            "{}{}",
            run.stderr,
            run.stdout
        );
    }
}

#[test]
fn a_refused_row_stops_the_run_when_unreadable_ones_do() {
    for desk in Desk::each() {
        let pair = filled(&desk, 20);
        raising(&desk, "NEW.id = 15");
        let run = desk.on_t("rotate", &pair, &["--accept", "trigger:raising", "--on-unreadable", "stop"]);
        let failed = run.expect(7).json["error"]["failed"].as_str().unwrap();
        assert!(failed.contains("row 15") && failed.contains("refused the row"), "{failed}");
    }
}

/// A rule of the schema and not of a row: no use in trying every row on its own.
#[test]
fn a_trigger_that_refuses_everything_ends_the_run() {
    for desk in Desk::each() {
        let pair = filled(&desk, 400);
        raising(&desk, "1 = 1");
        let before = desk.values(Column::Text);
        let run = desk.on_t("rotate", &pair, &["--accept", "trigger:raising"]);
        run.expect(5);
        let error = &run.json["error"];
        assert!(error["next"].as_str().unwrap().contains("trigger"), "{error}");
        assert!(
            !run.stderr.contains("gAAAA") && !run.stderr.contains("raised for"),
            "{}",
            run.stderr
        );
        assert_eq!(desk.values(Column::Text), before);
        desk.execute(if desk.is_postgres() {
            "DROP TRIGGER raising ON t"
        } else {
            "DROP TRIGGER raising"
        });
        desk.on_t("rotate", &pair, &[]).expect(0);
    }
}
