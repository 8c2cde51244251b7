//! Agent cards: those that the exchange writes for the agents whose keys it holds, and those that arrive.

use super::{Unchanged, hash};
use crate::exchange::Exchange;
use crate::exchange::config::Config;
use crate::exchange::events::members;
use crate::rules::conversation::Charter;
use crate::rules::conversation::limits::Limits;
use crate::rules::trust::cards::{self as rules, NewContact};
use crate::rules::{Refusal, Rule};
use crate::store::Store;
use crate::wire::card::{AgentCard, CardKey, NewCard};
use crate::wire::keys::{KeyId, SigningKey};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{TrustEntry, TrustList, TrustedKey};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

fn card_path(agent: &AgentName) -> String {
    format!("trust/{agent}.card.json")
}

/// An agent's stored card, if it is one.
fn read_card(store: &dyn Store, agent: &AgentName) -> Option<AgentCard> {
    let card = AgentCard::verify(&store.read(&card_path(agent)).ok()?).ok()?;
    (card.agent == *agent).then_some(card)
}

/// What messages are judged by.
pub(in crate::exchange) fn charter(config: &Config, store: &dyn Store, trust: &TrustList) -> Charter {
    Charter {
        agents: config.agents.keys().cloned().collect(),
        domains: config
            .domains
            .iter()
            .map(|(domain, owners)| (domain.clone(), owners.iter().cloned().collect()))
            .collect(),
        limits: Limits {
            max_refs: config.max_refs,
            rate_per_minute: config.rate_per_minute,
            rates: config
                .agents
                .keys()
                .filter_map(|agent| Some((agent.clone(), rate(config, store, trust, agent)?)))
                .collect(),
            incidents_per_minute: config.incidents_per_minute,
            turns_per_thread: config.turns_per_thread,
        },
    }
}

/// An agent's own limit: the operator's word for it, or its card's, which only ever lowers what is the limit for all.
fn rate(config: &Config, store: &dyn Store, trust: &TrustList, agent: &AgentName) -> Option<u32> {
    if let Some(rate) = config.agents.get(agent)?.rate_per_minute {
        return Some(rate);
    }
    let card = read_card(store, agent)?;
    trust.key(&card.signed_by)?;
    let own = card.rate_per_minute()?;
    Some(if config.rate_per_minute == 0 { own } else { own.min(config.rate_per_minute) })
}

/// Writes the cards of the agents whose keys are held here: where there is none, and where it no longer says
/// what is so. A card that an agent has made for itself stays as long as its keys are those in force.
///
/// # Errors
/// The disk's.
pub(in crate::exchange) fn write_own_cards(
    store: &dyn Store,
    config: &Config,
    trust: &TrustList,
    signing_keys: &HashMap<AgentName, Arc<SigningKey>>,
    now: Timestamp,
) -> io::Result<()> {
    for (agent, key) in signing_keys {
        let id = key.public().id(agent);
        let Some(entry) = trust.agents.get(agent) else { continue };
        if !entry.keys.iter().any(|known| known.id == id && known.active) {
            continue;
        }
        let new = new_card(agent, entry, config);
        if !read_card(store, agent).is_some_and(|card| stands(&card, &new, &id)) {
            store.replace(&card_path(agent), new.sign(key, now).as_bytes(), 0o644)?;
        }
    }
    Ok(())
}

fn new_card<'a>(agent: &'a AgentName, entry: &TrustEntry, config: &Config) -> NewCard<'a> {
    let own_rate = config.agents.get(agent).and_then(|agent| agent.rate_per_minute);
    let card_key = |key: &TrustedKey| CardKey {
        id: key.id.clone(),
        key: key.key.clone(),
        valid_from: key.added(),
        valid_until: if key.active {
            key.deactivate_at.into_iter().chain(key.valid_until).min()
        } else {
            key.deactivated_at().and_then(|text| Timestamp::parse(text, true))
        },
    };
    let (keys, old_keys): (Vec<&TrustedKey>, Vec<_>) = entry.keys.iter().partition(|key| key.active);
    NewCard {
        agent,
        keys: keys.into_iter().map(card_key).collect(),
        old_keys: old_keys.into_iter().map(card_key).collect(),
        max_body_bytes: config.max_body_bytes,
        clock_skew_seconds: config.clock_skew_seconds,
        rate_per_minute: Some(own_rate.unwrap_or(config.rate_per_minute)).filter(|rate| *rate > 0),
    }
}

/// Whether a stored card may stay where `new`, signed by `held`, is what would be written.
fn stands(card: &AgentCard, new: &NewCard<'_>, held: &KeyId) -> bool {
    if new.resembles(card) {
        return new.is_said_by(card) && card.signed_by == *held;
    }
    let ids = |keys: &[CardKey]| keys.iter().map(|key| key.id.clone()).collect::<BTreeSet<_>>();
    ids(&card.keys) == ids(&new.keys)
}

impl Exchange {
    /// After a change of keys: the cards say it too. Where that fails, the next start does it.
    pub(super) fn refresh_own_cards(&self) {
        let keys = self.signing_keys.read().clone();
        if let Err(error) = write_own_cards(&*self.store, &self.config, &self.trust(), &keys, self.now()) {
            tracing::warn!(%error, "an agent card could not be written; the next start writes it");
        }
    }

    /// Decides about the card in an `agent_card` message; other messages bring none. Where its author is not
    /// known yet, the message must be signed by one of the card's own keys.
    ///
    /// # Errors
    /// EBADMSG `schema`; EEXIST `replay` for a card that is older than the stored one; EKEYREJECTED `from-mismatch`, `unknown-key`, `unsigned`, `signature`, `event-id`;
    /// EKEYREVOKED `revoked-key`; EACCES `tier` for a blocked agent.
    pub(in crate::exchange) fn judge_card(
        &self,
        message: &Message,
        trust: &TrustList,
    ) -> Result<Option<NewContact>, Refusal> {
        let Some(card) = rules::in_message(message)? else { return Ok(None) };
        let contact = self.judge_contact(card, trust)?;
        if contact.is_first {
            message.clone().verify(&contact.introduction(self.now()))?;
        }
        Ok(Some(contact))
    }

    fn judge_contact(&self, card: AgentCard, trust: &TrustList) -> Result<NewContact, Refusal> {
        let is_agent = self.config.agents.contains_key(&card.agent);
        let contact = rules::judge(card, trust, is_agent, self.now(), self.config.clock_skew_seconds)?;
        if !contact.is_first {
            rules::check_newer(&contact.card, read_card(&*self.store, &contact.card.agent).as_ref())?;
        }
        Ok(contact)
    }

    /// Takes in the card of a message that may be committed. A first contact is pinned before its message is: then
    /// the commit judges by a list that has it, and of two cards that claim one name one comes first.
    ///
    /// # Errors
    /// EKEYREJECTED `unknown-key` where its agent could not be pinned.
    pub(in crate::exchange) fn meet(&self, contact: &NewContact) -> Result<(), Refusal> {
        let agent = &contact.card.agent;
        match self.pin(contact, agent.as_str()) {
            Ok(_) => Ok(()),
            Err(Unchanged::Forbidden(problem)) => {
                Err(Refusal::new(Rule::UnknownKey, format!("{problem}. Ask the operator.")))
            }
            Err(Unchanged::Disk(error)) if contact.is_first => {
                tracing::error!(%agent, error, "an agent card could not be taken in");
                let advice = "The exchange could not take your card in: its disk fails. Send it again later.";
                Err(Refusal::new(Rule::UnknownKey, advice))
            }
            Err(Unchanged::Disk(error)) => {
                tracing::error!(%agent, error, "an agent card could not be stored");
                Ok(())
            }
        }
    }

    /// Takes a card in: its agent is pinned where it was not known, and the card is stored. Doing it again
    /// changes nothing. Returns what changed, one sentence each.
    ///
    /// # Errors
    /// The agent has become known meanwhile, with other keys; or the disk fails.
    fn pin(&self, contact: &NewContact, by: &str) -> Result<Vec<String>, Unchanged> {
        let agent = &contact.card.agent;
        let now = self.now();
        let mut changes = self.change_trust(by, |list, changes| rules::pin(list, contact, now, changes))?;
        let (path, text) = (card_path(agent), contact.card.to_text());
        if self.store.read(&path).is_ok_and(|stored| stored == text.as_bytes()) {
            return Ok(changes);
        }
        self.store
            .replace(&path, text.as_bytes(), 0o644)
            .map_err(|e| Unchanged::Disk(format!("{path} could not be written: {e}")))?;
        self.event(
            "card-stored",
            members! {"agent": agent.as_str(), "by": by, "sha256": hash(text.as_bytes())},
        );
        changes.push(format!("{path} is {agent}'s card now"));
        let charter = charter(&self.config, &*self.store, &self.trust());
        // A limit holds from one commit to the next.
        let _order_of_commits = self.conversation();
        *self.charter.write() = Arc::new(charter);
        Ok(changes)
    }

    /// Takes a card in that the operator vouches for.
    pub(in crate::exchange) fn pin_card(&self, text: &str) -> Result<serde_json::Value, String> {
        let card = AgentCard::verify(text.as_bytes()).map_err(|e| format!("it is no agent card: {e}"))?;
        let contact = self.judge_contact(card, &self.trust()).map_err(|refusal| refusal.advice)?;
        let changes = self.pin(&contact, "operator")?;
        Ok(serde_json::json!({ "agent": contact.card.agent, "changes": changes }))
    }
}
