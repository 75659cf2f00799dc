//! `reseal sessions invalidate`: whoever is logged in must log in again.

mod ending;

use std::io::IsTerminal;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::config::ConfigArgs;
use super::rotation_error::store_error;
use super::{CliError, Context, Exit};
use crate::config::SessionSettings;
use crate::key::{LockFault, ReplaceFault};
use crate::secret::FileFault;
use crate::session::{EndingOptions, SETTLE, Selection, SessionError};
pub(super) use ending::store_of;
use ending::{StoreView, end_sessions};

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

/// End sessions in Redis or SQL tables, and tokens that are stored nowhere
///
/// [session.NAME] in reseal.toml says where sessions are. The cut-off is taken on the store's clock when the run begins: sessions that
/// exist then are ended, sessions that are created afterwards stay. In tables, one statement reads which rows exist at the cut-off.
/// In Redis from version 7 on, the server announces the keys that are created afterwards; where it is too old or does not allow
/// that (CONFIG SET notify-keyspace-events), a session that is created while the scan runs may be ended, too, and the answer says
/// so ("decided_by": "scan"). What that setting was is noted in the key reseal:notify-keyspace-events, and restored: by the next run,
/// where one was killed.
///
/// A second pass counts what is left. Exit code 0 only when that is nothing.
///
/// Tokens that are stored nowhere (tokens = true, or file = "…") end by a "not before" mark: whoever verifies one rejects it when it
/// was issued (iat) before the mark of everybody, of its tenant or of its user. A mark is a whole second, lies behind the present one
/// and the clock_skew of the configuration, never moves backwards, and the command waits until it has passed. With token_lifetime in the
/// configuration, marks of tenants and users that no living token needs any more are dropped.
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

    /// Only those created before this time, such as 2026-01-31T12:00:00Z; for tables with a column that tells, and for tokens
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
    let views = end_sessions(&chosen, &options, context)?;
    let document = InvalidateDocument {
        command: "invalidate",
        dry_run: args.dry_run,
        stores: &views,
    };
    context.output.document("reseal.sessions/1", &document)?;
    let is_complete = views.iter().all(StoreView::is_complete);
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
            SessionError::Permission { .. } => (
                Exit::Unusable,
                "allow the user SCAN, UNLINK, TIME (for marks of tokens: EVAL, HGET, HSET), and what its preset needs; to tell new sessions from old: CONFIG, SUBSCRIBE, and the key reseal:notify-keyspace-events",
            ),
            SessionError::ReadOnly { .. } => (
                Exit::Unreachable,
                "it became a replica: run the command again against the new primary; it continues",
            ),
            SessionError::File(fault) => file_fault(fault),
            SessionError::Marks(_) => (Exit::Unusable, "name another file, or restore this one from a backup"),
            SessionError::Moving => (Exit::Incomplete, "run the command again when the cluster is stable"),
            SessionError::Refused(_) => (Exit::Refused, ""),
            SessionError::Reference(_) => (Exit::Unusable, "set what the reference names"),
            SessionError::Left(_) => (
                Exit::Incomplete,
                "find what writes them (a request that hangs, a job, a replica that writes); then run the command again",
            ),
            SessionError::Server { .. } => (
                Exit::Unreachable,
                "look into the server's log, then run the command again: it continues",
            ),
            // A failed database means the same for every command.
            SessionError::Store(cause) => {
                return store_error(cause, "ending sessions").durable("the end of every session that was ended so far");
            }
        };
        let failure = Self::from_error(exit, &error);
        if next.is_empty() { failure } else { failure.next(next) }
    }
}

fn file_fault(fault: &FileFault) -> (Exit, &'static str) {
    match fault {
        FileFault::Lock(LockFault::Held { .. }) => (Exit::Conflict, "wait until it has finished, then run the command again"),
        FileFault::Replace(ReplaceFault::Changed | ReplaceFault::Exists) => (Exit::Conflict, "run the command again"),
        FileFault::Replace(ReplaceFault::NotDurable { .. }) => (Exit::Integrity, "check the disk and the file"),
        FileFault::Missing
        | FileFault::Folder(_)
        | FileFault::Read(_)
        | FileFault::Lock(_)
        | FileFault::Replace(ReplaceFault::Before { .. }) => {
            (Exit::Unusable, "check the file, its folder, its rights and its free space")
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  reseal sessions invalidate --dry-run
  reseal sessions invalidate web --yes --json
  reseal sessions invalidate web --user 4711 --yes
  reseal sessions invalidate api --tenant acme --yes";
