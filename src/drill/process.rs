//! Processes that end with the drill, however it ends.
//!
//! Every one is started as `reseal drill-part …`. An instance and a command of the operator ask the kernel for a kill -9 when the drill is
//! gone, a probe and the janitor notice the end of their standard input; each is in a process group of its own, so that Ctrl-C reaches
//! the drill alone, which ends them in order.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal};

use super::instance::{self, InstanceError};
use super::janitor;

/// What a process of a drill does. Its first argument after `drill-part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An instance of the application.
    Instance,
    /// A command of the operator, which takes the place of this process.
    Command,
    /// A probe: a shell command that is ended with everything that it started.
    Probe,
    /// Removes what is left behind.
    Janitor,
}

/// Why a part ended.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Not started by a drill.
    #[error("this command is for processes that `reseal drill` starts")]
    NotADrill,
    /// An instance.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The janitor.
    #[error(transparent)]
    Janitor(#[from] janitor::JanitorError),
    /// A command could not be started.
    #[error("the command could not be started")]
    Start(#[from] io::Error),
}

/// A process that was started. Killed when dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
}

impl Part {
    /// The part of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Instance, Self::Command, Self::Probe, Self::Janitor]
            .into_iter()
            .find(|part| part.as_str() == name)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Command => "command",
            Self::Probe => "probe",
            Self::Janitor => "janitor",
        }
    }

    /// Starts this part of the drill. Say on the thread that lives as long as the drill: the kernel watches the thread, not the process.
    pub fn start(self, program: &Path, arguments: &[OsString], output: Stdio, said: Stdio) -> io::Result<Process> {
        self.start_with(&[], program, arguments, output, said)
    }

    /// The same, with variables of its own in its environment.
    pub fn start_with(
        self,
        variables: &[(&str, &str)],
        program: &Path,
        arguments: &[OsString],
        output: Stdio,
        said: Stdio,
    ) -> io::Result<Process> {
        let mut command = self.command(program, arguments, output, said);
        // The operator's passphrases and URLs are nobody else's.
        command.env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| INHERITED.contains(&name))));
        command.envs(variables.iter().copied());
        Process::spawn(command)
    }

    /// Starts this part with the environment of the drill, but for these variables.
    pub fn start_without(self, hidden: &[String], program: &Path, arguments: &[OsString]) -> io::Result<Process> {
        let mut command = self.command(program, arguments, Stdio::null(), Stdio::null());
        for name in hidden {
            command.env_remove(name);
        }
        Process::spawn(command)
    }

    /// Starts this part with the whole environment of the drill: for a command of the user's own operator.
    pub fn start_as_is(self, program: &Path, arguments: &[OsString], output: Stdio, said: Stdio) -> io::Result<Process> {
        Process::spawn(self.command(program, arguments, output, said))
    }

    fn command(self, program: &Path, arguments: &[OsString], output: Stdio, said: Stdio) -> Command {
        let mut command = Command::new(program);
        command
            .arg("drill-part")
            .arg(self.as_str())
            .arg(std::process::id().to_string());
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(said)
            .process_group(0);
        command
    }

    /// Plays this part, for the drill with this process id.
    pub fn play(self, drill: u32, arguments: &[OsString]) -> Result<u8, PartError> {
        if matches!(self, Self::Instance | Self::Command) {
            set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
        }
        // It may have died before the kernel was asked.
        if getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs()) != Some(drill) {
            return Err(PartError::NotADrill);
        }
        match (self, arguments) {
            (Self::Instance, []) => instance::run()?,
            (Self::Janitor, []) => janitor::run()?,
            (Self::Command, [program, rest @ ..]) => return Err(Command::new(program).args(rest).exec().into()),
            (Self::Probe, [command]) => return Ok(probe(command)?),
            _ => return Err(PartError::NotADrill),
        }
        Ok(0)
    }
}

/// Runs a shell command in a group of its own; when standard input ends, so does the whole group.
fn probe(command: &OsStr) -> io::Result<u8> {
    let mut shell = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&shell);
    thread::spawn(move || {
        // Nothing is ever sent.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = kill_process_group(group, Signal::KILL);
    });
    let status = shell.wait()?;
    Ok(u8::try_from(status.code().unwrap_or(KILLED)).unwrap_or(u8::MAX))
}

impl Process {
    fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// Sends something to its standard input.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.input {
            Some(input) => input.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end; `None` if it takes longer.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// kill -9. It is gone when this returns.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it ended before, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new file for what a process says.
pub fn file_output(path: &Path) -> io::Result<Stdio> {
    Ok(Stdio::from(File::create(path)?))
}

/// Where certificates are, and what programs commonly cannot do without.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
];
/// Short beside everything that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// What a shell says of a command that a signal ended.
const KILLED: i32 = 137;
