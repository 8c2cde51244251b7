//! Keeps the number of ordinary files that the kernel remembers within bounds.
//!
//! Each of them is an open file of the daemon, and the kernel forgets none before it is short of memory: one `ls -l` of
//! a large folder would leave no file for anybody else to open. So the longest known names are taken back from it.

use super::adapter::Mounted;
use super::tree::Node;
use crate::exchange::{Attr, NodeKind};
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The share of the daemon's files that the names of one mount may take.
const SHARE: u64 = 16;
const FEWEST: usize = 256;
const MOST: usize = 65_536;

/// A name under a directory's inode number.
type Name = (u64, OsString);

/// The names that the kernel was given first, in that order.
pub(super) struct Crowd {
    most: usize,
    names: Mutex<VecDeque<Name>>,
    too_many: Sender<Name>,
}

/// What falls out of a [`Crowd`].
pub(super) struct TooMany(Receiver<Name>);

impl Crowd {
    /// For this process's limit of open files.
    pub(super) fn new() -> (Self, TooMany) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = limit.map_or(MOST, |limit| usize::try_from(limit / SHARE).unwrap_or(MOST));
        let (too_many, fallen) = channel();
        (Crowd { most: share.clamp(FEWEST, MOST), names: Mutex::default(), too_many }, TooMany(fallen))
    }

    fn add(&self, parent: u64, name: &OsStr) {
        let mut names = self.names.lock();
        names.push_back((parent, name.to_owned()));
        if names.len() > self.most
            && let Some(oldest) = names.pop_front()
        {
            // Nobody listens any more only when the mount has ended.
            let _ = self.too_many.send(oldest);
        }
    }
}

impl TooMany {
    /// Has the kernel forget what falls out, until the mount ends. On a thread of its own: the kernel answers once no
    /// request holds the directory, and such a request may be waiting for us.
    pub(super) fn forget_by(self, notifier: &Notifier) {
        for (parent, name) in self.0 {
            // It may know the name no more; and what is open or somebody's working folder it keeps.
            let _ = notifier.inval_entry(INodeNo(parent), &name);
        }
    }
}

impl Mounted {
    /// Counts a reference to a node that was found or made as `name` in `parent`.
    pub(super) fn count(&self, parent: &Node, name: &OsStr, node: &Node, attr: &Attr) {
        let volatile =
            matches!(parent, Node::File { id, .. } if self.exchange.files().names_are_volatile(*id));
        let newly = self.inodes.count(node, volatile);
        // A folder stays: forgetting it would unmount what is mounted in it, and lose the path of who is in it.
        if newly && attr.kind != NodeKind::Directory {
            self.crowd.add(self.inodes.number(parent), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_names_fall_out() {
        let (mut crowd, too_many) = Crowd::new();
        crowd.most = 2;
        for name in ["a", "b", "c", "d"] {
            crowd.add(1, OsStr::new(name));
        }
        let fallen: Vec<Name> = too_many.0.try_iter().collect();
        assert_eq!(fallen, [(1, "a".into()), (1, "b".into())]);
    }
}
