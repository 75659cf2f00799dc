//! `reseal keys import`: keys that an application holds already.

use clap::{Args, ValueEnum};

use super::view;
use crate::cli::arg::{KeyringArgs, RefArg};
use crate::cli::{CliError, Context, Exit};
use crate::config::{Secret, SecretRef};
use crate::key::{
    Algorithm, Entry, ImportedKey, KeyEncoding, KeyMaterial, KeyState, Keyset, KeysetName, OutputPrefix, Previous,
    decode_fernet_list, read_tink_json,
};

/// Import keys that an application holds already
///
/// Into a new keyset: the first key of a list, or the primary of a Tink keyset, becomes primary; the others open. Into a keyset
/// that exists: every key enters as --as says. A key that is a short pattern, repeated, is taken with --as retiring only: to be rotated
/// away from.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// The keyset that gets the keys
    keyset: KeysetName,

    /// Where the keys are read from: env:NAME, file:PATH, fd:N, prompt, cmd:COMMAND
    #[arg(long, value_name = "REF")]
    from: RefArg<SecretRef>,

    /// How the keys are written down
    #[arg(long, value_enum)]
    format: ImportForm,

    /// What a base64, hex or raw key is for
    #[arg(long, value_enum)]
    algorithm: Option<ImportAlgorithm>,

    /// What the keys become in a keyset that exists
    #[arg(long = "as", value_enum, default_value_t = EntryState::Staged)]
    entry: EntryState,

    /// An age recipient (age1…) to seal a new keyring to; repeatable
    #[arg(long = "recipient", value_name = "AGE1")]
    recipients: Vec<String>,

    #[command(flatten)]
    keyring: KeyringArgs,
}

/// Forms in which keys come.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImportForm {
    /// A Fernet key, or a MultiFernet list `newest,older`
    Fernet,
    /// A cleartext Tink JSON keyset of AES-GCM keys
    TinkJson,
    /// Base64 of as many bytes as the algorithm takes
    Base64,
    /// Base64url of as many bytes as the algorithm takes
    Base64url,
    /// Hexadecimal digits
    Hex,
    /// The bytes themselves
    Raw,
    /// Whichever of these fits, if only one does
    Auto,
}

#[derive(Clone, Copy, ValueEnum)]
enum ImportAlgorithm {
    Aes256Gcm,
    Aes128Gcm,
    Fernet,
    Hs256,
    Hs384,
    Hs512,
    Ed25519,
}

#[derive(Clone, Copy, ValueEnum)]
enum EntryState {
    /// Given to readers, for opening: the next primary
    Staged,
    /// Kept back
    Pending,
    /// An older key whose values are still there
    Retiring,
}

pub(super) fn run(args: ImportArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let now = (context.now)();
    let reference = args.from.get()?;
    context.secrets.keep_from_children(reference);
    let secret = context.secrets.read(reference, "keys to import")?;
    let keys = parse(&args, &secret)?;
    let mut edit = args.keyring.edit_or_create(context, &args.recipients)?;
    let count = keys.len();
    match edit.keyring_mut().keyset_mut(&args.keyset) {
        None => edit.insert(Keyset::import(args.keyset.clone(), keys, now)?)?,
        Some(_) if args.format == ImportForm::TinkJson => {
            return Err(CliError::new(
                Exit::Refused,
                format!("keyset {} exists, and a Tink keyset becomes one of its own", args.keyset),
            )
            .next("import it under another name"));
        }
        Some(keyset) => {
            for key in keys {
                if let Some(material) = key.material {
                    keyset.add_imported(key.algorithm, material, args.entry.into(), now)?;
                }
            }
        }
    }
    let keyring = edit.commit(Previous::Kept)?;
    let keyset = crate::cli::arg::keyset(&keyring, &args.keyset)?;
    let plural = if count == 1 { "key" } else { "keys" };
    context
        .output
        .say(&format!("{count} {plural} imported into keyset {}.", args.keyset));
    context.output.say(&view::table(keyset));
    let only = if count == 1 {
        keyset.keys().last().map(|key| key.id())
    } else {
        None
    };
    view::document(context, "import", &args.keyring.keyring, &keyring, [keyset], only)?;
    Ok(Exit::Done)
}

fn parse(args: &ImportArgs, secret: &Secret) -> Result<Vec<ImportedKey>, CliError> {
    let encoding = match args.format {
        ImportForm::TinkJson => return Ok(read_tink_json(secret.expose())?),
        ImportForm::Fernet => {
            let keys = decode_fernet_list(secret.expose())?.into_iter().enumerate();
            return Ok(keys
                .map(|(index, material)| imported(Algorithm::Fernet, material, index))
                .collect());
        }
        ImportForm::Base64 => Some(KeyEncoding::Base64),
        ImportForm::Base64url => Some(KeyEncoding::Base64Url),
        ImportForm::Hex => Some(KeyEncoding::Hex),
        ImportForm::Raw => Some(KeyEncoding::Raw),
        ImportForm::Auto => None,
    };
    let Some(algorithm) = args.algorithm else {
        return Err(CliError::usage(
            "say what the key is for: --algorithm aes256-gcm, aes128-gcm, fernet, hs256, hs384, hs512 or ed25519",
        ));
    };
    let (algorithm, text): (Algorithm, &[u8]) = (algorithm.into(), secret.expose());
    let material = match (algorithm, encoding) {
        // Their keys are as long as their hashes. Sixty-four hexadecimal digits are a shorter key, and base64 of one of 48 bytes.
        (Algorithm::Hs384 | Algorithm::Hs512, Some(encoding)) => encoding.decode_sized(text, algorithm.key_bytes())?,
        (Algorithm::Hs384 | Algorithm::Hs512, None) => KeyEncoding::detect_sized(text, algorithm.key_bytes())?,
        (_, Some(encoding)) => encoding.decode(text)?,
        (_, None) => KeyEncoding::detect(text)?,
    };
    Ok(vec![imported(algorithm, material, 0)])
}

/// The first of a list seals, the others open.
fn imported(algorithm: Algorithm, material: KeyMaterial, index: usize) -> ImportedKey {
    let state = if index == 0 { KeyState::Primary } else { KeyState::Retiring };
    ImportedKey {
        id: None,
        algorithm,
        prefix: OutputPrefix::Tink,
        material: Some(material),
        state,
        retired: false,
    }
}

impl From<ImportAlgorithm> for Algorithm {
    fn from(algorithm: ImportAlgorithm) -> Self {
        match algorithm {
            ImportAlgorithm::Aes256Gcm => Self::Aes256Gcm,
            ImportAlgorithm::Aes128Gcm => Self::Aes128Gcm,
            ImportAlgorithm::Fernet => Self::Fernet,
            ImportAlgorithm::Hs256 => Self::Hs256,
            ImportAlgorithm::Hs384 => Self::Hs384,
            ImportAlgorithm::Hs512 => Self::Hs512,
            ImportAlgorithm::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<EntryState> for Entry {
    fn from(state: EntryState) -> Self {
        match state {
            EntryState::Staged => Self::Staged,
            EntryState::Pending => Self::Pending,
            EntryState::Retiring => Self::Retiring,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  reseal keys import customer-data --from env:FERNET_KEY --format fernet
  reseal keys import customer-data --from file:keyset.json --format tink-json
  reseal keys import logins --from env:JWT_SECRET --format base64 --algorithm hs512
  reseal keys import customer-data --from 'cmd:vault kv get -field=key secret/app' --format base64 --algorithm aes256-gcm --as retiring";
