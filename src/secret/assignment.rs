//! Where the assignments of an env file are, and how each is quoted.

use std::ops::Range;

/// One assignment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Where the line begins.
    pub(super) line: usize,
    /// The name.
    pub(super) name: Range<usize>,
    /// The value, with its quotes.
    pub(super) value: Range<usize>,
    pub(super) quotes: Quotes,
    /// Behind the line end.
    pub(super) end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    None,
    Single,
    Double,
    /// A quote that opens and does not close, text behind the closing one, or backticks.
    Odd,
}

/// The assignment whose line begins at `line`, if it is one.
pub(super) fn assignment_at(text: &[u8], line: usize) -> Option<Assignment> {
    let end = line_end(text, line);
    let stop = text[line..end]
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(line, |last| line + last + 1);
    let mut at = skip_blanks(text, line, stop);
    if line == 0 && text.starts_with(BYTE_ORDER_MARK) {
        at = skip_blanks(text, 3, stop);
    }
    if text[at..stop].starts_with(b"export") {
        let behind = skip_blanks(text, at + 6, stop);
        if behind > at + 6 {
            at = behind;
        }
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let name = at..at + text[at..stop].iter().take_while(|byte| is_name(byte)).count();
    let equals = skip_blanks(text, name.end, stop);
    if name.is_empty() || text.get(equals) != Some(&b'=') || equals >= stop {
        return None;
    }
    let start = skip_blanks(text, equals + 1, stop);
    let assignment = |value: Range<usize>, quotes, end| {
        Some(Assignment {
            line,
            name: name.clone(),
            value,
            quotes,
            end,
        })
    };
    match text[start..stop].first() {
        Some(&quote @ (b'\'' | b'"')) => {
            let quotes = if quote == b'"' { Quotes::Double } else { Quotes::Single };
            let Some(close) = closing_quote(text, start, quote) else {
                return assignment(start..stop, Quotes::Odd, end);
            };
            let last = line_end(text, close);
            let behind = skip_blanks(text, close + 1, last);
            match text.get(behind) {
                None | Some(b'\n' | b'\r' | b'#') => assignment(start..close + 1, quotes, last),
                Some(_) => assignment(start..stop, Quotes::Odd, end),
            }
        }
        Some(b'`') => assignment(start..stop, Quotes::Odd, end),
        _ => {
            let value = unquoted(text, start, stop);
            // The place of an empty value is directly behind the equals sign: `NAME= # comment`.
            let value = if value.is_empty() { equals + 1..equals + 1 } else { value };
            assignment(value, Quotes::None, end)
        }
    }
}

/// Up to a comment, which has a blank before it, without blanks at the end.
fn unquoted(text: &[u8], start: usize, stop: usize) -> Range<usize> {
    let is_blank = |at: usize| matches!(text[at], b' ' | b'\t');
    let comment = (start..stop).find(|&at| text[at] == b'#' && is_blank(at - 1));
    let mut end = comment.unwrap_or(stop);
    while end > start && is_blank(end - 1) {
        end -= 1;
    }
    start..end
}

fn closing_quote(text: &[u8], open: usize, quote: u8) -> Option<usize> {
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at),
            _ => at += 1,
        }
    }
    None
}

fn skip_blanks(text: &[u8], from: usize, stop: usize) -> usize {
    let stop = stop.max(from);
    from + text[from..stop]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count()
}

/// Behind the line end of the line that holds `at`.
pub(super) fn line_end(text: &[u8], at: usize) -> usize {
    let rest = text[at..].iter().position(|byte| *byte == b'\n');
    rest.map_or(text.len(), |rest| at + rest + 1)
}

/// Some editors begin UTF-8 files with it.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
