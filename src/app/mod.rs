//! What an application imports: a keyring that follows its file, and handles that seal and open values and sign and verify tokens
//! with it.
//!
//! ```no_run
//! use reseal::app::{Keyring, Unlock};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let passphrase = std::env::var("RESEAL_PASSPHRASE")?;
//! let keyring = Keyring::open("reseal.keyring", Unlock::passphrase(passphrase.into()))?;
//! let customers = keyring.keyset("customer-data")?;
//!
//! let stored = customers.seal(b"ada@example.org", b"customers.email:42")?;
//! let opened = customers.open(&stored, b"customers.email:42")?;
//! if opened.is_due() {
//!     // Sealed with a key that is no longer the primary: `seal` it again when it is written next, or leave it to `reseal rotate`.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything here may be shared between threads. Sealing and opening take no lock: a new version of the file is prepared beside
//! them and then swapped in. A file that is broken, half-written or older than what was seen keeps the keys that are there, and is
//! reported by [`Keyring::status`].

mod error;
mod follow;
mod handle;
mod keyring;
mod nonces;
mod opened;
mod ring;
mod token;

pub use token::{Authentic, MarkFile, MarksUnknown, NotBefore, TokenError, TokenHandle, TokenOptions, Verified};

pub use error::{FollowError, HandleError, OpenError, SealError};
pub use handle::KeysetHandle;
pub use keyring::{Keyring, Options, Status};
pub use opened::Opened;

pub use crate::key::Unlock;
