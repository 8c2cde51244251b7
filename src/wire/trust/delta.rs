//! What differs between two trust lists, so that an event can tell of a change and a crash be mended by it.

use super::{Tier, TrustError, TrustList};
use crate::wire::canonical;
use crate::wire::json::{Object, Value};
use crate::wire::keys::KeyId;
use crate::wire::name::AgentName;

/// A key that was added, retired or brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Which.
    pub id: KeyId,
    /// Whether it may sign now.
    pub active: bool,
}

/// An agent whose tier is another now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierChange {
    /// Which.
    pub agent: AgentName,
    /// Its tier now.
    pub tier: Tier,
    /// Its tier before; `None` for an agent that is new.
    pub was: Option<Tier>,
}

/// What differs between two trust lists of which the newer has everything that the older had.
#[derive(Debug, Clone)]
pub struct TrustDelta {
    /// Keys, in the list's order.
    pub keys: Vec<KeyChange>,
    /// Tiers, in the list's order.
    pub tiers: Vec<TierChange>,
    entries: TrustList,
}

impl TrustList {
    /// What makes this list of `old`.
    pub fn delta_from(&self, old: &TrustList) -> TrustDelta {
        let mut delta = TrustDelta { keys: Vec::new(), tiers: Vec::new(), entries: TrustList::default() };
        for (name, value) in &self.other {
            if old.other.get(name) != Some(value) {
                delta.entries.other.insert(name.clone(), value.clone());
            }
        }
        for (agent, entry) in &self.agents {
            let before = old.agents.get(agent);
            if before.is_none_or(|before| before.to_value() != entry.to_value()) {
                delta.entries.agents.insert(agent.clone(), entry.clone());
            }
            let was = before.map(|before| before.tier);
            if was != Some(entry.tier) {
                delta.tiers.push(TierChange { agent: agent.clone(), tier: entry.tier, was });
            }
            for key in &entry.keys {
                if old.key(&key.id).map(|known| known.active) != Some(key.active) {
                    delta.keys.push(KeyChange { id: key.id.clone(), active: key.active });
                }
            }
        }
        delta
    }

    /// Makes the list what it was to become: the entries of [`TrustDelta::redo`] take the place of its own.
    ///
    /// # Errors
    /// `redo` is no such text.
    pub fn apply(&mut self, redo: &str) -> Result<(), TrustError> {
        let entries = TrustList::parse(redo.as_bytes())?;
        self.agents.extend(entries.agents);
        self.other.extend(entries.other);
        Ok(())
    }
}

impl TrustDelta {
    /// Whether the two lists are the same.
    pub fn is_empty(&self) -> bool {
        self.entries.agents.is_empty() && self.entries.other.is_empty()
    }

    /// The entries that differ, whole, for [`TrustList::apply`].
    pub fn redo(&self) -> String {
        let agents = self.entries.agents.iter().map(|(name, entry)| (name.to_string(), entry.to_value()));
        let mut list: Object = self.entries.other.clone();
        list.insert("agents".to_owned(), Value::Object(agents.collect()));
        canonical::utf8(&Value::Object(list))
    }
}
