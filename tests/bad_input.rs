//! What bad input and hostile conditions get from the binary, on SQLite and on PostgreSQL: a clear error or a quarantine entry, the
//! promised exit code, and nothing lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod bad_input {
    pub mod commands;
    pub mod desk;
    pub mod drill;
    pub mod dry_run;
    pub mod read_only;
    pub mod refused_rows;
    pub mod scan;
    pub mod schema;
    pub mod secrets;
    pub mod values;
}
