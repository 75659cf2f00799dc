//! PostgreSQL: its fixture, and what only PostgreSQL has.

use async_trait::async_trait;
use reseal::store::control::Interval;
use reseal::store::postgres::PostgresStore;
use reseal::store::survey::{ColumnClass, Observation, Survey};
use reseal::store::value::{Cell, Key, Kind};
use reseal::store::{PageEnd, Store, StoreError};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};

use crate::stores::contract::fencing::{claimed, fence};
use crate::stores::fixture::{Fixture, KeyTable, target, texts};
use crate::stores::toy::{batch, batch_after, rotate, rows, session, whole};
use crate::support::{self, Database};

/// An empty database on the tests' server.
pub struct PostgresFixture {
    pool: PgPool,
    database: Database,
}

impl PostgresFixture {
    pub async fn create() -> Option<Self> {
        Some(Self::on(support::postgres()?).await)
    }

    pub async fn on(database: Database) -> Self {
        let fixture = Self {
            pool: database.pool(4),
            database,
        };
        fixture
            .execute(
                "CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                 CREATE TYPE mood AS ENUM ('zen', 'angry', 'Äußerst', 'a b');
                 CREATE DOMAIN order_number AS int8 CHECK (VALUE > -100);
                 CREATE DOMAIN code AS varchar(40)",
            )
            .await;
        fixture
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    async fn survey(&self, columns: &[&str]) -> Survey {
        self.store().survey(&target("t", columns, &[])).await.unwrap()
    }
}

#[async_trait]
impl Fixture for PostgresFixture {
    fn store(&self) -> Box<dyn Store> {
        Box::new(PostgresStore::new(&self.database.url(), "tests").unwrap())
    }

    async fn execute(&self, sql: &str) {
        let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await;
        outcome.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }

    async fn query(&self, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        // The simple protocol answers in text.
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&self.pool).await;
        let rows = rows.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
        rows.iter()
            .map(|row| {
                (0..row.len())
                    .map(|at| {
                        let value = row.try_get_raw(at).unwrap();
                        (!value.is_null()).then(|| value.as_bytes().unwrap().to_vec())
                    })
                    .collect()
            })
            .collect()
    }

    fn int(&self) -> &'static str {
        "int8"
    }

    fn bytes(&self) -> &'static str {
        "bytea"
    }

    fn uuid(&self) -> &'static str {
        "uuid"
    }

    fn text_ignoring_case(&self) -> &'static str {
        "text COLLATE ignoring_case"
    }

    fn bytes_literal(&self, bytes: &[u8]) -> String {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("'\\x{digits}'::bytea")
    }

    fn control_table(&self, name: &str) -> String {
        format!("reseal.{name}")
    }

    fn state_of_version_1(&self) -> &'static str {
        STATE_OF_VERSION_1
    }

    fn more_key_tables(&self) -> Vec<KeyTable> {
        let table = |name, sql_type: &str, keys: &[&str]| KeyTable {
            name,
            create: format!("CREATE TABLE t (id {sql_type} NOT NULL PRIMARY KEY, n int8, c text)"),
            key: "id",
            order: "id",
            rows: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let texts = ["''", "'b'", "'B'", "'a'", "'ä'", "'Ab'", "'aB '", "'😀'", "'10'", "'9'"];
        let mut tables = vec![
            table("int2", "int2", &["32767", "-32768", "0", "-1", "7"]),
            table("int4", "int4", &["2147483647", "-2147483648", "0", "-1", "7", "1000000"]),
            table(
                "int8 at its very end",
                "int8",
                &["-9223372036854775808", "9223372036854775807", "0"],
            ),
            table("domain over int8", "order_number", &["-99", "5", "0", "70000000000"]),
            table("text in bytewise order", "text COLLATE \"C\"", &texts),
            table("text in ICU order", "text COLLATE \"und-x-icu\"", &texts),
            table("varchar", "varchar(9)", &texts),
            table("domain over varchar", "code", &texts),
            table("enum in its own order", "mood", &["'Äußerst'", "'zen'", "'a b'", "'angry'"]),
            table(
                "timestamp",
                "timestamp",
                &[
                    "'2024-02-29 23:59:59.999999'",
                    "'1969-07-20 20:17'",
                    "'4713-01-01 BC'",
                    "'2999-01-01'",
                    "'infinity'",
                ],
            ),
            table(
                "timestamptz",
                "timestamptz",
                &[
                    "'2024-03-31 02:30:00.000001+01'",
                    "'2024-03-31 02:30+00'",
                    "'1900-01-01Z'",
                    "'-infinity'",
                ],
            ),
            table(
                "date",
                "date",
                &["'2024-02-29'", "'0001-01-01'", "'1999-12-31'", "'2000-01-01'"],
            ),
            KeyTable {
                name: "three columns: date, uuid, text in ICU order",
                create: "CREATE TABLE t (n int8, c text, a date, b uuid, d text COLLATE \"und-x-icu\", PRIMARY KEY (d, a, b))"
                    .to_owned(),
                key: "d, a, b",
                order: "d, a, b",
                rows: (0..24_u32)
                    .map(|n| {
                        format!(
                            "'{}', '2024-01-{:02}', '{:08x}-0000-4000-8000-000000000000'",
                            ["a", "B", "b"][n as usize % 3],
                            n % 2 + 1,
                            n.wrapping_mul(0x9E37_79B9)
                        )
                    })
                    .collect(),
            },
            KeyTable {
                name: "a unique index, descending, beside a primary key that is deferrable",
                create: "CREATE TABLE t (id int4 PRIMARY KEY DEFERRABLE, k int4 NOT NULL, n int8, c text);
                         CREATE UNIQUE INDEX by_k ON t (k DESC)"
                    .to_owned(),
                key: "id, k",
                order: "k",
                rows: (0..15).map(|n| format!("{n}, {}", -n)).collect(),
            },
        ];
        if self
            .database
            .count("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'")
            > 0
        {
            tables.push(KeyTable {
                create: "CREATE EXTENSION IF NOT EXISTS citext; CREATE TABLE t (id citext PRIMARY KEY, n int8, c text)"
                    .to_owned(),
                ..table("citext", "citext", &["'b'", "'A'", "'C'", "'aa'", "'Z'", "'_'"])
            });
        }
        tables
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_kind_of_column_are_swapped() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE DOMAIN sealed AS bytea CHECK (length(VALUE) > 0);
             CREATE TABLE t (id int4 PRIMARY KEY, a text, b varchar(20), c bytea, d code, e sealed, f text COLLATE ignoring_case);
             INSERT INTO t SELECT i, 'o:' || i, 'o:' || i, convert_to('o:' || i, 'UTF8'), 'o:' || i, convert_to('o:' || i, 'UTF8'), 'o:' || i
               FROM generate_series(1, 30) i;
             UPDATE t SET b = NULL, e = NULL WHERE id = 7",
        )
        .await;
    let columns = ["e", "d", "c", "b", "a", "f"];
    let (survey, mut session) = session(&*fixture.store(), &target("t", &columns, &[])).await;
    let classes: Vec<ColumnClass> = survey.values.iter().map(|column| column.class).collect();
    use ColumnClass::{Bytes, Text};
    assert_eq!(classes, [Bytes, Text, Bytes, Text, Text, Text]);
    assert_eq!(survey.values[1].max_len, Some(40), "a domain's own limit");
    assert_eq!(survey.values[3].max_len, Some(20));
    rotate(&mut *session, &whole(&survey), rows(7)).await;
    let left = "SELECT count(*) FROM t WHERE a <> 'n:' || id OR b <> 'n:' || id OR c <> convert_to('n:' || id, 'UTF8') OR d <> 'n:' || id
                   OR e <> convert_to('n:' || id, 'UTF8') OR f <> 'n:' || id";
    assert_eq!(texts(&fixture, left).await, ["0"]);
    assert_eq!(texts(&fixture, "SELECT id FROM t WHERE b IS NULL AND e IS NULL").await, ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn context_columns_come_in_their_own_types() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (id int4 PRIMARY KEY, c text, a int2, b bytea, d uuid, e timestamptz, f date, g numeric, h mood, i text);
             INSERT INTO t VALUES (1, 'o:1', -5, '\\x00ff', '00000000-0000-4000-8000-00000000000a', '2024-01-02 03:04:05.678901Z',
                                   '2024-02-29', 1.50, 'a b', 'x');
             INSERT INTO t (id, c) VALUES (2, 'o:2')",
        )
        .await;
    let contexts = ["a", "b", "d", "e", "f", "g", "h", "i"];
    let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &contexts)).await;
    let mut page = reseal::store::page::Page::new(session.shape());
    session.page(&whole(&survey), None, rows(10), &mut page).await.unwrap();
    let found: Vec<(Kind, String)> = (0..contexts.len())
        .map(|at| (page.context(0, at).kind, page.context(0, at).to_text()))
        .collect();
    let expected = [
        (Kind::Int, "-5"),
        (Kind::Bytes, "00ff"),
        (Kind::Uuid, "00000000-0000-4000-8000-00000000000a"),
        (Kind::TimestampTz, "2024-01-02T03:04:05.678901Z"),
        (Kind::Date, "2024-02-29"),
        (Kind::Text, "1.50"),
        (Kind::Text, "a b"),
        (Kind::Text, "x"),
    ];
    assert_eq!(found, expected.map(|(kind, text)| (kind, text.to_owned())));
    assert!((0..contexts.len()).all(|at| page.context(1, at).kind == Kind::Null));
    rotate(&mut *session, &whole(&survey), rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["n:1", "n:2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_changes_its_type_meanwhile_needs_new_statements_and_nothing_else() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (id int4 PRIMARY KEY, c text); INSERT INTO t SELECT i, 'o:' || i FROM generate_series(1, 30) i",
        )
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let mut page = reseal::store::page::Page::new(session.shape());
    let interval = whole(&survey);
    // The first page is read by another statement, which looks how wide rows are.
    for _ in 0..2 {
        page.clear();
        session.page(&interval, None, rows(10), &mut page).await.unwrap();
    }
    fixture.execute("ALTER TABLE t ALTER COLUMN c TYPE varchar(200)").await;
    page.clear();
    let error = session.page(&interval, None, rows(10), &mut page).await.unwrap_err();
    assert!(error.wants_reconnect(), "{error}");
    session.reconnect().await.unwrap();
    rotate(&mut *session, &interval, rows(10)).await;
    assert_eq!(texts(&fixture, "SELECT count(*) FROM t WHERE c = 'n:' || id").await, ["30"]);
}

/// A table written by one statement: every row has the same xmin, and a third of them is dead, so that a rewrite moves the others to
/// places where strangers stood.
async fn bulk_loaded(fixture: &PostgresFixture) {
    fixture
        .execute(
            "CREATE TABLE t (id int4 PRIMARY KEY, n int8, c text);
             INSERT INTO t SELECT i, i, 'o:' || i FROM generate_series(1, 3000) i;
             DELETE FROM t WHERE id % 3 = 0;
             CREATE INDEX backwards ON t ((-id))",
        )
        .await;
    assert_eq!(texts(fixture, "SELECT count(DISTINCT xmin::text) FROM t").await, ["1"]);
}

/// Rewrites the table until its rows have moved. Whoever looks at this database with an older snapshot (the server's own ANALYZE, say) is
/// waited for, and may come in between: a rewrite copies what he still sees.
async fn move_rows(fixture: &PostgresFixture, rewrite: &str) {
    loop {
        nobody_sees_dead_rows(fixture).await;
        fixture.execute(rewrite).await;
        // Behind the first dead row.
        if texts(fixture, "SELECT ctid::text FROM t WHERE id = 4").await != ["(0,4)"] {
            return;
        }
    }
}

async fn nobody_sees_dead_rows(fixture: &PostgresFixture) {
    let others = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL";
    while texts(fixture, others).await != ["0"] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_rewrite_of_the_table_moves_are_lost_races_and_never_mixed_up() {
    for rewrite in ["VACUUM (FULL, FREEZE) t", "VACUUM FULL t", "CLUSTER t USING backwards"] {
        let Some(fixture) = PostgresFixture::create().await else {
            return;
        };
        bulk_loaded(&fixture).await;
        let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &[])).await;
        let interval = whole(&survey);
        let moved = batch_after(&mut *session, &interval, None, rows(500), None, false, async || {
            move_rows(&fixture, rewrite).await;
        })
        .await
        .unwrap();
        assert!(moved.written.lost_races > 0, "{rewrite}: {:?}", moved.written);
        assert_eq!(moved.written.rows + moved.written.lost_races, 500, "{rewrite}");
        let mixed_up = "SELECT count(*) FROM t WHERE c NOT IN ('o:' || id, 'n:' || id)";
        assert_eq!(texts(&fixture, mixed_up).await, ["0"], "{rewrite}");
        rotate(&mut *session, &interval, rows(500)).await;
        let wrong = "SELECT count(*) FROM t WHERE c <> 'n:' || id";
        assert_eq!(texts(&fixture, wrong).await, ["0"], "{rewrite}");
        assert_eq!(texts(&fixture, "SELECT count(*) FROM t").await, ["2000"], "{rewrite}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_rotated_leaf_by_leaf_and_come_and_go() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (id int4, region text, c text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE north PARTITION OF t FOR VALUES IN ('n');
             CREATE TABLE south PARTITION OF t FOR VALUES IN ('s') PARTITION BY RANGE (id);
             CREATE TABLE south_low PARTITION OF south FOR VALUES FROM (0) TO (50);
             CREATE TABLE south_rest PARTITION OF south DEFAULT;
             CREATE TABLE west (id int4, region text, c text, PRIMARY KEY (id, region));
             INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'n' ELSE 's' END, 'o:' || i FROM generate_series(1, 100) i;
             INSERT INTO west VALUES (1, 'w', 'o:west')",
        )
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    assert!(
        survey.observations.contains(&Observation::Leaves(3)),
        "{:?}",
        survey.observations
    );
    let names = async || -> Vec<String> {
        let relations = store.relations(&survey).await.unwrap();
        relations.into_iter().map(|relation| relation.sql_name).collect()
    };
    let leaves = ["north", "south_low", "south_rest"].map(|name| format!("\"public\".\"{name}\""));
    assert_eq!(names().await, leaves);
    // With a plan, and a range more for a partition that came later.
    let (mut control, plan) = claimed(&*store, &survey).await;
    fixture
        .execute("ALTER TABLE t ATTACH PARTITION west FOR VALUES IN ('w'); ALTER TABLE t DETACH PARTITION north")
        .await;
    assert_eq!(names().await[..2], leaves[1..]);
    let late = reseal::store::control::Interval {
        relation: "\"public\".\"west\"".to_owned(),
        after: None,
        upto: None,
    };
    control.add_ranges(&plan, &[late]).await.unwrap();
    for range in control.ranges("plan").await.unwrap() {
        let done = batch(&mut *session, &range.interval, None, rows(1000), Some(&fence(&range)), true)
            .await
            .unwrap();
        assert_eq!(done.end, PageEnd::End);
    }
    assert_eq!(texts(&fixture, "SELECT count(*) FROM t WHERE c NOT LIKE 'n:%'").await, ["0"]);
    assert_eq!(control.totals("plan").await.unwrap().rows_reencrypted, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_plain_table_is_reported_and_gets_no_session() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (id int4 PRIMARY KEY, c text);
             CREATE VIEW seen AS SELECT * FROM t;
             CREATE MATERIALIZED VIEW kept AS SELECT * FROM t;
             CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
             CREATE FOREIGN TABLE remote (id int4, c text) SERVER elsewhere;
             CREATE TABLE parent (id int4 PRIMARY KEY, c text); CREATE TABLE child () INHERITS (parent);
             CREATE TABLE keyless (id int4, c text); CREATE UNIQUE INDEX ON keyless (id)",
        )
        .await;
    let store = fixture.store();
    for name in ["seen", "kept", "remote", "parent"] {
        let survey = store.survey(&target(name, &["c"], &[])).await.unwrap();
        let not_a_table = |fact: &Observation| matches!(fact, Observation::NotATable(_));
        assert!(
            survey.observations.iter().any(not_a_table),
            "{name}: {:?}",
            survey.observations
        );
        let refused = store.session(&survey).await.err();
        assert!(matches!(refused, Some(StoreError::Refused(_))), "{name}: {refused:?}");
        assert!(store.intervals(&survey, 2, true).await.is_err(), "{name}");
    }
    // NULL is no key: rows that share it cannot be told apart.
    let survey = store.survey(&target("keyless", &["c"], &[])).await.unwrap();
    assert!(survey.key.is_empty());
    assert!(store.session(&survey).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds_is_not_waited_for_twice() {
    use reseal::store::page::{Page, Swaps};
    use reseal::store::waves::Waves;
    use reseal::store::{Follow, RetryClass, Rewriter as _, SetBatch, Witness, Writer};
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute("CREATE TABLE t (id int4 PRIMARY KEY, c text); INSERT INTO t SELECT i, 'o:' || i FROM generate_series(1, 9) i")
        .await;
    let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &[])).await;
    let mut application = fixture.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM t WHERE id = 4 FOR UPDATE")
        .execute(&mut *application)
        .await
        .unwrap();
    let mut page = Page::new(session.shape());
    let mut swaps = Swaps::new(1);
    let interval = whole(&survey);
    session.page(&interval, None, rows(100), &mut page).await.unwrap();
    let mut looked_at = Page::to_look_at(session.shape());
    session.page(&interval, None, rows(100), &mut looked_at).await.unwrap();
    crate::stores::toy::Toy.rewrite(&page, &mut swaps).unwrap();
    let mut waves = Waves::default();
    waves.whole(&swaps);
    let set = SetBatch {
        relation: &interval.relation,
        page: &page,
        swaps: &swaps,
        wave: waves.iter().next().unwrap(),
        fence: None,
        follow: Follow::Stays,
    };
    let Writer::Set(writer) = session.writer() else {
        panic!("PostgreSQL takes sets");
    };
    // A page that is only looked at names no versions, not even that of the row that somebody holds.
    let unnamed = SetBatch { page: &looked_at, ..set };
    let written = writer.swap_and_advance(&unnamed, Witness::Version).await.unwrap();
    assert_eq!((written.rows, written.lost_races), (0, 9));
    let error = writer.swap_and_advance(&set, Witness::Version).await.unwrap_err();
    let lock_timeout = matches!(
        error,
        StoreError::Retry {
            class: RetryClass::LockTimeout,
            ..
        }
    );
    assert!(lock_timeout, "{error:?}");
    assert_eq!(texts(&fixture, "SELECT count(*) FROM t WHERE c LIKE 'n:%'").await, ["0"]);
    let written = writer.swap_and_advance(&set, Witness::VersionSkipLocked).await.unwrap();
    assert_eq!((written.rows, written.lost_races), (8, 1));
    application.rollback().await.unwrap();
    // The row itself did not change.
    let written = writer.swap_and_advance(&set, Witness::OldValue).await.unwrap();
    assert_eq!((written.rows, written.lost_races), (1, 8));
    assert_eq!(texts(&fixture, "SELECT count(*) FROM t WHERE c = 'n:' || id").await, ["9"]);
    assert!(fixture.survey(&["c"]).await.rows_estimate > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_messages_lose_what_they_quote() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'row of % with % is wrong', NEW.owner, NEW.c USING DETAIL = NEW.owner; END $$;
             CREATE TABLE t (id int4 PRIMARY KEY, c text, owner text);
             CREATE TRIGGER complain BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION complain();
             INSERT INTO t VALUES (1, 'o:1', 'ada-lovelace')",
        )
        .await;
    let (survey, mut session) = session(&*fixture.store(), &target("t", &["c"], &[])).await;
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::Row { code, .. } if code == "P0001"), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("ada") && !shown.contains("n:1"), "{shown}");
    fixture
        .execute("DROP TRIGGER complain ON t; CREATE UNIQUE INDEX ON t (c); INSERT INTO t VALUES (2, 'n:1', 'x')")
        .await;
    let error = batch(&mut *session, &whole(&survey), None, rows(10), None, false)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::Row { code, .. } if code == "23505"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("n:1"), "{error:?}");
    // The row that was refused is the first: nothing of the batch is there.
    assert_eq!(texts(&fixture, "SELECT c FROM t ORDER BY id").await, ["o:1", "n:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_keys_that_do_not_fit_the_table_are_refused() {
    let Some(fixture) = PostgresFixture::create().await else {
        return;
    };
    fixture
        .execute(
            "CREATE TABLE t (a int4, b uuid, d date, c text, PRIMARY KEY (a, b, d));
             INSERT INTO t VALUES (7, gen_random_uuid(), '2024-02-29', 'o:1')",
        )
        .await;
    let store = fixture.store();
    let (survey, mut session) = session(&*store, &target("t", &["c"], &[])).await;
    let cell = |kind, bytes| Cell { kind, bytes };
    let (seven, uuid, date) = (7_i64.to_be_bytes(), [1; 16], [0; 4]);
    let fits = [cell(Kind::Int, &seven), cell(Kind::Uuid, &uuid), cell(Kind::Date, &date)];
    let wide = (1_i64 << 40).to_be_bytes();
    let misfits = [
        (0, cell(Kind::Int, &[])),
        (0, cell(Kind::Int, &seven[5..])),
        (0, cell(Kind::Int, &wide)),
        (0, cell(Kind::Text, &seven)),
        (0, Cell::NULL),
        (1, cell(Kind::Uuid, &uuid[1..])),
        (1, cell(Kind::Bytes, &uuid)),
        (2, cell(Kind::Date, &seven)),
    ];
    let mut keys: Vec<Key> = misfits
        .into_iter()
        .map(|(at, misfit)| {
            let mut cells = fits;
            cells[at] = misfit;
            Key::new(cells)
        })
        .collect();
    keys.push(Key::new(fits[..2].iter().copied()));
    keys.push(Key::new(fits.into_iter().chain([fits[0]])));
    let interval = whole(&survey);
    for key in keys {
        let ends = Interval {
            upto: Some(key.clone()),
            ..interval.clone()
        };
        for (interval, cursor) in [(&interval, Some(&key)), (&ends, None)] {
            let refused = batch(&mut *session, interval, cursor, rows(10), None, false).await;
            assert!(matches!(refused, Err(StoreError::State(_))), "{key:?}: {refused:?}");
        }
    }
    let last = Key::new(fits);
    batch(&mut *session, &interval, Some(&last), rows(10), None, false)
        .await
        .unwrap();
}

const STATE_OF_VERSION_1: &str = "
    CREATE SCHEMA IF NOT EXISTS reseal;
    COMMENT ON SCHEMA reseal IS 'Progress of key rotations by reseal. No key material. May be dropped when no rotation is under way.';
    CREATE TABLE IF NOT EXISTS reseal.meta (name text PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS reseal.plan (
        id text PRIMARY KEY, table_name text NOT NULL, columns text NOT NULL, from_keys text NOT NULL, to_key text NOT NULL,
        generation int8 NOT NULL, status text NOT NULL, owner text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(), updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE IF NOT EXISTS reseal.range (
        plan_id text NOT NULL REFERENCES reseal.plan ON DELETE CASCADE, id int8 NOT NULL, relation text NOT NULL,
        lo bytea, hi bytea, cursor bytea, epoch int8 NOT NULL, done bool NOT NULL DEFAULT false,
        rows_scanned int8 NOT NULL DEFAULT 0, values_reencrypted int8 NOT NULL DEFAULT 0, rows_reencrypted int8 NOT NULL DEFAULT 0,
        values_already_current int8 NOT NULL DEFAULT 0, values_null int8 NOT NULL DEFAULT 0, lost_races int8 NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (plan_id, id)) WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS reseal.quarantine (
        plan_id text NOT NULL REFERENCES reseal.plan ON DELETE CASCADE, relation text NOT NULL, row_key bytea NOT NULL,
        value_column int4 NOT NULL, reason text NOT NULL, seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (plan_id, relation, row_key, value_column));
    INSERT INTO reseal.meta VALUES ('version', '1');
    INSERT INTO reseal.plan (id, table_name, columns, from_keys, to_key, generation, status, owner)
        VALUES ('old', 't', 'c', 'a', 'b', 4, 'running', 'ada@host');
    INSERT INTO reseal.range (plan_id, id, relation, epoch, rows_reencrypted) VALUES ('old', 0, 't', 4, 12);
";
