//! Reading a value that names no key, under several keys.
//!
//! AES-GCM does not commit to its key: for any two keys a value can be built that both accept, with different plaintexts. A reader that
//! stops at the first success then returns what the order of its keys says. So every key is asked, and a second success is an error.

use zeroize::Zeroize;

use super::{Carried, Cipher, OpenError};

/// Why no plaintext came out of several keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// No key accepts the value. Of the keys' reasons, the one that says most.
    #[error(transparent)]
    Unreadable(OpenError),
    /// Two keys accept the value: it was made to be read differently by readers with different keys. Never rotate it.
    #[error("two keys accept this value (positions {0} and {1}): it was crafted")]
    Ambiguous(usize, usize),
    /// There was no key to try.
    #[error("no key to try")]
    NoKey,
}

/// Opens `stored` under the one key that accepts it, appends the plaintext to `out` and returns the key's position.
/// On an error `out` is as it was. Costs one attempt per key, whichever it is: for formats that do not commit to their key.
pub fn open_exclusively<'a>(
    ciphers: impl IntoIterator<Item = &'a dyn Cipher>,
    stored: &[u8],
    associated_data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, Carried), TrialError> {
    let start = out.len();
    let mut accepted = None;
    let mut reason = None;
    for (position, cipher) in ciphers.into_iter().enumerate() {
        match (cipher.open(stored, associated_data, out), accepted) {
            (Ok(carried), None) => accepted = Some((position, carried)),
            (Ok(_), Some((first, _))) => {
                out[start..].zeroize();
                out.truncate(start);
                return Err(TrialError::Ambiguous(first, position));
            }
            (Err(error), _) => reason = most_telling(reason, error),
        }
    }
    accepted.ok_or(reason.map_or(TrialError::NoKey, TrialError::Unreadable))
}

/// Opens `stored` under the first key that accepts it: for formats that commit to their key, where a second one cannot.
pub fn open_first<'a>(
    ciphers: impl IntoIterator<Item = &'a dyn Cipher>,
    stored: &[u8],
    associated_data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, Carried), TrialError> {
    let mut reason = None;
    for (position, cipher) in ciphers.into_iter().enumerate() {
        match cipher.open(stored, associated_data, out) {
            Ok(carried) => return Ok((position, carried)),
            Err(error) => reason = most_telling(reason, error),
        }
    }
    Err(reason.map_or(TrialError::NoKey, TrialError::Unreadable))
}

/// What came further says more: broken padding is authentic, a failed tag had the layout.
fn most_telling(known: Option<OpenError>, new: OpenError) -> Option<OpenError> {
    let depth = |error: OpenError| match error {
        OpenError::Malformed => 0,
        OpenError::UnknownVersion(_) => 1,
        OpenError::OtherKey(_) => 2,
        OpenError::Authentication => 3,
        OpenError::Padding => 4,
    };
    known.filter(|&known| depth(known) >= depth(new)).or(Some(new))
}
