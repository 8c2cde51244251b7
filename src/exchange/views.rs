//! Read-only files that the exchange makes: events, refusals, trust, and the texts for agents.

use super::{Attempt, Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::rules::{Refusal, Rule};
use std::fs::File;
use std::sync::Arc;

const README: &str = include_str!("../../mount/tree/README.md");
const PROTOCOL: &str = include_str!("../../mount/tree/PROTOCOL.md");

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
            View::Events => super::events::PATH,
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
        let empty =
            Attr { uid: self.owner_uid, gid: self.owner_gid, ..Attr::empty(NodeKind::File, self.started) };
        let of_text = |text: &str| Attr { size: text.len() as u64, ..empty };
        let of_file = |path: &str| {
            let stat = self.store.stat(path).ok();
            stat.map_or(empty, |stat| Attr { mode: stat.mode & 0o444, ..Attr::of(NodeKind::File, stat) })
        };
        match view {
            View::Readme => of_text(README),
            View::Protocol => of_text(PROTOCOL),
            View::Events | View::Trust => of_file(view.name()),
            View::Refusals => {
                let file = self.refusals.view(&self.actor(caller)).and_then(|file| file.metadata());
                match file {
                    Ok(meta) => {
                        Attr { size: meta.len(), mtime: meta.modified().unwrap_or(self.started), ..empty }
                    }
                    Err(_) => empty,
                }
            }
        }
    }

    /// Opens for reading.
    ///
    /// # Errors
    /// `read-only` when `flags` ask for writing; EACCES by mode.
    pub fn open_view(&self, caller: &Caller, view: View, flags: i32) -> Outcome<ViewReader> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(self.refuse_read_only(caller, view.name(), "open for writing"));
        }
        self.check_readable(caller, &self.view_attr(caller, view))?;
        Ok(match view {
            View::Readme => ViewReader::Text(README.as_bytes().into()),
            View::Protocol => ViewReader::Text(PROTOCOL.as_bytes().into()),
            View::Trust => ViewReader::Text(self.store.read(view.name())?.into()),
            View::Events => ViewReader::Growing(self.events.bytes().file()),
            View::Refusals => ViewReader::Growing(self.refusals.view(&self.actor(caller))?),
        })
    }

    /// Refuses an operation on a place in the tree where nothing can be made, changed or removed
    /// (views, the fixed directories, new names beside them), as `read-only`.
    pub fn refuse_read_only(&self, caller: &Caller, path: &str, operation: &'static str) -> Denied {
        let refusal = Refusal::new(Rule::ReadOnly, self.advise_read_only(path));
        self.refuse(caller, Attempt { operation, path, bytes: &[] }, refusal)
    }

    fn advise_read_only(&self, path: &str) -> String {
        let is_view = View::ALL.iter().any(|view| view.name() == path);
        if is_view {
            return format!("{path} is kept by the exchange and can only be read.");
        }
        if path.ends_with(".jsonl") {
            return format!(
                "{path} is no log of this exchange. Its agents are {}; a log is inbox/<agent>.jsonl, \
                 <you>_to_<agent>.jsonl, decisions.jsonl or incident_log.jsonl.",
                self.agent_names()
            );
        }
        format!(
            "{path} can't be made, changed or removed here. Append messages to inbox/<agent>.jsonl, publish \
             handoffs in handoff/; README.md says more."
        )
    }

    /// The attributes of a fixed directory of the tree, by its path without `_coordination/` (`""`: the top).
    pub fn dir_attr(&self, path: &str) -> Attr {
        match self.store.stat(path) {
            Ok(stat) => Attr {
                mode: if path.is_empty() { 0o755 } else { stat.mode & 0o777 },
                ..Attr::of(NodeKind::Directory, stat)
            },
            Err(_) => Attr {
                mode: 0o755,
                uid: self.owner_uid,
                gid: self.owner_gid,
                ..Attr::empty(NodeKind::Directory, self.started)
            },
        }
    }
}
