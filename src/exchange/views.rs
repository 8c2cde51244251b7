//! Read-only files and directories that the exchange makes, by their path in the tree: the texts for agents, events,
//! refusals, trust.
//!
//! [`Exchange::list_views`] says what there is and [`Exchange::content`] what each file holds; nothing else knows them
//! by name, so that a new one is a line in each.

mod status;
mod texts;

pub(in crate::exchange) use status::{ProposalView, safe_mode_text};
use texts::Text;
pub use texts::general_skill;

use super::events::PATH as EVENTS;
use super::{Attempt, Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::rules::{Refusal, Rule, archive};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

const REFUSALS: &str = "refusals.jsonl";

/// A read-only file or directory, for as long as it exists: two with one path are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    path: Arc<str>,
    is_dir: bool,
}

impl View {
    /// The file at a path of the tree.
    pub(crate) fn file(path: &str) -> Self {
        View { path: path.into(), is_dir: false }
    }

    /// The directory at a path of the tree.
    pub(crate) fn dir(path: &str) -> Self {
        View { path: path.into(), is_dir: true }
    }

    /// Its path in the tree without `_coordination/`: `trust.json`, `status/peers/alice`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// File or directory.
    pub fn kind(&self) -> NodeKind {
        if self.is_dir { NodeKind::Directory } else { NodeKind::File }
    }
}

/// An open view.
pub enum ViewReader {
    /// Fixed for as long as it is open.
    Text(Arc<[u8]>),
    /// A file that may grow while it is read.
    Growing(Arc<File>),
}

/// Where the bytes of a view are.
pub(super) enum Content {
    /// Made for this reader at this moment.
    Text {
        /// All of it.
        text: String,
        /// When it last changed.
        changed: SystemTime,
    },
    /// A file that everybody may read, whatever its own mode.
    Open(Arc<File>),
    /// A file at the same path in the exchange's folder, with its own mode. It is only appended to or replaced whole.
    Stored,
}

impl Exchange {
    /// What is in a directory of the tree besides logs, handoffs and ordinary files, as `caller` sees it. `dir`: its path
    /// without `_coordination/`; the top's is empty.
    pub fn list_views(&self, caller: &Caller, dir: &str) -> Vec<View> {
        match dir {
            "" => {
                let texts = Text::ALL.map(|(name, _)| View::file(name));
                let files = [EVENTS, REFUSALS, "trust.json", "tiers.json"].map(View::file);
                let dirs = ["trust", status::DIR].map(View::dir);
                texts.into_iter().chain(files).chain(dirs).collect()
            }
            status::DIR | status::PEERS => self.list_status(caller, dir),
            archive::DIR => self.archive_views(dir),
            dir if dir.starts_with("archive/") => self.archive_views(dir),
            "trust" => self.stored_views(dir, |name| name.ends_with(".card.json")),
            _ => Vec::new(),
        }
    }

    /// The files in the exchange's own folder `dir` with a fitting name.
    fn stored_views(&self, dir: &str, fits: impl Fn(&str) -> bool) -> Vec<View> {
        let names = self.store.list(dir).unwrap_or_default().into_iter();
        let shown = names.filter(|name| !name.starts_with('.') && fits(name));
        shown.map(|name| View::file(&format!("{dir}/{name}"))).collect()
    }

    /// One name of [`Exchange::list_views`].
    pub fn find_view(&self, caller: &Caller, dir: &str, name: &str) -> Option<View> {
        self.list_views(caller, dir).into_iter().find(|view| view.name() == name)
    }

    /// Where a file's bytes are.
    ///
    /// # Errors
    /// ENOENT for what is not there (any more); the disk's.
    fn content(&self, caller: &Caller, view: &View) -> io::Result<Content> {
        if let Some((_, text)) = Text::ALL.into_iter().find(|(name, _)| *name == view.path()) {
            return Ok(Content::Text { text: self.text(caller, text), changed: self.started });
        }
        let made_now = |text| Content::Text { text, changed: SystemTime::now() };
        match view.path() {
            "tiers.json" => Ok(made_now(self.tiers())),
            REFUSALS => Ok(Content::Open(self.refusals.view(&self.actor(caller))?)),
            path if path.starts_with("status/") => {
                let text = self.status_text(caller, path);
                Ok(made_now(text.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?))
            }
            _ => Ok(Content::Stored),
        }
    }

    /// tiers.json: the periods in force.
    fn tiers(&self) -> String {
        let cadence = self.conversation().presence.cadence();
        serde_json::to_string_pretty(&cadence).unwrap_or_default() + "\n"
    }

    /// What stat() shows `caller`: sizes may differ by caller.
    ///
    /// # Errors
    /// ENOENT for what is not there (any more); the disk's.
    pub fn view_attr(&self, caller: &Caller, view: &View) -> Outcome<Attr> {
        if view.is_dir {
            return Ok(Attr { mode: 0o555, ..self.dir_attr(view.path()) });
        }
        Ok(self.content_attr(view, &self.content(caller, view)?)?)
    }

    fn content_attr(&self, view: &View, content: &Content) -> io::Result<Attr> {
        let made = |size: u64, changed| Attr {
            size,
            blocks: size.div_ceil(512),
            uid: self.owner_uid,
            gid: self.owner_gid,
            ..Attr::empty(NodeKind::File, changed)
        };
        Ok(match content {
            Content::Text { text, changed } => made(text.len() as u64, *changed),
            Content::Open(file) => {
                let meta = file.metadata()?;
                made(meta.len(), meta.modified()?)
            }
            Content::Stored => {
                let stat = self.store.stat(view.path())?;
                Attr { mode: stat.mode & 0o444, ..Attr::of(NodeKind::File, stat) }
            }
        })
    }

    /// Opens for reading.
    ///
    /// # Errors
    /// `read-only` when `flags` ask for writing; EACCES by mode; EISDIR; ENOENT for what is not there (any more).
    pub fn open_view(&self, caller: &Caller, view: &View, flags: i32) -> Outcome<ViewReader> {
        if view.is_dir {
            return Err(Denied::os(libc::EISDIR));
        }
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(self.refuse_read_only(caller, view.path(), "open for writing"));
        }
        let content = self.content(caller, view)?;
        self.check_readable(caller, &self.content_attr(view, &content)?)?;
        Ok(match content {
            Content::Text { text, .. } => ViewReader::Text(text.into_bytes().into()),
            Content::Open(file) => ViewReader::Growing(file),
            Content::Stored => ViewReader::Growing(Arc::new(self.store.open(view.path())?)),
        })
    }

    /// Refuses an operation on a place in the tree where nothing can be made, changed or removed
    /// (views, the fixed directories, new names beside them), as `read-only`.
    pub fn refuse_read_only(&self, caller: &Caller, path: &str, operation: &'static str) -> Denied {
        let refusal = Refusal::new(Rule::ReadOnly, self.advise_read_only(caller, path));
        self.refuse(caller, Attempt { operation, path, bytes: &[] }, refusal)
    }

    fn advise_read_only(&self, caller: &Caller, path: &str) -> String {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.find_view(caller, dir, name).is_some() {
            return format!("{path} is kept by the exchange and can only be read.");
        }
        if dir == super::send::SEND || path == super::send::SEND {
            return format!(
                "In send/ there is one folder for each agent: {}. Write a file in one of them, send/<agent>/<name>.md, and \
                 its text is sent to that agent.",
                self.agent_names()
            );
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
