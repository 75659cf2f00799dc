//! What the operator says, as types: `reseal.toml`, references to secrets, and reading what they refer to.

mod file;
mod reference;
mod sections;
mod session;
mod source;
mod table;

pub use file::{Config, ConfigError, ConfigFault, KeyringSettings};
pub use reference::{KeyRef, KeyringRef, RefError, SecretRef, UrlRef};
pub use sections::{Column, Database, Dataset, Policy};
pub use session::{MarksAt, SessionPlace, SessionSettings};
pub use source::{Secret, SecretError, SecretReader};

/// Whether a text looks like a secret that was written out where a name belongs: a private key, or a long run of random characters.
fn looks_secret(text: &str) -> bool {
    if ["-----BEGIN", "AGE-SECRET-KEY-", "base64:"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        return true;
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-');
    let runs = text.split(|c: char| !is_word(c));
    runs.into_iter().any(|run| {
        let has = |test: fn(&u8) -> bool| run.bytes().any(|byte| test(&byte));
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        // Paths and names are words of one case with few digits; random characters of this length practically always mix.
        let is_hex = run.len() >= 32 && run.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits >= 6;
        let is_mixed = run.len() >= 32 && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && digits >= 2;
        let words = run.split(['/', '_', '-']).map(str::len).max().unwrap_or_default();
        is_hex || (is_mixed && words >= 12)
    })
}
