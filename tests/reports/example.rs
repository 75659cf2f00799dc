//! A rehearsal as it might have been: two minutes, a rotation in the middle of them, four faults.

use reseal::report::{
    Activity, Fault, Finding, KeyCount, Percentiles, Phase, Point, Probe, Proof, Rehearsal, Series, Size, Standing, Traffic,
    Unit, Verdict, Version, Windows,
};

/// Everything held.
pub fn good() -> Rehearsal {
    let points = points();
    let zero = |name: &str, promise: &str| Proof::at_most(name, promise, 0.0, 0.0, Unit::Count);
    Rehearsal {
        title: "Rotation of 200000 customers under live traffic".to_owned(),
        verdict: Verdict::Good,
        findings: Vec::new(),
        proofs: vec![
            zero("failed-reads", "every read answered with what was written"),
            zero("failed-writes", "every write was accepted"),
            zero("lost-writes", "no confirmed write was lost"),
            zero("resurrected-rows", "no deleted row came back"),
            zero("values-under-old-key", "no value is left under the old key"),
            Proof::stated("not-resumed", "the killed rotation went on where it was", Standing::Held),
            Proof::at_most(
                "p99-ratio-reads",
                "reads stayed almost as fast as before (p99)",
                1.72,
                2.0,
                Unit::Times,
            ),
            Proof::at_most("duration", "the rotation was over in time", 71.4, 600.0, Unit::Seconds),
            Proof::at_least("reads", "there was traffic", 331_204.0, 1.0, Unit::Count),
            Proof::stated("sessions", "no session outlived the old key", Standing::NotTested),
        ],
        begun: "2026-03-14T02:11:07Z".to_owned(),
        elapsed_seconds: 131.27,
        database: "PostgreSQL 17.2, scratch schema reseal_drill_4f1c".to_owned(),
        versions: vec![version("reseal", "0.1.0"), version("PostgreSQL", "17.2")],
        seed: 7,
        command: "reseal drill --database env:DATABASE_URL --rows 200000 --readers 6 --writers 2 --duration 60 --seed 7"
            .to_owned(),
        sizes: vec![
            size("rows before", 200_000),
            size("rows after", 203_117),
            size("readers", 6),
            size("writers", 2),
        ],
        keys: vec![key("1733862004", "old", 551_208, 0), key("208113920", "new", 0, 560_013)],
        rows_per_second: Some(4_812.0),
        phases: phases(),
        faults: vec![
            fault(
                "kill -9 of the rotation",
                44.2,
                None,
                "run again, it went on after 81200 rows",
            ),
            fault(
                "SIGSTOP of reader-2",
                55.0,
                Some(61.0),
                "it went on reading when it was woken",
            ),
            fault(
                "connections of the rotation cut",
                70.4,
                None,
                "it connected again and lost no batch",
            ),
            fault(
                "kill -9 of writer-1",
                84.9,
                None,
                "started again by its supervisor after 0.4 s",
            ),
        ],
        reads: Windows::new(
            331_204,
            0,
            Some(traffic(84_213, 1.9)),
            Some(traffic(162_900, 3.3)),
            Some(traffic(84_091, 1.9)),
        ),
        writes: Windows::new(
            24_302,
            0,
            Some(traffic(6_004, 4.1)),
            Some(traffic(12_311, 7.9)),
            Some(traffic(5_987, 4.0)),
        ),
        series: Series {
            bucket_seconds: 0.5,
            points,
        },
        probes: vec![Probe {
            name: "curl --fail https://staging.example.org/health".to_owned(),
            runs: 118,
            failed: 0,
            first_failure_seconds: None,
            first_failure: None,
            longest_outage_seconds: Some(1.04),
        }],
        incidents: Vec::new(),
        evidence: None,
    }
}

/// Writes were lost, a reader lacked a key, and the service behind the probe noticed.
pub fn bad() -> Rehearsal {
    let mut rehearsal = good();
    let failed = [("failed-reads", 214.0), ("lost-writes", 3.0), ("p99-ratio-reads", 14.31)];
    for proof in &mut rehearsal.proofs {
        if let Some((_, measured)) = failed.iter().find(|(name, _)| *name == proof.name) {
            proof.measured = Some(*measured);
            proof.standing = Standing::Failed;
        }
    }
    rehearsal.findings = vec![
        Finding::new(
            "failed-reads",
            "214 reads failed: a value under key 208113920, which the instance did not have: a key was promoted before every instance had it, or an instance does not follow its keyring",
        ),
        Finding::new(
            "lost-writes",
            "3 writes that the database had confirmed were lost: somebody wrote older values over them, or removed their rows",
        ),
        Finding::new(
            "probe",
            "the probe curl --fail https://staging.example.org/health failed 9 times of 118",
        ),
    ];
    for point in &mut rehearsal.series.points {
        if (58.0..61.0).contains(&point.begin_seconds) {
            point.failed = 30 + (point.begin_seconds * 10.0) as u64 % 13;
            point.reads.operations = point.failed + 40;
            point.writes = Activity::default();
            if let Some(latency) = &mut point.reads.latency_ms {
                latency.p99 = rounded(latency.p99 * 40.0);
                latency.max = rounded(latency.max * 60.0);
            }
        }
    }
    rehearsal.reads.failed = 214;
    rehearsal.probes[0].failed = 9;
    rehearsal.probes[0].first_failure_seconds = Some(58.3);
    rehearsal.probes[0].first_failure = Some("exit 22: curl: (22) The requested URL returned error: 503".to_owned());
    rehearsal.probes[0].longest_outage_seconds = Some(8.9);
    rehearsal.faults[1].survived = false;
    rehearsal.incidents = (0..12)
        .map(|at| {
            format!(
                "read of row {}: a value under key 208113920, which the instance did not have",
                1200 + 7 * at
            )
        })
        .collect();
    rehearsal.evidence = Some("/tmp/reseal-drill-Zk3x".to_owned());
    rehearsal.settle();
    rehearsal
}

/// Operations that all took about as long.
pub fn traffic(operations: u64, p50: f64) -> Traffic {
    Traffic {
        operations: Some(operations),
        per_second: Some(rounded(operations as f64 / 30.0)),
        latency_ms: percentiles(p50),
        longest_pause_ms: Some(rounded(p50 * 6.0)),
    }
}

fn percentiles(p50: f64) -> Percentiles {
    Percentiles {
        p50,
        p99: rounded(p50 * 4.5),
        max: rounded(p50 * 21.0),
    }
}

fn phases() -> Vec<Phase> {
    let begins = [
        ("prepare", 0.0),
        ("before", 7.9),
        ("introduce", 38.0),
        ("promote", 39.1),
        ("re-encrypt", 40.2),
        ("sweep", 86.0),
        ("verify", 92.5),
        ("retire", 96.1),
        ("after", 97.0),
        ("check", 127.0),
    ];
    let ends = begins.iter().skip(1).map(|(_, begin)| *begin).chain([131.27]);
    let phase = |((name, begin_seconds), end_seconds): (&(&str, f64), f64)| Phase {
        name: (*name).to_owned(),
        begin_seconds: *begin_seconds,
        end_seconds,
    };
    begins.iter().zip(ends).map(phase).collect()
}

/// Busy between 40 and 96 s; nobody is served for a moment after each fault.
fn points() -> Vec<Point> {
    let point = |at: u32| {
        let begin_seconds = 8.0 + f64::from(at) * 0.5;
        // Repeats itself without being regular.
        let noise = |salt: u32| f64::from((at * at * 31 + at * salt * 7919 + salt * 104_729) % 997) / 997.0;
        let load = if (40.0..96.0).contains(&begin_seconds) { 1.7 } else { 1.0 };
        let hiccup = [44.0, 70.0, 84.5]
            .iter()
            .any(|fault| (*fault..*fault + 1.0).contains(&begin_seconds));
        let strain = if hiccup { 9.0 } else { 1.0 };
        let activity = |salt: u32, rate: f64, base: f64| {
            let p50 = base * load * (0.9 + 0.2 * noise(salt));
            let p99 = p50 * (3.0 + 3.0 * noise(salt + 1)) * strain;
            Activity {
                operations: (rate / 2.0 * (0.9 + 0.2 * noise(salt + 2)) / strain.sqrt()) as u64,
                latency_ms: Some(Percentiles {
                    p50: rounded(p50),
                    p99: rounded(p99),
                    max: rounded(p99 * (1.2 + 4.0 * noise(salt + 3))),
                }),
            }
        };
        Point {
            begin_seconds,
            reads: activity(1, 2800.0, 1.2),
            writes: activity(5, 200.0, 2.6),
            failed: 0,
        }
    };
    (0..238).map(point).collect()
}

fn fault(name: &str, at_seconds: f64, until_seconds: Option<f64>, outcome: &str) -> Fault {
    Fault {
        name: name.to_owned(),
        at_seconds,
        until_seconds,
        outcome: outcome.to_owned(),
        survived: true,
    }
}

fn version(name: &str, version: &str) -> Version {
    Version {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn size(name: &str, count: u64) -> Size {
    Size {
        name: name.to_owned(),
        count,
    }
}

fn key(key: &str, role: &str, values_before: u64, values_after: u64) -> KeyCount {
    KeyCount {
        key: key.to_owned(),
        role: role.to_owned(),
        values_before,
        values_after,
    }
}

/// To microseconds, as a measurement is.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
