//! events.jsonl: is the hash chain whole, and what does it say of logs, handoffs and slots?

use super::{Faults, hex, unhex};
use crate::exchange::handoffs::State;
use crate::exchange::layout::Layout;
use crate::wire::keys::KeyId;
use crate::wire::name::AgentName;
use crate::wire::trust::Tier;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};

const FILE: &str = "events.jsonl";
const CHAIN: &str = "event-chain";

/// Bytes of a log that one event covers.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub start: u64,
    pub end: u64,
    pub lines: u64,
    pub sha256: [u8; 32],
    /// The event's line in events.jsonl.
    pub event: u64,
    /// The commit's number; `None` where that is not known.
    pub order: Option<u64>,
}

/// A change of the trust list.
#[derive(Debug, Clone)]
pub(super) struct TrustChange {
    /// Its number among the commits.
    pub order: u64,
    /// Keys with whether they sign from here on.
    pub keys: Vec<(KeyId, bool)>,
    /// Agents with their tier from here on, and before.
    pub tiers: Vec<(AgentName, Tier, Option<Tier>)>,
}

/// What the events say of one log.
#[derive(Debug, Default)]
pub(super) struct LogHistory {
    pub segments: Vec<Segment>,
    /// Up to where the events cover the log.
    pub end: u64,
    /// Bytes for whose lines without a signature the operator vouched, in order.
    vouched: Vec<(u64, u64)>,
}

impl LogHistory {
    /// Whether the operator vouched for a line that starts here, should it have no signature.
    pub fn is_vouched(&self, start: u64) -> bool {
        let after = self.vouched.partition_point(|(from, _)| *from <= start);
        after > 0 && start < self.vouched[after - 1].1
    }
}

/// An archive that the events tell of.
#[derive(Debug)]
pub(super) struct KnownArchive {
    /// Its path in the tree.
    pub path: String,
    /// What the events said of the log until then.
    pub history: LogHistory,
    /// Of the whole file.
    pub sha256: [u8; 32],
}

/// What the events say of one letter.
#[derive(Debug)]
pub(super) struct KnownLetter {
    /// Of its file.
    pub sha256: [u8; 32],
    /// The line of its event.
    pub event: u64,
}

/// What the events say of one handoff.
#[derive(Debug, Clone)]
pub(super) struct KnownHandoff {
    /// Of its file.
    pub sha256: Option<[u8; 32]>,
    /// The line of the event that put it where it is.
    pub event: u64,
    /// The line of the event that published it.
    pub published: u64,
}

/// The state that the events lead to, as far as they have been read.
#[derive(Debug, Default)]
pub(super) struct Chain {
    offset: u64,
    lines: u64,
    seq: u64,
    prev: Option<[u8; 32]>,
    logs: BTreeMap<String, LogHistory>,
    /// By log, oldest first.
    archives: BTreeMap<String, Vec<KnownArchive>>,
    /// By directory and name.
    pub handoffs: BTreeMap<(String, String), KnownHandoff>,
    /// By their files: the letters that were sent.
    pub letters: BTreeMap<String, KnownLetter>,
    /// The ids of all handoffs that were ever published.
    pub handoff_ids: BTreeSet<String>,
    /// By pair (`alice,bob`): the line of the last event that put another secret in place.
    pub secrets: BTreeMap<String, u64>,
    /// Changes of the trust list that concern keys or tiers, in order.
    pub trust_changes: Vec<TrustChange>,
    /// By profile and slot: the fingerprint's first 12 hex digits, and the event's line.
    pub slots: BTreeMap<(String, String), (String, u64)>,
    /// By profile: the slot that the live link was last pointed at, and the event's line.
    pub live_links: BTreeMap<String, (String, u64)>,
}

impl Chain {
    /// How many events were read.
    pub fn count(&self) -> u64 {
        self.lines
    }
    /// sha256 of the last line.
    pub fn head(&self) -> Option<String> {
        self.prev.map(|hash| hex(&hash))
    }
    /// What the events say of a log.
    pub fn log(&self, path: &str) -> Option<&LogHistory> {
        self.logs.get(path)
    }
    /// The logs that the events tell of.
    pub fn logs(&self) -> impl Iterator<Item = &String> {
        self.logs.keys()
    }
    /// The archives of a log, oldest first.
    pub fn archives(&self, log: &str) -> &[KnownArchive] {
        self.archives.get(log).map_or(&[], Vec::as_slice)
    }
    /// Whether an event tells of an archive at this path.
    pub fn has_archive(&self, path: &str) -> bool {
        self.archives.values().flatten().any(|archive| archive.path == path)
    }

    /// Reads the events that have been added since the last time.
    pub fn read_on(&mut self, layout: &Layout, live: bool, faults: &mut Faults) {
        if let Err(error) = self.try_read_on(layout, live, faults) {
            faults.add(FILE, None, "unreadable", error.to_string());
        }
    }

    fn try_read_on(&mut self, layout: &Layout, live: bool, faults: &mut Faults) -> std::io::Result<()> {
        let mut file = File::open(layout.events())?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let Some(line) = line.strip_suffix(b"\n") else {
                // A live daemon is about to finish it.
                if !live {
                    let problem = format!("the last event is torn after {} bytes", line.len());
                    faults.add_mendable(FILE, Some(self.lines + 1), "torn", problem);
                }
                return Ok(());
            };
            self.offset += line.len() as u64 + 1;
            self.lines += 1;
            self.take(line, faults);
            self.prev = Some(Sha256::digest(line).into());
        }
    }

    fn take(&mut self, line: &[u8], faults: &mut Faults) {
        let number = Some(self.lines);
        let event: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(e) => {
                self.seq += 1;
                faults.add(FILE, number, CHAIN, format!("not an event: {e}"));
                return;
            }
        };
        let expected = self.seq + 1;
        let seq = event.get("seq").and_then(Value::as_u64);
        let prev = event.get("prev").and_then(Value::as_str).and_then(unhex);
        match (seq == Some(expected), prev == Some(self.prev.unwrap_or([0; 32]))) {
            (true, true) => {}
            (true, false) => faults.add(
                FILE,
                number,
                CHAIN,
                "prev is not the hash of the line before it: that line, or this one, was edited",
            ),
            (false, _) => {
                let found = seq.map_or("no seq".into(), |seq| format!("seq {seq}"));
                let problem =
                    format!("{found} where {expected} belongs: events were dropped, added or reordered here");
                faults.add(FILE, number, CHAIN, problem);
            }
        }
        self.seq = seq.unwrap_or(expected);
        if let Err(problem) = self.apply(&event, faults) {
            faults.add(FILE, number, CHAIN, problem);
        }
    }

    fn apply(&mut self, event: &Map<String, Value>, faults: &mut Faults) -> Result<(), String> {
        let text = |key: &str| {
            event.get(key).and_then(Value::as_str).ok_or_else(|| format!("the event has no text {key:?}"))
        };
        let number = |key: &str| {
            event.get(key).and_then(Value::as_u64).ok_or_else(|| format!("the event has no number {key:?}"))
        };
        match text("event")? {
            "append" | "delivered" | "recovered" | "imported" => {
                let log = self.logs.entry(text("log")?.to_owned()).or_default();
                let segment = Segment {
                    start: number("start")?,
                    end: number("end")?,
                    lines: number("lines")?,
                    sha256: unhex(text("sha256")?).ok_or("sha256 is not 64 hex digits")?,
                    event: self.lines,
                    // What a crash left without an event, and what was imported, is older than its event.
                    order: number("order")
                        .ok()
                        .filter(|_| !matches!(text("event"), Ok("recovered" | "imported"))),
                };
                if segment.end < segment.start {
                    return Err(format!("it ends at byte {} before it starts", segment.end));
                }
                if segment.start != log.end {
                    let problem = format!(
                        "it covers {} from byte {}, but the events before it end at byte {}",
                        text("log")?,
                        segment.start,
                        log.end
                    );
                    faults.add(FILE, Some(self.lines), CHAIN, problem);
                }
                log.end = segment.end;
                if event.get("unsigned").and_then(Value::as_bool) == Some(true) {
                    log.vouched.push((segment.start, segment.end));
                }
                log.segments.push(segment);
            }
            "archived" => {
                let (path, bytes) = (text("to")?.to_owned(), number("bytes")?);
                let history = std::mem::take(self.logs.entry(text("log")?.to_owned()).or_default());
                if history.end != bytes {
                    let problem =
                        format!("it archives {bytes} bytes, but the events before it cover {}", history.end);
                    faults.add(FILE, Some(self.lines), CHAIN, problem);
                }
                let sha256 = unhex(text("sha256")?).ok_or("sha256 is not 64 hex digits")?;
                let archive = KnownArchive { path, history, sha256 };
                self.archives.entry(text("log")?.to_owned()).or_default().push(archive);
            }
            "truncated" => {
                let log = self.logs.entry(text("log")?.to_owned()).or_default();
                log.end = number("end")?;
                // What was cut off had no event, or its event speaks of bytes that never reached the disk.
                let end = log.end;
                log.segments.retain(|segment| segment.end <= end);
                log.vouched.retain(|(_, to)| *to <= end);
            }
            "published" => {
                let known = KnownHandoff {
                    sha256: Some(unhex(text("sha256")?).ok_or("sha256 is not 64 hex digits")?),
                    event: self.lines,
                    published: self.lines,
                };
                self.handoff_ids.insert(text("handoff_id")?.to_owned());
                let place = ("handoff".to_owned(), text("name")?.to_owned());
                if self.handoffs.insert(place, known).is_some() {
                    return Err(format!("it publishes handoff/{} a second time", text("name")?));
                }
            }
            "sent" => {
                let path = text("path")?;
                let (folder, name) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no path"))?;
                let sha256 = unhex(text("sha256")?).ok_or("sha256 is not 64 hex digits")?;
                let file = format!("{folder}/{}/{name}", text("by")?);
                self.letters.insert(file, KnownLetter { sha256, event: self.lines });
            }
            "claimed" | "completed" | "rejected" | "withdrawn" | "expired" | "moved" => {
                let from = (text("from_dir")?.to_owned(), text("name")?.to_owned());
                let to = (text("to_dir")?.to_owned(), text("to_name")?.to_owned());
                let moved = self.handoffs.remove(&from);
                let unknown = moved.is_none();
                let (sha256, published) = moved.map_or((None, 0), |known| (known.sha256, known.published));
                self.handoffs.insert(to, KnownHandoff { sha256, event: self.lines, published });
                if unknown {
                    return Err(format!("it moves {}/{}, which no event put there", from.0, from.1));
                }
            }
            "undone" => {
                let place = |path: &str| -> Option<(String, String)> {
                    let (dir, name) = path.rsplit_once('/')?;
                    State::ALL.iter().any(|s| s.dir() == dir).then(|| (dir.to_owned(), name.to_owned()))
                };
                let at = text("at")?;
                let undone = place(at).and_then(|at| self.handoffs.remove(&at));
                let undone = undone.ok_or_else(|| format!("it undoes {at}, which no event put there"))?;
                // A publication goes back to where no agent sees it.
                if let Some(back_at) = place(text("back_at")?) {
                    self.handoffs.insert(back_at, undone);
                }
            }
            // Older versions told of it in sentences only.
            "trust-changed" if event.contains_key("order") => {
                let change = trust_change(number("order")?, event)?;
                if !(change.keys.is_empty() && change.tiers.is_empty()) {
                    self.trust_changes.push(change);
                }
            }
            "secret-imported" => {
                self.secrets.insert(text("pair")?.to_owned(), self.lines);
            }
            "credential-removed" => {
                self.slots.remove(&(text("profile")?.to_owned(), text("slot")?.to_owned()));
            }
            "credential-unlinked" => {
                self.live_links.remove(text("profile")?);
            }
            name if name.starts_with("credential-") => {
                let (profile, slot) = (text("profile")?.to_owned(), text("slot")?.to_owned());
                if name == "credential-switched" {
                    self.live_links.insert(profile.clone(), (slot.clone(), self.lines));
                }
                // A login without a token in its file is known by its account.
                if let Ok(login) = text("fingerprint").or_else(|_| text("account")) {
                    self.slots.insert((profile, slot), (login.to_owned(), self.lines));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn trust_change(order: u64, event: &Map<String, Value>) -> Result<TrustChange, String> {
    let list = |name: &str| event.get(name).and_then(Value::as_array).into_iter().flatten();
    let tier = |value: &Value| value.as_str().and_then(Tier::from_word);
    let key = |value: &Value| {
        Some((KeyId::parse(value.get("key_id")?.as_str()?).ok()?, value.get("active")?.as_bool()?))
    };
    let step = |value: &Value| {
        let agent = AgentName::parse(value.get("agent")?.as_str()?).ok()?;
        Some((agent, tier(value.get("tier")?)?, value.get("was").and_then(tier)))
    };
    let keys: Option<Vec<_>> = list("keys").map(key).collect();
    let tiers: Option<Vec<_>> = list("tiers").map(step).collect();
    match (keys, tiers) {
        (Some(keys), Some(tiers)) => Ok(TrustChange { order, keys, tiers }),
        _ => Err("its keys or tiers are not of the form that a change of the trust list has".to_owned()),
    }
}
