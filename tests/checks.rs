//! `keys check` and `secrets check` as cron sees them: overdue, unknown and put back are findings; nothing passes by not being looked at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use jiff::{SignedDuration, Timestamp};
use reseal::key::{Algorithm, Entry, KeyMaterial, KeyringEdit, Keyset, OldPrimary, Previous, Seal};
use serde_json::Value;
use support::{Canary, reseal, tempdir};

struct Desk {
    folder: tempfile::TempDir,
    identity: age::x25519::Identity,
}

impl Desk {
    fn new(config: &str) -> Self {
        let desk = Self {
            folder: tempdir(),
            identity: age::x25519::Identity::generate(),
        };
        desk.put("reseal.toml", config);
        desk.put("me.key", desk.identity.to_string().expose_secret());
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
        fs::set_permissions(self.file(name), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn keyring(&self, keysets: impl IntoIterator<Item = Keyset>) {
        let _ = fs::remove_file(self.file("reseal.keyring"));
        let seal = Seal::from_parts(None, &[self.identity.to_public().to_string()]).unwrap();
        let mut edit = KeyringEdit::create(&self.file("reseal.keyring"), seal, Duration::ZERO).unwrap();
        for keyset in keysets {
            edit.insert(keyset).unwrap();
        }
        edit.commit(Previous::Kept).unwrap();
    }

    /// Runs `reseal ARGUMENTS --json`, expecting an exit code, and gives the document.
    fn run(&self, arguments: &str, exit: i32) -> Value {
        let mut command = reseal();
        command.current_dir(&self.folder).arg("--json");
        let output = command.args(arguments.split_whitespace()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {said}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(document.get("exit").is_none_or(|told| *told == exit), "{document}");
        document
    }

    fn check_keys(&self, arguments: &str, exit: i32) -> Value {
        self.run(&format!("keys check {arguments} --identity me.key"), exit)
    }
}

fn days_ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

fn generated(name: &str, days: i64) -> Keyset {
    Keyset::generate(name.parse().unwrap(), Algorithm::Aes256Gcm, days_ago(days)).unwrap()
}

fn imported(name: &str, days: i64) -> Keyset {
    let mut keyset = generated(name, days + 1);
    let material = KeyMaterial::generate().unwrap();
    let id = keyset
        .add_imported(Algorithm::Aes256Gcm, material, Entry::Staged, days_ago(days))
        .unwrap();
    let old = keyset.primary().id();
    keyset.promote(id, OldPrimary::Retires, days_ago(days)).unwrap();
    keyset.retire(old, days_ago(days)).unwrap();
    keyset
}

fn found(document: &Value) -> Vec<(&str, &str)> {
    let findings = document["findings"].as_array().unwrap().iter();
    let name = |finding: &'_ Value| {
        let name = finding.get("keyset").or_else(|| finding.get("secret")).unwrap();
        name.as_str().unwrap().to_owned()
    };
    findings
        .map(|finding| {
            assert!(!finding["what"].as_str().unwrap().is_empty() && finding["next"].as_str().unwrap().starts_with("reseal "));
            (
                Box::leak(name(finding).into_boxed_str()) as &str,
                finding["finding"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_primary_key_is_as_old_as_its_making() {
    let desk = Desk::new("[policy]\nmax_key_age = \"90d\"\n");
    desk.keyring([generated("young", 89), generated("old", 91)]);
    let document = desk.check_keys("", 7);
    assert_eq!(found(&document), [("old", "overdue")]);
    assert_eq!(document["findings"][0]["next"], "reseal keys generate old");
    assert_eq!(document["findings"][0]["age_seconds"].as_i64().unwrap() / 86_400, 91);
    assert_eq!(document["keysets"][0]["age_known"], true);
    desk.check_keys("young", 0);
    // The flag is stronger than the policy, either way.
    desk.check_keys("--max-age 92d", 0);
    assert_eq!(
        found(&desk.check_keys("--max-age 1w", 7)),
        [("young", "overdue"), ("old", "overdue")]
    );
    // What was promoted late was not made late.
    let mut keyset = generated("late", 91);
    let next = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, days_ago(91)).unwrap();
    let first = keyset.primary().id();
    keyset.promote(next, OldPrimary::Retires, days_ago(1)).unwrap();
    keyset.retire(first, days_ago(1)).unwrap();
    desk.keyring([keyset]);
    assert_eq!(found(&desk.check_keys("", 7)), [("late", "overdue")]);
}

#[test]
fn an_age_that_nobody_knows_does_not_pass() {
    let desk = Desk::new("[policy]\nmax_key_age = \"90d\"\n");
    desk.keyring([imported("lately", 2), imported("long-ago", 91), generated("tomorrow", -1)]);
    let document = desk.check_keys("", 7);
    assert_eq!(
        found(&document),
        [
            ("lately", "age-unknown"),
            ("long-ago", "overdue"),
            ("tomorrow", "age-unknown")
        ]
    );
    assert_eq!(document["keysets"][0]["age_known"], false);
    assert_eq!(document["keysets"][2]["age_seconds"], Value::Null);
    let restart = Desk::new("");
    restart.keyring([]);
    restart.check_keys("--max-age 90d", 3);
}

#[test]
fn a_rotation_that_never_ended_is_found_and_a_waiting_key_is_named() {
    let desk = Desk::new("");
    let mut keyset = generated("data", 200);
    let first = keyset.primary().id();
    let second = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, days_ago(100)).unwrap();
    keyset.promote(second, OldPrimary::Retires, days_ago(95)).unwrap();
    let third = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, days_ago(1)).unwrap();
    desk.keyring([keyset]);
    let document = desk.check_keys("--max-age 90d", 7);
    assert_eq!(found(&document), [("data", "overdue"), ("data", "unfinished")]);
    assert_eq!(document["findings"][0]["next"], format!("reseal keys promote data {third}"));
    assert_eq!(document["findings"][1]["key"], first.0);
    assert_eq!(found(&desk.check_keys("--max-age 98d", 7)), [("data", "overdue")]);
}

/// A command for the key alone would pass the gates by, or move no value.
#[test]
fn where_a_configuration_has_the_data_a_rotation_is_advised() {
    let configuration = "[keyring]\nfile = \"reseal.keyring\"\n[database.main]\nurl = \"sqlite:app.db\"\n\
                         [dataset.customers]\ndatabase = \"main\"\ntable = \"customers\"\nkeyset = \"data\"\n\
                         columns = [{ name = \"email\", format = \"aes-gcm\" }]\n";
    let desk = Desk::new(configuration);
    let mut keyset = generated("data", 200);
    let first = keyset.primary().id();
    let second = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, days_ago(100)).unwrap();
    keyset.promote(second, OldPrimary::Retires, days_ago(95)).unwrap();
    keyset.add(Algorithm::Aes256Gcm, Entry::Staged, days_ago(1)).unwrap();
    desk.keyring([keyset, generated("other", 200)]);
    desk.put("elsewhere.toml", configuration);
    for (option, suffix) in [("", ""), ("--config elsewhere.toml", " --config elsewhere.toml")] {
        let document = desk.check_keys(&format!("--max-age 90d {option}"), 7);
        let next = |at: usize| document["findings"][at]["next"].as_str().unwrap().to_owned();
        assert_eq!(next(0), format!("reseal rotate data{suffix}"));
        assert_eq!(
            next(1),
            format!("reseal verify data{suffix}, then: reseal keys retire data {first}{suffix}")
        );
        assert_eq!(next(2), "reseal keys generate other", "nobody has said where its values are");
    }
    // Another keyring is not that of the configuration.
    fs::copy(desk.file("reseal.keyring"), desk.file("copy.keyring")).unwrap();
    let document = desk.check_keys("--max-age 90d --keyring copy.keyring", 7);
    assert!(
        document["findings"][0]["next"]
            .as_str()
            .unwrap()
            .starts_with("reseal keys promote data")
    );
}

#[test]
fn without_a_limit_nothing_passes() {
    let desk = Desk::new("");
    desk.keyring([generated("data", 1)]);
    for (arguments, exit) in [
        ("", 3),
        ("--config nowhere.toml", 3),
        ("--max-age 0d", 2),
        ("--max-age soon", 2),
    ] {
        desk.check_keys(arguments, exit);
    }
    desk.check_keys("--max-age 90d --config nowhere.toml", 0);
    desk.put("reseal.toml", "[policy]\nmax_key_aeg = \"90d\"\n");
    desk.check_keys("", 3);
    desk.put("reseal.toml", "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\n");
    desk.run("secrets check", 3);
    desk.put("reseal.toml", "");
    desk.run("secrets check --max-age 90d", 3);
}

const SECRETS: &str = r#"
[policy]
max_key_age = "90d"
[secret.SECRET_KEY]
kind = "token-urlsafe"
env_file = ".env"
previous = "SECRET_KEY_FALLBACKS"
[secret.FIELDS]
kind = "fernet"
env_file = ".env"
list = true
max_age = "30d"
[secret.token]
kind = "hex"
command = "cat > got"
"#;

/// Puts every entry of the record `days` back.
fn age_record(desk: &Desk, days: i64) {
    let mut record: Value = serde_json::from_str(&desk.read("reseal.secrets.json")).unwrap();
    for entries in record["secrets"].as_object_mut().unwrap().values_mut() {
        for entry in entries.as_array_mut().unwrap() {
            let at: Timestamp = entry["at"].as_str().unwrap().parse().unwrap();
            entry["at"] = (at - SignedDuration::from_hours(24 * days)).to_string().into();
        }
    }
    desk.put("reseal.secrets.json", &record.to_string());
}

#[test]
fn a_secret_is_as_old_as_the_rotation_that_wrote_it() {
    let desk = Desk::new(SECRETS);
    desk.put(".env", "SECRET_KEY=by-hand\nFIELDS=\n");
    let before = desk.run("secrets check", 7);
    assert_eq!(
        found(&before),
        [("FIELDS", "absent"), ("SECRET_KEY", "age-unknown"), ("token", "age-unknown")]
    );
    desk.run("secrets rotate SECRET_KEY FIELDS token", 0);
    let fresh = desk.run("secrets check", 0);
    assert_eq!(fresh["secrets"][0]["confirmed"], true);
    assert_eq!(fresh["secrets"][2]["confirmed"], false);
    assert_eq!(
        fs::metadata(desk.file("reseal.secrets.json")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Old values stay beside and inside; the age is that of the newest.
    age_record(&desk, 31);
    assert_eq!(found(&desk.run("secrets check", 7)), [("FIELDS", "overdue")]);
    desk.run("secrets rotate FIELDS", 0);
    desk.run("secrets check", 0);
    age_record(&desk, 60);
    assert_eq!(
        found(&desk.run("secrets check", 7)),
        [("FIELDS", "overdue"), ("SECRET_KEY", "overdue"), ("token", "overdue")]
    );
    desk.run("secrets check --max-age 92d", 0);
}

#[test]
fn a_file_that_was_edited_or_put_back_is_not_as_young_as_it_looks() {
    let desk = Desk::new(SECRETS);
    desk.put(".env", "SECRET_KEY=x\nFIELDS=\n");
    desk.run("secrets rotate SECRET_KEY FIELDS token", 0);
    let backup = desk.read(".env");
    age_record(&desk, 10);
    desk.run("secrets rotate SECRET_KEY --compromised", 0);
    desk.run("secrets check", 0);
    let current = desk.read(".env");

    // A backup, or a deployment of an old version: the value that was replaced is in use again.
    desk.put(".env", &backup);
    let document = desk.run("secrets check", 7);
    assert_eq!(found(&document), [("SECRET_KEY", "put-back")]);
    assert_eq!(document["findings"][0]["age_seconds"].as_i64().unwrap() / 86_400, 10);

    desk.put(".env", &current.replace("SECRET_KEY=", "SECRET_KEY=x"));
    assert_eq!(found(&desk.run("secrets check", 7)), [("SECRET_KEY", "age-unknown")]);
    desk.put(".env", "FIELDS=\n");
    assert_eq!(
        found(&desk.run("secrets check", 7)),
        [("FIELDS", "absent"), ("SECRET_KEY", "absent")]
    );

    // File and record put back together: the age is right again.
    desk.put(".env", &current);
    desk.run("secrets check", 0);
    fs::remove_file(desk.file("reseal.secrets.json")).unwrap();
    assert_eq!(found(&desk.run("secrets check", 7)).len(), 3);
}

#[test]
fn a_rotation_that_was_cut_off_leaves_a_record_that_is_true_either_way() {
    let desk = Desk::new(SECRETS);
    desk.put(".env", "SECRET_KEY=x\nFIELDS=\n");
    desk.run("secrets rotate SECRET_KEY FIELDS token", 0);
    age_record(&desk, 20);
    let before = desk.read(".env");
    desk.run("secrets rotate SECRET_KEY", 0);
    let unconfirmed = {
        let mut record: Value = serde_json::from_str(&desk.read("reseal.secrets.json")).unwrap();
        record["secrets"]["SECRET_KEY"][1]["written"] = false.into();
        record.to_string()
    };
    desk.put("reseal.secrets.json", &unconfirmed);
    // Cut off after the file was written: the new value is known. Before: the old one still stands, and nothing was put back.
    let written = desk.run("secrets check", 0);
    assert_eq!(written["secrets"][1]["age_seconds"].as_i64().unwrap() / 86_400, 0);
    desk.put(".env", &before);
    let unwritten = desk.run("secrets check", 0);
    assert_eq!(unwritten["secrets"][1]["age_seconds"].as_i64().unwrap() / 86_400, 20);
}

#[test]
fn what_cannot_be_recorded_is_not_rotated() {
    let desk = Desk::new(SECRETS);
    let text = "SECRET_KEY=x\nFIELDS=\n";
    desk.put(".env", text);
    for unfit in ["{", "{\"schema\":\"reseal.secret-record/2\",\"secrets\":{}}"] {
        desk.put("reseal.secrets.json", unfit);
        let document = desk.run("secrets rotate SECRET_KEY", 3);
        assert_eq!(document["error"]["durable"], "all secrets as they were");
        desk.run("secrets check", 3);
        assert_eq!(
            (desk.read(".env"), desk.read("reseal.secrets.json")),
            (text.to_owned(), unfit.to_owned())
        );
    }
    desk.put(
        "reseal.secrets.json",
        "{\"schema\":\"reseal.secret-record/1\",\"secrets\":{}}",
    );
    fs::set_permissions(desk.file("reseal.secrets.json"), PermissionsExt::from_mode(0o644)).unwrap();
    desk.run("secrets rotate SECRET_KEY", 3);
    assert_eq!(desk.read(".env"), text);
}

#[test]
fn neither_the_record_nor_the_checks_hold_a_value() {
    let desk = Desk::new(SECRETS);
    desk.put(".env", "SECRET_KEY=x\nFIELDS=\n");
    desk.run("secrets rotate SECRET_KEY FIELDS token", 0);
    let document = desk.run("secrets check", 0).to_string();
    let record = desk.read("reseal.secrets.json");
    for line in desk.read(".env").lines() {
        let (_, value) = line.split_once('=').unwrap();
        if value.len() >= 8 {
            let canary = Canary::new("a secret", value.as_bytes());
            canary.assert_absent("the record", record.as_bytes());
            canary.assert_absent("the document", document.as_bytes());
        }
    }
    Canary::new("the token", desk.read("got").as_bytes()).assert_absent("the record", record.as_bytes());
}
