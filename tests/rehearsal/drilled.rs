//! A drill, run to its end by the binary, and what it must leave behind: nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Database, reseal_process, tempdir};

/// Small, and large enough to be killed in the middle.
pub const SMALL: [&str; 10] = [
    "--rows",
    "4000",
    "--readers",
    "4",
    "--writers",
    "2",
    "--duration",
    "1",
    "--seed",
    "7",
];

/// A drill that ran to its end.
pub struct Drilled {
    pub code: Option<i32>,
    pub document: Value,
    pub told: String,
    pub temporary: tempfile::TempDir,
}

pub fn drill(database: Option<&Database>, arguments: &[&str]) -> Drilled {
    drill_with(database, arguments, &[])
}

/// With these variables in its environment.
pub fn drill_with(database: Option<&Database>, arguments: &[&str], variables: &[(&str, &str)]) -> Drilled {
    let temporary = tempdir();
    let mut command = reseal_process();
    command
        .args(["drill", "--json"])
        .args(arguments)
        .envs(variables.iter().copied())
        .env("TMPDIR", temporary.path());
    if let Some(database) = database {
        command.args(["--database", "env:STAGING"]).env("STAGING", database.url());
    }
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    Drilled {
        code: output.status.code(),
        document: serde_json::from_slice(&output.stdout).expect(&told),
        told,
        temporary,
    }
}

impl Drilled {
    #[track_caller]
    pub fn assert_good(&self) {
        let Self { document, told, .. } = self;
        assert_eq!(self.code, Some(0), "{told}\n{document:#}");
        for field in [
            "failed_reads",
            "failed_writes",
            "lost_writes",
            "resurrected_rows",
            "wrong_values",
            "values_under_old_key",
            "unreadable_values",
            "exit",
        ] {
            assert_eq!(document[field], 0, "{field}");
        }
        assert_eq!(document["verdict"], "good");
        assert_eq!(document["findings"], serde_json::json!([]));
        assert!(document["reads"].as_u64().unwrap() > 100);
        assert!(document["writes"].as_u64().unwrap() > 20);
        assert!(document["rows_checked"].as_u64() > document["reads"].as_u64());
        let (old, new) = (document["old_key"].to_string(), document["new_key"].to_string());
        let keys = |census: &str| -> Vec<String> { document[census].as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys("census_before"), [old]);
        assert_eq!(keys("census_after"), [new]);
        assert!(told.contains("Verdict: good."), "{told}");
        assert_leaves_no_file(self.temporary.path());
    }

    /// The outcomes of the faults of this name, or whose name begins like this.
    pub fn outcomes(&self, name: &str) -> Vec<&str> {
        let faults = self.document["faults"].as_array().unwrap().iter();
        let named = faults.filter(|fault| fault["name"].as_str().unwrap().starts_with(name));
        named.map(|fault| fault["outcome"].as_str().unwrap()).collect()
    }
}

#[track_caller]
pub fn assert_leaves_no_file(temporary: &Path) {
    let left: Vec<_> = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Neither the drill's schema, nor Reseal's own, nor a connection.
#[track_caller]
pub fn assert_leaves_no_schema(database: &Database) {
    let schemas = database.texts("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'reseal%'");
    assert!(schemas.is_empty(), "left behind: {schemas:?}");
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'reseal%'";
    within_seconds("the drill's connections end", 10, || database.count(sessions) == 0);
}

#[track_caller]
pub fn within_seconds(what: &str, seconds: u64, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
