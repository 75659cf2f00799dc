//! How the bytes of a value are written in a column: as they are, as base64 or as hex.
//!
//! Only the canonical text is read (B13): another spelling of the same bytes would make one value two, and what an application
//! compares or indexes would change under its feet. [`Shape::Variant`] recognises such texts, so that they pass for broken values, not
//! for plaintext.

use base64_simd::{AsOut, Base64, STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

/// The text form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The bytes themselves: bytea, BLOB.
    Raw,
    /// RFC 4648 section 4, padded.
    Base64,
    /// RFC 4648 section 5, padded or not: which one is carried through a rotation.
    Base64Url,
    /// Lower-case hexadecimal.
    Hex,
}

/// What a stored value looks like to an encoding, without decrypting anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Canonical, of so many bytes.
    Canonical(usize),
    /// Decodes to about so many bytes, but is not canonical: line breaks, other padding, upper-case hex.
    Variant(usize),
    /// Not this encoding.
    Other,
}

/// The text is not the canonical form of any bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotCanonical;

impl Encoding {
    /// Appends the decoded bytes of `stored` and says whether its text form left out the padding it could have had.
    /// On an error `out` is as it was.
    pub(super) fn decode(self, stored: &[u8], out: &mut Vec<u8>) -> Result<bool, NotCanonical> {
        let start = out.len();
        let decoded = match self.base64(is_unpadded(stored)) {
            Some(base64) => {
                out.resize(start + base64.estimated_decoded_length(stored.len()), 0);
                base64.decode(stored, out[start..].as_out()).map(|bytes| bytes.len()).ok()
            }
            None if self == Self::Raw => {
                out.extend_from_slice(stored);
                Some(stored.len())
            }
            None => {
                out.resize(start + stored.len() / 2, 0);
                decode_hex(stored, &mut out[start..]).then_some(stored.len() / 2)
            }
        };
        out.truncate(start + decoded.unwrap_or(0));
        decoded.ok_or(NotCanonical)?;
        Ok(self == Self::Base64Url && is_unpadded(stored))
    }

    /// Appends the text of `len` bytes that `fill` writes. They are built in the spare room of `out`, behind the place of the text:
    /// no buffer of its own, no allocation.
    pub(super) fn append(self, len: usize, unpadded: bool, out: &mut Vec<u8>, fill: impl FnOnce(&mut [u8])) {
        let start = out.len();
        let text_len = if self == Self::Raw { 0 } else { self.text_len(len, unpadded) };
        out.resize(start + text_len + len, 0);
        let (text, bytes) = out[start..].split_at_mut(text_len);
        fill(bytes);
        match self.base64(unpadded) {
            Some(base64) => {
                let _ = base64.encode(bytes, text.as_out());
            }
            None if self == Self::Raw => return,
            None => encode_hex(bytes, text),
        }
        out.truncate(start + text_len);
    }

    /// Bytes that `len` bytes take in the column.
    pub(super) fn text_len(self, len: usize, unpadded: bool) -> usize {
        match self.base64(unpadded) {
            Some(base64) => base64.encoded_length(len),
            None if self == Self::Raw => len,
            None => 2 * len,
        }
    }

    /// What `stored` looks like.
    pub(super) fn shape(self, stored: &[u8]) -> Shape {
        let canonical = match self.base64(is_unpadded(stored)) {
            Some(base64) => base64.check(stored).and_then(|()| base64.decoded_length(stored)).ok(),
            None if self == Self::Raw => Some(stored.len()),
            None => (stored.len().is_multiple_of(2) && stored.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
                .then_some(stored.len() / 2),
        };
        match canonical {
            Some(len) => Shape::Canonical(len),
            None => self.variant(stored),
        }
    }

    /// Line breaks, surrounding blanks, either alphabet, any padding, either case. Blanks inside are prose, not base64.
    fn variant(self, stored: &[u8]) -> Shape {
        let text = stored.trim_ascii();
        let (mut digits, mut others) = (0, 0);
        for character in text {
            match (self, character) {
                (_, b'\r' | b'\n') => {}
                (Self::Hex, c) if c.is_ascii_hexdigit() => digits += 1,
                (Self::Base64 | Self::Base64Url, c) if c.is_ascii_alphanumeric() || b"+/-_".contains(c) => digits += 1,
                (Self::Base64 | Self::Base64Url, b'=') => {}
                _ => others += 1,
            }
        }
        match self {
            _ if others > 0 => Shape::Other,
            Self::Hex => Shape::Variant(digits / 2),
            _ => Shape::Variant(digits / 4 * 3),
        }
    }

    fn base64(self, unpadded: bool) -> Option<&'static Base64> {
        match self {
            Self::Base64 => Some(&STANDARD),
            Self::Base64Url if unpadded => Some(&URL_SAFE_NO_PAD),
            Self::Base64Url => Some(&URL_SAFE),
            Self::Raw | Self::Hex => None,
        }
    }
}

/// Padding completes a multiple of four; a text that is none has lost it.
fn is_unpadded(text: &[u8]) -> bool {
    !text.len().is_multiple_of(4)
}

/// Arithmetic, which the compiler vectorises.
fn encode_hex(bytes: &[u8], text: &mut [u8]) {
    let digit = |nibble: u8| nibble + b'0' + u8::from(nibble > 9) * (b'a' - b'9' - 1);
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 0x0f);
    }
}

fn decode_hex(text: &[u8], bytes: &mut [u8]) -> bool {
    let mut bad = text.len() as u8 & 1;
    for (pair, byte) in text.chunks_exact(2).zip(bytes) {
        let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
        *byte = high << 4 | low;
        bad |= (high | low) & 0xf0;
    }
    bad == 0
}

/// The value of each lower-case digit; anything else has bits above the low four. What is looked up is ciphertext, no secret.
const NIBBLES: [u8; 256] = {
    let mut table = [0xf0; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ALL: [Encoding; 4] = [Encoding::Raw, Encoding::Base64, Encoding::Base64Url, Encoding::Hex];

    fn encoded(encoding: Encoding, bytes: &[u8], unpadded: bool) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encoding.append(bytes.len(), unpadded, &mut out, |room| room.copy_from_slice(bytes));
        out.split_off(6)
    }

    #[test]
    fn every_length_returns_and_is_as_long_as_announced() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        for encoding in ALL {
            for len in 0..bytes.len() {
                for unpadded in [false, true] {
                    let text = encoded(encoding, &bytes[..len], unpadded);
                    assert_eq!(text.len(), encoding.text_len(len, unpadded));
                    assert_eq!(encoding.shape(&text), Shape::Canonical(len));
                    let mut out = vec![9];
                    let carried = encoding.decode(&text, &mut out).unwrap();
                    assert_eq!(out[1..], bytes[..len]);
                    assert_eq!(carried, unpadded && encoding == Encoding::Base64Url && !len.is_multiple_of(3));
                }
            }
        }
    }

    #[test]
    fn only_the_canonical_text_is_read() {
        let refused: [(Encoding, &[&str]); 3] = [
            (
                Encoding::Base64,
                &[
                    "+/8", "+/8\n", " +/8=", "-_8=", "+/9=", "+/8==", "+/=8", "=+/8", "+/8=+/8=", "A===", "====",
                ],
            ),
            (
                Encoding::Base64Url,
                &["-_8==", "+/8=", "-_9=", "-_9", "-_8=\n", "A", "-_8=-_8"],
            ),
            (Encoding::Hex, &["0F", "0", "0g", "0f\n", "0x0f", "f ", "/f", ":f", "`f"]),
        ];
        for (encoding, texts) in refused {
            for text in texts {
                let mut out = vec![1, 2, 3];
                assert_eq!(
                    encoding.decode(text.as_bytes(), &mut out),
                    Err(NotCanonical),
                    "{encoding:?} {text:?}"
                );
                assert_eq!(out, [1, 2, 3]);
            }
        }
    }

    #[test]
    fn variants_are_told_from_plaintext() {
        assert_eq!(Encoding::Hex.shape(b"00FF"), Shape::Variant(2));
        assert_eq!(Encoding::Base64.shape(b"TWFu\nTWFu"), Shape::Variant(6));
        assert_eq!(Encoding::Base64.shape(b"TWF-"), Shape::Variant(3));
        assert_eq!(Encoding::Base64.shape(b"a plain text"), Shape::Other);
        assert_eq!(Encoding::Hex.shape(b"12 34"), Shape::Other);
        assert_eq!(Encoding::Base64Url.shape("zażółć".as_bytes()), Shape::Other);
    }
}
