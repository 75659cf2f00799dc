//! The search for a secret where it must not be: output, logs, files, tables.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// A secret, and every spelling under which it could leak.
pub struct Canary {
    name: &'static str,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    /// `name` is what failures call it; the secret itself is never printed.
    ///
    /// # Panics
    /// On fewer than 8 bytes, which would be found by chance.
    pub fn new(name: &'static str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 8, "a canary of {} bytes proves nothing", secret.len());
        let mut canary = Self { name, forms: Vec::new() };
        canary.add(secret);
        canary
    }

    /// The text of a Fernet key (or another base64url key), looked for as text and as the bytes that it stands for.
    pub fn base64url_key(name: &'static str, text: &str) -> Self {
        let mut canary = Self::new(name, text.as_bytes());
        canary.add(&URL_SAFE.decode(text).expect("padded base64url"));
        canary
    }

    /// The first spelling that is in `text`, if any.
    pub fn found_in(&self, text: &[u8]) -> Option<&'static str> {
        let found = self.forms.iter().find(|(_, form)| contains(text, form));
        found.map(|&(spelling, _)| spelling)
    }

    /// Fails when `text` holds the secret; `place` says what was searched.
    pub fn assert_absent(&self, place: &str, text: &[u8]) {
        if let Some(spelling) = self.found_in(text) {
            panic!("{} leaked into {place} as {spelling}", self.name);
        }
    }

    fn add(&mut self, secret: &[u8]) {
        let percent_all: String = secret.iter().map(|byte| format!("%{byte:02X}")).collect();
        let percent: String = secret.iter().map(|&byte| percent_encoded(byte)).collect();
        let debug = format!("{secret:?}");
        self.forms.extend([
            ("raw bytes", secret.to_vec()),
            ("hex", hex(secret).into_bytes()),
            ("upper-case hex", hex(secret).to_uppercase().into_bytes()),
            ("percent-encoding of every byte", percent_all.clone().into_bytes()),
            (
                "lower-case percent-encoding of every byte",
                percent_all.to_lowercase().into_bytes(),
            ),
            ("percent-encoding", percent.into_bytes()),
            ("decimal bytes", debug.trim_matches(['[', ']']).replace(' ', "").into_bytes()),
            ("decimal bytes, spaced", debug.trim_matches(['[', ']']).as_bytes().to_vec()),
        ]);
        // Inside a longer base64 text a secret starts at one of three places of a group of four characters.
        for shift in 0..3 {
            self.forms.push(("base64", shifted(&STANDARD_NO_PAD, secret, shift)));
            self.forms.push(("base64url", shifted(&URL_SAFE_NO_PAD, secret, shift)));
        }
    }
}

/// The characters of `secret`, encoded after `shift` other bytes, that depend on `secret` alone.
fn shifted(engine: &impl Engine, secret: &[u8], shift: usize) -> Vec<u8> {
    let padded = [vec![0; shift], secret.to_vec()].concat();
    let text = engine.encode(&padded).into_bytes();
    let first = [0, 2, 3][shift];
    let whole = padded.len() * 8 / 6;
    text[first..whole].to_vec()
}

fn percent_encoded(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contains(text: &[u8], form: &[u8]) -> bool {
    text.windows(form.len()).any(|window| window == form)
}
