//! Ordinary files under credentials/, and the guard around slots and live links.

use super::{Attr, Caller, NodeKind, Outcome};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// A file, directory or symlink under credentials/: the same for as long as anybody knows it,
/// through renames and after unlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// One name found.
#[derive(Debug, Clone, Copy)]
pub struct FileEntry {
    /// Which file. Each successful lookup, create, mkdir, symlink or link counts one reference,
    /// given back by [`Files::forget`].
    pub id: FileId,
    /// What stat() shows.
    pub attr: Attr,
}

/// One name in a listing.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// What it is.
    pub kind: NodeKind,
    /// Its inode number on disk, for d_ino.
    pub ino: u64,
}

/// Attributes to change; `None` leaves as is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SystemTime>,
    /// Modification time.
    pub mtime: Option<SystemTime>,
}

/// An open ordinary file or slot.
pub struct OpenFile {
    _todo: (),
}

impl OpenFile {
    /// The file on disk, where its reads and writes may go there directly (kernel passthrough or
    /// page cache); `None` for slots, whose bytes are judged first.
    pub fn backing(&self) -> Option<Arc<File>> {
        todo!()
    }
}

/// What the files need of the exchange around them.
pub trait Office: Send + Sync {
    /// Whom a caller acts as.
    fn actor(&self, caller: &Caller) -> super::Actor;
    /// The time.
    fn now(&self) -> crate::wire::time::Timestamp;
    /// Records a refusal.
    fn refuse(
        &self,
        caller: &Caller,
        attempt: super::Attempt<'_>,
        refusal: crate::rules::Refusal,
    ) -> super::Denied;
    /// Appends an event.
    fn event(&self, event: &'static str, members: serde_json::Map<String, serde_json::Value>);
}

/// The ordinary files of an exchange.
pub struct Files {
    _todo: (),
}

#[allow(unused_variables)]
impl Files {
    /// Those in `dir`.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(
        dir: &std::path::Path,
        config: &super::config::Config,
        office: std::sync::Weak<dyn Office>,
    ) -> std::io::Result<Self> {
        Ok(Files { _todo: () })
    }
    /// credentials/ itself.
    pub fn root(&self) -> FileId {
        todo!()
    }
    /// The path in the tree at which a file was last found, for refusals.
    pub fn path(&self, id: FileId) -> PathBuf {
        todo!()
    }
    /// One name in a directory.
    pub fn lookup(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<FileEntry> {
        todo!()
    }
    /// Gives back `count` references.
    pub fn forget(&self, id: FileId, count: u64) {
        todo!()
    }
    /// What stat() shows.
    pub fn attr(&self, id: FileId) -> Outcome<Attr> {
        todo!()
    }
    /// chmod, chown, truncate, utimensat. `open`: the descriptor, for ftruncate.
    pub fn set_attr(
        &self,
        caller: &Caller,
        id: FileId,
        open: Option<&OpenFile>,
        change: SetAttr,
    ) -> Outcome<Attr> {
        todo!()
    }
    /// The names in a directory, without `.` and `..`.
    pub fn list(&self, caller: &Caller, id: FileId) -> Outcome<Vec<DirEntry>> {
        todo!()
    }
    /// open(2); `flags` as the kernel gives them.
    pub fn open(&self, caller: &Caller, id: FileId, flags: i32) -> Outcome<OpenFile> {
        todo!()
    }
    /// open(2) with O_CREAT of a name that lookup did not find. `mode` has the umask applied.
    pub fn create(
        &self,
        caller: &Caller,
        parent: FileId,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Outcome<(FileEntry, OpenFile)> {
        todo!()
    }
    /// pread(2).
    pub fn read(&self, open: &OpenFile, offset: u64, size: usize) -> Outcome<Vec<u8>> {
        todo!()
    }
    /// pwrite(2), or an append.
    pub fn write(
        &self,
        caller: &Caller,
        open: &OpenFile,
        offset: u64,
        append: bool,
        data: &[u8],
    ) -> Outcome<usize> {
        todo!()
    }
    /// One close(2): the last place where a writer can be told that its credential was refused.
    pub fn flush(&self, caller: &Caller, open: &OpenFile) -> Outcome<()> {
        todo!()
    }
    /// fsync(2).
    pub fn fsync(&self, caller: &Caller, open: &OpenFile, data_only: bool) -> Outcome<()> {
        todo!()
    }
    /// The last close.
    pub fn release(&self, open: &OpenFile) {
        todo!()
    }
    /// mkdir(2).
    pub fn mkdir(&self, caller: &Caller, parent: FileId, name: &OsStr, mode: u32) -> Outcome<FileEntry> {
        todo!()
    }
    /// rmdir(2).
    pub fn rmdir(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<()> {
        todo!()
    }
    /// unlink(2).
    pub fn unlink(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<()> {
        todo!()
    }
    /// symlink(2): also how a live link is made.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: FileId,
        name: &OsStr,
        target: &OsStr,
    ) -> Outcome<FileEntry> {
        todo!()
    }
    /// readlink(2).
    pub fn readlink(&self, id: FileId) -> Outcome<OsString> {
        todo!()
    }
    /// link(2).
    pub fn link(&self, caller: &Caller, id: FileId, parent: FileId, name: &OsStr) -> Outcome<FileEntry> {
        todo!()
    }
    /// renameat2(2) with its flags: of a temp file over a live link (writes the slot), of a symlink
    /// over a live link (switches), or of anything ordinary.
    pub fn rename(
        &self,
        caller: &Caller,
        parent: FileId,
        name: &OsStr,
        new_parent: FileId,
        new_name: &OsStr,
        flags: u32,
    ) -> Outcome<()> {
        todo!()
    }
    /// Whether names in this directory may not be cached by the kernel (a profile's top, where a
    /// rename may be turned into a write-through).
    pub fn names_are_volatile(&self, id: FileId) -> bool {
        todo!()
    }
}
