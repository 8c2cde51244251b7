//! How the ordinary files are reached: by handles to the file itself, never by a path from the top.
//!
//! A handle names its file through renames, hard links and after unlink. Everything that differs
//! between Linux (`O_PATH` and `/proc/self/fd`) and macOS stands here.

use crate::exchange::{Attr, NodeKind};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    Uid, XattrFlags,
};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// O_EVTONLY | O_SYMLINK: a descriptor that asks for no access and does not follow.
#[cfg(target_os = "macos")]
const HANDLE: OFlags = OFlags::from_bits_retain(0x8000 | 0x20_0000 | 0x100_0000);

/// A handle to the file of this name, which is not followed.
pub(super) fn at(dir: &File, name: &OsStr) -> io::Result<File> {
    Ok(rustix::fs::openat(dir, name, HANDLE, Mode::empty())?.into())
}

/// As [`at`], and `None` where there is no such name.
pub(super) fn find(dir: &File, name: &OsStr) -> io::Result<Option<File>> {
    match at(dir, name) {
        Ok(handle) => Ok(Some(handle)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a name in a directory stands for, which is not followed; `None` where there is no such name.
pub(super) fn stat_at(dir: &File, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A path that leads to a handle's file as long as the handle is open.
#[cfg(target_os = "linux")]
fn handle_path(handle: &File) -> io::Result<PathBuf> {
    Ok(format!("/proc/self/fd/{}", handle.as_raw_fd()).into())
}
#[cfg(target_os = "macos")]
fn handle_path(handle: &File) -> io::Result<PathBuf> {
    location(handle).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

/// Where a handle's file lies now.
#[cfg(target_os = "linux")]
pub(super) fn location(handle: &File) -> Option<PathBuf> {
    std::fs::read_link(handle_path(handle).ok()?).ok()
}
#[cfg(target_os = "macos")]
pub(super) fn location(handle: &File) -> Option<PathBuf> {
    Some(OsString::from_vec(rustix::fs::getpath(handle).ok()?.into_bytes()).into())
}

/// A descriptor for input and output on a handle's file.
pub(super) fn reopen(handle: &File, flags: OFlags) -> io::Result<File> {
    Ok(rustix::fs::openat(CWD, handle_path(handle)?, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The target of a handle's symlink.
pub(super) fn read_link(handle: &File) -> io::Result<OsString> {
    #[cfg(target_os = "linux")]
    let target = rustix::fs::readlinkat(handle, "", Vec::new())?;
    #[cfg(target_os = "macos")]
    let target = rustix::fs::readlinkat(CWD, handle_path(handle)?, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// chown(2) of whatever it is, a symlink too.
pub(super) fn chown(handle: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    #[cfg(target_os = "linux")]
    rustix::fs::chownat(handle, "", uid, gid, AtFlags::EMPTY_PATH)?;
    #[cfg(target_os = "macos")]
    rustix::fs::chownat(CWD, handle_path(handle)?, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// chmod(2) of a file or directory.
pub(super) fn chmod(handle: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(CWD, handle_path(handle)?, Mode::from_raw_mode(mode as _), AtFlags::empty())?)
}

/// mknod(2) of anything but a regular file, for its maker alone so far.
#[cfg(target_os = "linux")]
pub(super) fn mknod(dir: &File, name: &OsStr, kind: FileType, device: u32) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, u64::from(device))?)
}
/// macOS has no mknodat(2).
#[cfg(target_os = "macos")]
pub(super) fn mknod(_: &File, _: &OsStr, _: FileType, _: u32) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

/// The longest list or value of extended attributes that Linux has.
const XATTR_MAX: usize = 65_536;

/// getxattr(2).
pub(super) fn get_xattr(handle: &File, name: &OsStr) -> io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(XATTR_MAX);
    rustix::fs::getxattr(handle_path(handle)?, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}

/// listxattr(2): the names, each with a NUL behind it.
pub(super) fn list_xattrs(handle: &File) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(XATTR_MAX);
    rustix::fs::listxattr(handle_path(handle)?, rustix::buffer::spare_capacity(&mut names))?;
    Ok(names)
}

/// setxattr(2).
pub(super) fn set_xattr(handle: &File, name: &OsStr, value: &[u8], flags: i32) -> io::Result<()> {
    let flags = XattrFlags::from_bits_retain(flags as _);
    Ok(rustix::fs::setxattr(handle_path(handle)?, name, value, flags)?)
}

/// removexattr(2).
pub(super) fn remove_xattr(handle: &File, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::removexattr(handle_path(handle)?, name)?)
}

/// fallocate(2).
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let mode = rustix::fs::FallocateFlags::from_bits_retain(mode as u32);
    Ok(rustix::fs::fallocate(file, mode, offset, length)?)
}
#[cfg(target_os = "macos")]
pub(super) fn allocate(_: &File, _: i32, _: u64, _: u64) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// copy_file_range(2).
#[cfg(target_os = "linux")]
pub(super) fn copy_range(
    (from, mut from_offset): (&File, u64),
    (to, mut to_offset): (&File, u64),
    length: usize,
) -> io::Result<usize> {
    Ok(rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length)?)
}
#[cfg(target_os = "macos")]
pub(super) fn copy_range(_: (&File, u64), _: (&File, u64), _: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// Takes away the right to run as the file's owner, and as its group where that may run it.
pub(super) fn clear_set_ids(file: &File) -> io::Result<()> {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    const GROUP_RUNS: u32 = 0o010;
    let mode = file.metadata()?.mode() & 0o7777;
    let mut kept = mode & !SETUID;
    if kept & GROUP_RUNS != 0 {
        kept &= !SETGID;
    }
    if kept != mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(kept as _))?;
    }
    Ok(())
}

/// utimensat(2) of whatever it is; `None` leaves as is.
pub(super) fn set_times(
    handle: &File,
    atime: Option<SystemTime>,
    mtime: Option<SystemTime>,
) -> io::Result<()> {
    set_timespecs(handle, &Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) })
}

fn set_timespecs(handle: &File, times: &Timestamps) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::utimensat(handle, "", times, AtFlags::EMPTY_PATH)?;
    #[cfg(target_os = "macos")]
    rustix::fs::utimensat(CWD, handle_path(handle)?, times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Both times become now, by the clock that the disk itself uses.
pub(super) fn touch(handle: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    set_timespecs(handle, &Timestamps { last_access: now, last_modification: now })
}

fn timespec(time: Option<SystemTime>) -> Timespec {
    let Some(time) = time else { return Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT } };
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) },
        Err(before) => {
            // Nanoseconds count forward from the whole second below.
            let before: Duration = before.duration();
            let whole = before.as_secs() as i64 + i64::from(before.subsec_nanos() > 0);
            let nanos = (1_000_000_000 - i64::from(before.subsec_nanos())) % 1_000_000_000;
            Timespec { tv_sec: -whole, tv_nsec: nanos }
        }
    }
}

/// link(2) of a handle's file.
pub(super) fn link(handle: &File, dir: &File, name: &OsStr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    let follow = AtFlags::SYMLINK_FOLLOW; // through /proc/self/fd, to the file itself
    #[cfg(target_os = "macos")]
    let follow = AtFlags::empty();
    Ok(rustix::fs::linkat(CWD, handle_path(handle)?, dir, name, follow)?)
}

/// write(2) at the true end of the file.
pub(super) fn append(file: &File, data: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::io::pwritev2(file, &[io::IoSlice::new(data)], 0, rustix::io::ReadWriteFlags::APPEND)?);
    #[cfg(target_os = "macos")]
    return std::os::unix::fs::FileExt::write_at(file, data, file.metadata()?.len());
}

/// What a file is the same by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub dev: u64,
    pub ino: u64,
}

impl FileKey {
    pub fn of(metadata: &Metadata) -> Self {
        FileKey { dev: metadata.dev(), ino: metadata.ino() }
    }
    #[allow(clippy::unnecessary_cast)] // of other widths on macOS
    pub fn of_stat(stat: &Stat) -> Self {
        FileKey { dev: stat.st_dev as u64, ino: stat.st_ino as u64 }
    }
}

/// What kind of node this is.
pub(super) fn kind(metadata: &Metadata) -> NodeKind {
    kind_of(metadata.mode() as _, metadata.rdev())
}

fn kind_of(mode: RawMode, device: u64) -> NodeKind {
    // The lower half of glibc's 64-bit number is the kernel's.
    let number = device as u32;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::BlockDevice => NodeKind::BlockDevice(number),
        FileType::CharacterDevice => NodeKind::CharDevice(number),
        FileType::RegularFile | FileType::Unknown => NodeKind::File,
    }
}

fn time(seconds: i64, nanos: i64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos.max(0) as u64);
    match u64::try_from(seconds) {
        Ok(after) => UNIX_EPOCH + Duration::from_secs(after) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanos,
    }
}

/// What stat() shows, of what [`stat_at`] found.
#[allow(clippy::unnecessary_cast)] // of other widths on macOS
pub(super) fn attr_of_stat(stat: &Stat) -> Attr {
    Attr {
        kind: kind_of(stat.st_mode, stat.st_rdev as u64),
        size: stat.st_size as u64,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink as u32,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

/// What stat() shows.
pub(super) fn attr(metadata: &Metadata) -> Attr {
    Attr {
        kind: kind(metadata),
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        nlink: metadata.nlink() as u32,
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}
