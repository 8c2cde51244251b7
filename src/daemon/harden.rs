//! Keeps the daemon's memory, through which logins and keys pass, off every disk: no core dump, no swap.

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// What was achieved, for `baton status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// No crash writes the daemon's memory to a file.
    pub core_dumps_off: bool,
    /// The daemon's memory is never swapped out.
    pub memory_locked: bool,
}

/// Hardens this process, as far as it may.
pub fn harden() -> Hardening {
    // A pipe in core_pattern gets its dump whatever the limit says, so the process is made undumpable too.
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let core_dumps_off = said("core dumps stay on", limited) && said("core dumps stay on", make_undumpable());
    let memory_locked = may_lock_all() && said("memory is not locked", lock_all());
    if !memory_locked {
        tracing::debug!("memory is not locked: that takes CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK");
    }
    Hardening { core_dumps_off, memory_locked }
}

fn said(what: &str, done: rustix::io::Result<()>) -> bool {
    done.inspect_err(|error| tracing::warn!(%error, "{what}")).is_ok()
}

#[cfg(target_os = "linux")]
fn make_undumpable() -> rustix::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}
#[cfg(not(target_os = "linux"))]
fn make_undumpable() -> rustix::io::Result<()> {
    Ok(())
}

/// Whether all memory may be locked, also what is yet to come: under a limit, an allocation over it would fail.
#[cfg(target_os = "linux")]
fn may_lock_all() -> bool {
    use rustix::process::getrlimit;
    use rustix::thread::{CapabilitySet, capabilities};
    getrlimit(Resource::Memlock).current.is_none()
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
#[cfg(not(target_os = "linux"))]
fn may_lock_all() -> bool {
    false
}

/// Only what is touched: the threads' read buffers are large, and mostly stay empty.
#[cfg(target_os = "linux")]
fn lock_all() -> rustix::io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}
#[cfg(not(target_os = "linux"))]
fn lock_all() -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}
