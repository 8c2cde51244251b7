//! How many lines an agent has not read yet: those that came to its inbox since it last had it open for reading.
//!
//! Nothing is done for it on the way of an append: the lines behind the place where the agent stopped are counted
//! when somebody asks, and only once each.

use super::logs::LogName;
use super::{Actor, Caller, Exchange};
use crate::wire::name::AgentName;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Where each agent stopped reading, so that a restart knows. Derived: without it everything is unread.
const PATH: &str = "private/index/read.json";
const BLOCK: usize = 256 * 1024;

/// How far each agent has read.
pub(super) struct Unread {
    marks: BTreeMap<AgentName, Mark>,
}

#[derive(Default)]
struct Mark {
    /// The inbox's length in bytes when the agent last had it open.
    read: AtomicU64,
    /// How often it has it open now.
    readers: AtomicUsize,
    counted: Mutex<Counted>,
}

/// The lines in a stretch of an inbox, in bytes.
#[derive(Default)]
struct Counted {
    from: u64,
    to: u64,
    lines: u64,
}

impl Unread {
    /// Of these agents; `text` is what [`PATH`] holds.
    fn new<'a>(agents: impl Iterator<Item = &'a AgentName>, text: &[u8]) -> Self {
        let known: BTreeMap<String, u64> = serde_json::from_slice(text).unwrap_or_default();
        let mark = |agent: &AgentName| {
            let read = AtomicU64::new(known.get(agent.as_str()).copied().unwrap_or(0));
            Mark { read, ..Mark::default() }
        };
        Unread { marks: agents.map(|agent| (agent.clone(), mark(agent))).collect() }
    }
}

impl Mark {
    /// The lines behind the place where the agent stopped, in an inbox of `len` bytes.
    fn count(&self, file: &File, len: u64) -> io::Result<u64> {
        let mut counted = self.counted.lock();
        let read = self.read.load(Ordering::Relaxed);
        if read > len {
            // The inbox was archived; it began anew.
            self.read.store(0, Ordering::Relaxed);
            *counted = Counted::default();
        } else if counted.from != read || counted.to > len {
            *counted = Counted { from: read, to: read, lines: 0 };
        }
        let mut block = vec![0; BLOCK.min(usize::try_from(len - counted.to).unwrap_or(BLOCK))];
        while counted.to < len {
            let n = match file.read_at(&mut block, counted.to) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            counted.lines += block[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
            counted.to += n as u64;
        }
        Ok(counted.lines)
    }
}

/// An agent has its inbox open for reading. What arrives before this is dropped counts as read.
pub struct Reading {
    exchange: Arc<Exchange>,
    agent: AgentName,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.exchange.note_read(&self.agent);
        if let Some(mark) = self.exchange.unread.marks.get(&self.agent) {
            mark.readers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Exchange {
    /// What is known from the last run.
    pub(super) fn open_unread(store: &dyn crate::store::Store, config: &super::config::Config) -> Unread {
        Unread::new(config.agents.keys(), &store.read(PATH).unwrap_or_default())
    }

    /// Notes that somebody opens a log for reading, where it is an agent its own inbox.
    pub(super) fn begin_reading(&self, caller: &Caller, log: &LogName) -> Option<Reading> {
        let (Actor::Agent(agent), LogName::Inbox(owner)) = (self.actor(caller), log) else { return None };
        let mark = self.unread.marks.get(owner).filter(|_| agent == *owner)?;
        mark.readers.fetch_add(1, Ordering::Relaxed);
        self.note_read(&agent);
        Some(Reading { exchange: self.this(), agent })
    }

    /// Notes that an agent has seen all that its inbox holds now.
    pub fn note_read(&self, agent: &AgentName) {
        let len = self.store.stat(&LogName::Inbox(agent.clone()).path()).map_or(0, |stat| stat.size);
        if let Some(mark) = self.unread.marks.get(agent) {
            mark.read.store(len, Ordering::Relaxed);
        }
    }

    /// An inbox was archived: what comes now is all that can be unread.
    pub(super) fn begin_inbox(&self, log: &LogName) {
        let LogName::Inbox(agent) = log else { return };
        if let Some(mark) = self.unread.marks.get(agent) {
            let mut counted = mark.counted.lock();
            mark.read.store(0, Ordering::Relaxed);
            *counted = Counted::default();
        }
    }

    /// The lines in an agent's inbox that came since it last had it open for reading.
    pub fn unread(&self, agent: &AgentName) -> u64 {
        let Some(mark) = self.unread.marks.get(agent) else { return 0 };
        if mark.readers.load(Ordering::Relaxed) > 0 {
            return 0;
        }
        let path = LogName::Inbox(agent.clone()).path();
        let counted = self.store.stat(&path).and_then(|stat| mark.count(&self.store.open(&path)?, stat.size));
        counted.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path, %error, "the unread lines could not be counted");
            }
            0
        })
    }

    /// For the next start.
    pub(super) fn save_unread(&self) -> io::Result<()> {
        let read =
            |(agent, mark): (&AgentName, &Mark)| (agent.to_string(), mark.read.load(Ordering::Relaxed));
        let places: BTreeMap<String, u64> = self.unread.marks.iter().map(read).collect();
        self.store.replace(PATH, &serde_json::to_vec(&places).map_err(io::Error::other)?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_counted_once_from_where_the_agent_stopped() {
        let mark = Mark::default();
        let mut file = tempfile::tempfile().unwrap();
        let mut len = 0;
        let mut append = |mut file: &File, text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            len += text.len() as u64;
            len
        };
        let end = append(&file, "one\ntwo\n");
        assert_eq!(mark.count(&file, end).unwrap(), 2);
        let end = append(&file, "three\n");
        assert_eq!(mark.count(&file, end).unwrap(), 3);
        mark.read.store(end, Ordering::Relaxed);
        assert_eq!(mark.count(&file, end).unwrap(), 0);
        let end = append(&file, "four\n");
        assert_eq!(mark.count(&file, end).unwrap(), 1);
        file.flush().unwrap();
        // Archived: shorter than what was read.
        file.set_len(4).unwrap();
        assert_eq!(mark.count(&file, 4).unwrap(), 1);
    }

    #[test]
    fn what_was_read_before_a_restart_is_known_and_rubbish_is_not_believed() {
        let bob = AgentName::parse("bob").unwrap();
        let read = |text: &[u8]| {
            let unread = Unread::new(std::iter::once(&bob), text);
            unread.marks[&bob].read.load(Ordering::Relaxed)
        };
        assert_eq!(read(br#"{"bob": 70, "gone": 9}"#), 70);
        assert_eq!(read(b"{"), 0);
    }
}
