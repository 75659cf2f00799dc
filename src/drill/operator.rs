//! The operator: the real commands, each in a process of its own, as they would be typed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::customer::COLUMNS;
use super::process::{Part, Process, file_output};
use super::stage::{KEYSET, Stage};
use super::table::Place;
use super::{Cancel, DrillError};
use crate::key::KeyId;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Control, Store};

/// Types commands.
pub struct Operator<'a> {
    program: &'a Path,
    stage: &'a Stage,
    /// The database, as the commands reach it.
    place: &'a Place,
    typed: u32,
}

/// A command that was started. Killed when dropped.
pub struct Run {
    process: Process,
    document: PathBuf,
    said: PathBuf,
}

/// How a command ended.
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed for programs.
    pub document: Value,
    /// What it said to people, last line.
    pub last_words: String,
}

impl<'a> Operator<'a> {
    /// Nothing typed yet.
    pub fn new(program: &'a Path, stage: &'a Stage, place: &'a Place) -> Self {
        Self {
            program,
            stage,
            place,
            typed: 0,
        }
    }

    /// Makes the keyring with its first key.
    pub fn make_keyring(&mut self, cancel: &Cancel) -> Result<(), DrillError> {
        let recipient = self.stage.recipient();
        let made = self.keys(&["generate", KEYSET, "--recipient", &recipient], cancel)?;
        made.must_succeed("reseal keys generate")
    }

    /// Adds a key, which readers get and nobody seals with yet.
    pub fn stage_key(&mut self, cancel: &Cancel) -> Result<Ended, DrillError> {
        self.keys(&["generate", KEYSET], cancel)
    }

    /// Makes the key primary.
    pub fn promote(&mut self, id: KeyId, cancel: &Cancel) -> Result<Ended, DrillError> {
        self.keys(&["promote", KEYSET, &id.to_string()], cancel)
    }

    /// Takes the key from readers.
    pub fn retire(&mut self, id: KeyId, cancel: &Cancel) -> Result<Ended, DrillError> {
        self.keys(&["retire", KEYSET, &id.to_string()], cancel)
    }

    /// Starts the rotation: the same command every time.
    pub fn rotate(&mut self, from: KeyId, to: KeyId) -> Result<Run, DrillError> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        // The URL comes by standard input: a password on the command line is everybody's.
        add(&["rotate", "--json", "--yes", "--profile", "gentle", "--database", "fd:0"]);
        add(&["--table", &self.place.table]);
        add(&["--from", &format!("keyring:{KEYSET}@{from}")]);
        add(&["--to", &format!("keyring:{KEYSET}@{to}")]);
        for column in &COLUMNS {
            add(&["--column", column.name, "--format", column.format, "--aad", column.template]);
        }
        let url = self.place.url.clone();
        self.start(arguments, url.as_bytes())
    }

    fn keys(&mut self, words: &[&str], cancel: &Cancel) -> Result<Ended, DrillError> {
        let mut arguments: Vec<OsString> = vec!["keys".into()];
        arguments.extend(words.iter().map(OsString::from));
        arguments.push("--json".into());
        self.start(arguments, b"")?.wait(COMMAND_PATIENCE, cancel)
    }

    fn start(&mut self, mut arguments: Vec<OsString>, input: &[u8]) -> Result<Run, DrillError> {
        self.typed += 1;
        let word = arguments
            .first()
            .map(|word| word.to_string_lossy().into_owned())
            .unwrap_or_default();
        let output = |kind: &str| self.stage.operator_file(&format!("{:02}-{word}.{kind}", self.typed));
        let (document, said) = (output("json"), output("log"));
        arguments.insert(0, self.program.into());
        arguments.extend(["--keyring".into(), self.stage.keyring_file().into()]);
        arguments.extend(["--identity".into(), self.stage.identity_file().into()]);
        let outputs = (file_output(&document), file_output(&said));
        let (output, errors) = (outputs.0.map_err(DrillError::Stage)?, outputs.1.map_err(DrillError::Stage)?);
        let mut process = Part::Command
            .start(self.program, &arguments, output, errors)
            .map_err(DrillError::Rotation)?;
        // A command that does not read may end before this arrives.
        let _ = process.send(input);
        process.end_input();
        Ok(Run { process, document, said })
    }
}

impl Run {
    /// Whether it ended by itself.
    pub fn is_over(&mut self) -> Result<bool, DrillError> {
        Ok(self.process.ended().map_err(DrillError::Rotation)?.is_some())
    }

    /// kill -9. Returns whether it was still at work.
    pub fn kill(mut self) -> Result<bool, DrillError> {
        let status = self.process.kill().map_err(DrillError::Rotation)?;
        Ok(status.code().is_none())
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = self.process.signal(signal);
    }

    /// Waits for its end; one that takes longer than `patience` is killed.
    pub fn wait(mut self, patience: Duration, cancel: &Cancel) -> Result<Ended, DrillError> {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.process.wait(LOOK_EVERY).map_err(DrillError::Rotation)? {
                break status.code();
            }
            cancel.check()?;
            if begun.elapsed() >= patience {
                break None;
            }
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

impl Ended {
    /// The seconds of one of its phases.
    pub fn seconds(&self, phase: &str) -> f64 {
        let phases = self.document["phases"].as_array().map_or(&[][..], Vec::as_slice);
        let named = phases.iter().find(|entry| entry["name"] == phase);
        named.and_then(|entry| entry["seconds"].as_f64()).unwrap_or(0.0)
    }

    /// Whether it did what it should.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether a rotation ran to its end and proved the result.
    pub fn is_verified(&self) -> bool {
        self.succeeded() && self.document["verified"] == true
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

    /// An error where a rehearsal cannot even begin.
    pub fn must_succeed(&self, command: &'static str) -> Result<(), DrillError> {
        if self.succeeded() {
            Ok(())
        } else {
            Err(DrillError::Command(command, self.why()))
        }
    }
}

/// Looks at the state that the rotation keeps in the database.
pub struct Watch {
    runtime: tokio::runtime::Runtime,
    control: Box<dyn Control>,
    table: String,
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
    /// Over the stage's database, on the straight way.
    pub fn new(stage: &Stage) -> Result<Self, DrillError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DrillError::Stage)?;
        let place = stage.place();
        let store: Box<dyn Store> = match place.url.strip_prefix("sqlite:") {
            Some(path) => Box::new(SqliteStore::open(path.as_ref())?),
            None => Box::new(PostgresStore::new(&place.url, &stage.role("watch"))?),
        };
        let control = runtime.block_on(store.control())?;
        Ok(Self {
            runtime,
            control,
            table: place.table.clone(),
        })
    }

    /// Where the rotation of the stage's table stands; `None` before it has begun.
    pub fn position(&mut self) -> Result<Option<Position>, DrillError> {
        let Self { runtime, control, table } = self;
        runtime.block_on(async {
            if !control.exists().await? {
                return Ok(None);
            }
            let plans = control.plans().await?;
            let ours = plans.into_iter().find(|plan| plan.identity.table.replace('"', "") == *table);
            let Some(plan) = ours else {
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
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A change of the keyring takes a fraction of a second.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
