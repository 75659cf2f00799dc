//! Kinds of secrets, and recipes: a kind with a size that is not below its floor.

use std::fmt;
use std::str::FromStr;

/// What a secret looks like, after the program that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As Python's `secrets.token_urlsafe(n)`.
    TokenUrlsafe,
    /// As `Fernet.generate_key()`.
    Fernet,
    /// Hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Django's `SECRET_KEY`.
    Django,
    /// Laravel's `APP_KEY`: `base64:…`.
    Laravel,
    /// As `rails secret` prints it.
    Rails,
    /// A random UUID (version 4).
    Uuid,
    /// Characters of chosen classes, each class at least once.
    Password,
    /// An Ed25519 signing key.
    Ed25519,
    /// An ECDSA signing key on P-256.
    Es256,
    /// An RSA signing key.
    Rs256,
    /// An X25519 key in WireGuard's base64.
    Wireguard,
}

/// The character classes of a password. Every class that is on occurs at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classes {
    /// `a` to `z`.
    pub lower: bool,
    /// `A` to `Z`.
    pub upper: bool,
    /// `0` to `9`.
    pub digit: bool,
    /// Punctuation that needs no quoting in URLs, shells and env files: `- _ . + = @ % : /`
    pub symbol: bool,
    /// Whether characters that look alike (`0 O o 1 l I`) may occur.
    pub ambiguous: bool,
}

/// A kind with its size: cannot be held with a size below the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    kind: Kind,
    size: usize,
    classes: Classes,
}

/// Why there is no such recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Outside the range of the kind.
    #[error("{kind} takes {min} to {max} {unit}, not {size}")]
    Size {
        /// The kind.
        kind: Kind,
        /// What was asked for.
        size: usize,
        /// The floor.
        min: usize,
        /// The ceiling.
        max: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The kind has one of a few sizes.
    #[error("{kind} has {allowed}, not {size} {unit}")]
    Fixed {
        /// The kind.
        kind: Kind,
        /// What was asked for.
        size: usize,
        /// What there is.
        allowed: &'static str,
        /// What is counted.
        unit: &'static str,
    },
    /// A password of so few classes is too easy to guess at this length.
    #[error("a password of {length} characters out of {alphabet} has fewer than {min} bits; make it longer")]
    Guessable {
        /// Characters.
        length: usize,
        /// Different characters that may occur.
        alphabet: usize,
        /// The floor.
        min: u32,
    },
    /// Nothing to build a password of.
    #[error("a password needs at least one class of characters")]
    NoClasses,
}

/// A word that names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of secret; there are: {}", KINDS.map(|(_, name)| name).join(", "))]
pub struct UnknownKind;

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, _)| *kind)
    }

    /// Its name on the command line and in the configuration.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Whether it has a public half.
    pub fn is_key_pair(self) -> bool {
        matches!(self, Self::Ed25519 | Self::Es256 | Self::Rs256 | Self::Wireguard)
    }

    /// Whether it signs tokens, so that a JWK of it makes sense.
    pub fn signs(self) -> bool {
        matches!(self, Self::Ed25519 | Self::Es256 | Self::Rs256)
    }

    /// What its size counts.
    pub fn unit(self) -> &'static str {
        self.bounds().unit
    }

    fn bounds(self) -> Bounds {
        match self {
            // 256 bits: as strong as the strongest MAC that is keyed with it.
            Self::TokenUrlsafe => Bounds::range("bytes", 64, 32, BYTES_MAX),
            Self::Hex | Self::Base64 => Bounds::range("bytes", 32, 16, BYTES_MAX),
            // `rails secret` makes 64; ActiveSupport derives keys from it, and 32 bytes are the key of its cipher.
            Self::Rails => Bounds::range("bytes", 64, 32, BYTES_MAX),
            // Django's own check security.W009 wants 50 characters.
            Self::Django => Bounds::range("characters", 50, 50, BYTES_MAX),
            Self::Password => Bounds::range("characters", 24, 12, BYTES_MAX),
            Self::Fernet => Bounds::choice("bytes", 32, &[32], "exactly 32 bytes"),
            Self::Laravel => Bounds::choice("bytes", 32, &[16, 32], "16 bytes (AES-128) or 32 bytes (AES-256)"),
            Self::Uuid => Bounds::choice("bytes", 16, &[16], "exactly 16 bytes"),
            Self::Ed25519 | Self::Es256 | Self::Wireguard => Bounds::choice("bits", 256, &[256], "exactly 256 bits"),
            // NIST SP 800-131A: 2048 is the floor.
            Self::Rs256 => Bounds::choice("bits", 3072, &[2048, 3072, 4096], "2048, 3072 or 4096 bits"),
        }
    }
}

impl Recipe {
    /// A recipe of this kind. Without a size it is the one that the program which reads it would choose.
    pub fn new(kind: Kind, size: Option<usize>, classes: Classes) -> Result<Self, RecipeError> {
        let bounds = kind.bounds();
        let size = size.unwrap_or(bounds.default);
        match bounds.allowed {
            Allowed::Range(min, max) if !(min..=max).contains(&size) => {
                let unit = bounds.unit;
                return Err(RecipeError::Size {
                    kind,
                    size,
                    min,
                    max,
                    unit,
                });
            }
            Allowed::Choice(sizes, allowed) if !sizes.contains(&size) => {
                let unit = bounds.unit;
                return Err(RecipeError::Fixed {
                    kind,
                    size,
                    allowed,
                    unit,
                });
            }
            Allowed::Range(..) | Allowed::Choice(..) => {}
        }
        if kind == Kind::Password {
            check_guessing(size, classes)?;
        }
        Ok(Self { kind, size, classes })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many of the kind's units it has.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn classes(&self) -> Classes {
        self.classes
    }
}

impl Classes {
    /// The sets of characters that are on.
    pub(super) fn alphabets(self) -> Vec<Vec<u8>> {
        let sets: [(bool, &[u8]); 4] = [
            (self.lower, b"abcdefghijklmnopqrstuvwxyz"),
            (self.upper, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            (self.digit, b"0123456789"),
            (self.symbol, b"-_.+=@%:/"),
        ];
        let chosen = sets.into_iter().filter(|(on, _)| *on);
        chosen
            .map(|(_, set)| {
                let kept = set.iter().copied();
                kept.filter(|character| self.ambiguous || !b"0Oo1lI".contains(character))
                    .collect()
            })
            .collect()
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            lower: true,
            upper: true,
            digit: true,
            symbol: true,
            ambiguous: true,
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = KINDS.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or(UnknownKind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct Bounds {
    unit: &'static str,
    default: usize,
    allowed: Allowed,
}

enum Allowed {
    Range(usize, usize),
    Choice(&'static [usize], &'static str),
}

impl Bounds {
    fn range(unit: &'static str, default: usize, min: usize, max: usize) -> Self {
        let allowed = Allowed::Range(min, max);
        Self { unit, default, allowed }
    }

    fn choice(unit: &'static str, default: usize, sizes: &'static [usize], text: &'static str) -> Self {
        let allowed = Allowed::Choice(sizes, text);
        Self { unit, default, allowed }
    }
}

fn check_guessing(length: usize, classes: Classes) -> Result<(), RecipeError> {
    let alphabet: usize = classes.alphabets().iter().map(Vec::len).sum();
    if alphabet == 0 {
        return Err(RecipeError::NoClasses);
    }
    // 256 characters at most, some hundred bits: far inside what a double holds exactly enough.
    #[allow(clippy::cast_precision_loss)]
    let bits = (alphabet as f64).log2() * length as f64;
    if bits < f64::from(PASSWORD_BITS_MIN) {
        let min = PASSWORD_BITS_MIN;
        return Err(RecipeError::Guessable { length, alphabet, min });
    }
    Ok(())
}

const KINDS: [(Kind, &str); 13] = [
    (Kind::TokenUrlsafe, "token-urlsafe"),
    (Kind::Fernet, "fernet"),
    (Kind::Hex, "hex"),
    (Kind::Base64, "base64"),
    (Kind::Django, "django"),
    (Kind::Laravel, "laravel"),
    (Kind::Rails, "rails"),
    (Kind::Uuid, "uuid"),
    (Kind::Password, "password"),
    (Kind::Ed25519, "ed25519"),
    (Kind::Es256, "es256"),
    (Kind::Rs256, "rs256"),
    (Kind::Wireguard, "wireguard"),
];

/// No application takes more, and a mistyped number does not fill a disk.
const BYTES_MAX: usize = 1024;

/// Bits of a password: out of reach of offline guessing even where the program that stores it hashes badly. Below 64 it would not be.
const PASSWORD_BITS_MIN: u32 = 72;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_below_the_floor_are_refused() {
        for (kind, size) in [
            (Kind::TokenUrlsafe, 31),
            (Kind::Hex, 15),
            (Kind::Base64, 1025),
            (Kind::Django, 49),
            (Kind::Rails, 31),
            (Kind::Fernet, 16),
            (Kind::Laravel, 24),
            (Kind::Rs256, 1024),
            (Kind::Ed25519, 448),
            (Kind::Uuid, 15),
            (Kind::Password, 11),
        ] {
            let refused = Recipe::new(kind, Some(size), Classes::default());
            assert!(
                matches!(refused, Err(RecipeError::Size { .. } | RecipeError::Fixed { .. })),
                "{kind} {size}"
            );
        }
        for kind in Kind::all() {
            assert!(Recipe::new(kind, None, Classes::default()).is_ok(), "{kind}");
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }

    #[test]
    fn a_password_of_few_characters_must_be_long() {
        let digits = Classes {
            lower: false,
            upper: false,
            symbol: false,
            ..Classes::default()
        };
        assert!(matches!(
            Recipe::new(Kind::Password, Some(21), digits),
            Err(RecipeError::Guessable { alphabet: 10, .. })
        ));
        assert!(Recipe::new(Kind::Password, Some(22), digits).is_ok());
        let none = Classes { digit: false, ..digits };
        assert_eq!(Recipe::new(Kind::Password, None, none), Err(RecipeError::NoClasses));
    }
}
