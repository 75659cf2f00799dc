//! Finding the one row that the database refuses (a CHECK, a trigger that raises): batches are halved until it stands alone. Then it
//! stays as it is, quarantined, and the others go on.

use std::sync::{Mutex, PoisonError};

use crate::store::StoreError;
use crate::store::page::Quarantined;
use crate::store::value::Key;

/// How the next batch of a range is to be cut. The default is: not at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    narrowed: Option<Narrowed>,
}

#[derive(Debug, PartialEq, Eq)]
struct Narrowed {
    /// What was refused first.
    rows_before: usize,
    /// What is tried now.
    rows: usize,
    /// Why the row that now stands alone is to be left.
    withhold: Option<String>,
}

impl Isolation {
    /// The most rows of the next batch.
    pub fn rows_max(&self) -> usize {
        self.narrowed.as_ref().map_or(usize::MAX, |narrowed| narrowed.rows)
    }

    /// Why the row of the next batch stays as it is.
    pub fn withhold(&self) -> Option<&str> {
        self.narrowed.as_ref()?.withhold.as_deref()
    }

    /// A batch went through: the next one may be larger again.
    pub fn widen(&mut self) {
        if let Some(narrowed) = &mut self.narrowed {
            narrowed.withhold = None;
            narrowed.rows *= 2;
            if narrowed.rows >= narrowed.rows_before {
                self.narrowed = None;
            }
        }
    }

    /// A batch of up to `rows` rows was refused for one of them. Says `false` when nothing is left to cut away: even the row that was
    /// not to be written is refused, so that it is not the row.
    pub fn narrow(&mut self, rows: usize, error: &StoreError) -> bool {
        let narrowed = self.narrowed.get_or_insert(Narrowed {
            rows_before: rows,
            rows,
            withhold: None,
        });
        if narrowed.withhold.is_some() {
            return false;
        }
        if narrowed.rows > 1 {
            narrowed.rows /= 2;
        } else {
            narrowed.withhold = Some(reason(error));
        }
        true
    }
}

/// The stable text of a quarantine entry. The server's own message stays out of it: what a trigger raises may quote the row.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Row { code, .. } => format!("the database refused the row with its new value ({code})"),
        _ => "the database refused the row with its new value".to_owned(),
    }
}

/// Values that stay under their old key, because the database refuses the rows that their new ones would make.
#[derive(Debug, Default)]
pub struct Withheld(Mutex<Vec<(String, Quarantined)>>);

impl Withheld {
    /// Remembers values of a relation, each once.
    pub fn add(&self, relation: &str, values: &[Quarantined]) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values {
            let known =
                |(of, entry): &(String, Quarantined)| of == relation && entry.key == value.key && entry.column == value.column;
            if !list.iter().any(known) {
                list.push((relation.to_owned(), value.clone()));
            }
        }
    }

    /// Whether this value is one of them.
    pub fn holds(&self, key: &Key, column: usize) -> bool {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().any(|(_, entry)| entry.key == *key && entry.column == column)
    }

    /// Whether there are so many that the database refuses the rotation and not single rows.
    pub fn is_too_many(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() > WITHHELD_MAX
    }

    /// All of them, by relation.
    pub fn list(&self) -> Vec<(String, Quarantined)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Values. Beyond that the cause is a rule of the schema, and halving batches for each row would take for ever.
const WITHHELD_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> StoreError {
        StoreError::Row {
            code: "23514".to_owned(),
            message: "secret".to_owned(),
        }
    }

    #[test]
    fn a_refused_row_is_found_in_logarithmic_steps_and_the_batch_grows_back() {
        let mut isolation = Isolation::default();
        assert_eq!((isolation.rows_max(), isolation.withhold()), (usize::MAX, None));
        let mut steps = 0;
        while isolation.withhold().is_none() {
            assert!(isolation.narrow(1000, &refused()));
            steps += 1;
        }
        assert_eq!((steps, isolation.rows_max()), (10, 1));
        let reason = isolation.withhold().unwrap_or_default();
        assert!(reason.contains("23514") && !reason.contains("secret"), "{reason}");
        assert!(
            !isolation.narrow(1000, &refused()),
            "a row that is not written cannot be the one"
        );
        for rows in [2, 4, 8] {
            isolation.widen();
            assert_eq!((isolation.rows_max(), isolation.withhold()), (rows, None));
        }
        for _ in 0..7 {
            isolation.widen();
        }
        assert_eq!(isolation, Isolation::default());
    }

    #[test]
    fn a_single_row_is_left_at_once() {
        let mut isolation = Isolation::default();
        assert!(isolation.narrow(1, &refused()));
        assert!(isolation.withhold().is_some());
    }
}
