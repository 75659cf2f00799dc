//! Env files, line by line and without loss: comments, order, quoting, `export`, line ends and unknown lines stay.
//!
//! There is no standard for these files. Where python-dotenv, Node's dotenv, Ruby's, Docker and shells would read a line
//! differently, a value is neither believed nor written: an error names the variable instead.

use zeroize::Zeroizing;

use super::SecretText;
use super::assignment::{Assignment, BYTE_ORDER_MARK, Quotes, assignment_at, line_end};
use super::fields::{FieldError, Fields, splice};

/// The text of an env file.
pub struct Dotenv {
    text: Zeroizing<Vec<u8>>,
}

impl Dotenv {
    /// Takes any text; what is no assignment is kept as it is.
    pub fn new(text: &[u8]) -> Self {
        Self {
            text: Zeroizing::new(text.to_vec()),
        }
    }

    fn assignments(&self) -> Vec<Assignment> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.text.len() {
            let assignment = assignment_at(&self.text, at);
            at = assignment.as_ref().map_or_else(|| line_end(&self.text, at), |it| it.end);
            found.extend(assignment);
        }
        found
    }

    /// The one assignment of a name.
    fn find(&self, name: &str) -> Result<Option<Assignment>, FieldError> {
        let is_it = |it: &Assignment| &self.text[it.name.clone()] == name.as_bytes();
        let mut found: Vec<_> = self.assignments().into_iter().filter(is_it).collect();
        // A line inside a quoted value of several lines is an assignment to readers that know no such values.
        let mut lines = 0;
        let mut at = 0;
        while at < self.text.len() {
            lines += usize::from(assignment_at(&self.text, at).as_ref().is_some_and(is_it));
            at = line_end(&self.text, at);
        }
        match (found.pop(), found.len(), lines) {
            (None, _, 0) => Ok(None),
            (Some(one), 0, 1) => Ok(Some(one)),
            _ => Err(FieldError::Twice(name.to_owned())),
        }
    }

    fn decode(&self, name: &str, it: &Assignment) -> Result<SecretText, FieldError> {
        let ambiguous = |why| FieldError::Ambiguous {
            name: name.to_owned(),
            why,
        };
        let raw = std::str::from_utf8(&self.text[it.value.clone()]).map_err(|_| ambiguous("it is not UTF-8"))?;
        let inner = match it.quotes {
            Quotes::Odd => return Err(ambiguous("its quotes do not match")),
            Quotes::None => raw,
            Quotes::Single | Quotes::Double => &raw[1..raw.len() - 1],
        };
        if inner.contains("${") || (it.quotes != Quotes::Single && has_variable(inner)) {
            return Err(ambiguous("a $ that some expand"));
        }
        if it.quotes == Quotes::None && inner.contains(['\'', '"', '`', '#']) {
            return Err(ambiguous("a quote or # inside an unquoted value"));
        }
        if it.quotes != Quotes::Double {
            if inner.contains('\\') {
                return Err(ambiguous("a backslash"));
            }
            return Ok(SecretText::new(inner.to_owned()));
        }
        let mut value = Zeroizing::new(String::with_capacity(inner.len()));
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' if characters.as_str().starts_with('n') => {
                    characters.next();
                    value.push('\n');
                }
                '\\' => return Err(ambiguous("a backslash")),
                other => value.push(other),
            }
        }
        Ok(SecretText::from(value))
    }
}

impl Fields for Dotenv {
    fn value(&self, name: &str) -> Result<Option<SecretText>, FieldError> {
        self.find(name)?.map(|it| self.decode(name, &it)).transpose()
    }

    fn put(&mut self, name: &str, value: &str, after: &str) -> Result<(), FieldError> {
        if let Some(it) = self.find(name)? {
            if it.quotes == Quotes::Odd {
                let why = "its quotes do not match";
                let name = name.to_owned();
                return Err(FieldError::Ambiguous { name, why });
            }
            let written = encode(value, it.quotes).ok_or_else(|| FieldError::Unwritable(name.to_owned()))?;
            splice(&mut self.text, it.value, written.as_bytes());
            return Ok(());
        }
        let neighbour = self.find(after)?.ok_or_else(|| FieldError::Missing(after.to_owned()))?;
        let written = encode(value, neighbour.quotes).ok_or_else(|| FieldError::Unwritable(name.to_owned()))?;
        let ending = self.text[..neighbour.end]
            .iter()
            .rposition(|byte| *byte != b'\n' && *byte != b'\r');
        let ending = ending.map_or(0, |last| last + 1);
        let is_ended = ending < neighbour.end;
        let eol: Vec<u8> = match &self.text[ending..neighbour.end] {
            [] if self.text.windows(2).any(|pair| pair == b"\r\n") => b"\r\n".to_vec(),
            [] => b"\n".to_vec(),
            eol => eol.to_vec(),
        };
        // Indentation and `export` as in the neighbour's line.
        let prefix = &self.text[neighbour.line..neighbour.name.start];
        let prefix = prefix.strip_prefix(BYTE_ORDER_MARK).unwrap_or(prefix).to_vec();
        let assignment = [prefix.as_slice(), name.as_bytes(), b"="].concat();
        let mut line = Zeroizing::new(Vec::with_capacity(assignment.len() + written.len() + 2 * eol.len()));
        if !is_ended {
            line.extend_from_slice(&eol);
        }
        line.extend_from_slice(&assignment);
        line.extend_from_slice(written.as_bytes());
        if is_ended {
            line.extend_from_slice(&eol);
        }
        splice(&mut self.text, neighbour.end..neighbour.end, &line);
        Ok(())
    }

    fn has(&self, name: &str) -> Result<bool, FieldError> {
        Ok(self.find(name)?.is_some())
    }

    fn text(&self) -> &[u8] {
        &self.text
    }
}

fn has_variable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'(' | b'{' | b'$');
    bytes.windows(2).any(|pair| pair[0] == b'$' && begins(&pair[1]))
}

/// The value as all readers read it, in the quotes that were there if they allow it.
fn encode(value: &str, present: Quotes) -> Option<Zeroizing<String>> {
    let order = match present {
        Quotes::None => [Quotes::None, Quotes::Single, Quotes::Double],
        Quotes::Single | Quotes::Odd => [Quotes::Single, Quotes::Double, Quotes::None],
        Quotes::Double => [Quotes::Double, Quotes::Single, Quotes::None],
    };
    order.into_iter().find_map(|quotes| encode_in(value, quotes))
}

fn encode_in(value: &str, quotes: Quotes) -> Option<Zeroizing<String>> {
    let mut written = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    match quotes {
        Quotes::None => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./+=:,@%".contains(&byte);
            written.push_str(value);
            value.bytes().all(is_plain).then_some(written)
        }
        Quotes::Single => {
            written.extend(["'", value, "'"]);
            let is_safe = !value.contains(['\'', '\\', '\n', '\r', '\0']) && !value.contains("${");
            is_safe.then_some(written)
        }
        Quotes::Double => {
            written.push('"');
            for character in value.chars() {
                match character {
                    '\n' => written.push_str("\\n"),
                    '"' | '\\' | '$' | '`' | '\r' | '\0' => return None,
                    other => written.push(other),
                }
            }
            written.push('"');
            Some(written)
        }
        Quotes::Odd => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> Result<Option<String>, FieldError> {
        let value = Dotenv::new(text.as_bytes()).value(name)?;
        Ok(value.map(|value| value.expose().to_owned()))
    }

    #[test]
    fn values_are_read_as_all_readers_read_them() {
        for (line, expected) in [
            ("KEY=plain", "plain"),
            ("  export KEY = plain # comment", "plain"),
            ("KEY='a # b' # comment", "a # b"),
            ("KEY='$dollar'", "$dollar"),
            ("KEY=\"two\\nlines\"", "two\nlines"),
            ("KEY=\"two\nlines\"\r\n", "two\nlines"),
            ("KEY=", ""),
            ("KEY= # comment", ""),
            ("\u{feff}KEY=plain", "plain"),
            ("KEY=a b", "a b"),
            ("KEY=cost$", "cost$"),
        ] {
            assert_eq!(value(line, "KEY"), Ok(Some(expected.to_owned())), "{line}");
        }
        for line in ["# KEY=x", "OTHER=KEY=x", "KEY", "KEYS=x", "exportKEY=x", "KEY: x"] {
            assert_eq!(value(line, "KEY"), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for line in [
            "KEY=a#b",
            "KEY=#b",
            "KEY=a$b",
            "KEY=\"$b\"",
            "KEY='${b}'",
            "KEY=a\\b",
            "KEY='a\\'b'",
            "KEY=\"a\\tb\"",
            "KEY=\"open",
            "KEY='a' b",
            "KEY=`a`",
            "KEY=a\"b",
        ] {
            assert!(matches!(value(line, "KEY"), Err(FieldError::Ambiguous { .. })), "{line}");
        }
        for text in [
            "KEY=a\nKEY=b",
            "KEY=a\nexport KEY=b",
            "OTHER=\"\nKEY=a\n\"\nKEY=b",
            "OTHER='\nKEY=a\n'",
        ] {
            assert_eq!(value(text, "KEY"), Err(FieldError::Twice("KEY".to_owned())), "{text}");
        }
    }

    fn put(text: &str, name: &str, new: &str) -> String {
        let mut dotenv = Dotenv::new(text.as_bytes());
        dotenv.put(name, new, "KEY").unwrap();
        String::from_utf8(dotenv.text().to_vec()).unwrap()
    }

    #[test]
    fn quoting_comments_and_line_ends_stay() {
        for (text, expected) in [
            ("A=1\r\nKEY=old\r\nB=2", "A=1\r\nKEY=new\r\nB=2"),
            ("export KEY = 'old' # why\n", "export KEY = 'new' # why\n"),
            ("KEY=\"old\nlines\"\nB=2\n", "KEY=\"new\"\nB=2\n"),
            ("KEY= # why", "KEY=new # why"),
            ("KEY=#why", "KEY=new"),
        ] {
            assert_eq!(put(text, "KEY", "new"), expected);
        }
        assert_eq!(put("KEY=old", "KEY", "a#(b"), "KEY='a#(b'");
        assert_eq!(put("KEY=old", "KEY", "a\nb"), "KEY=\"a\\nb\"");
        let mut dotenv = Dotenv::new(b"KEY=old");
        let unwritable = dotenv.put("KEY", "a'\"b", "KEY");
        assert_eq!(unwritable, Err(FieldError::Unwritable("KEY".to_owned())));
    }

    #[test]
    fn a_new_name_comes_directly_behind_its_neighbour() {
        assert_eq!(put("A=1\nKEY=old\nB=2\n", "OLD", "x"), "A=1\nKEY=old\nOLD=x\nB=2\n");
        assert_eq!(
            put("A=1\r\nexport KEY='old'", "OLD", "x"),
            "A=1\r\nexport KEY='old'\r\nexport OLD='x'"
        );
        let mut dotenv = Dotenv::new(b"A=1\n");
        assert_eq!(dotenv.put("OLD", "x", "KEY"), Err(FieldError::Missing("KEY".to_owned())));
    }
}
