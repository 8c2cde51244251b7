//! send/: one folder for each agent, for programs that can only write whole files. A file that is closed there under a
//! name that ends in `.md`, `.txt` or `.json` is sent to that agent, and is from then on the message that it became.
//!
//! On disk the sent files lie in `send/<recipient>/<sender>/`, so that two senders never meet in a name: in the mount each
//! agent sees its own, the operator everybody's. `writer` takes what is being written; `post` sends it.

mod post;
mod writer;

pub use writer::LetterWriter;

use super::drafts::{Draft, Drafts};
use super::{Actor, Attempt, Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::rules::{Refusal, Rule};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;

/// The folder's name in the tree, and under the exchange's folder.
pub const SEND: &str = "send";

/// One file below send/, for as long as the exchange is open: the same as a draft and once it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterNode(pub u64);

/// What is known of the files below send/.
#[derive(Default)]
pub(super) struct Letters {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    last: u64,
    drafts: Drafts<LetterNode, Progress>,
    sent: HashMap<LetterNode, Arc<Place>>,
    /// The nodes of the sent files that somebody has looked up.
    nodes: HashMap<Arc<Place>, LetterNode>,
}

/// What is known of a draft besides its bytes.
#[derive(Default)]
struct Progress {
    /// The thread that wrote last, and its process.
    written_by: (u32, u32),
    /// A signal ended a process that was writing it.
    cut_short: bool,
    /// It is on its way.
    sending: bool,
    /// It broke a rule: whoever still has it open is told so again.
    refused: Option<Refusal>,
}

/// Which file, of whom, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    to: AgentName,
    from: AgentName,
    name: String,
}

impl Place {
    /// The folder under the exchange's folder.
    fn folder(&self) -> String {
        folder_of(&self.to, &self.from)
    }
    /// The file under the exchange's folder.
    fn file(&self) -> String {
        format!("{}/{}", self.folder(), self.name)
    }
    /// The path in the tree, as its sender sees it.
    fn path(&self) -> String {
        format!("{}/{}", mailbox(&self.to), self.name)
    }
}

fn folder_of(to: &AgentName, from: &AgentName) -> String {
    format!("{SEND}/{to}/{from}")
}

fn mailbox(to: &AgentName) -> String {
    format!("{SEND}/{to}")
}

/// The operator sees the letters of all senders in one folder, each with its sender's handle and this before its name.
/// No handle holds it.
const OF: char = ':';

impl Book {
    fn new_node(&mut self) -> LetterNode {
        self.last += 1;
        LetterNode(self.last)
    }

    /// The node of a sent file.
    fn node_of(&mut self, place: Place) -> LetterNode {
        if let Some(node) = self.nodes.get(&place) {
            return *node;
        }
        let node = self.new_node();
        self.note_sent(node, place);
        node
    }

    fn note_sent(&mut self, node: LetterNode, place: Place) {
        let place = Arc::new(place);
        self.nodes.insert(Arc::clone(&place), node);
        self.sent.insert(node, place);
    }
}

impl Exchange {
    /// The agents that have a folder in send/.
    pub fn list_mailboxes(&self) -> Vec<AgentName> {
        self.config.agents.keys().cloned().collect()
    }

    /// The agent whose folder in send/ has this name.
    pub fn find_mailbox(&self, name: &str) -> Option<AgentName> {
        self.config.agents.keys().find(|agent| agent.as_str() == name).cloned()
    }

    /// The attributes of an agent's folder in send/: like /tmp, everybody's.
    pub fn mailbox_attr(&self, to: &AgentName) -> Attr {
        Attr { mode: 0o1777, ..self.dir_attr(&mailbox(to)) }
    }

    /// What `caller` sees in an agent's folder: its own letters and drafts; the operator, everybody's letters.
    pub fn list_letters(&self, caller: &Caller, to: &AgentName) -> Vec<(String, LetterNode)> {
        let actor = self.actor(caller);
        let mut on_disk = Vec::new();
        for from in self.config.agents.keys().filter(|from| sees(&actor, from)) {
            let names = self.store.list(&folder_of(to, from)).unwrap_or_default().into_iter();
            on_disk.extend(names.map(|name| Place { to: to.clone(), from: from.clone(), name }));
        }
        let mut book = self.letters.book.lock();
        let mut found = BTreeMap::new();
        for place in on_disk {
            let name = match actor {
                Actor::Operator => format!("{}{OF}{}", place.from, place.name),
                _ => place.name.clone(),
            };
            found.insert(name, book.node_of(place));
        }
        for (name, node) in book.drafts.visible(&actor, caller, &mailbox(to)) {
            found.entry(name.to_owned()).or_insert(node);
        }
        found.into_iter().collect()
    }

    /// One name in an agent's folder, as `caller` sees it.
    pub fn find_letter(&self, caller: &Caller, to: &AgentName, name: &str) -> Option<LetterNode> {
        let actor = self.actor(caller);
        let (from, own_name) = match &actor {
            Actor::Agent(me) => (me.clone(), name),
            Actor::Operator => {
                let (from, name) = name.split_once(OF)?;
                (self.find_mailbox(from)?, name)
            }
            Actor::Stranger(_) => return None,
        };
        if matches!(own_name, "" | "." | "..") {
            return None;
        }
        let place = Place { to: to.clone(), from, name: own_name.to_owned() };
        let mut book = self.letters.book.lock();
        if book.nodes.contains_key(&place) || self.store.stat(&place.file()).is_ok() {
            return Some(book.node_of(place));
        }
        book.drafts.find(&actor, caller, (&mailbox(to), name))
    }

    /// What stat() shows; `None` when the node is gone (a discarded draft).
    pub fn letter_attr(&self, node: LetterNode) -> Option<Attr> {
        let book = self.letters.book.lock();
        if let Some(place) = book.sent.get(&node) {
            let stat = self.store.stat(&place.file()).ok()?;
            let uid = self.agent_uid(&place.from);
            return Some(Attr { mode: 0o444, uid, ..Attr::of(NodeKind::File, stat) });
        }
        book.drafts.get(node).map(Draft::attr)
    }

    /// Opens a sent letter for reading.
    ///
    /// # Errors
    /// ENOENT for what is not sent; EACCES for whom it is not to be seen by.
    pub fn open_letter(&self, caller: &Caller, node: LetterNode) -> Outcome<Arc<File>> {
        let place = self.letters.book.lock().sent.get(&node).cloned();
        let place = place.ok_or_else(|| Denied::os(libc::ENOENT))?;
        if !sees(&self.actor(caller), &place.from) {
            return Err(Denied::os(libc::EACCES));
        }
        Ok(Arc::new(self.store.open(&place.file())?))
    }

    /// Whether a node is a draft, with which one may do what one likes.
    pub fn is_draft_letter(&self, node: LetterNode) -> bool {
        self.letters.book.lock().drafts.get(node).is_some()
    }

    /// Refuses an operation on a letter: `immutable` once it is sent, `read-only` for what no draft can do either.
    pub fn refuse_letter_operation(
        &self,
        caller: &Caller,
        node: LetterNode,
        operation: &'static str,
    ) -> Denied {
        let path = self.letter_path(node);
        let refusal = if self.is_draft_letter(node) {
            let advice =
                format!("{path} is a draft: rename it within send/, or write another ({operation} refused).");
            Refusal::new(Rule::ReadOnly, advice)
        } else {
            has_been_sent(&path, operation)
        };
        self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal)
    }

    /// A node's path in the tree, as its sender sees it.
    pub fn letter_path(&self, node: LetterNode) -> String {
        let book = self.letters.book.lock();
        match (book.sent.get(&node), book.drafts.get(node)) {
            (Some(place), _) => place.path(),
            (None, Some(draft)) => draft.path(),
            (None, None) => format!("{SEND}/"),
        }
    }

    /// unlink(2) of a draft.
    ///
    /// # Errors
    /// ENOENT; `immutable` for what has been sent.
    pub fn unlink_letter(&self, caller: &Caller, to: &AgentName, name: &str) -> Outcome<()> {
        let node = self.find_letter(caller, to, name).ok_or_else(|| Denied::os(libc::ENOENT))?;
        {
            let mut book = self.letters.book.lock();
            if book.drafts.get(node).is_some() {
                book.drafts.unlink(node);
                return Ok(());
            }
        }
        Err(self.refuse_letter_operation(caller, node, "unlink"))
    }

    /// Gives up drafts that nobody finished; their bytes go to quarantine.
    pub(super) fn drop_stale_letter_drafts(&self, now: Timestamp) {
        let stale = self.letters.book.lock().drafts.take_stale(now);
        for draft in stale.iter().filter(|draft| !draft.bytes.is_empty()) {
            self.give_up_draft(draft, "Write it again, under a name that ends in .md, .txt or .json.");
        }
    }
}

/// Whether an actor sees what `from` has sent.
fn sees(actor: &Actor, from: &AgentName) -> bool {
    match actor {
        Actor::Agent(me) => me == from,
        Actor::Operator => true,
        Actor::Stranger(_) => false,
    }
}

/// Rule `immutable`: a letter that has been sent.
fn has_been_sent(path: &str, operation: &str) -> Refusal {
    Refusal::new(
        Rule::Immutable,
        format!(
            "{path} has been sent and can't be changed or taken back ({operation} refused). Write a new file, under \
             another name; with `type: correction` in its front matter it corrects this one."
        ),
    )
}
