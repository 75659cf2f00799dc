//! Programs that take a secret on standard input: bounded in time and output, their error output thrown away because it may
//! repeat what they were given.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ChildFault {
    /// There is no such program.
    #[error("{0} is not installed")]
    NotInstalled(&'static str),
    /// It did not start or could not be talked to.
    #[error("it could not be run")]
    Run(#[source] io::Error),
    /// It failed.
    #[error("it failed ({0}); run it by hand to see why")]
    Failed(ExitStatus),
    /// It took too long.
    #[error("it was stopped after {0:?}")]
    Timeout(Duration),
}

/// Runs a program with `input` on standard input, and gives its standard output.
pub(super) fn run(mut command: Command, input: &[u8], timeout: Duration) -> Result<Zeroizing<Vec<u8>>, ChildFault> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A group of its own, so that what it starts is stopped with it.
    command.process_group(0);
    let mut child = command.spawn().map_err(ChildFault::Run)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let deadline = Instant::now() + timeout;
    std::thread::scope(|scope| {
        // Both ends at once: a program may answer before it has read everything.
        let writing = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
        let reading = scope.spawn(move || stdout.map_or(Ok(Zeroizing::default()), read_bounded));
        let status = wait(&mut child, deadline);
        if !matches!(status, Ok(Some(_))) {
            stop(&child);
            // It is gone now; its pipes are closed, and the threads end.
            let _ = child.wait();
        }
        let (written, read) = (writing.join(), reading.join());
        match status.map_err(ChildFault::Run)? {
            None => Err(ChildFault::Timeout(timeout)),
            Some(status) if !status.success() => Err(ChildFault::Failed(status)),
            Some(_) => match (written, read) {
                (Ok(Ok(())), Ok(Ok(output))) => Ok(output),
                (Ok(Err(error)), _) | (_, Ok(Err(error))) => Err(ChildFault::Run(error)),
                (Err(_), _) | (_, Err(_)) => Err(ChildFault::Run(io::Error::other("a thread panicked"))),
            },
        }
    })
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn stop(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself meanwhile.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn read_bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX + 1));
    let limit = u64::try_from(OUTPUT_BYTES_MAX).unwrap_or(u64::MAX);
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > OUTPUT_BYTES_MAX {
        return Err(io::Error::other("it printed more than a secret has"));
    }
    Ok(bytes)
}

/// Far below what a person notices.
const POLL: Duration = Duration::from_millis(5);

/// An encrypted credential of a secret of the largest size.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Zeroizing<Vec<u8>>, ChildFault> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        run(command, b"input", Duration::from_millis(500))
    }

    #[test]
    fn input_arrives_and_failures_are_told_apart() {
        assert_eq!(shell("cat").unwrap().as_slice(), b"input");
        assert!(matches!(shell("cat >/dev/null; exit 3"), Err(ChildFault::Failed(status)) if status.code() == Some(3)));
        assert!(matches!(shell("sleep 600 & sleep 600"), Err(ChildFault::Timeout(_))));
        assert!(shell("head -c 300000 /dev/zero; cat >/dev/null").is_err());
    }
}
