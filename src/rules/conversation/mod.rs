//! What the messages of an exchange amount to: who is there, what is proposed, which incidents are
//! open, who writes how much. A fold over committed messages: [`Conversation::check`] decides about the
//! next one without changing anything, [`Conversation::observe`] takes in one that was committed,
//! [`Conversation::tick`] what only time brings. The same facts give the same state, so a restart
//! folds them again.

pub mod incidents;
pub mod limits;
mod pairs;
pub mod presence;
pub mod proposals;
#[cfg(test)]
mod tests;

use super::Refusal;
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::Tier;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the operator has laid down, as far as messages are judged by it.
#[derive(Debug, Clone, Default)]
pub struct Charter {
    /// The agents of the exchange.
    pub agents: BTreeSet<AgentName>,
    /// Who decides about what.
    pub domains: BTreeMap<String, BTreeSet<AgentName>>,
    /// How much is too much.
    pub limits: limits::Limits,
}

/// A message that is, or is about to be, committed.
#[derive(Debug, Clone, Copy)]
pub struct Fact<'a> {
    /// When, by the exchange's clock.
    pub at: Timestamp,
    /// The message, verified.
    pub message: &'a Message,
    /// Whose inboxes it goes to, sorted.
    pub to: &'a [AgentName],
    /// Its author's tier.
    pub tier: Tier,
}

/// What follows from a message or from the passing of time, for the exchange to carry out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "effect")]
pub enum Effect {
    /// An entry for decisions.jsonl: its line without newline.
    Decided {
        /// The proposal's correlation_id.
        correlation_id: String,
        /// The line.
        line: String,
    },
    /// A proposal with subject `add_key` was acked.
    AddKey {
        /// Whose key.
        agent: AgentName,
        /// base64 of the raw public key.
        key: String,
        /// Its id.
        key_id: String,
    },
    /// A proposal with subject `deactivate_key` was acked.
    DeactivateKey {
        /// Whose key.
        agent: AgentName,
        /// Its id.
        key_id: String,
    },
    /// A proposal with subject `set_tiers` was acked: new periods are in force.
    CadenceSet {
        /// The periods.
        cadence: presence::Cadence,
    },
    /// A proposal found no ack in time.
    Lapsed {
        /// Its correlation_id.
        correlation_id: String,
    },
    /// An incident found no ack in time: safe mode begins.
    SafeMode {
        /// The incident's id in hex.
        incident: String,
        /// Its author.
        from: AgentName,
    },
    /// A message that asked for an ack got it: one ratified reciprocation for both.
    Reciprocated {
        /// Who had asked.
        asker: AgentName,
        /// Who acked.
        acker: AgentName,
    },
}

impl Effect {
    /// Whether it puts something in force that no later fold would take back.
    pub fn is_lasting(&self) -> bool {
        match self {
            Effect::Decided { .. }
            | Effect::AddKey { .. }
            | Effect::DeactivateKey { .. }
            | Effect::CadenceSet { .. } => true,
            Effect::Lapsed { .. } | Effect::SafeMode { .. } | Effect::Reciprocated { .. } => false,
        }
    }
}

/// The state of all conversations in one exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conversation {
    /// Heartbeats and tiers of activity, per pair.
    pub presence: presence::Presence,
    /// Proposals and decisions.
    pub proposals: proposals::Proposals,
    /// Incidents and safe mode.
    pub incidents: incidents::Incidents,
    /// Rates and loops.
    pub limits: limits::Traffic,
}

impl Conversation {
    /// Decides about a message that is to be committed. `ahead`: what of the same author stands before it in the
    /// same write.
    ///
    /// # Errors
    /// EROFS `safe-mode`; EMSGSIZE `size` (refs); EDQUOT `rate`, `loop` and `quota` (pending proposals);
    /// EBADMSG `schema`, `domain` and `recipient` (of proposals); EPERM `rounds`, `conflict`; ETIME `lapsed`.
    pub fn check(&self, fact: &Fact<'_>, ahead: limits::Ahead, charter: &Charter) -> Result<(), Refusal> {
        self.incidents.check(fact)?;
        self.limits.check(fact, ahead, &charter.limits)?;
        self.proposals.check(fact, ahead.proposals, charter, self.presence.cadence())
    }

    /// Takes in a message that was committed. Facts come in commit order. What became due before it comes
    /// first, so that the state after it is the same whenever ticks came.
    pub fn observe(&mut self, fact: &Fact<'_>, charter: &Charter) -> Vec<Effect> {
        let is_due = self.proposals.is_due(fact.at) || self.incidents.due(fact.at).is_some();
        let mut effects = if is_due { self.tick(fact.at) } else { Vec::new() };
        // By the tiers that were in force before it: nobody who sleeps for 20 minutes can answer in 90 s.
        self.incidents.observe(fact, &self.presence);
        effects.extend(self.proposals.observe(fact, charter, &self.presence));
        effects.extend(self.limits.observe(fact, &charter.limits));
        if matches!(fact.message.message_type.as_str(), "proposal" | "ack" | "incident") {
            self.carry_over(&effects);
        }
        self.presence.observe(fact);
        effects
    }

    /// What has become due, in the order in which it did.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(due) = self.incidents.due(now) {
            effects.extend(self.proposals.tick(due));
            effects.extend(self.incidents.tick(now));
        }
        effects.extend(self.proposals.tick(now));
        self.carry_over(&effects);
        effects
    }

    /// The operator settles a proposal, named by its correlation_id or its id.
    ///
    /// # Errors
    /// A sentence, where there is no such proposal or it is decided already.
    pub fn settle(&mut self, id: &str, accept: bool, at: Timestamp) -> Result<Vec<Effect>, String> {
        let effects = self.proposals.settle(id, accept, at)?;
        self.carry_over(&effects);
        Ok(effects)
    }

    /// The operator lifts safe mode; tells whether it was on.
    pub fn clear_safe_mode(&mut self) -> bool {
        let was_on = self.incidents.clear_safe_mode();
        self.carry_over(&[]);
        was_on
    }

    /// What proposals and incidents mean for the tiers of activity.
    fn carry_over(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::CadenceSet { cadence } = effect {
                self.presence.set_cadence(*cadence);
            }
        }
        let mut disputes = pairs::Pairs::default();
        self.incidents.count_disputes(&mut disputes);
        self.proposals.count_disputes(&mut disputes);
        self.presence.set_disputes(&disputes);
    }
}

/// As much of a text as is worth keeping or showing.
fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(160)]
}
