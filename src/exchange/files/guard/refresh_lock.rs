//! The lock directory that a program makes while it refreshes a login, and who is a witness of it.
//!
//! It is the programs' own: its maker is noted, but nothing here removes it, stale or not.

use super::change::Live;
use super::profile::Profile;
use crate::exchange::files::fd::{self, FileKey};
use crate::exchange::files::process::{self, Process};
use crate::rules::credential::{REFRESH_LOCK_SECONDS, SlotName, Witness};
use crate::wire::time::Timestamp;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// The refresh lock as it is now.
#[derive(Debug, Clone)]
pub(in crate::exchange) struct RefreshLock {
    /// Who made it through the mount, if it was made there.
    pub holder: Option<Holder>,
    /// Seconds since it was last touched.
    pub age_seconds: i64,
}

impl RefreshLock {
    pub fn is_stale(&self) -> bool {
        self.age_seconds >= REFRESH_LOCK_SECONDS
    }
}

/// Who made a refresh lock.
#[derive(Debug, Clone)]
pub(in crate::exchange) struct Holder {
    pub process: Process,
    /// Its program's name.
    pub program: Option<String>,
    /// The leader of its process group, as long as there was one when the lock was made.
    leader: Option<Process>,
    /// The slot that was live when the lock was made: the one whose login is refreshed.
    slot: Option<SlotName>,
    lock: Birth,
}

/// Which directory it is: a number on disk is given to the next directory as soon as it is free.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Birth(FileKey, Option<SystemTime>);

impl Birth {
    fn of(metadata: &Metadata) -> Self {
        Birth(FileKey::of(metadata), metadata.created().ok())
    }
}

impl Holder {
    /// Whether a process is the holder, or of its group: the same group, not one that got its number later.
    fn takes_part(&self, process: Process) -> bool {
        let same = (process.tgid, process.started) == (self.process.tgid, self.process.started);
        let started = |leader: Option<Process>| leader.map(|leader| leader.started);
        // Its own leader, a process may be in the middle of execve(2), where nobody must ask for it.
        let leads = process.pgrp == process.tgid;
        let leader = || if leads { Some(process) } else { Process::of(process.pgrp) };
        same || (process.pgrp == self.process.pgrp
            && match (started(self.leader), started(leader())) {
                (_, None) => true, // a group whose leader has ended keeps its number for as long as it has members
                (was, is) => was == is,
            })
    }
}

impl Profile {
    /// Notes who made the refresh lock.
    pub(in crate::exchange::files) fn lock_taken(&self, process: Option<Process>, lock: &Metadata) {
        let slot = match self.live() {
            Ok(Live::To(slot)) => Some(slot),
            _ => None,
        };
        *self.refresh_holder.lock() = process.map(|process| Holder {
            process,
            slot,
            program: process::program(process.tgid),
            leader: Process::of(process.pgrp),
            lock: Birth::of(lock),
        });
    }

    /// The refresh lock, if it exists.
    pub fn refresh_lock(&self, now: Timestamp) -> io::Result<Option<RefreshLock>> {
        let Some(lock) = &self.config.format.lock else { return Ok(None) };
        let Some(handle) = fd::find(&self.dir, OsStr::new(lock))? else { return Ok(None) };
        let metadata = handle.metadata()?;
        if !metadata.is_dir() {
            return Ok(None);
        }
        let holder = self.refresh_holder.lock().clone();
        let holder = holder.filter(|holder| holder.lock == Birth::of(&metadata));
        let touched =
            metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Ok(Some(RefreshLock { holder, age_seconds: now.unix_seconds().saturating_sub(touched) }))
    }

    /// The refresh that is under way and in which a process takes part.
    fn refresh_of(&self, process: Option<Process>, now: Timestamp) -> io::Result<Option<Holder>> {
        let holder = match self.refresh_lock(now)? {
            Some(lock) if !lock.is_stale() => lock.holder,
            _ => None,
        };
        Ok(holder
            .zip(process)
            .filter(|(holder, process)| holder.takes_part(*process))
            .map(|(holder, _)| holder))
    }

    /// Whether a process takes part in a refresh that is under way and can be one of this slot. A slot that became
    /// live only after the lock was made is another's: the refresh began with the login that was live before.
    pub(in crate::exchange::files) fn witness(
        &self,
        process: Option<Process>,
        slot: &SlotName,
        now: Timestamp,
    ) -> io::Result<Witness> {
        let Some(holder) = self.refresh_of(process, now)? else { return Ok(Witness::default()) };
        let came_later = self.live()? == Live::To(slot.clone()) && holder.slot.as_ref() != Some(slot);
        Ok(Witness { holds_refresh_lock: holder.slot.is_none() || !came_later })
    }

    /// The slot whose login a process refreshes.
    pub(super) fn refreshed_by(
        &self,
        process: Option<Process>,
        now: Timestamp,
    ) -> io::Result<Option<SlotName>> {
        let slot = self.refresh_of(process, now)?.and_then(|holder| holder.slot);
        Ok(slot.filter(|slot| matches!(self.slot_handle(slot), Ok(Some(_)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_or_group_number_is_not_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Birth::of(&dir.path().metadata().unwrap());
        let process = Process::of(std::process::id()).unwrap();
        let leader = Process::of(process.pgrp);
        let holder = Holder { process, program: None, leader, slot: None, lock };
        assert!(holder.takes_part(process));
        assert!(holder.takes_part(Process { tgid: 1, ..process }), "of the same group");
        let later = Process { started: process.started + 1, ..process };
        assert!(!holder.takes_part(Process { pgrp: u32::MAX, ..later }), "it has only the pid");
        let reborn = Some(Process { started: 1, ..process });
        let holder = Holder { leader: reborn, ..holder };
        assert!(!holder.takes_part(Process { tgid: 1, ..later }), "it has only the group's number");
    }
}
