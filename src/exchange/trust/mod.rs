//! The trust list of an exchange, and the one way in which it changes: first the event, durably, then
//! trust.json. What a crash leaves between them, the next start finishes from the event.

mod cards;
mod keys;
mod requests;
mod start;
#[cfg(test)]
mod tests;

pub(super) use cards::{charter, write_own_cards};
pub(super) use keys::finish_key_files;
pub(super) use start::{Found, finish};

use super::events::{hex, members};
use super::{Durability, Exchange};
use crate::rules::trust as rules;
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const FILE: &str = "trust.json";
const EVENT: &str = "trust-changed";
/// sha256 of trust.json at the last checkpoint. Derived: without it, a change while no daemon ran goes untold.
const KNOWN: &str = "private/index/trust.known";

/// What only who changes the trust list needs. Its lock is held while the list is written.
#[derive(Debug)]
pub(super) struct Importing {
    /// Reciprocations that are not in the list yet.
    counts: BTreeMap<AgentName, u64>,
    /// sha256 of trust.json as it was last read or written, in hex.
    sha256: String,
    /// The same, as the file at [`KNOWN`] has it.
    noted: Option<String>,
    /// Whether trust.json was changed while no daemon ran, and no event tells of it yet.
    untold: bool,
    /// Whether events.jsonl tells of a change that trust.json does not have.
    owes_the_file: bool,
}

/// Why the trust list is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unchanged {
    /// The rules don't allow it: a sentence.
    #[error("{0}")]
    Forbidden(String),
    /// The disk failed: a sentence.
    #[error("{0}")]
    Disk(String),
}

impl From<Unchanged> for String {
    fn from(unchanged: Unchanged) -> Self {
        unchanged.to_string()
    }
}

impl Importing {
    /// As an exchange starts.
    pub(super) fn new(found: &Found) -> Self {
        Importing {
            counts: BTreeMap::new(),
            sha256: found.sha256.clone(),
            noted: found.noted.clone(),
            untold: found.untold,
            owes_the_file: false,
        }
    }
}

impl Exchange {
    /// Changes the trust list: `edit` changes a copy and says so, one sentence for each change. Where it
    /// changes nothing, nothing happens. `by`: who wants it, for the event. Returns the sentences.
    ///
    /// From the event's `order` on, lines are judged by the new list.
    ///
    /// # Errors
    /// `edit`'s own as [`Unchanged::Forbidden`].
    pub(super) fn change_trust(
        &self,
        by: &str,
        edit: impl FnOnce(&mut TrustList, &mut Vec<String>) -> Result<(), String>,
    ) -> Result<Vec<String>, Unchanged> {
        let mut importing = self.importing.lock();
        let (old, now) = (self.trust(), self.now());
        let mut list = TrustList::clone(&old);
        let (mut told, mut changes) = (Vec::new(), Vec::new());
        for (agent, more) in &importing.counts {
            rules::count(&mut list, agent, *more, now, &mut told);
        }
        edit(&mut list, &mut changes).map_err(Unchanged::Forbidden)?;
        let delta = list.delta_from(&old);
        if delta.is_empty() {
            return Ok(changes);
        }
        told.extend_from_slice(&changes);
        let text = list.to_json();
        let (before, after) = (self.trust_file_hash(&importing), hash(text.as_bytes()));
        let keys = delta.keys.iter().map(|key| json!({"key_id": key.id.to_string(), "active": key.active}));
        let tiers = delta.tiers.iter().map(|change| {
            json!({
                "agent": change.agent, "tier": change.tier.as_str(), "was": change.was.map(|tier| tier.as_str()),
            })
        });
        let mut event = members! {
            "changes": told, "keys": keys.collect::<Vec<Value>>(), "tiers": tiers.collect::<Vec<Value>>(),
            "by": by, "before": before, "after": after.as_str(), "redo": delta.redo(),
        };
        {
            // No line is committed meanwhile: each is before the change or after it.
            let mut ledger = self.ledger.lock();
            event.insert("order".to_owned(), ledger.next_order().into());
            self.events
                .append(now, EVENT, &event)
                .and_then(|end| self.events.make_durable(end, Durability::Commit))
                .map_err(|e| {
                    Unchanged::Disk(format!("events.jsonl could not be written, so nothing was changed: {e}"))
                })?;
            *self.trust.write() = Arc::new(list);
        }
        importing.counts.clear();
        importing.owes_the_file = true;
        self.write_trust_file(&mut importing, &text).map_err(|e| {
            Unchanged::Disk(format!(
                "the change is in force and in events.jsonl, but {FILE} could not be written ({e}). It is tried again \
                 every minute; make room on the disk"
            ))
        })?;
        drop(importing);
        self.refresh_own_cards();
        Ok(changes)
    }

    fn trust_file_hash(&self, importing: &Importing) -> String {
        self.store.read(FILE).map_or_else(|_| importing.sha256.clone(), |bytes| hash(&bytes))
    }

    fn write_trust_file(&self, importing: &mut Importing, text: &str) -> io::Result<()> {
        self.store.replace(FILE, text.as_bytes(), 0o644)?;
        importing.sha256 = hash(text.as_bytes());
        importing.owes_the_file = false;
        Ok(())
    }

    /// Before a checkpoint: trust.json has everything that the events tell, and the reciprocations too.
    pub(super) fn settle_trust(&self) -> io::Result<()> {
        if !self.importing.lock().counts.is_empty() {
            self.change_trust("reciprocations", |_, _| Ok(())).map_err(io::Error::other)?;
        }
        let mut importing = self.importing.lock();
        if importing.owes_the_file {
            let text = self.trust().to_json();
            self.write_trust_file(&mut importing, &text)?;
        }
        if importing.noted.as_ref() != Some(&importing.sha256) {
            self.store.replace(KNOWN, importing.sha256.as_bytes(), 0o600)?;
            importing.noted = Some(importing.sha256.clone());
        }
        Ok(())
    }

    /// Two agents have done something together: who had asked, and who acked. The count reaches trust.json with the
    /// next change or checkpoint, and at once where it makes one of them ATTESTED.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn count_reciprocation(&self, asker: &AgentName, acker: &AgentName) -> Result<(), String> {
        let attests = {
            let mut importing = self.importing.lock();
            let list = self.trust();
            let mut attests = false;
            for agent in [asker, acker] {
                let Some(entry) = list.agents.get(agent) else { continue };
                let more = importing.counts.entry(agent.clone()).or_default();
                *more += 1;
                attests |= rules::attests(entry.tier, entry.reciprocations() + *more);
            }
            attests
        };
        if attests {
            self.change_trust("reciprocations", |_, _| Ok(()))?;
        }
        Ok(())
    }
}

/// sha256 in hex.
fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
