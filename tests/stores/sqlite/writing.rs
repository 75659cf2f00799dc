//! In-place writing: classes of values, triggers, large values, and statements that fail.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reseal::store::page::{Page, Swaps};
use reseal::store::survey::{Observation, Survey};
use reseal::store::value::Kind;
use reseal::store::{PageEnd, PageLimits, RewriteStopped, Rewriter, StoreError, Writer};

use super::SqliteFixture;
use crate::stores::contract::fencing::{claimed, fence};
use crate::stores::fixture::{Fixture, target, texts};
use crate::stores::toy::{Toy, batch, rotate, rows, session, whole};

#[tokio::test]
async fn the_class_of_each_value_is_kept() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c); \
         INSERT INTO t VALUES (1, 'o:text'), (2, CAST('o:blob' AS BLOB)), (3, 42), (4, 1.5), (5, NULL), (6, x'00'), (7, zeroblob(3))",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let mut page = Page::new(session.shape());
    session.page(&whole(&survey), None, rows(10), &mut page).await.unwrap();
    let kinds: Vec<Kind> = (0..7).map(|row| page.value(row, 0).kind).collect();
    use Kind::{Bytes, Null, Other, Text};
    assert_eq!(kinds, [Text, Bytes, Other, Other, Null, Bytes, Bytes]);
    let batches = rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(batches[0].quarantined.len(), 4);
    let found = texts(&fixture, "SELECT typeof(c) || ' ' || quote(c) FROM t ORDER BY id").await;
    let expected = [
        "text 'n:text'",
        "blob X'6E3A626C6F62'",
        "integer 42",
        "real 1.5",
        "null NULL",
        "blob X'00'",
        "blob X'000000'",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn values_above_sqlites_own_limit_are_passed_by() {
    let fixture = SqliteFixture::create().unwrap();
    // Above the 16 MiB that the session lets SQLite load, in an encrypted column and in one beside it.
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c, d, beside); \
         INSERT INTO t VALUES (1, 'o:1', 'o:1', NULL), (2, zeroblob(20000000), 'o:2', NULL), (3, 'o:3', 3, zeroblob(20000000)), \
                              (4, 'o:4', NULL, NULL)",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &[])).await;
    let limits = PageLimits {
        value_bytes_max: 100,
        ..rows(1000)
    };
    let mut page = Page::new(session.shape());
    let end = session.page(&whole(&survey), None, limits, &mut page).await.unwrap();
    assert_eq!((page.len(), end), (4, PageEnd::End));
    assert_eq!(page.value(1, 0).oversize(), Some(20_000_000));
    assert_eq!((page.value(2, 1).kind, page.value(3, 1).kind), (Kind::Other, Kind::Null));
    let (survey, mut session) = session_again(&fixture).await;
    let batches = rotate(&mut *session, &whole(&survey), limits).await;
    assert_eq!(batches.iter().map(|batch| batch.tally.rows).sum::<u64>(), 4);
    let found = texts(
        &fixture,
        "SELECT substr(c, 1, 3) || '|' || coalesce(d, '') FROM t ORDER BY id",
    )
    .await;
    assert_eq!(found, ["n:1|n:1", "\0\0\0|n:2", "n:3|3", "n:4|"]);
}

async fn session_again(fixture: &SqliteFixture) -> (Survey, Box<dyn reseal::store::Session>) {
    session(&*fixture.store(), &target("t", &["c", "d"], &[])).await
}

#[tokio::test]
async fn a_trigger_that_writes_other_rows_is_not_overwritten() {
    let fixture = SqliteFixture::create().unwrap();
    // Updating row 1 makes the application's trigger write row 3, after row 3 was judged and before it is updated.
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); \
         INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'), (3, 'o:3'), (4, 'o:4'); \
         CREATE TRIGGER cascade AFTER UPDATE ON t WHEN new.id = 1 BEGIN \
             UPDATE t SET c = 'o:trigger' WHERE id = 3; DELETE FROM t WHERE id = 4; END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    assert!(
        survey
            .observations
            .contains(&Observation::UpdateTrigger("cascade".to_owned()))
    );
    let done = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap();
    assert_eq!(
        texts(&fixture, "SELECT c FROM t ORDER BY id").await,
        ["n:1", "n:2", "o:trigger"]
    );
    assert_eq!((done.written.rows, done.written.lost_races), (2, 2));
}

#[tokio::test]
async fn rows_that_a_trigger_skips_are_not_counted() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); \
         INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'), (3, 'o:3'); \
         CREATE TRIGGER guard BEFORE UPDATE ON t WHEN old.id = 2 BEGIN SELECT raise(IGNORE); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let done = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap();
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "o:2", "n:3"]);
    assert_eq!((done.written.rows, done.written.lost_races), (2, 1));
}

#[tokio::test]
async fn nothing_due_writes_nothing_but_the_range() {
    let fixture = SqliteFixture::rollback_journal();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT, d TEXT); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         INSERT INTO t SELECT i, 'n:' || i, CASE WHEN i = 7 THEN 'plain' END FROM n",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &[])).await;
    let (mut control, _) = claimed(&*store, &survey).await;
    let range = control.ranges("plan").await.unwrap().remove(0);
    let run = async |session: &mut dyn reseal::store::Session, advance| {
        let before = fs::read(fixture.path()).unwrap();
        batch(session, &range.interval, None, rows(5000), Some(&fence(&range)), advance)
            .await
            .unwrap();
        let after = fs::read(fixture.path()).unwrap();
        assert_eq!(before.len(), after.len());
        let changed = before
            .chunks(4096)
            .zip(after.chunks(4096))
            .filter(|(before, after)| before != after);
        changed.count()
    };
    // The first batch records row 7 in quarantine: three pages with the file's change counter. The second only moves the range.
    assert_eq!(run(&mut *session, true).await, 3);
    assert_eq!(run(&mut *session, true).await, 2);
    assert_eq!(run(&mut *session, false).await, 0);
}

#[tokio::test]
async fn a_transaction_that_sqlite_itself_rolled_back_is_over() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2'); \
         CREATE TRIGGER refuse AFTER UPDATE ON t WHEN new.id = 2 BEGIN SELECT raise(ROLLBACK, 'not now'); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Row { .. }), "{error:?}");
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["o:1", "o:2"]);
    fixture.run("DROP TRIGGER refuse");
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:2"]);
}

#[tokio::test]
async fn a_panicking_rewriter_writes_nothing_and_comes_back() {
    struct Panics;
    impl reseal::store::Rewriter for Panics {
        fn rewrite(&mut self, _: &Page, _: &mut reseal::store::page::Swaps) -> Result<(), reseal::store::RewriteStopped> {
            panic!("a bug in the rewriter");
        }
    }
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let reseal::store::Writer::InPlace(writer) = session.writer() else {
        panic!("SQLite writes in place");
    };
    let (_, swaps, result) = writer
        .rewrite_and_advance(&whole(&survey), None, rows(10), Box::new(Panics), None, false)
        .await;
    assert!(matches!(result, Err(StoreError::Rewriter)), "{result:?}");
    assert_eq!(swaps.tally.rows, 0);
    let (_, _, result) = writer
        .rewrite_and_advance(&whole(&survey), None, rows(10), Box::new(Toy), None, false)
        .await;
    assert_eq!(result.unwrap().written.rows, 1);
}

/// The toy, counting the rows that it is shown. One that withholds does not judge rows by themselves.
struct Counted {
    rows: Arc<AtomicUsize>,
    withholds: bool,
}

impl Rewriter for Counted {
    fn rewrite(&mut self, page: &Page, swaps: &mut Swaps) -> Result<(), RewriteStopped> {
        self.rows.fetch_add(page.len(), Ordering::SeqCst);
        if self.withholds {
            swaps.tally.rows += page.len() as u64;
            return Ok(());
        }
        Toy.rewrite(page, swaps)
    }

    fn judges_rows_alone(&self) -> bool {
        !self.withholds
    }
}

#[tokio::test]
async fn rows_that_were_read_ahead_are_judged_again_only_where_they_changed_or_must_be_withheld() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    for id in 1..=12 {
        fixture.run(&format!("INSERT INTO t VALUES ({id}, 'o:{id}')"));
    }
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let (mut control, plan) = claimed(&*store, &survey).await;
    let range = control.ranges(&plan.identity.id).await.unwrap().remove(0);
    let Writer::InPlace(writer) = session.writer() else {
        panic!("SQLite writes in place");
    };
    let (ahead, inside) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = |rows: &Arc<AtomicUsize>, withholds| {
        Box::new(Counted {
            rows: Arc::clone(rows),
            withholds,
        })
    };
    writer.read_ahead(counted(&ahead, false));
    let mut cursor = None;
    let mut judged_inside = Vec::new();
    for withholds in [false, false, true, false] {
        let (_, _, done) = writer
            .rewrite_and_advance(
                &range.interval,
                cursor.as_ref(),
                rows(3),
                counted(&inside, withholds),
                Some(&fence(&range)),
                true,
            )
            .await;
        cursor = done.unwrap().cursor;
        judged_inside.push(inside.swap(0, Ordering::SeqCst));
        if judged_inside.len() == 1 {
            // The next page was begun with before this, or is after it: either way the row is what it is now.
            fixture.run("UPDATE t SET c = 'o:changed' WHERE id = 5");
        }
    }
    let found = texts(&fixture, "SELECT c FROM t ORDER BY id").await;
    let expected = [
        "n:1",
        "n:2",
        "n:3",
        "n:4",
        "n:changed",
        "n:6",
        "o:7",
        "o:8",
        "o:9",
        "n:10",
        "n:11",
        "n:12",
    ];
    assert_eq!(found, expected);
    if std::thread::available_parallelism().unwrap().get() == 1 {
        assert_eq!(judged_inside, [3, 3, 3, 3], "nobody reads ahead");
        return;
    }
    assert!(
        judged_inside[1] <= 1,
        "rows that nobody changed were judged once: {judged_inside:?}"
    );
    assert_eq!(
        (judged_inside[0], judged_inside[2]),
        (3, 3),
        "the first page, and what is withheld"
    );
    assert!(ahead.load(Ordering::SeqCst) >= 6);
}

#[tokio::test]
async fn the_functions_cannot_be_called_by_the_schema() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'); \
         CREATE TRIGGER evil AFTER UPDATE ON t BEGIN SELECT reseal_new(0, new.c, new.id); END",
    );
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    assert!(
        batch(&mut *session, &whole(&survey), None, rows(10), None, false)
            .await
            .is_err()
    );
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["o:1"]);
}

#[tokio::test]
async fn a_column_dropped_behind_the_session_is_an_error_and_no_text() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT, d TEXT); INSERT INTO t VALUES (1, 'o:1', 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &["d"])).await;
    fixture.run("ALTER TABLE t DROP COLUMN d");
    let mut page = Page::new(session.shape());
    let read = session.page(&whole(&survey), None, rows(10), &mut page).await;
    assert!(matches!(read, Err(StoreError::Refused(_))), "{read:?}");
    assert!(
        batch(&mut *session, &whole(&survey), None, rows(10), None, false)
            .await
            .is_err()
    );
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["o:1"]);
}
