//! The table of sessions beside that of the customers, as an application keeps it: who is logged in.

use super::{Cell, Cells, Dialect, Parameter, Place, Session, TableError, session};

/// A connection to it.
pub struct LoginTable {
    session: Box<dyn Session>,
    insert: String,
    find: String,
    remove: String,
    list: String,
}

impl LoginTable {
    /// Connects to the table beside this one.
    pub fn open(place: &Place, role: &str) -> Result<Self, TableError> {
        let (session, dialect) = session(place, role)?;
        let table = place.logins();
        let sql = |text: &str, dialect: &Dialect| text.replace("{table}", &table).replace('?', &dialect.parameter.to_string());
        Ok(Self {
            session,
            insert: sql("INSERT INTO {table} (id, customer) VALUES (?1, ?2)", &dialect),
            find: sql("SELECT customer FROM {table} WHERE id = ?1", &dialect),
            remove: sql("DELETE FROM {table} WHERE id = ?1", &dialect),
            list: sql("SELECT id FROM {table}", &dialect),
        })
    }

    /// Somebody logs in.
    pub fn insert(&mut self, id: &str, customer: i64) -> Result<(), TableError> {
        let values = [Parameter::Text(id), Parameter::Integer(customer)];
        self.session.execute(&self.insert, &values).map(drop)
    }

    /// Whether the session is there.
    pub fn is_there(&mut self, id: &str) -> Result<bool, TableError> {
        let rows = self.session.query(&self.find, &[Parameter::Text(id)])?;
        Ok(!rows.is_empty())
    }

    /// Somebody logs out. Says whether the session was there.
    pub fn remove(&mut self, id: &str) -> Result<bool, TableError> {
        Ok(self.session.execute(&self.remove, &[Parameter::Text(id)])? > 0)
    }

    /// All sessions.
    pub fn list(&mut self) -> Result<Vec<String>, TableError> {
        let rows: Vec<Vec<Cell>> = self.session.query(&self.list, &[])?;
        rows.into_iter().map(|row| Cells(row.into_iter()).text()).collect()
    }

    /// Connects anew.
    pub fn renew(&mut self) -> Result<(), TableError> {
        self.session.renew()
    }
}
