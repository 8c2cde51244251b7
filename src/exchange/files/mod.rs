//! Ordinary files under credentials/ and memory/, and the guard around slots and live links.
//!
//! Ordinary files behave as they do on the disk below. In a profile's top directory the names that
//! [`crate::rules::credential::GuardedName`] knows are guarded: see [`guard`].

mod access;
mod area;
mod fd;
pub(in crate::exchange) mod guard;
pub mod kept;
mod nodes;
mod ordinary;
mod process;
mod space;
mod special;
mod xattr;

#[cfg(test)]
mod tests;

use super::config::Config;
use super::{Actor, Attempt, Attr, Caller, Denied, NodeKind, Outcome};
use crate::exchange::events::Event;
use crate::rules::Refusal;
use crate::rules::credential::SlotName;
use crate::wire::time::Timestamp;
pub(super) use access::class_bits;
use access::{Operation, READ, WRITE};
use area::{Area, CREDENTIALS, Memory};
use fd::FileKey;
use guard::change::Change;
use guard::profile::Profile;
use guard::record::{SidecarWriter, record};
use guard::slot::SlotWriter;
use guard::{LoginName, guarded};
use kept::Keeping;
use nodes::{Node, Nodes, Plain};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// What the files need of the exchange that they belong to.
pub trait Office: Send + Sync {
    /// Whom a caller acts as.
    fn actor(&self, caller: &Caller) -> Actor;
    /// The time.
    fn now(&self) -> Timestamp;
    /// Records a refusal and returns it for the caller.
    fn refuse(&self, caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied;
    /// As [`Office::refuse`], with where the bytes are kept, relative to the exchange's folder.
    fn refuse_kept(
        &self,
        caller: &Caller,
        attempt: Attempt<'_>,
        refusal: Refusal,
    ) -> (Denied, Option<String>);
    /// Keeps bytes that are removed or replaced (`why`, one word) in quarantine, and returns where: relative to the
    /// exchange's folder.
    ///
    /// # Errors
    /// The disk's; the bytes are then not kept.
    fn keep(&self, why: &'static str, bytes: &[u8]) -> io::Result<String>;
    /// Keeps the login that a slot held before a refresh, in place of what was so kept of it before, and returns
    /// where: relative to the exchange's folder.
    ///
    /// # Errors
    /// The disk's; what was kept before stands then.
    fn keep_previous(&self, profile: &str, slot: &SlotName, bytes: &[u8]) -> io::Result<String>;
    /// Keeps a profile's private knowledge over a restart, in place of what was kept before.
    ///
    /// # Errors
    /// The disk's; what was kept before stands then.
    fn remember(&self, profile: &str, text: &[u8]) -> io::Result<()>;
    /// What [`Office::remember`] kept of a profile last.
    ///
    /// # Errors
    /// The disk's.
    fn recall(&self, profile: &str) -> io::Result<Option<Vec<u8>>>;
    /// Appends an event, on disk where that was asked for.
    ///
    /// # Errors
    /// The disk's; the event is then not written, or not known to be on disk.
    fn event(&self, event: &'static str, fields: Map<String, Value>) -> io::Result<()>;
}

/// A file, directory or symlink under credentials/ or memory/: the same for as long as anybody knows it,
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
    /// Which file it is, or will be once it is looked up.
    pub id: FileId,
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
    /// Both times become now, which whoever may write may ask for.
    pub touch: bool,
}

/// An open ordinary file or slot.
pub struct OpenFile {
    opened: Opened,
}

enum Opened {
    Ordinary(Arc<File>),
    /// The content that the slot had at open(2).
    SlotReader(File),
    SlotWriter(SlotWriter),
    SidecarWriter(SidecarWriter),
}

impl OpenFile {
    /// The file on disk, where its reads and writes may go there directly (kernel passthrough or
    /// page cache); `None` for slots, whose bytes are judged first.
    pub fn backing(&self) -> Option<Arc<File>> {
        match &self.opened {
            Opened::Ordinary(file) => Some(file.clone()),
            Opened::SlotReader(_) | Opened::SlotWriter(_) | Opened::SidecarWriter(_) => None,
        }
    }
}

/// The ordinary files of an exchange.
pub struct Files {
    credentials: Root,
    profiles: BTreeMap<String, Arc<Profile>>,
    memory: Root,
    memories: BTreeMap<String, Arc<Memory>>,
    nodes: Nodes,
    keeping: Keeping,
    office: Weak<dyn Office>,
    /// Whether new files can be given to their callers.
    as_root: bool,
    own_ids: (u32, u32),
}

/// credentials/ or memory/.
struct Root {
    id: FileId,
    key: FileKey,
    /// Its path on disk starts every path of the tree's.
    handle: Arc<File>,
}

/// The mode bits that open(2) with these flags needs: (to read, to write).
fn wanted(flags: OFlags) -> (u32, u32) {
    let (read, write) = match flags & OFlags::RWMODE {
        OFlags::WRONLY => (0, WRITE),
        OFlags::RDWR => (READ, WRITE),
        _ => (READ, 0),
    };
    (read, if flags.contains(OFlags::TRUNC) { WRITE } else { write })
}

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags as _)
}

impl Root {
    fn open(nodes: &Nodes, exchange: &File, area: Area) -> io::Result<Self> {
        match rustix::fs::mkdirat(exchange, area.root(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let handle = Arc::new(area::directory(exchange, area.root())?);
        let root = Plain::new(handle.clone(), &handle.metadata()?, area);
        let key = root.key;
        Ok(Root { id: nodes.pin(root), key, handle })
    }
}

impl Files {
    /// The files in an exchange's folder: credentials/ with the folder of each configured profile, and memory/ with
    /// the folder of each agent, made if missing. A login that lies as a regular file where a live link
    /// belongs, as a program left it before there was a guard, becomes the slot `default`. What the events
    /// since the last checkpoint tell of and a crash prevented is done.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn new(
        dir: &Path,
        config: &Config,
        office: Weak<dyn Office>,
        recent: &[Event],
    ) -> io::Result<Self> {
        let as_root = rustix::process::geteuid().is_root();
        let dir = File::open(dir)?;
        let nodes = Nodes::new(dir.metadata()?.dev());
        let credentials = Root::open(&nodes, &dir, Area::Credentials)?;
        let memory = Root::open(&nodes, &dir, Area::Memories)?;
        let mut profiles = BTreeMap::new();
        for (name, profile) in &config.credentials {
            let profile = Profile::open(&credentials.handle, name, profile.clone(), recent, office.clone())?;
            profiles.insert(name.clone(), Arc::new(profile));
        }
        let mut memories = BTreeMap::new();
        for (agent, settings) in &config.agents {
            let folder = Memory::open(&memory.handle, agent, settings.uid.filter(|_| as_root))?;
            memories.insert(agent.to_string(), Arc::new(folder));
        }
        let files = Files {
            nodes,
            keeping: Keeping::default(),
            credentials,
            profiles,
            memory,
            memories,
            office,
            as_root,
            own_ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        files.recall_accounts(recent)?;
        files.take_in_logins();
        Ok(files)
    }

    fn take_in_logins(&self) {
        let Ok(office) = self.office() else { return };
        for profile in self.profiles.values() {
            let note = |change: &Change<'_>| self.note(&Actor::Operator, profile, change);
            match profile.take_in(self.as_root, office.now(), &note) {
                Ok(_) => {}
                Err(fault) => {
                    let (profile, why) = (&profile.name, String::from(fault));
                    tracing::warn!(profile, why, "the login that lies under the live name was not taken in");
                }
            }
            if let Err(error) = self.look_at_sidecars(profile) {
                tracing::warn!(profile = profile.name, %error, "the slots were not compared with their sidecars");
            }
        }
    }

    /// credentials/ itself.
    pub fn credentials(&self) -> FileId {
        self.credentials.id
    }
    /// memory/ itself.
    pub fn memory(&self) -> FileId {
        self.memory.id
    }
    /// The path in the tree at which a file was last found, for refusals.
    pub fn path(&self, id: FileId) -> PathBuf {
        self.nodes.get(id).map_or_else(|_| CREDENTIALS.into(), |node| self.tree_path(&node, None).into())
    }
    /// One name in a directory.
    pub fn lookup(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<FileEntry> {
        let dir = self.enter(caller, parent, name, "lookup")?;
        self.find(&dir, name)?.ok_or_else(|| Denied::os(libc::ENOENT))
    }
    /// Gives back `count` references.
    pub fn forget(&self, id: FileId, count: u64) {
        self.nodes.forget(id, count);
    }
    /// What stat() shows.
    pub fn attr(&self, id: FileId) -> Outcome<Attr> {
        Ok(match self.nodes.get(id)? {
            Node::Plain(plain) => fd::attr(&plain.handle.metadata()?),
            Node::Slot(slot) => slot.attr()?,
        })
    }
    /// chmod, chown, truncate, utimensat. `open`: the descriptor, for ftruncate.
    pub fn set_attr(
        &self,
        caller: &Caller,
        id: FileId,
        open: Option<&OpenFile>,
        change: SetAttr,
    ) -> Outcome<Attr> {
        match self.nodes.get(id)? {
            Node::Plain(plain) => match &plain.record {
                Some((profile, name)) => self.set_record_attr(caller, (&plain, profile, name), open, change),
                None => self.set_plain_attr(caller, &plain, open, change),
            },
            Node::Slot(slot) => self.set_slot_attr(caller, &slot, open, change),
        }
    }
    /// The names in a directory, without `.` and `..`.
    pub fn list(&self, caller: &Caller, id: FileId) -> Outcome<Vec<DirEntry>> {
        let dir = self.nodes.dir(id)?;
        let node = Node::Plain(dir.clone());
        let standing =
            self.standing(caller, &Operation { name: "readdir", node: &node, child: None }, false)?;
        self.check_dir(caller, standing, &dir, READ)?;
        self.list_plain(&dir)
    }
    /// open(2); `flags` as the kernel gives them.
    pub fn open(&self, caller: &Caller, id: FileId, flags: i32) -> Outcome<OpenFile> {
        match self.nodes.get(id)? {
            Node::Plain(plain) => match &plain.record {
                Some((profile, name)) => self.open_record(caller, (&plain, profile, name), open_flags(flags)),
                None => self.open_plain(caller, &plain, open_flags(flags)),
            },
            Node::Slot(slot) => self.open_slot(caller, &slot, open_flags(flags)),
        }
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
        let dir = self.change(caller, parent, name, "create")?;
        if let Some(record) = record(&dir, name) {
            return self.create_record(caller, (&dir, name), record, open_flags(flags));
        }
        match guarded(&dir, name) {
            Some((profile, guard)) => self.create_guarded(caller, profile, guard, open_flags(flags)),
            None => self.create_plain(caller, &dir, name, mode, open_flags(flags)),
        }
    }
    /// pread(2).
    pub fn read(&self, open: &OpenFile, offset: u64, size: usize) -> Outcome<Vec<u8>> {
        let file = match &open.opened {
            Opened::Ordinary(file) => file,
            Opened::SlotReader(file) => file,
            Opened::SlotWriter(writer) => return Ok(writer.read(offset, size)),
            Opened::SidecarWriter(writer) => return Ok(writer.read(offset, size)),
        };
        Ok(super::read_at(file, offset, size)?)
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
        match &open.opened {
            Opened::Ordinary(file) if append => Ok(fd::append(file, data)?),
            Opened::Ordinary(file) => Ok(file.write_at(data, offset)?),
            Opened::SlotReader(_) => Err(Denied::os(libc::EBADF)),
            Opened::SlotWriter(writer) => self.write_slot(caller, writer, offset, append, data),
            Opened::SidecarWriter(writer) => self.write_sidecar(caller, writer, (offset, append), data),
        }
    }
    /// One close(2): the last place where a writer can be told that its credential was refused.
    pub fn flush(&self, caller: &Caller, open: &OpenFile) -> Outcome<()> {
        match &open.opened {
            Opened::SlotWriter(writer) => self.flush_slot(caller, writer),
            Opened::SidecarWriter(writer) => self.flush_sidecar(caller, writer),
            Opened::Ordinary(_) | Opened::SlotReader(_) => Ok(()),
        }
    }
    /// fsync(2). What a slot's readers see is on disk already.
    pub fn fsync(&self, _caller: &Caller, open: &OpenFile, data_only: bool) -> Outcome<()> {
        match &open.opened {
            Opened::Ordinary(file) if data_only => Ok(file.sync_data()?),
            Opened::Ordinary(file) => Ok(file.sync_all()?),
            Opened::SlotReader(_) | Opened::SlotWriter(_) | Opened::SidecarWriter(_) => Ok(()),
        }
    }
    /// The last close.
    pub fn release(&self, open: &OpenFile) {
        match &open.opened {
            Opened::SlotWriter(writer) => self.release_slot(writer),
            Opened::SidecarWriter(writer) => self.release_sidecar(writer),
            Opened::Ordinary(_) | Opened::SlotReader(_) => {}
        }
    }
    /// mkdir(2).
    pub fn mkdir(&self, caller: &Caller, parent: FileId, name: &OsStr, mode: u32) -> Outcome<FileEntry> {
        let dir = self.change(caller, parent, name, "mkdir")?;
        if let Some((profile, guard)) = guarded(&dir, name) {
            let advice = "This name is a login's and can't be a directory's. Choose another name.";
            return Err(self.refuse_identity(caller, "mkdir", profile, &guard, advice));
        }
        self.mkdir_plain(caller, &dir, name, mode)
    }
    /// rmdir(2).
    pub fn rmdir(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<()> {
        let dir = self.change(caller, parent, name, "rmdir")?;
        self.remove_plain(caller, &dir, name, AtFlags::REMOVEDIR)
    }
    /// unlink(2).
    pub fn unlink(&self, caller: &Caller, parent: FileId, name: &OsStr) -> Outcome<()> {
        let dir = self.change(caller, parent, name, "unlink")?;
        self.check_record_unlinked(caller, &dir, name)?;
        if let Some((profile, guard)) = guarded(&dir, name)
            && let Some(done) = self.unlink_guarded(caller, profile, &guard)?
        {
            return Ok(done);
        }
        self.remove_plain(caller, &dir, name, AtFlags::empty())
    }
    /// symlink(2): also how a live link is made.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: FileId,
        name: &OsStr,
        target: &OsStr,
    ) -> Outcome<FileEntry> {
        let dir = self.change(caller, parent, name, "symlink")?;
        let make = || Ok(rustix::fs::symlinkat(target, &dir.handle, name)?);
        match guarded(&dir, name) {
            Some((profile, LoginName::Live)) => {
                if fd::find(&dir.handle, name)?.is_some() {
                    return Err(Denied::os(libc::EEXIST));
                }
                self.switch_by(caller, "symlink", profile, target, |_| make())?;
            }
            // A link with a slot's name is no slot: it is how some programs name their temp link.
            Some(_) | None => make().map_err(Denied::Io)?,
        }
        self.adopt_new(caller, &dir, name, None)
    }
    /// readlink(2).
    pub fn readlink(&self, id: FileId) -> Outcome<OsString> {
        match self.nodes.get(id)? {
            Node::Plain(plain) => Ok(fd::read_link(&plain.handle)?),
            Node::Slot(_) => Err(Denied::os(libc::EINVAL)),
        }
    }
    /// link(2).
    pub fn link(&self, caller: &Caller, id: FileId, parent: FileId, name: &OsStr) -> Outcome<FileEntry> {
        let dir = self.change(caller, parent, name, "link")?;
        self.link_plain(caller, self.nodes.get(id)?, &dir, name)
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
        let dir = self.change(caller, parent, name, "rename")?;
        let new_dir = self.change(caller, new_parent, new_name, "rename")?;
        let flags = RenameFlags::from_bits_retain(flags);
        self.rename_within(caller, (&dir, name), (&new_dir, new_name), flags)
    }
}
