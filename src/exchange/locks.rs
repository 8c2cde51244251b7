//! Locks that programs take on files of the mount: flock(2) and fcntl(2), of both kinds.
//!
//! The kernel of the file on disk keeps them, on a descriptor of its own for each owner: so they exclude one another
//! through every mount of the exchange, and exclude programs that use the exchange's folder directly. What has no
//! lasting file on disk (logs that rotate, logins, views) is locked on an anonymous file of the same name. Whether two
//! waiters wait for each other is not found out: EDEADLK is never given.

mod held;
mod signals;
mod waiting;

use super::{Denied, Outcome};
use held::{Anchor, Held};
use parking_lot::{Condvar, Mutex};
use rustix::fs::MemfdFlags;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use waiting::{Until, Waiter};

/// The last byte of a lock that reaches to the end of the file, wherever that is.
pub const TO_THE_END: u64 = i64::MAX as u64;

/// How long a lock that is not waited for is waited for all the same, where its holder has just closed a descriptor.
const RELEASE_TIME: Duration = Duration::from_millis(300);

/// What is locked.
#[derive(Debug, Clone)]
pub enum LockFile {
    /// A file on disk, by any descriptor.
    OnDisk(Arc<File>),
    /// Something that the exchange shows under a name.
    Named(String),
}

/// Who holds or wants a lock: a process for fcntl(2), an open file for flock(2) and open file description locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockOwner {
    /// From [`Locks::new_mount`]; the kernel's numbers are each mount's own.
    pub mount: u64,
    /// As the kernel numbers it.
    pub id: u64,
}

/// Which call a lock is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// fcntl(2).
    Range,
    /// flock(2).
    Whole,
    /// One of them: it counts as both.
    Either,
}

/// What is to become of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// Given up.
    Unlocked,
}

/// A lock that is asked for or about.
#[derive(Debug, Clone, Copy)]
pub struct LockRequest {
    /// Who asks.
    pub owner: LockOwner,
    /// Through which open file of the mount.
    pub handle: u64,
    /// By which call.
    pub kind: LockKind,
    /// For what.
    pub mode: LockMode,
    /// The first byte.
    pub start: u64,
    /// The last byte; [`TO_THE_END`].
    pub end: u64,
    /// The asking process, for others who ask who holds the lock.
    pub pid: u32,
    /// The asking thread; 0 where it is not known.
    pub thread: u32,
}

/// A lock that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockFound {
    /// Shared or exclusive.
    pub mode: LockMode,
    /// The first byte.
    pub start: u64,
    /// The last byte; [`TO_THE_END`].
    pub end: u64,
    /// The process that holds it; 0 for one outside the mounts whose kernel does not say.
    pub pid: u32,
}

/// Told once what came of a lock.
pub type Reply = Box<dyn FnOnce(Outcome<()>) + Send>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    File { device: u64, inode: u64 },
    Named(String),
}

#[derive(Default)]
struct Table {
    files: HashMap<Key, Anchor>,
    /// In the order in which they came.
    waiting: Vec<Waiter>,
    /// Whether a thread looks after them.
    attended: bool,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// Told when somebody gives up a lock, while anybody waits.
    given_up: Condvar,
    /// How many owners hold locks, so that closing a file costs nothing while there are none.
    owners: AtomicUsize,
    mounts: AtomicU64,
}

/// The locks of an exchange, through all its mounts.
#[derive(Default)]
pub struct Locks(Arc<Shared>);

fn no_lock() -> Denied {
    Denied::os(libc::ENOLCK)
}

impl LockFile {
    fn key(&self) -> Outcome<Key> {
        Ok(match self {
            LockFile::OnDisk(file) => {
                let metadata = file.metadata()?;
                Key::File { device: metadata.dev(), inode: metadata.ino() }
            }
            LockFile::Named(name) => Key::Named(name.clone()),
        })
    }

    /// What its owners' descriptors are opened from.
    fn base(&self) -> Outcome<Arc<File>> {
        match self {
            LockFile::OnDisk(file) => Ok(file.clone()),
            LockFile::Named(_) => {
                let file = rustix::fs::memfd_create("baton-lock", MemfdFlags::CLOEXEC);
                Ok(Arc::new(file.map_err(std::io::Error::from)?.into()))
            }
        }
    }
}

impl Locks {
    /// A number for one more mount, with which it names its owners.
    pub fn new_mount(&self) -> u64 {
        self.0.mounts.fetch_add(1, Ordering::Relaxed)
    }

    /// Which lock stands in the way of one (F_GETLK, F_OFD_GETLK); `None` if it could be had.
    ///
    /// # Errors
    /// ENOLCK.
    pub fn test(&self, file: &LockFile, request: &LockRequest) -> Outcome<Option<LockFound>> {
        let key = file.key()?;
        let mut table = self.0.table.lock();
        match table.files.get_mut(&key) {
            Some(anchor) => anchor.test(request),
            None => Anchor::new(file.base()?).test(request),
        }
    }

    /// Takes, changes or gives up a lock, and tells `reply`: now, or where the request waits and somebody else holds
    /// the lock, when it is had or the asking thread has a signal to deal with.
    pub fn set(&self, file: &LockFile, request: LockRequest, wait: bool, reply: Reply) {
        let done = self.try_set(file, &request);
        match done {
            Err(denied) if denied.errno() == libc::EAGAIN => match self.patience(file, &request, wait) {
                Some(until) => self.0.park(file, request, until, reply),
                None => reply(Err(denied)),
            },
            done => reply(done),
        }
    }

    /// How long to wait for a lock that somebody else holds.
    fn patience(&self, file: &LockFile, request: &LockRequest, wait: bool) -> Option<Until> {
        if wait {
            return Some(Until::Had);
        }
        let key = file.key().ok()?;
        let now = Instant::now();
        let table = self.0.table.lock();
        let closing = table.files.get(&key)?.is_being_closed(&request.owner, now);
        closing.then(|| Until::At(now + RELEASE_TIME))
    }

    fn try_set(&self, file: &LockFile, request: &LockRequest) -> Outcome<()> {
        let key = file.key()?;
        let mut table = self.0.table.lock();
        let done = self.0.apply(&mut table, &key, file, request);
        drop(table);
        if request.mode == LockMode::Unlocked {
            self.0.given_up.notify_one();
        }
        done
    }

    /// A process has closed a descriptor of the file: its fcntl(2) locks on it are gone, as POSIX wants it. If it was
    /// the open file's last, the kernel will say so, but close(2) does not wait for that.
    pub fn closed(&self, file: &LockFile, owner: LockOwner, handle: u64) {
        if self.0.owners.load(Ordering::Acquire) == 0 {
            return;
        }
        let Ok(key) = file.key() else { return };
        let now = Instant::now();
        self.0.drop_held(|at, held_by, held| {
            if *at != key || held_by.mount != owner.mount {
                return;
            }
            if *held_by == owner {
                held.handles.clear();
            } else if held.handles.contains(&handle) {
                held.closing = Some(now);
            }
        });
    }

    /// The last descriptor of an open file is closed: with it go the locks that are the open file's.
    pub fn released(&self, mount: u64, handle: u64) {
        if self.0.owners.load(Ordering::Acquire) == 0 {
            return;
        }
        self.0.drop_held(|_, owner, held| {
            if owner.mount == mount {
                held.handles.remove(&handle);
            }
        });
    }

    /// A mount has ended, and with it whoever held or wanted locks through it.
    pub fn unmounted(&self, mount: u64) {
        self.0.drop_held(|_, owner, held| {
            if owner.mount == mount {
                held.handles.clear();
            }
        });
        let mut table = self.0.table.lock();
        let (gone, rest): (Vec<Waiter>, Vec<Waiter>) =
            std::mem::take(&mut table.waiting).into_iter().partition(|w| w.request.owner.mount == mount);
        table.waiting = rest;
        drop(table);
        for waiter in gone {
            (waiter.reply)(Err(Denied::os(libc::EINTR)));
        }
    }
}

impl Shared {
    /// Tries once.
    fn apply(&self, table: &mut Table, key: &Key, file: &LockFile, request: &LockRequest) -> Outcome<()> {
        let anchor = match table.files.get_mut(key) {
            Some(anchor) => anchor,
            None if request.mode == LockMode::Unlocked => return Ok(()),
            None => table.files.entry(key.clone()).or_insert(Anchor::new(file.base()?)),
        };
        let before = anchor.owners.len();
        let done = anchor.set(request);
        let after = anchor.owners.len();
        if after == 0 {
            table.files.remove(key);
        }
        if after > before {
            self.owners.fetch_add(after - before, Ordering::Release);
        } else {
            self.owners.fetch_sub(before - after, Ordering::Release);
        }
        done
    }

    /// Drops what `touch` leaves without an open file.
    fn drop_held(&self, mut touch: impl FnMut(&Key, &LockOwner, &mut Held)) {
        let mut table = self.table.lock();
        let mut dropped = 0;
        table.files.retain(|key, anchor| {
            anchor.owners.retain(|owner, held| {
                touch(key, owner, held);
                let keep = !held.handles.is_empty();
                dropped += usize::from(!keep);
                keep
            });
            !anchor.owners.is_empty()
        });
        self.owners.fetch_sub(dropped, Ordering::Release);
        drop(table);
        if dropped > 0 {
            self.given_up.notify_one();
        }
    }
}

/// A descriptor of its own for a file that is open already.
fn reopen(file: &File) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => Ok(file),
        // A program that runs, a file that is read-only: it can still be locked for reading, and by flock(2).
        Err(_) => File::open(&path),
    }
}

#[cfg(test)]
mod tests;
