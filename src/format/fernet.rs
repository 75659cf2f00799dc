//! Fernet tokens, as `cryptography` and a dozen libraries built on it store them. Specification: github.com/fernet/spec.
//!
//! `80 ‖ time(8) ‖ iv(16) ‖ AES-128-CBC, PKCS#7 ‖ HMAC-SHA256(32)`, in base64url with padding. No key id, no associated data.
//! The time is carried, never checked: a rotation must read expired tokens, and must not make old ones young.
//! Verification order: version, HMAC in constant time, CBC, the whole padding. Nothing is decrypted before the HMAC holds.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc, Block};
use base64_simd::{AsOut, URL_SAFE};
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::Sha256;
use zeroize::Zeroize;

use super::{Carried, Cipher, Format, KeyHint, NonceRng, OpenError, UnfitKey, lenient};
use crate::key::{KeyId, KeyMaterial};

/// The `fernet` format.
#[derive(Debug, Clone, Copy)]
pub struct Fernet;

/// Fernet with one key: the first 16 bytes sign, the last 16 encrypt.
///
/// The key schedules and the prepared HMAC state are wiped on drop.
pub struct FernetCipher {
    signing: Hmac<Sha256>,
    encrypting: Aes128Enc,
    decrypting: Aes128Dec,
}

impl Format for Fernet {
    fn name(&self) -> &'static str {
        "fernet"
    }

    /// A value that starts like a token of this era (`gAAAAA`) is one, even if it was cut: it must never pass for plaintext.
    fn hint(&self, stored: &[u8]) -> KeyHint {
        if stored.starts_with(ERA_PREFIX) {
            return KeyHint::Unnamed;
        }
        match lenient::peek::<HEAD>(stored) {
            Some([VERSION, 0, 0, 0]) => KeyHint::Unnamed,
            Some([VERSION, ..]) if stored.len() >= TOKEN_MIN.div_ceil(3) * 4 => KeyHint::Unnamed,
            Some([version, 0, 0, 0]) if stored.len() >= TOKEN_MIN.div_ceil(3) * 4 => KeyHint::UnknownVersion(version),
            _ => KeyHint::Foreign,
        }
    }

    fn cipher(&self, material: &KeyMaterial, _id: Option<KeyId>) -> Result<Box<dyn Cipher>, UnfitKey> {
        Ok(Box::new(FernetCipher::new(material)?))
    }

    fn sealed_len(&self, plaintext_len: usize) -> usize {
        URL_SAFE.encoded_length(token_len(plaintext_len))
    }

    fn is_text(&self) -> bool {
        true
    }

    /// HMAC-SHA256 over everything: a token that two keys accept would be a collision.
    fn is_committing(&self) -> bool {
        true
    }

    fn binds_associated_data(&self) -> bool {
        false
    }
}

impl FernetCipher {
    /// Fernet under `material`, which has 32 bytes.
    pub fn new(material: &KeyMaterial) -> Result<Self, UnfitKey> {
        let unfit = || UnfitKey::Length {
            format: Fernet.name(),
            wanted: "32 (16 to sign, 16 to encrypt)",
            found: material.expose().len(),
        };
        let (signing, encryption) = material.expose().split_at_checked(16).ok_or_else(unfit)?;
        Ok(Self {
            signing: Hmac::new_from_slice(signing).map_err(|_| unfit())?,
            encrypting: Aes128Enc::new_from_slice(encryption).map_err(|_| unfit())?,
            decrypting: Aes128Dec::new_from_slice(encryption).map_err(|_| unfit())?,
        })
    }

    /// Seals under a given initialisation vector. For [`Cipher::seal`] and for vectors: the vector must be fresh and unpredictable.
    pub fn seal_with_iv(&self, plaintext: &[u8], time: u64, iv: &[u8; 16], out: &mut Vec<u8>) {
        let token_len = token_len(plaintext.len());
        let text_len = URL_SAFE.encoded_length(token_len);
        let start = out.len();
        // The token is built behind the room for its text and encoded forwards into it: no buffer of its own, no allocation.
        out.resize(start + text_len + token_len, 0);
        let (text, token) = out[start..].split_at_mut(text_len);
        let (signed, tag) = token.split_at_mut(token_len - TAG);
        signed[0] = VERSION;
        signed[1..9].copy_from_slice(&time.to_be_bytes());
        signed[9..BODY].copy_from_slice(iv);
        let body = &mut signed[BODY..];
        let padding = body.len() - plaintext.len();
        body[..plaintext.len()].copy_from_slice(plaintext);
        // PKCS#7: 1 to 16 bytes, each of them their number.
        body[plaintext.len()..].fill(padding as u8);
        let (blocks, _) = Block::slice_as_chunks_mut(body);
        cbc::Encryptor::inner_iv_init(&self.encrypting, iv.into()).encrypt_blocks(blocks);
        tag.copy_from_slice(&self.signing.clone().chain_update(&*signed).finalize().into_bytes());
        let _ = URL_SAFE.encode(token, text.as_out());
        out.truncate(start + text_len);
    }

    /// Verifies and decrypts the binary token that lies at `token[..]`, in place: the plaintext is moved to the front.
    fn open_token(&self, token: &mut [u8]) -> Result<(usize, u64), OpenError> {
        check_layout(token)?;
        let (signed, tag) = token.split_at_mut(token.len() - TAG);
        self.signing
            .clone()
            .chain_update(&*signed)
            .verify_slice(tag)
            .map_err(|_| OpenError::Authentication)?;
        let mut time = [0; 8];
        time.copy_from_slice(&signed[1..9]);
        let mut iv = [0; 16];
        iv.copy_from_slice(&signed[9..BODY]);
        let plaintext_len = cbc::Decryptor::inner_iv_init(&self.decrypting, &iv.into())
            .decrypt_padded::<Pkcs7>(&mut signed[BODY..])
            .map(<[u8]>::len);
        let Ok(plaintext_len) = plaintext_len else {
            signed.zeroize();
            return Err(OpenError::Padding);
        };
        signed.copy_within(BODY..BODY + plaintext_len, 0);
        Ok((plaintext_len, u64::from_be_bytes(time)))
    }
}

impl Drop for FernetCipher {
    /// The crate's own wiping would also wipe the clone made for every value, at a tenth of the speed: the state is overwritten here.
    fn drop(&mut self) {
        if let Ok(blank) = Hmac::new_from_slice(&[0; 16]) {
            self.signing = blank;
            std::hint::black_box(&self.signing);
        }
    }
}

impl Cipher for FernetCipher {
    fn open(&self, stored: &[u8], _associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError> {
        let start = out.len();
        let opened = decode(stored, out).and_then(|()| self.open_token(&mut out[start..]));
        match opened {
            Ok((plaintext_len, time)) => {
                out.truncate(start + plaintext_len);
                Ok(Carried {
                    timestamp: Some(time),
                    ..Carried::default()
                })
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Without a time in `carried` the token says 1970: an application that checks ages refuses it, rather than accepting it forever.
    fn seal(&self, plaintext: &[u8], _associated_data: &[u8], carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>) {
        let mut iv = [0; 16];
        rng.fill_bytes(&mut iv);
        self.seal_with_iv(plaintext, carried.timestamp.unwrap_or(0), &iv, out);
    }
}

/// Appends the binary token: strictly decoded, else as Python reads it. On an error some garbage may follow; the caller cuts it.
fn decode(stored: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
    let start = out.len();
    out.resize(start + stored.len() / 4 * 3 + 3, 0);
    let room = &mut out[start..];
    let token_len = match URL_SAFE.decode(stored, room.as_out()) {
        Ok(token) => token.len(),
        Err(_) => lenient::decode(stored, room).ok_or(OpenError::Malformed)?,
    };
    out.truncate(start + token_len);
    Ok(())
}

/// The version first, as the specification wants; lengths are public.
fn check_layout(token: &[u8]) -> Result<(), OpenError> {
    let well_sized = token.len() >= TOKEN_MIN && (token.len() - BODY - TAG).is_multiple_of(BLOCK);
    match token {
        [VERSION, ..] if well_sized => Ok(()),
        // Any text decodes to something. Only a time in its usual range makes another first byte a version, and not chance.
        &[version, 0, 0, 0, ..] if well_sized && version != VERSION => Err(OpenError::UnknownVersion(version)),
        _ => Err(OpenError::Malformed),
    }
}

/// Version, time, vector, at least one padding byte up to the block, tag.
const fn token_len(plaintext_len: usize) -> usize {
    BODY + (plaintext_len / BLOCK + 1) * BLOCK + TAG
}

const VERSION: u8 = 0x80;
const BLOCK: usize = 16;
/// Where the ciphertext begins: after version, time and initialisation vector.
const BODY: usize = 1 + 8 + 16;
const TAG: usize = 32;
/// One block of ciphertext.
const TOKEN_MIN: usize = BODY + BLOCK + TAG;
/// Version and the top of the time: enough to recognise a token.
const HEAD: usize = 4;
/// 0x80 and a time before 2106.
const ERA_PREFIX: &[u8] = b"gAAAAA";
