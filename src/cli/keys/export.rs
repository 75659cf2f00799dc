//! `reseal keys export`: a keyset in the form in which an application's library takes it.

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use crate::cli::arg::{KeyringArgs, keyset};
use crate::cli::sink::SinkArgs;
use crate::cli::{CliError, Context, Exit};
use crate::key::{Algorithm, Key, KeysetName, write_jwks, write_multifernet, write_tink_json};

/// Export a keyset for an application's own library
///
/// Holds the primary and every key that applications still open with; pending, retired and compromised keys stay behind. What is
/// written is a secret in clear text.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// The keyset
    keyset: KeysetName,

    /// The form that the library takes
    #[arg(long = "as", value_enum)]
    form: ExportForm,

    /// Write a line NAME=… for an env file
    #[arg(long, value_name = "NAME", value_parser = parse_variable)]
    variable: Option<String>,

    #[command(flatten)]
    sink: SinkArgs,

    #[command(flatten)]
    keyring: KeyringArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ExportForm {
    /// Comma-separated Fernet keys, primary first: Python's MultiFernet
    Multifernet,
    /// A cleartext Tink JSON keyset
    TinkJson,
    /// The public keys of a keyset of ed25519 keys: for services that only verify tokens. No secret
    Jwks,
}

pub(super) fn run(args: ExportArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let form = match args.form {
        ExportForm::Multifernet => "multifernet",
        ExportForm::TinkJson => "tink-json",
        ExportForm::Jwks => "jwks",
    };
    let sink = args
        .sink
        .choose(context, &format!("reseal keys export {} --as {form} --out FILE", args.keyset))?;
    let keyring = args.keyring.open(context)?;
    let keyset = keyset(&keyring, &args.keyset)?;
    let exported = match args.form {
        ExportForm::Multifernet => write_multifernet(keyset)?,
        ExportForm::TinkJson => write_tink_json(keyset)?,
        ExportForm::Jwks => Zeroizing::new(write_jwks(keyset).map_err(|error| CliError::from_error(Exit::Refused, &error))?),
    };
    let primary = keyset.primary().algorithm();
    let left_out: Vec<_> = keyset
        .opening_keys()
        .filter(|key| match args.form {
            ExportForm::Multifernet => key.algorithm() != primary,
            ExportForm::TinkJson => !matches!(key.algorithm(), Algorithm::Aes256Gcm | Algorithm::Aes128Gcm),
            ExportForm::Jwks => false,
        })
        .map(Key::id)
        .collect();
    for id in left_out {
        context
            .output
            .say(&format!("Key {id} is left out: its algorithm does not fit the form."));
    }
    sink.write(context, &line(args.variable.as_deref(), &exported))?;
    Ok(Exit::Done)
}

fn line(variable: Option<&str>, value: &[u8]) -> Zeroizing<Vec<u8>> {
    // Neither form holds a single quote, so quoting it is enough for shells and env files.
    let (before, after) = match variable {
        Some(name) => (format!("{name}='"), "'\n"),
        None => (String::new(), "\n"),
    };
    let mut line = Zeroizing::new(Vec::with_capacity(before.len() + value.len() + after.len()));
    line.extend_from_slice(before.as_bytes());
    line.extend_from_slice(value);
    line.extend_from_slice(after.as_bytes());
    line
}

fn parse_variable(text: &str) -> Result<String, &'static str> {
    let begins_well = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let is_name = begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("the name of an environment variable")
    }
}

const EXAMPLES: &str = "\
Examples:
  reseal keys export customer-data --as multifernet --variable FERNET_KEYS --out fernet.env
  reseal keys export customer-data --as tink-json --out - | kubectl create secret generic tink --from-file=keyset.json=/dev/stdin";
