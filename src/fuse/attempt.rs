//! Around every request: a panic fails it and nothing else, and its reply says what came of it.

use crate::exchange::Outcome;
use fuser::{Errno, ReplyEmpty, ReplyXattr};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one request. What it returns is for the reply, which the caller sends afterwards.
pub(super) fn attempt<T>(operation: &'static str, request: impl FnOnce() -> Outcome<T>) -> Result<T, Errno> {
    match catch_unwind(AssertUnwindSafe(request)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(denied)) => {
            tracing::trace!(operation, %denied);
            Err(Errno::from_i32(denied.errno()))
        }
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(
                operation,
                message,
                "a request failed with a defect in batonfs: please report it"
            );
            Err(Errno::EIO)
        }
    }
}

/// Runs what registers a backing file without this thread's right to write to a file and leave it its set-user-ID bit:
/// the kernel writes to it with the rights that it was registered with, whoever the writer is.
#[cfg(target_os = "linux")]
pub(super) fn as_an_ordinary_writer<T>(register: impl FnOnce() -> T) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Ok(own) = capabilities(None) else { return register() };
    if !own.effective.contains(CapabilitySet::FSETID) {
        return register();
    }
    let mut without = own;
    without.effective.remove(CapabilitySet::FSETID);
    let lowered = set_capabilities(None, without);
    let registered = register();
    if lowered.is_ok()
        && let Err(error) = set_capabilities(None, own)
    {
        tracing::error!(%error, "this thread has lost CAP_FSETID");
    }
    registered
}
#[cfg(not(target_os = "linux"))]
pub(super) fn as_an_ordinary_writer<T>(register: impl FnOnce() -> T) -> T {
    register()
}

/// Says that it is done, or why not.
pub(super) fn reply_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with what there is, or how much it is where the caller asked for no more.
pub(super) fn reply_xattr(found: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match found {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Denied;

    #[test]
    fn a_panic_in_a_request_is_an_io_error_of_that_request() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let outcome: Result<(), Errno> = attempt("read", || panic!("defect"));
        std::panic::set_hook(hook);
        assert_eq!(outcome.unwrap_err().code(), libc::EIO);
    }

    #[test]
    fn the_errno_of_a_denial_reaches_the_reply() {
        let outcome: Result<(), Errno> = attempt("read", || Err(Denied::os(libc::ENOSPC)));
        assert_eq!(outcome.unwrap_err().code(), libc::ENOSPC);
    }
}
