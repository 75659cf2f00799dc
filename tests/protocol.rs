//! The rotation of a keyset with the real program: gates, and what happens when anybody dies, lags, comes back, or changes their mind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod protocol {
    pub mod emergencies;
    pub mod forgotten;
    pub mod gates;
    pub mod guarded;
    pub mod house;
    pub mod interruptions;
    pub mod orders;
    pub mod others;
    pub mod proving;
    pub mod retirement;
    pub mod sessions;
    pub mod staging;
}

/// On SQLite, where copying a file is all that it takes.
#[test]
fn a_database_that_was_restored_is_not_gone_on_with_unseen() {
    protocol::interruptions::a_database_that_was_restored_is_not_gone_on_with_unseen();
}

#[test]
fn a_file_in_which_no_rotation_has_run_is_refused_where_one_had() {
    protocol::others::a_file_in_which_no_rotation_has_run_is_refused_where_one_had();
}

#[test]
fn an_id_that_is_not_told_once_is_not_forgotten() {
    protocol::others::an_id_that_is_not_told_once_is_not_forgotten();
}

#[test]
fn what_other_versions_have_seen_is_read_or_refused() {
    protocol::others::what_other_versions_have_seen_is_read_or_refused();
}

#[test]
fn heavy_requests_that_are_swallowed_hold_up_no_phase() {
    protocol::interruptions::requests_that_are_swallowed_hold_up_no_phase();
}

#[test]
fn heavy_any_statement_of_a_rotation_may_be_cut_off() {
    protocol::interruptions::any_statement_of_a_rotation_may_be_cut_off();
}

#[test]
fn a_connection_lost_when_replicas_are_asked_is_made_again() {
    protocol::interruptions::a_connection_lost_when_replicas_are_asked_is_made_again();
}

#[test]
fn a_column_that_cannot_be_looked_at_keeps_the_key() {
    protocol::forgotten::a_column_that_cannot_be_looked_at_keeps_the_key();
}

/// On PostgreSQL, which can hold a claim.
#[test]
fn keys_that_change_while_a_rotation_is_taken_over_are_looked_at_anew() {
    protocol::interruptions::keys_that_change_while_a_rotation_is_taken_over_are_looked_at_anew();
}

#[test]
fn requests_that_are_swallowed_hold_up_no_command() {
    protocol::interruptions::requests_that_are_swallowed_hold_up_no_command();
}

#[test]
fn any_statement_of_a_command_may_be_cut_off() {
    protocol::interruptions::any_statement_of_a_command_may_be_cut_off();
}

/// Each scenario on each database; one that is missing on this machine is skipped, and says so.
macro_rules! scenarios {
    ($($area:ident::{$($test:ident),* $(,)?}),* $(,)?) => {
        mod sqlite { $($(
            #[test]
            fn $test() {
                crate::protocol::$area::$test(crate::protocol::house::Kind::Sqlite);
            }
        )*)* }
        mod postgres { $($(
            #[test]
            fn $test() {
                crate::protocol::$area::$test(crate::protocol::house::Kind::Postgres);
            }
        )*)* }
    };
}

scenarios!(
    gates::{
        a_keyset_is_rotated_while_instances_follow,
        nothing_is_promoted_before_every_live_instance_has_acknowledged,
        nobody_at_all_is_not_everybody,
        as_many_as_expected_must_be_there,
        whoever_vanishes_is_waited_for_until_the_lease_ends,
        a_database_clock_that_jumps_forward_opens_no_gate,
        nobody_is_listened_to_for_longer_than_the_operator_waits,
        whoever_comes_back_with_an_older_revision_blocks_again,
        a_revision_that_nobody_can_have_is_not_reported,
    },
    interruptions::{
        a_killed_rotation_goes_on_in_its_phase,
        killed_at_the_end_of_every_phase_it_goes_on,
        what_comes_back_meanwhile_is_found_before_the_end,
        a_second_operator_is_refused_with_id_and_owner,
        a_third_key_takes_the_place_of_a_rotation_that_is_moving_values,
        a_third_key_takes_the_place_of_one_that_nobody_seals_with_yet,
        a_rotation_is_rolled_back_before_its_promotion,
        a_column_renamed_in_the_middle_leaves_it_incomplete,
        a_rotation_is_rolled_back_from_its_middle,
        a_finished_rotation_is_rolled_back,
    },
    emergencies::{
        availability_first_keeps_values_readable_and_evicts_whoever_is_missing,
        lock_down_takes_the_leaked_key_from_applications_at_once,
        a_rotation_becomes_an_emergency_and_does_not_go_back,
        what_turns_up_under_a_leaked_key_that_was_retired_is_never_moved,
        a_third_key_launders_no_forgery,
    },
    orders::{
        a_paused_keyset_is_not_promoted_and_moves_nothing,
        an_aborted_rotation_of_a_keyset_goes_on_with_the_same_command,
    },
    others::{
        a_database_with_another_id_is_refused_until_it_is_accepted,
    },
    proving::{
        killed_while_it_proves_it_proves_the_same,
    },
    sessions::{
        a_leak_ends_every_session_before_values_are_moved_and_no_login_of_after,
        a_killed_ending_goes_on_with_its_cut_off,
        without_the_store_of_sessions_no_value_is_moved,
        while_sessions_are_left_no_value_is_moved,
        a_schedule_ends_only_what_it_is_told_to,
        a_rotation_that_becomes_an_emergency_ends_sessions_again,
    },
    forgotten::{
        a_forgotten_column_keeps_its_key_with_readers,
        a_forgotten_column_keeps_a_key_from_being_given_up,
        forgotten_values_that_name_no_key_are_opened,
        rows_beyond_a_condition_keep_the_key,
    },
    retirement::{
        a_key_that_anything_needs_is_not_retired,
        a_keyset_without_a_decision_on_backups_is_not_rotated,
        a_key_is_destroyed_when_nothing_needs_it_and_no_backup_does,
        a_clock_that_is_ahead_destroys_no_key,
        a_dataset_may_be_a_part_of_its_table,
        a_damaged_value_keeps_the_old_key_with_readers,
        an_older_keyring_is_not_gone_on_with,
        plan_and_verify_look_at_every_dataset,
    },
);
