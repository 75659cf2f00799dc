//! The file: what is opened, what is never made or changed, and the lock beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use reseal::store::page::Page;
use reseal::store::sqlite::SqliteStore;
use reseal::store::survey::Observation;
use reseal::store::{RetryClass, Store, StoreError};

use super::SqliteFixture;
use crate::stores::contract::fencing::claimed;
use crate::stores::fixture::{Fixture, target, texts};
use crate::stores::toy::{batch, rotate, rows, session, whole};

#[test]
fn a_database_that_does_not_exist_is_an_error_and_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["missing.db", "file:missing.db?mode=rwc", "missing/app.db"] {
        let error = SqliteStore::open(&directory.path().join(name)).err().unwrap();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    }
    assert!(SqliteStore::open(directory.path()).is_err());
    assert!(SqliteStore::open(Path::new("")).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    fs::write(&path, "not a database, but long enough to be looked at ".repeat(50)).unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_file_that_went_away_is_not_made_anew() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    let store = fixture.store();
    let survey = fixture.survey(&["c"]).await;
    fs::remove_file(fixture.path()).unwrap();
    assert!(store.session(&survey).await.is_err());
    assert!(store.control().await.is_err());
    assert!(!fixture.path().exists());
}

#[tokio::test]
async fn several_names_for_the_file_are_seen_and_links_are_followed() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    assert!(
        !fixture
            .survey(&["c"])
            .await
            .observations
            .contains(&Observation::SeveralNames(2))
    );
    let link = fixture.beside("link.db");
    std::os::unix::fs::symlink(fixture.path(), &link).unwrap();
    let through_link = SqliteStore::open(&link).unwrap();
    assert!(through_link.describe().ends_with("app.db"));
    fs::hard_link(fixture.path(), fixture.beside("second.db")).unwrap();
    let survey = through_link.survey(&target("t", &["c"], &[])).await.unwrap();
    assert!(survey.observations.contains(&Observation::SeveralNames(2)));
}

#[tokio::test]
async fn journal_mode_and_durability_stay_as_they_are() {
    for mode in ["wal", "delete", "truncate"] {
        let fixture = SqliteFixture::rollback_journal();
        fixture.connect().pragma_update(None, "journal_mode", mode).unwrap();
        fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
        let store = fixture.store();
        let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
        claimed(&*store, &survey).await;
        rotate(&mut *session, &whole(&survey), rows(10)).await;
        let persistent = if mode == "wal" { "wal" } else { "delete" };
        assert!(
            survey.observations.contains(&Observation::JournalMode(persistent.to_owned())),
            "{:?}",
            survey.observations
        );
        let now: String = fixture
            .connect()
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(now, persistent);
        assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:1"]);
    }
}

#[tokio::test]
async fn a_locked_database_asks_to_try_again() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = SqliteStore::open(&fixture.path())
        .unwrap()
        .busy_timeout(Duration::from_millis(20));
    let (survey, mut session) = session(&store, &target("t", &["c"], &[])).await;
    let other = fixture.connect();
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET c = 'o:app' WHERE id = 1")
        .unwrap();
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    let is_lock = matches!(
        error,
        StoreError::Retry {
            class: RetryClass::LockTimeout,
            ..
        }
    );
    assert!(is_lock, "{error:?}");
    // Reading goes on meanwhile.
    let mut page = Page::new(session.shape());
    session.page(&whole(&survey), None, rows(10), &mut page).await.unwrap();
    assert_eq!(page.value(0, 0).bytes, b"o:1");
    other.execute_batch("COMMIT").unwrap();
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:app"]);
}

#[tokio::test]
async fn a_reader_that_blocks_the_commit_leaves_nothing_half_done() {
    let fixture = SqliteFixture::rollback_journal();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1'), (2, 'o:2')");
    let store = SqliteStore::open(&fixture.path())
        .unwrap()
        .busy_timeout(Duration::from_millis(20));
    let (survey, mut session) = session(&store, &target("t", &["c"], &[])).await;
    let reader = fixture.connect();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    reader.execute_batch("COMMIT").unwrap();
    // Rolled back, so that the application can write at once.
    fixture.run("UPDATE t SET c = 'o:app' WHERE id = 2");
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:app"]);
}

#[tokio::test]
async fn a_cancelled_call_leaves_a_session_that_can_reconnect() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'o:1')");
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let other = fixture.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let interval = whole(&survey);
    let waiting = batch(&mut *session, &interval, None, rows(10), None, false);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    let error = batch(&mut *session, &interval, None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(error.wants_reconnect(), "{error:?}");
    other.execute_batch("COMMIT").unwrap();
    session.reconnect().await.unwrap();
    rotate(&mut *session, &interval, rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t").await, ["n:1"]);
}

#[tokio::test]
async fn the_lock_file_is_private_names_nobody_afterwards_and_follows_no_link() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)");
    let (store, survey) = (fixture.store(), fixture.survey(&["c"]).await);
    let path = fixture.beside("app.db-reseal-lock");
    let lock = store.lock(&survey, "ada@host", false).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ada@host");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // It stays: whoever removed it might remove that of another run, which has taken over at that moment.
    drop(lock);
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    // What a killed process leaves behind is a file without a lock.
    fs::write(&path, "a longer name of somebody who died").unwrap();
    let lock = store.lock(&survey, "ada@host", false).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ada@host");
    drop(lock);
    fs::remove_file(&path).unwrap();
    let victim = fixture.beside("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    assert!(store.lock(&survey, "ada@host", false).await.is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}
