//! The table is altered while a rotation is at work on it: it ends, says what is durable, and goes on when that is undone.

use crate::support::people::{GAP, Home};
use crate::support::rotation::{Rotation, SLOWLY_ALONE, wait_until};
use std::mem::discriminant;

use rustix::process::Signal;

use crate::{PEOPLE, Scene};

/// Begins, alters the table, undoes it: in between the run ends as incomplete, and the next one completes it.
fn altered(home: &Home, url: Option<String>, alter: &str, undo: &str) {
    let mut scene = Scene::new(home, PEOPLE);
    let rotation = Rotation {
        url,
        ..scene.rotation(home)
    };
    let running = rotation.start_and_get_going(SLOWLY_ALONE);
    scene.live.execute(alter);
    let ended = running.wait();
    scene.live.execute(undo);
    assert_eq!(ended.code, Some(5), "{alter}: {}", ended.text());
    assert!(ended.count("values_reencrypted") > 0, "{}", ended.text());
    let error = &ended.document["error"];
    for (part, said) in [
        ("durable", "every batch that was committed"),
        ("next", "run the same command again"),
    ] {
        assert!(
            error[part].as_str().is_some_and(|text| text.contains(said)),
            "{part}: {error}"
        );
    }
    let last = scene.rotation(home).complete(&[]);
    scene.assert_complete(&last);
}

#[test]
fn heavy_a_table_or_column_renamed_under_a_rotation_of_sqlite_leaves_it_incomplete() {
    for (alter, undo) in [
        ("ALTER TABLE people RENAME TO persons", "ALTER TABLE persons RENAME TO people"),
        (
            "ALTER TABLE people RENAME COLUMN note TO remark",
            "ALTER TABLE people RENAME COLUMN remark TO note",
        ),
    ] {
        altered(&Home::sqlite("wal"), None, alter, undo);
    }
}

#[test]
fn heavy_a_column_renamed_under_a_rotation_of_postgres_leaves_it_incomplete() {
    let Some(home) = Home::postgres() else { return };
    altered(
        &home,
        None,
        "ALTER TABLE people RENAME COLUMN note TO remark",
        "ALTER TABLE people RENAME COLUMN remark TO note",
    );
}

#[test]
fn heavy_a_permission_revoked_under_a_rotation_of_postgres_leaves_it_incomplete() {
    let Some(home) = Home::postgres() else { return };
    let database = home.database().unwrap();
    let role = format!("clerk_{}", std::process::id());
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'clerk'; GRANT SELECT, UPDATE ON people TO {role};
         GRANT USAGE, CREATE ON SCHEMA public TO {role};
         DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$"
    ));
    let mut url = url::Url::parse(home.url()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("clerk")).unwrap();
    altered(
        &home,
        Some(url.into()),
        &format!("REVOKE UPDATE ON people FROM {role}"),
        &format!("GRANT UPDATE ON people TO {role}"),
    );
    database.execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
}

#[test]
fn heavy_a_rotation_that_ends_early_tells_what_it_knows() {
    let home = Home::sqlite("wal");
    let mut scene = Scene::new(&home, PEOPLE);
    scene.live.execute(&format!(
        "UPDATE people SET email = 'gAAAAA' || substr(email, 9) WHERE id = {GAP}"
    ));
    let rotation = scene.rotation(&home);
    let running = rotation.start_and_get_going(SLOWLY_ALONE);
    let mut live = home.connect();
    wait_until("there are NULLs among what is done", || live.rows_moved() >= 40);
    running.signal(Signal::TERM);
    let ended = running.wait();
    assert_eq!(ended.code, Some(5), "{}", ended.text());
    let entry = &ended.document["quarantined"][0];
    assert_eq!(
        (&entry["table"], &entry["column"], &entry["primary_key"]["id"]),
        (&"people".into(), &"email".into(), &GAP.into()),
        "{}",
        ended.text()
    );
    assert_eq!(
        (ended.count("quarantined_total"), &ended.document["census"]["unreadable"]),
        (1, &1.into())
    );
    assert!(ended.count("values_null") > 0, "{}", ended.text());
    assert!(ended.document["rows_per_second"].as_f64() > Some(0.0), "{}", ended.text());
    // What a run that ends in its own time says, one that does not says by the same names and in the same shapes.
    let whole = rotation.run(&[]);
    assert_eq!(whole.code, Some(7), "{}", whole.text());
    for (name, value) in whole.document.as_object().unwrap() {
        let kept = ["schema", "table", "plan", "sweeps", "findings", "nested", "nested_total"];
        let is_told = discriminant(&ended.document[name]) == discriminant(value);
        assert!(
            is_told || kept.contains(&name.as_str()) || name.starts_with("late"),
            "{name}: {}",
            ended.text()
        );
    }
}

#[test]
fn a_table_or_column_that_is_missing_before_the_first_write_touched_nothing() {
    for home in [Some(Home::sqlite("wal")), Home::postgres()].into_iter().flatten() {
        let scene = Scene::new(&home, 3);
        home.connect().execute("ALTER TABLE people RENAME COLUMN note TO remark");
        let column = scene.rotation(&home).run(&[]);
        home.connect().execute("ALTER TABLE people RENAME TO persons");
        let table = scene.rotation(&home).run(&[]);
        for refused in [column, table] {
            assert_eq!(refused.code, Some(4), "{}", refused.text());
            assert_eq!(
                refused.document["error"]["durable"],
                "nothing was touched",
                "{}",
                refused.text()
            );
        }
    }
}
