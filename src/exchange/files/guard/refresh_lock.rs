//! The lock directory that a program makes while it refreshes a login, and who is a witness of it.

use super::profile::Profile;
use crate::exchange::files::fd::{self, FileKey};
use crate::exchange::files::process::Process;
use crate::rules::credential::{REFRESH_LOCK_SECONDS, Witness};
use crate::wire::time::Timestamp;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::time::UNIX_EPOCH;

/// The refresh lock as it is now.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) struct RefreshLock {
    /// Who made it through the mount, if it was made there.
    pub holder: Option<Process>,
    /// Seconds since it was last touched.
    pub age_seconds: i64,
}

impl RefreshLock {
    pub fn is_stale(&self) -> bool {
        self.age_seconds >= REFRESH_LOCK_SECONDS
    }
}

#[derive(Clone, Copy)]
pub(in crate::exchange::files) struct Holder {
    process: Process,
    lock: FileKey,
}

impl Profile {
    /// Notes who made the refresh lock.
    pub(in crate::exchange::files) fn lock_taken(&self, process: Option<Process>, lock: &Metadata) {
        *self.refresh_holder.lock() = process.map(|process| Holder { process, lock: FileKey::of(lock) });
    }

    /// The refresh lock, if it exists.
    pub fn refresh_lock(&self, now: Timestamp) -> io::Result<Option<RefreshLock>> {
        let Some(lock) = &self.config.format.lock else { return Ok(None) };
        let Some(handle) = fd::find(&self.dir, OsStr::new(lock))? else { return Ok(None) };
        let metadata = handle.metadata()?;
        if !metadata.is_dir() {
            return Ok(None);
        }
        let holder = *self.refresh_holder.lock();
        let holder =
            holder.filter(|holder| holder.lock == FileKey::of(&metadata)).map(|holder| holder.process);
        let touched =
            metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Ok(Some(RefreshLock { holder, age_seconds: now.unix_seconds().saturating_sub(touched) }))
    }

    /// Whether a process takes part in a refresh that is under way.
    pub(in crate::exchange::files) fn witness(
        &self,
        process: Option<Process>,
        now: Timestamp,
    ) -> io::Result<Witness> {
        let holder = match self.refresh_lock(now)? {
            Some(lock) if !lock.is_stale() => lock.holder,
            _ => None,
        };
        let holds_refresh_lock = match (holder, process) {
            (Some(holder), Some(process)) => holder.tgid == process.tgid || holder.pgrp == process.pgrp,
            _ => false,
        };
        Ok(Witness { holds_refresh_lock })
    }
}
