//! All forms are made from the same data and say the same.

use reseal::report::{Rehearsal, Standing, Verdict, html, json, junit, markdown, sentence, terminal};
use roxmltree::Document;
use scraper::Html;

use super::example::{bad, good};

/// What a reader of each form reads, markup gone.
fn forms(rehearsal: &Rehearsal) -> Vec<(&'static str, String)> {
    let page = Html::parse_document(&html(rehearsal).unwrap());
    let xml = junit(rehearsal).unwrap();
    let document = Document::parse(&xml).unwrap();
    let mut read = String::new();
    for node in document.descendants() {
        read.extend(node.attributes().map(|attribute| format!("{}\n", attribute.value())));
        read.extend(node.text());
    }
    let written = pulldown_cmark::Parser::new_ext(&markdown(rehearsal), pulldown_cmark::Options::ENABLE_TABLES)
        .map(|event| match event {
            pulldown_cmark::Event::Text(text) | pulldown_cmark::Event::Code(text) => text.into_string(),
            pulldown_cmark::Event::End(_) => "\n".to_owned(),
            _ => String::new(),
        })
        .collect();
    vec![
        ("the page", page.root_element().text().collect()),
        ("JUnit", read),
        ("Markdown", written),
        ("the terminal", terminal(rehearsal)),
    ]
}

#[test]
fn every_finding_appears_in_every_form() {
    let rehearsal = bad();
    assert_eq!(rehearsal.findings.len(), 4);
    for (form, text) in forms(&rehearsal) {
        for finding in &rehearsal.findings {
            assert!(text.contains(&finding.sentence), "{form} does not say: {}", finding.sentence);
        }
    }
    let broken_off = Rehearsal::broken_off("drill", "the disk is full");
    for (form, text) in forms(&broken_off) {
        assert!(text.contains("the disk is full"), "{form}:\n{text}");
    }
}

#[test]
fn every_promise_appears_with_its_number_in_every_form() {
    for rehearsal in [good(), bad()] {
        for (form, text) in forms(&rehearsal) {
            for proof in &rehearsal.proofs {
                assert!(text.contains(&proof.promise), "{form}: {}", proof.promise);
                assert!(text.contains(&sentence::measured(proof)), "{form}: {}", proof.name);
                assert!(text.contains(&sentence::limit(proof)), "{form}: {}", proof.name);
            }
        }
    }
}

#[test]
fn numbers_of_traffic_keys_phases_faults_and_probes_agree() {
    let rehearsal = good();
    let during = rehearsal.reads.during.unwrap();
    let numbers = [
        sentence::count(during.operations.unwrap()),
        sentence::measure(during.latency_ms.p99),
        sentence::measure(rehearsal.writes.before.unwrap().latency_ms.max),
        format!("{:.2}×", rehearsal.reads.ratio.unwrap().p99),
        sentence::count(rehearsal.keys[0].values_before),
        sentence::count(rehearsal.keys[1].values_after),
        rehearsal.keys[1].key.clone(),
        rehearsal.probes[0].name.clone(),
    ];
    for (form, text) in forms(&rehearsal) {
        // JUnit carries them as the summary that it shows with the cases.
        for number in &numbers {
            assert!(text.contains(number), "{form} lacks {number}");
        }
        for fault in &rehearsal.faults {
            assert!(text.contains(&fault.outcome), "{form}: {}", fault.name);
            assert!(text.contains(&sentence::duration(fault.at_seconds)), "{form}: {}", fault.name);
        }
        for phase in &rehearsal.phases {
            assert!(text.contains(&phase.name), "{form}: {}", phase.name);
        }
    }
}

#[test]
fn the_seed_and_the_command_are_where_they_are_needed() {
    let rehearsal = bad();
    for (form, text) in forms(&rehearsal) {
        assert!(text.contains(&rehearsal.command), "{form}");
        assert!(text.contains(rehearsal.evidence.as_ref().unwrap()), "{form}");
    }
}

#[test]
fn json_is_the_data_itself() {
    for rehearsal in [good(), bad(), Rehearsal::broken_off("drill", "killed")] {
        let text = json(&rehearsal).unwrap();
        assert!(
            text.starts_with("{\n  \"schema\": \"reseal.drill-report/1\","),
            "{}",
            &text[..80]
        );
        let read: Rehearsal = serde_json::from_str(&text).unwrap();
        assert!(read == rehearsal, "JSON does not keep {}", rehearsal.title);
    }
}

#[test]
fn the_terminal_ends_with_the_verdict() {
    let last = |rehearsal: &Rehearsal| terminal(rehearsal).lines().last().unwrap().to_owned();
    assert_eq!(
        last(&good()),
        "Verdict: good. 9 of 10 promises held, 1 not tested. 331,204 reads and 24,302 writes went on all along. It took 2 min 11 s."
    );
    assert_eq!(
        last(&bad()),
        "Verdict: BAD. 3 of 10 promises did not hold. It took 2 min 11 s."
    );
    let mut broken_off = bad();
    broken_off.verdict = Verdict::BrokenOff;
    assert!(last(&broken_off).starts_with("Verdict: NONE."));
}

#[test]
fn the_terminal_tables_fit_a_window() {
    for line in terminal(&good()).lines().take_while(|line| !line.starts_with("Values")) {
        assert!(line.chars().count() <= 90, "{line}");
    }
}

#[test]
fn numbers_read_as_people_write_them() {
    let texts = [0.0, 0.004, 0.42, 7.5, 99.9, 131.2, 600.0, 3_600.0, 12_000.0].map(sentence::duration);
    assert_eq!(
        texts,
        [
            "0 s",
            "0.00 s",
            "0.42 s",
            "7.5 s",
            "99.9 s",
            "2 min 11 s",
            "10 min",
            "1 h",
            "3 h 20 min"
        ]
    );
    assert_eq!(
        [0, 999, 1_000, 1_234_567].map(sentence::count),
        ["0", "999", "1,000", "1,234,567"]
    );
    assert_eq!(
        [0.123, 9.87, 45.67, 4_812.4].map(sentence::measure),
        ["0.12", "9.87", "45.7", "4,812"]
    );
    assert_eq!(sentence::standing(Standing::Failed), "FAILED");
}
