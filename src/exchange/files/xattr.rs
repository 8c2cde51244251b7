//! Extended attributes of ordinary files, with the permission checks that the VFS makes on a disk.
//!
//! The kernel has checked what does not depend on modes: who is privileged, and which kinds of file have `user.`
//! attributes. A slot has none, because each accepted login is a new file.

use super::access::{Operation, READ, WRITE};
use super::fd;
use super::nodes::{Node, Plain};
use super::{FileId, Files};
use crate::exchange::{Caller, Denied, NodeKind, Outcome};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Who may use an attribute, by the first part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    /// Whoever may read or write the file.
    User,
    /// Read by everybody, changed by root.
    Security,
    /// Root's.
    Trusted,
    /// Access control lists and what else there may be: not kept here.
    Other,
}

impl Namespace {
    fn of(name: &OsStr) -> Self {
        let name = name.as_bytes();
        let starts = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
        if starts(b"user.") {
            Namespace::User
        } else if starts(b"security.") {
            Namespace::Security
        } else if starts(b"trusted.") {
            Namespace::Trusted
        } else {
            Namespace::Other
        }
    }
}

impl Files {
    /// getxattr(2).
    ///
    /// # Errors
    /// ENODATA; EOPNOTSUPP for an access control list; EACCES, not recorded: `ls -l` asks in passing.
    pub fn get_xattr(&self, caller: &Caller, id: FileId, name: &OsStr) -> Outcome<Vec<u8>> {
        let node = self.nodes.get(id)?;
        let Node::Plain(plain) = &node else { return Err(Denied::os(no_attribute())) };
        match Namespace::of(name) {
            Namespace::User => self.check_reading(caller, &node, plain)?,
            Namespace::Security => {}
            Namespace::Trusted if caller.uid == 0 => {}
            Namespace::Trusted => return Err(Denied::os(no_attribute())),
            Namespace::Other => return Err(Denied::os(libc::EOPNOTSUPP)),
        }
        Ok(fd::get_xattr(&plain.handle, name)?)
    }

    /// listxattr(2): the names, each with a NUL behind it.
    ///
    /// # Errors
    /// The disk's.
    pub fn list_xattrs(&self, caller: &Caller, id: FileId) -> Outcome<Vec<u8>> {
        let Node::Plain(plain) = self.nodes.get(id)? else { return Ok(Vec::new()) };
        let mut names = fd::list_xattrs(&plain.handle)?;
        let shown = |name: &[u8]| match Namespace::of(OsStr::from_bytes(name)) {
            Namespace::User | Namespace::Security => true,
            Namespace::Trusted => caller.uid == 0,
            Namespace::Other => false,
        };
        if !names.split(|byte| *byte == 0).all(|name| name.is_empty() || shown(name)) {
            let kept = names.split_inclusive(|byte| *byte == 0);
            names = kept.filter(|name| shown(&name[..name.len() - 1])).collect::<Vec<_>>().concat();
        }
        Ok(names)
    }

    /// setxattr(2) with its flags.
    ///
    /// # Errors
    /// EOPNOTSUPP on a login and its live link, and for an access control list; EPERM for what is root's; `authority`;
    /// EACCES.
    pub fn set_xattr(
        &self,
        caller: &Caller,
        id: FileId,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Outcome<()> {
        let plain = self.changeable(caller, id, name, "setxattr")?;
        Ok(fd::set_xattr(&plain.handle, name, value, flags)?)
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// ENODATA; otherwise as [`Files::set_xattr`].
    pub fn remove_xattr(&self, caller: &Caller, id: FileId, name: &OsStr) -> Outcome<()> {
        let plain = self.changeable(caller, id, name, "removexattr")?;
        Ok(fd::remove_xattr(&plain.handle, name)?)
    }

    fn check_reading(&self, caller: &Caller, node: &Node, plain: &Plain) -> Outcome<()> {
        let standing = self.stands(caller, node, false)?.map_err(|_| Denied::os(libc::EACCES))?;
        let metadata = plain.handle.metadata()?;
        if metadata.is_dir() {
            return self.check_dir(caller, standing, plain, READ);
        }
        self.check_mode(caller, standing, &metadata, READ)
    }

    /// The file on which the caller may change the attribute.
    fn changeable(
        &self,
        caller: &Caller,
        id: FileId,
        name: &OsStr,
        operation: &'static str,
    ) -> Outcome<Plain> {
        let node = self.nodes.get(id)?;
        let Node::Plain(plain) = &node else { return Err(Denied::os(libc::EOPNOTSUPP)) };
        let metadata = plain.handle.metadata()?;
        if fd::kind(&metadata) == NodeKind::Symlink && self.is_live_link(plain)? {
            return Err(Denied::os(libc::EOPNOTSUPP));
        }
        let standing =
            self.standing(caller, &Operation { name: operation, node: &node, child: None }, true)?;
        match Namespace::of(name) {
            Namespace::User if metadata.is_dir() => self.check_dir(caller, standing, plain, WRITE)?,
            Namespace::User => self.check_mode(caller, standing, &metadata, WRITE)?,
            Namespace::Security | Namespace::Trusted if caller.uid == 0 => {}
            Namespace::Security | Namespace::Trusted => return Err(Denied::os(libc::EPERM)),
            Namespace::Other => return Err(Denied::os(libc::EOPNOTSUPP)),
        }
        Ok(plain.clone())
    }
}

/// What getxattr(2) says of an attribute that is not there.
fn no_attribute() -> i32 {
    #[cfg(target_os = "linux")]
    return libc::ENODATA;
    #[cfg(target_os = "macos")]
    return libc::ENOATTR;
}
