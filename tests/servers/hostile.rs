//! Servers that end sessions and statements of their own accord, that hold rows which cannot be, and that lie.

use crate::support::liar::{Liar, Lie};
use crate::support::people::{Column, FernetKey, GAP, Home};
use crate::support::proxy::{ENDED_MAX, Proxy, Settings};
use crate::support::rotation::Rotation;

#[test]
fn heavy_a_server_that_ends_long_statements_gets_smaller_batches() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let values: u64 = home.fill(400, &old).iter().map(|(_, person)| person.values()).sum();
    home.database().unwrap().execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );
    let proxy = Proxy::imposing(home.url(), Settings::ShortStatements);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(proxy.url(home.url()));
    // 200 rows take a second; a statement may take 0.3 s.
    let done = rotation.complete(&["--workers", "1", "--batch-rows", "200", "--accept", "trigger:dawdle"]);
    assert_eq!(done.count("values_reencrypted"), values);
    let log = String::from_utf8_lossy(&home.database().unwrap().log()).into_owned();
    assert!(log.contains("canceling statement due to statement timeout"));
}

#[test]
fn heavy_a_server_that_ends_silent_transactions_undoes_them_whole_and_they_are_done_again() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(60, &old);
    let proxy = Proxy::imposing(home.url(), Settings::ShortPauses);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.complete(&[]);
    // Values that appear late are recorded in the transaction that seals them anew: the one with more than one statement.
    let mut live = home.connect();
    for row in [3, 30] {
        live.replace(row * GAP, Column::Email, Some(&old.seal("stale")));
    }
    rotation.url = Some(proxy.url(home.url()));
    let done = rotation.complete(&[]);
    assert_eq!(proxy.ended(), ENDED_MAX, "no transaction was caught in its silence");
    assert_eq!(done.count("late_values_total"), 2);
    let rows = live.snapshot().rows;
    for row in [3, 30] {
        let email = &rows.iter().find(|stored| stored.id == row * GAP).unwrap().email;
        assert_eq!(new.open(email).unwrap(), "stale");
    }
}

#[test]
fn what_no_sound_server_answers_ends_the_run_and_takes_no_memory() {
    for lie in [Lie::Endless, Lie::Oversize, Lie::Counts] {
        let Some(home) = Home::postgres() else { return };
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        let liar = Liar::before(home.url(), lie);
        let mut rotation = Rotation::new(&home, &old, &new);
        rotation.url = Some(liar.url(home.url()));
        let stopped = rotation.run(&["--workers", "1"]);
        assert_eq!(stopped.code, Some(9), "{lie:?}: {}", stopped.text());
        let failed = stopped.document["error"]["failed"].as_str().unwrap();
        assert!(failed.contains("cannot be true"), "{lie:?}: {failed}");
        assert!(liar.lies() > 0, "{lie:?}");
        rotation.url = None;
        rotation.complete(&[]);
    }
}

#[test]
fn a_server_whose_clock_is_set_makes_nobody_rest_for_hours() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(60, &old);
    let liar = Liar::before(home.url(), Lie::Clock);
    let mut rotation = Rotation::new(&home, &old, &new);
    rotation.url = Some(liar.url(home.url()));
    rotation.complete(&["--profile", "gentle"]);
    assert!(liar.lies() > 0);
}

#[test]
fn two_rows_of_one_key_are_found_wherever_a_page_ends() {
    // The first row of a page, the last, and one in between; pages have 20 rows.
    for twin in [1, 20, 21, 40, 55] {
        let Some(home) = Home::postgres() else { return };
        let (old, new) = (FernetKey::generate(), FernetKey::generate());
        home.fill(60, &old);
        // As after an update of the system's collations, or an import past a damaged index.
        home.database().unwrap().execute(&format!(
            "SET allow_system_table_mods = on;
             UPDATE pg_index SET indisunique = false WHERE indrelid = 'people'::regclass;
             INSERT INTO people SELECT * FROM people WHERE id = {id};
             UPDATE pg_index SET indisunique = true WHERE indrelid = 'people'::regclass",
            id = twin * GAP
        ));
        let rotation = Rotation::new(&home, &old, &new);
        let stopped = rotation.run(&["--workers", "1", "--batch-rows", "20"]);
        assert_eq!(stopped.code, Some(9), "{twin}: {}", stopped.text());
        let failed = stopped.document["error"]["failed"].as_str().unwrap();
        assert!(
            failed.contains(&format!("two rows of \"public\".\"people\" have the key {}", twin * GAP)),
            "{failed}"
        );
        let mut live = home.connect();
        for row in live.snapshot().rows {
            assert!(old.open(&row.email).or(new.open(&row.email)).is_some());
        }
        live.execute("DELETE FROM people a USING people b WHERE a.id = b.id AND a.ctid < b.ctid; REINDEX TABLE people");
        rotation.complete(&[]);
    }
}

#[test]
fn an_index_that_does_not_make_keys_unique_yet_is_no_key() {
    let Some(home) = Home::postgres() else { return };
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    home.fill(60, &old);
    let database = home.database().unwrap();
    database.execute("ALTER TABLE people DROP CONSTRAINT people_pkey; INSERT INTO people SELECT * FROM people WHERE id = 1000");
    // Its failure leaves an index that is there and not valid.
    let mut live = home.connect();
    let before = live.snapshot().rows;
    let index = "CREATE UNIQUE INDEX CONCURRENTLY people_id ON people (id)";
    assert!(database.try_execute(index).is_err());
    let refused = Rotation::new(&home, &old, &new).run(&[]);
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(refused.text().contains("rows cannot be told apart"), "{}", refused.text());
    assert!(live.snapshot().rows == before);
}
