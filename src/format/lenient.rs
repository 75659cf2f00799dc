//! Base64url as Python's `base64.urlsafe_b64decode` reads it, for values that a strict decoder refuses.
//!
//! Fernet tokens with line breaks, the other alphabet or surplus padding exist in real tables, because Python accepts them. This is
//! the slow path: strict decoding comes first, and what is written is always canonical.

/// Decodes `text` into `out`, which has room for `text.len() / 4 * 3 + 3` bytes. Returns how many were written; `None` where Python
/// raises an error, which it does only for missing padding.
pub(super) fn decode(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut written = 0;
    let mut in_quad = 0;
    let mut carry = 0;
    let mut pads = 0;
    for &character in text {
        if character == b'=' {
            // Two or three characters of a quad and their padding end the value; Python ignores whatever follows.
            if in_quad >= 2 {
                pads += 1;
                if in_quad + pads >= 4 {
                    return Some(written);
                }
            }
            continue;
        }
        let Some(sextet) = sextet(character) else { continue };
        pads = 0;
        if in_quad > 0 {
            // The carry holds the low bits of the character before: 6, 4 or 2 of them, as the quad fills.
            let have = 8 - 2 * in_quad;
            out[written] = carry << (8 - have) | sextet >> (have - 2);
            written += 1;
        }
        carry = sextet & CARRIED_BITS[in_quad];
        in_quad = (in_quad + 1) % 4;
    }
    (in_quad == 0).then_some(written)
}

/// The first `N` bytes of the decoded value, if it has so many: a look at the header without decoding the rest.
pub(super) fn peek<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bits = 0u16;
    let mut have = 0;
    let mut written = 0;
    let mut head = [0; N];
    for sextet in text.iter().filter_map(|&character| sextet(character)) {
        if written == N {
            break;
        }
        bits = bits << 6 | u16::from(sextet);
        have += 6;
        if have >= 8 {
            have -= 8;
            head[written] = (bits >> have) as u8;
            written += 1;
        }
    }
    (written == N).then_some(head)
}

fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// What the character at each place of a quad leaves for the next one.
const CARRIED_BITS: [u8; 4] = [0x3f, 0x0f, 0x03, 0x00];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = vec![0; text.len() / 4 * 3 + 3];
        let written = decode(text.as_bytes(), &mut out)?;
        out.truncate(written);
        Some(out)
    }

    /// Expectations were taken from CPython 3.11: `base64.urlsafe_b64decode(text)`.
    #[test]
    fn agrees_with_python() {
        let cases: [(&str, Option<&[u8]>); 12] = [
            ("", Some(b"")),
            ("TWFu", Some(b"Man")),
            ("TWE=", Some(b"Ma")),
            ("TQ==", Some(b"M")),
            ("TQ==TWFu", Some(b"M")),
            ("T Q\n=\r=", Some(b"M")),
            ("=TWFu====", Some(b"Man")),
            ("TQ=Fu", Some(b"M\x01n")),
            ("TWE", None),
            ("TQ=", None),
            ("T", None),
            ("-_+/", Some(&[0xfb, 0xff, 0xbf])),
        ];
        for (text, expected) in cases {
            assert_eq!(decoded(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn peeks_at_the_head() {
        assert_eq!(peek(b" T W\nFu"), Some(*b"Man"));
        assert_eq!(peek::<4>(b"TWFu"), None);
    }
}
