//! Rust source cut into words: identifiers and single punctuation characters, without comments and literals.

use std::iter::Peekable;
use std::str::Chars;

/// An identifier, `::`, or one other character.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// What is written.
    pub text: String,
    /// On which line, counted from 1.
    pub line: usize,
}

/// The words of `source`. A literal leaves one word `""`.
pub fn words(source: &str) -> Vec<Word> {
    let mut cutter = Cutter {
        rest: source.chars().peekable(),
        line: 1,
    };
    let mut words: Vec<Word> = Vec::new();
    while let Some(first) = cutter.next() {
        let line = cutter.line;
        let text = match first {
            _ if first.is_whitespace() => continue,
            '/' if cutter.eat('/') => {
                while cutter.rest.peek().is_some_and(|&c| c != '\n') {
                    cutter.next();
                }
                continue;
            }
            '/' if cutter.eat('*') => {
                cutter.block_comment();
                continue;
            }
            '"' => cutter.string(),
            '\'' => cutter.character_or_lifetime(),
            ':' if cutter.eat(':') => "::".to_owned(),
            _ if is_identifier(first) => match cutter.identifier(first) {
                prefix if matches!(&*prefix, "r" | "br" | "cr") && cutter.raw_string() => "\"\"".to_owned(),
                identifier => identifier,
            },
            _ => first.to_string(),
        };
        words.push(Word { text, line });
    }
    words
}

struct Cutter<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Cutter<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn identifier(&mut self, first: char) -> String {
        let mut text = first.to_string();
        while let Some(next) = self.rest.next_if(|&c| is_identifier(c)) {
            text.push(next);
        }
        text
    }

    /// After `/*`; block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some('/') if self.eat('*') => depth += 1,
                Some('*') if self.eat('/') => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// After the opening quote.
    fn string(&mut self) -> String {
        while let Some(next) = self.next() {
            match next {
                '\\' => drop(self.next()),
                '"' => break,
                _ => {}
            }
        }
        "\"\"".to_owned()
    }

    /// After `r`: whether a raw string followed, which is then consumed. `r#name` is an identifier.
    fn raw_string(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        let hashes = std::iter::from_fn(|| ahead.next_if_eq(&'#')).count();
        if ahead.next() != Some('"') {
            return false;
        }
        for _ in 0..=hashes {
            self.next();
        }
        let end: String = "\"".chars().chain(std::iter::repeat_n('#', hashes)).collect();
        let mut tail = String::new();
        while let Some(next) = self.next() {
            tail.push(next);
            if tail.ends_with(&end) {
                break;
            }
        }
        true
    }

    /// After `'`: `'x'`, `'\n'`, `'\u{1f}'` are literals; `'a` is a lifetime, whose name follows as a word of its own.
    fn character_or_lifetime(&mut self) -> String {
        let mut ahead = self.rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('\\'), _) => {
                self.next();
                self.next();
                while self.next().is_some_and(|c| c != '\'') {}
            }
            (Some(_), Some('\'')) => {
                self.next();
                self.next();
            }
            _ => {}
        }
        "'".to_owned()
    }
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
