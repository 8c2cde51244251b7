//! Voice handoff v1. Format: PROTOCOLS section 3.

use super::json::{JsonError, Object, Value};
use super::keys::PairSecret;
use super::name::AgentName;
use super::time::Timestamp;

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
        todo!()
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
        let _ = text;
        todo!()
    }
    /// Checks the HMAC, in constant time.
    ///
    /// # Errors
    /// `Hmac`.
    pub fn verify(&self, secret: &PairSecret) -> Result<(), HandoffError> {
        let _ = secret;
        todo!()
    }
    /// # Errors
    /// `Expired` when `now` is past `expires_at`; the instant itself is in time.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), HandoffError> {
        let _ = now;
        todo!()
    }
}

/// Makes a signed payload (one JSON object, no newline).
///
/// # Errors
/// `Schema` or `ToItself` where the parts make no valid handoff.
pub fn create(new: &NewHandoff, secret: &PairSecret, now: Timestamp) -> Result<String, HandoffError> {
    let _ = (new, secret, now);
    todo!()
}
