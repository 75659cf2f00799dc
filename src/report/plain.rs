//! Text from outside (names, paths, errors of servers, output of probes) may hold characters that move the cursor, change colours,
//! reorder or hide other text. Every form shows their code points instead.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::rehearsal::{Rehearsal, Version};

/// `text` with every character escaped that could move the cursor, change colours, reorder or hide text.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_deceptive) {
        Cow::Owned(
            text.chars()
                .map(|c| {
                    if is_deceptive(c) {
                        c.escape_unicode().to_string()
                    } else {
                        c.into()
                    }
                })
                .collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a character does something to the text around it instead of standing for itself.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        // Neither characters of XML nor of anything else.
        || matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff)
}

/// The same rehearsal, every text of it [escaped].
pub fn plain(rehearsal: &Rehearsal) -> Rehearsal {
    let mut plain = rehearsal.clone();
    let Rehearsal {
        title,
        verdict: _,
        findings,
        proofs,
        begun,
        elapsed_seconds: _,
        database,
        versions,
        seed: _,
        command,
        sizes,
        keys,
        rows_per_second: _,
        phases,
        faults,
        reads: _,
        writes: _,
        series: _,
        probes,
        incidents,
        evidence,
    } = &mut plain;
    let mut texts: Vec<&mut String> = vec![title, begun, database, command];
    texts.extend(
        findings
            .iter_mut()
            .flat_map(|finding| [&mut finding.name, &mut finding.sentence]),
    );
    texts.extend(proofs.iter_mut().flat_map(|proof| [&mut proof.name, &mut proof.promise]));
    texts.extend(versions.iter_mut().flat_map(|Version { name, version }| [name, version]));
    texts.extend(sizes.iter_mut().map(|size| &mut size.name));
    texts.extend(keys.iter_mut().flat_map(|key| [&mut key.key, &mut key.role]));
    texts.extend(phases.iter_mut().map(|phase| &mut phase.name));
    texts.extend(faults.iter_mut().flat_map(|fault| [&mut fault.name, &mut fault.outcome]));
    texts.extend(
        probes
            .iter_mut()
            .flat_map(|probe| std::iter::once(&mut probe.name).chain(&mut probe.first_failure)),
    );
    texts.extend(incidents);
    texts.extend(evidence);
    for text in texts {
        if let Cow::Owned(escaped) = escaped(text) {
            *text = escaped;
        }
    }
    plain
}

/// Writes JSON on one line, deceptive characters as `\u` escapes: valid JSON that is safe on a terminal, too.
pub fn compact() -> impl Formatter {
    Escaping(CompactFormatter)
}

/// The same over many lines, for a file that people open.
pub fn pretty() -> impl Formatter {
    Escaping(PrettyFormatter::new())
}

struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_deceptive(*c)) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}
