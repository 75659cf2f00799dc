//! Key bytes from the text in which they are kept, and back. No error repeats what it was given.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{KeyMaterial, MaterialError};

/// How key bytes are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Base64url of 32 bytes with padding, as Fernet libraries print it.
    Fernet,
    /// Base64 with padding; `base64:` may stand before it.
    Base64,
    /// Base64url, with or without padding.
    Base64Url,
    /// Hexadecimal digits of either case.
    Hex,
    /// The bytes themselves.
    Raw,
}

/// Why a text is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Nothing there.
    #[error("there is no key, the text is empty")]
    Empty,
    /// Not canonical text of this encoding, or not the length of a key.
    #[error("not a key in {0} form ({form})", form = .0.describe())]
    Encoding(KeyEncoding),
    /// Not canonical text of this encoding, or not a key of so many bytes.
    #[error("not a key of {1} bytes in {0} form")]
    Size(KeyEncoding, usize),
    /// No encoding makes a key of it.
    #[error("not a key in any known form: fernet, base64, base64url, hex, or 16, 24 or 32 raw bytes")]
    Unrecognised,
    /// Two encodings make two different keys of it.
    #[error("this could be a key in {0} form or in {1} form; say which")]
    Ambiguous(KeyEncoding, KeyEncoding),
    /// The bytes cannot be a key.
    #[error(transparent)]
    Material(MaterialError),
    /// A word that names no encoding.
    #[error("not a key encoding: fernet, base64, base64url, hex or raw")]
    UnknownEncoding,
    /// More keys in a list than anybody has.
    #[error("a list of more than {0} keys")]
    TooMany(usize),
}

impl KeyEncoding {
    /// All encodings.
    pub const ALL: [Self; 5] = [Self::Fernet, Self::Base64, Self::Base64Url, Self::Hex, Self::Raw];

    /// The key that `text` holds in this encoding. One line end after it is ignored.
    pub fn decode(self, text: &[u8]) -> Result<KeyMaterial, KeyTextError> {
        let bytes = self.bytes(text, &is_key_length)?;
        KeyMaterial::import(&bytes).map_err(KeyTextError::Material)
    }

    /// The same for a key of exactly so many bytes: HMAC keys are longer than keys that seal.
    pub fn decode_sized(self, text: &[u8], size: usize) -> Result<KeyMaterial, KeyTextError> {
        let bytes = self.bytes(text, &|length| length == size).map_err(|error| match error {
            KeyTextError::Encoding(encoding) => KeyTextError::Size(encoding, size),
            other => other,
        })?;
        KeyMaterial::import(&bytes).map_err(KeyTextError::Material)
    }

    /// The key that `text` holds in the one encoding that fits; refused when two fit and disagree.
    pub fn detect(text: &[u8]) -> Result<KeyMaterial, KeyTextError> {
        Self::detect_fitting(text, &is_key_length)
    }

    /// The same for a key of exactly so many bytes.
    pub fn detect_sized(text: &[u8], size: usize) -> Result<KeyMaterial, KeyTextError> {
        Self::detect_fitting(text, &|length| length == size)
    }

    fn detect_fitting(text: &[u8], fits: &dyn Fn(usize) -> bool) -> Result<KeyMaterial, KeyTextError> {
        if without_line_end(text).is_empty() {
            return Err(KeyTextError::Empty);
        }
        let mut found: Option<(Self, Zeroizing<Vec<u8>>)> = None;
        for encoding in Self::ALL {
            let Ok(bytes) = encoding.bytes(text, fits) else { continue };
            // Text of a key's length is far more likely text than a key that happens to be printable.
            if encoding == Self::Raw && without_line_end(text).iter().all(|byte| byte.is_ascii_graphic()) {
                continue;
            }
            match &found {
                Some((other, same)) if *same != bytes => return Err(KeyTextError::Ambiguous(*other, encoding)),
                Some(_) => {}
                None => found = Some((encoding, bytes)),
            }
        }
        let (_, bytes) = found.ok_or(KeyTextError::Unrecognised)?;
        KeyMaterial::import(&bytes).map_err(KeyTextError::Material)
    }

    /// `material` in this encoding, with padding where the encoding has it.
    pub fn encode(self, material: &KeyMaterial) -> Zeroizing<Vec<u8>> {
        let bytes = material.expose();
        match self {
            Self::Fernet | Self::Base64Url => encode_base64(&URL_SAFE, bytes),
            Self::Base64 => encode_base64(&STANDARD, bytes),
            Self::Hex => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                let mut text = Zeroizing::new(Vec::with_capacity(bytes.len() * 2));
                text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
                text
            }
            Self::Raw => Zeroizing::new(bytes.to_vec()),
        }
    }

    /// The word used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fernet => "fernet",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
            Self::Raw => "raw",
        }
    }

    fn bytes(self, text: &[u8], fits: &dyn Fn(usize) -> bool) -> Result<Zeroizing<Vec<u8>>, KeyTextError> {
        if self == Self::Raw {
            // A raw key may itself end in what looks like a line end, so the length decides what is one.
            let texts = [Some(text), text.strip_suffix(b"\n"), text.strip_suffix(b"\r\n")];
            let bytes = texts.into_iter().flatten().find(|bytes| fits(bytes.len()));
            return bytes
                .map(|bytes| Zeroizing::new(bytes.to_vec()))
                .ok_or(KeyTextError::Encoding(self));
        }
        let text = without_line_end(text);
        if text.is_empty() {
            return Err(KeyTextError::Empty);
        }
        let decoded = match self {
            Self::Fernet => decode_base64(&URL_SAFE, text).filter(|bytes| bytes.len() == FERNET_KEY_BYTES),
            Self::Base64 => decode_base64(&STANDARD, text.strip_prefix(b"base64:").unwrap_or(text)),
            Self::Base64Url => decode_base64(&URL_SAFE, text).or_else(|| decode_base64(&URL_SAFE_NO_PAD, text)),
            Self::Hex => decode_hex(text),
            Self::Raw => None,
        };
        decoded.filter(|bytes| fits(bytes.len())).ok_or(KeyTextError::Encoding(self))
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Fernet => "base64url of 32 bytes: 44 characters with the final '='",
            Self::Base64 => "canonical base64 of 16, 24 or 32 bytes, with padding",
            Self::Base64Url => "canonical base64url of 16, 24 or 32 bytes",
            Self::Hex => "32, 48 or 64 hexadecimal digits",
            Self::Raw => "16, 24 or 32 bytes",
        }
    }
}

impl fmt::Display for KeyEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyEncoding {
    type Err = KeyTextError;

    fn from_str(word: &str) -> Result<Self, KeyTextError> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.as_str() == word)
            .ok_or(KeyTextError::UnknownEncoding)
    }
}

/// The keys of a MultiFernet list `newest,older,…`: the first seals, all open.
pub fn decode_fernet_list(text: &[u8]) -> Result<Vec<KeyMaterial>, KeyTextError> {
    let items = text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let keys = items
        .take(LIST_KEYS_MAX + 1)
        .map(|item| KeyEncoding::Fernet.decode(item))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.len() > LIST_KEYS_MAX {
        Err(KeyTextError::TooMany(LIST_KEYS_MAX))
    } else {
        Ok(keys)
    }
}

pub(super) fn encode_base64(engine: &GeneralPurpose, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    // Padded base64 has exactly this size, so the slice never is too small.
    let length = engine.encode_slice(bytes, &mut text).unwrap_or_default();
    text.truncate(length);
    text
}

pub(super) fn decode_base64(engine: &GeneralPurpose, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = engine.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn decode_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push((digit(*high)? << 4) | digit(*low)?);
    }
    Some(bytes)
}

fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn is_key_length(length: usize) -> bool {
    matches!(length, 16 | 24 | 32)
}

const FERNET_KEY_BYTES: usize = 32;

/// Keys in a MultiFernet list. Every value is tried against each; nobody keeps this many.
const LIST_KEYS_MAX: usize = 100;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_reads_what_it_writes_with_and_without_a_line_end() {
        let material = KeyMaterial::generate().unwrap();
        for encoding in KeyEncoding::ALL {
            for end in ["", "\n", "\r\n"] {
                let mut text = encoding.encode(&material).to_vec();
                text.extend_from_slice(end.as_bytes());
                assert_eq!(
                    encoding.decode(&text).unwrap().expose(),
                    material.expose(),
                    "{encoding} {end:?}"
                );
                assert_eq!(
                    KeyEncoding::detect(&text).unwrap().expose(),
                    material.expose(),
                    "{encoding} {end:?}"
                );
            }
        }
    }

    #[test]
    fn a_raw_key_keeps_its_last_byte_even_if_it_is_a_line_feed() {
        let mut bytes = KeyMaterial::generate().unwrap().expose().to_vec();
        for last in [b'\n', b'\r'] {
            bytes[31] = last;
            assert_eq!(KeyEncoding::Raw.decode(&bytes).unwrap().expose(), bytes);
            assert_eq!(
                KeyEncoding::Raw.decode(&[&bytes[..], b"\n"].concat()).unwrap().expose(),
                bytes
            );
        }
    }

    #[test]
    fn fernet_keys_are_canonical_and_padded() {
        let text = KeyEncoding::Fernet.encode(&KeyMaterial::generate().unwrap());
        let refused = |text: &[u8]| KeyEncoding::Fernet.decode(text).err();
        let wrong = Some(KeyTextError::Encoding(KeyEncoding::Fernet));
        assert_eq!(refused(&text[..43]), wrong);
        // The last character before the padding carries two unused bits: set, they are another spelling of the same key.
        let mut spelled = text.to_vec();
        spelled[42] = b'B';
        assert_eq!(refused(&spelled), wrong);
        let short = KeyEncoding::Fernet.encode(&KeyMaterial::import(&KeyMaterial::generate().unwrap().expose()[..16]).unwrap());
        assert_eq!(refused(&short), wrong);
        assert_eq!(refused(b"\n"), Some(KeyTextError::Empty));
    }

    #[test]
    fn thirty_two_hex_digits_could_be_two_keys() {
        let text = KeyEncoding::Hex.encode(&KeyMaterial::import(&KeyMaterial::generate().unwrap().expose()[..16]).unwrap());
        assert_eq!(
            KeyEncoding::detect(&text).err(),
            Some(KeyTextError::Ambiguous(KeyEncoding::Base64, KeyEncoding::Hex))
        );
        assert!(KeyEncoding::Hex.decode(&text).is_ok());
    }

    #[test]
    fn passwords_are_not_keys_and_are_not_repeated() {
        let password = b"correct horse battery staple";
        let error = KeyEncoding::detect(password).err().unwrap();
        assert_eq!(error, KeyTextError::Unrecognised);
        assert!(!error.to_string().contains("horse"));
        for encoding in KeyEncoding::ALL {
            let error = encoding.decode(password).err().unwrap();
            assert!(!error.to_string().contains("horse"));
        }
    }

    #[test]
    fn a_list_of_fernet_keys_keeps_its_order() {
        let keys = [KeyMaterial::generate().unwrap(), KeyMaterial::generate().unwrap()];
        let texts: Vec<_> = keys
            .iter()
            .map(|key| String::from_utf8(KeyEncoding::Fernet.encode(key).to_vec()).unwrap())
            .collect();
        let list = decode_fernet_list(format!("{}, {}\n", texts[0], texts[1]).as_bytes()).unwrap();
        assert!(list.iter().zip(&keys).all(|(read, key)| read.expose() == key.expose()));
        assert_eq!(list.len(), 2);
        assert_eq!(
            decode_fernet_list(format!("{},", texts[0]).as_bytes()).err(),
            Some(KeyTextError::Empty)
        );
        let endless = vec![texts[0].as_str(); LIST_KEYS_MAX + 1].join(",");
        assert_eq!(
            decode_fernet_list(endless.as_bytes()).err(),
            Some(KeyTextError::TooMany(LIST_KEYS_MAX))
        );
    }
}
