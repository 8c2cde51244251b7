//! Voice handoff v1. Format: PROTOCOLS section 3.

use super::canonical;
use super::json::{self, JsonError, JsonErrorKind, Object, Value};
use super::keys::{self, PairSecret};
use super::name::AgentName;
use super::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A handoff whose shape is right; its HMAC has not been checked.
#[derive(Debug, Clone)]
pub struct Handoff {
    /// `handoff_id`
    pub id: String,
    /// The sender.
    pub from: AgentName,
    /// Who may claim it; never the sender.
    pub to: AgentName,
    /// `caller_hash`: 16 lower-case hex digits.
    pub caller_hash: String,
    /// When it was started.
    pub initiated_at: Timestamp,
    /// Until when (inclusive) it may be claimed.
    pub expires_at: Timestamp,
    /// sha256 of ascii-canonical without `hmac`: the same content however it is spaced.
    pub content: [u8; 32],
    /// All members, as received.
    pub object: Object,
}

/// The rule that a payload breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoffError {
    /// `json` or `duplicate-key`
    #[error("not acceptable JSON: {0}")]
    Json(JsonError),
    /// `version`
    #[error("protocol_version must be 1")]
    Version,
    /// `self`
    #[error("from_agent and to_agent are the same")]
    ToItself,
    /// `schema`
    #[error("{0}")]
    Schema(String),
    /// `hmac`
    #[error("the hmac does not verify with the secret of {0} and {1}")]
    Hmac(AgentName, AgentName),
    /// `expired`
    #[error("expired at {0}")]
    Expired(Timestamp),
}

impl HandoffError {
    /// The broken rule's name.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Json(JsonError { kind: JsonErrorKind::DuplicateKey(_), .. }) => "duplicate-key",
            Self::Json(_) => "json",
            Self::Version => "version",
            Self::ToItself => "self",
            Self::Schema(_) => "schema",
            Self::Hmac(..) => "hmac",
            Self::Expired(_) => "expired",
        }
    }
}

/// What a new handoff says.
#[derive(Debug, Clone)]
pub struct NewHandoff {
    /// The sender.
    pub from: AgentName,
    /// The receiver.
    pub to: AgentName,
    /// The caller's id; only its hash is sent.
    pub caller: String,
    /// Why.
    pub reason: String,
    /// Seconds it may be claimed for.
    pub ttl_seconds: i64,
    /// `[{role, text, ...}]`
    pub transcript: Vec<Value>,
}

impl Handoff {
    /// Reads a payload and checks its shape.
    ///
    /// # Errors
    /// `Json`, `Version`, `Schema`, `ToItself`.
    pub fn parse(text: &[u8]) -> Result<Self, HandoffError> {
        match json::parse(text).map_err(HandoffError::Json)? {
            Value::Object(object) => Self::from_object(object),
            _ => Err(HandoffError::Json(JsonError { kind: JsonErrorKind::NotAnObject, at: 0 })),
        }
    }
    /// Checks the HMAC, in constant time.
    ///
    /// # Errors
    /// `Hmac`.
    pub fn verify(&self, secret: &PairSecret) -> Result<(), HandoffError> {
        let given = self.object.get(HMAC).and_then(Value::as_str).and_then(keys::decode_base64::<32>);
        let signed = canonical::ascii_without(&self.object, &[HMAC]);
        match given {
            Some(given) if mac(secret, &signed).verify_slice(&given).is_ok() => Ok(()),
            _ => Err(HandoffError::Hmac(self.from.clone(), self.to.clone())),
        }
    }
    /// # Errors
    /// `Expired` when `now` is past `expires_at`; the instant itself is in time.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), HandoffError> {
        if now > self.expires_at { Err(HandoffError::Expired(self.expires_at)) } else { Ok(()) }
    }

    fn from_object(object: Object) -> Result<Self, HandoffError> {
        if object.get("protocol_version").and_then(Value::as_i64) != Some(1) {
            return Err(HandoffError::Version);
        }
        let string = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => schema(format!("{name} must be a string")),
            None => schema(format!("{name} is missing")),
        };
        let agent = |name: &str| {
            AgentName::parse(string(name)?).map_err(|e| HandoffError::Schema(format!("{name}: {e}")))
        };
        let instant = |name: &str| {
            let text = string(name)?;
            Timestamp::parse(text, false).ok_or_else(|| {
                HandoffError::Schema(format!("{name} {text:?} is not ISO 8601 with Z or an offset"))
            })
        };
        let (from, to) = (agent("from_agent")?, agent("to_agent")?);
        if from == to {
            return Err(HandoffError::ToItself);
        }
        let id = string("handoff_id")?;
        // The id becomes part of file names.
        if id.is_empty() || id.chars().any(|c| c == '/' || c.is_control()) {
            return schema("handoff_id must be a name without / and control characters");
        }
        let caller_hash = string("caller_hash")?;
        if caller_hash.len() != 16 || !caller_hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return schema("caller_hash must be 16 lower-case hex digits");
        }
        string("reason")?;
        string(HMAC)?;
        let (initiated_at, expires_at) = (instant("initiated_at")?, instant("expires_at")?);
        if expires_at <= initiated_at {
            return schema("expires_at must be after initiated_at");
        }
        check_transcript(object.get("transcript"))?;
        let content = Sha256::digest(canonical::ascii_without(&object, &[HMAC])).into();
        Ok(Handoff {
            id: id.to_owned(),
            from,
            to,
            caller_hash: caller_hash.to_owned(),
            initiated_at,
            expires_at,
            content,
            object,
        })
    }
}

const HMAC: &str = "hmac";

fn check_transcript(transcript: Option<&Value>) -> Result<(), HandoffError> {
    let Some(turns) = transcript.and_then(Value::as_array) else {
        return schema("transcript is missing or not a list");
    };
    for (n, turn) in turns.iter().enumerate() {
        let Some(turn) = turn.as_object() else {
            return schema(format!("transcript[{n}] must be an object"));
        };
        if !matches!(turn.get("role").and_then(Value::as_str), Some("user" | "assistant" | "system")) {
            return schema(format!("transcript[{n}].role must be user, assistant or system"));
        }
        if turn.get("text").and_then(Value::as_str).is_none() {
            return schema(format!("transcript[{n}].text must be a string"));
        }
    }
    Ok(())
}

fn schema<T>(problem: impl Into<String>) -> Result<T, HandoffError> {
    Err(HandoffError::Schema(problem.into()))
}

fn mac(secret: &PairSecret, signed: &str) -> Hmac<Sha256> {
    // An HMAC takes a key of any length.
    #[allow(clippy::unwrap_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    mac
}

/// The `caller_hash` of a caller's id: the first 16 hex digits of its sha256.
pub fn caller_hash(caller: &str) -> String {
    keys::hex(&Sha256::digest(caller)[..8])
}

/// Makes a signed payload (one JSON object, no newline).
///
/// # Errors
/// `Schema` or `ToItself` where the parts make no valid handoff.
pub fn create(new: &NewHandoff, secret: &PairSecret, now: Timestamp) -> Result<String, HandoffError> {
    let hash = caller_hash(&new.caller);
    let id = format!("{}-{}-{}-{hash}", now.unix_seconds(), new.from, new.to);
    let text = |text: &str| Value::String(text.to_owned());
    let mut object = Object::from(
        [
            ("protocol_version", Value::Int("1".to_owned())),
            ("handoff_id", Value::String(id)),
            ("caller_hash", Value::String(hash)),
            ("from_agent", text(new.from.as_str())),
            ("to_agent", text(new.to.as_str())),
            ("reason", text(&new.reason)),
            ("initiated_at", Value::String(now.to_string())),
            ("expires_at", Value::String(now.plus_seconds(new.ttl_seconds).to_string())),
            ("transcript", Value::Array(new.transcript.clone())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let signature = mac(secret, &canonical::ascii_without(&object, &[HMAC])).finalize().into_bytes();
    object.insert(HMAC.to_owned(), Value::String(keys::encode_base64(&signature)));
    let handoff = Handoff::from_object(object)?;
    Ok(canonical::ascii_without(&handoff.object, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(from: &str, to: &str) -> NewHandoff {
        NewHandoff {
            from: AgentName::parse(from).expect("a name"),
            to: AgentName::parse(to).expect("a name"),
            caller: "+15550001234".to_owned(),
            reason: "r\u{e5}son".to_owned(),
            ttl_seconds: 60,
            transcript: Vec::new(),
        }
    }

    fn secret() -> PairSecret {
        PairSecret::from_file_bytes(b"a secret\n")
    }

    const NOW: Timestamp = Timestamp(1_776_765_600_500_000);

    #[test]
    fn what_is_made_is_accepted_with_its_secret_only() {
        let text = create(&new("bob", "alice"), &secret(), NOW).expect("valid");
        assert!(text.is_ascii() && !text.contains("15550001234"));
        let handoff = Handoff::parse(text.as_bytes()).expect("what was made");
        assert_eq!(handoff.id, format!("1776765600-bob-alice-{}", caller_hash("+15550001234")));
        assert_eq!(handoff.verify(&secret()), Ok(()));
        assert_eq!(handoff.verify(&PairSecret::from_file_bytes(b"a secret")), Ok(()));
        let error = handoff.verify(&PairSecret::from_file_bytes(b"another")).expect_err("wrong");
        assert_eq!(error.rule(), "hmac");
        assert_eq!(handoff.check_expiry(handoff.expires_at), Ok(()));
        let late = Timestamp(handoff.expires_at.0 + 1);
        assert_eq!(handoff.check_expiry(late), Err(HandoffError::Expired(handoff.expires_at)));
    }

    #[test]
    fn parts_that_make_no_handoff_are_refused() {
        let made = |new: &NewHandoff| create(new, &secret(), NOW).map_err(|e| e.rule());
        assert_eq!(made(&new("bob", "did:wire:bob")), Err("self"));
        assert_eq!(made(&NewHandoff { ttl_seconds: 0, ..new("bob", "alice") }), Err("schema"));
        let transcript = vec![Value::String("hello".to_owned())];
        assert_eq!(made(&NewHandoff { transcript, ..new("bob", "alice") }), Err("schema"));
    }

    #[test]
    fn the_content_is_the_same_however_it_is_spaced_and_signed() {
        let text = create(&new("bob", "alice"), &secret(), NOW).expect("valid");
        let other = create(&new("bob", "alice"), &PairSecret::from_file_bytes(b"x"), NOW).expect("valid");
        let spaced = text.replace("\",\"", "\" ,\n \"");
        let content = |text: &str| Handoff::parse(text.as_bytes()).expect("valid").content;
        assert_ne!(spaced, text);
        assert_eq!(content(&spaced), content(&text));
        assert_eq!(content(&other), content(&text));
        assert_ne!(content(&text.replace("1776765600-", "1776765601-")), content(&text));
    }

    #[test]
    fn what_is_wrong_in_a_payload_breaks_its_rule() {
        let good = create(&new("bob", "alice"), &secret(), NOW).expect("valid");
        for (from, to, rule) in [
            ("\"protocol_version\":1", "\"protocol_version\":1.0", "version"),
            ("\"protocol_version\":1", "\"protocol_version\":\"1\"", "version"),
            ("\"protocol_version\":1", "\"protocol_version\":true", "version"),
            ("\"to_agent\":\"alice\"", "\"to_agent\":\"did:wire:bob\"", "self"),
            ("\"to_agent\":\"alice\"", "\"to_agent\":\"a/b\"", "schema"),
            ("1776765600-bob", "../1776765600-bob", "schema"),
            ("00.500000Z\",\"proto", "00.500000\",\"proto", "schema"),
            ("{", "{\"reason\":\"\",", "duplicate-key"),
            ("{", "[{", "json"),
        ] {
            let wrong = good.replacen(from, to, 1);
            assert_ne!(wrong, good, "{from}");
            let error = Handoff::parse(wrong.as_bytes()).expect_err(to);
            assert_eq!(error.rule(), rule, "{to}: {error}");
        }
    }
}
