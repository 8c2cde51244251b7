//! Invariant 5: an incident is acked within one heartbeat, or the exchange goes into safe mode.
use super::presence::Presence;
use super::{Effect, Fact};
use crate::rules::Refusal;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An incident that nobody has acked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its message id in hex.
    pub id: String,
    /// Its author.
    pub from: AgentName,
    /// Who may ack it.
    pub to: Vec<AgentName>,
    /// `subject`
    pub subject: String,
    /// When it was committed.
    pub at: Timestamp,
    /// Until when an ack must come.
    pub due: Timestamp,
}

/// Since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeMode {
    /// When it began.
    pub since: Timestamp,
    /// The incident that nobody acked.
    pub incident: Incident,
}

/// The open incidents, by correlation_id, and safe mode.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Incidents {
    open: BTreeMap<String, Incident>,
    safe_mode: Option<SafeMode>,
}

impl Incidents {
    /// What waits for an ack.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }
    /// The same, each with its correlation_id.
    pub fn threads(&self) -> impl Iterator<Item = (&str, &Incident)> {
        self.open.iter().map(|(correlation_id, incident)| (correlation_id.as_str(), incident))
    }
    /// Whether safe mode is on, and why.
    pub fn safe_mode(&self) -> Option<&SafeMode> {
        self.safe_mode.as_ref()
    }
    /// Rule `safe-mode`, for what is no message (a handoff's move).
    ///
    /// # Errors
    /// EROFS `safe-mode`.
    pub fn check_safe_mode(&self, _what: &str) -> Result<(), Refusal> {
        Ok(())
    }
    /// The operator lifts safe mode; tells whether it was on.
    pub fn clear_safe_mode(&mut self) -> bool {
        self.safe_mode.take().is_some()
    }
    pub(super) fn check(&self, _fact: &Fact<'_>) -> Result<(), Refusal> {
        Ok(())
    }
    pub(super) fn observe(&mut self, _fact: &Fact<'_>, _presence: &Presence) {}
    pub(super) fn is_open_between(&self, _fact: &Fact<'_>) -> bool {
        false
    }
    pub(super) fn tick(&mut self, _now: Timestamp) -> Vec<Effect> {
        Vec::new()
    }
}
