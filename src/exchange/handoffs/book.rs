//! The state machine's memory: which handoffs there are, in which state, and which ids are used.

use super::{HandoffNode, State};
use crate::exchange::Exchange;
use crate::exchange::drafts::Drafts;
use crate::exchange::events::Event;
use crate::exchange::replay::{ReplayIndex, ShortId, short};
use crate::rules::handoff::{Parties, REASON, is_final_name};
use crate::rules::{Refusal, Rule};
use crate::wire::handoff::Handoff;
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What is known of every handoff.
pub(in crate::exchange) struct Handoffs {
    pub(in crate::exchange) book: Mutex<Book>,
    /// Held from before a move's event until after its rename.
    pub(in crate::exchange) moves: Mutex<()>,
}

/// The state machine's memory. Everything in it is also on disk, except drafts.
pub(in crate::exchange) struct Book {
    next: u64,
    pub(super) published: HashMap<HandoffNode, Published>,
    pub(super) names: [BTreeMap<String, HandoffNode>; 4],
    pub(super) expiring: BTreeSet<(Timestamp, HandoffNode)>,
    used: ReplayIndex,
    pub(super) drafts: Drafts<HandoffNode>,
}

#[derive(Debug, Clone)]
pub(super) struct Published {
    pub state: State,
    pub name: String,
    /// `None` for reason files and for ended handoffs that nobody asked about.
    pub about: Option<About>,
}

#[derive(Debug, Clone)]
pub(super) struct About {
    pub parties: Parties,
    pub handoff_id: String,
}

impl Book {
    pub(super) fn new_node(&mut self) -> HandoffNode {
        self.next += 1;
        HandoffNode(self.next)
    }

    pub(super) fn insert(&mut self, node: HandoffNode, state: State, name: &str, about: Option<About>) {
        if let (State::Pending, Some(about)) = (state, &about) {
            self.expiring.insert((about.parties.expires_at, node));
        }
        self.names[state as usize].insert(name.to_owned(), node);
        self.published.insert(node, Published { state, name: name.to_owned(), about });
    }

    pub(super) fn relocate(&mut self, node: HandoffNode, state: State, name: &str) {
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
    pub(super) fn check_unused(&self, handoff: &Handoff) -> Result<[ShortId; 3], Refusal> {
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
    pub(in crate::exchange) fn flush_used(&mut self) -> io::Result<(u64, Arc<File>)> {
        self.used.flush()?;
        Ok((self.used.len() as u64, self.used.file()))
    }

    pub(super) fn mark_used(&mut self, keys: [ShortId; 3]) {
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
    pub(in crate::exchange) fn load(exchange: &Exchange, recent: &[Event]) -> io::Result<Self> {
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
        Ok(Handoffs { book: Mutex::new(book), moves: Mutex::new(()) })
    }
}

impl About {
    pub fn of(handoff: &Handoff) -> Self {
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

impl Published {
    pub fn path(&self) -> String {
        format!("{}/{}", self.state.dir(), self.name)
    }
}
