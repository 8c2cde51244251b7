//! Invariant 6: heartbeats, and the tiers of activity of each pair of agents.
use super::pairs::Pairs;
use super::{Fact, excerpt};
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

impl Activity {
    /// Every tier, the busiest first.
    pub const ALL: [Activity; 4] =
        [Activity::HeadsDown, Activity::Active, Activity::Idle, Activity::LongIdle];

    /// The tier's word in tiers.json: `T1_active`.
    pub fn as_str(self) -> &'static str {
        match self {
            Activity::HeadsDown => "T0_HEADS_DOWN",
            Activity::Active => "T1_active",
            Activity::Idle => "T2_idle",
            Activity::LongIdle => "T3_long_idle",
        }
    }
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

/// How many of T1's periods without a message make a pair T2.
const CYCLES_TO_IDLE: i64 = 3;
/// How many of T2's periods after that make it T3.
const CYCLES_TO_LONG_IDLE: i64 = 9;

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

    /// The period of a tier, to change it.
    pub fn period_mut(&mut self, activity: Activity) -> &mut u32 {
        match activity {
            Activity::HeadsDown => &mut self.heads_down,
            Activity::Active => &mut self.active,
            Activity::Idle => &mut self.idle,
            Activity::LongIdle => &mut self.long_idle,
        }
    }

    /// The tier of a pair that has no open conflict and last exchanged a message at `last`.
    fn since(&self, last: Timestamp, now: Timestamp) -> Activity {
        let idle_from = last.plus_seconds(CYCLES_TO_IDLE * self.period(Activity::Active));
        let long_idle_from = idle_from.plus_seconds(CYCLES_TO_LONG_IDLE * self.period(Activity::Idle));
        if now < idle_from {
            Activity::Active
        } else if now < long_idle_from {
            Activity::Idle
        } else {
            Activity::LongIdle
        }
    }
}

/// What one agent's messages tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its first message of any kind.
    pub first: Timestamp,
    /// Its last message of any kind.
    pub last: Timestamp,
    /// Its last heartbeat.
    pub heartbeat: Option<Timestamp>,
    /// `state` of that heartbeat, where it is one of `idle`, `busy`, `blocked`, `paused`.
    pub state: Option<String>,
    /// How many heartbeats it has sent.
    pub heartbeats: u64,
    /// Type and subject of its last message that was no heartbeat; a long one is cut.
    pub last_action: Option<String>,
}

/// What an agent may say of its own state in a heartbeat.
const STATES: [&str; 4] = ["idle", "busy", "blocked", "paused"];
/// The types that tell that a matter has moved on: they end T0.
const STATE_CHANGES: [&str; 6] = ["ship", "claim", "release", "decision", "correction", "shutdown"];
/// The types that can open a conflict.
const OPENERS: [&str; 2] = ["incident", "proposal"];

/// The open conflicts of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Dispute {
    open: u32,
    /// Whether no state change came since the newest of them opened.
    heads_down: bool,
}

/// Who was seen when, and each pair's activity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    cadence: Cadence,
    agents: BTreeMap<AgentName, Seen>,
    /// The last message between two agents that was no heartbeat.
    exchanged: Pairs<Option<Timestamp>>,
    disputes: Pairs<Dispute>,
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
    /// A pair's tier at a time: T0 with an open conflict that no state change has calmed; else by the time
    /// since their last message that was no heartbeat; T3 where there was none.
    pub fn activity(&self, a: &AgentName, b: &AgentName, now: Timestamp) -> Activity {
        if self.disputes.get(a, b).is_some_and(|dispute| dispute.heads_down) {
            return Activity::HeadsDown;
        }
        let last = self.exchanged.get(a, b).copied().flatten();
        last.map_or(Activity::LongIdle, |last| self.cadence.since(last, now))
    }
    /// Seconds between the heartbeats of a pair.
    pub fn pair_period(&self, a: &AgentName, b: &AgentName, now: Timestamp) -> i64 {
        self.cadence.period(self.activity(a, b, now))
    }
    /// Seconds between an agent's heartbeats: the fastest of its pairs'; T3's where it has spoken to nobody.
    pub fn period(&self, agent: &AgentName, now: Timestamp) -> i64 {
        let heads_down = self.disputes.of(agent).any(|dispute| dispute.heads_down);
        let heads_down = heads_down.then(|| self.cadence.period(Activity::HeadsDown));
        let others = self.exchanged.of(agent).flatten();
        let others = others.map(|last| self.cadence.period(self.cadence.since(*last, now)));
        others.chain(heads_down).min().unwrap_or_else(|| self.cadence.period(Activity::LongIdle))
    }
    /// When an agent's next heartbeat is due: one period after its last, or after its first message;
    /// `None` before that. Overdue when it is later.
    pub fn next_due(&self, agent: &AgentName, now: Timestamp) -> Option<Timestamp> {
        let seen = self.agents.get(agent)?;
        Some(seen.heartbeat.unwrap_or(seen.first).plus_seconds(self.period(agent, now)))
    }

    /// Takes in a message, after [`Presence::set_disputes`].
    pub(super) fn observe(&mut self, fact: &Fact<'_>) {
        let message = fact.message;
        self.note(fact);
        if message.is_heartbeat() {
            return;
        }
        let calms = STATE_CHANGES.contains(&message.message_type.as_str());
        let stirs = OPENERS.contains(&message.message_type.as_str());
        for other in fact.to {
            if let Some(last) = self.exchanged.entry(&message.from, other) {
                *last = (*last).max(Some(fact.at));
            }
            if !(calms || stirs) {
                continue;
            }
            if let Some(dispute) = self.disputes.get_mut(&message.from, other) {
                dispute.heads_down = stirs;
            }
        }
    }

    /// What it tells of its author.
    fn note(&mut self, fact: &Fact<'_>) {
        let message = fact.message;
        if !self.agents.contains_key(&message.from) {
            let (first, last) = (fact.at, fact.at);
            let seen = Seen { first, last, heartbeat: None, state: None, heartbeats: 0, last_action: None };
            self.agents.insert(message.from.clone(), seen);
        }
        let Some(seen) = self.agents.get_mut(&message.from) else { return };
        seen.last = seen.last.max(fact.at);
        if message.is_heartbeat() {
            seen.heartbeat = seen.heartbeat.max(Some(fact.at));
            seen.heartbeats += 1;
            let state = message.body().as_object().and_then(|body| body.get("state")?.as_str());
            let state = state.filter(|state| STATES.contains(state));
            if seen.state.as_deref() != state {
                seen.state = state.map(str::to_owned);
            }
        } else {
            let action = seen.last_action.get_or_insert_default();
            action.clear();
            action.push_str(excerpt(&message.message_type));
            action.push_str(": ");
            action.push_str(excerpt(message.text("subject").unwrap_or_default()));
        }
    }

    /// How many conflicts are open between whom. One more than before puts a pair in T0.
    pub(super) fn set_disputes(&mut self, open: &Pairs<u32>) {
        let mut disputes = Pairs::default();
        for (a, b, count) in open.iter() {
            let before = self.disputes.get(a, b).copied().unwrap_or_default();
            if let Some(dispute) = disputes.entry(a, b) {
                *dispute = Dispute { open: *count, heads_down: before.heads_down || *count > before.open };
            }
        }
        self.disputes = disputes;
    }
}
