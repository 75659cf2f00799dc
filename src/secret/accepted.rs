//! The values of one secret that its application accepts: the one that it signs with, and the others, newest first.
//!
//! A rotation in steps never takes a value into use before every instance can accept it: it joins the others first (introduce), takes
//! the place of the one that signs (promote), and what was replaced leaves at last (retire). Where a secret stands is read from its
//! place; which of the others was introduced, the record knows.

use super::SecretText;
use super::list::Values;
use super::record::Staged;
use super::rotate::{Occasion, OrderFault};

/// The values as they stand.
pub(super) struct Accepted {
    pub(super) primary: Option<SecretText>,
    pub(super) others: Values,
}

/// Whether a step had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The values are others now.
    Changed,
    /// It was done before.
    Already,
}

impl Accepted {
    /// No value.
    pub(super) fn nothing() -> Self {
        Self {
            primary: None,
            others: Values::none(),
        }
    }

    /// Does one step. `new` is a value that was made for it; `keep` is how many of the replaced values stay.
    pub(super) fn step(
        &mut self,
        occasion: Occasion,
        new: Option<&SecretText>,
        staged: Option<&Staged>,
        keep: Option<usize>,
    ) -> Result<Done, OrderFault> {
        let is_staged = |value: &str| staged.is_some_and(|staged| staged.is(value));
        let waiting = self.others.position(is_staged);
        let is_in_use = self.primary.as_ref().is_some_and(|primary| is_staged(primary.expose()));
        let copy = |value: &SecretText| SecretText::new(value.expose().to_owned());
        match occasion {
            Occasion::Compromised => {
                self.primary = new.map(copy);
                self.others = Values::none();
            }
            Occasion::Scheduled if waiting.is_some() => return Err(OrderFault::Waiting),
            Occasion::Scheduled => self.replace(new.map(copy), keep),
            Occasion::Introduce if waiting.is_some() => return Ok(Done::Already),
            Occasion::Introduce => {
                if let Some(new) = new {
                    self.others.push_front(new.expose(), None);
                }
            }
            Occasion::Promote => match waiting {
                Some(at) => {
                    let promoted = self.others.take(at);
                    self.replace(promoted, keep);
                }
                None if is_in_use => return Ok(Done::Already),
                None => return Err(OrderFault::NotIntroduced),
            },
            Occasion::Retire if waiting.is_some() => return Err(OrderFault::Waiting),
            Occasion::Retire if self.others.len() == 0 => return Ok(Done::Already),
            Occasion::Retire => self.others = Values::none(),
        }
        Ok(Done::Changed)
    }

    /// The value that signed joins the others.
    fn replace(&mut self, new: Option<SecretText>, keep: Option<usize>) {
        if let Some(old) = self.primary.take().filter(|old| !old.is_empty()) {
            self.others.push_front(old.expose(), keep);
        }
        self.primary = new;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::settings::ListForm;
    use super::*;

    fn accepted(primary: &str, others: &str) -> Accepted {
        Accepted {
            primary: Some(SecretText::new(primary.to_owned())),
            others: Values::read(others, ListForm::Comma).unwrap(),
        }
    }

    fn stand(accepted: &Accepted) -> (String, String) {
        let primary = accepted.primary.as_ref().map_or("", |primary| primary.expose()).to_owned();
        (primary, accepted.others.write(ListForm::Comma).unwrap().to_string())
    }

    #[test]
    fn a_value_is_accepted_before_it_signs_and_after() {
        let mut values = accepted("old", "older");
        let (new, staged) = (SecretText::new("new".to_owned()), Staged::for_test("new"));
        let mut step = |occasion, new| {
            values
                .step(occasion, new, Some(&staged), Some(1))
                .map(|done| (done, stand(&values)))
        };
        let stood = |primary: &str, others: &str| (primary.to_owned(), others.to_owned());
        assert_eq!(step(Occasion::Promote, None), Err(OrderFault::NotIntroduced));
        assert_eq!(
            step(Occasion::Introduce, Some(&new)),
            Ok((Done::Changed, stood("old", "new,older")))
        );
        assert_eq!(
            step(Occasion::Introduce, None),
            Ok((Done::Already, stood("old", "new,older")))
        );
        assert_eq!(step(Occasion::Retire, None), Err(OrderFault::Waiting));
        assert_eq!(step(Occasion::Scheduled, Some(&new)), Err(OrderFault::Waiting));
        assert_eq!(step(Occasion::Promote, None), Ok((Done::Changed, stood("new", "old"))));
        assert_eq!(step(Occasion::Promote, None), Ok((Done::Already, stood("new", "old"))));
        assert_eq!(step(Occasion::Retire, None), Ok((Done::Changed, stood("new", ""))));
        assert_eq!(step(Occasion::Retire, None), Ok((Done::Already, stood("new", ""))));
    }

    #[test]
    fn a_leak_leaves_nothing_that_was_introduced() {
        let mut values = accepted("old", "waiting,older");
        let new = SecretText::new("new".to_owned());
        let staged = Staged::for_test("waiting");
        assert_eq!(
            values.step(Occasion::Compromised, Some(&new), Some(&staged), None),
            Ok(Done::Changed)
        );
        assert_eq!(stand(&values), ("new".to_owned(), String::new()));
    }
}
