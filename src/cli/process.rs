//! What the process does before it reads its first secret, and the one reading of the clock.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Switches off core dumps and the access of other processes of the same user to this one's memory; makes panics silent about
/// values. An error names the protection that could not be had.
pub fn harden() -> Result<(), &'static str> {
    std::panic::set_hook(Box::new(|panic| {
        // The message of a panic may hold a value; the place cannot.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("error: unexpected failure at {place}: this is a bug; a keyring or batch under way is as it was before");
    }));
    let limit = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if setrlimit(Resource::Core, limit).is_err() || getrlimit(Resource::Core).current != Some(0) {
        return Err("core dumps could not be switched off");
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|_| "memory could not be closed to other processes")
}

/// The present time. No decision about data depends on it; it stands in records.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
