//! Which format a column holds, from a sample of its values.
//!
//! Only rules that ordinary data does not meet by chance decide: a Fernet token, a Tink prefix with a key id that is known. What merely
//! has a fitting length and alphabet is offered as a question. Wrong certainty would rotate hashes.

use std::collections::BTreeMap;

use super::{Fernet, Format, KeyHint, by_name, foreign};
use crate::key::KeyId;

/// What a sample of a column looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// Values looked at, empty ones left out.
    pub sampled: usize,
    /// Empty values: never a ciphertext of any format.
    pub empty: usize,
    /// Values that are certainly of a format that this build rotates, per format.
    pub certain: BTreeMap<&'static str, usize>,
    /// Values in the envelope of another system, per system.
    pub foreign: BTreeMap<&'static str, usize>,
    /// Values that are none of these, per format whose shape they have. One value may have several shapes.
    pub shapes: BTreeMap<&'static str, usize>,
    /// Values that are neither certain nor foreign.
    pub unrecognised: usize,
}

/// What to do about a [`Detection`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Certainly this format. Other values may be among them: plaintext, say.
    Certain(&'static str),
    /// Certainly several formats in one column: the operator has to choose, or to select rows.
    Mixed(Vec<&'static str>),
    /// The envelope of a system that this build does not rotate.
    Foreign(&'static str),
    /// Every value has the shape of these formats, which proves nothing: ask.
    Ask(Vec<&'static str>),
    /// No value looks like a ciphertext.
    Plain,
    /// There was nothing to look at.
    Nothing,
}

impl Detection {
    /// The conclusion.
    pub fn verdict(&self) -> Verdict {
        let mut certain = self.certain.keys().chain(self.foreign.keys());
        match (certain.next(), certain.next()) {
            _ if self.sampled == 0 => Verdict::Nothing,
            (Some(_), Some(_)) => Verdict::Mixed(self.certain.keys().chain(self.foreign.keys()).copied().collect()),
            (Some(name), None) if self.foreign.is_empty() => Verdict::Certain(name),
            (Some(name), None) => Verdict::Foreign(name),
            (None, _) => {
                let everywhere = |name: &&str| self.shapes.get(name) == Some(&self.sampled);
                let shapes: Vec<_> = SHAPES.iter().copied().filter(everywhere).collect();
                if shapes.is_empty() {
                    Verdict::Plain
                } else {
                    Verdict::Ask(shapes)
                }
            }
        }
    }
}

/// Looks at a sample of a column. `key_ids` are the ids of keys that could have sealed it, if there are any.
pub fn detect<'a>(sample: impl IntoIterator<Item = &'a [u8]>, key_ids: &[KeyId]) -> Detection {
    let mut detection = Detection::default();
    for value in sample {
        if value.is_empty() {
            detection.empty += 1;
            continue;
        }
        detection.sampled += 1;
        if let Some(name) = certain(value, key_ids) {
            *detection.certain.entry(name).or_default() += 1;
        } else if let Some(name) = foreign::recognise(value) {
            *detection.foreign.entry(name).or_default() += 1;
        } else {
            detection.unrecognised += 1;
            for name in shapes(value) {
                *detection.shapes.entry(name).or_default() += 1;
            }
        }
    }
    detection
}

/// Whether a plaintext is itself a ciphertext, and whose: a value that was encrypted twice after an accident (B09). Reported, never
/// unwrapped.
pub fn looks_sealed(plaintext: &[u8]) -> Option<&'static str> {
    // Asked for every value of a rotation: most plaintexts give themselves away within a few bytes.
    if !could_be_sealed(plaintext) {
        return None;
    }
    certain(plaintext, &[]).or_else(|| foreign::recognise(plaintext))
}

/// Whether the first bytes allow a token, an envelope in text or one in bytes. Prose, addresses and numbers do not.
fn could_be_sealed(plaintext: &[u8]) -> bool {
    let start = &plaintext[..plaintext.len().min(48)];
    match start {
        [] => false,
        [b'{', ..] => true,
        [first, ..] if !(b' '..=b'~').contains(first) => true,
        // age, Salted__ and PGP's armour hold characters that tokens do not.
        _ if start.starts_with(b"age-") || start.starts_with(b"Salted__") || start.starts_with(b"-----") => true,
        _ => start
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'-' | b'_' | b'.' | b':' | b'=' | b'$')),
    }
}

fn certain(value: &[u8], key_ids: &[KeyId]) -> Option<&'static str> {
    if is_fernet(value) {
        return Some(Fernet.name());
    }
    if key_ids.is_empty() {
        return None;
    }
    let names_known_key =
        |format: &&'static dyn Format| matches!(format.hint(value), KeyHint::Key(id) if key_ids.contains(&id));
    TINK.iter()
        .filter_map(|name| by_name(name).ok())
        .find(names_known_key)
        .map(Format::name)
}

/// A canonical token of this era (1970 to 2106), of a length that tokens have.
fn is_fernet(value: &[u8]) -> bool {
    let in_range = value.starts_with(b"gAAAAA") && value.get(6).is_some_and(|c| c.is_ascii_uppercase() && *c <= b'D');
    let decoded_len = || {
        base64_simd::URL_SAFE
            .check(value)
            .and_then(|()| base64_simd::URL_SAFE.decoded_length(value))
            .ok()
    };
    in_range && decoded_len().is_some_and(|len| len >= 73 && (len - 57).is_multiple_of(16))
}

/// The formats whose shape a value has. Orders and nonce lengths look alike: the plain layout stands for all.
fn shapes(value: &[u8]) -> impl Iterator<Item = &'static str> {
    // Text in a raw format's shape is text.
    let is_text = std::str::from_utf8(value).is_ok();
    let fits = move |format: &&'static dyn Format| format.is_text() || !is_text;
    SHAPES
        .iter()
        .filter_map(|name| by_name(name).ok())
        .filter(fits)
        .filter(|format| format.hint(value) != KeyHint::Foreign)
        .map(Format::name)
}

const TINK: [&str; 4] = ["tink", "tink-base64", "tink-crunchy", "tink-crunchy-base64"];

/// The narrower alphabet first: every hex text is base64, too.
const SHAPES: [&str; 7] = [
    "aes-gcm-hex",
    "tink-base64",
    "aes-gcm-base64",
    "aes-gcm-base64url",
    "tink",
    "aes-gcm",
    "fernet",
];
