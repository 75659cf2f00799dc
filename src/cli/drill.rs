//! `reseal drill`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::drill_report::ReportArgs;
use super::{CliError, Context, Exit};
use crate::drill::{self, Cancel, DrillError, Report, Settings};
use crate::report::{Verdict, terminal};

/// Rehearse a rotation under live traffic; no set-up needed
///
/// Makes a SQLite database with encrypted customer records in a temporary folder, keeps instances of an application reading and
/// writing it, rotates its key with `reseal rotate`, kills that with kill -9 in the middle and starts it again. Every value read is
/// compared with what was written; at the end so is every row.
///
/// Exit 0 only if no read failed, no write was lost, and no value is left under the old key; 7 otherwise. Leaves nothing behind
/// unless it failed.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DrillArgs {
    /// Customers in the table
    #[arg(long, default_value_t = 30_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2_000..=5_000_000))]
    rows: u32,

    /// Instances that read
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    readers: u8,

    /// Instances that write
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    writers: u8,

    /// Seconds of undisturbed traffic, half before the rotation and half after
    #[arg(long, default_value_t = 6, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration: u32,

    /// Repeats customers and traffic of an earlier drill
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Keep the folder: database, keyring, and the throw-away identity that opens it
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    reports: ReportArgs,
}

#[derive(Serialize)]
struct DrillDocument<'a> {
    #[serde(flatten)]
    report: &'a Report,
    exit: u8,
}

/// Runs `reseal drill`.
pub(super) fn run(args: &DrillArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let settings = Settings {
        rows: args.rows,
        readers: usize::from(args.readers),
        writers: usize::from(args.writers),
        duration: Duration::from_secs(u64::from(args.duration)),
        seed: args
            .seed
            .unwrap_or_else(|| u64::from((context.now)().subsec_nanosecond().unsigned_abs())),
        keep: args.keep,
        program: std::env::current_exe()?,
        now: context.now,
        sabotage: None,
    };
    let cancel = Cancel::default();
    cancel_on_signal(&cancel)?;
    let output = &mut context.output;
    output.say(&format!(
        "Rehearsing a rotation of {} customers under {} readers and {} writers (seed {}).",
        settings.rows, settings.readers, settings.writers, settings.seed
    ));
    let begun = (context.now)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    args.reports.write(&drill::outline(&settings, &begun, UNFINISHED))?;
    let report = match drill::run(&settings, &cancel, &mut |phase| output.say(&format!("  {phase} …"))) {
        Ok(report) => report,
        Err(error) => {
            args.reports.write(&drill::outline(&settings, &begun, &error.to_string()))?;
            return Err(error.into());
        }
    };
    let told = drill::told(&report, &settings, &begun);
    output.say("");
    output.say(&terminal(&told));
    args.reports.write(&told)?;
    if let Some(page) = args.reports.page() {
        output.say(&format!("Report: {}", page.display()));
    }
    let exit = match told.verdict {
        Verdict::Good => Exit::Done,
        Verdict::Bad | Verdict::BrokenOff => Exit::Findings,
    };
    let document = DrillDocument {
        report: &report,
        exit: exit.code(),
    };
    output.document("reseal.drill/1", &document)?;
    Ok(exit)
}

/// Ctrl-C and a polite kill end the rehearsal, so that it removes its folder. A second one ends the process at once.
fn cancel_on_signal(cancel: &Cancel) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let cancel = cancel.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for attempt in 0.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if attempt > 0 {
                    std::process::exit(i32::from(Exit::Incomplete.code()));
                }
                cancel.request();
            }
        });
    })?;
    Ok(())
}

impl From<DrillError> for CliError {
    fn from(error: DrillError) -> Self {
        match error {
            DrillError::Cancelled => Self::from_error(Exit::Incomplete, &error).durable("nothing was left behind"),
            DrillError::Stage(_) => Self::from_error(Exit::Unusable, &error)
                .next("see that the folder for temporary files (TMPDIR) can be written and has room"),
            _ => Self::from_error(Exit::Bug, &error),
        }
    }
}

/// What a report says while the rehearsal runs, and ever after if nobody was left to write another.
const UNFINISHED: &str = "it has begun, and nothing is known of its end: it is running, or it was killed";

const EXAMPLES: &str = "\
Examples:
  reseal drill
  reseal drill --rows 200000 --readers 8 --duration 60
  reseal drill --junit drill.xml --report drill-report    # for CI: exit 0 or 7
  reseal drill --json --seed 7";
