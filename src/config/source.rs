//! Reading what a reference refers to: bounded in size and time, wiped when dropped, never repeated in an error.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use age::secrecy::SecretString;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::{SecretRef, UrlRef};
use crate::key::{ReadFault, check_private};

/// Bytes that were read for a reference. No `Debug`, no `Clone`.
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

/// Reads secrets. Holds the environment, so that tests can give another.
pub struct SecretReader<'a> {
    environment: Environment<'a>,
    kept_from_children: Vec<String>,
    command_timeout: Duration,
}

/// Looks up a variable.
type Environment<'a> = Box<dyn Fn(&str) -> Option<OsString> + 'a>;

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable does not exist.
    #[error("environment variable {0} is not set")]
    Unset(String),
    /// Nothing came.
    #[error("{0} is empty")]
    Empty(String),
    /// More came than a secret has.
    #[error("{0} gave more than {max} bytes", max = SECRET_BYTES_MAX)]
    TooLarge(String),
    /// The file is not fit to hold a secret, or cannot be read.
    #[error("file {}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: ReadFault,
    },
    /// The descriptor cannot be read.
    #[error("descriptor {number} cannot be read")]
    Descriptor {
        /// Its number.
        number: u32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Nobody to ask.
    #[error("there is no terminal to ask on")]
    NoTerminal,
    /// The terminal failed, or the person gave up.
    #[error("nothing could be read from the terminal")]
    Prompt(#[source] io::Error),
    /// Two answers that should be one.
    #[error("the two answers differ")]
    Mismatch,
    /// The command did not start or could not be waited for.
    #[error("the command of cmd: could not be run")]
    Start(#[source] io::Error),
    /// The command failed. Its error output is not shown: it may hold secrets.
    #[error("the command of cmd: failed ({0}); run it by hand to see why")]
    Failed(ExitStatus),
    /// The command took too long.
    #[error("the command of cmd: was stopped after {0:?}")]
    Timeout(Duration),
    /// Not UTF-8 where text is wanted.
    #[error("it is not UTF-8 text")]
    NotText,
}

impl Secret {
    /// The bytes as they were read. Every call site is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// As text, without a line end after it: passphrases and URLs.
    pub fn expose_text(&self) -> Result<&str, SecretError> {
        let text = std::str::from_utf8(&self.bytes).map_err(|_| SecretError::NotText)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(text.strip_suffix('\r').unwrap_or(text))
    }

    /// As a passphrase.
    pub fn into_passphrase(self) -> Result<SecretString, SecretError> {
        let text = self.expose_text()?;
        if text.is_empty() {
            return Err(SecretError::Empty("the passphrase".to_owned()));
        }
        Ok(SecretString::from(text.to_owned()))
    }
}

impl<'a> SecretReader<'a> {
    /// A reader over an environment.
    pub fn new(environment: impl Fn(&str) -> Option<OsString> + 'a) -> Self {
        Self {
            environment: Box::new(environment),
            kept_from_children: vec![PASSPHRASE_VARIABLE.to_owned()],
            command_timeout: COMMAND_TIMEOUT,
        }
    }

    /// The same reader, giving commands another time to finish.
    pub fn with_command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Notes that a reference is in use: its variable is kept from the commands that are run for other references.
    pub fn keep_from_children(&mut self, reference: &SecretRef) {
        if let SecretRef::Env(name) = reference {
            self.kept_from_children.push(name.clone());
        }
    }

    /// The variables that commands do not inherit.
    pub fn kept_from_children(&self) -> &[String] {
        &self.kept_from_children
    }

    /// Reads a secret. `what` names it in a prompt: "passphrase of reseal.keyring".
    pub fn read(&self, reference: &SecretRef, what: &str) -> Result<Secret, SecretError> {
        self.read_from(reference, what, Reachable::ByOwnerOnly)
    }

    /// Reads a secret that is new, such as a first passphrase: a prompt asks twice.
    pub fn read_new(&self, reference: &SecretRef, what: &str) -> Result<Secret, SecretError> {
        let secret = self.read(reference, what)?;
        if *reference == SecretRef::Prompt {
            let again = self.read(reference, &format!("{what}, again"))?;
            if secret.bytes != again.bytes {
                return Err(SecretError::Mismatch);
            }
        }
        Ok(secret)
    }

    /// Reads a database URL. Unlike keys, it may stand in a file that others can read.
    pub fn read_url(&self, reference: &UrlRef) -> Result<Zeroizing<String>, SecretError> {
        match reference {
            UrlRef::Literal(url) => Ok(url.clone()),
            UrlRef::Secret(reference) => {
                let secret = self.read_from(reference, "database URL", Reachable::ByAnybody)?;
                Ok(Zeroizing::new(secret.expose_text()?.to_owned()))
            }
        }
    }

    fn read_from(&self, reference: &SecretRef, what: &str, reachable: Reachable) -> Result<Secret, SecretError> {
        let bytes = match reference {
            SecretRef::Env(name) => self.read_variable(name),
            SecretRef::File(path) => read_file(path, reachable),
            SecretRef::Fd(number) => read_descriptor(*number),
            SecretRef::Prompt => ask(what),
            SecretRef::Command(command) => self.run(command),
        }?;
        if bytes.len() > SECRET_BYTES_MAX {
            Err(SecretError::TooLarge(reference.to_string()))
        } else if bytes.iter().all(u8::is_ascii_whitespace) {
            Err(SecretError::Empty(reference.to_string()))
        } else {
            Ok(Secret { bytes })
        }
    }

    fn read_variable(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let value = (self.environment)(name).ok_or_else(|| SecretError::Unset(name.to_owned()))?;
        Ok(Zeroizing::new(value.into_vec()))
    }

    fn run(&self, command: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // A group of its own, so that what the shell starts is stopped with it.
        shell.process_group(0);
        for name in &self.kept_from_children {
            shell.env_remove(name);
        }
        let mut child = shell.spawn().map_err(SecretError::Start)?;
        let (sender, receiver) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || sender.send(read_bounded(output)));
        }
        let answer = receiver.recv_timeout(self.command_timeout);
        if !matches!(&answer, Ok(Ok(bytes)) if bytes.len() <= SECRET_BYTES_MAX) {
            let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
        let status = child.wait().map_err(SecretError::Start)?;
        match answer {
            Err(_) => Err(SecretError::Timeout(self.command_timeout)),
            Ok(Err(error)) => Err(SecretError::Start(error)),
            Ok(Ok(bytes)) if status.success() || bytes.len() > SECRET_BYTES_MAX => Ok(bytes),
            Ok(Ok(_)) => Err(SecretError::Failed(status)),
        }
    }
}

/// Who may be able to read a file that a secret is read from.
#[derive(Clone, Copy)]
enum Reachable {
    ByOwnerOnly,
    ByAnybody,
}

fn read_file(path: &Path, reachable: Reachable) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |fault| SecretError::File {
        path: path.to_owned(),
        fault,
    };
    // Links are followed: orchestrators mount secrets as links. What counts is the file that was opened.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| failed(ReadFault::Io(error.into())))?);
    match reachable {
        Reachable::ByOwnerOnly => check_private(&file).map_err(failed)?,
        Reachable::ByAnybody => {}
    }
    read_bounded(file).map_err(|error| failed(ReadFault::Io(error)))
}

fn read_descriptor(number: u32) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| SecretError::Descriptor { number, source };
    let file = File::open(format!("/dev/fd/{number}")).map_err(failed)?;
    read_bounded(file).map_err(failed)
}

fn ask(what: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    terminal.map_err(|_| SecretError::NoTerminal)?;
    let answer = rpassword::prompt_password(format!("{what}: ")).map_err(SecretError::Prompt)?;
    Ok(Zeroizing::new(answer.into_bytes()))
}

/// At most one byte more than a secret may have; the buffer never moves.
fn read_bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 64));
    let max = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX);
    from.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of a secret. The largest that people keep are keysets of some kilobytes; more means a wrong file.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Long enough for a secret store far away and a touch on a hardware token, short enough to notice.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the passphrase of the keyring is looked for by default.
const PASSPHRASE_VARIABLE: &str = "RESEAL_PASSPHRASE";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn reader() -> SecretReader<'static> {
        SecretReader::new(|name| match name {
            "SET" => Some("from the environment\n".into()),
            "BLANK" => Some("\n".into()),
            _ => None,
        })
    }

    fn read(reference: &str) -> Result<Secret, SecretError> {
        reader().read(&reference.parse().unwrap(), "test")
    }

    #[test]
    fn variables_are_read_whole_and_blank_ones_refused() {
        let secret = read("env:SET").unwrap();
        assert_eq!(secret.expose(), b"from the environment\n");
        assert_eq!(secret.expose_text().unwrap(), "from the environment");
        assert!(matches!(read("env:BLANK"), Err(SecretError::Empty(_))));
        assert!(matches!(read("env:UNSET"), Err(SecretError::Unset(name)) if name == "UNSET"));
    }

    #[test]
    fn files_that_others_can_read_are_refused_for_keys_and_not_for_urls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "sqlite:x").unwrap();
        let reference = format!("file:{}", path.display());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(
            read(&reference),
            Err(SecretError::File {
                fault: ReadFault::Mode { mode: 0o640 },
                ..
            })
        ));
        assert_eq!(reader().read_url(&reference.parse().unwrap()).unwrap().as_str(), "sqlite:x");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&reference).unwrap().expose(), b"sqlite:x");
        let is_missing = |fault: &ReadFault| matches!(fault, ReadFault::Io(error) if error.kind() == io::ErrorKind::NotFound);
        assert!(matches!(read("file:/nowhere/at/all"), Err(SecretError::File { fault, .. }) if is_missing(&fault)));
    }

    #[test]
    fn commands_are_bounded_in_time_and_size_and_their_failures_reported() {
        assert_eq!(read("cmd:printf hello").unwrap().expose(), b"hello");
        assert!(matches!(read("cmd:echo secret; exit 3"), Err(SecretError::Failed(status)) if status.code() == Some(3)));
        assert!(matches!(read("cmd:true"), Err(SecretError::Empty(_))));
        assert!(matches!(read("cmd:yes"), Err(SecretError::TooLarge(_))));
        let impatient = reader().with_command_timeout(Duration::from_millis(50));
        let slow = "cmd:sleep 600 & sleep 600".parse().unwrap();
        assert!(matches!(impatient.read(&slow, "test"), Err(SecretError::Timeout(_))));
    }

    #[test]
    fn commands_see_neither_standard_input_nor_variables_of_other_references() {
        // Cargo sets this variable for every test: it stands for one that holds a secret.
        let mut reader = reader();
        let show = "cmd:printf %s \"${CARGO_MANIFEST_DIR-gone}\"; cat".parse().unwrap();
        assert_ne!(reader.read(&show, "test").unwrap().expose(), b"gone");
        reader.keep_from_children(&"env:CARGO_MANIFEST_DIR".parse().unwrap());
        assert_eq!(reader.read(&show, "test").unwrap().expose(), b"gone");
    }

    #[test]
    fn descriptors_are_read_and_closed_ones_reported() {
        use std::os::fd::AsRawFd;
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"through a descriptor").unwrap();
        let secret = read(&format!("fd:{}", file.as_raw_fd())).unwrap();
        assert_eq!(secret.expose(), b"through a descriptor");
        assert!(matches!(
            read("fd:999999"),
            Err(SecretError::Descriptor { number: 999_999, .. })
        ));
    }
}
