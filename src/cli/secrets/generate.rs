//! `reseal secrets generate`: one fresh secret, written where the operator says.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::sink::{SinkArgs, write_public_key};
use crate::cli::{CliError, Context, Exit};
use crate::secret::{Classes, Generated, Kind, Recipe, jwks};

/// Generate one secret
///
///   token-urlsafe  as Python's secrets.token_urlsafe(64)
///   fernet         as Fernet.generate_key()
///   hex, base64    32 random bytes
///   django         SECRET_KEY of Django
///   laravel        APP_KEY of Laravel (base64:…)
///   rails          as `rails secret`
///   uuid           a random UUID
///   password       24 characters, every class at least once
///   ed25519, es256, rs256
///                  a signing key: PKCS#8 PEM, with its public key as PEM and JWKS
///   wireguard      as `wg genkey` and `wg pubkey`
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, group = ArgGroup::new("size"))]
pub struct GenerateArgs {
    /// What it looks like
    #[arg(value_parser = parse_kind)]
    kind: Kind,

    /// Random bytes, for kinds that are encoded bytes
    #[arg(long, value_name = "N", group = "size")]
    bytes: Option<usize>,

    /// Characters, for django and password
    #[arg(long, value_name = "N", group = "size")]
    length: Option<usize>,

    /// Bits of the modulus, for rs256
    #[arg(long, value_name = "N", group = "size")]
    bits: Option<usize>,

    /// A password without characters of this class; repeatable
    #[arg(long, value_enum, value_name = "CLASS")]
    without: Vec<Class>,

    /// Write the public key to this file (PEM; base64 for wireguard)
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,

    /// Write the public key to this file as a JSON Web Key Set
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,

    #[command(flatten)]
    sink: SinkArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Class {
    Lower,
    Upper,
    Digit,
    Symbol,
    /// Characters that look alike: 0 O o 1 l I
    Ambiguous,
}

#[derive(Serialize)]
struct GenerateDocument<'a> {
    command: &'static str,
    kind: &'static str,
    size: usize,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwk: Option<&'a Value>,
}

pub(super) fn run(args: GenerateArgs, context: &mut Context<'_>) -> Result<Exit, CliError> {
    let recipe = args.recipe()?;
    let sink = args
        .sink
        .choose(context, &format!("reseal secrets generate {} --out FILE", args.kind))?;
    let Generated { secret, public } = recipe
        .generate()
        .map_err(|error| CliError::from_error(Exit::Unusable, &error))?;

    // The public key first: a private key that nobody can verify with is worse than a public key without a private one.
    if let (Some(path), Some(public)) = (&args.public, &public) {
        let mut text = public.text.clone();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        write_public_key(path, text.as_bytes(), args.sink.force)?;
        context.output.say(&format!("The public key is in {}.", path.display()));
    }
    if let (Some(path), Some(jwk)) = (&args.jwks, public.as_ref().and_then(|public| public.jwk.as_ref())) {
        write_public_key(path, jwks([jwk]).as_bytes(), args.sink.force)?;
        context.output.say(&format!("Its JSON Web Key Set is in {}.", path.display()));
    }
    let text = secret.expose();
    let mut line = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    line.extend_from_slice(text.as_bytes());
    if !text.ends_with('\n') {
        line.push(b'\n');
    }
    sink.write(context, &line)?;

    let document = GenerateDocument {
        command: "generate",
        kind: recipe.kind().name(),
        size: recipe.size(),
        unit: recipe.kind().unit(),
        kid: public.as_ref().and_then(|public| public.kid()),
        public_key: public.as_ref().map(|public| public.text.as_str()),
        jwk: public.as_ref().and_then(|public| public.jwk.as_ref()),
    };
    context.output.document("reseal.secrets/1", &document)?;
    Ok(Exit::Done)
}

impl GenerateArgs {
    fn recipe(&self) -> Result<Recipe, CliError> {
        let kind = self.kind;
        let given = [(self.bytes, "bytes"), (self.length, "characters"), (self.bits, "bits")];
        let size = given.into_iter().find_map(|(size, unit)| Some((size?, unit)));
        if let Some((_, unit)) = size.filter(|(_, unit)| *unit != kind.unit()) {
            return Err(CliError::usage(format!(
                "the size of {kind} is in {}, not in {unit}",
                kind.unit()
            )));
        }
        if !self.without.is_empty() && kind != Kind::Password {
            return Err(CliError::usage("--without is for passwords"));
        }
        if self.public.is_some() && !kind.is_key_pair() {
            return Err(CliError::usage(format!("{kind} has no public key")));
        }
        if self.jwks.is_some() && !kind.signs() {
            return Err(CliError::usage(format!(
                "{kind} does not sign, so that it has no JSON Web Key"
            )));
        }
        let with = |class| !self.without.contains(&class);
        let classes = Classes {
            lower: with(Class::Lower),
            upper: with(Class::Upper),
            digit: with(Class::Digit),
            symbol: with(Class::Symbol),
            ambiguous: with(Class::Ambiguous),
        };
        Recipe::new(kind, size.map(|(size, _)| size), classes).map_err(|error| CliError::from_error(Exit::Usage, &error))
    }
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    text.parse().map_err(|error: crate::secret::UnknownKind| error.to_string())
}

const EXAMPLES: &str = "\
Examples:
  reseal secrets generate django --out new-secret-key
  reseal secrets generate token-urlsafe --bytes 48 --out - | vault kv put -mount=kv app secret_key=-
  reseal secrets generate ed25519 --out signing.pem --public signing.pub --jwks jwks.json";
