//! Patterns of Redis keys, matched here as the server matches them: nothing is unlinked on the server's word alone.

/// A glob over bytes: `*`, `?`, `[a-z]`, `[^x]`, `\` before a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
}

impl Glob {
    /// Any pattern is valid; see [`matches_everything`](Self::matches_everything).
    pub fn new(pattern: impl Into<Vec<u8>>) -> Self {
        Self { pattern: pattern.into() }
    }

    /// Text that matches itself alone, to be put into a pattern.
    pub fn escape(text: &str) -> String {
        let mut escaped = String::with_capacity(text.len());
        for character in text.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    }

    /// The pattern as the server takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.pattern
    }

    /// Whether hardly any key is outside: no letter or digit must occur in what matches.
    pub fn matches_everything(&self) -> bool {
        let mut rest = self.pattern.as_slice();
        while let Some((&first, behind)) = rest.split_first() {
            rest = match first {
                b'*' | b'?' => behind,
                b'[' => class(behind, 0).1,
                b'\\' if !behind.is_empty() => {
                    if behind[0].is_ascii_alphanumeric() || !behind[0].is_ascii() {
                        return false;
                    }
                    &behind[1..]
                }
                literal if literal.is_ascii_alphanumeric() || !literal.is_ascii() => return false,
                _ => behind,
            };
        }
        true
    }

    /// Whether a key matches. Takes time in proportion to both lengths, whatever the pattern.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut pattern, mut text) = (self.pattern.as_slice(), key);
        // Where to go on when what follows the last star did not fit.
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            match pattern.split_first() {
                Some((b'*', behind)) => {
                    retry = Some((behind, text));
                    pattern = behind;
                    continue;
                }
                Some((&first, behind)) => {
                    if let Some((&byte, after)) = text.split_first() {
                        let (fits, rest) = match first {
                            b'?' => (true, behind),
                            b'[' => class(behind, byte),
                            b'\\' if !behind.is_empty() => (behind[0] == byte, &behind[1..]),
                            literal => (literal == byte, behind),
                        };
                        if fits {
                            (pattern, text) = (rest, after);
                            continue;
                        }
                    }
                }
                None if text.is_empty() => return true,
                None => {}
            }
            match retry {
                Some((behind, from)) if !from.is_empty() => {
                    retry = Some((behind, &from[1..]));
                    (pattern, text) = (behind, &from[1..]);
                }
                _ => return false,
            }
        }
    }
}

/// A class, behind its `[`: whether it holds the byte, and what follows it. Unclosed, it ends with the pattern, as on the server.
fn class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let (is_negated, mut rest) = match pattern.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, pattern),
    };
    let mut holds = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [b'\\', literal, behind @ ..] => {
                holds |= *literal == byte;
                behind
            }
            [low, b'-', high, behind @ ..] => {
                holds |= (*low.min(high)..=*low.max(high)).contains(&byte);
                behind
            }
            [literal, behind @ ..] => {
                holds |= *literal == byte;
                behind
            }
        };
    }
    (holds != is_negated, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_as_on_the_server() {
        for (pattern, key, expected) in [
            ("session:*", "session:abc", true),
            ("session:*", "session:", true),
            ("session:*", "sessions:abc", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("\\*x", "*x", true),
            ("\\*x", "ax", false),
            ("[\\]]", "]", true),
            ("[abc", "a", true),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(key.as_bytes()), expected, "{pattern} {key}");
        }
        assert!(Glob::new("s:*").matches(b"s:\xff\x00\n"));
        let hostile = "*a".repeat(40) + "b";
        assert!(!Glob::new(hostile).matches("a".repeat(5000).as_bytes()));
        assert!(Glob::new(Glob::escape("we[i]rd*\\-^?")).matches(b"we[i]rd*\\-^?"));
    }

    #[test]
    fn patterns_without_a_letter_match_everything() {
        for pattern in ["*", "", "**", "?*", "[a-z]*", "[^x]*", "*:*", "\\**", "[abc"] {
            assert!(Glob::new(pattern).matches_everything(), "{pattern}");
        }
        for pattern in ["session:*", "*x", "\\s*", "1*", "é*"] {
            assert!(!Glob::new(pattern).matches_everything(), "{pattern}");
        }
    }
}
