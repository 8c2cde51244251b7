//! Read-only files that the exchange makes: events, refusals, trust, and the texts for agents.

use super::{Attr, Caller, Denied, Exchange, Outcome};
use std::fs::File;
use std::sync::Arc;

/// A read-only file at the top of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// `README.md`
    Readme,
    /// `PROTOCOL.md`
    Protocol,
    /// `events.jsonl`
    Events,
    /// `refusals.jsonl`: the reader's own; the operator sees all.
    Refusals,
    /// `trust.json`
    Trust,
}

impl View {
    /// All of them.
    pub const ALL: [View; 5] = [View::Readme, View::Protocol, View::Events, View::Refusals, View::Trust];
    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            View::Readme => "README.md",
            View::Protocol => "PROTOCOL.md",
            View::Events => "events.jsonl",
            View::Refusals => "refusals.jsonl",
            View::Trust => "trust.json",
        }
    }
}

/// An open view.
pub enum ViewReader {
    /// Fixed for as long as it is open.
    Text(Arc<[u8]>),
    /// A file that may grow while it is read.
    Growing(Arc<File>),
}

impl Exchange {
    /// What stat() shows `caller`: sizes may differ by caller.
    pub fn view_attr(&self, caller: &Caller, view: View) -> Attr {
        let _ = (caller, view);
        todo!()
    }
    /// Opens for reading.
    ///
    /// # Errors
    /// `read-only` when `flags` ask for writing; EACCES by mode.
    pub fn open_view(&self, caller: &Caller, view: View, flags: i32) -> Outcome<ViewReader> {
        let _ = (caller, view, flags);
        todo!()
    }
    /// Refuses an operation on a place in the tree where nothing can be made, changed or removed
    /// (views, the fixed directories, new names beside them), as `read-only`.
    pub fn refuse_read_only(&self, caller: &Caller, path: &str, operation: &'static str) -> Denied {
        let _ = (caller, path, operation);
        todo!()
    }
    /// The attributes of a fixed directory of the tree, by its path without `_coordination/` (`""`: the top).
    pub fn dir_attr(&self, path: &str) -> Attr {
        let _ = path;
        todo!()
    }
}
