//! `reseal drill-part`: what the processes of a drill run. Nobody types it.

use std::ffi::OsString;

use clap::Args;

use super::{CliError, Exit};
use crate::drill::{Part, PartError};

/// A process of a drill
#[derive(Args)]
pub struct DrillPartArgs {
    /// What it does
    #[arg(value_parser = parse_part)]
    part: Part,

    /// The process id of the drill
    drill: u32,

    /// What else it must know
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs `reseal drill-part`.
pub(super) fn run(args: &DrillPartArgs) -> Result<Exit, CliError> {
    match args.part.play(args.drill, &args.arguments) {
        Ok(0) => Ok(Exit::Done),
        // A probe: how it failed is the drill's to tell.
        Ok(code) => std::process::exit(i32::from(code)),
        Err(error @ PartError::NotADrill) => Err(CliError::from_error(Exit::Usage, &error).next("reseal drill --help")),
        Err(error) => Err(CliError::from_error(Exit::Unusable, &error)),
    }
}

fn parse_part(text: &str) -> Result<Part, &'static str> {
    Part::parse(text).ok_or("no part of a drill")
}
