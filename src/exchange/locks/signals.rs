//! What a thread that waits in the kernel was asked to do meanwhile, as /proc shows it.

use std::fs;

/// What /proc/<tid>/status tells of signals: one bit for each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signals {
    /// For the thread, and for its whole process.
    pending: u64,
    blocked: u64,
    ignored: u64,
}

fn parse(status: &str) -> Signals {
    let bits = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
    };
    Signals { pending: bits("SigPnd:") | bits("ShdPnd:"), blocked: bits("SigBlk:"), ignored: bits("SigIgn:") }
}

/// Whether a thread has a signal to deal with, or is gone. `false` for the thread 0, which is not known.
pub(super) fn interrupted(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => {
            let signals = parse(&status);
            signals.pending & !signals.blocked & !signals.ignored != 0
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_blocked_nor_ignored_interrupts() {
        let status = |pending: &str| {
            format!(
                "Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\nSigBlk:\t0000000000000002\n\
                 SigIgn:\t0000000000001000\n"
            )
        };
        let free = |pending: &str| {
            let signals = parse(&status(pending));
            signals.pending & !signals.blocked & !signals.ignored != 0
        };
        assert!(free("0000000000000100"));
        assert!(!free("0000000000000002"));
        assert!(!free("0000000000001000"));
        assert!(!free("0000000000000000"));
    }

    #[test]
    fn a_thread_that_is_gone_is_interrupted() {
        assert!(interrupted(u32::MAX));
        assert!(!interrupted(0));
        assert!(!interrupted(std::process::id()));
    }
}
