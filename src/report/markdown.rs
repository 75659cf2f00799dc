//! Markdown for a pull request or a job summary: the verdict and the proofs at a glance, the rest folded.
//!
//! Texts may hold anything. They are written so that no reader of Markdown (CommonMark, GitHub, GitLab) finds markup, a link, a mention
//! of a person or an issue in them.

use std::fmt::Write as _;

use super::plain::plain;
use super::proof::Standing;
use super::rehearsal::{Rehearsal, Verdict};
use super::sentence;
use super::table;

/// Makes the document.
pub fn markdown(rehearsal: &Rehearsal) -> String {
    let r = &plain(rehearsal);
    let mut out = Document(String::new());
    let sign = match r.verdict {
        Verdict::Good => "✅",
        Verdict::Bad => "❌",
        Verdict::BrokenOff => "⚠️",
    };
    out.block(&format!("## {sign} {}: {}", sentence::word(r.verdict), text(&r.title)));
    out.block(&format!("**{}**", text(&sentence::verdict(r))));
    let findings = r
        .findings
        .iter()
        .map(|finding| format!("- {} ({})", text(&finding.sentence), code(&finding.name)));
    out.lines(findings);
    let proofs = table::proofs(r).into_iter().map(|proof| {
        let sign = match proof.outcome {
            Standing::Held => "✅",
            Standing::Failed => "❌",
            Standing::NotTested => "➖",
        };
        vec![
            proof.promise,
            proof.measured,
            proof.limit,
            format!("{sign} {}", proof.standing),
        ]
    });
    out.table(&[">Must hold", "measured", "limit", ">outcome"], proofs);
    let keys = table::keys(r).into_iter().map(|key| vec![key.name, key.before, key.after]);
    out.table(&[">Values under each key", "before", "after"], keys);
    let probes = table::probes(r)
        .into_iter()
        .map(|probe| vec![probe.name, probe.runs, probe.failed, probe.outage, probe.failure]);
    out.table(&[">Probe", "runs", "failed", "longest outage", ">first failure"], probes);

    let traffic = table::traffic(r);
    out.folded(
        "Reads and writes around the rotation (milliseconds)",
        !traffic.rows.is_empty(),
        |out| {
            let header: Vec<&str> = std::iter::once(">").chain(traffic.columns.iter().copied()).collect();
            let row = |row: table::TrafficRow| std::iter::once(row.name).chain(row.cells).collect();
            out.table(&header, traffic.rows.into_iter().map(row));
        },
    );
    out.folded("Phases and faults", !(r.phases.is_empty() && r.faults.is_empty()), |out| {
        let phases = table::phases(r)
            .into_iter()
            .map(|phase| vec![phase.name, phase.begin, phase.time]);
        out.table(&[">Phase", "begins at", "takes"], phases);
        let faults = table::faults(r).into_iter().map(|fault| {
            let survived = if fault.survived { "" } else { "not survived: " };
            vec![
                fault.number.to_string(),
                fault.name,
                fault.time,
                format!("{survived}{}", fault.outcome),
            ]
        });
        out.table(&["No.", ">Fault", "at", ">what came of it"], faults);
    });
    out.folded("Single failures", !r.incidents.is_empty(), |out| {
        out.lines(r.incidents.iter().map(|incident| format!("- {}", text(incident))));
    });
    out.folded("Repeat it", true, |out| {
        out.block(&fenced(&r.command));
        if let Some(evidence) = &r.evidence {
            out.block(&format!("Database, logs and keyring were kept in {}.", code(evidence)));
        }
        let facts = table::facts(r).into_iter().map(|fact| vec![fact.name, fact.value]);
        out.table(&[">About this rehearsal", ">"], facts);
    });
    out.0
}

/// Blocks with an empty line between them.
struct Document(String);

impl Document {
    fn block(&mut self, block: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(block);
        self.0.push('\n');
    }

    fn lines(&mut self, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() {
            self.block(&lines.join("\n"));
        }
    }

    /// Columns whose header begins with `>` hold text, the others numbers.
    fn table(&mut self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        let names = line(&mut header.iter().map(|name| name.trim_start_matches('>').to_owned()));
        let align = line(
            &mut header
                .iter()
                .map(|name| if name.starts_with('>') { ":---" } else { "---:" }.to_owned()),
        );
        let rows = rows.map(|row| line(&mut row.iter().map(|cell| text(cell))));
        self.lines([names, align].into_iter().chain(rows));
    }

    fn folded(&mut self, summary: &str, is_shown: bool, fill: impl FnOnce(&mut Self)) {
        if is_shown {
            self.block(&format!("<details><summary>{summary}</summary>"));
            fill(self);
            self.block("</details>");
        }
    }
}

/// Text that stands for itself, in a paragraph as in a cell of a table.
fn text(plain: &str) -> String {
    let mut out = String::with_capacity(plain.len());
    let mut rest = plain.trim();
    while let Some(c) = rest.chars().next() {
        let linked: usize = linked_prefix(rest);
        if linked > 0 {
            // Alone in a code span it refers to nobody and nothing.
            let _ = write!(out, "`{}`", &rest[..linked]);
            rest = &rest[linked..];
            continue;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // The cells of a table are cut before anything else is read.
            '|' => out.push_str("&#124;"),
            c if c.is_ascii_punctuation() && !",;%/'\"=".contains(c) => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// How many of the first bytes begin a mention, a reference or an address that readers make a link of by themselves.
fn linked_prefix(text: &str) -> usize {
    let mut length = 0;
    while let Some(token) = LINKED.iter().find(|token| starts_with(&text[length..], token)) {
        length += token.len();
    }
    length
}

fn starts_with(text: &str, token: &str) -> bool {
    text.get(..token.len()).is_some_and(|start| start.eq_ignore_ascii_case(token))
}

/// A code span.
fn code(plain: &str) -> String {
    let fence = "`".repeat(longest_run(plain) + 1);
    format!("{fence} {} {fence}", plain.trim())
}

/// A code block of one line.
fn fenced(plain: &str) -> String {
    let fence = "`".repeat((longest_run(plain) + 1).max(3));
    format!("{fence}sh\n{plain}\n{fence}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// What makes a link of the text around it.
const LINKED: [&str; 9] = ["@", "#", "!", "$", "~", "://", "www.", "mailto:", "xmpp:"];
