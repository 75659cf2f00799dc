//! What the process does before it reads its first secret, and the one reading of the clock.

use std::panic::AssertUnwindSafe;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::{Exit, output};

/// Switches off core dumps, and the access of other processes of the same user to this one's memory. An error names the
/// protection that could not be had.
pub fn close_memory() -> Result<(), &'static str> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|_| "core dumps could not be switched off")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|_| "memory could not be closed to other processes")
}

/// Makes panics say where they happened and nothing else: their message may hold a value.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        output::tell(&format!(
            "error: unexpected failure at {place}: this is a bug; run the command again to continue"
        ));
    }));
}

/// The exit code of `work`, also where it panics: the hook has told of it, and 101, Rust's own code, is none of ours.
pub fn or_bug(work: impl FnOnce() -> Exit) -> Exit {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Exit::Bug)
}

/// The present time. No decision about data depends on it; it stands in records.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_panic_ends_with_the_code_of_a_bug() {
        assert_eq!(or_bug(|| Exit::Findings), Exit::Findings);
        assert_eq!(or_bug(|| panic!("on purpose")), Exit::Bug);
    }

    #[test]
    fn memory_is_closed() {
        close_memory().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    }
}
