//! `reseal keys list`.

use clap::Args;

use super::view;
use crate::cli::arg::KeyringArgs;
use crate::cli::{CliError, Context, Exit};
use crate::key::KeysetName;

/// List keysets and keys, never their bytes
#[derive(Args)]
pub struct ListArgs {
    /// Only this keyset
    keyset: Option<KeysetName>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

pub(super) fn run(args: ListArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let keyring = args.keyring.open(context)?;
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
        context.output.say(&view::table(keyset));
    }
    view::document(context, "list", &args.keyring.keyring, &keyring, keysets, None)?;
    Ok(Exit::Done)
}
