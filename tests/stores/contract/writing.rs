//! Swaps: what is written, what is left alone, and what happens when others write at the same time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use reseal::store::{PageEnd, PageLimits, StoreError, Writer};

use crate::stores::fixture::{Fixture, key_tables, target, texts};
use crate::stores::toy::{batch, batch_after, rotate, rows, session, whole};

async fn simple_table(fixture: &dyn Fixture, count: i64) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT, other TEXT)"))
        .await;
    for id in 1..=count {
        fixture
            .execute(&format!("INSERT INTO t VALUES ({id}, 'o:{id}', 'kept')"))
            .await;
    }
}

pub async fn every_kind_of_key_rotates(fixture: &dyn Fixture) {
    let store = fixture.store();
    for table in key_tables(fixture) {
        for size in [1, 7, 1000] {
            table.fill(fixture).await;
            let (survey, mut session) = session(&*store, &target("t", &["c"], &["n"])).await;
            let batches = rotate(&mut *session, &whole(&survey), rows(size)).await;
            let count = table.rows.len() as u64;
            let what = format!("{}, batches of {size}", table.name);
            assert_eq!(batches.iter().map(|batch| batch.tally.rows).sum::<u64>(), count, "{what}");
            assert_eq!(batches.iter().map(|batch| batch.written.rows).sum::<u64>(), count, "{what}");
            assert_eq!(batches.iter().map(|batch| batch.written.lost_races).sum::<u64>(), 0, "{what}");
            let found = texts(fixture, "SELECT c FROM t ORDER BY n").await;
            assert_eq!(found, (0..count).map(|n| format!("n:{n}")).collect::<Vec<_>>(), "{what}");
        }
    }
}

pub async fn several_columns_change_in_one_swap(fixture: &dyn Fixture) {
    let (int, bytes) = (fixture.int(), fixture.bytes());
    fixture
        .execute(&format!(
            "CREATE TABLE t (z {bytes}, a TEXT, id {int} PRIMARY KEY, other TEXT, m TEXT)"
        ))
        .await;
    let (old, new) = (fixture.bytes_literal(b"o:\x00\xff"), fixture.bytes_literal(b"n:\x00\xff"));
    fixture
        .execute(&format!(
            "INSERT INTO t (id, m, a, z, other) VALUES (1, 'o:m1', 'o:a1', {old}, 'x'), (2, NULL, 'o:a2', NULL, NULL), \
             (3, 'o:m3', 'n:a3', {old}, ''), (4, 'n:m4', 'n:a4', {new}, 'x'), (5, NULL, NULL, NULL, 'x')"
        ))
        .await;
    let store = fixture.store();
    // Not the order of the table's columns.
    let (survey, mut session) = session(&*store, &target("t", &["m", "z", "a"], &["other"])).await;
    let batches = rotate(&mut *session, &whole(&survey), rows(1000)).await;
    let batch = &batches[0];
    assert_eq!((batch.written.rows, batch.written.values), (3, 6));
    assert_eq!((batch.tally.due, batch.tally.current, batch.tally.nulls), (6, 4, 5));
    assert_eq!(
        texts(fixture, "SELECT m FROM t ORDER BY id").await,
        ["n:m1", "NULL", "n:m3", "n:m4", "NULL"]
    );
    assert_eq!(
        texts(fixture, "SELECT a FROM t ORDER BY id").await,
        ["n:a1", "n:a2", "n:a3", "n:a4", "NULL"]
    );
    assert_eq!(
        texts(fixture, "SELECT other FROM t ORDER BY id").await,
        ["x", "NULL", "", "x", "x"]
    );
    let same = texts(fixture, &format!("SELECT id FROM t WHERE z = {new} ORDER BY id")).await;
    assert_eq!(same, ["1", "3", "4"]);
}

pub async fn values_that_are_not_due_are_not_written(fixture: &dyn Fixture) {
    simple_table(fixture, 20).await;
    fixture.execute("UPDATE t SET c = 'n:done' WHERE id % 2 = 0").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let first = rotate(&mut *session, &whole(&survey), rows(7)).await;
    assert_eq!(first.iter().map(|batch| batch.written.rows).sum::<u64>(), 10);
    let again = rotate(&mut *session, &whole(&survey), rows(7)).await;
    assert_eq!(again.iter().map(|batch| batch.written.rows).sum::<u64>(), 0);
    assert_eq!(again.iter().map(|batch| batch.tally.current).sum::<u64>(), 20);
}

pub async fn what_cannot_be_opened_stays_and_is_quarantined_once(fixture: &dyn Fixture) {
    use crate::stores::contract::fencing::{claimed, fence};
    simple_table(fixture, 5).await;
    fixture.execute("UPDATE t SET c = 'plain' WHERE id = 2").await;
    fixture.execute("UPDATE t SET c = '' WHERE id = 4").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let range = control.ranges(&plan.identity.id).await.unwrap().remove(0);
    for advance in [true, false, false] {
        batch(&mut *session, &range.interval, None, rows(100), Some(&fence(&range)), advance)
            .await
            .unwrap();
    }
    let stored = control.quarantine(&plan.identity.id, usize::MAX).await.unwrap();
    let found: Vec<(String, usize, &str)> = stored
        .iter()
        .map(|stored| {
            let key = stored.entry.key.cells().next().unwrap().to_text();
            (key, stored.entry.column, &*stored.entry.reason)
        })
        .collect();
    let reason = "not a toy value";
    assert_eq!(found, [("2".to_owned(), 0, reason), ("4".to_owned(), 0, reason)]);
    assert!(stored.iter().all(|stored| stored.relation == survey.relations[0].sql_name));
    assert_eq!(
        texts(fixture, "SELECT c FROM t ORDER BY id").await,
        ["n:1", "plain", "n:3", "", "n:5"]
    );
}

pub async fn an_application_write_between_read_and_swap_survives(fixture: &dyn Fixture) {
    simple_table(fixture, 5).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let interfere = async || fixture.execute("UPDATE t SET c = 'o:app' WHERE id = 3").await;
    let done = batch_after(&mut *session, &whole(&survey), None, rows(100), None, false, interfere)
        .await
        .unwrap();
    let found = texts(fixture, "SELECT c FROM t ORDER BY id").await;
    if matches!(session.writer(), Writer::InPlace(_)) {
        assert_eq!(done.written.lost_races, 0);
        assert_eq!(found, ["n:1", "n:2", "n:app", "n:4", "n:5"]);
    } else {
        assert_eq!((done.written.lost_races, done.written.rows), (1, 4));
        assert_eq!(found, ["n:1", "n:2", "o:app", "n:4", "n:5"]);
    }
}

pub async fn a_deleted_row_stays_deleted(fixture: &dyn Fixture) {
    simple_table(fixture, 4).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let interfere = async || fixture.execute("DELETE FROM t WHERE id = 2").await;
    let done = batch_after(&mut *session, &whole(&survey), None, rows(100), None, false, interfere)
        .await
        .unwrap();
    assert_eq!(done.written.rows, 3);
    assert_eq!(texts(fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:3", "n:4"]);
}

pub async fn a_row_whose_key_changed_is_not_mistaken(fixture: &dyn Fixture) {
    simple_table(fixture, 4).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    // Row 2 becomes row 20, and another row takes its place.
    let interfere = async || {
        fixture.execute("UPDATE t SET id = 20 WHERE id = 2").await;
        fixture.execute("INSERT INTO t VALUES (2, 'o:stranger', 'new')").await;
    };
    let done = batch_after(&mut *session, &whole(&survey), None, rows(3), None, false, interfere)
        .await
        .unwrap();
    let found = texts(fixture, "SELECT c FROM t ORDER BY id").await;
    if matches!(session.writer(), Writer::InPlace(_)) {
        assert_eq!(found, ["n:1", "n:stranger", "n:3", "o:4", "o:2"]);
    } else {
        assert_eq!((done.written.rows, done.written.lost_races), (2, 1));
        assert_eq!(found, ["n:1", "o:stranger", "n:3", "o:4", "o:2"]);
    }
}

pub async fn a_failure_inside_a_batch_rolls_everything_back(fixture: &dyn Fixture) {
    use crate::stores::contract::fencing::{claimed, fence};
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT CHECK (c <> 'n:7'))"))
        .await;
    for id in 1..=10 {
        fixture.execute(&format!("INSERT INTO t VALUES ({id}, 'o:{id}')")).await;
    }
    fixture.execute("UPDATE t SET c = 'plain' WHERE id = 2").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let before = control.ranges(&plan.identity.id).await.unwrap().remove(0);
    let error = batch(&mut *session, &before.interval, None, rows(100), Some(&fence(&before)), true)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Row { .. }), "{error:?}");
    let after = control.ranges(&plan.identity.id).await.unwrap().remove(0);
    assert_eq!(
        (&after.cursor, after.done, after.counters),
        (&before.cursor, before.done, before.counters)
    );
    assert!(control.quarantine(&plan.identity.id, usize::MAX).await.unwrap().is_empty());
    assert_eq!(texts(fixture, "SELECT count(*) FROM t WHERE c LIKE 'n:%'").await, ["0"]);
    // The connection is as good as before.
    let small = batch(&mut *session, &after.interval, None, rows(5), Some(&fence(&after)), true)
        .await
        .unwrap();
    assert_eq!((small.written.rows, small.end), (4, PageEnd::More));
}

pub async fn a_rewriter_that_stops_leaves_nothing_behind(fixture: &dyn Fixture) {
    simple_table(fixture, 6).await;
    fixture.execute("UPDATE t SET c = 'stop' WHERE id = 5").await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let error = batch(&mut *session, &whole(&survey), None, rows(100), None, false)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Rewriter), "{error:?}");
    assert_eq!(
        texts(fixture, "SELECT c FROM t ORDER BY id").await,
        ["o:1", "o:2", "o:3", "o:4", "stop", "o:6"]
    );
    fixture.execute("UPDATE t SET c = 'o:5' WHERE id = 5").await;
    rotate(&mut *session, &whole(&survey), rows(100)).await;
    assert_eq!(texts(fixture, "SELECT count(*) FROM t WHERE c LIKE 'n:%'").await, ["6"]);
}

pub async fn batches_respect_the_byte_cap(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    // Narrow rows first, so that a store that adapts to them meets wide ones unprepared.
    for id in 1..=60 {
        let size = if id <= 30 { 1 } else { 100 };
        fixture
            .execute(&format!("INSERT INTO t VALUES ({id}, 'o:{}')", "x".repeat(size)))
            .await;
    }
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let limits = PageLimits { bytes: 500, ..rows(10) };
    let batches = rotate(&mut *session, &whole(&survey), limits).await;
    assert_eq!(batches.iter().map(|batch| batch.tally.rows).sum::<u64>(), 60);
    assert_eq!(batches.iter().map(|batch| batch.written.rows).sum::<u64>(), 60);
    // The row that passes the cap is the last one: five of them do.
    assert!(batches.iter().all(|batch| batch.tally.rows <= 10));
    assert!(batches[4..].iter().all(|batch| batch.tally.rows <= 5), "{batches:?}");
    assert_eq!(texts(fixture, "SELECT count(*) FROM t WHERE c LIKE 'n:%'").await, ["60"]);
}

pub async fn a_concurrent_writer_loses_nothing(fixture: &dyn Fixture) {
    const ROWS: i64 = 200;
    simple_table(fixture, ROWS).await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let interval = whole(&survey);
    let stop = AtomicBool::new(false);
    // What the application believes each row to hold.
    let application = async {
        let mut model: HashMap<i64, Option<String>> = (1..=ROWS).map(|id| (id, Some(id.to_string()))).collect();
        let mut step = 0_i64;
        while !stop.load(Ordering::Relaxed) || step < 50 {
            step += 1;
            let id = step * 37 % ROWS + 1;
            if step % 9 == 0 {
                fixture.execute(&format!("DELETE FROM t WHERE id = {id}")).await;
                model.insert(id, None);
            } else if model[&id].is_some() {
                // Writers of both keys.
                let prefix = if step % 2 == 0 { "o" } else { "n" };
                fixture
                    .execute(&format!("UPDATE t SET c = '{prefix}:app{step}' WHERE id = {id}"))
                    .await;
                model.insert(id, Some(format!("app{step}")));
            }
        }
        model
    };
    let rotation = async {
        for _ in 0..5 {
            let mut cursor = None;
            loop {
                match batch(&mut *session, &interval, cursor.as_ref(), rows(9), None, false).await {
                    Ok(done) => {
                        cursor = done.cursor.or(cursor);
                        if done.end == PageEnd::End {
                            break;
                        }
                    }
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (model, ()) = tokio::join!(application, rotation);
    rotate(&mut *session, &interval, rows(9)).await;
    let expected: Vec<String> = (1..=ROWS)
        .filter_map(|id| model[&id].as_ref().map(|text| format!("n:{text}")))
        .collect();
    assert_eq!(texts(fixture, "SELECT c FROM t ORDER BY id").await, expected);
}
