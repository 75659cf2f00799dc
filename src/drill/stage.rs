//! Where a rehearsal takes place: a private folder with keyring, configuration and journals, and a database file in it or a schema of
//! its own in PostgreSQL. Made for the rehearsal and gone with it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use jiff::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;

use super::DrillError;
use super::clock::now;
use super::customer::{COLUMNS, Cabinet, Customer, Row};
use super::disk;
use super::janitor::{KEEP, Leftovers, Schema};
use super::logins::LoginPlace;
use super::model::Model;
use super::process::{Part, Process, file_output};
use super::table::{Place, Scratch, create_sqlite, schema_name};
use crate::app::{self, Unlock};
use crate::format::RandomFailed;
use crate::key::{KeyId, Keyring, KeyringEdit, Keyset, Previous, write_private};

/// The folder, the table, and what opens the keyring.
pub struct Stage {
    folder: PathBuf,
    name: String,
    identity: Identity,
    place: Place,
    schema: Option<String>,
    janitor: Process,
}

impl Stage {
    /// Makes the folder, the identity of the keyring, and an empty table: in an SQLite file, or in this PostgreSQL database.
    pub fn build(program: &Path, postgres: Option<&str>) -> Result<Self, DrillError> {
        let name = random_name()?;
        let folder = std::env::temp_dir().join(format!("reseal-drill-{name}"));
        let role = role(&name);
        let mut scratch = match postgres {
            Some(url) => Some(Scratch::connect(url, &format!("{role}stage"), schema_name(&name))?),
            None => None,
        };
        let with_control = match &mut scratch {
            Some(scratch) => !scratch.has_control_schema()?,
            None => false,
        };
        let leftovers = Leftovers {
            folder: folder.clone(),
            schema: postgres.map(|url| Schema {
                url: url.to_owned(),
                name: schema_name(&name),
                keyset: keyset_name(&name),
                role: role.clone(),
                with_control,
            }),
        };
        // Before there is anything to remove.
        let mut janitor = Part::Janitor
            .start(program, &[], Stdio::null(), Stdio::null())
            .map_err(DrillError::Stage)?;
        let instructions = serde_json::to_string(&leftovers).map_err(|error| DrillError::Stage(error.into()))?;
        janitor.send(instructions.as_bytes()).map_err(DrillError::Stage)?;
        janitor.send(b"\n").map_err(DrillError::Stage)?;

        let mut stage = Self {
            identity: Identity::generate(),
            place: Place {
                url: format!("sqlite:{}", folder.join("customers.db").display()),
                table: TABLE.to_owned(),
            },
            schema: postgres.map(|_| schema_name(&name)),
            name,
            folder,
            janitor,
        };
        let private = |folder: &Path| DirBuilder::new().mode(0o700).create(folder).map_err(DrillError::Stage);
        private(&stage.folder)?;
        private(&stage.folder.join(INSTANCES))?;
        private(&stage.folder.join(OPERATOR))?;
        // Throw-away keys over invented records: the file lets the commands of the operator, the instances, and whoever looks at kept
        // evidence, open the keyring.
        let text = stage.identity.to_string();
        write_private(&stage.identity_file(), text.expose_secret().as_bytes(), false)?;
        match (&mut scratch, postgres) {
            (Some(scratch), Some(url)) => {
                stage.place = Place {
                    url: url.to_owned(),
                    table: scratch.create()?,
                };
            }
            _ => {
                create_sqlite(&stage.folder.join("customers.db"), TABLE, &stage.place.logins())?;
                disk::settle(&stage.folder);
            }
        }
        Ok(stage)
    }

    /// Writes `reseal.toml`, as the operator of this application would: sessions in it if they are anywhere.
    pub fn configure(&self, logins: Option<&LoginPlace>) -> Result<(), DrillError> {
        let mut configuration = self.configuration();
        match logins {
            None => {}
            Some(LoginPlace::Table) => {
                let table = toml::Value::from(self.place.logins());
                configuration += &format!("\n[session.logins]\ndatabase = \"main\"\ntable = {table}\nkey = \"id\"\n");
            }
            Some(LoginPlace::Redis { prefix, .. }) => {
                let pattern = toml::Value::from(format!("{prefix}*"));
                configuration += &format!("\n[session.logins]\nredis = \"env:{REDIS_VARIABLE}\"\nmatch = {pattern}\n");
            }
        }
        Ok(write_private(&self.config_file(), configuration.as_bytes(), false)?)
    }

    fn configuration(&self) -> String {
        let text = |text: &str| toml::Value::from(text).to_string();
        // A URL with a password comes by the environment of the command that needs it.
        let url = if self.place.is_postgres() {
            format!("env:{DATABASE_VARIABLE}")
        } else {
            self.place.url.clone()
        };
        let columns = COLUMNS.iter().map(|column| {
            format!(
                "  {{ name = {}, format = {}, aad = {} }},\n",
                text(column.name),
                text(column.format),
                text(column.template)
            )
        });
        format!(
            "[keyring]\nfile = {}\nidentity = {}\n\n[database.main]\nurl = {}\n\n\
             [dataset.customers]\ndatabase = \"main\"\ntable = {}\nkeyset = {}\ncolumns = [\n{}]\n\n\
             [policy]\nbackup_horizon = \"1d\"\n",
            text(&self.keyring_file().to_string_lossy()),
            text(&self.identity_file().to_string_lossy()),
            text(&url),
            text(&self.place.table),
            text(&self.keyset_name()),
            columns.collect::<String>()
        )
    }

    /// Fills the table with `rows` customers, sealed by the application's own code, and tells the model.
    pub fn fill(&self, rows: i64, seed: u64, model: &mut Model) -> Result<(), DrillError> {
        let keyring = app::Keyring::open(self.keyring_file(), self.unlock())?;
        let cabinet = Cabinet::new(&keyring, &self.keyset_name())?;
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut table = self.place.open(&self.role("stage"))?;
        let mut chunk: Vec<(i64, Row)> = Vec::with_capacity(FILLED_TOGETHER);
        for id in 1..=rows {
            let customer = Customer::invent(&mut rng);
            chunk.push((id, cabinet.seal(id, &customer)?));
            model.found(id, customer.content(), now());
            if chunk.len() == FILLED_TOGETHER || id == rows {
                table.load(&chunk)?;
                chunk.clear();
            }
        }
        Ok(())
    }

    /// The table, on the straight way.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The keyset of the rehearsal: nobody else's in the same database.
    pub fn keyset_name(&self) -> String {
        keyset_name(&self.name)
    }

    /// How a connection for this purpose is called at the server.
    pub fn role(&self, purpose: &str) -> String {
        format!("{}{purpose}", role(&self.name))
    }

    /// The operator's keyring as it stands in the file.
    pub fn keyring(&self) -> Result<Keyring, DrillError> {
        Ok(Keyring::open(&self.keyring_file(), &self.unlock(), 0)?)
    }

    /// Looks at the keyset.
    pub fn keyset<T>(&self, look: impl FnOnce(&Keyset) -> T) -> Result<T, DrillError> {
        let keyring = self.keyring()?;
        let name = self.keyset_name();
        let keyset = keyring.keysets().iter().find(|keyset| keyset.name().as_str() == name);
        keyset
            .map(look)
            .ok_or_else(|| DrillError::Stage(io::ErrorKind::NotFound.into()))
    }

    /// Takes a key from readers without asking whether anything needs it: for sabotage.
    pub fn retire_unasked(&self, id: KeyId) -> Result<(), DrillError> {
        let mut edit = KeyringEdit::begin(&self.keyring_file(), self.unlock(), 0, LOCK_WAIT)?;
        let name = self.keyset(|keyset| keyset.name().clone())?;
        if let Some(keyset) = edit.keyring_mut().keyset_mut(&name) {
            keyset.retire(id, Timestamp::now())?;
        }
        edit.commit(Previous::Kept)?;
        Ok(())
    }

    /// The operator's keyring file.
    pub fn keyring_file(&self) -> PathBuf {
        self.folder.join("reseal.keyring")
    }

    /// The configuration that the operator's commands read.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("reseal.toml")
    }

    /// The file with the age identity that opens the keyring.
    pub fn identity_file(&self) -> PathBuf {
        self.folder.join("identity.txt")
    }

    /// The recipient that keyrings are sealed to.
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// The folder of it all.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of an instance's own files.
    pub fn instance_folder(&self, instance: &str) -> Result<PathBuf, DrillError> {
        let folder = self.folder.join(INSTANCES).join(instance);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(DrillError::Stage(error)),
            _ => Ok(folder),
        }
    }

    /// A file for what a command of the operator says.
    pub fn operator_file(&self, name: &str) -> PathBuf {
        self.folder.join(OPERATOR).join(name)
    }

    /// What a process says to nobody, kept for whoever looks into a failure.
    pub fn said(&self, instance: &str, generation: u32) -> Result<Stdio, DrillError> {
        let path = self.instance_folder(instance)?.join(format!("said.{generation}.log"));
        file_output(&path).map_err(DrillError::Stage)
    }

    /// Leaves everything where it is. Returns the schema, if there is one.
    pub fn keep(&mut self) -> Option<String> {
        // Should the janitor be gone, nobody removes anything.
        let _ = self.janitor.send(KEEP.as_bytes());
        let _ = self.janitor.send(b"\n");
        self.schema.clone()
    }

    /// Waits until everything is removed, or left. Returns whether the janitor did what it should.
    pub fn leave(&mut self) -> bool {
        self.janitor.end_input();
        let ended = self.janitor.wait(REMOVED_WITHIN);
        matches!(ended, Ok(Some(status)) if status.success())
    }

    fn unlock(&self) -> Unlock {
        Unlock::Identities(vec![self.identity.clone()])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After an error nobody asked; a second time does no harm.
        self.leave();
    }
}

/// Eight hexadecimal digits.
pub(super) fn random_name() -> Result<String, DrillError> {
    let mut name = [0; 4];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut name).map_err(|_| RandomFailed)?;
    Ok(format!("{:08x}", u32::from_be_bytes(name)))
}

fn keyset_name(name: &str) -> String {
    format!("drill-{name}")
}

fn role(name: &str) -> String {
    format!("reseal drill {name} ")
}

/// The table of the rehearsal.
pub const TABLE: &str = "customers";

/// Where the operator's commands find the URL of a database with a password.
pub const DATABASE_VARIABLE: &str = "DATABASE_URL";

/// Where they find the URL of a Redis server.
pub const REDIS_VARIABLE: &str = "REDIS_URL";

/// Nobody else changes the keyring of a rehearsal.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const INSTANCES: &str = "instances";
const OPERATOR: &str = "operator";
/// Rows of a transaction while the table is filled.
const FILLED_TOGETHER: usize = 5_000;
/// The janitor's own patience with a server, and some.
const REMOVED_WITHIN: Duration = Duration::from_secs(120);
