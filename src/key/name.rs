//! The name of a keyset.

use std::fmt;
use std::str::FromStr;

/// What a keyset is called: 1 to 64 ASCII letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
///
/// So narrow that it can stand in a file name, a log line, a JSON string and a key reference without quoting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeysetName(String);

/// A text that cannot name a keyset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a keyset name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit")]
pub struct UnfitName;

impl KeysetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeysetName {
    type Err = UnfitName;

    fn from_str(text: &str) -> Result<Self, UnfitName> {
        let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if begins_well && is_plain && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(UnfitName)
        }
    }
}

impl fmt::Display for KeysetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Long enough for any purpose, short enough for a table on a terminal.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass_and_everything_else_is_refused() {
        for good in ["a", "customer-data", "0", "users.email_v2", &"x".repeat(64)] {
            assert_eq!(good.parse::<KeysetName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", ".a", "a b", "a\n", "a@1", "é", "a/b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<KeysetName>(), Err(UnfitName), "{bad:?}");
        }
    }
}
