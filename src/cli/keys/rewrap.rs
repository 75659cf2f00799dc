//! `reseal keys rewrap`: another passphrase or other recipients for the keyring; the keys inside stay.

use clap::Args;

use super::view;
use crate::cli::arg::{KeyringArgs, RefArg};
use crate::cli::{CliError, Context, Exit};
use crate::config::SecretRef;
use crate::key::{KeyringError, Previous, Seal};

/// Seal the keyring with another passphrase or to other recipients
///
/// The keys inside stay as they are. The .bak file beside the keyring is sealed anew as well, so that nothing there opens with the
/// old passphrase or identity; copies elsewhere still do.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RewrapArgs {
    /// Where the new passphrase is read from: env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND
    #[arg(long, value_name = "REF", required_unless_present = "recipients")]
    new_unlock: Option<RefArg<SecretRef>>,

    /// An age recipient (age1…) who can open it from now on; repeatable, and all have to be named
    #[arg(long = "recipient", value_name = "AGE1")]
    recipients: Vec<String>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

pub(super) fn run(args: RewrapArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let path = &args.keyring.keyring;
    let passphrase = match &args.new_unlock {
        Some(reference) => {
            let reference = reference.get()?;
            context.secrets.keep_from_children(reference);
            Some(context.secrets.read_new(reference, "new passphrase")?.into_passphrase()?)
        }
        None => None,
    };
    let seal = Seal::from_parts(passphrase, &args.recipients).map_err(|fault| {
        CliError::from(KeyringError {
            path: path.clone(),
            fault,
        })
    })?;
    let mut edit = args.keyring.edit(context)?;
    edit.reseal_to(seal);
    let keyring = edit.commit(Previous::Forgotten)?;
    let to = match keyring.recipients().count() {
        0 => "with the new passphrase".to_owned(),
        count => format!("to {count} recipients"),
    };
    context.output.say(&format!("The keyring {} is sealed {to}.", path.display()));
    view::document(context, "rewrap", path, &keyring, keyring.keysets(), None)?;
    Ok(Exit::Done)
}

const EXAMPLES: &str = "\
Examples:
  reseal keys rewrap --new-unlock prompt
  reseal keys rewrap --recipient age1… --recipient age1…
  reseal keys rewrap --identity me.key --new-unlock env:NEW_PASSPHRASE";
