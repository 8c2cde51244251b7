//! What a proposal's message asks for: about which domains, and whether the exchange itself is to act.

use crate::rules::conversation::Effect;
use crate::rules::conversation::presence::{Activity, Cadence};
use crate::rules::{Refusal, Rule};
use crate::wire::json::{Object, Value};
use crate::wire::keys::{KeyId, PublicKey};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What the exchange does itself once a proposal is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "subject")]
pub enum Act {
    /// Trusts one more key of the proposer.
    AddKey {
        /// base64 of the raw public key.
        key: String,
        /// Its id.
        key_id: String,
    },
    /// Retires a key of the proposer.
    DeactivateKey {
        /// Its id.
        key_id: String,
    },
    /// Puts new periods in force.
    SetTiers {
        /// All four: those that the proposal leaves out are as they were when it was made.
        cadence: Cadence,
    },
}

/// The shortest and the longest period of a tier that agents may agree on, in seconds. The operator, who writes
/// tiers.json, may do as he likes.
const SHORTEST_PERIOD: u32 = 10;
const LONGEST_PERIOD: u32 = 3_600;

impl Act {
    /// What a proposal's subject and body ask of the exchange; `None` for any other subject. `in_force`:
    /// the periods at the time.
    ///
    /// # Errors
    /// EBADMSG `schema` for a body that does not fit the subject.
    pub(super) fn read(message: &Message, in_force: Cadence) -> Result<Option<Act>, Refusal> {
        let subject = message.text("subject").unwrap_or_default();
        let (form, act) = match subject {
            "add_key" => (
                "{\"key\": \"<base64 of the 32 bytes>\", \"key_id\": \"<you>:<8 hex>\"}, as baton key show prints them",
                body(message).and_then(|body| add_key(body, &message.from)),
            ),
            "deactivate_key" => (
                "{\"key_id\": \"<you>:<8 hex>\"}",
                body(message).and_then(|body| deactivate_key(body, &message.from)),
            ),
            "set_tiers" => (
                "seconds for any of the tiers, {\"T1_active\": 60}",
                body(message).and_then(|body| set_tiers(body, in_force)),
            ),
            _ => return Ok(None),
        };
        let refusal = |problem| format!("A proposal {subject}: {problem}. Its body must be {form}.");
        act.map(Some).map_err(|problem| Refusal::new(Rule::Schema, refusal(problem)))
    }

    pub(super) fn effect(&self, proposer: &AgentName) -> Effect {
        let agent = proposer.clone();
        match self {
            Act::AddKey { key, key_id } => Effect::AddKey { agent, key: key.clone(), key_id: key_id.clone() },
            Act::DeactivateKey { key_id } => Effect::DeactivateKey { agent, key_id: key_id.clone() },
            Act::SetTiers { cadence } => Effect::CadenceSet { cadence: *cadence },
        }
    }
}

fn body(message: &Message) -> Result<&Object, String> {
    message.body().as_object().ok_or_else(|| "its body is no JSON object".to_owned())
}

fn text<'a>(body: &'a Object, member: &str) -> Result<&'a str, String> {
    body.get(member).and_then(Value::as_str).ok_or_else(|| format!("{member} is missing or not a string"))
}

fn own_key_id(body: &Object, author: &AgentName) -> Result<KeyId, String> {
    let id = KeyId::parse(text(body, "key_id")?).map_err(|e| format!("key_id: {e}"))?;
    if id.agent == *author { Ok(id) } else { Err(format!("key_id {id} names no key of {author}'s")) }
}

fn add_key(body: &Object, author: &AgentName) -> Result<Act, String> {
    let given = own_key_id(body, author)?;
    let key = text(body, "key")?;
    let id = PublicKey::from_base64(key).map_err(|e| format!("key: {e}"))?.id(author);
    if id != given {
        return Err(format!("key_id is {given}, but the id of this key is {id}"));
    }
    Ok(Act::AddKey { key: key.to_owned(), key_id: id.to_string() })
}

fn deactivate_key(body: &Object, author: &AgentName) -> Result<Act, String> {
    Ok(Act::DeactivateKey { key_id: own_key_id(body, author)?.to_string() })
}

fn set_tiers(body: &Object, mut cadence: Cadence) -> Result<Act, String> {
    if body.is_empty() {
        return Err("it names no tier".to_owned());
    }
    for (tier, seconds) in body {
        let known = Activity::ALL.into_iter().find(|activity| activity.as_str() == tier);
        let activity = known.ok_or_else(|| {
            format!("{tier:?} is no tier: they are {}", Activity::ALL.map(Activity::as_str).join(", "))
        })?;
        let seconds = seconds.as_i64().and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| (SHORTEST_PERIOD..=LONGEST_PERIOD).contains(seconds));
        *cadence.period_mut(activity) = seconds.ok_or_else(|| {
            format!("{tier} must be whole seconds from {SHORTEST_PERIOD} to {LONGEST_PERIOD}")
        })?;
    }
    if !Activity::ALL.map(|activity| cadence.period(activity)).is_sorted() {
        return Err("the periods must not fall from T0 to T3".to_owned());
    }
    Ok(Act::SetTiers { cadence })
}

/// The domains that a proposal names: its `affected_domains`, or its body's. `None` where it names none.
///
/// # Errors
/// EBADMSG `schema`.
pub(super) fn domains(message: &Message) -> Result<Option<BTreeSet<String>>, Refusal> {
    const MEMBER: &str = "affected_domains";
    let in_body = || message.body().as_object()?.get(MEMBER);
    let Some(given) = message.object.get(MEMBER).or_else(in_body) else { return Ok(None) };
    let listed = given.as_array().and_then(|listed| {
        listed.iter().map(|domain| domain.as_str().map(str::to_owned)).collect::<Option<BTreeSet<_>>>()
    });
    match listed {
        Some(domains) => Ok(Some(domains).filter(|domains| !domains.is_empty())),
        None => Err(Refusal::new(
            Rule::Schema,
            "affected_domains must be a list of domains, each a string: [\"schema\"].",
        )),
    }
}
