//! Pages of wide rows: the server stops sending near the byte cap, instead of sending everything up to the row limit.
//!
//! Adding up the sizes costs the server a little for every row, so that it is asked for only where rows have turned out to be wide.

use crate::store::survey::Survey;

/// The statement of a page (`statements::page`), ended by the server after the row that passes the number of bytes in parameter
/// `$bytes`. Sizes are read from the rows' headers: no large value is fetched for it.
pub fn bounded(survey: &Survey, page: &str, versions: bool, bytes: usize) -> String {
    let first = if versions { 2 } else { 0 } + survey.key.len() + survey.contexts.len();
    let names: Vec<String> = (0..first + 2 * survey.values.len()).map(|at| format!("c{at}")).collect();
    let sizes: Vec<String> = (0..survey.values.len())
        .map(|at| format!("coalesce(octet_length(c{}), 0)::int8", first + 2 * at))
        .collect();
    let (names, size) = (names.join(", "), sizes.join(" + "));
    format!(
        "SELECT {names} FROM (SELECT {names}, {size} AS size, sum({size}) OVER (ROWS UNBOUNDED PRECEDING) AS total \
         FROM ({page}) page ({names})) sized WHERE total - size < ${bytes}"
    )
}

/// What the pages of a session have shown about its rows.
#[derive(Debug, Clone, Copy)]
pub struct Width {
    /// Pages to go before the plain statement is tried again; 0 uses it.
    wide_for: u32,
}

impl Width {
    /// Nothing is known of the first page, and one plain page of the widest rows is thousands of times the cap.
    pub fn unknown() -> Self {
        Self { wide_for: 1 }
    }

    /// Whether the next page is bounded by the server.
    pub fn is_wide(self) -> bool {
        self.wide_for > 0
    }

    /// Learns from a page: how many rows it had of those that were asked for, and whether its bytes ended it.
    pub fn learn(&mut self, rows: usize, limit: usize, by_bytes: bool) {
        if by_bytes && rows < limit {
            self.wide_for = WIDE_PAGES;
        } else {
            self.wide_for = self.wide_for.saturating_sub(1);
        }
    }
}

/// Wide rows come in runs; a page that was asked for plainly among them may cost a hundred bounded ones.
const WIDE_PAGES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_cut_short_by_its_bytes_bounds_the_next_ones() {
        let mut width = Width::unknown();
        assert!(width.is_wide());
        width.learn(1_000, 1_000, false);
        assert!(!width.is_wide());
        width.learn(3, 1_000, true);
        for _ in 0..WIDE_PAGES {
            assert!(width.is_wide());
            width.learn(1_000, 1_000, false);
        }
        assert!(!width.is_wide());
        // A page that is full by both limits was not sent in vain.
        width.learn(1_000, 1_000, true);
        assert!(!width.is_wide());
    }
}
