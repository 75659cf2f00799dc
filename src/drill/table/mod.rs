//! The table of customers, as the application and the rehearsal use it: its statements, written once for every database.
//!
//! A database differs in how a connection sends a statement ([`Session`]) and in a few words of SQL ([`Dialect`]).

mod logins;
mod postgres;
mod sqlite;

use serde::{Deserialize, Serialize};

use super::customer::Row;

pub use logins::LoginTable;
pub use postgres::{Scratch, schema_name};
pub use sqlite::create as create_sqlite;

/// Where the table is. Holds the database's password: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Place {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// The table's name as it stands in statements.
    pub table: String,
}

/// Why a statement was not answered.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The connection is gone; a change may or may not have happened.
    #[error("the connection was lost ({0})")]
    Lost(String),
    /// It is not there, or does not take this user.
    #[error("{0}")]
    Unusable(String),
    /// The database said no; nothing has changed.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the table.
pub struct Table {
    session: Box<dyn Session>,
    dialect: Dialect,
    name: String,
    sql: Statements,
}

/// A connection that runs one statement at a time.
trait Session: Send {
    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Cell>>, TableError>;
    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, TableError>;
    /// A statement without parameters and without an answer.
    fn command(&mut self, sql: &str) -> Result<(), TableError>;
    /// Connects anew. When this returns, nothing that an earlier connection of this name sent is under way any more.
    fn renew(&mut self) -> Result<(), TableError>;
}

/// What goes into a statement.
#[derive(Clone, Copy)]
enum Parameter<'a> {
    Integer(i64),
    Text(&'a str),
    Bytes(Option<&'a [u8]>),
}

/// What comes out of one.
enum Cell {
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Null,
}

/// Words in which databases differ.
struct Dialect {
    /// Before the number of a parameter.
    parameter: char,
    begin: &'static str,
    /// After a SELECT that locks what it reads.
    for_update: &'static str,
}

struct Statements {
    point: String,
    between: String,
    page: String,
    insert: String,
    replace: String,
    delete: String,
    lock: String,
    amend: String,
    owned: String,
    id_max: String,
    count: String,
}

impl Place {
    /// Whether this is a PostgreSQL database.
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }

    /// The table of sessions beside it, as it stands in statements.
    pub fn logins(&self) -> String {
        match self.table.rsplit_once('.') {
            Some((schema, _)) => format!("{schema}.{LOGINS}"),
            None => LOGINS.to_owned(),
        }
    }

    /// Connects; `role` names the connection to the server. Whatever an earlier connection of this name left behind is ended first.
    pub fn open(&self, role: &str) -> Result<Table, TableError> {
        let (session, dialect) = session(self, role)?;
        Ok(Table {
            session,
            sql: Statements::new(&self.table, &dialect),
            dialect,
            name: self.table.clone(),
        })
    }
}

impl Table {
    /// The rows with these ids, in order. One alone is asked for as applications do it: a server keeps the plan of such a statement,
    /// and makes that of an interval anew each time.
    pub fn fetch(&mut self, first: i64, last: i64) -> Result<Vec<(i64, Row)>, TableError> {
        let between = [Parameter::Integer(first), Parameter::Integer(last)];
        let rows = if first == last {
            self.session.query(&self.sql.point, &between[..1])?
        } else {
            self.session.query(&self.sql.between, &between)?
        };
        rows.into_iter().map(row_of).collect()
    }

    /// Up to `rows` rows with larger ids than this, in order.
    pub fn page(&mut self, after: i64, rows: i64) -> Result<Vec<(i64, Row)>, TableError> {
        let next = [Parameter::Integer(after), Parameter::Integer(rows)];
        let rows = self.session.query(&self.sql.page, &next)?;
        rows.into_iter().map(row_of).collect()
    }

    /// A new row.
    pub fn insert(&mut self, id: i64, row: &Row) -> Result<u64, TableError> {
        self.session.execute(&self.sql.insert, &parameters(id, row))
    }

    /// All columns of a row at once.
    pub fn replace(&mut self, id: i64, row: &Row) -> Result<u64, TableError> {
        self.session.execute(&self.sql.replace, &parameters(id, row))
    }

    /// Removes a row.
    pub fn delete(&mut self, id: i64) -> Result<u64, TableError> {
        self.session.execute(&self.sql.delete, &[Parameter::Integer(id)])
    }

    /// Begins a transaction, and reads a row that nobody else changes until it ends.
    pub fn lock(&mut self, id: i64) -> Result<Option<Row>, TableError> {
        self.session.command(self.dialect.begin)?;
        let rows = self.session.query(&self.sql.lock, &[Parameter::Integer(id)])?;
        rows.into_iter().next().map(|row| row_of(row).map(|(_, row)| row)).transpose()
    }

    /// Writes the notes of a row, in the transaction that is open, and commits it.
    pub fn amend(&mut self, id: i64, notes: Option<&[u8]>) -> Result<u64, TableError> {
        let changed = self
            .session
            .execute(&self.sql.amend, &[Parameter::Integer(id), Parameter::Bytes(notes)])?;
        self.session.command("COMMIT")?;
        Ok(changed)
    }

    /// Takes back the open transaction.
    pub fn roll_back(&mut self) -> Result<(), TableError> {
        self.session.command("ROLLBACK")
    }

    /// The ids that leave this remainder.
    pub fn owned(&mut self, remainder: i64, stride: i64) -> Result<Vec<i64>, TableError> {
        let of = [Parameter::Integer(stride), Parameter::Integer(remainder)];
        let rows = self.session.query(&self.sql.owned, &of)?;
        rows.into_iter().map(|row| Cells(row.into_iter()).integer()).collect()
    }

    /// The largest id, or 0.
    pub fn id_max(&mut self) -> Result<i64, TableError> {
        let sql = self.sql.id_max.clone();
        self.number(&sql)
    }

    /// How many rows there are.
    pub fn count(&mut self) -> Result<u64, TableError> {
        let sql = self.sql.count.clone();
        self.number(&sql).map(i64::unsigned_abs)
    }

    /// Many new rows, in one transaction.
    pub fn load(&mut self, rows: &[(i64, Row)]) -> Result<(), TableError> {
        self.session.command(self.dialect.begin)?;
        for chunk in rows.chunks(LOADED_TOGETHER) {
            let values: Vec<_> = chunk.iter().flat_map(|(id, row)| parameters(*id, row)).collect();
            let marks = (0..chunk.len()).map(|row| {
                let mark = |column| format!("{}{}", self.dialect.parameter, row * COLUMNS + column);
                let marks: Vec<_> = (1..=COLUMNS).map(mark).collect();
                format!("({})", marks.join(", "))
            });
            let marks: Vec<_> = marks.collect();
            let sql = format!("INSERT INTO {} ({ALL_COLUMNS}) VALUES {}", self.name, marks.join(", "));
            self.session.execute(&sql, &values)?;
        }
        self.session.command("COMMIT")
    }

    /// Connects anew, once what was sent before can no longer be under way.
    pub fn renew(&mut self) -> Result<(), TableError> {
        self.session.renew()
    }

    fn number(&mut self, sql: &str) -> Result<i64, TableError> {
        let row = self.session.query(sql, &[])?.into_iter().next().unwrap_or_default();
        Cells(row.into_iter()).integer()
    }
}

impl Statements {
    fn new(table: &str, dialect: &Dialect) -> Self {
        let sql = |text: &str| {
            text.replace("{all}", ALL_COLUMNS)
                .replace("{table}", table)
                .replace('?', &dialect.parameter.to_string())
                .replace("{for update}", dialect.for_update)
        };
        Self {
            point: sql("SELECT {all} FROM {table} WHERE id = ?1"),
            between: sql("SELECT {all} FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id"),
            page: sql("SELECT {all} FROM {table} WHERE id > ?1 ORDER BY id LIMIT ?2"),
            insert: sql("INSERT INTO {table} ({all}) VALUES (?1, ?2, ?3, ?4, ?5)"),
            replace: sql("UPDATE {table} SET name = ?2, email = ?3, notes = ?4, tier = ?5 WHERE id = ?1"),
            delete: sql("DELETE FROM {table} WHERE id = ?1"),
            lock: sql("SELECT {all} FROM {table} WHERE id = ?1{for update}"),
            amend: sql("UPDATE {table} SET notes = ?2 WHERE id = ?1"),
            owned: sql("SELECT id FROM {table} WHERE id % ?1 = ?2 ORDER BY id"),
            id_max: sql("SELECT coalesce(max(id), 0) FROM {table}"),
            count: sql("SELECT count(*) FROM {table}"),
        }
    }
}

fn session(place: &Place, role: &str) -> Result<(Box<dyn Session>, Dialect), TableError> {
    Ok(match place.url.strip_prefix("sqlite:") {
        Some(path) => (Box::new(sqlite::SqliteSession::open(path.as_ref())?), sqlite::DIALECT),
        None => (
            Box::new(postgres::PostgresSession::open(&place.url, role)?),
            postgres::DIALECT,
        ),
    })
}

fn parameters(id: i64, row: &Row) -> [Parameter<'_>; COLUMNS] {
    [
        Parameter::Integer(id),
        Parameter::Text(&row.name),
        Parameter::Bytes(Some(&row.email)),
        Parameter::Bytes(row.notes.as_deref()),
        Parameter::Text(&row.tier),
    ]
}

fn row_of(cells: Vec<Cell>) -> Result<(i64, Row), TableError> {
    let mut cells = Cells(cells.into_iter());
    let id = cells.integer()?;
    let row = Row {
        name: cells.text()?,
        email: cells.bytes()?.ok_or_else(unexpected)?,
        notes: cells.bytes()?,
        tier: cells.text()?,
    };
    Ok((id, row))
}

/// The cells of a row, one after the other.
struct Cells(std::vec::IntoIter<Cell>);

impl Cells {
    fn integer(&mut self) -> Result<i64, TableError> {
        match self.0.next() {
            Some(Cell::Integer(value)) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    fn text(&mut self) -> Result<String, TableError> {
        match self.0.next() {
            Some(Cell::Text(value)) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    fn bytes(&mut self) -> Result<Option<Vec<u8>>, TableError> {
        match self.0.next() {
            Some(Cell::Bytes(value)) => Ok(Some(value)),
            Some(Cell::Null) => Ok(None),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> TableError {
    TableError::Refused("a column holds something else than it was made for".to_owned())
}

const LOGINS: &str = "logins";
const COLUMNS: usize = 5;
const ALL_COLUMNS: &str = "id, name, email, notes, tier";
/// 2,500 parameters; SQLite takes 32,766 and PostgreSQL 65,535.
const LOADED_TOGETHER: usize = 500;
