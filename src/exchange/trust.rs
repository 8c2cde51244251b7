//! Changes of the trust list: by the operator, by acked proposals, by what agents have done together.

use super::Exchange;
use super::config::Config;
use crate::rules::conversation::Charter;
use crate::rules::conversation::limits::Limits;
use crate::wire::name::AgentName;

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
