//! What is open: the handles the kernel holds, and the backing file that all opens of one inode must share.

use super::tree::Listed;
use crate::exchange::files::OpenFile;
use crate::exchange::handoffs::DraftWriter;
use crate::exchange::logs::LogWriter;
use crate::exchange::send::LetterWriter;
use crate::exchange::views::ViewReader;
use crate::exchange::{Reading, same_process};
use fuser::BackingId;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One open file or directory.
pub(super) enum Handle {
    /// A log, a published handoff or a sent letter, opened for reading.
    Reader {
        /// Its bytes.
        file: Arc<File>,
        /// Held while an agent reads its own inbox.
        _reading: Option<Reading>,
    },
    /// A log, opened for appending.
    LogWriter(LogWriter),
    /// A draft of a handoff.
    Draft(DraftWriter),
    /// A letter being written.
    Letter(LetterWriter),
    /// A read-only file that the exchange makes.
    View {
        /// Its bytes.
        reader: ViewReader,
        /// Its inode number.
        inode: u64,
        /// The thread that opened it.
        opener: u32,
    },
    /// An ordinary file or a slot.
    File(OpenFile),
    /// A directory.
    Directory(Mutex<Listing>),
}

/// A directory as it was when it was opened or last rewound: offsets index into it, so that a reader who is slow while
/// names come and go sees each name at most once.
pub(super) struct Listing {
    pub(super) names: Arc<[Listed]>,
    /// Whether it has been read from: a rewind then lists anew.
    pub(super) served: bool,
}

/// The open handles of one mount.
#[derive(Default)]
pub(super) struct Handles {
    last: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    pub(super) fn add(&self, handle: Handle) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().insert(number, Arc::new(handle));
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.read().get(&number).cloned()
    }

    /// The length of the text that a process has open as inode `number`, its newest where it has several: the kernel
    /// does not tell which descriptor an fstat is of, and a reader that asks for the size reads so much.
    pub(super) fn text_len(&self, number: u64, process: u32) -> Option<u64> {
        let open = self.open.read();
        let texts = open.iter().filter_map(|(handle, open)| match &**open {
            Handle::View { reader: ViewReader::Text(text), inode, opener } if *inode == number => {
                Some((*handle, *opener, text.len() as u64))
            }
            _ => None,
        });
        let own = texts.filter(|(_, opener, _)| same_process(*opener, process));
        own.max_by_key(|(handle, _, _)| *handle).map(|(_, _, len)| len)
    }

    pub(super) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.write().remove(&number)
    }

    /// All that the kernel did not release before the mount ended.
    pub(super) fn remove_all(&self) -> Vec<Arc<Handle>> {
        self.open.write().drain().map(|(_, handle)| handle).collect()
    }
}

/// How an inode's reads reach their bytes. The kernel fails an open with EIO that disagrees with one that is still
/// held, so the first open decides and the rest follow until the last release.
struct Shared {
    backing: Option<Arc<BackingId>>,
    opens: usize,
}

/// The backing files of one mount's open inodes.
#[derive(Default)]
pub(super) struct Backings {
    by_inode: Mutex<HashMap<u64, Shared>>,
}

impl Backings {
    /// Counts one open of inode `number`; `register` asks the kernel for passthrough to its file and is called for the
    /// first of several opens only. Gives what this open must carry.
    pub(super) fn attach(
        &self,
        number: u64,
        register: impl FnOnce() -> Option<io::Result<BackingId>>,
    ) -> Option<Arc<BackingId>> {
        let mut by_inode = self.by_inode.lock();
        let shared = by_inode.entry(number).or_insert_with(|| {
            let backing = register().and_then(|registered| match registered {
                Ok(id) => Some(Arc::new(id)),
                Err(error) => {
                    tracing::debug!(inode = number, %error, "no passthrough for this file");
                    None
                }
            });
            Shared { backing, opens: 0 }
        });
        shared.opens += 1;
        shared.backing.clone()
    }

    /// Counts one release of inode `number`.
    pub(super) fn detach(&self, number: u64) {
        let mut by_inode = self.by_inode.lock();
        if let Some(shared) = by_inode.get_mut(&number) {
            shared.opens -= 1;
            if shared.opens == 0 {
                by_inode.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_open_of_an_inode_decides_and_the_rest_follow_until_the_last_release() {
        let backings = Backings::default();
        let mut asked = 0;
        let mut open = || {
            let backing = backings.attach(8, || {
                asked += 1;
                Some(Err(io::Error::from_raw_os_error(libc::EPERM)))
            });
            assert!(backing.is_none());
        };
        open();
        open();
        backings.detach(8);
        open();
        assert_eq!(asked, 1);
        backings.detach(8);
        backings.detach(8);
        assert!(backings.by_inode.lock().is_empty());
    }

    #[test]
    fn handles_left_open_are_found_when_the_mount_ends() {
        let handles = Handles::default();
        let view =
            |text: &'static [u8]| Handle::View { reader: ViewReader::Text(text.into()), inode: 8, opener: 1 };
        let first = handles.add(view(b"a"));
        let second = handles.add(view(b"bb"));
        assert_ne!(first, second);
        assert_eq!((handles.text_len(8, 1), handles.text_len(9, 1)), (Some(2), None));
        assert!(handles.remove(first).is_some());
        assert!(handles.get(first).is_none());
        assert_eq!(handles.remove_all().len(), 1);
    }
}
