//! Rotations in steps: a new value is accepted before it signs, and an old one after it did.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use reseal::secret::{Fields, Manifest};
use serde_json::{Value, json};

use crate::support::Canary;
use crate::{Desk, fresh, reseal};

const TARGETS: &str = r#"
[secret.SECRET_KEY]
kind = "django"
env_file = ".env"
previous = "SECRET_KEY_FALLBACKS"
keep = 1
max_age = "90d"

[secret.fields]
kind = "fernet"
env_file = ".env"
variable = "ENCRYPTION_KEYS"
list = true

[secret.api]
kind = "hex"
kubernetes = { file = "secret.yaml" }
variable = "api-key"
previous = "api-key-previous"
previous_form = "json"

[secret.single]
kind = "hex"
env_file = ".env"
variable = "SINGLE"
"#;

/// The value that signs, and the others that are accepted, newest first.
fn stand(desk: &Desk, secret: &str) -> (String, Vec<String>) {
    let listed = |text: &str| text.split(',').filter(|value| !value.is_empty()).map(str::to_owned).collect();
    match secret {
        "SECRET_KEY" => (
            desk.value(".env", "SECRET_KEY"),
            listed(&desk.value(".env", "SECRET_KEY_FALLBACKS")),
        ),
        "fields" => {
            let mut values: Vec<String> = listed(&desk.value(".env", "ENCRYPTION_KEYS"));
            (values.remove(0), values)
        }
        _ => {
            let manifest = Manifest::new(desk.read("secret.yaml").as_bytes(), None);
            let value = |name: &str| manifest.value(name).unwrap().unwrap().expose().to_owned();
            (value("api-key"), serde_json::from_str(&value("api-key-previous")).unwrap())
        }
    }
}

fn step(desk: &Desk, arguments: &str) -> Value {
    let output = desk.rotate(arguments, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(desk: &Desk, arguments: &str, why: &str) {
    let output = desk.rotate(arguments, 4);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(why), "{arguments}: {text}");
}

/// What `secrets check` says of a rotation under way.
fn unfinished(desk: &Desk) -> Value {
    let mut command = reseal();
    command
        .current_dir(&desk.folder)
        .args(["secrets", "check", "SECRET_KEY", "--json"]);
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["secrets"][0]["unfinished"].clone()
}

fn desk() -> (Desk, [String; 3]) {
    let desk = Desk::new(TARGETS);
    let old = [fresh(), fresh(), fresh()];
    desk.put(
        ".env",
        &format!(
            "# signs\nSECRET_KEY={} # kept\nSECRET_KEY_FALLBACKS=older\nDEBUG=0\nENCRYPTION_KEYS={}\nSINGLE=x\n",
            old[0], old[1]
        ),
    );
    desk.put(
        "secret.yaml",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: api\nstringData:\n  # now\n  api-key: \"{}\"\n  api-key-previous: \"[]\"\n",
            old[2]
        ),
    );
    (desk, old)
}

#[test]
fn a_value_joins_then_signs_then_stands_alone() {
    let (desk, old) = desk();
    let names = ["SECRET_KEY", "fields", "api"];
    let all = names.join(" ");
    refused(&desk, &format!("{all} --promote"), "no new value was introduced");
    let before = desk.read(".env");

    let introduced = step(&desk, &format!("{all} --introduce"));
    assert_eq!(
        (&introduced["step"], &introduced["secrets"][0]["changed"]),
        (&"introduce".into(), &true.into())
    );
    let mut new = Vec::new();
    for (name, old) in names.iter().zip(&old) {
        let (signs, accepted) = stand(&desk, name);
        assert_eq!(&signs, old, "{name}: nothing is signed with the new value");
        assert_ne!(&accepted[0], old);
        new.push(accepted[0].clone());
    }
    // Nothing but the list was touched, and nothing was dropped to make room.
    assert_eq!(stand(&desk, "SECRET_KEY").1, [new[0].clone(), "older".to_owned()]);
    assert_eq!(desk.read(".env").lines().count(), before.lines().count());
    assert!(
        desk.read(".env")
            .starts_with(&format!("# signs\nSECRET_KEY={} # kept\n", old[0]))
    );
    assert!(desk.read("secret.yaml").contains("  # now\n"));
    assert_eq!(unfinished(&desk)["next"], "reseal secrets rotate SECRET_KEY --promote");

    // Again: nothing is written, not even the same.
    let inode = fs::metadata(desk.file(".env")).unwrap().ino();
    let again = step(&desk, &format!("{all} --introduce"));
    assert_eq!(again["secrets"][0]["changed"], false);
    assert_eq!(fs::metadata(desk.file(".env")).unwrap().ino(), inode);
    assert_eq!(stand(&desk, "fields").1[0], new[1]);
    refused(&desk, &format!("{all} --retire"), "not promoted yet");
    refused(&desk, "SECRET_KEY", "not promoted yet");

    step(&desk, &format!("{all} --promote"));
    for ((name, old), new) in names.iter().zip(&old).zip(&new) {
        let (signs, accepted) = stand(&desk, name);
        assert_eq!((&signs, &accepted[0]), (new, old), "{name}: the old value is still accepted");
    }
    assert_eq!(stand(&desk, "SECRET_KEY").1.len(), 1, "keep = 1");
    assert_eq!(step(&desk, &format!("{all} --promote"))["secrets"][2]["changed"], false);
    assert_eq!(unfinished(&desk)["step"], "promote");

    step(&desk, &format!("{all} --retire"));
    for (name, new) in names.iter().zip(&new) {
        assert_eq!(stand(&desk, name), (new.clone(), Vec::new()), "{name}");
    }
    assert_eq!(step(&desk, &format!("{all} --retire"))["secrets"][1]["changed"], false);
    assert_eq!(unfinished(&desk), Value::Null);
    refused(&desk, &format!("{all} --promote"), "no new value was introduced");
    // No value was said, and none is on record.
    for value in old.iter().chain(&new) {
        Canary::new("a value", value.as_bytes()).assert_absent("the record", desk.read("reseal.secrets.json").as_bytes());
    }
}

#[test]
fn what_leaked_while_it_waited_is_gone_and_one_value_has_no_steps() {
    let (desk, _) = desk();
    step(&desk, "SECRET_KEY --introduce");
    let waiting = stand(&desk, "SECRET_KEY").1[0].clone();
    step(&desk, "SECRET_KEY --compromised");
    assert!(!desk.read(".env").contains(&waiting));
    assert_eq!(stand(&desk, "SECRET_KEY").1, Vec::<String>::new());
    refused(&desk, "SECRET_KEY --promote", "no new value was introduced");
    assert_eq!(unfinished(&desk), Value::Null);
    refused(&desk, "single --introduce", "one value only");
    desk.rotate("SECRET_KEY --introduce --promote", 2);
    desk.rotate("SECRET_KEY --introduce --compromised", 2);
}

/// The record is written before the file and after it. Whoever dies in between is followed by whoever types the same command.
#[test]
fn killed_between_any_two_writes_the_same_command_goes_on() {
    let (desk, old) = desk();
    let files = || (desk.read(".env"), fs::read_to_string(desk.file("reseal.secrets.json")).ok());
    let put = |env: &str, record: &str| {
        desk.put(".env", env);
        desk.put("reseal.secrets.json", record);
    };
    let nothing_written = |record: &str| {
        let mut record: Value = serde_json::from_str(record).unwrap();
        let entries = record["secrets"]["SECRET_KEY"].as_array_mut().unwrap();
        *entries.last_mut().unwrap().get_mut("written").unwrap() = json!(false);
        record.to_string()
    };
    let (before, _) = files();
    step(&desk, "SECRET_KEY --introduce");
    let (introduced, record) = files();
    let record = record.unwrap();
    let new = stand(&desk, "SECRET_KEY").1[0].clone();

    // Before the file was written: the value on record exists nowhere, and another is made.
    put(&before, &nothing_written(&record));
    refused(&desk, "SECRET_KEY --promote", "no new value was introduced");
    step(&desk, "SECRET_KEY --introduce");
    assert_eq!(stand(&desk, "SECRET_KEY").1.len(), 2);
    assert_ne!(stand(&desk, "SECRET_KEY").1[0], new);

    // After it: the value that stands there is the one on record.
    put(&introduced, &nothing_written(&record));
    assert_eq!(step(&desk, "SECRET_KEY --introduce")["secrets"][0]["changed"], false);
    assert_eq!(stand(&desk, "SECRET_KEY").1[0], new);

    // The promotion was written, and is not on record.
    step(&desk, "SECRET_KEY --promote");
    let (promoted, _) = files();
    put(&promoted, &record);
    assert_eq!(unfinished(&desk)["step"], "promote", "the place is believed, not the record");
    assert_eq!(step(&desk, "SECRET_KEY --promote")["secrets"][0]["changed"], false);
    assert_eq!(stand(&desk, "SECRET_KEY"), (new.clone(), vec![old[0].clone()]));

    // An old file is put back: the promotion is done again.
    let (_, record) = files();
    put(&introduced, &record.unwrap());
    assert_eq!(step(&desk, "SECRET_KEY --promote")["secrets"][0]["changed"], true);
    assert_eq!(stand(&desk, "SECRET_KEY").0, new);
}

#[test]
fn verifiers_have_a_public_key_before_anybody_signs_with_it() {
    let desk =
        Desk::new("[secret.signing]\nkind = \"ed25519\"\nenv_file = \".env\"\nvariable = \"KEY\"\njwks = \"jwks.json\"\n");
    desk.put(".env", "KEY=\n");
    let kids = || -> Vec<String> {
        let set: Value = serde_json::from_str(&desk.read("jwks.json")).unwrap();
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let first = step(&desk, "signing")["secrets"][0]["kid"].as_str().unwrap().to_owned();
    let signs = desk.value(".env", "KEY");
    let second = step(&desk, "signing --introduce")["secrets"][0]["kid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(kids(), [second.clone(), first.clone()]);
    assert_eq!(desk.value(".env", "KEY"), signs);
    let waits = desk.file(".env.KEY.next");
    assert_eq!(fs::metadata(&waits).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(step(&desk, "signing --introduce")["secrets"][0]["changed"], false);
    let waiting = fs::read_to_string(&waits).unwrap();

    step(&desk, "signing --promote");
    assert_eq!(desk.value(".env", "KEY"), waiting);
    assert!(!waits.exists(), "a private key lies about");
    assert_eq!(kids(), [second.clone(), first]);
    // Killed before it could be removed.
    fs::write(&waits, &waiting).unwrap();
    fs::set_permissions(&waits, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(step(&desk, "signing --promote")["secrets"][0]["changed"], false);
    assert!(!waits.exists());
    assert_eq!(step(&desk, "signing --retire")["secrets"][0]["changed"], true);
    assert_eq!(kids(), std::slice::from_ref(&second));
    assert_eq!(step(&desk, "signing --retire")["secrets"][0]["changed"], false);

    step(&desk, "signing --introduce");
    step(&desk, "signing --compromised");
    assert!(!waits.exists(), "what waited goes with what leaked");
    assert!(kids().len() == 1 && kids() != [second]);
}

#[test]
fn a_command_that_knows_steps_is_told_them() {
    let desk = Desk::new(
        "[secret.token]\nkind = \"hex\"\nsteps = true\ncommand = \"echo $RESEAL_STEP $(wc -c) >> log; ! test -e broken\"\n\
         [secret.plain]\nkind = \"hex\"\ncommand = \"cat > got\"\n",
    );
    refused(&desk, "plain --introduce", "new values only");
    assert!(!desk.file("got").exists());
    refused(&desk, "token --promote", "no new value was introduced");
    desk.put("broken", "");
    desk.rotate("token --introduce", 3);
    refused(&desk, "token --promote", "no new value was introduced");
    fs::remove_file(desk.file("broken")).unwrap();
    for arguments in ["--introduce", "--introduce", "--promote", "--promote", "--retire", ""] {
        desk.rotate(&format!("token {arguments}"), 0);
    }
    // A value with each new one, and nothing with the steps that move it.
    assert_eq!(
        desk.read("log"),
        "introduce 64\nintroduce 64\npromote 0\nretire 0\nreplace 64\n"
    );
}

#[test]
fn a_credential_is_a_list_that_grows_before_it_is_used() {
    let desk = Desk::new("[secret.token]\nkind = \"hex\"\nsystemd = { file = \"token.cred\" }\nlist = true\n");
    let path = desk.systemd_creds();
    let step = |arguments: &str, exit: i32| {
        let mut command = reseal();
        command.current_dir(&desk.folder).env("PATH", &path);
        command
            .args(["secrets", "rotate", "token"])
            .args(arguments.split_whitespace());
        command.assert().code(exit);
        desk.read("token.cred").split(';').map(str::to_owned).collect::<Vec<_>>()
    };
    let old = step("", 0);
    let introduced = step("--introduce", 0);
    assert!(introduced.len() == 2 && introduced[0] == old[0]);
    assert_eq!(step("--introduce", 0), introduced);
    step("--retire", 4);
    assert_eq!(step("--promote", 0), [introduced[1].clone(), old[0].clone()]);
    assert_eq!(step("--retire", 0), std::slice::from_ref(&introduced[1]));
}
