//! A new value that does not open to what was sealed never reaches the database, and the run says so.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use reseal::format::{Carried, Cipher, Format, KeyHint, NonceRng, OpenError, UnfitKey, by_name, seeded};
use reseal::key::{KeyId, KeyMaterial};
use reseal::rotation::keyed::NamedKey;
use reseal::rotation::plan::prepare;
use reseal::rotation::progress::{Progress, Stop};
use reseal::rotation::recipe::{ColumnSpec, PlaintextPolicy, Recipe};
use reseal::rotation::{Job, Options, RotationError, rotate};
use reseal::store::Store;
use reseal::store::sqlite::SqliteStore;
use support::people::{FernetKey, Home};
use support::rotation::{Rotation, Running, SLOWLY_ALONE};

/// A format whose values open, to a plaintext that is one bit away from what was sealed: a machine with a broken memory.
struct BrokenMemory;

struct BrokenCipher(Box<dyn Cipher>);

impl Format for BrokenMemory {
    fn name(&self) -> &'static str {
        "broken-memory"
    }

    fn hint(&self, stored: &[u8]) -> KeyHint {
        if stored.starts_with(MARK) {
            KeyHint::Unnamed
        } else {
            KeyHint::Foreign
        }
    }

    fn cipher(&self, material: &KeyMaterial, id: Option<KeyId>) -> Result<Box<dyn Cipher>, UnfitKey> {
        Ok(Box::new(BrokenCipher(by_name("fernet").unwrap().cipher(material, id)?)))
    }

    fn sealed_len(&self, plaintext_len: usize) -> usize {
        MARK.len() + by_name("fernet").unwrap().sealed_len(plaintext_len)
    }

    fn is_text(&self) -> bool {
        true
    }

    fn is_committing(&self) -> bool {
        true
    }

    fn binds_associated_data(&self) -> bool {
        false
    }
}

impl Cipher for BrokenCipher {
    fn open(&self, stored: &[u8], associated_data: &[u8], out: &mut Vec<u8>) -> Result<Carried, OpenError> {
        let sealed = stored.strip_prefix(MARK).ok_or(OpenError::Malformed)?;
        let carried = self.0.open(sealed, associated_data, out)?;
        *out.last_mut().unwrap() ^= 1;
        Ok(carried)
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], carried: Carried, rng: &mut NonceRng, out: &mut Vec<u8>) {
        out.extend_from_slice(MARK);
        self.0.seal(plaintext, associated_data, carried, rng, out);
    }
}

const MARK: &[u8] = b"broken:";

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_read_back_is_not_written_and_ends_the_run() {
    let folder = support::tempdir();
    let path = folder.path().join("app.db");
    let fernet = by_name("fernet").unwrap();
    let named = |material| NamedKey {
        label: "key".to_owned(),
        id: None,
        material,
    };
    let (old, new) = (
        named(KeyMaterial::generate().unwrap()),
        named(KeyMaterial::generate().unwrap()),
    );
    let cipher = fernet.cipher(&old.material, None).unwrap();
    let mut rng = seeded().unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)")
        .unwrap();
    for id in 1..=50 {
        let mut token = Vec::new();
        cipher.seal(format!("row {id}").as_bytes(), b"", Carried::default(), &mut rng, &mut token);
        let token = String::from_utf8(token).unwrap();
        connection.execute("INSERT INTO t VALUES (?, ?)", (id, token)).unwrap();
    }
    let rows = || -> Vec<String> {
        let mut statement = connection.prepare("SELECT c FROM t ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let before = rows();

    let spec = ColumnSpec {
        name: "c".to_owned(),
        from: fernet,
        to: &BrokenMemory,
        associated_data: None,
    };
    let recipe = Recipe::new(vec![spec], &[old], &new, PlaintextPolicy::Refuse, 1).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let job = Job {
        table: "t".to_owned(),
        filter: None,
        recipe,
        options: Options::default(),
    };
    let prepared = prepare(&*store, job).await.unwrap();
    let outcome = rotate(&store, &prepared, &Arc::new(Progress::default()), &Arc::new(Stop::default())).await;
    match outcome {
        Err(RotationError::ReadBack { column, key }) => assert_eq!((column.as_str(), key.as_str()), ("c", "1")),
        other => panic!("{other:?}"),
    }
    assert_eq!(rows(), before);
}

#[test]
fn the_binary_ends_with_9_and_leaves_every_value_readable_on_sqlite() {
    exit_9(&Home::sqlite("wal"));
}

#[test]
fn the_binary_ends_with_9_and_leaves_every_value_readable_on_postgres() {
    let Some(home) = Home::postgres() else { return };
    exit_9(&home);
}

/// The binary of a debug build spoils one seal when told to; nothing else is different from a rotation.
fn exit_9(home: &Home) {
    let (old, new) = (FernetKey::generate(), FernetKey::generate());
    let values: u64 = home.fill(400, &old).iter().map(|(_, person)| person.values()).sum();
    let rotation = Rotation::new(home, &old, &new);
    let mut command = rotation.command(SLOWLY_ALONE);
    command.env("RESEAL_DEBUG_SPOIL_SEAL", (values / 2).to_string());
    let ended = Running::start(command).wait();
    assert_eq!(ended.code, Some(9), "{}", ended.text());
    let error = &ended.document["error"];
    let part = |name: &str| error[name].as_str().unwrap().to_owned();
    assert!(part("failed").contains("did not open to what was sealed"), "{error}");
    assert!(part("durable").contains("each value opens"), "{error}");
    assert!(part("next").contains("check its memory"), "{error}");
    assert_eq!(ended.document["exit"], 9);
    assert_eq!(ended.document["verified"], false);
    let written = ended.count("values_reencrypted");
    assert!(written > 0 && written < values / 2, "{}", ended.text());
    // On a sound machine the same command continues, and no value was done twice or left out.
    let finished = rotation.complete(&[]);
    assert_eq!(finished.count("values_reencrypted"), values);
}
