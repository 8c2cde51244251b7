//! One mount as fuser sees it: reads each request, has it carried out, and replies.
//!
//! Every callback runs inside [`attempt`], so that a panic fails one request with EIO and not the mount, and replies
//! after it, so that nothing is held while the kernel is told.

use super::attr::{file_attr, file_type};
use super::crowd::Crowd;
use super::handles::{Backings, Handles};
use super::inodes::Inodes;
use super::names::{Change, Entry};
use super::tree::{Node, TOP};
use crate::exchange::{Attr, Caller, Exchange, Outcome};
use crate::wire::name::AgentName;
use fuser::*;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// One mount of an exchange.
pub(super) struct Mounted {
    pub(super) exchange: Arc<Exchange>,
    /// The agent that everybody who comes through this mount is.
    pub(super) bound: Option<AgentName>,
    /// Whether several users are let in.
    pub(super) shared: bool,
    pub(super) inodes: Arc<Inodes>,
    pub(super) crowd: Crowd,
    pub(super) handles: Handles,
    pub(super) backings: Backings,
    /// Before the handshake: whether to ask for passthrough. After: whether files are passed through.
    pub(super) passthrough: Arc<AtomicBool>,
    /// Counts this mount as long as it lives.
    pub(super) _joined: Joined,
    /// Called once when the mount has ended.
    pub(super) on_end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

/// A mount among those of its exchange, from before the kernel knows it until it has ended.
pub(super) struct Joined(Arc<Exchange>);

impl Joined {
    pub(super) fn new(exchange: &Arc<Exchange>) -> Self {
        exchange.files().join();
        Joined(exchange.clone())
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.0.files().leave();
    }
}

/// Runs one request. What it returns is for the reply, which the caller sends afterwards.
fn attempt<T>(operation: &'static str, request: impl FnOnce() -> Outcome<T>) -> Result<T, Errno> {
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

impl Mounted {
    fn caller(&self, request: &Request) -> Caller {
        Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), bound: self.bound.clone() }
    }

    fn file_attr(&self, node: &Node, attr: &Attr) -> FileAttr {
        file_attr(node, self.inodes.number(node), attr)
    }

    fn reply_entry(&self, found: Result<Entry, Errno>, reply: ReplyEntry) {
        match found {
            Ok(Entry { node, attr, kept }) => reply.entry_with_ttls(
                &self.attr_ttl(&node),
                &kept,
                &self.file_attr(&node, &attr),
                Generation(0),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn reply_attr(&self, found: Result<(Node, Attr), Errno>, reply: ReplyAttr) {
        match found {
            Ok((node, attr)) => reply.attr(&self.attr_ttl(&node), &self.file_attr(&node, &attr)),
            Err(errno) => reply.error(errno),
        }
    }

    /// What an open of inode `number` must carry; counts it.
    fn backing(
        &self,
        number: u64,
        file: Option<&std::fs::File>,
        register: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let enabled = self.passthrough.load(Ordering::Relaxed);
        self.backings.attach(number, || file.filter(|_| enabled).map(|file| register(file.as_fd())))
    }
}

fn reply_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // O_TRUNC must arrive with the open that it belongs to; other mounts change what this one has cached.
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC | InitFlags::FUSE_AUTO_INVAL_DATA;
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::warn!(?missing, "the kernel lacks FUSE features that batonfs relies on");
        }
        let parallel = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS).is_ok();
        let mut passthrough = self.passthrough.load(Ordering::Relaxed);
        if passthrough {
            passthrough = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(1).is_ok();
            self.passthrough.store(passthrough, Ordering::Relaxed);
        }
        tracing::debug!(parallel, passthrough, "the kernel speaks FUSE {:?}", config.kernel_abi());
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = attempt("destroy", || {
            for handle in self.handles.remove_all() {
                self.abandon(&handle);
            }
            for (id, count) in self.inodes.forget_all() {
                self.exchange.files().forget(id, count);
            }
            Ok(())
        });
        if let Some(on_end) = self.on_end.take() {
            on_end();
        }
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = attempt("lookup", || self.look_up(&self.caller(request), parent.0, name));
        self.reply_entry(found, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let _ = attempt("forget", || {
            Mounted::forget(self, ino.0, count);
            Ok(())
        });
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = attempt("getattr", || self.attributes(&self.caller(request), ino.0));
        self.reply_attr(found, reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        let caller = self.caller(request);
        let closing = match self.closing(&caller, ino.0, &change) {
            Some(closing) if !closing.rest.is_zero() => {
                return self.set_attributes_after(closing, caller, change, reply);
            }
            closing => closing,
        };
        let handle = handle.map(|handle| handle.0);
        let found = attempt("setattr", || self.set_attributes(&caller, ino.0, handle, change));
        drop(closing);
        self.reply_attr(found, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match attempt("readlink", || self.read_link(ino.0)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = attempt("mknod", || self.make_node(&self.caller(request), parent.0, name, mode));
        self.reply_entry(made, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = attempt("mkdir", || self.make_directory(&self.caller(request), parent.0, name, mode));
        self.reply_entry(made, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(
            attempt("unlink", || Mounted::unlink(self, &self.caller(request), parent.0, name)),
            reply,
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(attempt("rmdir", || self.remove_directory(&self.caller(request), parent.0, name)), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = attempt("symlink", || self.make_symlink(&self.caller(request), parent.0, name, target));
        self.reply_entry(made, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = attempt("rename", || {
            Mounted::rename(self, &self.caller(request), parent.0, name, new_parent.0, new_name, flags.bits())
        });
        reply_empty(moved, reply);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = attempt("link", || self.make_link(&self.caller(request), ino.0, new_parent.0, new_name));
        self.reply_entry(made, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = match attempt("open", || self.open_node(&self.caller(request), ino.0, flags.0)) {
            Ok(opened) => opened,
            Err(errno) => return reply.error(errno),
        };
        let backing = self.backing(ino.0, opened.backing.as_deref(), |fd| reply.open_backing(fd));
        let handle = FileHandle(self.handles.add(opened.handle));
        match backing {
            Some(id) => reply.opened_passthrough(handle, opened.passed_through, &id),
            None => reply.opened(handle, opened.plain),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = attempt("create", || {
            Mounted::create(self, &self.caller(request), parent.0, name, mode & 0o7777, flags)
        });
        let (Entry { node, attr, kept }, opened) = match made {
            Ok(made) => made,
            Err(errno) => return reply.error(errno),
        };
        let attr = self.file_attr(&node, &attr);
        let ttl = kept.min(self.attr_ttl(&node));
        let backing = self.backing(attr.ino.0, opened.backing.as_deref(), |fd| reply.open_backing(fd));
        let handle = FileHandle(self.handles.add(opened.handle));
        match backing {
            Some(id) => {
                reply.created_passthrough(&ttl, &attr, Generation(0), handle, opened.passed_through, &id);
            }
            None => reply.created(&ttl, &attr, Generation(0), handle, opened.plain),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match attempt("read", || Mounted::read(self, handle.0, offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written =
            attempt("write", || Mounted::write(self, &self.caller(request), handle.0, offset, flags.0, data));
        match written {
            // No more than `data`, whose length the kernel gave in 32 bits.
            Ok(count) => reply.written(count as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply_empty(attempt("flush", || Mounted::flush(self, &self.caller(request), handle.0)), reply);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let released = attempt("release", || {
            Mounted::release(self, ino.0, handle.0);
            Ok(())
        });
        reply_empty(released, reply);
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let synced = attempt("fsync", || Mounted::fsync(self, &self.caller(request), handle.0, data_only));
        reply_empty(synced, reply);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match attempt("opendir", || self.open_directory(&self.caller(request), ino.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = attempt("readdir", || self.listing(&self.caller(request), ino.0, handle.0, offset));
        let names = match listing {
            Ok(names) => names,
            Err(errno) => return reply.error(errno),
        };
        let top = self.inodes.number(&TOP);
        let dots = [(ino.0, "."), (top, "..")];
        let dots = dots.into_iter().map(|(number, name)| (number, FileType::Directory, OsStr::new(name)));
        let rest = names.iter().map(|listed| {
            let number = self.inodes.number(&listed.node);
            (number, file_type(listed.kind), listed.name.as_os_str())
        });
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (number, kind, name)) in dots.chain(rest).enumerate().skip(from) {
            if reply.add(INodeNo(number), position as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles.remove(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Names last from the moment that the call which made them returned.
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match attempt(
            "statfs",
            || Ok(rustix::fs::statvfs(self.exchange.dir()).map_err(std::io::Error::from)?),
        ) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                u32::try_from(s.f_bsize).unwrap_or(4_096),
                u32::try_from(s.f_namemax).unwrap_or(255),
                u32::try_from(s.f_frsize).unwrap_or(4_096),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply_empty(
            attempt("setxattr", || self.unsupported(&self.caller(request), ino.0, "setxattr")),
            reply,
        );
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply_empty(
            attempt("removexattr", || self.unsupported(&self.caller(request), ino.0, "removexattr")),
            reply,
        );
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(
            attempt("fallocate", || self.unsupported(&self.caller(request), ino.0, "fallocate")),
            reply,
        );
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The low three bits are R_OK, W_OK and X_OK.
        let want = mask.bits() as u32 & 0o7;
        reply_empty(attempt("access", || self.check_access(&self.caller(request), ino.0, want)), reply);
    }

    // The kernel stops asking once these say ENOSYS: reading extended attributes would cost a request with every
    // cached write, and seeking and readiness it knows itself.

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
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
