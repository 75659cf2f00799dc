//! Instances say which revision they seal with next: through the crate by themselves, for others through `reseal ack`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use age::x25519::Identity;
use jiff::Timestamp;
use reseal::app::{Keyring, Options, ReportError, ReportOptions, TokenOptions, Unlock};
use reseal::key::{Algorithm, Entry, KeyId, KeyringEdit, Keyset, OldPrimary, Previous, Seal};
use reseal::store;
use reseal::store::ledger::instance::{Instance, Instances};
use serde_json::Value;

const KEYSET: &str = "customer-data";

/// A database of each kind, empty; what keeps it alive comes with it.
fn databases() -> Vec<(String, Box<dyn std::any::Any>)> {
    let folder = support::tempdir();
    let path = folder.path().join("app.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    let mut all: Vec<(String, Box<dyn std::any::Any>)> = vec![(format!("sqlite:{}", path.display()), Box::new(folder))];
    if let Some(database) = support::postgres() {
        all.push((database.url(), Box::new(database)));
    }
    all
}

/// A keyring file with one keyset.
struct File {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl File {
    fn new() -> Self {
        let file = Self {
            folder: support::tempdir(),
            identity: Identity::generate(),
        };
        let seal = Seal::Recipients(vec![file.identity.to_public()]);
        let mut edit = KeyringEdit::create(&file.path(), seal, Duration::ZERO).unwrap();
        let keyset = Keyset::generate(KEYSET.parse().unwrap(), Algorithm::Aes256Gcm, Timestamp::now()).unwrap();
        edit.insert(keyset).unwrap();
        edit.commit(Previous::Kept).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reseal.keyring")
    }

    fn open(&self, now: fn() -> Timestamp) -> Keyring {
        let options = Options {
            poll_every: Duration::from_millis(20),
            now,
            ..Options::default()
        };
        Keyring::open_with(self.path(), Unlock::Identities(vec![self.identity.clone()]), options).unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keyset) -> T) -> T {
        self.edit(|edit| change(edit.keyring_mut().keyset_mut(&KEYSET.parse().unwrap()).unwrap()))
    }

    fn edit<T>(&self, change: impl FnOnce(&mut KeyringEdit) -> T) -> T {
        let unlock = Unlock::Identities(vec![self.identity.clone()]);
        let mut edit = KeyringEdit::begin(&self.path(), unlock, 0, Duration::from_secs(5)).unwrap();
        let done = change(&mut edit);
        edit.commit(Previous::Kept).unwrap();
        done
    }

    fn stage(&self) -> KeyId {
        self.change(|keyset| keyset.add(Algorithm::Aes256Gcm, Entry::Staged, Timestamp::now()).unwrap())
    }

    fn promote(&self, id: KeyId, old: OldPrimary) {
        self.change(|keyset| keyset.promote(id, old, Timestamp::now()).unwrap());
    }
}

fn often(lease: Duration) -> ReportOptions {
    ReportOptions {
        every: Duration::from_millis(50),
        lease,
        version: "shop 7".to_owned(),
    }
}

fn listed(url: &str) -> Vec<Instance> {
    let store = store::open(url, "tests").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut control = store.control().await.unwrap();
        Instances::of(&mut *control).list(None).await.unwrap()
    })
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn reported(url: &str, is_so: impl Fn(&Instance) -> bool) -> Instance {
    eventually("the report", || listed(url).into_iter().find(|one| is_so(one)))
}

#[test]
fn an_instance_reports_what_its_next_seal_uses_and_takes_its_entry_away_at_its_end() {
    for (url, _alive) in databases() {
        let file = File::new();
        let keyring = file.open(Timestamp::now);
        let reporting = keyring.report_with(&url, "web-1", often(Duration::from_secs(60))).unwrap();
        // Nothing is used yet, and nothing is said of it.
        eventually("a first report", || reporting.status().reported_at);
        assert!(listed(&url).is_empty());
        let handle = keyring.keyset(KEYSET).unwrap();
        let first = reported(&url, |_| true);
        assert_eq!(first.instance, reporting.instance());
        assert!(first.instance.starts_with("web-1/"), "{first:?}");
        assert_eq!((first.keyset.as_str(), first.version.as_str()), (KEYSET, "shop 7"));
        assert_eq!(
            (first.revision, first.seals_with),
            (handle.revision(), Some(handle.primary().0))
        );

        let staged = file.stage();
        let second = reported(&url, |one| one.revision > first.revision);
        assert_eq!(second.seals_with, first.seals_with);
        file.promote(staged, OldPrimary::Retires);
        let third = reported(&url, |one| one.revision > second.revision);
        assert_eq!(third.seals_with, Some(staged.0));
        assert_eq!(handle.primary(), staged);
        assert_eq!(reporting.status().reported, [(KEYSET.to_owned(), third.revision)]);

        // A file that is not used is not acknowledged.
        std::fs::write(file.path(), "not a keyring").unwrap();
        eventually("the fault is seen", || keyring.status().fault);
        let still = reported(&url, |one| one.seen_at > third.seen_at);
        assert_eq!(still.revision, third.revision);

        drop(reporting);
        assert!(listed(&url).is_empty());
    }
}

#[test]
fn whoever_only_signs_tokens_is_an_instance_too() {
    for (url, _alive) in databases() {
        let file = File::new();
        let logins = Keyset::generate("logins".parse().unwrap(), Algorithm::Hs256, Timestamp::now()).unwrap();
        file.edit(|edit| edit.insert(logins).unwrap());
        let keyring = file.open(Timestamp::now);
        let handle = keyring.tokens("logins", TokenOptions::default()).unwrap();
        let _reporting = keyring.report_with(&url, "web-1", often(Duration::from_secs(60))).unwrap();
        let first = reported(&url, |_| true);
        assert_eq!(first.keyset, "logins");
        assert_eq!(
            (first.revision, first.seals_with),
            (handle.revision(), Some(handle.primary().0))
        );
        let staged = file.edit(|edit| {
            let keyset = edit.keyring_mut().keyset_mut(&"logins".parse().unwrap()).unwrap();
            let staged = keyset.add(Algorithm::Hs256, Entry::Staged, Timestamp::now()).unwrap();
            keyset.promote(staged, OldPrimary::Retires, Timestamp::now()).unwrap();
            staged
        });
        let second = reported(&url, |one| one.revision > first.revision);
        assert_eq!(second.seals_with, Some(staged.0));
        assert_eq!(listed(&url).len(), 1, "a keyset that no handle was asked for is not used");
    }
}

#[test]
fn two_processes_of_one_name_are_two_instances() {
    for (url, _alive) in databases() {
        let file = File::new();
        let (one, other) = (file.open(Timestamp::now), file.open(Timestamp::now));
        let (_one, _other) = (one.keyset(KEYSET).unwrap(), other.keyset(KEYSET).unwrap());
        let _first = one.report_with(&url, "web", often(Duration::from_secs(60))).unwrap();
        let _second = other.report_with(&url, "web", often(Duration::from_secs(60))).unwrap();
        eventually("both are listed", || (listed(&url).len() == 2).then_some(()));
    }
}

#[test]
fn leases_do_not_ask_the_clock_of_the_process() {
    for (url, _alive) in databases() {
        for now in [(|| Timestamp::MIN) as fn() -> Timestamp, || Timestamp::MAX] {
            let file = File::new();
            let keyring = file.open(now);
            let _handle = keyring.keyset(KEYSET).unwrap();
            let reporting = keyring.report_with(&url, "web-1", often(Duration::from_secs(60))).unwrap();
            let entry = reported(&url, |_| true);
            assert!(entry.is_live() && entry.lease_left_ms <= 60_000, "{entry:?}");
            drop(reporting);
        }
    }
}

#[test]
fn an_instance_that_dies_is_gone_when_its_lease_ends() {
    for (url, _alive) in databases() {
        let file = File::new();
        let keyring = file.open(Timestamp::now);
        let _handle = keyring.keyset(KEYSET).unwrap();
        let options = ReportOptions {
            every: Duration::from_secs(3600),
            ..often(Duration::from_secs(1))
        };
        let reporting = keyring.report_with(&url, "web-1", options).unwrap();
        reported(&url, |_| true);
        let gone = reported(&url, |one| !one.is_live());
        assert_eq!(gone.instance, reporting.instance());
    }
}

#[test]
fn sealing_never_waits_for_a_database_and_the_fault_is_shown() {
    let file = File::new();
    let keyring = file.open(Timestamp::now);
    let handle = keyring.keyset(KEYSET).unwrap();
    let reporting = keyring.report_to("postgres://app@127.0.0.1:1/app", "web-1").unwrap();
    let stored = handle.seal(b"x", b"place").unwrap();
    assert_eq!(&*handle.open(&stored, b"place").unwrap(), b"x");
    let fault = eventually("the fault is seen", || reporting.status().fault);
    assert!(fault.to_string().contains("127.0.0.1:1"), "{fault}");
    assert!(reporting.status().reported_at.is_none());
    assert!(handle.seal(b"x", b"place").is_ok());
    drop(reporting);

    for (url, name) in [
        ("postgres://app@127.0.0.1:1/app", ""),
        ("postgres://app@127.0.0.1:1/app", "a\u{1b}b"),
    ] {
        assert!(matches!(keyring.report_to(url, name), Err(ReportError::Name)));
    }
    assert!(matches!(keyring.report_to("ftp://x", "web-1"), Err(ReportError::Database(_))));
    assert!(matches!(
        keyring.report_to("sqlite:/nowhere/app.db", "web-1"),
        Err(ReportError::Database(_))
    ));
}

#[test]
fn values_opened_under_a_compromised_key_are_counted() {
    for (url, _alive) in databases() {
        let file = File::new();
        let keyring = file.open(Timestamp::now);
        let handle = keyring.keyset(KEYSET).unwrap();
        let old = handle.seal(b"x", b"place").unwrap();
        let leaked = handle.primary();
        let _reporting = keyring.report_with(&url, "web-1", often(Duration::from_secs(60))).unwrap();
        let staged = file.stage();
        file.promote(staged, OldPrimary::IsCompromisedButOffered);
        keyring.refresh().unwrap();
        for _ in 0..3 {
            assert!(handle.open(&old, b"place").unwrap().is_due());
        }
        let new = handle.seal(b"x", b"place").unwrap();
        assert!(!handle.open(&new, b"place").unwrap().is_due());
        reported(&url, |one| one.compromised_opens == 3);

        // The offer ends when its values are moved, and the key stays compromised.
        file.change(|keyset| keyset.retire(leaked, Timestamp::now()).unwrap());
        keyring.refresh().unwrap();
        assert!(handle.open(&old, b"place").is_err());
    }
}

struct Desk {
    url: String,
    file: File,
}

impl Desk {
    fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        let identity = self.file.folder.path().join("identity");
        reseal::key::write_private(&identity, self.file.identity.to_string().expose().as_bytes(), true).unwrap();
        let output = support::reseal()
            .args(arguments)
            .arg("--json")
            .env("DATABASE_URL", &self.url)
            .env("RESEAL_KEYRING", self.file.path())
            .output()
            .unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (
            output.status.code().unwrap(),
            document,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn identity(&self) -> String {
        self.file.folder.path().join("identity").display().to_string()
    }
}

trait Expose {
    fn expose(&self) -> &str;
}

impl Expose for age::secrecy::SecretString {
    fn expose(&self) -> &str {
        use age::secrecy::ExposeSecret as _;
        self.expose_secret()
    }
}

/// `reseal ack` for this instance, with these further arguments.
fn with<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["ack", "--keyset", KEYSET, "--instance", name][..], more].concat()
}

#[test]
fn ack_reports_for_others_and_status_lists_them() {
    for (url, _alive) in databases() {
        let desk = Desk { url, file: File::new() };

        let (code, document, said) = desk.run(&with("php-1", &["--gone"]));
        assert_eq!((code, &document["gone"]), (0, &Value::Bool(true)), "{said}");
        let (code, document, _) = desk.run(&["status"]);
        assert_eq!((code, document["instances"].as_array().unwrap().len()), (0, 0));

        let identity = desk.identity();
        desk.file.stage();
        let (code, document, said) = desk.run(&with("php-1", &["--identity", &identity, "--lease", "10m"]));
        assert_eq!(code, 0, "{said}");
        assert_eq!((&document["revision"], &document["lease_seconds"]), (&2.into(), &600.into()));
        let (code, _, said) = desk.run(&with("php-2", &["--revision", "7"]));
        assert_eq!(code, 0, "{said}");
        let (code, _, said) = desk.run(&with("php-2", &["--revision", "6"]));
        assert_eq!(code, 0, "{said}");

        let (code, document, said) = desk.run(&["status"]);
        assert_eq!(code, 0, "{said}");
        let instances = document["instances"].as_array().unwrap();
        assert_eq!(instances.len(), 2, "{document}");
        assert_eq!(
            (&instances[0]["instance"], &instances[0]["revision"]),
            (&"php-1".into(), &2.into())
        );
        assert!(
            instances[0]["seals_with"].is_u64() && instances[1]["seals_with"].is_null(),
            "{document}"
        );
        assert_eq!(
            (&instances[1]["revision"], &instances[1]["newest_revision"]),
            (&6.into(), &7.into())
        );
        assert_eq!(instances[1]["live"], true);
        assert!(
            said.contains("instance php-2 of customer-data: revision 6, after it had 7"),
            "{said}"
        );

        let (code, _, _) = desk.run(&with("php-2", &["--gone"]));
        assert_eq!(code, 0);
        let (_, document, _) = desk.run(&["status"]);
        assert_eq!(document["instances"].as_array().unwrap().len(), 1);

        for wrong in [&["--lease", "0s"][..], &["--revision", "0"], &["--gone", "--revision", "3"]] {
            let (code, _, said) = desk.run(&with("php-2", wrong));
            assert_eq!(code, 2, "{wrong:?}: {said}");
        }
        let (code, _, _) = desk.run(&["ack", "--keyset", "orders", "--instance", "x", "--identity", &identity]);
        assert_eq!(code, 3);
    }
}
