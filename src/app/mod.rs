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
//! An instance that also says which revision it seals and signs with ([`Keyring::report_to`]) is waited for by `reseal rotate`: no key is
//! promoted before it has it, and none is retired while it may still seal or sign with it.
//!
//! Everything here may be shared between threads. Sealing and opening take no lock: a new version of the file is prepared beside
//! them and then swapped in. A file that is broken, half-written or older than what was seen keeps the keys that are there, and is
//! reported by [`Keyring::status`].
//!
//! What is sealed with a key of AES-GCM is counted in a file beside the keyring, which may be shared by any number of processes, and
//! refused before the key's limit. A process that forks seals up to one block a child uncounted.

mod error;
pub(crate) mod follow;
mod handle;
mod keyring;
mod meters;
mod nonces;
mod opened;
mod report;
mod ring;
mod token;

pub use token::{Authentic, MarkFile, MarksUnknown, NotBefore, TokenError, TokenHandle, TokenOptions, Verified};

pub use error::{FollowError, HandleError, OpenError, SealError};
pub use handle::KeysetHandle;
pub use keyring::{Keyring, Options, Status};
pub use opened::Opened;
pub use report::{ReportError, ReportOptions, ReportStatus, Reporting};

pub use crate::key::{Exhausted, Unlock};
