//! `reseal drill`.

use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::{CliError, Context, Exit};
use crate::drill::{self, Cancel, DrillError, Report, Settings, Verdict, Windows};

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
    let report = drill::run(&settings, &cancel, &mut |phase| output.say(&format!("  {phase} …")))?;
    output.say(&summary(&report));
    let exit = match report.verdict {
        Verdict::Good => Exit::Done,
        Verdict::Bad => Exit::Findings,
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

fn summary(report: &Report) -> String {
    let mut lines = vec![String::new(), counts(report), String::new(), latencies(report), String::new()];
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|phase| format!("{} {:.1} s", phase.name, phase.seconds))
        .collect();
    lines.push(format!("Phases: {}.", phases.join(", ")));
    for fault in &report.faults {
        lines.push(format!(
            "Fault: {} at {:.1} s: {}.",
            fault.name, fault.at_seconds, fault.outcome
        ));
    }
    for finding in &report.findings {
        lines.push(format!("FAILED: {}.", finding.sentence));
    }
    if let Some(folder) = &report.evidence {
        lines.push(format!("Kept: {}", folder.display()));
    }
    lines.push(match report.verdict {
        Verdict::Good => format!(
            "Verdict: good. In {:.1} s of rehearsal no read failed and no write was lost.",
            report.elapsed_seconds
        ),
        Verdict::Bad => format!("Verdict: BAD. Repeat this traffic with --seed {}.", report.seed),
    });
    lines.join("\n")
}

fn counts(report: &Report) -> String {
    let mut table = table(["", "", "must be"]);
    let of_key = |census: &std::collections::BTreeMap<u32, u64>, key: Option<u32>| {
        key.and_then(|key| census.get(&key)).copied().unwrap_or(0)
    };
    let old = Some(report.old_key);
    let under = |name: &str, key: Option<u32>| {
        let (before, after) = (of_key(&report.census_before, key), of_key(&report.census_after, key));
        (
            format!("  values under the {name} key, before → after"),
            format!("{before} → {after}"),
        )
    };
    let (old_label, old_counts) = under("old", old);
    let (new_label, new_counts) = under("new", report.new_key);
    let lines: [(String, String, &str); 11] = [
        ("  reads".to_owned(), report.reads.to_string(), ""),
        ("  writes".to_owned(), report.writes.to_string(), ""),
        ("  failed reads".to_owned(), report.failed_reads.to_string(), "0"),
        ("  failed writes".to_owned(), report.failed_writes.to_string(), "0"),
        ("  lost writes".to_owned(), report.lost_writes.to_string(), "0"),
        ("  resurrected rows".to_owned(), report.resurrected_rows.to_string(), "0"),
        (
            "  wrong or unreadable values".to_owned(),
            (report.wrong_values + report.unreadable_values).to_string(),
            "0",
        ),
        (old_label, old_counts, "→ 0"),
        (new_label, new_counts, ""),
        (
            "  rows, before → after".to_owned(),
            format!("{} → {}", report.rows_before, report.rows_after),
            "",
        ),
        (
            "  rows re-encrypted per second".to_owned(),
            format!("{:.0}", report.rows_per_second),
            "",
        ),
    ];
    for (label, count, wanted) in lines {
        table.add_row([Cell::new(label), number(count), number(wanted.to_owned())]);
    }
    table.trim_fmt()
}

fn latencies(report: &Report) -> String {
    let mut table = table(["  milliseconds: p50 / p99 / max", "before", "during", "after"]);
    for (label, windows) in [("  reads", report.latency_ms.reads), ("  writes", report.latency_ms.writes)] {
        let Windows { before, during, after } = windows;
        let cells =
            [before, during, after].map(|window| number(format!("{:.2} / {:.2} / {:.1}", window.p50, window.p99, window.max)));
        table.add_row(std::iter::once(Cell::new(label)).chain(cells));
    }
    table.trim_fmt()
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
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

const EXAMPLES: &str = "\
Examples:
  reseal drill
  reseal drill --rows 200000 --readers 8 --duration 60
  reseal drill --json --seed 7   # for CI: exit 0 or 7";
