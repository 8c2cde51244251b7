//! Invariants 3, 4 and 7: proposals, who has to ack them, and the decisions they become.
use super::presence::Presence;
use super::{Charter, Effect, Fact};
use crate::rules::Refusal;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Waits for acks.
    Open,
    /// All owners have acked.
    Decided,
    /// Nobody acked in time.
    Lapsed,
    /// A decision on the same domain came first.
    Overtaken,
    /// Three round trips brought no decision: the operator's.
    Escalated,
}

/// The newest proposal of one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its thread.
    pub correlation_id: String,
    /// Its message id in hex.
    pub id: String,
    /// Its author.
    pub proposer: AgentName,
    /// When it was committed.
    pub at: Timestamp,
    /// Until when an ack must come.
    pub due: Timestamp,
    /// `subject`
    pub subject: String,
    /// `body`: its canonical JSON.
    pub body: String,
    /// The domains it names.
    pub domains: BTreeSet<String>,
    /// Whose acks it needs, the proposer not among them.
    pub owners: BTreeSet<AgentName>,
    /// Who acked, with the ack's message id in hex.
    pub acks: BTreeMap<AgentName, String>,
    /// Counter-proposals so far.
    pub counters: u32,
    /// Where it stands.
    pub standing: Standing,
}

/// All proposals that still matter, by correlation_id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Proposals {
    threads: BTreeMap<String, Proposal>,
}

impl Proposals {
    /// The newest proposal of each thread.
    pub fn all(&self) -> impl Iterator<Item = &Proposal> {
        self.threads.values()
    }
    pub(super) fn check(&self, _fact: &Fact<'_>, _charter: &Charter) -> Result<(), Refusal> {
        Ok(())
    }
    pub(super) fn observe(
        &mut self,
        _fact: &Fact<'_>,
        _charter: &Charter,
        _presence: &Presence,
    ) -> Vec<Effect> {
        Vec::new()
    }
    pub(super) fn is_contested_between(&self, _fact: &Fact<'_>) -> bool {
        false
    }
    pub(super) fn tick(&mut self, _now: Timestamp) -> Vec<Effect> {
        Vec::new()
    }
    /// Rule `decision`, for an entry that an agent writes to decisions.jsonl itself: it must be what the
    /// exchange has entered already.
    ///
    /// # Errors
    /// EPERM `decision`, saying which acks are missing or what differs.
    pub fn check_entry(&self, _entry: &crate::wire::json::Object) -> Result<(), Refusal> {
        Ok(())
    }
    /// The operator settles a proposal: enters it as decided, or drops it.
    ///
    /// # Errors
    /// A sentence, where there is no such proposal or it is decided already.
    pub fn settle(
        &mut self,
        _correlation_id: &str,
        _accept: bool,
        _at: Timestamp,
    ) -> Result<Vec<Effect>, String> {
        Ok(Vec::new())
    }
}
