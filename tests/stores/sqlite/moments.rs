//! Whether anything was written since a moment.

use reseal::store::page::Page;
use reseal::store::{Moment, PageEnd, Session, Sieve, Store};

use super::SqliteFixture;
use crate::stores::fixture::{Fixture, target};
use crate::stores::toy::{batch, rows, session, whole};

/// Rows that are read of what was written since, in the order of their pages.
async fn read_since(store: &dyn Store, session: &mut dyn Session, moment: &Moment) -> usize {
    let survey = store.survey(&target("t", &["c"], &[])).await.unwrap();
    let (interval, sieve) = (whole(&survey), Sieve::Since(moment.position));
    assert!(moment.has(&interval.relation));
    let (mut page, mut cursor, mut read) = (Page::to_look_at(session.shape()), None, 0);
    loop {
        let end = session
            .page_sifted(&sieve, &interval, cursor.as_ref(), rows(2), &mut page)
            .await
            .unwrap();
        read += page.len();
        cursor = page.len().checked_sub(1).map(|row| page.owned_key(row));
        if end == PageEnd::End {
            return read;
        }
    }
}

#[tokio::test]
async fn everything_is_read_again_as_soon_as_anybody_has_written_anything() {
    for fixture in [SqliteFixture::create().unwrap(), SqliteFixture::rollback_journal()] {
        fixture.run(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); CREATE TABLE other (n INTEGER); \
             INSERT INTO t VALUES (1, 'o:1'), (2, 'n:2'), (3, 'n:3')",
        );
        let store = fixture.store();
        let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
        let now = async || store.moment(&survey).await.unwrap().unwrap();
        let beginning = now().await;
        assert_eq!(read_since(&*store, &mut *session, &beginning).await, 0);
        assert_eq!(now().await, beginning, "nobody has written");

        // The run's own batches are writes like those of others.
        batch(&mut *session, &whole(&survey), None, rows(10), None, false)
            .await
            .unwrap();
        assert_eq!(read_since(&*store, &mut *session, &beginning).await, 3);

        for sql in [
            "UPDATE t SET c = 'o:3' WHERE id = 3",
            "INSERT INTO other VALUES (1)",
            "DELETE FROM t WHERE id = 1",
        ] {
            let moment = now().await;
            assert!(beginning.reaches(&moment));
            assert_eq!(read_since(&*store, &mut *session, &moment).await, 0, "before {sql}");
            let (writer, before) = (fixture.connect(), fixture.query("SELECT id FROM t").await.len());
            writer.execute_batch(&format!("BEGIN IMMEDIATE; {sql}")).unwrap();
            assert_eq!(read_since(&*store, &mut *session, &moment).await, 0, "{sql} is not committed");
            writer.execute_batch("ROLLBACK").unwrap();
            assert_eq!(read_since(&*store, &mut *session, &moment).await, 0, "{sql} never was");
            writer.execute_batch(sql).unwrap();
            let left = before - usize::from(sql.starts_with("DELETE"));
            assert_eq!(read_since(&*store, &mut *session, &moment).await, left, "{sql}");
            assert_eq!(
                read_since(&*store, &mut *session, &moment).await,
                left,
                "{sql}: it does not wear off"
            );
        }
    }
}
