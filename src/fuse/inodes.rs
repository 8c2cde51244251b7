//! Which inode number stands for which node.
//!
//! A number is the node's own identity with a tag in the lowest three bits, so that only logs, views and agents need a table. The
//! kernel's references to ordinary files are counted here, because the exchange wants each one back, also those that
//! the kernel does not give back when it unmounts.

use super::tree::{Dir, Node};
use crate::exchange::files::FileId;
use crate::exchange::handoffs::{HandoffNode, State};
use crate::exchange::logs::LogName;
use crate::exchange::send::LetterNode;
use crate::exchange::views::View;
use crate::wire::name::AgentName;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const TAG_BITS: u32 = 3;
// Letters are numbered from 1, so none has the number 0.
const TAG_LETTER: u64 = 0;
// Tag 1 makes the top's number 1, as FUSE wants it.
const TAG_DIR: u64 = 1;
const TAG_VIEW: u64 = 2;
const TAG_LOG: u64 = 3;
const TAG_HANDOFF: u64 = 4;
const TAG_FILE: u64 = 5;
const TAG_ALIASED_FILE: u64 = 6;

/// The four handoff directories, one of which is part of a handoff's number.
const STATE_BITS: u32 = 2;

/// Added to a fixed directory's index where it is seen through `_coordination/`.
const ALIASED_DIR: u64 = 16;
/// From here on the directories are those of agents in `send/`, two numbers for each.
const MAILBOXES: u64 = 2 * ALIASED_DIR;

/// Numbers for what has only a name: as many as the exchange has such names, and they stay.
struct Table<T>(RwLock<Rows<T>>);

struct Rows<T> {
    index: HashMap<T, u64>,
    names: Vec<T>,
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn new() -> Self {
        Table(RwLock::new(Rows { index: HashMap::new(), names: Vec::new() }))
    }

    fn number(&self, name: &T) -> u64 {
        if let Some(number) = self.0.read().index.get(name) {
            return *number;
        }
        let mut rows = self.0.write();
        let next = rows.names.len() as u64;
        let number = *rows.index.entry(name.clone()).or_insert(next);
        if number == next {
            rows.names.push(name.clone());
        }
        number
    }

    fn name(&self, number: usize) -> Option<T> {
        self.0.read().names.get(number).cloned()
    }
}

/// The inode numbers of one mount.
pub(super) struct Inodes {
    /// `credentials/` and `memory/`, which are never forgotten.
    roots: [FileId; 2],
    logs: Table<LogName>,
    views: Table<View>,
    mailboxes: Table<AgentName>,
    arrivals: AtomicU64,
    /// Of the roots only what is kept in them: references to them are not counted.
    references: Mutex<HashMap<FileId, References>>,
}

#[derive(Default)]
struct References {
    count: u64,
    arrival: u64,
    volatile: bool,
    /// When the kernel was last given a name in this directory to keep.
    kept: Option<Instant>,
    /// How many changes are under way after which names in it may not be kept.
    closing: u32,
}

/// What counting a reference found.
pub(super) struct Counted {
    /// For the first reference that the kernel has of a file: which arrival it is.
    pub(super) arrival: Option<u64>,
    /// The directory is being closed to somebody: the name may not be kept.
    pub(super) closing: bool,
}

fn tagged(id: u64, tag: u64) -> u64 {
    (id << TAG_BITS) | tag
}

impl Inodes {
    pub(super) fn new(roots: [FileId; 2]) -> Self {
        Inodes {
            roots,
            logs: Table::new(),
            views: Table::new(),
            mailboxes: Table::new(),
            arrivals: AtomicU64::default(),
            references: Mutex::new(HashMap::from(roots.map(|root| (root, References::default())))),
        }
    }

    /// A node's number: the same for as long as the mount lives, an ordinary file's for as long as it does.
    pub(super) fn number(&self, node: &Node) -> u64 {
        match node {
            Node::Dir { dir, aliased } => {
                let index = Dir::ALL.iter().position(|d| d == dir).unwrap_or_default() as u64;
                tagged(index + if *aliased { ALIASED_DIR } else { 0 }, TAG_DIR)
            }
            Node::Mailbox { to, aliased } => {
                tagged(MAILBOXES + (self.mailboxes.number(to) << 1 | u64::from(*aliased)), TAG_DIR)
            }
            Node::Letter(LetterNode(id)) => tagged(*id, TAG_LETTER),
            Node::View { view, aliased } => {
                tagged(self.views.number(view) << 1 | u64::from(*aliased), TAG_VIEW)
            }
            Node::Log(log) => tagged(self.logs.number(log), TAG_LOG),
            Node::Handoff { node: HandoffNode(id), state } => {
                let place = State::ALL.iter().position(|s| s == state).unwrap_or_default() as u64;
                tagged(id << STATE_BITS | place, TAG_HANDOFF)
            }
            Node::File { id: FileId(id), aliased: false } => tagged(*id, TAG_FILE),
            Node::File { id: FileId(id), aliased: true } => tagged(*id, TAG_ALIASED_FILE),
        }
    }

    /// The node of a number that was given out.
    pub(super) fn node(&self, number: u64) -> Option<Node> {
        let id = number >> TAG_BITS;
        let index = usize::try_from(id).ok()?;
        match number & ((1 << TAG_BITS) - 1) {
            TAG_LETTER => Some(Node::Letter(LetterNode(id))),
            TAG_DIR if id >= MAILBOXES => {
                let index = index - MAILBOXES as usize;
                let to = self.mailboxes.name(index >> 1)?;
                Some(Node::Mailbox { to, aliased: index & 1 == 1 })
            }
            TAG_DIR => {
                let aliased = id >= ALIASED_DIR;
                let index = if aliased { index - ALIASED_DIR as usize } else { index };
                Dir::ALL.get(index).map(|dir| Node::Dir { dir: *dir, aliased })
            }
            TAG_VIEW => {
                let view = self.views.name(index >> 1)?;
                Some(Node::View { view, aliased: index & 1 == 1 })
            }
            TAG_LOG => self.logs.name(index).map(Node::Log),
            TAG_HANDOFF => {
                let state = State::ALL[index & ((1 << STATE_BITS) - 1)];
                Some(Node::Handoff { node: HandoffNode(id >> STATE_BITS), state })
            }
            TAG_FILE => Some(Node::File { id: FileId(id), aliased: false }),
            TAG_ALIASED_FILE => Some(Node::File { id: FileId(id), aliased: true }),
            _ => None,
        }
    }

    /// Counts the reference that a lookup, create, mkdir, symlink or link in the directory `dir` gave the kernel, and
    /// notes that a name there may be kept from now on. `volatile`: it may not.
    pub(super) fn count(&self, id: FileId, dir: FileId, volatile: bool) -> Counted {
        let mut references = self.references.lock();
        let mut closing = false;
        if !volatile && let Some(dir) = references.get_mut(&dir) {
            closing = dir.closing > 0;
            if !closing {
                dir.kept = Some(Instant::now());
            }
        }
        if self.roots.contains(&id) {
            return Counted { arrival: None, closing };
        }
        let held = references.entry(id).or_default();
        held.count += 1;
        held.volatile = volatile;
        if held.count == 1 {
            held.arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        }
        Counted { arrival: (held.count == 1).then_some(held.arrival), closing }
    }

    /// Before somebody loses the right to look up names in a directory: from now on none there is kept, and this is
    /// when the last was. [`Inodes::closed`] must follow once the right is gone. Whoever counts a name then finds the
    /// directory closed when it looks at its mode, because it does so afterwards.
    pub(super) fn close(&self, dir: FileId) -> Option<Instant> {
        let mut references = self.references.lock();
        let held = references.get_mut(&dir)?;
        held.closing += 1;
        held.kept
    }

    /// Undoes [`Inodes::close`].
    pub(super) fn closed(&self, dir: FileId) {
        if let Some(held) = self.references.lock().get_mut(&dir) {
            held.closing = held.closing.saturating_sub(1);
        }
    }

    /// A name has gone from one directory to another. The kernel keeps it there for as long as it was to keep it here.
    pub(super) fn moved(&self, from: FileId, to: FileId) {
        let mut references = self.references.lock();
        let kept = references.get(&from).and_then(|held| held.kept);
        if let Some(held) = references.get_mut(&to) {
            held.kept = held.kept.max(kept);
        }
    }

    /// How many files the kernel knows, the roots among them.
    pub(super) fn known(&self) -> usize {
        self.references.lock().len()
    }

    /// Whether the kernel has known a file ever since this arrival.
    pub(super) fn knows_since(&self, id: FileId, arrival: u64) -> bool {
        self.references.lock().get(&id).is_some_and(|held| held.arrival == arrival)
    }

    /// Whether an ordinary file was last found in a directory whose names the kernel may not keep.
    pub(super) fn is_volatile(&self, id: FileId) -> bool {
        self.references.lock().get(&id).is_some_and(|held| held.volatile)
    }

    /// The references that the kernel gives back: which file, how many.
    pub(super) fn forget(&self, number: u64, count: u64) -> Option<(FileId, u64)> {
        let Some(Node::File { id, .. }) = self.node(number) else { return None };
        if self.roots.contains(&id) {
            return None;
        }
        let mut references = self.references.lock();
        let held = references.get_mut(&id)?;
        let count = count.min(held.count);
        held.count -= count;
        if held.count == 0 {
            references.remove(&id);
        }
        Some((id, count))
    }

    /// All references that are still out, when the mount ends.
    pub(super) fn forget_all(&self) -> Vec<(FileId, u64)> {
        let drained = std::mem::take(&mut *self.references.lock());
        drained.into_iter().map(|(id, held)| (id, held.count)).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::tree::TOP;
    use crate::wire::name::AgentName;

    fn every_kind_of_node() -> Vec<Node> {
        let bob = AgentName::parse("bob").unwrap();
        let alice = AgentName::parse("alice").unwrap();
        let mut nodes = vec![
            Node::Log(LogName::Decisions),
            Node::Log(LogName::Inbox(bob.clone())),
            Node::Log(LogName::Bilateral { from: alice, to: bob }),
            Node::File { id: FileId(0), aliased: false },
            Node::File { id: FileId(0), aliased: true },
            Node::File { id: FileId(9), aliased: false },
        ];
        nodes.extend([1, 2].map(|id| Node::Letter(LetterNode(id))));
        for id in [0, 7] {
            nodes.extend(State::ALL.map(|state| Node::Handoff { node: HandoffNode(id), state }));
        }
        nodes.push(Node::View { view: View::file("trust.json"), aliased: false });
        for aliased in [false, true] {
            nodes.extend(Dir::ALL.map(|dir| Node::Dir { dir, aliased }));
            nodes.push(Node::View { view: View::dir("status"), aliased });
            for to in ["alice", "bob"] {
                nodes.push(Node::Mailbox { to: AgentName::parse(to).unwrap(), aliased });
            }
        }
        nodes
    }

    #[test]
    fn a_number_gives_its_node_back_and_no_two_nodes_share_one() {
        let inodes = Inodes::new([FileId(0), FileId(2)]);
        let nodes = every_kind_of_node();
        let numbers: Vec<u64> = nodes.iter().map(|node| inodes.number(node)).collect();
        for (node, number) in nodes.iter().zip(&numbers) {
            assert_eq!(inodes.node(*number).as_ref(), Some(node));
        }
        let distinct: std::collections::HashSet<&u64> = numbers.iter().collect();
        assert_eq!(distinct.len(), nodes.len());
    }

    #[test]
    fn the_top_is_number_one() {
        assert_eq!(Inodes::new([FileId(0), FileId(2)]).number(&TOP), 1);
        let pending = Node::Dir { dir: Dir::State(State::Pending), aliased: true };
        assert_ne!(Inodes::new([FileId(0), FileId(2)]).number(&pending), 1);
    }

    #[test]
    fn references_are_given_back_once_each_and_the_rest_at_the_end() {
        let inodes = Inodes::new([FileId(0), FileId(2)]);
        let file = Node::File { id: FileId(3), aliased: false };
        for id in [3, 3, 3, 4, 0] {
            inodes.count(FileId(id), FileId(0), false);
        }
        assert_eq!(inodes.forget(inodes.number(&file), 2), Some((FileId(3), 2)));
        assert_eq!(inodes.forget(inodes.number(&file), 9), Some((FileId(3), 1)));
        assert_eq!(inodes.forget(inodes.number(&file), 1), None);
        assert_eq!(inodes.forget_all(), vec![(FileId(4), 1)]);
    }

    #[test]
    fn no_name_is_kept_in_a_directory_that_is_being_closed() {
        let inodes = Inodes::new([FileId(0), FileId(2)]);
        let (dir, file) = (FileId(4), FileId(6));
        assert!(inodes.close(dir).is_none(), "nobody has looked there");
        inodes.count(dir, FileId(0), false);
        inodes.count(file, dir, true);
        assert_eq!(inodes.close(dir), None, "a name that may not be kept");
        assert!(inodes.count(file, dir, false).closing);
        inodes.closed(dir);
        assert!(!inodes.count(file, dir, false).closing);
        assert!(inodes.close(dir).is_some());
    }

    #[test]
    fn a_name_that_moves_is_kept_where_it_goes() {
        let inodes = Inodes::new([FileId(0), FileId(2)]);
        let (old, new) = (FileId(0), FileId(4));
        inodes.count(new, FileId(0), false);
        inodes.count(FileId(6), old, false);
        let kept = inodes.close(old);
        assert!(kept.is_some(), "in a root too");
        inodes.closed(old);
        inodes.moved(new, old);
        assert_eq!(inodes.close(old), kept, "nothing was kept there");
        inodes.closed(old);
        inodes.moved(old, new);
        assert_eq!(inodes.close(new), kept);
        assert_eq!(inodes.forget(inodes.number(&Node::File { id: old, aliased: false }), 1), None);
        assert_eq!(inodes.forget_all().len(), 2, "roots are never given back");
    }
}
