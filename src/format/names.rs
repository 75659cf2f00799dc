//! Formats by the name that configuration, command line and reports use.

use super::{AesGcm, Fernet, Format, Tink};

/// No format has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format `{name}`{}; known: {KNOWN}", nearest.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
    /// The known name that is most like it, if one is like it at all.
    pub nearest: Option<&'static str>,
}

/// All formats, the common ones first.
pub fn all() -> impl Iterator<Item = &'static dyn Format> {
    let fernet = std::iter::once(&Fernet as &dyn Format);
    let tink = Tink::all().map(|format| format as &dyn Format);
    fernet.chain(tink).chain(AesGcm::all().map(|format| format as &dyn Format))
}

/// The format called `name`.
pub fn by_name(name: &str) -> Result<&'static dyn Format, UnknownFormat> {
    all().find(|format| format.name() == name).ok_or_else(|| UnknownFormat {
        name: name.to_owned(),
        nearest: nearest(name),
    })
}

fn nearest(name: &str) -> Option<&'static str> {
    let asked = name.to_ascii_lowercase().replace(['_', ' '], "-");
    let likeness = |known: &str| strsim::jaro_winkler(known, &asked);
    // Of equally near names the first, which is the commoner one.
    let mut best = (LIKE_ENOUGH, None);
    for known in all().map(Format::name) {
        if likeness(known) > best.0 {
            best = (likeness(known), Some(known));
        }
    }
    best.1
}

/// Below it, a suggestion would be a guess.
const LIKE_ENOUGH: f64 = 0.7;

/// The families; the suffixes are many.
const KNOWN: &str = "fernet, tink, tink-base64, tink-crunchy, tink-crunchy-base64, aes-gcm[-base64|-base64url|-hex]\
    [-nonce8|-nonce16|-nonce24|-nonce32][-tag-first|-nonce-last|-tag-nonce]";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_format_is_found_under_its_own_name_only() {
        let names: HashSet<_> = all().map(Format::name).collect();
        assert_eq!(names.len(), all().count());
        assert_eq!(names.len(), 1 + 4 + 80);
        for name in names {
            assert_eq!(by_name(name).unwrap().name(), name);
        }
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        let nearest = |name: &str| by_name(name).err().unwrap().nearest;
        assert_eq!(nearest("Fernet"), Some("fernet"));
        assert_eq!(nearest("fernt"), Some("fernet"));
        assert_eq!(nearest("AES_GCM"), Some("aes-gcm"));
        assert_eq!(nearest("aes-256-gcm"), Some("aes-gcm"));
        assert_eq!(nearest("tink_base64"), Some("tink-base64"));
        assert_eq!(nearest("rot13"), None);
        let said = by_name("fernt").err().unwrap().to_string();
        assert!(
            said.starts_with("unknown format `fernt`, did you mean `fernet`?; known: fernet, tink,"),
            "{said}"
        );
    }
}
