//! Probes of the operator's own, run all along: a command that must succeed, or a URL that must answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use super::clock::{Moment, now, seconds_between};
use super::process::Part;

/// What a probe found. Neither commands nor URLs are repeated in full: they may hold secrets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeReport {
    /// Its number and what it begins with: `1 (curl)`, `2 (https://staging.example.org)`.
    pub name: String,
    /// How often it was run.
    pub runs: u64,
    /// How often it failed.
    pub failed: u64,
    /// The slowest run, in milliseconds.
    pub slowest_ms: f64,
    /// The first failure: seconds after the beginning, and why.
    pub first_failure: Option<(f64, String)>,
}

/// Probes that run by themselves.
pub struct Probes {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<ProbeReport>>,
}

impl Probes {
    /// Starts them; the first run of each is on its way when this returns.
    pub fn start(commands: &[String], hidden: &[String], program: &Path, origin: Moment) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut probes = Self {
            stop,
            threads: Vec::new(),
        };
        for (number, command) in (1..).zip(commands) {
            let probe = Probe {
                name: format!("{number} ({})", beginning(command)),
                what: match http_url(command) {
                    Some(url) => What::Url(url),
                    None => What::Command([command.into()]),
                },
                program: program.to_owned(),
                hidden: hidden.to_vec(),
                origin,
                stop: Arc::clone(&probes.stop),
            };
            let thread = thread::Builder::new()
                .name(format!("probe-{number}"))
                .spawn(move || probe.run())?;
            probes.threads.push(thread);
        }
        Ok(probes)
    }

    /// Ends them, each after its present run.
    pub fn finish(mut self) -> Vec<ProbeReport> {
        self.stop.store(true, Ordering::SeqCst);
        // A probe that panicked has no report; a rehearsal with one report too few is found out by its caller.
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).collect()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Probe {
    name: String,
    what: What,
    program: PathBuf,
    /// Variables of the environment that it does not get.
    hidden: Vec<String>,
    origin: Moment,
    stop: Arc<AtomicBool>,
}

enum What {
    Command([OsString; 1]),
    Url(Url),
}

impl Probe {
    fn run(self) -> ProbeReport {
        let mut report = ProbeReport {
            name: self.name.clone(),
            runs: 0,
            failed: 0,
            slowest_ms: 0.0,
            first_failure: None,
        };
        loop {
            let (at, begun) = (now(), Instant::now());
            let outcome = match &self.what {
                What::Command(command) => self.command(command),
                What::Url(url) => get(url),
            };
            let took = begun.elapsed();
            // A run that the end of the drill cut short says nothing.
            let was_cut_short = matches!(outcome, Ok(false));
            if !was_cut_short {
                report.runs += 1;
                report.slowest_ms = report.slowest_ms.max(took.as_secs_f64() * 1e3);
            }
            if let Err(why) = outcome {
                report.failed += 1;
                report.first_failure.get_or_insert((seconds_between(self.origin, at), why));
            }
            let until = begun + EVERY;
            while Instant::now() < until {
                if self.stop.load(Ordering::SeqCst) {
                    return report;
                }
                thread::sleep(LOOK_EVERY);
            }
            if self.stop.load(Ordering::SeqCst) {
                return report;
            }
        }
    }

    /// Whether it ran to its end; an error says how it failed.
    fn command(&self, command: &[OsString]) -> Result<bool, String> {
        let started = Part::Probe.start_without(&self.hidden, &self.program, command);
        let mut process = started.map_err(|error| format!("it could not be started: {error}"))?;
        let begun = Instant::now();
        loop {
            match process.wait(LOOK_EVERY) {
                Ok(Some(status)) if status.success() => return Ok(true),
                Ok(Some(status)) => {
                    return Err(match status.code() {
                        Some(code) => format!("exit status {code}"),
                        None => "it was killed".to_owned(),
                    });
                }
                Ok(None) if self.stop.load(Ordering::SeqCst) && begun.elapsed() >= PATIENCE_AT_THE_END => {
                    process.end_input();
                    let _ = process.wait(LOOK_EVERY * 20);
                    return Ok(false);
                }
                Ok(None) if begun.elapsed() >= ANSWERED_WITHIN => {
                    process.end_input();
                    let _ = process.wait(LOOK_EVERY * 20);
                    return Err(no_answer());
                }
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Whether the URL answers with success, redirections followed.
fn get(url: &Url) -> Result<bool, String> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWERED_WITHIN))
        .tls_config(tls)
        .build()
        .into();
    match agent.get(url.as_str()).call() {
        Ok(_) => Ok(true),
        Err(ureq::Error::StatusCode(code)) => Err(format!("HTTP status {code}")),
        Err(ureq::Error::Timeout(_)) => Err(no_answer()),
        Err(ureq::Error::HostNotFound) => Err("the host was not found".to_owned()),
        Err(ureq::Error::Io(error)) => Err(error.kind().to_string()),
        // The texts of the rest may repeat the URL.
        Err(_) => Err("the request failed".to_owned()),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", ANSWERED_WITHIN.as_secs())
}

fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// A URL without user, path and query; the first word of a command without its folder.
fn beginning(command: &str) -> String {
    if let Some(url) = http_url(command) {
        return url.origin().ascii_serialization();
    }
    let word = command.split_whitespace().next().unwrap_or_default();
    let name = word.rsplit('/').next().unwrap_or_default();
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if is_plain && !name.is_empty() {
        name.to_owned()
    } else {
        "command".to_owned()
    }
}

/// Often enough to meet every phase.
const EVERY: Duration = Duration::from_millis(500);
/// A probe that takes longer has failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// When the drill is over, a run that is under way has this long.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_named_without_its_secrets() {
        assert_eq!(beginning("/usr/bin/curl -H 'Authorization: x' http://a"), "curl");
        assert_eq!(beginning("TOKEN=secret curl"), "command");
        assert_eq!(
            beginning("https://user:secret@staging.example.org/health?token=secret"),
            "https://staging.example.org"
        );
    }
}
