//! Those who wait for a lock: one thread looks after all of them, so that none waits on a thread of a mount.

use super::{LockFile, LockRequest, Reply, Shared, Table, no_lock, signals};
use crate::exchange::{Denied, Outcome};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often to try again without having been told: who holds a lock behind the mount does not tell.
const PAUSE: Duration = Duration::from_millis(50);
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// How long somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The lock is had.
    Had,
    /// The lock is had, or then.
    At(Instant),
}

/// Somebody who waits.
pub(super) struct Waiter {
    file: LockFile,
    until: Until,
    pub(super) request: LockRequest,
    pub(super) reply: Reply,
}

impl Until {
    fn is_over(self) -> bool {
        matches!(self, Until::At(then) if then <= Instant::now())
    }
}

impl Shared {
    /// Has `request` wait.
    pub(super) fn park(self: &Arc<Self>, file: &LockFile, request: LockRequest, until: Until, reply: Reply) {
        let mut table = self.table.lock();
        table.waiting.push(Waiter { file: file.clone(), until, request, reply });
        if table.attended {
            return;
        }
        table.attended = true;
        drop(table);
        let shared = self.clone();
        let attend = move || shared.attend();
        if let Err(error) = std::thread::Builder::new().name("locks".into()).spawn(attend) {
            tracing::error!(%error, "nobody can wait for a lock");
            let mut table = self.table.lock();
            table.attended = false;
            let waiting = std::mem::take(&mut table.waiting);
            drop(table);
            for waiter in waiting {
                (waiter.reply)(Err(no_lock()));
            }
        }
    }

    /// Looks after those who wait, until there is nobody.
    fn attend(&self) {
        loop {
            let mut table = self.table.lock();
            if table.waiting.is_empty() {
                table.attended = false;
                return;
            }
            let hurried = table.waiting.iter().any(|waiter| waiter.until != Until::Had);
            self.given_up.wait_for(&mut table, if hurried { SHORT_PAUSE } else { PAUSE });
            let answered = self.try_all(&mut table);
            drop(table);
            for (waiter, answer) in answered {
                (waiter.reply)(answer);
            }
        }
    }

    /// Tries for each in turn; gives those whose wait is over.
    fn try_all(&self, table: &mut Table) -> Vec<(Waiter, Outcome<()>)> {
        let mut answered = Vec::new();
        for waiter in std::mem::take(&mut table.waiting) {
            let tried = if signals::interrupted(waiter.request.thread) {
                Err(Denied::os(libc::EINTR))
            } else {
                waiter.file.key().and_then(|key| self.apply(table, &key, &waiter.file, &waiter.request))
            };
            match tried {
                Err(denied) if denied.errno() == libc::EAGAIN && !waiter.until.is_over() => {
                    table.waiting.push(waiter);
                }
                over => answered.push((waiter, over)),
            }
        }
        answered
    }
}
