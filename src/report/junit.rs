//! JUnit XML: one test case for each promise and each probe, and one for each finding that belongs to neither; phases with their time.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::plain::plain;
use super::proof::{Proof, Standing};
use super::rehearsal::{Finding, Probe, Rehearsal, Verdict, Version};
use super::{sentence, terminal};

/// Makes the document.
pub fn junit(rehearsal: &Rehearsal) -> Result<String, SerializeError> {
    let r = plain(rehearsal);
    let mut report = Report::new("reseal drill");
    report.set_time(time(r.elapsed_seconds));
    report.add_test_suites([promises(&r), phases(&r)]);
    report.to_string()
}

fn promises(r: &Rehearsal) -> TestSuite {
    let mut suite = TestSuite::new("reseal drill");
    suite.set_time(time(r.elapsed_seconds));
    let facts = [
        ("title", r.title.clone()),
        ("begun", r.begun.clone()),
        ("database", r.database.clone()),
        ("seed", r.seed.to_string()),
        ("command", r.command.clone()),
    ];
    suite.add_properties(facts.map(|(name, value)| Property::new(name, value)));
    let version = |version: &Version| Property::new(format!("version of {}", version.name), version.version.as_str());
    suite.add_properties(r.versions.iter().map(version));
    suite.add_test_case(end(r));
    suite.add_test_cases(r.proofs.iter().map(|proof| promise(r, proof)));
    suite.add_test_cases(r.probes.iter().map(|it| probe(r, it)));
    let is_told =
        |finding: &&Finding| r.verdict == Verdict::BrokenOff || r.probes.iter().any(|probe| speaks_of(finding, probe));
    let others = r.other_findings().filter(|finding| !is_told(finding));
    suite.add_test_cases(others.map(|finding| case(&finding.name, &finding.name, failure(&finding.name, &finding.sentence))));
    suite.set_system_out(terminal(r));
    suite
}

/// A rehearsal that broke off is an error, which is something else than a failure: nobody knows what would have held.
fn end(r: &Rehearsal) -> TestCase {
    let status = if r.verdict == Verdict::BrokenOff {
        let why: Vec<&str> = r.findings.iter().map(|finding| finding.sentence.as_str()).collect();
        not_passed(NonSuccessKind::Error, "broken-off", &why.join("; "))
    } else {
        TestCaseStatus::success()
    };
    case("end", "the rehearsal came to its end", status)
}

fn promise(r: &Rehearsal, proof: &Proof) -> TestCase {
    let status = match proof.standing {
        Standing::Held => TestCaseStatus::success(),
        Standing::Failed => {
            let told: Vec<&str> = r.findings_of(proof).map(|finding| finding.sentence.as_str()).collect();
            match told[..] {
                [] => failure(&proof.name, &sentence::shortfall(proof)),
                _ => failure(&proof.name, &told.join("; ")),
            }
        }
        Standing::NotTested => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message("not tested");
            skipped
        }
    };
    let mut case = case(&proof.name, &proof.promise, status);
    if proof.measured.is_some() {
        case.set_system_out(format!(
            "measured {}, limit {}",
            sentence::measured(proof),
            sentence::limit(proof)
        ));
    }
    case
}

fn probe(r: &Rehearsal, probe: &Probe) -> TestCase {
    let told = r.findings.iter().filter(|finding| speaks_of(finding, probe));
    let mut why: Vec<String> = told.map(|finding| finding.sentence.clone()).collect();
    // One that never ran proves nothing.
    if probe.failed > 0 || probe.runs == 0 {
        why.push(format!(
            "failed {} times of {}",
            sentence::count(probe.failed),
            sentence::count(probe.runs)
        ));
        why.extend(
            probe
                .first_failure
                .as_ref()
                .map(|said| format!("the first time it said: {said}")),
        );
    }
    let status = if why.is_empty() {
        TestCaseStatus::success()
    } else {
        failure("probe", &why.join("; "))
    };
    case("probe", &probe.name, status)
}

/// Whether a finding about a probe is about this one.
fn speaks_of(finding: &Finding, probe: &Probe) -> bool {
    finding.name.starts_with("probe") && finding.sentence.contains(&probe.name)
}

fn phases(r: &Rehearsal) -> TestSuite {
    let mut suite = TestSuite::new("reseal drill: phases");
    for phase in &r.phases {
        let mut case = case("phase", &phase.name, TestCaseStatus::success());
        case.set_time(time(phase.end_seconds - phase.begin_seconds));
        suite.add_test_case(case);
    }
    suite
}

fn case(class: &str, name: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(format!("reseal.drill.{class}"));
    case
}

fn failure(kind: &str, why: &str) -> TestCaseStatus {
    not_passed(NonSuccessKind::Failure, kind, why)
}

fn not_passed(kind: NonSuccessKind, name: &str, why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    // Some readers show the one, some the other.
    status.set_type(name).set_message(why).set_description(why);
    status
}

/// What is no time takes none.
fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}
