//! Canaries: every secret of a run, searched in every place where it must not be.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use reseal::format::by_name;
use reseal::key::KeyEncoding;

use super::desk::{Column, Desk, Pair, Place, Run, on_t, seal};
use crate::support::{self, Canary};

/// The plaintext of a row: nothing that could stand anywhere by chance.
fn secret_plaintext(id: i64) -> Vec<u8> {
    format!("{}-{id}", support::passphrase()).into_bytes()
}

/// All files below a folder, with their contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn password(url: &str) -> Option<String> {
    let (front, _) = url.rsplit_once('@')?;
    Some(front.rsplit_once(':')?.1.to_owned())
}

/// What the statements log grew by since `from`.
fn log_since(desk: &Desk, from: usize) -> Vec<u8> {
    match &desk.place {
        Place::Sqlite => Vec::new(),
        Place::Postgres(database) => {
            let log = database.log();
            log[from.min(log.len())..].to_vec()
        }
    }
}

fn control_tables(desk: &Desk) -> Vec<u8> {
    let mut dump = String::new();
    for table in ["meta", "plan", "range", "quarantine"] {
        let rows = if desk.is_postgres() {
            desk.texts(&format!("SELECT r::text FROM reseal.\"{table}\" r"))
        } else {
            let columns = desk.texts(&format!("SELECT group_concat('coalesce(hex(' || name || '), '''')', ' || ''|'' || ') FROM pragma_table_info('reseal_{table}')"));
            desk.texts(&format!("SELECT {} FROM reseal_{table}", columns[0]))
        };
        dump.push_str(&rows.join("\n"));
    }
    dump.into_bytes()
}

/// A run that meets everything at once: plaintext, broken values, a row that the server refuses and logs with its parameters, then a
/// wrong password.
#[test]
fn no_secret_of_a_run_gets_out() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        let plaintexts: Vec<Vec<u8>> = (0..60).map(secret_plaintext).collect();
        desk.table(Column::Text);
        let mut values: Vec<_> = plaintexts.iter().map(|plain| Some(pair.old_value(plain, b""))).collect();
        let mut broken = values[0].clone().unwrap();
        broken[30] ^= 1;
        values.push(Some(broken));
        desk.insert(Column::Text, 1, &values);
        if desk.is_postgres() {
            let seventh = desk.literal(Column::Text, values[6].as_deref());
            desk.execute(&format!("ALTER TABLE t ADD CHECK (id <> 7 OR c = {seventh})"));
        }
        desk.execute(if desk.is_postgres() {
            "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF NEW.id = 9 THEN RAISE EXCEPTION 'no: %', NEW.c; END IF; RETURN NEW; END $$;
             CREATE TRIGGER complain BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION complain()"
        } else {
            "CREATE TRIGGER complain BEFORE UPDATE ON t WHEN NEW.id = 9 BEGIN SELECT RAISE(ABORT, 'no'); END"
        });
        let log_from = log_since(&desk, 0).len();

        let url = desk.url();
        let mut canaries = vec![
            Canary::base64url_key("the old key", &pair.old_text),
            Canary::base64url_key("the new key", &pair.new_text),
        ];
        canaries.extend(plaintexts.iter().map(|plain| Canary::new("a plaintext", plain)));
        canaries.extend(password(&url).map(|password| Canary::new("the database password", password.as_bytes())));

        let environment = [
            ("OLD", pair.old_text.as_str()),
            ("NEW", pair.new_text.as_str()),
            ("RUST_LOG", "trace"),
        ];
        let mut said = Vec::new();
        for (command, exit, more) in [
            ("plan", 0, &["--accept", "trigger:complain"][..]),
            ("rotate", 7, &["--accept", "trigger:complain"]),
            ("verify", 7, &[]),
        ] {
            let arguments = on_t(command, "fernet", more);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut process = desk.process(&arguments, &environment);
            process.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = process.spawn().unwrap();
            let argv = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
            let output = child.wait_with_output().unwrap();
            Run::of(&output).expect(exit);
            said.push((format!("arguments of {command}"), argv));
            said.push((format!("standard output of {command}"), output.stdout));
            said.push((format!("standard error of {command}"), output.stderr));
        }
        said.push(("control tables".to_owned(), control_tables(&desk)));
        said.extend(files(desk.folder.path()));
        let log = log_since(&desk, log_from);
        if desk.is_postgres() {
            let text = String::from_utf8_lossy(&log);
            for logged in ["swapped AS (UPDATE", "violates check constraint", "no: gAAAA"] {
                assert!(
                    text.contains(logged),
                    "the log holds our statements and what went wrong: {logged}"
                );
            }
        }
        said.push(("the server's log".to_owned(), log));
        for (place, text) in &said {
            for canary in &canaries {
                canary.assert_absent(&format!("{} ({})", place, desk.name()), text);
            }
        }
        // The search itself finds what is there: the new ciphertexts are in the table.
        let stored = desk.values(Column::Text)[&1].clone().unwrap();
        assert_eq!(pair.open_new(&stored, b""), plaintexts[0]);
    }
}

/// A panic, a failure and a child process tell nothing either.
#[test]
fn children_see_no_secret_and_failures_quote_none() {
    for desk in Desk::each() {
        let pair = Pair::of("fernet");
        desk.table(Column::Text);
        desk.insert(Column::Text, 1, &[Some(pair.old_value(b"x", b""))]);
        let spy = "cmd:env > seen.txt; tr '\\0' '\\n' < /proc/$PPID/cmdline >> seen.txt; cat old.key";
        let mut file = std::fs::File::create(desk.folder.path().join("old.key")).unwrap();
        file.write_all(pair.old_text.as_bytes()).unwrap();
        let run = desk.run(
            &[
                "rotate",
                "--table",
                "t",
                "--column",
                "c",
                "--format",
                "fernet",
                "--from",
                spy,
                "--to",
                "env:NEW",
                "--yes",
                "--dual-read-confirmed",
            ],
            &[
                ("NEW", &pair.new_text),
                ("RESEAL_PASSPHRASE", "a-passphrase-of-another-keyring"),
            ],
        );
        run.expect(0);
        let mut seen = Vec::new();
        std::fs::File::open(desk.folder.path().join("seen.txt"))
            .unwrap()
            .read_to_end(&mut seen)
            .unwrap();
        assert!(seen.windows(5).any(|part| part == b"PATH="), "the command ran");
        Canary::base64url_key("the new key", &pair.new_text).assert_absent("a child's environment", &seen);
        Canary::new("a passphrase", b"a-passphrase-of-another-keyring").assert_absent("a child's environment", &seen);
        if let Some(password) = password(&desk.url()) {
            Canary::new("the database password", password.as_bytes()).assert_absent("a child's environment", &seen);
        }
        // Its own failure is told without what it printed.
        let arguments = [
            "plan", "--table", "t", "--column", "c", "--format", "fernet", "--to", "env:NEW", "--from",
        ];
        let failing = format!("cmd:cat old.key; echo {} >&2; exit 3", "error-text-of-the-command");
        let run = desk.run(&[&arguments[..], &[&failing]].concat(), &[("NEW", &pair.new_text)]);
        run.expect(3);
        let told = format!("{}{}", run.stderr, run.stdout);
        Canary::base64url_key("the old key", &pair.old_text).assert_absent("an error", told.as_bytes());
        assert!(!told.contains("error-text-of-the-command"), "{told}");
    }
}

/// Keys of a keyring: its passphrase and the materials inside.
#[test]
fn no_secret_of_a_keyring_gets_out() {
    use reseal::key::{Keyring, Unlock};
    let passphrase = support::passphrase();
    let desk = Desk::sqlite();
    let environment = [("RESEAL_PASSPHRASE", passphrase.as_str())];
    let mut said = Vec::new();
    let mut keys = |arguments: &[&str]| {
        let output = desk
            .process(&[&["keys"], arguments].concat(), &environment)
            .arg("--json")
            .output()
            .unwrap();
        said.push(("standard output of keys".to_owned(), output.stdout.clone()));
        said.push(("standard error of keys".to_owned(), output.stderr.clone()));
        Run::of(&output).expect(0).json["key"].as_u64()
    };
    keys(&["generate", "cd", "--algorithm", "fernet"]);
    keys(&["generate", "cd", "--algorithm", "fernet"]);
    let path = desk.folder.path().join("reseal.keyring");
    let unlock = Unlock::passphrase(age::secrecy::SecretString::from(passphrase.clone()));
    let keyring = Keyring::open(&path, &unlock, 0).unwrap();
    let materials: Vec<Vec<u8>> = keyring.keysets()[0]
        .keys()
        .iter()
        .map(|key| key.material().unwrap().expose().to_vec())
        .collect();
    let old = KeyEncoding::detect(hex(&materials[0]).as_bytes()).unwrap();
    let old = by_name("fernet").unwrap().cipher(&old, None).unwrap();
    keys(&["promote", "cd"]);
    desk.table(Column::Text);
    desk.insert(
        Column::Text,
        1,
        &[Some(seal(&*old, b"a plaintext under a keyring's key", b""))],
    );
    let output = desk
        .process(
            &[
                "rotate",
                "--table",
                "t",
                "--column",
                "c",
                "--format",
                "fernet",
                "--from",
                "keyring:cd",
                "--to",
                "keyring:cd",
                "--yes",
                "--json",
            ],
            &environment,
        )
        .output()
        .unwrap();
    Run::of(&output).expect(0);
    let wrong = desk
        .process(&["keys", "list"], &[("RESEAL_PASSPHRASE", "another-wrong-passphrase")])
        .arg("--json")
        .output()
        .unwrap();
    Run::of(&wrong).expect(3);
    for (what, output) in [("rotate", output), ("keys list", wrong)] {
        said.push((format!("standard output of {what}"), output.stdout));
        said.push((format!("standard error of {what}"), output.stderr));
    }
    said.extend(files(desk.folder.path()));
    let mut canaries = vec![
        Canary::new("the passphrase", passphrase.as_bytes()),
        Canary::new("a wrong passphrase", b"another-wrong-passphrase"),
        Canary::new("the plaintext", b"a plaintext under a keyring's key"),
    ];
    canaries.extend(materials.iter().map(|material| Canary::new("a key of the keyring", material)));
    for (place, text) in &said {
        for canary in &canaries {
            canary.assert_absent(place, text);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
