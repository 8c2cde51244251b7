//! How much is too much: refs, messages a minute, incidents a minute, turns of one thread.
use super::Fact;
use crate::rules::Refusal;
use crate::wire::name::AgentName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The limits in force; 0 is none.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// `refs` of one message.
    pub max_refs: usize,
    /// Messages a minute, for agents that `rates` does not name.
    pub rate_per_minute: u32,
    /// Messages a minute of single agents, from exchange.toml and their cards.
    pub rates: BTreeMap<AgentName, u32>,
    /// Incidents a minute of one agent.
    pub incidents_per_minute: u32,
    /// How often two agents may answer each other in one thread within an hour.
    pub turns_per_thread: u32,
}

/// A thread as far as it is remembered: the newest few thousand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Author of its newest message.
    pub from: AgentName,
    /// Subject of its first message that is remembered.
    pub subject: String,
}

/// What has lately been written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {}

impl Traffic {
    /// The thread that a reply belongs to, if it is remembered.
    pub fn thread(&self, _correlation_id: &str) -> Option<&Thread> {
        None
    }
    pub(super) fn check(&self, _fact: &Fact<'_>, _ahead: u32, _limits: &Limits) -> Result<(), Refusal> {
        Ok(())
    }
    pub(super) fn observe(&mut self, _fact: &Fact<'_>, _limits: &Limits) {}
}
