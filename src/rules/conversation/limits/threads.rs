//! The newest few thousand threads: who answers whom, how often, and who waits for an ack.

use super::window::Window;
use crate::rules::conversation::pairs::in_order;
use crate::rules::conversation::{Fact, excerpt};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// How many threads are remembered.
const THREADS: usize = 4096;
/// How many pairs of one thread, and how many messages of it that wait for acks.
const PAIRS: usize = 256;
const ASKS: usize = 16;
/// How many of its newest messages are kept with whom they were for.
const HEARD: usize = 8;
/// How many threads that one agent opened are remembered once there are more than all together may be.
const THREADS_OF_ONE: usize = 1024;
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
    /// The newest messages, the oldest first: who wrote, and for whom.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    heard: VecDeque<(AgentName, Vec<AgentName>)>,
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
        Thread {
            opener: from.clone(),
            from,
            heard: VecDeque::new(),
            subject,
            pairs: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// Whom a reply of `author` is for: who asked it last and has no ack yet, where it is an ack; else who wrote
    /// to it last.
    pub fn partner_of(&self, author: &AgentName, is_ack: bool) -> Option<&AgentName> {
        let asked = self.asks.iter().rev().filter(|ask| is_ack && ask.waiting.contains(author));
        let asked = asked.map(|ask| &ask.from).next();
        let wrote = self.heard.iter().rev().filter(|(from, to)| from != author && to.contains(author));
        asked.or_else(|| wrote.map(|(from, _)| from).next())
    }

    fn hear(&mut self, fact: &Fact<'_>) {
        if self.heard.len() >= HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((fact.message.from.clone(), fact.to.to_vec()));
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
    /// The ages of the threads that each agent opened.
    by_opener: BTreeMap<AgentName, BTreeSet<u64>>,
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
        if fact.to == [message.from.clone()] {
            return None;
        }
        let (thread, is_new) = self.touch(fact)?;
        if !is_new && counts_turns {
            for other in fact.to.iter().filter(|other| **other != message.from) {
                thread.take_turn(&message.from, other, fact.at);
            }
        }
        thread.from = message.from.clone();
        thread.hear(fact);
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
        if let Some(known) = self.ages.get(id).copied() {
            let (id, thread) = self.take(known)?;
            return Some((self.insert(&id, age, thread), false));
        }
        if self.ages.len() >= THREADS {
            self.forget_one(&fact.message.from);
        }
        Some((self.insert(id, age, Thread::opened_by(fact)), true))
    }

    /// Makes room for one more that `opener` opens: who has opened more than its share gives up one of its own.
    fn forget_one(&mut self, opener: &AgentName) {
        let own = self.by_opener.get(opener).filter(|own| own.len() >= THREADS_OF_ONE);
        let age = own.and_then(|own| own.first().copied()).or_else(|| self.by_age.keys().next().copied());
        if let Some((id, _)) = age.and_then(|age| self.take(age)) {
            self.ages.remove(&id);
        }
    }

    /// Takes a thread out of the order of ages.
    fn take(&mut self, age: u64) -> Option<(Arc<str>, Thread)> {
        let (id, thread) = self.by_age.remove(&age)?;
        if let Some(own) = self.by_opener.get_mut(&thread.opener) {
            own.remove(&age);
        }
        Some((id, thread))
    }

    fn insert(&mut self, id: &str, age: u64, thread: Thread) -> &mut Thread {
        let id: Arc<str> = id.into();
        self.ages.insert(Arc::clone(&id), age);
        match self.by_opener.get_mut(&thread.opener) {
            Some(own) => drop(own.insert(age)),
            None => drop(self.by_opener.insert(thread.opener.clone(), BTreeSet::from([age]))),
        }
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
