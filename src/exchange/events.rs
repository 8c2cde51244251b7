//! events.jsonl: what happened, hash-chained.
//!
//! Line: `{"seq":n,"time":"...","event":"...",<members>,"prev":"<sha256 of the previous line>"}`; the
//! first line's prev is 64 zeros. `append` events cover every byte of every log, so a line that is
//! edited, dropped or reordered behind the mount shows. Handoff events are written before the file
//! moves: after a crash they say which move to finish.

use super::archive::{ArchiveFile, Archives};
use super::commit::GroupCommit;
use super::ledger::Ledger;
use super::{Durability, OpenError};
use crate::store::{LogBytes, Store};
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The path in the tree and under the exchange's folder.
pub(super) const PATH: &str = "events.jsonl";
/// The event that takes back the one that moved a handoff.
const UNDONE: &str = "undone";
const CHECKPOINT: &str = "private/index/events.checkpoint";
/// Where the last line before a checkpoint is looked for first, in bytes: a long one starts before that.
const LAST_LINE: u64 = 64 * 1024;

/// Builds an event's members.
macro_rules! members {
    ($($name:literal: $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut members = serde_json::Map::new();
        $(members.insert($name.to_string(), serde_json::Value::from($value));)*
        members
    }};
}
pub(super) use members;

/// An event's own members.
pub type Members = Map<String, Value>;

/// The event chain of one exchange.
pub(super) struct Events {
    chain: Mutex<Chain>,
    commit: GroupCommit,
    bytes: Arc<dyn LogBytes>,
    checkpointed_handoff_ids: Option<u64>,
    /// What must be noted before the next event, because it could not be when it happened.
    owed: Mutex<Vec<Members>>,
}

#[derive(Default)]
struct Chain {
    end: u64,
    seq: u64,
    prev: [u8; 32],
    covered: BTreeMap<String, u64>,
    archives: Archives,
}

/// Where the chain stood at some time, so that a start need not read it all. Derived.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    offset: u64,
    seq: u64,
    prev: String,
    covered: BTreeMap<String, u64>,
    #[serde(default)]
    archives: Archives,
    /// How many ids the index of used handoffs held on disk.
    #[serde(default)]
    handoff_ids: u64,
    /// The ledger as it stood then or a little later; where it is missing, everything is folded anew.
    ledger: Ledger,
}

/// What [`Events::open`] finds.
pub(super) struct Found {
    pub events: Events,
    /// The events since the last checkpoint, without those that tell of bytes in logs.
    pub recent: Vec<Event>,
    /// What was appended to logs since then.
    pub appends: Vec<Appended>,
    /// The ledger of that checkpoint.
    pub ledger: Ledger,
}

/// A place in the chain.
pub(super) struct Position(Checkpoint);

/// An event that tells of bytes which were written to a log: small, for there may be millions.
#[derive(Debug, Clone)]
pub(super) struct Appended {
    pub seq: u64,
    pub order: u64,
    pub at: Timestamp,
    pub log: Arc<str>,
    pub by: Arc<str>,
    pub start: u64,
    pub end: u64,
    /// Found without an event after a crash: a line in an inbox may be a copy.
    pub recovered: bool,
}

/// One event as read back.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub seq: u64,
    pub event: String,
    pub members: Members,
}

impl Event {
    /// A member that is a string.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member)?.as_str()
    }
    /// When it happened; the epoch where it doesn't tell.
    pub fn time(&self) -> Timestamp {
        self.text("time").and_then(|time| Timestamp::parse(time, true)).unwrap_or(Timestamp(0))
    }
    /// What was appended to which log. `texts`: those known already, which are then shared.
    fn appended(&self, texts: &mut HashSet<Arc<str>>) -> Option<Appended> {
        let mut share = |text: &str| match texts.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                texts.insert(Arc::clone(&new));
                new
            }
        };
        Some(Appended {
            seq: self.seq,
            order: self.number("order").unwrap_or(0),
            at: self.time(),
            log: share(self.text("log")?),
            by: share(self.text("by").unwrap_or("exchange")),
            start: self.number("start")?,
            end: self.number("end")?,
            recovered: self.event == "recovered",
        })
    }
    /// A member that is a number.
    pub fn number(&self, member: &str) -> Option<u64> {
        self.members.get(member)?.as_u64()
    }
}

impl Events {
    /// Opens the chain, with what its last checkpoint holds and the events since then.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where the chain since the checkpoint is broken.
    pub fn open(store: &dyn Store, root: &Path) -> Result<Found, OpenError> {
        let file = root.join(PATH);
        let io_error = |error| OpenError::Io { file: file.clone(), error };
        let damaged = |problem: String| OpenError::Damaged {
            file: file.clone(),
            problem,
            mend:
                "baton verify lists every fault; restore the file from a backup, or move it aside to start a \
                   new chain (baton verify will then report the lines it no longer covers)"
                    .into(),
        };
        let bytes = store.open_log(PATH, true).map_err(io_error)?;
        let len = bytes.len().map_err(io_error)?;
        let mut chain = Chain::default();
        let (mut checkpointed_handoff_ids, mut ledger) = (None, Ledger::default());
        if let Some((checkpointed, checkpoint)) = read_checkpoint(store, &*bytes, len) {
            chain = checkpointed;
            checkpointed_handoff_ids = Some(checkpoint.handoff_ids);
            ledger = checkpoint.ledger;
        }
        let mut tail = vec![0; usize::try_from(len - chain.end).unwrap_or(usize::MAX)];
        bytes.read_exact_at(&mut tail, chain.end).map_err(io_error)?;
        // A torn last line was never acknowledged.
        let whole = tail.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            bytes.cut(chain.end + whole as u64).map_err(io_error)?;
            tail.truncate(whole);
        }
        let (mut recent, mut appends) = (Vec::new(), Vec::new());
        let mut texts: HashSet<Arc<str>> = HashSet::new();
        for line in tail.split_inclusive(|&b| b == b'\n') {
            let line = &line[..line.len() - 1];
            let number = chain.seq + 1;
            let mut members: Members = serde_json::from_slice(line)
                .map_err(|e| damaged(format!("the line of event {number} is not JSON ({e})")))?;
            let prev = members.remove("prev");
            if prev.as_ref().and_then(Value::as_str) != Some(&hex(&chain.prev)) {
                return Err(damaged(format!("the hash chain breaks at event {number}")));
            }
            if members.remove("seq").and_then(|s| s.as_u64()) != Some(number) {
                return Err(damaged(format!("event {number} is missing or out of order")));
            }
            let event = match members.remove("event") {
                Some(Value::String(event)) => event,
                _ => return Err(damaged(format!("event {number} has no name"))),
            };
            let time =
                members.get("time").and_then(Value::as_str).and_then(|time| Timestamp::parse(time, true));
            chain.advance(line, time, &event, &members);
            let event = Event { seq: number, event, members };
            match event.event.as_str() {
                "append" | "recovered" => appends.extend(event.appended(&mut texts)),
                // A copy, which a start makes again where it is missing.
                "delivered" => {}
                _ => recent.push(event),
            }
        }
        let events = Events {
            chain: Mutex::new(chain),
            commit: GroupCommit::default(),
            bytes,
            checkpointed_handoff_ids,
            owed: Mutex::default(),
        };
        Ok(Found { events, recent, appends, ledger })
    }

    /// Appends one event; returns the chain's end, for [`Events::make_durable`].
    ///
    /// # Errors
    /// The disk's; the chain is then as before.
    pub fn append(&self, time: Timestamp, event: &str, members: &Members) -> io::Result<u64> {
        let mut owed = self.owed.lock();
        while let Some(undone) = owed.first() {
            self.append_now(time, UNDONE, undone)?;
            owed.remove(0);
        }
        self.append_now(time, event, members)
    }

    /// Tells the chain that the move from `back_at` to `at`, which it has as done, did not happen. Where
    /// that can't be written, no event is before it is.
    ///
    /// # Errors
    /// The disk's.
    pub fn undo(&self, time: Timestamp, at: &str, back_at: &str) -> io::Result<()> {
        let members = members! {"at": at, "back_at": back_at};
        let mut owed = self.owed.lock();
        self.append_now(time, UNDONE, &members).map(drop).inspect_err(|_| owed.push(members))
    }

    /// Whether a move that did not happen is still told as done.
    pub fn owes_an_undo(&self) -> bool {
        !self.owed.lock().is_empty()
    }

    fn append_now(&self, time: Timestamp, event: &str, members: &Members) -> io::Result<u64> {
        let inner = serde_json::to_string(members).map_err(io::Error::other)?;
        let inner = &inner[1..inner.len() - 1];
        let comma = if inner.is_empty() { "" } else { "," };
        let mut chain = self.chain.lock();
        self.commit.check()?;
        let mut line = format!(
            r#"{{"seq":{},"time":"{time}","event":"{event}"{comma}{inner},"prev":"{}"}}"#,
            chain.seq + 1,
            hex(&chain.prev)
        );
        line.push('\n');
        self.bytes.append_at(chain.end, line.as_bytes())?;
        chain.advance(&line.as_bytes()[..line.len() - 1], Some(time), event, members);
        Ok(chain.end)
    }

    /// Returns once the chain is on disk up to `end`, where `durability` asks for that.
    ///
    /// # Errors
    /// The disk's.
    pub fn make_durable(&self, end: u64, durability: Durability) -> io::Result<()> {
        match durability {
            Durability::Os => Ok(()),
            Durability::Commit => self.commit.wait(end, || self.chain.lock().end, || self.bytes.sync()),
        }
    }

    /// Up to which byte a log's lines have events.
    pub fn covered(&self, log: &str) -> u64 {
        self.chain.lock().covered.get(log).copied().unwrap_or(0)
    }

    /// The logs that have events, with the byte up to which they are covered.
    pub fn all_covered(&self) -> BTreeMap<String, u64> {
        self.chain.lock().covered.clone()
    }

    /// The archives of a log, oldest first.
    pub fn archives_of(&self, log: &str) -> Vec<ArchiveFile> {
        self.chain.lock().archives.of(log).to_vec()
    }

    /// Looks at what the events tell of archives.
    pub fn with_archives<T>(&self, look: impl FnOnce(&Archives) -> T) -> T {
        look(&self.chain.lock().archives)
    }

    /// The last event's number and the head of the chain, in hex.
    #[cfg(test)]
    fn head(&self) -> (u64, String) {
        let chain = self.chain.lock();
        (chain.seq, hex(&chain.prev))
    }

    /// How many ids of handoffs the index is known to hold; `None`: nothing is known of it.
    pub fn checkpointed_handoff_ids(&self) -> Option<u64> {
        self.checkpointed_handoff_ids
    }

    /// Where the chain stands now. `handoff_ids`: how many ids the index of used handoffs holds.
    pub fn position(&self, handoff_ids: u64) -> Position {
        let chain = self.chain.lock();
        Position(Checkpoint {
            offset: chain.end,
            seq: chain.seq,
            prev: hex(&chain.prev),
            covered: chain.covered.clone(),
            archives: chain.archives.clone(),
            handoff_ids,
            ledger: Ledger::default(),
        })
    }

    /// Notes a position for the next start, with the ledger as it stood there or later. Everything that the
    /// events before it tell must be durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_checkpoint(
        &self,
        store: &dyn Store,
        mut position: Position,
        ledger: Ledger,
    ) -> io::Result<()> {
        self.make_durable(position.0.offset, Durability::Commit)?;
        position.0.ledger = ledger;
        let text = serde_json::to_vec(&position.0).map_err(io::Error::other)?;
        store.replace(CHECKPOINT, &text, 0o600)
    }
}

impl Chain {
    fn advance(&mut self, line: &[u8], time: Option<Timestamp>, event: &str, members: &Members) {
        self.end += line.len() as u64 + 1;
        self.seq += 1;
        self.prev = Sha256::digest(line).into();
        let Some(Value::String(log)) = members.get("log") else { return };
        match (event, members.get("end").and_then(Value::as_u64)) {
            ("append" | "delivered" | "recovered" | "imported" | "truncated", Some(end)) => {
                self.covered.insert(log.clone(), end);
                self.archives.changed(log, end, time);
            }
            ("archived", _) => {
                self.covered.remove(log);
                self.archives.archived(log, members);
            }
            _ => {}
        }
    }
}

/// The checkpoint, if it is one of this chain: the line before its offset has its hash.
fn read_checkpoint(store: &dyn Store, bytes: &dyn LogBytes, len: u64) -> Option<(Chain, Checkpoint)> {
    let checkpoint: Checkpoint = serde_json::from_slice(&store.read(CHECKPOINT).ok()?).ok()?;
    if checkpoint.offset > len || checkpoint.offset == 0 {
        return None;
    }
    let prev: [u8; 32] = Sha256::digest(last_line(bytes, checkpoint.offset)?).into();
    let (covered, archives) = (checkpoint.covered.clone(), checkpoint.archives.clone());
    let chain = Chain { end: checkpoint.offset, seq: checkpoint.seq, prev, covered, archives };
    (hex(&prev) == checkpoint.prev).then_some((chain, checkpoint))
}

/// The line that ends at `end`, without its newline.
fn last_line(bytes: &dyn LogBytes, end: u64) -> Option<Vec<u8>> {
    let mut room = LAST_LINE;
    loop {
        let start = end.saturating_sub(room);
        let mut window = vec![0; usize::try_from(end - start).ok()?];
        bytes.read_exact_at(&mut window, start).ok()?;
        window.pop_if(|last| *last == b'\n')?;
        match window.iter().rposition(|&b| b == b'\n') {
            Some(before) => return Some(window.split_off(before + 1)),
            None if start == 0 => return Some(window),
            None => room = room.saturating_mul(16),
        }
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;

    fn exchange() -> (tempfile::TempDir, LocalStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path());
        store.make_dir("private/index", 0o700).unwrap();
        (dir, store)
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_with_and_without_its_checkpoint() {
        let (dir, store) = exchange();
        let Found { events, recent, appends, .. } = Events::open(&store, dir.path()).unwrap();
        assert!(recent.is_empty() && appends.is_empty());
        events
            .append(Timestamp(0), "append", &members! {"log": "decisions.jsonl", "start": 0, "end": 10})
            .unwrap();
        events.write_checkpoint(&store, events.position(0), Ledger::default()).unwrap();
        events
            .append(Timestamp(0), "append", &members! {"log": "decisions.jsonl", "start": 10, "end": 25})
            .unwrap();
        let head = events.head();

        let Found { events, appends, .. } = Events::open(&store, dir.path()).unwrap();
        assert_eq!((appends.len(), events.covered("decisions.jsonl"), events.head()), (1, 25, head.clone()));

        store.remove(CHECKPOINT).unwrap();
        let Found { events, appends, .. } = Events::open(&store, dir.path()).unwrap();
        assert_eq!((appends.len(), events.covered("decisions.jsonl"), events.head()), (2, 25, head));
    }

    #[test]
    fn a_torn_last_event_is_cut_and_an_edited_one_stops_the_mount() {
        let (dir, store) = exchange();
        let events = Events::open(&store, dir.path()).unwrap().events;
        for n in 0..3 {
            events.append(Timestamp(0), "mounted", &members! {"n": n}).unwrap();
        }
        let path = dir.path().join(PATH);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"seq\":4,")).unwrap();
        assert_eq!(Events::open(&store, dir.path()).unwrap().events.head().0, 3);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);

        std::fs::write(&path, whole.replace("\"n\":1", "\"n\":7")).unwrap();
        let error = Events::open(&store, dir.path()).err().unwrap().to_string();
        assert!(error.contains("hash chain breaks at event 3") && error.contains("mend:"), "{error}");
    }
}
