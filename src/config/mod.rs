//! What the operator says, as types: references to secrets, and reading what they refer to.

mod reference;
mod source;

pub use reference::{KeyRef, KeyringRef, RefError, SecretRef, UrlRef};
pub use source::{Secret, SecretError, SecretReader};
