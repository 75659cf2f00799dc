//! Where the reports of a rehearsal go.
//!
//! Those of an earlier run are removed before anything else; then they are written twice: before the rehearsal begins as one that has not
//! come to its end, and after it. Whatever happens in between, nobody finds the good report of an earlier run.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, Exit};
use crate::key::write_public;
use crate::report::{self, Rehearsal};

/// Which reports are wanted.
#[derive(Args)]
pub struct ReportArgs {
    /// Write report.html (one page, works offline), report.md (for a pull request) and report.json to this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Write JUnit XML to this file: a test case for each promise and each probe
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl ReportArgs {
    /// Removes what an earlier run has written there.
    pub fn forget(&self) -> Result<(), CliError> {
        let pages = ["report.html", "report.md", "report.json"];
        let of_folder = self.report.iter().flat_map(|folder| pages.map(|page| folder.join(page)));
        for file in of_folder.chain(self.junit.clone()) {
            match fs::remove_file(&file) {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Err(unwritten(&file, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what was asked for; files of an earlier run are replaced.
    pub fn write(&self, rehearsal: &Rehearsal) -> Result<(), CliError> {
        if let Some(folder) = &self.report {
            fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
            write(&folder.join("report.html"), report::html(rehearsal))?;
            write(
                &folder.join("report.md"),
                Ok::<_, std::convert::Infallible>(report::markdown(rehearsal)),
            )?;
            write(&folder.join("report.json"), report::json(rehearsal))?;
        }
        if let Some(file) = &self.junit {
            write(file, report::junit(rehearsal))?;
        }
        Ok(())
    }

    /// Where a person finds the page.
    pub fn page(&self) -> Option<PathBuf> {
        self.report.as_ref().map(|folder| folder.join("report.html"))
    }
}

/// Removes what an earlier run has written where a command line names its reports that could not be understood as a whole. What is no
/// report is left alone: the name may be another option's value.
pub fn forget_named(arguments: &[OsString]) {
    let (mut report, mut junit) = (None, None);
    for (at, argument) in arguments.iter().enumerate() {
        for (option, place) in [("--report", &mut report), ("--junit", &mut junit)] {
            let Some(rest) = argument.as_bytes().strip_prefix(option.as_bytes()) else {
                continue;
            };
            let value = match rest {
                [] => arguments.get(at + 1).map(OsString::as_os_str),
                [b'=', value @ ..] => Some(OsStr::from_bytes(value)),
                _ => None,
            };
            *place = value.filter(|value| !value.as_bytes().starts_with(b"-")).map(PathBuf::from);
        }
    }
    let junit = junit.filter(|file| is_junit(file));
    // What cannot be removed cannot be told either: the usage error goes first.
    let _ = ReportArgs { report, junit }.forget();
}

fn is_junit(file: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(JUNIT_BYTES).read_to_end(&mut beginning));
    read.is_ok() && beginning.windows(JUNIT.len()).any(|part| part == JUNIT)
}

fn write<E: std::error::Error>(file: &Path, text: Result<String, E>) -> Result<(), CliError> {
    let text = text.map_err(|error| CliError::from_error(Exit::Bug, &error).at(format!("file {}", file.display())))?;
    write_public(file, text.as_bytes(), true).map_err(|fault| unwritten(file, &fault))
}

fn unwritten(place: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::from_error(Exit::Unusable, error)
        .at(format!("report {}", place.display()))
        .next("name a place for --report and --junit that can be written and has room")
}

/// What a JUnit file of ours says right after its declaration.
const JUNIT: &[u8] = b"<testsuites";
const JUNIT_BYTES: u64 = 256;
