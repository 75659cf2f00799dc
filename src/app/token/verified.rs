//! What a verification can make, and nothing else can.

use serde_json::{Map, Value};

use super::error::TokenError;
use crate::key::KeyId;

/// A token that its key signed and that is of now. Whether it was ended is open, so its claims are not given out yet.
pub struct Authentic {
    pub(super) key: KeyId,
    pub(super) is_due: bool,
    pub(super) issued_at: i64,
    pub(super) tenant: Option<String>,
    pub(super) user: Option<String>,
    pub(super) claims: Map<String, Value>,
}

/// A token that is accepted.
#[derive(Debug)]
pub struct Verified {
    key: KeyId,
    is_due: bool,
    issued_at: i64,
    tenant: Option<String>,
    user: Option<String>,
    claims: Map<String, Value>,
}

impl Authentic {
    /// The user that it names (`sub`).
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The tenant that it names.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Accepts it, unless it was issued before the mark: the highest one of everybody, its tenant and its user, in seconds since
    /// 1970, 0 for none. No clock's inaccuracy speaks for the token.
    pub fn unless_before(self, not_before: i64) -> Result<Verified, TokenError> {
        if self.issued_at < not_before {
            return Err(TokenError::Ended { not_before });
        }
        Ok(Verified {
            key: self.key,
            is_due: self.is_due,
            issued_at: self.issued_at,
            tenant: self.tenant,
            user: self.user,
            claims: self.claims,
        })
    }
}

impl Verified {
    /// The user that it names (`sub`).
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The tenant that it names.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// When it was issued, in seconds since 1970.
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// The key that signed it.
    pub fn key_id(&self) -> KeyId {
        self.key
    }

    /// Whether another key than the present primary signed it: give out a new one with the next answer, and the key can go sooner.
    pub fn is_due(&self) -> bool {
        self.is_due
    }
}
