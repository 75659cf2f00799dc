//! Envelopes that other systems write, recognised so that messages can name them. Nothing here opens anything.
//!
//! Only rules that ordinary data does not meet by chance; what merely looks like base64 is no finding.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde_json::Value;

/// The name of the system whose envelope `value` is, if it is one of those known here.
pub(super) fn recognise(value: &[u8]) -> Option<&'static str> {
    let binary = BINARY.iter().find(|(_, matches)| matches(value));
    let text = || {
        let text = std::str::from_utf8(value).ok()?;
        TEXT.iter().find(|(_, matches)| matches(text)).map(|(name, _)| *name)
    };
    binary.map(|(name, _)| *name).or_else(text)
}

type Binary = (&'static str, fn(&[u8]) -> bool);
type Text = (&'static str, fn(&str) -> bool);

const BINARY: [Binary; 5] = [
    ("age", |value| value.starts_with(b"age-encryption.org/v1\n")),
    ("openssl-salted", |value| {
        value.starts_with(b"Salted__") && is_salted_len(value.len())
    }),
    ("aws-encryption-sdk", is_aws_encryption_sdk),
    ("django-cryptography", |value| {
        value.starts_with(&[0x80, 0, 0, 0, 0]) && value.len() >= 73 && (value.len() - 57).is_multiple_of(16)
    }),
    // A new-format packet 3 (session key), version 4, an AES algorithm, an S2K specifier that exists.
    ("pgp", |value| matches!(value, [0xc3, _, 4, 7..=9, 0 | 1 | 3, ..])),
];

const TEXT: [Text; 10] = [
    ("vault", is_vault),
    ("cloak", is_cloak),
    ("laravel", |text| text.starts_with("eyJ") && is_laravel(text)),
    ("rails", |text| text.starts_with('{') && is_rails_record(text)),
    ("rails-message-encryptor", is_rails_message),
    ("jwe", |text| text.starts_with("eyJ") && is_jwe(text)),
    ("openssl-salted", |text| {
        text.starts_with("U2FsdGVkX1") && base64_of(text).is_some_and(|bytes| is_salted_len(bytes.len()))
    }),
    ("aws-encryption-sdk", |text| {
        ["AgR4", "AgV4", "AYAB", "AYAC", "AYAD", "AYAA"]
            .iter()
            .any(|start| text.starts_with(start))
            && base64_of(text).is_some_and(|bytes| is_aws_encryption_sdk(&bytes))
    }),
    ("pgp", |text| text.trim_start().starts_with("-----BEGIN PGP MESSAGE-----")),
    ("age", |text| {
        text.trim_start().starts_with("-----BEGIN AGE ENCRYPTED FILE-----")
    }),
];

fn is_salted_len(len: usize) -> bool {
    len >= 32 && len.is_multiple_of(16)
}

/// Version 2 with a committing suite, or version 1 with its type and a suite that exists.
fn is_aws_encryption_sdk(value: &[u8]) -> bool {
    match value {
        [2, 4 | 5, 0x78, ..] => value.len() >= 64,
        [1, 0x80, 0, 0x14 | 0x46 | 0x78, ..] | [1, 0x80, 1, 0x14 | 0x46 | 0x78, ..] => value.len() >= 64,
        [1, 0x80, 2, 0x14, ..] | [1, 0x80, 3, 0x46 | 0x78, ..] => value.len() >= 64,
        _ => false,
    }
}

fn is_vault(text: &str) -> bool {
    let parts = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    parts.is_some_and(|(version, body)| is_all(version, |c| c.is_ascii_digit()) && is_base64(body))
}

fn is_cloak(text: &str) -> bool {
    let mut parts = text.strip_prefix("v1.aesgcm256.").unwrap_or_default().split('.');
    let [fingerprint, iv, body] = [(); 3].map(|()| parts.next().unwrap_or_default());
    fingerprint.len() == 8
        && is_all(fingerprint, |c| c.is_ascii_hexdigit())
        && iv.len() == 16
        && is_all(iv, is_base64url)
        && body.trim_end_matches('=').len() >= 22
        && is_all(body.trim_end_matches('='), is_base64url)
        && parts.next().is_none()
}

fn is_laravel(text: &str) -> bool {
    let json = base64_of(text).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    json.is_some_and(|json| ["iv", "value", "mac"].iter().all(|member| json[*member].is_string()))
}

fn is_rails_record(text: &str) -> bool {
    let json = serde_json::from_str::<Value>(text).ok();
    json.is_some_and(|json| json["p"].is_string() && json["h"]["iv"].is_string() && json["h"]["at"].is_string())
}

/// AES-GCM: data, vector and tag. AES-CBC: base64 of data and vector, and a digest in hex, which signed values have as well.
fn is_rails_message(text: &str) -> bool {
    let strict = |part: &str| part.is_empty() || is_base64(part);
    let url_safe = |part: &str| part.bytes().all(is_base64url);
    // From the end, where lengths are fixed: url-safe data may contain the separator.
    let gcm = |tag_len: usize| {
        let (rest, tag) = text.split_at_checked(text.len().checked_sub(tag_len)?)?;
        let rest = rest.strip_suffix("--")?;
        let (rest, iv) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
        Some([rest.strip_suffix("--")?, iv, tag])
    };
    let is_gcm = gcm(24).is_some_and(|parts| parts[2].ends_with("==") && parts.into_iter().all(strict))
        || gcm(22).is_some_and(|parts| parts.into_iter().all(url_safe));
    is_gcm || is_rails_cbc(text)
}

fn is_rails_cbc(text: &str) -> bool {
    let Some((data, digest)) = text.split_once("--") else {
        return false;
    };
    let signed = matches!(digest.len(), 40 | 64 | 128) && is_all(digest, |c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let inner = signed.then(|| base64_of(data)).flatten();
    let inner = inner.as_deref().and_then(|inner| std::str::from_utf8(inner).ok());
    let pair = inner.and_then(|inner| inner.split_once("--"));
    pair.is_some_and(|(data, iv)| is_base64(data) && iv.len() == 24 && iv.ends_with("==") && is_base64(iv))
}

fn is_jwe(text: &str) -> bool {
    let mut parts = text.split('.');
    let header = parts
        .next()
        .and_then(base64_of)
        .and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let is_encrypted = header.is_some_and(|header| header["alg"].is_string() && header["enc"].is_string());
    is_encrypted && parts.clone().count() == 4 && parts.all(|part| part.bytes().all(is_base64url))
}

fn is_all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_base64url(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'-' || c == b'_'
}

fn is_base64(text: &str) -> bool {
    is_all(text.trim_end_matches('='), |c| {
        c.is_ascii_alphanumeric() || c == b'+' || c == b'/'
    }) && base64_of(text).is_some()
}

/// Decoded in either alphabet, padded or not.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    const INDIFFERENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    GeneralPurpose::new(alphabet, INDIFFERENT).decode(text).ok()
}
