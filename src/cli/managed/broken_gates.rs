//! A fault for tests of the drill: gates that open for everybody, as in a tool that has none.
//!
//! Only builds with debug assertions have this file; a release build has neither the code nor the variable.

use crate::rotation::protocol::break_gates;

/// Breaks them if `RESEAL_DEBUG_OPEN_GATES` is set.
pub fn break_as_ordered() {
    if std::env::var_os("RESEAL_DEBUG_OPEN_GATES").is_some() {
        break_gates();
    }
}
