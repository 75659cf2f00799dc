//! The JSON inside the sealed file, and the way back into keysets that keep their rules.
//!
//! Buffers that hold key bytes are allocated at their final size and wiped. serde's own error texts are never passed on: they
//! quote the input.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Keyring, KeyringFault};
use crate::key::{Fingerprint, Key, KeyId, KeyMaterial, KeyState, Keyset, KeysetName, Origin, OutputPrefix, Transition};

pub(super) fn write(keyring: &Keyring) -> Result<Zeroizing<Vec<u8>>, KeyringFault> {
    let document = KeyringOut::of(keyring);
    let mut size = ByteCount(0);
    serde_json::to_writer(&mut size, &document).map_err(|_| KeyringFault::Sealing)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.0));
    serde_json::to_writer(&mut *bytes, &document).map_err(|_| KeyringFault::Sealing)?;
    Ok(bytes)
}

pub(super) fn read(bytes: &[u8]) -> Result<Keyring, KeyringFault> {
    let Header { schema } = serde_json::from_slice(bytes).map_err(|_| KeyringFault::WrongSchema)?;
    let version: u32 = schema
        .strip_prefix(SCHEMA)
        .and_then(|rest| rest.parse().ok())
        .ok_or(KeyringFault::WrongSchema)?;
    match version {
        1 => {}
        0 => return Err(KeyringFault::WrongSchema),
        found => return Err(KeyringFault::NewerSchema { found }),
    }
    let document: KeyringIn<'_> = serde_json::from_slice(bytes).map_err(|error| KeyringFault::Malformed {
        line: error.line(),
        column: error.column(),
    })?;
    let recipients: Result<Vec<_>, _> = document.recipients.iter().map(|text| text.parse()).collect();
    let keysets: Result<Vec<_>, _> = document.keysets.into_iter().map(read_keyset).collect();
    Ok(Keyring {
        generation: document.generation,
        recipients: recipients.map_err(|_| KeyringFault::Recipient)?,
        keysets: keysets?,
    })
}

fn read_keyset(keyset: KeysetIn<'_>) -> Result<Keyset, KeyringFault> {
    let name: KeysetName = keyset.name.parse().map_err(|_| KeyringFault::Name)?;
    let mut keys = Vec::with_capacity(keyset.keys.len());
    for (index, key) in keyset.keys.into_iter().enumerate() {
        let field = |what| KeyringFault::Field {
            keyset: name.clone(),
            position: index + 1,
            what,
        };
        keys.push(read_key(key).map_err(field)?);
    }
    Ok(Keyset::restore(name, keyset.revision, keys)?)
}

fn read_key(key: KeyIn<'_>) -> Result<Key, &'static str> {
    let mut transitions = Vec::with_capacity(key.transitions.len());
    for transition in &key.transitions {
        let state = transition.state.parse().map_err(|_| "unknown state in its record")?;
        transitions.push(Transition {
            state,
            at: transition.at,
            retired: transition.retired,
            offered: transition.offered,
        });
    }
    let read = Key {
        id: KeyId(key.id),
        algorithm: key.algorithm.parse().map_err(|_| "unknown algorithm")?,
        prefix: match key.prefix {
            None => OutputPrefix::Tink,
            Some("raw") => OutputPrefix::Raw,
            Some(_) => return Err("unknown prefix"),
        },
        origin: match key.origin {
            "generated" => Origin::Generated,
            "imported" => Origin::Imported,
            _ => return Err("unknown origin"),
        },
        material: key.material.map(read_material).transpose()?,
        fingerprint: match key.fingerprint {
            None => None,
            Some(text) => Some(Fingerprint::parse(text).ok_or("its fingerprint is not 16 hexadecimal digits")?),
        },
        transitions,
    };
    match key.state.parse::<KeyState>() {
        Ok(state) if state == read.state() => Ok(read),
        Ok(_) => Err("its state is not the last one of its record"),
        Err(_) => Err("unknown state"),
    }
}

fn read_material(text: &str) -> Result<KeyMaterial, &'static str> {
    let mut bytes = Zeroizing::new([0; MATERIAL_BYTES_MAX]);
    let length = STANDARD
        .decode_slice(text, &mut bytes[..])
        .map_err(|_| "its bytes are not base64 of a key")?;
    KeyMaterial::import(&bytes[..length]).map_err(|_| "its bytes cannot be a key")
}

#[derive(Serialize)]
struct KeyringOut<'a> {
    schema: &'static str,
    generation: u64,
    recipients: Vec<String>,
    keysets: Vec<KeysetOut<'a>>,
}

#[derive(Serialize)]
struct KeysetOut<'a> {
    name: &'a str,
    revision: u64,
    keys: Vec<KeyOut<'a>>,
}

struct KeyOut<'a>(&'a Key);

#[derive(Serialize)]
struct TransitionOut {
    state: &'static str,
    at: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retired: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    offered: bool,
}

impl<'a> KeyringOut<'a> {
    fn of(keyring: &'a Keyring) -> Self {
        Self {
            schema: "reseal.keyring/1",
            generation: keyring.generation,
            recipients: keyring.recipients().collect(),
            keysets: keyring.keysets.iter().map(KeysetOut::of).collect(),
        }
    }
}

impl<'a> KeysetOut<'a> {
    fn of(keyset: &'a Keyset) -> Self {
        Self {
            name: keyset.name().as_str(),
            revision: keyset.revision(),
            keys: keyset.keys().iter().map(KeyOut).collect(),
        }
    }
}

impl Serialize for KeyOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = self.0;
        let mut fields = serializer.serialize_struct("Key", 8)?;
        fields.serialize_field("id", &key.id())?;
        fields.serialize_field("algorithm", key.algorithm().as_str())?;
        if key.prefix() == OutputPrefix::Raw {
            fields.serialize_field("prefix", "raw")?;
        }
        fields.serialize_field("state", key.state().as_str())?;
        fields.serialize_field(
            "origin",
            match key.origin() {
                Origin::Generated => "generated",
                Origin::Imported => "imported",
            },
        )?;
        if let Some(fingerprint) = key.fingerprint() {
            fields.serialize_field("fingerprint", &fingerprint.to_string())?;
        }
        if let Some(material) = key.material() {
            fields.serialize_field("material", &MaterialOut(material))?;
        }
        let transitions = key.transitions().iter();
        let transitions: Vec<_> = transitions
            .map(|t| TransitionOut {
                state: t.state.as_str(),
                at: t.at,
                retired: t.retired,
                offered: t.offered,
            })
            .collect();
        fields.serialize_field("transitions", &transitions)?;
        fields.end()
    }
}

struct MaterialOut<'a>(&'a KeyMaterial);

impl Serialize for MaterialOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new([0; MATERIAL_TEXT_BYTES_MAX]);
        let length = STANDARD
            .encode_slice(self.0.expose(), &mut text[..])
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text[..length]).map_err(serde::ser::Error::custom)?)
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    schema: &'a str,
}

// Borrowed text: what serde reads out of the wiped buffer is not copied on the way to `KeyMaterial`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringIn<'a> {
    #[serde(rename = "schema")]
    _schema: &'a str,
    generation: u64,
    #[serde(borrow)]
    recipients: Vec<&'a str>,
    #[serde(borrow)]
    keysets: Vec<KeysetIn<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysetIn<'a> {
    name: &'a str,
    revision: u64,
    #[serde(borrow)]
    keys: Vec<KeyIn<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyIn<'a> {
    id: u32,
    algorithm: &'a str,
    prefix: Option<&'a str>,
    state: &'a str,
    origin: &'a str,
    fingerprint: Option<&'a str>,
    material: Option<&'a str>,
    #[serde(borrow)]
    transitions: Vec<TransitionIn<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransitionIn<'a> {
    state: &'a str,
    at: Timestamp,
    #[serde(default)]
    retired: bool,
    // Written only where it is true: a program that does not know it refuses the file instead of offering what it should not.
    #[serde(default)]
    offered: bool,
}

/// Counts what would be written, so that the real buffer never grows and leaves a copy of keys behind.
struct ByteCount(usize);

impl Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The schema's name up to its version, which grows when an older program would misread the file.
const SCHEMA: &str = "reseal.keyring/";

/// Room for the longest key, 64 bytes, and what the decoder asks for.
const MATERIAL_BYTES_MAX: usize = 96;
const MATERIAL_TEXT_BYTES_MAX: usize = 88;
