//! What integration tests share: real servers, the binary in a clean environment, Python peers, fresh keys, the search for leaked secrets.
//!
//! A test file says `mod support;` and takes what it needs. Where a server or Python is missing, a laptop skips the test and says so;
//! with `CI=true` a missing one is a failure.

// Every test binary compiles this module and uses a part of it.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

mod canary;
pub mod faulty;
mod keys;
pub mod liar;
pub mod people;
pub mod pooler;
mod postgres;
mod programs;
pub mod proxy;
mod redis;
pub mod rotation;
mod salamander;
mod services;
pub mod storm;

use reseal::store::survey::Target;

pub use self::redis::{PrivateRedis, private_redis};
pub use canary::Canary;
pub use keys::{aes256_key, fernet_key, passphrase, random_bytes};
pub use postgres::{Database, PrivatePostgres, PromotedCopy, postgres, private_postgres, replicated_postgres};
pub use programs::{node, python, reseal, reseal_process, tempdir};
pub use salamander::salamander;

/// A table and its one encrypted column, as an operator points at them.
pub fn target(table: &str, column: &str) -> Target {
    Target {
        table: table.to_owned(),
        columns: vec![column.to_owned()],
        context_columns: Vec::new(),
        filter: None,
    }
}

/// Says that this test did not run, and why. Where nothing may be skipped, fails instead.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must not skip: {why}");
    eprintln!("skipped: {why}");
}
