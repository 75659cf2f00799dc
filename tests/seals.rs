//! Seals are counted before they leave, never too few, across crashes and processes; and a key stops before its limit.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use jiff::Timestamp;
use reseal::app::{Keyring, Options, SealError};
use reseal::format::{RANDOM_NONCES_PER_KEY_MAX, by_name};
use reseal::key::{
    Algorithm, Fingerprint, KeyringEdit, Keyset, Previous, Seal, SealCounts, SealMeter, SealsFault, Unlock, seals_refused_at,
    seals_warned_at,
};
use serde_json::{Value, json};
use support::{reseal, tempdir};

struct Desk {
    folder: tempfile::TempDir,
    identity: age::x25519::Identity,
    key: Fingerprint,
}

impl Desk {
    fn new(algorithm: Algorithm) -> Self {
        let folder = tempdir();
        let identity = age::x25519::Identity::generate();
        let path = folder.path().join("reseal.keyring");
        let seal = Seal::from_parts(None, &[identity.to_public().to_string()]).unwrap();
        let keyset = Keyset::generate("data".parse().unwrap(), algorithm, Timestamp::now()).unwrap();
        let key = keyset.primary().fingerprint().unwrap();
        let mut edit = KeyringEdit::create(&path, seal, Duration::ZERO).unwrap();
        edit.insert(keyset).unwrap();
        edit.commit(Previous::Kept).unwrap();
        let desk = Self { folder, identity, key };
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

    fn seals(&self) -> PathBuf {
        SealCounts::beside(&self.file("reseal.keyring"))
    }

    fn set(&self, count: u64) {
        self.put("reseal.keyring.seals", &counts(self.key, count));
    }

    fn counted(&self) -> u64 {
        SealCounts::read(&self.seals()).unwrap().unwrap_or_default().of(self.key)
    }

    fn open(&self) -> Keyring {
        let unlock = Unlock::Identities(vec![self.identity.clone()]);
        Keyring::open(self.file("reseal.keyring"), unlock).unwrap()
    }

    fn run(&self, arguments: &str, exit: i32) -> Value {
        let mut command = reseal();
        command.current_dir(&self.folder).arg("--json");
        let output = command.args(arguments.split_whitespace()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn counts(key: Fingerprint, count: u64) -> String {
    json!({ "schema": "reseal.seals/1", "sealed": { key.to_string(): count } }).to_string()
}

const LIMIT: u64 = seals_refused_at(RANDOM_NONCES_PER_KEY_MAX);

#[test]
fn the_limit_is_a_tenth_below_the_standards() {
    assert_eq!((LIMIT, RANDOM_NONCES_PER_KEY_MAX), (3_865_470_566, 1 << 32));
}

#[test]
fn an_application_counts_before_it_seals_and_gives_back_what_it_did_not_use() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    {
        let keyring = desk.open();
        let data = keyring.keyset("data").unwrap();
        assert!(!desk.seals().exists(), "reading a keyring writes nothing");
        for sealed in 1..=5_000 {
            data.seal(b"value", b"").unwrap();
            // Whatever happens now, a crash included: the file counts this value, and a bounded number that may never be sealed.
            if sealed % 499 == 0 || sealed < 3 {
                let counted = desk.counted();
                assert!(
                    (sealed..=2 * sealed + 1_024).contains(&counted),
                    "{sealed} sealed, {counted} counted"
                );
            }
        }
        assert!(!keyring.status().seals_unrecorded);
    }
    assert_eq!(desk.counted(), 5_000);
    assert_eq!(fs::metadata(desk.seals()).unwrap().permissions().mode() & 0o777, 0o600);
    // The next process goes on from there; threads and both handles share one count.
    {
        let keyring = desk.open();
        let (one, other) = (keyring.keyset("data").unwrap(), keyring.keyset("data").unwrap());
        std::thread::scope(|scope| {
            for handle in [&one, &other, &one, &other] {
                scope.spawn(move || (0..1_000).for_each(|_| drop(handle.seal(b"value", b"").unwrap())));
            }
        });
    }
    assert_eq!(desk.counted(), 9_000);
}

#[test]
fn where_no_number_of_values_is_too_many_nothing_is_counted() {
    let desk = Desk::new(Algorithm::Fernet);
    let keyring = desk.open();
    let data = keyring.keyset_in("data", by_name("fernet").unwrap()).unwrap();
    data.seal(b"value", b"").unwrap();
    drop((data, keyring));
    assert!(!desk.seals().exists());
    let desk = Desk::new(Algorithm::Aes256Gcm);
    let options = Options {
        count_seals: false,
        ..Options::default()
    };
    let keyring = Keyring::open_with(
        desk.file("reseal.keyring"),
        Unlock::Identities(vec![desk.identity.clone()]),
        options,
    )
    .unwrap();
    keyring.keyset("data").unwrap().seal(b"value", b"").unwrap();
    assert!(!desk.seals().exists());
}

#[test]
fn a_key_stops_before_its_limit_and_still_opens() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    desk.set(LIMIT - 3);
    let keyring = desk.open();
    let data = keyring.keyset("data").unwrap();
    let sealed: Vec<_> = (0..3).map(|_| data.seal(b"value", b"").unwrap()).collect();
    for _ in 0..3 {
        assert!(matches!(data.seal(b"value", b""), Err(SealError::Exhausted(told)) if told.sealed == LIMIT));
    }
    assert_eq!(&data.open(&sealed[2], b"").unwrap().into_plaintext()[..], b"value");
    drop((data, keyring));
    assert_eq!(desk.counted(), LIMIT);
}

const CHILD: &str = "RESEAL_TEST_SEALS";

/// The other half of the next test, run in a process of its own: seals, and dies without a word.
#[test]
fn child_that_is_killed_while_it_seals() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (path, values) = order.split_once('|').unwrap();
    let key = Fingerprint::parse(values.split_once('|').unwrap().0).unwrap();
    let values: u64 = values.split_once('|').unwrap().1.parse().unwrap();
    let meter = SealMeter::new(path.into(), key, RANDOM_NONCES_PER_KEY_MAX);
    (0..values).for_each(|_| meter.take(1).unwrap());
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_crash_counts_too_many_and_never_too_few() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    let mut truth = 0;
    for values in [1, 1_024, 1_025, 10_000, 3] {
        let before = desk.counted();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed_while_it_seals"])
            .env(CHILD, format!("{}|{}|{values}", desk.seals().display(), desk.key))
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(9), "{child:?}");
        truth += values;
        let counted = desk.counted();
        assert!(
            counted >= truth && counted - before <= 2 * values + 1_024,
            "{values}: {before} to {counted}"
        );
    }
}

fn meter(path: &Path, key: Fingerprint, max: u64) -> SealMeter {
    SealMeter::new(path.to_owned(), key, max)
}

#[test]
fn processes_that_share_a_file_are_counted_together() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    let (one, other) = (
        meter(&desk.seals(), desk.key, RANDOM_NONCES_PER_KEY_MAX),
        meter(&desk.seals(), desk.key, RANDOM_NONCES_PER_KEY_MAX),
    );
    std::thread::scope(|scope| {
        for meter in [&one, &other] {
            scope.spawn(move || (0..20_000).for_each(|_| meter.take(1).unwrap()));
        }
    });
    assert!(desk.counted() >= 40_000);
    drop((one, other));
    assert_eq!(desk.counted(), 40_000);
    // With a small limit the two stop at it together, not each for itself.
    let small = 64_000;
    desk.set(0);
    let (one, other) = (meter(&desk.seals(), desk.key, small), meter(&desk.seals(), desk.key, small));
    let mut taken = 0;
    while one.take(10).is_ok() {
        taken += 10;
        if other.take(10).is_ok() {
            taken += 10;
        }
    }
    while other.take(10).is_ok() {
        taken += 10;
    }
    assert!(taken <= seals_refused_at(small), "{taken}");
    assert!(taken + 2_000 >= seals_refused_at(small), "{taken}");
}

#[test]
fn a_file_that_cannot_be_written_stops_nobody_and_is_made_good_later() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    desk.put("reseal.keyring.seals", "{\"schema\":\"reseal.seals/2\",\"sealed\":{}}");
    assert!(matches!(SealCounts::read(&desk.seals()), Err(SealsFault::Shape)));
    let keyring = desk.open();
    let data = keyring.keyset("data").unwrap();
    for _ in 0..1_500 {
        data.seal(b"value", b"").unwrap();
    }
    assert!(keyring.status().seals_unrecorded);
    desk.set(7);
    for _ in 0..1_500 {
        data.seal(b"value", b"").unwrap();
    }
    assert!(!keyring.status().seals_unrecorded);
    assert!(desk.counted() >= 3_007);
    drop((data, keyring));
    assert_eq!(desk.counted(), 3_007);
    // A file that was lost, or put back, does not lose what a living process has counted.
    let meter = meter(&desk.seals(), desk.key, RANDOM_NONCES_PER_KEY_MAX);
    meter.take(5_000).unwrap();
    fs::remove_file(desk.seals()).unwrap();
    meter.take(5_000).unwrap();
    drop(meter);
    assert_eq!(desk.counted(), 10_000);
}

#[test]
fn check_and_list_tell_what_was_counted_here_and_elsewhere() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    let check = |more: &str, exit| desk.run(&format!("keys check --max-age 90d --identity me.key {more}"), exit);
    let uncounted = check("", 0);
    assert_eq!(uncounted["keysets"][0]["seals_counted"]["counted"], Value::Null);
    let warned = seals_warned_at(RANDOM_NONCES_PER_KEY_MAX);
    desk.set(warned - 1);
    check("", 0);
    desk.put("elsewhere", &counts(desk.key, 1));
    let document = check("--seals elsewhere", 7);
    assert_eq!(document["findings"][0]["finding"], "worn");
    assert_eq!(document["findings"][0]["next"], "reseal keys generate data");
    let listed = desk.run("keys list --identity me.key --seals elsewhere", 0);
    assert_eq!(listed["keysets"][0]["keys"][0]["seals_counted"]["counted"], warned);
    desk.set(LIMIT);
    assert_eq!(check("", 7)["findings"][0]["finding"], "exhausted");
    check("--seals nowhere", 3);
    desk.put("reseal.keyring.seals", "{");
    check("", 3);
}

#[test]
fn a_rotation_counts_what_it_seals_and_does_not_begin_what_it_may_not_end() {
    let desk = Desk::new(Algorithm::Aes256Gcm);
    let rows: u64 = 700;
    {
        let connection = rusqlite::Connection::open(desk.file("app.db")).unwrap();
        connection
            .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, c BLOB)")
            .unwrap();
        let old = Desk::new(Algorithm::Aes256Gcm);
        let keyring = old.open();
        let data = keyring.keyset_in("data", by_name("aes-gcm").unwrap()).unwrap();
        for id in 0..rows {
            let value = data.seal(b"value", b"").unwrap();
            connection
                .execute("INSERT INTO t VALUES (?, ?)", (id.cast_signed(), value))
                .unwrap();
        }
        let unlock = Unlock::Identities(vec![old.identity.clone()]);
        let opened = reseal::key::Keyring::open(&old.file("reseal.keyring"), &unlock, 0).unwrap();
        let material = opened.keysets()[0].primary().material().unwrap();
        let text = reseal::key::KeyEncoding::Hex.encode(material);
        desk.put("old", std::str::from_utf8(&text).unwrap());
    }
    let rotate = "rotate --database sqlite:app.db --table t --column c --format aes-gcm --from file:old --to keyring:data \
                  --identity me.key --dual-read-confirmed --yes";
    for count in [LIMIT, LIMIT - rows / 2] {
        desk.set(count);
        let refused = desk.run(rotate, 4);
        assert!(
            refused["error"]["next"].as_str().unwrap().contains("keys generate"),
            "{refused}"
        );
        assert_eq!(desk.counted(), count);
    }
    desk.set(1_000);
    desk.run(rotate, 0);
    assert_eq!(desk.counted(), 1_000 + rows);
    desk.run(rotate, 0);
    assert_eq!(desk.counted(), 1_000 + rows);
}
