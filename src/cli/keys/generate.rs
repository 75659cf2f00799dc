//! `reseal keys generate`: a fresh key in the keyring, or one for an application that keeps its own.

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::view;
use crate::cli::arg::KeyringArgs;
use crate::cli::sink::SinkArgs;
use crate::cli::{CliError, Context, Exit};
use crate::key::{Algorithm, Entry, KeyEncoding, KeyMaterial, Keyset, KeysetName, Previous};

/// Generate a key
///
/// In a keyset that does not exist yet, the key is primary at once. In one that exists it is staged: readers get it for opening,
/// and nothing is sealed with it before `reseal keys promote`.
///
/// The keyring file is made if there is none: sealed to the --recipient given, or else with the passphrase that --unlock names.
///
/// With --format and no keyset, one key is written for an application that keeps its own keys; no keyring is involved.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    /// The keyset that gets the key
    #[arg(required_unless_present = "format", conflicts_with = "format")]
    keyset: Option<KeysetName>,

    /// What the key is for
    #[arg(long, value_enum, default_value_t = NewAlgorithm::Aes256Gcm, conflicts_with = "format")]
    algorithm: NewAlgorithm,

    /// Keep the key back (pending) instead of staging it
    #[arg(long, conflicts_with = "format")]
    pending: bool,

    /// An age recipient (age1…) to seal a new keyring to; repeatable
    #[arg(long = "recipient", value_name = "AGE1", conflicts_with = "format")]
    recipients: Vec<String>,

    /// Write one key in this form, without a keyring
    #[arg(long, value_enum)]
    format: Option<TextForm>,

    #[command(flatten)]
    sink: SinkArgs,

    #[command(flatten)]
    keyring: KeyringArgs,
}

/// Algorithms that new keys are made for.
#[derive(Clone, Copy, ValueEnum)]
enum NewAlgorithm {
    Aes256Gcm,
    Fernet,
    /// Signs tokens: HMAC-SHA-256
    Hs256,
    /// Signs tokens: HMAC-SHA-384
    Hs384,
    /// Signs tokens: HMAC-SHA-512
    Hs512,
    /// Signs tokens; services that only verify get the public key (keys export --as jwks)
    Ed25519,
}

/// Forms in which one key is written.
#[derive(Clone, Copy, ValueEnum)]
enum TextForm {
    Fernet,
    Base64,
    Base64url,
    Hex,
    Raw,
}

pub(super) fn run(args: GenerateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    match (&args.keyset, args.format) {
        (Some(keyset), None) => add_to_keyset(&args, keyset, context),
        (_, Some(form)) => write_one(&args.sink, form.into(), context),
        (None, None) => Err(CliError::usage("name a keyset, or a --format for one key without a keyring")),
    }
}

fn add_to_keyset(args: &GenerateArgs, name: &KeysetName, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let now = (context.now)();
    let algorithm = args.algorithm.into();
    let mut edit = args.keyring.edit_or_create(context, &args.recipients)?;
    let id = match edit.keyring_mut().keyset_mut(name) {
        Some(keyset) => keyset.add(algorithm, if args.pending { Entry::Pending } else { Entry::Staged }, now)?,
        None if args.pending => {
            return Err(CliError::usage(
                "the first key of a keyset is its primary; it cannot be kept back",
            ));
        }
        None => {
            let keyset = Keyset::generate(name.clone(), algorithm, now)?;
            let id = keyset.primary().id();
            edit.insert(keyset)?;
            id
        }
    };
    let keyring = edit.commit(Previous::Kept)?;
    let keyset = crate::cli::arg::keyset(&keyring, name)?;
    let state = keyset.get(id).map_or("", |key| key.state().as_str());
    context.output.say(&format!("Key {id} of keyset {name} is {state}."));
    match state {
        "staged" => context.output.say("Give it to every reader, then: reseal keys promote"),
        "pending" => context.output.say("When readers may have it: reseal keys stage"),
        _ => {}
    }
    view::document(context, "generate", &args.keyring.keyring, &keyring, [keyset], Some(id))?;
    Ok(Exit::Done)
}

fn write_one(sink: &SinkArgs, form: KeyEncoding, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let sink = sink.choose(context, &format!("reseal keys generate --format {form} --out FILE"))?;
    let material = KeyMaterial::generate().map_err(|error| CliError::from_error(Exit::Unusable, &error))?;
    let encoded = form.encode(&material);
    let mut text = Zeroizing::new(Vec::with_capacity(encoded.len() + 1));
    text.extend_from_slice(&encoded);
    if form != KeyEncoding::Raw {
        text.push(b'\n');
    }
    sink.write(context, &text)?;
    Ok(Exit::Done)
}

impl From<NewAlgorithm> for Algorithm {
    fn from(algorithm: NewAlgorithm) -> Self {
        match algorithm {
            NewAlgorithm::Aes256Gcm => Self::Aes256Gcm,
            NewAlgorithm::Fernet => Self::Fernet,
            NewAlgorithm::Hs256 => Self::Hs256,
            NewAlgorithm::Hs384 => Self::Hs384,
            NewAlgorithm::Hs512 => Self::Hs512,
            NewAlgorithm::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<TextForm> for KeyEncoding {
    fn from(form: TextForm) -> Self {
        match form {
            TextForm::Fernet => Self::Fernet,
            TextForm::Base64 => Self::Base64,
            TextForm::Base64url => Self::Base64Url,
            TextForm::Hex => Self::Hex,
            TextForm::Raw => Self::Raw,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  reseal keys generate customer-data
  reseal keys generate customer-data --algorithm fernet --recipient age1… --identity me.key
  reseal keys generate --format fernet --out new-fernet-key";
