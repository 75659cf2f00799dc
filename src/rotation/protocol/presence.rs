//! Whether an instance whose lease has ended is gone: whether it was silent for long enough while its database answered.
//!
//! The database's clock alone does not decide. A step forward ends every lease at once, also that of an instance whose next report is
//! a moment away. Silence is counted by the clock of this process, from look to look; a database that was paused heard nobody, so that
//! the time without a look does not count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::store::ledger::instance::Instance;

/// What was heard of the instances of a keyset, over all the gates of a run.
#[derive(Debug, Default)]
pub struct Presence {
    silences: BTreeMap<String, Silence>,
    looked_at: Option<Instant>,
}

/// An instance that says nothing since a report.
#[derive(Debug)]
struct Silence {
    /// Database time of that report.
    since: String,
    /// How long it was listened to.
    lasted: Duration,
    /// How long it must last.
    needed: Duration,
}

impl Presence {
    /// Takes what was read of all instances at a time.
    pub(super) fn look(&mut self, instances: &[Instance], now: Instant) {
        let passed = match self.looked_at.replace(now) {
            Some(before) => now.saturating_duration_since(before).min(BETWEEN_LOOKS_MAX),
            None => Duration::ZERO,
        };
        let mut before = std::mem::take(&mut self.silences);
        for instance in instances {
            let silence = match before.remove(&instance.instance) {
                Some(known) if known.since == instance.seen_at => Silence {
                    lasted: known.lasted + passed,
                    ..known
                },
                _ => Silence::after(instance),
            };
            self.silences.insert(instance.instance.clone(), silence);
        }
    }

    /// Whether its lease has ended by the database's clock, and its silence by ours.
    pub(super) fn is_gone(&self, instance: &Instance) -> bool {
        let silence = self.silences.get(&instance.instance);
        !instance.is_live()
            && silence.is_some_and(|silence| silence.since == instance.seen_at && silence.lasted >= silence.needed)
    }
}

impl Silence {
    /// What was left of the lease must pass in any case. How much that was, or that it had ended, may itself come from a clock that was
    /// set a moment ago.
    fn after(report: &Instance) -> Self {
        let lease = milliseconds(report.seen_ms_ago.saturating_add(report.lease_left_ms));
        Self {
            since: report.seen_at.clone(),
            lasted: Duration::ZERO,
            needed: milliseconds(report.lease_left_ms).max(lease.min(SILENCE_MIN)),
        }
    }
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or(0))
}

/// Three reports of an instance that reports as often as it does by default (3 s), and one second for their way. Much shorter, and a
/// live instance is taken for gone after a step of the clock; longer, and each run waits longer for those that died long ago. A lease
/// that is shorter itself is what the instance promises, and is enough.
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// Gates look four times a second, and a busy machine less often. What passed beyond this may be a pause of the database.
const BETWEEN_LOOKS_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance with a lease of 30 s, of which so much is left by the database's clock; `report` tells its reports apart.
    fn instance(report: &str, lease_left_seconds: i64) -> Instance {
        Instance {
            instance: "web-1".to_owned(),
            keyset: "customer-data".to_owned(),
            revision: 1,
            newest_revision: 1,
            seals_with: None,
            compromised_opens: 0,
            version: String::new(),
            first_seen_at: String::new(),
            seen_at: report.to_owned(),
            seen_ms_ago: (30 - lease_left_seconds) * 1000,
            lease_left_ms: lease_left_seconds * 1000,
        }
    }

    /// Looks four times a second. Says whether it is gone in the end.
    fn watch(presence: &mut Presence, now: &mut Instant, seconds: u64, instance: &Instance) -> bool {
        for _ in 0..seconds * 4 {
            *now += Duration::from_millis(250);
            presence.look(std::slice::from_ref(instance), *now);
        }
        presence.is_gone(instance)
    }

    #[test]
    fn whoever_is_silent_until_the_lease_ends_is_gone() {
        let (mut presence, mut now) = (Presence::default(), Instant::now());
        for left in (-2..=28).rev() {
            let entry = instance("a", left);
            assert_eq!(presence.is_gone(&entry), left < 0, "{left} s left");
            watch(&mut presence, &mut now, 1, &entry);
        }
        assert!(!presence.is_gone(&instance("b", -1)), "a report that was not looked at yet");
    }

    #[test]
    fn a_clock_that_jumps_forward_ends_nobody() {
        let (mut presence, mut now) = (Presence::default(), Instant::now());
        assert!(!watch(&mut presence, &mut now, 2, &instance("a", 28)));
        assert!(!watch(&mut presence, &mut now, 3, &instance("a", -3600)));
        // It reports by the new clock, and dies then: its lease is waited for again.
        assert!(!watch(&mut presence, &mut now, 1, &instance("b", 30)));
        assert!(!watch(&mut presence, &mut now, 25, &instance("b", -3600)));
        assert!(watch(&mut presence, &mut now, 6, &instance("b", -3600)));
    }

    #[test]
    fn a_paused_database_hears_nobody() {
        let (mut presence, mut now) = (Presence::default(), Instant::now());
        watch(&mut presence, &mut now, 2, &instance("a", 28));
        now += Duration::from_secs(3600);
        assert!(!watch(&mut presence, &mut now, 1, &instance("a", -3600)));
    }

    #[test]
    fn whoever_died_before_the_first_look_is_listened_to_for_some_reports() {
        let (mut presence, mut now) = (Presence::default(), Instant::now());
        let (died, live) = (instance("a", -3600), instance("b", 30));
        assert!(!watch(&mut presence, &mut now, 9, &died));
        assert!(watch(&mut presence, &mut now, 2, &died));
        assert!(!presence.is_gone(&live));
        // Short leases are their own measure, and none at all is none.
        let mut presence = Presence::default();
        let short = Instance {
            seen_ms_ago: 3_602_000,
            ..died.clone()
        };
        assert!(!watch(&mut presence, &mut now, 1, &short));
        assert!(watch(&mut presence, &mut now, 2, &short));
        let none = Instance {
            instance: "php-1".to_owned(),
            seen_ms_ago: 3_600_000,
            ..died
        };
        presence.look(std::slice::from_ref(&none), now);
        assert!(presence.is_gone(&none));
    }
}
