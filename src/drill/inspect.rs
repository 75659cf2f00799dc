//! Every row of the table against the model, and every value against every key. Shares no code with the rotation's own verification.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::DrillError;
use super::customer::{COLUMNS, Content, Customer};
use super::model::{Deviation, Model, Moment};
use super::stage::{KEYSET, Stage};
use crate::format::Cipher;
use crate::key::{KeyId, Keyring};

/// What stands in the table.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Rows.
    pub rows: u64,
    /// Values that opened, by key.
    pub per_key: BTreeMap<u32, u64>,
    /// Values that are NULL.
    pub nulls: u64,
    /// Values that open under no key at all.
    pub unreadable: u64,
    /// Rows that do not hold what was written last, by how.
    pub deviations: BTreeMap<Deviation, u64>,
    /// The first of them, told one by one.
    pub incidents: Vec<String>,
}

/// All keys of the keyset whose bytes are still there, joined with the format of each column.
struct Openers {
    columns: Vec<Vec<(KeyId, Box<dyn Cipher>)>>,
}

/// Opens everything. The application must have stopped, so that nothing is being written.
pub fn inspect(stage: &Stage, model: &Model, now: Moment) -> Result<Inspection, DrillError> {
    let openers = Openers::of(&stage.keyring()?)?;
    let connection = stage.connect()?;
    let mut inspection = Inspection::default();
    let mut expected = model.ids().into_iter().peekable();
    let judge = |inspection: &mut Inspection, id: i64, seen: Option<Content>| {
        if let Err(deviation) = model.judge(id, seen, now, now) {
            *inspection.deviations.entry(deviation).or_default() += 1;
            inspection.tell(format!("at the end, row {id}: rows {}", deviation.describe()));
        }
    };
    visit(&connection, |id, values, tier| {
        while let Some(missing) = expected.next_if(|expected| *expected < id) {
            judge(&mut inspection, missing, None);
        }
        expected.next_if_eq(&id);
        inspection.rows += 1;
        if let Some(customer) = openers.open(&mut inspection, id, values, tier) {
            judge(&mut inspection, id, Some(customer.content()));
        }
    })?;
    for missing in expected {
        judge(&mut inspection, missing, None);
    }
    Ok(inspection)
}

impl Inspection {
    /// Values under a key.
    pub fn under(&self, key: KeyId) -> u64 {
        self.per_key.get(&key.0).copied().unwrap_or(0)
    }

    /// Rows that deviate in this way.
    pub fn deviating(&self, deviation: Deviation) -> u64 {
        self.deviations.get(&deviation).copied().unwrap_or(0)
    }

    fn tell(&mut self, incident: String) {
        if self.incidents.len() < INCIDENTS_MAX {
            self.incidents.push(incident);
        }
    }
}

impl Openers {
    fn of(keyring: &Keyring) -> Result<Self, DrillError> {
        let keyset = keyring.keysets().iter().find(|keyset| keyset.name().as_str() == KEYSET);
        let mut columns = Vec::new();
        for column in &COLUMNS {
            let format = column.format()?;
            let mut ciphers = Vec::new();
            for key in keyset.into_iter().flat_map(|keyset| keyset.reencryption_keys()) {
                if let Some(material) = key.material() {
                    ciphers.push((key.id(), format.cipher(material, Some(key.id()))?));
                }
            }
            columns.push(ciphers);
        }
        Ok(Self { columns })
    }

    /// The customer in a row, if all of it opens; counts the keys.
    fn open(&self, inspection: &mut Inspection, id: i64, values: [Option<&[u8]>; 3], tier: &str) -> Option<Customer> {
        let mut is_whole = true;
        let mut texts = [None, None, None];
        for ((column, ciphers), (stored, text)) in COLUMNS.iter().zip(&self.columns).zip(values.into_iter().zip(&mut texts)) {
            let Some(stored) = stored else {
                inspection.nulls += 1;
                continue;
            };
            let place = column.place(id);
            let mut plaintext = Vec::new();
            let key = ciphers
                .iter()
                .find(|(_, cipher)| cipher.open(stored, &place, &mut plaintext).is_ok());
            match key {
                Some((key, _)) => {
                    *inspection.per_key.entry(key.0).or_default() += 1;
                    *text = Some(String::from_utf8_lossy(&plaintext).into_owned());
                }
                None => {
                    is_whole = false;
                    inspection.unreadable += 1;
                    inspection.tell(format!("at the end, row {id}: {} opens under no key", column.name));
                }
            }
        }
        let [name, email, notes] = texts;
        is_whole.then(|| Customer {
            name: name.unwrap_or_default(),
            email: email.unwrap_or_default(),
            notes,
            tier: tier.to_owned(),
        })
    }
}

fn visit(connection: &Connection, mut row_seen: impl FnMut(i64, [Option<&[u8]>; 3], &str)) -> Result<(), DrillError> {
    let mut select = connection.prepare("SELECT id, name, email, notes, tier FROM customers ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let value = |at| match row.get_ref(at) {
            Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Ok(Some(bytes)),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        let tier: String = row.get(4)?;
        row_seen(row.get(0)?, [value(1)?, value(2)?, value(3)?], &tier);
    }
    Ok(())
}

/// Enough to see what went wrong; counts are exact.
const INCIDENTS_MAX: usize = 50;
