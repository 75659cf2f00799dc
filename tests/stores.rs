//! The contract of `store`, written once and run against every database.
//!
//! `stores::contract` holds the suite: functions over a [`Fixture`](stores::fixture::Fixture). Another database is another fixture and
//! one more line of `contract!` below. What only one database has is tested in the module named after it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod stores {
    pub mod contract;
    pub mod fixture;
    pub mod moments;
    pub mod postgres;
    pub mod postgres_samples;
    pub mod sqlite;
    pub mod toy;
}

/// Instantiates the suite for a fixture; an expression that yields `None` skips, having said why.
macro_rules! contract {
    ($database:ident, $fixture:expr, [$($area:ident::{$($test:ident),* $(,)?}),* $(,)?]) => {
        mod $database {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(fixture) = $fixture {
                        crate::stores::contract::$area::$test(&fixture).await;
                    }
                }
            )*)*
        }
    };
}

/// The whole suite; a new test is added here, and every database runs it.
macro_rules! whole_contract {
    ($database:ident, $fixture:expr) => {
        contract!(
            $database,
            $fixture,
            [
                reading::{
                    pages_visit_every_row_once_in_order,
                    intervals_are_adjacent_and_cover_every_row,
                    pages_end_after_the_row_that_passes_the_byte_cap,
                    oversize_values_are_not_read,
                    a_condition_restricts_rows,
                    conditions_cannot_escape,
                    hostile_identifiers_are_only_names,
                    missing_tables_and_columns_are_refused,
                    an_empty_table_ends_at_once,
                },
                samples::{
                    every_column_is_sampled_one_after_the_other,
                    a_sparse_column_of_a_long_table_is_read_to_its_end,
                },
                writing::{
                    every_kind_of_key_rotates,
                    several_columns_change_in_one_swap,
                    values_that_are_not_due_are_not_written,
                    what_cannot_be_opened_stays_and_is_quarantined_once,
                    an_application_write_between_read_and_swap_survives,
                    a_deleted_row_stays_deleted,
                    a_row_whose_key_changed_is_not_mistaken,
                    a_failure_inside_a_batch_rolls_everything_back,
                    a_rewriter_that_stops_leaves_nothing_behind,
                    batches_respect_the_byte_cap,
                    a_concurrent_writer_loses_nothing,
                },
                fencing::{
                    cursor_and_counters_commit_with_the_rows,
                    a_stale_epoch_writes_nothing,
                    a_take_over_bumps_every_range,
                    a_claim_fences_off_every_plan_of_its_table,
                    of_two_claims_at_once_one_is_fenced_off,
                    what_a_plan_has_interrupted_and_undoes_begins_afresh,
                    stored_ranges_survive_a_new_connection,
                    sweeps_leave_the_cursor_alone,
                    migrating_twice_changes_nothing,
                    a_newer_state_is_refused,
                    late_values_commit_with_their_batch,
                    quarantine_is_cleared_by_the_current_plan_only,
                    status_moves_under_the_current_generation_only,
                    a_plan_that_begins_afresh_keeps_its_counters,
                    one_operator_at_a_time,
                    a_lock_that_was_taken_over_is_noticed,
                },
                ledger::{
                    an_instance_is_known_by_its_last_report,
                    a_lease_ends_by_the_clock_of_the_database,
                    hostile_names_of_instances_are_only_names,
                    of_a_keyset_one_rotation_is_open,
                    a_rotation_changes_under_its_generation_only,
                    of_a_cut_off_the_first_one_counts,
                    state_of_version_1_is_upgraded_in_place,
                    one_operator_a_keyset,
                },
                operators::{
                    what_is_asked_stands_beside_what_was_asked_before,
                    a_rotation_runs_while_it_is_unfinished_and_heard,
                },
            ]
        );
    };
}

whole_contract!(sqlite, crate::stores::sqlite::SqliteFixture::create());
whole_contract!(postgres, crate::stores::postgres::PostgresFixture::create().await);

/// Two databases of one server, and two files of one folder: an address tells them apart, and so do they themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_have_ids_of_their_own() {
    use stores::contract::ledger::have_ids_of_their_own;
    use stores::postgres::PostgresFixture;
    use stores::sqlite::SqliteFixture;

    have_ids_of_their_own(&SqliteFixture::create().unwrap(), &SqliteFixture::create().unwrap()).await;
    if let (Some(one), Some(other)) = (PostgresFixture::create().await, PostgresFixture::create().await) {
        have_ids_of_their_own(&one, &other).await;
    }
}
