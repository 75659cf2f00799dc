//! What all instances of the application did and met, added up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::{Moment, nanoseconds};
use super::failure::Failure;
use super::latency::{Kind, Latencies, Series, Window};
use crate::rotation::protocol::Phase;

/// Counts and latencies.
pub struct Tally {
    /// Read operations.
    pub reads: u64,
    /// Rows compared with the model.
    pub rows_checked: u64,
    /// Write operations.
    pub writes: u64,
    /// Read operations that failed or saw what they must not, by why.
    pub failed_reads: BTreeMap<Failure, u64>,
    /// Write operations that failed, by why.
    pub failed_writes: BTreeMap<Failure, u64>,
    /// Operations that were done again because their connection was lost.
    pub interrupted: u64,
    /// Writes whose reply was lost: they had happened, and they had not.
    pub settled: [u64; 2],
    /// The first failures, told one by one.
    pub incidents: Vec<String>,
    /// Latencies of reads.
    pub read_latencies: Latencies,
    /// Latencies of writes.
    pub write_latencies: Latencies,
    /// All of it over time.
    pub series: Series,
    /// From when on latencies count: an application that has just started has yet to fill its caches.
    warm: Moment,
    /// When the rotation began and ended.
    during: [Moment; 2],
    /// When it began to move values, and had verified them.
    moving: [Moment; 2],
}

impl Tally {
    /// Nothing done yet.
    pub fn new(origin: Moment) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            reads: 0,
            rows_checked: 0,
            writes: 0,
            failed_reads: BTreeMap::new(),
            failed_writes: BTreeMap::new(),
            interrupted: 0,
            settled: [0; 2],
            incidents: Vec::new(),
            read_latencies: Latencies::new()?,
            write_latencies: Latencies::new()?,
            series: Series::new(origin)?,
            warm: Moment::MAX,
            during: [Moment::MAX; 2],
            moving: [Moment::MAX; 2],
        })
    }

    /// Traffic that counts begins, for so long before the rotation. In the first quarter of it the application fills its caches: its
    /// latencies, and those before, are in the series alone.
    pub fn traffic_begins(&mut self, at: Moment, before: Duration) {
        self.warm = at.saturating_add(nanoseconds(before / 4));
    }

    /// The rotation begins.
    pub fn rotation_begins(&mut self, at: Moment) {
        self.during[0] = at;
    }

    /// The rotation is over.
    pub fn rotation_ends(&mut self, at: Moment) {
        self.during[1] = at;
        self.moving[1] = at.min(self.moving[1]);
    }

    /// The rotation is seen in this phase. Values are moved from the first time on that it is in one of those that do, killed and begun
    /// again in between or not, until it is in one after them, or over.
    pub fn rotation_enters(&mut self, phase: Phase, at: Moment) {
        let end = match phase {
            Phase::Introduce | Phase::Promote => return,
            Phase::ReEncrypt | Phase::Verify => &mut self.moving[0],
            Phase::Retire | Phase::Done | Phase::RolledBack | Phase::Superseded => &mut self.moving[1],
        };
        *end = at.min(*end);
    }

    /// An operation that went through, begun at this moment.
    pub fn done(&mut self, kind: Kind, begun: Moment, microseconds: u64) {
        let window = self.window(begun);
        let (count, latencies) = match kind {
            Kind::Read => (&mut self.reads, &mut self.read_latencies),
            Kind::Write => (&mut self.writes, &mut self.write_latencies),
        };
        *count += 1;
        if let Some(window) = window {
            latencies.record(window, microseconds);
        }
        if (self.moving[0]..self.moving[1]).contains(&begun) {
            latencies.record_moving(microseconds);
        }
        self.series.record(kind, begun, microseconds);
    }

    /// An operation of this instance that failed, told with what is known of the row.
    pub fn failed(&mut self, kind: Kind, instance: &str, id: i64, at: Moment, failure: Failure, known: &str) {
        let (verb, count, failures) = match kind {
            Kind::Read => ("read of", &mut self.reads, &mut self.failed_reads),
            Kind::Write => ("write to", &mut self.writes, &mut self.failed_writes),
        };
        *count += 1;
        if self.incidents.len() < INCIDENTS_MAX {
            let why = failure.describe();
            self.incidents
                .push(format!("{instance} at {at}: {verb} row {id}: {why}; its history: {known}"));
        }
        *failures.entry(failure).or_default() += 1;
        self.series.record_failure(kind, at);
    }

    fn window(&self, moment: Moment) -> Option<Window> {
        match self.during {
            [from, _] if moment < from => (moment >= self.warm).then_some(Window::Before),
            [_, to] if moment < to => Some(Window::During),
            _ => Some(Window::After),
        }
    }
}

/// Enough to see what went wrong; counts are exact.
const INCIDENTS_MAX: usize = 50;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_an_application_did_while_it_warmed_up_is_no_measure_of_what_it_suffers_later() {
        let mut tally = Tally::new(0).unwrap();
        tally.done(Kind::Read, 1, 30_000);
        tally.traffic_begins(6, Duration::from_nanos(16));
        tally.done(Kind::Read, 9, 20_000);
        tally.done(Kind::Read, 10, 200);
        tally.rotation_begins(20);
        tally.done(Kind::Read, 20, 400);
        tally.rotation_ends(30);
        tally.done(Kind::Read, 30, 100);
        let windows = tally.read_latencies.windows();
        assert_eq!((windows.before.max, windows.during.max, windows.after.max), (0.2, 0.4, 0.1));
        assert_eq!(tally.reads, 5);
        assert_eq!(tally.series.points()[0].reads, 5);
    }
}
