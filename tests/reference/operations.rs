//! The operations that are tried at random, and how the real tree carries them out.

use crate::common::{Fixture, Mount};
use crate::model::{AGENTS, Content, Ending, LOGS, Line, Model, Payload, STATES, decision};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};

/// A message as it is prepared: its type, `to`, thread and domains.
type Form = (&'static str, Option<&'static [&'static str]>, Option<&'static str>, &'static [&'static str]);

/// What each agent has signed before the first operation, and writes unsigned while it runs.
const FORMS: [Form; 15] = [
    ("feedback", None, None, &[]),
    ("feedback", Some(&["alice"]), None, &[]),
    ("feedback", Some(&["bob", "carol"]), None, &[]),
    ("feedback", Some(&["*"]), None, &[]),
    ("feedback", Some(&["carol", "zoe"]), None, &[]),
    ("incident", None, None, &[]),
    ("incident", Some(&["alice", "bob"]), None, &[]),
    ("proposal", None, Some("lunch"), &[]),
    ("proposal", Some(&["*"]), Some("lunch"), &[]),
    ("proposal", None, Some("tag"), &["release"]),
    ("proposal", None, Some("branch"), &["release", "naming"]),
    ("proposal", None, Some("name"), &["naming"]),
    ("ack", Some(&["*"]), Some("lunch"), &[]),
    ("ack", Some(&["*"]), Some("tag"), &[]),
    ("ack", Some(&["*"]), Some("branch"), &[]),
];
/// How many lines each agent has prepared: one of each form, and one that is not genuine.
pub const LINES_EACH: usize = FORMS.len() + 1;
/// Names that handoffs are given.
pub const NAMES: [&str; 3] = ["x.json", "y.json", "z.json"];

/// One thing that an agent does.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Appends some prepared lines with one write.
    Append { agent: usize, log: usize, lines: Vec<usize> },
    /// Tries to make a log say something else.
    TamperWithLog { agent: usize, log: usize, how: LogTrick },
    /// Writes a draft and renames it to a final name.
    Publish { agent: usize, payload: usize, name: usize },
    /// Moves a handoff from one place to another.
    Rename { agent: usize, from: (usize, usize), to: (usize, usize) },
    /// Removes a handoff.
    Unlink { agent: usize, state: usize, name: usize },
    /// Tries to change a handoff's bytes.
    TamperWithHandoff { agent: usize, state: usize, name: usize, how: HandoffTrick },
    /// Appends an unsigned object, which its mount seals; `as_other`: it says that it is from somebody else.
    Seal { agent: usize, log: usize, form: usize, as_other: bool },
    /// Takes every mount away and mounts again.
    Remount,
    /// Kills the daemon, takes away what is derived, and mounts again.
    Kill { loss: usize },
}

/// What a kill takes with it.
pub const LOSSES: [&str; 4] =
    [":", "rm -rf private/index", "rm -f private/index/events.checkpoint", "rm -f private/index/*.ids"];

/// A way to change what a log says.
#[derive(Debug, Clone, Copy)]
pub enum LogTrick {
    Truncate,
    OpenReadWrite,
    OpenTruncating,
    Unlink,
    Link,
}

/// A way to change a handoff's bytes.
#[derive(Debug, Clone, Copy)]
pub enum HandoffTrick {
    Truncate,
    Overwrite,
    Append,
}

/// Any operation; the interesting ones more often.
pub fn operation() -> impl Strategy<Value = Operation> {
    let agent = 0..AGENTS.len();
    let log = 0..LOGS.len();
    let state = 0..STATES.len();
    let name = 0..NAMES.len();
    let (agent0, agent1, log0) = (agent.clone(), agent.clone(), log.clone());
    let log_trick = prop::sample::select(vec![
        LogTrick::Truncate,
        LogTrick::OpenReadWrite,
        LogTrick::OpenTruncating,
        LogTrick::Unlink,
        LogTrick::Link,
    ]);
    let handoff_trick =
        prop::sample::select(vec![HandoffTrick::Truncate, HandoffTrick::Overwrite, HandoffTrick::Append]);
    // Mostly one's own lines: otherwise nearly every append would end at `authority`.
    let lines = prop::collection::vec((0..10usize, 0..LINES_EACH), 1..4);
    prop_oneof![
        8 => (agent.clone(), log.clone(), lines).prop_map(|(agent, log, picks)| {
            let lines = picks.into_iter().map(|(who, n)| {
                let author = if who == 0 { (agent + 1) % AGENTS.len() } else { agent };
                author * LINES_EACH + n
            });
            Operation::Append { agent, log, lines: lines.collect() }
        }),
        2 => (agent.clone(), log, log_trick).prop_map(|(agent, log, how)| Operation::TamperWithLog { agent, log, how }),
        8 => (agent.clone(), 0..PAYLOADS, name.clone())
            .prop_map(|(agent, payload, name)| Operation::Publish { agent, payload, name }),
        10 => (agent.clone(), (state.clone(), name.clone()), (state.clone(), name.clone()))
            .prop_map(|(agent, from, to)| Operation::Rename { agent, from, to }),
        1 => (agent.clone(), state.clone(), name.clone())
            .prop_map(|(agent, state, name)| Operation::Unlink { agent, state, name }),
        1 => (agent, state, name, handoff_trick)
            .prop_map(|(agent, state, name, how)| Operation::TamperWithHandoff { agent, state, name, how }),
        // Conversations: mostly in one's own outbox, mostly what others have to answer.
        16 => (agent1, 5..FORMS.len())
            .prop_map(|(agent, form)| Operation::Seal { agent, log: 3 + agent, form, as_other: false }),
        6 => (agent0, log0, 0..FORMS.len(), prop::bool::weighted(0.05))
            .prop_map(|(agent, log, form, as_other)| Operation::Seal { agent, log, form, as_other }),
        1 => Just(Operation::Remount),
        1 => (0..LOSSES.len()).prop_map(|loss| Operation::Kill { loss }),
    ]
}

/// How many payloads are prepared: two genuine ones and a tampered one for each of these pairs.
pub const PAYLOADS: usize = PAIRS.len() * 3;
const PAIRS: [(usize, usize); 3] = [(1, 0), (0, 1), (2, 0)];

/// What the agents have prepared before the first operation.
pub struct Prepared {
    /// Lines: [`LINES_EACH`] for each agent, the last of each not genuine.
    pub lines: Vec<Line>,
    /// Payloads.
    pub payloads: Vec<Payload>,
}

impl Prepared {
    /// Has everything signed by the real `baton`.
    pub fn new(fixture: &Fixture) -> Self {
        let mut lines = Vec::new();
        for (author, agent) in AGENTS.iter().enumerate() {
            let forms: Vec<&Form> = FORMS.iter().chain(&FORMS[..1]).collect();
            let objects: String =
                forms.iter().enumerate().map(|(n, form)| object(form, &format!("body {n}")) + "\n").collect();
            for (n, text) in fixture.sign(agent, &objects).lines().enumerate() {
                let genuine = n < FORMS.len();
                let text = if genuine { text.to_owned() } else { text.replace("body ", "lies ") };
                lines.push(Line { text, genuine, signed: true, ..line_of(author, forms[n]) });
            }
        }
        let mut payloads = Vec::new();
        for (from, to) in PAIRS {
            for n in 0..3 {
                let caller = format!("caller {n}");
                let text = fixture.handoff_for(AGENTS[from], AGENTS[to], &caller, 3600);
                let genuine = n < 2;
                let text = if genuine { text } else { text.replace("\"test\"", "\"best\"") };
                payloads.push(Payload { from, to, text, genuine });
            }
        }
        Prepared { lines, payloads }
    }
}

/// An unsigned object of a form.
fn object(form: &Form, body: &str) -> String {
    let (kind, to, thread, domains) = form;
    let mut object = serde_json::json!({"type": kind, "subject": "test", "body": body});
    if let Some(to) = to {
        object["to"] = serde_json::json!(to);
    }
    if let Some(thread) = thread {
        object["correlation_id"] = serde_json::json!(thread);
    }
    if !domains.is_empty() {
        object["affected_domains"] = serde_json::json!(domains);
    }
    object.to_string()
}

fn line_of(author: usize, (kind, to, thread, domains): &Form) -> Line {
    let to = to.map(<[_]>::to_vec);
    Line { author, text: String::new(), genuine: true, signed: false, kind, to, thread: *thread, domains }
}

/// The real exchange with a mount for each agent.
pub struct Real {
    fixture: Fixture,
    mounts: Vec<Mount>,
    drafts: u32,
    sealed: u32,
}

impl Real {
    /// A fresh one.
    pub fn new(fixture: &Fixture) -> Self {
        Real {
            fixture: fixture.clone(),
            mounts: AGENTS.map(|agent| fixture.mount_as(agent)).into(),
            drafts: 0,
            sealed: 0,
        }
    }

    /// Does it on the real tree and in the model.
    pub fn apply(
        &mut self,
        operation: &Operation,
        prepared: &Prepared,
        model: &mut Model,
    ) -> (Ending, Ending) {
        let Prepared { lines, payloads } = prepared;
        match *operation {
            Operation::Append { agent, log, lines: ref picks } => {
                let picked: Vec<Line> = picks.iter().map(|&n| lines[n].clone()).collect();
                let text: String = picked.iter().map(|line| format!("{}\n", line.text)).collect();
                let file =
                    OpenOptions::new().append(true).create(true).open(self.mounts[agent].at(LOGS[log]));
                let result = file.and_then(|mut file| file.write_all(text.as_bytes()));
                (ending(result), model.append(agent, LOGS[log], &picked))
            }
            Operation::Seal { agent, log, form, as_other } => {
                self.sealed += 1;
                let mut text = object(&FORMS[form], &format!("sealed {}", self.sealed));
                let author = if as_other { (agent + 1) % AGENTS.len() } else { agent };
                if as_other {
                    text = format!("{{\"from\":\"{}\",{}", AGENTS[author], &text[1..]);
                }
                let path = self.mounts[agent].at(LOGS[log]);
                let file = OpenOptions::new().append(true).create(true).open(&path);
                let result = file.and_then(|mut file| file.write_all(text.as_bytes()));
                let mut line = line_of(author, &FORMS[form]);
                line.text.clone_from(&text);
                if result.is_ok() && LOGS[log] != "decisions.jsonl" {
                    // How it was completed and signed is the exchange's affair: what its author wrote stays.
                    let stored = fs::read_to_string(&path).unwrap_or_default();
                    line.text = stored.lines().last().unwrap_or_default().to_owned();
                    check_sealed(&line.text, &text, AGENTS[agent]);
                    // In these logs the seal says whom the line is for; in an outbox a reply's partner.
                    line.to = sealed_to(&line.text);
                }
                (ending(result), model.append(agent, LOGS[log], &[line]))
            }
            Operation::TamperWithLog { agent, log, how } => {
                let path = self.mounts[agent].at(LOGS[log]);
                // A bilateral log is there from its first line on; these tricks are about what is there.
                if fs::metadata(&path).is_err() {
                    return (Ending::Done, Ending::Done);
                }
                let result = match how {
                    LogTrick::Truncate => truncate(&path),
                    LogTrick::OpenReadWrite => {
                        OpenOptions::new().read(true).write(true).open(&path).map(drop)
                    }
                    LogTrick::OpenTruncating => {
                        OpenOptions::new().write(true).truncate(true).open(&path).map(drop)
                    }
                    LogTrick::Unlink => fs::remove_file(&path),
                    LogTrick::Link => fs::hard_link(&path, self.mounts[agent].at("inbox/other.jsonl")),
                };
                let opens_to_write = matches!(how, LogTrick::Truncate);
                (ending(result), model.tamper_with_log(agent, LOGS[log], opens_to_write))
            }
            Operation::Publish { agent, payload, name } => {
                self.drafts += 1;
                let draft = self.mounts[agent].at(&format!("handoff/.{}.tmp", self.drafts));
                let result = fs::write(&draft, &payloads[payload].text).and_then(|()| {
                    fs::rename(&draft, self.mounts[agent].at(&format!("handoff/{}", NAMES[name])))
                });
                let _ = fs::remove_file(&draft);
                (ending(result), model.publish(agent, payload, &payloads[payload], NAMES[name]))
            }
            Operation::Rename { agent, from, to } => {
                let path = |(state, name): (usize, usize)| format!("{}/{}", STATES[state], NAMES[name]);
                let mount = &self.mounts[agent];
                let result = fs::rename(mount.at(&path(from)), mount.at(&path(to)));
                let expected = model.rename(agent, payloads, (from.0, NAMES[from.1]), (to.0, NAMES[to.1]));
                (ending(result), expected)
            }
            Operation::Unlink { agent, state, name } => {
                let result =
                    fs::remove_file(self.mounts[agent].at(&format!("{}/{}", STATES[state], NAMES[name])));
                (ending(result), model.unlink(agent, payloads, state, NAMES[name]))
            }
            Operation::TamperWithHandoff { agent, state, name, how } => {
                let path = self.mounts[agent].at(&format!("{}/{}", STATES[state], NAMES[name]));
                let result = match how {
                    HandoffTrick::Truncate => truncate(&path),
                    HandoffTrick::Overwrite => {
                        OpenOptions::new().write(true).truncate(true).open(&path).map(drop)
                    }
                    HandoffTrick::Append => {
                        OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"x"))
                    }
                };
                (ending(result), model.tamper_with_handoff(state, NAMES[name]))
            }
            Operation::Remount => {
                self.mounts.drain(..).for_each(Mount::umount);
                self.mounts = AGENTS.map(|agent| self.fixture.mount_as(agent)).into();
                (Ending::Done, Ending::Done)
            }
            Operation::Kill { loss } => {
                self.fixture.kill_daemon();
                for mount in self.mounts.drain(..) {
                    mount.take_dead();
                }
                self.fixture.bash(&format!("cd $EXCHANGE && {}", LOSSES[loss])).ok();
                self.mounts = AGENTS.map(|agent| self.fixture.mount_as(agent)).into();
                (Ending::Done, Ending::Done)
            }
        }
    }

    /// What the tree holds, as one of the agents reads it.
    pub fn content(&self, prepared: &Prepared, viewer: usize) -> Content {
        let mount = &self.mounts[viewer];
        let lines = |log: &str| -> Vec<String> {
            fs::read_to_string(mount.at(log)).unwrap_or_default().lines().map(str::to_owned).collect()
        };
        let mut logs: BTreeMap<&'static str, Vec<String>> =
            LOGS.iter().map(|log| (*log, lines(log))).collect();
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for text in logs.values().flatten() {
            texts.extend(id_of(text).map(|id| (id, text.clone())));
        }
        for entry in logs.get_mut("decisions.jsonl").into_iter().flatten() {
            *entry = shown_decision(entry, &texts);
        }
        let mut handoffs = Vec::new();
        for state in STATES {
            for name in mount.names(state) {
                if name.ends_with(".reason.json") {
                    continue;
                }
                let text = mount.read(&format!("{state}/{name}"));
                let number = prepared.payloads.iter().position(|p| p.text.trim_end() == text.trim_end());
                let number =
                    number.unwrap_or_else(|| panic!("{state}/{name} holds what nobody wrote: {text}"));
                let chosen = state == "rejected" && !NAMES.contains(&name.as_str());
                handoffs
                    .push((if chosen { "rejected/?".to_owned() } else { format!("{state}/{name}") }, number));
            }
        }
        handoffs.sort();
        Content { logs, handoffs }
    }
}

/// Checks that a sealed line has all that its author wrote, and is its author's.
fn check_sealed(stored: &str, written: &str, author: &str) {
    let stored: serde_json::Value = serde_json::from_str(stored).unwrap();
    let written: serde_json::Value = serde_json::from_str(written).unwrap();
    for (name, value) in written.as_object().unwrap() {
        assert_eq!(stored[name], *value, "{stored}");
    }
    assert_eq!(stored["from"], author, "{stored}");
    assert!(stored["signature"].is_string() && stored["event_id"].is_string(), "{stored}");
}

/// `to` of a stored line; a handle that is no agent's would not be stored.
fn sealed_to(stored: &str) -> Option<Vec<&'static str>> {
    let stored: serde_json::Value = serde_json::from_str(stored).unwrap();
    let handles = ["*"].into_iter().chain(AGENTS);
    let to = stored["to"].as_array()?.iter();
    Some(to.map(|handle| handles.clone().find(|known| handle == known).unwrap()).collect())
}

fn id_of(text: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(line["event_id"].as_str()?.to_owned())
}

/// An entry of decisions.jsonl in the model's words. `texts`: the lines by their ids.
fn shown_decision(entry: &str, texts: &BTreeMap<String, String>) -> String {
    let entry: serde_json::Value = serde_json::from_str(entry).unwrap();
    let text = |member: &serde_json::Value| member.as_str().unwrap().to_owned();
    let acked_by = entry["acked_by"].as_array().unwrap().iter().map(text).collect();
    for (agent, ack) in entry["evidence"]["acks"].as_object().unwrap() {
        let ack: serde_json::Value = serde_json::from_str(&texts[&text(ack)]).unwrap();
        assert!(ack["type"] == "ack" && ack["from"] == **agent, "{entry} rests on {ack}");
    }
    let proposal = &texts[&text(&entry["evidence"]["proposal"])];
    decision(&text(&entry["decision_id"]), &text(&entry["proposer"]), &acked_by, proposal)
}

fn truncate(path: &std::path::Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

fn ending(result: io::Result<()>) -> Ending {
    match result.map_err(|e| e.raw_os_error()) {
        Ok(()) => Ending::Done,
        Err(errno) => Ending::Fails(match errno {
            Some(libc::EPERM) => "EPERM",
            Some(libc::EACCES) => "EACCES",
            Some(libc::ENOENT) => "ENOENT",
            Some(libc::EEXIST) => "EEXIST",
            Some(libc::EBADMSG) => "EBADMSG",
            Some(libc::EKEYREJECTED) => "EKEYREJECTED",
            Some(libc::EIO) => "EIO",
            _ => "another errno",
        }),
    }
}
