//! The newest few thousand threads: who answers whom, how often, and who waits for an ack.

use super::window::Window;
use crate::rules::conversation::pairs::in_order;
use crate::rules::conversation::{Fact, excerpt};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many threads are remembered.
const THREADS: usize = 4096;
/// How many pairs of one thread, and how many messages of it that wait for acks.
const PAIRS: usize = 256;
const ASKS: usize = 16;
/// As much of a correlation_id as tells threads apart.
const ID_BYTES: usize = 256;

/// A thread as far as it is remembered: the newest few thousand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Author of its newest message.
    pub from: AgentName,
    /// Subject of its first message that is remembered; a long one is cut.
    pub subject: String,
    /// Author of that first message.
    opener: AgentName,
    /// Author of the newest message that is not `from`'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<AgentName>,
    /// Those who have answered each other, sorted. A pair with the opener stands here from the answer on:
    /// before it, the opener has spoken last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Turns>,
    /// The newest messages that ask for an ack, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    asks: Vec<Ask>,
}

/// How two agents answer each other in one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Turns {
    low: AgentName,
    high: AgentName,
    /// Whether `low` spoke last.
    low_last: bool,
    /// The changes of direction: an hour in steps of a minute.
    changes: Window<60, 60>,
}

/// A message that asks for an ack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ask {
    from: AgentName,
    /// Who got it and has not acked it.
    waiting: Vec<AgentName>,
}

impl Thread {
    fn opened_by(fact: &Fact<'_>) -> Self {
        let from = fact.message.from.clone();
        let subject = excerpt(fact.message.text("subject").unwrap_or_default()).to_owned();
        Thread { opener: from.clone(), from, before: None, subject, pairs: Vec::new(), asks: Vec::new() }
    }

    /// Whom a reply of `author` is for: who spoke last but itself.
    pub fn partner_of(&self, author: &AgentName) -> Option<&AgentName> {
        if self.from == *author { self.before.as_ref() } else { Some(&self.from) }
    }

    fn turns(&self, a: &AgentName, b: &AgentName) -> Result<usize, usize> {
        let (low, high) = in_order(a, b);
        self.pairs.binary_search_by(|turns| (&turns.low, &turns.high).cmp(&(low, high)))
    }

    /// Whether a message of `from` to `other` answers one of `other`'s.
    fn is_turn(&self, from: &AgentName, other: &AgentName) -> bool {
        match self.turns(from, other) {
            Ok(n) => self.pairs[n].low_last != (*from == self.pairs[n].low),
            Err(_) => *other == self.opener,
        }
    }

    fn take_turn(&mut self, from: &AgentName, other: &AgentName, at: Timestamp) {
        let is_turn = self.is_turn(from, other);
        let n = match self.turns(from, other) {
            Ok(n) => n,
            Err(_) if *from == self.opener || self.pairs.len() >= PAIRS => return,
            Err(n) => {
                let (low, high) = in_order(from, other);
                let (low, high) = (low.clone(), high.clone());
                self.pairs.insert(n, Turns { low, high, low_last: false, changes: Window::default() });
                n
            }
        };
        let turns = &mut self.pairs[n];
        turns.low_last = *from == turns.low;
        if is_turn {
            turns.changes.add(at);
        }
    }

    /// Whom an ack answers: the author of the newest message that waits for it.
    fn answer(&mut self, fact: &Fact<'_>) -> Option<AgentName> {
        let acker = &fact.message.from;
        let reached = |ask: &Ask| ask.from != *acker && fact.to.contains(&ask.from);
        let n = self.asks.iter().rposition(|ask| reached(ask) && ask.waiting.contains(acker))?;
        let ask = &mut self.asks[n];
        ask.waiting.retain(|waiting| waiting != acker);
        let asker = ask.from.clone();
        if ask.waiting.is_empty() {
            self.asks.remove(n);
        }
        Some(asker)
    }

    fn ask(&mut self, fact: &Fact<'_>) {
        let from = &fact.message.from;
        let waiting: Vec<_> = fact.to.iter().filter(|other| *other != from).cloned().collect();
        if waiting.is_empty() {
            return;
        }
        if self.asks.len() >= ASKS {
            self.asks.remove(0);
        }
        self.asks.push(Ask { from: from.clone(), waiting });
    }
}

/// Threads by correlation_id and by age. Its serialised form is a list, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Threads {
    ages: HashMap<Arc<str>, u64>,
    by_age: BTreeMap<u64, (Arc<str>, Thread)>,
    next: u64,
}

impl Threads {
    pub fn get(&self, correlation_id: &str) -> Option<&Thread> {
        let age = self.ages.get(key(correlation_id))?;
        Some(&self.by_age.get(age)?.1)
    }

    /// With whom the author has answered each other too often for one more turn, and when there is room.
    pub fn turn_too_many(&self, fact: &Fact<'_>, most: u32) -> Option<(AgentName, Timestamp)> {
        let from = &fact.message.from;
        // A limit of 0 is none, and the message that opens a thread answers nobody.
        let fewer = most.checked_sub(1)?;
        let thread = self.get(&fact.message.correlation_id)?;
        fact.to.iter().filter(|other| *other != from && thread.is_turn(from, other)).find_map(|other| {
            let changes = &thread.pairs[thread.turns(from, other).ok()?].changes;
            let room = (changes.count(fact.at) >= most).then(|| changes.room_at(fewer))?;
            Some((other.clone(), room?))
        })
    }

    /// Takes in a message that is no heartbeat; whose question it answers, where it is an ack.
    pub fn observe(&mut self, fact: &Fact<'_>, counts_turns: bool) -> Option<AgentName> {
        let message = fact.message;
        let (thread, is_new) = self.touch(fact)?;
        if !is_new && counts_turns {
            for other in fact.to.iter().filter(|other| **other != message.from) {
                thread.take_turn(&message.from, other, fact.at);
            }
        }
        if thread.from != message.from {
            thread.before = Some(std::mem::replace(&mut thread.from, message.from.clone()));
        }
        let asker = if message.message_type == "ack" { thread.answer(fact) } else { None };
        if message.ack_required() {
            thread.ask(fact);
        }
        asker
    }

    /// The message's thread, as the newest; whether it was made for it.
    fn touch(&mut self, fact: &Fact<'_>) -> Option<(&mut Thread, bool)> {
        let id = key(&fact.message.correlation_id);
        let age = self.next;
        self.next += 1;
        if let Some(known) = self.ages.get_mut(id) {
            let entry = self.by_age.remove(known)?;
            *known = age;
            return Some((&mut self.by_age.entry(age).or_insert(entry).1, false));
        }
        if self.ages.len() >= THREADS {
            let (_, (oldest, _)) = self.by_age.pop_first()?;
            self.ages.remove(&oldest);
        }
        Some((self.insert(id, age, Thread::opened_by(fact)), true))
    }

    fn insert(&mut self, id: &str, age: u64, thread: Thread) -> &mut Thread {
        let id: Arc<str> = id.into();
        self.ages.insert(Arc::clone(&id), age);
        &mut self.by_age.entry(age).or_insert((id, thread)).1
    }
}

/// What stands for a correlation_id: no agent can fill the memory with long ones.
fn key(correlation_id: &str) -> &str {
    &correlation_id[..correlation_id.floor_char_boundary(ID_BYTES)]
}

impl PartialEq for Threads {
    /// Ages are numbers that count on; their order is what matters.
    fn eq(&self, other: &Self) -> bool {
        self.by_age.values().eq(other.by_age.values())
    }
}

impl Eq for Threads {}

impl Serialize for Threads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.by_age.values().map(|(id, thread)| (&**id, thread)))
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut threads = Threads::default();
        for (id, thread) in <Vec<(String, Thread)>>::deserialize(deserializer)? {
            threads.insert(&id, threads.next, thread);
            threads.next += 1;
        }
        Ok(threads)
    }
}
