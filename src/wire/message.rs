//! Dead-drop messages: v2 shape, v3 and v3.1 signatures. Format: PROTOCOLS section 2.

#[cfg(test)]
mod tests;

use super::canonical;
use super::json::{Object, Value};
use super::keys::{self, KeyId, SigningKey};
use super::name::AgentName;
use super::time::Timestamp;
use super::trust::{Tier, TrustList};
use sha2::{Digest, Sha256};

/// What makes a message itself, for replay: sha256 of utf8-canonical without `event_id`,
/// `public_key_id` and `signature` (for v3.1 that is the event_id).
pub type MessageId = [u8; 32];

/// A message whose shape is right; its signature has not been checked.
#[derive(Debug, Clone)]
pub struct Message {
    /// When it was written, by its author's clock.
    pub timestamp: Timestamp,
    /// Its author by bare handle.
    pub from: AgentName,
    /// The type's word.
    pub message_type: String,
    /// The integer kind, given or implied by the type.
    pub kind: Option<u32>,
    /// The thread it belongs to.
    pub correlation_id: String,
    /// Length of the body in bytes: of the string, or of its canonical form.
    pub body_bytes: usize,
    /// See [`MessageId`].
    pub id: MessageId,
    /// All members, as received.
    pub object: Object,
    /// The bytes that `id` is the hash of.
    signed: String,
}

/// The rule that a message breaks. Each variant's rule name stands in `rule()`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// `schema`: a member is missing or of the wrong form; the sentence says which.
    #[error("{0}")]
    Schema(String),
    /// `ack-needs-parent`
    #[error("an ack's correlation_id must be its parent's, not its own timestamp")]
    AckNeedsParent,
    /// `proposal-needs-ack-required`
    #[error("a proposal must have ack_required: true")]
    ProposalNeedsAckRequired,
    /// `unsigned`
    #[error("the message has no signature")]
    Unsigned,
    /// `from-mismatch`
    #[error("from is {from} but the key is {key}")]
    FromMismatch {
        /// `from`
        from: String,
        /// `public_key_id`
        key: String,
    },
    /// `unknown-key`
    #[error("the key {0} is not in the trust list")]
    UnknownKey(String),
    /// `revoked-key`
    #[error("the key {0} is deactivated")]
    RevokedKey(String),
    /// `event-id`
    #[error("event_id is not the sha256 of the message")]
    EventId,
    /// `signature`
    #[error("the signature does not verify with {0}")]
    Signature(String),
    /// `tier`: the operator has shut the author out.
    #[error("{0} is blocked")]
    Blocked(AgentName),
    /// `tier`
    #[error("{agent} is {tier} and may not send {what}", tier = .tier.as_str())]
    Tier {
        /// Whose tier.
        agent: AgentName,
        /// The tier.
        tier: Tier,
        /// Type and kind.
        what: String,
    },
}

impl MessageError {
    /// The broken rule's name.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Schema(_) => "schema",
            Self::AckNeedsParent => "ack-needs-parent",
            Self::ProposalNeedsAckRequired => "proposal-needs-ack-required",
            Self::Unsigned => "unsigned",
            Self::FromMismatch { .. } => "from-mismatch",
            Self::UnknownKey(_) => "unknown-key",
            Self::RevokedKey(_) => "revoked-key",
            Self::EventId => "event-id",
            Self::Signature(_) => "signature",
            Self::Blocked(_) | Self::Tier { .. } => "tier",
        }
    }
}

/// A message that is signed by the trusted, active key of its `from`, and whose tier allows its kind.
#[derive(Debug, Clone)]
pub struct VerifiedMessage {
    message: Message,
    tier: Tier,
    key: KeyId,
}

impl VerifiedMessage {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }
    /// Its author's tier at the time of the check.
    pub fn tier(&self) -> Tier {
        self.tier
    }
    /// The key that signed it.
    pub fn key(&self) -> &KeyId {
        &self.key
    }
    /// The message.
    pub fn into_message(self) -> Message {
        self.message
    }
}

/// Which signature to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureVersion {
    /// Over the canonical message.
    V3,
    /// Over `event_id`; adds `event_id`, and `kind` where the type implies one.
    V31,
}

const EVENT_ID: &str = "event_id";
const PUBLIC_KEY_ID: &str = "public_key_id";
const SIGNATURE: &str = "signature";
/// What neither an event_id nor a signature covers.
const UNSIGNED_MEMBERS: [&str; 3] = [EVENT_ID, PUBLIC_KEY_ID, SIGNATURE];

/// Every type with the kind that it implies.
const TYPES: [(&str, Option<u32>); 15] = [
    ("ship", Some(1200)),
    ("request", None),
    ("warning", Some(1201)),
    ("feedback", Some(1300)),
    ("incident", Some(1400)),
    ("ack", Some(1500)),
    ("proposal", Some(1600)),
    ("heartbeat", Some(100)),
    ("correction", Some(1700)),
    ("shutdown", Some(1800)),
    ("claim", Some(1100)),
    ("release", Some(1101)),
    ("decision", Some(1)),
    ("agent_card", Some(10000)),
    ("trust_tier_announcement", Some(10001)),
];

/// The types that imply a kind, with it.
pub(super) fn types_with_kinds() -> impl Iterator<Item = (&'static str, u32)> {
    TYPES.iter().filter_map(|(word, kind)| Some((*word, (*kind)?)))
}

impl Message {
    /// Checks an object's shape (v2 shape and the v3.1 additions).
    ///
    /// # Errors
    /// [`MessageError::Schema`], `AckNeedsParent`, `ProposalNeedsAckRequired`.
    pub fn from_object(object: Object) -> Result<Self, MessageError> {
        let members = Members(&object);
        let written_at = members.string("timestamp")?;
        // White space round it is for the signature to judge: it may be what was signed.
        let timestamp = Timestamp::parse(written_at.trim_ascii(), true)
            .ok_or_else(|| MessageError::Schema(format!("timestamp {written_at:?} is not ISO 8601")))?;
        let from = AgentName::parse(members.string("from")?)
            .map_err(|e| MessageError::Schema(format!("from: {e}")))?;
        let message_type = members.string("type")?;
        let kind = checked_kind(message_type, object.get("kind"))?;
        members.string("subject")?;
        let body = members.required("body")?;
        let correlation_id = members.string("correlation_id")?;
        if correlation_id.is_empty() {
            return schema("correlation_id must not be empty");
        }
        members.check_usual()?;
        if message_type == "ack" && correlation_id == written_at {
            return Err(MessageError::AckNeedsParent);
        }
        if message_type == "proposal" && object.get("ack_required") != Some(&Value::Bool(true)) {
            return Err(MessageError::ProposalNeedsAckRequired);
        }
        let signed = canonical::utf8_without(&object, &UNSIGNED_MEMBERS);
        Ok(Message {
            timestamp,
            from,
            message_type: message_type.to_owned(),
            kind,
            correlation_id: correlation_id.to_owned(),
            body_bytes: body.as_str().map_or_else(|| canonical::utf8(body).len(), str::len),
            id: Sha256::digest(&signed).into(),
            object,
            signed,
        })
    }
    /// Whether it carries any of `signature`, `public_key_id`.
    pub fn is_signed(&self) -> bool {
        is_signed(&self.object)
    }
    /// Judges a verified message once more by a trust list that has changed since: its key and its tier.
    ///
    /// # Errors
    /// `UnknownKey`, `RevokedKey`, `Tier`.
    pub fn recheck(&self, key: &KeyId, trust: &TrustList) -> Result<Tier, MessageError> {
        let entry = trust.agents.get(&self.from);
        let known = entry.and_then(|entry| Some((entry, entry.keys.iter().find(|known| known.id == *key)?)));
        let Some((entry, known)) = known else { return Err(MessageError::UnknownKey(key.to_string())) };
        self.check_not_blocked(trust)?;
        if !known.active {
            return Err(MessageError::RevokedKey(key.to_string()));
        }
        self.check_tier(entry.tier)?;
        Ok(entry.tier)
    }
    /// What holds for unsigned messages too.
    ///
    /// # Errors
    /// `Blocked`.
    pub fn check_not_blocked(&self, trust: &TrustList) -> Result<(), MessageError> {
        let blocked = trust.agents.get(&self.from).is_some_and(|entry| entry.blocked);
        if blocked { Err(MessageError::Blocked(self.from.clone())) } else { Ok(()) }
    }
    fn check_tier(&self, tier: Tier) -> Result<(), MessageError> {
        if tier.may_send(&self.message_type, self.kind) {
            return Ok(());
        }
        let kind = self.kind.map_or_else(|| "no kind".to_owned(), |kind| format!("kind {kind}"));
        let what = format!("{} ({kind})", self.message_type);
        Err(MessageError::Tier { agent: self.from.clone(), tier, what })
    }
    /// A member that is a string: `subject`, ...
    pub fn text(&self, member: &str) -> Option<&str> {
        self.object.get(member)?.as_str()
    }
    /// `body`
    pub fn body(&self) -> &Value {
        self.object.get("body").unwrap_or(&Value::Null)
    }
    /// Whether its author asks for an ack.
    pub fn ack_required(&self) -> bool {
        self.object.get("ack_required").and_then(Value::as_bool).unwrap_or(false)
    }
    /// How many `refs` it has.
    pub fn refs(&self) -> usize {
        self.object.get("refs").and_then(Value::as_array).map_or(0, <[Value]>::len)
    }
    /// The handles in `to`, `*` among them; `None` where it has none.
    pub fn to(&self) -> Option<impl Iterator<Item = &str>> {
        Some(self.object.get("to")?.as_array()?.iter().filter_map(Value::as_str))
    }
    /// Whether it is a heartbeat, which starts and answers nothing.
    pub fn is_heartbeat(&self) -> bool {
        self.kind == Some(100)
    }
    /// Its id in hex: the event_id of a v3.1 message.
    pub fn id_hex(&self) -> String {
        keys::hex(&self.id)
    }
    /// Checks the signature against the trust list, then the tier.
    ///
    /// # Errors
    /// `Unsigned`, `FromMismatch`, `UnknownKey`, `Blocked`, `RevokedKey`, `EventId`, `Signature`, `Tier`, in this
    /// order.
    pub fn verify(mut self, trust: &TrustList) -> Result<VerifiedMessage, MessageError> {
        let member = |name| self.object.get(name).and_then(Value::as_str);
        let (Some(signature), Some(key_text)) = (member(SIGNATURE), member(PUBLIC_KEY_ID)) else {
            return Err(MessageError::Unsigned);
        };
        let unknown = || MessageError::UnknownKey(key_text.to_owned());
        let key_id = KeyId::parse(key_text).map_err(|_| unknown())?;
        if key_id.agent != self.from {
            return Err(MessageError::FromMismatch { from: self.from.to_string(), key: key_text.to_owned() });
        }
        let entry = trust.agents.get(&self.from).ok_or_else(unknown)?;
        self.check_not_blocked(trust)?;
        let key = entry.keys.iter().find(|key| key.id == key_id).ok_or_else(unknown)?;
        if !key.active {
            return Err(MessageError::RevokedKey(key_text.to_owned()));
        }
        let signed = match self.object.get(EVENT_ID) {
            None => self.signed.as_bytes(),
            Some(given) if given.as_str() == Some(&keys::hex(&self.id)) => &self.id,
            Some(_) => return Err(MessageError::EventId),
        };
        let verifies =
            keys::decode_base64(signature).is_some_and(|signature| key.key.verify_strict(signed, &signature));
        if !verifies {
            return Err(MessageError::Signature(key_text.to_owned()));
        }
        let tier = entry.tier;
        self.check_tier(tier)?;
        self.signed = String::new();
        Ok(VerifiedMessage { message: self, tier, key: key_id })
    }
}

/// Whether an object carries any of `signature`, `public_key_id`.
pub fn is_signed(object: &Object) -> bool {
    object.contains_key(SIGNATURE) || object.contains_key(PUBLIC_KEY_ID)
}

/// The kind that a message has: given, or implied by its type.
fn checked_kind(message_type: &str, given: Option<&Value>) -> Result<Option<u32>, MessageError> {
    let known = TYPES.iter().find(|(word, _)| *word == message_type);
    let Some(given) = given else {
        return match known {
            Some((_, implied)) => Ok(*implied),
            None => schema(format!(
                "type {message_type:?} is not known: use one of {}, or give a kind of its own",
                TYPES.map(|(word, _)| word).join(", ")
            )),
        };
    };
    let Some(kind) = given.as_i64().and_then(|kind| u32::try_from(kind).ok()) else {
        return schema("kind must be an integer");
    };
    if let Some((_, Some(implied))) = known {
        // Tiers go by kind and readers by type: a claim under another kind would pass both.
        return if kind == *implied {
            Ok(Some(kind))
        } else {
            schema(format!("type {message_type} has kind {implied}, not {kind}"))
        };
    }
    if let Some((word, _)) = TYPES.iter().find(|(_, implied)| *implied == Some(kind)) {
        return schema(format!("kind {kind} is {word}, not {message_type}"));
    }
    if (1000..40000).contains(&kind) {
        Ok(Some(kind))
    } else {
        schema(format!("kind {kind} is in no range: use 1000 to 39999"))
    }
}

fn schema<T>(problem: impl Into<String>) -> Result<T, MessageError> {
    Err(MessageError::Schema(problem.into()))
}

/// A message's members, read with the sentence for what is wrong with them.
struct Members<'a>(&'a Object);

impl<'a> Members<'a> {
    fn required(&self, name: &str) -> Result<&'a Value, MessageError> {
        self.0.get(name).ok_or_else(|| MessageError::Schema(format!("{name} is missing")))
    }

    fn string(&self, name: &str) -> Result<&'a str, MessageError> {
        self.required(name)?.as_str().ok_or_else(|| MessageError::Schema(format!("{name} must be a string")))
    }

    /// The members that may be absent.
    fn check_usual(&self) -> Result<(), MessageError> {
        if self.0.get("refs").is_some_and(|refs| refs.as_array().is_none()) {
            return schema("refs must be a list");
        }
        let priorities = ["low", "medium", "high", "normal"];
        let is_priority = |given: &Value| given.as_str().is_some_and(|word| priorities.contains(&word));
        if self.0.get("priority").is_some_and(|given| !is_priority(given)) {
            return schema("priority must be low, medium, normal or high");
        }
        if self.0.get("ack_required").is_some_and(|given| given.as_bool().is_none()) {
            return schema("ack_required must be true or false");
        }
        for name in [PUBLIC_KEY_ID, SIGNATURE] {
            if self.0.get(name).is_some_and(|given| given.as_str().is_none()) {
                return schema(format!("{name} must be a string"));
            }
        }
        let Some(to) = self.0.get("to") else { return Ok(()) };
        let Some(to) = to.as_array() else {
            return schema("to must be a list of handles, or [\"*\"] for everyone");
        };
        for handle in to {
            let Some(handle) = handle.as_str() else {
                return schema("to must hold handles, each a string");
            };
            if handle != "*" {
                AgentName::parse(handle).map_err(|e| MessageError::Schema(format!("to: {e}")))?;
            }
        }
        Ok(())
    }
}

/// Completes and signs a message: fills `from` (where absent), `timestamp`, `correlation_id` (= timestamp),
/// `refs`, `priority`, `ack_required` where absent, then signs. Returns the line, without newline, with
/// the members in the usual order.
///
/// # Errors
/// The shape errors of [`Message::from_object`]; `FromMismatch` where `from` is somebody else.
pub fn sign(
    object: Object,
    author: &AgentName,
    key: &SigningKey,
    version: SignatureVersion,
    now: Timestamp,
) -> Result<String, MessageError> {
    sign_message(object, author, key, version, now).map(|(_, line)| line)
}

/// The same, and the message.
///
/// # Errors
/// As [`sign`].
pub fn sign_message(
    mut object: Object,
    author: &AgentName,
    key: &SigningKey,
    version: SignatureVersion,
    now: Timestamp,
) -> Result<(Message, String), MessageError> {
    let id = key.public().id(author).to_string();
    for name in UNSIGNED_MEMBERS {
        object.remove(name);
    }
    let mut fill = |name: &str, value: Value| object.entry(name.to_owned()).or_insert(value).clone();
    let from = fill("from", Value::String(author.to_string()));
    if from.as_str().and_then(|from| AgentName::parse(from).ok()).as_ref() != Some(author) {
        let from = from.as_str().map_or_else(|| canonical::utf8(&from), str::to_owned);
        return Err(MessageError::FromMismatch { from, key: id });
    }
    let timestamp = fill("timestamp", Value::String(now.to_string()));
    fill("correlation_id", timestamp);
    fill("refs", Value::Array(Vec::new()));
    fill("priority", Value::String("medium".to_owned()));
    let message_type = object.get("type").and_then(Value::as_str).unwrap_or_default();
    let (is_proposal, implied) = (
        message_type == "proposal",
        TYPES.iter().find(|(word, _)| *word == message_type).and_then(|(_, implied)| *implied),
    );
    object.entry("ack_required".to_owned()).or_insert(Value::Bool(is_proposal));
    if let (SignatureVersion::V31, Some(kind)) = (version, implied) {
        object.entry("kind".to_owned()).or_insert_with(|| Value::Int(kind.to_string()));
    }
    let mut message = Message::from_object(object)?;
    let signature = match version {
        SignatureVersion::V3 => key.sign(message.signed.as_bytes()),
        SignatureVersion::V31 => {
            message.object.insert(EVENT_ID.to_owned(), Value::String(keys::hex(&message.id)));
            key.sign(&message.id)
        }
    };
    message.object.insert(PUBLIC_KEY_ID.to_owned(), Value::String(id));
    message.object.insert(SIGNATURE.to_owned(), Value::String(keys::encode_base64(&signature)));
    let line = in_usual_order(&message.object);
    Ok((message, line))
}

/// The line as the protocol's own programs order it: who and what first, the signature last.
fn in_usual_order(object: &Object) -> String {
    const HEAD: [&str; 11] = [
        "timestamp",
        "from",
        "to",
        "type",
        "kind",
        "subject",
        "body",
        "refs",
        "priority",
        "correlation_id",
        "ack_required",
    ];
    let others = object
        .keys()
        .map(String::as_str)
        .filter(|key| !HEAD.contains(key) && !UNSIGNED_MEMBERS.contains(key));
    let mut line = String::with_capacity(512);
    for name in HEAD.into_iter().chain(others).chain(UNSIGNED_MEMBERS) {
        if let Some(value) = object.get(name) {
            line.push(if line.is_empty() { '{' } else { ',' });
            canonical::write_utf8_string(&mut line, name);
            line.push(':');
            canonical::write_utf8(&mut line, value);
        }
    }
    line.push('}');
    line
}
