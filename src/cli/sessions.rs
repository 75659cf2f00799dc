//! `reseal sessions invalidate`: whoever is logged in must log in again.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::config::ConfigArgs;
use super::{CliError, Context, Exit};
use crate::config::{SessionPlace, SessionSettings, UrlRef};
use crate::session::{
    DecidedBy, Ended, EndingOptions, RedisServer, Selection, SessionError, end_redis_sessions, end_table_sessions,
};
use crate::store::StoreError;

/// End the sessions that exist now
#[derive(Args)]
pub struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Subcommand)]
enum SessionsCommand {
    Invalidate(InvalidateArgs),
}

/// End sessions in Redis or SQL tables
///
/// [session.NAME] in reseal.toml says where sessions are. The cut-off is taken on the store's clock when the run begins: sessions that
/// exist then are ended, sessions that are created afterwards stay. In tables, one statement reads which rows exist at the cut-off.
/// In Redis from version 7 on, the server announces the keys that are created afterwards; where it is too old or does not allow
/// that (CONFIG SET notify-keyspace-events), a session that is created while the scan runs may be ended, too, and the answer says
/// so ("decided_by": "scan").
///
/// A second pass counts what is left. Exit code 0 only when that is nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InvalidateArgs {
    /// Which, by their names in the configuration [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Only those of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,

    /// Only those of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Only those created before this time, such as 2026-01-31T12:00:00Z; for tables with a column that tells
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,

    /// Count, change nothing
    #[arg(long)]
    dry_run: bool,

    /// The pattern matches every key of the database, and all of them are sessions
    #[arg(long)]
    all_sessions: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct InvalidateDocument<'a> {
    command: &'static str,
    dry_run: bool,
    stores: &'a [StoreView],
}

#[derive(Serialize)]
struct StoreView {
    name: String,
    cut_off: Timestamp,
    decided_by: &'static str,
    matched: u64,
    ended: u64,
    created_since: u64,
    index_entries: u64,
    unreadable: u64,
    left: u64,
    passes: u32,
    slowest_batch_ms: u128,
    elapsed_seconds: f64,
}

/// Runs `reseal sessions …`.
pub fn run(args: SessionsArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match args.command {
        SessionsCommand::Invalidate(args) => invalidate(&args, context),
    }
}

fn invalidate(args: &InvalidateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let config = args.config.read()?;
    let chosen = choose(&args.names, &config.sessions)?;
    confirm(args, &chosen, context)?;
    let options = EndingOptions {
        selection: Selection {
            user: args.user.clone(),
            tenant: args.tenant.clone(),
            before: args.before,
        },
        dry_run: args.dry_run,
        all_sessions: args.all_sessions,
        settle: SETTLE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut views = Vec::new();
    let mut is_complete = true;
    for session in chosen {
        let began = std::time::Instant::now();
        let ended = end(session, &options, &runtime, context).map_err(|error| {
            let done: Vec<_> = views.iter().map(|view: &StoreView| view.name.as_str()).collect();
            let error = error.at(format!("sessions {}", session.name));
            if done.is_empty() {
                error
            } else {
                error.durable(format!("sessions {} are ended", done.join(", ")))
            }
        })?;
        tell(&session.name, &ended, args.dry_run, context);
        is_complete &= ended.is_complete();
        views.push(StoreView::of(&session.name, &ended, began.elapsed()));
    }
    let document = InvalidateDocument {
        command: "invalidate",
        dry_run: args.dry_run,
        stores: &views,
    };
    context.output.document("reseal.sessions/1", &document)?;
    Ok(if is_complete { Exit::Done } else { Exit::Findings })
}

fn choose<'c>(names: &[String], sessions: &'c [SessionSettings]) -> Result<Vec<&'c SessionSettings>, CliError> {
    let known: Vec<_> = sessions.iter().map(|session| session.name.as_str()).collect();
    if known.is_empty() {
        return Err(CliError::new(Exit::Unusable, "the configuration names no sessions").next("add a section [session.NAME]"));
    }
    if names.is_empty() {
        return Ok(sessions.iter().collect());
    }
    let mut chosen: Vec<&SessionSettings> = Vec::new();
    for name in names {
        let session = sessions.iter().find(|session| session.name == *name).ok_or_else(|| {
            CliError::usage("there are no sessions of that name in the configuration")
                .next(format!("choose from: {}", known.join(", ")))
        })?;
        if chosen.iter().any(|other| other.name == session.name) {
            return Err(CliError::usage(format!("{name} is named twice")));
        }
        chosen.push(session);
    }
    Ok(chosen)
}

/// People are asked; a script says --yes.
fn confirm(args: &InvalidateArgs, chosen: &[&SessionSettings], context: &mut Context<'_>) -> Result<(), CliError> {
    if args.yes || args.dry_run {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("this logs people out").next("say --yes, or look first with --dry-run"));
    }
    let names: Vec<_> = chosen.iter().map(|session| session.name.as_str()).collect();
    let whose = if args.user.is_some() || args.tenant.is_some() || args.before.is_some() {
        "The selected sessions"
    } else {
        "All sessions"
    };
    context
        .output
        .say(&format!("{whose} of {} end now. Type yes to go on:", names.join(", ")));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::new(Exit::Refused, "not confirmed; nothing was touched"))
    }
}

fn end(
    session: &SessionSettings,
    options: &EndingOptions,
    runtime: &tokio::runtime::Runtime,
    context: &mut Context<'_>,
) -> Result<Ended, CliError> {
    let ended = match &session.place {
        SessionPlace::Redis {
            url,
            cluster,
            allow_plaintext,
            layout,
        } => {
            context.secrets.keep_from_children(url);
            let secret = context.secrets.read_url(&UrlRef::Secret(url.clone()))?;
            let server = RedisServer::parse(&secret, *cluster, *allow_plaintext)?;
            runtime.block_on(end_redis_sessions(&server, layout, options))
        }
        SessionPlace::Table { url, layout } => {
            if let UrlRef::Secret(reference) = url {
                context.secrets.keep_from_children(reference);
            }
            let url: Zeroizing<String> = context.secrets.read_url(url)?;
            runtime.block_on(end_table_sessions(&url, layout, options))
        }
    };
    Ok(ended?)
}

fn tell(name: &str, ended: &Ended, dry_run: bool, context: &mut Context<'_>) {
    let cut_off = ended.cut_off.strftime("%Y-%m-%d %H:%M:%SZ");
    if dry_run {
        context
            .output
            .say(&format!("{name}: {} sessions at {cut_off} would be ended.", ended.matched));
    } else {
        context.output.say(&format!(
            "{name}: {} sessions from before {cut_off} ended, {} left; {} created since stay.",
            ended.ended, ended.left, ended.created_since
        ));
    }
    if ended.unreadable > 0 {
        context.output.say(&format!(
            "  {} values do not tell whose they are (too large, or not JSON); they were left. Ending all sessions ends them, too.",
            ended.unreadable
        ));
    }
    if ended.decided_by == DecidedBy::Scan {
        context.output.say(
            "  The server does not announce new keys: sessions that were created while the scan ran may have been ended, and those left may be new.",
        );
    }
}

impl StoreView {
    fn of(name: &str, ended: &Ended, elapsed: Duration) -> Self {
        Self {
            name: name.to_owned(),
            cut_off: ended.cut_off,
            decided_by: ended.decided_by.as_str(),
            matched: ended.matched,
            ended: ended.ended,
            created_since: ended.created_since,
            index_entries: ended.index_entries,
            unreadable: ended.unreadable,
            left: ended.left,
            passes: ended.passes,
            slowest_batch_ms: ended.slowest_batch.as_millis(),
            elapsed_seconds: elapsed.as_secs_f64(),
        }
    }
}

impl From<SessionError> for CliError {
    fn from(error: SessionError) -> Self {
        let (exit, next) = match &error {
            SessionError::Url => (
                Exit::Unusable,
                "write redis://user:password@host:6379/0 or rediss://… into what the reference names",
            ),
            SessionError::Unreachable { .. } => (
                Exit::Unreachable,
                "check host, port and certificate, then run the command again: it continues",
            ),
            SessionError::Credentials { .. } => (Exit::Unusable, "check the user and password of the URL"),
            SessionError::Permission { .. } => (Exit::Unusable, "allow the user SCAN, UNLINK, TIME, and what its preset needs"),
            SessionError::ReadOnly { .. } => (Exit::Refused, ""),
            SessionError::Moving => (Exit::Incomplete, "run the command again when the cluster is stable"),
            SessionError::Refused(_) => (Exit::Refused, ""),
            SessionError::Server { .. } => (
                Exit::Unreachable,
                "look into the server's log, then run the command again: it continues",
            ),
            SessionError::Store(error) => match error {
                StoreError::Retry { .. } => (Exit::Incomplete, "run the command again: it continues"),
                StoreError::Disconnected(_) | StoreError::Unreachable { .. } => (
                    Exit::Unreachable,
                    "run the command again when the database is reachable: it continues",
                ),
                StoreError::UnknownScheme | StoreError::Unusable { .. } => {
                    (Exit::Unusable, "check the database's URL, user and password")
                }
                StoreError::ReadOnly(_) | StoreError::Vanished(_) | StoreError::Refused(_) => (Exit::Refused, ""),
                StoreError::Superseded | StoreError::Held { .. } => (Exit::Conflict, ""),
                StoreError::Pooled(_) => (Exit::Refused, "connect to the server itself, or to a pool in session mode"),
                StoreError::OtherServer(_) => (
                    Exit::Integrity,
                    "find out which server is the primary and stop the other; then run the command again",
                ),
                StoreError::State(_)
                | StoreError::Storage { .. }
                | StoreError::Row { .. }
                | StoreError::Statement { .. }
                | StoreError::Rewriter => (Exit::Unusable, "look into the database's log"),
            },
        };
        let failure = Self::from_error(exit, &error);
        if next.is_empty() { failure } else { failure.next(next) }
    }
}

/// How long requests that were under way at the cut-off may still write before the second pass looks.
const SETTLE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  reseal sessions invalidate --dry-run
  reseal sessions invalidate web --yes --json
  reseal sessions invalidate web --user 4711 --yes";
