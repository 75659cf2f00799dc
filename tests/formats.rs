//! Properties that every format keeps, and the attacks that they must withstand.
#![allow(clippy::unwrap_used)]

use aes_gcm::KeyInit as _;
use aes_gcm::aead::{Aead, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use proptest::prelude::*;
use rand::Rng;
use reseal::format::{
    AesGcm, Carried, Cipher, Format, KeyHint, NonceRng, OpenError, PrefixType, ResealError, Scratch, TinkKeyset, TrialError,
    UnfitKey, all, by_name, open_exclusively, open_first, reseal, reseal_bound, seeded,
};
use reseal::key::{KeyId, KeyMaterial};

mod support;

use support::salamander;

const ID: KeyId = KeyId(0x8000_0001);

fn key_of(len: usize) -> KeyMaterial {
    let mut bytes = vec![0; len];
    seeded().unwrap().fill_bytes(&mut bytes);
    KeyMaterial::import(&bytes).unwrap()
}

fn cipher(format: &dyn Format) -> Box<dyn Cipher> {
    format.cipher(&KeyMaterial::generate().unwrap(), Some(ID)).unwrap()
}

fn sealed(cipher: &dyn Cipher, plaintext: &[u8], associated_data: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    cipher.seal(plaintext, associated_data, CARRIED, &mut seeded().unwrap(), &mut out);
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

/// Opens behind other values, as the rotation does, and checks what the trait promises about the buffer.
fn opened(cipher: &dyn Cipher, stored: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::with_capacity(6 + stored.len() + 3);
    out.extend_from_slice(b"before");
    let address = out.as_ptr();
    let result = cipher.open(stored, associated_data, &mut out);
    assert_eq!(out.as_ptr(), address, "`open` moved a buffer that had the promised room");
    assert!(out.starts_with(b"before"));
    assert!(result.is_ok() || out.len() == 6);
    result.map(|_| out.split_off(6))
}

const CARRIED: Carried = Carried {
    timestamp: Some(1_700_000_000),
    unpadded: false,
};

fn any_format() -> impl Strategy<Value = &'static dyn Format> {
    let formats: Vec<_> = all().collect();
    // The common ones as often as the many layouts together.
    prop_oneof![prop::sample::select(formats[..9].to_vec()), prop::sample::select(formats)]
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_opens(format in any_format(), plaintext in bytes(700), associated_data in bytes(40)) {
        let cipher = cipher(format);
        let stored = sealed(&*cipher, &plaintext, &associated_data);
        prop_assert_eq!(stored.len(), format.sealed_len(plaintext.len()));
        prop_assert_eq!(std::str::from_utf8(&stored).is_ok() || !format.is_text(), true);
        prop_assert_eq!(opened(&*cipher, &stored, &associated_data), Ok(plaintext));
        match format.hint(&stored) {
            KeyHint::Key(id) => prop_assert_eq!(id, ID),
            hint => prop_assert_eq!(hint, KeyHint::Unnamed),
        }
    }

    #[test]
    fn another_key_or_another_place_does_not_open(format in any_format(), plaintext in bytes(90), place in bytes(20), other in bytes(20)) {
        let sealer = cipher(format);
        let stored = sealed(&*sealer, &plaintext, &place);
        prop_assert_eq!(opened(&*cipher(format), &stored, &place), Err(OpenError::Authentication));
        if format.binds_associated_data() && place != other {
            prop_assert_eq!(opened(&*sealer, &stored, &other), Err(OpenError::Authentication));
        }
    }

    #[test]
    fn a_flipped_bit_does_not_open(format in any_format(), plaintext in bytes(90), at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let cipher = cipher(format);
        let mut stored = sealed(&*cipher, &plaintext, b"");
        let at = at.index(stored.len());
        stored[at] ^= 1u8 << bit;
        match opened(&*cipher, &stored, b"") {
            Err(_) => {}
            // Python ignores the surplus bits of the last character, and so does this reader. The bytes are the same.
            Ok(same) => prop_assert!(format.name() == "fernet" && same == plaintext),
        }
    }

    /// The same on the bytes below the text, where no bit is surplus.
    #[test]
    fn a_flipped_bit_of_a_token_does_not_open(plaintext in bytes(90), at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let cipher = cipher(by_name("fernet").unwrap());
        let mut token = URL_SAFE.decode(sealed(&*cipher, &plaintext, b"")).unwrap();
        let at = at.index(token.len());
        token[at] ^= 1u8 << bit;
        let expected = match at {
            0 => OpenError::UnknownVersion(token[0]),
            _ => OpenError::Authentication,
        };
        prop_assert_eq!(opened(&*cipher, URL_SAFE.encode(&token).as_bytes(), b""), Err(expected));
    }

    #[test]
    fn no_part_of_a_value_opens(format in any_format(), plaintext in bytes(90), cut in any::<prop::sample::Index>()) {
        let cipher = cipher(format);
        let stored = sealed(&*cipher, &plaintext, b"");
        let cut = cut.index(stored.len());
        // Base64url without its padding, all of it, is the other form of the same value.
        let lost_its_padding = format.name().starts_with("aes-gcm-base64url") && !stored[..cut].ends_with(b"=") && stored[cut..].iter().all(|&c| c == b'=');
        prop_assert_eq!(opened(&*cipher, &stored[..cut], b"").is_ok(), lost_its_padding);
        prop_assert!(opened(&*cipher, &stored[cut + 1..], b"").is_err());
    }

    #[test]
    fn noise_neither_opens_nor_panics(format in any_format(), noise in bytes(200), text in "[A-Za-z0-9_+/=\n-]{0,200}") {
        let cipher = cipher(format);
        prop_assert!(opened(&*cipher, &noise, b"").is_err());
        prop_assert!(opened(&*cipher, text.as_bytes(), b"").is_err());
        let (_, _) = (format.hint(&noise), format.hint(text.as_bytes()));
    }

    /// Fernet as Python reads it: whatever is sprinkled between the characters, the token is the same.
    #[test]
    fn line_breaks_do_not_change_a_token(plaintext in bytes(90), breaks in prop::collection::vec((any::<prop::sample::Index>(), "[ \r\n\t.,%]"), 1..6)) {
        let cipher = cipher(by_name("fernet").unwrap());
        let mut stored = sealed(&*cipher, &plaintext, b"");
        for (at, text) in breaks {
            stored.insert(at.index(stored.len() + 1), text.as_bytes()[0]);
        }
        prop_assert_eq!(by_name("fernet").unwrap().hint(&stored), KeyHint::Unnamed);
        prop_assert_eq!(opened(&*cipher, &stored, b""), Ok(plaintext));
    }
}

/// C09: every bit of the header, and what each of them means.
#[test]
fn each_bit_of_the_tink_header_counts() {
    let format = by_name("tink").unwrap();
    let cipher = cipher(format);
    let stored = sealed(&*cipher, b"value", b"place");
    for bit in 0..40 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 0x80 >> (bit % 8);
        let (error, hint) = match flipped[0] {
            1 => {
                let id = KeyId(u32::from_be_bytes(flipped[1..5].try_into().unwrap()));
                (OpenError::OtherKey(id), KeyHint::Key(id))
            }
            kind @ (0 | 3 | 5) => (OpenError::UnknownVersion(kind), KeyHint::UnknownVersion(kind)),
            _ => (OpenError::Malformed, KeyHint::Foreign),
        };
        assert_eq!(opened(&*cipher, &flipped, b"place"), Err(error), "bit {bit}");
        assert_eq!(format.hint(&flipped), hint, "bit {bit}");
    }
}

/// C10, as far as a format knows: each of these is told apart.
#[test]
fn reasons_are_distinct() {
    let format = by_name("tink").unwrap();
    let reader = cipher(format);
    let stored = sealed(&*reader, b"value", b"");
    let other = format.cipher(&KeyMaterial::generate().unwrap(), Some(KeyId(7))).unwrap();
    let mut corrupt = stored.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut newer = stored.clone();
    newer[0] = 2;
    assert_eq!(opened(&*other, &stored, b""), Err(OpenError::OtherKey(ID)));
    assert_eq!(opened(&*reader, &corrupt, b""), Err(OpenError::Authentication));
    assert_eq!(opened(&*reader, &newer, b""), Err(OpenError::UnknownVersion(2)));
    assert_eq!(
        opened(&*reader, b"plain text in an encrypted column", b""),
        Err(OpenError::Malformed)
    );
    assert_eq!(format.hint(b"plain text in an encrypted column"), KeyHint::Foreign);
}

/// B13: another spelling of the same value is quarantined, and does not pass for plaintext either.
#[test]
fn other_spellings_are_broken_values_not_plaintext() {
    type Respell = fn(String) -> String;
    let spellings: [(&str, Respell); 8] = [
        ("aes-gcm-hex", |text| text.to_uppercase()),
        ("aes-gcm-hex", |text| text + "\n"),
        ("aes-gcm-base64", |text| text.trim_end_matches('=').to_owned()),
        ("aes-gcm-base64", |text| format!("{}\n{}", &text[..20], &text[20..])),
        ("aes-gcm-base64", |text| text.replace('+', "-").replace('/', "_")),
        ("aes-gcm-base64url", |text| text + "="),
        ("tink-base64", |text| format!(" {text}")),
        ("tink-base64", |text| text.trim_end_matches('=').to_owned()),
    ];
    for (name, respell) in spellings {
        let format = by_name(name).unwrap();
        let cipher = cipher(format);
        // Long enough for every character of the alphabet; of a length that base64 pads.
        let stored = String::from_utf8(sealed(&*cipher, &[7; 499], b"")).unwrap();
        let respelt = respell(stored.clone());
        assert_ne!(respelt, stored, "{name}");
        assert_eq!(opened(&*cipher, respelt.as_bytes(), b""), Err(OpenError::Malformed), "{name}");
        assert_ne!(format.hint(respelt.as_bytes()), KeyHint::Foreign, "{name}");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let refused = |name: &str, len: usize, id| by_name(name).unwrap().cipher(&key_of(len), id).err();
    let wrong_length =
        |name: &str, len| matches!(refused(name, len, Some(ID)), Some(UnfitKey::Length { found, .. }) if found == len);
    assert!(wrong_length("fernet", 16) && wrong_length("fernet", 24) && wrong_length("tink", 24));
    assert_eq!(refused("tink-base64", 32, None), Some(UnfitKey::NeedsId("tink-base64")));
    for len in [16, 24, 32] {
        assert_eq!(refused("aes-gcm", len, None), None);
        assert_eq!(refused("aes-gcm-nonce16", len, None), None);
    }
}

/// C03: what `ring` seals the `aes-gcm` crate opens, and the other way round.
#[test]
fn two_implementations_agree_on_ten_thousand_values() {
    let mut rng = seeded().unwrap();
    let format = AesGcm::all().next().unwrap();
    assert_eq!(format.name(), "aes-gcm");
    for round in 0..10_000 {
        let len = if round % 2 == 0 { 32 } else { 16 };
        let key = key_of(len);
        let mut plaintext = vec![0; rng.next_u32() as usize % 300];
        let mut associated_data = vec![0; rng.next_u32() as usize % 50];
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut plaintext);
        rng.fill_bytes(&mut associated_data);
        rng.fill_bytes(&mut nonce);
        let payload = |msg| Payload {
            msg,
            aad: &associated_data,
        };
        let ours = format.cipher(&key, None).unwrap();
        let mut stored = Vec::new();
        ours.seal(&plaintext, &associated_data, Carried::default(), &mut rng, &mut stored);
        let theirs = Independent::new(key.expose());
        assert_eq!(
            theirs.open(stored[..12].try_into().unwrap(), payload(&stored[12..])),
            plaintext
        );
        let sealed = theirs.seal(nonce, payload(&plaintext));
        assert_eq!(
            opened(&*ours, &[&nonce[..], &sealed].concat(), &associated_data),
            Ok(plaintext)
        );
    }
}

enum Independent {
    Short(Box<aes_gcm::Aes128Gcm>),
    Long(Box<aes_gcm::Aes256Gcm>),
}

impl Independent {
    fn new(key: &[u8]) -> Self {
        match key.len() {
            16 => Self::Short(Box::new(aes_gcm::Aes128Gcm::new_from_slice(key).unwrap())),
            _ => Self::Long(Box::new(aes_gcm::Aes256Gcm::new_from_slice(key).unwrap())),
        }
    }

    fn open(&self, nonce: [u8; 12], sealed: Payload) -> Vec<u8> {
        match self {
            Self::Short(key) => key.decrypt(&nonce.into(), sealed).unwrap(),
            Self::Long(key) => key.decrypt(&nonce.into(), sealed).unwrap(),
        }
    }

    fn seal(&self, nonce: [u8; 12], plaintext: Payload) -> Vec<u8> {
        match self {
            Self::Short(key) => key.encrypt(&nonce.into(), plaintext).unwrap(),
            Self::Long(key) => key.encrypt(&nonce.into(), plaintext).unwrap(),
        }
    }
}

/// C04: a value crafted to open under two keys is refused in every order of the keys.
#[test]
fn a_salamander_is_refused_under_every_order() {
    let [one, other, stranger] = [(); 3].map(|()| KeyMaterial::generate().unwrap());
    let stored = salamander(&one, &other);

    let format = by_name("aes-gcm").unwrap();
    let [one, other, stranger] = [&one, &other, &stranger].map(|key| (key, format.cipher(key, None).unwrap()));
    let (first, second) = (
        opened(&*one.1, &stored, b"").unwrap(),
        opened(&*other.1, &stored, b"").unwrap(),
    );
    assert_ne!(first, second, "both keys accept it, with different plaintexts");
    assert!(!format.is_committing(), "which is why the format says so");

    for (order, positions) in [
        (vec![&one, &other], (0, 1)),
        (vec![&other, &one], (0, 1)),
        (vec![&one, &stranger, &other], (0, 2)),
        (vec![&other, &stranger, &one], (0, 2)),
        (vec![&stranger, &one, &other], (1, 2)),
        (vec![&stranger, &other, &one], (1, 2)),
    ] {
        let mut out = vec![1];
        let result = open_exclusively(order.iter().map(|(_, cipher)| &**cipher), &stored, b"", &mut out);
        assert_eq!(result, Err(TrialError::Ambiguous(positions.0, positions.1)));
        assert_eq!(out, [1]);

        let mut keyset = TinkKeyset::new();
        for (at, (key, _)) in order.iter().enumerate() {
            keyset.enable(KeyId(at as u32 + 1), PrefixType::Raw, key).unwrap();
        }
        assert!(matches!(keyset.open(&stored, b"", &mut out), Err(TrialError::Ambiguous(..))));
        assert_eq!(out, [1]);
    }
    // One of the two keys alone cannot know.
    assert!(open_exclusively([&*stranger.1, &*one.1], &stored, b"", &mut Vec::new()).is_ok());
}

#[test]
fn trial_finds_the_one_key_and_tells_the_best_reason() {
    let format = by_name("aes-gcm").unwrap();
    let keys = [(); 3].map(|()| cipher(format));
    let stored = sealed(&*keys[1], b"value", b"");
    let mut out = Vec::new();
    assert_eq!(
        open_exclusively(keys.iter().map(|key| &**key), &stored, b"", &mut out)
            .unwrap()
            .0,
        1
    );
    assert_eq!(out, b"value");
    assert_eq!(
        open_first(keys.iter().map(|key| &**key), &stored, b"", &mut out).unwrap().0,
        1
    );
    assert_eq!(out, b"valuevalue");
    assert_eq!(open_exclusively([], &stored, b"", &mut out), Err(TrialError::NoKey));
    let tink = by_name("tink").unwrap();
    let mixed = [cipher(tink), cipher(format)];
    let result = open_first(mixed.iter().map(|key| &**key), &stored, b"", &mut out);
    assert_eq!(result, Err(TrialError::Unreadable(OpenError::Authentication)));
}

#[test]
fn resealing_moves_any_format_to_any_other() {
    let mut rng = seeded().unwrap();
    let mut scratch = Scratch::new();
    let names = [
        "fernet",
        "tink",
        "tink-base64",
        "aes-gcm",
        "aes-gcm-base64url",
        "aes-gcm-hex-nonce16-tag-first",
    ];
    for from in names {
        for to in names {
            for len in [0, 1, 15, 16, 17, 1000, 40] {
                let plaintext = vec![b'p'; len];
                let (old, new) = (cipher(by_name(from).unwrap()), cipher(by_name(to).unwrap()));
                let stored = sealed(&*old, &plaintext, b"old place");
                let mut out = b"before".to_vec();
                let carried = reseal_bound(
                    &*old,
                    b"old place",
                    &*new,
                    b"new place",
                    Some(7),
                    &stored,
                    &mut scratch,
                    &mut rng,
                    &mut out,
                );
                assert_eq!(
                    carried.unwrap().timestamp,
                    if from == "fernet" { CARRIED.timestamp } else { Some(7) }
                );
                assert_eq!(opened(&*new, &out[6..], b"new place"), Ok(plaintext), "{from} to {to}");
            }
            scratch.wipe();
        }
    }
}

#[test]
fn a_value_that_does_not_open_is_not_resealed() {
    let format = by_name("tink").unwrap();
    let (old, new) = (cipher(format), cipher(format));
    let stored = sealed(&*old, b"value", b"row 1");
    let mut out = b"before".to_vec();
    let result = reseal(
        &*old,
        &*new,
        &stored,
        b"row 2",
        &mut Scratch::new(),
        &mut seeded().unwrap(),
        &mut out,
    );
    assert_eq!(result, Err(ResealError::Unreadable(OpenError::Authentication)));
    assert_eq!(out, b"before");
}

/// A cipher that seals wrongly: what a bad build or a bad machine would do.
struct Faulty {
    inner: Box<dyn Cipher>,
    damage: fn(&mut Vec<u8>),
    forget_time: bool,
}

impl Cipher for Faulty {
    fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError> {
        self.inner.open(stored, associated_data, out)
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], mut carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>) {
        let mut plaintext = plaintext.to_vec();
        (self.damage)(&mut plaintext);
        if self.forget_time {
            carried.timestamp = None;
        }
        let garbage = plaintext.starts_with(b"garbage");
        self.inner.seal(&plaintext, associated_data, carried, rng, out);
        if garbage {
            *out.last_mut().unwrap() ^= 1;
        }
    }
}

/// The promise: nothing leaves the kernel that was not read back.
#[test]
fn a_wrongly_sealed_value_is_caught() {
    type Fault = (fn(&mut Vec<u8>), bool, ResealError);
    let faults: [Fault; 5] = [
        (|plaintext| plaintext[3] ^= 1, false, ResealError::ReadBackDiffers),
        (|plaintext| plaintext.truncate(4), false, ResealError::ReadBackDiffers),
        (|plaintext| plaintext.push(0), false, ResealError::ReadBackDiffers),
        (
            |plaintext| *plaintext = b"garbage".to_vec(),
            false,
            ResealError::ReadBack(OpenError::Malformed),
        ),
        (|_| {}, true, ResealError::ReadBackDiffers),
    ];
    let format = by_name("fernet").unwrap();
    for (damage, forget_time, expected) in faults {
        let old = cipher(format);
        let new = Faulty {
            inner: cipher(format),
            damage,
            forget_time,
        };
        let stored = sealed(&*old, b"value", b"");
        let mut out = b"before".to_vec();
        let result = reseal(
            &*old,
            &new,
            &stored,
            b"",
            &mut Scratch::new(),
            &mut seeded().unwrap(),
            &mut out,
        );
        assert_eq!(result, Err(expected));
        assert_eq!(out, b"before");
    }
}
