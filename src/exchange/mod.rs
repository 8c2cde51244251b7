//! The exchange: applies the rules to requests, commits to the store, records events.
//! The only place with locks, and the only one that decides.

pub mod config;
pub mod files;
pub mod handoffs;
pub mod init;
pub mod layout;
pub mod logs;
pub mod operator;

pub mod verify;
pub mod views;

mod refusals;

use crate::rules::Refusal;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Who makes a request, as the kernel or a token says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Thread id of the calling thread.
    pub pid: u32,
    /// The agent that the whole mount is (`--as bob`).
    pub bound: Option<AgentName>,
}

/// Whom a caller acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An agent of this exchange.
    Agent(AgentName),
    /// The human who owns the exchange: may act for any agent.
    Operator,
    /// Anybody else: reads what the modes allow and changes nothing.
    Stranger(u32),
}

/// What a caller tried, for refusals.jsonl.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The operation's name: `write`, `open`, `rename`, ...
    pub operation: &'static str,
    /// The path in the tree, without a leading slash.
    pub path: &'a str,
    /// The bytes to keep in quarantine; empty where there are none.
    pub bytes: &'a [u8],
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It broke a rule; the refusal is already recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system said no (ENOENT, ENOSPC, ...).
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Denied {
    /// A plain errno without a rule.
    pub fn os(errno: i32) -> Self {
        Denied::Io(std::io::Error::from_raw_os_error(errno))
    }
    /// The errno for the caller.
    pub fn errno(&self) -> i32 {
        match self {
            Denied::Refused(r) => r.rule.errno(),
            Denied::Io(e) => e.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// The result of a request.
pub type Outcome<T> = Result<T, Denied>;

/// What kind of node an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Anything else an ordinary directory may hold.
    Other,
}

/// What stat() shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// File, directory or symlink.
    pub kind: NodeKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Last access.
    pub atime: SystemTime,
    /// Last change of content.
    pub mtime: SystemTime,
    /// Last change of attributes.
    pub ctime: SystemTime,
}

/// When write() returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once the line is on disk (fdatasync, group-committed).
    #[default]
    Commit,
    /// Once the operating system has it; durable after fsync.
    Os,
}

/// How to open an exchange.
#[derive(Clone)]
pub struct OpenOptions {
    /// See [`Durability`].
    pub durability: Durability,
    /// Tells the time; tests pass their own.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Why an exchange could not be opened; names the file and the mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the exchange's lock.
    #[error("{} is in use by process {holder}", .dir.display())]
    InUse {
        /// The exchange.
        dir: PathBuf,
        /// The pid in the lock file, or `unknown`.
        holder: String,
    },
    /// Something in it is damaged or missing.
    #[error("{}: {problem}\n  mend: {mend}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        mend: String,
    },
    /// The operating system said no.
    #[error("{}: {error}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Its error.
        error: std::io::Error,
    },
}

/// An open exchange. One per process; shared by all its mounts.
pub struct Exchange {
    _todo: (),
}

impl Exchange {
    /// Takes the exchange's lock, reads it and repairs what a crash left half done.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: OpenOptions) -> Result<Arc<Self>, OpenError> {
        let _ = (dir, options);
        todo!()
    }
    /// Writes checkpoints so that the next start is fast. Also done on drop.
    pub fn checkpoint(&self) {
        todo!()
    }
    /// The exchange's own folder, absolute.
    pub fn dir(&self) -> &Path {
        todo!()
    }
    /// exchange.toml.
    pub fn config(&self) -> &config::Config {
        todo!()
    }
    /// The trust list in force.
    pub fn trust(&self) -> Arc<TrustList> {
        todo!()
    }
    /// The time.
    pub fn now(&self) -> Timestamp {
        todo!()
    }
    /// The uid that owns the exchange's folder: the operator's.
    pub fn owner_uid(&self) -> u32 {
        todo!()
    }
    /// Whom a caller acts as.
    pub fn actor(&self, caller: &Caller) -> Actor {
        let _ = caller;
        todo!()
    }
    /// Records a refusal (refusals.jsonl, quarantine) and returns it for the caller.
    pub fn refuse(&self, caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied {
        let _ = (caller, attempt, refusal);
        todo!()
    }
    /// Appends an event to the hash-chained events.jsonl: `event` is its name, `fields` its members.
    pub fn event(&self, event: &'static str, fields: serde_json::Map<String, serde_json::Value>) {
        let _ = (event, fields);
        todo!()
    }
    /// Moves what expired while pending to rejected/. Called about once a second by the daemon;
    /// returns how many moved.
    pub fn run_janitor(&self) -> usize {
        todo!()
    }
    /// The ordinary files under credentials/.
    pub fn files(&self) -> &files::Files {
        todo!()
    }
}
