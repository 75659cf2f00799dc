//! The files that a drill writes.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use reseal::report::{Rehearsal, Standing, Verdict};
use roxmltree::Document;
use serde_json::Value;

use crate::support::{reseal_process, tempdir};

const SMALL: [&str; 9] = ["drill", "--rows", "3000", "--readers", "2", "--writers", "1", "--seed", "7"];

#[test]
fn heavy_a_drill_writes_its_reports_and_they_agree_with_its_document() {
    let folder = tempdir();
    let (reports, junit) = (folder.path().join("reports"), folder.path().join("drill.xml"));
    let output = reseal_process()
        .args(SMALL)
        .args(["--duration", "1", "--json", "--report"])
        .arg(&reports)
        .arg("--junit")
        .arg(&junit)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Report: "), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();

    let text = fs::read_to_string(reports.join("report.json")).unwrap();
    let told: Rehearsal = serde_json::from_str(&text).unwrap();
    assert_eq!(told.verdict, Verdict::Good);
    assert_eq!(told.reads.operations, document["reads"].as_u64().unwrap());
    assert_eq!(told.writes.operations, document["writes"].as_u64().unwrap());
    assert_eq!(told.seed, 7);
    assert!(
        told.command.starts_with("reseal drill --rows 3000 ") && told.command.ends_with(" --seed 7"),
        "{}",
        told.command
    );
    assert_eq!(told.phases.len(), document["phases"].as_array().unwrap().len());
    assert_eq!(told.keys.len(), 2);
    assert_eq!((told.keys[0].values_after, told.keys[1].values_before), (0, 0));
    assert!(told.proofs.len() > 8);
    for proof in &told.proofs {
        assert_eq!(proof.standing, Standing::Held, "{}", proof.name);
    }

    let page = fs::read_to_string(reports.join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<p class=\"word\">Good</p>"));
    assert!(
        fs::read_to_string(reports.join("report.md"))
            .unwrap()
            .starts_with("## ✅ Good: ")
    );
    let xml = fs::read_to_string(&junit).unwrap();
    let parsed = Document::parse(&xml).unwrap();
    let root = parsed.root_element();
    assert_eq!((root.attribute("failures"), root.attribute("errors")), (Some("0"), Some("0")));
    let cases = parsed.descendants().filter(|node| node.has_tag_name("testcase")).count();
    assert_eq!(cases, 1 + told.proofs.len() + told.phases.len());
}

#[test]
fn heavy_a_drill_that_is_killed_leaves_no_verdict_instead_of_the_one_before() {
    let folder = tempdir();
    let (reports, junit) = (folder.path().join("reports"), folder.path().join("drill.xml"));
    fs::create_dir(&reports).unwrap();
    fs::write(reports.join("report.json"), "the good report of yesterday").unwrap();
    let mut drill = reseal_process()
        .args(SMALL)
        .args(["--duration", "600", "--report"])
        .arg(&reports)
        .arg("--junit")
        .arg(&junit)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..6000 {
        if junit.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drill.kill().unwrap();
    drill.wait().unwrap();
    let told: Rehearsal = serde_json::from_str(&fs::read_to_string(reports.join("report.json")).unwrap()).unwrap();
    assert_eq!(told.verdict, Verdict::BrokenOff);
    let xml = fs::read_to_string(&junit).unwrap();
    let parsed = Document::parse(&xml).unwrap();
    assert_eq!(parsed.root_element().attribute("errors"), Some("1"));
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_the_drill_begins() {
    let folder = tempdir();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for arguments in [["--report", "file/reports"], ["--junit", "missing/drill.xml"]] {
        let output = reseal_process()
            .args(SMALL)
            .args(["--duration", "600"])
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("--report and --junit"), "{said}");
        assert!(!said.contains("prepare"), "{said}");
    }
}
