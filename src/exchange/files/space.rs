//! Where an ordinary file has its bytes: holes, space set aside, bytes copied within the disk.

use super::fd;
use super::{FileId, Files, OpenFile, Opened};
use crate::exchange::{Caller, Denied, Outcome};
use rustix::fs::{SeekFrom, StatVfs};
use std::fs::File;

impl Files {
    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO at and behind the end; EINVAL for a login.
    pub fn seek(&self, open: &OpenFile, position: SeekFrom) -> Outcome<u64> {
        let Opened::Ordinary(file) = &open.opened else { return Err(Denied::os(libc::EINVAL)) };
        // It moves the descriptor's own offset, which nobody uses: all I/O here says where.
        Ok(rustix::fs::seek(file, position).map_err(std::io::Error::from)?)
    }

    /// fallocate(2) with its mode.
    ///
    /// # Errors
    /// EOPNOTSUPP for a login, and for modes that the disk does not have.
    pub fn allocate(
        &self,
        caller: &Caller,
        open: &OpenFile,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Outcome<()> {
        let Opened::Ordinary(file) = &open.opened else { return Err(Denied::os(libc::EOPNOTSUPP)) };
        self.lose_set_ids(caller, file)?;
        Ok(fd::allocate(file, mode, offset, length)?)
    }

    /// copy_file_range(2) between two ordinary files: how many bytes were copied.
    ///
    /// # Errors
    /// EOPNOTSUPP where one of them is a login, so that the kernel copies by reading and writing.
    pub fn copy_range(
        &self,
        caller: &Caller,
        (from, from_offset): (&OpenFile, u64),
        (to, to_offset): (&OpenFile, u64),
        length: usize,
    ) -> Outcome<usize> {
        let (Opened::Ordinary(from), Opened::Ordinary(to)) = (&from.opened, &to.opened) else {
            return Err(Denied::os(libc::EOPNOTSUPP));
        };
        self.lose_set_ids(caller, to)?;
        Ok(fd::copy_range((from, from_offset), (to, to_offset), length)?)
    }

    /// statvfs(2) of the disk that a file is on.
    ///
    /// # Errors
    /// The disk's.
    pub fn space(&self, id: FileId) -> Outcome<StatVfs> {
        let dir = match self.nodes.get(id)? {
            super::nodes::Node::Plain(plain) => plain.handle,
            super::nodes::Node::Slot(slot) => slot.profile.dir.clone(),
        };
        Ok(rustix::fs::fstatvfs(&dir).map_err(std::io::Error::from)?)
    }

    /// fsync(2) of a directory: its names are on disk then.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync_names(&self, id: FileId) -> Outcome<()> {
        let dir = self.nodes.dir(id)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        Ok(fd::reopen(&dir.handle, flags)?.sync_all()?)
    }

    /// What a write takes from a program that runs with its owner's rights. The disk does so by itself, unless it
    /// takes the writer for root.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn lose_set_ids(&self, caller: &Caller, file: &File) -> std::io::Result<()> {
        if self.as_root && caller.uid != 0 { fd::clear_set_ids(file) } else { Ok(()) }
    }

    /// As a write through this descriptor does, where the kernel says that the writer is not privileged.
    ///
    /// # Errors
    /// The disk's.
    pub fn written_unprivileged(&self, open: &OpenFile) -> Outcome<()> {
        match &open.opened {
            Opened::Ordinary(file) if self.as_root => Ok(fd::clear_set_ids(file)?),
            _ => Ok(()),
        }
    }
}
