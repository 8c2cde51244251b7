//! The callbacks for flock(2) and fcntl(2) locks.

use super::adapter::Mounted;
use super::handles::Handle;
use super::tree::{self, Node};
use crate::exchange::locks::{
    LockFile, LockFound, LockKind, LockMode, LockOwner, LockRequest, Reply, TO_THE_END,
};
use crate::exchange::{Denied, Outcome};
use std::time::Duration;

/// How often a thread that has just asked may be seen running still, before it sleeps until the answer.
const LOOKS: u32 = 40;
const BETWEEN_LOOKS: Duration = Duration::from_micros(50);

/// What the kernel asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) inode: u64,
    pub(super) handle: u64,
    pub(super) owner: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) mode: i32,
    pub(super) pid: u32,
    pub(super) thread: u32,
}

impl Mounted {
    fn lock_owner(&self, id: u64) -> LockOwner {
        LockOwner { mount: self.locks_mount, id }
    }

    /// What stands for an open file where it is locked.
    fn lock_file(&self, inode: u64, handle: u64) -> Outcome<LockFile> {
        let handle = self.handles.get(handle).ok_or_else(|| Denied::os(libc::EBADF))?;
        if let Handle::File(open) = &*handle
            && let Some(file) = open.backing()
        {
            return Ok(LockFile::OnDisk(file));
        }
        let node = self.node(inode)?;
        Ok(LockFile::Named(match (&node, tree::path(&self.exchange, &node)) {
            (_, Some(path)) => path,
            (Node::Handoff { node, .. }, None) => format!("handoff {}", node.0),
            (_, None) => format!("{inode}"),
        }))
    }

    fn lock_request(&self, asked: &Asked, kind: LockKind) -> Outcome<LockRequest> {
        let mode = match asked.mode {
            libc::F_RDLCK => LockMode::Read,
            libc::F_WRLCK => LockMode::Write,
            libc::F_UNLCK => LockMode::Unlocked,
            _ => return Err(Denied::os(libc::EINVAL)),
        };
        Ok(LockRequest {
            owner: self.lock_owner(asked.owner),
            handle: asked.handle,
            kind,
            mode,
            start: asked.start,
            end: asked.end.min(TO_THE_END),
            pid: asked.pid,
            thread: asked.thread,
        })
    }

    /// F_GETLK and F_OFD_GETLK.
    pub(super) fn test_lock(&self, asked: &Asked) -> Outcome<Option<LockFound>> {
        let file = self.lock_file(asked.inode, asked.handle)?;
        self.exchange.locks().test(&file, &self.lock_request(asked, LockKind::Range)?)
    }

    /// F_SETLK, F_SETLKW and their kin, flock(2). `reply` is told once, perhaps later, perhaps by another thread.
    pub(super) fn set_lock(&self, asked: &Asked, wait: bool, reply: Reply) {
        let prepared = self.lock_file(asked.inode, asked.handle).and_then(|file| {
            let request = self.lock_request(asked, kind_of(asked))?;
            Ok((file, request))
        });
        match prepared {
            Ok((file, request)) => self.exchange.locks().set(&file, request, wait, reply),
            Err(denied) => reply(Err(denied)),
        }
    }

    /// close(2) by a process: its fcntl(2) locks on the file go.
    pub(super) fn drop_locks_of(&self, inode: u64, handle: u64, owner: u64) {
        if let Ok(file) = self.lock_file(inode, handle) {
            self.exchange.locks().closed(&file, self.lock_owner(owner), handle);
        }
    }

    /// The last close(2) of an open file.
    pub(super) fn drop_locks_through(&self, handle: u64) {
        self.exchange.locks().released(self.locks_mount, handle);
    }

    /// The end of the mount.
    pub(super) fn drop_all_locks(&self) {
        self.exchange.locks().unmounted(self.locks_mount);
    }
}

/// Which call it is. The kernel tells us (FUSE_LK_FLOCK), but fuser 0.18 does not pass it on, so that a lock on the
/// whole file may be either: then the asking thread shows in which system call it waits for us, where we may look.
fn kind_of(asked: &Asked) -> LockKind {
    if asked.start != 0 || asked.end < TO_THE_END {
        return LockKind::Range;
    }
    if asked.thread == 0 {
        return LockKind::Either;
    }
    for _ in 0..LOOKS {
        let Ok(call) = std::fs::read_to_string(format!("/proc/{}/syscall", asked.thread)) else { break };
        match call.split_ascii_whitespace().next() {
            Some("running") => std::thread::sleep(BETWEEN_LOOKS),
            Some(number) => return kind_of_call(number),
            None => break,
        }
    }
    LockKind::Either
}

fn kind_of_call(number: &str) -> LockKind {
    match number.parse::<libc::c_long>() {
        Ok(libc::SYS_flock) => LockKind::Whole,
        Ok(libc::SYS_fcntl) => LockKind::Range,
        _ => LockKind::Either, // a program of another word size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_call_tells_which_lock_it_is() {
        assert_eq!(kind_of_call(&libc::SYS_flock.to_string()), LockKind::Whole);
        assert_eq!(kind_of_call(&libc::SYS_fcntl.to_string()), LockKind::Range);
        assert_eq!(kind_of_call("-1"), LockKind::Either);
    }

    #[test]
    fn a_part_of_a_file_is_locked_by_fcntl_alone() {
        let asked = |start, end| Asked {
            inode: 8,
            handle: 1,
            owner: 1,
            start,
            end,
            mode: libc::F_WRLCK,
            pid: 1,
            thread: 0,
        };
        assert_eq!(kind_of(&asked(0, 9)), LockKind::Range);
        assert_eq!(kind_of(&asked(1, TO_THE_END)), LockKind::Range);
        assert_eq!(kind_of(&asked(0, TO_THE_END)), LockKind::Either);
    }
}
