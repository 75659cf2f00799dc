//! One keyset, as an application signs and verifies tokens with it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::signature::{Signer, Verifier};
use jsonwebtoken::{Header, decode_header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::TokenError;
use super::mark_file::NotBefore;
use super::ring::TokenRing;
use super::verified::{Authentic, Verified};
use crate::app::keyring::Shared;
use crate::key::{KeyId, KeysetName};

/// A keyset of a [`Keyring`](crate::app::Keyring), to sign and verify tokens. Cheap to clone; follows the keyring.
#[derive(Clone)]
pub struct TokenHandle {
    pub(in crate::app) shared: Arc<Shared>,
    pub(in crate::app) ring: Arc<ArcSwap<TokenRing>>,
    pub(in crate::app) options: Arc<TokenOptions>,
}

/// What tokens say beside their claims, and what is expected of them.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// How long a token lives. 12 hours unless told otherwise.
    pub lifetime: Duration,
    /// `iss`: set when signing, and expected when verifying.
    pub issuer: Option<String>,
    /// `aud`: set when signing, and expected when verifying. A token with an audience is refused where none is expected.
    pub audience: Option<String>,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// How far ahead of this machine's clock another issuer's may be. As long as the `clock_skew` with which marks are set.
    pub leeway: Duration,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            lifetime: LIFETIME_DEFAULT,
            issuer: None,
            audience: None,
            tenant_claim: "tenant".to_owned(),
            leeway: LEEWAY_DEFAULT,
        }
    }
}

impl TokenHandle {
    /// Signs claims with the primary key. `iat` and `exp`, and `iss` and `aud` where the options name them, are set here.
    ///
    /// `sub` names the user, and the tenant's claim the tenant: they are what tokens can be ended by.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let Ok(Value::Object(mut claims)) = serde_json::to_value(claims) else {
            return Err(TokenError::Claims);
        };
        let now = self.now();
        let lifetime = i64::try_from(self.options.lifetime.as_secs()).unwrap_or(i64::MAX);
        set(&mut claims, "iat", now.into())?;
        set(&mut claims, "exp", now.saturating_add(lifetime).into())?;
        for (name, value) in [("iss", &self.options.issuer), ("aud", &self.options.audience)] {
            if let Some(value) = value {
                set(&mut claims, name, value.as_str().into())?;
            }
        }
        // What this would not accept itself is not given out.
        names(&claims, &self.options)?;
        let ring = self.ring.load();
        let (id, key) = ring.primary();
        let mut header = Header::new(JwtSigner::algorithm(key));
        header.kid = Some(id.to_string());
        let mut token = encoded(&header)?;
        token.push('.');
        token.push_str(&encoded(&claims)?);
        let signature = key.try_sign(token.as_bytes()).map_err(|_| TokenError::Unsigned)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed(TOO_LONG));
        }
        Ok(token)
    }

    /// Accepts a token if its key signed it, it is of now, and no mark has ended it.
    pub fn verify(&self, token: &str, marks: &impl NotBefore) -> Result<Verified, TokenError> {
        let authentic = self.authenticate(token)?;
        let not_before = marks.not_before(authentic.tenant(), authentic.user())?;
        authentic.unless_before(not_before)
    }

    /// The first half of [`verify`](Self::verify), for marks that are looked up in between: says whose token it is, and gives out
    /// its claims only against the mark.
    ///
    /// When its key is not here, the keyring's file is looked at once more before this fails.
    pub fn authenticate(&self, token: &str) -> Result<Authentic, TokenError> {
        let ring = self.ring.load();
        match self.authenticate_with(&ring, token) {
            Err(TokenError::UnknownKey { .. } | TokenError::Withheld { .. }) if self.shared.catch_up(ring.generation) => {
                self.authenticate_with(&self.ring.load(), token)
            }
            outcome => outcome,
        }
    }

    /// The revision of the keyset that the next [`sign`](Self::sign) uses.
    pub fn revision(&self) -> u64 {
        self.ring.load().revision
    }

    /// The key that the next [`sign`](Self::sign) uses.
    pub fn primary(&self) -> KeyId {
        self.ring.load().primary().0
    }

    /// The name of the keyset.
    pub fn name(&self) -> KeysetName {
        self.ring.load().keyset.clone()
    }

    fn authenticate_with(&self, ring: &TokenRing, token: &str) -> Result<Authentic, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed(TOO_LONG));
        }
        // RFC 7515, section 5.2. Nothing in the header is trusted but as the question which key to ask.
        let header = decode_header(token).map_err(|_| TokenError::Malformed("its header"))?;
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
            return Err(TokenError::Malformed("it demands an extension"));
        }
        let (id, key) = ring.named(header.kid.as_deref().ok_or(TokenError::NoKeyId)?)?;
        if header.alg != JwtVerifier::algorithm(key) {
            return Err(TokenError::Algorithm);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("its parts"))?;
        let signature = decoded(signature).ok_or(TokenError::Malformed("its signature"))?;
        key.verify(message.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let (_, claims) = message.split_once('.').ok_or(TokenError::Malformed("its parts"))?;
        let claims = decoded(claims).and_then(|claims| serde_json::from_slice(&claims).ok());
        let claims: Map<String, Value> = claims.ok_or(TokenError::Malformed("its claims"))?;

        let issued_at = self.check_times(&claims)?;
        self.check_parties(&claims)?;
        let (tenant, user) = names(&claims, &self.options)?;
        Ok(Authentic {
            key: id,
            is_due: id != ring.primary().0,
            issued_at,
            tenant,
            user,
            claims,
        })
    }

    /// Gives `iat`.
    fn check_times(&self, claims: &Map<String, Value>) -> Result<i64, TokenError> {
        let now = self.now();
        let leeway = i64::try_from(self.options.leeway.as_secs()).unwrap_or(i64::MAX);
        let issued_at = seconds(claims, "iat")?.ok_or(TokenError::Missing("iat"))?;
        if issued_at > now.saturating_add(leeway) {
            return Err(TokenError::Future("iat"));
        }
        if seconds(claims, "exp")?.ok_or(TokenError::Missing("exp"))? <= now {
            return Err(TokenError::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|from| from > now.saturating_add(leeway)) {
            return Err(TokenError::Future("nbf"));
        }
        Ok(issued_at)
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        if let Some(issuer) = &self.options.issuer {
            let named = claims.get("iss").ok_or(TokenError::Missing("iss"))?;
            if named != issuer.as_str() {
                return Err(TokenError::Elsewhere("issuer"));
            }
        }
        let is_meant = match (claims.get("aud"), self.options.audience.as_deref()) {
            (None, None) => true,
            (None, Some(_)) => return Err(TokenError::Missing("aud")),
            // RFC 7519, section 4.1.3: whoever does not find itself in a token's audience must reject it.
            (Some(_), None) => false,
            (Some(Value::Array(named)), Some(audience)) => named.iter().any(|named| named == audience),
            (Some(named), Some(audience)) => named == audience,
        };
        if is_meant {
            Ok(())
        } else {
            Err(TokenError::Elsewhere("audience"))
        }
    }

    fn now(&self) -> i64 {
        (self.shared.now)().as_second()
    }
}

fn set(claims: &mut Map<String, Value>, name: &'static str, value: Value) -> Result<(), TokenError> {
    match claims.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(TokenError::Reserved(name)),
    }
}

/// The tenant and the user. A name of another type could not be compared with any mark, and so would never end.
fn names(claims: &Map<String, Value>, options: &TokenOptions) -> Result<(Option<String>, Option<String>), TokenError> {
    let text = |name: &str, what| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(TokenError::Malformed(what)),
    };
    Ok((
        text(&options.tenant_claim, "its tenant is no text")?,
        text("sub", "its user is no text")?,
    ))
}

/// A NumericDate (RFC 7519, section 2), which may have a fraction. The fraction makes a token no younger.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| {
                let floor = number.as_f64()?.floor();
                // Exact below 2^53; what is beyond is no time.
                (floor.abs() < 9_007_199_254_740_992.0).then_some(floor as i64)
            });
            whole.map(Some).ok_or(TokenError::Malformed("a time is out of range"))
        }
        Some(_) => Err(TokenError::Malformed("a time is no number")),
    }
}

fn encoded(part: &impl Serialize) -> Result<String, TokenError> {
    let json = serde_json::to_vec(part).map_err(|_| TokenError::Claims)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Canonical base64url only: one token has one spelling.
fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// A working day, and long enough that nobody is asked to log in twice in one.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(12 * 3600);

/// Clocks that are kept by NTP differ by far less. `clock_skew` of `[session.NAME]` has the same default, so that a mark lies behind
/// every `iat` that was acceptable when it was set.
const LEEWAY_DEFAULT: Duration = Duration::from_secs(2);

/// Headers of HTTP servers end at 8 KiB; more is an attempt to keep the verifier busy.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const TOO_LONG: &str = "it is too long";
