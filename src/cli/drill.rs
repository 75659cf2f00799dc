//! `reseal drill`.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use serde::Serialize;

use super::arg::RefArg;
use super::drill_report::ReportArgs;
use super::drill_staging::{self, StagingArgs};
use super::selection::read_database_url;
use super::tuning::ProfileArg;
use super::{CliError, Context, Exit, Output};
use crate::config::{SecretRef, UrlRef};
use crate::drill::{self, Cancel, FaultKind, Faults, Settings, Thresholds};
use crate::report::{Rehearsal, Verdict, terminal};
use crate::session::RedisServer;

/// Rehearse a rotation under live traffic; no set-up needed
///
/// Makes a table of encrypted customer records: in an SQLite database in a temporary folder, or with --database in a schema of its own in
/// any PostgreSQL database. Starts instances of an application as processes of their own, each with its own copy of the keyring, that
/// read and write it and report which keys they use; runs `reseal rotate KEYSET` on it, whose gates wait for them; and does harm on purpose meanwhile (--faults). Every value read is compared
/// with what was written; at the end so is every row. Users log in, come back and log out all along: none may be logged out by accident,
/// and with --compromised the rotation ends sessions: none of before may live on, and each of after its cut-off must.
///
/// Exit 0 only if no read failed, no write was lost, no value is left under the old key, every probe succeeded and every threshold was
/// kept; 7 otherwise. Leaves nothing behind unless it failed.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DrillArgs {
    /// A PostgreSQL database to rehearse in: postgres://…, or where its URL is: env:NAME, file:PATH, … [default: an SQLite file]
    #[arg(long, value_name = "REF")]
    database: Option<RefArg<UrlRef>>,

    #[command(flatten)]
    pub(super) staging: StagingArgs,

    /// Customers in the table
    #[arg(long, default_value_t = 30_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2_000..=5_000_000))]
    rows: u32,

    /// Instances that read
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) readers: u8,

    /// Instances that write
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    writers: u8,

    /// Undisturbed traffic, half before the rotation and half after: seconds, or a time such as 2m. In the first quarter of what is
    /// before, caches are filled, and latencies do not count. The p99 of a few seconds may be half or twice that of the next few
    /// [default: 6s, or 20s with --database or --config]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    duration: Option<Duration>,

    /// Reads of each reading instance in a second; more than the database takes means as many as it takes
    #[arg(long, default_value_t = 700, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) reads_per_second: u32,

    /// Writes of each writing instance in a second
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    writes_per_second: u32,

    /// Rehearse that the key has leaked: the old key becomes compromised, and the rotation ends every session of before
    #[arg(long)]
    pub(super) compromised: bool,

    /// How much of the database's time the rotation may take: the one that production is to be rotated with
    #[arg(long, value_enum, default_value_t = ProfileArg::Gentle)]
    pub(super) profile: ProfileArg,

    /// Where the URL of a Redis or Valkey server is, to keep the sessions of the rehearsal in: env:NAME, file:PATH, … [default: a table]
    #[arg(long, value_name = "REF")]
    sessions: Option<RefArg<SecretRef>>,

    /// Harm on purpose: kill, pause, cut (PostgreSQL), replace, lag; or all, or none [default: kill,replace; in staging: kill]
    ///
    /// kill: kill -9 of the rotation (while it ends sessions, too), a reader and a writer. pause: SIGSTOP and SIGCONT of them. cut:
    /// connections cut inside transactions. replace: a keyring file replaced by half of it, nothing, or an older version while it is read. lag: an instance
    /// that never gets the new key.
    #[arg(long, value_name = "LIST")]
    pub(super) faults: Option<Faults>,

    /// A shell command or URL that must succeed all along, twice a second; repeat for more
    #[arg(long = "probe", value_name = "COMMAND|URL", value_parser = parse_probe)]
    pub(super) probes: Vec<String>,

    /// Repeats customers, traffic and faults of an earlier drill
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Keep everything: table, keyring, and the throw-away identity that opens it
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    pub(super) thresholds: ThresholdArgs,

    #[command(flatten)]
    pub(super) reports: ReportArgs,
}

/// What fails a drill.
#[derive(Args)]
#[command(next_help_heading = "Thresholds: one that is missed means exit 7")]
pub(super) struct ThresholdArgs {
    /// Reads that may fail
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_failed_reads: u64,

    /// Confirmed writes that may be lost
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_lost_writes: u64,

    /// How many times as long the p99 of reads, and of writes, may be during the rotation as before it
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    max_p99_ratio: Option<f64>,

    /// How long the drill may take, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_duration: Option<Duration>,

    /// With --compromised: how long a session of before may live after the new key has become primary
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time)]
    max_session_life: Duration,
}

impl DrillArgs {
    /// The number that repeats it.
    pub(super) fn seed(&self, context: &Context<'_>) -> u64 {
        self.seed
            .unwrap_or_else(|| u64::from((context.now)().subsec_nanosecond().unsigned_abs()))
    }

    /// How long the traffic is undisturbed.
    pub(super) fn duration(&self) -> Duration {
        let is_embedded = self.database.is_none() && !self.staging.is_wanted();
        let unsaid = if is_embedded { DURATION_EMBEDDED } else { DURATION_DATABASE };
        self.duration.unwrap_or(unsaid)
    }
}

impl ThresholdArgs {
    /// What is allowed.
    pub(super) fn limits(&self) -> Thresholds {
        Thresholds {
            failed_reads_max: self.max_failed_reads,
            lost_writes_max: self.max_lost_writes,
            p99_ratio_max: self.max_p99_ratio,
            duration_max: self.max_duration,
            session_life_max: self.max_session_life,
        }
    }
}

#[derive(Serialize)]
pub(super) struct DrillDocument<'a, R> {
    #[serde(flatten)]
    pub(super) report: &'a R,
    pub(super) exit: u8,
}

/// An empty command would succeed, and prove nothing: a variable that is not set, say.
fn parse_probe(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("it is empty"),
        _ => Ok(text.to_owned()),
    }
}

/// Runs `reseal drill`.
pub(super) fn run(args: &DrillArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    args.reports.forget()?;
    if args.staging.is_wanted() {
        return drill_staging::run(args, context);
    }
    let postgres = match &args.database {
        Some(reference) => Some(postgres_url(reference, context)?),
        None => None,
    };
    let redis = match &args.sessions {
        Some(reference) => Some(redis_url(reference, context)?),
        None => None,
    };
    let settings = Settings {
        // A file has no connection that could be cut; whoever asks for it by name is told.
        faults: match &args.faults {
            None => Faults::of([FaultKind::Kill, FaultKind::Replace]),
            Some(all) if postgres.is_none() && *all == Faults::of(FaultKind::ALL) => all.clone().without(FaultKind::Cut),
            Some(faults) => faults.clone(),
        },
        postgres,
        rows: args.rows,
        readers: usize::from(args.readers),
        writers: usize::from(args.writers),
        reads_per_second: f64::from(args.reads_per_second),
        writes_per_second: f64::from(args.writes_per_second),
        duration: args.duration(),
        thresholds: args.thresholds.limits(),
        compromised: args.compromised,
        profile: args.profile.profile(),
        redis,
        probes: args.probes.clone(),
        hidden_variables: context.secrets.kept_from_children().to_vec(),
        seed: args.seed(context),
        keep: args.keep,
        program: std::env::current_exe()?,
        sabotage: None,
    };
    let cancel = Cancel::default();
    cancel_on_signal(&cancel)?;
    let output = &mut context.output;
    output.say(&format!(
        "Rehearsing a rotation of {} customers in {} under {} readers and {} writers (seed {}).",
        settings.rows,
        if settings.postgres.is_some() { "PostgreSQL" } else { "SQLite" },
        settings.readers,
        settings.writers,
        settings.seed
    ));
    let begun = (context.now)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    args.reports.write(&drill::outline(&settings, &begun, UNFINISHED))?;
    let output = &mut context.output;
    let report = match drill::run(&settings, &cancel, &mut |phase| output.say(&format!("  {phase} …"))) {
        Ok(report) => report,
        Err(error) => {
            args.reports.write(&drill::outline(&settings, &begun, &error.to_string()))?;
            return Err(error.into());
        }
    };
    let told = drill::told(&report, &settings, &begun);
    let kept = report
        .evidence_schema
        .as_ref()
        .map(|schema| format!("Kept: schema {schema}; when it has told its story: DROP SCHEMA {schema} CASCADE"));
    conclude(&args.reports, &told, &report, kept, output)
}

/// Tells how a rehearsal ended, to people, in its reports and in the document.
pub(super) fn conclude<R: Serialize>(
    reports: &ReportArgs,
    told: &Rehearsal,
    report: &R,
    kept: Option<String>,
    output: &mut Output<'_>,
) -> Result<Exit, CliError> {
    output.say("");
    output.say(&terminal(told));
    reports.write(told)?;
    if let Some(kept) = kept {
        output.say(&kept);
    }
    if let Some(page) = reports.page() {
        output.say(&format!("Report: {}", page.display()));
    }
    let exit = match told.verdict {
        Verdict::Good => Exit::Done,
        Verdict::Bad | Verdict::BrokenOff => Exit::Findings,
    };
    let exit_code = exit.code();
    output.document("reseal.drill/1", &DrillDocument { report, exit: exit_code })?;
    Ok(exit)
}

/// Ctrl-C and a polite kill end the rehearsal, so that it removes its folder. A second one ends the process at once.
pub(super) fn cancel_on_signal(cancel: &Cancel) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let cancel = cancel.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for attempt in 0.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
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

/// The URL of a PostgreSQL database.
fn postgres_url(reference: &RefArg<UrlRef>, context: &mut Context<'_>) -> Result<String, CliError> {
    let url = read_database_url(reference.get()?, context)?;
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(url.to_string())
    } else {
        Err(
            CliError::usage("a drill takes place in a PostgreSQL database, or in an SQLite file of its own")
                .next("pass postgres://… or a reference to such a URL, or leave --database out"),
        )
    }
}

/// The URL of a Redis server that the rehearsal may use.
fn redis_url(reference: &RefArg<SecretRef>, context: &mut Context<'_>) -> Result<String, CliError> {
    let reference = reference.get()?;
    context.secrets.keep_from_children(reference);
    let url = context.secrets.read_url(&UrlRef::Secret(reference.clone()))?;
    // Refuses what could not be used, and a password in clear text to another machine.
    RedisServer::parse(url.trim(), false, false)?;
    Ok(url.trim().to_owned())
}

/// Seconds, or a time with its unit.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "a time such as 90s, 10m or 2h; a bare number means seconds".to_owned();
    let time = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|time| time.try_into().ok())
            .ok_or_else(wrong)?,
    };
    if time.is_zero() || time > TIME_MAX {
        Err(wrong())
    } else {
        Ok(time)
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| ratio.is_finite() && *ratio > 0.0);
    ratio.ok_or_else(|| "a number above 0, such as 2.0".to_owned())
}

const DURATION_EMBEDDED: Duration = Duration::from_secs(6);
/// Of three seconds, a hundredth of the reads is a few dozen. On the same server their p99 was 0.28 to 0.43 ms (median of ten 0.31), that of
/// ten seconds 0.30 to 0.62 ms (of 27, 0.44), that of twenty 0.36 to 0.45 ms (of five, 0.40): whatever is compared with three seconds seems
/// slow.
const DURATION_DATABASE: Duration = Duration::from_secs(20);
/// A day.
const TIME_MAX: Duration = Duration::from_secs(86_400);

/// What a report says while the rehearsal runs, and ever after if nobody was left to write another.
pub(super) const UNFINISHED: &str = "it has begun, and nothing is known of its end: it is running, or it was killed";

const EXAMPLES: &str = "\
Examples:
  reseal drill
  reseal drill --rows 200000 --readers 8 --duration 60s --faults all
  reseal drill --database env:STAGING_URL --probe 'curl -fsS http://localhost:8000/health' --max-p99-ratio 2
  reseal drill --junit drill.xml --report drill-report    # for CI: exit 0 or 7
  reseal drill --compromised                              # a key has leaked: its sessions must be dead, and nobody else's
  reseal drill --config staging.toml --staging-confirmed --probe 'curl -fsS http://staging:8000/health'
  reseal drill --json --seed 7";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        drill: DrillArgs,
    }

    #[test]
    fn a_database_is_looked_at_for_longer_before_it_is_disturbed() -> Result<(), clap::Error> {
        for (typed, seconds) in [
            ("drill", 6),
            ("drill --database env:URL", 20),
            ("drill --config reseal.toml", 20),
            ("drill --database env:URL --duration 2s", 2),
        ] {
            let typed = Typed::try_parse_from(typed.split(' '))?;
            assert_eq!(typed.drill.duration(), Duration::from_secs(seconds));
        }
        Ok(())
    }
}
