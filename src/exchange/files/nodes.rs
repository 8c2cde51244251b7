//! Which files the kernel knows: a table of handles with reference counts.
//!
//! An ordinary file is the same by its device and inode number, which cannot be given to another
//! file while the handle is open. A slot is the same by its name, because every accepted write
//! gives it another inode. Its id comes from the same, so that a file has one inode number through
//! every mount and every start.

use super::area::Area;
use super::fd::{self, FileKey};
use super::guard::profile::Profile;
use super::guard::record::RecordName;
use super::{FileEntry, FileId};
use crate::exchange::{Attr, Denied, Outcome};
use crate::rules::credential::SlotName;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::sync::Arc;

/// Inode numbers of the disk from here on leave no room for the tags of ids and of the mount's own numbers.
const MOST_DISK: u64 = 1 << 58;
// The lowest bits of an id say what it is made of: an inode number of the disk is shifted by one.
const TAG_FOREIGN: u64 = 1;
const TAG_SLOT: u64 = 3;

/// One known file.
#[derive(Clone)]
pub(super) enum Node {
    Plain(Plain),
    Slot(SlotNode),
}

/// An ordinary file, directory or symlink.
#[derive(Clone)]
pub(super) struct Plain {
    pub handle: Arc<File>,
    pub key: FileKey,
    /// Where it lies.
    pub area: Area,
    /// What the exchange writes in it, if it does.
    pub record: Option<(Arc<Profile>, RecordName)>,
}

impl Plain {
    pub fn new(handle: Arc<File>, metadata: &Metadata, area: Area) -> Self {
        Plain { handle, key: FileKey::of(metadata), area, record: None }
    }
    /// The profile that it lies in.
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        match &self.area {
            Area::Profile(profile) => Some(profile),
            _ => None,
        }
    }
    /// The profile whose top directory this is: the only place with guarded names.
    pub fn top(&self) -> Option<&Arc<Profile>> {
        self.profile().filter(|profile| profile.key == self.key)
    }
    /// Whether it is the top directory of a profile or of an agent's memory.
    pub fn is_top(&self) -> bool {
        match &self.area {
            Area::Profile(profile) => profile.key == self.key,
            Area::Memory(memory) => memory.key == self.key,
            Area::Credentials | Area::Memories => false,
        }
    }
}

/// A slot, which may not exist yet (its first content is being written) or any more.
#[derive(Clone)]
pub(super) struct SlotNode {
    pub profile: Arc<Profile>,
    pub slot: SlotName,
    last: Arc<Mutex<Attr>>,
}

impl SlotNode {
    pub fn new(profile: Arc<Profile>, slot: SlotName, attr: Attr) -> Self {
        SlotNode { profile, slot, last: Arc::new(Mutex::new(attr)) }
    }
    /// What stat() shows: of the slot's present content, or the last known.
    pub fn attr(&self) -> io::Result<Attr> {
        let present = self.profile.slot_handle(&self.slot)?;
        let mut last = self.last.lock();
        if let Some(handle) = present {
            *last = fd::attr(&handle.metadata()?);
        }
        Ok(*last)
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    File(FileKey),
    Slot(String, SlotName),
}

impl Key {
    fn of(node: &Node) -> Self {
        match node {
            Node::Plain(plain) => Key::File(plain.key),
            Node::Slot(slot) => Key::Slot(slot.profile.name.clone(), slot.slot.clone()),
        }
    }
}

struct Known {
    node: Node,
    references: u64,
    /// A root: never forgotten.
    pinned: bool,
}

#[derive(Default)]
struct Table {
    foreign: u64,
    ids: HashMap<Key, FileId>,
    known: HashMap<FileId, Known>,
}

/// The table.
pub(super) struct Nodes {
    /// The device whose inode numbers the ids are made of.
    device: u64,
    table: Mutex<Table>,
}

impl Nodes {
    /// Of files on this device, and what lies below on others.
    pub fn new(device: u64) -> Self {
        Nodes { device, table: Mutex::default() }
    }

    /// Makes a root known for good.
    pub fn pin(&self, root: Plain) -> FileId {
        let id = self.reference(Node::Plain(root));
        if let Some(known) = self.table.lock().known.get_mut(&id) {
            known.pinned = true;
        }
        id
    }

    /// Counts one reference to a node, and gives its id.
    pub fn reference(&self, node: Node) -> FileId {
        let mut table = self.table.lock();
        let key = Key::of(&node);
        let id = self.id(&mut table, &key);
        table.ids.entry(key).or_insert(id);
        table.known.entry(id).or_insert(Known { node, references: 0, pinned: false }).references += 1;
        id
    }

    /// Counts one reference to a file that is known already.
    pub fn again(&self, key: FileKey) -> Option<FileId> {
        let mut table = self.table.lock();
        let id = *table.ids.get(&Key::File(key))?;
        table.known.get_mut(&id)?.references += 1;
        Some(id)
    }

    /// The id that a known key has, or that an unknown one would get now.
    fn id(&self, table: &mut Table, key: &Key) -> FileId {
        if let Some(id) = table.ids.get(key) {
            return *id;
        }
        match key {
            Key::File(FileKey { dev, ino }) if *dev == self.device && *ino < MOST_DISK => FileId(ino << 1),
            Key::File(_) => {
                table.foreign += 1;
                FileId(table.foreign << 2 | TAG_FOREIGN)
            }
            Key::Slot(profile, slot) => {
                let mut id = slot_id(profile, slot);
                while table.known.contains_key(&id) {
                    id.0 += 1 << 2; // two names with one digest
                }
                id
            }
        }
    }

    /// The id of a slot, for a listing.
    pub fn slot(&self, profile: &Profile, slot: &SlotName) -> FileId {
        self.id(&mut self.table.lock(), &Key::Slot(profile.name.clone(), slot.clone()))
    }

    /// The id that a file in a directory has or would get, for a listing.
    pub fn listed(&self, dir: &Plain, ino: u64) -> FileId {
        if dir.key.dev == self.device && ino < MOST_DISK {
            return FileId(ino << 1);
        }
        let table = self.table.lock();
        let known = table.ids.get(&Key::File(FileKey { dev: dir.key.dev, ino })).copied();
        // Nobody has looked it up, so it has no number yet; what a listing shows must only not be 0.
        known.unwrap_or(FileId((ino % MOST_DISK) << 2 | TAG_FOREIGN))
    }

    /// As [`Nodes::reference`], with what stat() shows.
    pub fn entry(&self, node: Node, attr: Attr) -> FileEntry {
        FileEntry { id: self.reference(node), attr }
    }

    /// Gives references back.
    pub fn forget(&self, id: FileId, count: u64) {
        let mut table = self.table.lock();
        let Some(known) = table.known.get_mut(&id) else { return };
        known.references = known.references.saturating_sub(count);
        if known.references == 0 && !known.pinned {
            let key = Key::of(&known.node);
            let gone = table.known.remove(&id);
            table.ids.remove(&key);
            drop(table);
            drop(gone); // closes its handle, which may be a removed file's last
        }
    }

    /// A known node.
    pub fn get(&self, id: FileId) -> Outcome<Node> {
        let table = self.table.lock();
        table.known.get(&id).map(|known| known.node.clone()).ok_or_else(|| Denied::os(libc::ESTALE))
    }

    /// A known directory (or whatever else is no slot: the system call on it will tell).
    pub fn dir(&self, id: FileId) -> Outcome<Plain> {
        match self.get(id)? {
            Node::Plain(plain) => Ok(plain),
            Node::Slot(_) => Err(Denied::os(libc::ENOTDIR)),
        }
    }

    /// How many are known, the roots included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.lock().known.len()
    }
}

/// A slot's id, from its name: an accepted write changes the inode, and not which file a program takes it for.
fn slot_id(profile: &str, slot: &SlotName) -> FileId {
    let digest = Sha256::digest(format!("{profile}/{slot}"));
    let start = digest.iter().take(5).fold(0, |number, byte| number << 8 | u64::from(*byte));
    FileId(start << 2 | TAG_SLOT)
}
