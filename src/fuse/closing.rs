//! Taking the right to search a directory away, where the kernel may still keep names in it.
//!
//! It lets whoever it is pass by a name that it keeps, and nothing that we could tell it now reaches it before chmod(2)
//! returns, which holds the directory. So the change waits until no name is kept, a moment at most.

use super::adapter::Mounted;
use super::attr::file_attr;
use super::inodes::Inodes;
use super::names::Change;
use super::tree::Node;
use crate::exchange::files::kept::rest_of_moment;
use crate::exchange::files::{FileId, Files};
use crate::exchange::{Caller, NodeKind};
use fuser::{Errno, ReplyAttr};
use std::sync::Arc;
use std::time::Duration;

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
        let rest = self.inodes.close(id).and_then(rest_of_moment).unwrap_or_default();
        Some(Closing { inodes: self.inodes.clone(), node, id, rest })
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
