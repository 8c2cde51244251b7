//! Invariant 5: an incident is acked within one heartbeat, or the exchange goes into safe mode.
use super::pairs::Pairs;
use super::presence::{Activity, Presence};
use super::{Effect, Fact, excerpt};
use crate::rules::{Refusal, Rule};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// An incident that nobody has acked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The thread that an ack of it names.
    pub correlation_id: String,
    /// Its message id in hex.
    pub id: String,
    /// Its author.
    pub from: AgentName,
    /// Whose inboxes it went to, its author's not among them.
    pub to: Vec<AgentName>,
    /// `subject`; a long one is cut.
    pub subject: String,
    /// When it was committed.
    pub at: Timestamp,
    /// Until when an ack must come.
    pub due: Timestamp,
}

/// Since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeMode {
    /// When it began: when the incident's ack was due.
    pub since: Timestamp,
    /// The incident that nobody acked.
    pub incident: Incident,
}

/// The open incidents, by correlation_id, and safe mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Incidents {
    open: BTreeMap<String, Incident>,
    safe_mode: Option<SafeMode>,
    /// The ids of those that were closed last: the same message may come once more, in another log.
    closed: VecDeque<String>,
}

/// No more open incidents are kept: if none of these is acked in time, safe mode comes without the others.
const MOST_OPEN: usize = 1024;
/// How many that were closed are remembered.
const CLOSED: usize = 256;

impl Incidents {
    /// What waits for an ack.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }
    /// Whether safe mode is on, and why.
    pub fn safe_mode(&self) -> Option<&SafeMode> {
        self.safe_mode.as_ref()
    }
    /// Rule `safe-mode`, for what is no message (a handoff's move). `what`: what must wait, as a sentence
    /// begins (`Claiming a handoff`).
    ///
    /// # Errors
    /// EROFS `safe-mode`.
    pub fn check_safe_mode(&self, what: &str) -> Result<(), Refusal> {
        self.safe_mode().map_or(Ok(()), |safe_mode| Err(refusal(what, &safe_mode.incident)))
    }
    /// The operator lifts safe mode; tells whether it was on. The incident that began it is closed.
    pub fn clear_safe_mode(&mut self) -> bool {
        let Some(SafeMode { incident, .. }) = self.safe_mode.take() else { return false };
        if self.open.get(&incident.correlation_id) == Some(&incident) {
            self.close(&incident.correlation_id);
        }
        true
    }

    /// Safe mode as of `fact.at`, so that it holds from `due` on, however late a tick comes.
    pub(super) fn check(&self, fact: &Fact<'_>) -> Result<(), Refusal> {
        let message = fact.message;
        if message.message_type == "incident" && fact.to.iter().all(|to| *to == message.from) {
            let advice = "Nobody but yourself would get this incident, so nobody could ack it. Write it to your \
                          outbox, without `to` or with others in it.";
            return Err(Refusal::new(Rule::Recipient, advice));
        }
        if message.is_heartbeat() || matches!(message.message_type.as_str(), "ack" | "incident") {
            return Ok(());
        }
        let cause = self.safe_mode().map(|safe_mode| &safe_mode.incident).or_else(|| self.overdue(fact.at));
        match cause {
            None => Ok(()),
            Some(incident) => {
                let what = format!("A message of type {}", excerpt(&message.message_type));
                Err(refusal(&what, incident))
            }
        }
    }

    /// `presence`: as it was before this message.
    pub(super) fn observe(&mut self, fact: &Fact<'_>, presence: &Presence) {
        let message = fact.message;
        match message.message_type.as_str() {
            "ack" if self.is_answered(fact) => {
                self.close(&message.correlation_id);
            }
            "incident" if self.closed.contains(&message.id_hex()) => {}
            // The first of a thread stands: saying it again gives no more time.
            "incident" if !self.open.contains_key(&message.correlation_id) && self.open.len() < MOST_OPEN => {
                let to: Vec<_> = fact.to.iter().filter(|other| **other != message.from).cloned().collect();
                let fastest =
                    to.iter().map(|other| presence.pair_period(&message.from, other, fact.at)).min();
                let period = fastest.unwrap_or_else(|| presence.cadence().period(Activity::LongIdle));
                let incident = Incident {
                    correlation_id: message.correlation_id.clone(),
                    id: message.id_hex(),
                    from: message.from.clone(),
                    to,
                    subject: excerpt(message.text("subject").unwrap_or_default()).to_owned(),
                    at: fact.at,
                    due: fact.at.plus_seconds(period),
                };
                self.open.insert(message.correlation_id.clone(), incident);
            }
            _ => {}
        }
    }

    fn close(&mut self, correlation_id: &str) {
        let Some(incident) = self.open.remove(correlation_id) else { return };
        if self.closed.len() >= CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(incident.id);
    }

    /// Whether it is in an open incident's thread, by another than its author, and reaches that author.
    fn is_answered(&self, fact: &Fact<'_>) -> bool {
        let open = self.open.get(&fact.message.correlation_id);
        open.is_some_and(|incident| incident.from != fact.message.from && fact.to.contains(&incident.from))
    }

    /// Counts the open incidents between their authors and those who got them.
    pub(super) fn count_disputes(&self, disputes: &mut Pairs<u32>) {
        for incident in self.open.values() {
            for other in &incident.to {
                if let Some(open) = disputes.entry(&incident.from, other) {
                    *open += 1;
                }
            }
        }
    }

    /// The incident whose ack is longest overdue.
    fn overdue(&self, now: Timestamp) -> Option<&Incident> {
        self.open.values().filter(|incident| incident.due < now).min_by_key(|incident| incident.due)
    }

    /// Since when [`Incidents::tick`] has had something to do.
    pub(super) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.safe_mode.is_some() { None } else { Some(self.overdue(now)?.due) }
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Option<Effect> {
        if self.safe_mode.is_some() {
            return None;
        }
        let incident = self.overdue(now)?.clone();
        let effect = Effect::SafeMode { incident: incident.id.clone(), from: incident.from.clone() };
        self.safe_mode = Some(SafeMode { since: incident.due, incident });
        Some(effect)
    }
}

fn refusal(what: &str, incident: &Incident) -> Refusal {
    Refusal::new(
        Rule::SafeMode,
        format!(
            "{what} must wait: the exchange is in safe mode since {}, because nobody had acked {}'s incident {:?} \
             (correlation_id {:?}) by then. Only acks, heartbeats and incidents pass until the operator runs \
             baton safe-mode clear; then do this again.",
            incident.due, incident.from, incident.subject, incident.correlation_id
        ),
    )
}
