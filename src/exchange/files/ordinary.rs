//! What ordinary files do: as on the disk below, with the caller's rights.

use super::access::{self, Operation, SEARCH, WRITE};
use super::area::{Area, MEMORY};
use super::fd::{self, FileKey};
use super::guard::change::Live;
use super::guard::profile::Profile;
use super::guard::record::record;
use super::guard::{LoginName, guarded};
use super::nodes::{Node, Plain, SlotNode};
use super::process::Process;
use super::{DirEntry, FileEntry, Files, Office, OpenFile, Opened, SetAttr, wanted};
use crate::exchange::{Attempt, Attr, Caller, Denied, NodeKind, Outcome};
use crate::rules::credential::HALF_MADE;
use crate::rules::{Refusal, Rule};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

const SETGID: u32 = 0o2000;

/// What Linux adds to the flags of open(2) where it opens a program to run it: who may run it need not read it.
const TO_EXECUTE: u32 = if cfg!(target_os = "linux") { 0x20 } else { 0 };

impl Files {
    pub(in crate::exchange) fn office(&self) -> Outcome<Arc<dyn Office>> {
        Ok(self.office_io()?)
    }

    pub(super) fn office_io(&self) -> std::io::Result<Arc<dyn Office>> {
        // Gone only while the exchange is being closed.
        self.office.upgrade().ok_or_else(|| std::io::Error::from_raw_os_error(libc::EIO))
    }

    pub(super) fn refuse(&self, caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied {
        match self.office() {
            Ok(office) => office.refuse(caller, attempt, refusal),
            Err(_) => Denied::Refused(refusal),
        }
    }

    /// The profiles by name.
    pub(in crate::exchange) fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }

    pub(super) fn is_root(&self, dir: &Plain) -> bool {
        dir.key == self.credentials.key || dir.key == self.memory.key
    }

    /// Whom a new file is given to; `None` where it stays the daemon's own.
    pub(super) fn new_owner(&self, caller: &Caller) -> Option<(u32, u32)> {
        self.as_root.then_some((caller.uid, caller.gid))
    }

    /// A path of the tree, for refusals.
    pub(super) fn tree_path(&self, node: &Node, child: Option<&OsStr>) -> String {
        let mut path = match node {
            Node::Slot(slot) => slot.profile.slot_path(&slot.slot).into(),
            Node::Plain(plain) => {
                let (name, root) = match plain.area.root() {
                    MEMORY => (MEMORY, &self.memory),
                    name => (name, &self.credentials),
                };
                let base = fd::location(&root.handle).unwrap_or_default();
                let here = fd::location(&plain.handle).unwrap_or_default();
                match here.strip_prefix(&base) {
                    Ok(within) if !within.as_os_str().is_empty() => Path::new(name).join(within),
                    _ => name.into(),
                }
            }
        };
        if let Some(child) = child {
            path = path.join(child);
        }
        path.to_string_lossy().into_owned()
    }

    /// A directory that `caller` may search for `name`.
    pub(super) fn enter(
        &self,
        caller: &Caller,
        parent: super::FileId,
        name: &OsStr,
        operation: &'static str,
    ) -> Outcome<Plain> {
        let dir = self.nodes.dir(parent)?;
        check_name(name)?;
        let node = Node::Plain(dir.clone());
        let operation = Operation { name: operation, node: &node, child: Some(name) };
        let standing = self.standing(caller, &operation, false)?;
        self.check_dir(caller, standing, &dir, SEARCH)?;
        Ok(dir)
    }

    /// A directory in which `caller` may make or remove `name`.
    ///
    /// # Errors
    /// `authority`; `read-only` directly under credentials/ and memory/.
    pub(super) fn change(
        &self,
        caller: &Caller,
        parent: super::FileId,
        name: &OsStr,
        operation: &'static str,
    ) -> Outcome<Plain> {
        let dir = self.nodes.dir(parent)?;
        check_name(name)?;
        let node = Node::Plain(self.governing(&dir, name)?);
        let is_lock = matches!(&node, Node::Plain(of) if of.key != dir.key);
        let read_only = if is_lock && matches!(operation, "mkdir" | "rmdir") {
            None
        } else if dir.key == self.memory.key {
            Some(
                "Each agent of exchange.toml has a folder here, and there is nothing else. Write in your own: memory/<agent>/.",
            )
        } else if self.is_root(&dir) {
            Some(
                "Only profiles are made here, by the operator: add a section [credentials.<name>] to exchange.toml.",
            )
        } else if dir.top().is_some() && name.as_bytes().starts_with(HALF_MADE.as_bytes()) {
            Some("Names that begin so are the exchange's own. Choose another name.")
        } else {
            None
        };
        if let Some(advice) = read_only {
            let path = self.tree_path(&Node::Plain(dir), Some(name));
            let attempt = Attempt { operation, path: &path, bytes: &[] };
            return Err(self.refuse(caller, attempt, Refusal::new(Rule::ReadOnly, advice)));
        }
        let operation = Operation { name: operation, node: &node, child: (!is_lock).then_some(name) };
        let standing = self.standing(caller, &operation, true)?;
        let Node::Plain(governing) = &node else { return Ok(dir) };
        self.check_dir(caller, standing, governing, WRITE | SEARCH)?;
        self.check_record_made(caller, operation.name, &dir, name)?;
        Ok(dir)
    }

    /// The folder whose users may make, use and remove `name` in a directory: its own, but for the lock that programs
    /// make beside a configuration folder, which is that profile's.
    pub(super) fn governing(&self, dir: &Plain, name: &OsStr) -> Outcome<Plain> {
        let beside = || {
            let name = name.to_str()?;
            let profile = self.profiles.get(name.strip_suffix(".lock")?)?;
            (!self.profiles.contains_key(name)).then_some(profile)
        };
        if dir.key != self.credentials.key {
            return Ok(dir.clone());
        }
        let Some(profile) = beside() else { return Ok(dir.clone()) };
        let metadata = profile.dir.metadata()?;
        Ok(Plain::new(profile.dir.clone(), &metadata, Area::Profile(profile.clone())))
    }

    /// The area that begins with this name under a root.
    fn area(&self, root: &Plain, name: &str) -> Option<(Arc<File>, Area)> {
        if root.key == self.memory.key {
            let memory = self.memories.get(name)?;
            return Some((memory.dir.clone(), Area::Memory(memory.clone())));
        }
        let profile = self.profiles.get(name)?;
        Some((profile.dir.clone(), Area::Profile(profile.clone())))
    }

    /// One name in a directory, counted.
    pub(super) fn find(&self, dir: &Plain, name: &OsStr) -> Outcome<Option<FileEntry>> {
        if self.is_root(dir)
            && let Some((handle, area)) = name.to_str().and_then(|name| self.area(dir, name))
        {
            let metadata = handle.metadata()?;
            let node = Node::Plain(Plain::new(handle, &metadata, area));
            return Ok(Some(self.nodes.entry(node, fd::attr(&metadata))));
        }
        if dir.top().is_some() && name.as_bytes().starts_with(HALF_MADE.as_bytes()) {
            return Ok(None);
        }
        let guard = guarded(dir, name);
        if guard.is_none() {
            let Some(stat) = fd::stat_at(&dir.handle, name)? else { return Ok(None) };
            if let Some(id) = self.nodes.again(FileKey::of_stat(&stat)) {
                return Ok(Some(FileEntry { id, attr: fd::attr_of_stat(&stat) }));
            }
        }
        let Some(handle) = fd::find(&dir.handle, name)? else { return Ok(None) };
        let metadata = handle.metadata()?;
        let mut attr = fd::attr(&metadata);
        let node = match guard {
            Some((profile, LoginName::Slot(slot))) if metadata.is_file() => {
                Node::Slot(SlotNode::new(profile.clone(), slot, attr))
            }
            Some((profile, LoginName::Live)) if metadata.is_symlink() && profile.shows_a_file() => {
                let Live::To(slot) = profile.live()? else { return Ok(None) };
                let Some(handle) = profile.slot_handle(&slot)? else { return Ok(None) };
                attr = fd::attr(&handle.metadata()?);
                Node::Slot(SlotNode::new(profile.clone(), slot, attr))
            }
            _ => {
                let mut plain = Plain::new(Arc::new(handle), &metadata, self.governing(dir, name)?.area);
                plain.record =
                    record(dir, name).filter(|_| metadata.is_file()).map(|(of, name)| (of.clone(), name));
                Node::Plain(plain)
            }
        };
        Ok(Some(self.nodes.entry(node, attr)))
    }

    pub(super) fn list_plain(&self, dir: &Plain) -> Outcome<Vec<DirEntry>> {
        let hides = dir.top().is_some();
        let open = fd::reopen(&dir.handle, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::new(open).map_err(std::io::Error::from)? {
            let entry = entry.map_err(std::io::Error::from)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || (hides && name.starts_with(HALF_MADE.as_bytes())) {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            let kind = match entry.file_type() {
                FileType::Directory => NodeKind::Directory,
                FileType::RegularFile => NodeKind::File,
                FileType::Symlink => NodeKind::Symlink,
                FileType::Fifo => NodeKind::Fifo,
                FileType::Socket => NodeKind::Socket,
                FileType::BlockDevice => NodeKind::BlockDevice(0),
                FileType::CharacterDevice => NodeKind::CharDevice(0),
                FileType::Unknown => match fd::find(&dir.handle, &name)? {
                    Some(handle) => fd::kind(&handle.metadata()?),
                    None => continue,
                },
            };
            let (kind, id) = match guarded(dir, &name) {
                Some((profile, LoginName::Live)) if kind == NodeKind::Symlink && profile.shows_a_file() => {
                    let Live::To(slot) = profile.live()? else { continue };
                    (NodeKind::File, self.nodes.slot(profile, &slot))
                }
                Some((profile, LoginName::Slot(slot))) if kind == NodeKind::File => {
                    (kind, self.nodes.slot(profile, &slot))
                }
                _ => (kind, self.nodes.listed(dir, entry.ino())),
            };
            entries.push(DirEntry { name, kind, id });
        }
        Ok(entries)
    }

    pub(super) fn open_plain(&self, caller: &Caller, plain: &Plain, flags: OFlags) -> Outcome<OpenFile> {
        let (read, write) = match wanted(flags) {
            (_, write) if flags.bits() & TO_EXECUTE != 0 => (SEARCH, write),
            wanted => wanted,
        };
        let node = Node::Plain(plain.clone());
        let standing =
            self.standing(caller, &Operation { name: "open", node: &node, child: None }, write != 0)?;
        let metadata = plain.handle.metadata()?;
        match fd::kind(&metadata) {
            NodeKind::File => {}
            NodeKind::Directory => return Err(Denied::os(libc::EISDIR)),
            NodeKind::Symlink => return Err(Denied::os(libc::ELOOP)),
            // The kernel opens these itself, where it does.
            NodeKind::Fifo | NodeKind::Socket | NodeKind::BlockDevice(_) | NodeKind::CharDevice(_) => {
                return Err(Denied::os(libc::ENXIO));
            }
        }
        self.check_mode(caller, standing, &metadata, read | write)?;
        let file = fd::reopen(&plain.handle, for_disk(flags))?;
        if flags.contains(OFlags::TRUNC) {
            self.lose_set_ids(caller, &file)?;
        }
        Ok(OpenFile { opened: Opened::Ordinary(Arc::new(file)) })
    }

    pub(super) fn create_plain(
        &self,
        caller: &Caller,
        dir: &Plain,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> Outcome<(FileEntry, OpenFile)> {
        let make = for_disk(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = match rustix::fs::openat(&dir.handle, name, make, self.first_mode(caller, mode)) {
            Ok(fd) => fd.into(),
            Err(rustix::io::Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                // Somebody made it since lookup.
                let entry = self.find(dir, name)?.ok_or_else(|| Denied::os(libc::ENOENT))?;
                return match self.open(caller, entry.id, flags.bits() as i32) {
                    Ok(open) => Ok((entry, open)),
                    Err(denied) => {
                        self.nodes.forget(entry.id, 1);
                        Err(denied)
                    }
                };
            }
            Err(e) => return Err(Denied::Io(e.into())),
        };
        let entry = self.adopt_new(caller, dir, name, Some(mode))?;
        Ok((entry, OpenFile { opened: Opened::Ordinary(Arc::new(file)) }))
    }

    /// The mode that something is made with: nobody else's before it is its owner's.
    fn first_mode(&self, caller: &Caller, mode: u32) -> Mode {
        let is_ours = self.new_owner(caller).is_none_or(|owner| owner == self.own_ids);
        Mode::from_raw_mode((if is_ours { mode & 0o777 } else { mode & 0o700 | 0o600 }) as _)
    }

    /// Gives a name just made to its caller, with its mode; counts one reference to it.
    pub(super) fn adopt_new(
        &self,
        caller: &Caller,
        dir: &Plain,
        name: &OsStr,
        mode: Option<u32>,
    ) -> Outcome<FileEntry> {
        let handle = fd::at(&dir.handle, name)?;
        let mut metadata = handle.metadata()?;
        let owner = self.new_owner(caller).filter(|owner| *owner != (metadata.uid(), metadata.gid()));
        let inherits_group =
            (owner.is_some() || metadata.is_dir()) && dir.handle.metadata()?.mode() & SETGID != 0;
        if let Some((uid, gid)) = owner {
            fd::chown(&handle, Some(uid), (!inherits_group).then_some(gid))?;
        }
        let inherited = if inherits_group && metadata.is_dir() { SETGID } else { 0 };
        let mode = mode.map(|mode| (mode | inherited) & 0o7777);
        let mode = mode.filter(|mode| owner.is_some() || *mode != metadata.mode() & 0o7777);
        if let Some(mode) = mode {
            fd::chmod(&handle, mode)?;
        }
        if owner.is_some() || mode.is_some() {
            metadata = handle.metadata()?;
        }
        let area = self.governing(dir, name)?.area;
        let node = Node::Plain(Plain::new(Arc::new(handle), &metadata, area));
        Ok(self.nodes.entry(node, fd::attr(&metadata)))
    }

    pub(super) fn mkdir_plain(
        &self,
        caller: &Caller,
        dir: &Plain,
        name: &OsStr,
        mode: u32,
    ) -> Outcome<FileEntry> {
        let first = self.first_mode(caller, mode);
        rustix::fs::mkdirat(&dir.handle, name, first).map_err(std::io::Error::from)?;
        let entry = self.adopt_new(caller, dir, name, Some(mode))?;
        if let Some(profile) = dir.top()
            && profile.config.format.lock.as_deref().is_some_and(|lock| name == lock)
            && let Node::Plain(lock) = self.nodes.get(entry.id)?
        {
            profile.lock_taken(Process::of(caller.pid), &lock.handle.metadata()?);
        }
        Ok(entry)
    }

    pub(super) fn remove_plain(
        &self,
        caller: &Caller,
        dir: &Plain,
        name: &OsStr,
        flags: AtFlags,
    ) -> Outcome<()> {
        let node = Node::Plain(self.governing(dir, name)?);
        let operation = Operation { name: "unlink", node: &node, child: Some(name) };
        let standing = self.standing(caller, &operation, true)?;
        if !standing.exempt {
            self.check_sticky(caller, standing, dir, &fd::at(&dir.handle, name)?.metadata()?)?;
        }
        Ok(rustix::fs::unlinkat(&dir.handle, name, flags).map_err(std::io::Error::from)?)
    }

    pub(super) fn link_plain(
        &self,
        caller: &Caller,
        node: Node,
        dir: &Plain,
        name: &OsStr,
    ) -> Outcome<FileEntry> {
        const ADVICE: &str =
            "A login has one name, so that nothing reaches it unjudged. Copy an ordinary file instead.";
        let plain = match &node {
            Node::Slot(slot) => {
                let guard = LoginName::Slot(slot.slot.clone());
                return Err(self.refuse_identity(caller, "link", &slot.profile, &guard, ADVICE));
            }
            Node::Plain(plain) => plain,
        };
        if let Some((profile, record)) = &plain.record {
            return Err(self.refuse_record_link(caller, (profile, record)));
        }
        if let Some((profile, guard)) = guarded(dir, name) {
            return Err(self.refuse_identity(caller, "link", profile, &guard, ADVICE));
        }
        if let Some(profile) = plain.profile()
            && self.is_live_link(plain)?
        {
            return Err(self.refuse_identity(caller, "link", profile, &LoginName::Live, ADVICE));
        }
        if plain.area != dir.area {
            return Err(Denied::os(libc::EXDEV));
        }
        fd::link(&plain.handle, &dir.handle, name)?;
        let attr = fd::attr(&plain.handle.metadata()?);
        Ok(self.nodes.entry(node, attr))
    }

    pub(super) fn rename_within(
        &self,
        caller: &Caller,
        (dir, name): (&Plain, &OsStr),
        (new_dir, new_name): (&Plain, &OsStr),
        flags: RenameFlags,
    ) -> Outcome<()> {
        if dir.area != new_dir.area {
            // As between two disks: who may use a file is its area's to say. mv copies then.
            return Err(Denied::os(libc::EXDEV));
        }
        let node = Node::Plain(dir.clone());
        let operation = Operation { name: "rename", node: &node, child: Some(name) };
        let standing = self.standing(caller, &operation, true)?;
        let bound = if standing.exempt { &[][..] } else { &[(dir, name), (new_dir, new_name)][..] };
        for &(dir, name) in bound {
            if let Some(handle) = fd::find(&dir.handle, name)? {
                let metadata = handle.metadata()?;
                self.check_sticky(caller, standing, dir, &metadata)?;
                if metadata.is_dir() && dir.key != new_dir.key {
                    self.check_mode(caller, standing, &metadata, WRITE)?; // its `..` changes
                }
            }
        }
        let is_guarded = dir.top().is_some() || new_dir.top().is_some();
        if is_guarded
            && let Some(done) = self.rename_record(caller, (dir, name), (new_dir, new_name), flags)?
        {
            return Ok(done);
        }
        if is_guarded
            && let Some(done) = self.rename_guarded(caller, (dir, name), (new_dir, new_name), flags)?
        {
            return Ok(done);
        }
        Ok(rustix::fs::renameat_with(&dir.handle, name, &new_dir.handle, new_name, flags)
            .map_err(std::io::Error::from)?)
    }

    pub(super) fn set_plain_attr(
        &self,
        caller: &Caller,
        plain: &Plain,
        open: Option<&OpenFile>,
        change: SetAttr,
    ) -> Outcome<Attr> {
        let node = Node::Plain(plain.clone());
        let standing =
            self.standing(caller, &Operation { name: "setattr", node: &node, child: None }, true)?;
        let handle = &plain.handle;
        let metadata = handle.metadata()?;
        if change.uid.is_some() || change.gid.is_some() {
            let gives_away = change.uid.is_some_and(|uid| uid != metadata.uid());
            let foreign_group =
                change.gid.is_some_and(|gid| gid != metadata.gid() && !access::in_group(caller, gid));
            self.check_owner(caller, standing, &metadata)?;
            if (gives_away || foreign_group) && !standing.exempt {
                return Err(Denied::os(libc::EPERM));
            }
            fd::chown(handle, change.uid, change.gid)?;
        }
        if let Some(mut mode) = change.mode {
            self.check_owner(caller, standing, &metadata)?;
            if !standing.exempt && !access::in_group(caller, metadata.gid()) {
                mode &= !SETGID;
            }
            fd::chmod(handle, mode & 0o7777)?;
        }
        if let Some(size) = change.size {
            match open.map(|open| &open.opened) {
                Some(Opened::Ordinary(file)) => self.cut(caller, file, size)?,
                _ => {
                    self.check_mode(caller, standing, &metadata, WRITE)?;
                    self.cut(caller, &fd::reopen(handle, OFlags::WRONLY)?, size)?;
                }
            }
        }
        if change.touch {
            if self.check_owner(caller, standing, &metadata).is_err() {
                self.check_mode(caller, standing, &metadata, WRITE)?;
            }
            fd::touch(handle)?;
        } else if change.atime.is_some() || change.mtime.is_some() {
            self.check_owner(caller, standing, &metadata)?;
            fd::set_times(handle, change.atime, change.mtime)?;
        }
        Ok(fd::attr(&handle.metadata()?))
    }

    fn cut(&self, caller: &Caller, file: &File, size: u64) -> std::io::Result<()> {
        self.lose_set_ids(caller, file)?;
        file.set_len(size)
    }

    /// Whether this is the symlink that selects a slot.
    pub(super) fn is_live_link(&self, plain: &Plain) -> Outcome<bool> {
        let Some(profile) = plain.profile() else { return Ok(false) };
        let Some(live) = fd::find(&profile.dir, OsStr::new(profile.live_name()))? else { return Ok(false) };
        Ok(FileKey::of(&live.metadata()?) == plain.key)
    }
}

/// The flags that the file on disk is opened with. Appends are placed by write(), creation and
/// following have been done by the kernel, and the daemon's buffers are not aligned for O_DIRECT.
fn for_disk(flags: OFlags) -> OFlags {
    flags & (OFlags::RWMODE | OFlags::TRUNC)
}

/// EINVAL for what is no name of an entry. The kernel never sends one.
fn check_name(name: &OsStr) -> Outcome<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Denied::os(libc::EINVAL));
    }
    Ok(())
}
