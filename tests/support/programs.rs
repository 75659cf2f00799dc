//! Programs that tests run: the `reseal` binary and Python peers, both in an environment that holds nothing but what the test puts there.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The binary, with an empty environment but for `PATH`, ready for `.args(…).assert()`. Ends after two minutes at the latest.
pub fn reseal() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::from_std(reseal_process());
    command.timeout(std::time::Duration::from_secs(120));
    command
}

/// The same as a plain [`Command`], for tests that spawn it, signal it or read it while it runs.
pub fn reseal_process() -> Command {
    clean(Path::new(env!("CARGO_BIN_EXE_reseal")))
}

/// `tests/interop/<script>` under the interpreter that `scripts/test` prepared, or `None` after saying that the test is skipped.
/// Secrets go in by `.env(…)` or a file.
pub fn python(script: &str) -> Option<Command> {
    let Some(interpreter) = std::env::var_os("RESEAL_TEST_PYTHON") else {
        super::skip("no Python with the peers' libraries (scripts/test prepares one)");
        return None;
    };
    let mut command = clean(Path::new(&interpreter));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script));
    Some(command)
}

/// `tests/interop/<script>` under Node.js with the packages that `scripts/test` prepared, or `None` after saying that the test is
/// skipped.
pub fn node(script: &str) -> Option<Command> {
    let Some(modules) = std::env::var_os("RESEAL_TEST_NODE_MODULES") else {
        super::skip("no Node.js with the peers' libraries (scripts/test prepares them)");
        return None;
    };
    let mut command = clean(Path::new("node"));
    command.env("NODE_PATH", modules);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script));
    Some(command)
}

/// A directory that goes away with the value.
pub fn tempdir() -> TempDir {
    tempfile::Builder::new()
        .prefix("reseal-test-")
        .tempdir()
        .expect("a directory can be made")
}

fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}
