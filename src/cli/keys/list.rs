//! `reseal keys list`.

use std::path::PathBuf;

use clap::Args;

use super::sealed::Tallies;
use super::view;
use crate::cli::arg::KeyringArgs;
use crate::cli::{CliError, Context, Exit};
use crate::key::KeysetName;

/// List keysets and keys, never their bytes
///
/// SEALED is how many values a key has sealed at most, as counted by applications that use the crate and by rotations, for the
/// algorithms that bound it; a dash where nobody has counted.
#[derive(Args)]
pub struct ListArgs {
    /// Only this keyset
    keyset: Option<KeysetName>,

    /// Add the seals that were counted beside another copy of the keyring (reseal.keyring.seals); repeat for more
    #[arg(long, value_name = "FILE")]
    seals: Vec<PathBuf>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

pub(super) fn run(args: ListArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let keyring = args.keyring.open(context)?;
    let tallies = Tallies::read(&args.keyring.keyring, &args.seals)?;
    let keysets: Vec<_> = match &args.keyset {
        Some(name) => vec![crate::cli::arg::keyset(&keyring, name)?],
        None => keyring.keysets().iter().collect(),
    };
    if keysets.is_empty() {
        context
            .output
            .say("The keyring holds no keysets. Make one: reseal keys generate KEYSET");
    }
    for keyset in &keysets {
        context.output.say(&view::counted_table(keyset, Some(&tallies)));
    }
    let path = &args.keyring.keyring;
    view::counted_document(context, "list", path, &keyring, keysets, None, Some(&tallies))?;
    Ok(Exit::Done)
}
