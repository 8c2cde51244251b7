//! Files that are being written and are nothing yet: in memory, seen by their writer only, until they are published
//! or sent. Who writes what under which name, and how much one actor may hold.
//!
//! Two processes that write one name at once each have a draft of their own, so neither loses bytes to the other.

use super::process::{is_alive, process_of};
use super::{Actor, Attempt, Attr, Caller, Exchange, NodeKind};
use crate::rules::{Refusal, Rule};
use crate::wire::time::Timestamp;
use std::cell::LazyCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, SystemTime};

/// Most drafts of one actor at a time.
const MAX_DRAFTS: usize = 1000;
/// Most bytes that the drafts of one actor may have together: they are held in memory.
const MAX_DRAFT_BYTES: usize = 64 * 1024 * 1024;
/// After this long without a write and without a writer, a draft is given up.
const STALE: Duration = Duration::from_secs(3600);

/// Drafts by their nodes. `M`: what their place knows of each besides.
pub(super) struct Drafts<N, M = ()> {
    all: HashMap<N, Draft<M>>,
}

/// One file being written.
pub(super) struct Draft<M = ()> {
    /// The folder's path in the tree: `handoff`, `send/alice`.
    pub folder: String,
    pub name: String,
    pub by: Actor,
    pub creator: Caller,
    pub process: u32,
    pub bytes: Vec<u8>,
    /// Open files that may write to it.
    pub writers: u32,
    pub changed: SystemTime,
    pub unlinked: bool,
    pub more: M,
}

impl<N, M> Default for Drafts<N, M> {
    fn default() -> Self {
        Drafts { all: HashMap::new() }
    }
}

impl<N: Copy + Eq + Hash + Ord, M: Default> Drafts<N, M> {
    /// Starts an empty draft with one writer.
    ///
    /// # Errors
    /// `rate` beyond 1,000 drafts of one actor.
    pub fn add(
        &mut self,
        node: N,
        actor: &Actor,
        caller: &Caller,
        (folder, name): (&str, &str),
    ) -> Result<(), Refusal> {
        if self.all.values().filter(|d| d.by == *actor).count() >= MAX_DRAFTS {
            let advice =
                format!("You have {MAX_DRAFTS} unfinished files, as in {folder}/. Finish or delete some.");
            return Err(Refusal::new(Rule::Rate, advice));
        }
        let draft = Draft {
            folder: folder.to_owned(),
            name: name.to_owned(),
            by: actor.clone(),
            creator: caller.clone(),
            process: process_of(caller.pid),
            bytes: Vec::new(),
            writers: 1,
            changed: SystemTime::now(),
            unlinked: false,
            more: M::default(),
        };
        self.all.insert(node, draft);
        Ok(())
    }

    pub fn get(&self, node: N) -> Option<&Draft<M>> {
        self.all.get(&node)
    }

    pub fn get_mut(&mut self, node: N) -> Option<&mut Draft<M>> {
        self.all.get_mut(&node)
    }

    pub fn remove(&mut self, node: N) -> Option<Draft<M>> {
        self.all.remove(&node)
    }

    /// Opens a draft of `actor` for one more writer, as open(2) with `flags` does; `own` is the node for it where
    /// O_TRUNC would take the bytes from another process that is still writing. `None`: there is no such draft.
    ///
    /// # Errors
    /// As [`Drafts::add`].
    pub fn open(
        &mut self,
        node: N,
        own: N,
        actor: &Actor,
        caller: &Caller,
        flags: i32,
    ) -> Result<Option<N>, Refusal> {
        let process = process_of(caller.pid);
        let Some(draft) = self.all.get_mut(&node).filter(|draft| draft.by == *actor) else { return Ok(None) };
        let truncate = flags & libc::O_TRUNC != 0;
        if truncate && draft.writers > 0 && draft.process != process && is_alive(draft.process) {
            let (folder, name) = (draft.folder.clone(), draft.name.clone());
            self.add(own, actor, caller, (&folder, &name))?;
            return Ok(Some(own));
        }
        draft.writers += 1;
        if truncate {
            draft.bytes.clear();
            draft.changed = SystemTime::now();
        }
        Ok(Some(node))
    }

    /// Takes out what has had no writer for too long.
    pub fn take_stale(&mut self, now: Timestamp) -> Vec<Draft<M>> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(now.0).unwrap_or(0));
        let is_stale = |draft: &Draft<M>| {
            draft.writers == 0 && now.duration_since(draft.changed).is_ok_and(|age| age > STALE)
        };
        self.all.extract_if(|_, draft| is_stale(draft)).map(|(_, draft)| draft).collect()
    }

    /// Gives a draft another name; its writer's other draft of that name loses it.
    pub fn rename(&mut self, node: N, (folder, name): (&str, &str)) {
        let by = self.all.get(&node).map(|draft| draft.by.clone());
        let has_name = |draft: &Draft<M>| draft.is_at(folder, name) && Some(&draft.by) == by.as_ref();
        let replaced = self.all.iter().find(|(n, draft)| **n != node && has_name(draft)).map(|(n, _)| *n);
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        if let Some(draft) = self.all.get_mut(&node) {
            draft.folder = folder.to_owned();
            draft.name = name.to_owned();
        }
    }

    /// Takes the name away; the bytes stay for whoever has it open.
    pub fn unlink(&mut self, node: N) {
        if let Some(draft) = self.all.get_mut(&node) {
            draft.unlinked = true;
            if draft.writers == 0 {
                self.all.remove(&node);
            }
        }
    }

    /// Rule `rate`, where a draft is to have `len` bytes.
    pub fn check_room(&self, draft: &Draft<M>, len: usize) -> Result<(), Refusal> {
        let held = || self.all.values().filter(|d| d.by == draft.by).map(|d| d.bytes.len()).sum::<usize>();
        if len > draft.bytes.len() && held() - draft.bytes.len() + len > MAX_DRAFT_BYTES {
            let advice = format!(
                "Your unfinished files, as in {}/, would have more than {MAX_DRAFT_BYTES} bytes together. Finish or \
                 delete some.",
                draft.folder
            );
            return Err(Refusal::new(Rule::Rate, advice));
        }
        Ok(())
    }

    /// The drafts in a folder that a caller sees: its own process's, and finished ones of the same actor.
    pub fn visible<'a>(
        &'a self,
        actor: &'a Actor,
        caller: &'a Caller,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a str, N)> {
        let process = LazyCell::new(|| process_of(caller.pid));
        self.all
            .iter()
            .filter(move |(_, draft)| draft.folder == folder && draft.is_seen_by(actor, &process))
            .map(|(node, draft)| (draft.name.as_str(), *node))
    }

    /// The draft that a name means to a caller: its own thread's, its own process's, or the newest.
    pub fn find(&self, actor: &Actor, caller: &Caller, (folder, name): (&str, &str)) -> Option<N> {
        let process = LazyCell::new(|| process_of(caller.pid));
        self.all
            .iter()
            .filter(|(_, draft)| draft.is_at(folder, name) && draft.is_seen_by(actor, &process))
            .max_by_key(|(node, draft)| (draft.creator.pid == caller.pid, draft.process == *process, **node))
            .map(|(node, _)| *node)
    }
}

impl<M> Draft<M> {
    /// Its path in the tree.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder, self.name)
    }

    fn is_at(&self, folder: &str, name: &str) -> bool {
        self.name == name && self.folder == folder
    }

    /// `process`: the caller's. It costs a look at /proc, so it is looked up where it matters only.
    fn is_seen_by<F: FnOnce() -> u32>(&self, actor: &Actor, process: &LazyCell<u32, F>) -> bool {
        !self.unlinked && self.by == *actor && (self.writers == 0 || self.process == **process)
    }

    /// What stat() shows.
    pub fn attr(&self) -> Attr {
        let size = self.bytes.len() as u64;
        Attr {
            size,
            mode: 0o600,
            uid: self.creator.uid,
            gid: self.creator.gid,
            ..Attr::empty(NodeKind::File, self.changed)
        }
    }

    /// Where a write of `len` bytes starts and ends.
    pub fn extent(&self, offset: u64, append: bool, len: usize) -> (usize, usize) {
        let start = if append { self.bytes.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        (start, start.saturating_add(len))
    }

    /// Writes; zeros fill what was skipped.
    pub fn put(&mut self, start: usize, data: &[u8]) {
        let end = start + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(data);
        self.changed = SystemTime::now();
    }

    /// Cuts, or fills with zeros.
    pub fn truncate(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        self.changed = SystemTime::now();
    }

    /// Up to `size` bytes from `offset`.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(size).min(self.bytes.len());
        self.bytes[start..end].to_vec()
    }
}

impl Exchange {
    /// Gives up a draft that nobody finished; its bytes go to quarantine. `then`: what to do instead.
    pub(super) fn give_up_draft<M>(&self, draft: &Draft<M>, then: &str) {
        let path = draft.path();
        let attempt = Attempt { operation: "expire", path: &path, bytes: &draft.bytes };
        let advice = format!("{path} was left unfinished for an hour. {then}");
        let _ = self.refuse(&draft.creator, attempt, Refusal::new(Rule::Partial, advice));
    }
}
