//! Where an axis begins and ends, and where its marks are.

use std::ops::Range;

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten: values are their logarithms. For milliseconds.
    Logarithmic,
}

/// An axis: positions, and marks with what is written beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Lowest and highest position.
    pub range: Range<f64>,
    /// Positions of the marks.
    pub marks: Vec<f64>,
    scale: Scale,
}

impl Axis {
    /// An upright axis for these values.
    pub fn upright(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let finite = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (low, high) = finite.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        match scale {
            Scale::Linear => Self::linear(high.max(1.0)),
            Scale::Logarithmic if low.is_finite() => Self::logarithmic(low, high),
            Scale::Logarithmic => Self::logarithmic(1.0, 10.0),
        }
    }

    fn linear(high: f64) -> Self {
        let step = nice(high / 4.0);
        let steps = (high / step).ceil();
        Self {
            range: 0.0..step * steps,
            marks: marks(0.0..step * steps, step),
            scale: Scale::Linear,
        }
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let (low, high) = (low.clamp(MS_MIN, MS_MAX), high.clamp(MS_MIN, MS_MAX));
        let first = (low.log10() - MARGIN).floor();
        let last = (high.log10() + MARGIN).ceil().max(first + 1.0);
        Self {
            range: first..last,
            marks: marks(first..last, 1.0),
            scale: Scale::Logarithmic,
        }
    }

    /// Where a value stands.
    pub fn position(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(MS_MIN).log10(),
        }
        .clamp(self.range.start, self.range.end)
    }

    /// What is written beside the mark at `position`.
    pub fn label(&self, position: f64) -> String {
        match self.scale {
            Scale::Linear if position >= 10_000.0 => format!("{}k", position / 1000.0),
            Scale::Linear => format!("{position}"),
            Scale::Logarithmic if position < 0.0 => format!("{:.*} ms", (-position) as usize, 10f64.powf(position)),
            Scale::Logarithmic if position >= 3.0 => format!("{:.0} s", 10f64.powf(position - 3.0)),
            Scale::Logarithmic => format!("{:.0} ms", 10f64.powf(position)),
        }
    }
}

/// Marks for `seconds`, about one in every `seconds / wanted`.
pub fn time_marks(seconds: &Range<f64>, wanted: f64) -> Vec<f64> {
    let about = (seconds.end - seconds.start) / wanted;
    let step = CLOCK_STEPS.into_iter().find(|step| *step >= about);
    marks(seconds.clone(), step.unwrap_or_else(|| nice(about / 3600.0) * 3600.0))
}

/// "12 s", "2:30 min", "1:05 h".
pub fn time_label(seconds: f64, longest: f64) -> String {
    let whole = seconds.round() as u64;
    if longest < 180.0 {
        format!("{seconds} s")
    } else if longest < 3.0 * 3600.0 {
        format!("{}:{:02} min", whole / 60, whole % 60)
    } else {
        format!("{}:{:02} h", whole / 3600, whole % 3600 / 60)
    }
}

/// The next 1, 2 or 5 with zeros.
fn nice(about: f64) -> f64 {
    let power = 10f64.powf(about.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= about * ALMOST);
    factor.unwrap_or(10.0) * power
}

/// All multiples of `step` in `range`.
fn marks(range: Range<f64>, step: f64) -> Vec<f64> {
    let first = (range.start / step - (1.0 - ALMOST)).ceil();
    let count = ((range.end / step + (1.0 - ALMOST)).floor() - first + 1.0).clamp(0.0, MARKS_MAX) as u32;
    let decimals = 10f64.powf((-step.log10()).ceil().max(0.0));
    (0..count)
        .map(|at| ((first + f64::from(at)) * step * decimals).round() / decimals)
        .collect()
}

/// Steps that people count time in.
const CLOCK_STEPS: [f64; 19] = [
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0,
];
/// Rounding errors are smaller.
const ALMOST: f64 = 1.0 - 1e-9;
/// More marks than this cannot be told apart.
const MARKS_MAX: f64 = 50.0;
/// Milliseconds: a nanosecond and a week, beyond both of which nothing is measured.
const MS_MIN: f64 = 1e-6;
const MS_MAX: f64 = 6e8;
/// Powers of ten between a line and the edge.
const MARGIN: f64 = 0.02;
