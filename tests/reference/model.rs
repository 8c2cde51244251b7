//! The reference model: what the tree must hold after each operation, and how each must end.
//!
//! Written from the design alone, as plainly as it can be: it has no locks, no disk and no time, and
//! each rule that it knows is one condition. It is the answer key, so nothing here is shared with src/.

use std::collections::{BTreeMap, BTreeSet};

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It succeeds.
    Done,
    /// It fails with this errno's name.
    Fails(&'static str),
}

/// The agents, in the order in which the operations number them.
pub const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

/// The logs that operations append to.
pub const LOGS: [&str; 6] = [
    "inbox/alice.jsonl",
    "inbox/bob.jsonl",
    "alice_to_bob.jsonl",
    "bob_to_alice.jsonl",
    "decisions.jsonl",
    "incident_log.jsonl",
];

/// The four directories of the state machine.
pub const STATES: [&str; 4] = ["handoff", "claimed", "archive", "rejected"];

/// A prepared line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its author, as an index into [`AGENTS`].
    pub author: usize,
    /// What is written, without newline.
    pub text: String,
    /// Whether it verifies.
    pub genuine: bool,
}

/// A prepared handoff payload, not expired.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Its sender.
    pub from: usize,
    /// Its receiver.
    pub to: usize,
    /// What is written.
    pub text: String,
    /// Whether it verifies.
    pub genuine: bool,
}

/// What a reader finds in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The lines of every log of [`LOGS`].
    pub logs: BTreeMap<&'static str, Vec<String>>,
    /// Path of each handoff and the number of its payload, sorted. A withdrawn handoff whose name was taken
    /// in rejected/ stands as `rejected/?`: which other name it gets is the exchange's choice.
    pub handoffs: Vec<(String, usize)>,
}

/// The tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The lines of each log.
    pub logs: BTreeMap<&'static str, Vec<String>>,
    /// Path of each handoff, and the number of its payload.
    pub handoffs: BTreeMap<String, usize>,
    used: BTreeSet<usize>,
}

impl Model {
    /// What a reader must find.
    pub fn content(&self) -> Content {
        let logs = LOGS.iter().map(|log| (*log, self.logs.get(log).cloned().unwrap_or_default())).collect();
        let shown = |path: &String| if path.contains('?') { "rejected/?".to_owned() } else { path.clone() };
        let mut handoffs: Vec<_> =
            self.handoffs.iter().map(|(path, number)| (shown(path), *number)).collect();
        handoffs.sort();
        Content { logs, handoffs }
    }

    /// An agent appends lines in one write.
    pub fn append(&mut self, agent: usize, log: &'static str, lines: &[Line]) -> Ending {
        if !may_append(agent, log) {
            return Ending::Fails("EACCES");
        }
        for line in lines {
            if line.author != agent {
                return Ending::Fails("EACCES");
            }
            if !line.genuine {
                return Ending::Fails("EKEYREJECTED");
            }
        }
        let stored = self.logs.entry(log).or_default();
        for (n, line) in lines.iter().enumerate() {
            if stored.contains(&line.text) || lines[..n].iter().any(|earlier| earlier.text == line.text) {
                return Ending::Fails("EEXIST");
            }
        }
        stored.extend(lines.iter().map(|line| line.text.clone()));
        Ending::Done
    }

    /// An agent tries to change what a log says; `opens_to_write`: through a descriptor that may append,
    /// which only those get who may append.
    pub fn tamper_with_log(&self, agent: usize, log: &str, opens_to_write: bool) -> Ending {
        Ending::Fails(if opens_to_write && !may_append(agent, log) { "EACCES" } else { "EPERM" })
    }

    /// An agent renames a draft to a final name.
    pub fn publish(&mut self, agent: usize, number: usize, payload: &Payload, name: &str) -> Ending {
        let path = format!("handoff/{name}");
        if payload.from != agent {
            return Ending::Fails("EACCES");
        }
        if !payload.genuine {
            return Ending::Fails("EKEYREJECTED");
        }
        // A name that is taken, or a handoff that was there before.
        if self.handoffs.contains_key(&path) || !self.used.insert(number) {
            return Ending::Fails("EEXIST");
        }
        self.handoffs.insert(path, number);
        Ending::Done
    }

    /// An agent renames a published handoff.
    pub fn rename(
        &mut self,
        agent: usize,
        payloads: &[Payload],
        from: (usize, &str),
        to: (usize, &str),
    ) -> Ending {
        let source = format!("{}/{}", STATES[from.0], from.1);
        let target = format!("{}/{}", STATES[to.0], to.1);
        let Some(&number) = self.handoffs.get(&source) else {
            return Ending::Fails("ENOENT");
        };
        if source == target {
            // rename(2) of a name to itself does nothing, and the kernel says so without asking.
            return Ending::Done;
        }
        if !matches!(
            (STATES[from.0], STATES[to.0]),
            ("handoff", "claimed" | "rejected") | ("claimed", "archive" | "rejected")
        ) {
            return Ending::Fails("EPERM");
        }
        let Payload { from: sender, to: receiver, .. } = payloads[number];
        // A sender may take back what is pending by a rename as well as by unlink.
        let takes_back = agent == sender && (STATES[from.0], STATES[to.0]) == ("handoff", "rejected");
        if agent != receiver && !takes_back {
            return Ending::Fails("EACCES");
        }
        if self.handoffs.contains_key(&target) {
            return Ending::Fails("EEXIST");
        }
        self.handoffs.remove(&source);
        self.handoffs.insert(target, number);
        Ending::Done
    }

    /// An agent unlinks a handoff: its sender withdraws it while it is pending.
    pub fn unlink(&mut self, agent: usize, payloads: &[Payload], state: usize, name: &str) -> Ending {
        let path = format!("{}/{name}", STATES[state]);
        let Some(&number) = self.handoffs.get(&path) else {
            return Ending::Fails("ENOENT");
        };
        if STATES[state] != "handoff" {
            return Ending::Fails("EPERM");
        }
        if payloads[number].from != agent {
            return Ending::Fails("EACCES");
        }
        let target = format!("rejected/{name}");
        self.handoffs.remove(&path);
        // A name that is taken there must not stop a withdrawal: which other name it gets is the exchange's choice.
        let mut free = target.clone();
        while self.handoffs.contains_key(&free) {
            free.push('?');
        }
        self.handoffs.insert(free, number);
        Ending::Done
    }

    /// An agent tries to change a published handoff.
    pub fn tamper_with_handoff(&self, state: usize, name: &str) -> Ending {
        let known = self.handoffs.contains_key(&format!("{}/{name}", STATES[state]));
        Ending::Fails(if known { "EPERM" } else { "ENOENT" })
    }
}

/// A bilateral log is its first agent's; the others are everybody's.
fn may_append(agent: usize, log: &str) -> bool {
    !log.contains("_to_") || log.starts_with(&format!("{}_to_", AGENTS[agent]))
}
