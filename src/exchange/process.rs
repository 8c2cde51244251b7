//! What /proc tells of the processes that call.

use std::fs;

/// The process of a thread: its thread group. The thread's own id where /proc doesn't tell.
pub(super) fn process_of(thread: u32) -> u32 {
    fs::read_to_string(format!("/proc/{thread}/status"))
        .ok()
        .and_then(|status| status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()))
        .unwrap_or(thread)
}

/// Whether two threads are of one process.
pub(crate) fn same_process(a: u32, b: u32) -> bool {
    a == b || process_of(a) == process_of(b)
}

/// Whether there is such a process, dead ones that wait for their parent not counted.
pub(super) fn is_alive(process: u32) -> bool {
    stat(process).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Whether a process has a file open whose path ends like this; `None` where /proc doesn't tell.
pub(super) fn holds_open(process: u32, path: &str) -> Option<bool> {
    let suffix = format!("/{path}");
    for descriptor in fs::read_dir(format!("/proc/{process}/fd")).ok()? {
        // Closed since it was listed: then it is another thread's, which is under way.
        let Ok(target) = fs::read_link(descriptor.ok()?.path()) else { continue };
        if target.to_str().is_some_and(|target| target.ends_with(&suffix)) {
            return Some(true);
        }
    }
    Some(false)
}

/// How a thread stands to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It runs, or nothing is known of it.
    NotYet,
    /// Its process ended itself, with whatever status.
    Exits,
    /// A signal ended its process.
    Killed,
}

/// How a thread stands to its end. `uid`: its user's.
pub(super) fn ending(thread: u32, uid: u32) -> Ending {
    const PF_EXITING: u64 = 0x4;
    const PF_SIGNALED: u64 = 0x400;
    // Who still has memory goes on. To ask only then is more than thrift: while a thread is in execve(2), which closes
    // files, the kernel holds back every reader of its stat, and we would wait for each other for good.
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    if status.lines().any(|line| line.starts_with("VmSize:")) {
        return Ending::NotYet;
    }
    let Some(stat) = stat(thread) else { return Ending::NotYet };
    if stat.flags & PF_EXITING == 0 && stat.state != 'Z' {
        return Ending::NotYet;
    }
    // The kernel shows another user's exit code as 0. The flag alone says too much: it is also set on the threads that
    // are ended because one of them called exit().
    let readable = [0, uid].contains(&rustix::process::geteuid().as_raw());
    let killed = if readable { stat.exit_code & 0x7f != 0 } else { stat.flags & PF_SIGNALED != 0 };
    if killed { Ending::Killed } else { Ending::Exits }
}

struct Stat {
    state: char,
    flags: u64,
    exit_code: u64,
}

fn stat(thread: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        flags: fields.get(6)?.parse().ok()?,
        exit_code: fields.get(49)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn waiting(command: &str) -> std::process::Child {
        Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn until(condition: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < deadline, "it never came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_dead_process_tells_how_it_ended_until_its_parent_has_heard() {
        let uid = rustix::process::getuid().as_raw();
        for (command, expected) in
            [("exit 0", Ending::Exits), ("exit 137", Ending::Exits), ("kill -9 $$", Ending::Killed)]
        {
            let mut child = waiting(command);
            until(|| !is_alive(child.id()));
            assert_eq!(ending(child.id(), uid), expected, "{command}");
            child.wait().unwrap();
            assert_eq!(ending(child.id(), uid), Ending::NotYet);
            assert!(!is_alive(child.id()));
        }
        assert_eq!(ending(std::process::id(), uid), Ending::NotYet);
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0) && !is_alive(u32::MAX));
    }

    #[test]
    fn what_a_process_holds_is_found_by_the_end_of_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.md");
        let file = fs::File::create(&path).unwrap();
        let name = format!("{}/note.md", dir.path().file_name().unwrap().to_str().unwrap());
        assert_eq!(holds_open(std::process::id(), &name), Some(true));
        assert_eq!(holds_open(std::process::id(), &name[1..]), Some(false));
        drop(file);
        assert_eq!(holds_open(std::process::id(), &name), Some(false));
        assert_eq!(holds_open(0, &name), None);
    }

    #[test]
    fn threads_belong_to_their_process() {
        let (tid, process) = std::thread::spawn(|| {
            let thread = fs::read_link("/proc/thread-self").unwrap();
            let tid: u32 = thread.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (tid, process_of(tid))
        })
        .join()
        .unwrap();
        assert_ne!(tid, process);
        assert_eq!(process, std::process::id());
        assert!(same_process(process, process) && !same_process(1, process));
        assert_eq!(process_of(0), 0, "unknown: its own");
    }
}
