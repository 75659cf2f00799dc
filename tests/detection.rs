//! Detection against every vector: a format is recognised by its own values, and claims nobody else's.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use reseal::format::{Carried, Detection, Verdict, by_name, detect, looks_sealed, seeded};
use reseal::key::{KeyId, KeyMaterial};
use serde_json::Value;

/// The valid values of a vector file as columns hold them, and their plaintexts.
fn values(json: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let all: Vec<Value> = serde_json::from_str(json).unwrap();
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for vector in all.iter().filter(|v| v["valid"] == true && v["quirk"].is_null()) {
        let text = vector["ciphertext"].as_str().unwrap();
        stored.push(if vector["ciphertext_encoding"] == "hex" {
            hex(text)
        } else {
            text.as_bytes().to_vec()
        });
        plain.extend(vector["plaintext_hex"].as_str().map(hex));
    }
    (stored, plain)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn detection(sample: &[Vec<u8>], ids: &[KeyId]) -> Detection {
    detect(sample.iter().map(Vec::as_slice), ids)
}

const FOREIGN: [(&str, &str); 10] = [
    ("vault", include_str!("vectors/vault_transit.json")),
    ("laravel", include_str!("vectors/laravel_encrypter.json")),
    ("cloak", include_str!("vectors/cloak_47ng.json")),
    ("rails", include_str!("vectors/rails_active_record_encryption.json")),
    (
        "rails-message-encryptor",
        include_str!("vectors/rails_message_encryptor.json"),
    ),
    ("jwe", include_str!("vectors/jwe_dir_a256gcm.json")),
    ("openssl-salted", include_str!("vectors/cryptojs_openssl_salted.json")),
    ("aws-encryption-sdk", include_str!("vectors/aws_encryption_sdk.json")),
    ("django-cryptography", include_str!("vectors/django_cryptography.json")),
    ("pgp", include_str!("vectors/pgcrypto_pgp_sym.json")),
];

#[test]
fn every_foreign_envelope_is_named_and_no_other() {
    for (name, json) in FOREIGN {
        let (stored, _) = values(json);
        let found = detection(&stored, &[]);
        assert_eq!(found.verdict(), Verdict::Foreign(name), "{found:?}");
        assert_eq!(found.foreign[name], stored.len(), "{name}: {found:?}");
        for value in &stored {
            assert_eq!(looks_sealed(value), Some(name));
        }
    }
}

#[test]
fn fernet_is_certain() {
    for json in [
        include_str!("vectors/fernet.json"),
        include_str!("vectors/fernet_multifernet_rotate.json"),
        include_str!("vectors/airflow_fernet.json"),
    ] {
        let (stored, _) = values(json);
        let found = detection(&stored, &[]);
        assert_eq!(found.verdict(), Verdict::Certain("fernet"), "{found:?}");
        // Three vectors have times that no application writes: they are tokens by shape only.
        assert!(found.certain["fernet"] + 3 >= stored.len(), "{found:?}");
        assert_eq!(
            found.certain["fernet"] + found.shapes.get("fernet").copied().unwrap_or(0),
            stored.len()
        );
    }
}

/// Some plaintexts of the vectors were made to look like ciphertexts, and their comments say so. All of those are found, and no other.
#[test]
fn plaintexts_are_no_ciphertexts_unless_they_are() {
    let formats = [
        include_str!("vectors/fernet.json"),
        include_str!("vectors/aes_gcm_raw.json"),
        include_str!("vectors/tink_aead.json"),
    ];
    let (mut plain, mut sealed) = (0, 0);
    for json in FOREIGN.iter().map(|(_, json)| *json).chain(formats) {
        let all: Vec<Value> = serde_json::from_str(json).unwrap();
        for vector in all
            .iter()
            .filter(|v| v["plaintext_hex"].is_string() && v["format"] != "django_cryptography")
        {
            let disguised = vector["comment"].as_str().unwrap().contains("looks like");
            let found = looks_sealed(&hex(vector["plaintext_hex"].as_str().unwrap()));
            assert_eq!(found.is_some(), disguised, "{} {found:?}", vector["id"]);
            if disguised { sealed += 1 } else { plain += 1 }
        }
    }
    assert!(plain > 400 && sealed >= 10, "{plain} {sealed}");
}

/// B09: what an accident sealed twice is found after the first opening.
#[test]
fn a_value_sealed_twice_is_found() {
    let fernet = by_name("fernet")
        .unwrap()
        .cipher(&KeyMaterial::generate().unwrap(), None)
        .unwrap();
    let mut rng = seeded().unwrap();
    let carried = Carried {
        timestamp: Some(1_700_000_000),
        ..Carried::default()
    };
    let (mut once, mut twice, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    fernet.seal(b"value", b"", carried, &mut rng, &mut once);
    fernet.seal(&once, b"", carried, &mut rng, &mut twice);
    fernet.open(&twice, b"", &mut opened).unwrap();
    assert_eq!(looks_sealed(&opened), Some("fernet"));
    assert_eq!(looks_sealed(b"value"), None);
}

#[test]
fn tink_is_certain_only_with_a_known_key_id() {
    let mut rng = seeded().unwrap();
    let (known, other) = (KeyId(0xdead_beef), KeyId(0xdead_bee0));
    for name in ["tink", "tink-base64", "tink-crunchy", "tink-crunchy-base64"] {
        let cipher = by_name(name)
            .unwrap()
            .cipher(&KeyMaterial::generate().unwrap(), Some(known))
            .unwrap();
        let sample: Vec<Vec<u8>> = (0..50)
            .map(|len| {
                let mut stored = Vec::new();
                cipher.seal(&vec![1; len], b"", Carried::default(), &mut rng, &mut stored);
                stored
            })
            .collect();
        assert_eq!(detection(&sample, &[other, known]).verdict(), Verdict::Certain(name));
        let unknown = detection(&sample, &[other]);
        assert!(
            matches!(unknown.verdict(), Verdict::Ask(shapes) if shapes.iter().any(|shape| name.starts_with("tink-crunchy") || *shape == name)),
            "{unknown:?}"
        );
    }
}

#[test]
fn shapes_are_only_asked_about() {
    let mut rng = seeded().unwrap();
    let mut random = |len: usize| {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    let digests: Vec<Vec<u8>> = (0..40)
        .map(|_| {
            random(32)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into_bytes()
        })
        .collect();
    let Verdict::Ask(shapes) = detection(&digests, &[KeyId(1)]).verdict() else {
        panic!("digests")
    };
    assert_eq!(shapes[0], "aes-gcm-hex");
    let texts: Vec<Vec<u8>> = (0..40).map(|n| STANDARD.encode(random(30 + n)).into_bytes()).collect();
    let Verdict::Ask(shapes) = detection(&texts, &[]).verdict() else {
        panic!("base64")
    };
    assert_eq!(shapes[0], "aes-gcm-base64");
    let blobs: Vec<Vec<u8>> = (0..40).map(|n| random(40 + n)).collect();
    let Verdict::Ask(shapes) = detection(&blobs, &[]).verdict() else {
        panic!("blobs")
    };
    assert_eq!(shapes, ["aes-gcm"]);
}

#[test]
fn ordinary_data_is_plain() {
    let ordinary = [
        "someone@example.org",
        "7f8d3b1e-2c4a-4f6b-9d0e-1a2b3c4d5e6f",
        "d41d8cd98f00b204e9800998ecf8427e",
        "$2b$12$abcdefghijklmnopqrstuuQe1r2t3y4u5i6o7p8a9s0d1f2g3h4j5",
        "a note of some length, with commas, and a full stop at its end.",
        "Aberdeen",
        "{\"a\": 1}",
        "2026-01-01T00:00:00Z",
        "4111 1111 1111 1111",
        "gAAAAA",
        "vault:v1",
    ];
    let sample: Vec<Vec<u8>> = ordinary.iter().map(|text| text.as_bytes().to_vec()).collect();
    assert_eq!(detection(&sample, &[KeyId(1)]).verdict(), Verdict::Plain);
    assert_eq!(detection(&[], &[]).verdict(), Verdict::Nothing);
    let empty = detection(&[Vec::new()], &[]);
    assert_eq!((empty.verdict(), empty.empty, empty.sampled), (Verdict::Nothing, 1, 0));
}

#[test]
fn a_mixed_column_is_said_to_be_mixed() {
    let fernet = values(include_str!("vectors/airflow_fernet.json")).0;
    let vault = values(FOREIGN[0].1).0;
    let with_plain = [fernet.clone(), vec![b"in clear".to_vec()]].concat();
    let found = detection(&with_plain, &[]);
    assert_eq!((found.verdict(), found.unrecognised), (Verdict::Certain("fernet"), 1));
    assert_eq!(
        detection(&[fernet, vault].concat(), &[]).verdict(),
        Verdict::Mixed(vec!["fernet", "vault"])
    );
}
