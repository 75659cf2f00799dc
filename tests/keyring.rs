//! The keyring file: what it refuses, what it keeps, and that a crash at any step leaves one whole version.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use age::secrecy::SecretString;
use age::x25519::Identity;
use jiff::{SignedDuration, Timestamp};
use reseal::key::{
    Algorithm, Entry, KEYS_MAX, Keyring, KeyringEdit, KeyringError, KeyringFault, Keyset, KeysetError, KeysetName, LockFault,
    OldPrimary, Previous, ReadFault, ReplaceFault, Seal, Step, Steps, Unlock, WorkFactor,
};

/// Cheap, for tests only: one guess costs microseconds.
const CHEAP: WorkFactor = WorkFactor {
    write: 2,
    read_min: 1,
    read_max: 10,
};

/// Other tests of this binary fork; until a child has become another program, it shares the locks of this one.
const WAIT: Duration = Duration::from_secs(30);

struct Bench {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            identity: Identity::generate(),
        }
    }

    fn with_keyring() -> Self {
        let bench = Self::new();
        let mut edit = bench.create().unwrap();
        edit.insert(Keyset::generate(name("data"), Algorithm::Aes256Gcm, now()).unwrap())
            .unwrap();
        edit.commit(Previous::Kept).unwrap();
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reseal.keyring")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("reseal.keyring{suffix}"))
    }

    /// Temporary files.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("tmp")).collect()
    }

    fn unlock(&self) -> Unlock {
        Unlock::Identities(vec![self.identity.clone()])
    }

    fn create(&self) -> Result<KeyringEdit, KeyringError> {
        KeyringEdit::create(&self.path(), Seal::Recipients(vec![self.identity.to_public()]), WAIT)
    }

    fn open(&self) -> Result<Keyring, KeyringError> {
        Keyring::open(&self.path(), &self.unlock(), 0)
    }

    fn edit(&self) -> Result<KeyringEdit, KeyringError> {
        KeyringEdit::begin(&self.path(), self.unlock(), 0, WAIT)
    }

    /// The fault that opening reports; a change must report the same.
    fn fault(&self) -> KeyringFault {
        let error = self.open().err().expect("must be refused");
        assert!(error.to_string().contains(&*self.path().to_string_lossy()), "{error}");
        let on_change = self.edit().err().expect("must be refused for a change, too").fault;
        assert_eq!(error.fault.to_string(), on_change.to_string());
        error.fault
    }

    /// Puts a payload of the test's own into the file.
    fn forge(&self, payload: &[u8]) {
        let sealed = age::encrypt(&self.identity.to_public(), payload).unwrap();
        write_private(&self.path(), &sealed);
    }

    fn payload(&self) -> serde_json::Value {
        serde_json::from_slice(&age::decrypt(&self.identity, &fs::read(self.path()).unwrap()).unwrap()).unwrap()
    }
}

#[test]
fn what_is_written_is_read_again_and_every_write_is_a_generation() {
    let bench = Bench::with_keyring();
    let mut edit = bench.edit().unwrap();
    let keyset = edit.keyring_mut().keyset_mut(&name("data")).unwrap();
    let old = keyset.primary().id();
    let new = keyset.add(Algorithm::Fernet, Entry::Staged, now()).unwrap();
    keyset.promote(new, OldPrimary::IsCompromised, now()).unwrap();
    keyset.retire(old, now()).unwrap();
    let written = edit.commit(Previous::Kept).unwrap();

    let read = bench.open().unwrap();
    assert_eq!((written.generation(), read.generation()), (2, 2));
    let (before, after) = (written.keyset(&name("data")).unwrap(), read.keyset(&name("data")).unwrap());
    assert_eq!(before.revision(), after.revision());
    for (before, after) in before.keys().iter().zip(after.keys()) {
        assert_eq!(before.id(), after.id());
        assert_eq!(before.transitions(), after.transitions());
        assert_eq!(before.fingerprint(), after.fingerprint());
        assert_eq!(before.material().unwrap().expose(), after.material().unwrap().expose());
    }
    // The version before is kept, as private and as readable as the file.
    let previous = Keyring::open(&bench.beside(".bak"), &bench.unlock(), 0).unwrap();
    assert_eq!(previous.generation(), 1);
    for file in [bench.path(), bench.beside(".bak"), bench.beside(".lock")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 3);
}

#[test]
fn any_of_several_recipients_opens_and_writes_go_to_all_of_them() {
    let bench = Bench::new();
    let other = Identity::generate();
    let texts = [bench.identity.to_public().to_string(), other.to_public().to_string()];
    let seal = Seal::from_parts(None, &texts).unwrap();
    KeyringEdit::create(&bench.path(), seal, WAIT)
        .unwrap()
        .commit(Previous::Kept)
        .unwrap();
    bench.edit().unwrap().commit(Previous::Kept).unwrap();
    let read = Keyring::open(&bench.path(), &Unlock::Identities(vec![Identity::generate(), other]), 2).unwrap();
    assert_eq!(read.recipients().collect::<Vec<_>>(), texts);
    let stranger = Unlock::Identities(vec![Identity::generate()]);
    assert!(matches!(
        Keyring::open(&bench.path(), &stranger, 0).err().unwrap().fault,
        KeyringFault::Locked
    ));
}

#[test]
fn passphrases_and_recipients_do_not_mix() {
    let recipient = Identity::generate().to_public().to_string();
    let mixed = Seal::from_parts(Some(passphrase("a")), std::slice::from_ref(&recipient));
    assert!(matches!(mixed.err(), Some(KeyringFault::MixedSeal)));
    assert!(matches!(Seal::from_parts(None, &[]).err(), Some(KeyringFault::NoSeal)));
    assert!(matches!(
        Seal::from_parts(None, &["age1nonsense".to_owned()]).err(),
        Some(KeyringFault::Recipient)
    ));
}

#[test]
fn a_wrong_passphrase_and_a_damaged_header_are_one_error() {
    let bench = Bench::new();
    let seal = Seal::Passphrase(passphrase("right"), CHEAP);
    KeyringEdit::create(&bench.path(), seal, WAIT)
        .unwrap()
        .commit(Previous::Kept)
        .unwrap();
    let open = |text: &str, work| {
        let unlock = Unlock::Passphrase(passphrase(text), work);
        Keyring::open(&bench.path(), &unlock, 0).err().map(|error| error.fault)
    };
    assert!(open("right", CHEAP).is_none());
    assert!(matches!(open("wrong", CHEAP), Some(KeyringFault::Locked)));
    assert!(matches!(
        open("right", WorkFactor::STANDARD),
        Some(KeyringFault::Work {
            found: 2,
            min: 14,
            max: 18
        })
    ));
    assert!(matches!(bench.open().err().unwrap().fault, KeyringFault::OtherUnlock { .. }));

    let sealed = fs::read(bench.path()).unwrap();
    let header_end = sealed.windows(5).position(|window| window == b"\n--- ").unwrap();
    // The last character of the wrapped key's body, and the first of the MAC.
    for at in [header_end - 1, header_end + 5] {
        let mut damaged = sealed.clone();
        damaged[at] = if damaged[at] == b'A' { b'Q' } else { b'A' };
        write_private(&bench.path(), &damaged);
        assert!(matches!(open("right", CHEAP), Some(KeyringFault::Locked)), "byte {at}");
    }
    // A header that asks for 4 TiB is refused before any is spent.
    let work = sealed.windows(3).position(|window| window == b" 2\n").unwrap();
    let greedy = [&sealed[..work], b" 32\n", &sealed[work + 3..]].concat();
    write_private(&bench.path(), &greedy);
    assert!(matches!(open("right", CHEAP), Some(KeyringFault::Work { found: 32, .. })));
}

#[test]
fn damaged_files_are_told_apart_and_nothing_opens() {
    let bench = Bench::with_keyring();
    let sealed = fs::read(bench.path()).unwrap();
    let put = |bytes: &[u8]| write_private(&bench.path(), bytes);
    let header_end = sealed.windows(5).position(|window| window == b"\n--- ").unwrap();

    put(b"");
    assert!(matches!(bench.fault(), KeyringFault::Empty));
    put(b"{\"keysets\": []}");
    assert!(matches!(bench.fault(), KeyringFault::NotAge));
    put(b"age-encryption.org/v2\n-> X25519 ");
    assert!(matches!(bench.fault(), KeyringFault::UnknownAgeVersion));
    for length in 1..=header_end + 5 + 43 + 1 + 16 + 15 {
        put(&sealed[..length]);
        assert!(matches!(bench.fault(), KeyringFault::Truncated), "cut to {length} bytes");
    }
    put(&sealed[..sealed.len() - 1]);
    assert!(matches!(bench.fault(), KeyringFault::Damaged));
    for at in (0..sealed.len()).step_by(7) {
        let mut flipped = sealed.clone();
        flipped[at] ^= 4;
        put(&flipped);
        bench.fault();
    }
    put(&sealed);
    bench.open().unwrap();
}

#[test]
fn contents_that_break_the_rules_are_refused_with_the_reason_and_without_the_content() {
    let bench = Bench::with_keyring();
    let good = bench.payload();
    let forged = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut payload = good.clone();
        change(&mut payload);
        assert_ne!(payload, good);
        bench.forge(&serde_json::to_vec(&payload).unwrap());
        let fault = bench.fault();
        assert!(!fault.to_string().contains("canary"), "{fault}");
        fault
    };
    type Json = serde_json::Value;
    let key = |payload: &mut Json| payload["keysets"][0]["keys"][0].clone();

    assert!(matches!(
        forged(&|p| p["schema"] = "canary".into()),
        KeyringFault::WrongSchema
    ));
    assert!(matches!(
        forged(&|p| p["schema"] = "reseal.keyring/2".into()),
        KeyringFault::NewerSchema { found: 2 }
    ));
    assert!(matches!(forged(&|p| p["canary"] = 1.into()), KeyringFault::Malformed { .. }));
    assert!(matches!(
        forged(&|p| p["keysets"][0]["name"] = "can ary".into()),
        KeyringFault::Name
    ));
    assert!(matches!(
        forged(&|p| p["keysets"][0]["keys"][0]["id"] = "canary".into()),
        KeyringFault::Malformed { .. }
    ));
    assert!(matches!(
        forged(&|p| p["keysets"][0]["keys"][0]["id"] = 0.into()),
        KeyringFault::Contents(KeysetError::IdZero { .. })
    ));
    for field in ["state", "algorithm", "origin", "fingerprint", "material", "prefix"] {
        let fault = forged(&|p| p["keysets"][0]["keys"][0][field] = "canary".into());
        assert!(matches!(fault, KeyringFault::Field { position: 1, .. }), "{field}: {fault}");
    }
    let suspended = forged(&|p| p["keysets"][0]["keys"][0]["transitions"][0]["state"] = "suspended".into());
    assert!(matches!(
        suspended,
        KeyringFault::Field {
            what: "unknown state in its record",
            ..
        }
    ));

    let twice = forged(&|p| {
        let copy = key(p);
        p["keysets"][0]["keys"].as_array_mut().unwrap().push(copy);
    });
    assert!(matches!(twice, KeyringFault::Contents(KeysetError::IdTaken { .. })));
    let same_bytes = forged(&|p| {
        let mut copy = key(p);
        copy["id"] = 7.into();
        p["keysets"][0]["keys"].as_array_mut().unwrap().push(copy);
    });
    assert!(matches!(same_bytes, KeyringFault::Contents(KeysetError::SameBytes { .. })));
    let two_primaries = forged(&|p| {
        let other = Bench::with_keyring().payload()["keysets"][0]["keys"][0].clone();
        p["keysets"][0]["keys"].as_array_mut().unwrap().push(other);
    });
    assert!(matches!(
        two_primaries,
        KeyringFault::Contents(KeysetError::Primaries { found: 2, .. })
    ));
    let no_primary = forged(&|p| p["keysets"][0]["keys"] = Json::Array(Vec::new()));
    assert!(matches!(
        no_primary,
        KeyringFault::Contents(KeysetError::Primaries { found: 0, .. })
    ));
    let same_name = forged(&|p| {
        let other = Bench::with_keyring().payload()["keysets"][0].clone();
        p["keysets"].as_array_mut().unwrap().push(other);
    });
    assert!(matches!(same_name, KeyringFault::KeysetExists { .. }));
    let in_two_keysets = forged(&|p| {
        let mut copy = p["keysets"][0].clone();
        copy["name"] = "copy".into();
        p["keysets"].as_array_mut().unwrap().push(copy);
    });
    assert!(matches!(
        in_two_keysets,
        KeyringFault::Contents(KeysetError::SameBytes { .. })
    ));
    let swapped = forged(&|p| p["keysets"][0]["keys"][0]["fingerprint"] = "0123456789abcdef".into());
    assert!(matches!(swapped, KeyringFault::Contents(KeysetError::Record { .. })));
    let undead = forged(&|p| {
        let key = &mut p["keysets"][0]["keys"][0];
        key["state"] = "destroyed".into();
        key["transitions"][0]["state"] = "destroyed".into();
    });
    assert!(matches!(undead, KeyringFault::Contents(KeysetError::Record { .. })));

    let crowd = forged(&|p| {
        let tombstone = |id: usize| {
            let transitions = serde_json::json!([{ "state": "destroyed", "at": "2026-01-01T00:00:00Z" }]);
            serde_json::json!({ "id": id, "algorithm": "fernet", "state": "destroyed", "origin": "imported", "transitions": transitions })
        };
        p["keysets"][0]["keys"]
            .as_array_mut()
            .unwrap()
            .extend((1..=KEYS_MAX).map(tombstone));
    });
    assert!(
        matches!(crowd, KeyringFault::TooManyKeys { found, .. } if found == KEYS_MAX + 1),
        "{crowd}"
    );
    let file = fs::OpenOptions::new().write(true).open(bench.path()).unwrap();
    file.set_len(16 * 1024 * 1024 + 1).unwrap();
    assert!(matches!(bench.fault(), KeyringFault::Read(ReadFault::TooLarge { .. })));
}

#[test]
fn only_a_private_file_of_ones_own_is_read() {
    let bench = Bench::with_keyring();
    let path = bench.path();
    let read_fault = || match bench.fault() {
        KeyringFault::Read(fault) => fault,
        other => panic!("{other}"),
    };
    for mode in [0o640, 0o604, 0o610, 0o602, 0o644, 0o660] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert!(matches!(read_fault(), ReadFault::Mode { mode: found } if found == mode));
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        bench.open().unwrap();
    }

    let elsewhere = bench.folder.path().join("elsewhere");
    fs::hard_link(&path, &elsewhere).unwrap();
    assert!(matches!(read_fault(), ReadFault::HardLinks(2)));
    fs::remove_file(&path).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(read_fault(), ReadFault::Symlink));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(read_fault(), ReadFault::NotAFile("a folder")));
    fs::remove_dir(&path).unwrap();
    // Nobody writes to the pipe: opening it must not wait.
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(read_fault(), ReadFault::NotAFile("a pipe")));
    fs::remove_file(&path).unwrap();
    assert!(matches!(bench.fault(), KeyringFault::Missing));

    let device = Keyring::open(Path::new("/dev/null"), &bench.unlock(), 0).err().unwrap().fault;
    assert!(
        matches!(device, KeyringFault::Read(ReadFault::NotAFile("a device"))),
        "{device}"
    );
    // A file of somebody else: root gives one away, anybody else looks at one of root's.
    let foreign = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&elsewhere, Some(65534), None).unwrap();
        elsewhere
    } else {
        PathBuf::from("/etc/passwd")
    };
    let fault = Keyring::open(&foreign, &bench.unlock(), 0).err().unwrap().fault;
    assert!(matches!(fault, KeyringFault::Read(ReadFault::Owner { .. })), "{fault}");
}

#[test]
fn an_old_copy_is_noticed() {
    let bench = Bench::with_keyring();
    let old = fs::read(bench.path()).unwrap();
    bench.edit().unwrap().commit(Previous::Kept).unwrap();
    assert_eq!(Keyring::open(&bench.path(), &bench.unlock(), 2).unwrap().generation(), 2);
    write_private(&bench.path(), &old);
    let fault = Keyring::open(&bench.path(), &bench.unlock(), 2).err().unwrap().fault;
    assert!(matches!(fault, KeyringFault::OlderGeneration { found: 1, expected: 2 }));
}

#[test]
fn a_second_writer_is_refused_with_the_name_of_the_first_and_readers_are_not() {
    let bench = Bench::with_keyring();
    let first = bench.edit().unwrap();
    let fault = KeyringEdit::begin(&bench.path(), bench.unlock(), 0, Duration::ZERO)
        .err()
        .unwrap()
        .fault;
    let holder = format!("process {} on ", std::process::id());
    assert!(
        matches!(&fault, KeyringFault::Lock(LockFault::Held { holder: found }) if found.starts_with(&holder)),
        "{fault}"
    );
    bench.open().unwrap();
    drop(first);
    bench.edit().unwrap();
}

#[test]
fn writers_wait_for_each_other_and_lose_nothing() {
    let bench = Bench::with_keyring();
    let writers = 8;
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                let mut edit = bench.edit().unwrap();
                let keyset = edit.keyring_mut().keyset_mut(&name("data")).unwrap();
                keyset.add(Algorithm::Aes256Gcm, Entry::Staged, now()).unwrap();
                edit.commit(Previous::Kept).unwrap();
            });
        }
    });
    let keyring = bench.open().unwrap();
    assert_eq!(keyring.generation(), 1 + writers);
    assert_eq!(
        keyring.keyset(&name("data")).unwrap().keys().len(),
        1 + usize::try_from(writers).unwrap()
    );
}

#[test]
fn a_file_that_was_exchanged_meanwhile_is_not_overwritten() {
    let bench = Bench::with_keyring();
    let intruder = Bench::with_keyring();
    let edit = bench.edit().unwrap();
    fs::copy(intruder.path(), bench.path()).unwrap();
    let fault = edit.commit(Previous::Kept).err().unwrap().fault;
    assert!(matches!(fault, KeyringFault::Replace(ReplaceFault::Changed)), "{fault}");
    assert_eq!(fs::read(bench.path()).unwrap(), fs::read(intruder.path()).unwrap());

    let fresh = Bench::new();
    let edit = fresh.create().unwrap();
    fs::copy(intruder.path(), fresh.path()).unwrap();
    let fault = edit.commit(Previous::Kept).err().unwrap().fault;
    assert!(matches!(fault, KeyringFault::Replace(ReplaceFault::Exists)), "{fault}");
    assert!(matches!(fresh.create().err().unwrap().fault, KeyringFault::Exists));
}

/// Exchanges the file at the last moment at which it can be noticed.
struct ExchangeBy<'a>(&'a Path, &'a Path);

impl Steps for ExchangeBy<'_> {
    fn before(&mut self, target: &OsStr, step: Step) -> io::Result<()> {
        if target == "reseal.keyring" && step == Step::Recheck {
            fs::copy(self.0, self.1)?;
        }
        Ok(())
    }
}

#[test]
fn a_file_that_is_exchanged_while_the_new_one_is_written_is_not_overwritten() {
    let (bench, intruder) = (Bench::with_keyring(), Bench::with_keyring());
    let (from, to) = (intruder.path(), bench.path());
    let mut exchange = ExchangeBy(&from, &to);
    let fault = bench
        .edit()
        .unwrap()
        .commit_with(Previous::Kept, &mut exchange)
        .err()
        .unwrap()
        .fault;
    assert!(matches!(fault, KeyringFault::Replace(ReplaceFault::Changed)), "{fault}");
    assert_eq!(fs::read(bench.path()).unwrap(), fs::read(intruder.path()).unwrap());
    assert!(bench.leftovers().is_empty());
}

#[test]
fn a_destroyed_key_is_not_in_the_backup_either() {
    let bench = Bench::with_keyring();
    let mut edit = bench.edit().unwrap();
    let keyset = edit.keyring_mut().keyset_mut(&name("data")).unwrap();
    let old = keyset.primary().id();
    let new = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, now()).unwrap();
    keyset.promote(new, OldPrimary::Retires, now()).unwrap();
    keyset.retire(old, now()).unwrap();
    edit.commit(Previous::Kept).unwrap();

    let mut edit = bench.edit().unwrap();
    edit.keyring_mut()
        .keyset_mut(&name("data"))
        .unwrap()
        .destroy(old, SignedDuration::ZERO, now())
        .unwrap();
    edit.commit(Previous::Forgotten).unwrap();
    for file in [bench.path(), bench.beside(".bak")] {
        let keyring = Keyring::open(&file, &bench.unlock(), 0).unwrap();
        assert!(
            keyring.key(&name("data"), old).unwrap().material().is_none(),
            "{}",
            file.display()
        );
    }
}

/// Fails one step of the replacement of one file.
struct FailAt {
    target: &'static str,
    step: Step,
}

impl Steps for FailAt {
    fn before(&mut self, target: &OsStr, step: Step) -> io::Result<()> {
        let is_it = target == self.target && step == self.step;
        if is_it { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
    }
}

#[test]
fn when_a_step_fails_the_old_version_or_the_new_one_is_in_place_and_the_error_says_which() {
    for target in ["reseal.keyring.bak", "reseal.keyring"] {
        for step in Step::ALL {
            let bench = Bench::with_keyring();
            let edit = bench.edit().unwrap();
            let fault = edit
                .commit_with(Previous::Kept, &mut FailAt { target, step })
                .err()
                .unwrap()
                .fault;
            let is_renamed = matches!(step, Step::SyncFolder | Step::ReadBack);
            match &fault {
                KeyringFault::Replace(ReplaceFault::Before { step: at, .. }) => assert!(*at == step && !is_renamed),
                KeyringFault::Replace(ReplaceFault::NotDurable { step: at, .. }) => assert!(*at == step && is_renamed),
                other => panic!("{other}"),
            }
            let expected = if is_renamed && target == "reseal.keyring" { 2 } else { 1 };
            assert_eq!(bench.open().unwrap().generation(), expected, "{target} {step:?}");
            assert!(
                !bench.beside(".tmp").exists() && !bench.beside(".bak.tmp").exists(),
                "{target} {step:?}"
            );
            bench.edit().unwrap().commit(Previous::Kept).unwrap();
            assert_eq!(bench.open().unwrap().generation(), expected + 1);
        }
    }
}

/// Kills the process, as `kill -9` or a power button would, before one step of the replacement of one file.
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

const CHILD: &str = "RESEAL_TEST_KILL";

/// The other half of the next test, run in a process of its own.
#[test]
fn child_that_is_killed_while_it_writes() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let [path, identity, target, step]: [&str; 4] = order.split('|').collect::<Vec<_>>().try_into().unwrap();
    let unlock = Unlock::Identities(vec![fs::read_to_string(identity).unwrap().parse().unwrap()]);
    let edit = KeyringEdit::begin(Path::new(path), unlock, 0, WAIT).unwrap();
    let mut steps = KillAt {
        target: target.to_owned(),
        step: step.to_owned(),
    };
    let _ = edit.commit_with(Previous::Kept, &mut steps);
    unreachable!("killed before");
}

#[test]
fn killed_at_any_step_the_old_version_or_the_new_one_is_whole_and_the_next_writer_continues() {
    use age::secrecy::ExposeSecret;
    use std::os::unix::process::ExitStatusExt;
    for target in ["reseal.keyring.bak", "reseal.keyring"] {
        for step in Step::ALL {
            let bench = Bench::with_keyring();
            let identity = bench.folder.path().join("identity");
            write_private(&identity, bench.identity.to_string().expose_secret().as_bytes());
            let order = format!("{}|{}|{target}|{step:?}", bench.path().display(), identity.display());
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_that_is_killed_while_it_writes"])
                .env(CHILD, order)
                .output()
                .unwrap();
            assert_eq!(child.status.signal(), Some(9), "{target} {step:?}: {child:?}");

            let is_renamed = matches!(step, Step::SyncFolder | Step::ReadBack);
            let expected = if is_renamed && target == "reseal.keyring" { 2 } else { 1 };
            assert_eq!(bench.open().unwrap().generation(), expected, "{target} {step:?}");
            bench.edit().unwrap().commit(Previous::Kept).unwrap();
            assert_eq!(bench.open().unwrap().generation(), expected + 1, "{target} {step:?}");
            assert!(
                !bench.beside(".tmp").exists() && !bench.beside(".bak.tmp").exists(),
                "{target} {step:?}"
            );
            Keyring::open(&bench.beside(".bak"), &bench.unlock(), 0).unwrap();
        }
    }
}

#[test]
fn a_planted_link_in_place_of_the_temporary_or_lock_file_is_not_followed() {
    let bench = Bench::with_keyring();
    let victim = bench.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, bench.folder.path().join(".reseal.keyring.reseal-tmp")).unwrap();
    symlink(&victim, bench.folder.path().join(".reseal.keyring.bak.reseal-tmp")).unwrap();
    assert_eq!(bench.leftovers().len(), 2);
    bench.edit().unwrap().commit(Previous::Kept).unwrap();
    assert!(bench.leftovers().is_empty());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::metadata(bench.path()).unwrap().nlink(), 1);

    fs::remove_file(bench.beside(".lock")).unwrap();
    symlink(&victim, bench.beside(".lock")).unwrap();
    let fault = bench.edit().err().unwrap().fault;
    assert!(
        matches!(fault, KeyringFault::Lock(LockFault::Unfit(ReadFault::Symlink))),
        "{fault}"
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn passphrase(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn name(text: &str) -> KeysetName {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}
