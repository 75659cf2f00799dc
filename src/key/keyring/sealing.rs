//! Sealing and opening the bytes of a keyring file with age.

use std::io::{ErrorKind, Read, Write};

use age::secrecy::SecretString;
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use zeroize::Zeroizing;

use super::KeyringFault;

/// What opens a keyring.
pub enum Unlock {
    /// A passphrase.
    Passphrase(SecretString, WorkFactor),
    /// X25519 identities; one that fits is enough.
    Identities(Vec<Identity>),
}

/// What a keyring is sealed to.
pub enum Seal {
    /// A passphrase.
    Passphrase(SecretString, WorkFactor),
    /// X25519 recipients, each of whom can open it alone. Not empty.
    Recipients(Vec<Recipient>),
}

/// How much work a guess at the passphrase costs: exponents of scrypt's N, with r = 8, p = 1 (age's constants).
///
/// Memory is 1 KiB times N. Below `read_min` guesses are cheap; above `read_max` opening the file would need so much memory
/// that a forged header could bring the process down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkFactor {
    /// Used for writing.
    pub write: u8,
    /// The least that is accepted for reading.
    pub read_min: u8,
    /// The most that is accepted for reading.
    pub read_max: u8,
}

impl WorkFactor {
    /// Writes 2^17 (128 MiB; OWASP's recommendation), reads 2^14 to 2^18 (256 MiB; what `age -p` writes).
    pub const STANDARD: Self = Self {
        write: 17,
        read_min: 14,
        read_max: 18,
    };
}

impl Unlock {
    /// Opens with a passphrase.
    pub fn passphrase(passphrase: SecretString) -> Self {
        Self::Passphrase(passphrase, WorkFactor::STANDARD)
    }

    /// The same once more, for another opening: the secrets in the copy are wiped like those in the original.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Passphrase(passphrase, work) => Self::Passphrase(passphrase.clone(), *work),
            Self::Identities(identities) => Self::Identities(identities.clone()),
        }
    }

    pub(super) fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringFault> {
        check_header(sealed)?;
        let decryptor = Decryptor::new_buffered(sealed).map_err(locked)?;
        let stream = match self {
            Self::Passphrase(passphrase, work) => {
                if !decryptor.is_scrypt() {
                    return Err(KeyringFault::OtherUnlock {
                        sealed_to: "age recipients",
                        given: "a passphrase",
                    });
                }
                check_work(sealed, *work)?;
                let mut identity = scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(work.read_max);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Self::Identities(identities) => {
                if decryptor.is_scrypt() {
                    return Err(KeyringFault::OtherUnlock {
                        sealed_to: "a passphrase",
                        given: "an identity",
                    });
                }
                decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity))
            }
        };
        // The plaintext is shorter than the file, so the buffer never moves and leaves no copy behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        stream
            .map_err(locked)?
            .read_to_end(&mut plain)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => KeyringFault::Truncated,
                _ => KeyringFault::Damaged,
            })?;
        Ok(plain)
    }
}

impl Seal {
    /// Seals with a passphrase.
    pub fn passphrase(passphrase: SecretString) -> Self {
        Self::Passphrase(passphrase, WorkFactor::STANDARD)
    }

    /// Seals with whatever was given, which must be one kind: age forbids to mix them.
    pub fn from_parts(passphrase: Option<SecretString>, recipients: &[String]) -> Result<Self, KeyringFault> {
        match (passphrase, recipients) {
            (Some(_), [_, ..]) => Err(KeyringFault::MixedSeal),
            (Some(passphrase), []) => Ok(Self::passphrase(passphrase)),
            (None, []) => Err(KeyringFault::NoSeal),
            (None, texts) => {
                let parsed: Result<Vec<Recipient>, _> = texts.iter().map(|text| text.parse()).collect();
                parsed.map(Self::Recipients).map_err(|_| KeyringFault::Recipient)
            }
        }
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        match self {
            Self::Passphrase(..) => &[],
            Self::Recipients(recipients) => recipients,
        }
    }

    pub(super) fn close(&self, plain: &[u8]) -> Result<Vec<u8>, KeyringFault> {
        let encryptor = match self {
            Self::Passphrase(passphrase, work) => {
                let mut recipient = scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(work.write);
                Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
            Self::Recipients(recipients) => {
                Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
            }
        };
        let mut writer = encryptor
            .map_err(|_| KeyringFault::Sealing)?
            .wrap_output(Vec::with_capacity(plain.len() + HEADER_BYTES_USUAL))
            .map_err(|_| KeyringFault::Sealing)?;
        writer
            .write_all(plain)
            .and_then(|()| writer.finish())
            .map_err(|_| KeyringFault::Sealing)
    }
}

/// Tells a file that is no age file, or only the beginning of one, from one whose header can be tried. Looks at its shape only.
fn check_header(sealed: &[u8]) -> Result<(), KeyringFault> {
    if !sealed.starts_with(MAGIC_V1) {
        return Err(if MAGIC_V1.starts_with(sealed) {
            KeyringFault::Truncated
        } else if sealed.starts_with(MAGIC_ANY) {
            KeyringFault::UnknownAgeVersion
        } else {
            KeyringFault::NotAge
        });
    }
    // The header ends with a line "--- " and 43 characters of MAC; 16 bytes of nonce and at least one tag of 16 follow.
    let mac = sealed
        .windows(MAC_LINE.len())
        .position(|window| window == MAC_LINE)
        .ok_or(KeyringFault::Truncated)?;
    let header_bytes = mac + MAC_LINE.len() + MAC_CHARACTERS + 1;
    if sealed.len() < header_bytes + NONCE_BYTES + TAG_BYTES {
        Err(KeyringFault::Truncated)
    } else {
        Ok(())
    }
}

/// Reads the work factor off the first stanza, `-> scrypt SALT LOG_N`, before any memory is spent on it.
fn check_work(sealed: &[u8], work: WorkFactor) -> Result<(), KeyringFault> {
    let stanza = sealed.split(|&byte| byte == b'\n').nth(1).unwrap_or_default();
    let number = stanza.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let found: u8 = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(KeyringFault::Locked)?;
    let (min, max) = (work.read_min, work.read_max);
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(KeyringFault::Work { found, min, max })
    }
}

/// Everything that goes wrong before the body is one error (B52); the scrypt range has been checked before.
fn locked(_: DecryptError) -> KeyringFault {
    KeyringFault::Locked
}

const MAGIC_V1: &[u8] = b"age-encryption.org/v1\n";
const MAGIC_ANY: &[u8] = b"age-encryption.org/";
const MAC_LINE: &[u8] = b"\n--- ";
const MAC_CHARACTERS: usize = 43;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// Room for the header of a few recipients, so that the output rarely moves.
const HEADER_BYTES_USUAL: usize = 1024;
