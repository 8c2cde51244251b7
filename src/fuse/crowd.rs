//! Keeps the number of ordinary files that the kernel remembers within bounds.
//!
//! Each of them is an open file of the daemon, and the kernel forgets none before it is short of memory: one `ls -l` of
//! a large folder would leave no file for anybody else to open. So the longest known names are taken back from it.

use super::inodes::Inodes;
use crate::exchange::files::FileId;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The share of the daemon's files that the names of one mount may take.
const SHARE: u64 = 8;
const FEWEST: usize = 256;
const MOST: usize = 131_072;

/// The share of the names that falls out at once, so that the kernel is told in one call.
const BATCH: usize = 8;

/// A file, and which arrival of it.
type Arrival = (FileId, u64);

/// A name that the kernel was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Its inode number.
    pub(super) number: u64,
    /// Its directory's.
    pub(super) parent: u64,
    pub(super) name: OsString,
}

/// The names that the kernel was given first, in that order; some of them it has forgotten.
pub(super) struct Crowd {
    most: usize,
    names: Mutex<VecDeque<(Arrival, Name)>>,
    too_many: Sender<Vec<Name>>,
    /// Some that fell out are not forgotten yet.
    forgetting: Arc<AtomicBool>,
}

/// What falls out of a [`Crowd`].
pub(super) struct TooMany {
    fallen: Receiver<Vec<Name>>,
    forgetting: Arc<AtomicBool>,
}

impl Crowd {
    /// For this process's limit of open files.
    pub(super) fn new() -> (Self, TooMany) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = limit.map_or(MOST, |limit| usize::try_from(limit / SHARE).unwrap_or(MOST));
        let (too_many, fallen) = channel();
        let forgetting = Arc::<AtomicBool>::default();
        let most = share.clamp(FEWEST, MOST);
        let crowd = Crowd { most, names: Mutex::default(), too_many, forgetting: forgetting.clone() };
        (crowd, TooMany { fallen, forgetting })
    }

    /// One more; those that have been known longest fall out where there are too many.
    pub(super) fn add(&self, arrival: Arrival, name: Name, inodes: &Inodes) {
        let is_known = |(id, arrival): Arrival| inodes.knows_since(id, arrival);
        let mut names = self.names.lock();
        names.push_back((arrival, name));
        if names.len() > 2 * self.most {
            names.retain(|(arrival, _)| is_known(*arrival));
        }
        if inodes.known() <= self.most || self.forgetting.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut fallen = Vec::new();
        while fallen.len() < self.most.div_ceil(BATCH)
            && let Some((oldest, name)) = names.pop_front()
        {
            if is_known(oldest) {
                fallen.push(name);
            }
        }
        // Nobody listens any more only when the mount has ended.
        let _ = self.too_many.send(fallen);
    }
}

impl TooMany {
    /// Has the kernel forget what falls out, until the mount ends. `device`: where the kernel is told. On a thread of
    /// its own: for a name of its own it answers once no request holds the directory, and such a request may be
    /// waiting for us.
    pub(super) fn forget_by(self, notifier: &Notifier, mut device: Option<File>) {
        for names in self.fallen {
            if let Some(open) = &device
                && let Err(error) = prune(open, &names)
            {
                tracing::debug!(%error, "the kernel forgets names one by one");
                device = None;
            }
            if device.is_none() {
                for Name { parent, name, .. } in &names {
                    // It may know the name no more; and what is open or somebody's working folder it keeps.
                    let _ = notifier.inval_entry(INodeNo(*parent), name);
                }
            }
            self.forgetting.store(false, Ordering::Relaxed);
        }
    }
}

/// FUSE_NOTIFY_PRUNE, of Linux 6.18: has the kernel forget files that nobody uses, without waiting for the directories
/// that they are in. fuser does not know it.
fn prune(mut device: &File, names: &[Name]) -> io::Result<()> {
    const NOTIFY_PRUNE: u32 = 9;
    const HEADER: usize = 16;
    const PRUNE_OUT: usize = 16;
    let len = (HEADER + PRUNE_OUT + names.len() * size_of::<u64>()) as u32;
    let mut message = Vec::with_capacity(len as usize);
    // struct fuse_out_header: a notification has its code where a reply has its error, and the number 0.
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&NOTIFY_PRUNE.to_ne_bytes());
    message.extend_from_slice(&0_u64.to_ne_bytes());
    // struct fuse_notify_prune_out: how many, and what is spare.
    message.extend_from_slice(&(names.len() as u32).to_ne_bytes());
    message.resize(HEADER + PRUNE_OUT, 0);
    for name in names {
        message.extend_from_slice(&name.number.to_ne_bytes());
    }
    device.write_all(&message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::tree::Node;

    const ROOT: FileId = FileId(0);

    fn arrive(crowd: &Crowd, inodes: &Inodes, id: u64) {
        let arrival = inodes.count(FileId(id), ROOT, false).arrival.unwrap();
        let name = Name { number: id, parent: 1, name: id.to_string().into() };
        crowd.add((FileId(id), arrival), name, inodes);
    }

    #[test]
    fn the_longest_known_names_fall_out_and_forgotten_ones_make_room() {
        let (mut crowd, too_many) = Crowd::new();
        crowd.most = 3; // the root is one
        let inodes = Inodes::new([ROOT, ROOT]);
        let fallen = || -> Vec<u64> {
            crowd.forgetting.store(false, Ordering::Relaxed);
            too_many.fallen.try_iter().flatten().map(|name| name.number).collect()
        };
        [2, 4].iter().for_each(|id| arrive(&crowd, &inodes, *id));
        assert!(fallen().is_empty());
        inodes.forget(inodes.number(&Node::File { id: FileId(2), aliased: false }), 1);
        arrive(&crowd, &inodes, 6);
        assert!(fallen().is_empty(), "one went, one came");
        arrive(&crowd, &inodes, 8);
        arrive(&crowd, &inodes, 10);
        assert_eq!(fallen(), [4], "no more before it is forgotten");
        arrive(&crowd, &inodes, 12);
        assert_eq!(fallen(), [6]);
    }

    #[test]
    fn names_that_come_and_go_take_no_room() {
        let (mut crowd, _too_many) = Crowd::new();
        crowd.most = 3; // the root is one
        let inodes = Inodes::new([ROOT, ROOT]);
        for id in 1..100 {
            arrive(&crowd, &inodes, 2 * id);
            inodes.forget(inodes.number(&Node::File { id: FileId(2 * id), aliased: false }), 1);
        }
        assert!(crowd.names.lock().len() <= 7);
    }
}
