//! What the rotation did when: as the database's record of it was seen while it ran, and in its own numbers once it has told them.

use std::time::Duration;

use crate::drill::clock::Moment;
use crate::drill::report::{Phase, seconds};

/// The phases of a rotation over all its runs.
pub(in crate::drill) struct Timeline {
    origin: Moment,
    phases: Vec<Phase>,
    /// What it was seen doing last, and since when.
    doing: Option<(&'static str, Moment)>,
    /// The phases before the present run.
    before_run: usize,
}

impl Timeline {
    /// Nothing yet, in a rehearsal that began at `origin`.
    pub(in crate::drill) fn new(origin: Moment) -> Self {
        Self {
            origin,
            phases: Vec::new(),
            doing: None,
            before_run: 0,
        }
    }

    /// A run begins.
    pub(in crate::drill) fn run_begins(&mut self) {
        self.before_run = self.phases.len();
    }

    /// It was seen doing this. Says whether that is news.
    pub(in crate::drill) fn sees(&mut self, doing: &'static str, at: Moment) -> bool {
        let is_news = self.doing.is_none_or(|(known, _)| known != doing);
        if is_news {
            self.close(at);
            self.doing = Some((doing, at));
        }
        is_news
    }

    /// The run is over. What it tells of its phases is more exact than what was seen.
    pub(in crate::drill) fn run_ends(&mut self, told: &[(String, f64)], at: Moment) {
        self.close(at);
        let seen = self.phases.get(self.before_run).map(|first| first.at_seconds);
        let (Some(mut begin), false) = (seen, told.is_empty()) else {
            return;
        };
        let end = self.since_origin(at);
        self.phases.truncate(self.before_run);
        for (name, time) in told {
            let time = seconds(Duration::from_secs_f64(time.min(end - begin).max(0.0)));
            // Nothing was left to be done in it.
            if time > 0.0 {
                self.phases.push(Phase {
                    name: known(name),
                    at_seconds: (begin * 1e3).round() / 1e3,
                    seconds: time,
                });
            }
            begin += time;
        }
    }

    /// The time that was spent in phases of this name.
    pub(in crate::drill) fn seconds_of(&self, name: &str) -> f64 {
        let named = self.phases.iter().filter(|phase| phase.name == name);
        named.map(|phase| phase.seconds).sum()
    }

    /// All of them, in order.
    pub(in crate::drill) fn into_phases(self) -> Vec<Phase> {
        self.phases
    }

    fn close(&mut self, at: Moment) {
        if let Some((name, since)) = self.doing.take() {
            let at_seconds = self.since_origin(since);
            self.phases.push(Phase {
                name,
                at_seconds,
                seconds: seconds(Duration::from_nanos(at.saturating_sub(since))),
            });
        }
    }

    fn since_origin(&self, at: Moment) -> f64 {
        seconds(Duration::from_nanos(at.saturating_sub(self.origin)))
    }
}

fn known(name: &str) -> &'static str {
    let known = ["introduce", "promote", "re-encrypt", "sweep", "verify", "retire"];
    known.into_iter().find(|known| *known == name).unwrap_or("rotation")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Moment = 1_000_000_000;

    fn told(timeline: Timeline) -> Vec<(&'static str, f64, f64)> {
        let phases = timeline.into_phases().into_iter();
        phases.map(|phase| (phase.name, phase.at_seconds, phase.seconds)).collect()
    }

    #[test]
    fn a_killed_run_is_told_as_it_was_seen_and_the_last_one_in_its_own_numbers() {
        let mut timeline = Timeline::new(10 * SECOND);
        timeline.run_begins();
        assert!(timeline.sees("introduce", 11 * SECOND));
        assert!(!timeline.sees("introduce", 12 * SECOND));
        assert!(timeline.sees("re-encrypt", 13 * SECOND));
        timeline.run_ends(&[], 15 * SECOND);
        timeline.run_begins();
        assert!(timeline.sees("re-encrypt", 17 * SECOND));
        assert!(timeline.sees("sweep", 18 * SECOND));
        let own = [
            ("re-encrypt".to_owned(), 0.5),
            ("sweep".to_owned(), 1.0),
            ("verify".to_owned(), 9.0),
        ];
        timeline.run_ends(&own, 20 * SECOND);
        assert_eq!(timeline.seconds_of("re-encrypt"), 2.5);
        let expected = [
            ("introduce", 1.0, 2.0),
            ("re-encrypt", 3.0, 2.0),
            ("re-encrypt", 7.0, 0.5),
            ("sweep", 7.5, 1.0),
            // Nothing reaches beyond the end of its run.
            ("verify", 8.5, 1.5),
        ];
        assert_eq!(told(timeline), expected);
    }
}
