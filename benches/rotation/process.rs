//! Running the real binary and reading what it reports.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What one run of `reseal rotate` reported of itself, and its peak memory.
pub struct Run {
    pub rows_per_second: f64,
    pub whole_over_reencrypt: f64,
    pub peak_kib: u64,
}

/// Rotates `t.note_ct` from `OLD` to `NEW`.
pub fn rotate(database: &str, old: &str, new: &str, more: &[&str]) -> Result<Run, Box<dyn Error>> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_reseal"))
        .args([
            "rotate", "--table", "t", "--column", "note_ct", "--from", "env:OLD", "--to", "env:NEW",
        ])
        .args(["--dual-read-confirmed", "--yes", "--json"])
        .args(more)
        .env("DATABASE_URL", database)
        .env("OLD", old)
        .env("NEW", new)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait()?.is_none() {
        if let Some(peak) = peak_of(&status) {
            peak_kib = peak;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    if report["verified"] != true {
        return Err(format!("the rotation did not verify: {report}").into());
    }
    let phases = report["phases"].as_array().ok_or("no phases")?;
    let reencrypt = phases
        .iter()
        .find(|phase| phase["name"] == "re-encrypt")
        .and_then(|phase| phase["seconds"].as_f64())
        .ok_or("no re-encrypt phase")?;
    Ok(Run {
        rows_per_second: report["rows_per_second"].as_f64().ok_or("no rate")?,
        whole_over_reencrypt: report["elapsed_seconds"].as_f64().ok_or("no time")? / reencrypt,
        peak_kib,
    })
}

fn peak_of(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
