//! Tokens that an application signs and verifies: JSON Web Tokens (RFC 7519) under the keys of a keyring's keyset.
//!
//! ```no_run
//! use reseal::app::{Keyring, MarkFile, TokenOptions, Unlock};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let passphrase = std::env::var("RESEAL_PASSPHRASE")?;
//! let keyring = Keyring::open("reseal.keyring", Unlock::passphrase(passphrase.into()))?;
//! let logins = keyring.tokens("logins", TokenOptions::default())?;
//! let marks = MarkFile::open("not-before.json")?;
//!
//! let token = logins.sign(&json!({ "sub": "4711", "tenant": "acme" }))?;
//! let login = logins.verify(&token, &marks)?;
//! assert_eq!(login.user(), Some("4711"));
//! # Ok(())
//! # }
//! ```
//!
//! A token names its key (`kid`), that key alone is tried, and the key says which algorithm it is for: what the token's header claims
//! about that must agree and decides nothing. Staged and retiring keys verify, so that a rotation of the signing key has its time of
//! grace; a retired or compromised key verifies nothing. A token that was issued before the "not before" mark of its user, of its
//! tenant or of everybody is dead: `reseal sessions invalidate` raises these marks.

mod error;
mod handle;
mod mark_file;
mod ring;
mod signature;
mod verified;

pub use error::{MarksUnknown, TokenError};
pub use handle::{TokenHandle, TokenOptions};
pub use mark_file::{MarkFile, NotBefore};
pub(super) use ring::TokenRing;
pub use verified::{Authentic, Verified};
