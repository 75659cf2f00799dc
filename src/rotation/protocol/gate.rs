//! Gates: waiting until every live instance of an application has a revision of the keyset.
//!
//! One that vanishes is waited for until its lease ends, by the database's clock and by our own, and then named as gone; one that comes
//! back with an older revision is waited for again. Nobody at all is not everybody: without instances a gate
//! opens only if the operator has said that there are none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::ledgers::Ledgers;
use super::presence::Presence;
use super::{ProtocolError, Watch};
use crate::key::KeyId;
use crate::rotation::progress::Stop;
use crate::store::ledger::instance::Instance;

/// What a gate is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// Every instance opens with the target.
    Introduce,
    /// Every instance seals with the target.
    Promote,
    /// Every instance has let go of the other keys.
    Retire,
}

/// How gates wait.
#[derive(Debug, Clone)]
pub struct GateRules {
    /// How many instances there must be. Without a number: at least one.
    pub expect: Option<u64>,
    /// How long a gate waits.
    pub timeout: Duration,
    /// In a compromise: how long, until whoever is missing is evicted instead of waited for.
    pub evict_after: Option<Duration>,
}

/// An instance that a gate waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub instance: String,
    /// The revision that it has.
    pub revision: u64,
    /// The newest that it ever had: more than `revision` for one that came back with an older keyring.
    pub newest_revision: u64,
    /// The key that it seals with, where that is what is wrong.
    pub seals_with: Option<u32>,
    /// Seconds since it was heard of.
    pub heard_seconds_ago: u64,
    /// Seconds until its lease ends.
    pub lease_left_seconds: u64,
    /// Whether its lease has ended, so that only its silence is waited for.
    pub may_be_gone: bool,
}

/// How a gate stands.
#[derive(Debug, Clone)]
pub struct Gate {
    /// What it is about.
    pub kind: GateKind,
    /// The revision that is needed.
    pub needed: u64,
    /// How long it was waited at.
    pub waited: Duration,
    /// Live instances that have it.
    pub acknowledged: Vec<String>,
    /// Live instances that have it not.
    pub missing: Vec<Missing>,
    /// Instances whose lease ended before they had it.
    pub gone: Vec<String>,
    /// Instances that a compromise does not wait for.
    pub evicted: Vec<String>,
}

/// The proof that a gate was passed. Only a gate makes one.
#[derive(Debug)]
pub struct Passed {
    gate: Gate,
}

impl Passed {
    /// How it stood.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl GateKind {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Introduce => "introduce",
            Self::Promote => "promote",
            Self::Retire => "retire",
        }
    }
}

impl Gate {
    /// Sorts what the instances say. `target` is the key that must seal, where the gate is about that.
    fn of(
        (kind, needed, target): (GateKind, u64, KeyId),
        instances: &[Instance],
        presence: &Presence,
        evicted: &BTreeSet<String>,
    ) -> Self {
        let mut gate = Self {
            kind,
            needed,
            waited: Duration::ZERO,
            acknowledged: Vec::new(),
            missing: Vec::new(),
            gone: Vec::new(),
            evicted: Vec::new(),
        };
        for instance in instances {
            let name = instance.instance.clone();
            // The same revision with another primary is another history of the keyring.
            let strange = instance
                .seals_with
                .filter(|key| kind != GateKind::Introduce && *key != target.0 && instance.revision >= needed);
            let has_it = instance.revision >= needed && strange.is_none();
            if has_it {
                if instance.is_live() {
                    gate.acknowledged.push(name);
                }
            } else if presence.is_gone(instance) {
                gate.gone.push(name);
            } else if evicted.contains(&name) {
                gate.evicted.push(name);
            } else {
                gate.missing.push(Missing {
                    instance: name,
                    revision: instance.revision,
                    newest_revision: instance.newest_revision,
                    seals_with: strange,
                    heard_seconds_ago: seconds(instance.seen_ms_ago),
                    lease_left_seconds: seconds(instance.lease_left_ms),
                    may_be_gone: !instance.is_live(),
                });
            }
        }
        gate
    }

    /// The proof, if the gate is open.
    pub(super) fn pass(self, rules: &GateRules) -> Result<Passed, Box<Self>> {
        if self.is_open(rules) {
            Ok(Passed { gate: self })
        } else {
            Err(Box::new(self))
        }
    }

    /// Whether nobody is missing.
    pub fn is_open(&self, rules: &GateRules) -> bool {
        self.missing.is_empty() && (self.has_expected(rules) || !self.evicted.is_empty())
    }

    /// Nobody is listened to for longer than the operator waits: whose lease has ended is gone.
    fn end_listening(&mut self) {
        let gone = self.missing.extract_if(.., |missing| missing.may_be_gone);
        self.gone.extend(gone.map(|missing| missing.instance));
    }

    fn has_expected(&self, rules: &GateRules) -> bool {
        self.acknowledged.len() as u64 >= rules.expect.unwrap_or(1)
    }

    /// Who and what is waited for, in one line.
    pub fn describe(&self, rules: &GateRules) -> String {
        let mut parts: Vec<String> = self.missing.iter().map(Missing::describe).collect();
        if !self.has_expected(rules) {
            parts.push(match rules.expect {
                Some(expected) => format!(
                    "{} of {expected} expected instances have acknowledged",
                    self.acknowledged.len()
                ),
                None => "no live instance has acknowledged".to_owned(),
            });
        }
        for name in &self.gone {
            parts.push(format!("{name} is gone: its lease ended"));
        }
        parts.join("; ")
    }
}

impl Missing {
    fn describe(&self) -> String {
        let what = match self.seals_with {
            Some(key) => format!("seals with key {key} at revision {}: another keyring", self.revision),
            None if self.newest_revision > self.revision => {
                format!("came back with revision {}, after {}", self.revision, self.newest_revision)
            }
            None => format!("has revision {}", self.revision),
        };
        let lease = if self.may_be_gone {
            "its lease has ended: listening whether it reports again".to_owned()
        } else {
            format!("lease ends in {} s", self.lease_left_seconds)
        };
        format!("{} {what} (heard {} s ago, {lease})", self.instance, self.heard_seconds_ago)
    }
}

/// How a gate stands now. Waits only until it is known of those whose lease has ended whether they are gone.
pub(super) async fn look(
    asked: (GateKind, u64, KeyId),
    evicted: &BTreeSet<String>,
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
) -> Result<Gate, ProtocolError> {
    loop {
        let instances = ledgers.instances(stop).await?;
        let gate = Gate::of(asked, &instances, ledgers.presence(), evicted);
        if !gate.missing.iter().any(|missing| missing.may_be_gone) {
            return Ok(gate);
        }
        stop.sleep(POLL).await;
        if stop.requested() {
            return Err(ProtocolError::Stopped);
        }
    }
}

/// Waits at a gate until it opens.
pub(super) async fn wait(
    (kind, needed, target): (GateKind, u64, KeyId),
    rules: &GateRules,
    evicted: &mut BTreeSet<String>,
    ledgers: &mut Ledgers<'_>,
    stop: &Stop,
    watch: &dyn Watch,
) -> Result<Passed, ProtocolError> {
    let begun = Instant::now();
    let mut said = String::new();
    let mut said_at = begun;
    loop {
        let instances = ledgers.instances(stop).await?;
        let mut gate = Gate::of((kind, needed, target), &instances, ledgers.presence(), evicted);
        gate.waited = begun.elapsed();
        if gate.waited >= rules.timeout {
            gate.end_listening();
        }
        #[cfg(debug_assertions)]
        if BROKEN.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(Passed { gate });
        }
        if gate.is_open(rules) {
            for (names, why) in [
                (&gate.gone, "gone: its lease ended"),
                (&gate.evicted, "evicted: a key has leaked"),
            ] {
                for name in names {
                    watch.say(&format!("gate {}: {name} is {why}", kind.as_str()));
                }
            }
            return Ok(Passed { gate });
        }
        if rules.evict_after.is_some_and(|after| gate.waited >= after) {
            evicted.extend(gate.missing.drain(..).map(|missing| missing.instance));
            watch.say(&format!(
                "gate {}: no longer waiting, a key has leaked; evicted: {}",
                kind.as_str(),
                if evicted.is_empty() {
                    "nobody was there".to_owned()
                } else {
                    evicted.iter().cloned().collect::<Vec<_>>().join(", ")
                }
            ));
            gate.evicted = evicted.iter().cloned().collect();
            return Ok(Passed { gate });
        }
        if gate.waited >= rules.timeout {
            return Err(ProtocolError::Gate {
                waiting_for: gate.describe(rules),
                gate: Box::new(gate),
            });
        }
        let who: Vec<&str> = gate.missing.iter().map(|missing| missing.instance.as_str()).collect();
        let who = format!("{who:?} {:?}", gate.gone);
        if said != who || said_at.elapsed() >= SAY_EVERY {
            watch.say(&format!(
                "gate {}: waiting {} s for revision {needed}: {}",
                kind.as_str(),
                gate.waited.as_secs(),
                gate.describe(rules)
            ));
            (said, said_at) = (who, Instant::now());
        }
        stop.sleep(POLL).await;
        if stop.requested() {
            return Err(ProtocolError::Stopped);
        }
    }
}

/// Lets every gate of this process stand open, so that a test sees what an application suffers then. A release build has no such thing.
#[cfg(debug_assertions)]
pub fn break_gates() {
    BROKEN.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(debug_assertions)]
static BROKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn seconds(milliseconds: i64) -> u64 {
    u64::try_from(milliseconds / 1000).unwrap_or(0)
}

/// Instances report other keys within moments; a small read four times a second is nothing to a database.
pub(super) const POLL: Duration = Duration::from_millis(250);
pub(super) const SAY_EVERY: Duration = Duration::from_secs(10);
