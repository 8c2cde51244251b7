//! Agent cards that arrive: a first contact is pinned at UNTRUSTED, an unknown key of a known agent never.

use crate::rules::{Refusal, Rule};
use crate::wire::card::{AgentCard, CardKey};
use crate::wire::json::{Object, Value};
use crate::wire::keys::KeyId;
use crate::wire::message::Message;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList, TrustedKey};

/// A card that may be stored, and whose keys may be trusted.
#[derive(Debug, Clone)]
pub struct NewContact {
    /// The card.
    pub card: AgentCard,
    /// Those of its keys that are valid now.
    pub keys: Vec<CardKey>,
    /// Whether nobody of that name was known.
    pub is_first: bool,
}

impl NewContact {
    /// The list by which the first message of a first contact is judged: nobody but its author is in it.
    pub fn introduction(&self, now: Timestamp) -> TrustList {
        let mut list = TrustList::default();
        list.agents.insert(self.card.agent.clone(), self.entry(now));
        list
    }

    fn entry(&self, now: Timestamp) -> TrustEntry {
        let keys = self.keys.iter().map(|key| TrustedKey {
            valid_until: key.valid_until,
            ..TrustedKey::new(&self.card.agent, key.key.clone(), now)
        });
        let url = self.card.object.get("agent_card_url").cloned().unwrap_or(Value::Null);
        let mut entry = TrustEntry {
            tier: Tier::Untrusted,
            keys: keys.collect(),
            blocked: false,
            other: Object::from([
                ("sas_verified".to_owned(), Value::Bool(false)),
                ("agent_card_url".to_owned(), url),
            ]),
        };
        entry.set_tier(Tier::Untrusted, now);
        entry.set_reciprocations(0);
        entry
    }
}

/// The card in an `agent_card` message; `None` in a message of another type.
///
/// # Errors
/// EBADMSG `schema` where its body is none; EKEYREJECTED `from-mismatch` where it is another agent's.
pub fn in_message(message: &Message) -> Result<Option<AgentCard>, Refusal> {
    if message.message_type != "agent_card" {
        return Ok(None);
    }
    let card = match message.object.get("body") {
        Some(Value::Object(body)) => AgentCard::verify_object(body.clone()),
        Some(Value::String(text)) => AgentCard::verify(text.as_bytes()),
        _ => {
            let advice = "The body of an agent_card message is the card: an object, or its JSON as a string.";
            return Err(Refusal::new(Rule::Schema, advice));
        }
    };
    let card = card.map_err(|e| {
        Refusal::new(
            Rule::Schema,
            format!(
                "The body is no acceptable agent card: {e}. Sign it again; trust/{}.card.json shows the form.",
                message.from
            ),
        )
    })?;
    if card.agent != message.from {
        return Err(Refusal::new(
            Rule::FromMismatch,
            format!(
                "The card is {}'s, and the message is from {}. Every agent sends its own card.",
                card.agent, message.from
            ),
        ));
    }
    Ok(Some(card))
}

/// Rule `replay` of cards: of a known agent a card counts that is newer than the one that is `stored`, or is that one.
/// An old message must not bring an old card back.
///
/// # Errors
/// EEXIST `replay`.
pub fn check_newer(card: &AgentCard, stored: Option<&AgentCard>) -> Result<(), Refusal> {
    let Some(stored) = stored.filter(|stored| stored.object != card.object) else { return Ok(()) };
    if card.issued_at() > stored.issued_at() {
        return Ok(());
    }
    let advice = format!(
        "A card of {} is here already that was issued at {}. Issue a newer one: set issued_at to now, and sign it.",
        card.agent,
        stored.issued_at().map_or_else(|| "no known time".to_owned(), |time| time.to_string())
    );
    Err(Refusal::new(Rule::Replay, advice))
}

/// Decides about a card. `is_agent`: whether its agent takes part in the exchange.
///
/// # Errors
/// EKEYREJECTED `unknown-key` for a stranger, and for a key that a known agent is not known to have;
/// EKEYREVOKED `revoked-key` for a card that none of its valid keys has signed; EACCES `tier` for a blocked
/// agent.
pub fn judge(
    card: AgentCard,
    list: &TrustList,
    is_agent: bool,
    now: Timestamp,
    skew_seconds: i64,
) -> Result<NewContact, Refusal> {
    let agent = &card.agent;
    if !is_agent {
        let advice = format!(
            "{agent} is no agent of this exchange. Ask the operator to give it a table in exchange.toml."
        );
        return Err(Refusal::new(Rule::UnknownKey, advice));
    }
    let known = list.agents.get(agent);
    if known.is_some_and(|entry| entry.blocked) {
        let advice =
            format!("{agent} is blocked. Ask the operator, who alone can lift that: baton trust unblock.");
        return Err(Refusal::new(Rule::Tier, advice));
    }
    let keys: Vec<CardKey> =
        card.keys.iter().filter(|key| key.is_valid(now, skew_seconds)).cloned().collect();
    if !keys.iter().any(|key| key.id == card.signed_by) {
        let advice = format!(
            "The card is signed by {}, which by its own valid_from and valid_until does not sign now. Sign it with a \
             key that does.",
            card.signed_by
        );
        return Err(Refusal::new(Rule::RevokedKey, advice));
    }
    if let Some(entry) = known {
        let key = |id: &KeyId| entry.keys.iter().find(|key| key.id == *id);
        if let Some(stranger) = card.keys.iter().find(|listed| key(&listed.id).is_none()) {
            let advice = format!(
                "{} is no known key of {agent}, and a card brings a known agent none. Propose it: a proposal with \
                 subject add_key, signed with the old key; or ask the operator: baton key import.",
                stranger.id
            );
            return Err(Refusal::new(Rule::UnknownKey, advice));
        }
        if key(&card.signed_by).is_some_and(|key| !key.active) {
            let advice =
                format!("The card is signed by {}, which is deactivated. Sign it anew.", card.signed_by);
            return Err(Refusal::new(Rule::RevokedKey, advice));
        }
    }
    let is_first = known.is_none();
    Ok(NewContact { card, keys, is_first })
}

/// Takes a card's keys into the list: all of a first contact, at UNTRUSTED; of a known agent, until when they
/// are valid.
///
/// # Errors
/// A sentence: the agent has become known meanwhile, with other keys.
pub fn pin(
    list: &mut TrustList,
    contact: &NewContact,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let agent = &contact.card.agent;
    let Some(entry) = list.agents.get_mut(agent) else {
        let keys: Vec<String> = contact.keys.iter().map(|key| key.id.to_string()).collect();
        changes.push(format!("{agent} is new, UNTRUSTED, with {}: pinned from its card", keys.join(", ")));
        list.agents.insert(agent.clone(), contact.entry(now));
        return Ok(());
    };
    if let Some(stranger) = contact.keys.iter().find(|new| !entry.keys.iter().any(|key| key.id == new.id)) {
        return Err(format!(
            "{} is no known key of {agent}, which is known with others: a card brings it none",
            stranger.id
        ));
    }
    for listed in &contact.card.keys {
        let known = entry.keys.iter_mut().find(|key| key.id == listed.id && key.active);
        if let Some(key) = known.filter(|key| key.valid_until != listed.valid_until) {
            key.valid_until = listed.valid_until;
            changes.push(match listed.valid_until {
                Some(until) => format!("{} is valid until {until}: by its card", key.id),
                None => format!("{} is valid without end: by its card", key.id),
            });
        }
    }
    Ok(())
}
