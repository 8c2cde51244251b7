//! The handoff state machine: handoff/ -> claimed/ -> archive/, or rejected/.
//!
//! A move is decided and made under one lock: the event first, then the rename, so that after a crash
//! the events say which rename to finish. The lock is the exchange's, so a claim has one winner across
//! any number of mounts.

use super::drafts::Drafts;
use super::events::{Event, members};
use super::replay::{ReplayIndex, ShortId, short};
use super::{Actor, Attempt, Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::rules::handoff::{
    Parties, REASON, Transition, check_move, check_name, check_publish, is_final_name, refuse_operation,
};
use crate::rules::{Refusal, Rule};
use crate::wire::handoff::{Handoff, HandoffError};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

pub use super::drafts::DraftWriter;
pub use crate::rules::handoff::State;

/// One file in the four directories (a handoff, a draft of one, or a reason file), for as long as
/// the exchange is open. The same through draft, publication and every move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandoffNode(pub u64);

/// What is known of every handoff.
pub(super) struct Handoffs {
    pub(super) book: Mutex<Book>,
}

/// The state machine's memory. Everything in it is also on disk, except drafts.
pub(super) struct Book {
    next: u64,
    published: HashMap<HandoffNode, Published>,
    names: [BTreeMap<String, HandoffNode>; 4],
    expiring: BTreeSet<(Timestamp, HandoffNode)>,
    used: ReplayIndex,
    pub(super) drafts: Drafts,
}

#[derive(Debug, Clone)]
struct Published {
    state: State,
    name: String,
    /// `None` for reason files and for ended handoffs that nobody asked about.
    about: Option<About>,
}

#[derive(Debug, Clone)]
struct About {
    parties: Parties,
    handoff_id: String,
}

/// A handoff whose payload every rule lets in; where it is staged on disk.
struct Staged {
    handoff: Handoff,
    sha256: String,
    path: String,
}

impl Book {
    pub(super) fn new_node(&mut self) -> HandoffNode {
        self.next += 1;
        HandoffNode(self.next)
    }

    fn insert(&mut self, node: HandoffNode, state: State, name: &str, about: Option<About>) {
        if let (State::Pending, Some(about)) = (state, &about) {
            self.expiring.insert((about.parties.expires_at, node));
        }
        self.names[state as usize].insert(name.to_owned(), node);
        self.published.insert(node, Published { state, name: name.to_owned(), about });
    }

    fn relocate(&mut self, node: HandoffNode, state: State, name: &str) {
        if let Some(old) = self.published.remove(&node) {
            self.names[old.state as usize].remove(&old.name);
            if let Some(about) = &old.about {
                self.expiring.remove(&(about.parties.expires_at, node));
            }
            self.insert(node, state, name, old.about);
        }
    }

    pub(super) fn is_published(&self, node: HandoffNode) -> bool {
        self.published.contains_key(&node)
    }

    pub(super) fn taken(&self, state: State, name: &str) -> bool {
        self.names[state as usize].contains_key(name)
    }

    /// The ids under which a handoff counts as used: its content, its id, and its id by its sender.
    fn keys(handoff: &Handoff) -> [ShortId; 3] {
        let key = |parts: &[&[u8]]| {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            short(&hash.finalize().into())
        };
        let (id, from) = (handoff.id.as_bytes(), handoff.from.as_str().as_bytes());
        [key(&[b"content", id, &handoff.content]), key(&[b"id", id]), key(&[b"sender", id, from])]
    }

    /// Rule `replay`: the same id with the same content, or the id of another sender's handoff.
    fn check_unused(&self, handoff: &Handoff) -> Result<[ShortId; 3], Refusal> {
        let keys = Self::keys(handoff);
        let [content, id, sender] = &keys;
        if self.used.contains(content) || (self.used.contains(id) && !self.used.contains(sender)) {
            return Err(Refusal::new(
                Rule::Replay,
                format!("The handoff {} was published before. Start a new one with its own id.", handoff.id),
            ));
        }
        Ok(keys)
    }

    /// Writes the index of used ids; returns how many it holds, and its file.
    pub(super) fn flush_used(&mut self) -> io::Result<(u64, Arc<File>)> {
        self.used.flush()?;
        Ok((self.used.len() as u64, self.used.file()))
    }

    fn mark_used(&mut self, keys: [ShortId; 3]) {
        for key in keys {
            let count = self.used.len() as u64 + 1;
            if let Err(error) = self.used.insert(key, count).and_then(|()| self.used.flush()) {
                tracing::warn!(%error, "handoff index not written; it will be rebuilt from the folders");
            }
        }
    }
}

impl Handoffs {
    /// Reads the four directories. Pending and claimed handoffs that were never published through the
    /// exchange (their content is unknown and their HMAC does not verify) stay invisible.
    ///
    /// Ended handoffs are read for their ids only where the index may lack them: the ones that the
    /// events since the checkpoint tell of, or all if the index holds less than it did then.
    pub(super) fn load(exchange: &Exchange, recent: &[Event]) -> io::Result<Self> {
        let index = exchange.layout.index().join("handoffs.ids");
        let ended: HashSet<String> = recent
            .iter()
            .filter_map(|event| Some(format!("{}/{}", event.text("to_dir")?, event.text("to_name")?)))
            .collect();
        let mut book = Book {
            next: 0,
            published: HashMap::new(),
            names: Default::default(),
            expiring: BTreeSet::new(),
            used: ReplayIndex::open(&index, u64::MAX)?,
            drafts: Drafts::default(),
        };
        let held = book.used.len() as u64;
        let rebuild = exchange.events.checkpointed_handoff_ids().is_none_or(|before| held < before);
        for state in State::ALL {
            let live = matches!(state, State::Pending | State::Claimed);
            for name in exchange.store.list(state.dir())? {
                let path = format!("{}/{name}", state.dir());
                let mut about = None;
                if is_final_name(&name)
                    && !name.ends_with(REASON)
                    && (live || rebuild || ended.contains(&path))
                {
                    match Handoff::parse(&exchange.store.read(&path)?) {
                        Ok(handoff) => {
                            let keys = Book::keys(&handoff);
                            let known = book.used.contains(&keys[0]);
                            if live && !known && exchange.verify_handoff(&handoff).is_err() {
                                tracing::warn!(path, "hidden: it was not published through the exchange");
                                continue;
                            }
                            if !known {
                                book.mark_used(keys);
                            }
                            about = Some(About::of(&handoff));
                        }
                        Err(error) if live => {
                            tracing::warn!(path, %error, "hidden: it is no handoff");
                            continue;
                        }
                        Err(_) => {}
                    }
                } else if live {
                    continue;
                }
                let node = book.new_node();
                book.insert(node, state, &name, about);
            }
        }
        book.used.flush()?;
        Ok(Handoffs { book: Mutex::new(book) })
    }
}

impl About {
    fn of(handoff: &Handoff) -> Self {
        About {
            parties: Parties {
                from: handoff.from.clone(),
                to: handoff.to.clone(),
                expires_at: handoff.expires_at,
            },
            handoff_id: handoff.id.clone(),
        }
    }
}

impl Exchange {
    /// What `caller` sees in a directory: published files, and its own drafts.
    pub fn list_handoffs(&self, caller: &Caller, state: State) -> Vec<(String, HandoffNode)> {
        let actor = self.actor(caller);
        let book = self.handoffs().book.lock();
        let mut names: BTreeMap<&str, HandoffNode> =
            book.names[state as usize].iter().map(|(name, node)| (name.as_str(), *node)).collect();
        if state == State::Pending {
            for (name, node) in book.drafts.visible(&actor, caller) {
                names.entry(name).or_insert(node);
            }
        }
        names.into_iter().map(|(name, node)| (name.to_owned(), node)).collect()
    }

    /// One name in a directory, as `caller` sees it.
    pub fn find_handoff(&self, caller: &Caller, state: State, name: &str) -> Option<HandoffNode> {
        let actor = self.actor(caller);
        let book = self.handoffs().book.lock();
        book.names[state as usize]
            .get(name)
            .copied()
            .or_else(|| (state == State::Pending).then(|| book.drafts.find(&actor, caller, name)).flatten())
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
        let draft = book.drafts.get(node)?;
        Some(Attr {
            size: draft.bytes.len() as u64,
            mode: 0o600,
            uid: draft.creator.uid,
            gid: draft.creator.gid,
            ..Attr::empty(NodeKind::File, draft.changed)
        })
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

    /// rename(2) between or within the four directories: publishes a draft, claims, completes, rejects.
    ///
    /// # Errors
    /// ENOENT when `from` is not there (the claim was lost), `replay` when `to` exists, `transition`,
    /// `authority`, `expired`, and the rules of the payload.
    pub fn move_handoff(&self, caller: &Caller, from: (State, &str), to: (State, &str)) -> Outcome<()> {
        let actor = self.actor(caller);
        let path = format!("{}/{}", from.0.dir(), from.1);
        let attempt = Attempt { operation: "rename", path: &path, bytes: &[] };
        let Some(node) = self.find_handoff(caller, from.0, from.1) else {
            return Err(Denied::os(libc::ENOENT));
        };
        let draft = self.handoffs().book.lock().drafts.get(node).map(|draft| draft.bytes.clone());
        if let Some(bytes) = draft {
            return self.move_draft(caller, &actor, node, &bytes, &path, to);
        }
        let moved = self
            .transfer(&actor, node, from, Some(to.0), to.1)
            .map_err(|denied| self.record(caller, attempt, denied))?;
        self.make_events_durable(moved)?;
        Ok(())
    }

    fn move_draft(
        &self,
        caller: &Caller,
        actor: &Actor,
        node: HandoffNode,
        bytes: &[u8],
        path: &str,
        to: (State, &str),
    ) -> Outcome<()> {
        let attempt = Attempt { operation: "rename", path, bytes };
        if to.0 != State::Pending {
            let advice = format!("{path} is not published yet. Rename it within handoff/ first.");
            return Err(self.refuse(caller, attempt, Refusal::new(Rule::Transition, advice)));
        }
        if !is_final_name(to.1) {
            let mut book = self.handoffs().book.lock();
            book.drafts.rename(node, to.1);
            return Ok(());
        }
        self.publish(actor, node, bytes, to.1).map_err(|denied| self.record(caller, attempt, denied))
    }

    /// Verifies a draft's bytes and publishes them as handoff/`name`. The node stays the same.
    pub(super) fn publish(&self, actor: &Actor, node: HandoffNode, bytes: &[u8], name: &str) -> Outcome<()> {
        check_name(State::Pending, name)?;
        let handoff = Handoff::parse(bytes).map_err(Refusal::from)?;
        check_publish(actor, self.may_relay(actor), &handoff.from)?;
        self.verify_handoff(&handoff)?;
        handoff.check_expiry(self.now()).map_err(Refusal::from)?;
        let staged = self.stage(handoff, bytes)?;
        let published = self.publish_staged(actor, node, &staged, name);
        // While the chain has it as published, the next start must find it and finish.
        if published.is_err() && !self.events.owes_an_undo() {
            let _ = self.store.remove(&staged.path);
        }
        self.make_events_durable(published?)?;
        Ok(())
    }

    /// Writes the bytes where no reader sees them, durably, before the lock is taken.
    fn stage(&self, handoff: Handoff, bytes: &[u8]) -> io::Result<Staged> {
        let sha256 = super::events::hex(&Sha256::digest(bytes));
        let path = format!("private/staging/{sha256}-{}", self.next_number());
        let durable = self.durability == super::Durability::Commit;
        self.store.create(&path, bytes, 0o444, durable)?;
        Ok(Staged { handoff, sha256, path })
    }

    fn publish_staged(&self, actor: &Actor, node: HandoffNode, staged: &Staged, name: &str) -> Outcome<u64> {
        let path = format!("{}/{name}", State::Pending.dir());
        let mut book = self.handoffs().book.lock();
        if book.taken(State::Pending, name) || self.store.stat(&path).is_ok() {
            let advice = format!("{path} exists. Choose another name; your file is kept as it was.");
            return Err(Refusal::new(Rule::Replay, advice).into());
        }
        let keys = book.check_unused(&staged.handoff)?;
        let end = self.events.append(
            self.now(),
            "published",
            &members! {
                "name": name, "handoff_id": staged.handoff.id.as_str(), "from": staged.handoff.from.as_str(),
                "to": staged.handoff.to.as_str(), "sha256": staged.sha256.as_str(), "by": actor.to_string(),
                "staged": staged.path.as_str(),
            },
        )?;
        if let Err(error) = self.store.rename_new(&staged.path, &path) {
            self.undo(&path, &staged.path);
            return Err(error.into());
        }
        book.mark_used(keys);
        book.drafts.remove(node);
        book.insert(node, State::Pending, name, Some(About::of(&staged.handoff)));
        Ok(end)
    }

    /// unlink(2): withdraws a pending handoff, discards an own draft.
    ///
    /// # Errors
    /// `authority` or `immutable` for anything else.
    pub fn unlink_handoff(&self, caller: &Caller, state: State, name: &str) -> Outcome<()> {
        let actor = self.actor(caller);
        let path = format!("{}/{name}", state.dir());
        let attempt = Attempt { operation: "unlink", path: &path, bytes: &[] };
        let Some(node) = self.find_handoff(caller, state, name) else {
            return Err(Denied::os(libc::ENOENT));
        };
        {
            let mut book = self.handoffs().book.lock();
            if book.drafts.get(node).is_some() {
                book.drafts.unlink(node);
                return Ok(());
            }
        }
        let moved = self
            .transfer(&actor, node, (state, name), None, name)
            .map_err(|denied| self.record(caller, attempt, denied))?;
        self.make_events_durable(moved)?;
        Ok(())
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
            (None, Some(draft)) => format!("handoff/{}", draft.name),
            (None, None) => "handoff/".into(),
        }
    }

    /// How many handoffs are in each state, reason files not counted.
    pub fn count_handoffs(&self) -> [(State, usize); 4] {
        let book = self.handoffs().book.lock();
        State::ALL.map(|state| {
            (state, book.names[state as usize].keys().filter(|name| !name.ends_with(REASON)).count())
        })
    }

    /// Moves what expired while pending to rejected/, and drops drafts that nobody finished for an
    /// hour (their bytes go to quarantine). Called about once a second; returns how many handoffs moved.
    pub fn run_janitor(&self) -> usize {
        let now = self.now();
        let due: Vec<(HandoffNode, String)> = {
            let book = self.handoffs().book.lock();
            book.expiring
                .iter()
                .take_while(|(expires_at, _)| *expires_at < now)
                .filter_map(|(_, node)| Some((*node, book.published.get(node)?.name.clone())))
                .collect()
        };
        let mut moved = 0;
        for (node, name) in due {
            let free = self.free_name(State::Rejected, &name);
            match self.transition(
                node,
                (State::Pending, &name),
                &free,
                |_, _| Ok((Transition::Expire, State::Rejected)),
                "janitor",
            ) {
                Ok(_) => moved += 1,
                Err(error) => tracing::warn!(name, %error, "an expired handoff could not be moved"),
            }
        }
        self.drop_stale_drafts(now);
        moved
    }

    /// Moves a published handoff as `actor` asks; `to` is `None` for its unlink. Returns the events' end.
    fn transfer(
        &self,
        actor: &Actor,
        node: HandoffNode,
        from: (State, &str),
        to: Option<State>,
        to_name: &str,
    ) -> Outcome<u64> {
        if to.is_some() && !is_final_name(to_name) {
            let advice =
                format!("{to_name} is no name for a handoff: it must end in .json and not be hidden.");
            return Err(Refusal::new(Rule::Transition, advice).into());
        }
        if let Some(state) = to {
            check_name(state, to_name)?;
        }
        let free;
        let to_name = match to {
            Some(_) => to_name,
            None => {
                free = self.free_name(State::Rejected, to_name);
                &free
            }
        };
        let judge = |about: Option<&About>, now: Timestamp| {
            let Some(about) = about else {
                return Err(Refusal::new(
                    Rule::Immutable,
                    format!("{}/{} has ended; it is the record and stays where it is.", from.0.dir(), from.1),
                ));
            };
            let transition = check_move(actor, self.may_relay(actor), &about.parties, from.0, to, now)?;
            Ok((transition, to.unwrap_or(State::Rejected)))
        };
        self.transition(node, from, to_name, judge, &actor.to_string())
    }

    /// The one place where a published handoff moves.
    fn transition(
        &self,
        node: HandoffNode,
        from: (State, &str),
        to_name: &str,
        judge: impl Fn(Option<&About>, Timestamp) -> Result<(Transition, State), Refusal>,
        by: &str,
    ) -> Outcome<u64> {
        let now = self.now();
        let mut book = self.handoffs().book.lock();
        // Another mount may have moved it since the caller looked.
        let about = match book.published.get(&node) {
            Some(p) if (p.state, p.name.as_str()) == from => p.about.clone(),
            _ => return Err(Denied::os(libc::ENOENT)),
        };
        let (transition, to_state) = judge(about.as_ref(), now)?;
        let (from_path, to_path) =
            (format!("{}/{}", from.0.dir(), from.1), format!("{}/{to_name}", to_state.dir()));
        if book.taken(to_state, to_name) || self.store.stat(&to_path).is_ok() {
            return Err(Refusal::new(Rule::Replay, format!("{to_path} exists. Choose another name.")).into());
        }
        let handoff_id = about.as_ref().map_or("", |a| a.handoff_id.as_str());
        let reason_name = format!("{to_name}{REASON}");
        if to_state == State::Rejected {
            let reason = serde_json::json!({
                "handoff_id": handoff_id, "reason": transition.event(), "by": by, "at": now.to_string(),
                "expires_at": about.as_ref().map(|a| a.parties.expires_at.to_string()),
            });
            let path = format!("{}/{reason_name}", to_state.dir());
            match self.store.create(&path, format!("{reason:#}\n").as_bytes(), 0o444, false) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        let end = self.events.append(
            now,
            transition.event(),
            &members! {
                "name": from.1, "to_name": to_name, "from_dir": from.0.dir(), "to_dir": to_state.dir(),
                "handoff_id": handoff_id, "by": by,
            },
        )?;
        if let Err(error) = self.store.rename_new(&from_path, &to_path) {
            self.undo(&to_path, &from_path);
            return Err(error.into());
        }
        book.relocate(node, to_state, to_name);
        if to_state == State::Rejected && !book.taken(State::Rejected, &reason_name) {
            let reason = book.new_node();
            book.insert(reason, State::Rejected, &reason_name, None);
        }
        Ok(end)
    }

    /// Tells the chain that the move in its last event did not happen.
    fn undo(&self, at: &str, back_at: &str) {
        if let Err(error) = self.events.undo(self.now(), at, back_at) {
            tracing::error!(at, %error, "a failed move could not be noted; it will be before anything else is");
        }
    }

    fn free_name(&self, state: State, name: &str) -> String {
        let book = self.handoffs().book.lock();
        let stem = name.strip_suffix(".json").unwrap_or(name);
        std::iter::once(name.to_owned())
            .chain((2..).map(|n| format!("{stem}.{n}.json")))
            .find(|candidate| !book.taken(state, candidate))
            .unwrap_or_else(|| name.to_owned())
    }

    fn verify_handoff(&self, handoff: &Handoff) -> Result<(), Refusal> {
        for agent in [&handoff.from, &handoff.to] {
            if !self.config.agents.contains_key(agent) {
                return Err(Refusal::new(
                    Rule::Schema,
                    format!("{agent} is no agent of this exchange. It has: {}.", self.agent_names()),
                ));
            }
        }
        match self.secret(&handoff.from, &handoff.to) {
            Some(secret) => Ok(handoff.verify(&secret)?),
            None if self.config.relay_handoffs => Ok(()),
            None => Err(no_secret(&handoff.from, &handoff.to)),
        }
    }
}

fn no_secret(from: &AgentName, to: &AgentName) -> Refusal {
    let cause = HandoffError::Hmac(from.clone(), to.clone());
    Refusal::new(
        Rule::Hmac,
        format!(
            "{cause}: this exchange holds no secret for them. The operator adds it: baton secret import --pair {from},{to} FILE."
        ),
    )
}

impl Published {
    fn path(&self) -> String {
        format!("{}/{}", self.state.dir(), self.name)
    }
}
