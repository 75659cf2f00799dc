//! Broken on purpose, a rotation gets a bad verdict and the right sentence. A release build cannot be broken in this way.
#![cfg(debug_assertions)]

use std::fs;
use std::time::Duration;

use reseal::drill::{Cancel, Report, Sabotage, Settings, Verdict, run};
use reseal::rotation::profile::Profile;

use super::settings;
use crate::support::{Database, postgres};

/// A small drill with something broken.
fn sabotaged(sabotage: Sabotage) -> Report {
    sabotaged_on(None, sabotage)
}

fn sabotaged_on(database: Option<&Database>, sabotage: Sabotage) -> Report {
    sabotaged_with(database, sabotage, settings(Duration::from_secs(1)))
}

fn sabotaged_with(database: Option<&Database>, sabotage: Sabotage, settings: Settings) -> Report {
    let settings = Settings {
        postgres: database.map(Database::url),
        sabotage: Some(sabotage),
        ..settings
    };
    let report = run(&settings, &Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!(report.verdict, Verdict::Bad, "{sabotage:?} went unnoticed: {report:#?}");
    let evidence = report.evidence.clone().expect("a failed drill keeps its evidence");
    assert!(evidence.join("incidents.txt").exists());
    match database {
        Some(database) => {
            let schema = report.evidence_schema.clone().expect("its schema, too");
            assert!(database.count(&format!("SELECT count(*) FROM {schema}.customers")) > 0);
        }
        None => assert!(evidence.join("customers.db").exists()),
    }
    fs::remove_dir_all(evidence).unwrap();
    report
}

#[track_caller]
fn says(report: &Report, name: &str, words: &str) {
    let said = report
        .findings
        .iter()
        .any(|finding| finding.name == name && finding.sentence.contains(words));
    assert!(said, "no {name} with {words:?}: {:#?}", report.findings);
}

#[test]
fn heavy_a_reader_with_only_the_old_key_is_found_out() {
    let report = sabotaged(Sabotage::ReaderWithOldKeyOnly);
    let new = report.new_key.unwrap();
    says(
        &report,
        "failed-reads",
        &format!("a value under key {new}, which the instance did not have"),
    );
    assert!(report.failed_reads > 0);
    assert_eq!((report.lost_writes, report.unreadable_values), (0, 0));
}

#[test]
fn heavy_a_writer_that_keeps_the_old_key_is_found_out() {
    let report = sabotaged(Sabotage::WriterWithOldKeyOnly);
    says(
        &report,
        "values-under-old-key",
        "a writer sealed with it after the last sweep",
    );
    assert!(report.values_under_old_key > 0);
}

#[test]
fn heavy_no_key_is_promoted_before_every_instance_has_it() {
    let report = sabotaged(Sabotage::InstanceLagsBehind);
    says(&report, "not-acknowledged", "reader-0/");
    says(
        &report,
        "not-acknowledged",
        " did not load revision 2 of the keyset within 20 s: the new key may not be promoted",
    );
    // The gate kept its promise: nothing was sealed with a key that somebody lacked.
    assert_eq!(report.failed_reads, 0);
    assert!(report.phases.iter().all(|phase| phase.name != "promote"));
}

#[test]
fn heavy_a_key_that_is_retired_too_early_fails_reads() {
    let report = sabotaged(Sabotage::RetireBeforeRotate);
    says(&report, "failed-reads", "a key was retired before the last value had left it");
    assert_eq!((report.lost_writes, report.unreadable_values), (0, 0));
}

#[test]
fn heavy_a_swap_without_comparison_loses_writes_and_is_found_out() {
    let report = sabotaged(Sabotage::SwapWithoutComparison);
    says(&report, "failed-reads", "a write was overwritten");
    says(&report, "lost-writes", "writes that the database had confirmed were lost");
    assert!(report.lost_writes > 0);
}

#[test]
fn heavy_a_key_that_is_promoted_before_it_is_acknowledged_fails_reads() {
    let report = sabotaged(Sabotage::PromoteBeforeAcknowledgement);
    says(
        &report,
        "failed-reads",
        "which the instance did not have: a key was promoted before every instance had it",
    );
    assert!(report.failed_reads > 0);
}

#[test]
fn heavy_on_postgres_a_swap_without_comparison_is_found_out() {
    let Some(database) = postgres() else { return };
    let report = sabotaged_on(Some(&database), Sabotage::SwapWithoutComparison);
    says(&report, "lost-writes", "writes that the database had confirmed were lost");
    assert!(report.lost_writes > 0);
}

#[test]
fn heavy_on_postgres_a_stale_writer_is_found_out() {
    let Some(database) = postgres() else { return };
    // The sweeps begin again as long as there is hope: gently that takes minutes.
    let settings = Settings {
        profile: Profile::Balanced,
        ..settings(Duration::from_secs(1))
    };
    let report = sabotaged_with(Some(&database), Sabotage::WriterWithOldKeyOnly, settings);
    says(
        &report,
        "values-under-old-key",
        "a writer sealed with it after the last sweep",
    );
}

#[test]
fn heavy_on_postgres_a_key_that_is_promoted_or_retired_too_early_fails_reads() {
    let Some(database) = postgres() else { return };
    let report = sabotaged_on(Some(&database), Sabotage::PromoteBeforeAcknowledgement);
    says(
        &report,
        "failed-reads",
        "which the instance did not have: a key was promoted before every instance had it",
    );
    let report = sabotaged_on(Some(&database), Sabotage::RetireBeforeRotate);
    says(&report, "failed-reads", "a key was retired before the last value had left it");
}

#[test]
fn heavy_on_postgres_a_reader_with_only_the_old_key_is_found_out() {
    let Some(database) = postgres() else { return };
    let report = sabotaged_on(Some(&database), Sabotage::ReaderWithOldKeyOnly);
    says(&report, "failed-reads", "which the instance did not have");
}

#[test]
fn heavy_sessions_that_outlive_a_leak_are_found_out() {
    let settings = Settings {
        compromised: true,
        ..settings(Duration::from_secs(1))
    };
    let report = sabotaged_with(None, Sabotage::SessionsForgotten, settings);
    says(&report, "sessions-left", "sessions are alive that must be dead");
    assert!(report.sessions.left > 0 && report.sessions.old_dead_after_seconds.is_none());
}

#[test]
fn heavy_a_user_who_is_logged_out_by_accident_is_found_out() {
    let report = sabotaged(Sabotage::SessionLost);
    says(&report, "sessions-lost", "1 users were logged out by accident");
    assert_eq!(report.sessions.lost, 1);
}
