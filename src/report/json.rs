//! The data itself, for programs.

use serde::Serialize;

use super::plain::pretty;
use super::rehearsal::Rehearsal;

/// Makes the document.
pub fn json(rehearsal: &Rehearsal) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        #[serde(flatten)]
        rehearsal: &'a Rehearsal,
    }
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, pretty());
    let document = Document {
        schema: "reseal.drill-report/1",
        rehearsal,
    };
    document.serialize(&mut writer)?;
    text.push(b'\n');
    // serde_json writes UTF-8 alone; what it did not is replaced, never trusted.
    Ok(String::from_utf8_lossy(&text).into_owned())
}
