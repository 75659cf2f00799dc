//! A page of rows and the swaps made of it: two arenas, reused from batch to batch, so that memory does not follow the rows.

use zeroize::Zeroize as _;

use super::value::{Cell, Key, Kind};

/// How many key, context and value columns every row of a page has, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Primary key columns.
    pub keys: usize,
    /// Columns that associated data refers to beside the key.
    pub contexts: usize,
    /// Encrypted columns.
    pub values: usize,
}

impl Shape {
    fn width(self) -> usize {
        self.keys + self.contexts + self.values
    }
}

/// Rows read from the database: all bytes in one arena, in the database's own order.
pub struct Page {
    shape: Shape,
    bytes: Vec<u8>,
    cells: Vec<Span>,
    versions: Vec<RowVersion>,
    for_swaps: bool,
}

/// The database's own name for this version of a row (PostgreSQL: `ctid` and `xmin`), where it has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowVersion {
    /// Block and offset, as on the wire (`tid`: 4 + 2 bytes, big-endian).
    pub tid: [u8; 6],
    /// The transaction that wrote the version (`xid`).
    pub xmin: u32,
}

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
    kind: Kind,
}

impl Page {
    /// An empty page, to make swaps of.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            bytes: Vec::new(),
            cells: Vec::new(),
            versions: Vec::new(),
            for_swaps: true,
        }
    }

    /// An empty page that is only looked at: its rows come without their versions, so that a swap of them would lose its race.
    pub fn to_look_at(shape: Shape) -> Self {
        Self {
            for_swaps: false,
            ..Self::new(shape)
        }
    }

    /// Whether rows come with their versions.
    pub fn is_for_swaps(&self) -> bool {
        self.for_swaps
    }

    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.cells.clear();
        self.versions.clear();
    }

    /// The columns of each row.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Rows in the page.
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Bytes of all cells.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Starts a row; exactly `keys + contexts + values` calls of [`push`](Self::push) follow.
    pub fn begin_row(&mut self, version: RowVersion) {
        debug_assert_eq!(self.cells.len(), self.versions.len() * self.shape.width());
        self.versions.push(version);
    }

    /// The next cell of the row that was begun.
    pub fn push(&mut self, cell: Cell<'_>) {
        // Pages stop at a byte cap of some MiB plus one row, and a row is limited by `PageLimits::value_bytes_max`.
        let span = Span {
            start: self.bytes.len() as u32,
            len: cell.bytes.len() as u32,
            kind: cell.kind,
        };
        self.bytes.extend_from_slice(cell.bytes);
        self.cells.push(span);
    }

    /// Adds a row of a page of the same shape.
    pub fn copy_row(&mut self, from: &Self, row: usize) {
        debug_assert_eq!(self.shape, from.shape);
        self.begin_row(from.version(row));
        for column in 0..self.shape.width() {
            self.push(from.cell(row, column));
        }
    }

    fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let span = self.cells[row * self.shape.width() + column];
        let start = span.start as usize;
        Cell {
            kind: span.kind,
            bytes: &self.bytes[start..start + span.len as usize],
        }
    }

    /// A part of the row's primary key.
    pub fn key(&self, row: usize, index: usize) -> Cell<'_> {
        self.cell(row, index)
    }

    /// A column that associated data refers to.
    pub fn context(&self, row: usize, index: usize) -> Cell<'_> {
        self.cell(row, self.shape.keys + index)
    }

    /// An encrypted column.
    pub fn value(&self, row: usize, index: usize) -> Cell<'_> {
        self.cell(row, self.shape.keys + self.shape.contexts + index)
    }

    /// The row's version.
    pub fn version(&self, row: usize) -> RowVersion {
        self.versions[row]
    }

    /// The first row that has the key of the row before it, byte for byte. Keys are unique: there is none, unless an index is damaged.
    pub fn twin(&self) -> Option<usize> {
        (1..self.len()).find(|row| self.has_key_of(*row, self, row - 1))
    }

    /// Whether the row has the same key as a row of a page of the same shape, byte for byte.
    pub fn has_key_of(&self, row: usize, other: &Self, other_row: usize) -> bool {
        (0..self.shape.keys).all(|part| self.key(row, part) == other.key(other_row, part))
    }

    /// Whether the row has the same cells as a row of a page of the same shape, byte for byte.
    pub fn has_cells_of(&self, row: usize, other: &Self, other_row: usize) -> bool {
        (0..self.shape.width()).all(|column| self.cell(row, column) == other.cell(other_row, column))
    }

    /// Forgets the last row.
    pub fn forget_last(&mut self) {
        if self.versions.pop().is_none() {
            return;
        }
        let cells = self.versions.len() * self.shape.width();
        if let Some(first) = self.cells.get(cells) {
            self.bytes.truncate(first.start as usize);
        }
        self.cells.truncate(cells);
    }

    /// The row's primary key, owned.
    pub fn owned_key(&self, row: usize) -> Key {
        Key::new((0..self.shape.keys).map(|part| self.key(row, part)))
    }
}

/// What the rewriter made of a page: which rows get which new values, and what it could not or need not touch.
///
/// Row numbers are those of the page. A row appears once, with all of its columns; `None` leaves a column as it is.
pub struct Swaps {
    values: usize,
    bytes: Vec<u8>,
    rows: Vec<u32>,
    news: Vec<Option<(u32, u32)>>,
    /// Values that were left untouched because they could not be opened.
    pub quarantined: Vec<Quarantined>,
    /// Values that stood under an old key when none should any more, whatever becomes of them.
    pub late: Vec<Late>,
    /// What the values of the page were.
    pub tally: Tally,
}

/// A value that was left untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The primary key of its row.
    pub key: Key,
    /// Which of the encrypted columns.
    pub column: usize,
    /// Why: never the content.
    pub reason: String,
}

/// A value under an old key that appeared after every writer was to have switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// The primary key of its row.
    pub key: Key,
    /// Which of the encrypted columns.
    pub column: usize,
}

/// Values of a page, by what they were found to be. Every value is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows looked at.
    pub rows: u64,
    /// Values to be rewritten.
    pub due: u64,
    /// Values under the target key already.
    pub current: u64,
    /// SQL NULL.
    pub nulls: u64,
    /// Plaintext left alone under `--plaintext skip`.
    pub plaintext: u64,
    /// Values quarantined.
    pub quarantined: u64,
    /// Values whose plaintext is itself a sealed value: rewritten as they are, and reported.
    pub nested: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.due += other.due;
        self.current += other.current;
        self.nulls += other.nulls;
        self.plaintext += other.plaintext;
        self.quarantined += other.quarantined;
        self.nested += other.nested;
    }
}

impl Swaps {
    /// No swaps, for pages with this many encrypted columns.
    pub fn new(values: usize) -> Self {
        Self {
            values,
            bytes: Vec::new(),
            rows: Vec::new(),
            news: Vec::new(),
            quarantined: Vec::new(),
            late: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.news.clear();
        self.quarantined.clear();
        self.late.clear();
        self.tally = Tally::default();
    }

    /// Rows that get a new value.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row gets a new value.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of the new values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The arena: a cipher appends a new value here, then [`assign`](Self::assign) gives it to a column.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Gives the bytes of the arena from `start` on to `column` of page row `row`. Rows come in ascending order.
    pub fn assign(&mut self, row: usize, column: usize, start: usize) {
        let row = row as u32;
        if self.rows.last() != Some(&row) {
            self.rows.push(row);
            self.news.resize(self.news.len() + self.values, None);
        }
        let at = (self.rows.len() - 1) * self.values + column;
        self.news[at] = Some((start as u32, (self.bytes.len() - start) as u32));
    }

    /// The page row of swap number `index`.
    pub fn row(&self, index: usize) -> usize {
        self.rows[index] as usize
    }

    /// The new value of `column` in swap number `index`; `None` leaves the column as it is.
    pub fn new_value(&self, index: usize, column: usize) -> Option<&[u8]> {
        let (start, len) = self.news[index * self.values + column]?;
        Some(&self.bytes[start as usize..(start + len) as usize])
    }
}

impl Drop for Swaps {
    fn drop(&mut self) {
        // Sealed bytes only, but an arena may have held a plaintext for an instant when a cipher seals in place.
        self.bytes.zeroize();
    }
}
