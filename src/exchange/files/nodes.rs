//! Which files the kernel knows: a table of handles with reference counts.
//!
//! An ordinary file is the same by its device and inode number, which cannot be given to another
//! file while the handle is open. A slot is the same by its name, because every accepted write
//! gives it another inode.

use super::fd::{self, FileKey};
use super::guard::profile::Profile;
use super::guard::record::RecordName;
use super::{FileEntry, FileId};
use crate::exchange::{Attr, Denied, Outcome};
use crate::rules::credential::SlotName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::sync::Arc;

/// The root's id.
pub(super) const ROOT: FileId = FileId(1);

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
    /// The profile it lies in; `None` for credentials/ itself and folders that are no profile.
    pub profile: Option<Arc<Profile>>,
    /// What the exchange writes in it, if it does.
    pub record: Option<(Arc<Profile>, RecordName)>,
}

impl Plain {
    pub fn new(handle: Arc<File>, metadata: &Metadata, profile: Option<Arc<Profile>>) -> Self {
        Plain { handle, key: FileKey::of(metadata), profile, record: None }
    }
    /// The profile whose top directory this is: the only place with guarded names.
    pub fn top(&self) -> Option<&Arc<Profile>> {
        self.profile.as_ref().filter(|profile| profile.key == self.key)
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
}

#[derive(Default)]
struct Table {
    next: u64,
    ids: HashMap<Key, FileId>,
    known: HashMap<FileId, Known>,
}

/// The table.
pub(super) struct Nodes(Mutex<Table>);

impl Nodes {
    /// With the root, which is never forgotten.
    pub fn new(root: Plain) -> Self {
        let nodes = Nodes(Mutex::new(Table { next: ROOT.0, ..Table::default() }));
        nodes.reference(Node::Plain(root));
        nodes
    }

    /// Counts one reference to a node, and gives its id.
    pub fn reference(&self, node: Node) -> FileId {
        let mut table = self.0.lock();
        let table = &mut *table;
        let next = &mut table.next;
        let id = *table.ids.entry(Key::of(&node)).or_insert_with(|| {
            let id = FileId(*next);
            *next += 1;
            id
        });
        table.known.entry(id).or_insert(Known { node, references: 0 }).references += 1;
        id
    }

    /// As [`Nodes::reference`], with what stat() shows.
    pub fn entry(&self, node: Node, attr: Attr) -> FileEntry {
        FileEntry { id: self.reference(node), attr }
    }

    /// Gives references back.
    pub fn forget(&self, id: FileId, count: u64) {
        let mut table = self.0.lock();
        let Some(known) = table.known.get_mut(&id) else { return };
        known.references = known.references.saturating_sub(count);
        if known.references == 0 && id != ROOT {
            let key = Key::of(&known.node);
            table.known.remove(&id);
            table.ids.remove(&key);
        }
    }

    /// A known node.
    pub fn get(&self, id: FileId) -> Outcome<Node> {
        self.0.lock().known.get(&id).map(|known| known.node.clone()).ok_or_else(|| Denied::os(libc::ESTALE))
    }

    /// A known directory (or whatever else is no slot: the system call on it will tell).
    pub fn dir(&self, id: FileId) -> Outcome<Plain> {
        match self.get(id)? {
            Node::Plain(plain) => Ok(plain),
            Node::Slot(_) => Err(Denied::os(libc::ENOTDIR)),
        }
    }

    /// How many are known, the root included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().known.len()
    }
}
