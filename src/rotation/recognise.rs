//! Whether a value is under one of some keys, when nothing is known of where it stands: neither its format nor its associated data.
//!
//! A value that names its key is believed, since only the right associated data opens it. One that names none is opened under each key,
//! without associated data: bare AES-GCM with associated data is not recognised.

use zeroize::Zeroizing;

use crate::format::{self, AesGcm, Cipher, Encoding, Fernet, Format, KeyHint, WORKING_ROOM, make_room};
use crate::key::{Key, KeyId};

/// Some keys in every format.
pub struct Recogniser {
    ids: Vec<KeyId>,
    /// Formats whose values name their key.
    naming: Vec<&'static dyn Format>,
    /// Formats whose values do not.
    silent: Vec<Family>,
    /// Wiped when dropped.
    plaintext: Zeroizing<Vec<u8>>,
}

/// Formats whose values look alike, joined with the keys.
struct Family {
    /// The one with the shortest values.
    shape: &'static dyn Format,
    ciphers: Vec<Box<dyn Cipher>>,
}

impl Recogniser {
    /// Joins the keys with all formats that they fit. Of a key that was destroyed only the id is known.
    pub fn of<'k>(keys: impl Iterator<Item = &'k Key>) -> Self {
        let keys: Vec<&Key> = keys.collect();
        let family = |shape: &'static dyn Format, formats: Vec<&'static dyn Format>| Family {
            shape,
            ciphers: joined(&keys, &formats),
        };
        let mut silent = vec![family(&Fernet, vec![&Fernet])];
        for encoding in [Encoding::Raw, Encoding::Base64, Encoding::Base64Url, Encoding::Hex] {
            let alike = || AesGcm::all().filter(move |format| format.encoding() == encoding);
            let formats = alike().map(|format| format as &dyn Format).collect();
            silent.extend(
                alike()
                    .min_by_key(|format| format.layout().nonce_bytes)
                    .map(|shortest| family(shortest, formats)),
            );
        }
        Self {
            ids: keys.iter().map(|key| key.id()).collect(),
            naming: format::all().filter(|format| format.beginnings(KeyId(1)).is_some()).collect(),
            silent,
            plaintext: Zeroizing::default(),
        }
    }

    /// How many of these values are under one of the keys.
    pub fn count(&mut self, values: &[Vec<u8>]) -> u64 {
        values.iter().filter(|value| self.is_under_one(value)).count() as u64
    }

    fn is_under_one(&mut self, value: &[u8]) -> bool {
        let names_one = |format: &&dyn Format| matches!(format.hint(value), KeyHint::Key(id) if self.ids.contains(&id));
        if self.naming.iter().any(names_one) {
            return true;
        }
        let is_text = std::str::from_utf8(value).is_ok();
        let fits = |family: &&Family| (family.shape.is_text() || !is_text) && family.shape.hint(value) == KeyHint::Unnamed;
        let plaintext = &mut self.plaintext;
        self.silent
            .iter()
            .filter(fits)
            .flat_map(|family| &family.ciphers)
            .any(|cipher| {
                plaintext.clear();
                make_room(plaintext, value.len() + WORKING_ROOM);
                cipher.open(value, b"", plaintext).is_ok()
            })
    }
}

fn joined(keys: &[&Key], formats: &[&'static dyn Format]) -> Vec<Box<dyn Cipher>> {
    let mut ciphers = Vec::new();
    for key in keys {
        let Some(material) = key.material() else { continue };
        // A format that a key does not fit has no values under it.
        ciphers.extend(
            formats
                .iter()
                .filter_map(|format| format.cipher(material, Some(key.id())).ok()),
        );
    }
    ciphers
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::format::{Carried, seeded};
    use crate::key::{Algorithm, Keyset};

    fn keyset(algorithm: Algorithm) -> Keyset {
        Keyset::generate("k".parse().unwrap(), algorithm, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn sealed(format: &dyn Format, key: &Key, associated_data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let cipher = format.cipher(key.material().unwrap(), Some(key.id())).unwrap();
        cipher.seal(
            b"secret",
            associated_data,
            Carried::default(),
            &mut seeded().unwrap(),
            &mut out,
        );
        out
    }

    #[test]
    fn values_of_every_format_are_recognised_under_their_own_key_only() {
        for algorithm in [Algorithm::Aes256Gcm, Algorithm::Fernet] {
            let (own, other) = (keyset(algorithm), keyset(algorithm));
            let (mut own_keys, mut other_keys) = (Recogniser::of(own.keys().iter()), Recogniser::of(other.keys().iter()));
            for format in format::all() {
                let Ok(cipher) = format.cipher(own.primary().material().unwrap(), Some(own.primary().id())) else {
                    continue;
                };
                drop(cipher);
                let value = [sealed(format, own.primary(), b"")];
                assert_eq!(own_keys.count(&value), 1, "{}", format.name());
                assert_eq!(other_keys.count(&value), 0, "{}", format.name());
            }
        }
    }

    #[test]
    fn associated_data_hides_a_value_that_names_no_key() {
        let keyset = keyset(Algorithm::Aes256Gcm);
        let mut keys = Recogniser::of(keyset.keys().iter());
        let bound = |name| sealed(format::by_name(name).unwrap(), keyset.primary(), b"row 7");
        assert_eq!(keys.count(&[bound("tink-base64"), bound("tink-crunchy")]), 2);
        assert_eq!(keys.count(&[bound("aes-gcm"), bound("aes-gcm-hex")]), 0);
        let plain = [b"ada@example.org".to_vec(), Vec::new(), vec![0; 40], vec![b'A'; 40]];
        assert_eq!(keys.count(&plain), 0);
    }
}
