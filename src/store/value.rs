//! Values of primary keys and of encrypted columns, as bytes with a tag that says what they are.
//!
//! A cell is one tag byte and a payload. The payload of a key cell is canonical, so that two equal keys have equal bytes: cursors are
//! stored in this form, and associated data is rendered from it. Ordering is the database's business; nothing here compares with `<`.

use std::fmt::Write as _;

/// What a cell holds. The numbers are stored in cursors and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// SQL NULL; no payload.
    Null = 0,
    /// Signed 64-bit integer, big-endian.
    Int = 1,
    /// UTF-8 text, or whatever bytes the database calls text.
    Text = 2,
    /// Bytes.
    Bytes = 3,
    /// 16 bytes, in the order of RFC 9562.
    Uuid = 4,
    /// Microseconds since 2000-01-01 00:00:00 without a time zone, signed 64-bit, big-endian (PostgreSQL's wire form).
    Timestamp = 5,
    /// The same, in UTC.
    TimestampTz = 6,
    /// Days since 2000-01-01, signed 32-bit, big-endian.
    Date = 7,
    /// A value that was not read because it is larger than the limit: its size in bytes, unsigned 64-bit, big-endian.
    Oversize = 8,
    /// A number or another type where text or bytes were expected; no payload.
    Other = 9,
}

impl Kind {
    fn from_tag(tag: u8) -> Option<Self> {
        [
            Self::Null,
            Self::Int,
            Self::Text,
            Self::Bytes,
            Self::Uuid,
            Self::Timestamp,
            Self::TimestampTz,
            Self::Date,
            Self::Oversize,
            Self::Other,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == tag)
    }
}

/// One value, borrowed from a page or from a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its payload.
    pub bytes: &'a [u8],
}

impl<'a> Cell<'a> {
    /// SQL NULL.
    pub const NULL: Cell<'static> = Cell {
        kind: Kind::Null,
        bytes: &[],
    };

    /// The integer of an [`Kind::Int`] cell, and of nothing else.
    pub fn as_int(&self) -> Option<i64> {
        match self.kind {
            Kind::Int => self.bytes.try_into().ok().map(i64::from_be_bytes),
            _ => None,
        }
    }

    /// The size of an [`Kind::Oversize`] value.
    pub fn oversize(&self) -> Option<u64> {
        match self.kind {
            Kind::Oversize => self.bytes.try_into().ok().map(u64::from_be_bytes),
            _ => None,
        }
    }

    /// Appends the canonical text of a key value: decimal, lower-case hyphenated UUID, RFC 3339 with microseconds, lower-case hex
    /// for bytes, text as it stands. Associated-data templates (`{id}`) and reports show keys in this form.
    pub fn render(&self, out: &mut Vec<u8>) {
        match self.kind {
            Kind::Text => out.extend_from_slice(self.bytes),
            Kind::Int => {
                if let Some(number) = self.as_int() {
                    let mut text = itoa_buffer();
                    let _ = write!(text, "{number}");
                    out.extend_from_slice(text.as_bytes());
                }
            }
            Kind::Bytes => push_hex(self.bytes, out),
            Kind::Uuid => {
                for (part, range) in [(0, 0..4), (1, 4..6), (2, 6..8), (3, 8..10), (4, 10..16)] {
                    if part > 0 {
                        out.push(b'-');
                    }
                    push_hex(self.bytes.get(range).unwrap_or_default(), out);
                }
            }
            Kind::Timestamp | Kind::TimestampTz => out.extend_from_slice(self.render_timestamp().as_bytes()),
            Kind::Date => out.extend_from_slice(self.render_date().as_bytes()),
            Kind::Null | Kind::Oversize | Kind::Other => {}
        }
    }

    /// The canonical text as a `String`, for reports (invalid UTF-8 is replaced).
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.render(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn render_timestamp(&self) -> String {
        let micros = self.bytes.try_into().map(i64::from_be_bytes).unwrap_or(0);
        let seconds = micros.div_euclid(1_000_000) + POSTGRES_EPOCH_UNIX_SECONDS;
        let sub_nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
        match jiff::Timestamp::new(seconds, sub_nanos) {
            Ok(time) => {
                let text = format!("{time:.6}");
                match self.kind {
                    Kind::Timestamp => text.trim_end_matches('Z').to_owned(),
                    _ => text,
                }
            }
            // Beyond year 9999 there is no RFC 3339 form; the raw count is still unique.
            Err(_) => format!("{micros}us"),
        }
    }

    fn render_date(&self) -> String {
        let days = self.bytes.try_into().map(i32::from_be_bytes).unwrap_or(0);
        jiff::Timestamp::from_second(POSTGRES_EPOCH_UNIX_SECONDS + i64::from(days) * 86_400)
            .map_or_else(|_| format!("{days}d"), |time| time.strftime("%Y-%m-%d").to_string())
    }
}

/// An owned primary key, or a prefix of the key order: what cursors and range bounds are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    encoded: Box<[u8]>,
}

/// Stored key bytes that this build cannot read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a stored cursor is damaged, or was written by another version of reseal")]
pub struct DamagedKey;

impl Key {
    /// A key of these cells.
    pub fn new<'a>(cells: impl IntoIterator<Item = Cell<'a>>) -> Self {
        let mut encoded = vec![KEY_ENCODING_VERSION];
        for cell in cells {
            encoded.push(cell.kind as u8);
            // A key part is a column value; databases limit indexed values far below 4 GiB.
            let len = u32::try_from(cell.bytes.len()).unwrap_or(u32::MAX);
            encoded.extend_from_slice(&len.to_be_bytes());
            encoded.extend_from_slice(cell.bytes);
        }
        Self {
            encoded: encoded.into_boxed_slice(),
        }
    }

    /// The stored form: a version byte, then tag, length and payload of each part.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DamagedKey> {
        let (&version, mut rest) = bytes.split_first().ok_or(DamagedKey)?;
        if version != KEY_ENCODING_VERSION {
            return Err(DamagedKey);
        }
        while !rest.is_empty() {
            rest = split_cell(rest).ok_or(DamagedKey)?.1;
        }
        Ok(Self { encoded: bytes.into() })
    }

    /// The parts, in key order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut rest = &self.encoded[1..];
        std::iter::from_fn(move || {
            let (cell, after) = split_cell(rest)?;
            rest = after;
            Some(cell)
        })
    }
}

fn split_cell(bytes: &[u8]) -> Option<(Cell<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    let kind = Kind::from_tag(tag)?;
    Some((Cell { kind, bytes: payload }, rest))
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn itoa_buffer() -> String {
    String::with_capacity(I64_DIGITS_MAX)
}

/// `-9223372036854775808`.
const I64_DIGITS_MAX: usize = 20;
/// 2000-01-01T00:00:00Z, PostgreSQL's epoch, in seconds since 1970.
const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;
const KEY_ENCODING_VERSION: u8 = 1;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(kind: Kind, bytes: &[u8]) -> String {
        Cell { kind, bytes }.to_text()
    }

    #[test]
    fn keys_have_one_canonical_text() {
        assert_eq!(text(Kind::Int, &(-42i64).to_be_bytes()), "-42");
        assert_eq!(text(Kind::Int, &i64::MIN.to_be_bytes()), "-9223372036854775808");
        assert_eq!(text(Kind::Bytes, &[0, 255, 16]), "00ff10");
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(text(Kind::Uuid, &uuid), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(text(Kind::TimestampTz, &1i64.to_be_bytes()), "2000-01-01T00:00:00.000001Z");
        assert_eq!(text(Kind::Timestamp, &(-1i64).to_be_bytes()), "1999-12-31T23:59:59.999999");
        assert_eq!(text(Kind::Date, &366i32.to_be_bytes()), "2001-01-01");
    }

    #[test]
    fn a_stored_key_reads_back_and_damage_is_refused() {
        let key = Key::new([
            Cell {
                kind: Kind::Int,
                bytes: &7i64.to_be_bytes(),
            },
            Cell {
                kind: Kind::Bytes,
                bytes: &[1, 0, 0],
            },
        ]);
        let back = Key::from_bytes(key.as_bytes()).unwrap();
        assert_eq!(back, key);
        assert_eq!(back.cells().count(), 2);
        assert_eq!(back.cells().next().unwrap().as_int(), Some(7));
        for cut in [0, 3, key.as_bytes().len() - 1] {
            assert_eq!(Key::from_bytes(&key.as_bytes()[..cut]), Err(DamagedKey));
        }
        let mut newer = key.as_bytes().to_vec();
        newer[0] = 2;
        assert_eq!(Key::from_bytes(&newer), Err(DamagedKey));
    }
}
