//! What a rehearsal looks like for people and for programs that show it to people. Plain data in, text out: no clock, no file, no
//! database, no key.
//!
//! [`Rehearsal`] is the data. Whoever rehearses fills it; every form is made from it alone, so that they cannot disagree.

mod html;
mod json;
mod junit;
mod markdown;
mod plain;
mod plot;
mod proof;
mod rehearsal;
pub mod sentence;
mod table;
mod terminal;

pub use html::html;
pub use json::json;
pub use junit::junit;
pub use markdown::markdown;
pub use plain::{compact, escaped, is_deceptive, plain, pretty};
pub use proof::{Limit, Proof, Standing, Unit};
pub use rehearsal::{
    Activity, Fault, Finding, KeyCount, Percentiles, Phase, Point, Probe, Rehearsal, Series, Size, Traffic, Verdict, Version,
    Windows,
};
pub use terminal::terminal;
