//! What a rehearsal looks like for people and for programs that show it to people. Plain data in, text out: no clock, no file, no
//! database, no key.
//!
//! [`Rehearsal`] is the data. Whoever rehearses fills it; every form is made from it alone, so that they cannot disagree.

mod plain;
mod rehearsal;
pub mod sentence;

pub use plain::{compact, escaped, is_deceptive, plain, pretty};
pub use rehearsal::{
    Activity, Fault, Finding, KeyCount, Limit, Percentiles, Phase, Point, Probe, Proof, Rehearsal, Series, Size, Standing,
    Traffic, Unit, Verdict, Version, Windows,
};
