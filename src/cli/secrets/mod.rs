//! `reseal secrets`: the secrets of applications.

mod generate;
mod rotate;

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};

/// Generate secrets of applications, and rotate them where applications read them
#[derive(Args)]
pub struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Subcommand)]
enum SecretsCommand {
    Generate(generate::GenerateArgs),
    Rotate(rotate::RotateArgs),
}

/// Runs `reseal secrets …`.
pub fn run(args: SecretsArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match args.command {
        SecretsCommand::Generate(args) => generate::run(args, context),
        SecretsCommand::Rotate(args) => rotate::run(args, context),
    }
}
