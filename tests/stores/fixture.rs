//! What a database must offer to run the suite: raw SQL beside the store, and its own spelling of a few things.

use async_trait::async_trait;
use reseal::store::Store;
use reseal::store::survey::Target;

/// An empty database.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store under test; each call a new one on the same database.
    fn store(&self) -> Box<dyn Store>;

    /// Runs statements as an application would, on a connection of its own. Panics when they fail.
    async fn execute(&self, sql: &str);

    /// Rows of a query, every cell as text bytes (numbers in decimal), NULL as `None`.
    async fn query(&self, sql: &str) -> Vec<Vec<Option<Vec<u8>>>>;

    /// The type of an 8-byte integer key.
    fn int(&self) -> &'static str;

    /// The type of bytes.
    fn bytes(&self) -> &'static str;

    /// The type of a UUID key.
    fn uuid(&self) -> &'static str;

    /// A text type whose comparison ignores case.
    fn text_ignoring_case(&self) -> &'static str;

    /// A literal of bytes.
    fn bytes_literal(&self, bytes: &[u8]) -> String;

    /// One of the control tables (`meta`, `plan`, …), as this database names it.
    fn control_table(&self, name: &str) -> String {
        format!("reseal_{name}")
    }

    /// Control tables as version 1 made them, with one plan `old` of generation 4 and one range.
    fn state_of_version_1(&self) -> &'static str;

    /// Further tables for the tests of keys: kinds of keys that only this database has.
    fn more_key_tables(&self) -> Vec<KeyTable> {
        Vec::new()
    }
}

/// A table `t` with some key, an integer `n` that numbers the rows, and a text column `c`.
pub struct KeyTable {
    /// For messages.
    pub name: &'static str,
    /// `CREATE TABLE t (…)`, and indexes.
    pub create: String,
    /// The key columns, as in INSERT; empty when rows have no key of their own.
    pub key: &'static str,
    /// The order of the key: the same, unless the key has another order than its columns.
    pub order: &'static str,
    /// The key of each row, as SQL.
    pub rows: Vec<String>,
}

impl KeyTable {
    /// Creates and fills the table; `c` of row `n` is `o:n`.
    pub async fn fill(&self, fixture: &dyn Fixture) {
        fixture.execute("DROP TABLE IF EXISTS t").await;
        fixture.execute(&self.create).await;
        assert!(!self.rows.is_empty());
        for (n, key) in self.rows.iter().enumerate() {
            let (columns, values) = if self.key.is_empty() {
                ("n, c".to_owned(), format!("{n}, 'o:{n}'"))
            } else {
                (format!("{}, n, c", self.key), format!("{key}, {n}, 'o:{n}'"))
            };
            fixture.execute(&format!("INSERT INTO t ({columns}) VALUES ({values})")).await;
        }
    }
}

/// Kinds of keys that every database has.
pub fn key_tables(fixture: &dyn Fixture) -> Vec<KeyTable> {
    let (int, bytes, uuid, nocase) = (fixture.int(), fixture.bytes(), fixture.uuid(), fixture.text_ignoring_case());
    let blob = |bytes: &[u8]| fixture.bytes_literal(bytes);
    let mut tables = vec![
        KeyTable {
            name: "dense integers",
            create: format!("CREATE TABLE t (id {int} PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: (1..=40).map(|id| id.to_string()).collect(),
        },
        KeyTable {
            name: "integers at the extremes, negative, with gaps",
            create: format!("CREATE TABLE t (id {int} PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: [
                i64::MAX,
                -1,
                0,
                7,
                i64::MIN + 1,
                1 << 53,
                (1 << 53) + 1,
                -4_000_000_000,
                i64::MAX - 1,
            ]
            .iter()
            .map(i64::to_string)
            .collect(),
        },
        KeyTable {
            name: "text",
            create: format!("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: [
                "''", "'b'", "'B'", "'a'", "'é'", "'日本'", "'a b'", "'it''s'", "'😀'", "'a '", "'10'", "'9'",
            ]
            .map(str::to_owned)
            .into(),
        },
        KeyTable {
            name: "text that ignores case",
            create: format!("CREATE TABLE t (id {nocase} NOT NULL PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: ["'b'", "'A'", "'C'", "'aa'", "'Z'", "'_'", "'Aa1'"].map(str::to_owned).into(),
        },
        KeyTable {
            name: "bytes with zeros inside and at the end",
            create: format!("CREATE TABLE t (id {bytes} NOT NULL PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: [
                &[][..],
                &[0],
                &[0, 0],
                &[0, 1],
                &[1],
                &[1, 0],
                &[1, 0, 0],
                &[255; 16],
                &[0x27, 0x22],
            ]
            .map(blob)
            .into(),
        },
        KeyTable {
            name: "UUID",
            create: format!("CREATE TABLE t (id {uuid} NOT NULL PRIMARY KEY, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: (0..20_u32)
                .map(|n| format!("'{:08x}-0000-4000-8000-00000000{:04x}'", n.wrapping_mul(0x9E37_79B9), n * 7))
                .collect(),
        },
        KeyTable {
            name: "two columns",
            create: format!(
                "CREATE TABLE t (tenant {int} NOT NULL, id {int} NOT NULL, n {int}, c TEXT, PRIMARY KEY (tenant, id))"
            ),
            key: "tenant, id",
            order: "tenant, id",
            rows: (0..30).map(|n| format!("{}, {}", n % 3, -n)).collect(),
        },
        KeyTable {
            name: "four columns of mixed types",
            create: format!(
                "CREATE TABLE t (a {int} NOT NULL, b TEXT NOT NULL, d {bytes} NOT NULL, e {int} NOT NULL, n {int}, c TEXT, \
                 PRIMARY KEY (b, a, d, e))"
            ),
            key: "b, a, d, e",
            order: "b, a, d, e",
            rows: (0..36_u8)
                .map(|n| {
                    format!(
                        "'{}', {}, {}, {n}",
                        ["x", "X", ""][usize::from(n % 3)],
                        n % 2,
                        blob(&[n % 4, 0])
                    )
                })
                .collect(),
        },
        KeyTable {
            name: "a unique index instead of a primary key",
            create: format!("CREATE TABLE t (id TEXT NOT NULL UNIQUE, n {int}, c TEXT)"),
            key: "id",
            order: "id",
            rows: (0..15).map(|n| format!("'k{n}'")).collect(),
        },
    ];
    tables.extend(fixture.more_key_tables());
    tables
}

/// Points at columns of a table, with `n` as context if asked.
pub fn target(table: &str, columns: &[&str], contexts: &[&str]) -> Target {
    Target {
        table: table.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        context_columns: contexts.iter().map(|column| (*column).to_owned()).collect(),
        filter: None,
    }
}

/// The first column of a query, as text.
pub async fn texts(fixture: &dyn Fixture, sql: &str) -> Vec<String> {
    let rows = fixture.query(sql).await;
    rows.into_iter()
        .map(|mut row| {
            row.swap_remove(0)
                .map_or("NULL".to_owned(), |text| String::from_utf8(text).unwrap())
        })
        .collect()
}
