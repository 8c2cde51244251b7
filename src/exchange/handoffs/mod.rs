//! The handoff state machine: handoff/ -> claimed/ -> archive/, or rejected/.
//!
//! `moves` decides and makes each move, `book` remembers what is where, `writer` takes what is being
//! written until it is published.

mod book;
mod moves;
mod writer;

pub(super) use book::Handoffs;
pub use writer::DraftWriter;

use super::drafts::Draft;
use super::{Attempt, Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::rules::handoff::refuse_operation;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

pub use crate::rules::handoff::State;

/// One file in the four directories (a handoff, a draft of one, or a reason file), for as long as
/// the exchange is open. The same through draft, publication and every move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandoffNode(pub u64);

impl Exchange {
    /// What `caller` sees in a directory: published files, and its own drafts.
    pub fn list_handoffs(&self, caller: &Caller, state: State) -> Vec<(String, HandoffNode)> {
        let actor = self.actor(caller);
        let book = self.handoffs().book.lock();
        let mut names: BTreeMap<&str, HandoffNode> =
            book.names[state as usize].iter().map(|(name, node)| (name.as_str(), *node)).collect();
        if state == State::Pending {
            for (name, node) in book.drafts.visible(&actor, caller, state.dir()) {
                names.entry(name).or_insert(node);
            }
        }
        names.into_iter().map(|(name, node)| (name.to_owned(), node)).collect()
    }

    /// One name in a directory, as `caller` sees it.
    pub fn find_handoff(&self, caller: &Caller, state: State, name: &str) -> Option<HandoffNode> {
        let actor = self.actor(caller);
        let book = self.handoffs().book.lock();
        book.names[state as usize].get(name).copied().or_else(|| {
            (state == State::Pending).then(|| book.drafts.find(&actor, caller, (state.dir(), name))).flatten()
        })
    }

    /// What stat() shows; `None` when the node is gone (a discarded draft).
    pub fn handoff_attr(&self, node: HandoffNode) -> Option<Attr> {
        let book = self.handoffs().book.lock();
        if let Some(published) = book.published.get(&node) {
            let stat = self.store.stat(&published.path()).ok()?;
            let uid = match &published.about {
                Some(about) => self.agent_uid(&about.parties.from),
                None => self.owner_uid,
            };
            return Some(Attr { mode: stat.mode & 0o444, uid, ..Attr::of(NodeKind::File, stat) });
        }
        book.drafts.get(node).map(Draft::attr)
    }

    /// The attributes of one of the four directories: like /tmp, everybody's, with names that only
    /// their owners can move.
    pub fn handoff_dir_attr(&self, state: State) -> Attr {
        Attr { mode: 0o1777, ..self.dir_attr(state.dir()) }
    }

    /// Opens a published handoff for reading.
    ///
    /// # Errors
    /// ENOENT; EACCES where the modes don't let a stranger read.
    pub fn open_handoff(&self, caller: &Caller, node: HandoffNode) -> Outcome<Arc<File>> {
        let attr = self.handoff_attr(node).ok_or_else(|| Denied::os(libc::ENOENT))?;
        self.check_readable(caller, &attr)?;
        let book = self.handoffs().book.lock();
        let published = book.published.get(&node).ok_or_else(|| Denied::os(libc::ENOENT))?;
        Ok(Arc::new(self.store.open(&published.path())?))
    }

    /// Refuses an operation that no handoff allows (`link`, `chmod`, `setxattr`, ...), as `immutable`.
    pub fn refuse_handoff_operation(
        &self,
        caller: &Caller,
        node: HandoffNode,
        operation: &'static str,
    ) -> Denied {
        let path = self.handoff_path(node);
        let refusal = refuse_operation(&path, operation);
        self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal)
    }

    /// A node's path in the tree, for refusals.
    pub fn handoff_path(&self, node: HandoffNode) -> String {
        let book = self.handoffs().book.lock();
        match (book.published.get(&node), book.drafts.get(node)) {
            (Some(published), _) => published.path(),
            (None, Some(draft)) => draft.path(),
            (None, None) => "handoff/".into(),
        }
    }
}
