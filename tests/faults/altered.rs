//! The table is altered while a rotation is at work on it: it ends, says what is durable, and goes on when that is undone.

use crate::support::people::Home;
use crate::support::rotation::{Rotation, SLOWLY_ALONE};
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
