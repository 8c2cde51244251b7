//! The callbacks for extended attributes, holes, space and directories' own sync: the disk's business for ordinary
//! files, and nothing elsewhere in the tree.

use super::adapter::Mounted;
use super::handles::Handle;
use super::tree::Node;
use crate::exchange::{Caller, Denied, Outcome};
use rustix::fs::{SeekFrom, StatVfs};
use std::ffi::OsStr;
use std::sync::Arc;

const SEEK_DATA: i32 = if cfg!(target_os = "macos") { 4 } else { 3 };
const SEEK_HOLE: i32 = if cfg!(target_os = "macos") { 3 } else { 4 };

impl Mounted {
    fn handle(&self, handle: u64) -> Outcome<Arc<Handle>> {
        self.handles.get(handle).ok_or_else(|| Denied::os(libc::EBADF))
    }

    /// What an unprivileged write takes from the file.
    pub(super) fn written_unprivileged(&self, handle: u64) -> Outcome<()> {
        match &*self.handle(handle)? {
            Handle::File(open) => self.exchange.files().written_unprivileged(open),
            _ => Ok(()),
        }
    }

    /// getxattr(2). The kernel asks for `security.capability` before a write, too.
    pub(super) fn get_xattr(&self, caller: &Caller, number: u64, name: &OsStr) -> Outcome<Vec<u8>> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().get_xattr(caller, id, name),
            _ => Err(Denied::os(libc::EOPNOTSUPP)),
        }
    }

    /// listxattr(2).
    pub(super) fn list_xattrs(&self, caller: &Caller, number: u64) -> Outcome<Vec<u8>> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().list_xattrs(caller, id),
            _ => Ok(Vec::new()),
        }
    }

    /// setxattr(2).
    pub(super) fn set_xattr(
        &self,
        caller: &Caller,
        number: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Outcome<()> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().set_xattr(caller, id, name, value, flags),
            _ => self.unsupported(caller, number, "setxattr"),
        }
    }

    /// removexattr(2).
    pub(super) fn remove_xattr(&self, caller: &Caller, number: u64, name: &OsStr) -> Outcome<()> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().remove_xattr(caller, id, name),
            _ => self.unsupported(caller, number, "removexattr"),
        }
    }

    /// fallocate(2).
    pub(super) fn allocate(
        &self,
        caller: &Caller,
        (number, handle): (u64, u64),
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Outcome<()> {
        match &*self.handle(handle)? {
            Handle::File(open) => self.exchange.files().allocate(caller, open, mode, offset, length),
            _ => self.unsupported(caller, number, "fallocate"),
        }
    }

    /// copy_file_range(2). EOPNOTSUPP has the kernel read and write.
    pub(super) fn copy_range(
        &self,
        caller: &Caller,
        (from, from_offset): (u64, u64),
        (to, to_offset): (u64, u64),
        length: u64,
    ) -> Outcome<usize> {
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        let (Handle::File(from), Handle::File(to)) = (&*from, &*to) else {
            return Err(Denied::os(libc::EOPNOTSUPP));
        };
        // The reply counts in 32 bits; whoever wants more asks again.
        let length = length.min(1 << 30) as usize;
        self.exchange.files().copy_range(caller, (from, from_offset), (to, to_offset), length)
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE; the kernel does the others itself.
    pub(super) fn seek(
        &self,
        caller: &Caller,
        (number, handle): (u64, u64),
        offset: i64,
        whence: i32,
    ) -> Outcome<i64> {
        let offset = u64::try_from(offset).map_err(|_| Denied::os(libc::ENXIO))?;
        let position = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Denied::os(libc::EINVAL)),
        };
        let found = match &*self.handle(handle)? {
            Handle::File(open) if open.backing().is_some() => self.exchange.files().seek(open, position)?,
            // What the exchange keeps has no holes but the one behind its end.
            _ => {
                let (_, attr) = self.attributes(caller, number)?;
                match position {
                    _ if offset >= attr.size => return Err(Denied::os(libc::ENXIO)),
                    SeekFrom::Data(_) => offset,
                    _ => attr.size,
                }
            }
        };
        i64::try_from(found).map_err(|_| Denied::os(libc::EOVERFLOW))
    }

    /// fsync(2) of a directory. The names that the exchange keeps last from the moment that the call which made them
    /// returned.
    pub(super) fn sync_directory(&self, number: u64) -> Outcome<()> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().sync_names(id),
            _ => Ok(()),
        }
    }

    /// statvfs(2), of the disk that this very file is on.
    pub(super) fn space(&self, number: u64) -> Outcome<StatVfs> {
        match self.node(number)? {
            Node::File { id, .. } => self.exchange.files().space(id),
            _ => Ok(rustix::fs::statvfs(self.exchange.dir()).map_err(std::io::Error::from)?),
        }
    }
}
