//! The associated data of a value, from the columns of its row.

use super::recipe::{BoundTemplate, Position};
use crate::format::{Component, tag};
use crate::store::page::Page;
use crate::store::value::{Cell, Kind};

/// Renders associated data, reusing its memory from value to value.
#[derive(Default)]
pub struct Binder {
    texts: Vec<u8>,
    spans: Vec<(u8, usize, usize)>,
    rendered: Vec<u8>,
}

/// A column that the template needs is NULL.
pub struct NullContext;

impl Binder {
    /// What [`bind`](Self::bind) rendered last.
    pub fn bound(&self) -> &[u8] {
        &self.rendered
    }

    /// The associated data of one value of a row; empty without a template.
    pub fn bind(&mut self, bound: Option<&BoundTemplate>, page: &Page, row: usize) -> Result<&[u8], NullContext> {
        self.rendered.clear();
        let Some(bound) = bound else { return Ok(&self.rendered) };
        self.texts.clear();
        self.spans.clear();
        for position in &bound.positions {
            let cell = match *position {
                Position::Key(part) => page.key(row, part),
                Position::Context(part) => page.context(row, part),
            };
            let start = self.texts.len();
            cell.render(&mut self.texts);
            self.spans.push((tag_of(cell), start, self.texts.len()));
        }
        let (texts, spans) = (&self.texts, &self.spans);
        let component = |index: usize| {
            let (tag, start, end) = spans[index];
            Component {
                tag,
                bytes: &texts[start..end],
            }
        };
        bound.data.render(component, &mut self.rendered).map_err(|_| NullContext)?;
        Ok(&self.rendered)
    }
}

fn tag_of(cell: Cell<'_>) -> u8 {
    match cell.kind {
        Kind::Null | Kind::Oversize | Kind::Other => tag::NULL,
        Kind::Int => tag::INTEGER,
        Kind::Text => tag::TEXT,
        Kind::Bytes => tag::BYTES,
        Kind::Uuid => tag::UUID,
        // A date's text is shorter than any time's: no two of them are alike.
        Kind::Timestamp | Kind::TimestampTz | Kind::Date => tag::TIMESTAMP,
    }
}
