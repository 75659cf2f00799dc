//! An application that never rests: writers that insert, update, delete, move and restore rows, readers that read with both keys. What
//! must be in the table is kept outside the database, in a ledger for each writer, and compared at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::people::{Column, FernetKey, GAP, Home, Live, Person, Snapshot};

/// What one writer knows: nobody else writes its rows, so that the ledger is the truth about them.
#[derive(Default)]
struct Ledger {
    people: BTreeMap<i64, Person>,
    /// Values under the old key that the writer replaced or deleted before the rotation came to them.
    replaced_old: u64,
    /// Values under the old key that the writer put back.
    restored_old: u64,
    writes: u64,
}

/// The running application.
pub struct Storm {
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    old: Arc<FernetKey>,
    new: Arc<FernetKey>,
}

/// What stands in the table, by key; everything else was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    pub rows: u64,
    pub under_old: u64,
    pub under_new: u64,
    /// Rows whose email is under the new key.
    pub rows_under_new: u64,
}

impl Storm {
    /// Distributes `people` over writers, who write under `new` alone, and starts them and the readers.
    pub fn start(
        home: &Home,
        people: Vec<(i64, Person)>,
        (old, new): (&Arc<FernetKey>, &Arc<FernetKey>),
        writers: usize,
        readers: usize,
    ) -> Self {
        // Without writers there is still a ledger: what must not change.
        let ledgers: Vec<Arc<Mutex<Ledger>>> = (0..writers.max(1)).map(|_| Arc::default()).collect();
        for (at, (id, person)) in people.into_iter().enumerate() {
            ledgers[at % ledgers.len()].lock().unwrap().people.insert(id, person);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for (number, ledger) in ledgers.iter().enumerate().take(writers) {
            let share = (i64::try_from(number).unwrap(), i64::try_from(writers).unwrap());
            let mut writer = Writer::new(home, Arc::clone(ledger), (old, new), share);
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    writer.write_something();
                    // As long as it took: SQLite lets whoever is there first write, and nobody queues.
                    std::thread::sleep(begun.elapsed().clamp(Duration::from_millis(1), Duration::from_millis(50)));
                }
            }));
        }
        for _ in 0..readers {
            let (mut live, old, new) = (home.connect(), Arc::clone(old), Arc::clone(new));
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let from = rand::rng().random_range(0..5_000 * GAP);
                    for row in live.some_from(from) {
                        let open = |token: &str| new.open(token).or_else(|| old.open(token));
                        let person = Person {
                            email: open(&row.email).expect("a reader with both keys opens every email"),
                            note: row
                                .note
                                .map(|note| open(&note).expect("a reader with both keys opens every note")),
                        };
                        assert!(person.is_one_person(), "values of two people in row {}", row.id);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        Self {
            ledgers,
            stop,
            reads,
            threads,
            old: Arc::clone(old),
            new: Arc::clone(new),
        }
    }

    /// A writer that writes when it is told to, for a storm without writers of its own.
    pub fn writer(&self, home: &Home) -> Writer {
        assert!(self.threads.is_empty(), "the rows belong to writers that are at work");
        Writer::new(home, Arc::clone(&self.ledgers[0]), (&self.old, &self.new), (0, 1))
    }

    /// Writes and rows read so far.
    pub fn activity(&self) -> (u64, u64) {
        let writes = self.ledgers.iter().map(|ledger| ledger.lock().unwrap().writes).sum();
        (writes, self.reads.load(Ordering::Relaxed))
    }

    /// Compares the whole table with the ledgers while all writers hold still: nothing lost, nothing resurrected, nothing unreadable,
    /// no value in the wrong place. Returns counters of the same instant with it.
    pub fn audit(&self, live: &mut Live) -> (Audit, Snapshot) {
        let ledgers: Vec<MutexGuard<'_, Ledger>> = self.ledgers.iter().map(|ledger| ledger.lock().unwrap()).collect();
        let snapshot = live.snapshot();
        let mut expected: BTreeMap<i64, &Person> = BTreeMap::new();
        for ledger in &ledgers {
            expected.extend(ledger.people.iter().map(|(id, person)| (*id, person)));
        }
        let mut audit = Audit {
            rows: snapshot.rows.len() as u64,
            under_old: 0,
            under_new: 0,
            rows_under_new: 0,
        };
        for row in &snapshot.rows {
            let mut open = |token: &str| match (self.new.open(token), self.old.open(token)) {
                (Some(plaintext), None) => {
                    audit.under_new += 1;
                    plaintext
                }
                (None, Some(plaintext)) => {
                    audit.under_old += 1;
                    plaintext
                }
                _ => panic!("a value of row {} is unreadable", row.id),
            };
            let person = Person {
                email: open(&row.email),
                note: row.note.as_deref().map(&mut open),
            };
            let Some(wanted) = expected.remove(&row.id) else {
                panic!("row {} was resurrected: {person:?}", row.id);
            };
            assert_eq!(&person, wanted, "row {} does not say what was written last", row.id);
            audit.rows_under_new += u64::from(self.new.open(&row.email).is_some());
        }
        assert!(expected.is_empty(), "lost rows: {:?}", expected.keys());
        (audit, snapshot)
    }

    /// Values under the old key that writers took away, less those that they put back: what a rotation did not have to do.
    pub fn spared(&self) -> u64 {
        let ledgers = self.ledgers.iter().map(|ledger| ledger.lock().unwrap());
        ledgers.map(|ledger| ledger.replaced_old - ledger.restored_old).sum()
    }

    /// Ends all threads; a panic in one of them is a panic here. What is known stays for a last [`audit`](Self::audit).
    pub fn calm(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the application failed");
        }
    }

    /// What the table says, for the next storm.
    pub fn people(&self) -> Vec<(i64, Person)> {
        let mut people = Vec::new();
        for ledger in &self.ledgers {
            let ledger = ledger.lock().unwrap();
            people.extend(ledger.people.iter().map(|(id, person)| (*id, person.clone())));
        }
        people.sort_by_key(|(id, _)| *id);
        people
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The test that drops a storm under way has failed already, and says why.
            let _ = thread.join();
        }
    }
}

/// One writer of the application, with its own rows.
pub struct Writer {
    live: Live,
    ledger: Arc<Mutex<Ledger>>,
    old: Arc<FernetKey>,
    new: Arc<FernetKey>,
    number: i64,
    writers: i64,
    persons: i64,
    versions: u64,
}

impl Writer {
    /// `number` of `writers`.
    fn new(
        home: &Home,
        ledger: Arc<Mutex<Ledger>>,
        (old, new): (&Arc<FernetKey>, &Arc<FernetKey>),
        (number, writers): (i64, i64),
    ) -> Self {
        Self {
            live: home.connect(),
            ledger,
            old: Arc::clone(old),
            new: Arc::clone(new),
            number,
            writers,
            persons: 0,
            versions: 0,
        }
    }

    /// One step of the application. The ledger is locked meanwhile: whoever locks it sees a database at rest.
    pub fn write_something(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        let mut ledger = ledger.lock().unwrap();
        ledger.writes += 1;
        match self.someone(&ledger) {
            Some(id) => self.write_at(&mut ledger, id),
            None => self.insert(&mut ledger),
        }
    }

    /// Writes to some of the rows that a rotation will come to next.
    pub fn write_ahead_of_the_rotation(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        let mut ledger = ledger.lock().unwrap();
        let rows = self.live.snapshot().rows;
        let due: Vec<i64> = rows
            .iter()
            .filter(|row| self.old.open(&row.email).is_some())
            .map(|row| row.id)
            .take(20)
            .collect();
        for _ in 0..due.len().min(8) {
            let id = due[rand::rng().random_range(0..due.len())];
            if ledger.people.contains_key(&id) {
                self.write_at(&mut ledger, id);
            }
        }
    }

    fn write_at(&mut self, ledger: &mut Ledger, id: i64) {
        match rand::rng().random_range(0..100) {
            0..12 => self.insert(ledger),
            12..22 if ledger.people.len() > 50 => self.delete(ledger, id),
            22..34 => self.move_row(ledger, id),
            34..54 => self.update(ledger, id, Column::Email),
            54..64 => self.update(ledger, id, Column::Note),
            64..76 => self.there_and_back(ledger, id),
            76..86 => assert!(self.live.touch(id), "row {id} was lost"),
            _ => self.touch_hot_rows(ledger),
        }
    }

    fn insert(&mut self, ledger: &mut Ledger) {
        let id = self.free_id(ledger);
        self.persons += 1;
        // Numbers far above those of the first rows, each writer's its own.
        let person = Person::new((self.persons * self.writers + self.number) + 1_000_000, 0);
        self.live.insert(&person.seal(id, &self.new));
        ledger.people.insert(id, person);
    }

    fn delete(&mut self, ledger: &mut Ledger, id: i64) {
        let stored = self.live.delete(id).unwrap_or_else(|| panic!("row {id} was lost"));
        ledger.replaced_old += self.count_old(&Some(stored.email)) + self.count_old(&stored.note);
        ledger.people.remove(&id);
        if rand::rng().random_bool(0.3) {
            // Somebody else under the same key: what was read before the deletion must not come back.
            self.persons += 1;
            let person = Person::new((self.persons * self.writers + self.number) + 1_000_000, 0);
            self.live.insert(&person.seal(id, &self.new));
            ledger.people.insert(id, person);
        }
    }

    fn move_row(&mut self, ledger: &mut Ledger, id: i64) {
        let to = self.free_id(ledger);
        assert!(self.live.rekey(id, to), "row {id} was lost");
        let person = ledger.people.remove(&id).unwrap();
        ledger.people.insert(to, person);
    }

    /// Changes the email of this row.
    pub fn change_email(&mut self, id: i64) {
        let ledger = Arc::clone(&self.ledger);
        self.update(&mut ledger.lock().unwrap(), id, Column::Email);
    }

    fn update(&mut self, ledger: &mut Ledger, id: i64, column: Column) {
        self.versions += 1;
        let person = ledger.people.get_mut(&id).unwrap();
        let number: i64 = person.email.split(' ').nth(1).unwrap().parse().unwrap();
        let token = match column {
            Column::Email => {
                person.email = Person::email(number, self.versions);
                Some(self.new.seal(&person.email))
            }
            Column::Note => {
                person.note = Person::note(number, self.versions);
                person.note.as_deref().map(|note| self.new.seal(note))
            }
        };
        let before = self.live.replace(id, column, token.as_deref());
        ledger.replaced_old += self.count_old(&before.unwrap_or_else(|| panic!("row {id} was lost")));
    }

    /// A to B to A, byte for byte: what was read before is there again, in another version of the row.
    fn there_and_back(&mut self, ledger: &mut Ledger, id: i64) {
        let between = self.new.seal(&format!("{} for an instant", ledger.people[&id].email));
        let before = self.live.replace(id, Column::Email, Some(&between));
        let before = before.unwrap_or_else(|| panic!("row {id} was lost"));
        let was_old = self.count_old(&before);
        ledger.replaced_old += was_old;
        let instant = self.live.replace(id, Column::Email, before.as_deref());
        assert_eq!(instant, Some(Some(between)), "row {id}: a newer value was overwritten");
        ledger.restored_old += was_old;
    }

    /// Always the same few rows, and a column that is not encrypted: the row changes, its values do not.
    fn touch_hot_rows(&mut self, ledger: &Ledger) {
        let hot: Vec<i64> = ledger.people.keys().rev().take(5).copied().collect();
        for id in hot {
            assert!(self.live.touch(id), "row {id} was lost");
        }
    }

    fn someone(&self, ledger: &Ledger) -> Option<i64> {
        let count = ledger.people.len();
        let at = (count > 0).then(|| rand::rng().random_range(0..count))?;
        ledger.people.keys().nth(at).copied()
    }

    /// Before, between and behind the others, in this writer's share of the numbers.
    fn free_id(&self, ledger: &Ledger) -> i64 {
        loop {
            let last = ledger.people.last_key_value().map_or(0, |(id, _)| *id);
            let id = rand::rng().random_range(1..last + 10 * GAP);
            let id = id - id % GAP + 1 + (id % (GAP / self.writers - 1)) * self.writers + self.number;
            // A multiple of the gap belongs to whoever has had it from the beginning.
            if id % GAP != 0 && !ledger.people.contains_key(&id) {
                return id;
            }
        }
    }

    fn count_old(&self, token: &Option<String>) -> u64 {
        token.as_deref().map_or(0, |token| u64::from(self.old.open(token).is_some()))
    }
}
