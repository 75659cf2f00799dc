//! The rotation under rehearsal: `reseal rotate` itself, in a process of its own, so that it can be killed like one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::customer::COLUMNS;
use super::stage::{KEYSET, Stage, TABLE};
use super::{Cancel, DrillError};
use crate::key::KeyId;
use crate::store::Store as _;
use crate::store::sqlite::SqliteStore;

/// Starts `reseal rotate`, as often as need be.
pub struct Rotation<'a> {
    /// The program: this one, unless a test says otherwise.
    pub program: &'a Path,
    /// Where it works.
    pub stage: &'a Stage,
    /// The old key.
    pub from: KeyId,
    /// The new key.
    pub to: KeyId,
    /// How often it was started.
    pub runs: u32,
}

/// A rotation that was started. Killed when dropped, so that nothing works on in a folder that goes away.
pub struct Run {
    child: Child,
    document: PathBuf,
    said: PathBuf,
}

/// How a rotation ended.
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed for programs.
    pub document: Value,
    /// What it said to people, last line.
    pub last_words: String,
}

impl Rotation<'_> {
    /// Starts it: the same command every time, as the operator would.
    pub fn start(&mut self) -> Result<Run, DrillError> {
        self.runs += 1;
        let output = |name: &str| self.stage.folder().join(format!("rotate-{}.{name}", self.runs));
        let (document, said) = (output("json"), output("log"));
        let mut database = std::ffi::OsString::from("sqlite:");
        database.push(self.stage.database());
        let mut command = Command::new(self.program);
        command
            .env_clear()
            .arg("rotate")
            .arg("--json")
            .arg("--yes")
            .args(["--profile", "gentle", "--table", TABLE])
            .arg("--database")
            .arg(database)
            .arg("--keyring")
            .arg(self.stage.keyring_file())
            .arg("--identity")
            .arg(self.stage.identity_file())
            .args(["--from", &format!("keyring:{KEYSET}@{}", self.from)])
            .args(["--to", &format!("keyring:{KEYSET}@{}", self.to)]);
        for column in &COLUMNS {
            command.args(["--column", column.name, "--format", column.format, "--aad", column.template]);
        }
        let file = |path: &Path| File::create(path).map_err(DrillError::Stage);
        command.stdin(Stdio::null()).stdout(file(&document)?).stderr(file(&said)?);
        let child = command.spawn().map_err(DrillError::Rotation)?;
        Ok(Run { child, document, said })
    }
}

impl Run {
    /// Whether it ended by itself.
    pub fn is_over(&mut self) -> Result<bool, DrillError> {
        Ok(self.child.try_wait().map_err(DrillError::Rotation)?.is_some())
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<(), DrillError> {
        self.child.kill().map_err(DrillError::Rotation)?;
        self.child.wait().map_err(DrillError::Rotation)?;
        Ok(())
    }

    /// Waits for its end; one that takes longer than `patience` is killed.
    pub fn wait(mut self, patience: Duration, cancel: &Cancel) -> Result<Ended, DrillError> {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().map_err(DrillError::Rotation)? {
                break status.code();
            }
            cancel.check()?;
            if begun.elapsed() >= patience {
                break None;
            }
            thread::sleep(LOOK_EVERY);
        };
        let said = fs::read_to_string(&self.said).map_err(DrillError::Stage)?;
        let document = fs::read(&self.document).map_err(DrillError::Stage)?;
        Ok(Ended {
            code,
            document: serde_json::from_slice(&document).unwrap_or(Value::Null),
            last_words: said.lines().last().unwrap_or_default().to_owned(),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail when it ended before, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The seconds of one of its phases.
    pub fn seconds(&self, phase: &str) -> f64 {
        let phases = self.document["phases"].as_array().map_or(&[][..], Vec::as_slice);
        let named = phases.iter().find(|entry| entry["name"] == phase);
        named.and_then(|entry| entry["seconds"].as_f64()).unwrap_or(0.0)
    }

    /// Whether it ran to its end and proved the result.
    pub fn is_verified(&self) -> bool {
        self.code == Some(0) && self.document["verified"] == true
    }

    /// Why it did not, in its own words.
    pub fn why(&self) -> String {
        match (self.document["error"]["failed"].as_str(), self.code) {
            (Some(failed), _) => failed.to_owned(),
            (None, Some(7)) => {
                let left = self.document["not_current"].as_array().map_or(0, Vec::len);
                format!("{left} values were still not under the new key when it gave up")
            }
            (None, None) => "it did not end in time".to_owned(),
            (None, Some(_)) => self.last_words.clone(),
        }
    }
}

/// Looks at the state that the rotation keeps in the database.
pub struct Watch {
    runtime: tokio::runtime::Runtime,
    store: SqliteStore,
}

/// Where the rotation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its id.
    pub plan: String,
    /// Grows with every start.
    pub generation: i64,
    /// Rows that it has worked through and committed.
    pub rows: u64,
}

impl Watch {
    /// Over the stage's database.
    pub fn new(stage: &Stage) -> Result<Self, DrillError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DrillError::Stage)?;
        let store = SqliteStore::open(&stage.database())?;
        Ok(Self { runtime, store })
    }

    /// Where the newest rotation stands; `None` before the first one has begun.
    pub fn position(&self) -> Result<Option<Position>, DrillError> {
        self.runtime.block_on(async {
            let mut control = self.store.control().await?;
            if !control.exists().await? {
                return Ok(None);
            }
            let Some(plan) = control.plans().await?.into_iter().next() else {
                return Ok(None);
            };
            let totals = control.totals(&plan.identity.id).await?;
            Ok(Some(Position {
                plan: plan.identity.id,
                generation: plan.generation,
                rows: totals.rows_scanned,
            }))
        })
    }
}

/// Short beside everything that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
