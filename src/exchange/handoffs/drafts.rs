//! The drafts: who writes what under which name, and how much one actor may hold.

use super::HandoffNode;
use crate::exchange::{Actor, Caller, process_of};
use crate::rules::{Refusal, Rule};
use std::cell::LazyCell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Longest handoff, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Most drafts of one actor at a time.
const MAX_DRAFTS: usize = 1000;
/// Most bytes that the drafts of one actor may have together: they are held in memory.
const MAX_DRAFT_BYTES: usize = 64 * 1024 * 1024;
/// After this long without a write and without a writer, a draft is given up.
const STALE: Duration = Duration::from_secs(3600);

/// The drafts of one exchange.
#[derive(Default)]
pub(super) struct Drafts {
    all: HashMap<HandoffNode, Draft>,
}

/// One file being written.
pub(super) struct Draft {
    pub name: String,
    pub by: Actor,
    pub creator: Caller,
    pub process: u32,
    pub bytes: Vec<u8>,
    pub writers: u32,
    pub changed: SystemTime,
    pub unlinked: bool,
}

impl Drafts {
    /// Starts an empty draft with one writer.
    pub fn add(&mut self, node: HandoffNode, actor: &Actor, caller: &Caller, name: &str) {
        self.all.insert(
            node,
            Draft {
                name: name.to_owned(),
                by: actor.clone(),
                creator: caller.clone(),
                process: process_of(caller.pid),
                bytes: Vec::new(),
                writers: 1,
                changed: SystemTime::now(),
                unlinked: false,
            },
        );
    }

    pub fn get(&self, node: HandoffNode) -> Option<&Draft> {
        self.all.get(&node)
    }

    pub fn get_mut(&mut self, node: HandoffNode) -> Option<&mut Draft> {
        self.all.get_mut(&node)
    }

    pub fn remove(&mut self, node: HandoffNode) -> Option<Draft> {
        self.all.remove(&node)
    }

    /// Takes out what has had no writer for too long.
    pub fn take_stale(&mut self, now: SystemTime) -> Vec<Draft> {
        let is_stale =
            |d: &Draft| d.writers == 0 && now.duration_since(d.changed).is_ok_and(|age| age > STALE);
        self.all.extract_if(|_, draft| is_stale(draft)).map(|(_, draft)| draft).collect()
    }

    /// Rule `rate`, where an actor is to have one more draft.
    pub fn check_count(&self, actor: &Actor) -> Result<(), Refusal> {
        if self.all.values().filter(|d| d.by == *actor).count() < MAX_DRAFTS {
            return Ok(());
        }
        let advice = format!("You have {MAX_DRAFTS} unfinished files in handoff/. Publish or delete some.");
        Err(Refusal::new(Rule::Rate, advice))
    }

    pub fn rename(&mut self, node: HandoffNode, name: &str) {
        let replaced = self.all.get(&node).map(|d| d.by.clone());
        let other =
            self.all.iter().find(|(n, d)| **n != node && d.name == name && Some(&d.by) == replaced.as_ref());
        if let Some(other) = other.map(|(n, _)| *n) {
            self.unlink(other);
        }
        if let Some(draft) = self.all.get_mut(&node) {
            draft.name = name.to_owned();
        }
    }

    /// Rules `size` and `rate`, where a draft is to have `len` bytes.
    pub fn check_room(&self, draft: &Draft, len: usize) -> Result<(), Refusal> {
        if len > MAX_BYTES {
            return Err(too_long());
        }
        let held = || self.all.values().filter(|d| d.by == draft.by).map(|d| d.bytes.len()).sum::<usize>();
        if len > draft.bytes.len() && held() - draft.bytes.len() + len > MAX_DRAFT_BYTES {
            let advice = format!(
                "Your unfinished files in handoff/ would have more than {MAX_DRAFT_BYTES} bytes together. Publish \
                 or delete some."
            );
            return Err(Refusal::new(Rule::Rate, advice));
        }
        Ok(())
    }

    /// Takes the name away; the bytes stay for whoever has it open.
    pub fn unlink(&mut self, node: HandoffNode) {
        if let Some(draft) = self.all.get_mut(&node) {
            draft.unlinked = true;
            if draft.writers == 0 {
                self.all.remove(&node);
            }
        }
    }

    /// The drafts that a caller sees: its own process's, and finished ones of the same actor.
    pub fn visible<'a>(
        &'a self,
        actor: &'a Actor,
        caller: &'a Caller,
    ) -> impl Iterator<Item = (&'a str, HandoffNode)> {
        let process = LazyCell::new(|| process_of(caller.pid));
        self.all
            .iter()
            .filter(move |(_, d)| d.is_seen_by(actor, &process))
            .map(|(node, d)| (d.name.as_str(), *node))
    }

    /// The draft that a name means to a caller: its own thread's, its own process's, or the newest.
    pub fn find(&self, actor: &Actor, caller: &Caller, name: &str) -> Option<HandoffNode> {
        let process = LazyCell::new(|| process_of(caller.pid));
        self.all
            .iter()
            .filter(|(_, d)| d.name == name && d.is_seen_by(actor, &process))
            .max_by_key(|(node, d)| (d.creator.pid == caller.pid, d.process == *process, **node))
            .map(|(node, _)| *node)
    }
}

impl Draft {
    /// `process`: the caller's. It costs a look at /proc, so it is looked up where it matters only.
    fn is_seen_by<F: FnOnce() -> u32>(&self, actor: &Actor, process: &LazyCell<u32, F>) -> bool {
        !self.unlinked && self.by == *actor && (self.writers == 0 || self.process == **process)
    }
}

fn too_long() -> Refusal {
    Refusal::new(
        Rule::Size,
        format!("A handoff may have {MAX_BYTES} bytes. Shorten the transcript, or refer to a file."),
    )
}
