//! The terminal: arguments in, one exit code out.
//!
//! A command is one variant of [`Command`] and one file with its arguments and a `run`.

mod ack;
pub mod arg;
#[cfg(debug_assertions)]
mod broken_memory;
mod config;
mod display;
mod documents;
mod drill;
mod drill_error;
mod drill_part;
mod drill_report;
mod drill_staging;
mod error;
mod exit;
mod guard;
mod keys;
mod managed;
mod max_age;
mod output;
mod plan;
mod process;
mod request;
mod rotate;
mod rotation_error;
mod scan;
mod secrets;
mod selection;
mod sessions;
mod sink;
mod status;
mod summary;
mod tuning;
mod unfinished;
mod verify;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::SecretReader;

pub use error::CliError;
pub use exit::Exit;
pub use output::Output;
pub use process::silence_panics;

/// What a command works with besides its arguments. Tests give their own.
pub struct Context<'a> {
    /// Where output goes.
    pub output: Output<'a>,
    /// Reads secrets by reference.
    pub secrets: SecretReader<'a>,
    /// Tells the time.
    pub now: fn() -> jiff::Timestamp,
}

/// Rotate the keys behind encrypted columns in live SQL databases.
///
/// Secrets are never arguments. Wherever a key, passphrase or URL is needed, say where it is: env:NAME, file:PATH, fd:N, prompt,
/// cmd:COMMAND; keys also keyring:KEYSET[@KEYID].
#[derive(Parser)]
#[command(name = "reseal", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON document on standard output; its first field names its schema
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Drill(drill::DrillArgs),
    #[command(hide = true)]
    DrillPart(drill_part::DrillPartArgs),
    Scan(scan::ScanArgs),
    Plan(Box<plan::PlanArgs>),
    Rotate(Box<rotate::RotateArgs>),
    Verify(Box<verify::VerifyArgs>),
    Status(status::StatusArgs),
    Ack(ack::AckArgs),
    Pause(request::PauseArgs),
    Resume(request::ResumeArgs),
    Throttle(request::ThrottleArgs),
    Abort(request::AbortArgs),
    Guard(guard::GuardArgs),
    Keys(keys::KeysArgs),
    Secrets(secrets::SecretsArgs),
    Sessions(sessions::SessionsArgs),
}

impl Command {
    /// The schema of the command's JSON document, also when it fails.
    fn schema(&self) -> &'static str {
        match self {
            Self::Drill(_) | Self::DrillPart(_) => "reseal.drill/1",
            Self::Scan(_) => "reseal.scan/1",
            Self::Plan(_) => "reseal.plan/1",
            Self::Rotate(_) => "reseal.rotate/1",
            Self::Verify(_) => "reseal.verify/1",
            Self::Status(_) => "reseal.status/1",
            Self::Ack(_) => "reseal.ack/1",
            Self::Pause(_) => "reseal.pause/1",
            Self::Resume(_) => "reseal.resume/1",
            Self::Throttle(_) => "reseal.throttle/1",
            Self::Abort(_) => "reseal.abort/1",
            Self::Guard(_) => "reseal.guard/1",
            Self::Keys(_) => "reseal.keys/1",
            Self::Secrets(_) => "reseal.secrets/1",
            Self::Sessions(_) => "reseal.sessions/1",
        }
    }

    fn run(self, context: &mut Context<'_>) -> Result<Exit, CliError> {
        match self {
            Self::Drill(args) => drill::run(&args, context),
            Self::DrillPart(args) => drill_part::run(&args),
            Self::Scan(args) => scan::run(args, context),
            Self::Plan(args) => plan::run(*args, context),
            Self::Rotate(args) => rotate::run(*args, context),
            Self::Verify(args) => verify::run(*args, context),
            Self::Status(args) => status::run(args, context),
            Self::Ack(args) => ack::run(args, context),
            Self::Pause(args) => request::pause(&args, context),
            Self::Resume(args) => request::resume(&args, context),
            Self::Throttle(args) => request::throttle(&args, context),
            Self::Abort(args) => request::abort(&args, context),
            Self::Guard(args) => guard::run(args, context),
            Self::Keys(args) => keys::run(args, context),
            Self::Secrets(args) => secrets::run(args, context),
            Self::Sessions(args) => sessions::run(args, context),
        }
    }
}

/// The program: protects the process, reads the arguments, runs the command.
pub fn main() -> ExitCode {
    process::silence_panics();
    let closed = process::close_memory();
    // Not locked for good: a panic in another thread must be able to speak.
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let is_terminal = stdout.is_terminal();
    let mut context = Context {
        output: Output::new(&mut stdout, &mut stderr, is_terminal),
        secrets: SecretReader::new(|name| std::env::var_os(name)),
        now: process::now,
    };
    if let Err(missing) = closed {
        context.output.say(&format!("warning: {missing}"));
    }
    process::or_bug(|| run(std::env::args_os(), &mut context)).into()
}

/// Runs one command line, program name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>, context: &mut Context<'_>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return answer(error, &arguments, context),
    };
    context.output.use_json(cli.json);
    let schema = cli.command.schema();
    match cli.command.run(context) {
        Ok(exit) => exit,
        Err(error) => {
            context.output.say(&error.text());
            // The exit code tells it, too, should standard output be gone.
            let _ = context.output.document(schema, &error.failure());
            error.exit()
        }
    }
}

/// Help and version are answers; everything else that clap stops at is a usage error.
fn answer(mut error: clap::Error, arguments: &[OsString], context: &mut Context<'_>) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let printed = context.output.print_rendered(&error.render().to_string());
            if printed.is_ok() { Exit::Done } else { Exit::Unusable }
        }
        _ => {
            if schema_of(arguments) == "reseal.drill/1" {
                drill_report::forget_named(arguments);
            }
            hide_values(&mut error);
            let rendered = error.render().to_string();
            context.output.say_rendered(&rendered);
            // A script that asked for a document gets one, also for a command line that could not be read.
            context.output.use_json(arguments.iter().any(|argument| argument == "--json"));
            let failed = rendered.lines().next().unwrap_or_default();
            let failure = CliError::usage(failed.trim_start_matches("error: ")).next("reseal --help");
            let _ = context.output.document(&schema_of(arguments), &failure.failure());
            Exit::Usage
        }
    }
}

/// The schema of the command that was meant.
fn schema_of(arguments: &[OsString]) -> String {
    let known = |argument: &&OsString| Cli::command().find_subcommand(argument).is_some();
    let named = arguments.iter().skip(1).find(known).and_then(|argument| argument.to_str());
    format!("reseal.{}/1", named.unwrap_or("usage"))
}

/// clap repeats what it did not understand; that may be a secret in the wrong place. Short lowercase words, which a suggestion
/// helps with, and names of options stay.
fn hide_values(error: &mut clap::Error) {
    for kind in [
        ContextKind::InvalidArg,
        ContextKind::InvalidValue,
        ContextKind::InvalidSubcommand,
    ] {
        let shown = match error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            _ => continue,
        };
        let name = shown.split('=').next().unwrap_or_default();
        let is_plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b' ' | b'<' | b'>' | b'|'))
        };
        let is_option = shown.starts_with('-') && is_plain(&name.replace(WITH_DIGITS, "").to_ascii_lowercase());
        let replaced = match kind {
            ContextKind::InvalidArg if is_option => name.to_owned(),
            ContextKind::InvalidArg if shown.starts_with('<') || shown.starts_with('[') => continue,
            _ if shown.len() <= WORD_BYTES_MAX && is_plain(&shown) => continue,
            _ => "(not shown)".to_owned(),
        };
        error.insert(kind, ContextValue::String(replaced));
    }
}

/// The one option with digits in its name. A key may begin like an option, too, and has digits.
const WITH_DIGITS: &str = "--max-p99-ratio";
/// The longest word worth a suggestion; keys are longer.
const WORD_BYTES_MAX: usize = 12;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, verified                      5  incomplete; run again to continue
  1  unexpected: a bug                   6  somebody else holds the dataset or keyring
  2  usage                               7  findings: values quarantined or not under the target key
  3  configuration or keys unusable      8  database or key service unreachable
  4  refused; nothing was touched        9  integrity: a human must look";
