//! One mount as fuser sees it: reads each request, has it carried out, and replies.
//!
//! Every callback runs inside [`attempt`], so that a panic fails one request with EIO and not the mount, and replies
//! after it, so that nothing is held while the kernel is told.

use super::attempt::{as_an_ordinary_writer, attempt, reply_empty, reply_xattr};
use super::attr::{file_attr, file_type};
use super::crowd::Crowd;
use super::handles::{Backings, Handles};
use super::inodes::Inodes;
#[cfg(target_os = "linux")]
use super::locks::Asked;
use super::names::{Change, Entry, Move};
use super::tree::{Node, TOP};
#[cfg(target_os = "linux")]
use crate::exchange::locks::LockMode;
use crate::exchange::{Attr, Caller, Exchange};
use crate::wire::name::AgentName;
use fuser::*;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
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
    /// This mount's number among those whose programs take locks.
    #[cfg(target_os = "linux")]
    pub(super) locks_mount: u64,
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
                &self.attr_ttl(&node, &attr),
                &kept,
                &self.file_attr(&node, &attr),
                Generation(0),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn reply_attr(&self, found: Result<(Node, Attr), Errno>, reply: ReplyAttr) {
        match found {
            Ok((node, attr)) => reply.attr(&self.attr_ttl(&node, &attr), &self.file_attr(&node, &attr)),
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
        let register = |file: &std::fs::File| as_an_ordinary_writer(|| register(file.as_fd()));
        // A privileged writer leaves a file its set-user-ID bit; that is only known of writes that come to us.
        let has_set_ids = |file: &std::fs::File| file.metadata().is_ok_and(|m| m.mode() & 0o6000 != 0);
        let passed = |file: &&std::fs::File| enabled && !has_set_ids(file);
        self.backings.attach(number, || file.filter(passed).map(register))
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // O_TRUNC must arrive with the open that it belongs to; other mounts change what this one has cached.
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC | InitFlags::FUSE_AUTO_INVAL_DATA;
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::warn!(?missing, "the kernel lacks FUSE features that batonfs relies on");
        }
        // The kernel then asks for no attribute before each write, and leaves it to us what a write takes from a program
        // that runs with its owner's rights.
        let kill_on_write = config.add_capabilities(InitFlags::FUSE_HANDLE_KILLPRIV_V2).is_ok();
        // Without these the kernel keeps locks within one mount.
        #[cfg(target_os = "linux")]
        if let Err(missing) =
            config.add_capabilities(InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS)
        {
            tracing::warn!(?missing, "locks exclude nobody outside their mount");
        }
        let parallel = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS).is_ok();
        let mut passthrough = self.passthrough.load(Ordering::Relaxed);
        if passthrough {
            passthrough = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(1).is_ok();
            self.passthrough.store(passthrough, Ordering::Relaxed);
        }
        tracing::debug!(
            parallel,
            passthrough,
            kill_on_write,
            "the kernel speaks FUSE {:?}",
            config.kernel_abi()
        );
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = attempt("destroy", || {
            #[cfg(target_os = "linux")]
            self.drop_all_locks();
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
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = attempt("mknod", || self.make_node(&self.caller(request), parent.0, name, mode, device));
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
        let (caller, flags) = (self.caller(request), flags.bits());
        if let Some((closing, [from, to])) = self.closing_for_move(&caller, parent.0, new_parent.0, flags) {
            let asked = Move { from, name: name.into(), to, new_name: new_name.into(), flags };
            return self.rename_after(closing, caller, asked, reply);
        }
        let moved = attempt("rename", || {
            Mounted::rename(self, &caller, parent.0, name, new_parent.0, new_name, flags)
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
        let ttl = kept.min(self.attr_ttl(&node, &attr));
        let attr = self.file_attr(&node, &attr);
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
        write: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = attempt("write", || {
            if write.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                self.written_unprivileged(handle.0)?;
            }
            Mounted::write(self, &self.caller(request), handle.0, offset, flags.0, data)
        });
        match written {
            // No more than `data`, whose length the kernel gave in 32 bits.
            Ok(count) => reply.written(count as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let flushed = attempt("flush", || {
            let flushed = Mounted::flush(self, &self.caller(request), handle.0);
            #[cfg(target_os = "linux")]
            self.drop_locks_of(ino.0, handle.0, owner.0);
            #[cfg(not(target_os = "linux"))]
            let _ = (ino, owner);
            flushed
        });
        reply_empty(flushed, reply);
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
            #[cfg(target_os = "linux")]
            self.drop_locks_through(handle.0);
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

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(attempt("fsyncdir", || self.sync_directory(ino.0)), reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match attempt("statfs", || self.space(ino.0)) {
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
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let set = || self.set_xattr(&self.caller(request), ino.0, name, value, flags);
        reply_empty(attempt("setxattr", set), reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(attempt("getxattr", || self.get_xattr(&self.caller(request), ino.0, name)), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(attempt("listxattr", || self.list_xattrs(&self.caller(request), ino.0)), size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = attempt("removexattr", || self.remove_xattr(&self.caller(request), ino.0, name));
        reply_empty(removed, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = || self.allocate(&self.caller(request), (ino.0, handle.0), mode, offset, length);
        reply_empty(attempt("fallocate", allocate), reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy =
            || self.copy_range(&self.caller(request), (from.0, from_offset), (to.0, to_offset), length);
        match attempt("copy_file_range", copy) {
            Ok(count) => reply.written(count as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match attempt("lseek", || self.seek(&self.caller(request), (ino.0, handle.0), offset, whence)) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(errno),
        }
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The low three bits are R_OK, W_OK and X_OK.
        let want = mask.bits() as u32 & 0o7;
        reply_empty(attempt("access", || self.check_access(&self.caller(request), ino.0, want)), reply);
    }

    #[cfg(target_os = "linux")]
    fn getlk(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        mode: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let thread = request.pid();
        let asked = Asked { inode: ino.0, handle: handle.0, owner: owner.0, start, end, mode, pid, thread };
        match attempt("getlk", || self.test_lock(&asked)) {
            Ok(Some(found)) => {
                let mode = if found.mode == LockMode::Read { libc::F_RDLCK } else { libc::F_WRLCK };
                reply.locked(found.start, found.end, mode, found.pid);
            }
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Err(errno) => reply.error(errno),
        }
    }

    #[cfg(target_os = "linux")]
    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        mode: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let thread = request.pid();
        let asked = Asked { inode: ino.0, handle: handle.0, owner: owner.0, start, end, mode, pid, thread };
        // Who waits is answered later, and not by this thread.
        let answer = Box::new(move |done| reply_empty(attempt("setlk", || done), reply));
        let _ = attempt("setlk", || {
            self.set_lock(&asked, wait, answer);
            Ok(())
        });
    }

    /// The kernel knows it itself, and asks no more.
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
