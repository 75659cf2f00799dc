//! The suite, by area.

pub mod fencing;
pub mod reading;
pub mod writing;
