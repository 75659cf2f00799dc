//! `reseal rotate` on the table of people, as a process that is watched, signalled and killed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reseal::format::by_name;
use reseal::rotation::plan::prepare;
use reseal::rotation::progress::{Progress, Stop};
use reseal::rotation::recipe::{ColumnSpec, PlaintextPolicy, Recipe};
use reseal::rotation::{Job, Options, RotationError, RotationReport, rotate};
use reseal::store::Store;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use super::people::{FernetKey, Home};
use super::reseal_process;

/// What to rotate.
pub struct Rotation<'a> {
    pub home: &'a Home,
    pub old: &'a FernetKey,
    pub new: &'a FernetKey,
    /// Instead of the home's own URL: a proxy's, say.
    pub url: Option<String>,
}

/// Small batches with rests, so that there is a middle to be interrupted in, and two workers where the database takes two writers.
pub const SLOWLY: &[&str] = &["--profile", "gentle", "--batch-rows", "20", "--workers", "2"];
/// The same over one connection at a time.
pub const SLOWLY_ALONE: &[&str] = &["--profile", "gentle", "--batch-rows", "20", "--workers", "1"];

impl<'a> Rotation<'a> {
    pub fn new(home: &'a Home, old: &'a FernetKey, new: &'a FernetKey) -> Self {
        Self {
            home,
            old,
            new,
            url: None,
        }
    }

    /// The command, with these further arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = reseal_process();
        command
            .args(["rotate", "--database", "env:DATABASE_URL", "--table", "people"])
            .args(["--column", "email", "--column", "note", "--format", "fernet"])
            .args(["--from", "env:OLD_KEY", "--to", "env:NEW_KEY"])
            .args(["--dual-read-confirmed", "--yes", "--json"])
            .args(arguments)
            .env("DATABASE_URL", self.url.as_deref().unwrap_or(self.home.url()))
            .env("OLD_KEY", self.old.text())
            .env("NEW_KEY", self.new.text());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Running::start(self.command(arguments)).wait()
    }

    /// Runs it to its end, which must be a verified one.
    pub fn complete(&self, arguments: &[&str]) -> Finished {
        let finished = self.run(arguments);
        finished.assert_verified();
        finished
    }

    /// Rotates in this process, in batches of 20 rows by one worker.
    pub fn here(&self, store: &Arc<dyn Store>) -> Result<RotationReport, RotationError> {
        self.here_with(store, Options::default())
    }

    /// The same, with these further options.
    pub fn here_with(&self, store: &Arc<dyn Store>, options: Options) -> Result<RotationReport, RotationError> {
        self.here_watched(store, options, &Arc::default())
    }

    /// The same, telling how it goes.
    pub fn here_watched(
        &self,
        store: &Arc<dyn Store>,
        options: Options,
        progress: &Arc<Progress>,
    ) -> Result<RotationReport, RotationError> {
        let fernet = by_name("fernet").unwrap();
        let columns = ["email", "note"].map(|name| ColumnSpec {
            name: name.to_owned(),
            from: fernet,
            to: fernet,
            associated_data: None,
        });
        let (from, to) = (self.old.named("old"), self.new.named("new"));
        let job = Job {
            table: "people".to_owned(),
            filter: None,
            recipe: Recipe::new(columns.into(), &[from], &to, PlaintextPolicy::Refuse, 0).unwrap(),
            options: Options {
                workers: Some(1),
                batch_rows: options.batch_rows.or(Some(20)),
                ..options
            },
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let prepared = prepare(&**store, job).await?;
            let stop = Arc::new(Stop::default());
            may_be_spawned(rotate(store, &prepared, progress, &stop)).await
        })
    }

    /// Starts it and waits until it has committed batches of its own.
    pub fn start_and_get_going(&self, arguments: &[&str]) -> Running {
        self.start_and_get_going_to(arguments, Stdio::piped(), Stdio::piped())
    }

    /// The same, with standard output and standard error going elsewhere.
    pub fn start_and_get_going_to(&self, arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Running {
        let mut live = self.home.connect();
        let mut rows = || live.rows_moved();
        let before = rows();
        let mut running = Running::start_to(self.command(arguments), stdout, stderr);
        wait_until("a batch is committed", || {
            assert!(running.is_running(), "it ended before its first batch: {}", running.stderr());
            rows() > before
        });
        running
    }
}

/// Applications rotate on a runtime's own threads.
fn may_be_spawned<F: Future + Send>(future: F) -> F {
    future
}

/// A process under way. Killed when dropped.
pub struct Running {
    child: Child,
}

impl Running {
    pub fn start(command: Command) -> Self {
        Self::start_to(command, Stdio::piped(), Stdio::piped())
    }

    /// With standard output and standard error going elsewhere; what goes elsewhere is missing when it has ended.
    pub fn start_to(mut command: Command, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        Self { child: child.unwrap() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGSTOP, and waits until it stands: for a moment after the signal was sent, its threads run on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let (child, stopped) = (Pid::from_child(&self.child), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
        wait_until("it stands", || waitid(WaitId::Pid(child), stopped).unwrap().is_some());
    }

    /// `kill -9`, and waits until the process is gone. Says whether it was still running.
    pub fn kill(&mut self) -> bool {
        let was_running = self.is_running();
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        was_running && status.code().is_none()
    }

    /// Waits for the end. One that does not come within a minute and a half is a failure.
    pub fn wait(mut self) -> Finished {
        // Read while it runs: who fills a pipe that nobody reads would hang.
        let stdout = read_aside(self.child.stdout.take());
        let stderr = read_aside(self.child.stderr.take());
        let begun = Instant::now();
        while self.is_running() {
            assert!(begun.elapsed() < Duration::from_secs(90), "the rotation hangs");
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code();
        Finished {
            code,
            document: serde_json::from_str(&stdout.join().unwrap()).unwrap_or(Value::Null),
            stderr: stderr.join().unwrap(),
        }
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        if !self.is_running()
            && let Some(mut pipe) = self.child.stderr.take()
        {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    }
}

/// Everything that comes through a pipe, if there is one.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub document: Value,
    pub stderr: String,
}

impl Finished {
    pub fn assert_verified(&self) {
        assert_eq!(self.code, Some(0), "{}\n{}", self.document, self.stderr);
        assert_eq!(self.document["verified"], true, "{}", self.document);
        assert_eq!(self.document["quarantined_total"], 0, "{}", self.document);
    }

    /// A number of the document.
    pub fn count(&self, name: &str) -> u64 {
        self.document[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {}", self.document))
    }

    /// Everything that was said.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.document, self.stderr)
    }
}

/// Looks every few milliseconds until `reached`; half a minute is long enough for anything in a test.
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
