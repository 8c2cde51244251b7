//! The agents' signing keys that the exchange holds, and the rotation of keys.

use super::Unchanged;
use crate::exchange::Exchange;
use crate::exchange::config::Config;
use crate::exchange::events::members;
use crate::exchange::init::new_signing_key;
use crate::rules::trust::keys::{self as rules, Retire};
use crate::store::Store;
use crate::wire::keys::{KeyId, PublicKey, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList, TrustedKey};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where a key lies that is about to become its agent's: once it is trusted, it takes the old one's place.
fn next_key_path(agent: &AgentName) -> String {
    format!("{}.next", key_path(agent))
}

fn key_path(agent: &AgentName) -> String {
    format!("private/keys/{agent}.key")
}

/// Ends the changes of keys that a crash interrupted: a key that is trusted already is put in place, another
/// is forgotten.
///
/// # Errors
/// The disk's.
pub(in crate::exchange) fn finish_key_files(
    store: &dyn Store,
    config: &Config,
    trust: &TrustList,
) -> io::Result<()> {
    for agent in config.agents.keys() {
        let next = next_key_path(agent);
        let text = match store.read(&next) {
            Ok(text) => Zeroizing::new(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let key = SigningKey::from_file_text(&text).ok();
        let id = key.map(|key| key.public().id(agent));
        if id.is_some_and(|id| trust.key(&id).is_some_and(|known| known.active)) {
            store.replace(&key_path(agent), &text, 0o600)?;
            tracing::info!(%agent, "put a new signing key in place, which a crash had interrupted");
        }
        store.remove(&next)?;
    }
    Ok(())
}

impl Exchange {
    /// The agent's signing key, if the exchange holds it.
    pub fn signing_key(&self, agent: &AgentName) -> Option<Arc<SigningKey>> {
        self.signing_keys.read().get(agent).cloned()
    }

    /// Makes `key` the agent's signing key here, once `edit` has made the exchange trust it.
    fn take_key(
        &self,
        agent: &AgentName,
        key: SigningKey,
        edit: impl FnOnce(&mut TrustList, &mut Vec<String>) -> Result<(), String>,
    ) -> Result<Vec<String>, String> {
        let disk = |e: io::Error| format!("{}: {e}", self.layout.key(agent).display());
        let text = key.to_file_text();
        // Two at once would take each other's file away.
        let _alone = self.taking_key.lock();
        self.store.replace(&next_key_path(agent), text.as_bytes(), 0o600).map_err(disk)?;
        let changed = self.change_trust("operator", edit);
        if let Err(Unchanged::Forbidden(_)) = &changed {
            // Best effort: the next start removes what is left.
            let _ = self.store.remove(&next_key_path(agent));
        }
        let changes = changed?;
        self.store.replace(&key_path(agent), text.as_bytes(), 0o600).map_err(disk)?;
        let _ = self.store.remove(&next_key_path(agent));
        self.signing_keys.write().insert(agent.clone(), Arc::new(key));
        self.refresh_own_cards();
        Ok(changes)
    }

    pub(in crate::exchange) fn import_key(
        &self,
        agent: &str,
        text: Zeroizing<String>,
    ) -> Result<Value, String> {
        let agent = self.known_agent(agent)?;
        let key = SigningKey::from_file_text(text.as_bytes()).map_err(|e| e.to_string())?;
        let (public, now) = (key.public(), self.now());
        let id = public.id(&agent);
        let changes = self.take_key(&agent, key, |list, changes| {
            if list.agents.contains_key(&agent) {
                return rules::add(list, &agent, public, now, changes);
            }
            let mut new = TrustList::default();
            let keys = vec![TrustedKey::new(&agent, public, now)];
            let entry = TrustEntry { tier: Tier::Attested, keys, blocked: false, other: Default::default() };
            new.agents.insert(agent.clone(), entry);
            changes.extend(list.merge(&new));
            Ok(())
        })?;
        Ok(json!({ "key_id": id.to_string(), "changes": changes }))
    }

    /// Gives an agent a new key, made here; its other keys retire after the grace, or at once.
    pub(in crate::exchange) fn rotate_key(&self, agent: &str, at_once: bool) -> Result<Value, String> {
        let agent = self.known_agent(agent)?;
        let key = new_signing_key().map_err(|e| format!("no random numbers for a key: {e}"))?;
        let (public, now) = (key.public(), self.now());
        let id = public.id(&agent);
        let retire = if at_once { Retire::Now } else { Retire::AfterGrace };
        let changes = self.take_key(&agent, key, |list, changes| {
            rules::add(list, &agent, public, now, changes)?;
            let keys = list.agents.get(&agent).map(|entry| entry.keys.clone()).unwrap_or_default();
            for old in keys.iter().filter(|key| key.active && key.id != id) {
                rules::deactivate(list, &old.id, retire, now, changes)?;
            }
            Ok(())
        })?;
        Ok(json!({ "key_id": id.to_string(), "changes": changes }))
    }

    /// Retires a key at once.
    pub(in crate::exchange) fn retire_key(&self, key_id: &str) -> Result<Value, String> {
        let id = KeyId::parse(key_id).map_err(|e| e.to_string())?;
        let now = self.now();
        let changes = self.change_trust("operator", |list, changes| {
            rules::deactivate(list, &id, Retire::Now, now, changes)
        })?;
        Ok(json!({ "changes": changes }))
    }

    /// A proposal `add_key` was acked: the key is trusted from now on. Doing it again changes nothing; what the
    /// rules forbid is told by an event.
    ///
    /// # Errors
    /// A sentence, where the disk fails.
    pub(in crate::exchange) fn add_key(
        &self,
        agent: &AgentName,
        key: &str,
        key_id: &str,
    ) -> Result<(), String> {
        let now = self.now();
        self.decided(agent, key_id, |list, changes| {
            let key = PublicKey::from_base64(key).map_err(|e| format!("key: {e}"))?;
            let id = key.id(agent);
            if id.to_string() != key_id {
                return Err(format!("key_id is {key_id}, but the id of this key of {agent} is {id}"));
            }
            rules::add(list, agent, key, now, changes)
        })
    }

    /// A proposal `deactivate_key` was acked: the key is retired, after the grace where its agent's newest
    /// other key is younger than that. Doing it again changes nothing; an agent's last key stays, as an event
    /// tells.
    ///
    /// # Errors
    /// A sentence, where the disk fails.
    pub(in crate::exchange) fn deactivate_key(&self, agent: &AgentName, key_id: &str) -> Result<(), String> {
        let now = self.now();
        self.decided(agent, key_id, |list, changes| {
            let id = KeyId::parse(key_id).map_err(|e| e.to_string())?;
            if id.agent != *agent {
                return Err(format!("{key_id} is no key of {agent}"));
            }
            rules::deactivate(list, &id, Retire::AfterGrace, now, changes)
        })
    }

    /// Carries out what an acked proposal asks for; what the rules forbid becomes an event.
    fn decided(
        &self,
        agent: &AgentName,
        key_id: &str,
        edit: impl FnOnce(&mut TrustList, &mut Vec<String>) -> Result<(), String>,
    ) -> Result<(), String> {
        match self.change_trust("proposal", edit) {
            Ok(_) => Ok(()),
            Err(Unchanged::Disk(error)) => Err(error),
            Err(Unchanged::Forbidden(problem)) => {
                tracing::warn!(%agent, key_id, problem, "a change of keys was decided and can't be made");
                let members = members! {"agent": agent.as_str(), "key_id": key_id, "problem": problem};
                self.event("key-refused", members);
                Ok(())
            }
        }
    }

    /// Retires the keys whose time has come. Called about once a second.
    pub(in crate::exchange) fn run_trust_janitor(&self, now: Timestamp) {
        if rules::next_due(&self.trust()).is_none_or(|due| due > now) {
            return;
        }
        let applied = self.change_trust("janitor", |list, changes| {
            rules::apply_due(list, now, changes);
            Ok(())
        });
        if let Err(error) = applied {
            tracing::error!(%error, "keys whose time has come could not be retired");
        }
    }
}
