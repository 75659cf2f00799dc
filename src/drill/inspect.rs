//! Every row of the table against the model, and every value against every key. Shares no code with the rotation's own verification.

use std::collections::BTreeMap;

use super::DrillError;
use super::clock::Moment;
use super::customer::{COLUMNS, Content, Customer, Row};
use super::model::{Deviation, Model};
use super::stage::Stage;
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
    let openers = Openers::of(&stage.keyring()?, &stage.keyset_name())?;
    let mut table = stage.place().open(&stage.role("inspection"))?;
    let mut inspection = Inspection::default();
    let mut expected = model.ids().into_iter().peekable();
    let judge = |inspection: &mut Inspection, id: i64, seen: Option<Content>| {
        if let Err(deviation) = model.judge(id, seen, now, now) {
            *inspection.deviations.entry(deviation).or_default() += 1;
            let (how, known) = (deviation.describe(), model.tell(id));
            inspection.tell(format!("at the end, row {id}: rows {how}; its history: {known}"));
        }
    };
    let mut after = i64::MIN;
    loop {
        let page = table.page(after, PAGE_ROWS)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (id, row) in &page {
            while let Some(missing) = expected.next_if(|expected| expected < id) {
                judge(&mut inspection, missing, None);
            }
            expected.next_if_eq(id);
            inspection.rows += 1;
            if let Some(customer) = openers.open(&mut inspection, *id, row) {
                judge(&mut inspection, *id, Some(customer.content()));
            }
        }
    }
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
    fn of(keyring: &Keyring, keyset: &str) -> Result<Self, DrillError> {
        let keyset = keyring.keysets().iter().find(|known| known.name().as_str() == keyset);
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
    fn open(&self, inspection: &mut Inspection, id: i64, row: &Row) -> Option<Customer> {
        let values = [Some(row.name.as_bytes()), Some(&row.email), row.notes.as_deref()];
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
            tier: row.tier.clone(),
        })
    }
}

/// Enough to see what went wrong; counts are exact.
const INCIDENTS_MAX: usize = 50;
/// Some hundred kilobytes.
const PAGE_ROWS: i64 = 1_000;
