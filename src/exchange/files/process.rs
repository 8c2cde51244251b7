//! Which process a calling thread belongs to, as the kernel shows it in /proc.

use std::fs;

/// A process and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) struct Process {
    /// Thread group id: what users call the pid.
    pub tgid: u32,
    /// Process group id.
    pub pgrp: u32,
}

impl Process {
    /// Of a thread. `None` if it is gone, in another pid namespace, or there is no /proc.
    pub fn of(tid: u32) -> Option<Self> {
        let tgid = status_field(tid, "Tgid:")?.trim().parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may hold anything.
        let pgrp = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(2)?.parse().ok()?;
        Some(Process { tgid, pgrp })
    }
}

/// Whether a thread, whose uid is given, is being ended by a signal: then what its process has written so far is all
/// that it will write, whole or not. Where the kernel does not let us see how a process ends, it counts as killed.
pub(super) fn is_killed(tid: u32, uid: u32) -> bool {
    /// The flag of a thread that is on its way out (PF_EXITING).
    const EXITING: u64 = 4;
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let field = |number: usize| -> Option<u64> {
        // The first after the name is the third of all.
        fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
    };
    let (Some(flags), Some(exit_code)) = (field(9), field(52)) else { return false };
    if flags & EXITING == 0 {
        return false;
    }
    // Of another user's process the kernel shows an exit code of 0 unless we are root.
    let own = rustix::process::geteuid();
    let is_shown = own.is_root() || own.as_raw() == uid;
    !is_shown || exit_code & 0x7f != 0
}

/// The supplementary groups of a thread; none where they are unknown.
pub(super) fn groups(tid: u32) -> Vec<u32> {
    status_field(tid, "Groups:")
        .map(|groups| groups.split_ascii_whitespace().filter_map(|g| g.parse().ok()).collect())
        .unwrap_or_default()
}

fn status_field(tid: u32, name: &str) -> Option<String> {
    if tid == 0 {
        return None; // the caller is in a pid namespace that is not ours
    }
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process_and_group() {
        let tid = std::thread::spawn(|| {
            let thread = fs::read_link("/proc/thread-self").unwrap();
            let tid = thread.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (tid, Process::of(tid))
        });
        let (tid, process) = tid.join().unwrap();
        let process = process.unwrap();
        assert_ne!(tid, std::process::id());
        assert_eq!(process.tgid, std::process::id());
        assert_eq!(process.pgrp, rustix::process::getpgrp().as_raw_nonzero().get() as u32);
    }

    #[test]
    fn an_unknown_process_is_none() {
        assert_eq!(Process::of(0), None);
        assert_eq!(Process::of(u32::MAX), None);
    }
}
