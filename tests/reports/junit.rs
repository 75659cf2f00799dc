//! JUnit XML, as Jenkins, GitLab and the readers for GitHub take it.

use reseal::report::{Finding, Rehearsal, Standing, Verdict, junit};
use roxmltree::{Document, Node};

use super::example::{bad, good};

fn cases<'a>(document: &'a Document<'a>) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name("testcase")).collect()
}

fn child<'a>(node: &Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn number(node: &Node<'_, '_>, attribute: &str) -> usize {
    node.attribute(attribute).unwrap().parse().unwrap()
}

#[test]
fn the_structure_is_the_common_one_and_the_counts_are_right() {
    for rehearsal in [good(), bad(), Rehearsal::broken_off("drill", "killed")] {
        let text = junit(&rehearsal).unwrap();
        let document = Document::parse(&text).unwrap();
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        let suites: Vec<Node> = root.children().filter(Node::is_element).collect();
        assert!(suites.iter().all(|suite| suite.has_tag_name("testsuite")));
        for suite in &suites {
            let cases: Vec<Node> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
            let with = |name: &str| cases.iter().filter(|case| child(case, name).is_some()).count();
            assert_eq!(number(suite, "tests"), cases.len());
            assert_eq!(number(suite, "failures"), with("failure"));
            assert_eq!(number(suite, "errors"), with("error"));
            for case in &cases {
                assert!(!case.attribute("name").unwrap().is_empty());
                assert!(case.attribute("classname").unwrap().starts_with("reseal.drill."));
                let results = ["failure", "error", "skipped"];
                let outcomes = case.children().filter(|child| results.contains(&child.tag_name().name()));
                assert!(outcomes.count() <= 1);
            }
        }
    }
}

#[test]
fn a_failed_proof_is_a_failed_case_and_only_that() {
    let rehearsal = bad();
    let text = junit(&rehearsal).unwrap();
    let document = Document::parse(&text).unwrap();
    for proof in &rehearsal.proofs {
        let cases: Vec<Node> = cases(&document)
            .into_iter()
            .filter(|case| case.attribute("name") == Some(&proof.promise))
            .collect();
        assert_eq!(cases.len(), 1, "{}", proof.name);
        let failure = child(&cases[0], "failure");
        assert_eq!(failure.is_some(), proof.standing == Standing::Failed, "{}", proof.name);
        assert_eq!(
            child(&cases[0], "skipped").is_some(),
            proof.standing == Standing::NotTested,
            "{}",
            proof.name
        );
        if let Some(failure) = failure {
            let told = &rehearsal.findings_of(proof).next().unwrap().sentence;
            assert_eq!(failure.attribute("message"), Some(told.as_str()));
            assert_eq!(failure.attribute("type"), Some(proof.name.as_str()));
        }
    }
}

#[test]
fn a_finding_without_a_proof_fails_a_case_of_its_own() {
    let mut rehearsal = good();
    rehearsal
        .findings
        .push(Finding::new("not-killed", "it ended before it could be killed"));
    rehearsal.settle();
    let text = junit(&rehearsal).unwrap();
    let document = Document::parse(&text).unwrap();
    let failed: Vec<Node> = cases(&document)
        .into_iter()
        .filter(|case| child(case, "failure").is_some())
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].attribute("name"), Some("not-killed"));
}

#[test]
fn a_probe_that_failed_or_never_ran_is_a_failed_case() {
    for (runs, failed, is_good) in [(118, 0, true), (118, 9, false), (0, 0, false)] {
        let mut rehearsal = good();
        rehearsal.probes[0].runs = runs;
        rehearsal.probes[0].failed = failed;
        let text = junit(&rehearsal).unwrap();
        let document = Document::parse(&text).unwrap();
        let name = rehearsal.probes[0].name.as_str();
        let case = cases(&document)
            .into_iter()
            .find(|case| case.attribute("name") == Some(name))
            .unwrap();
        assert_eq!(child(&case, "failure").is_none(), is_good, "{failed} of {runs}");
    }
}

#[test]
fn a_rehearsal_that_broke_off_is_an_error_not_a_pass() {
    let text = junit(&Rehearsal::broken_off("drill", "the disk is full")).unwrap();
    let document = Document::parse(&text).unwrap();
    let case = cases(&document)[0];
    assert_eq!(child(&case, "error").unwrap().attribute("message"), Some("the disk is full"));
    assert_eq!(number(&document.root_element(), "errors"), 1);

    let mut rehearsal = good();
    assert_eq!(rehearsal.verdict, Verdict::Good);
    rehearsal.proofs.clear();
    let text = junit(&rehearsal).unwrap();
    assert!(!text.contains("<error"), "{text}");
}

#[test]
fn phases_have_their_time() {
    let text = junit(&good()).unwrap();
    let document = Document::parse(&text).unwrap();
    let time = |name: &str| -> f64 {
        let phase = cases(&document)
            .into_iter()
            .find(|case| case.attribute("classname") == Some("reseal.drill.phase") && case.attribute("name") == Some(name));
        phase.unwrap().attribute("time").unwrap().parse().unwrap()
    };
    assert!((time("re-encrypt") - 45.8).abs() < 0.001);
    assert!((time("prepare") - 7.9).abs() < 0.001);
}
