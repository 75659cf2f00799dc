//! What was written since a moment and by whom, on PostgreSQL.

use std::sync::Arc;

use reseal::store::control::Interval;
use reseal::store::page::Page;
use reseal::store::{Moment, PageEnd, Session, Sieve, Store, Writer};
use sqlx::AssertSqlSafe;

use crate::stores::fixture::{Fixture, target};
use crate::stores::postgres::PostgresFixture;
use crate::stores::toy::{batch, rows, session, whole};
use crate::support;

async fn now(store: &dyn Store) -> Moment {
    let survey = store.survey(&target("t", &["c"], &[])).await.unwrap();
    store.moment(&survey).await.unwrap().unwrap()
}

/// The values of what was written since, in pages of two rows.
async fn written_since(store: &dyn Store, moment: &Moment) -> Vec<String> {
    let (survey, mut session) = session(store, &target("t", &["c"], &[])).await;
    let mut found = Vec::new();
    for interval in store.intervals(&survey, 3, false).await.unwrap() {
        found.extend(values(&mut *session, &interval, &Sieve::Since(moment.position)).await);
    }
    found
}

async fn values(session: &mut dyn Session, interval: &Interval, sieve: &Sieve) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    let mut page = Page::to_look_at(session.shape());
    loop {
        let end = session
            .page_sifted(sieve, interval, cursor.as_ref(), rows(2), &mut page)
            .await
            .unwrap();
        found.extend((0..page.len()).map(|row| String::from_utf8(page.value(row, 0).bytes.to_vec()).unwrap()));
        cursor = page.len().checked_sub(1).map(|row| page.owned_key(row));
        if end == PageEnd::End {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_what_becomes_visible_after_a_moment_was_written_since() {
    // On a server of its own: nobody else is in the middle of a transaction there.
    let Some(server) = support::private_postgres() else { return };
    let fixture = PostgresFixture::on(server.database()).await;
    fixture
        .execute("CREATE TABLE t (id int8 PRIMARY KEY, c text, other int8); INSERT INTO t SELECT n, 'old ' || n, 0 FROM generate_series(1, 400) n")
        .await;
    let store = fixture.store();
    // Whoever has written before the moment and commits after it was unseen then; so was what he wrote behind a savepoint.
    let mut slow = fixture.pool().begin().await.unwrap();
    for sql in [
        "UPDATE t SET c = 'slow' WHERE id = 200",
        "SAVEPOINT later",
        "UPDATE t SET c = 'slow savepoint' WHERE id = 201",
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *slow).await.unwrap();
    }
    fixture.execute("UPDATE t SET c = 'before' WHERE id = 100").await;
    let moment = now(&*store).await;
    assert_eq!(
        written_since(&*store, &moment).await,
        ["before"],
        "as young as the oldest that is under way"
    );
    slow.commit().await.unwrap();
    fixture
        .execute("INSERT INTO t VALUES (0, 'new', 0); UPDATE t SET other = 1 WHERE id = 300; DELETE FROM t WHERE id = 301; UPDATE t SET id = 1000 WHERE id = 302")
        .await;
    let expected = ["new", "before", "slow", "slow savepoint", "old 300", "old 302"];
    assert_eq!(written_since(&*store, &moment).await, expected);
    // Moving rows about does not make them younger, nor older.
    fixture.execute("VACUUM FULL t").await;
    assert_eq!(written_since(&*store, &moment).await, expected);
    let later = now(&*store).await;
    assert!(moment.reaches(&later));
    assert_eq!(written_since(&*store, &later).await, [""; 0]);
    fixture.execute("VACUUM FREEZE t").await;
    assert_eq!(written_since(&*store, &later).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_joins_was_not_there_at_the_moment() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (id int8 PRIMARY KEY, c text) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10);
             CREATE TABLE high (id int8 PRIMARY KEY, c text); INSERT INTO high VALUES (11, 'long ago')",
        )
        .await;
    let store = fixture.store();
    let before = now(&*store).await;
    fixture
        .execute("ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
        .await;
    let after = now(&*store).await;
    assert_eq!(written_since(&*store, &before).await, [""; 0], "its row is as old as it was");
    assert!(!before.reaches(&after));
    fixture.execute("ALTER TABLE t DETACH PARTITION high").await;
    assert!(before.reaches(&now(&*store).await));
}

fn transaction(session: &mut dyn Session) -> Option<u64> {
    match session.writer() {
        Writer::Set(writer) => writer.transaction(),
        Writer::InPlace(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_batches_have_written_and_nobody_since_is_passed_over() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute("CREATE TABLE t (id int8 PRIMARY KEY, c text, other int8); INSERT INTO t SELECT n, 'o:' || n, 0 FROM generate_series(1, 9) n; UPDATE t SET c = 'n:there before' WHERE id = 2")
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (all, mut own) = (whole(&survey), Vec::new());
    let mut cursor = None;
    for _ in ["rows 1 to 3", "rows 4 to 6"] {
        let batch = batch(&mut *session, &all, cursor.as_ref(), rows(3), None, false)
            .await
            .unwrap();
        own.push(transaction(&mut *session).unwrap() as u32);
        cursor = batch.cursor;
    }
    let left = ["n:there before", "o:7", "o:8", "o:9"];
    assert_eq!(values(&mut *session, &all, &Sieve::Except(own.as_slice().into())).await, left);
    assert_eq!(values(&mut *session, &all, &Sieve::Except(Arc::default())).await.len(), 9);
    fixture
        .execute(
            "UPDATE t SET c = 'o:late' WHERE id = 1; UPDATE t SET other = 1 WHERE id = 4; INSERT INTO t VALUES (0, 'o:new', 0)",
        )
        .await;
    fixture.execute("VACUUM FULL t").await;
    let others = ["o:new", "o:late", "n:there before", "n:4", "o:7", "o:8", "o:9"];
    assert_eq!(
        values(&mut *session, &all, &Sieve::Except(own.as_slice().into())).await,
        others
    );
    // Beside some thousands that are not met, too.
    own.extend(4_000_000_000..4_000_005_000);
    assert_eq!(values(&mut *session, &all, &Sieve::Except(own.into())).await, others);
}
