//! Identifiers in statements: the catalogue's spelling, quoted by this one rule. Nothing that a person typed is ever concatenated.

use super::StoreError;

/// `name` in double quotes, with quotes inside doubled: the rule of standard SQL, PostgreSQL and SQLite. NUL ends a statement in C
/// interfaces, so that a name with one is refused.
pub fn quote_ident(name: &str) -> Result<String, StoreError> {
    if name.contains('\0') {
        return Err(StoreError::Refused("a name with a NUL character cannot be used".to_owned()));
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if c == '"' {
            quoted.push('"');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

/// The name inside what [`quote_ident`] made.
pub fn unquote_ident(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let name = inner.replace("\"\"", "\"");
    (quote_ident(&name).ok()? == quoted).then_some(name)
}

/// `name` for people: bare where it needs no quotes.
pub fn display_ident(name: &str) -> String {
    let plain = name
        .bytes()
        .enumerate()
        .all(|(at, byte)| byte == b'_' || byte.is_ascii_lowercase() || (at > 0 && byte.is_ascii_digit()));
    if plain && !name.is_empty() {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_nul_is_refused() {
        for (name, quoted) in [
            ("email", "\"email\""),
            ("x\"; DROP TABLE t; --", "\"x\"\"; DROP TABLE t; --\""),
            ("\"", "\"\"\"\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name).unwrap(), quoted);
            assert_eq!(unquote_ident(quoted).as_deref(), Some(name));
        }
        assert!(quote_ident("a\0b").is_err());
        assert_eq!(unquote_ident("\"a\"b\""), None);
    }

    #[test]
    fn only_plain_names_are_shown_bare() {
        assert_eq!(display_ident("customers_2"), "customers_2");
        assert_eq!(display_ident("2customers"), "\"2customers\"");
        assert_eq!(display_ident("Ta\"ble"), "\"Ta\"\"ble\"");
    }
}
