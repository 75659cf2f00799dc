//! Identifiers: the one place where a name becomes part of a statement.

/// Quotes a catalogue name for PostgreSQL and SQLite. Names come from the catalogue, never from the command line; one with a NUL
/// cannot exist there and is refused.
pub fn quote_ident(name: &str) -> Option<String> {
    if name.contains('\0') {
        return None;
    }
    Some(format!("\"{}\"", name.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::quote_ident;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(quote_ident("plain").as_deref(), Some("\"plain\""));
        assert_eq!(
            quote_ident("x\"; DROP TABLE t; --").as_deref(),
            Some("\"x\"\"; DROP TABLE t; --\"")
        );
        assert_eq!(quote_ident("a\0b"), None);
    }
}
