//! Env files, manifests and programs that get new values: nothing else changes, nothing is lost, whatever happens in between.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod secret_files {
    pub mod steps;
}

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use proptest::prelude::*;
use reseal::key::{Step, Steps};
use reseal::secret::{Dotenv, FieldError, Fields, SecretFile};
use serde_json::Value;
use support::{Canary, python, random_bytes, reseal, tempdir};

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(config: &str) -> Self {
        let desk = Self { folder: tempdir() };
        desk.put("reseal.toml", config);
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
        self.set_mode(name, 0o600);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.file(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Runs `reseal secrets rotate ARGUMENTS --json`, expecting an exit code.
    fn rotate(&self, arguments: &str, exit: i32) -> Output {
        let mut command = reseal();
        command.current_dir(&self.folder).args(["secrets", "rotate", "--json"]);
        let output = command.args(arguments.split_whitespace()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {complaint}");
        output
    }

    /// A search path with what stands for systemd-creds, whose own key belongs to the machine: it checks the name and replaces every
    /// character.
    fn systemd_creds(&self) -> String {
        let program = r#"#!/bin/sh
[ "$1" = --version ] && exit 0
[ "$2 $3 $4" = '--name=token - -' ] || exit 7
if [ "$1" = encrypt ]; then tr 'a-f0-9,' 'u-zA-J;'; else tr 'u-zA-J;' 'a-f0-9,'; fi
"#;
        fs::create_dir(self.file("bin")).unwrap();
        self.put("bin/systemd-creds", program);
        self.set_mode("bin/systemd-creds", 0o700);
        format!("{}:{}", self.file("bin").display(), std::env::var("PATH").unwrap())
    }

    fn value(&self, file: &str, variable: &str) -> String {
        let dotenv = Dotenv::new(self.read(file).as_bytes());
        dotenv.value(variable).unwrap().unwrap().expose().to_owned()
    }
}

/// A value that no earlier test run has seen.
fn fresh() -> String {
    random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

const DJANGO: &str = r#"
[secret.SECRET_KEY]
kind = "django"
env_file = ".env"
previous = "SECRET_KEY_FALLBACKS"

[secret.fields]
kind = "fernet"
env_file = ".env"
variable = "ENCRYPTION_KEYS"
list = true

[secret.broken]
kind = "hex"
env_file = ".env"
variable = "NOT_THERE"
"#;

#[test]
fn a_scheduled_rotation_keeps_old_values_and_a_compromise_does_not() {
    let desk = Desk::new(DJANGO);
    let (old, field) = (fresh(), fresh());
    let before = format!("# app\nexport SECRET_KEY='{old}' # signs\r\nODD LINE\nENCRYPTION_KEYS=\"{field}\"\nDEBUG=0");
    desk.put(".env", &before);
    let output = desk.rotate("SECRET_KEY fields", 0);
    for text in [&output.stdout, &output.stderr] {
        Canary::new("the old key", old.as_bytes()).assert_absent("output", text);
        Canary::new("the new key", desk.value(".env", "SECRET_KEY").as_bytes()).assert_absent("output", text);
    }
    let (new, keys) = (desk.value(".env", "SECRET_KEY"), desk.value(".env", "ENCRYPTION_KEYS"));
    assert_eq!(
        desk.read(".env"),
        format!(
            "# app\nexport SECRET_KEY='{new}' # signs\r\nexport SECRET_KEY_FALLBACKS='{old}'\r\nODD LINE\nENCRYPTION_KEYS=\"{keys}\"\nDEBUG=0"
        )
    );
    assert_ne!(new, old);
    assert!(keys.ends_with(&format!(",{field}")), "the old field key is gone");
    assert_eq!(desk.read(".env.bak"), before);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["secrets"][1]["old_values_accepted"], 1);

    desk.rotate("SECRET_KEY", 0);
    assert_eq!(desk.value(".env", "SECRET_KEY_FALLBACKS"), format!("{new},{old}"));

    desk.rotate("SECRET_KEY fields --compromised", 0);
    let after = desk.read(".env");
    for gone in [old, new, field, keys] {
        assert!(!after.contains(&gone), "an old value is still there");
    }
    assert_eq!(desk.value(".env", "SECRET_KEY_FALLBACKS"), "");
}

#[test]
fn one_secret_that_cannot_be_rotated_leaves_all_as_they_were() {
    let desk = Desk::new(DJANGO);
    let text = format!("SECRET_KEY={}\n", fresh());
    desk.put(".env", &text);
    desk.rotate("SECRET_KEY broken", 4);
    desk.rotate("SECRET_KEY SECRET_KEY", 2);
    desk.rotate("SECRET_KEY unknown", 2);
    assert_eq!(desk.read(".env"), text);
    desk.put(".env", &format!("{text}{text}"));
    desk.rotate("SECRET_KEY", 4);
    // What programs read differently is not carried on as a fallback; in a compromise it need not be.
    desk.put(".env", "SECRET_KEY=a$b\n");
    desk.rotate("SECRET_KEY", 4);
    desk.rotate("SECRET_KEY --compromised", 0);
}

#[test]
fn unfit_files_are_refused_and_readable_ones_become_private() {
    let desk = Desk::new(DJANGO);
    desk.rotate("SECRET_KEY", 3);
    assert!(!desk.file(".env.lock").exists(), "a mistyped path leaves a lock file");
    let text = format!("SECRET_KEY={}\n", fresh());
    desk.put("real", &text);
    symlink("real", desk.file(".env")).unwrap();
    desk.rotate("SECRET_KEY", 3);
    fs::remove_file(desk.file(".env")).unwrap();
    for mode in [0o666, 0o602, 0o620] {
        desk.put(".env", &text);
        desk.set_mode(".env", mode);
        desk.rotate("SECRET_KEY", 3);
        assert_eq!(desk.read(".env"), text);
    }
    desk.set_mode(".env", 0o644);
    let output = desk.rotate("SECRET_KEY", 0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("0644"));
    for file in [".env", ".env.bak"] {
        assert_eq!(
            fs::metadata(desk.file(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    assert_eq!(desk.read("real"), text);
}

#[test]
fn two_writers_wait_for_each_other_and_lose_nothing() {
    let desk = Desk::new(DJANGO);
    desk.put(".env", &format!("SECRET_KEY={}\n", fresh()));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| desk.rotate("SECRET_KEY", 0));
        }
    });
    assert_eq!(desk.value(".env", "SECRET_KEY_FALLBACKS").split(',').count(), 6);
    let held = SecretFile::open(&desk.file(".env"), Duration::ZERO).unwrap();
    assert!(SecretFile::open(&desk.file(".env"), Duration::ZERO).is_err());
    // Somebody who takes no lock, an editor say, is noticed as well.
    desk.put(".env", "SECRET_KEY=edited\n");
    assert!(held.replace(b"SECRET_KEY=lost\n").is_err());
    assert_eq!(desk.read(".env"), "SECRET_KEY=edited\n");
}

#[test]
fn a_manifest_is_what_kubernetes_reads() {
    let desk = Desk::new(
        r#"
[secret.SECRET_KEY]
kind = "django"
kubernetes = { file = "secret.yaml", name = "app" }
previous = "SECRET_KEY_FALLBACKS"
previous_form = "json"

[secret.TOKEN]
kind = "ed25519"
kubernetes = { file = "secret.yaml", name = "app" }
"#,
    );
    let old = fresh();
    desk.put(
        "secret.yaml",
        &format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: app # ours\nstringData:\n  SECRET_KEY: {old} # signs\ndata:\n  TOKEN: eA==\n"),
    );
    desk.rotate("SECRET_KEY TOKEN", 0);
    let text = desk.read("secret.yaml");
    assert!(text.starts_with("apiVersion: v1\nkind: Secret\nmetadata:\n  name: app # ours\nstringData:\n  SECRET_KEY: \""));
    let Some(mut command) = python("read_env_file.py") else {
        return;
    };
    let output = command.arg("--manifest").arg(desk.file("secret.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read["SECRET_KEY"].as_str().unwrap().len(), 50);
    assert_eq!(read["SECRET_KEY_FALLBACKS"], format!("[\"{old}\"]"));
    assert!(read["TOKEN"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
}

#[test]
fn every_kind_survives_the_way_through_an_env_file() {
    let kinds = [
        "token-urlsafe",
        "fernet",
        "hex",
        "base64",
        "django",
        "laravel",
        "rails",
        "uuid",
        "password",
        "ed25519",
    ];
    let sections =
        kinds.map(|kind| format!("[secret.{kind}]\nkind = \"{kind}\"\nenv_file = \".env\"\nvariable = \"V_{kind}\"\n"));
    let desk = Desk::new(&sections.concat().replace("V_token-urlsafe", "V_token_urlsafe"));
    let lines = kinds.map(|kind| format!("V_{}=x\n", kind.replace('-', "_")));
    desk.put(".env", &lines.concat());
    for _ in 0..8 {
        desk.rotate(&kinds.join(" "), 0);
        let Some(mut command) = python("read_env_file.py") else {
            return;
        };
        let output = command.arg(desk.file(".env")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        for kind in kinds {
            let variable = format!("V_{}", kind.replace('-', "_"));
            assert_eq!(read[&variable], desk.value(".env", &variable), "{kind}");
        }
        // A shell reads the file alike, too, but for the line ends inside a private key.
        let script = "set -a; . ./.env; printf %s \"$V_django$V_password$V_base64\"";
        let shell = Command::new("sh")
            .args(["-c", script])
            .current_dir(&desk.folder)
            .output()
            .unwrap();
        let expected: String = ["V_django", "V_password", "V_base64"]
            .map(|name| desk.value(".env", name))
            .concat();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);
    }
}

#[test]
fn public_keys_are_published_before_the_private_one_is_used() {
    let desk =
        Desk::new("[secret.signing]\nkind = \"ed25519\"\nenv_file = \".env\"\nvariable = \"KEY\"\njwks = \"jwks.json\"\n");
    desk.put(".env", "KEY=\n");
    let kids = || -> Vec<String> {
        let set: Value = serde_json::from_str(&desk.read("jwks.json")).unwrap();
        set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    };
    desk.rotate("signing", 0);
    let first = kids();
    desk.rotate("signing", 0);
    let second = kids();
    assert_eq!((first.len(), second.len(), &second[1]), (1, 2, &first[0]));
    assert_eq!(
        fs::metadata(desk.file("jwks.json")).unwrap().permissions().mode() & 0o777,
        0o644
    );
    desk.rotate("signing --compromised", 0);
    assert!(kids().len() == 1 && !second.contains(&kids()[0]));
    // A private key in the set would be published again.
    desk.put("jwks.json", "{\"keys\":[{\"kty\":\"OKP\",\"d\":\"x\"}]}");
    desk.rotate("signing", 4);
}

#[test]
fn a_command_gets_the_secret_on_standard_input_alone() {
    let desk = Desk::new(
        "[secret.token]\nkind = \"hex\"\ncommand = \"cat > got; env > environment\"\n[secret.bad]\nkind = \"hex\"\ncommand = \"cat; exit 3\"\n",
    );
    let mut command = reseal();
    command.current_dir(&desk.folder).env("RESEAL_PASSPHRASE", "not for children");
    command.args(["secrets", "rotate", "token"]).assert().code(0);
    assert_eq!(desk.read("got").len(), 64);
    assert!(!desk.read("environment").contains("not for children"));
    let output = desk.rotate("bad", 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("exit status: 3"));
}

#[test]
fn a_systemd_credential_is_sealed_by_systemd() {
    let desk = Desk::new("[secret.token]\nkind = \"hex\"\nsystemd = { file = \"token.cred\" }\nlist = true\n");
    let path = desk.systemd_creds();
    let rotate = |exit: i32, path: &str| {
        let mut command = reseal();
        command.current_dir(&desk.folder).env("PATH", path);
        command.args(["secrets", "rotate", "token"]).assert().code(exit);
    };
    rotate(0, &path);
    let first = desk.read("token.cred");
    rotate(0, &path);
    let second = desk.read("token.cred");
    assert!((first.len(), second.len()) == (64, 129) && second.ends_with(&format!(";{first}")));
    assert_eq!(desk.read("token.cred.bak"), first);
    rotate(3, "/nowhere");
    assert_eq!(desk.read("token.cred"), second);
}

struct KillAt {
    target: String,
    step: String,
}

impl Steps for KillAt {
    fn before(&mut self, target: &OsStr, step: Step) -> io::Result<()> {
        if target == &*self.target && format!("{step:?}") == self.step {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
        }
        Ok(())
    }
}

const CHILD: &str = "RESEAL_TEST_KILL_ENV_FILE";
const OLD: &[u8] = b"# old\nKEY=old\n";
const NEW: &[u8] = b"# old\nKEY=new\n";

/// The other half of the next test, run in a process of its own.
#[test]
fn child_that_is_killed_while_it_replaces() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let [path, target, step]: [&str; 3] = order.split('|').collect::<Vec<_>>().try_into().unwrap();
    let file = SecretFile::open(Path::new(path), Duration::ZERO).unwrap();
    let mut steps = KillAt {
        target: target.to_owned(),
        step: step.to_owned(),
    };
    let _ = file.replace_with(NEW, &mut steps);
    unreachable!("killed before");
}

#[test]
fn killed_at_any_step_the_old_text_or_the_new_one_is_whole_and_the_next_writer_continues() {
    for target in [".env.bak", ".env"] {
        for step in Step::ALL {
            let desk = Desk::new("");
            desk.put(".env", std::str::from_utf8(OLD).unwrap());
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_that_is_killed_while_it_replaces"])
                .env(CHILD, format!("{}|{target}|{step:?}", desk.file(".env").display()))
                .output()
                .unwrap();
            assert_eq!(child.status.signal(), Some(9), "{target} {step:?}: {child:?}");
            let is_renamed = matches!(step, Step::SyncFolder | Step::ReadBack);
            let expected = if is_renamed && target == ".env" { NEW } else { OLD };
            assert_eq!(desk.read(".env").as_bytes(), expected, "{target} {step:?}");
            let file = SecretFile::open(&desk.file(".env"), Duration::ZERO).unwrap();
            file.replace(NEW).unwrap();
            assert_eq!(desk.read(".env").as_bytes(), NEW);
            assert!(!desk.file(".env.tmp").exists() && !desk.file(".env.bak.tmp").exists());
        }
    }
}

/// Lines as they are found in the wild, the name that is rotated not among them.
fn other_line() -> impl Strategy<Value = String> {
    let fixed = [
        "",
        "# comment",
        "   ",
        "OTHER=1",
        "export OTHER='a # b' # c",
        "OTHER=\"two\\nlines\"",
        "OTHER = x y  ",
        "OTHER=",
        "OTHER=a=b",
        "not an assignment",
        "=",
        "OTHER='it'",
        "KEYS=1",
        "MY_KEY=1",
        "OTHER=\"$HOME\"",
        "export",
        "OTHER=\u{e9}",
        "#KEY=old",
    ];
    prop_oneof![
        proptest::sample::select(fixed.map(str::to_owned).to_vec()),
        "[ -~]{0,30}".prop_filter("no second KEY, and no quote that may swallow it", |line| {
            !line.contains("KEY") && !line.contains(['"', '\'', '`'])
        }),
    ]
}

proptest! {
    #[test]
    fn everything_but_the_value_stays_byte_for_byte(
        before in proptest::collection::vec(other_line(), 0..8),
        after in proptest::collection::vec(other_line(), 0..8),
        line in proptest::sample::select(vec![("KEY=", "old", ""), ("export KEY = ", "'o l#d'", " # why"), ("\tKEY=", "\"o'l\\nd\"", "  "), ("KEY=", "", " # c")]),
        eol in proptest::sample::select(vec!["\n", "\r\n"]),
        new in "[A-Za-z0-9+/=_!@#%^&*( )-]{1,60}",
        is_ended: bool,
    ) {
        let (head, old, tail) = line;
        let join = |lines: &[String]| lines.iter().map(|line| format!("{line}{eol}")).collect::<String>();
        let end = if is_ended || !after.is_empty() { eol } else { "" };
        let text = format!("{}{head}{old}{tail}{end}{}", join(&before), join(&after));
        let mut dotenv = Dotenv::new(text.as_bytes());
        dotenv.put("KEY", &new, "KEY").unwrap();
        let written = String::from_utf8(dotenv.text().to_vec()).unwrap();
        let (start, stop) = (join(&before) + head, format!("{tail}{end}{}", join(&after)));
        prop_assert!(written.starts_with(&start) && written.ends_with(&stop) && written.len() > start.len() + stop.len());
        let value = dotenv.value("KEY").unwrap().unwrap();
        prop_assert_eq!(value.expose(), new.as_str());
        // And back again: writing is stable.
        let mut again = Dotenv::new(written.as_bytes());
        again.put("KEY", &new, "KEY").unwrap();
        prop_assert_eq!(again.text(), written.as_bytes());
    }

    #[test]
    fn no_text_makes_it_panic_or_change_without_a_put(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = [b"KEY=".as_slice(), &bytes].concat();
        let mut dotenv = Dotenv::new(&text);
        let read = dotenv.value("KEY");
        prop_assert_eq!(dotenv.text(), &text);
        if dotenv.put("KEY", "new", "KEY").is_ok() {
            let value = dotenv.value("KEY").unwrap().unwrap();
            prop_assert_eq!(value.expose(), "new");
        } else {
            let is_refused = matches!(read, Err(FieldError::Ambiguous { .. } | FieldError::Twice(_)));
            prop_assert!(is_refused);
        }
    }
}
