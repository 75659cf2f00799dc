//! Removes what a drill leaves behind: its folder, and its schema in PostgreSQL.
//!
//! A process of its own, because the drill may be killed: it waits for a word, or for the end of its standard input, which comes with the
//! end of the drill. So there is one way of cleaning up, and every drill goes it.

use std::fs;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::table::{Scratch, TableError};

/// What there is to remove. Holds the database's password: no `Debug`.
#[derive(Serialize, Deserialize)]
pub struct Leftovers {
    /// The folder.
    pub folder: PathBuf,
    /// The schema, if there is one.
    pub schema: Option<Schema>,
}

/// A schema in PostgreSQL.
#[derive(Serialize, Deserialize)]
pub struct Schema {
    /// The database.
    pub url: String,
    /// The schema's name.
    pub name: String,
    /// The keyset, whose instances and rotations are noted among Reseal's own tables.
    pub keyset: String,
    /// How the names of all connections of the drill begin.
    pub role: String,
    /// Whether Reseal's own schema came with the drill.
    pub with_control: bool,
}

/// Why something was left behind.
#[derive(Debug, thiserror::Error)]
pub enum JanitorError {
    /// Its instructions did not come.
    #[error("not instructions of a drill")]
    Instructions(#[from] serde_json::Error),
    /// The folder.
    #[error("the folder could not be removed")]
    Folder(#[from] io::Error),
    /// The schema.
    #[error("the schema could not be removed: {0}")]
    Schema(#[from] TableError),
}

/// Waits for the end of the drill, and cleans up unless it was told to keep everything.
pub fn run() -> Result<(), JanitorError> {
    let mut lines = io::stdin().lock().lines();
    let instructions = lines.next().transpose()?.unwrap_or_default();
    let leftovers: Leftovers = serde_json::from_str(&instructions)?;
    // Another word, or the end, means that there is nothing to keep.
    if matches!(lines.next(), Some(Ok(word)) if word == KEEP) {
        return Ok(());
    }
    let removed = leftovers.schema.as_ref().map_or(Ok(()), remove_schema);
    remove_folder(&leftovers.folder)?;
    removed
}

fn remove_schema(schema: &Schema) -> Result<(), JanitorError> {
    let role = format!("{} janitor", schema.role.trim_end());
    let mut attempts = 0;
    loop {
        attempts += 1;
        let removed = Scratch::connect(&schema.url, &role, schema.name.clone()).and_then(|mut scratch| {
            scratch.end_connections(&schema.role)?;
            scratch.drop(&schema.keyset, schema.with_control)
        });
        match removed {
            Ok(()) => return Ok(()),
            Err(error) if attempts >= ATTEMPTS_MAX => return Err(error.into()),
            Err(_) => thread::sleep(ATTEMPT_PAUSE),
        }
    }
}

/// Again while somebody who is dying still makes files in it.
fn remove_folder(folder: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(()) => {}
            Err(error) if begun.elapsed() >= REMOVED_WITHIN => return Err(error),
            Err(_) => {}
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The word for evidence.
pub const KEEP: &str = "keep";

/// A backend whose client was killed notices it at the end of its statement.
const ATTEMPTS_MAX: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
const REMOVED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
