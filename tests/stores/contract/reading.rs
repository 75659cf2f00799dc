//! Pages, intervals, surveys: what is read, and what can be asked for.

use reseal::store::page::Page;
use reseal::store::survey::{Observation, Target};
use reseal::store::value::Kind;
use reseal::store::{PageEnd, PageLimits, StoreError};

use crate::stores::fixture::{Fixture, KeyTable, key_tables, target, texts};
use crate::stores::toy::{read_numbers, rotate, rows, session, whole};

async fn expected_order(fixture: &dyn Fixture, table: &KeyTable) -> Vec<i64> {
    let numbers = texts(fixture, &format!("SELECT n FROM t ORDER BY {}", table.order)).await;
    numbers.iter().map(|number| number.parse().unwrap()).collect()
}

pub async fn pages_visit_every_row_once_in_order(fixture: &dyn Fixture) {
    let store = fixture.store();
    for table in key_tables(fixture) {
        table.fill(fixture).await;
        let expected = expected_order(fixture, &table).await;
        let (survey, mut session) = session(&*store, &target("t", &["c"], &["n"])).await;
        for size in [1, 2, 7, 1000] {
            let found = read_numbers(&mut *session, &whole(&survey), rows(size)).await;
            assert_eq!(found, expected, "{}, pages of {size}", table.name);
        }
    }
}

pub async fn intervals_are_adjacent_and_cover_every_row(fixture: &dyn Fixture) {
    let store = fixture.store();
    for table in key_tables(fixture) {
        table.fill(fixture).await;
        let expected = expected_order(fixture, &table).await;
        let (survey, mut session) = session(&*store, &target("t", &["c"], &["n"])).await;
        for (pieces, frozen) in [(1, true), (1, false), (4, true), (4, false), (1000, true)] {
            let intervals = store.intervals(&survey, pieces, frozen).await.unwrap();
            let what = format!("{}, {pieces} pieces, frozen: {frozen}", table.name);
            assert_eq!(intervals[0].after, None, "{what}");
            for pair in intervals.windows(2) {
                assert_eq!(pair[0].upto, pair[1].after, "{what}");
            }
            assert_eq!(intervals.last().unwrap().upto.is_some(), frozen, "{what}");
            let mut found = Vec::new();
            for interval in &intervals {
                found.extend(read_numbers(&mut *session, interval, rows(3)).await);
            }
            assert_eq!(found, expected, "{what}");
        }
    }
}

pub async fn pages_end_after_the_row_that_passes_the_byte_cap(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    let hundred = "x".repeat(100);
    for id in 1..=10 {
        fixture.execute(&format!("INSERT INTO t VALUES ({id}, 'o:{hundred}')")).await;
    }
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let limits = PageLimits {
        bytes: 250,
        ..rows(1000)
    };
    let mut page = Page::new(session.shape());
    let end = session.page(&whole(&survey), None, limits, &mut page).await.unwrap();
    assert_eq!((page.len(), end), (3, PageEnd::More));
    // A single row larger than the cap still makes a page: otherwise nothing would ever move.
    let tiny = PageLimits { bytes: 1, ..rows(1000) };
    let end = session.page(&whole(&survey), None, tiny, &mut page).await.unwrap();
    assert_eq!((page.len(), end), (1, PageEnd::More));
}

pub async fn oversize_values_are_not_read(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT, d TEXT)"))
        .await;
    let (fits, large) = ("x".repeat(98), "x".repeat(99));
    fixture
        .execute(&format!(
            "INSERT INTO t VALUES (1, 'o:{fits}', NULL), (2, 'o:{large}', 'o:a'), (3, 'o:b', 'o:c')"
        ))
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c", "d"], &[])).await;
    let limits = PageLimits {
        value_bytes_max: 100,
        ..rows(1000)
    };
    let mut page = Page::new(session.shape());
    session.page(&whole(&survey), None, limits, &mut page).await.unwrap();
    assert_eq!(page.value(0, 0).kind, Kind::Text);
    assert_eq!(page.value(1, 0).oversize(), Some(101));
    assert_eq!(page.value(1, 1).bytes, b"o:a");

    let batches = rotate(&mut *session, &whole(&survey), limits).await;
    let reasons: Vec<&str> = batches
        .iter()
        .flat_map(|batch| &batch.quarantined)
        .map(|entry| &*entry.reason)
        .collect();
    assert_eq!(reasons, ["too large"]);
    assert_eq!(
        texts(fixture, "SELECT substr(c, 1, 2) FROM t ORDER BY id").await,
        ["n:", "o:", "n:"]
    );
    assert_eq!(texts(fixture, "SELECT d FROM t ORDER BY id").await, ["NULL", "n:a", "n:c"]);
}

pub async fn a_condition_restricts_rows(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!(
            "CREATE TABLE t (id {int} PRIMARY KEY, tenant {int}, n {int}, c TEXT)"
        ))
        .await;
    fixture.execute("CREATE INDEX by_tenant ON t (tenant)").await;
    fixture.execute(&format!("CREATE TABLE chosen (tenant {int})")).await;
    fixture.execute("INSERT INTO chosen VALUES (3)").await;
    for id in 1..=50 {
        fixture
            .execute(&format!("INSERT INTO t VALUES ({id}, {}, {id}, 'o:{id}')", id % 5))
            .await;
    }
    let store = fixture.store();
    let filtered = Target {
        filter: Some(
            // Correlated, so that a database may put it off as expensive.
            "EXISTS (SELECT 1 FROM chosen WHERE chosen.tenant = t.tenant) OR id IN (SELECT min(id) FROM t AS u WHERE u.c <> ')')"
                .to_owned(),
        ),
        ..target("t", &["c"], &["n"])
    };
    let (survey, mut session) = session(&*store, &filtered).await;
    let expected: Vec<i64> = (1..=50).filter(|id| id % 5 == 3 || *id == 1).collect();
    for size in [1, 4, 1000] {
        assert_eq!(
            read_numbers(&mut *session, &whole(&survey), rows(size)).await,
            expected,
            "pages of {size}"
        );
    }
    let batches = rotate(&mut *session, &whole(&survey), rows(4)).await;
    assert_eq!(
        batches.iter().map(|batch| batch.tally.rows).sum::<u64>(),
        expected.len() as u64
    );
    let changed = texts(fixture, "SELECT id FROM t WHERE c LIKE 'n:%' ORDER BY id").await;
    assert_eq!(changed, expected.iter().map(i64::to_string).collect::<Vec<_>>());
}

pub async fn conditions_cannot_escape(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    fixture.execute("INSERT INTO t VALUES (1, 'o:1')").await;
    let store = fixture.store();
    for hostile in [
        "1 = 1) OR (1 = 1",
        "1 = 1; DELETE FROM t",
        "1 = 1 --",
        "1 = 1 /*",
        "no_such_column = 1",
        "\"no_such_column\" = 'x'",
        "",
        "id =",
    ] {
        let filtered = Target {
            filter: Some(hostile.to_owned()),
            ..target("t", &["c"], &[])
        };
        let survey = store.survey(&filtered).await.unwrap();
        let refused = survey
            .observations
            .iter()
            .any(|fact| matches!(fact, Observation::BadFilter(_)));
        assert!(refused, "{hostile:?}: {:?}", survey.observations);
        // A caller that overlooks it gets no further.
        assert!(store.session(&survey).await.is_err(), "{hostile:?}");
    }
    assert_eq!(texts(fixture, "SELECT c FROM t").await, ["o:1"]);
}

pub async fn hostile_identifiers_are_only_names(fixture: &dyn Fixture) {
    let int = fixture.int();
    let names = [
        "select",
        "x\"; DROP TABLE victim; --",
        "tab le",
        "naïve日本",
        "a.b",
        "quo'te",
        "UPPER",
    ];
    fixture.execute(&format!("CREATE TABLE victim (id {int} PRIMARY KEY)")).await;
    let store = fixture.store();
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        fixture
            .execute(&format!(
                "CREATE TABLE {quoted} (\"order\" {int} PRIMARY KEY, {quoted} TEXT, \"from\" {int})"
            ))
            .await;
        fixture.execute(&format!("INSERT INTO {quoted} VALUES (1, 'o:1', 5)")).await;
        let (survey, mut session) = session(&*store, &target(name, &[name], &["from"])).await;
        assert_eq!(survey.values[0].name, name);
        assert_eq!(read_numbers(&mut *session, &whole(&survey), rows(10)).await, [5], "{name}");
        rotate(&mut *session, &whole(&survey), rows(10)).await;
        assert_eq!(
            texts(fixture, &format!("SELECT {quoted} FROM {quoted}")).await,
            ["n:1"],
            "{name}"
        );
        fixture.execute(&format!("DROP TABLE {quoted}")).await;
    }
    assert!(texts(fixture, "SELECT id FROM victim").await.is_empty());
    for name in ["victim\0", "vic\0tim"] {
        assert!(store.survey(&target(name, &["id"], &[])).await.is_err(), "{name:?}");
    }
}

pub async fn missing_tables_and_columns_are_refused(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    let store = fixture.store();
    for wrong in [
        target("no_such_table", &["c"], &[]),
        target("t", &["no_such_column"], &[]),
        target("t", &["c"], &["no_such_context"]),
    ] {
        let error = store.survey(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    }
    // A table that is dropped behind the survey is an error as well, and never an empty one.
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    fixture.execute("DROP TABLE t").await;
    let mut page = Page::new(session.shape());
    assert!(session.page(&whole(&survey), None, rows(10), &mut page).await.is_err());
    assert!(store.session(&survey).await.is_err());
}

pub async fn an_empty_table_ends_at_once(fixture: &dyn Fixture) {
    let int = fixture.int();
    fixture
        .execute(&format!("CREATE TABLE t (id {int} PRIMARY KEY, c TEXT)"))
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let batches = rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(batches.len(), 1);
    assert_eq!((batches[0].cursor.as_ref(), batches[0].tally.rows), (None, 0));
    for frozen in [true, false] {
        for interval in store.intervals(&survey, 4, frozen).await.unwrap() {
            assert_eq!(rotate(&mut *session, &interval, rows(10)).await.len(), 1);
        }
    }
}
