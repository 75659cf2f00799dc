//! Associated data: what binds a value to its place, so that a value moved to another row or column does not open.
//!
//! Two kinds of template:
//!
//! - `auto:<logical name>` is Reseal's own encoding: a label, the name, and every column of the primary key, each with its type and its
//!   length. It is injective: two different places never give the same bytes. Take a name that survives renaming the table
//!   (`customers.email`, with the tenant or database in front if several share a keyset).
//! - Anything else is text with columns in braces, `customers.email:{id}`, for applications that already do it so. `{{` and `}}` are
//!   braces. It is exactly as injective as it is written: `{a}{b}` gives `("ab", "c")` and `("a", "bc")` the same bytes, and the number 1
//!   is the text "1". Separate columns by a character that their values cannot contain.

/// Types of components, as the encoding writes them. They are part of every sealed value's binding: never renumber.
pub mod tag {
    /// No value: distinct from every empty one.
    pub const NULL: u8 = 0;
    /// Decimal, without leading zeros.
    pub const INTEGER: u8 = 1;
    /// UTF-8 as stored.
    pub const TEXT: u8 = 2;
    /// Lower-case hexadecimal.
    pub const BYTES: u8 = 3;
    /// Lower-case, with hyphens.
    pub const UUID: u8 = 4;
    /// RFC 3339 in UTC with microseconds.
    pub const TIMESTAMP: u8 = 5;
}

/// The value of one column: its type, and its canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component<'a> {
    /// One of [`tag`].
    pub tag: u8,
    /// The canonical text; nothing for NULL.
    pub bytes: &'a [u8],
}

/// Why a template is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without its `}`.
    #[error("`{{` at character {0} is never closed; write `{{{{` for a brace")]
    Unclosed(usize),
    /// `}` without its `{`.
    #[error("`}}` at character {0} closes nothing; write `}}}}` for a brace")]
    Unopened(usize),
    /// `{}`, or a brace inside braces.
    #[error("no column name between the braces at character {0}")]
    NoColumn(usize),
    /// `auto:` without a name.
    #[error("`auto:` wants a logical name that survives renaming the table, such as `auto:customers.email`")]
    NoName,
    /// `auto:` binds the primary key, and the table has none.
    #[error("`auto:` binds a value to its primary key, and the table has none")]
    NoPrimaryKey,
}

/// A free template met NULL, which it cannot tell from an empty text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{0}` of the associated data is NULL")]
pub struct NullColumn(pub String);

/// A parsed template, bound to the columns of a table: renders the associated data of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociatedData {
    columns: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Auto { name: String },
    Free { parts: Vec<Part> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// An index into `columns`.
    Column(usize),
}

impl AssociatedData {
    /// None at all: what formats without associated data have, and applications that bind nothing.
    pub fn none() -> Self {
        Self {
            columns: Vec::new(),
            kind: Kind::Free { parts: Vec::new() },
        }
    }

    /// Parses `template`; `primary_key` names the columns that `auto:` binds, in the order of the key.
    pub fn parse<S: AsRef<str>>(template: &str, primary_key: &[S]) -> Result<Self, TemplateError> {
        match template.strip_prefix(AUTO) {
            Some("") => Err(TemplateError::NoName),
            Some(_) if primary_key.is_empty() => Err(TemplateError::NoPrimaryKey),
            Some(name) => Ok(Self {
                columns: primary_key.iter().map(|column| column.as_ref().to_owned()).collect(),
                kind: Kind::Auto { name: name.to_owned() },
            }),
            None => parse_free(template),
        }
    }

    /// The columns whose values [`render`](Self::render) asks for, by their position here; each once.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether two different places always give different bytes.
    pub fn is_injective(&self) -> bool {
        matches!(self.kind, Kind::Auto { .. })
    }

    /// Appends the associated data of one value to `out`; `column` gives the value of the n-th of [`columns`](Self::columns).
    /// On an error `out` is as it was.
    pub fn render<'a>(&self, column: impl Fn(usize) -> Component<'a>, out: &mut Vec<u8>) -> Result<(), NullColumn> {
        match &self.kind {
            Kind::Auto { name } => {
                out.extend_from_slice(LABEL);
                append(NAME, name.as_bytes(), out);
                for index in 0..self.columns.len() {
                    let Component { tag, bytes } = column(index);
                    append(tag, bytes, out);
                }
            }
            Kind::Free { parts } => {
                let start = out.len();
                for part in parts {
                    match part {
                        Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                        &Part::Column(index) => match column(index) {
                            Component { tag: tag::NULL, .. } => {
                                out.truncate(start);
                                return Err(NullColumn(self.columns[index].clone()));
                            }
                            Component { bytes, .. } => out.extend_from_slice(bytes),
                        },
                    }
                }
            }
        }
        Ok(())
    }
}

/// `type(1) ‖ length(8, big-endian) ‖ bytes`: a reader could take the sequence apart again, so that no two sequences are alike.
fn append(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn parse_free(template: &str) -> Result<AssociatedData, TemplateError> {
    let mut columns: Vec<String> = Vec::new();
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut characters = template.chars().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        let doubled = characters.peek().is_some_and(|&(_, next)| next == character);
        match character {
            '{' | '}' if doubled => {
                characters.next();
                literal.push(character);
            }
            '{' => {
                let column: String = characters.by_ref().map(|(_, c)| c).take_while(|&c| c != '}').collect();
                // `take_while` also swallows the brace that ends it: without one, the name runs to the end of the template.
                let end = at + column.chars().count() + 1;
                if template.chars().nth(end) != Some('}') {
                    return Err(TemplateError::Unclosed(at));
                }
                if column.is_empty() || column.contains('{') {
                    return Err(TemplateError::NoColumn(at));
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let index = columns.iter().position(|known| *known == column).unwrap_or(columns.len());
                if index == columns.len() {
                    columns.push(column);
                }
                parts.push(Part::Column(index));
            }
            '}' => return Err(TemplateError::Unopened(at)),
            other => literal.push(other),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(AssociatedData {
        columns,
        kind: Kind::Free { parts },
    })
}

const AUTO: &str = "auto:";
/// Sets this encoding apart from every other use of associated data, and from its own successors.
const LABEL: &[u8] = b"reseal associated data 1";
/// The type of the logical name; no column has it.
const NAME: u8 = 0xff;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tag::{INTEGER, NULL, TEXT};

    fn rendered(template: &str, columns: &[(&str, u8, &str)]) -> Result<Vec<u8>, NullColumn> {
        let keys: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        let parsed = AssociatedData::parse(template, &keys).unwrap();
        let mut out = b"kept".to_vec();
        let done = parsed.render(
            |index| {
                let (_, tag, text) = columns.iter().find(|(name, ..)| *name == parsed.columns()[index]).unwrap();
                Component {
                    tag: *tag,
                    bytes: text.as_bytes(),
                }
            },
            &mut out,
        );
        assert!(out.starts_with(b"kept") && (done.is_ok() || out.len() == 4));
        done.map(|()| out.split_off(4))
    }

    #[test]
    fn free_templates_render_as_written() {
        let row = [("id", INTEGER, "42"), ("tenant", TEXT, "żó"), ("gone", NULL, "")];
        let text = |template| rendered(template, &row).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text("customers.email:{id}").unwrap(), "customers.email:42");
        assert_eq!(text("{tenant}/{id}/{tenant}").unwrap(), "żó/42/żó");
        assert_eq!(text("{{{id}}}").unwrap(), "{42}");
        assert_eq!(text("{{id}}").unwrap(), "{id}");
        assert_eq!(text("constant").unwrap(), "constant");
        assert_eq!(text("").unwrap(), "");
        assert_eq!(text("x{id}{gone}"), Err(NullColumn("gone".to_owned())));
    }

    #[test]
    fn columns_are_asked_for_once() {
        let parsed = AssociatedData::parse::<&str>("{b}{a}{b}", &[]).unwrap();
        assert_eq!(parsed.columns(), ["b", "a"]);
        assert!(!parsed.is_injective());
        assert!(AssociatedData::none().columns().is_empty());
    }

    #[test]
    fn broken_templates_say_where() {
        let error = |template| AssociatedData::parse(template, &["id"]).unwrap_err();
        assert_eq!(error("a{id"), TemplateError::Unclosed(1));
        assert_eq!(error("ż{"), TemplateError::Unclosed(1));
        assert_eq!(error("a}b"), TemplateError::Unopened(1));
        assert_eq!(error("a{}"), TemplateError::NoColumn(1));
        assert_eq!(error("{a{b}"), TemplateError::NoColumn(0));
        assert_eq!(error("auto:"), TemplateError::NoName);
        assert_eq!(
            AssociatedData::parse::<&str>("auto:x", &[]).unwrap_err(),
            TemplateError::NoPrimaryKey
        );
        assert_eq!(
            error("a{id").to_string(),
            "`{` at character 1 is never closed; write `{{` for a brace"
        );
    }

    /// Frozen: values in databases are bound to these bytes.
    #[test]
    fn the_native_encoding_never_changes() {
        let bytes = rendered("auto:customers.email", &[("id", INTEGER, "42"), ("tenant", TEXT, "a")]).unwrap();
        let expected = b"reseal associated data 1\
            \xff\0\0\0\0\0\0\0\x0fcustomers.email\
            \x01\0\0\0\0\0\0\0\x0242\
            \x02\0\0\0\0\0\0\0\x01a";
        assert_eq!(bytes, expected);
    }

    /// Short strings over few characters, so that splits and shifts of the same text come up often.
    fn place() -> impl Strategy<Value = (String, Vec<(u8, String)>)> {
        ("[ab]{1,3}", prop::collection::vec((0u8..3, "[ab\0\u{1}]{0,3}"), 1..4))
    }

    fn native((name, key): &(String, Vec<(u8, String)>)) -> Vec<u8> {
        let columns: Vec<String> = (0..key.len()).map(|n| n.to_string()).collect();
        let parsed = AssociatedData::parse(&format!("auto:{name}"), &columns).unwrap();
        let mut out = Vec::new();
        let component = |index: usize| Component {
            tag: key[index].0,
            bytes: key[index].1.as_bytes(),
        };
        parsed.render(component, &mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 50_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_native_encoding_is_injective(one in place(), other in place()) {
            prop_assert_eq!(one == other, native(&one) == native(&other));
        }
    }

    /// Every place of a small world, so that every pair of them is compared: some two hundred million.
    #[test]
    fn no_two_small_places_share_an_encoding() {
        let texts = ["", "a", "b", "\0", "aa", "ab", "\0a", "a\0", "\u{1}"];
        let columns: Vec<_> = [NULL, INTEGER, TEXT]
            .into_iter()
            .flat_map(|tag| texts.map(|text| (tag, text.to_owned())))
            .collect();
        let mut keys: Vec<Vec<(u8, String)>> = columns.iter().map(|one| vec![one.clone()]).collect();
        for one in &columns {
            keys.extend(columns.iter().map(|other| vec![one.clone(), other.clone()]));
            let pairs = columns
                .iter()
                .flat_map(|two| columns.iter().step_by(4).map(move |three| [two.clone(), three.clone()]));
            keys.extend(pairs.map(|[two, three]| vec![one.clone(), two, three]));
        }
        let places: Vec<_> = ["a", "b", "ab", "aa"]
            .into_iter()
            .flat_map(|name| keys.iter().map(move |key| (name.to_owned(), key.clone())))
            .collect();
        let distinct: std::collections::HashSet<_> = places.iter().map(native).collect();
        assert!(places.len() > 20_000);
        assert_eq!(distinct.len(), places.len());
    }

    #[test]
    fn what_free_templates_confuse_the_native_encoding_tells_apart() {
        let pairs = [
            ([("a", TEXT, "ab"), ("b", TEXT, "c")], [("a", TEXT, "a"), ("b", TEXT, "bc")]),
            ([("a", INTEGER, "1"), ("b", TEXT, "")], [("a", TEXT, "1"), ("b", TEXT, "")]),
        ];
        for (one, other) in pairs {
            assert_eq!(rendered("{a}{b}", &one), rendered("{a}{b}", &other));
            assert_ne!(rendered("auto:t", &one), rendered("auto:t", &other));
        }
        assert_ne!(rendered("auto:t", &[("a", NULL, "")]), rendered("auto:t", &[("a", TEXT, "")]));
    }
}
