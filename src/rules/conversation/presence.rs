//! Invariant 6: heartbeats, and the tiers of activity of each pair of agents.
use super::Fact;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pair's tier of activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Activity {
    /// An open conflict.
    #[serde(rename = "T0_HEADS_DOWN")]
    HeadsDown,
    /// Messages pass.
    #[serde(rename = "T1_active")]
    Active,
    /// After three idle cycles.
    #[serde(rename = "T2_idle")]
    Idle,
    /// After nine more.
    #[serde(rename = "T3_long_idle")]
    LongIdle,
}

/// Seconds between heartbeats, by tier of activity (tiers.json).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cadence {
    /// Default 30.
    #[serde(rename = "T0_HEADS_DOWN")]
    pub heads_down: u32,
    /// Default 90.
    #[serde(rename = "T1_active")]
    pub active: u32,
    /// Default 270.
    #[serde(rename = "T2_idle")]
    pub idle: u32,
    /// Default 1200.
    #[serde(rename = "T3_long_idle")]
    pub long_idle: u32,
}

impl Default for Cadence {
    fn default() -> Self {
        Cadence { heads_down: 30, active: 90, idle: 270, long_idle: 1200 }
    }
}

impl Cadence {
    /// Seconds between heartbeats.
    pub fn period(&self, activity: Activity) -> i64 {
        i64::from(match activity {
            Activity::HeadsDown => self.heads_down,
            Activity::Active => self.active,
            Activity::Idle => self.idle,
            Activity::LongIdle => self.long_idle,
        })
    }
}

/// What one agent's messages tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its last message of any kind.
    pub last: Timestamp,
    /// Its last heartbeat.
    pub heartbeat: Option<Timestamp>,
    /// `state` of that heartbeat.
    pub state: Option<String>,
    /// How many heartbeats it has sent.
    pub heartbeats: u64,
    /// Type and subject of its last message that was no heartbeat.
    pub last_action: Option<String>,
}

/// Who was seen when, and each pair's activity.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    cadence: Cadence,
    agents: BTreeMap<AgentName, Seen>,
}

impl Presence {
    /// The periods in force.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }
    /// Other periods, from tiers.json or an acked proposal.
    pub fn set_cadence(&mut self, cadence: Cadence) {
        self.cadence = cadence;
    }
    /// What an agent's messages tell of it; `None` before the first.
    pub fn seen(&self, agent: &AgentName) -> Option<&Seen> {
        self.agents.get(agent)
    }
    /// A pair's tier at a time.
    pub fn activity(&self, _a: &AgentName, _b: &AgentName, _now: Timestamp) -> Activity {
        Activity::Active
    }
    /// Seconds between an agent's heartbeats: the fastest of its pairs'.
    pub fn period(&self, _agent: &AgentName, _now: Timestamp) -> i64 {
        0
    }
    /// When an agent's next heartbeat is due; `None` before its first message.
    pub fn next_due(&self, _agent: &AgentName, _now: Timestamp) -> Option<Timestamp> {
        None
    }
    /// Takes in a message. `conflict`: whether something is open between its author and its recipients.
    pub(super) fn observe(&mut self, _fact: &Fact<'_>, _conflict: bool) {}
}
