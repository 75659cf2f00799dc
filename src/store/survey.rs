//! What the catalogue says about a table: facts, not judgements. `rotation::preflight` judges.

use super::StoreError;

/// What the operator pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Schema-qualified where the database has schemas, as typed.
    pub table: String,
    /// Encrypted columns, as typed.
    pub columns: Vec<String>,
    /// Columns that associated-data templates refer to.
    pub context_columns: Vec<String>,
    /// A condition on rows; parsed by the database only, inside parentheses, in a read-only probe first.
    pub filter: Option<String>,
}

/// Everything that plan, preflight and the statements need to know about a table.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The table, quoted for display: `public.customers`.
    pub table: String,
    /// PostgreSQL: the oid of the table; SQLite: 0.
    pub table_id: u32,
    /// Server and version, such as `PostgreSQL 15.18`.
    pub server: String,
    /// The physical tables that hold rows: the table itself, or the leaves of its partition tree.
    pub relations: Vec<Relation>,
    /// The columns that identify and order rows.
    pub key: Vec<Column>,
    /// Context columns, in the order asked for.
    pub contexts: Vec<Column>,
    /// Encrypted columns, in the order asked for.
    pub values: Vec<Column>,
    /// The row condition.
    pub filter: Option<String>,
    /// Rows, as the database estimates them.
    pub rows_estimate: u64,
    /// Bytes on disk, table and indexes.
    pub bytes: u64,
    /// Things that a careful operator wants to know before the first write.
    pub observations: Vec<Observation>,
}

/// A physical table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Quoted and qualified, ready for a statement.
    pub sql_name: String,
    /// PostgreSQL: the oid; SQLite: 0.
    pub oid: u32,
    /// Rows, as estimated.
    pub rows_estimate: u64,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// As the catalogue spells it.
    pub name: String,
    /// Quoted for a statement.
    pub sql_name: String,
    /// The declared type, as the database prints it.
    pub type_name: String,
    /// What a cell of this column is.
    pub class: ColumnClass,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The most characters or bytes that it holds, if limited.
    pub max_len: Option<u64>,
    /// PostgreSQL: oid of the base type and of its array type; SQLite: zeros.
    pub type_oids: (u32, u32),
}

/// What a column's cells are to Reseal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnClass {
    /// Integers of 2, 4 or 8 bytes.
    Int(u8),
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// UUID.
    Uuid,
    /// Timestamp without time zone.
    Timestamp,
    /// Timestamp with time zone.
    TimestampTz,
    /// Date.
    Date,
    /// SQLite: the type follows the value.
    Dynamic,
    /// `char(n)`: padded with blanks, so that bytes are not kept.
    Padded,
    /// Floating point: not an exact key.
    Float,
    /// Anything else.
    Unsupported,
}

/// Refuses columns to be rewritten that rows are told apart by, and those that are named twice.
pub(super) fn require_rewritable(key: &[&str], values: &[&str]) -> Result<(), StoreError> {
    for (at, value) in values.iter().enumerate() {
        if values[..at].contains(value) {
            return Err(StoreError::Refused(format!("the column {value} is named twice")));
        }
        if key.contains(value) {
            return Err(StoreError::Refused(format!(
                "the column {value} identifies rows: it cannot be rewritten"
            )));
        }
    }
    Ok(())
}

/// A fact that preflight turns into a refusal, a question or a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// There is no primary key and no unique index over columns that are NOT NULL.
    NoUsableKey(String),
    /// The iteration key is not the primary key but this.
    KeyIs(String),
    /// A generated column was named as encrypted.
    Generated(String),
    /// A trigger that fires on UPDATE of these columns.
    UpdateTrigger(String),
    /// The guard of the rotation with this id stands.
    Guard {
        /// The rotation's id.
        plan: String,
        /// The keys whose values it refuses.
        refuses: Vec<String>,
    },
    /// A rule rewrites UPDATEs.
    Rule(String),
    /// An index covers an encrypted column: (index, column, unique).
    IndexOnValue {
        /// The index.
        index: String,
        /// The encrypted column.
        column: String,
        /// Whether it is unique.
        unique: bool,
    },
    /// A foreign key uses an encrypted column.
    ForeignKeyOnValue(String),
    /// A CHECK constraint mentions an encrypted column.
    CheckOnValue(String),
    /// Row-level security applies to this user and would hide rows.
    RowSecurity,
    /// The server does not accept writes.
    ReadOnlyServer(String),
    /// The database is a file that cannot be written, or that has no place for its journal.
    ReadOnlyFile(String),
    /// A privilege is missing.
    MissingPrivilege(String),
    /// An UPDATE cannot even be prepared: the schema needs a function, collation or module that only the application has.
    CannotUpdate(String),
    /// Not a table: a view, a foreign table, ….
    NotATable(String),
    /// A leaf of the tree is not a plain table.
    ForeignLeaf(String),
    /// The table is partitioned or inherited into this many leaves.
    Leaves(usize),
    /// A replication slot, for change capture (logical) or a standby.
    Slot {
        /// Its name.
        name: String,
        /// Whether it is for change capture.
        logical: bool,
        /// Whether somebody reads from it.
        active: bool,
        /// Bytes of the log that its reader has yet to get.
        behind_bytes: u64,
        /// Bytes of the log that the server keeps for it.
        kept_bytes: u64,
    },
    /// Publications or logical slots carry every update: one event a row.
    ChangeCapture(String),
    /// Replicas that are attached.
    Replicas(u64),
    /// The row condition did not parse, or does not read as a condition.
    BadFilter(String),
    /// SQLite: another name leads to the same file.
    SeveralNames(u64),
    /// SQLite: the journal mode.
    JournalMode(String),
    /// Something else worth a line.
    Note(String),
}
