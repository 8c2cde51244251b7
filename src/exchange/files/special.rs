//! Named pipes, sockets and devices: the kernel itself opens and connects them, here they only have names.

use super::fd;
use super::guard::guarded;
use super::{FileEntry, FileId, Files};
use crate::exchange::{Caller, Denied, Outcome};
use rustix::fs::FileType;
use std::ffi::OsStr;

impl Files {
    /// mknod(2) of anything but a regular file; `mode` with the kind, and the umask applied. `device`: a device's
    /// number, in the kernel's 32 bits.
    ///
    /// # Errors
    /// EPERM for a device that anybody but root makes; `identity` for a guarded name.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: FileId,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Outcome<FileEntry> {
        let dir = self.change(caller, parent, name, "mknod")?;
        if let Some((profile, guard)) = guarded(&dir, name) {
            let advice = "This name is a login's, which is a regular file. Choose another name.";
            return Err(self.refuse_identity(caller, "mknod", profile, &guard, advice));
        }
        let kind = FileType::from_raw_mode(mode as _);
        let device = match kind {
            FileType::Fifo | FileType::Socket => 0,
            FileType::BlockDevice | FileType::CharacterDevice if caller.uid == 0 => device,
            _ => return Err(Denied::os(libc::EPERM)),
        };
        fd::mknod(&dir.handle, name, kind, device)?;
        self.adopt_new(caller, &dir, name, Some(mode & 0o7777))
    }
}
