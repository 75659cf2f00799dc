//! The keyset against a model, and the interchange forms against published vectors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use reseal::key::{
    Algorithm, Entry, KeyId, KeyMaterial, KeyState, Keyset, KeysetError, OldPrimary, decode_fernet_list, read_tink_json,
    write_multifernet, write_tink_json,
};

/// What a keyset should be, in the plainest terms: a state and a flag for each id.
#[derive(Default)]
struct Model {
    keys: BTreeMap<KeyId, (KeyState, bool)>,
    /// Compromised, and given to applications until their values are moved.
    offered: BTreeSet<KeyId>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Add(Entry),
    Stage,
    Promote(OldPrimary),
    Retire,
    Compromise,
    Destroy,
}

impl Model {
    /// What the change does to key `id`, or `None` if it must be refused.
    fn apply(&mut self, change: Change, id: KeyId) -> Option<()> {
        use KeyState::{Compromised, Destroyed, Pending, Primary, Retiring, Staged};
        let (state, retired) = self.keys[&id];
        let next = match (change, state, retired) {
            (Change::Stage, Pending | Retiring, _) => (Staged, false),
            (Change::Promote(old), Staged | Retiring, false) => {
                let stepped_down = match old {
                    OldPrimary::Retires => Retiring,
                    OldPrimary::IsCompromised | OldPrimary::IsCompromisedButOffered => Compromised,
                };
                for (id, (state, _)) in self.keys.iter_mut().filter(|(_, (state, _))| *state == Primary) {
                    *state = stepped_down;
                    if old == OldPrimary::IsCompromisedButOffered {
                        self.offered.insert(*id);
                    }
                }
                (Primary, false)
            }
            (Change::Retire, Staged | Retiring, false) => (Retiring, true),
            (Change::Retire, Compromised, false) => (Compromised, true),
            (Change::Compromise, Compromised, false) if self.offered.contains(&id) => (Compromised, false),
            (Change::Compromise, Pending | Staged | Retiring, retired) => (Compromised, retired),
            (Change::Destroy, Pending, _) | (Change::Destroy, Retiring | Compromised, true) => (Destroyed, false),
            _ => return None,
        };
        // Whatever happens to a key that is offered although it leaked takes the offer away.
        self.offered.remove(&id);
        self.keys.insert(id, next);
        Some(())
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Add(Entry::Pending)),
        Just(Change::Add(Entry::Staged)),
        Just(Change::Add(Entry::Retiring)),
        Just(Change::Stage),
        Just(Change::Promote(OldPrimary::Retires)),
        Just(Change::Promote(OldPrimary::IsCompromised)),
        Just(Change::Promote(OldPrimary::IsCompromisedButOffered)),
        Just(Change::Retire),
        Just(Change::Compromise),
        Just(Change::Destroy),
    ]
}

fn apply(keyset: &mut Keyset, change: Change, id: KeyId, at: Timestamp) -> Result<(), KeysetError> {
    match change {
        Change::Add(entry) => keyset.add(Algorithm::Aes256Gcm, entry, at).map(|_| ()),
        Change::Stage => keyset.stage(id, at),
        Change::Promote(old) => keyset.promote(id, old, at),
        Change::Retire => keyset.retire(id, at),
        Change::Compromise => keyset.mark_compromised(id, at),
        Change::Destroy => keyset.destroy(id, SignedDuration::ZERO, at),
    }
}

proptest! {
    #[test]
    fn every_sequence_of_changes_keeps_one_primary_and_agrees_with_the_model(
        changes in prop::collection::vec((change(), any::<prop::sample::Index>()), 1..60),
    ) {
        let mut keyset = Keyset::generate("model".parse().unwrap(), Algorithm::Aes256Gcm, second(0)).unwrap();
        let mut model = Model::default();
        model.keys.insert(keyset.primary().id(), (KeyState::Primary, false));
        for (index, (change, which)) in changes.into_iter().enumerate() {
            let at = second(i64::try_from(index).unwrap() + 1);
            let revision = keyset.revision();
            let id = keyset.keys()[which.index(keyset.keys().len())].id();
            let done = apply(&mut keyset, change, id, at);
            let expected = if let Change::Add(_) = change {
                let added = keyset.keys().last().unwrap();
                model.keys.insert(added.id(), (added.state(), false));
                Some(())
            } else {
                model.apply(change, id)
            };
            prop_assert_eq!(done.is_ok(), expected.is_some(), "{:?}: {:?}", change, done.err().map(|e| e.to_string()));
            prop_assert_eq!(keyset.revision(), revision + u64::from(expected.is_some()));

            for key in keyset.keys() {
                let (state, retired) = model.keys[&key.id()];
                prop_assert_eq!((key.state(), key.retired_at().is_some()), (state, retired));
                let offered = model.offered.contains(&key.id());
                prop_assert_eq!(key.is_offered(), !retired && (state.opens() || offered));
                prop_assert_eq!(key.material().is_none(), key.state() == KeyState::Destroyed);
                prop_assert!(key.fingerprint().is_some());
                prop_assert!(key.transitions().windows(2).all(|pair| pair[0].at <= pair[1].at));
            }
            prop_assert_eq!(keyset.keys().iter().filter(|key| key.state().seals()).count(), 1);
            prop_assert_eq!(keyset.opening_keys().next().unwrap().id(), keyset.primary().id());
            prop_assert!(keyset.opening_keys().all(|key| key.material().is_some() && (key.state() != KeyState::Compromised || model.offered.contains(&key.id()))));
            prop_assert!(keyset.reencryption_keys().all(|key| key.material().is_some() && key.state() != KeyState::Pending));
        }
    }
}

#[test]
fn destruction_waits_for_the_last_backup() {
    let mut keyset = Keyset::generate("backups".parse().unwrap(), Algorithm::Aes256Gcm, second(0)).unwrap();
    let old = keyset.primary().id();
    let new = keyset.add(Algorithm::Aes256Gcm, Entry::Staged, second(1)).unwrap();
    keyset.promote(new, OldPrimary::Retires, second(2)).unwrap();
    let horizon = SignedDuration::from_secs(100);
    assert!(matches!(
        keyset.destroy(old, horizon, second(3)),
        Err(KeysetError::NotRetired { .. })
    ));
    keyset.retire(old, second(10)).unwrap();
    let refused = keyset.destroy(old, horizon, second(109));
    assert!(matches!(refused, Err(KeysetError::BackupHorizon { until, .. }) if until == second(110)));
    keyset.destroy(old, horizon, second(110)).unwrap();
    assert!(keyset.get(old).unwrap().material().is_none());
    assert!(matches!(
        keyset.destroy(new, SignedDuration::ZERO, second(999)),
        Err(KeysetError::Step { .. })
    ));
}

#[test]
fn the_same_bytes_are_refused_even_after_they_were_destroyed() {
    let mut keyset = Keyset::generate("bytes".parse().unwrap(), Algorithm::Aes256Gcm, second(0)).unwrap();
    let material = KeyMaterial::generate().unwrap();
    let copy = || KeyMaterial::import(material.expose()).unwrap();
    let id = keyset
        .add_imported(Algorithm::Aes256Gcm, copy(), Entry::Pending, second(1))
        .unwrap();
    let same = |result| matches!(result, Err(KeysetError::SameBytes { id: taken, .. }) if taken == id);
    assert!(same(keyset.add_imported(Algorithm::Fernet, copy(), Entry::Staged, second(2))));
    keyset.destroy(id, SignedDuration::ZERO, second(3)).unwrap();
    assert!(same(keyset.add_imported(
        Algorithm::Aes256Gcm,
        copy(),
        Entry::Staged,
        second(4)
    )));
    assert_eq!(keyset.revision(), 3);
}

#[test]
fn tink_keysets_of_the_vectors_survive_a_round_trip() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("vectors/tink_aead.json")).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for case in &cases {
        let text = case["key"].as_str().unwrap();
        let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
        let keys = theirs["key"].as_array().unwrap();
        let supported = keys.iter().all(|key| {
            let is_aes_gcm = key["keyData"]["typeUrl"] == "type.googleapis.com/google.crypto.tink.AesGcmKey";
            is_aes_gcm && (key["outputPrefixType"] == "TINK" || key["outputPrefixType"] == "RAW")
        });
        let imported = read_tink_json(text.as_bytes());
        assert_eq!(imported.is_ok(), supported, "{}: {:?}", case["id"], imported.err());
        let Ok(imported) = imported else {
            refused += 1;
            continue;
        };
        let keyset = Keyset::import("vectors".parse().unwrap(), imported, second(0)).unwrap();
        let ours: serde_json::Value = serde_json::from_slice(&write_tink_json(&keyset).unwrap()).unwrap();
        assert_eq!(ours["primaryKeyId"], theirs["primaryKeyId"]);
        let by_id = |keys: &serde_json::Value| -> BTreeMap<u64, serde_json::Value> {
            let enabled = keys["key"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|key| key["status"] == "ENABLED");
            enabled.map(|key| (key["keyId"].as_u64().unwrap(), key.clone())).collect()
        };
        assert_eq!(by_id(&ours), by_id(&theirs), "{}", case["id"]);
        taken += 1;
    }
    assert!(
        taken > 20 && refused > 5,
        "{taken} taken, {refused} refused: the vectors are not what this test expects"
    );
}

#[test]
fn tink_json_with_javas_escapes_is_read_and_garbage_is_refused_without_quoting_it() {
    let keyset = Keyset::generate("java".parse().unwrap(), Algorithm::Aes256Gcm, second(0)).unwrap();
    let text = String::from_utf8(write_tink_json(&keyset).unwrap().to_vec()).unwrap();
    let value = serde_json::from_str::<serde_json::Value>(&text).unwrap()["key"][0]["keyData"]["value"].clone();
    let value = value.as_str().unwrap();
    let escaped = text.replace(value, &value.replace('=', "\\u003d").replace('/', "\\/"));
    let read = read_tink_json(escaped.as_bytes()).unwrap();
    assert_eq!(
        read[0].material.as_ref().unwrap().expose(),
        keyset.primary().material().unwrap().expose()
    );

    let canary = "canary-of-a-secret";
    for broken in [
        text.replace(value, canary),
        text.replace("\"ENABLED\"", &format!("\"{canary}\"")),
        text.replace("\"TINK\"", &format!("\"{canary}\"")),
        text.replace("google.crypto.tink.AesGcmKey", canary),
        text.replace("\"keyId\":", &format!("\"keyId\":\"{canary}\",\"x\":")),
        text.replacen("\"primaryKeyId\":", "\"primaryKeyId\":9", 1),
    ] {
        assert_ne!(broken, text);
        let error = read_tink_json(broken.as_bytes()).err().unwrap().to_string();
        assert!(!error.contains(canary), "{error}");
    }
}

#[test]
fn multifernet_lists_the_primary_first_and_only_what_applications_are_given() {
    let mut keyset = Keyset::generate("fernet".parse().unwrap(), Algorithm::Fernet, second(0)).unwrap();
    let old = keyset.primary().id();
    let new = keyset.add(Algorithm::Fernet, Entry::Staged, second(1)).unwrap();
    keyset.add(Algorithm::Fernet, Entry::Pending, second(1)).unwrap();
    let listed = |keyset: &Keyset| -> Vec<KeyId> {
        let keys = decode_fernet_list(&write_multifernet(keyset).unwrap()).unwrap();
        keys.iter()
            .map(|key| keyset.find(reseal::key::Fingerprint::of(key)).unwrap().id())
            .collect()
    };
    assert_eq!(listed(&keyset), [old, new]);
    keyset.promote(new, OldPrimary::Retires, second(2)).unwrap();
    assert_eq!(listed(&keyset), [new, old]);
    keyset.retire(old, second(3)).unwrap();
    assert_eq!(listed(&keyset), [new]);
    assert!(write_tink_json(&keyset).is_err());
}

fn second(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + n).unwrap()
}
