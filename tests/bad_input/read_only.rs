//! Files of SQLite that may not be written: refused before anything is touched, and verified where SQLite can read them at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;

use super::desk::{Column, Desk, Pair, Run, on_t};

/// A file with one value under the new key, and the binary where everybody may run it.
struct Shelf {
    desk: Desk,
    pair: Pair,
    programs: tempfile::TempDir,
}

impl Shelf {
    fn new(journal: &str) -> Self {
        let (desk, pair) = (Desk::sqlite(), Pair::of("fernet"));
        desk.table(Column::Text);
        desk.insert(Column::Text, 1, &[Some(pair.new_value(b"one", b""))]);
        desk.execute(&format!("PRAGMA journal_mode = {journal}"));
        let programs = tempfile::tempdir().unwrap();
        fs::copy(desk.process(&[], &[]).get_program(), programs.path().join("reseal")).unwrap();
        fs::set_permissions(programs.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { desk, pair, programs }
    }

    fn file(&self) -> PathBuf {
        self.desk.folder.path().join("app.db")
    }

    fn allow(&self, file: u32, folder: u32) {
        fs::set_permissions(self.file(), PermissionsExt::from_mode(file)).unwrap();
        fs::set_permissions(&self.desk.folder, PermissionsExt::from_mode(folder)).unwrap();
    }

    /// As a user whom permissions bind.
    fn run(&self, command: &str) -> Run {
        let mut process = Command::new(self.programs.path().join("reseal"));
        process
            .env_clear()
            .current_dir("/")
            .args(on_t(command, "fernet", &["--json"]))
            .env("DATABASE_URL", self.desk.url())
            .env("OLD", &self.pair.old_text)
            .env("NEW", &self.pair.new_text);
        if rustix::process::geteuid().is_root() {
            process.uid(NOBODY).gid(NOBODY);
        }
        Run::of(&process.output().unwrap())
    }
}

#[test]
fn a_file_that_may_not_be_written_is_not_rotated() {
    for journal in ["DELETE", "WAL"] {
        for (file, folder) in [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555)] {
            let case = format!("{journal} {file:o} {folder:o}");
            let shelf = Shelf::new(journal);
            shelf.allow(file, folder);
            let before = fs::read(shelf.file()).unwrap();
            // Without a place for the index of its log, SQLite itself reads nothing.
            let is_readable = journal == "DELETE" || folder == 0o777;
            for command in ["plan", "rotate"] {
                let run = shelf.run(command);
                assert_eq!(run.exit, 4, "{case} {command}: {}", run.stderr);
                assert!(
                    run.stdout.contains("may write to the file and to its folder")
                        || run.stderr.contains("may write to it and to its folder"),
                    "{case} {command}: {}\n{}",
                    run.stderr,
                    run.stdout
                );
                assert!(!run.stderr.contains("primary"), "{case}: {}", run.stderr);
                if command == "rotate" {
                    assert!(run.stderr.contains("nothing was touched"), "{case}: {}", run.stderr);
                }
            }
            let verify = shelf.run("verify");
            if is_readable {
                assert_eq!(verify.expect(0).json["verified"], true, "{case}");
            } else {
                assert_eq!(verify.exit, 4, "{case}: {}", verify.stderr);
                assert!(verify.stderr.contains("WAL mode"), "{case}: {}", verify.stderr);
            }
            assert_eq!(fs::read(shelf.file()).unwrap(), before, "{case}");
            shelf.allow(0o666, 0o777);
        }
    }
}

#[test]
fn a_file_whose_log_somebody_else_has_open_is_verified() {
    let shelf = Shelf::new("WAL");
    let application = Connection::open(shelf.file()).unwrap();
    application.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    shelf.allow(0o666, 0o555);
    assert_eq!(shelf.run("verify").expect(0).json["verified"], true);
    assert_eq!(shelf.run("rotate").exit, 4);
    shelf.allow(0o666, 0o777);
    drop(application);
}

/// The user who owns nothing.
const NOBODY: u32 = 65534;
