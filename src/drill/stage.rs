//! Where a rehearsal takes place: a private folder with a database and a keyring file, made for it and gone with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use jiff::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use rusqlite::{Connection, OpenFlags};

use super::DrillError;
use super::customer::{Cabinet, Customer, Row};
use super::model::{Model, Moment};
use crate::app::{self, Options, Unlock};
use crate::key::{
    Algorithm, Entry, KeyId, Keyring, KeyringEdit, Keyset, KeysetName, OldPrimary, Previous, Seal, write_private,
};

/// The folder and what opens its keyring.
pub struct Stage {
    folder: PathBuf,
    identity: Identity,
    keyset: KeysetName,
    now: fn() -> Timestamp,
    is_kept: bool,
}

impl Stage {
    /// Makes the folder, the keyring with its first key, and an empty table.
    pub fn build(now: fn() -> Timestamp) -> Result<Self, DrillError> {
        let stage = Self {
            folder: private_folder()?,
            identity: Identity::generate(),
            keyset: KEYSET
                .parse()
                .map_err(|_| DrillError::Stage(io::ErrorKind::InvalidInput.into()))?,
            now,
            is_kept: false,
        };
        // Throw-away keys over invented records: the file lets `reseal rotate`, and whoever looks at kept evidence, open the keyring.
        let text = stage.identity.to_string();
        write_private(&stage.identity_file(), text.expose_secret().as_bytes(), false)?;
        let seal = Seal::Recipients(vec![stage.identity.to_public()]);
        let mut edit = KeyringEdit::create(&stage.keyring_file(), seal, LOCK_WAIT)?;
        edit.insert(Keyset::generate(stage.keyset.clone(), Algorithm::Aes256Gcm, (stage.now)())?)?;
        edit.commit(Previous::Kept)?;

        let database = Connection::open(stage.database())?;
        database.execute_batch(SCHEMA)?;
        Ok(stage)
    }

    /// Fills the table with `rows` customers, sealed by the application's own code, and tells the model.
    pub fn fill(&self, rows: i64, seed: u64, model: &Model, now: impl Fn() -> Moment) -> Result<(), DrillError> {
        let cabinet = Cabinet::new(&self.follow()?, KEYSET)?;
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut database = self.connect()?;
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare(INSERT)?;
            for id in 1..=rows {
                let customer = Customer::invent(&mut rng);
                let Row {
                    name,
                    email,
                    notes,
                    tier,
                } = cabinet.seal(id, &customer)?;
                model.begin(id, Some(customer.content()), now());
                insert.execute((id, name, email, notes, tier))?;
            }
        }
        transaction.commit()?;
        for id in 1..=rows {
            model.acknowledge(id, now());
        }
        Ok(())
    }

    /// A connection as the application opens one.
    pub fn connect(&self) -> Result<Connection, DrillError> {
        connect(&self.database())
    }

    /// How many customers there are now.
    pub fn count_rows(&self) -> Result<u64, DrillError> {
        let rows: i64 = self
            .connect()?
            .query_row("SELECT count(*) FROM customers", [], |row| row.get(0))?;
        Ok(rows.unsigned_abs())
    }

    /// The keyring as an instance of the application follows it.
    pub fn follow(&self) -> Result<app::Keyring, DrillError> {
        let options = Options {
            poll_every: POLL_EVERY,
            now: self.now,
            ..Options::default()
        };
        Ok(app::Keyring::open_with(self.keyring_file(), self.unlock(), options)?)
    }

    /// The keyring as it stands in the file.
    pub fn keyring(&self) -> Result<Keyring, DrillError> {
        Ok(Keyring::open(&self.keyring_file(), &self.unlock(), 0)?)
    }

    /// Gives readers a new key, which nobody seals with yet. Returns it and the keyset's new revision.
    pub fn introduce(&self) -> Result<(KeyId, u64), DrillError> {
        let now = (self.now)();
        self.change(|keyset| Ok(keyset.add(Algorithm::Aes256Gcm, Entry::Staged, now)?))
    }

    /// Makes the key primary. Returns the keyset's new revision.
    pub fn promote(&self, id: KeyId) -> Result<u64, DrillError> {
        let now = (self.now)();
        let ((), revision) = self.change(|keyset| Ok(keyset.promote(id, OldPrimary::Retires, now)?))?;
        Ok(revision)
    }

    /// Takes the key from readers. Returns the keyset's new revision.
    pub fn retire(&self, id: KeyId) -> Result<u64, DrillError> {
        let now = (self.now)();
        let ((), revision) = self.change(|keyset| Ok(keyset.retire(id, now)?))?;
        Ok(revision)
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.folder.join("customers.db")
    }

    /// The keyring file.
    pub fn keyring_file(&self) -> PathBuf {
        self.folder.join("reseal.keyring")
    }

    /// The file with the age identity that opens the keyring.
    pub fn identity_file(&self) -> PathBuf {
        self.folder.join("identity.txt")
    }

    /// The folder of it all.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the folder where it is.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    fn unlock(&self) -> Unlock {
        Unlock::Identities(vec![self.identity.clone()])
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keyset) -> Result<T, DrillError>) -> Result<(T, u64), DrillError> {
        let mut edit = KeyringEdit::begin(&self.keyring_file(), self.unlock(), 0, LOCK_WAIT)?;
        let Some(keyset) = edit.keyring_mut().keyset_mut(&self.keyset) else {
            return Err(DrillError::Stage(io::ErrorKind::NotFound.into()));
        };
        let done = change(keyset)?;
        let revision = keyset.revision();
        edit.commit(Previous::Kept)?;
        Ok((done, revision))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing of value is in it; what cannot be removed is left to the system's own cleaning.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A connection as the application opens one.
pub fn connect(database: &Path) -> Result<Connection, DrillError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// A new folder that only this user can enter.
fn private_folder() -> Result<PathBuf, DrillError> {
    let mut name = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut name).map_err(|_| crate::format::RandomFailed)?;
    let folder = std::env::temp_dir().join(format!("reseal-drill-{:016x}", u64::from_be_bytes(name)));
    DirBuilder::new().mode(0o700).create(&folder).map_err(DrillError::Stage)?;
    Ok(folder)
}

/// The keyset of the rehearsal.
pub const KEYSET: &str = "customer-data";

/// The table of the rehearsal.
pub const TABLE: &str = "customers";

/// How a customer enters the table.
pub const INSERT: &str = "INSERT INTO customers (id, name, email, notes, tier) VALUES (?1, ?2, ?3, ?4, ?5)";

/// WAL, as a server with readers beside its writer sets it up.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE customers (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        email BLOB NOT NULL,
        notes BLOB,
        tier TEXT NOT NULL
    );";

/// An instance notices a new keyring within this time.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Nobody else changes the keyring of a rehearsal.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// What applications commonly set.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
