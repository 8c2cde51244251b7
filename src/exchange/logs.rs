//! The append-only logs: who may append what, and how it reaches the disk.
//!
//! One write(2) goes: check the offset, split the stream into objects, admit each one (schema,
//! authority, signature, limits; no lock held), then under the log's lock: replay, append. Then
//! durability, then the event that covers the bytes.

use super::commit::GroupCommit;
use super::events::{hex, members};
use super::replay::{ReplayIndex, ShortId, short};
use super::{Actor, Attempt, Attr, Caller, Denied, Durability, Exchange, NodeKind, Outcome};
use crate::rules::{self, Refusal, Rule};
use crate::store::LogBytes;
use crate::wire::json::{Object, ObjectStream, StreamedObject};
use crate::wire::message::Message;
use crate::wire::trust::Tier;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

pub use crate::rules::append::LogName;

/// Longest incomplete object that a descriptor may hold, in bytes; TRUSTED agents have no limit of their own.
const MAX_PENDING: usize = 16 * 1024 * 1024;
/// From this many objects in one write on, signatures are checked on several cores.
const PARALLEL_FROM: usize = 8;

/// An object that every rule but replay lets into the log.
struct Admitted {
    line: Vec<u8>,
    id: ShortId,
}

/// The logs of an exchange, opened at first use.
#[derive(Default)]
pub(super) struct Logs {
    open: RwLock<BTreeMap<LogName, Arc<Log>>>,
}

/// One open log.
pub(super) struct Log {
    name: LogName,
    path: String,
    bytes: Arc<dyn LogBytes>,
    tail: Mutex<Tail>,
    commit: GroupCommit,
    /// Held while accepted bytes get their events, so that events of one log are in its order.
    recorder: Mutex<()>,
}

struct Tail {
    len: u64,
    ids: ReplayIndex,
    unrecorded: VecDeque<Accepted>,
}

/// Bytes in the log that have no event yet.
struct Accepted {
    by: String,
    lines: usize,
    start: u64,
    end: u64,
    sha256: [u8; 32],
}

impl Exchange {
    /// The log at a path of the tree (without `_coordination/`), if its agents are known here.
    /// It need not exist on disk yet.
    pub fn find_log(&self, path: &str) -> Option<LogName> {
        LogName::parse(path, |agent| self.config.agents.contains_key(agent))
    }

    /// The logs to list: all inboxes, the shared logs, and the bilateral logs that exist.
    pub fn list_logs(&self) -> Vec<LogName> {
        let mut logs: Vec<LogName> = self.config.agents.keys().cloned().map(LogName::Inbox).collect();
        logs.push(LogName::Decisions);
        logs.push(LogName::Incidents);
        let at_top = self.store.list("").unwrap_or_default();
        logs.extend(
            at_top
                .iter()
                .filter_map(|name| self.find_log(name))
                .filter(|log| matches!(log, LogName::Bilateral { .. })),
        );
        logs
    }

    /// What stat() shows. `None`: it does not exist yet (bilateral logs before their first open for
    /// writing; inboxes and shared logs always exist).
    pub fn log_attr(&self, log: &LogName) -> Option<Attr> {
        let owner = match log {
            LogName::Inbox(agent) => self.agent_uid(agent),
            LogName::Bilateral { from, .. } => self.agent_uid(from),
            _ => self.owner_uid,
        };
        let (mode, writers) = match log {
            LogName::Bilateral { .. } => (0o444, 0o200),
            _ => (0o444, 0o222),
        };
        match self.store.stat(&log.path()) {
            Ok(stat) => {
                Some(Attr { uid: owner, mode: stat.mode & mode | writers, ..Attr::of(NodeKind::File, stat) })
            }
            Err(_) if matches!(log, LogName::Bilateral { .. }) => None,
            Err(_) => {
                Some(Attr { uid: owner, mode: mode | writers, ..Attr::empty(NodeKind::File, self.started) })
            }
        }
    }

    /// Opens for reading.
    ///
    /// # Errors
    /// EACCES where the log's modes don't let a stranger read it.
    pub fn open_log_reader(&self, caller: &Caller, log: &LogName) -> Outcome<Arc<File>> {
        let attr = self.log_attr(log).ok_or_else(|| Denied::os(libc::ENOENT))?;
        self.check_readable(caller, &attr)?;
        Ok(self.log(log)?.bytes.file())
    }

    /// Opens for appending; makes the log where it doesn't exist. `flags` are open(2)'s.
    ///
    /// # Errors
    /// `append-only` for O_RDWR and O_TRUNC, `authority` for who may not append here.
    pub fn open_log_writer(&self, caller: &Caller, log: &LogName, flags: i32) -> Outcome<LogWriter> {
        let path = log.path();
        let actor = self.actor(caller);
        let read_write = flags & libc::O_ACCMODE == libc::O_RDWR;
        rules::append::check_open(
            &path,
            read_write,
            flags & libc::O_TRUNC != 0 && self.log_attr(log).is_some(),
        )
        .and_then(|()| {
            let what = format!("append to {path}");
            match log.only_writer() {
                Some(writer) => {
                    rules::identity::check_acts_for(&actor, writer, self.may_relay(&actor), &what)
                }
                None => rules::identity::check_takes_part(&actor, &what),
            }
        })
        .map_err(|refusal| {
            self.refuse(caller, Attempt { operation: "open", path: &path, bytes: &[] }, refusal)
        })?;
        Ok(LogWriter {
            exchange: self.this(),
            log: self.log(log)?,
            opener: caller.clone(),
            stream: Mutex::new(WriterState { objects: ObjectStream::new(), last_write_end: None }),
        })
    }

    /// Refuses an operation that no log allows (`truncate`, `unlink`, `rename`, `link`, `fallocate`,
    /// `chmod`, `chown`, `setxattr`, ...), as `append-only`.
    pub fn refuse_log_operation(&self, caller: &Caller, log: &LogName, operation: &'static str) -> Denied {
        let path = log.path();
        let refusal = rules::append::refuse_operation(&path, operation);
        self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal)
    }

    /// How many lines a log is known to hold.
    pub fn log_lines(&self, log: &LogName) -> Option<usize> {
        Some(self.logs.open.read().get(log)?.tail.lock().ids.len())
    }

    pub(super) fn log(&self, name: &LogName) -> io::Result<Arc<Log>> {
        if let Some(log) = self.logs.open.read().get(name) {
            return Ok(Arc::clone(log));
        }
        let mut open = self.logs.open.write();
        if let Some(log) = open.get(name) {
            return Ok(Arc::clone(log));
        }
        let path = name.path();
        let bytes = self.store.open_log(&path, true)?;
        let len = bytes.len()?;
        let ids = self.index_up_to(name, &*bytes, len)?;
        let tail = Mutex::new(Tail { len, ids, unrecorded: VecDeque::new() });
        let log = Arc::new(Log {
            name: name.clone(),
            path,
            bytes,
            tail,
            commit: GroupCommit::default(),
            recorder: Mutex::new(()),
        });
        open.insert(name.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// The ids of a log's first `len` bytes, from its index as far as that goes.
    pub(super) fn index_up_to(
        &self,
        name: &LogName,
        bytes: &dyn LogBytes,
        len: u64,
    ) -> io::Result<ReplayIndex> {
        let file = format!("{}.ids", name.path().replace('/', "%2F"));
        let mut ids = ReplayIndex::open(&self.layout.index().join(file), len)?;
        if !ends_with_the_indexed_line(bytes, &ids)? {
            tracing::warn!(log = name.path(), "the replay index is of another log; it is rebuilt");
            ids.clear()?;
        }
        index_lines(bytes, &mut ids, len)?;
        ids.flush()?;
        Ok(ids)
    }

    pub(super) fn open_logs(&self) -> Vec<Arc<Log>> {
        self.logs.open.read().values().cloned().collect()
    }

    /// Everything that can be judged without the log: schema, authority, signature, limits.
    fn admit(&self, log: &LogName, actor: &Actor, streamed: StreamedObject) -> Result<Admitted, Refusal> {
        let message = Message::from_object(streamed.object)?;
        rules::append::check_author(log, actor, self.may_relay(actor), &message.from)?;
        let id = message.id;
        let (now, config) = (self.now(), &self.config);
        let check = |message: &Message, tier| {
            rules::append::check_line(streamed.line.len(), tier, config.max_body_bytes)?;
            rules::append::check_limits(message, tier, now, config.clock_skew_seconds, config.max_body_bytes)
        };
        if !message.is_signed() && config.allow_unsigned_from.contains(&message.from) {
            check(&message, Tier::Verified)?;
        } else {
            let verified = message.verify(&self.trust())?;
            check(verified.message(), verified.tier())?;
        }
        Ok(Admitted { line: streamed.line, id: short(&id) })
    }

    /// Rule `size`, as soon as an incomplete object breaks it: what is parsed of it takes many times its
    /// bytes of memory. Who may relay may be writing for a TRUSTED agent.
    fn check_pending(&self, actor: &Actor, pending: usize) -> Result<(), Refusal> {
        let Actor::Agent(agent) = actor else { return Ok(()) };
        if self.may_relay(actor) {
            return Ok(());
        }
        let tier = self.trust().agents.get(agent).map_or(Tier::Untrusted, |entry| entry.tier);
        rules::append::check_line(pending, tier, self.config.max_body_bytes)
    }

    fn admit_all(
        &self,
        log: &LogName,
        actor: &Actor,
        objects: Vec<StreamedObject>,
    ) -> Result<Vec<Admitted>, Refusal> {
        let cores = self.cores;
        if objects.len() < PARALLEL_FROM || cores == 1 {
            return objects.into_iter().map(|object| self.admit(log, actor, object)).collect();
        }
        let share = objects.len().div_ceil(cores);
        let mut objects = objects.into_iter();
        let shares: Vec<Vec<_>> = std::iter::from_fn(|| {
            let part: Vec<_> = objects.by_ref().take(share).collect();
            (!part.is_empty()).then_some(part)
        })
        .collect();
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            let mut shares = shares.into_iter();
            let first = shares.next().unwrap_or_default();
            for part in shares {
                workers.push(scope.spawn(move || {
                    part.into_iter().map(|o| self.admit(log, actor, o)).collect::<Result<Vec<_>, _>>()
                }));
            }
            let mut all: Vec<Admitted> =
                first.into_iter().map(|o| self.admit(log, actor, o)).collect::<Result<_, _>>()?;
            for worker in workers {
                match worker.join() {
                    Ok(part) => all.extend(part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(all)
        })
    }
}

impl Log {
    /// Under the log's lock: replay, then append. Returns the log's new end.
    fn append(&self, by: &Actor, admitted: &[Admitted]) -> Result<u64, Denied> {
        let mut block = Vec::with_capacity(admitted.iter().map(|a| a.line.len() + 1).sum());
        let mut ends = Vec::with_capacity(admitted.len());
        for line in admitted {
            block.extend_from_slice(&line.line);
            block.push(b'\n');
            ends.push(block.len() as u64);
        }
        let sha256 = Sha256::digest(&block).into();
        let mut seen = HashSet::new();
        let mut tail = self.tail.lock();
        // Before replay: of a line that may be lost nobody is told that it was delivered.
        self.commit.check()?;
        if let Some(at) = admitted.iter().position(|a| tail.ids.contains(&a.id) || !seen.insert(a.id)) {
            let advice = format!(
                "{} already holds this message{}. It was delivered; don't send it again. \
                 A new message needs its own timestamp or body.",
                self.path,
                if admitted.len() > 1 {
                    format!(" (object {} of this write)", at + 1)
                } else {
                    String::new()
                }
            );
            return Err(Denied::Refused(Refusal::new(Rule::Replay, advice)));
        }
        let start = tail.len;
        self.bytes.append_at(start, &block)?;
        tail.len = start + block.len() as u64;
        for (line, end) in admitted.iter().zip(ends) {
            if let Err(error) = tail.ids.insert(line.id, start + end) {
                tracing::warn!(log = self.path, %error, "replay index not written; it will be rebuilt");
            }
        }
        let accepted = Accepted { by: by.to_string(), lines: admitted.len(), start, end: tail.len, sha256 };
        tail.unrecorded.push_back(accepted);
        Ok(tail.len)
    }

    /// Makes the log durable up to `end` as `durability` asks, and writes the events that cover it.
    fn settle(&self, exchange: &Exchange, end: u64, durability: Durability) -> io::Result<()> {
        if durability == Durability::Commit {
            self.commit.wait(end, || self.tail.lock().len, || self.bytes.sync())?;
        }
        self.record(exchange, end);
        Ok(())
    }

    /// Writes the events of accepted bytes up to `end`. Where that fails, the bytes stay queued.
    fn record(&self, exchange: &Exchange, end: u64) {
        let _order = self.recorder.lock();
        loop {
            let members = {
                let tail = self.tail.lock();
                match tail.unrecorded.front() {
                    Some(accepted) if accepted.end <= end => members! {
                        "log": self.path.as_str(), "by": accepted.by.as_str(), "lines": accepted.lines,
                        "start": accepted.start, "end": accepted.end, "sha256": hex(&accepted.sha256),
                    },
                    _ => return,
                }
            };
            if let Err(error) = exchange.events.append(exchange.now(), "append", &members) {
                tracing::error!(log = self.path, %error, "event not written; it is tried again with the next line");
                return;
            }
            self.tail.lock().unrecorded.pop_front();
        }
    }

    /// Before a checkpoint: everything accepted gets its event and is on disk.
    pub(super) fn flush(&self, exchange: &Exchange) -> io::Result<()> {
        let end = {
            let mut tail = self.tail.lock();
            tail.ids.flush()?;
            tail.len
        };
        self.settle(exchange, end, Durability::Commit)
    }
}

/// An open descriptor that appends to a log.
pub struct LogWriter {
    exchange: Arc<Exchange>,
    log: Arc<Log>,
    opener: Caller,
    stream: Mutex<WriterState>,
}

struct WriterState {
    objects: ObjectStream,
    last_write_end: Option<u64>,
}

impl LogWriter {
    /// One write(2): every object that it completes is accepted, or none is.
    /// `append`: the descriptor says O_APPEND. Returns the bytes taken: all of `data`.
    ///
    /// # Errors
    /// The refusal of the first object that breaks a rule; the incomplete object is then dropped
    /// (kept in quarantine together with `data`).
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let (log, exchange) = (&self.log, &self.exchange);
        let mut stream = self.stream.lock();
        let log_end = log.tail.lock().len;
        if let Err(refusal) =
            rules::append::check_write(&log.path, append, offset, log_end, stream.last_write_end)
        {
            drop(stream);
            return Err(self.refuse(caller, "write", data, refusal));
        }
        let actor = exchange.actor(caller);
        let before = stream.objects.pending().to_vec();
        let split = stream.objects.push(data).map_err(Refusal::from).and_then(|objects| {
            if stream.objects.pending().len() > MAX_PENDING {
                let advice =
                    format!("An object of more than {MAX_PENDING} bytes. Put the content in a file.");
                return Err(Refusal::new(Rule::Size, advice));
            }
            exchange.check_pending(&actor, stream.objects.pending().len())?;
            Ok(objects)
        });
        stream.last_write_end = Some(offset + data.len() as u64);
        // The rest is decided without the descriptor's lock: another thread may write meanwhile.
        drop(stream);
        let outcome = split.and_then(|objects| exchange.admit_all(&log.name, &actor, objects));
        let appended = match outcome {
            Ok(admitted) if admitted.is_empty() => return Ok(data.len()),
            Ok(admitted) => log.append(&actor, &admitted),
            Err(refusal) => Err(Denied::Refused(refusal)),
        };
        match appended {
            Ok(end) => {
                log.settle(exchange, end, exchange.durability)?;
                Ok(data.len())
            }
            Err(denied) => {
                {
                    let mut stream = self.stream.lock();
                    stream.objects.take_pending();
                    stream.last_write_end = None;
                }
                match denied {
                    Denied::Refused(refusal) => {
                        let mut bytes = before;
                        bytes.extend_from_slice(data);
                        Err(self.refuse(caller, "write", &bytes, refusal))
                    }
                    io => Err(io),
                }
            }
        }
    }

    /// One close(2) of possibly many: tells the opener of the descriptor about an incomplete object.
    /// Another process may have the descriptor too (a shell's redirection around several commands),
    /// so the object is dropped at the last close only.
    ///
    /// # Errors
    /// `partial`, if the process that opened the descriptor closes it inside an object.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let incomplete = !self.stream.lock().objects.pending().is_empty();
        if incomplete && super::same_process(caller.pid, self.opener.pid) {
            return Err(Denied::Refused(self.partial()));
        }
        Ok(())
    }

    /// fsync(2): durable whatever the mount's `--durability`.
    ///
    /// # Errors
    /// The disk's.
    pub fn fsync(&self) -> Outcome<()> {
        let end = self.log.tail.lock().len;
        Ok(self.log.settle(&self.exchange, end, Durability::Commit)?)
    }

    /// The last close: what is left incomplete is recorded as `partial`.
    pub fn release(&self) {
        let rest = self.stream.lock().objects.take_pending();
        if !rest.is_empty() {
            let opener = self.opener.clone();
            let _ = self.refuse(&opener, "close", &rest, self.partial());
        }
    }

    /// The log's own open file, for reading and for kernel passthrough; the same for every
    /// reader and writer of one log as long as the exchange is open.
    pub fn backing(&self) -> Arc<File> {
        self.log.bytes.file()
    }

    fn partial(&self) -> Refusal {
        Refusal::new(
            Rule::Partial,
            format!(
                "The last object written to {} is incomplete. Write the whole object again.",
                self.log.path
            ),
        )
    }

    fn refuse(&self, caller: &Caller, operation: &'static str, bytes: &[u8], refusal: Refusal) -> Denied {
        self.exchange.refuse(caller, Attempt { operation, path: &self.log.path, bytes }, refusal)
    }
}

fn one_object(line: &[u8]) -> Result<StreamedObject, Refusal> {
    let mut stream = ObjectStream::new();
    let mut objects = stream.push(line)?;
    match objects.pop() {
        Some(object) if objects.is_empty() && stream.pending().is_empty() => Ok(object),
        _ => Err(Refusal::new(Rule::Json, "Not exactly one JSON object.")),
    }
}

/// Whether the line that ends where the index ends is the one it knows. A log restored from a backup
/// would otherwise be judged by another log's index.
fn ends_with_the_indexed_line(bytes: &dyn LogBytes, ids: &ReplayIndex) -> io::Result<bool> {
    let Some(last) = ids.last() else { return Ok(true) };
    let mut window = 4096;
    loop {
        let start = ids.end().saturating_sub(window);
        let mut chunk = vec![0; usize::try_from(ids.end() - start).map_err(io::Error::other)?];
        bytes.read_exact_at(&mut chunk, start)?;
        let Some(chunk) = chunk.strip_suffix(b"\n") else { return Ok(false) };
        match chunk.iter().rposition(|&b| b == b'\n') {
            None if start > 0 => window *= 4,
            found => {
                let line = &chunk[found.map_or(0, |at| at + 1)..];
                return Ok(line_id(line) == Some(last));
            }
        }
    }
}

/// The id of a stored line; `None` if it is no message.
fn line_id(line: &[u8]) -> Option<ShortId> {
    let object: Object = one_object(line).ok()?.object;
    Some(short(&Message::from_object(object).ok()?.id))
}

/// Reads the lines that the index doesn't know yet. A line that is no message has no id; the judgement
/// of such lines is recovery's and verify's.
fn index_lines(bytes: &dyn LogBytes, ids: &mut ReplayIndex, len: u64) -> io::Result<()> {
    for_each_line(bytes, ids.end(), len, |line, end| match line_id(line) {
        Some(id) => ids.insert(id, end),
        None => Ok(()),
    })
}

/// Calls `each` with every complete line (without newline) between two offsets and the offset behind it.
pub(super) fn for_each_line(
    bytes: &dyn LogBytes,
    from: u64,
    to: u64,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut line: Vec<u8> = Vec::new();
    let mut at = from;
    while at < to {
        let size = CHUNK.min(to - at);
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
        bytes.read_exact_at(&mut chunk, at)?;
        let mut start = 0;
        while let Some(found) = chunk[start..].iter().position(|&b| b == b'\n') {
            let end = start + found;
            if line.is_empty() {
                each(&chunk[start..end], at + end as u64 + 1)?;
            } else {
                line.extend_from_slice(&chunk[start..end]);
                each(&line, at + end as u64 + 1)?;
                line.clear();
            }
            start = end + 1;
        }
        line.extend_from_slice(&chunk[start..]);
        at += size;
    }
    Ok(())
}
