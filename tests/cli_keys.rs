//! `reseal keys` as a script sees it: exit codes, documents, files and their modes; and no secret anywhere else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use age::secrecy::ExposeSecret;
use assert_cmd::Command;
use reseal::key::{KeyEncoding, KeyMaterial, Keyring, Unlock, decode_fernet_list};
use serde_json::Value;

/// A folder with an age identity, and the program in it.
struct Desk {
    folder: tempfile::TempDir,
    identity: age::x25519::Identity,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            identity: age::x25519::Identity::generate(),
        };
        desk.put("me.key", desk.identity.to_string().expose_secret());
        desk
    }

    fn put(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(file), content).unwrap();
        fs::set_permissions(self.file(file), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("reseal").unwrap();
        command
            .current_dir(&self.folder)
            .env_remove("RESEAL_PASSPHRASE")
            .env_remove("RESEAL_KEYRING");
        command.args(arguments.split_whitespace());
        command
    }

    /// Runs `reseal keys ARGUMENTS` with the identity, expecting an exit code.
    fn keys(&self, arguments: &str, exit: i32) -> Output {
        let output = self.command(&format!("keys {arguments} --identity me.key")).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {}", text(&output));
        output
    }

    /// The same with `--json`: the document.
    fn document(&self, arguments: &str, exit: i32) -> Value {
        let output = self.keys(&format!("{arguments} --json"), exit);
        let schema = "reseal.keys/1";
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.starts_with(&format!("{{\"schema\":\"{schema}\",")), "{printed}");
        assert_eq!(printed.lines().count(), 1);
        serde_json::from_str(&printed).unwrap()
    }

    fn keyring(&self) -> Keyring {
        Keyring::open(
            &self.file("reseal.keyring"),
            &Unlock::Identities(vec![self.identity.clone()]),
            0,
        )
        .unwrap()
    }

    /// Every secret of the keyring, in every form in which it could get out.
    fn canaries(&self) -> Vec<Vec<u8>> {
        let keyring = self.keyring();
        let materials = keyring
            .keysets()
            .iter()
            .flat_map(|keyset| keyset.keys())
            .filter_map(|key| key.material());
        materials.flat_map(forms).collect()
    }
}

#[test]
fn a_rotation_of_a_keyset_from_the_first_key_to_the_tombstone() {
    let desk = Desk::new();
    let first = desk.document("generate customer-data --algorithm fernet", 0);
    let old = first["key"].as_u64().unwrap();
    assert_eq!(first["keysets"][0]["primary"], old);
    assert_eq!(first["generation"], 1);

    let second = desk.document("generate customer-data --algorithm fernet", 0);
    let new = second["key"].as_u64().unwrap();
    assert_eq!(key(&second, new)["state"], "staged");
    assert_eq!(
        (&key(&second, new)["seals"], &key(&second, new)["opens"]),
        (&false.into(), &true.into())
    );

    // What needs the key, or is needed, is refused, and nothing is written.
    for (arguments, exit) in [
        (format!("retire customer-data {old}"), 4),
        (format!("destroy customer-data {old} --yes"), 4),
        (format!("destroy customer-data {new} --yes"), 4),
        (format!("compromise customer-data {old}"), 4),
        (format!("promote customer-data {old}"), 4),
        ("promote customer-data 4294967295".to_owned(), 3),
        ("promote customer-data 0".to_owned(), 2),
        ("promote nowhere".to_owned(), 3),
        ("retire customer-data".to_owned(), 4),
    ] {
        desk.keys(&arguments, exit);
    }
    assert_eq!(desk.keyring().generation(), 2);

    let promoted = desk.document("promote customer-data", 0);
    assert_eq!(promoted["keysets"][0]["primary"], new);
    assert_eq!(key(&promoted, old)["state"], "retiring");
    desk.keys(&format!("destroy customer-data {old} --yes"), 4);
    let retired = desk.document("retire customer-data", 0);
    assert_eq!(key(&retired, old)["opens"], false);
    assert!(key(&retired, old)["retired_at"].is_string());

    desk.keys(&format!("destroy customer-data {old}"), 4);
    let early = desk.document(&format!("destroy customer-data {old} --yes --backup-horizon 35d"), 4);
    assert!(
        early["error"]["failed"].as_str().unwrap().contains("must be kept until"),
        "{early}"
    );
    let destroyed = desk.document(&format!("destroy customer-data {old} --yes"), 0);
    assert_eq!(key(&destroyed, old)["state"], "destroyed");
    desk.keys(&format!("destroy customer-data {old} --yes"), 0);
    let listed = desk.document("list customer-data", 0);
    assert_eq!(key(&listed, old)["transitions"].as_array().unwrap().len(), 4);
    assert_eq!(
        desk.keyring().keysets()[0]
            .keys()
            .iter()
            .filter(|key| key.material().is_some())
            .count(),
        1
    );
}

#[test]
fn the_configuration_in_the_folder_is_heeded_unasked() {
    let desk = Desk::new();
    let old = desk.document("generate data", 0)["key"].as_u64().unwrap();
    desk.keys("generate data", 0);
    desk.keys("promote data", 0);
    desk.put("reseal.toml", "[policy]\nbackup_horizon = \"35d\"\n");
    // No dataset has the keyset: nobody can check what needs the key.
    let retired = desk.keys("retire data", 0);
    assert!(text(&retired).contains("Nobody has checked"), "{}", text(&retired));
    let early = desk.document(&format!("destroy data {old} --yes"), 4);
    assert!(
        early["error"]["failed"].as_str().unwrap().contains("must be kept until"),
        "{early}"
    );
    desk.keys(&format!("destroy data {old} --yes --no-replica-check"), 2);
    // It speaks of another keyring than the one that is named.
    fs::copy(desk.file("reseal.keyring"), desk.file("other.keyring")).unwrap();
    desk.put(
        "reseal.toml",
        "[keyring]\nfile = \"reseal.keyring\"\nidentity = \"me.key\"\n[policy]\nbackup_horizon = \"35d\"\n",
    );
    desk.keys(&format!("destroy data {old} --yes --keyring other.keyring"), 0);
    desk.put("reseal.toml", "policy = 1\n");
    desk.keys(&format!("destroy data {old} --yes"), 3);
    fs::remove_file(desk.file("reseal.toml")).unwrap();
    desk.keys(&format!("destroy data {old} --yes"), 0);
}

#[test]
fn a_leaked_key_is_replaced_at_once_and_never_exported_again() {
    let desk = Desk::new();
    let old = desk.document("generate data --algorithm fernet", 0)["key"].as_u64().unwrap();
    desk.keys("generate data --algorithm fernet --pending", 0);
    desk.keys("stage data", 0);
    let promoted = desk.document("promote data --compromised", 0);
    assert_eq!(key(&promoted, old)["state"], "compromised");
    desk.keys(&format!("promote data {old}"), 4);
    desk.keys(&format!("stage data {old}"), 4);
    desk.keys("export data --as multifernet --out list", 0);
    assert_eq!(decode_fernet_list(&fs::read(desk.file("list")).unwrap()).unwrap().len(), 1);
}

#[test]
fn every_file_is_private_whatever_the_umask() {
    let desk = Desk::new();
    let program = assert_cmd::cargo::cargo_bin("reseal");
    let script = format!(
        "umask 000; set -e; r={program:?}; i='--identity me.key'
         $r keys generate data --algorithm fernet $i; $r keys generate data --algorithm fernet $i
         $r keys export data --as multifernet --out list $i; $r keys generate --format fernet --out one
         umask 777; $r keys promote data $i"
    );
    Command::new("sh")
        .args(["-c", &script])
        .current_dir(&desk.folder)
        .assert()
        .success();
    for file in ["reseal.keyring", "reseal.keyring.bak", "reseal.keyring.lock", "list", "one"] {
        let mode = fs::metadata(desk.file(file)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&desk.folder).unwrap().count(), 6);
}

#[test]
fn no_key_is_printed_by_any_command_but_an_export() {
    let desk = Desk::new();
    let imported = KeyMaterial::generate().unwrap();
    desk.put("imported", KeyEncoding::Fernet.encode(&imported));
    let mut printed = Vec::new();
    for arguments in [
        "generate data --algorithm fernet",
        "import data --from file:imported --format fernet",
        "list",
        "promote data",
        "export data --as multifernet --out list",
        "import data --from file:imported --format fernet",
        "import other --from file:list --format fernet",
        "export data --as tink-json --out tink",
        "export data --as multifernet",
        "export data --as multifernet --out list",
        "retire data",
    ] {
        for suffix in ["", " --json"] {
            let output = desk
                .command(&format!("keys {arguments} --identity me.key{suffix}"))
                .output()
                .unwrap();
            printed.extend([output.stdout, output.stderr].concat());
        }
    }
    let canaries = desk.canaries();
    assert!(canaries.len() >= 10);
    for canary in canaries.iter().chain(&forms(&imported)) {
        assert!(!contains(&printed, canary), "{}", String::from_utf8_lossy(&printed));
    }
    // The search itself works.
    let exported = fs::read(desk.file("list")).unwrap();
    assert!(canaries.iter().any(|canary| contains(&exported, canary)));
}

#[test]
fn a_secret_typed_by_mistake_is_refused_and_not_repeated() {
    let desk = Desk::new();
    desk.keys("generate data", 0);
    let secret = "c2VjcmV0IHR5cGVkIGJ5IG1pc3Rha2Ugb24gYXJndg==";
    for arguments in [
        format!("list --unlock {secret}"),
        format!("list --unlock={secret}"),
        format!("import data --format fernet --from {secret} --identity me.key"),
        format!("import data --format fernet {secret} --from env:X"),
        format!("import data --format {secret} --from env:X"),
        format!("import {secret} --format fernet --from env:X"),
        format!("promote data {secret}"),
        format!("list --passphrase {secret}"),
        format!("list --passphrase={secret}"),
        format!("rewrap --new-unlock {secret} --identity me.key"),
        format!("destroy data 1 --yes --backup-horizon {secret}"),
        format!("export data --as tink-json --variable {secret} --out x"),
        secret.to_owned(),
    ] {
        let output = desk.command(&format!("keys {arguments}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", text(&output));
        assert!(!text(&output).contains(&secret[..20]), "{}", text(&output));
    }
}

#[test]
fn passphrases_open_seal_and_change() {
    let desk = Desk::new();
    let run = |arguments: &str, passphrase: &str, exit: i32| {
        let mut command = desk.command(&format!("keys {arguments}"));
        let output = command
            .env("RESEAL_PASSPHRASE", passphrase)
            .env("NEW", "the new one")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {}", text(&output));
        assert!(!text(&output).contains("the old one") && !text(&output).contains("the new one"));
        text(&output)
    };
    let unset = desk.command("keys generate data").output().unwrap();
    assert_eq!(unset.status.code(), Some(3));
    assert!(text(&unset).contains("RESEAL_PASSPHRASE"));
    assert!(!desk.file("reseal.keyring").exists());

    run("generate data", "the old one", 0);
    let wrong = run("list", "a wrong one", 3);
    assert!(wrong.contains("wrong passphrase or identity, or a damaged header"), "{wrong}");
    run("list --identity me.key", "the old one", 3);
    run(
        &format!("rewrap --new-unlock env:NEW --recipient {}", desk.identity.to_public()),
        "the old one",
        2,
    );
    run("rewrap --new-unlock env:NEW", "the old one", 0);
    run("list", "the old one", 3);
    run("list --keyring reseal.keyring.bak", "the old one", 3);
    run("list --unlock env:NEW", "the old one", 0);
    run(
        &format!("rewrap --unlock env:NEW --recipient {}", desk.identity.to_public()),
        "",
        0,
    );
    desk.keys("list", 0);
    run("generate data --recipient age1x --identity me.key", "", 2);
}

#[test]
fn a_missing_or_exposed_keyring_is_an_error_that_says_what_to_do() {
    let desk = Desk::new();
    let missing = desk.document("list", 3);
    assert!(
        missing["error"]["next"].as_str().unwrap().contains("reseal keys generate"),
        "{missing}"
    );
    assert_eq!(missing["exit"], 3);
    assert!(!desk.file("reseal.keyring.lock").exists());
    desk.keys("generate data", 0);
    fs::set_permissions(desk.file("reseal.keyring"), PermissionsExt::from_mode(0o644)).unwrap();
    let exposed = desk.document("promote data 1", 3);
    assert!(
        exposed["error"]["failed"].as_str().unwrap().contains("chmod 600"),
        "{exposed}"
    );
    fs::set_permissions(desk.file("reseal.keyring"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(desk.file("me.key"), PermissionsExt::from_mode(0o604)).unwrap();
    desk.keys("list", 3);
}

#[test]
fn keys_come_in_and_go_out_in_the_forms_that_applications_use() {
    let desk = Desk::new();
    let keys: Vec<_> = (0..3).map(|_| KeyMaterial::generate().unwrap()).collect();
    let fernet = |key: &KeyMaterial| String::from_utf8(KeyEncoding::Fernet.encode(key).to_vec()).unwrap();
    desk.put("list", format!("{},{}\n", fernet(&keys[0]), fernet(&keys[1])));
    desk.keys("import app --from file:list --format fernet", 0);
    desk.put("older", KeyEncoding::Hex.encode(&keys[2]));
    desk.keys("import app --from file:older --format hex --as retiring", 2);
    desk.keys(
        "import app --from file:older --format hex --algorithm aes128-gcm --as retiring",
        3,
    );
    desk.keys(
        "import app --from file:older --format auto --algorithm fernet --as retiring",
        0,
    );
    desk.keys("import again --from file:older --format hex --algorithm fernet", 3);

    desk.keys("export app --as multifernet --variable FERNET_KEYS --out app.env", 0);
    let all: Vec<_> = keys.iter().map(fernet).collect();
    assert_eq!(
        fs::read_to_string(desk.file("app.env")).unwrap(),
        format!("FERNET_KEYS='{}'\n", all.join(","))
    );
    desk.keys("export app --as multifernet --out app.env", 4);
    desk.keys("export app --as multifernet --out app.env --force", 0);
    assert_eq!(
        fs::read_to_string(desk.file("app.env")).unwrap(),
        format!("{}\n", all.join(","))
    );
    let piped = desk.keys("export app --as multifernet --out -", 0);
    assert_eq!(piped.stdout, format!("{}\n", all.join(",")).as_bytes());
    desk.keys("export app --as multifernet --out - --json", 2);
    desk.keys("export app --as multifernet", 2);
    desk.keys("export app --as tink-json --out tink", 3);

    desk.keys("generate tink", 0);
    desk.keys("generate tink", 0);
    desk.keys("export tink --as tink-json --out keyset.json", 0);
    let other = Desk::new();
    fs::copy(desk.file("keyset.json"), other.file("keyset.json")).unwrap();
    other.keys("import tink --from file:keyset.json --format tink-json", 0);
    other.keys("import tink --from file:keyset.json --format tink-json", 4);
    let fingerprints = |desk: &Desk| {
        let keyring = desk.keyring();
        let keys = keyring.keyset(&"tink".parse().unwrap()).unwrap().keys().iter();
        keys.map(|key| (key.id(), key.fingerprint(), key.state().seals()))
            .collect::<Vec<_>>()
    };
    assert_eq!(fingerprints(&desk), fingerprints(&other));
}

#[test]
fn a_key_that_repeats_a_pattern_is_imported_only_to_be_rotated_away_from() {
    let desk = Desk::new();
    let encode = |bytes: &[u8]| KeyEncoding::Fernet.encode(&KeyMaterial::import(bytes).unwrap());
    desk.put("good", KeyEncoding::Fernet.encode(&KeyMaterial::generate().unwrap()));
    desk.put("poor", encode(b"abcdefghijklmnopabcdefghijklmnop"));
    desk.put("odd", encode(b"0123456789abc0123456789abc012345"));
    desk.keys("import app --from file:good --format fernet", 0);
    for (key, more) in [("poor", ""), ("odd", ""), ("poor", "--as pending")] {
        let into = if more.is_empty() { "another" } else { "app" };
        let refused = desk.keys(&format!("import {into} --from file:{key} --format fernet {more}"), 3);
        assert!(text(&refused).contains("a short pattern, repeated"), "{}", text(&refused));
    }
    desk.keys("import app --from file:odd --format fernet", 3);
    assert_eq!(desk.keyring().generation(), 1);
    desk.keys("import app --from file:poor --format fernet --as retiring", 0);
    desk.keys("import app --from file:poor --format fernet --as retiring", 3);
    desk.keys("list", 0);
    let all: usize = desk.keyring().keysets().iter().map(|keyset| keyset.keys().len()).sum();
    assert_eq!(all, 2);
}

#[test]
fn a_key_without_a_keyring_goes_only_where_it_is_told_to() {
    let desk = Desk::new();
    let run = |arguments: &str, exit: i32| {
        let output = desk.command(&format!("keys generate {arguments}")).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {}", text(&output));
        output.stdout
    };
    assert!(run("--format fernet", 2).is_empty());
    assert!(run("--format fernet --out key", 0).is_empty());
    KeyEncoding::Fernet.decode(&fs::read(desk.file("key")).unwrap()).unwrap();
    run("--format fernet --out key", 4);
    assert_eq!(run("--format raw --out -", 0).len(), 32);
    KeyEncoding::Hex.decode(&run("--format hex --show", 0)).unwrap();
    run("data --format hex --show", 2);
    assert!(!desk.file("reseal.keyring").exists());
}

#[test]
fn help_and_version_are_answers_and_nonsense_is_not() {
    let desk = Desk::new();
    for (arguments, exit) in [
        ("--help", 0),
        ("keys --help", 0),
        ("--version", 0),
        ("", 2),
        ("keys", 2),
        ("nonsense", 2),
    ] {
        let output = desk.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}");
        assert_eq!(output.stdout.is_empty(), exit != 0, "{arguments:?}");
    }
}

#[test]
fn names_with_terminal_escapes_are_shown_escaped() {
    let desk = Desk::new();
    let mut command = desk.command("keys list --keyring");
    let output = command.arg("a\u{1b}]0;owned\u{7}\u{202e}").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("a\\u{1b}]0;owned\\u{7}\\u{202e}"), "{}", text(&output));
    assert!(!output.stderr.contains(&0x1b));
}

/// The other half of the next test, run in a process of its own.
#[test]
fn child_that_panics() {
    if std::env::var_os("RESEAL_TEST_PANIC").is_some() {
        reseal::cli::silence_panics();
        panic!("{} of a panic", "canary");
    }
}

#[test]
fn a_panic_says_where_and_not_what() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child
        .args(["--exact", "child_that_panics", "--nocapture"])
        .env("RESEAL_TEST_PANIC", "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output).contains("unexpected failure at tests/cli_keys.rs:"),
        "{}",
        text(&output)
    );
    assert!(!text(&output).contains("canary"), "{}", text(&output));
}

fn key(document: &Value, id: u64) -> &Value {
    let keys = document["keysets"][0]["keys"].as_array().unwrap();
    keys.iter().find(|key| key["id"] == id).unwrap()
}

fn forms(material: &KeyMaterial) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = KeyEncoding::ALL
        .iter()
        .map(|encoding| encoding.encode(material).to_vec())
        .collect();
    forms.push(
        material
            .expose()
            .iter()
            .map(|byte| format!("{byte}"))
            .collect::<Vec<_>>()
            .join(", ")
            .into_bytes(),
    );
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn a_lost_keyring_is_put_back_and_its_last_copy_is_not_replaced() {
    let desk = Desk::new();
    let recipient = desk.identity.to_public().to_string();
    desk.keys(&format!("generate customers --recipient {recipient}"), 0);
    desk.keys("generate customers", 0);
    let before = fs::read(desk.file("reseal.keyring.bak")).unwrap();
    fs::remove_file(desk.file("reseal.keyring")).unwrap();
    let error = &desk.document("list", 3)["error"];
    assert!(
        error["next"]
            .as_str()
            .unwrap()
            .contains("cp reseal.keyring.bak reseal.keyring"),
        "{error}"
    );
    let error = &desk.document(&format!("generate customers --recipient {recipient}"), 4)["error"];
    assert!(
        error["next"]
            .as_str()
            .unwrap()
            .contains("cp reseal.keyring.bak reseal.keyring"),
        "{error}"
    );
    assert_eq!(fs::read(desk.file("reseal.keyring.bak")).unwrap(), before);
    assert!(!desk.file("reseal.keyring").exists());
    fs::copy(desk.file("reseal.keyring.bak"), desk.file("reseal.keyring")).unwrap();
    desk.keys("list", 0);
}
