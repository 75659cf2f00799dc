//! Reseal rotates the keys behind encrypted columns in live SQL databases.
//!
//! The house, from the street to the cellar; nothing imports upwards (`tests/layout.rs` reads the sources and checks it):
//!
//! | folder | what lives there |
//! |---|---|
//! | [`cli`] | the terminal: arguments, output for people and machines, exit codes, signals |
//! | [`config`] | references to secrets and `reseal.toml`, turned into typed settings |
//! | [`drill`] | a rehearsal: sample data, live readers and writers, a verdict |
//! | [`app`] | what an application imports: seal and open values, sign and verify tokens, follow the keyring |
//! | [`rotation`] | the main job: plan, re-encrypt, sweep, verify |
//! | [`session`] | ending sessions in Redis and SQL tables, and tokens |
//! | [`secret`] | the secrets of applications: made, and written where applications read them |
//! | [`store`] | databases behind one trait: bytes move, keys are unknown |
//! | [`format`](mod@format) | ciphertext formats behind one trait: bytes in, bytes out |
//! | [`key`] | key material, states, keysets, the sealed keyring file |
//! | [`report`] | a rehearsal as a page, Markdown, JUnit and text |

// They panic when nobody is left to read; `cli::output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod app;
pub mod cli;
pub mod config;
pub mod drill;
pub mod format;
pub mod key;
pub mod report;
pub mod rotation;
pub mod secret;
pub mod session;
pub mod store;

pub use app::{Keyring, KeysetHandle, Opened, Unlock};
