//! Tink's cleartext JSON keyset: read into a keyset, and written for applications that use Tink.
//!
//! A cleartext keyset is a secret. The protobuf of an AES-GCM key is one field: `1a`, the length, the key (field 3, bytes);
//! version 0 is left out on the wire.

use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::text::{decode_base64, encode_base64};
use super::{Algorithm, ImportedKey, Key, KeyId, KeyMaterial, KeyState, Keyset, MaterialError, OutputPrefix};

/// Why a Tink keyset is not taken, or a keyset not written as one.
#[derive(Debug, thiserror::Error)]
pub enum TinkJsonError {
    /// Not JSON of a Tink keyset. The place, and never the text.
    #[error("not a cleartext Tink JSON keyset (line {line}, column {column})")]
    Json {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
    },
    /// A key of another primitive or algorithm.
    #[error("key {id}: only AES-GCM keys are supported, and this one is of another type")]
    KeyType {
        /// The key.
        id: KeyId,
    },
    /// A value that is no AES-GCM key.
    #[error("key {id}: its value is not an AES-GCM key of 16 or 32 bytes")]
    Value {
        /// The key.
        id: KeyId,
    },
    /// A field with a word that is not accepted.
    #[error("key {id}: {field} is none of {accepted}")]
    Word {
        /// The key.
        id: KeyId,
        /// The JSON field.
        field: &'static str,
        /// What it may be.
        accepted: &'static str,
    },
    /// The primary is not an enabled key of the keyset.
    #[error("the primary key {id} is not an enabled key of the keyset")]
    Primary {
        /// The primary's id.
        id: KeyId,
    },
    /// The bytes cannot be a key.
    #[error("key {id}: {source}")]
    Material {
        /// The key.
        id: KeyId,
        /// Why.
        source: MaterialError,
    },
    /// The primary of the keyset is a key that Tink cannot hold.
    #[error("the primary key {id} is a {algorithm} key; a Tink keyset holds AES-GCM keys")]
    Unfit {
        /// The primary's id.
        id: KeyId,
        /// Its algorithm.
        algorithm: Algorithm,
    },
    /// The JSON could not be written.
    #[error("the keyset could not be written as JSON")]
    Write,
}

/// The keys of a cleartext Tink JSON keyset: its primary as primary, other enabled keys as retiring (they open), disabled keys as
/// retired, destroyed keys as tombstones. Ids and prefixes are kept.
pub fn read_tink_json(text: &[u8]) -> Result<Vec<ImportedKey>, TinkJsonError> {
    let text = without_escapes(text);
    let keyset: KeysetIn<'_> = serde_json::from_slice(&text).map_err(|error| TinkJsonError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let primary = KeyId(keyset.primary_key_id);
    let keys = keyset
        .key
        .into_iter()
        .map(|key| read_key(key, primary))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.iter().any(|key| key.state == KeyState::Primary) {
        Ok(keys)
    } else {
        Err(TinkJsonError::Primary { id: primary })
    }
}

/// `keyset` for Tink: every key that applications are given, enabled, and nothing else. Fernet keys among them are left out;
/// a Fernet primary is an error.
pub fn write_tink_json(keyset: &Keyset) -> Result<Zeroizing<Vec<u8>>, TinkJsonError> {
    let primary = keyset.primary();
    if !is_aes_gcm(primary.algorithm()) {
        return Err(TinkJsonError::Unfit {
            id: primary.id(),
            algorithm: primary.algorithm(),
        });
    }
    let keys: Vec<_> = keyset
        .opening_keys()
        .filter(|key| is_aes_gcm(key.algorithm()))
        .filter_map(KeyOut::of)
        .collect();
    let mut text = Zeroizing::new(Vec::with_capacity(KEYSET_TEXT_BYTES + keys.len() * KEY_TEXT_BYTES));
    let document = KeysetOut {
        primary_key_id: primary.id(),
        key: keys,
    };
    serde_json::to_writer(&mut *text, &document).map_err(|_| TinkJsonError::Write)?;
    Ok(text)
}

/// Resolves the escapes that writers of these files use (Tink for Java writes `=` as `\u003d`), so that every text can be borrowed
/// from this wiped buffer instead of being copied by the parser.
fn without_escapes(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let escape = ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape));
        let (byte, length) = escape.map_or((first, 1), |(escape, byte)| (*byte, escape.len()));
        plain.push(byte);
        rest = if length == 1 { after } else { &rest[length..] };
    }
    plain
}

fn read_key(key: KeyIn<'_>, primary: KeyId) -> Result<ImportedKey, TinkJsonError> {
    let id = KeyId(key.key_id);
    let prefix = match key.output_prefix_type {
        "TINK" => OutputPrefix::Tink,
        "RAW" => OutputPrefix::Raw,
        _ => {
            return Err(TinkJsonError::Word {
                id,
                field: "outputPrefixType",
                accepted: "TINK, RAW",
            });
        }
    };
    let (state, retired) = match key.status {
        "ENABLED" if id == primary => (KeyState::Primary, false),
        "ENABLED" => (KeyState::Retiring, false),
        "DISABLED" => (KeyState::Retiring, true),
        "DESTROYED" => (KeyState::Destroyed, false),
        _ => {
            return Err(TinkJsonError::Word {
                id,
                field: "status",
                accepted: "ENABLED, DISABLED, DESTROYED",
            });
        }
    };
    if state == KeyState::Destroyed {
        return Ok(ImportedKey {
            id: Some(id),
            algorithm: Algorithm::Aes256Gcm,
            prefix,
            material: None,
            state,
            retired,
        });
    }
    let data = key.key_data.ok_or(TinkJsonError::Value { id })?;
    if data.type_url != AES_GCM {
        return Err(TinkJsonError::KeyType { id });
    }
    if data.key_material_type != "SYMMETRIC" {
        return Err(TinkJsonError::Word {
            id,
            field: "keyMaterialType",
            accepted: "SYMMETRIC",
        });
    }
    let (algorithm, material) = read_value(id, data.value)?;
    Ok(ImportedKey {
        id: Some(id),
        algorithm,
        prefix,
        material: Some(material),
        state,
        retired,
    })
}

fn read_value(id: KeyId, text: &str) -> Result<(Algorithm, KeyMaterial), TinkJsonError> {
    let protobuf = decode_base64(&STANDARD, text.as_bytes()).ok_or(TinkJsonError::Value { id })?;
    let (algorithm, bytes) = match protobuf.as_slice() {
        [FIELD_3_BYTES, 32, bytes @ ..] if bytes.len() == 32 => (Algorithm::Aes256Gcm, bytes),
        [FIELD_3_BYTES, 16, bytes @ ..] if bytes.len() == 16 => (Algorithm::Aes128Gcm, bytes),
        _ => return Err(TinkJsonError::Value { id }),
    };
    let material = KeyMaterial::import(bytes).map_err(|source| TinkJsonError::Material { id, source })?;
    Ok((algorithm, material))
}

fn is_aes_gcm(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::Aes256Gcm | Algorithm::Aes128Gcm => true,
        Algorithm::Fernet | Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 | Algorithm::Ed25519 => false,
    }
}

// Fields that these do not name are ignored, as Tink ignores them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysetIn<'a> {
    primary_key_id: u32,
    #[serde(borrow)]
    key: Vec<KeyIn<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyIn<'a> {
    #[serde(borrow)]
    key_data: Option<KeyDataIn<'a>>,
    status: &'a str,
    key_id: u32,
    output_prefix_type: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyDataIn<'a> {
    type_url: &'a str,
    value: &'a str,
    key_material_type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeysetOut<'a> {
    primary_key_id: KeyId,
    key: Vec<KeyOut<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyOut<'a> {
    key_data: KeyDataOut<'a>,
    status: &'static str,
    key_id: KeyId,
    output_prefix_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyDataOut<'a> {
    type_url: &'static str,
    value: ValueOut<'a>,
    key_material_type: &'static str,
}

struct ValueOut<'a>(&'a KeyMaterial);

impl<'a> KeyOut<'a> {
    fn of(key: &'a Key) -> Option<Self> {
        let value = ValueOut(key.material()?);
        Some(Self {
            key_data: KeyDataOut {
                type_url: AES_GCM,
                value,
                key_material_type: "SYMMETRIC",
            },
            status: "ENABLED",
            key_id: key.id(),
            output_prefix_type: match key.prefix() {
                OutputPrefix::Tink => "TINK",
                OutputPrefix::Raw => "RAW",
            },
        })
    }
}

impl Serialize for ValueOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.expose();
        let length = u8::try_from(bytes.len()).map_err(serde::ser::Error::custom)?;
        let mut protobuf = Zeroizing::new(Vec::with_capacity(2 + bytes.len()));
        protobuf.extend_from_slice(&[FIELD_3_BYTES, length]);
        protobuf.extend_from_slice(bytes);
        let text = encode_base64(&STANDARD, &protobuf);
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

const AES_GCM: &str = "type.googleapis.com/google.crypto.tink.AesGcmKey";

const ESCAPES: &[(&[u8], u8)] = &[(b"\\u003d", b'='), (b"\\u003D", b'='), (b"\\/", b'/')];

/// The protobuf tag of field 3, length-delimited.
const FIELD_3_BYTES: u8 = 0x1a;

/// Room for the frame of the JSON and for each key, so that the buffer never moves and leaves a copy behind.
const KEYSET_TEXT_BYTES: usize = 64;
const KEY_TEXT_BYTES: usize = 320;
