//! Trust lists (`trust.json`) and tiers. Format: PROTOCOLS section 2, "Trust list".

mod delta;
#[cfg(test)]
mod tests;

pub use delta::{KeyChange, TierChange, TrustDelta};

use super::canonical;
use super::json::{self, Object, Value};
use super::keys::{self, KeyId, PublicKey};
use super::name::AgentName;
use super::time::Timestamp;
use std::collections::BTreeMap;

const BLOCKED: &str = "blocked";
const SAS_VERIFIED: &str = "sas_verified";
const RECIPROCATIONS: &str = "successful_reciprocations";
const TIER_SET_AT: &str = "tier_set_at";
const DEACTIVATE_AT: &str = "deactivate_at";
const DEACTIVATED_AT: &str = "deactivated_at";
const VALID_UNTIL: &str = "valid_until";

/// How far an agent is trusted, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Kinds 100, 10000 and 10001 only.
    Untrusted,
    /// Everything but claim (1100).
    Verified,
    /// Everything.
    Attested,
    /// Everything, and past the body-size and rate limits.
    Trusted,
}

impl Tier {
    /// The word in trust.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Untrusted => "UNTRUSTED",
            Tier::Verified => "VERIFIED",
            Tier::Attested => "ATTESTED",
            Tier::Trusted => "TRUSTED",
        }
    }
    /// Every tier, in rising order.
    pub const ALL: [Tier; 4] = [Tier::Untrusted, Tier::Verified, Tier::Attested, Tier::Trusted];

    /// The tier that a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == word)
    }
    /// Whether this tier may send a message of this type and kind.
    pub fn may_send(self, message_type: &str, kind: Option<u32>) -> bool {
        match self {
            Tier::Untrusted => matches!(kind, Some(100 | 10000 | 10001)),
            Tier::Verified => kind != Some(1100) && message_type != "claim",
            Tier::Attested | Tier::Trusted => true,
        }
    }
}

/// One of an agent's public keys.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// `<agent>:<8 hex>`; always the id that the key's bytes give.
    pub id: KeyId,
    /// The key.
    pub key: PublicKey,
    /// When it was added, as written.
    pub added_at: String,
    /// Whether it may still sign; a retired key only verifies history.
    pub active: bool,
    /// When it is retired (`deactivate_at`), where that is decided; its agent's last key stays.
    pub deactivate_at: Option<Timestamp>,
    /// Until when its owner's card says that it signs.
    pub valid_until: Option<Timestamp>,
    /// Members this version doesn't know, kept.
    pub other: Object,
}

/// One agent in the list.
#[derive(Debug, Clone)]
pub struct TrustEntry {
    /// The tier; ATTESTED where a v3.0 file gives none.
    pub tier: Tier,
    /// Its keys.
    pub keys: Vec<TrustedKey>,
    /// Whether the operator has shut it out: then it sends nothing, whatever its tier.
    pub blocked: bool,
    /// Members this version doesn't know or reads only at need (tier_set_at, sas_verified, ...), kept.
    pub other: Object,
}

/// Why a trust list could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(pub String);

/// What a merge changed, one sentence each.
pub type MergeReport = Vec<String>;

/// Who is trusted, with which keys, at which tier.
#[derive(Debug, Clone, Default)]
pub struct TrustList {
    /// The agents by bare handle.
    pub agents: BTreeMap<AgentName, TrustEntry>,
    /// Top-level members this version doesn't know, kept.
    pub other: Object,
}

impl TrustList {
    /// Reads a trust.json.
    ///
    /// # Errors
    /// [`TrustError`] naming the agent and member that is wrong (also: a key_id that is not its key's).
    pub fn parse(text: &[u8]) -> Result<Self, TrustError> {
        let value = json::parse(text).map_err(|e| TrustError(format!("not acceptable JSON: {e}")))?;
        let Value::Object(mut other) = value else { return fail("it must be a JSON object") };
        let Some(Value::Object(members)) = other.remove("agents") else {
            return fail("agents is missing or not an object");
        };
        let mut agents = BTreeMap::new();
        for (handle, entry) in members {
            let agent = AgentName::parse(&handle).map_err(|e| TrustError(format!("agents: {e}")))?;
            let Value::Object(entry) = entry else {
                return fail(format!("agents.{agent}: must be an object"));
            };
            let entry = TrustEntry::read(&agent, entry)
                .map_err(|TrustError(problem)| TrustError(format!("agents.{agent}: {problem}")))?;
            if agents.insert(agent.clone(), entry).is_some() {
                return fail(format!(
                    "agents.{agent}: listed twice, as {agent} and as did:wire:{agent}; keep one"
                ));
            }
        }
        Ok(TrustList { agents, other })
    }
    /// The trust.json text: indented, ending in a newline; parse gives the same list again.
    pub fn to_json(&self) -> String {
        let mut list = self.other.clone();
        list.entry("version".to_owned()).or_insert_with(|| Value::Int("1".to_owned()));
        list.entry("schema_version".to_owned()).or_insert_with(|| Value::String("v3.1".to_owned()));
        let agents = self.agents.iter().map(|(name, entry)| (name.to_string(), entry.to_value()));
        list.insert("agents".to_owned(), Value::Object(agents.collect()));
        let mut out = String::new();
        write_indented(&mut out, &Value::Object(list), 0);
        out.push('\n');
        out
    }

    /// The list by which stored lines are judged: every key active and every tier the highest, because
    /// what was right when it was written stays right.
    pub fn as_history(&self) -> Self {
        let mut history = self.clone();
        for entry in history.agents.values_mut() {
            entry.tier = Tier::Trusted;
            entry.blocked = false;
            entry.keys.iter_mut().for_each(|key| key.active = true);
        }
        history
    }
    /// The key with this id, whoever's.
    pub fn key(&self, id: &KeyId) -> Option<&TrustedKey> {
        self.agents.get(&id.agent)?.keys.iter().find(|key| key.id == *id)
    }
    /// Takes over `other`'s agents and keys: new agents and keys are added, a key inactive on either
    /// side becomes inactive, an agent blocked on either side is blocked, tiers of known agents follow
    /// `other`. Nothing is removed.
    pub fn merge(&mut self, other: &TrustList) -> MergeReport {
        let mut report = MergeReport::new();
        for (key, value) in &other.other {
            self.other.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (agent, theirs) in &other.agents {
            match self.agents.get_mut(agent) {
                Some(ours) => ours.merge(agent, theirs, &mut report),
                None => {
                    let keys: Vec<_> = theirs.keys.iter().map(|key| key.id.to_string()).collect();
                    let keys = if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") };
                    report.push(format!("{agent} is new, {}, with {keys}", theirs.tier.as_str()));
                    self.agents.insert(agent.clone(), theirs.clone());
                }
            }
        }
        report
    }
}

impl TrustEntry {
    fn read(agent: &AgentName, mut other: Object) -> Result<Self, TrustError> {
        let tier = match other.remove("tier") {
            None => Tier::Attested,
            Some(Value::String(word)) => Tier::from_word(&word).ok_or_else(|| {
                TrustError(format!(
                    "{word:?} is no tier: it must be UNTRUSTED, VERIFIED, ATTESTED or TRUSTED"
                ))
            })?,
            Some(_) => return fail("tier must be a string"),
        };
        let listed = match other.remove("public_keys") {
            None => Vec::new(),
            Some(Value::Array(keys)) => keys,
            Some(_) => return fail("public_keys must be a list"),
        };
        let mut keys: Vec<TrustedKey> = Vec::with_capacity(listed.len());
        for (n, key) in listed.into_iter().enumerate() {
            let key = TrustedKey::read(agent, key)
                .map_err(|TrustError(problem)| TrustError(format!("public_keys[{n}]: {problem}")))?;
            if keys.iter().any(|known| known.id == key.id) {
                return fail(format!("public_keys[{n}]: {} is listed twice; keep one", key.id));
            }
            keys.push(key);
        }
        // A guess at what was meant could let in whom somebody shut out.
        let blocked = match other.remove(BLOCKED) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(blocked)) => blocked,
            Some(_) => return fail("blocked must be true or false"),
        };
        Ok(TrustEntry { tier, keys, blocked, other })
    }

    /// Its newest active key: the one that its short authentication strings are made of.
    pub fn newest_key(&self) -> Option<&TrustedKey> {
        let active = self.keys.iter().enumerate().filter(|(_, key)| key.active);
        active.max_by_key(|(place, key)| (key.added(), *place)).map(|(_, key)| key)
    }
    /// `sas_verified`
    pub fn sas_verified(&self) -> bool {
        self.other.get(SAS_VERIFIED) == Some(&Value::Bool(true))
    }
    /// Sets `sas_verified`.
    pub fn set_sas_verified(&mut self) {
        self.other.insert(SAS_VERIFIED.to_owned(), Value::Bool(true));
    }
    /// `successful_reciprocations`
    pub fn reciprocations(&self) -> u64 {
        let written = self.other.get(RECIPROCATIONS).and_then(Value::as_i64);
        written.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
    /// Sets `successful_reciprocations`.
    pub fn set_reciprocations(&mut self, count: u64) {
        self.other.insert(RECIPROCATIONS.to_owned(), Value::Int(count.to_string()));
    }
    /// Sets the tier, and `tier_set_at`.
    pub fn set_tier(&mut self, tier: Tier, now: Timestamp) {
        self.tier = tier;
        self.other.insert(TIER_SET_AT.to_owned(), Value::String(now.to_string()));
    }

    fn to_value(&self) -> Value {
        let mut members = self.other.clone();
        members.insert("tier".to_owned(), Value::String(self.tier.as_str().to_owned()));
        let keys = self.keys.iter().map(TrustedKey::to_value).collect();
        members.insert("public_keys".to_owned(), Value::Array(keys));
        if self.blocked {
            members.insert(BLOCKED.to_owned(), Value::Bool(true));
        }
        Value::Object(members)
    }

    fn merge(&mut self, agent: &AgentName, theirs: &TrustEntry, report: &mut MergeReport) {
        if self.tier != theirs.tier {
            report.push(format!("{agent} is {} now, was {}", theirs.tier.as_str(), self.tier.as_str()));
            self.tier = theirs.tier;
        }
        if theirs.blocked && !self.blocked {
            report.push(format!("{agent} is blocked"));
            self.blocked = true;
        }
        for key in &theirs.keys {
            match self.keys.iter_mut().find(|known| known.id == key.id) {
                None => {
                    let state = if key.active { "active" } else { "deactivated" };
                    report.push(format!("{} is a new key of {agent}, {state}", key.id));
                    self.keys.push(key.clone());
                }
                Some(known) if known.active && !key.active => {
                    report.push(format!("{} is deactivated", key.id));
                    known.active = false;
                }
                Some(_) => {}
            }
        }
        for (key, value) in &theirs.other {
            if self.other.get(key) != Some(value) {
                report.push(format!("{agent}: {key} is {} now", canonical::utf8(value)));
                self.other.insert(key.clone(), value.clone());
            }
        }
    }
}

impl TrustedKey {
    fn read(agent: &AgentName, value: Value) -> Result<Self, TrustError> {
        let Value::Object(mut other) = value else { return fail("must be an object") };
        let Some(Value::String(key)) = other.remove("key") else {
            return fail("key is missing or not a string");
        };
        let key = PublicKey::from_base64(&key).map_err(|e| TrustError(format!("key: {e}")))?;
        let Some(Value::String(written)) = other.remove("key_id") else {
            return fail("key_id is missing or not a string");
        };
        let written = KeyId::parse(&written).map_err(|e| TrustError(format!("key_id: {e}")))?;
        let id = key.id(agent);
        if written != id {
            return fail(format!("key_id is {written}, but the id of this key of {agent} is {id}"));
        }
        let added_at = match other.remove("added_at") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => return fail("added_at must be a string"),
        };
        let active = match other.remove("active") {
            None => true,
            Some(Value::Bool(active)) => active,
            // A guess at what was meant could trust a retired key.
            Some(_) => return fail("active must be true or false"),
        };
        let deactivate_at = take_time(&mut other, DEACTIVATE_AT)?;
        let valid_until = take_time(&mut other, VALID_UNTIL)?;
        Ok(TrustedKey { id, key, added_at, active, deactivate_at, valid_until, other })
    }

    /// A key that is active from now on.
    pub fn new(agent: &AgentName, key: PublicKey, now: Timestamp) -> Self {
        TrustedKey {
            id: key.id(agent),
            key,
            added_at: now.to_string(),
            active: true,
            deactivate_at: None,
            valid_until: None,
            other: Object::new(),
        }
    }
    /// `added_at`, where it is a time.
    pub fn added(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.added_at, true)
    }
    /// `deactivated_at`: when it was retired, where that is known.
    pub fn deactivated_at(&self) -> Option<&str> {
        self.other.get(DEACTIVATED_AT).and_then(Value::as_str)
    }
    /// Retires it.
    pub fn deactivate(&mut self, now: Timestamp) {
        self.active = false;
        self.deactivate_at = None;
        self.other.insert(DEACTIVATED_AT.to_owned(), Value::String(now.to_string()));
    }

    fn to_value(&self) -> Value {
        let mut members = self.other.clone();
        members.insert("key_id".to_owned(), Value::String(self.id.to_string()));
        members.insert("key".to_owned(), Value::String(keys::encode_base64(&self.key.to_bytes())));
        if !self.added_at.is_empty() {
            members.insert("added_at".to_owned(), Value::String(self.added_at.clone()));
        }
        members.insert("active".to_owned(), Value::Bool(self.active));
        for (name, time) in [(DEACTIVATE_AT, self.deactivate_at), (VALID_UNTIL, self.valid_until)] {
            if let Some(time) = time {
                members.insert(name.to_owned(), Value::String(time.to_string()));
            }
        }
        Value::Object(members)
    }
}

/// Takes out a member that is a time, or null, or absent.
fn take_time(members: &mut Object, name: &str) -> Result<Option<Timestamp>, TrustError> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match Timestamp::parse(&text, true) {
            Some(time) => Ok(Some(time)),
            None => fail(format!("{name} {text:?} is not ISO 8601")),
        },
        Some(_) => fail(format!("{name} must be a string")),
    }
}

fn fail<T>(problem: impl Into<String>) -> Result<T, TrustError> {
    Err(TrustError(problem.into()))
}

// Recursion is bounded: no parsed Value is deeper than json::MAX_DEPTH.
fn write_indented(out: &mut String, value: &Value, depth: usize) {
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (n, item) in items.iter().enumerate() {
                out.push(if n == 0 { '[' } else { ',' });
                new_line(out, depth + 1);
                write_indented(out, item, depth + 1);
            }
            new_line(out, depth);
            out.push(']');
        }
        Value::Object(members) if !members.is_empty() => {
            for (n, (key, member)) in members.iter().enumerate() {
                out.push(if n == 0 { '{' } else { ',' });
                new_line(out, depth + 1);
                canonical::write_utf8_string(out, key);
                out.push_str(": ");
                write_indented(out, member, depth + 1);
            }
            new_line(out, depth);
            out.push('}');
        }
        _ => canonical::write_utf8(out, value),
    }
}
