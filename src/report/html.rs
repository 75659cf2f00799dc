//! The page: one file that needs nothing else, neither scripts nor a network.

use askama::Template;

use super::plain::plain;
use super::plot::{Figure, figures};
use super::proof::Standing;
use super::rehearsal::{Rehearsal, Verdict};
use super::sentence;
use super::table::{self, FactRow, FaultRow, KeyRow, PhaseRow, ProbeRow, ProofRow, TrafficTable};

/// Makes the page.
pub fn html(rehearsal: &Rehearsal) -> Result<String, askama::Error> {
    let rehearsal = plain(rehearsal);
    Page {
        css: include_str!("page.css"),
        word: sentence::word(rehearsal.verdict),
        class: match rehearsal.verdict {
            Verdict::Good => "good",
            Verdict::Bad => "bad",
            Verdict::BrokenOff => "open",
        },
        sentence: sentence::verdict(&rehearsal),
        elapsed: sentence::duration(rehearsal.elapsed_seconds),
        proofs: table::proofs(&rehearsal),
        keys: table::keys(&rehearsal),
        traffic: table::traffic(&rehearsal),
        phases: table::phases(&rehearsal),
        faults: table::faults(&rehearsal),
        probes: table::probes(&rehearsal),
        facts: table::facts(&rehearsal),
        figures: figures(&rehearsal),
        r: &rehearsal,
    }
    .render()
}

#[derive(Template)]
#[template(path = "page.html", config = "src/report/askama.toml")]
struct Page<'a> {
    r: &'a Rehearsal,
    css: &'static str,
    word: &'static str,
    class: &'static str,
    sentence: String,
    elapsed: String,
    proofs: Vec<ProofRow>,
    keys: Vec<KeyRow>,
    traffic: TrafficTable,
    phases: Vec<PhaseRow>,
    faults: Vec<FaultRow>,
    probes: Vec<ProbeRow>,
    facts: Vec<FactRow>,
    figures: Vec<Figure>,
}

impl ProofRow {
    fn class(&self) -> &'static str {
        match self.outcome {
            Standing::Held => "good",
            Standing::Failed => "bad",
            Standing::NotTested => "open",
        }
    }
}
