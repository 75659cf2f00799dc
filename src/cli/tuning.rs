//! The options that say how a rotation goes about its work, and the running of one: runtime, signals, progress.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::display::Display;
use super::rotation_error::store_error;
use super::{CliError, Exit, output};
use crate::rotation::profile::Profile;
use crate::rotation::progress::{Progress, Stop};
use crate::rotation::{AWAY_MAX_DEFAULT, Before, OnUnreadable, Options, VALUE_BYTES_MAX_DEFAULT, answered, patiently};
use crate::store::{Store, StoreError};

/// How to go about it.
#[derive(Args)]
#[command(next_help_heading = "How to go about it")]
pub struct Tuning {
    /// Connections that work at once [default: 4, with --profile gentle 1; SQLite: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,

    /// Rows of a batch [default: found by measurement, for a batch of milliseconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_rows: Option<u32>,

    /// How much of the database's time it may take
    #[arg(long, value_enum, default_value_t = ProfileArg::Balanced)]
    profile: ProfileArg,

    /// The largest value that is read, in bytes; larger ones are quarantined
    #[arg(long, value_name = "BYTES", default_value_t = VALUE_BYTES_MAX_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_value_bytes: u64,

    /// How long the database may be away in one go before the run gives up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = AWAY_MAX_DEFAULT.as_secs())]
    retry_for: u64,
}

/// How much of the database's time a rotation may take.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum ProfileArg {
    /// Small batches, long rests: on a server 500 to 900 rows a second over one connection
    Gentle,
    /// Batches of milliseconds, no rests
    Balanced,
    /// Larger batches
    Fast,
}

impl ProfileArg {
    /// What it stands for.
    pub fn profile(self) -> Profile {
        match self {
            Self::Gentle => Profile::Gentle,
            Self::Balanced => Profile::Balanced,
            Self::Fast => Profile::Fast,
        }
    }
}

impl Tuning {
    /// Options with these and with defaults for the rest.
    pub fn options(&self, command: &str) -> Options {
        Options {
            workers: self.workers.map(usize::from),
            batch_rows: self.batch_rows.map(|rows| rows as usize),
            profile: self.profile.profile(),
            value_bytes_max: self.max_value_bytes,
            away_max: Duration::from_secs(self.retry_for),
            on_unreadable: OnUnreadable::Skip,
            owner: owner(command),
            ..Options::default()
        }
    }
}

/// How this process names itself in `pg_stat_activity` and lock files: command, process id, user and host.
fn owner(command: &str) -> String {
    let name = format!("reseal {command} pid {} {}", std::process::id(), operator());
    // PostgreSQL cuts names at 63 bytes; so does this, between characters.
    name.chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= 63).then_some(c)
        })
        .collect()
}

/// Who is at work: user and host.
pub fn operator() -> String {
    let user = std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_default();
    let system = rustix::system::uname();
    format!("{user}@{}", system.nodename().to_string_lossy())
}

/// Runs `work` on a runtime of its own, while signals ask it to stop and `display` shows how it goes.
pub fn run<T>(json: bool, work: impl AsyncFnOnce(Arc<Progress>, Arc<Stop>) -> Result<T, CliError>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::from_error(Exit::Unusable, &error))?;
    let progress = Arc::new(Progress::default());
    let stop = Arc::new(Stop::default());
    runtime.block_on(async {
        let signals = tokio::spawn(stop_on_signals(Arc::clone(&stop)));
        let display = Display::start(Arc::clone(&progress), std::io::stderr().is_terminal() && !json);
        let outcome = work(progress, stop).await;
        display.end().await;
        signals.abort();
        outcome
    })
}

/// Asks a database a few questions that change no values, once more where a connection was lost in passing. All of them together get the
/// time that one answer may take: a connection that swallows them without closing is as lost as one that closed.
pub fn ask<T>(
    json: bool,
    store: &dyn Store,
    step: &str,
    questions: impl AsyncFn() -> Result<T, Unanswered>,
) -> Result<T, CliError> {
    let questions = &questions;
    let attempt = || async {
        match questions().await {
            Ok(answer) => Ok(Ok(answer)),
            Err(Unanswered::Said(error)) => Ok(Err(error)),
            Err(Unanswered::Store(error)) => Err(error),
        }
    };
    run(json, async |_progress, _stop| {
        let answer = answered(store, 1, patiently(store, Before::Unheard, attempt)).await;
        answer.unwrap_or_else(|failed| Err(store_error(&failed, step)))
    })
}

/// Why a question has no answer.
pub enum Unanswered {
    /// The database failed.
    Store(StoreError),
    /// What it says is no answer.
    Said(CliError),
}

impl From<StoreError> for Unanswered {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CliError> for Unanswered {
    fn from(error: CliError) -> Self {
        Self::Said(error)
    }
}

/// The first signal asks, the second ends the process: whatever is committed stays, whatever is not rolls back.
async fn stop_on_signals(stop: Arc<Stop>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        // Without handlers the system's own apply: the process ends, and the next run continues.
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    stop.request();
    output::tell("stopping after this batch; once more to stop at once");
    // A connection that drops may hang up twice, by the shell and by the system; that is not somebody in a hurry.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    std::process::exit(i32::from(Exit::Incomplete.code()));
}
