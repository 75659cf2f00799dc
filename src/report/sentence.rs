//! The words and numbers that all forms share: one way to say a verdict, a limit, a time.

use super::proof::{Limit, Proof, Standing, Unit};
use super::rehearsal::{Rehearsal, Verdict};

/// The verdict in a word, to be seen from across the room.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "Good",
        Verdict::Bad => "BAD",
        Verdict::BrokenOff => "NO VERDICT",
    }
}

/// The verdict in a sentence.
pub fn verdict(rehearsal: &Rehearsal) -> String {
    let (reads, writes) = (rehearsal.reads.operations, rehearsal.writes.operations);
    match rehearsal.verdict {
        Verdict::Good => {
            let untested = match rehearsal.count(Standing::NotTested) {
                0 => String::new(),
                untested => format!(", {untested} not tested"),
            };
            format!(
                "{} of {} promises held{untested}. {} reads and {} writes went on all along.",
                rehearsal.count(Standing::Held),
                rehearsal.proofs.len(),
                count(reads),
                count(writes)
            )
        }
        Verdict::Bad => match rehearsal.count(Standing::Failed) {
            0 => "This rehearsal does not prove what it should.".to_owned(),
            failed => format!("{failed} of {} promises did not hold.", rehearsal.proofs.len()),
        },
        Verdict::BrokenOff => "The rehearsal did not come to its end; it proves nothing.".to_owned(),
    }
}

/// Whether a proof held, in a word.
pub fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Held => "held",
        Standing::Failed => "FAILED",
        Standing::NotTested => "not tested",
    }
}

/// What was measured; empty for a promise without a number.
pub fn measured(proof: &Proof) -> String {
    let Some(measured) = proof.measured else {
        return String::new();
    };
    let shown = number(measured, proof.unit);
    // A ratio of 2.004 must not read "2.00, at most 2.00: FAILED".
    let (Standing::Failed, Some(Limit::AtMost(limit) | Limit::AtLeast(limit))) = (proof.standing, proof.limit) else {
        return shown;
    };
    if shown == number(limit, proof.unit) {
        with_unit(measured.to_string(), proof.unit)
    } else {
        shown
    }
}

/// The limit as a table says it.
pub fn limit(proof: &Proof) -> String {
    match proof.limit {
        None => String::new(),
        Some(Limit::AtMost(0.0)) => number(0.0, proof.unit),
        Some(Limit::AtMost(limit)) => format!("≤ {}", number(limit, proof.unit)),
        Some(Limit::AtLeast(limit)) => format!("≥ {}", number(limit, proof.unit)),
    }
}

/// Why a proof failed, from its numbers alone.
pub fn shortfall(proof: &Proof) -> String {
    match (proof.measured, proof.limit) {
        (Some(_), Some(Limit::AtMost(limit))) => format!(
            "{}, and at most {} is allowed: {}",
            measured(proof),
            number(limit, proof.unit),
            proof.promise
        ),
        (Some(_), Some(Limit::AtLeast(limit))) => format!(
            "{}, and at least {} is needed: {}",
            measured(proof),
            number(limit, proof.unit),
            proof.promise
        ),
        _ => format!("this did not hold: {}", proof.promise),
    }
}

/// A number with its unit.
pub fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count if value.fract() == 0.0 && (0.0..EXACT_MAX).contains(&value) => count(value as u64),
        Unit::Count => measure(value),
        Unit::Seconds => duration(value),
        Unit::Milliseconds => with_unit(measure(value), unit),
        Unit::Times => with_unit(format!("{value:.2}"), unit),
    }
}

/// A whole number, its thousands apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as people say it: "0.42 s", "7.5 s", "12 min 5 s", "3 h 20 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let two = |large: u64, unit: &str, small: u64, rest: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {rest}"),
    };
    if seconds == 0.0 {
        "0 s".to_owned()
    } else if seconds < 1.0 {
        format!("{seconds:.2} s")
    } else if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        two(whole / 60, "min", whole % 60, "s")
    } else {
        two(whole / 3600, "h", whole % 3600 / 60, "min")
    }
}

/// A measure (milliseconds, a rate) with as many digits as mean something: three, more only before the point.
pub fn measure(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{value:.2}")
    } else if value.abs() < 100.0 {
        format!("{value:.1}")
    } else if (0.0..EXACT_MAX).contains(&value) {
        count(value.round() as u64)
    } else {
        value.to_string()
    }
}

fn with_unit(number: String, unit: Unit) -> String {
    match unit {
        Unit::Count => number,
        Unit::Seconds => format!("{number} s"),
        Unit::Milliseconds => format!("{number} ms"),
        Unit::Times => format!("{number}×"),
    }
}

/// Up to here a floating-point number tells whole numbers apart: 2⁵³.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
