//! Dead-drop messages: v2 shape, v3 and v3.1 signatures. Format: PROTOCOLS section 2.

use super::json::Object;
use super::keys::{KeyId, SigningKey};
use super::name::AgentName;
use super::time::Timestamp;
use super::trust::{Tier, TrustList};

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
    // private: signature members, parsed lazily
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
        todo!()
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
}

/// Which signature to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureVersion {
    /// Over the canonical message.
    V3,
    /// Over `event_id`; adds `event_id`, and `kind` where the type implies one.
    V31,
}

impl Message {
    /// Checks an object's shape (v2 shape and the v3.1 additions).
    ///
    /// # Errors
    /// [`MessageError::Schema`], `AckNeedsParent`, `ProposalNeedsAckRequired`.
    pub fn from_object(object: Object) -> Result<Self, MessageError> {
        let _ = object;
        todo!()
    }
    /// Whether it carries any of `signature`, `public_key_id`.
    pub fn is_signed(&self) -> bool {
        todo!()
    }
    /// Checks the signature against the trust list, then the tier.
    ///
    /// # Errors
    /// `Unsigned`, `FromMismatch`, `UnknownKey`, `RevokedKey`, `EventId`, `Signature`, `Tier`, in this order.
    pub fn verify(self, trust: &TrustList) -> Result<VerifiedMessage, MessageError> {
        let _ = trust;
        todo!()
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
    let _ = (object, author, key, version, now);
    todo!()
}
