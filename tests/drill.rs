//! The rehearsal, rehearsed: sound, it is good; broken on purpose, it is bad and says why; killed, it leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod rehearsal {
    pub mod drilled;
    pub mod leavings;
    pub mod limits;
    pub mod sabotage;
    pub mod sessions;
    pub mod sound;

    use super::settings;
}

use std::path::PathBuf;
use std::time::Duration;

use reseal::drill::{Cancel, DrillError, Faults, Settings, Thresholds, run};
use reseal::rotation::profile::Profile;

/// A small drill without faults.
fn settings(duration: Duration) -> Settings {
    Settings {
        postgres: None,
        rows: 3000,
        readers: 2,
        writers: 2,
        reads_per_second: 700.0,
        writes_per_second: 100.0,
        duration,
        faults: Faults::of([]),
        thresholds: Thresholds::default(),
        compromised: false,
        profile: Profile::Gentle,
        redis: None,
        probes: Vec::new(),
        hidden_variables: Vec::new(),
        seed: 11,
        keep: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_reseal")),
        sabotage: None,
    }
}

#[test]
fn a_cancelled_drill_ends_with_an_error() {
    let settings = settings(Duration::from_secs(3600));
    let cancel = Cancel::default();
    let canceller = cancel.clone();
    let outcome = run(&settings, &cancel, &mut |phase| {
        if phase == "before" {
            canceller.request();
        }
    });
    assert!(matches!(outcome.err().unwrap(), DrillError::Cancelled));
}
