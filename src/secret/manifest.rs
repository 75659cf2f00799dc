//! A Kubernetes Secret manifest, edited in place: only the lines of the values that change are rewritten.
//!
//! This is no YAML parser. It understands block mappings with one value a line, which is how such manifests are written, and refuses
//! every other notation of what it would have to change (flow mappings, block scalars, anchors, tags).

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::SecretText;
use super::fields::{FieldError, Fields, splice};
use super::scalar;

/// The text of a manifest, and which Secret in it is meant.
pub struct Manifest {
    text: Zeroizing<Vec<u8>>,
    object: Option<String>,
}

/// One value of the Secret.
struct Entry {
    section: Section,
    /// Where the line begins.
    line: usize,
    /// The key as it is written, quotes included.
    key: Range<usize>,
    /// The value as it is written, without a comment behind it.
    value: Range<usize>,
    /// Behind the line end.
    end: usize,
    /// Deeper lines follow: the value is not on this line alone.
    continues: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// `data`: base64.
    Data,
    /// `stringData`: text.
    StringData,
}

/// A key of the top level.
struct Block<'l> {
    key: String,
    /// What follows on its line, without a comment.
    value: String,
    /// What is indented below it.
    lines: &'l [Line],
}

/// One line without its line end.
struct Line {
    start: usize,
    /// Where its content ends.
    stop: usize,
    /// Behind the line end.
    end: usize,
    indent: usize,
}

impl Manifest {
    /// Takes the text of a manifest. `object` is the `metadata.name` of the Secret that is meant, where there are several.
    pub fn new(text: &[u8], object: Option<&str>) -> Self {
        Self {
            text: Zeroizing::new(text.to_vec()),
            object: object.map(str::to_owned),
        }
    }

    /// The values of the one Secret that is meant.
    fn entries(&self) -> Result<Vec<Entry>, FieldError> {
        let mut found: Option<Vec<Entry>> = None;
        for document in self.documents() {
            let Some(entries) = self.secret(&document)? else { continue };
            if found.replace(entries).is_some() {
                return Err(FieldError::Shape(
                    "it holds more than one Secret; say which with name = \"…\"",
                ));
            }
        }
        found.ok_or(FieldError::Shape(
            "it holds no Secret of that name (kind: Secret, with data: or stringData:)",
        ))
    }

    fn documents(&self) -> Vec<Vec<Line>> {
        let mut documents = vec![Vec::new()];
        let mut start = 0;
        while start < self.text.len() {
            let end = self.text[start..].iter().position(|byte| *byte == b'\n');
            let end = end.map_or(self.text.len(), |at| start + at + 1);
            let content = self.text[start..end].iter().rposition(|byte| !byte.is_ascii_whitespace());
            let stop = content.map_or(start, |at| start + at + 1);
            let indent = self.text[start..stop].iter().take_while(|byte| **byte == b' ').count();
            let line = &self.text[start..stop];
            if line == b"---" || line.starts_with(b"--- ") {
                documents.push(Vec::new());
            } else if stop > start && line[indent] != b'#' {
                let lines = documents.last_mut();
                lines.into_iter().for_each(|lines| {
                    lines.push(Line {
                        start,
                        stop,
                        end,
                        indent,
                    })
                });
            }
            start = end;
        }
        documents
    }

    /// The entries of a document, if it is the Secret that is meant.
    fn secret(&self, lines: &[Line]) -> Result<Option<Vec<Entry>>, FieldError> {
        let blocks = self.blocks(lines);
        let is_secret = blocks
            .iter()
            .any(|block| block.key == "kind" && scalar::unquoted(&block.value) == "Secret");
        let is_named = match &self.object {
            None => true,
            Some(object) => self.name_of(&blocks).is_some_and(|name| name == *object),
        };
        if !(is_secret && is_named) {
            return Ok(None);
        }
        let is_sealed = |block: &Block<'_>| block.key == "sops" || (block.key == "immutable" && block.value == "true");
        if blocks.iter().any(is_sealed) {
            return Err(FieldError::Shape(
                "the Secret is immutable or encrypted by SOPS; change its source instead",
            ));
        }
        let mut entries = Vec::new();
        for block in &blocks {
            let section = match block.key.as_str() {
                "data" => Section::Data,
                "stringData" => Section::StringData,
                _ => continue,
            };
            if !block.value.is_empty() {
                return Err(FieldError::Shape("data or stringData is not written as one value a line"));
            }
            entries.extend(self.mapping(block.lines, section)?);
        }
        Ok(Some(entries))
    }

    /// The top level of a document: each key with what is on its line and below it.
    fn blocks<'l>(&self, lines: &'l [Line]) -> Vec<Block<'l>> {
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let head = &lines[at];
            let below = lines[at + 1..].iter().take_while(|line| line.indent > 0).count();
            let content = String::from_utf8_lossy(&self.text[head.start..head.stop]).into_owned();
            let (key, value) = content.split_once(':').unwrap_or((&content, ""));
            blocks.push(Block {
                key: key.trim().to_owned(),
                value: scalar::without_comment(value.trim()).to_owned(),
                lines: &lines[at + 1..at + 1 + below],
            });
            at += 1 + below;
        }
        blocks
    }

    fn name_of(&self, blocks: &[Block<'_>]) -> Option<String> {
        let metadata = blocks.iter().find(|block| block.key == "metadata")?;
        let depth = metadata.lines.first()?.indent;
        let content = |line: &Line| String::from_utf8_lossy(&self.text[line.start + line.indent..line.stop]).into_owned();
        let direct = metadata.lines.iter().filter(|line| line.indent == depth);
        let name = direct
            .map(content)
            .find_map(|line| Some(line.strip_prefix("name:")?.trim().to_owned()))?;
        Some(scalar::unquoted(scalar::without_comment(&name)).to_owned())
    }

    /// The direct children of a block.
    fn mapping(&self, block: &[Line], section: Section) -> Result<Vec<Entry>, FieldError> {
        let mut entries: Vec<Entry> = Vec::new();
        let depth = block.first().map_or(0, |line| line.indent);
        for line in block {
            if line.indent > depth {
                if let Some(entry) = entries.last_mut() {
                    entry.continues = true;
                }
                continue;
            }
            let content = &self.text[line.start + line.indent..line.stop];
            let text = std::str::from_utf8(content).map_err(|_| FieldError::Shape("it is not UTF-8"))?;
            let colon = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1));
            let Some(colon) = colon else {
                return Err(FieldError::Shape("a line below data or stringData is not KEY: VALUE"));
            };
            let begin = line.start + line.indent;
            let written = &text[colon + 1..];
            let blanks = written.len() - written.trim_start().len();
            let value = scalar::without_comment(written.trim_start());
            let from = begin + colon + 1 + blanks;
            entries.push(Entry {
                section,
                line: line.start,
                key: begin..begin + text[..colon].trim_end().len(),
                value: from..from + value.len(),
                end: line.end,
                continues: false,
            });
        }
        Ok(entries)
    }

    fn key(&self, entry: &Entry) -> String {
        let written = String::from_utf8_lossy(&self.text[entry.key.clone()]).into_owned();
        scalar::unquoted(&written).to_owned()
    }

    fn find(&self, name: &str) -> Result<Option<Entry>, FieldError> {
        let mut found = self.entries()?.into_iter().filter(|entry| self.key(entry) == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(FieldError::Twice(name.to_owned())),
            (entry, None) => Ok(entry),
        }
    }
}

impl Fields for Manifest {
    fn value(&self, name: &str) -> Result<Option<SecretText>, FieldError> {
        let Some(entry) = self.find(name)? else { return Ok(None) };
        let ambiguous = |why| FieldError::Ambiguous {
            name: name.to_owned(),
            why,
        };
        check_notation(&self.text, &entry).map_err(ambiguous)?;
        let written = std::str::from_utf8(&self.text[entry.value.clone()]).map_err(|_| ambiguous("it is not UTF-8"))?;
        let text = scalar::read(written).map_err(ambiguous)?;
        if entry.section == Section::StringData {
            return Ok(Some(SecretText::from(text)));
        }
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| ambiguous("it is not base64"))?;
        let decoded = String::from_utf8(bytes).map_err(|_| ambiguous("it is not UTF-8"))?;
        Ok(Some(SecretText::new(decoded)))
    }

    fn put(&mut self, name: &str, value: &str, after: &str) -> Result<(), FieldError> {
        if let Some(entry) = self.find(name)? {
            check_notation(&self.text, &entry).map_err(|why| FieldError::Ambiguous {
                name: name.to_owned(),
                why,
            })?;
            let written = write(value, entry.section);
            let before = self.text[entry.value.start - 1];
            let blank: &[u8] = if before == b':' { b" " } else { b"" };
            let written = Zeroizing::new([blank, written.as_bytes()].concat());
            splice(&mut self.text, entry.value, &written);
            return Ok(());
        }
        let neighbour = self.find(after)?.ok_or_else(|| FieldError::Missing(after.to_owned()))?;
        if neighbour.continues {
            return Err(FieldError::Shape("the value is not on one line"));
        }
        let written = write(value, neighbour.section);
        let eol: &[u8] = if self.text[..neighbour.end].ends_with(b"\r\n") {
            b"\r\n"
        } else {
            b"\n"
        };
        let mut line = Zeroizing::new(Vec::with_capacity(written.len() + name.len() + 80));
        let is_ended = self.text[..neighbour.end].ends_with(b"\n");
        if !is_ended {
            line.extend_from_slice(eol);
        }
        line.extend_from_slice(&self.text[neighbour.line..neighbour.key.start]);
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b": ");
        line.extend_from_slice(written.as_bytes());
        if is_ended {
            line.extend_from_slice(eol);
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

fn check_notation(text: &[u8], entry: &Entry) -> Result<(), &'static str> {
    let begins = text[entry.value.clone()].first();
    if entry.continues || matches!(begins, Some(b'|' | b'>' | b'&' | b'*' | b'!' | b'{' | b'[')) {
        return Err("it is not a plain or quoted value on one line");
    }
    Ok(())
}

fn write(value: &str, section: Section) -> Zeroizing<String> {
    match section {
        Section::Data => scalar::quoted(&Zeroizing::new(STANDARD.encode(value))),
        Section::StringData => scalar::quoted(value),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
# application
apiVersion: v1
kind: Secret
metadata:
  name: app
stringData:
  SECRET_KEY: 'it''s old' # rotated by hand
  \"OTHER\": |
    two
    lines
data:
  TOKEN: b2xk
---
kind: ConfigMap
data:
  SECRET_KEY: not-this-one
";

    #[test]
    fn values_are_read_from_both_sections() {
        let manifest = Manifest::new(MANIFEST.as_bytes(), None);
        assert_eq!(manifest.value("SECRET_KEY").unwrap().unwrap().expose(), "it's old");
        assert_eq!(manifest.value("TOKEN").unwrap().unwrap().expose(), "old");
        assert!(manifest.value("MISSING").unwrap().is_none());
        assert!(matches!(manifest.value("OTHER"), Err(FieldError::Ambiguous { .. })));
    }

    #[test]
    fn only_the_lines_of_the_values_change() {
        let mut manifest = Manifest::new(MANIFEST.as_bytes(), Some("app"));
        manifest.put("SECRET_KEY", "new\n\"", "SECRET_KEY").unwrap();
        manifest.put("TOKEN", "new", "TOKEN").unwrap();
        manifest.put("TOKEN_OLD", "old", "TOKEN").unwrap();
        let expected = MANIFEST
            .replace("'it''s old' #", "\"new\\n\\\"\" #")
            .replace("  TOKEN: b2xk\n", "  TOKEN: \"bmV3\"\n  TOKEN_OLD: \"b2xk\"\n");
        assert_eq!(std::str::from_utf8(manifest.text()).unwrap(), expected);
    }

    #[test]
    fn other_notations_and_ambiguities_are_refused() {
        let read = |text: &str| Manifest::new(text.as_bytes(), None).value("A").map(|value| value.is_some());
        let secret = |body: &str| read(&format!("kind: Secret\n{body}"));
        assert_eq!(
            secret("data:\n  A: eA==\nstringData:\n  A: x\n"),
            Err(FieldError::Twice("A".to_owned()))
        );
        assert!(matches!(secret("data: {A: eA==}\n"), Err(FieldError::Shape(_))));
        assert!(matches!(
            secret("data:\n  A: eA==\nsops:\n  mac: x\n"),
            Err(FieldError::Shape(_))
        ));
        for value in ["&a eA==", "*a", "!!binary eA==", "[a]", "%%"] {
            assert!(
                matches!(secret(&format!("data:\n  A: {value}\n")), Err(FieldError::Ambiguous { .. })),
                "{value}"
            );
        }
        assert!(matches!(read("kind: ConfigMap\ndata:\n  A: x\n"), Err(FieldError::Shape(_))));
        let two = "kind: Secret\ndata:\n  A: eA==\n---\nkind: Secret\ndata:\n  A: eA==\n";
        assert!(matches!(read(two), Err(FieldError::Shape(_))));
    }
}
