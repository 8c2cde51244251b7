//! Between the logs: is every message in the inbox of everyone whom it names, and are the messages there that a
//! decision rests on?

use super::Faults;
use super::lines::Lines;
use crate::exchange::logs::LogName;
use crate::exchange::replay::ShortId;
use crate::rules::Rule;
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a line promises of other logs.
#[derive(Debug)]
pub(super) enum Promise {
    /// It is in this agent's inbox too.
    InInbox(AgentName, ShortId),
    /// The message with this id is in some log.
    Message(ShortId),
}

/// Where a promise stands.
pub(super) struct Promised {
    pub path: String,
    pub line: u64,
    pub promise: Promise,
}

/// What the logs hold, and what they promise.
#[derive(Default)]
pub(super) struct Delivery {
    inboxes: BTreeMap<AgentName, HashSet<ShortId>>,
    others: HashSet<ShortId>,
    promised: Vec<Promised>,
}

/// The inboxes that a message in `log` names. Who everyone was at its time, nobody knows any more.
pub(super) fn promises(log: Option<&LogName>, message: &Message, id: ShortId) -> Vec<Promise> {
    let own = match log {
        Some(LogName::Bilateral { to, .. }) => Some(to.clone()),
        _ => None,
    };
    let named = message.to().into_iter().flatten().filter_map(|handle| AgentName::parse(handle).ok());
    let inboxes = own.into_iter().chain(named);
    inboxes.map(|agent| Promise::InInbox(agent, id)).collect()
}

impl Delivery {
    /// Takes in a log that was checked.
    pub fn add(&mut self, lines: Lines<'_>) {
        let (log, ids, promised) = lines.into_parts();
        match log {
            Some(LogName::Inbox(agent)) => self.inboxes.entry(agent).or_default().extend(ids),
            _ => self.others.extend(ids),
        }
        self.promised.extend(promised);
    }

    /// Tells which promises are not kept. Nothing while a daemon is at work: it may be about to keep them.
    pub fn check(self, faults: &mut Faults) {
        let mut missing: HashMap<(String, u64), Vec<String>> = HashMap::new();
        for Promised { path, line, promise } in self.promised {
            match promise {
                Promise::InInbox(agent, id) => {
                    if self.inboxes.get(&agent).is_some_and(|inbox| !inbox.contains(&id)) {
                        missing.entry((path, line)).or_default().push(agent.to_string());
                    }
                }
                Promise::Message(id) => {
                    let known = self.others.contains(&id) || self.inboxes.values().any(|i| i.contains(&id));
                    if !known {
                        let problem = "it rests on a message that is in no log";
                        faults.add(path, Some(line), Rule::Decision.name(), problem);
                    }
                }
            }
        }
        for ((path, line), agents) in missing {
            let problem = format!("not delivered to {}", agents.join(", "));
            faults.add_mendable(path, Some(line), "undelivered", problem);
        }
    }
}
