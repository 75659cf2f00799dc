//! The one place that writes to the terminal: people read standard error, programs read JSON on standard output.
//!
//! Whatever came from outside (names, paths, errors of servers) may hold control characters; they are escaped here, so that no
//! command has to think of it.

use std::io::{self, Write};

use serde::Serialize;

use super::{CliError, Exit};
use crate::report::{compact, escaped};

/// Where output goes. Tests give their own writers.
pub struct Output<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    stdout_is_terminal: bool,
    json: bool,
}

impl<'a> Output<'a> {
    /// Output for people until [`use_json`](Self::use_json) says otherwise.
    pub fn new(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write, stdout_is_terminal: bool) -> Self {
        Self {
            stdout,
            stderr,
            stdout_is_terminal,
            json: false,
        }
    }

    /// Whether a program reads along: one JSON document on standard output.
    pub fn use_json(&mut self, json: bool) {
        self.json = json;
    }

    /// Whether a program reads along.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether standard output is a terminal, where no secret belongs.
    pub fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Says something to a person. Line ends stay, other control characters are escaped.
    pub fn say(&mut self, text: &str) {
        for line in text.lines() {
            // Nobody is left to tell when standard error is gone, and the work must not stop for it.
            let _ = writeln!(self.stderr, "{}", escaped(line));
        }
    }

    /// Says something that came from a trusted renderer, colours included: help and usage.
    pub fn say_rendered(&mut self, text: &str) {
        let _ = write!(self.stderr, "{text}");
    }

    /// Prints help or the version, which were asked for, on standard output.
    pub fn print_rendered(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }

    /// Prints the one JSON document of this run, if a program reads along. Its first field is `"schema"`.
    pub fn document(&mut self, schema: &str, body: &impl Serialize) -> Result<(), CliError> {
        self.print(schema, body)
            .map_err(|error| unprinted(Exit::Unusable, &error).durable("what this command did; standard error tells it"))
    }

    /// The same for a run that ends with `exit`, which speaks of values and keys. A document that cannot be printed changes nothing about
    /// them: people are told, and the exit code stands.
    pub fn outcome(&mut self, schema: &str, body: &impl Serialize, exit: Exit) -> Exit {
        if let Err(error) = self.print(schema, body) {
            let code = exit.code();
            let error = unprinted(exit, &error)
                .durable(format!(
                    "what this run did, as told above; exit code {code} speaks of that alone"
                ))
                .next("make room for standard output; reseal verify --json counts the values again");
            self.say(&error.text());
        }
        exit
    }

    fn print(&mut self, schema: &str, body: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let document = Document { schema, body };
        let mut writer = serde_json::Serializer::with_formatter(&mut *self.stdout, compact());
        document.serialize(&mut writer)?;
        self.stdout.write_all(b"\n")?;
        self.stdout.flush()
    }

    /// Writes bytes that were asked for as they are. The caller has made sure that they may go there.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)?;
        self.stdout.flush()
    }
}

/// Says a line to people from wherever the program is: a task, a panic. Nobody may be left to hear it, and the work goes on all the same.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{}", escaped(line));
}

fn unprinted(exit: Exit, error: &io::Error) -> CliError {
    CliError::new(
        exit,
        format!("the JSON document could not be written to standard output: {error}"),
    )
}

#[derive(Serialize)]
struct Document<'a, T: Serialize> {
    schema: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::is_deceptive;

    const HOSTILE: &str = "a\u{1b}[2Jb\u{202e}c\rd\u{9b}31m\u{200b}é";

    #[test]
    fn people_see_escapes_instead_of_control_characters() {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        Output::new(&mut stdout, &mut stderr, false).say(&format!("{HOSTILE}\nsecond line"));
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(said, "a\\u{1b}[2Jb\\u{202e}c\\u{d}d\\u{9b}31m\\u{200b}é\nsecond line\n");
        assert!(stdout.is_empty());
    }

    #[test]
    fn json_is_valid_complete_and_harmless_on_a_terminal() {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = Output::new(&mut stdout, &mut stderr, true);
        output
            .document("reseal.test/1", &serde_json::json!({ "name": HOSTILE }))
            .unwrap();
        output.use_json(true);
        output
            .document("reseal.test/1", &serde_json::json!({ "name": HOSTILE }))
            .unwrap();
        let text = String::from_utf8(stdout).unwrap();
        assert!(text.starts_with(r#"{"schema":"reseal.test/1","#), "{text}");
        assert!(!text.trim_end().chars().any(is_deceptive), "{text:?}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["name"], HOSTILE);
    }
}
