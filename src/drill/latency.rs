//! Latencies: before, during and after the rotation, and bucket by bucket over the whole rehearsal.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::clock::Moment;

/// Which part of the rehearsal an operation falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Undisturbed, once caches are filled.
    Before,
    /// From the introduction of the new key to the retirement of the old one.
    During,
    /// Undisturbed again.
    After,
}

/// Latencies of one kind of operation, for each window.
#[derive(Clone)]
pub struct Latencies {
    windows: [Histogram<u64>; 3],
    /// Of those during the rotation, the ones in which values were being moved.
    moving: Histogram<u64>,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all operations were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Percentiles of all windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Windows {
    /// Undisturbed, once caches are filled: without the first quarter of that time.
    pub before: Percentiles,
    /// While keys changed and values moved.
    pub during: Percentiles,
    /// Within that, from the first value that was moved to the last that was verified: without the steps around it, in which keyrings
    /// are replaced and processes begin. Nothing where that was not seen.
    pub re_encryption: Option<Percentiles>,
    /// Undisturbed again.
    pub after: Percentiles,
}

/// What happened over time, in buckets of equal length. There are never more than [`BUCKETS_MAX`]: a long rehearsal has longer ones.
pub struct Series {
    origin: Moment,
    bucket: Moment,
    buckets: Vec<Bucket>,
    empty: Histogram<u32>,
}

/// The operations that began in one bucket.
#[derive(Clone)]
struct Bucket {
    /// Reads, writes.
    latencies: [Histogram<u32>; 2],
    /// Reads, writes.
    failed: [u64; 2],
}

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A read.
    Read,
    /// A write.
    Write,
}

/// One bucket in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Seconds from the beginning of the rehearsal to that of the bucket.
    pub at_seconds: f64,
    /// Reads that began in it.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads that failed, which are not among them.
    pub failed_reads: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Latencies of the reads, if there were any.
    pub read_ms: Option<Percentiles>,
    /// Latencies of the writes, if there were any.
    pub write_ms: Option<Percentiles>,
}

impl Latencies {
    /// Nothing measured yet.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        let empty = Histogram::new_with_bounds(1, MICROSECONDS_MAX, SIGNIFICANT_DIGITS)?;
        Ok(Self {
            windows: [empty.clone(), empty.clone(), empty.clone()],
            moving: empty,
        })
    }

    /// Adds an operation.
    pub fn record(&mut self, window: Window, microseconds: u64) {
        self.windows[window as usize].saturating_record(microseconds.max(1));
    }

    /// It fell into the time in which values were moved.
    pub fn record_moving(&mut self, microseconds: u64) {
        self.moving.saturating_record(microseconds.max(1));
    }

    /// The percentiles.
    pub fn windows(&self) -> Windows {
        let [before, during, after] = [0, 1, 2].map(|window| percentiles(&self.windows[window]));
        Windows {
            before,
            during,
            re_encryption: (!self.moving.is_empty()).then(|| percentiles(&self.moving)),
            after,
        }
    }
}

impl Windows {
    /// How many times as long the slowest hundredth took during the rotation as before it; `None` where nothing was measured.
    pub fn p99_ratio(&self) -> Option<f64> {
        let ratio = self.during.p99 / self.before.p99;
        ratio.is_finite().then(|| (ratio * 100.0).round() / 100.0)
    }
}

impl Series {
    /// Nothing yet; it begins at `origin`.
    pub fn new(origin: Moment) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            origin,
            bucket: BUCKET_NANOSECONDS,
            buckets: Vec::new(),
            empty: Histogram::new_with_bounds(1, MICROSECONDS_MAX, SERIES_DIGITS)?,
        })
    }

    /// Adds an operation that began at this moment.
    pub fn record(&mut self, kind: Kind, at: Moment, microseconds: u64) {
        self.at(at).latencies[kind as usize].saturating_record(microseconds.max(1));
    }

    /// Adds a failure.
    pub fn record_failure(&mut self, kind: Kind, at: Moment) {
        self.at(at).failed[kind as usize] += 1;
    }

    /// The numbers of every bucket.
    pub fn points(&self) -> Vec<Point> {
        let points = self.buckets.iter().zip(0_u64..).map(|(bucket, number)| {
            let [reads, writes] = &bucket.latencies;
            let measured = |histogram: &Histogram<u32>| (!histogram.is_empty()).then(|| percentiles(histogram));
            Point {
                at_seconds: (number * self.bucket) as f64 / 1e9,
                reads: reads.len(),
                writes: writes.len(),
                failed_reads: bucket.failed[0],
                failed_writes: bucket.failed[1],
                read_ms: measured(reads),
                write_ms: measured(writes),
            }
        });
        points.collect()
    }

    /// Seconds of a bucket.
    pub fn bucket_seconds(&self) -> f64 {
        self.bucket as f64 / 1e9
    }

    fn at(&mut self, moment: Moment) -> &mut Bucket {
        let since = moment.saturating_sub(self.origin);
        while since / self.bucket >= BUCKETS_MAX as Moment {
            self.halve();
        }
        // Below BUCKETS_MAX after the loop.
        let at = (since / self.bucket) as usize;
        if at >= self.buckets.len() {
            let fresh = Bucket {
                latencies: [self.empty.clone(), self.empty.clone()],
                failed: [0; 2],
            };
            self.buckets.resize(at + 1, fresh);
        }
        &mut self.buckets[at]
    }

    /// Two buckets become one.
    fn halve(&mut self) {
        self.bucket *= 2;
        let mut merged: Vec<Bucket> = Vec::with_capacity(self.buckets.len() / 2 + 1);
        for (number, bucket) in self.buckets.drain(..).enumerate() {
            match merged.last_mut() {
                Some(last) if number % 2 == 1 => {
                    last.failed[0] += bucket.failed[0];
                    last.failed[1] += bucket.failed[1];
                    for (mine, other) in last.latencies.iter_mut().zip(&bucket.latencies) {
                        // Equal bounds: there are no others.
                        let _ = mine.add(other);
                    }
                }
                _ => merged.push(bucket),
            }
        }
        self.buckets = merged;
    }
}

fn percentiles<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Percentiles {
    let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
    Percentiles {
        p50: milliseconds(histogram.value_at_quantile(0.50)),
        p99: milliseconds(histogram.value_at_quantile(0.99)),
        max: milliseconds(histogram.max()),
    }
}

/// Longer waits count as this long: two minutes, beyond every timeout.
const MICROSECONDS_MAX: u64 = 120_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// One in a hundred is finer than a plot shows, and a tenth of the memory.
const SERIES_DIGITS: u8 = 2;
/// At first, a tenth of a second each.
const BUCKET_NANOSECONDS: Moment = 100_000_000;
/// With two histograms of 10 KiB each, 6 MiB.
pub const BUCKETS_MAX: usize = 300;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_has_longer_buckets_and_loses_nothing() {
        let mut series = Series::new(1_000).unwrap();
        for tenth in 0..1_000_u64 {
            series.record(Kind::Read, 1_000 + tenth * BUCKET_NANOSECONDS, 1_000 + tenth);
            series.record(Kind::Write, 1_000 + tenth * BUCKET_NANOSECONDS, 500);
        }
        series.record_failure(Kind::Write, 1_000 + 999 * BUCKET_NANOSECONDS);
        let points = series.points();
        assert!(points.len() <= BUCKETS_MAX, "{}", points.len());
        assert_eq!(
            points
                .iter()
                .map(|point| (point.reads, point.writes))
                .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (1_000, 1_000)
        );
        assert_eq!(points.iter().map(|point| point.failed_writes).sum::<u64>(), 1);
        assert_eq!(points.last().unwrap().failed_writes, 1);
        assert!((series.bucket_seconds() - 0.4).abs() < 1e-9);
        assert!((points[1].at_seconds - 0.4).abs() < 1e-9);
        let first = points[0].read_ms.unwrap();
        assert!(first.p50 > 0.9 && first.max < 1.1, "{first:?}");
        assert!(points[0].write_ms.unwrap().max < 0.6);
    }
}
