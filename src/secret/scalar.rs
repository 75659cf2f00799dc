//! How one value is written on a line of a manifest: plain, or in quotes.

use zeroize::Zeroizing;

/// Double quotes, with the escapes that JSON and YAML share: no text is mistaken for a number, a date or a truth value.
pub(super) fn quoted(value: &str) -> Zeroizing<String> {
    let mut written = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    written.push('"');
    for character in value.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            control if control.is_control() => written.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => written.push(other),
        }
    }
    written.push('"');
    written
}

/// The text of a plain or quoted value.
pub(super) fn read(written: &str) -> Result<Zeroizing<String>, &'static str> {
    if let Some(inner) = written.strip_prefix('\'') {
        let inner = inner.strip_suffix('\'').ok_or("its quotes do not match")?;
        let text = Zeroizing::new(inner.replace("''", "\u{0}"));
        if text.contains('\'') {
            return Err("its quotes do not match");
        }
        return Ok(Zeroizing::new(text.replace('\u{0}', "'")));
    }
    if written.starts_with('"') {
        // The escapes of JSON mean the same in YAML; others are refused.
        let text: Result<String, _> = serde_json::from_str(written);
        return text.map(Zeroizing::new).map_err(|_| "an escape that is not understood");
    }
    Ok(Zeroizing::new(written.to_owned()))
}

/// The value of a line without a comment behind it.
pub(super) fn without_comment(written: &str) -> &str {
    let bytes = written.as_bytes();
    let Some(&quote @ (b'"' | b'\'')) = bytes.first() else {
        if written.starts_with('#') {
            return "";
        }
        return written.find(" #").map_or(written, |at| written[..at].trim_end());
    };
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 2,
            // In single quotes a quote is written twice.
            b'\'' if quote == b'\'' && bytes.get(at + 1) == Some(&b'\'') => at += 2,
            byte if byte == quote => return &written[..=at],
            _ => at += 1,
        }
    }
    written
}

/// A name without its quotes.
pub(super) fn unquoted(written: &str) -> &str {
    let inner = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.or_else(|| written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')));
    inner.unwrap_or(written)
}
