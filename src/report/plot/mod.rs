//! Plots of a rehearsal over time: latency of reads, latency of writes, throughput; phases shaded, faults marked.
//!
//! Each is drawn twice, for a wide page and for a phone, because letters must not shrink with the page. The colours are those of the
//! light page, so that a plot is legible without style sheets; a dark page exchanges them by name (`page.css`).

mod axis;
mod chart;
mod strip;

use super::rehearsal::{Activity, Percentiles, Point, Rehearsal, Series};
use super::sentence;
use chart::{Chart, Line, Shape};

/// A plot, ready for a page.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Unique within the page, usable as an id.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What is to be seen in it, for those who do not see it.
    pub description: String,
    /// For wide pages.
    pub wide: Drawing,
    /// For phones.
    pub narrow: Drawing,
}

/// The inside of an `<svg>` element.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// Units of its width.
    pub width: u32,
    /// Units of its height.
    pub height: u32,
    /// Elements; every text in them is escaped.
    pub elements: String,
}

/// The plots of a rehearsal; none when nothing was recorded over time. Give it a [`plain`](super::plain::plain) one.
pub fn figures(rehearsal: &Rehearsal) -> Vec<Figure> {
    let series = thinned(&rehearsal.series);
    let is_time = |point: &Point| point.begin_seconds.is_finite() && point.begin_seconds.abs() < SECONDS_MAX;
    let is_drawable = (SECONDS_MIN..SECONDS_MAX).contains(&series.bucket_seconds) && series.points.iter().all(is_time);
    if series.points.is_empty() || !is_drawable {
        return Vec::new();
    }
    vec![
        latency(rehearsal, &series, "reads", "Latency of reads", |point| point.reads),
        latency(rehearsal, &series, "writes", "Latency of writes", |point| point.writes),
        throughput(rehearsal, &series),
    ]
}

fn latency(
    rehearsal: &Rehearsal,
    series: &Series,
    id: &'static str,
    title: &'static str,
    of: fn(&Point) -> Activity,
) -> Figure {
    let line = |name, color, strength, pick: fn(Percentiles) -> f64| Line {
        name,
        color,
        strength,
        points: middles(series, |point| of(point).latency_ms.map(pick)),
    };
    let lines = vec![
        line("max", color::MAX, Strength::Thin, |latency| latency.max),
        line("p99", color::P99, Strength::Normal, |latency| latency.p99),
        line("p50", color::P50, Strength::Normal, |latency| latency.p50),
    ];
    let worst = series
        .points
        .iter()
        .filter_map(|point| Some((point.begin_seconds, of(point).latency_ms?.max)));
    let worst = worst.max_by(|(_, a), (_, b)| a.total_cmp(b));
    let description = match worst {
        None => "There were none.".to_owned(),
        Some((at, max)) => format!(
            "Median, 99th percentile and maximum for every {} on a logarithmic scale. The slowest took {} ms, at {}.",
            sentence::duration(series.bucket_seconds),
            sentence::measure(max),
            sentence::duration(at)
        ),
    };
    figure(rehearsal, series, id, title, description, &lines, axis::Scale::Logarithmic)
}

fn throughput(rehearsal: &Rehearsal, series: &Series) -> Figure {
    let rate = |name, color, pick: fn(&Point) -> u64| Line {
        name,
        color,
        strength: Strength::Normal,
        points: middles(series, |point| Some(pick(point) as f64 / series.bucket_seconds)),
    };
    let mut lines = vec![
        rate("reads", color::READS, |point| point.reads.operations),
        rate("writes", color::WRITES, |point| point.writes.operations),
    ];
    let failed = |point: &Point| point.failed;
    let total: u64 = series.points.iter().map(failed).sum();
    if total > 0 {
        lines.push(Line {
            strength: Strength::Dots,
            // Where nothing failed there is no dot.
            points: middles(series, |point| match failed(point) {
                0 => None,
                count => Some(count as f64 / series.bucket_seconds),
            }),
            ..rate("failed", color::FAILED, failed)
        });
    }
    let description = format!(
        "Operations that ended per second. {}",
        match total {
            0 => "None failed.".to_owned(),
            total => format!("{} failed.", sentence::count(total)),
        }
    );
    figure(
        rehearsal,
        series,
        "throughput",
        "Throughput per second",
        description,
        &lines,
        axis::Scale::Linear,
    )
}

fn figure(
    rehearsal: &Rehearsal,
    series: &Series,
    id: &'static str,
    title: &'static str,
    description: String,
    lines: &[Line],
    scale: axis::Scale,
) -> Figure {
    let last = series.points.last().map_or(0.0, |point| point.begin_seconds);
    let first = series.points.first().map_or(0.0, |point| point.begin_seconds);
    let chart = Chart {
        lines,
        scale,
        seconds: first..last + series.bucket_seconds,
        phases: &rehearsal.phases,
        faults: &rehearsal.faults,
    };
    Figure {
        id,
        title,
        description,
        wide: chart.draw(&Shape::WIDE),
        narrow: chart.draw(&Shape::NARROW),
    }
}

/// A value for the middle of every stretch of time.
fn middles(series: &Series, value: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
    let half = series.bucket_seconds / 2.0;
    let middle = |point: &Point| (point.begin_seconds + half, value(point));
    series.points.iter().map(middle).collect()
}

/// No more points than a picture can show: neighbours are joined, counts added up, latencies the worse of both.
fn thinned(series: &Series) -> Series {
    let every = series.points.len().div_ceil(POINTS_MAX).max(1);
    Series {
        bucket_seconds: series.bucket_seconds * every as f64,
        points: series.points.chunks(every).filter_map(joined).collect(),
    }
}

fn joined(points: &[Point]) -> Option<Point> {
    let (first, rest) = points.split_first()?;
    Some(rest.iter().fold(*first, |sum, point| Point {
        begin_seconds: sum.begin_seconds,
        reads: worse(sum.reads, point.reads),
        writes: worse(sum.writes, point.writes),
        failed: sum.failed + point.failed,
    }))
}

fn worse(a: Activity, b: Activity) -> Activity {
    let latency_ms = match (a.latency_ms, b.latency_ms) {
        (Some(a), Some(b)) => Some(Percentiles {
            p50: a.p50.max(b.p50),
            p99: a.p99.max(b.p99),
            max: a.max.max(b.max),
        }),
        (a, b) => a.or(b),
    };
    Activity {
        operations: a.operations + b.operations,
        latency_ms,
    }
}

/// How a line looks besides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    Thin,
    Normal,
    Dots,
}

/// No rehearsal is finer or longer: a microsecond, thirty years.
const SECONDS_MIN: f64 = 1e-6;
const SECONDS_MAX: f64 = 1e9;
/// Two points a pixel of the wide plot say nothing more.
const POINTS_MAX: usize = 600;

/// The colours of the light page. `page.css` names each of them once more, for the dark one.
mod color {
    use plotters::style::RGBColor;

    pub const TEXT: RGBColor = RGBColor(0x3d, 0x44, 0x4d);
    pub const AXIS: RGBColor = RGBColor(0x8c, 0x95, 0x9f);
    pub const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
    pub const SHADE: RGBColor = RGBColor(0xea, 0xef, 0xf6);
    pub const FAULT: RGBColor = RGBColor(0xb3, 0x00, 0x1b);
    pub const FAULT_SHADE: RGBColor = RGBColor(0xfb, 0xe3, 0xe4);
    pub const P50: RGBColor = RGBColor(0x0b, 0x5c, 0xad);
    pub const P99: RGBColor = RGBColor(0xb4, 0x53, 0x09);
    pub const MAX: RGBColor = RGBColor(0x7a, 0x82, 0x8c);
    pub const READS: RGBColor = RGBColor(0x0f, 0x76, 0x6e);
    pub const WRITES: RGBColor = RGBColor(0x7e, 0x3a, 0xc8);
    pub const FAILED: RGBColor = RGBColor(0xb3, 0x00, 0x1c);
}
