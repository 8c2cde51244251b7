//! The exchange: applies the rules to requests, commits to the store, records events.
//! The only place with locks, and the only one that decides.

pub mod config;
pub mod export;
pub mod files;
pub mod handoffs;
pub mod import;
pub mod init;
pub mod layout;
#[cfg(target_os = "linux")]
pub mod locks;
pub mod logs;
pub mod operator;
pub mod send;

pub mod verify;
pub mod views;

mod archive;
mod commit;
mod conversation_ops;
mod credential_ops;
mod drafts;
mod events;
mod heartbeat;
mod ledger;
pub mod open;
mod process;
mod quarantine;
mod recover;
mod refusals;
mod replay;
mod trust;
mod unread;

use crate::rules::Refusal;
use crate::rules::conversation::Charter;
use crate::rules::credential::SlotName;
use crate::store::{Stat, Store};
use crate::wire::keys::{PairSecret, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

pub use crate::rules::identity::Actor;
pub(crate) use process::same_process;
use refusals::Recorded;
pub use unread::Reading;

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
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device, with its number as the kernel encodes it in 32 bits (0 in listings).
    BlockDevice(u32),
    /// A character device, with its number likewise.
    CharDevice(u32),
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

impl Attr {
    fn of(kind: NodeKind, stat: Stat) -> Self {
        Attr {
            kind,
            size: stat.size,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink: if kind == NodeKind::Directory { 2 } else { 1 },
            blocks: stat.size.div_ceil(512),
            atime: stat.mtime,
            mtime: stat.mtime,
            ctime: stat.mtime,
        }
    }

    /// Of something that has no bytes on disk.
    fn empty(kind: NodeKind, time: SystemTime) -> Self {
        Attr::of(kind, Stat { size: 0, mode: 0o444, uid: 0, gid: 0, mtime: time })
    }
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

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// An open exchange. One per process; shared by all its mounts.
pub struct Exchange {
    this: Weak<Exchange>,
    layout: layout::Layout,
    config: config::Config,
    /// The text that it was read from.
    config_text: String,
    store: Arc<dyn Store>,
    trust: RwLock<Arc<TrustList>>,
    /// Held while a trust list is changed and written, so that nobody who only reads it waits for the disk.
    importing: Mutex<trust::Importing>,
    /// Held while an agent's signing key is replaced.
    taking_key: Mutex<()>,
    /// What the committed messages amount to. Its lock is the order of commits.
    ledger: Mutex<ledger::Ledger>,
    /// Held while effects of commits are carried out.
    carrying_out: Mutex<()>,
    /// Keys of agents that keep them to themselves, for as long as they have a mount.
    lent_keys: RwLock<HashMap<AgentName, Arc<SigningKey>>>,
    /// The timestamp of the last sealed message, in microseconds.
    last_stamp: AtomicI64,
    charter: RwLock<Arc<Charter>>,
    secrets: RwLock<HashMap<(AgentName, AgentName), PairSecret>>,
    /// The agents' signing keys that are held here.
    signing_keys: RwLock<HashMap<AgentName, Arc<SigningKey>>>,
    events: events::Events,
    /// Held while logs are archived or exported; holds the time before which the exchange tries no archive by
    /// itself, after one that failed.
    archiving: Mutex<Timestamp>,
    /// Held while lines move in bulk, from an event to its deed, so that no checkpoint falls there.
    upheaval: Mutex<()>,
    refusals: refusals::RefusalBook,
    logs: logs::Logs,
    handoffs: OnceLock<handoffs::Handoffs>,
    letters: send::Letters,
    files: OnceLock<files::Files>,
    #[cfg(target_os = "linux")]
    locks: locks::Locks,
    unread: unread::Unread,
    attendance: heartbeat::Attendance,
    durability: Durability,
    clock: Clock,
    started: SystemTime,
    owner_uid: u32,
    owner_gid: u32,
    numbers: AtomicU64,
    /// Asked once: the answer costs a dozen system calls.
    cores: usize,
    _lock: std::fs::File,
}

impl Exchange {
    /// The exchange's own folder, absolute.
    pub fn dir(&self) -> &Path {
        self.layout.root()
    }

    /// exchange.toml.
    pub fn config(&self) -> &config::Config {
        &self.config
    }

    /// Whether exchange.toml now says something else than when it was read, or can't be read.
    pub fn config_has_changed(&self) -> bool {
        std::fs::read(self.layout.config()).map_or(true, |text| text != self.config_text.as_bytes())
    }

    /// When write() returns.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The trust list in force.
    pub fn trust(&self) -> Arc<TrustList> {
        Arc::clone(&self.trust.read())
    }

    /// What messages are judged by.
    pub fn charter(&self) -> Arc<Charter> {
        Arc::clone(&self.charter.read())
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The uid that owns the exchange's folder: the operator's.
    pub fn owner_uid(&self) -> u32 {
        self.owner_uid
    }

    /// The ordinary files under credentials/ and memory/.
    pub fn files(&self) -> &files::Files {
        self.files.get().expect("set before open() returns")
    }

    /// The locks that programs take on what the mounts show.
    #[cfg(target_os = "linux")]
    pub fn locks(&self) -> &locks::Locks {
        &self.locks
    }

    /// Whom a caller acts as: the agent that the mount is, the agent with its uid, the operator, or
    /// nobody known.
    pub fn actor(&self, caller: &Caller) -> Actor {
        if let Some(agent) = &caller.bound {
            return Actor::Agent(agent.clone());
        }
        let by_uid = self.config.agents.iter().find(|(_, agent)| agent.uid == Some(caller.uid));
        match by_uid {
            Some((name, _)) => Actor::Agent(name.clone()),
            None if caller.uid == self.owner_uid => Actor::Operator,
            None => Actor::Stranger(caller.uid),
        }
    }

    /// Records a refusal (refusals.jsonl, quarantine) and returns it for the caller; `quota` in its place where
    /// no more bytes are kept for its actor.
    pub fn refuse(&self, caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied {
        self.refuse_kept(caller, attempt, refusal).0
    }

    /// As [`Exchange::refuse`], with where the bytes are kept, relative to the exchange's folder.
    fn refuse_kept(
        &self,
        caller: &Caller,
        attempt: Attempt<'_>,
        refusal: Refusal,
    ) -> (Denied, Option<String>) {
        let actor = self.actor(caller);
        tracing::info!(
            actor = %actor, operation = attempt.operation, path = attempt.path, rule = refusal.rule.name(),
            "refused"
        );
        let told = self.refusals.record(self.now(), &actor, caller, &attempt, &refusal);
        let Recorded { full, kept } = told.unwrap_or_else(|error| {
            tracing::error!(path = attempt.path, %error, "a refusal could not be recorded");
            Recorded::default()
        });
        (Denied::Refused(full.unwrap_or(refusal)), kept)
    }

    /// Records what broke a rule; other errors pass.
    fn record(&self, caller: &Caller, attempt: Attempt<'_>, denied: Denied) -> Denied {
        match denied {
            Denied::Refused(refusal) => self.refuse(caller, attempt, refusal),
            io => io,
        }
    }

    /// Appends an event to the hash-chained events.jsonl: `event` is its name, `members` its own members.
    pub fn event(&self, event: &'static str, members: serde_json::Map<String, serde_json::Value>) {
        if let Err(error) = self.events.append(self.now(), event, &members) {
            tracing::error!(event, %error, "an event could not be written");
        }
    }

    fn make_events_durable(&self, end: u64) -> io::Result<()> {
        self.events.make_durable(end, self.durability)
    }

    fn this(&self) -> Arc<Exchange> {
        self.this.upgrade().expect("a method runs, so somebody holds the exchange")
    }

    fn handoffs(&self) -> &handoffs::Handoffs {
        self.handoffs.get().expect("set before open() returns")
    }

    fn may_relay(&self, actor: &Actor) -> bool {
        match actor {
            Actor::Agent(name) => self.config.agents.get(name).is_some_and(|agent| agent.may_relay),
            Actor::Operator => true,
            Actor::Stranger(_) => false,
        }
    }

    fn agent_uid(&self, agent: &AgentName) -> u32 {
        self.config.agents.get(agent).and_then(|agent| agent.uid).unwrap_or(self.owner_uid)
    }

    fn agent_names(&self) -> String {
        self.config.agents.keys().map(AgentName::as_str).collect::<Vec<_>>().join(", ")
    }

    fn secret(&self, a: &AgentName, b: &AgentName) -> Option<PairSecret> {
        let pair = if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        self.secrets.read().get(&pair).cloned()
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// access(2) of anything but ordinary files, with R_OK, W_OK and X_OK as the bits of `want`: what the modes say.
    /// Strangers change nothing; those who take part read everything; a caller who may be of another uid than the agent it acts for
    /// is bound by no one class of bits.
    ///
    /// # Errors
    /// EACCES. A probe is no attempt: nothing is recorded.
    pub fn check_access(&self, caller: &Caller, attr: &Attr, want: u32) -> Outcome<()> {
        let class = || files::class_bits(caller, attr.mode, (attr.uid, attr.gid));
        let every_class = attr.mode >> 6 | attr.mode >> 3 | attr.mode;
        let reads = if attr.kind == NodeKind::Directory { 0o5 } else { 0o4 };
        let granted = match self.actor(caller) {
            Actor::Stranger(_) => class() & 0o5,
            Actor::Agent(_) if caller.bound.is_none() => class() | reads,
            Actor::Agent(_) | Actor::Operator => every_class | reads,
        };
        if granted & want == want { Ok(()) } else { Err(Denied::os(libc::EACCES)) }
    }

    fn check_readable(&self, caller: &Caller, attr: &Attr) -> Outcome<()> {
        self.check_access(caller, attr, 0o4)
    }

    /// Makes everything durable and notes where the events stand, so that the next start is fast.
    ///
    /// The position comes first, the ledger second, and the logs are made durable last: what an event before the
    /// position tells is then in the ledger, and on disk in every log that it concerns.
    ///
    /// # Errors
    /// The disk's.
    pub fn checkpoint(&self) -> io::Result<()> {
        self.settle_trust()?;
        let (position, handoff_ids) = {
            let _no_upheaval = self.upheaval.lock();
            // No handoff is between its event and its rename.
            let _no_move = self.handoffs().moves.lock();
            let mut book = self.handoffs().book.lock();
            let (count, file) = book.flush_used()?;
            (self.events.position(count), file)
        };
        let ledger = self.ledger.lock().clone();
        for log in self.open_logs() {
            log.flush(self)?;
        }
        self.save_unread()?;
        handoff_ids.sync_data()?;
        for state in handoffs::State::ALL {
            self.store.sync_dir(state.dir())?;
        }
        self.events.write_checkpoint(&*self.store, position, ledger)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.handoffs.get().is_some()
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint at the end; the next start reads more");
        }
    }
}

/// Where what an `identity_command` said is kept.
const ACCOUNTS: &str = "private/accounts";
/// `<profile>/<slot>`: the login that a slot held before its last refresh, where no account's name says whose it was.
const PREVIOUS: &str = "private/previous";

impl files::Office for Exchange {
    fn actor(&self, caller: &Caller) -> Actor {
        self.actor(caller)
    }
    fn now(&self) -> Timestamp {
        self.now()
    }
    fn refuse(&self, caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied {
        self.refuse(caller, attempt, refusal)
    }
    fn refuse_kept(
        &self,
        caller: &Caller,
        attempt: Attempt<'_>,
        refusal: Refusal,
    ) -> (Denied, Option<String>) {
        self.refuse_kept(caller, attempt, refusal)
    }
    fn keep(&self, why: &'static str, bytes: &[u8]) -> io::Result<String> {
        self.refusals.quarantine.keep_durably(self.now(), why, bytes)
    }
    fn keep_previous(&self, profile: &str, slot: &SlotName, bytes: &[u8]) -> io::Result<String> {
        let dir = format!("{PREVIOUS}/{profile}");
        self.store.make_dir(&dir, 0o700)?;
        let file = format!("{dir}/{slot}");
        self.store.replace(&file, bytes, 0o600).map(|()| file)
    }
    fn remember(&self, profile: &str, text: &[u8]) -> io::Result<()> {
        self.store.make_dir(ACCOUNTS, 0o700)?;
        self.store.replace(&format!("{ACCOUNTS}/{profile}.json"), text, 0o600)
    }
    fn recall(&self, profile: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.layout.tree(&format!("{ACCOUNTS}/{profile}.json"))) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
    fn event(
        &self,
        event: &'static str,
        members: serde_json::Map<String, serde_json::Value>,
    ) -> io::Result<()> {
        let end = self.events.append(self.now(), event, &members)?;
        self.make_events_durable(end)
    }
}

/// Up to `size` bytes of a file from `offset`; fewer only at its end.
///
/// # Errors
/// The disk's.
pub fn read_at(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
