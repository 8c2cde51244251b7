//! The append-only logs: who may append what, and how it reaches the disk.

use super::{Attr, Caller, Denied, Exchange, Outcome};
use crate::wire::name::AgentName;
use std::fs::File;
use std::sync::Arc;

/// A log's name; valid for the exchange that gave it out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// `inbox/<agent>.jsonl`
    Inbox(AgentName),
    /// `<from>_to_<to>.jsonl`
    Bilateral {
        /// Only this agent appends.
        from: AgentName,
        /// For this agent.
        to: AgentName,
    },
    /// `decisions.jsonl`
    Decisions,
    /// `incident_log.jsonl`
    Incidents,
}

impl LogName {
    /// Its path in the tree, and under the exchange's folder.
    pub fn path(&self) -> String {
        match self {
            LogName::Inbox(agent) => format!("inbox/{agent}.jsonl"),
            LogName::Bilateral { from, to } => format!("{from}_to_{to}.jsonl"),
            LogName::Decisions => "decisions.jsonl".into(),
            LogName::Incidents => "incident_log.jsonl".into(),
        }
    }
}

/// An open descriptor that appends to a log. Dropping it without [`LogWriter::release`] loses
/// nothing but the record of an incomplete object.
pub struct LogWriter {
    _todo: (),
}

impl LogWriter {
    /// One write(2): every object that it completes is accepted, or none is.
    /// `append`: the descriptor says O_APPEND. Returns the bytes taken: all of `data`.
    ///
    /// # Errors
    /// The refusal of the first object that breaks a rule; the incomplete object is then dropped
    /// (kept in quarantine together with `data`).
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let _ = (caller, offset, append, data);
        todo!()
    }
    /// One close(2) of possibly many: tells the opener of the descriptor about an incomplete object.
    ///
    /// # Errors
    /// `partial`, if the process that opened the descriptor closes it inside an object.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let _ = caller;
        todo!()
    }
    /// fsync(2).
    ///
    /// # Errors
    /// The disk's.
    pub fn fsync(&self) -> Outcome<()> {
        todo!()
    }
    /// The last close: what is left incomplete is recorded as `partial`.
    pub fn release(&self) {
        todo!()
    }
    /// The log's own open file, for reading and for kernel passthrough; the same for every
    /// reader and writer of one log as long as the exchange is open.
    pub fn backing(&self) -> Arc<File> {
        todo!()
    }
}

impl Exchange {
    /// The log at a path of the tree (without `_coordination/`), if its agents are known here.
    /// It need not exist on disk yet.
    pub fn find_log(&self, path: &str) -> Option<LogName> {
        let _ = path;
        todo!()
    }
    /// The logs to list: all inboxes, the shared logs, and the bilateral logs that exist.
    pub fn list_logs(&self) -> Vec<LogName> {
        todo!()
    }
    /// What stat() shows. `None`: it does not exist yet (bilateral logs before their first open for
    /// writing; inboxes and shared logs always exist).
    pub fn log_attr(&self, log: &LogName) -> Option<Attr> {
        let _ = log;
        todo!()
    }
    /// Opens for reading.
    ///
    /// # Errors
    /// EACCES where the log's modes don't let a stranger read it.
    pub fn open_log_reader(&self, caller: &Caller, log: &LogName) -> Outcome<Arc<File>> {
        let _ = (caller, log);
        todo!()
    }
    /// Opens for appending; makes the log where it doesn't exist. `flags` are open(2)'s.
    ///
    /// # Errors
    /// `append-only` for O_RDWR and O_TRUNC, `authority` for who may not append here.
    pub fn open_log_writer(&self, caller: &Caller, log: &LogName, flags: i32) -> Outcome<LogWriter> {
        let _ = (caller, log, flags);
        todo!()
    }
    /// Refuses an operation that no log allows (`truncate`, `unlink`, `rename`, `link`, `fallocate`,
    /// `chmod`, `chown`, `setxattr`, ...), as `append-only`.
    pub fn refuse_log_operation(&self, caller: &Caller, log: &LogName, operation: &'static str) -> Denied {
        let _ = (caller, log, operation);
        todo!()
    }
}
