//! The sessions that existed at a cut-off, known again by digests of their keys.
//!
//! Whoever ends them may die and come back much later, when others have logged in: what was there at the cut-off is ended then, and
//! nothing else. Digests are kept, never keys: a key is what a browser shows to be let in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::digest::{Context, SHA256};

use super::DecidedBy;

/// A cut-off that was taken in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// When, on the store's clock. For tokens the second before which they must have been issued.
    pub at: Timestamp,
    /// What decided which side of it a session is on.
    pub decided_by: DecidedBy,
    /// The sessions of before; none for tokens.
    pub sessions: KnownSessions,
}

/// Sessions, each by eight bytes of a salted digest of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSessions {
    salt: String,
    /// In order, each once.
    digests: Vec<u64>,
}

/// Sessions that are being counted in.
pub(super) struct Gathering {
    salt: String,
    digests: Vec<u64>,
}

impl Gathering {
    /// None yet.
    pub(super) fn under(salt: &str) -> Self {
        Self {
            salt: salt.to_owned(),
            digests: Vec::new(),
        }
    }

    /// Counts a session in.
    pub(super) fn note(&mut self, key: &[u8]) {
        self.digests.push(digest(&self.salt, key));
    }

    /// All that were counted in, each once.
    pub(super) fn finish(mut self) -> KnownSessions {
        self.digests.sort_unstable();
        self.digests.dedup();
        KnownSessions {
            salt: self.salt,
            digests: self.digests,
        }
    }
}

impl KnownSessions {
    /// No session. The salt is used for these sessions alone.
    pub(super) fn none(salt: &str) -> Self {
        Gathering::under(salt).finish()
    }

    /// Whether a session is one of them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.digests.binary_search(&digest(&self.salt, key)).is_ok()
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.digests.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The salt.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The digests as text, in parts of a size that a database takes in one piece.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        self.digests.chunks(PART_DIGESTS).map(|digests| {
            let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.to_be_bytes()).collect();
            STANDARD.encode(bytes)
        })
    }

    /// Reads what [`parts`](Self::parts) wrote; `None` when it is something else.
    pub fn of_parts(salt: &str, parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Option<Self> {
        let mut digests = Vec::new();
        for part in parts {
            let bytes = STANDARD.decode(part).ok()?;
            let (whole, rest) = bytes.as_chunks::<8>();
            if !rest.is_empty() {
                return None;
            }
            digests.extend(whole.iter().map(|bytes| u64::from_be_bytes(*bytes)));
        }
        let in_order = digests.is_sorted_by(|one, next| one < next);
        in_order.then(|| Self {
            salt: salt.to_owned(),
            digests,
        })
    }
}

/// Two sessions of ten million share one once in several hundred thousand cut-offs; then one more is ended.
fn digest(salt: &str, key: &[u8]) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(salt.as_bytes());
    context.update(b":");
    context.update(key);
    let digest = context.finish();
    let (first, _) = digest.as_ref().split_at(8);
    first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Half a megabyte, two thirds as text.
const PART_DIGESTS: usize = 65_536;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_again_from_its_parts() {
        let keys: Vec<Vec<u8>> = (0..200_000_u32)
            .map(|number| format!("session:{number}").into_bytes())
            .collect();
        let mut gathering = Gathering::under("salt");
        keys.iter().chain(&keys[..10]).for_each(|key| gathering.note(key));
        let known = gathering.finish();
        let parts: Vec<String> = known.parts().collect();
        assert_eq!((known.len(), parts.len()), (200_000, 4));
        let again = KnownSessions::of_parts("salt", &parts);
        assert_eq!(again.as_ref(), Some(&known));
        assert!(keys.iter().all(|key| known.contains(key)));
        assert!(!known.contains(b"session:200000"));
        let under_another_salt = KnownSessions::of_parts("other", &parts).unwrap();
        assert!(!under_another_salt.contains(&keys[0]));
        assert_eq!(KnownSessions::of_parts("salt", ["AAAA"]), None, "no whole digest");
        let backwards = [parts[1].as_str(), parts[0].as_str()];
        assert_eq!(KnownSessions::of_parts("salt", backwards), None, "out of order");
    }
}
