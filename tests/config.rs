//! `reseal.toml`: what it may say, and that its errors name keys and never values.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use reseal::config::{Config, ConfigFault};
use reseal::secret::{History, ListForm, Target};

fn parse(text: &str) -> Result<Config, ConfigFault> {
    Config::parse(Path::new("/etc/app/reseal.toml"), text)
}

const COMPLETE: &str = r#"
[keyring]
file = "reseal.keyring"
unlock = "env:RESEAL_PASSPHRASE"

[database.main]
url = "env:DATABASE_URL"

[dataset.customers]
database = "main"
table = "public.customers"
keyset = "customer-data"
columns = [
  { name = "email", format = "fernet" },
  { name = "notes", format = "tink", aad = "customers.notes:{id}" },
]

[secret.SECRET_KEY]
kind = "token-urlsafe"
bytes = 64
env_file = ".env"
previous = "SECRET_KEY_FALLBACKS"
previous_form = "json"

[secret.keys]
kind = "fernet"
kubernetes = { file = "/srv/secret.yaml", name = "app" }
variable = "ENCRYPTION_KEYS"
list = true
keep = 3
max_age = "30d"

[secret.token]
kind = "hex"
command = "vault kv put -mount=kv app token=-"

[policy]
max_key_age = "90d"
backup_horizon = "35d"
"#;

#[test]
fn a_complete_configuration_becomes_types() {
    let config = parse(COMPLETE).unwrap();
    assert_eq!(config.keyring.unwrap().file, Path::new("/etc/app/reseal.keyring"));
    assert_eq!(config.datasets[0].columns[1].aad.as_deref(), Some("customers.notes:{id}"));
    let secret = |name: &str| config.secrets.iter().find(|secret| secret.name == name).unwrap();
    let Target::EnvFile { file, variable, history } = &secret("SECRET_KEY").target else {
        panic!()
    };
    assert_eq!(
        (file.as_path(), variable.as_str()),
        (Path::new("/etc/app/.env"), "SECRET_KEY")
    );
    assert!(matches!(
        history,
        History::Beside {
            form: ListForm::Json,
            keep: None,
            ..
        }
    ));
    assert_eq!(secret("SECRET_KEY").max_age.unwrap().as_hours(), 90 * 24);
    assert_eq!(secret("keys").max_age.unwrap().as_hours(), 30 * 24);
    let Target::Manifest { file, history, .. } = &secret("keys").target else {
        panic!()
    };
    assert_eq!(
        (file.as_path(), history),
        (Path::new("/srv/secret.yaml"), &History::Inside { keep: Some(3) })
    );
    assert!(matches!(secret("token").target, Target::Command { steps: false, .. }));
    assert!(parse("").is_ok());
}

#[test]
fn backups_may_be_kept_for_no_time_and_keys_may_not() {
    for (text, horizon) in [("0d", 0), ("0h", 0), ("35d", 35 * 24)] {
        let config = parse(&format!("[policy]\nbackup_horizon = \"{text}\"")).unwrap();
        assert_eq!(config.policy.backup_horizon.unwrap().as_hours(), horizon);
    }
    for (key, text, why) in [
        ("max_key_age", "0d", "is no time at all"),
        ("backup_horizon", "-1d", "is not a time"),
        ("backup_horizon", "soon", "is not a time"),
    ] {
        let fault = parse(&format!("[policy]\n{key} = \"{text}\"")).unwrap_err().to_string();
        assert!(fault.contains(key) && fault.contains(why), "{fault}");
    }
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_name() {
    for (text, key, nearest) in [
        ("[databse.main]\nurl = \"sqlite:x\"", "databse", "database"),
        (
            "[database.main]\nurll = \"sqlite:x\"\nurl = \"sqlite:x\"",
            "database.main.urll",
            "url",
        ),
        (
            "[secret.A]\nkind = \"hex\"\nenvfile = \".env\"\nenv_file = \".env\"",
            "secret.A.envfile",
            "env_file",
        ),
        ("[policy]\nmax_keyage = \"1d\"", "policy.max_keyage", "max_key_age"),
    ] {
        let fault = parse(text).unwrap_err();
        let ConfigFault::Unknown {
            key: found,
            nearest: offered,
        } = &fault
        else {
            panic!("{fault}")
        };
        assert_eq!((found.as_str(), *offered), (key, nearest));
    }
}

#[test]
fn secrets_in_the_file_are_refused_and_nothing_is_repeated() {
    const SECRET: &str = "q3Vb9nTzLw0ZxR7aKd2PfYs5Jh8Gm1Uc";
    for text in [
        format!("[keyring]\nfile = \"k\"\nunlock = \"{SECRET}\""),
        format!("[database.main]\nurl = \"{SECRET}\""),
        format!("[database.main]\nurl = \"postgres://app:{SECRET}@db/app\""),
        format!("[database.main]\nurl = \"postgres://app@db/app?password={SECRET}\""),
        format!("[secret.A]\nkind = \"{SECRET}\"\nenv_file = \".env\""),
        format!("[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\nvariable = \"{SECRET}\""),
        format!("[secret.{SECRET}]\nkind = \"hex\"\nenv_file = \".env\""),
        format!("[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\n{SECRET} = 1"),
        format!("password = \"{SECRET}\""),
        format!("password = \"{SECRET}"),
        format!("{SECRET} = 1\n{SECRET} = 2"),
    ] {
        let fault = parse(&text).unwrap_err();
        assert!(
            !format!("{fault} {fault:?}").contains(SECRET),
            "the secret is repeated in {}",
            text.len()
        );
    }
    assert!(matches!(
        parse("[database.main]\nurl = \"postgres://app:hunter2@db/app\""),
        Err(ConfigFault::LooksSecret { .. })
    ));
}

#[test]
fn duplicates_nesting_and_wrong_types_are_errors_with_their_place() {
    let syntax = |text: &str| match parse(text) {
        Err(ConfigFault::Syntax { line, what }) => (line, what),
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert_eq!(
        syntax("[policy]\n\nmax_key_age = \"1d\"\nmax_key_age = \"2d\"\n").1,
        "a key stands there twice"
    );
    assert_eq!(syntax("[policy]\n[policy]").1, "a key stands there twice");
    assert_eq!(syntax("a = 1\n= 2").0, 2);
    syntax(&format!("a = {}{}", "[".repeat(5000), "]".repeat(5000)));
    for text in [
        "policy = 1",
        "secret = 1",
        "secret.A = 1",
        "[secret.A]\nkind = 1",
        "[secret.A]\nkind = \"hex\"",
        "[secret.A]\nkind = \"hex\"\nbytes = -1\nenv_file = \".env\"",
        "[secret.A]\nkind = \"hex\"\nbytes = 8\nenv_file = \".env\"",
        "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\ncommand = \"cat\"",
        "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\nprevious = \"B\"\nlist = true",
        "[secret.A]\nkind = \"hex\"\ncommand = \"cat\"\nlist = true",
        "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\nvariable = \"A=B\"",
        "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\njwks = \"j\"",
        "[secret.A]\nkind = \"hex\"\nenv_file = \".env\"\nmax_age = \"soon\"",
        "[dataset.a]\ndatabase = \"none\"\ntable = \"t\"\nkeyset = \"k\"\ncolumns = [{ name = \"c\" }]",
    ] {
        assert!(
            matches!(parse(text), Err(ConfigFault::Value { .. } | ConfigFault::Missing { .. })),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reseal.toml");
    std::fs::write(&path, " ".repeat(2 * 1024 * 1024)).unwrap();
    assert!(matches!(Config::read(&path).unwrap_err().fault, ConfigFault::TooLarge(_)));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Config::read(&path).unwrap_err().fault, ConfigFault::Absent));
}
