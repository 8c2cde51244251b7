//! Heartbeats that the exchange sends for its agents, so that an agent that knows nothing of them is still seen.
//!
//! For an agent with `heartbeat = true`, from the first mount that is its own (`--as`) to the end of the last one, at
//! the cadence that its conversations call for, with figures that are true.

use super::logs::LogName;
use super::{Attempt, Caller, Exchange};
use crate::rules::conversation::Conversation;
use crate::wire::json::{Object, Value};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The agents that have mounts of their own.
#[derive(Default)]
pub(super) struct Attendance(Mutex<BTreeMap<AgentName, Attended>>);

#[derive(Default)]
struct Attended {
    mounts: usize,
    /// When a heartbeat was last tried: what fails is not tried again before the next one is due.
    tried: Option<Timestamp>,
}

impl Exchange {
    /// A mount that is an agent's (`--as`) begins, or ends.
    pub fn attend(&self, agent: &AgentName, begins: bool) {
        let mut attendance = self.attendance.0.lock();
        let attended = attendance.entry(agent.clone()).or_default();
        attended.mounts = if begins { attended.mounts + 1 } else { attended.mounts.saturating_sub(1) };
        if attended.mounts == 0 {
            attendance.remove(agent);
        }
    }

    /// Whether a mount sends an agent's heartbeats.
    pub(super) fn is_attended(&self, agent: &AgentName) -> bool {
        self.beats_for(agent).is_some() && self.attendance.0.lock().contains_key(agent)
    }

    /// As whom an agent's heartbeats are sent: `None` where it sends its own, or there is no key to sign them with.
    fn beats_for(&self, agent: &AgentName) -> Option<Caller> {
        self.config.agents.get(agent).filter(|config| config.heartbeat)?;
        let pid = std::process::id();
        let caller = Caller { uid: self.owner_uid, gid: self.owner_gid, pid, bound: Some(agent.clone()) };
        self.sealing_key(&caller).map(|_| caller)
    }

    /// Sends the heartbeats that are due, of the agents with a mount of their own and `heartbeat = true`. Called about
    /// once a second; returns how many were sent.
    pub fn send_due_heartbeats(&self, now: Timestamp) -> usize {
        let attended: Vec<(AgentName, Option<Timestamp>)> = {
            let attendance = self.attendance.0.lock();
            attendance.iter().map(|(agent, attended)| (agent.clone(), attended.tried)).collect()
        };
        let mut sent = 0;
        for (agent, tried) in attended {
            let Some(caller) = self.beats_for(&agent) else { continue };
            let beat = {
                let conversation = self.conversation();
                let period = conversation.presence.period(&agent, now).max(1);
                let due = conversation.presence.next_due(&agent, now).is_none_or(|due| due <= now);
                let waits = tried.is_some_and(|tried| now < tried.plus_seconds(period));
                (due && !waits).then(|| Beat::of(&conversation, &agent, now, period))
            };
            let Some(beat) = beat else { continue };
            if let Some(attended) = self.attendance.0.lock().get_mut(&agent) {
                attended.tried = Some(now);
            }
            let object = beat.message(self.unread(&agent));
            let log = LogName::Outbox(agent.clone());
            let path = log.path();
            match self.post(
                &caller,
                &log,
                object,
                Attempt { operation: "heartbeat", path: &path, bytes: &[] },
            ) {
                Ok(_) => sent += 1,
                Err(error) => tracing::warn!(%agent, %error, "its heartbeat could not be sent"),
            }
        }
        sent
    }
}

/// What a heartbeat tells.
struct Beat {
    count: u64,
    state: &'static str,
    last_action: Option<String>,
    next: Timestamp,
}

impl Beat {
    fn of(conversation: &Conversation, agent: &AgentName, now: Timestamp, period: i64) -> Self {
        let seen = conversation.presence.seen(agent);
        // Nothing but heartbeats come after a heartbeat: then its author does nothing.
        let acted = seen.filter(|seen| seen.heartbeat.is_none_or(|heartbeat| heartbeat < seen.last));
        let is_busy = acted.is_some_and(|seen| now <= seen.last.plus_seconds(period));
        let state = if conversation.incidents.safe_mode().is_some() {
            "paused"
        } else if waits_for_acks(conversation, agent) {
            "blocked"
        } else if is_busy {
            "busy"
        } else {
            "idle"
        };
        Beat {
            count: seen.map_or(0, |seen| seen.heartbeats) + 1,
            state,
            last_action: seen.and_then(|seen| seen.last_action.clone()),
            next: now.plus_seconds(period),
        }
    }

    fn message(self, unread: u64) -> Object {
        let text = |text: &str| Value::String(text.to_owned());
        let body = Object::from([
            ("wakeup_count".to_owned(), Value::Int(self.count.to_string())),
            ("state".to_owned(), text(self.state)),
            ("last_action".to_owned(), self.last_action.map_or(Value::Null, Value::String)),
            ("next_eta".to_owned(), text(&self.next.to_string())),
            ("inbox_unread_count".to_owned(), Value::Int(unread.to_string())),
        ]);
        Object::from([
            ("type".to_owned(), text("heartbeat")),
            ("subject".to_owned(), text("heartbeat")),
            ("body".to_owned(), Value::Object(body)),
        ])
    }
}

fn waits_for_acks(conversation: &Conversation, agent: &AgentName) -> bool {
    conversation.proposals.all().any(|proposal| proposal.proposer == *agent && proposal.is_pending())
        || conversation.incidents.open().any(|incident| incident.from == *agent)
}
