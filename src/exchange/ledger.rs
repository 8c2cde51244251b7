//! The ledger: what the committed messages amount to, and what is still to be done about them.
//!
//! Its lock is the order of commits. It is written into every checkpoint; a start folds the events
//! since then once more (`recover`).

use super::Exchange;
use super::events::members;
use super::logs::LogName;
use crate::rules::conversation::{Conversation, Effect};
use crate::wire::time::Timestamp;
use parking_lot::{MappedMutexGuard, MutexGuard};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    /// What the messages amount to.
    pub conversation: Conversation,
    /// The number of the last commit.
    pub order: u64,
    /// What follows from commits and is not carried out yet.
    pub pending: VecDeque<Effect>,
    /// Copies that a full disk kept out of their log.
    pub owed: Vec<Owed>,
}

/// A line that a log is still to get.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Owed {
    /// The log's path.
    pub log: String,
    /// The line without newline.
    pub line: String,
    /// The commit that it belongs to.
    pub order: u64,
}

impl Ledger {
    /// What has become due follows.
    pub fn tick(&mut self, now: Timestamp) {
        let effects = self.conversation.tick(now);
        self.pending.extend(effects);
    }

    /// The number of one more commit.
    pub fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }
}

impl Exchange {
    /// What the committed messages amount to.
    pub fn conversation(&self) -> MappedMutexGuard<'_, Conversation> {
        MutexGuard::map(self.ledger.lock(), |ledger| &mut ledger.conversation)
    }

    /// Carries out what follows from commits, in their order. What fails is tried again with the next
    /// commit, the next second and the next start.
    pub(super) fn carry_out_pending(&self) {
        if self.ledger.lock().pending.is_empty() {
            return;
        }
        let _one_at_a_time = self.carrying_out.lock();
        // What a crash could still take back must have no consequence: the commits they follow from are durable
        // first, and so are their events, which tell a start when they were.
        let (known, lasting) = {
            let ledger = self.ledger.lock();
            (ledger.pending.len(), ledger.pending.iter().any(Effect::is_lasting))
        };
        if lasting {
            let flushed = self.open_logs().iter().try_for_each(|log| log.flush(self));
            if let Err(error) = flushed.and_then(|()| self.events.make_all_durable()) {
                tracing::error!(%error, "what follows from commits waits for the disk");
                return;
            }
        }
        for _ in 0..known {
            let Some(effect) = self.ledger.lock().pending.front().cloned() else { return };
            if let Err(error) = self.carry_out(&effect) {
                tracing::error!(?effect, error, "not carried out yet");
                return;
            }
            self.ledger.lock().pending.pop_front();
        }
    }

    /// Every effect may be carried out twice.
    fn carry_out(&self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Decided { correlation_id, line } => self
                .deliver_line(&LogName::Decisions, line)
                .map_err(|error| format!("the decision {correlation_id} could not be entered: {error}")),
            Effect::AddKey { agent, key, key_id } => self.add_key(agent, key, key_id),
            Effect::DeactivateKey { agent, key_id } => self.deactivate_key(agent, key_id),
            Effect::CadenceSet { cadence } => {
                self.write_cadence(cadence)?;
                self.note("cadence-set", &members! {"periods": format!("{cadence:?}")})
            }
            Effect::Reciprocated { asker, acker } => self.count_reciprocation(asker, acker),
            Effect::Lapsed { correlation_id } => {
                self.note("proposal-lapsed", &members! {"correlation_id": correlation_id.as_str()})
            }
            Effect::SafeMode { incident, from } => {
                tracing::warn!(incident, %from, "safe mode: an incident was not acked in time");
                self.note("safe-mode", &members! {"incident": incident.as_str(), "from": from.as_str()})
            }
        }
    }

    /// Writes an event durably.
    fn note(&self, event: &str, members: &super::events::Members) -> Result<(), String> {
        let written =
            self.events.append(self.now(), event, members).and_then(|end| self.make_events_durable(end));
        written.map_err(|error| format!("events.jsonl could not be written: {error}"))
    }

    /// The periods in force, where tiers.json holds them for the next start and for whoever reads it.
    fn write_cadence(&self, cadence: &crate::rules::conversation::presence::Cadence) -> Result<(), String> {
        let text = serde_json::to_string_pretty(cadence).map_err(|e| e.to_string())? + "\n";
        self.store
            .replace("tiers.json", text.as_bytes(), 0o644)
            .map_err(|error| format!("tiers.json could not be written: {error}"))
    }

    /// What only time brings: lapses, safe mode, and what could wait for a second. Called about once a second.
    pub(super) fn tick(&self) {
        {
            let mut ledger = self.ledger.lock();
            ledger.tick(self.now());
        }
        if let Err(error) = self.settle_copies() {
            tracing::error!(%error, "a log could not be made durable: look after the disk");
        }
        if let Err(error) = self.events.make_all_durable() {
            tracing::error!(%error, "events.jsonl could not be made durable: look after the disk");
        }
        self.deliver_owed();
        self.carry_out_pending();
    }

    /// The number of an act that must have its place among the commits. The caller holds the ledger's lock
    /// for as long as that place matters.
    pub(super) fn next_order(&self) -> u64 {
        self.ledger.lock().next_order()
    }

    /// Delivers what logs are owed, in order; a log that has no room yet keeps no other waiting.
    fn deliver_owed(&self) {
        let mut full: Vec<String> = Vec::new();
        loop {
            let owed = self.ledger.lock().owed.iter().find(|owed| !full.contains(&owed.log)).cloned();
            let Some(owed) = owed else { return };
            let delivered =
                self.find_log(&owed.log).map_or(Ok(()), |log| self.deliver_line(&log, &owed.line));
            if let Err(error) = delivered {
                tracing::error!(log = owed.log, %error, "lines that are owed to a log could not be written yet");
                full.push(owed.log);
                continue;
            }
            let mut ledger = self.ledger.lock();
            let same = |other: &Owed| other.log == owed.log && other.line == owed.line;
            if let Some(at) = ledger.owed.iter().position(same) {
                ledger.owed.remove(at);
            }
        }
    }
}
