//! Group commit: one fdatasync serves every writer that waits for it.

use parking_lot::{Condvar, Mutex};
use std::io;

/// Durability of one growing file, by position.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    durable: u64,
    syncing: bool,
    failed: bool,
}

impl GroupCommit {
    /// Whether the file may still grow. After a failed sync it may not: the kernel has taken the pages
    /// for clean, so that the next sync would succeed without them. Only a fresh start, which writes
    /// what it finds once more, brings it back.
    ///
    /// # Errors
    /// EIO after a failed sync.
    pub fn check(&self) -> io::Result<()> {
        if self.state.lock().failed { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    /// From now on as after a failed sync: for a file that is not as the events say, until a start repairs it.
    pub fn fail(&self) {
        self.state.lock().failed = true;
        self.done.notify_all();
    }

    /// Returns once everything before `position` is durable. `end` gives the file's end and `sync`
    /// makes it durable up to there; whoever finds no sync under way makes one for all who wait.
    ///
    /// # Errors
    /// The disk's, to the writer whose sync failed; EIO to all others from then on.
    pub fn wait(
        &self,
        position: u64,
        end: impl Fn() -> u64,
        sync: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.durable >= position {
                return Ok(());
            }
            if state.failed {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if !state.syncing {
                break;
            }
            self.done.wait(&mut state);
        }
        state.syncing = true;
        drop(state);
        let reached = end();
        let result = sync();
        let mut state = self.state.lock();
        state.syncing = false;
        match &result {
            Ok(()) => state.durable = state.durable.max(reached),
            Err(error) => {
                state.failed = true;
                tracing::error!(
                    %error,
                    "the disk failed: this file takes nothing more until its exchange is mounted anew"
                );
            }
        }
        self.done.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn one_sync_serves_every_writer_that_waits() {
        let commit = GroupCommit::default();
        let (end, syncs) = (AtomicU64::new(0), AtomicU64::new(0));
        let sync = || {
            syncs.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mine = end.fetch_add(1, Ordering::SeqCst) + 1;
                        commit.wait(mine, || end.load(Ordering::SeqCst), sync).unwrap();
                        assert!(commit.state.lock().durable >= mine);
                    }
                });
            }
        });
        assert!(syncs.load(Ordering::SeqCst) <= 800);
        let before = syncs.load(Ordering::SeqCst);
        commit.wait(800, || 800, sync).unwrap();
        assert_eq!(syncs.load(Ordering::SeqCst), before, "what is durable is not synced again");
    }

    #[test]
    fn what_a_failed_sync_lost_is_never_reported_durable() {
        let commit = GroupCommit::default();
        let failed = commit.wait(5, || 5, || Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(commit.check().is_err());
        // The kernel reports a lost page once; a second sync that succeeds says nothing about it.
        assert!(commit.wait(5, || 5, || Ok(())).is_err());
        assert!(commit.wait(6, || 6, || Ok(())).is_err());
    }
}
