//! `reseal keys retire` and `destroy` with a configuration: only when nothing needs the key.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::error::protocol_error;
use super::report::NeedEntry;
use super::{ManagedArgs, ask_only};
use crate::cli::arg::KeyringArgs;
use crate::cli::{CliError, Context, Exit, tuning};
use crate::key::{KeyId, Keyring};
use crate::rotation::Options;
use crate::rotation::progress::{Progress, Stop};
use crate::rotation::protocol::{Managed, Need, ProtocolError};

#[derive(Serialize)]
struct RefusalDocument<'a> {
    command: &'static str,
    keyset: &'a str,
    key: KeyId,
    needs: Vec<NeedEntry>,
    exit: u8,
}

/// Gives the key up by `step` if nothing needs it, and gives the keyring as it is then; otherwise says why not, and gives the exit code.
pub fn run(
    command: &'static str,
    args: &ManagedArgs,
    keyring: &KeyringArgs,
    options: Options,
    key: impl FnOnce(&Keyring) -> Result<KeyId, CliError>,
    step: impl AsyncFnOnce(&Managed, KeyId, &Arc<Progress>, &Arc<Stop>) -> Result<Result<(), Vec<Need>>, ProtocolError>,
    context: &mut Context<'_>,
) -> Result<Result<(Keyring, KeyId, PathBuf), Exit>, CliError> {
    let mut gates = ask_only();
    // Somebody who has no instances has nobody to ask; whoever is there is asked.
    gates.expect = Some(0);
    let managed = args.managed(keyring, gates, options, false, context)?;
    let open = || Keyring::open(&managed.keyring, &managed.unlock, 0).map_err(CliError::from);
    let key = key(&open()?)?;
    let needs = tuning::run(context.output.is_json(), async |progress, stop| {
        step(&managed, key, &progress, &stop).await.map_err(protocol_error)
    })?;
    let Err(needs) = needs else {
        return Ok(Ok((open()?, key, managed.keyring)));
    };
    let reasons: Vec<String> = needs.iter().map(ToString::to_string).collect();
    let error = CliError::new(
        Exit::Refused,
        format!("key {key} of keyset {} is needed: {}", managed.keyset, reasons.join("; ")),
    )
    .durable("nothing was changed")
    .next("move its values with reseal rotate; see who is missing with reseal status");
    context.output.say(&error.text());
    let document = RefusalDocument {
        command,
        keyset: managed.keyset.as_str(),
        key,
        needs: needs.iter().map(NeedEntry::of).collect(),
        exit: Exit::Refused.code(),
    };
    Ok(Err(context.output.outcome("reseal.keys/1", &document, Exit::Refused)))
}
