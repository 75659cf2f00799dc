//! A keyring in an application: opened once, then following its file.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::error::{FollowError, HandleError};
use super::follow::Follower;
use super::handle::KeysetHandle;
use super::meters::Meters;
use super::ring::Ring;
use super::token::{TokenHandle, TokenOptions, TokenRing};
use crate::format::{Format, Tink};
use crate::key::{self, KeyId, KeysetName, Unlock};

/// An opened keyring. Cheap to clone; all clones and handles follow the same file, by one thread, which ends with the last of them.
#[derive(Clone)]
pub struct Keyring {
    pub(super) shared: Arc<Shared>,
}

/// How a keyring is followed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often the file is looked at (not read, unless it changed). 1 s unless told otherwise.
    pub poll_every: Duration,
    /// The clock for formats that write the time into their values.
    pub now: fn() -> Timestamp,
    /// Whether seals are counted against the limit of their key, in the file `<keyring>.seals`. On unless told otherwise; where that
    /// file cannot be written, sealing goes on and [`Status`] tells. Processes that share the file are counted together.
    pub count_seals: bool,
}

/// Whether the keys in use are those of the file.
#[derive(Debug, Clone)]
pub struct Status {
    /// The generation of the keyring in use.
    pub generation: u64,
    /// Why the file as it stands now is not used; the keys of `generation` remain. `None` while all is well.
    pub fault: Option<Arc<FollowError>>,
    /// Whether values were sealed that are not counted durably, because the file of counts could not be written.
    pub seals_unrecorded: bool,
}

/// What clones and handles share.
pub(super) struct Shared {
    pub(super) now: fn() -> Timestamp,
    meters: Meters,
    /// Held while the file is read. `None` for keys in memory. Locked before `keys`.
    follower: Option<Mutex<Follower>>,
    /// Held for moments only, never by sealing and opening.
    keys: Mutex<Keys>,
    /// Nothing is ever sent: its end tells the following thread to end.
    alive: Mutex<Option<mpsc::Sender<Infallible>>>,
}

/// What the next seal of a keyset will use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextSeal {
    pub(super) keyset: KeysetName,
    pub(super) revision: u64,
    pub(super) key: KeyId,
    /// Values opened under a compromised key so far.
    pub(super) compromised_opens: u64,
}

struct Keys {
    keyring: key::Keyring,
    /// One for each keyset and format that a handle was asked for.
    rings: Vec<Arc<ArcSwap<Ring>>>,
    /// One for each keyset that tokens are signed with.
    token_rings: Vec<Arc<ArcSwap<TokenRing>>>,
    fault: Option<Arc<FollowError>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_every: POLL_EVERY_DEFAULT,
            now: Timestamp::now,
            count_seals: true,
        }
    }
}

impl Keyring {
    /// Opens the keyring file at `path` and follows it from now on.
    pub fn open(path: impl AsRef<Path>, unlock: Unlock) -> Result<Self, FollowError> {
        Self::open_with(path, unlock, Options::default())
    }

    /// [`open`](Self::open), with options.
    pub fn open_with(path: impl AsRef<Path>, unlock: Unlock, options: Options) -> Result<Self, FollowError> {
        let mut follower = Follower::new(path.as_ref().to_owned(), unlock);
        let keyring = follower.read(0)?;
        let counts = options.count_seals.then(|| key::SealCounts::beside(path.as_ref()));
        let shared = Shared::new(keyring, Some(follower), options.now, Meters::new(counts));
        let (alive, ended) = mpsc::channel();
        let follows = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("reseal-keyring".to_owned())
            .spawn(move || follow(&follows, &ended, options.poll_every))
            .map_err(FollowError::Thread)?;
        *lock(&shared.alive) = Some(alive);
        Ok(Self { shared })
    }

    /// Keys without a file: for tests and rehearsals. [`replace`](Self::replace) stands in for a changed file.
    pub fn in_memory(keyring: key::Keyring) -> Self {
        Self {
            shared: Shared::new(keyring, None, Timestamp::now, Meters::new(None)),
        }
    }

    /// A handle to seal and open values of Reseal's native format, [`Tink`].
    pub fn keyset(&self, name: &str) -> Result<KeysetHandle, HandleError> {
        self.keyset_in(name, &Tink::NATIVE)
    }

    /// A handle to seal and open values of `format`; find one with [`by_name`](crate::format::by_name).
    pub fn keyset_in(&self, name: &str, format: &'static dyn Format) -> Result<KeysetHandle, HandleError> {
        let name: KeysetName = name.parse()?;
        let mut keys = lock(&self.shared.keys);
        let known = keys.rings.iter().find(|ring| {
            let ring = ring.load();
            ring.keyset == name && ring.format.name() == format.name()
        });
        let ring = match known {
            Some(ring) => Arc::clone(ring),
            None => {
                let ring = Arc::new(ArcSwap::from_pointee(Ring::build(
                    &keys.keyring,
                    &name,
                    format,
                    &self.shared.meters,
                )?));
                keys.rings.push(Arc::clone(&ring));
                ring
            }
        };
        Ok(KeysetHandle {
            shared: Arc::clone(&self.shared),
            ring,
        })
    }

    /// A handle to sign and verify tokens with a keyset of signing keys.
    pub fn tokens(&self, name: &str, options: TokenOptions) -> Result<TokenHandle, HandleError> {
        let name: KeysetName = name.parse()?;
        let mut keys = lock(&self.shared.keys);
        let known = keys.token_rings.iter().find(|ring| ring.load().keyset == name);
        let ring = match known {
            Some(ring) => Arc::clone(ring),
            None => {
                let ring = Arc::new(ArcSwap::from_pointee(TokenRing::build(&keys.keyring, &name)?));
                keys.token_rings.push(Arc::clone(&ring));
                ring
            }
        };
        Ok(TokenHandle {
            shared: Arc::clone(&self.shared),
            ring,
            options: Arc::new(options),
        })
    }

    /// Reads the file now instead of at the next look. On an error the keys that are there remain.
    pub fn refresh(&self) -> Result<(), Arc<FollowError>> {
        if let Some(follower) = &self.shared.follower {
            let mut follower = lock(follower);
            self.shared.look(|generation| Some(follower.read(generation)));
        }
        match &lock(&self.shared.keys).fault {
            Some(fault) => Err(Arc::clone(fault)),
            None => Ok(()),
        }
    }

    /// Takes other keys, for a keyring in memory. On an error the keys that are there remain.
    pub fn replace(&self, keyring: key::Keyring) -> Result<(), FollowError> {
        self.shared.install(keyring)
    }

    /// Whether the keys in use are those of the file: for a health check.
    pub fn status(&self) -> Status {
        let keys = lock(&self.shared.keys);
        Status {
            generation: keys.keyring.generation(),
            fault: keys.fault.clone(),
            seals_unrecorded: self.shared.meters.are_unrecorded(),
        }
    }
}

impl Shared {
    fn new(keyring: key::Keyring, follower: Option<Follower>, now: fn() -> Timestamp, meters: Meters) -> Arc<Self> {
        Arc::new(Self {
            now,
            meters,
            follower: follower.map(Mutex::new),
            keys: Mutex::new(Keys {
                keyring,
                rings: Vec::new(),
                token_rings: Vec::new(),
                fault: None,
            }),
            alive: Mutex::new(None),
        })
    }

    /// What the next seal of each keyset will use, or the next signature, for the keysets that a handle was asked for. Where a keyset is
    /// used in several formats, the ring that lags behind counts.
    pub(super) fn next_seals(&self) -> Vec<NextSeal> {
        let mut seals: Vec<NextSeal> = Vec::new();
        let keys = lock(&self.keys);
        for ring in &keys.rings {
            let ring = ring.load();
            let opens = ring.compromised_opens.load(Ordering::Relaxed);
            match seals.iter_mut().find(|seal| seal.keyset == ring.keyset) {
                Some(seal) => {
                    seal.compromised_opens += opens;
                    if ring.revision < seal.revision {
                        (seal.revision, seal.key) = (ring.revision, ring.primary.id);
                    }
                }
                None => seals.push(NextSeal {
                    keyset: ring.keyset.clone(),
                    revision: ring.revision,
                    key: ring.primary.id,
                    compromised_opens: opens,
                }),
            }
        }
        // No keyset has both: keys that sign tokens seal no values.
        seals.extend(keys.token_rings.iter().map(|ring| ring.load().next_seal()));
        seals
    }

    /// A reader with keys of `generation` met a value that they do not open. Returns whether there are other keys now.
    pub(super) fn catch_up(&self, generation: u64) -> bool {
        let Some(follower) = &self.follower else { return false };
        // Whoever waits here for another's look profits from it.
        let mut follower = lock(follower);
        if lock(&self.keys).keyring.generation() == generation && follower.may_be_forced() {
            self.look(|generation| follower.read_if_changed(generation));
        }
        lock(&self.keys).keyring.generation() != generation
    }

    /// Takes what `read` finds in the file, given the generation in use. The caller holds the follower until this returns, so that
    /// versions are taken in the order in which they were read.
    fn look(&self, read: impl FnOnce(u64) -> Option<Result<key::Keyring, key::KeyringError>>) {
        let generation = lock(&self.keys).keyring.generation();
        let outcome = match read(generation) {
            None => return,
            Some(Ok(keyring)) if keyring.generation() == generation => Ok(()),
            Some(Ok(keyring)) => self.install(keyring),
            Some(Err(error)) => Err(error.into()),
        };
        match &outcome {
            Ok(()) => tracing::debug!(generation, "keyring file read"),
            Err(error) => {
                tracing::warn!(generation, %error, "keyring file not usable; keys of the last good version stay in use")
            }
        }
        lock(&self.keys).fault = outcome.err().map(Arc::new);
    }

    /// Puts a version of the keyring into use: for all handles, or, if one of them could not work with it, for none.
    fn install(&self, keyring: key::Keyring) -> Result<(), FollowError> {
        let mut keys = lock(&self.keys);
        let rebuilt: Vec<Ring> = keys
            .rings
            .iter()
            .map(|ring| ring.load().rebuilt(&keyring, &self.meters))
            .collect::<Result<_, _>>()
            .map_err(FollowError::InUse)?;
        let rebuilt_tokens: Vec<TokenRing> = keys
            .token_rings
            .iter()
            .map(|ring| TokenRing::build(&keyring, &ring.load().keyset))
            .collect::<Result<_, _>>()
            .map_err(FollowError::InUse)?;
        for (ring, rebuilt) in keys.rings.iter().zip(rebuilt) {
            ring.store(Arc::new(rebuilt));
        }
        for (ring, rebuilt) in keys.token_rings.iter().zip(rebuilt_tokens) {
            ring.store(Arc::new(rebuilt));
        }
        keys.keyring = keyring;
        Ok(())
    }
}

fn follow(shared: &Weak<Shared>, ended: &mpsc::Receiver<Infallible>, every: Duration) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
        let Some(shared) = shared.upgrade() else { return };
        if let Some(follower) = &shared.follower {
            let mut follower = lock(follower);
            shared.look(|generation| follower.read_if_changed(generation));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Keys are changed by single assignments: after a panic they are one version or the other.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stat a second costs nothing, and a rotation waits for its readers for about as long.
const POLL_EVERY_DEFAULT: Duration = Duration::from_secs(1);
