//! Taking the right to use a name away, where the kernel may still keep that name: by closing its directory, or by
//! moving it into one that is closed.
//!
//! The kernel lets whoever it is pass by a name that it keeps, also where it keeps it since it was elsewhere, and nothing
//! that we could tell it now reaches it before chmod(2) or rename(2) returns, which holds the directory. So the change
//! waits until no name is kept, a moment at most.

use super::adapter::Mounted;
use super::attr::file_attr;
use super::inodes::Inodes;
use super::names::{Change, Move, RENAME_EXCHANGE, RENAME_FLAGS};
use super::tree::Node;
use crate::exchange::files::kept::rest_of_moment;
use crate::exchange::files::{FileId, Files};
use crate::exchange::{Caller, NodeKind};
use fuser::{Errno, ReplyAttr, ReplyEmpty};
use std::sync::Arc;
use std::time::Duration;

/// How long a lookup that found a name before it moved may take to say that it may be kept.
const STRAGGLER: Duration = Duration::from_millis(100);

/// A directory in which no name is kept any more, as long as this lives.
pub(super) struct Closing {
    inodes: Arc<Inodes>,
    node: Node,
    id: FileId,
    /// How long the kernel may still keep some.
    pub(super) rest: Duration,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.inodes.closed(self.id);
    }
}

impl Mounted {
    /// To be held during a change of attributes; `None` where it closes nothing.
    pub(super) fn closing(&self, caller: &Caller, number: u64, change: &Change) -> Option<Closing> {
        let mode = change.mode?;
        let node = self.inodes.node(number)?;
        let Node::File { id, .. } = node else { return None };
        let files = self.exchange.files();
        let attr = files.attr(id).ok()?;
        let is_exempt = files.is_exempt(caller);
        let closes = attr.kind == NodeKind::Directory && Files::closes(attr.mode, mode);
        // Others may not change it and are told so at once; a single user whom no mode binds loses nothing.
        if !closes || (is_exempt && !self.shared) || !(is_exempt || caller.uid == attr.uid) {
            return None;
        }
        Some(self.close_directory(node, id))
    }

    fn close_directory(&self, node: Node, id: FileId) -> Closing {
        let rest = self.inodes.close(id).and_then(rest_of_moment).unwrap_or_default();
        Closing { inodes: self.inodes.clone(), node, id, rest }
    }

    /// The directory that a name leaves for one that is closed to somebody, to be held during the rename; `None` where
    /// no name does. What is closed to somebody keeps no names: of two such directories neither has any to lose.
    pub(super) fn closing_for_move(
        &self,
        caller: &Caller,
        parent: u64,
        new_parent: u64,
        flags: u32,
    ) -> Option<(Closing, [FileId; 2])> {
        let (from, to) = (self.inodes.node(parent)?, self.inodes.node(new_parent)?);
        let (Node::File { id: from_id, .. }, Node::File { id: to_id, .. }) = (&from, &to) else {
            return None;
        };
        let (from_id, to_id) = (*from_id, *to_id);
        if !self.shared || from_id == to_id || flags & !RENAME_FLAGS != 0 {
            return None;
        }
        let files = self.exchange.files();
        let (left, left_id) = match [from_id, to_id].map(|id| files.is_open_to_all(id)) {
            [true, false] => (from, from_id),
            [false, true] if flags & RENAME_EXCHANGE != 0 => (to, to_id),
            _ => return None,
        };
        // Who may not rename here is told so at once, and makes nobody wait for the directories.
        let want = (libc::W_OK | libc::X_OK) as u32;
        if [from_id, to_id].into_iter().any(|id| files.access(caller, id, want).is_err()) {
            return None;
        }
        Some((self.close_directory(left, left_id), [from_id, to_id]))
    }

    /// Moves the name when the wait is over, on a thread of its own.
    pub(super) fn rename_after(&self, closing: Closing, caller: Caller, asked: Move, reply: ReplyEmpty) {
        let exchange = self.exchange.clone();
        let rename = move || {
            std::thread::sleep(closing.rest);
            match asked.carry_out(&exchange, &closing.inodes, &caller) {
                Ok(()) => reply.ok(),
                Err(denied) => reply.error(Errno::from_i32(denied.errno())),
            }
            // The directory that the name left is open as before: its mode does not stop a lookup that found it there.
            std::thread::sleep(STRAGGLER);
            drop(closing);
        };
        // Without a thread the reply is dropped, which answers EIO.
        if let Err(error) = std::thread::Builder::new().name("rename".into()).spawn(rename) {
            tracing::warn!(%error, "a name stays where it is");
        }
    }

    /// Makes the change when the wait is over, on a thread of its own: nobody else shall wait.
    pub(super) fn set_attributes_after(
        &self,
        closing: Closing,
        caller: Caller,
        change: Change,
        reply: ReplyAttr,
    ) {
        let exchange = self.exchange.clone();
        let set = move || {
            std::thread::sleep(closing.rest);
            match exchange.files().set_attr(&caller, closing.id, None, change.ordinary()) {
                Ok(attr) => {
                    let number = closing.inodes.number(&closing.node);
                    reply.attr(&Duration::ZERO, &file_attr(&closing.node, number, &attr));
                }
                Err(denied) => reply.error(Errno::from_i32(denied.errno())),
            }
        };
        // Without a thread the reply is dropped, which answers EIO.
        if let Err(error) = std::thread::Builder::new().name("chmod".into()).spawn(set) {
            tracing::warn!(%error, "a directory keeps its mode");
        }
    }
}
