//! The application under load: instances that read or write all along, each with a keyring of its own that follows the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::DrillError;
use super::customer::Cabinet;
use super::latency::Window;
use super::model::{Model, Moment};
use super::reader::Reader;
use super::sabotage::Sabotage;
use super::stage::{KEYSET, Stage};
use super::tally::Tally;
use super::writer::Writer;
use crate::app;

/// What all instances share.
pub struct Scene {
    /// What was written.
    pub model: Model,
    /// Ids from 1 up to this one may be in the table.
    pub id_max: AtomicU64,
    clock: Instant,
    window: AtomicU8,
    stop: AtomicBool,
}

/// The running instances.
pub struct Load {
    scene: Arc<Scene>,
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    /// The keyset revision of its next seal; everything that it sealed with an older one is committed.
    acknowledged: Arc<AtomicU64>,
    /// Sabotage: it acknowledges what it has not got.
    is_liar: bool,
    thread: JoinHandle<Result<Tally, DrillError>>,
}

/// What an instance works with.
pub struct Seat {
    /// What all instances share.
    pub scene: Arc<Scene>,
    /// The application's columns, as this instance's keyring opens them.
    pub cabinet: Cabinet,
    /// Its connection.
    pub connection: rusqlite::Connection,
    /// Seeds its traffic.
    pub seed: u64,
    acknowledged: Arc<AtomicU64>,
    /// Keeps the file followed; sabotage keeps keys in memory instead.
    _keyring: app::Keyring,
}

impl Scene {
    /// A scene whose table holds the ids up to `id_max`.
    pub fn new(id_max: u64) -> Self {
        Self {
            model: Model::default(),
            id_max: AtomicU64::new(id_max),
            clock: Instant::now(),
            window: AtomicU8::new(Window::Before as u8),
            stop: AtomicBool::new(false),
        }
    }

    /// The one clock of the model.
    pub fn now(&self) -> Moment {
        Moment::try_from(self.clock.elapsed().as_nanos()).unwrap_or(Moment::MAX - 1)
    }

    /// The present window.
    pub fn window(&self) -> Window {
        match self.window.load(Ordering::Relaxed) {
            0 => Window::Before,
            1 => Window::During,
            _ => Window::After,
        }
    }
}

impl Seat {
    /// Whether to go on. Called between operations: what was sealed before is committed, so that the revision of the next seal can be
    /// acknowledged.
    pub fn goes_on(&self) -> bool {
        self.acknowledged.store(self.cabinet.revision(), Ordering::SeqCst);
        !self.scene.stop.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Starts the instances.
    pub fn start(
        stage: &Stage,
        scene: &Arc<Scene>,
        readers: usize,
        writers: usize,
        seed: u64,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, DrillError> {
        let mut load = Self {
            scene: Arc::clone(scene),
            instances: Vec::new(),
        };
        for number in 0..readers {
            let is_broken = number == 0 && sabotage == Some(Sabotage::ReaderWithOldKeyOnly);
            let is_frozen = number == 0 && sabotage == Some(Sabotage::InstanceLagsBehind);
            let seat = load.seat(stage, seed, is_broken || is_frozen)?;
            load.spawn(format!("reader-{number}"), is_broken, seat, |seat| Reader::new(seat)?.run())?;
        }
        for number in 0..writers {
            let is_broken = number == 0 && sabotage == Some(Sabotage::WriterWithOldKeyOnly);
            let seat = load.seat(stage, seed, is_broken)?;
            load.spawn(format!("writer-{number}"), is_broken, seat, move |seat| {
                Writer::new(seat, number, writers)?.run()
            })?;
        }
        Ok(load)
    }

    /// Says in which window operations fall from now on.
    pub fn enter(&self, window: Window) {
        self.scene.window.store(window as u8, Ordering::Relaxed);
    }

    /// Waits until every instance has acknowledged `revision`; otherwise names those that have not.
    pub fn wait_for(&self, revision: u64, patience: Duration) -> Result<(), Vec<String>> {
        let begun = Instant::now();
        loop {
            let missing: Vec<String> = self
                .instances
                .iter()
                .filter(|instance| !instance.is_liar && instance.acknowledged.load(Ordering::SeqCst) < revision)
                .map(|instance| instance.name.clone())
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= patience {
                return Err(missing);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many instances run.
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// Stops all instances, each after its present operation, and adds up what they did.
    pub fn stop(mut self) -> Result<Tally, DrillError> {
        self.scene.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::new()?;
        for instance in std::mem::take(&mut self.instances) {
            sum.merge(
                instance
                    .thread
                    .join()
                    .map_err(|_| DrillError::InstanceDied(instance.name))??,
            );
        }
        Ok(sum)
    }

    fn seat(&self, stage: &Stage, seed: u64, keeps_its_keys: bool) -> Result<Seat, DrillError> {
        let keyring = if keeps_its_keys {
            app::Keyring::in_memory(stage.keyring()?)
        } else {
            stage.follow()?
        };
        Ok(Seat {
            scene: Arc::clone(&self.scene),
            cabinet: Cabinet::new(&keyring, KEYSET)?,
            connection: stage.connect()?,
            // Different traffic for each; the table itself was filled from `seed`.
            seed: seed.wrapping_add(1 + self.instances.len() as u64),
            acknowledged: Arc::new(AtomicU64::new(0)),
            _keyring: keyring,
        })
    }

    fn spawn(
        &mut self,
        name: String,
        is_liar: bool,
        seat: Seat,
        run: impl FnOnce(Seat) -> Result<Tally, DrillError> + Send + 'static,
    ) -> Result<(), DrillError> {
        let acknowledged = Arc::clone(&seat.acknowledged);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(seat))
            .map_err(DrillError::Stage)?;
        self.instances.push(Instance {
            name,
            acknowledged,
            is_liar,
            thread,
        });
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After an error elsewhere nobody collects the tallies, and the folder goes away when the threads have left it.
        self.scene.stop.store(true, Ordering::Relaxed);
        for instance in self.instances.drain(..) {
            let _ = instance.thread.join();
        }
    }
}
