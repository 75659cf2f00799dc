//! Why a token was not signed or not accepted. Names, ids and times, never content.

use std::path::PathBuf;

use crate::key::{KeyId, KeysetName};
use crate::session::MarksFault;

/// Why a token was not signed or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What is to be signed is not a JSON object.
    #[error("the claims of a token are a JSON object")]
    Claims,
    /// A claim that signing sets itself.
    #[error("the claim {0} is set by signing")]
    Reserved(&'static str),
    /// Not three parts of base64url with JSON in them, too long, or a claim of the wrong type.
    #[error("not a token: {0}")]
    Malformed(&'static str),
    /// The token does not say which key signed it.
    #[error("the token names no key (kid)")]
    NoKeyId,
    /// The keyset has no such key.
    #[error("keyset {keyset} has no key of the name in the token: is this instance's keyring file up to date?")]
    UnknownKey {
        /// The keyset.
        keyset: KeysetName,
    },
    /// The key verifies nothing any more, or not yet.
    #[error("key {id} of keyset {keyset} is {standing}: it verifies nothing")]
    Withheld {
        /// The keyset.
        keyset: KeysetName,
        /// The key that the token names.
        id: KeyId,
        /// Where it stands: `pending`, `retired`, `compromised` or `destroyed`.
        standing: &'static str,
    },
    /// The token claims another algorithm than that of its key.
    #[error("the token is not signed with the algorithm of its key")]
    Algorithm,
    /// The signature is not that of the key.
    #[error("the signature does not verify")]
    Signature,
    /// A claim that must be there.
    #[error("the token has no claim {0}")]
    Missing(&'static str),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It is issued, or valid only from, later than now.
    #[error("the token is from the future ({0})")]
    Future(&'static str),
    /// Meant for somebody else, or issued by somebody else.
    #[error("the token has another {0} than is expected here")]
    Elsewhere(&'static str),
    /// Issued before the "not before" mark.
    #[error("the token was issued before {not_before}, and every token of before has been ended")]
    Ended {
        /// The mark, in seconds since 1970.
        not_before: i64,
    },
    /// Whether it was ended is not known.
    #[error(transparent)]
    Marks(#[from] MarksUnknown),
    /// The key could not sign.
    #[error("the token could not be signed")]
    Unsigned,
}

/// Why the marks are not known. A token is not accepted then.
#[derive(Debug, thiserror::Error)]
pub enum MarksUnknown {
    /// The file cannot be read.
    #[error("the file of not-before marks {path} cannot be read")]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} cannot be used: {fault}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        fault: MarksFault,
    },
    /// Another store did not answer: for implementations of [`NotBefore`](super::NotBefore).
    #[error("the not-before marks are not known: {0}")]
    Elsewhere(String),
}
