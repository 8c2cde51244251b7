//! The callbacks that look up, list, make, move and remove names, and change attributes.
//!
//! What a place does not allow is refused by the kind of node that would be changed, never with EXDEV: mv would answer
//! that by copying and deleting, which no log survives.

use super::adapter::Mounted;
use super::handles::{Handle, Listing};
use super::inodes::Inodes;
use super::tree::{self, Dir, Node};
use crate::exchange::files::{FileId, SetAttr};
use crate::exchange::{Attr, Caller, Denied, Exchange, Outcome};
use fuser::TimeOrNow;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[cfg(target_os = "linux")]
pub(super) const RENAME_EXCHANGE: u32 = libc::RENAME_EXCHANGE;
#[cfg(not(target_os = "linux"))]
pub(super) const RENAME_EXCHANGE: u32 = 2;
#[cfg(target_os = "linux")]
const RENAME_NOREPLACE: u32 = libc::RENAME_NOREPLACE;
#[cfg(not(target_os = "linux"))]
const RENAME_NOREPLACE: u32 = 1;
/// RENAME_WHITEOUT would leave a device behind, which mknod(2) makes for nobody here.
pub(super) const RENAME_FLAGS: u32 = RENAME_NOREPLACE | RENAME_EXCHANGE;

// libc's S_IFMT and S_IFREG, which are of another width on macOS than FUSE's modes.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR_FILE: u32 = 0o100_000;

/// What setattr asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
}

impl Change {
    /// As an ordinary file takes it.
    pub(super) fn ordinary(&self) -> SetAttr {
        SetAttr {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            atime: time(self.atime),
            mtime: time(self.mtime),
            touch: matches!((self.atime, self.mtime), (Some(TimeOrNow::Now), Some(TimeOrNow::Now))),
        }
    }

    /// The system call behind what would really change on a node that now has `attr`; `None` for what may always be
    /// asked for: the mode and owner that it has, and the time that it is.
    fn operation(&self, attr: &Attr) -> Option<&'static str> {
        let specific = |time| matches!(time, Some(TimeOrNow::SpecificTime(_)));
        if self.size.is_some() {
            Some("truncate")
        } else if self.mode.is_some_and(|mode| mode & 0o7777 != attr.mode & 0o7777) {
            Some("chmod")
        } else if self.uid.is_some_and(|uid| uid != attr.uid) || self.gid.is_some_and(|gid| gid != attr.gid) {
            Some("chown")
        } else if specific(self.atime) || specific(self.mtime) {
            Some("utimens")
        } else {
            None
        }
    }
}

/// A name that was found or made.
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) attr: Attr,
    /// How long the kernel may keep the name.
    pub(super) kept: Duration,
}

/// A rename among ordinary files.
pub(super) struct Move {
    pub(super) from: FileId,
    pub(super) name: OsString,
    pub(super) to: FileId,
    pub(super) new_name: OsString,
    pub(super) flags: u32,
}

impl Move {
    pub(super) fn carry_out(&self, exchange: &Exchange, inodes: &Inodes, caller: &Caller) -> Outcome<()> {
        let Move { from, name, to, new_name, flags } = self;
        exchange.files().rename(caller, *from, name, *to, new_name, *flags)?;
        if from != to {
            inodes.moved(*from, *to);
            if flags & RENAME_EXCHANGE != 0 {
                inodes.moved(*to, *from);
            }
        }
        Ok(())
    }
}

fn time(asked: Option<TimeOrNow>) -> Option<SystemTime> {
    asked.map(|time| match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    })
}

impl Mounted {
    /// The node of an inode number that the kernel was given.
    pub(super) fn node(&self, number: u64) -> Outcome<Node> {
        self.inodes.node(number).ok_or_else(|| Denied::os(libc::ESTALE))
    }

    pub(super) fn look_up(&self, caller: &Caller, parent: u64, name: &OsStr) -> Outcome<Entry> {
        let parent = self.node(parent)?;
        let (node, attr) = tree::lookup(&self.exchange, caller, &parent, name)?;
        let kept = self.count(&parent, name, &node, &attr);
        Ok(Entry { node, attr, kept })
    }

    pub(super) fn forget(&self, number: u64, count: u64) {
        if let Some((id, count)) = self.inodes.forget(number, count) {
            self.exchange.files().forget(id, count);
        }
    }

    pub(super) fn attributes(&self, caller: &Caller, number: u64) -> Outcome<(Node, Attr)> {
        let node = self.node(number)?;
        let mut attr = tree::attr(&self.exchange, caller, &node)?;
        if let Node::View { .. } = node
            && let Some(len) = self.handles.text_len(number, caller.pid)
        {
            (attr.size, attr.blocks) = (len, len.div_ceil(512));
        }
        Ok((node, attr))
    }

    /// access(2) and chdir(2).
    pub(super) fn check_access(&self, caller: &Caller, number: u64, want: u32) -> Outcome<()> {
        let node = self.node(number)?;
        if let Node::File { id, .. } = node {
            return self.exchange.files().access(caller, id, want);
        }
        self.exchange.check_access(caller, &tree::attr(&self.exchange, caller, &node)?, want)
    }

    pub(super) fn set_attributes(
        &self,
        caller: &Caller,
        number: u64,
        handle: Option<u64>,
        change: Change,
    ) -> Outcome<(Node, Attr)> {
        let node = self.node(number)?;
        if let Node::File { id, .. } = node {
            let handle = handle.and_then(|number| self.handles.get(number));
            let open = match handle.as_deref() {
                Some(Handle::File(open)) => Some(open),
                _ => None,
            };
            let attr = self.exchange.files().set_attr(caller, id, open, change.ordinary())?;
            return Ok((node, attr));
        }
        if let (Node::Handoff { node: handoff, .. }, Some(size)) = (&node, change.size) {
            self.exchange.truncate_draft(caller, *handoff, size)?;
            let attr = tree::attr(&self.exchange, caller, &node)?;
            return Ok((node, attr));
        }
        if let Node::Letter(letter) = node {
            if let Some(size) = change.size {
                self.exchange.truncate_letter(caller, letter, size)?;
            }
            // Programs give a copy its original's modes and times once it is closed, and so sent. They have no effect.
            return Ok((node.clone(), tree::attr(&self.exchange, caller, &node)?));
        }
        let attr = tree::attr(&self.exchange, caller, &node)?;
        match change.operation(&attr) {
            None => Ok((node, attr)),
            Some(operation) => Err(self.refuse(caller, &node, operation)),
        }
    }

    /// Refuses an operation that a node's kind does not allow.
    pub(super) fn refuse(&self, caller: &Caller, node: &Node, operation: &'static str) -> Denied {
        match node {
            Node::Log(log) => self.exchange.refuse_log_operation(caller, log, operation),
            Node::Handoff { node: handoff, .. } => {
                self.exchange.refuse_handoff_operation(caller, *handoff, operation)
            }
            Node::Letter(letter) => self.exchange.refuse_letter_operation(caller, *letter, operation),
            Node::Dir { .. } | Node::Mailbox { .. } | Node::View { .. } | Node::File { .. } => {
                let path = tree::path(&self.exchange, node).unwrap_or_default();
                self.exchange.refuse_read_only(caller, &path, operation)
            }
        }
    }

    /// Refuses an operation on a name in a place where it is not allowed: by what the name stands for, else by place.
    fn refuse_name(&self, caller: &Caller, parent: &Node, name: &OsStr, operation: &'static str) -> Denied {
        match self.peek(caller, parent, name) {
            Some(node) if !matches!(node, Node::File { .. }) => self.refuse(caller, &node, operation),
            _ => {
                let path = tree::child_path(&self.exchange, parent, name);
                self.exchange.refuse_read_only(caller, &path, operation)
            }
        }
    }

    /// What a name stands for, without keeping a reference to it.
    fn peek(&self, caller: &Caller, parent: &Node, name: &OsStr) -> Option<Node> {
        let (node, _) = tree::lookup(&self.exchange, caller, parent, name).ok()?;
        if let (Node::File { .. }, Node::File { id, .. }) = (parent, &node) {
            self.exchange.files().forget(*id, 1);
        }
        Some(node)
    }

    /// mknod(2): a regular file as if created and closed, the other kinds among ordinary files only.
    pub(super) fn make_node(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Outcome<Entry> {
        if mode & FILE_TYPE != REGULAR_FILE {
            let parent = self.node(parent)?;
            let Node::File { id, .. } = parent else {
                return Err(self.refuse_name(caller, &parent, name, "mknod"));
            };
            let entry = self.exchange.files().mknod(caller, id, name, mode, device)?;
            let node = Node::File { id: entry.id, aliased: false };
            let kept = self.count(&parent, name, &node, &entry.attr);
            return Ok(Entry { node, attr: entry.attr, kept });
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let (entry, opened) = self.create(caller, parent, name, mode & 0o7777, flags)?;
        self.close(&opened.handle);
        Ok(entry)
    }

    pub(super) fn make_directory(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Outcome<Entry> {
        let parent = self.node(parent)?;
        let Node::File { id, aliased } = parent else {
            return Err(self.refuse_name(caller, &parent, name, "mkdir"));
        };
        let entry = self.exchange.files().mkdir(caller, id, name, mode)?;
        let node = Node::File { id: entry.id, aliased };
        let kept = self.count(&parent, name, &node, &entry.attr);
        Ok(Entry { node, attr: entry.attr, kept })
    }

    pub(super) fn remove_directory(&self, caller: &Caller, parent: u64, name: &OsStr) -> Outcome<()> {
        let parent = self.node(parent)?;
        match parent {
            Node::File { id, .. } => self.exchange.files().rmdir(caller, id, name),
            _ => Err(self.refuse_name(caller, &parent, name, "rmdir")),
        }
    }

    pub(super) fn unlink(&self, caller: &Caller, parent: u64, name: &OsStr) -> Outcome<()> {
        let parent = self.node(parent)?;
        match (&parent, name.to_str()) {
            (Node::File { id, .. }, _) => self.exchange.files().unlink(caller, *id, name),
            (Node::Dir { dir: Dir::State(state), .. }, Some(name)) => {
                self.exchange.unlink_handoff(caller, *state, name)
            }
            (Node::Mailbox { to, .. }, Some(name)) => self.exchange.unlink_letter(caller, to, name),
            _ => Err(self.refuse_name(caller, &parent, name, "unlink")),
        }
    }

    pub(super) fn make_symlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        target: &Path,
    ) -> Outcome<Entry> {
        let parent = self.node(parent)?;
        let Node::File { id, .. } = parent else {
            return Err(self.refuse_name(caller, &parent, name, "symlink"));
        };
        let entry = self.exchange.files().symlink(caller, id, name, target.as_os_str())?;
        let node = Node::File { id: entry.id, aliased: false };
        let kept = self.count(&parent, name, &node, &entry.attr);
        Ok(Entry { node, attr: entry.attr, kept })
    }

    pub(super) fn read_link(&self, number: u64) -> Outcome<OsString> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().readlink(id),
            _ => Err(Denied::os(libc::EINVAL)),
        }
    }

    pub(super) fn make_link(
        &self,
        caller: &Caller,
        number: u64,
        new_parent: u64,
        new_name: &OsStr,
    ) -> Outcome<Entry> {
        let source = self.node(number)?;
        let new_parent = self.node(new_parent)?;
        match (&source, &new_parent) {
            (Node::File { id, .. }, Node::File { id: directory, .. }) => {
                let entry = self.exchange.files().link(caller, *id, *directory, new_name)?;
                let node = Node::File { id: entry.id, aliased: false };
                let kept = self.count(&new_parent, new_name, &node, &entry.attr);
                Ok(Entry { node, attr: entry.attr, kept })
            }
            (Node::File { .. }, _) => Err(self.refuse_name(caller, &new_parent, new_name, "link")),
            _ => Err(self.refuse(caller, &source, "link")),
        }
    }

    pub(super) fn rename(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: u32,
    ) -> Outcome<()> {
        if flags & !RENAME_FLAGS != 0 {
            return Err(Denied::os(libc::EINVAL));
        }
        let parent = self.node(parent)?;
        let new_parent = self.node(new_parent)?;
        match (&parent, &new_parent) {
            (Node::File { id: from, .. }, Node::File { id: to, .. }) => {
                let (from, to) = (*from, *to);
                let asked = Move { from, name: name.into(), to, new_name: new_name.into(), flags };
                asked.carry_out(&self.exchange, &self.inodes, caller)
            }
            (Node::Dir { dir: Dir::State(from), .. }, Node::Dir { dir: Dir::State(to), .. }) => {
                let is_view = || matches!(self.peek(caller, &parent, name), Some(Node::View { .. }));
                if flags & RENAME_EXCHANGE != 0 || is_view() {
                    return Err(self.refuse_name(caller, &parent, name, "rename"));
                }
                // Names that are no UTF-8 stand for nothing here and can't be given.
                let from_name = name.to_str().ok_or_else(|| Denied::os(libc::ENOENT))?;
                let Some(to_name) = new_name.to_str() else {
                    return Err(self.refuse_name(caller, &new_parent, new_name, "rename"));
                };
                self.exchange.move_handoff(caller, (*from, from_name), (*to, to_name))
            }
            (Node::Mailbox { to: old, .. }, Node::Mailbox { to: new, .. })
                if flags & RENAME_EXCHANGE == 0 =>
            {
                let name = name.to_str().ok_or_else(|| Denied::os(libc::ENOENT))?;
                let Some(new_name) = new_name.to_str() else {
                    return Err(self.refuse_name(caller, &new_parent, new_name, "rename"));
                };
                let replace = flags & RENAME_NOREPLACE == 0;
                self.exchange.move_letter(caller, (old, name), (new, new_name), replace)
            }
            _ => match self.peek(caller, &parent, name) {
                None => Err(Denied::os(libc::ENOENT)),
                // An ordinary file is not harmed by a refusal where it wanted to go.
                Some(Node::File { .. }) if matches!(parent, Node::File { .. }) => {
                    Err(self.refuse_name(caller, &new_parent, new_name, "rename"))
                }
                Some(source) => Err(self.refuse(caller, &source, "rename")),
            },
        }
    }

    pub(super) fn open_directory(&self, caller: &Caller, number: u64) -> Outcome<u64> {
        let node = self.node(number)?;
        let names = tree::list(&self.exchange, caller, &node)?.into();
        Ok(self.handles.add(Handle::Directory(Listing { names, served: false }.into())))
    }

    /// The listing that an open directory shows from `offset` on.
    pub(super) fn listing(
        &self,
        caller: &Caller,
        number: u64,
        handle: u64,
        offset: u64,
    ) -> Outcome<Arc<[tree::Listed]>> {
        let handle = self.handles.get(handle).ok_or_else(|| Denied::os(libc::EBADF))?;
        let Handle::Directory(listing) = &*handle else { return Err(Denied::os(libc::ENOTDIR)) };
        let stale = offset == 0 && listing.lock().served;
        let renewed: Option<Arc<[tree::Listed]>> = if stale {
            let node = self.node(number)?;
            Some(tree::list(&self.exchange, caller, &node)?.into())
        } else {
            None
        };
        let mut listing = listing.lock();
        if let Some(names) = renewed {
            listing.names = names;
        }
        listing.served = true;
        Ok(listing.names.clone())
    }
}
