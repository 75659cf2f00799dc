//! The keys of a selection: read from the keyring, or from outside of it in whatever form they have there.

use super::Selection;
use crate::cli::arg::keyset;
use crate::cli::{CliError, Context, Exit};
use crate::config::{KeyRef, KeyringRef};
use crate::key::{Fingerprint, KeyEncoding, KeyId, KeyMaterial, KeyState, decode_fernet_list, read_tink_json};
use crate::rotation::keyed::NamedKey;

/// The keys of a selection.
pub(super) struct Keys {
    pub(super) from: Vec<NamedKey>,
    pub(super) to: NamedKey,
    /// Ids of the keysets' tombstones.
    pub(super) destroyed: Vec<KeyId>,
}

impl Selection {
    /// Reads the keys, wherever they are.
    pub(super) fn keys(&self, context: &mut Context<'_>) -> Result<Keys, CliError> {
        for reference in std::iter::once(self.to()?).chain(&self.from) {
            if let KeyRef::Secret(secret) = reference.get()? {
                context.secrets.keep_from_children(secret);
            }
        }
        let mut destroyed = Vec::new();
        let to = self.read_keys(context, self.to()?.get()?, "the new key", Role::Target, &mut destroyed)?;
        let to = to
            .into_iter()
            .next()
            .ok_or_else(|| CliError::new(Exit::Unusable, "--to names no key"))?;
        let mut from = Vec::new();
        for reference in &self.from {
            from.extend(self.read_keys(context, reference.get()?, "the old key", Role::Source, &mut destroyed)?);
        }
        // A whole keyset as the source holds the target, too.
        let target = Fingerprint::of(&to.material);
        if self
            .from
            .iter()
            .any(|reference| matches!(reference.get(), Ok(KeyRef::Keyring(KeyringRef { key: None, .. }))))
        {
            from.retain(|key| Fingerprint::of(&key.material) != target);
        }
        Ok(Keys { from, to, destroyed })
    }

    /// Refuses a new key from outside a keyring that repeats a short pattern, unless the operator means it: the way back may lead to
    /// such a key.
    pub(super) fn refuse_repetition(&self, keys: &Keys, accepted: &[String]) -> Result<(), CliError> {
        let KeyRef::Secret(secret) = self.to()?.get()? else {
            return Ok(());
        };
        match keys.to.material.require_no_repetition() {
            Err(error) if !accepted.iter().any(|name| name == WEAK_KEY) => Err(CliError::from_error(Exit::Refused, &error)
                .at(format!("the new key, {secret}"))
                .next(format!(
                    "generate another key; only to go back to one that the application still seals with: --accept {WEAK_KEY}"
                ))
                .touched_nothing()),
            _ => Ok(()),
        }
    }

    fn read_keys(
        &self,
        context: &mut Context<'_>,
        reference: &KeyRef,
        what: &str,
        role: Role,
        destroyed: &mut Vec<KeyId>,
    ) -> Result<Vec<NamedKey>, CliError> {
        match reference {
            KeyRef::Keyring(reference) => self.keyring_keys(context, reference, role, destroyed),
            KeyRef::Secret(secret) => {
                let text = context.secrets.read(secret, what)?;
                let at = |error: CliError| error.at(format!("{what}, {secret}"));
                outside_keys(text.expose(), role).map_err(at)
            }
        }
    }

    fn keyring_keys(
        &self,
        context: &mut Context<'_>,
        reference: &KeyringRef,
        role: Role,
        destroyed: &mut Vec<KeyId>,
    ) -> Result<Vec<NamedKey>, CliError> {
        let keyring = self.keyring.open(context)?;
        let keyset = keyset(&keyring, &reference.keyset)?;
        let tombstones = keyset.keys().iter().filter(|key| key.state() == KeyState::Destroyed);
        destroyed.extend(tombstones.map(|key| key.id()));
        let named = |id| format!("{}@{id}", reference.keyset);
        let chosen: Vec<_> = match (reference.key, role) {
            (Some(id), _) => vec![keyset.get(id).ok_or_else(|| {
                CliError::new(Exit::Unusable, format!("keyset {} has no key {id}", reference.keyset)).next("reseal keys list")
            })?],
            (None, Role::Target) => vec![keyset.primary()],
            (None, Role::Source) => keyset.reencryption_keys().collect(),
        };
        chosen
            .into_iter()
            .map(|key| {
                let refuse =
                    |why: &str| CliError::new(Exit::Refused, format!("key {} {why}", named(key.id()))).next("reseal keys list");
                if key.algorithm().signs() {
                    return Err(refuse("signs tokens and opens no values"));
                }
                if role == Role::Target && key.state() != KeyState::Primary {
                    return Err(refuse(&format!(
                        "is {}: only the primary key seals; promote it first, so that writers seal with it, too",
                        key.state().as_str()
                    )));
                }
                let material = key
                    .material()
                    .filter(|_| key.state().opens_for_reencryption())
                    .ok_or_else(|| refuse(&format!("is {} and opens nothing", key.state().as_str())))?;
                Ok(NamedKey {
                    label: named(key.id()),
                    id: Some(key.id()),
                    material: KeyMaterial::import(material.expose())
                        .map_err(|error| CliError::from_error(Exit::Unusable, &error))?,
                })
            })
            .collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
}

/// Keys that stand outside a keyring: a Tink keyset, a MultiFernet list, or one key in any of its text forms.
fn outside_keys(text: &[u8], role: Role) -> Result<Vec<NamedKey>, CliError> {
    if text.trim_ascii_start().first() == Some(&b'{') {
        let keys = read_tink_json(text)?;
        let wanted = keys
            .into_iter()
            .filter(|key| role == Role::Source || key.state == KeyState::Primary);
        return Ok(wanted
            .filter_map(|key| {
                let material = key.material?;
                Some(NamedKey {
                    label: key.id.map_or_else(|| label(&material), |id| id.to_string()),
                    id: key.id,
                    material,
                })
            })
            .collect());
    }
    let materials = if text.contains(&b',') {
        let mut list = decode_fernet_list(text)?;
        if role == Role::Target {
            // The first of a MultiFernet list is the one that encrypts.
            list.truncate(1);
        }
        list
    } else {
        vec![KeyEncoding::detect(text)?]
    };
    Ok(materials
        .into_iter()
        .map(|material| NamedKey {
            label: label(&material),
            id: None,
            material,
        })
        .collect())
}

fn label(material: &KeyMaterial) -> String {
    format!("fingerprint:{}", Fingerprint::of(material))
}

/// What `--accept` takes.
const WEAK_KEY: &str = "weak-key";
