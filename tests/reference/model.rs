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
pub const LOGS: [&str; 10] = [
    "inbox/alice.jsonl",
    "inbox/bob.jsonl",
    "inbox/carol.jsonl",
    "outbox/alice.jsonl",
    "outbox/bob.jsonl",
    "outbox/carol.jsonl",
    "alice_to_bob.jsonl",
    "bob_to_alice.jsonl",
    "decisions.jsonl",
    "incident_log.jsonl",
];

/// The four directories of the state machine.
pub const STATES: [&str; 4] = ["handoff", "claimed", "archive", "rejected"];

/// A line, prepared or sealed by the exchange.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its author, as an index into [`AGENTS`].
    pub author: usize,
    /// What is stored, without newline. For an unsigned object that is refused: what was written.
    pub text: String,
    /// Whether it verifies, or can be sealed.
    pub genuine: bool,
    /// Whether somebody has signed it already.
    pub signed: bool,
    /// `type`
    pub kind: &'static str,
    /// `to`
    pub to: Option<Vec<&'static str>>,
    /// `correlation_id`, where it is not its own.
    pub thread: Option<&'static str>,
    /// `affected_domains`
    pub domains: &'static [&'static str],
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
    /// The lines of every log of [`LOGS`]; of decisions.jsonl what [`Decision`] says of each.
    pub logs: BTreeMap<&'static str, Vec<String>>,
    /// Path of each handoff and the number of its payload, sorted. A withdrawn handoff whose name was taken
    /// in rejected/ stands as `rejected/?`: which other name it gets is the exchange's choice.
    pub handoffs: Vec<(String, usize)>,
}

/// An entry of decisions.jsonl, as far as it can be foretold.
pub fn decision(thread: &str, proposer: &str, acked_by: &BTreeSet<String>, proposal: &str) -> String {
    let acked_by: Vec<&str> = acked_by.iter().map(String::as_str).collect();
    format!("{thread} by {proposer}, acked by {}: {proposal}", acked_by.join(" "))
}

/// The newest proposal of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proposal {
    text: String,
    proposer: usize,
    domains: BTreeSet<&'static str>,
    owners: BTreeSet<String>,
    /// Who has proposed in the thread since it was opened.
    parties: BTreeSet<String>,
    acks: BTreeSet<String>,
    counters: u32,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Decided,
    Overtaken,
}

/// No more counter-proposals than these.
const COUNTERS: u32 = 3;

/// Who decides about what.
pub const DOMAINS: [(&str, &[&str]); 2] = [("release", &["alice", "bob"]), ("naming", &["carol"])];

fn owners_of(domain: &str) -> &'static [&'static str] {
    DOMAINS.iter().find(|(known, _)| *known == domain).map_or(&[], |(_, owners)| owners)
}

/// The tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The lines of each log.
    pub logs: BTreeMap<&'static str, Vec<String>>,
    /// Path of each handoff, and the number of its payload.
    pub handoffs: BTreeMap<String, usize>,
    used: BTreeSet<usize>,
    threads: BTreeMap<&'static str, Proposal>,
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
        if log == "decisions.jsonl" {
            return self.enter(lines);
        }
        for line in lines {
            if let Err(errno) = judge(agent, log, line) {
                return Ending::Fails(errno);
            }
        }
        // Programs mirror their incidents themselves, and the exchange has done it.
        let mirrored =
            |line: &&Line| log == "incident_log.jsonl" && self.holds(log, line) && self.is_own(line);
        let lines: Vec<&Line> = lines.iter().filter(|line| !mirrored(line)).collect();
        for line in &lines {
            if let Err(errno) = self.judge_by_thread(log, line) {
                return Ending::Fails(errno);
            }
        }
        for (n, line) in lines.iter().enumerate() {
            if self.holds(log, line) || lines[..n].iter().any(|earlier| earlier.text == line.text) {
                return Ending::Fails("EEXIST");
            }
        }
        for line in &lines {
            self.store(log, line);
        }
        for line in &lines {
            for inbox in
                LOGS.iter().filter(|other| recipients(log, line).iter().any(|to| **other == inbox_of(to)))
            {
                self.store(inbox, line);
            }
            if line.kind == "incident" {
                self.store("incident_log.jsonl", line);
            }
        }
        for line in lines {
            self.take_in(log, line);
        }
        Ending::Done
    }

    fn holds(&self, log: &str, line: &Line) -> bool {
        self.logs.get(log).is_some_and(|stored| stored.contains(&line.text))
    }

    fn store(&mut self, log: &'static str, line: &Line) {
        if !self.holds(log, line) {
            self.logs.entry(log).or_default().push(line.text.clone());
        }
    }

    /// Whether it stands in a log that only its author writes.
    fn is_own(&self, line: &Line) -> bool {
        let author = AGENTS[line.author];
        let own = |log: &&&str| {
            log.starts_with(&format!("{author}_to_")) || **log == format!("outbox/{author}.jsonl")
        };
        LOGS.iter().filter(own).any(|log| self.holds(log, line))
    }

    /// Entries that agents write themselves: they may say what was decided, and nothing is stored.
    fn enter(&self, lines: &[Line]) -> Ending {
        let is_decided =
            |thread| self.threads.get(thread).is_some_and(|p: &Proposal| p.standing == Standing::Decided);
        let all = lines.iter().all(|line| line.thread.is_some_and(is_decided));
        if all { Ending::Done } else { Ending::Fails("EPERM") }
    }

    /// What its thread says against a proposal or an ack.
    fn judge_by_thread(&self, log: &str, line: &Line) -> Result<(), &'static str> {
        let known = line.thread.and_then(|thread| self.threads.get(thread));
        let author = AGENTS[line.author];
        match line.kind {
            "proposal" => {
                let open = known.filter(|proposal| proposal.standing == Standing::Open);
                if open.is_some_and(|proposal| proposal.counters >= COUNTERS) {
                    return Err("EPERM");
                }
                if known.is_some_and(|known| known.text == line.text) {
                    return Ok(());
                }
                if known.is_some_and(|known| known.standing == Standing::Decided) {
                    return Err("EPERM");
                }
                if open.is_some_and(|open| open.proposer == line.author) {
                    return Err("EEXIST");
                }
                if open.is_some_and(|open| !open.owners.contains(author) && !open.parties.contains(author)) {
                    return Err("EACCES");
                }
                let owners = self.owners(log, line).1;
                let reached = owners.is_subset(&recipients(log, line));
                if owners.is_empty() || !reached { Err("EBADMSG") } else { Ok(()) }
            }
            "incident" => {
                let others = recipients(log, line).iter().any(|to| to != author);
                if others { Ok(()) } else { Err("EBADMSG") }
            }
            "ack" => {
                let refused = known.is_some_and(|proposal| {
                    proposal.standing == Standing::Overtaken && proposal.owners.contains(author)
                });
                if refused { Err("EPERM") } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// The domains of a proposal, and who has to ack it: their owners, or where these are none but its author,
    /// everyone who gets it.
    fn owners(&self, log: &str, line: &Line) -> (BTreeSet<&'static str>, BTreeSet<String>) {
        let author = AGENTS[line.author];
        let before = line.thread.and_then(|thread| self.threads.get(thread));
        let before = before.filter(|proposal| proposal.standing == Standing::Open);
        let domains: BTreeSet<&'static str> = match before {
            Some(before) if line.domains.is_empty() => before.domains.clone(),
            _ => line.domains.iter().copied().collect(),
        };
        let mut owners: BTreeSet<String> =
            domains.iter().flat_map(|domain| owners_of(domain)).map(|owner| (*owner).to_owned()).collect();
        owners.remove(author);
        if owners.is_empty() {
            owners = match before.filter(|_| domains.is_empty()) {
                Some(before) => before.owners.union(&before.parties).cloned().collect(),
                None => recipients(log, line),
            };
            owners.remove(author);
        }
        (domains, owners)
    }

    /// Whether one ack is enough: the proposer owns all domains.
    fn one_is_enough(proposal: &Proposal) -> bool {
        let proposer = AGENTS[proposal.proposer];
        !proposal.domains.is_empty() && proposal.domains.iter().all(|domain| owners_of(domain) == [proposer])
    }

    fn take_in(&mut self, log: &str, line: &Line) {
        let Some(thread) = line.thread else { return };
        match line.kind {
            "proposal" => self.propose(thread, log, line),
            "ack" => self.ack(thread, line),
            _ => {}
        }
    }

    fn propose(&mut self, thread: &'static str, log: &str, line: &Line) {
        let (domains, owners) = self.owners(log, line);
        if let Some(same) = self.threads.get_mut(thread).filter(|known| known.text == line.text) {
            // The same message in another log: more are asked, and the acks stand.
            if same.standing == Standing::Open && (same.domains.is_empty() || Self::one_is_enough(same)) {
                same.owners.extend(recipients(log, line));
                same.owners.remove(AGENTS[line.author]);
            }
            return;
        }
        let before = self.threads.get(thread).filter(|known| known.standing == Standing::Open);
        let counters = before.map_or(0, |before| before.counters + u32::from(before.proposer != line.author));
        let mut parties = before.map_or_else(BTreeSet::new, |before| before.parties.clone());
        parties.insert(AGENTS[line.author].to_owned());
        let proposal = Proposal {
            parties,
            text: line.text.clone(),
            proposer: line.author,
            domains,
            owners,
            acks: BTreeSet::new(),
            counters,
            standing: Standing::Open,
        };
        self.threads.insert(thread, proposal);
    }

    fn ack(&mut self, thread: &'static str, line: &Line) {
        let author = AGENTS[line.author].to_owned();
        let Some(proposal) = self.threads.get_mut(thread) else { return };
        if proposal.standing != Standing::Open || !proposal.owners.contains(&author) {
            return;
        }
        proposal.acks.insert(author);
        if proposal.acks != proposal.owners && !Self::one_is_enough(proposal) {
            return;
        }
        proposal.standing = Standing::Decided;
        let decided = proposal.clone();
        let entry = decision(thread, AGENTS[decided.proposer], &decided.acks, &decided.text);
        self.logs.entry("decisions.jsonl").or_default().push(entry);
        for rival in self.threads.values_mut().filter(|rival| rival.standing == Standing::Open) {
            if rival.domains.iter().any(|domain| decided.domains.contains(domain)) {
                rival.standing = Standing::Overtaken;
            }
        }
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

fn inbox_of(agent: &str) -> String {
    format!("inbox/{agent}.jsonl")
}

/// The agent that a log is for, where it is for one.
fn own_agent(log: &str) -> Option<&str> {
    let name = log.strip_suffix(".jsonl")?;
    name.strip_prefix("inbox/").or_else(|| Some(name.split_once("_to_")?.1))
}

/// Whose inbox a line goes to.
fn recipients(log: &str, line: &Line) -> BTreeSet<String> {
    let everyone =
        AGENTS.iter().enumerate().filter(|(n, _)| *n != line.author).map(|(_, agent)| (*agent).to_owned());
    match (&line.to, own_agent(log)) {
        (None, None) => everyone.collect(),
        (None, Some(own)) => [own.to_owned()].into(),
        (Some(to), own) => {
            let mut all: BTreeSet<String> = BTreeSet::new();
            for handle in to {
                if *handle == "*" {
                    all.extend(everyone.clone().chain(own.map(str::to_owned)));
                } else {
                    all.insert((*handle).to_owned());
                }
            }
            all
        }
    }
}

/// What is wrong with a line by itself.
fn judge(agent: usize, log: &str, line: &Line) -> Result<(), &'static str> {
    if !line.signed && line.author != agent {
        // An object that names another author can't be sealed.
        return Err("EKEYREJECTED");
    }
    if line.author != agent || !may_append(line.author, log) {
        return Err("EACCES");
    }
    if log == "incident_log.jsonl" && !matches!(line.kind, "incident" | "ack") {
        return Err("EBADMSG");
    }
    let to = recipients(log, line);
    let known = to.iter().all(|agent| AGENTS.contains(&agent.as_str()));
    if !known || to.is_empty() || own_agent(log).is_some_and(|own| !to.contains(own)) {
        return Err("EBADMSG");
    }
    if line.genuine { Ok(()) } else { Err("EKEYREJECTED") }
}

/// A bilateral log is its first agent's, an outbox its own agent's; the others are everybody's.
fn may_append(agent: usize, log: &str) -> bool {
    let agent = AGENTS[agent];
    if log.starts_with("outbox/") {
        return log == format!("outbox/{agent}.jsonl");
    }
    !log.contains("_to_") || log.starts_with(&format!("{agent}_to_"))
}
