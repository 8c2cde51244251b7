//! One commit: the lines of a write go into their log and, in the same step, to everyone they are for.
//!
//! Under the ledger's lock: what the conversation says of them, replay, the log, the copies. Then, without
//! it: durability, events, and what follows. A crash in between is mended at the next start, which folds
//! the events of what reached its log once more and delivers what is missing.

use super::admit::Admitted;
use super::{Accepted, Log, LogName, Tail};
use crate::exchange::ledger::{Ledger, Owed};
use crate::exchange::replay::{ShortId, short};
use crate::exchange::{Actor, Denied, Durability, Exchange};
use crate::rules::conversation::limits::Ahead;
use crate::rules::conversation::{Charter, Conversation, Fact};
use crate::rules::{self, Refusal, Rule};
use crate::wire::canonical;
use crate::wire::json;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// Longest line that goes into an inbox over its quota.
const URGENT_BYTES: usize = 2048;

/// Lines as they are appended in one piece.
struct Block {
    bytes: Vec<u8>,
    /// Each line's id, and where it ends in `bytes`.
    lines: Vec<(ShortId, u64)>,
    sha256: [u8; 32],
}

impl Block {
    fn of<'a>(lines: impl Iterator<Item = &'a Admitted>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for admitted in lines {
            bytes.extend_from_slice(&admitted.line);
            bytes.push(b'\n');
            ends.push((admitted.id, bytes.len() as u64));
        }
        let sha256 = Sha256::digest(&bytes).into();
        Block { bytes, lines: ends, sha256 }
    }
}

/// Of which commit some bytes are, for their event.
#[derive(Clone)]
pub(in crate::exchange) struct Stamp {
    pub event: &'static str,
    pub by: String,
    pub order: u64,
    pub at: Timestamp,
}

/// What a write did: the log that it was for, the logs that got copies, and the position of each one's end.
pub(super) struct Committed {
    source: (Arc<Log>, u64),
    copies: Vec<(Arc<Log>, u64)>,
}

impl Exchange {
    /// Commits what was admitted by `trust`. All of it, or nothing.
    ///
    /// # Errors
    /// `replay`, `quota`, the rules of the conversation, `revoked-key` and `tier` where the trust list has changed since;
    /// the disk's.
    pub(super) fn commit(
        &self,
        log: &Arc<Log>,
        actor: &Actor,
        admitted: &[Admitted],
        trust: &Arc<TrustList>,
    ) -> Result<Committed, Denied> {
        let charter = self.charter();
        let copies = self.copies(log, admitted)?;
        let whole = Block::of(admitted.iter());

        let mut ledger = self.ledger.lock();
        let at = self.now();
        let due = ledger.conversation.tick(at);
        ledger.pending.extend(due);
        let now_trusted = self.trust();
        if !Arc::ptr_eq(trust, &now_trusted) {
            recheck(admitted, &now_trusted)?;
        }
        check_conversation(&ledger.conversation, admitted, at, &charter)?;
        self.check_quotas(log, &whole, &copies, admitted, at)?;
        let order = ledger.order + 1;
        let stamp = Stamp { event: "append", by: actor.to_string(), order, at };
        let end = {
            let mut tail = log.tail.lock();
            // Before replay: of a line that may be lost nobody is told that it was delivered.
            log.commit.check()?;
            check_replay(log, &tail, admitted)?;
            log.put(&mut tail, &whole, &stamp)?
        };
        ledger.order = order;
        let stamp = Stamp { event: "delivered", ..stamp };
        let copies = copies.into_iter();
        let copies = copies.filter_map(|(log, block)| put_missing(&mut ledger, log, block, &stamp)).collect();
        for line in admitted {
            let effects = ledger.conversation.observe(&line.fact(at), &charter);
            ledger.pending.extend(effects);
        }
        Ok(Committed { source: (Arc::clone(log), end), copies })
    }

    /// Rule `quota` for the inboxes that a commit would make longer. A full inbox must not keep anybody from telling
    /// of an incident, or from acking it in time: what is short and needed for that has as much room again.
    fn check_quotas(
        &self,
        log: &Arc<Log>,
        whole: &Block,
        copies: &[(Arc<Log>, Block)],
        admitted: &[Admitted],
        at: Timestamp,
    ) -> Result<(), Refusal> {
        let most = if admitted.iter().all(Admitted::is_urgent) {
            self.config.inbox_bytes.saturating_mul(2)
        } else {
            self.config.inbox_bytes
        };
        let grown = copies.iter().map(|(log, block)| (log, block)).chain([(log, whole)]);
        for (log, block) in grown {
            let (len, adding) = (log.tail.lock().len, block.bytes.len() as u64);
            rules::archive::check_quota(&log.name, len, adding, most, at)?;
        }
        Ok(())
    }

    /// Makes a commit durable as the exchange is asked to, writes its events and carries out what follows.
    ///
    /// With the log that it was written to, a commit is durable: a start makes the copies again that a power cut
    /// took. So nobody waits for them; they are synced within a second, and then get their events.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn settle(&self, committed: &Committed) -> io::Result<()> {
        let (log, end) = &committed.source;
        log.settle(self, *end, self.durability)?;
        if self.durability == Durability::Os {
            for (copy, end) in &committed.copies {
                copy.settle(self, *end, self.durability)?;
            }
        }
        self.carry_out_pending();
        Ok(())
    }

    /// Syncs what was copied to logs, and writes its events. Called about once a second.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn settle_copies(&self) -> io::Result<()> {
        let mut result = Ok(());
        for log in self.open_logs() {
            let end = {
                let tail = log.tail.lock();
                tail.unrecorded.back().map(|last| tail.cut + last.end)
            };
            if let Some(end) = end {
                // One log that failed keeps no other waiting.
                result = result.and(log.settle(self, end, self.durability));
            }
        }
        result
    }

    /// The logs that get copies of what is written to `log`, with the lines that each one gets.
    fn copies(&self, log: &Log, admitted: &[Admitted]) -> io::Result<Vec<(Arc<Log>, Block)>> {
        let mut lines: BTreeMap<LogName, Vec<&Admitted>> = BTreeMap::new();
        for line in admitted {
            for target in line.copies_to(&log.name) {
                lines.entry(target).or_default().push(line);
            }
        }
        lines.into_iter().map(|(name, lines)| Ok((self.log(&name)?, Block::of(lines.into_iter())))).collect()
    }

    /// Brings one line to a log that does not have it yet; durable and with its event when it returns.
    pub(in crate::exchange) fn deliver_line(&self, name: &LogName, line: &str) -> io::Result<()> {
        let log = self.log(name)?;
        let id = super::lines::line_id(line.as_bytes()).ok_or_else(|| io::Error::other("no JSON object"))?;
        let bytes = [line.as_bytes(), b"\n"].concat();
        let sha256 = Sha256::digest(&bytes).into();
        let end = bytes.len() as u64;
        let block = Block { bytes, lines: vec![(id, end)], sha256 };
        let end = {
            let ledger = self.ledger.lock();
            let stamp =
                Stamp { event: "delivered", by: "exchange".into(), order: ledger.order, at: self.now() };
            let mut tail = log.tail.lock();
            log.commit.check()?;
            if tail.ids.contains(&id) {
                return Ok(());
            }
            log.put(&mut tail, &block, &stamp)?
        };
        log.settle(self, end, self.durability)
    }

    /// Brings a line of a commit that a crash cut short to the logs that lack it.
    pub(in crate::exchange) fn deliver_again(
        &self,
        ledger: &mut Ledger,
        source: &LogName,
        line: &Admitted,
        stamp: &Stamp,
    ) -> io::Result<()> {
        for target in line.copies_to(source) {
            let log = self.log(&target)?;
            let block = Block::of(std::iter::once(line));
            if let Some((log, end)) = put_missing(ledger, log, block, stamp) {
                tracing::info!(log = log.path, "a line that a crash kept back was delivered");
                log.settle(self, end, self.durability)?;
            }
        }
        Ok(())
    }
}

/// Appends the lines that a log lacks. Where the disk has no room they are owed: the commit stands, for it is
/// in the log that it was written to.
fn put_missing(ledger: &mut Ledger, log: Arc<Log>, block: Block, stamp: &Stamp) -> Option<(Arc<Log>, u64)> {
    let mut tail = log.tail.lock();
    let missing = block.without(&tail);
    if missing.lines.is_empty() {
        return None;
    }
    if log.commit.check().is_err() {
        // Only a start brings this log back, and it delivers what is missing.
        return None;
    }
    // What is owed already comes first.
    let put = if ledger.owed.iter().any(|owed| owed.log == log.path) {
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    } else {
        log.put(&mut tail, &missing, stamp)
    };
    drop(tail);
    match put {
        Ok(end) => Some((log, end)),
        Err(error) => {
            tracing::error!(log = log.path, %error, "lines could not be delivered yet; it is tried again");
            for line in String::from_utf8_lossy(&missing.bytes).lines() {
                let (log, line) = (log.path.clone(), line.to_owned());
                ledger.owed.push(Owed { log, line, order: stamp.order });
            }
            None
        }
    }
}

impl Block {
    /// Without the lines that a log has.
    fn without(self, tail: &Tail) -> Self {
        if !self.lines.iter().any(|(id, _)| tail.ids.contains(id)) {
            return self;
        }
        let (mut bytes, mut lines, mut start) = (Vec::new(), Vec::new(), 0);
        for (id, end) in &self.lines {
            let at = usize::try_from(*end).unwrap_or(usize::MAX);
            if !tail.ids.contains(id) {
                bytes.extend_from_slice(&self.bytes[start..at]);
                lines.push((*id, bytes.len() as u64));
            }
            start = at;
        }
        let sha256 = Sha256::digest(&bytes).into();
        Block { bytes, lines, sha256 }
    }
}

/// What the conversation says of each line, after those before it in the same write.
pub(super) fn check_conversation(
    conversation: &Conversation,
    admitted: &[Admitted],
    at: Timestamp,
    charter: &Charter,
) -> Result<(), Refusal> {
    let mut ahead: HashMap<&AgentName, Ahead> = HashMap::new();
    for line in admitted {
        let ahead = ahead.entry(&line.message.from).or_default();
        conversation.check(&line.fact(at), *ahead, charter)?;
        ahead.count(&line.message);
    }
    Ok(())
}

/// What may have changed since the lines were admitted: their keys and their authors' tiers.
fn recheck(admitted: &[Admitted], trust: &TrustList) -> Result<(), Refusal> {
    for line in admitted {
        match &line.key {
            Some(key) => drop(line.message.recheck(key, trust)?),
            None => line.message.check_not_blocked(trust)?,
        }
    }
    Ok(())
}

fn check_replay(log: &Log, tail: &Tail, admitted: &[Admitted]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    let Some(at) = admitted.iter().position(|a| tail.ids.contains(&a.id) || !seen.insert(a.id)) else {
        return Ok(());
    };
    let which =
        if admitted.len() > 1 { format!(" (object {} of this write)", at + 1) } else { String::new() };
    let advice = format!(
        "{} already holds this message{which}. It was delivered; don't send it again. A new message needs its \
         own timestamp or body.",
        log.path
    );
    Err(Refusal::new(Rule::Replay, advice))
}

impl Log {
    /// Appends at the end and returns the new position. The caller has found that nothing in it is a replay.
    fn put(&self, tail: &mut Tail, block: &Block, stamp: &Stamp) -> io::Result<u64> {
        let start = tail.len;
        self.bytes.append_at(start, &block.bytes)?;
        tail.len = start + block.bytes.len() as u64;
        for (id, end) in &block.lines {
            if let Err(error) = tail.ids.insert(*id, start + end) {
                tracing::warn!(log = self.path, %error, "replay index not written; it will be rebuilt");
            }
        }
        tail.unrecorded.push_back(Accepted {
            stamp: stamp.clone(),
            lines: block.lines.len(),
            start,
            end: tail.len,
            sha256: block.sha256,
        });
        Ok(tail.position())
    }
}

impl Admitted {
    /// What the conversation sees of it.
    pub fn fact(&self, at: Timestamp) -> Fact<'_> {
        Fact { at, message: &self.message, to: &self.to, tier: self.tier }
    }

    /// Whether it is a short ack, incident or heartbeat.
    fn is_urgent(&self) -> bool {
        let message = &self.message;
        let is_urgent = message.is_heartbeat() || matches!(&*message.message_type, "ack" | "incident");
        is_urgent && self.line.len() <= URGENT_BYTES
    }

    /// The logs that get a copy of it when it stands in `source`.
    fn copies_to(&self, source: &LogName) -> Vec<LogName> {
        let inboxes = self.to.iter().cloned().map(LogName::Inbox);
        let mirror = (self.message.message_type == "incident").then_some(LogName::Incidents);
        inboxes.chain(mirror).filter(|target| target != source).collect()
    }
}

/// What identifies a line that is no message: a decision is the one of its proposal, whenever it was entered;
/// anything else is the sha256 of its canonical form.
pub(in crate::exchange) fn id_of_object(object: json::Object) -> ShortId {
    let evidence = object.get("evidence").and_then(json::Value::as_object);
    let proposal = evidence.and_then(|evidence| evidence.get("proposal")).and_then(json::Value::as_str);
    let text = match proposal {
        Some(proposal) => format!("decision of {proposal}"),
        None => canonical::utf8(&json::Value::Object(object)),
    };
    short(&Sha256::digest(text).into())
}
