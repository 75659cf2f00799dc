//! Where a secret may be written: a new private file, or standard output when somebody asked for it and it is no terminal.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::{CliError, Context, Exit};
use crate::key::{ReplaceFault, write_private, write_public};

/// Where the secret goes.
#[derive(Args)]
pub struct SinkArgs {
    /// Write to this file, made with mode 0600; `-` is standard output, if it is not a terminal
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file if it exists
    #[arg(long, requires = "out")]
    pub force: bool,

    /// Print on standard output, even on a terminal
    #[arg(long, conflicts_with = "out")]
    show: bool,
}

/// A place that a secret may go to.
pub enum Sink<'a> {
    /// Standard output, asked for.
    StandardOutput,
    /// A file.
    File {
        /// Its path.
        path: &'a Path,
        /// Whether one that exists may be replaced.
        force: bool,
    },
}

impl SinkArgs {
    /// Decides before the secret is made. `next` is what to type when no place was given.
    pub fn choose(&self, context: &Context<'_>, next: &str) -> Result<Sink<'_>, CliError> {
        let path = match &self.out {
            Some(path) if path.as_os_str() != "-" => return Ok(Sink::File { path, force: self.force }),
            path => path,
        };
        if path.is_none() && !self.show {
            return Err(CliError::usage("a secret is printed only where you say").next(next));
        }
        if context.output.is_json() {
            return Err(CliError::usage("--json puts a document on standard output, where a secret cannot go too").next(next));
        }
        if context.output.stdout_is_terminal() && !self.show {
            return Err(CliError::usage("standard output is a terminal, which keeps what it shows")
                .next("write to a file with --out FILE, or insist with --show"));
        }
        Ok(Sink::StandardOutput)
    }
}

impl Sink<'_> {
    /// Writes the secret.
    pub fn write(&self, context: &mut Context<'_>, secret: &[u8]) -> Result<(), CliError> {
        match self {
            Self::StandardOutput => Ok(context.output.write_raw(secret)?),
            Self::File { path, force } => {
                write_private(path, secret, *force).map_err(|fault| file_error(path, &fault))?;
                context
                    .output
                    .say(&format!("Written to {} (mode 0600). It is a secret.", path.display()));
                Ok(())
            }
        }
    }
}

/// Writes a public key to a file of its own, mode 0644; one that exists is replaced only if `force` says so.
pub fn write_public_key(path: &Path, content: &[u8], force: bool) -> Result<(), CliError> {
    write_public(path, content, force).map_err(|fault| file_error(path, &fault))
}

fn file_error(path: &Path, fault: &ReplaceFault) -> CliError {
    let (exit, next) = match fault {
        ReplaceFault::Exists => (Exit::Refused, "name another file, or replace it with --force"),
        ReplaceFault::Changed => (Exit::Conflict, "run the command again"),
        ReplaceFault::Before { .. } => (Exit::Unusable, "check the folder, its rights and its free space"),
        ReplaceFault::NotDurable { .. } => (Exit::Integrity, "check the disk and the file"),
    };
    CliError::from_error(exit, fault)
        .at(format!("file {}", path.display()))
        .next(next)
}
