//! For how long a kernel may keep what it was told of ordinary files: a moment where all changes come through one
//! mount, and not at all where another mount's changes must be seen at once.

use super::Files;
use crate::exchange::NodeKind;
use crate::exchange::files::FileId;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long names and attributes may be kept.
pub const MOMENT: Duration = Duration::from_secs(1);

/// A moment lasts a little longer than it is meant to: the kernel's begins when it reads the reply.
const SLACK: Duration = Duration::from_millis(100);

const SEARCH_FOR_ALL: u32 = 0o111;

/// The mounts of an exchange, and when one of them was last told to keep something.
pub(super) struct Keeping {
    mounts: AtomicUsize,
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Default for Keeping {
    fn default() -> Self {
        Keeping { mounts: AtomicUsize::new(0), start: Instant::now(), last: AtomicU64::new(0) }
    }
}

/// The rest of a moment that began at `since`, and is over for every kernel.
pub fn rest_of_moment(since: Instant) -> Option<Duration> {
    (MOMENT + SLACK).checked_sub(since.elapsed()).filter(|rest| !rest.is_zero())
}

impl Files {
    /// Counts a mount. Returns once nothing is kept that this mount could make untrue, which takes a moment at most.
    pub fn join(&self) {
        let others = self.keeping.mounts.fetch_add(1, Ordering::SeqCst);
        let last = self.keeping.last.load(Ordering::SeqCst);
        if others > 0
            && let Some(rest) = rest_of_moment(self.keeping.start + Duration::from_millis(last))
        {
            std::thread::sleep(rest);
        }
    }

    /// A mount has ended.
    pub fn leave(&self) {
        self.keeping.mounts.fetch_sub(1, Ordering::SeqCst);
    }

    /// How long what is now said may be kept.
    pub fn moment(&self) -> Duration {
        let alone = || self.keeping.mounts.load(Ordering::SeqCst) <= 1;
        if !alone() {
            return Duration::ZERO;
        }
        let now = self.keeping.start.elapsed().as_millis();
        self.keeping.last.fetch_max(u64::try_from(now).unwrap_or(u64::MAX), Ordering::SeqCst);
        // Counted again after it was noted, so that the next mount to join sees it or is seen.
        if alone() { MOMENT } else { Duration::ZERO }
    }

    /// Whether a name in a directory, of a file of this kind, can come to stand for another file without the kernel's
    /// knowledge: in a profile's top a rename may be turned into a write to a slot.
    pub fn is_volatile(&self, dir: FileId, kind: NodeKind) -> bool {
        kind != NodeKind::Directory && self.nodes.dir(dir).is_ok_and(|dir| dir.top().is_some())
    }

    /// Whether everybody may look up names in a directory, so that no check is missed where the kernel knows one.
    /// Below the top of a profile with agents of its own nobody else gets, because the names there are never kept.
    pub fn is_open_to_all(&self, dir: FileId) -> bool {
        let Ok(dir) = self.nodes.dir(dir) else { return false };
        let is_for_some = dir.top().is_some_and(|profile| profile.config.agents.is_some());
        let is_searchable =
            || dir.handle.metadata().is_ok_and(|m| m.mode() & SEARCH_FOR_ALL == SEARCH_FOR_ALL);
        self.is_root(&dir) || (!is_for_some && is_searchable())
    }

    /// Whether a change of mode from `old` to `new` takes the right to search a directory from somebody.
    pub fn closes(old: u32, new: u32) -> bool {
        old & !new & SEARCH_FOR_ALL != 0
    }
}
