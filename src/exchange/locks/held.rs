//! One locked file, and the descriptors on which the kernel keeps its owners' locks.

use super::{
    LockFound, LockKind, LockMode, LockOwner, LockRequest, RELEASE_TIME, TO_THE_END, no_lock, reopen,
};
use crate::exchange::{Denied, Outcome};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::FlockOperation;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

/// A file that somebody has locked.
pub(super) struct Anchor {
    base: Arc<File>,
    pub(super) owners: HashMap<LockOwner, Held>,
}

/// What one owner holds of it.
pub(super) struct Held {
    file: File,
    pid: u32,
    /// The open files through which it was locked; without any the locks are gone.
    pub(super) handles: HashSet<u64>,
    ranges: Vec<Range>,
    whole: bool,
    /// When a descriptor of such an open file was closed last: perhaps its last one.
    pub(super) closing: Option<Instant>,
}

/// A lock by fcntl(2): for telling whose it is. The kernel decides what excludes what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) mode: LockMode,
}

impl Range {
    fn of(request: &LockRequest) -> Self {
        Range { start: request.start, end: request.end, mode: request.mode }
    }

    /// Whether a lock that the kernel found is, in part, this one: it joins those that touch.
    fn is_of(&self, found: &Range) -> bool {
        self.start <= found.end && found.start <= self.end && self.mode == found.mode
    }
}

/// The ranges of an owner after one more change.
pub(super) fn changed(ranges: &[Range], new: Range) -> Vec<Range> {
    let mut after = Vec::with_capacity(ranges.len() + 2);
    for old in ranges {
        if old.end < new.start || new.end < old.start {
            after.push(*old);
            continue;
        }
        if old.start < new.start {
            after.push(Range { end: new.start - 1, ..*old });
        }
        if new.end < old.end {
            after.push(Range { start: new.end + 1, ..*old });
        }
    }
    if new.mode != LockMode::Unlocked {
        after.push(new);
    }
    after
}

/// As the kernel wants it told.
fn structure(range: &Range) -> Outcome<libc::flock> {
    let l_type = match range.mode {
        LockMode::Read => libc::F_RDLCK,
        LockMode::Write => libc::F_WRLCK,
        LockMode::Unlocked => libc::F_UNLCK,
    };
    let invalid = |_| Denied::os(libc::EINVAL);
    let length = if range.end >= TO_THE_END { 0 } else { range.end - range.start + 1 };
    Ok(libc::flock {
        // Constants of one digit and SEEK_SET.
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start.try_into().map_err(invalid)?,
        l_len: length.try_into().map_err(invalid)?,
        l_pid: 0,
    })
}

fn set_range(file: &File, range: &Range) -> Outcome<()> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&structure(range)?)) {
        Ok(_) => Ok(()),
        Err(nix::Error::EACCES) => Err(Denied::os(libc::EAGAIN)),
        Err(errno) => Err(Denied::os(errno as i32)),
    }
}

fn set_whole(file: &File, mode: LockMode) -> Outcome<()> {
    let operation = match mode {
        LockMode::Read => FlockOperation::NonBlockingLockShared,
        LockMode::Write => FlockOperation::NonBlockingLockExclusive,
        LockMode::Unlocked => FlockOperation::NonBlockingUnlock,
    };
    Ok(rustix::fs::flock(file, operation).map_err(std::io::Error::from)?)
}

impl Held {
    fn set(&mut self, request: &LockRequest) -> Outcome<()> {
        let range = Range::of(request);
        if request.kind != LockKind::Whole {
            set_range(&self.file, &range)?;
            self.ranges = changed(&self.ranges, range);
        }
        if request.kind != LockKind::Range {
            let done = set_whole(&self.file, request.mode);
            // One that fails to change a lock has lost it, as on any disk.
            self.whole = done.is_ok() && request.mode != LockMode::Unlocked;
            if done.is_err() && request.kind == LockKind::Either {
                let given_up = Range { mode: LockMode::Unlocked, ..range };
                set_range(&self.file, &given_up)?;
                self.ranges = changed(&self.ranges, given_up);
            }
            done?;
        }
        Ok(())
    }
}

impl Anchor {
    pub(super) fn new(base: Arc<File>) -> Self {
        Anchor { base, owners: HashMap::new() }
    }

    /// Tries once; an owner who holds nothing is forgotten.
    pub(super) fn set(&mut self, request: &LockRequest) -> Outcome<()> {
        if !self.owners.contains_key(&request.owner) {
            if request.mode == LockMode::Unlocked {
                return Ok(());
            }
            let file = reopen(&self.base).map_err(|_| no_lock())?;
            let held = Held {
                file,
                pid: request.pid,
                handles: HashSet::new(),
                ranges: Vec::new(),
                whole: false,
                closing: None,
            };
            self.owners.insert(request.owner, held);
        }
        let Some(held) = self.owners.get_mut(&request.owner) else { return Err(no_lock()) };
        let done = held.set(request);
        if done.is_ok() && request.mode != LockMode::Unlocked {
            held.handles.insert(request.handle);
            held.pid = request.pid;
        }
        if held.ranges.is_empty() && !held.whole {
            self.owners.remove(&request.owner);
        }
        done
    }

    /// Whether somebody else who holds it may have closed it a moment ago.
    pub(super) fn is_being_closed(&self, owner: &LockOwner, now: Instant) -> bool {
        let others = self.owners.iter().filter(|(other, _)| *other != owner);
        others.filter_map(|(_, held)| held.closing).any(|closed| now.duration_since(closed) < RELEASE_TIME)
    }

    /// Which lock by fcntl(2) stands in the way.
    pub(super) fn test(&self, request: &LockRequest) -> Outcome<Option<LockFound>> {
        let wanted = Range::of(request);
        let mut found = structure(&wanted)?;
        let own;
        let file = match self.owners.get(&request.owner) {
            Some(held) => &held.file,
            None => {
                own = reopen(&self.base).map_err(|_| no_lock())?;
                &own
            }
        };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).map_err(|errno| Denied::os(errno as i32))?;
        let mode = match i32::from(found.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => LockMode::Read,
            _ => LockMode::Write,
        };
        let start = u64::try_from(found.l_start).unwrap_or_default();
        let end = match u64::try_from(found.l_len) {
            Ok(0) | Err(_) => TO_THE_END,
            Ok(length) => start.saturating_add(length - 1).min(TO_THE_END),
        };
        let range = Range { start, end, mode };
        // The kernel tells no process for a lock of an open file, as all of ours are.
        let ours = || {
            let mut others = self.owners.iter().filter(|(owner, _)| **owner != request.owner);
            others
                .find(|(_, held)| held.ranges.iter().any(|held| held.is_of(&range)))
                .map(|(_, held)| held.pid)
        };
        let pid = u32::try_from(found.l_pid).ok().or_else(ours).unwrap_or_default();
        Ok(Some(LockFound { mode, start, end, pid }))
    }
}
