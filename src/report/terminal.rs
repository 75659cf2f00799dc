//! The summary on a terminal. The verdict comes last: it is what stands on the screen when the rest has scrolled away.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::plain::plain;
use super::proof::Standing;
use super::rehearsal::{Rehearsal, Verdict};
use super::{sentence, table};

/// Makes the summary, without a line end after its last line.
pub fn terminal(rehearsal: &Rehearsal) -> String {
    let r = &plain(rehearsal);
    let mut blocks = Vec::new();
    blocks.extend(proofs(r));
    blocks.extend(traffic(r));
    blocks.push(events(r).join("\n"));
    blocks.push(answer(r).join("\n"));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n")
}

fn proofs(r: &Rehearsal) -> Option<String> {
    let mut grid = grid(&["", "must hold", "measured", "limit", ""], 2);
    for proof in table::proofs(r) {
        let sign = match proof.outcome {
            Standing::Held => "✓",
            Standing::Failed => "✗",
            Standing::NotTested => "–",
        };
        // What held needs no second word.
        let standing = if proof.outcome == Standing::Held { "" } else { proof.standing };
        grid.add_row([
            Cell::new(sign),
            Cell::new(proof.promise),
            number(proof.measured),
            number(proof.limit),
            Cell::new(standing),
        ]);
    }
    (!r.proofs.is_empty()).then(|| grid.trim_fmt())
}

fn traffic(r: &Rehearsal) -> Option<String> {
    let table::TrafficTable { columns, rows } = table::traffic(r);
    let header: Vec<&str> = std::iter::once("  milliseconds").chain(columns).collect();
    let mut grid = grid(&header, 1);
    let is_empty = rows.is_empty();
    for row in rows {
        let name = Cell::new(format!("  {}", row.name));
        grid.add_row(std::iter::once(name).chain(row.cells.into_iter().map(number)));
    }
    (!is_empty).then(|| grid.trim_fmt())
}

fn events(r: &Rehearsal) -> Vec<String> {
    let mut lines = Vec::new();
    for key in table::keys(r) {
        lines.push(format!(
            "Values under the key {}: {} before, {} after.",
            key.name, key.before, key.after
        ));
    }
    let phases: Vec<String> = table::phases(r)
        .into_iter()
        .map(|phase| format!("{} {}", phase.name, phase.time))
        .collect();
    if !phases.is_empty() {
        lines.push(format!("Phases: {}.", phases.join(", ")));
    }
    for fault in table::faults(r) {
        let not = if fault.survived { "" } else { "NOT SURVIVED: " };
        lines.push(format!("Fault: {} at {}: {not}{}.", fault.name, fault.time, fault.outcome));
    }
    for probe in table::probes(r) {
        let failure = if probe.failure.is_empty() {
            String::new()
        } else {
            format!("; first {}", probe.failure)
        };
        lines.push(format!(
            "Probe: {}: {} runs, {} failed{failure}.",
            probe.name, probe.runs, probe.failed
        ));
    }
    lines
}

fn answer(r: &Rehearsal) -> Vec<String> {
    let mut lines: Vec<String> = r
        .findings
        .iter()
        .map(|finding| format!("FAILED: {}.", finding.sentence))
        .collect();
    lines.extend(r.evidence.as_ref().map(|folder| format!("Kept: {folder}")));
    if r.verdict != Verdict::Good {
        lines.push(format!("Repeat: {}", r.command));
    }
    let word = match r.verdict {
        Verdict::Good => "good",
        Verdict::Bad => "BAD",
        Verdict::BrokenOff => "NONE",
    };
    let took = sentence::duration(r.elapsed_seconds);
    lines.push(format!("Verdict: {word}. {} It took {took}.", sentence::verdict(r)));
    lines
}

/// A table whose first columns are text; the others are numbers.
fn grid(header: &[&str], texts: usize) -> Table {
    let mut grid = Table::new();
    grid.load_style(presets::NOTHING);
    let name = |(at, name): (usize, &&str)| {
        if at < texts {
            Cell::new(name)
        } else {
            number((*name).to_owned())
        }
    };
    grid.set_header(header.iter().enumerate().map(name));
    grid
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
