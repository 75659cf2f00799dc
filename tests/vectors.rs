//! The formats against vectors that the real libraries wrote (`tests/vectors/`): what they read is read, byte for byte what they
//! wrote is written, and what they refuse is refused for the right reason.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reseal::format::{
    AesGcm, Carried, Cipher, Encoding, Fernet, FernetCipher, Format, KeyHint, OpenError, Order, PrefixType, Scratch, Tink,
    TinkKeyset, TrialError, by_name, open_first, reseal, seeded,
};
use reseal::key::{KeyId, KeyMaterial};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vector {
    id: String,
    key: String,
    key_encoding: String,
    plaintext_hex: Option<String>,
    aad_hex: Option<String>,
    ciphertext: String,
    ciphertext_encoding: String,
    valid: bool,
    comment: String,
    quirk: Option<String>,
    #[serde(default)]
    params: Value,
}

impl Vector {
    fn plaintext(&self) -> Vec<u8> {
        hex(self.plaintext_hex.as_ref().unwrap())
    }

    fn associated_data(&self) -> Vec<u8> {
        self.aad_hex.as_deref().map(hex).unwrap_or_default()
    }

    fn material(&self) -> KeyMaterial {
        material(&self.key, &self.key_encoding)
    }

    fn says(&self, part: &str) -> bool {
        self.comment.contains(part)
    }

    /// What the column holds.
    fn stored(&self) -> Vec<u8> {
        match (self.ciphertext_encoding.as_str(), self.params["stored_as"].as_str()) {
            ("hex", Some("hex")) => self.ciphertext.clone().into_bytes(),
            ("hex", _) => hex(&self.ciphertext),
            _ => self.ciphertext.clone().into_bytes(),
        }
    }
}

fn vectors(json: &str, expected: usize) -> Vec<Vector> {
    let all: Vec<Vector> = serde_json::from_str(json).unwrap();
    assert_eq!(all.len(), expected, "a vector file was cut");
    all
}

fn hex(text: impl AsRef<str>) -> Vec<u8> {
    let text = text.as_ref();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn material(key: &str, encoding: &str) -> KeyMaterial {
    let bytes = match encoding {
        "hex" => hex(key),
        "base64url" => URL_SAFE.decode(key).unwrap(),
        other => panic!("a key in {other}"),
    };
    KeyMaterial::import(&bytes).unwrap()
}

/// Opens into a buffer that already holds something, and insists that an error leaves it alone.
fn open(cipher: &dyn Cipher, stored: &[u8], associated_data: &[u8]) -> Result<(Vec<u8>, Carried), OpenError> {
    let mut out = b"kept".to_vec();
    let opened = cipher.open(stored, associated_data, &mut out);
    assert_eq!(&out[..4], b"kept");
    assert!(opened.is_ok() || out.len() == 4);
    opened.map(|carried| (out.split_off(4), carried))
}

const FERNET: &str = include_str!("vectors/fernet.json");
const FERNET_SPEC: &str = include_str!("vectors/fernet_spec.json");
const MULTIFERNET: &str = include_str!("vectors/fernet_multifernet_rotate.json");
const AIRFLOW: &str = include_str!("vectors/airflow_fernet.json");
const TINK: &str = include_str!("vectors/tink_aead.json");
const AES_GCM: &str = include_str!("vectors/aes_gcm_raw.json");

#[test]
fn fernet_reads_what_the_libraries_wrote() {
    let all = [
        vectors(FERNET, 52),
        vectors(FERNET_SPEC, 10),
        vectors(MULTIFERNET, 26),
        vectors(AIRFLOW, 63),
    ];
    let mut read = 0;
    for vector in all
        .iter()
        .flatten()
        .filter(|v| v.valid && v.quirk.as_deref() != Some("plaintext-row"))
    {
        let cipher = Fernet.cipher(&vector.material(), None).unwrap();
        let (plaintext, carried) =
            open(&*cipher, &vector.stored(), b"").unwrap_or_else(|error| panic!("{}: {error}", vector.id));
        assert_eq!(plaintext, vector.plaintext(), "{}", vector.id);
        assert_eq!(Fernet.hint(&vector.stored()), KeyHint::Unnamed, "{}", vector.id);
        if let Some(time) = vector.params["timestamp"].as_u64() {
            assert_eq!(carried.timestamp, Some(time), "{}", vector.id);
        }
        read += 1;
    }
    assert_eq!(read, 26 + 2 + 18 + 52);
}

#[test]
fn fernet_writes_what_the_libraries_write() {
    let mut written = 0;
    for vector in vectors(FERNET, 52)
        .iter()
        .chain(&vectors(FERNET_SPEC, 10))
        .filter(|v| v.params["iv_hex"].is_string())
    {
        let cipher = FernetCipher::new(&vector.material()).unwrap();
        let iv = hex(vector.params["iv_hex"].as_str().unwrap()).try_into().unwrap();
        let plaintext = vector.plaintext();
        let mut out = b"kept".to_vec();
        cipher.seal_with_iv(&plaintext, vector.params["timestamp"].as_u64().unwrap(), &iv, &mut out);
        assert_eq!(out.len() - 4, Fernet.sealed_len(plaintext.len()), "{}", vector.id);
        assert_eq!(&out[..4], b"kept");
        let text = String::from_utf8(out.split_off(4)).unwrap();
        let canonical = vector.quirk.is_none();
        assert_eq!(text == vector.ciphertext, canonical, "{}: {text}", vector.id);
        written += 1;
    }
    assert_eq!(written, 27);
}

#[test]
fn fernet_refuses_for_the_right_reason() {
    let all = [
        vectors(FERNET, 52),
        vectors(FERNET_SPEC, 10),
        vectors(MULTIFERNET, 26),
        vectors(AIRFLOW, 63),
    ];
    let mut refused = 0;
    for vector in all.iter().flatten().filter(|v| !v.valid) {
        let stored = vector.stored();
        let cipher = Fernet.cipher(&vector.material(), None).unwrap();
        let opened = open(&*cipher, &stored, b"");
        // Invalid through time alone: a rotation must read them.
        if vector.params["valid_without_ttl"] == true {
            assert_eq!(opened.unwrap().0, b"", "{}", vector.id);
            continue;
        }
        let (reason, hint) = fernet_expectation(vector, &stored);
        assert_eq!(opened.unwrap_err(), reason, "{} {}", vector.id, vector.comment);
        assert_eq!(Fernet.hint(&stored), hint, "{} {}", vector.id, vector.comment);
        refused += 1;
    }
    assert_eq!(refused, 26 + 6 + 8 + 9);
}

fn fernet_expectation(vector: &Vector, stored: &[u8]) -> (OpenError, KeyHint) {
    let version = |byte| (OpenError::UnknownVersion(byte), KeyHint::UnknownVersion(byte));
    let cut = |hint| (OpenError::Malformed, hint);
    let is_token = stored.starts_with(b"gAAAAA");
    match vector {
        v if v.says("version byte 0x81") || v.says("wrong version, is_encrypted") => version(0x81),
        v if v.says("version byte 0x00") => version(0),
        v if v.says("wrong version: rotate") => version(0x7f),
        v if [
            "garbage text",
            "plaintext",
            "empty",
            "garbage base64",
            "random base64",
            "invalid base64",
        ]
        .iter()
        .any(|t| v.says(t)) =>
        {
            cut(KeyHint::Foreign)
        }
        v if [
            "padding byte",
            "inconsistent padding",
            "payload padding error",
            "causes padding error",
        ]
        .iter()
        .any(|t| v.says(t)) =>
        {
            (OpenError::Padding, KeyHint::Unnamed)
        }
        // Of a length that no token has.
        v if v.says("0x80 followed by random bytes") => cut(KeyHint::Unnamed),
        // Whole blocks are missing: the layout holds, the tag does not.
        v if v.says("truncated by a block") || (v.says("truncated") && is_whole_token(stored)) => {
            (OpenError::Authentication, KeyHint::Unnamed)
        }
        v if [
            "truncated",
            "appended",
            "version and timestamp only",
            "base64 padding",
            "non-alphabet characters at the end",
            "prefix only",
            "not a whole number of blocks",
            "no ciphertext block",
            "too short",
            "not multiple of block size",
            "cut by a too short column",
            "garbage",
        ]
        .iter()
        .any(|t| v.says(t)) =>
        {
            assert!(is_token);
            cut(KeyHint::Unnamed)
        }
        _ => (OpenError::Authentication, KeyHint::Unnamed),
    }
}

fn is_whole_token(stored: &[u8]) -> bool {
    URL_SAFE
        .decode(stored)
        .is_ok_and(|token| token.len() >= 73 && (token.len() - 57).is_multiple_of(16))
}

#[test]
fn rows_in_clear_are_foreign_to_fernet() {
    let rows: Vec<_> = vectors(AIRFLOW, 63)
        .into_iter()
        .filter(|v| v.quirk.as_deref() == Some("plaintext-row"))
        .collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(Fernet.hint(&row.stored()), KeyHint::Foreign);
    }
}

/// What `MultiFernet.rotate` did is done the same way: the time stays, the vector is fresh, and the new token opens to the same bytes.
#[test]
fn rotating_fernet_keeps_the_time() {
    let mut rng = seeded().unwrap();
    let mut scratch = Scratch::new();
    let mut rotated = 0;
    for vector in vectors(MULTIFERNET, 26).iter().filter(|v| v.valid) {
        let old_token = vector.params["old_ciphertext"].as_str().unwrap().as_bytes();
        let keys = vector.params["keys_in_order"].as_array().unwrap().iter();
        let keys: Vec<_> = keys
            .map(|key| Fernet.cipher(&material(key.as_str().unwrap(), "base64url"), None).unwrap())
            .collect();
        let (position, _) = open_first(keys.iter().map(|key| &**key), old_token, b"", &mut Vec::new()).unwrap();
        let mut new_token = Vec::new();
        reseal(
            &*keys[position],
            &*keys[0],
            old_token,
            b"",
            &mut scratch,
            &mut rng,
            &mut new_token,
        )
        .unwrap();
        assert_ne!(new_token, old_token);
        let (plaintext, carried) = open(&*keys[0], &new_token, b"").unwrap();
        assert_eq!(plaintext, vector.plaintext(), "{}", vector.id);
        assert_eq!(carried.timestamp, vector.params["timestamp"].as_u64(), "{}", vector.id);
        rotated += 1;
    }
    assert_eq!(rotated, 18);
}

/// The format that a vector of `aes_gcm_raw` describes.
fn aes_gcm(vector: &Vector) -> &'static AesGcm {
    let stored_as = vector.params["stored_as"].as_str().unwrap_or(&vector.ciphertext_encoding);
    let encoding = match stored_as {
        "raw" => Encoding::Raw,
        "hex" => Encoding::Hex,
        "base64" => Encoding::Base64,
        "base64url" | "base64url-nopad" => Encoding::Base64Url,
        other => panic!("stored as {other}"),
    };
    let order = match vector.params["layout"].as_str().unwrap() {
        "nonce||ct||tag" => Order::NonceCiphertextTag,
        "nonce||tag||ct" => Order::NonceTagCiphertext,
        "ct||tag||nonce" => Order::CiphertextTagNonce,
        "tag||nonce||ct" => Order::TagNonceCiphertext,
        other => panic!("layout {other}"),
    };
    let nonce_bytes = vector.params["nonce_len"].as_u64().unwrap() as usize;
    let fits = |format: &&AesGcm| {
        (format.encoding(), format.layout().order, format.layout().nonce_bytes) == (encoding, order, nonce_bytes)
    };
    AesGcm::all().find(fits).unwrap()
}

#[test]
fn aes_gcm_reads_and_writes_what_the_libraries_wrote() {
    let mut checked = 0;
    for vector in vectors(AES_GCM, 63).iter().filter(|v| v.valid) {
        let format = aes_gcm(vector);
        let (stored, associated_data) = (vector.stored(), vector.associated_data());
        let cipher = format.cipher(&vector.material(), None).unwrap();
        let (plaintext, carried) =
            open(&*cipher, &stored, &associated_data).unwrap_or_else(|error| panic!("{}: {error}", vector.id));
        assert_eq!(plaintext, vector.plaintext(), "{}", vector.id);
        assert_eq!(format.hint(&stored), KeyHint::Unnamed, "{}", vector.id);
        assert_eq!(by_name(format.name()).unwrap().name(), format.name());

        let nonce = hex(vector.params["nonce_hex"].as_str().unwrap());
        let sealed = format
            .seal_with_nonce(&vector.material(), &nonce, &plaintext, &associated_data, carried.unpadded)
            .unwrap();
        assert_eq!(sealed, stored, "{} in {}", vector.id, format.name());
        checked += 1;
    }
    assert_eq!(checked, 47);
}

#[test]
fn aes_gcm_refuses_for_the_right_reason() {
    let mut refused = 0;
    for vector in vectors(AES_GCM, 63).iter().filter(|v| !v.valid) {
        let format = aes_gcm(vector);
        let too_short = ["shorter than nonce plus tag", "nonce only", "empty"]
            .iter()
            .any(|text| vector.says(text));
        let (reason, hint) = match too_short {
            true => (OpenError::Malformed, KeyHint::Foreign),
            false => (OpenError::Authentication, KeyHint::Unnamed),
        };
        let cipher = format.cipher(&vector.material(), None).unwrap();
        assert_eq!(
            open(&*cipher, &vector.stored(), &vector.associated_data()).unwrap_err(),
            reason,
            "{}",
            vector.id
        );
        assert_eq!(format.hint(&vector.stored()), hint, "{}", vector.id);
        refused += 1;
    }
    assert_eq!(refused, 16);
}

/// The AES-GCM keys of a Tink keyset in JSON, as far as they are enabled; whether the keyset has keys of other algorithms.
fn tink_keyset(json: &str) -> (TinkKeyset, Vec<(KeyId, PrefixType, KeyMaterial)>, bool) {
    let document: Value = serde_json::from_str(json).unwrap();
    let mut keyset = TinkKeyset::new();
    let mut keys = Vec::new();
    let mut others = false;
    for key in document["key"].as_array().unwrap() {
        if key["keyData"]["typeUrl"] != "type.googleapis.com/google.crypto.tink.AesGcmKey" {
            others = true;
            continue;
        }
        // A protobuf of one field: number 3, the length, the key.
        let value = STANDARD.decode(key["keyData"]["value"].as_str().unwrap()).unwrap();
        assert_eq!((value[0], usize::from(value[1])), (0x1a, value.len() - 2));
        let material = KeyMaterial::import(&value[2..]).unwrap();
        let id = KeyId(key["keyId"].as_u64().unwrap().try_into().unwrap());
        let prefix_type = match key["outputPrefixType"].as_str().unwrap() {
            "TINK" => PrefixType::Tink,
            "CRUNCHY" => PrefixType::Crunchy,
            "RAW" => PrefixType::Raw,
            other => panic!("prefix type {other}"),
        };
        if key["status"] == "ENABLED" {
            keyset.enable(id, prefix_type, &material).unwrap();
            keys.push((id, prefix_type, material));
        }
    }
    (keyset, keys, others)
}

#[test]
fn tink_reads_what_tink_wrote() {
    let (mut read, mut other_algorithms) = (0, 0);
    for vector in vectors(TINK, 116).iter().filter(|v| v.valid) {
        let (keyset, keys, others) = tink_keyset(&vector.key);
        let stored = STANDARD.decode(&vector.ciphertext).unwrap();
        let mut out = Vec::new();
        let opened = keyset.open(&stored, &vector.associated_data(), &mut out);
        let written_under = vector.params["written_under_key_id"]
            .as_u64()
            .or(vector.params["primary_key_id"].as_u64())
            .unwrap();
        let written_under = KeyId(written_under.try_into().unwrap());
        let Some((id, prefix_type, material)) = keys.iter().find(|(id, ..)| *id == written_under) else {
            // Sealed with an algorithm that this build does not have: refused, not misread.
            assert!(others && opened.is_err() && out.is_empty(), "{}", vector.id);
            other_algorithms += 1;
            continue;
        };
        assert_eq!(opened.map(|(id, _)| id), Ok(*id), "{}", vector.id);
        assert_eq!(out, vector.plaintext(), "{}", vector.id);

        let (format, id) = match prefix_type {
            PrefixType::Tink => ("tink", Some(*id)),
            PrefixType::Crunchy | PrefixType::Legacy => ("tink-crunchy", Some(*id)),
            PrefixType::Raw => ("aes-gcm", None),
        };
        // The format alone reads the same, in bytes and in text, and writes values that the keyset reads.
        for (name, stored) in [
            (format.to_owned(), stored.clone()),
            (format!("{format}-base64"), vector.ciphertext.clone().into_bytes()),
        ] {
            let format = by_name(&name).unwrap();
            let cipher = format.cipher(material, id).unwrap();
            assert_eq!(
                open(&*cipher, &stored, &vector.associated_data()).unwrap().0,
                vector.plaintext(),
                "{name} {}",
                vector.id
            );
            assert_eq!(
                format.hint(&stored),
                id.map_or(KeyHint::Unnamed, KeyHint::Key),
                "{name} {}",
                vector.id
            );
            assert_eq!(
                format.sealed_len(vector.plaintext().len()),
                stored.len(),
                "{name} {}",
                vector.id
            );
        }
        read += 1;
    }
    assert_eq!((read, other_algorithms), (54, 44));
}

#[test]
fn tink_refuses_for_the_right_reason() {
    let named = KeyId(2_266_567_132);
    let mut refused = 0;
    for vector in vectors(TINK, 116).iter().filter(|v| !v.valid) {
        let (keyset, ..) = tink_keyset(&vector.key);
        let stored = STANDARD.decode(&vector.ciphertext).unwrap();
        let reason = match vector {
            v if v.says("without that key id") || v.says("DISABLED") => OpenError::OtherKey(named),
            v if v.says("key id flipped") => OpenError::OtherKey(KeyId(named.0 ^ 1)),
            v if v.says("prefix byte 0x00") => OpenError::UnknownVersion(0),
            v if v.says("prefix byte 0x02") => OpenError::UnknownVersion(2),
            v if ["prefix stripped", "prefix only", "empty ["].iter().any(|text| v.says(text)) => OpenError::Malformed,
            _ => OpenError::Authentication,
        };
        let mut out = vec![1];
        let error = keyset.open(&stored, &vector.associated_data(), &mut out).unwrap_err();
        assert_eq!(error, TrialError::Unreadable(reason), "{} {}", vector.id, vector.comment);
        assert_eq!(out, [1]);
        refused += 1;
    }
    assert_eq!(refused, 18);
}

/// The sealed form of a value is what Tink documents, checked from the outside with bare base64 and the key id.
#[test]
fn tink_writes_the_documented_prefix() {
    let mut rng = seeded().unwrap();
    let key = KeyMaterial::generate().unwrap();
    for (name, kind) in [
        ("tink", 1),
        ("tink-crunchy", 0),
        ("tink-base64", 1),
        ("tink-crunchy-base64", 0),
    ] {
        let cipher = by_name(name).unwrap().cipher(&key, Some(KeyId(0x0102_0304))).unwrap();
        let mut stored = Vec::new();
        cipher.seal(b"value", b"row 1", Carried::default(), &mut rng, &mut stored);
        let bytes = if name.ends_with("base64") {
            STANDARD.decode(&stored).unwrap()
        } else {
            stored
        };
        assert_eq!(bytes[..5], [kind, 1, 2, 3, 4], "{name}");
        assert_eq!(bytes.len(), 5 + 12 + 5 + 16);
    }
    assert!(Tink::NATIVE.cipher(&key, None).is_err());
}
