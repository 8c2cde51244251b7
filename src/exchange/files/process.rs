//! Which process a calling thread belongs to, as the kernel shows it in /proc.

use std::fs;

/// A process and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) struct Process {
    /// Thread group id: what users call the pid.
    pub tgid: u32,
    /// Process group id.
    pub pgrp: u32,
    /// When it started, in the kernel's ticks: a process that gets the same pid later is another one.
    pub started: u64,
}

impl Process {
    /// Of a thread, which must not be in the middle of execve(2): the kernel would hold us back until it is done,
    /// and it waits for us where that closes a file of ours. `None` if it is gone, in another pid namespace, or there is no /proc.
    pub fn of(tid: u32) -> Option<Self> {
        let tgid = status_field(tid, "Tgid:")?.trim().parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Process { tgid, pgrp: fields.get(2)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
    }

    /// Whether it still runs: not ended, and not a dead one that waits for its parent.
    pub fn is_alive(self) -> bool {
        Process::of(self.tgid) == Some(self) && crate::exchange::process::is_alive(self.tgid)
    }
}

/// The name of a thread's program, as the kernel has it (15 bytes of it). `None` if it is gone or unknown.
pub(in crate::exchange) fn program(tid: u32) -> Option<String> {
    let tgid = status_field(tid, "Tgid:")?;
    let tgid = tgid.trim();
    Some(fs::read_to_string(format!("/proc/{tgid}/comm")).ok()?.trim_end_matches('\n').to_owned())
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
        assert!(process.is_alive());
        assert!(
            !Process { started: process.started + 1, ..process }.is_alive(),
            "one that had its pid before"
        );
        assert!(program(process.tgid).is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn an_unknown_process_is_none() {
        assert_eq!(Process::of(0), None);
        assert_eq!(Process::of(u32::MAX), None);
    }
}
