//! What a survey finds in a schema, and which tables cannot be rotated.

use std::collections::HashSet;

use reseal::store::StoreError;
use reseal::store::page::Page;
use reseal::store::survey::{ColumnClass, Observation, Survey};
use rusqlite::functions::FunctionFlags;

use super::SqliteFixture;
use crate::stores::fixture::{Fixture, target, texts};
use crate::stores::toy::{batch, read_numbers, rows, session, whole};

#[tokio::test]
async fn the_survey_tells_what_a_careful_operator_wants_to_know() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run(
        "CREATE TABLE parent (token TEXT PRIMARY KEY); \
         CREATE TABLE t (Id INTEGER PRIMARY KEY, c TEXT REFERENCES parent(token) CHECK (length(c) < 1000), d TEXT UNIQUE, \
                         len GENERATED ALWAYS AS (length(d)) VIRTUAL, plain TEXT); \
         CREATE INDEX by_expression ON t (lower(plain)); CREATE INDEX by_part ON t (Id) WHERE plain IS NOT NULL; \
         CREATE TRIGGER touched AFTER UPDATE OF plain ON t BEGIN SELECT 1; END; \
         CREATE TRIGGER inserted AFTER INSERT ON t BEGIN UPDATE t SET plain = NULL; END; \
         CREATE VIEW seen AS SELECT * FROM t; CREATE VIRTUAL TABLE search USING fts5(body)",
    );
    fixture.run("INSERT INTO t (c, d) VALUES (NULL, 'x'), (NULL, 'y')");
    let facts = |survey: &Survey, wanted: Observation| {
        assert!(
            survey.observations.contains(&wanted),
            "{wanted:?} is not in {:?}",
            survey.observations
        );
    };
    let index = |index: &str, column: &str, unique| Observation::IndexOnValue {
        index: index.to_owned(),
        column: column.to_owned(),
        unique,
    };
    let survey = fixture.survey(&["C", "D", "len", "PLAIN"]).await;
    assert_eq!(survey.server, format!("SQLite {}", rusqlite::version()));
    assert_eq!((survey.table.as_str(), survey.rows_estimate), ("t", 2));
    assert!(survey.bytes >= 4096);
    assert_eq!(
        (survey.key[0].name.as_str(), survey.key[0].class),
        ("Id", ColumnClass::Int(8))
    );
    assert_eq!(survey.values[3].name, "plain");
    facts(&survey, Observation::JournalMode("wal".to_owned()));
    facts(
        &survey,
        Observation::ForeignKeyOnValue("t.c refers to parent.token".to_owned()),
    );
    facts(&survey, Observation::CheckOnValue("c".to_owned()));
    facts(&survey, Observation::Generated("len".to_owned()));
    facts(&survey, index("sqlite_autoindex_t_1", "d", true));
    facts(&survey, index("by_expression", "plain", false));
    facts(&survey, index("by_part", "plain", false));
    facts(&survey, Observation::UpdateTrigger("touched".to_owned()));
    let triggers = survey
        .observations
        .iter()
        .filter(|fact| matches!(fact, Observation::UpdateTrigger(_)));
    assert_eq!(triggers.count(), 1);
    assert_eq!(
        fixture.survey(&["d"]).await.observations.len(),
        3,
        "journal mode, unique index, generated column"
    );

    for (name, column) in [
        ("seen", "c"),
        ("search", "body"),
        ("search_data", "block"),
        ("sqlite_schema", "sql"),
    ] {
        let survey = fixture.store().survey(&target(name, &[column], &[])).await.unwrap();
        let is_refused = survey
            .observations
            .iter()
            .any(|fact| matches!(fact, Observation::NotATable(_)));
        assert!(is_refused, "{name}: {:?}", survey.observations);
        assert!(fixture.store().session(&survey).await.is_err(), "{name}");
    }
    for columns in [["Id"].as_slice(), &["c", "C"]] {
        let error = fixture.store().survey(&target("t", columns, &[])).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_schema_that_only_its_application_can_write_is_reported() {
    let fixture = SqliteFixture::create().unwrap();
    let connection = fixture.connect();
    connection
        .create_scalar_function("app_only", 1, FunctionFlags::SQLITE_DETERMINISTIC, |_| Ok(1))
        .unwrap();
    connection
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); CREATE INDEX i ON t (app_only(c))")
        .unwrap();
    let survey = fixture.survey(&["c"]).await;
    let reported = survey
        .observations
        .iter()
        .any(|fact| matches!(fact, Observation::CannotUpdate(why) if why.contains("app_only")));
    assert!(reported, "{:?}", survey.observations);
}

#[tokio::test]
async fn tables_without_an_exact_key_are_refused() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (rowid, _rowid_, oid, c TEXT); INSERT INTO t VALUES (1, 2, 3, 'o:1')");
    let survey = fixture.survey(&["c"]).await;
    assert!(survey.observations.contains(&Observation::NoUsableKey("t".to_owned())));
    assert!(fixture.store().session(&survey).await.is_err());

    // Floating point in a key column that may hold anything: found by the first row that has it, before anything is written.
    fixture.run("DROP TABLE t; CREATE TABLE t (id NUMERIC PRIMARY KEY, c TEXT) WITHOUT ROWID");
    fixture.run("INSERT INTO t VALUES (1, 'o:1'), (1.5, 'o:2')");
    let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &[])).await;
    let mut page = Page::new(session.shape());
    let read = session.page(&whole(&survey), None, rows(10), &mut page).await;
    assert!(matches!(read, Err(StoreError::Refused(_))), "{read:?}");
    let written = batch(&mut *session, &whole(&survey), None, rows(10), None, false).await;
    assert!(matches!(written, Err(StoreError::Refused(_))), "{written:?}");
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["o:1", "o:2"]);
}

#[tokio::test]
async fn the_whole_range_of_rowids_is_divided_evenly() {
    let fixture = SqliteFixture::create().unwrap();
    fixture.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, c TEXT)");
    for (n, id) in [i64::MIN, -5, 0, 5, i64::MAX].iter().enumerate() {
        fixture
            .connect()
            .execute("INSERT INTO t VALUES (?1, ?2, 'o:x')", (id, n as i64))
            .unwrap();
    }
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &["n"])).await;
    for frozen in [true, false] {
        let intervals = store.intervals(&survey, 4, frozen).await.unwrap();
        assert_eq!(intervals.len(), 4);
        let distinct: HashSet<_> = intervals.iter().map(|interval| interval.upto.clone()).collect();
        assert_eq!(distinct.len(), 4);
        let mut found = Vec::new();
        for interval in &intervals {
            found.extend(read_numbers(&mut *session, interval, rows(1)).await);
        }
        assert_eq!(found, [0, 1, 2, 3, 4]);
    }
}
