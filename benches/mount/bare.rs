//! The least that an append through FUSE can cost: one file, no checks, pwrite to a plain file.

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    WriteFlags,
};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

struct Bare {
    file: File,
    end: AtomicU64,
}

impl Bare {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let root = ino.0 == 1;
        FileAttr {
            ino,
            size: self.end.load(Ordering::SeqCst),
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: 0o777,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 65536,
            flags: 0,
        }
    }
}

impl Filesystem for Bare {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&Duration::ZERO, &self.attr(INodeNo(2)), Generation(0));
    }
    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attr(ino));
    }
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(1), FopenFlags::FOPEN_DIRECT_IO);
    }
    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let at = self.end.fetch_add(data.len() as u64, Ordering::SeqCst);
        match self.file.write_all_at(data, at) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// A mounted bare file system; `file` takes appends.
pub struct BareMount {
    pub file: PathBuf,
    _session: fuser::BackgroundSession,
}

pub fn mount(at: &Path, backing: &Path) -> BareMount {
    std::fs::create_dir_all(at).unwrap();
    let file = File::options().create(true).truncate(true).read(true).write(true).open(backing).unwrap();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("bare".into())];
    config.n_threads = Some(4);
    config.clone_fd = true;
    let session = Session::new(Bare { file, end: AtomicU64::new(0) }, at, &config).unwrap();
    BareMount { file: at.join("log"), _session: session.spawn().unwrap() }
}
