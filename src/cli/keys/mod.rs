//! `reseal keys`: the life of keys, in the keyring and on their way to applications.

mod check;
mod export;
mod generate;
mod import;
mod lifecycle;
mod list;
mod rewrap;
mod sealed;
mod view;

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};

/// Generate, import, list, check, promote, retire, destroy and export keys
///
/// A keyring is one sealed file with keysets; a keyset is the keys of one purpose, one of them primary:
///
///   pending      kept back; neither seals nor opens
///   staged       opens only: every reader gets it before anybody seals with it
///   primary      seals and opens; exactly one in a keyset
///   retiring     opens the values that remain under it; `retire` takes it from readers
///   compromised  opens for the re-encryption only
///   destroyed    gone; its id is never used again
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    Generate(generate::GenerateArgs),
    Import(import::ImportArgs),
    List(list::ListArgs),
    Check(check::CheckArgs),
    Stage(lifecycle::StageArgs),
    Promote(lifecycle::PromoteArgs),
    Retire(lifecycle::RetireArgs),
    Compromise(lifecycle::CompromiseArgs),
    Destroy(lifecycle::DestroyArgs),
    Export(export::ExportArgs),
    Rewrap(rewrap::RewrapArgs),
}

/// Runs `reseal keys …`.
pub fn run(args: KeysArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match args.command {
        KeysCommand::Generate(args) => generate::run(args, context),
        KeysCommand::Import(args) => import::run(args, context),
        KeysCommand::List(args) => list::run(args, context),
        KeysCommand::Check(args) => check::run(args, context),
        KeysCommand::Stage(args) => lifecycle::stage(args, context),
        KeysCommand::Promote(args) => lifecycle::promote(args, context),
        KeysCommand::Retire(args) => lifecycle::retire(args, context),
        KeysCommand::Compromise(args) => lifecycle::compromise(args, context),
        KeysCommand::Destroy(args) => lifecycle::destroy(args, context),
        KeysCommand::Export(args) => export::run(args, context),
        KeysCommand::Rewrap(args) => rewrap::run(args, context),
    }
}

const EXAMPLES: &str = "\
Examples:
  read -rs RESEAL_PASSPHRASE && export RESEAL_PASSPHRASE
  reseal keys generate customer-data   # first key; makes reseal.keyring if need be
  reseal keys import customer-data --from env:FERNET_KEYS --format fernet
  reseal keys generate customer-data   # the next key, staged: readers get it first
  reseal keys promote customer-data    # then writers seal with it
  reseal keys export customer-data --as tink-json --out keyset.json
  reseal keys list --json
  reseal keys check --max-age 90d      # for cron and CI: exit 7 when a key is overdue";
