//! The data: what follows from what was measured.

use reseal::report::{Finding, Limit, Proof, Standing, Unit, Verdict, Windows};

use super::example::{bad, good, traffic};

#[test]
fn a_proof_that_failed_makes_a_finding_and_a_bad_verdict() {
    let mut rehearsal = good();
    rehearsal.settle();
    assert_eq!((rehearsal.verdict, rehearsal.findings.len()), (Verdict::Good, 0));

    rehearsal.proofs.push(Proof::at_most(
        "p99-ratio",
        "reads stay as fast as they were",
        2.004,
        2.0,
        Unit::Times,
    ));
    rehearsal.settle();
    assert_eq!(rehearsal.verdict, Verdict::Bad);
    let sentences: Vec<&str> = rehearsal.findings.iter().map(|finding| finding.sentence.as_str()).collect();
    assert_eq!(
        sentences,
        ["2.004×, and at most 2.00× is allowed: reads stay as fast as they were"]
    );
    rehearsal.settle();
    assert_eq!(rehearsal.findings.len(), 1, "settled twice, told once");
}

#[test]
fn a_finding_of_the_rehearsal_speaks_for_its_proof() {
    let mut rehearsal = good();
    rehearsal
        .proofs
        .push(Proof::stated("resumed", "the killed rotation goes on", Standing::Failed));
    rehearsal.findings.push(Finding::new("resumed", "it began anew"));
    rehearsal.findings.push(Finding::new("no-traffic", "nobody came"));
    rehearsal.settle();
    assert_eq!(rehearsal.findings.len(), 2);
    let proof = rehearsal.proofs.last().unwrap();
    assert_eq!(rehearsal.findings_of(proof).next().unwrap().sentence, "it began anew");
    let others: Vec<&str> = rehearsal.other_findings().map(|finding| finding.name.as_str()).collect();
    assert_eq!(others, ["no-traffic"]);
}

#[test]
fn what_broke_off_stays_without_a_verdict() {
    let mut rehearsal = good();
    rehearsal.verdict = Verdict::BrokenOff;
    rehearsal.settle();
    assert_eq!(rehearsal.verdict, Verdict::BrokenOff);
}

#[test]
fn every_proof_that_failed_is_told() {
    let rehearsal = bad();
    assert_eq!(rehearsal.count(Standing::Failed), 3);
    for proof in rehearsal.proofs.iter().filter(|proof| proof.standing == Standing::Failed) {
        assert!(rehearsal.findings_of(proof).next().is_some(), "{}", proof.name);
    }
    assert_eq!(rehearsal.other_findings().count(), 1);
}

#[test]
fn limits_are_kept_at_their_bound_and_never_by_what_is_no_number() {
    for (limit, measured, expected) in [
        (Limit::AtMost(0.0), 0.0, Standing::Held),
        (Limit::AtMost(0.0), 1.0, Standing::Failed),
        (Limit::AtMost(2.0), f64::NAN, Standing::Failed),
        (Limit::AtLeast(5.0), 5.0, Standing::Held),
        (Limit::AtLeast(5.0), 4.0, Standing::Failed),
        (Limit::AtLeast(5.0), f64::NAN, Standing::Failed),
    ] {
        assert_eq!(limit.judge(measured), expected, "{limit:?} of {measured}");
    }
}

#[test]
fn the_ratio_compares_during_with_before() {
    let windows = Windows::new(400, 0, Some(traffic(100, 2.0)), Some(traffic(300, 5.0)), None);
    let ratio = windows.ratio.unwrap();
    assert_eq!((ratio.p50, ratio.p99, ratio.max), (2.5, 2.5, 2.5));
    assert_eq!(Windows::new(1, 0, None, Some(traffic(1, 1.0)), None).ratio, None);
    assert_eq!(
        Windows::new(2, 0, Some(traffic(1, 0.0)), Some(traffic(1, 1.0)), None).ratio,
        None,
        "nothing is so many times nothing"
    );
}
