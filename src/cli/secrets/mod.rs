//! `reseal secrets`: the secrets of applications.

mod check;
mod generate;
mod rotate;

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};

/// Generate secrets of applications, rotate them where applications read them, and check their age
#[derive(Args)]
pub struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Subcommand)]
enum SecretsCommand {
    Generate(generate::GenerateArgs),
    Rotate(rotate::RotateArgs),
    Check(check::CheckArgs),
}

/// Runs `reseal secrets …`.
pub fn run(args: SecretsArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match args.command {
        SecretsCommand::Generate(args) => generate::run(args, context),
        SecretsCommand::Rotate(args) => rotate::run(args, context),
        SecretsCommand::Check(args) => check::run(args, context),
    }
}
