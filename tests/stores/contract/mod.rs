//! The suite, by area.

pub mod fencing;
pub mod ledger;
pub mod operators;
pub mod reading;
pub mod samples;
pub mod writing;
