//! How much is too much: refs, messages a minute, incidents a minute, turns of one thread.

mod threads;
mod window;

use super::{Effect, Fact, excerpt};
use crate::rules::{Refusal, Rule};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::Tier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use threads::Thread;
use threads::Threads;
use window::Window;

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

impl Limits {
    fn rate(&self, agent: &AgentName) -> u32 {
        // Most exchanges name nobody: no walk through a map for every message.
        if self.rates.is_empty() {
            return self.rate_per_minute;
        }
        self.rates.get(agent).copied().unwrap_or(self.rate_per_minute)
    }
}

/// A minute in steps of a second.
type Minute = Window<1, 60>;

/// What stands before a message in the same write, by the same author.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Messages of any type.
    pub messages: u32,
    /// Incidents.
    pub incidents: u32,
    /// Proposals.
    pub proposals: u32,
}

impl Ahead {
    /// One more stands before the next.
    pub fn count(&mut self, message: &Message) {
        self.messages += 1;
        self.incidents += u32::from(message.message_type == "incident");
        self.proposals += u32::from(message.message_type == "proposal");
    }
}

/// Longest correlation_id, and longest subject, in bytes: both are kept and shown.
const LONGEST_ID: usize = 256;
const LONGEST_SUBJECT: usize = 4096;

fn check_lengths(message: &Message) -> Result<(), Refusal> {
    let subject = message.text("subject").unwrap_or_default().len();
    for (member, has, most) in
        [("correlation_id", message.correlation_id.len(), LONGEST_ID), ("subject", subject, LONGEST_SUBJECT)]
    {
        if has > most {
            let advice = format!("{member} has {has} bytes; at most {most} are allowed. Shorten it.");
            return Err(Refusal::new(Rule::Size, advice));
        }
    }
    Ok(())
}

/// What has lately been written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    messages: BTreeMap<AgentName, Minute>,
    incidents: BTreeMap<AgentName, Minute>,
    threads: Threads,
}

impl Traffic {
    /// The thread that a reply belongs to, if it is remembered.
    pub fn thread(&self, correlation_id: &str) -> Option<&Thread> {
        self.threads.get(correlation_id)
    }

    pub(super) fn check(&self, fact: &Fact<'_>, ahead: Ahead, limits: &Limits) -> Result<(), Refusal> {
        let message = fact.message;
        check_lengths(message)?;
        let refs = message.refs();
        if limits.max_refs > 0 && refs > limits.max_refs {
            let advice = format!(
                "refs has {refs} entries; at most {} are allowed. Put the others into further messages with the \
                 same correlation_id.",
                limits.max_refs
            );
            return Err(Refusal::new(Rule::Size, advice));
        }
        if fact.tier != Tier::Trusted {
            let rate = limits.rate(&message.from);
            check_rate(self.messages.get(&message.from), "messages", fact, ahead.messages, rate)?;
            if message.message_type == "incident" {
                let rate = limits.incidents_per_minute;
                check_rate(self.incidents.get(&message.from), "incidents", fact, ahead.incidents, rate)?;
            }
        }
        if message.is_heartbeat() {
            return Ok(());
        }
        match self.threads.turn_too_many(fact, limits.turns_per_thread) {
            None => Ok(()),
            Some((other, again)) => Err(Refusal::new(
                Rule::Loop,
                format!(
                    "You and {other} have answered each other {} times within an hour in the thread {:?}, which \
                     is the limit. Come to a conclusion there or start a new thread; this one may go on {}.",
                    limits.turns_per_thread,
                    excerpt(&message.correlation_id),
                    in_time(fact.at, again)
                ),
            )),
        }
    }

    pub(super) fn observe(&mut self, fact: &Fact<'_>, limits: &Limits) -> Option<Effect> {
        let message = fact.message;
        if fact.tier != Tier::Trusted {
            if limits.rate(&message.from) > 0 {
                count(&mut self.messages, fact);
            }
            if message.message_type == "incident" && limits.incidents_per_minute > 0 {
                count(&mut self.incidents, fact);
            }
        }
        if message.is_heartbeat() {
            return None;
        }
        let asker = self.threads.observe(fact, limits.turns_per_thread > 0)?;
        Some(Effect::Reciprocated { asker, acker: message.from.clone() })
    }
}

fn count(windows: &mut BTreeMap<AgentName, Minute>, fact: &Fact<'_>) {
    match windows.get_mut(&fact.message.from) {
        Some(window) => window.add(fact.at),
        None => windows.entry(fact.message.from.clone()).or_default().add(fact.at),
    }
}

/// Whether one more fits, after `ahead` others of the same write.
fn check_rate(
    window: Option<&Minute>,
    what: &str,
    fact: &Fact<'_>,
    ahead: u32,
    limit: u32,
) -> Result<(), Refusal> {
    let used = window.map_or(0, |window| window.count(fact.at));
    if limit == 0 || u64::from(used) + u64::from(ahead) < u64::from(limit) {
        return Ok(());
    }
    let from = &fact.message.from;
    if ahead >= limit {
        let advice = format!(
            "{from} may write {limit} {what} a minute, and {ahead} messages stand before this one in the same \
             write. Write at most {limit} at once, and the next {} (in 60 s).",
            fact.at.plus_seconds(60)
        );
        return Err(Refusal::new(Rule::Rate, advice));
    }
    // Room for those ahead and this one.
    let again = window.and_then(|window| window.room_at(limit - ahead - 1)).unwrap_or(fact.at);
    let advice = format!(
        "{from} may write {limit} {what} a minute and has written {used} within the last. Write this again {}.",
        in_time(fact.at, again)
    );
    Err(Refusal::new(Rule::Rate, advice))
}

/// `at 2026-05-10T00:01:00Z (in 12 s)`
fn in_time(now: Timestamp, again: Timestamp) -> String {
    let seconds = again.0.saturating_sub(now.0).max(0).saturating_add(999_999) / 1_000_000;
    format!("at {again} (in {seconds} s)")
}
