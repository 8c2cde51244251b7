//! The handoff state machine: handoff/ -> claimed/ -> archive/, or rejected/.

use super::{Attr, Caller, Exchange, Outcome};
use std::fs::File;
use std::sync::Arc;

/// One of the four directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// `handoff/`: published, waiting for a claim.
    Pending,
    /// `claimed/`
    Claimed,
    /// `archive/`: completed.
    Archived,
    /// `rejected/`: rejected, withdrawn or expired.
    Rejected,
}

impl State {
    /// All four.
    pub const ALL: [State; 4] = [State::Pending, State::Claimed, State::Archived, State::Rejected];
    /// The directory's name.
    pub fn dir(self) -> &'static str {
        match self {
            State::Pending => "handoff",
            State::Claimed => "claimed",
            State::Archived => "archive",
            State::Rejected => "rejected",
        }
    }
}

/// One file in the four directories (a handoff, a draft of one, or a reason file), for as long as
/// the exchange is open. The same through draft, publication and every move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandoffNode(pub u64);

/// An open draft.
pub struct DraftWriter {
    _todo: (),
}

impl DraftWriter {
    /// One write(2). Through a final name (`handoff/x.json`), the write that completes the object
    /// verifies and publishes it.
    ///
    /// # Errors
    /// The broken rule, `replay` where the name or the handoff exists, `immutable` after publication.
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let _ = (caller, offset, append, data);
        todo!()
    }
    /// Bytes of the draft, for a descriptor that reads too.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let _ = (offset, size);
        todo!()
    }
    /// One close(2): tells the opener of a final name that what it wrote is incomplete.
    ///
    /// # Errors
    /// `partial`.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let _ = caller;
        todo!()
    }
    /// The last close. An unpublished draft under a final name goes to quarantine as `partial`.
    pub fn release(&self) {
        todo!()
    }
}

impl Exchange {
    /// What `caller` sees in a directory: published files, and its own drafts.
    pub fn list_handoffs(&self, caller: &Caller, state: State) -> Vec<(String, HandoffNode)> {
        let _ = (caller, state);
        todo!()
    }
    /// One name in a directory, as `caller` sees it.
    pub fn find_handoff(&self, caller: &Caller, state: State, name: &str) -> Option<HandoffNode> {
        let _ = (caller, state, name);
        todo!()
    }
    /// What stat() shows; `None` when the node is gone (a discarded draft).
    pub fn handoff_attr(&self, node: HandoffNode) -> Option<Attr> {
        let _ = node;
        todo!()
    }
    /// The attributes of one of the four directories.
    pub fn handoff_dir_attr(&self, state: State) -> Attr {
        let _ = state;
        todo!()
    }
    /// Opens a published handoff for reading.
    ///
    /// # Errors
    /// ENOENT; EACCES where the modes don't let a stranger read.
    pub fn open_handoff(&self, caller: &Caller, node: HandoffNode) -> Outcome<Arc<File>> {
        let _ = (caller, node);
        todo!()
    }
    /// Opens a draft (own ones only), or refuses to open a published handoff, for writing.
    ///
    /// # Errors
    /// `immutable`.
    pub fn open_draft(&self, caller: &Caller, node: HandoffNode, flags: i32) -> Outcome<DraftWriter> {
        let _ = (caller, node, flags);
        todo!()
    }
    /// create(2) in one of the four directories: a draft in handoff/, under a final or temporary name.
    ///
    /// # Errors
    /// `transition` in another directory or under a name that is neither `*.json` nor hidden,
    /// `authority` for strangers, `rate` beyond 1,000 drafts.
    pub fn create_draft(
        &self,
        caller: &Caller,
        state: State,
        name: &str,
        flags: i32,
    ) -> Outcome<(HandoffNode, DraftWriter)> {
        let _ = (caller, state, name, flags);
        todo!()
    }
    /// truncate(2) of a draft.
    ///
    /// # Errors
    /// `immutable` for a published handoff.
    pub fn truncate_draft(&self, caller: &Caller, node: HandoffNode, size: u64) -> Outcome<()> {
        let _ = (caller, node, size);
        todo!()
    }
    /// rename(2) between or within the four directories: publishes a draft, claims, completes, rejects.
    ///
    /// # Errors
    /// ENOENT when `from` is not there (the claim was lost), `replay` when `to` exists, `transition`,
    /// `authority`, `expired`, and the rules of the payload.
    pub fn move_handoff(&self, caller: &Caller, from: (State, &str), to: (State, &str)) -> Outcome<()> {
        let _ = (caller, from, to);
        todo!()
    }
    /// unlink(2): withdraws a pending handoff, discards an own draft.
    ///
    /// # Errors
    /// `authority` or `immutable` for anything else.
    pub fn unlink_handoff(&self, caller: &Caller, state: State, name: &str) -> Outcome<()> {
        let _ = (caller, state, name);
        todo!()
    }
    /// Refuses an operation that no handoff allows (`link`, `chmod`, `setxattr`, ...), as `immutable`.
    pub fn refuse_handoff_operation(
        &self,
        caller: &Caller,
        node: HandoffNode,
        operation: &'static str,
    ) -> super::Denied {
        let _ = (caller, node, operation);
        todo!()
    }
}
