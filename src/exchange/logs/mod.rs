//! The append-only logs of an exchange, and how accepted lines reach the disk.
//!
//! `writer` follows one write(2) from the kernel to here; `admit` judges what it brings, `seal` signs what is
//! unsigned, and `deliver` commits it to its log and to everyone it is for.

mod admit;
mod bulk;
mod deliver;
mod lines;
mod rotate;
mod seal;
mod writer;

pub(super) use admit::Admitted;
pub(super) use bulk::Incoming;
pub(super) use deliver::{Stamp, id_of_object};
pub(super) use lines::for_each_line;
pub(super) use lines::line_id;
pub(super) use rotate::{Archived, hash_of, temp_path};
pub use writer::LogWriter;

use super::commit::GroupCommit;
use super::events::{Members, hex, members};
use super::replay::ReplayIndex;
use super::{Attempt, Attr, Caller, Denied, Durability, Exchange, NodeKind, Outcome, Reading};
use crate::rules;
use crate::store::LogBytes;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

pub use crate::rules::append::LogName;

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
    /// Bytes that were archived since the log was opened. Durability counts in positions, which never go
    /// back: these and the log's own.
    cut: u64,
    ids: ReplayIndex,
    unrecorded: VecDeque<Accepted>,
}

/// Bytes in the log that have no event yet.
struct Accepted {
    stamp: Stamp,
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

    /// The logs to list: all inboxes and outboxes, the shared logs, and the bilateral logs that exist.
    pub fn list_logs(&self) -> Vec<LogName> {
        let mut logs: Vec<LogName> = self.config.agents.keys().cloned().map(LogName::Inbox).collect();
        logs.extend(self.config.agents.keys().cloned().map(LogName::Outbox));
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
            LogName::Outbox(from) | LogName::Bilateral { from, .. } => self.agent_uid(from),
            _ => self.owner_uid,
        };
        let (mode, writers) = match log {
            LogName::Outbox(_) | LogName::Bilateral { .. } => (0o444, 0o200),
            _ => (0o444, 0o222),
        };
        // By its descriptor where it is open: the kernel asks before every append.
        let open = self.logs.open.read().get(log).map(|open| open.bytes.stat());
        match open.unwrap_or_else(|| self.store.stat(&log.path())) {
            Ok(stat) => {
                Some(Attr { uid: owner, mode: stat.mode & mode | writers, ..Attr::of(NodeKind::File, stat) })
            }
            Err(_) if matches!(log, LogName::Bilateral { .. }) => None,
            Err(_) => {
                Some(Attr { uid: owner, mode: mode | writers, ..Attr::empty(NodeKind::File, self.started) })
            }
        }
    }

    /// Opens for reading. Keep both for as long as it is open: an agent that has its own inbox open reads it.
    ///
    /// # Errors
    /// EACCES where the log's modes don't let a stranger read it.
    pub fn open_log_reader(&self, caller: &Caller, log: &LogName) -> Outcome<(Arc<File>, Option<Reading>)> {
        let attr = self.log_attr(log).ok_or_else(|| Denied::os(libc::ENOENT))?;
        self.check_readable(caller, &attr)?;
        Ok((self.log(log)?.bytes.file(), self.begin_reading(caller, log)))
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
            let what = format_args!("append to {path}");
            match log.only_writer() {
                Some(writer) => rules::identity::check_acts_for(&actor, writer, self.may_relay(&actor), what),
                None => rules::identity::check_takes_part(&actor, what),
            }
        })
        .map_err(|refusal| {
            self.refuse(caller, Attempt { operation: "open", path: &path, bytes: &[] }, refusal)
        })?;
        Ok(LogWriter::new(self.this(), self.log(log)?, caller.clone()))
    }

    /// Refuses an operation that no log allows (`truncate`, `unlink`, `rename`, `link`, `fallocate`,
    /// `chmod`, `chown`, `setxattr`, ...), as `append-only`.
    pub fn refuse_log_operation(&self, caller: &Caller, log: &LogName, operation: &'static str) -> Denied {
        let path = log.path();
        let refusal = rules::append::refuse_operation(&path, operation);
        self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal)
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
        let tail = Mutex::new(Tail { len, cut: 0, ids, unrecorded: VecDeque::new() });
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

    pub(super) fn open_logs(&self) -> Vec<Arc<Log>> {
        self.logs.open.read().values().cloned().collect()
    }
}

impl Tail {
    fn position(&self) -> u64 {
        self.cut + self.len
    }
}

impl Accepted {
    /// The members of its event.
    fn members(&self, log: &str) -> Members {
        members! {
            "log": log, "by": self.stamp.by.as_str(), "order": self.stamp.order, "lines": self.lines,
            "start": self.start, "end": self.end, "sha256": hex(&self.sha256),
        }
    }
}

impl Log {
    /// Makes the log durable up to a position as `durability` asks, and writes the events that cover it.
    fn settle(&self, exchange: &Exchange, end: u64, durability: Durability) -> io::Result<()> {
        if durability == Durability::Commit {
            self.commit.wait(end, || self.tail.lock().position(), || self.bytes.sync())?;
        }
        // What fails has been told and stays queued; the line itself is where it should be.
        let _ = self.record(exchange, end);
        Ok(())
    }

    /// Writes the events of accepted bytes up to a position. Where that fails, the bytes stay queued.
    fn record(&self, exchange: &Exchange, end: u64) -> io::Result<()> {
        let _order = self.recorder.lock();
        loop {
            let (stamp, members) = {
                let tail = self.tail.lock();
                match tail.unrecorded.front() {
                    Some(accepted) if tail.cut + accepted.end <= end => {
                        (accepted.stamp.clone(), accepted.members(&self.path))
                    }
                    _ => return Ok(()),
                }
            };
            if let Err(error) = exchange.events.append(stamp.at, stamp.event, &members) {
                tracing::error!(log = self.path, %error, "event not written; it is tried again with the next line");
                return Err(error);
            }
            self.tail.lock().unrecorded.pop_front();
        }
    }

    /// Everything accepted is on disk and has its event.
    pub(super) fn flush(&self, exchange: &Exchange) -> io::Result<()> {
        let end = {
            let mut tail = self.tail.lock();
            tail.ids.flush()?;
            tail.position()
        };
        self.commit.wait(end, || self.tail.lock().position(), || self.bytes.sync())?;
        self.record(exchange, end)
    }
}
