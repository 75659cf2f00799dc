//! What must hold in a rehearsal, what was measured, and whether it held.

use serde::{Deserialize, Serialize};

/// Something that must hold, and whether it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// A stable short name, such as `lost-writes`; unique among the proofs.
    pub name: String,
    /// What must hold, for people: "no confirmed write was lost". Starts in lower case, ends without a full stop.
    pub promise: String,
    /// What was measured; `None` for a promise without a number, and where nothing could be measured.
    pub measured: Option<f64>,
    /// What it was held against.
    pub limit: Option<Limit>,
    /// The unit of both.
    pub unit: Unit,
    /// The outcome.
    pub standing: Standing,
}

/// The bound of a measured number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// This much is still good.
    AtMost(f64),
    /// Less than this is bad.
    AtLeast(f64),
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Things: reads, writes, rows, values.
    Count,
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
    /// So many times another number.
    Times,
}

/// Whether something held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It was tried, and it held.
    Held,
    /// It was tried, and it did not hold.
    Failed,
    /// It was not tried: by choice, or because the rehearsal ended before.
    NotTested,
}

impl Proof {
    /// A promise about a number that must not exceed `limit`.
    pub fn at_most(name: &str, promise: &str, measured: f64, limit: f64, unit: Unit) -> Self {
        Self::measured(name, promise, measured, Limit::AtMost(limit), unit)
    }

    /// A promise about a number that must reach `limit`.
    pub fn at_least(name: &str, promise: &str, measured: f64, limit: f64, unit: Unit) -> Self {
        Self::measured(name, promise, measured, Limit::AtLeast(limit), unit)
    }

    /// A promise without a number.
    pub fn stated(name: &str, promise: &str, standing: Standing) -> Self {
        Self {
            name: name.to_owned(),
            promise: promise.to_owned(),
            measured: None,
            limit: None,
            unit: Unit::Count,
            standing,
        }
    }

    fn measured(name: &str, promise: &str, measured: f64, limit: Limit, unit: Unit) -> Self {
        Self {
            measured: Some(measured),
            limit: Some(limit),
            unit,
            ..Self::stated(name, promise, limit.judge(measured))
        }
    }
}

impl Limit {
    /// Whether `measured` keeps it. What is not a number keeps no limit.
    pub fn judge(self, measured: f64) -> Standing {
        let is_kept = match self {
            Self::AtMost(limit) => measured <= limit,
            Self::AtLeast(limit) => measured >= limit,
        };
        if is_kept { Standing::Held } else { Standing::Failed }
    }
}
