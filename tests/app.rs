//! The application's side: sealing and opening through a keyring that changes, breaks and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use age::x25519::Identity;
use jiff::{SignedDuration, Timestamp};
use reseal::app::{FollowError, HandleError, Keyring, OpenError, Options, SealError, Unlock};
use reseal::format::by_name;
use reseal::key::{self, Algorithm, Entry, KeyId, KeyringEdit, KeyringFault, Keyset, OldPrimary, Previous, Seal};

const KEYSET: &str = "customer-data";
const PLACE: &[u8] = b"customers.email:42";

/// A keyring file with one keyset.
struct File {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl File {
    fn new(algorithm: Algorithm) -> Self {
        let file = Self {
            folder: tempfile::tempdir().unwrap(),
            identity: Identity::generate(),
        };
        let seal = Seal::Recipients(vec![file.identity.to_public()]);
        let mut edit = KeyringEdit::create(&file.path(), seal, Duration::ZERO).unwrap();
        edit.insert(keyset(algorithm)).unwrap();
        edit.commit(Previous::Kept).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reseal.keyring")
    }

    fn unlock(&self) -> Unlock {
        Unlock::Identities(vec![self.identity.clone()])
    }

    /// Followed so rarely that only what a test asks for happens.
    fn open_idle(&self) -> Keyring {
        let options = Options {
            poll_every: Duration::from_secs(3600),
            ..Options::default()
        };
        Keyring::open_with(self.path(), self.unlock(), options).unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keyset) -> T) -> T {
        let mut edit = KeyringEdit::begin(&self.path(), self.unlock(), 0, Duration::ZERO).unwrap();
        let done = change(edit.keyring_mut().keyset_mut(&KEYSET.parse().unwrap()).unwrap());
        edit.commit(Previous::Kept).unwrap();
        done
    }

    /// A new key, given to readers.
    fn stage(&self) -> KeyId {
        self.change(|keyset| keyset.add(keyset.primary().algorithm(), Entry::Staged, now()).unwrap())
    }

    fn promote(&self, id: KeyId) -> KeyId {
        self.change(|keyset| {
            let old = keyset.primary().id();
            keyset.promote(id, OldPrimary::Retires, now()).unwrap();
            old
        })
    }
}

fn keyset(algorithm: Algorithm) -> Keyset {
    Keyset::generate(KEYSET.parse().unwrap(), algorithm, now()).unwrap()
}

fn in_memory(algorithm: Algorithm) -> key::Keyring {
    let mut keyring = key::Keyring::empty();
    keyring.insert(keyset(algorithm)).unwrap();
    keyring
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// Waits for what another thread does soon.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_sealed_opens_in_its_place_only() {
    let handle = Keyring::in_memory(in_memory(Algorithm::Aes256Gcm)).keyset(KEYSET).unwrap();
    let stored = handle.seal(b"ada@example.org", PLACE).unwrap();
    let opened = handle.open(&stored, PLACE).unwrap();
    assert_eq!(&*opened, b"ada@example.org");
    assert_eq!(opened.key_id(), handle.primary());
    assert!(!opened.is_due());
    assert_eq!(opened.sealed_at(), None);
    assert_eq!(&**opened.into_plaintext(), b"ada@example.org");

    let elsewhere = handle.open(&stored, b"customers.email:43").err().unwrap();
    assert_eq!(elsewhere, OpenError::Authentication);
    let mut altered = stored.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(handle.open(&altered, PLACE).err().unwrap(), OpenError::Authentication);
    assert_eq!(
        handle.open(b"ada@example.org", PLACE).err().unwrap(),
        OpenError::NotSealed("tink")
    );
    assert_eq!(handle.open(b"", PLACE).err().unwrap(), OpenError::NotSealed("tink"));
}

#[test]
fn seal_into_appends_and_names_the_key() {
    let handle = Keyring::in_memory(in_memory(Algorithm::Aes256Gcm)).keyset(KEYSET).unwrap();
    let mut out = b"before".to_vec();
    let id = handle.seal_into(b"x", PLACE, &mut out).unwrap();
    assert_eq!(id, handle.primary());
    assert_eq!(&out[..6], b"before");
    assert_eq!(&*handle.open(&out[6..], PLACE).unwrap(), b"x");
    assert_ne!(handle.seal(b"x", PLACE).unwrap(), handle.seal(b"x", PLACE).unwrap());
}

#[test]
fn formats_without_associated_data_refuse_it_instead_of_forgetting_it() {
    let keyring = Keyring::in_memory(in_memory(Algorithm::Fernet));
    let handle = keyring.keyset_in(KEYSET, by_name("fernet").unwrap()).unwrap();
    assert_eq!(handle.seal(b"x", PLACE).err().unwrap(), SealError::AssociatedData("fernet"));
    let stored = handle.seal(b"x", b"").unwrap();
    assert_eq!(
        handle.open(&stored, PLACE).err().unwrap(),
        OpenError::AssociatedData("fernet")
    );
    let opened = handle.open(&stored, b"").unwrap();
    let age = now().as_second() - i64::try_from(opened.sealed_at().unwrap()).unwrap();
    assert!((0..60).contains(&age), "sealed {age} s ago");
}

#[test]
fn a_key_serves_one_algorithm() {
    let keyring = Keyring::in_memory(in_memory(Algorithm::Fernet));
    assert!(matches!(
        keyring.keyset(KEYSET).err().unwrap(),
        HandleError::Algorithm { format: "tink", .. }
    ));
    assert!(matches!(
        keyring.keyset("orders").err().unwrap(),
        HandleError::NoSuchKeyset(name) if name.as_str() == "orders"
    ));
    assert!(matches!(keyring.keyset("not a name").err().unwrap(), HandleError::Name(_)));
}

#[test]
fn a_rotation_runs_through_the_file_without_a_restart() {
    let file = File::new(Algorithm::Aes256Gcm);
    let keyring = file.open_idle();
    let handle = keyring.keyset(KEYSET).unwrap();
    let before = handle.seal(b"before", PLACE).unwrap();
    let first = handle.revision();

    let new = file.stage();
    keyring.refresh().unwrap();
    assert_eq!(handle.revision(), first + 1);
    assert_ne!(handle.primary(), new, "a staged key only opens");

    let old = file.promote(new);
    keyring.refresh().unwrap();
    assert_eq!(handle.primary(), new);
    let after = handle.seal(b"after", PLACE).unwrap();
    let (due, current) = (handle.open(&before, PLACE).unwrap(), handle.open(&after, PLACE).unwrap());
    assert!(due.is_due() && due.key_id() == old);
    assert!(!current.is_due() && current.key_id() == new);

    file.change(|keyset| keyset.retire(old, now()).unwrap());
    keyring.refresh().unwrap();
    let retired = handle.open(&before, PLACE).err().unwrap();
    assert!(
        matches!(retired, OpenError::Withheld { id, standing: "retired", .. } if id == old),
        "{retired}"
    );

    file.change(|keyset| keyset.destroy(old, SignedDuration::ZERO, now()).unwrap());
    keyring.refresh().unwrap();
    let destroyed = handle.open(&before, PLACE).err().unwrap();
    assert!(
        matches!(destroyed, OpenError::Destroyed { id, .. } if id == old),
        "{destroyed}"
    );
    assert_eq!(&*handle.open(&after, PLACE).unwrap(), b"after");
}

#[test]
fn the_file_is_followed_by_itself() {
    let file = File::new(Algorithm::Aes256Gcm);
    let options = Options {
        poll_every: Duration::from_millis(5),
        ..Options::default()
    };
    let keyring = Keyring::open_with(file.path(), file.unlock(), options).unwrap();
    let handle = keyring.keyset(KEYSET).unwrap();
    drop(keyring); // the handle keeps following
    let new = file.stage();
    file.promote(new);
    eventually("the handle seals with the new key", || handle.primary() == new);
}

#[test]
fn a_value_under_an_unknown_key_makes_the_file_be_looked_at_before_it_fails() {
    let file = File::new(Algorithm::Aes256Gcm);
    let (reader, writer) = (file.open_idle(), file.open_idle());
    let (reading, sealing) = (reader.keyset(KEYSET).unwrap(), writer.keyset(KEYSET).unwrap());
    let new = file.stage();
    file.promote(new);
    writer.refresh().unwrap();
    let stored = sealing.seal(b"sealed a moment ago", PLACE).unwrap();
    assert_eq!(&*reading.open(&stored, PLACE).unwrap(), b"sealed a moment ago");

    // A key that the file does not have, either, stays unknown and is named.
    let stranger = Keyring::in_memory(in_memory(Algorithm::Aes256Gcm)).keyset(KEYSET).unwrap();
    let error = reading.open(&stranger.seal(b"x", PLACE).unwrap(), PLACE).err().unwrap();
    assert!(
        matches!(error, OpenError::UnknownKey { id, .. } if id == stranger.primary()),
        "{error}"
    );
    assert!(error.to_string().contains(&stranger.primary().to_string()));
}

#[test]
fn looks_on_behalf_of_failing_readers_are_rationed_and_come_back() {
    let file = File::new(Algorithm::Aes256Gcm);
    let (reader, writer) = (file.open_idle(), file.open_idle());
    let (reading, sealing) = (reader.keyset(KEYSET).unwrap(), writer.keyset(KEYSET).unwrap());
    let stranger = Keyring::in_memory(in_memory(Algorithm::Aes256Gcm)).keyset(KEYSET).unwrap();
    let strange = stranger.seal(b"x", PLACE).unwrap();
    for _ in 0..100 {
        assert!(reading.open(&strange, PLACE).is_err());
    }
    let new = file.stage();
    file.promote(new);
    writer.refresh().unwrap();
    let stored = sealing.seal(b"x", PLACE).unwrap();
    eventually("the new key is found", || reading.open(&stored, PLACE).is_ok());
}

#[test]
fn formats_without_key_ids_find_the_key_and_look_again_too() {
    for (format, algorithm) in [("fernet", Algorithm::Fernet), ("aes-gcm-base64", Algorithm::Aes256Gcm)] {
        let file = File::new(algorithm);
        let (reader, writer) = (file.open_idle(), file.open_idle());
        let format = by_name(format).unwrap();
        let (reading, sealing) = (
            reader.keyset_in(KEYSET, format).unwrap(),
            writer.keyset_in(KEYSET, format).unwrap(),
        );
        let before = sealing.seal(b"before", b"").unwrap();
        let new = file.stage();
        let old = file.promote(new);
        writer.refresh().unwrap();
        let after = sealing.seal(b"after", b"").unwrap();
        let current = reading.open(&after, b"").unwrap();
        assert!(&*current == b"after" && current.key_id() == new && !current.is_due());
        let due = reading.open(&before, b"").unwrap();
        assert!(&*due == b"before" && due.key_id() == old && due.is_due());
        // A stranger's value is no reason to look for ever.
        let strange = Keyring::in_memory(in_memory(algorithm)).keyset_in(KEYSET, format).unwrap();
        let strange = strange.seal(b"x", b"").unwrap();
        assert_eq!(reading.open(&strange, b"").err().unwrap(), OpenError::Authentication);
    }
}

/// A name, what breaks the file, and the fault that it must be reported as.
type Breakage<'a> = (&'a str, &'a dyn Fn(), fn(&KeyringFault) -> bool);

#[test]
fn a_broken_missing_or_older_file_keeps_the_last_good_keys_and_is_reported() {
    let file = File::new(Algorithm::Aes256Gcm);
    let oldest = fs::read(file.path()).unwrap();
    let new = file.stage();
    let keyring = file.open_idle();
    let handle = keyring.keyset(KEYSET).unwrap();
    let stored = handle.seal(b"kept", PLACE).unwrap();
    let good = fs::read(file.path()).unwrap();
    let generation = keyring.status().generation;
    let put = |bytes: &[u8]| {
        fs::write(file.path(), bytes).unwrap();
        fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
    };
    let broken: [Breakage<'_>; 5] = [
        ("half-written", &|| put(&good[..good.len() / 2]), |fault| {
            matches!(fault, KeyringFault::Truncated | KeyringFault::Damaged)
        }),
        ("empty", &|| put(b""), |fault| matches!(fault, KeyringFault::Empty)),
        ("foreign", &|| put(b"hello"), |fault| matches!(fault, KeyringFault::NotAge)),
        ("missing", &|| fs::remove_file(file.path()).unwrap(), |fault| {
            matches!(fault, KeyringFault::Missing)
        }),
        ("older", &|| put(&oldest), |fault| {
            matches!(fault, KeyringFault::OlderGeneration { .. })
        }),
    ];
    for (name, break_it, expected) in broken {
        break_it();
        let refused = keyring.refresh().err().unwrap_or_else(|| panic!("{name}: accepted"));
        assert!(
            matches!(&*refused, FollowError::Keyring(error) if expected(&error.fault)),
            "{name}: {refused}"
        );
        let status = keyring.status();
        assert_eq!(status.generation, generation, "{name}");
        assert_eq!(status.fault.unwrap().to_string(), refused.to_string(), "{name}");
        assert_eq!(&*handle.open(&stored, PLACE).unwrap(), b"kept", "{name}");
        handle.seal(b"x", PLACE).unwrap();
    }
    put(&good);
    keyring.refresh().unwrap();
    assert!(keyring.status().fault.is_none());
    file.promote(new);
    keyring.refresh().unwrap();
    assert_eq!(handle.primary(), new);
}

#[test]
fn a_version_without_a_keyset_in_use_is_not_taken() {
    let keyring = Keyring::in_memory(in_memory(Algorithm::Aes256Gcm));
    let handle = keyring.keyset(KEYSET).unwrap();
    let stored = handle.seal(b"kept", PLACE).unwrap();
    let refused = keyring.replace(key::Keyring::empty()).err().unwrap();
    assert!(
        matches!(refused, FollowError::InUse(HandleError::NoSuchKeyset(_))),
        "{refused}"
    );
    assert_eq!(&*handle.open(&stored, PLACE).unwrap(), b"kept");
}

#[test]
fn threads_seal_and_open_while_keys_change_under_them() {
    let file = File::new(Algorithm::Aes256Gcm);
    let keyring = file.open_idle();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (handle, stop) = (keyring.clone().keyset(KEYSET).unwrap(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut keys = std::collections::BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let stored = handle.seal(b"value", PLACE).unwrap();
                    let opened = handle.open(&stored, PLACE).unwrap();
                    assert_eq!(&*opened, b"value");
                    keys.insert(opened.key_id());
                }
                keys
            })
        })
        .collect();
    let mut primaries = vec![keyring.keyset(KEYSET).unwrap().primary()];
    for _ in 0..5 {
        let new = file.stage();
        file.promote(new);
        keyring.refresh().unwrap();
        primaries.push(new);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let keys = thread.join().unwrap();
        assert!(keys.iter().all(|id| primaries.contains(id)));
    }
}
