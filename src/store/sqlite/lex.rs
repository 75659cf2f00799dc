//! SQL cut into tokens as SQLite does it: enough to see where a condition ends and which columns a trigger names. Judging whether
//! the SQL is right is left to SQLite.

/// A token of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a bare identifier or a number.
    Word(String),
    /// A quoted identifier, without its quotes. (In double quotes it may be a string, if no such column exists.)
    Quoted(String),
    /// A string literal.
    Text,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `;`.
    Semicolon,
    /// `?`, `:name`, `@name`, `$name`.
    Parameter,
    /// A comment.
    Comment,
    /// Any other character.
    Other(char),
}

impl Token {
    /// Whether this is the keyword (lower case).
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Whether this may name the column.
    pub(super) fn names(&self, column: &str) -> bool {
        matches!(self, Self::Word(name) | Self::Quoted(name) if name.eq_ignore_ascii_case(column))
    }
}

/// A quote or a comment that does not end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unterminated;

/// The tokens of `sql`.
pub(super) fn tokens(sql: &str) -> Result<Vec<Token>, Unterminated> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let (token, len) = match c {
            _ if c.is_ascii_whitespace() => {
                rest = &rest[1..];
                continue;
            }
            '\'' => (Token::Text, quoted(rest, '\'')?.1),
            '"' | '`' => {
                let (name, len) = quoted(rest, c)?;
                (Token::Quoted(name), len)
            }
            '[' => {
                let end = rest.find(']').ok_or(Unterminated)?;
                (Token::Quoted(rest[1..end].to_owned()), end + 1)
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ';' => (Token::Semicolon, 1),
            '-' if rest.starts_with("--") => (Token::Comment, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (Token::Comment, rest[2..].find("*/").ok_or(Unterminated)? + 4),
            '?' | ':' | '@' | '$' => (Token::Parameter, 1 + word_len(&rest[1..])),
            _ if is_word(c) => {
                let len = word_len(rest);
                (Token::Word(rest[..len].to_owned()), len)
            }
            _ => (Token::Other(c), c.len_utf8()),
        };
        tokens.push(token);
        rest = &rest[len..];
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(String, usize), Unterminated> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            name.push(c);
        } else if chars.peek().is_some_and(|&(_, next)| next == quote) {
            name.push(c);
            chars.next();
        } else {
            return Ok((name, at + 1));
        }
    }
    Err(Unterminated)
}

fn word_len(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_what_is_inside() {
        let found = tokens("a = 'it''s ; ) --' AND \"b\"\"(\" = [c)] /* ; */").unwrap();
        assert!(!found.contains(&Token::Semicolon) && !found.contains(&Token::Open) && !found.contains(&Token::Close));
        assert!(found.contains(&Token::Quoted("b\"(".to_owned())));
        assert!(found.contains(&Token::Quoted("c)".to_owned())));
        assert_eq!(found.last(), Some(&Token::Comment));
    }

    #[test]
    fn open_quotes_and_comments_are_seen() {
        for sql in ["'a", "\"a", "`a", "[a", "/* a", "/*/", "'a''"] {
            assert_eq!(tokens(sql), Err(Unterminated), "{sql}");
        }
    }

    #[test]
    fn words_and_parameters_are_told_apart() {
        assert_eq!(tokens("naïve_1").unwrap(), [Token::Word("naïve_1".to_owned())]);
        assert_eq!(tokens("?1").unwrap(), [Token::Parameter]);
        assert_eq!(tokens(":id").unwrap(), [Token::Parameter]);
    }
}
