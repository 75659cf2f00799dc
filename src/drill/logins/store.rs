//! Where sessions are kept: a table beside the customers, or Redis.

use std::time::Duration;

use redis::{Client, Commands as _, Connection, RedisError};

use crate::drill::table::{LoginTable, Place, TableError};

/// Where the sessions of a rehearsal are. Holds a password, perhaps: no `Debug`.
#[derive(Clone)]
pub enum LoginPlace {
    /// A table of the rehearsal's own, beside the customers.
    Table,
    /// Keys of the rehearsal's own in a Redis or Valkey server.
    Redis {
        /// Its URL.
        url: String,
        /// What all keys begin with.
        prefix: String,
    },
}

/// What the application does with sessions.
pub(super) trait LoginStore: Send {
    fn insert(&mut self, id: &str, customer: i64) -> Result<(), TableError>;
    fn is_there(&mut self, id: &str) -> Result<bool, TableError>;
    fn remove(&mut self, id: &str) -> Result<bool, TableError>;
    fn list(&mut self) -> Result<Vec<String>, TableError>;
    fn renew(&mut self) -> Result<(), TableError>;
    /// Takes away what the end of the rehearsal would leave behind.
    fn clear(&mut self, present: &[String]) -> Result<(), TableError>;
}

impl LoginPlace {
    /// In words.
    pub fn describe(&self, table: &Place) -> &'static str {
        match self {
            Self::Redis { .. } => "redis",
            Self::Table if table.is_postgres() => "postgres",
            Self::Table => "sqlite",
        }
    }

    pub(super) fn open(&self, table: &Place, role: &str) -> Result<Box<dyn LoginStore>, TableError> {
        Ok(match self {
            Self::Table => Box::new(LoginTable::open(table, role)?),
            Self::Redis { url, prefix } => {
                let client =
                    Client::open(url.as_str()).map_err(|_| TableError::Refused("not the URL of a Redis server".to_owned()))?;
                Box::new(LoginKeys {
                    connection: connect(&client)?,
                    client,
                    prefix: prefix.clone(),
                })
            }
        })
    }
}

impl LoginStore for LoginTable {
    fn insert(&mut self, id: &str, customer: i64) -> Result<(), TableError> {
        Self::insert(self, id, customer)
    }

    fn is_there(&mut self, id: &str) -> Result<bool, TableError> {
        Self::is_there(self, id)
    }

    fn remove(&mut self, id: &str) -> Result<bool, TableError> {
        Self::remove(self, id)
    }

    fn list(&mut self) -> Result<Vec<String>, TableError> {
        Self::list(self)
    }

    fn renew(&mut self) -> Result<(), TableError> {
        Self::renew(self)
    }

    fn clear(&mut self, _: &[String]) -> Result<(), TableError> {
        // The table goes with the rehearsal, or is kept as evidence.
        Ok(())
    }
}

struct LoginKeys {
    client: Client,
    connection: Connection,
    prefix: String,
}

impl LoginKeys {
    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }
}

impl LoginStore for LoginKeys {
    fn insert(&mut self, id: &str, customer: i64) -> Result<(), TableError> {
        let key = self.key(id);
        self.connection.set_ex(key, customer, EXPIRE_AFTER.as_secs()).map_err(refusal)
    }

    fn is_there(&mut self, id: &str) -> Result<bool, TableError> {
        let key = self.key(id);
        self.connection.exists(key).map_err(refusal)
    }

    fn remove(&mut self, id: &str) -> Result<bool, TableError> {
        let key = self.key(id);
        let removed: u64 = self.connection.del(key).map_err(refusal)?;
        Ok(removed > 0)
    }

    fn list(&mut self) -> Result<Vec<String>, TableError> {
        let pattern = format!("{}*", self.prefix);
        let keys = self.connection.scan_match::<_, String>(pattern).map_err(refusal)?;
        let mut ids = Vec::new();
        for key in keys {
            let key = key.map_err(refusal)?;
            ids.extend(key.strip_prefix(&self.prefix).map(str::to_owned));
        }
        // SCAN may give a key twice.
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn renew(&mut self) -> Result<(), TableError> {
        self.connection = connect(&self.client)?;
        Ok(())
    }

    fn clear(&mut self, present: &[String]) -> Result<(), TableError> {
        for id in present {
            self.remove(id)?;
        }
        Ok(())
    }
}

fn connect(client: &Client) -> Result<Connection, TableError> {
    let connection = client.get_connection_with_timeout(ANSWERED_WITHIN).map_err(refusal)?;
    let limits = connection
        .set_read_timeout(Some(ANSWERED_WITHIN))
        .and_then(|()| connection.set_write_timeout(Some(ANSWERED_WITHIN)));
    limits.map_err(refusal)?;
    Ok(connection)
}

/// Kinds, never texts: a text may repeat the URL.
fn refusal(error: RedisError) -> TableError {
    if error.is_io_error() {
        TableError::Lost("Redis does not answer".to_owned())
    } else {
        TableError::Refused(format!("Redis: {}", error.category()))
    }
}

/// What a rehearsal that was killed leaves in Redis is gone after this long.
const EXPIRE_AFTER: Duration = Duration::from_secs(3_600);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
