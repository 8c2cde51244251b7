//! The names of the rules, and the errno with which breaking each one fails.

use crate::wire::handoff::HandoffError;
use crate::wire::json::{JsonError, JsonErrorKind};
use crate::wire::letter::{self, LetterError};
use crate::wire::message::MessageError;

// macOS has no key errnos; EAUTH is the nearest text an agent can read there.
#[cfg(target_os = "macos")]
mod key_errno {
    pub const REJECTED: i32 = libc::EAUTH;
    pub const REVOKED: i32 = libc::EAUTH;
    pub const EXPIRED: i32 = libc::EAUTH;
    pub fn name(_: i32) -> &'static str {
        "EAUTH"
    }
}
#[cfg(not(target_os = "macos"))]
mod key_errno {
    pub const REJECTED: i32 = libc::EKEYREJECTED;
    pub const REVOKED: i32 = libc::EKEYREVOKED;
    pub const EXPIRED: i32 = libc::EKEYEXPIRED;
    pub fn name(errno: i32) -> &'static str {
        match errno {
            REJECTED => "EKEYREJECTED",
            REVOKED => "EKEYREVOKED",
            _ => "EKEYEXPIRED",
        }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident $name:literal $errno:expr;)*) => {
        /// A rule, named as in refusals.jsonl.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Rule] = &[$(Rule::$variant,)*];

            /// The rule's name.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }

            /// The errno that breaking it gives.
            pub fn errno(self) -> i32 {
                match self { $(Rule::$variant => $errno,)* }
            }
        }
    };
}

impl Rule {
    /// The errno's symbolic name.
    pub fn errno_name(self) -> &'static str {
        match self.errno() {
            libc::EPERM => "EPERM",
            libc::EBADMSG => "EBADMSG",
            libc::EACCES => "EACCES",
            libc::EEXIST => "EEXIST",
            libc::EMSGSIZE => "EMSGSIZE",
            libc::EDQUOT => "EDQUOT",
            libc::ETIME => "ETIME",
            libc::EROFS => "EROFS",
            other => key_errno::name(other),
        }
    }
}

rules! {
    /// Logs only grow.
    AppendOnly "append-only" libc::EPERM;
    /// Not JSON, or not an object.
    Json "json" libc::EBADMSG;
    /// A member is missing or of the wrong form.
    Schema "schema" libc::EBADMSG;
    /// A key given twice in one object.
    DuplicateKey "duplicate-key" libc::EBADMSG;
    /// An object left incomplete at the last close.
    Partial "partial" libc::EBADMSG;
    /// An ack that points at no parent.
    AckNeedsParent "ack-needs-parent" libc::EBADMSG;
    /// A proposal that asks for no ack.
    ProposalNeedsAckRequired "proposal-needs-ack-required" libc::EBADMSG;
    /// A timestamp too far in the future.
    ClockSkew "clock-skew" libc::EBADMSG;
    /// A handoff of another protocol version.
    Version "version" libc::EBADMSG;
    /// A handoff to its own sender.
    ToItself "self" libc::EBADMSG;
    /// No signature.
    Unsigned "unsigned" key_errno::REJECTED;
    /// A signature that does not verify.
    Signature "signature" key_errno::REJECTED;
    /// A key that is not in the trust list.
    UnknownKey "unknown-key" key_errno::REJECTED;
    /// `from` is not the key's agent.
    FromMismatch "from-mismatch" key_errno::REJECTED;
    /// event_id is not the message's hash.
    EventId "event-id" key_errno::REJECTED;
    /// A handoff's HMAC that does not verify, or no secret to verify it with.
    Hmac "hmac" key_errno::REJECTED;
    /// A deactivated key.
    RevokedKey "revoked-key" key_errno::REVOKED;
    /// Not this caller's to do.
    Authority "authority" libc::EACCES;
    /// The author's tier forbids this kind.
    Tier "tier" libc::EACCES;
    /// The same message or handoff again, or a name that exists.
    Replay "replay" libc::EEXIST;
    /// Over the size limit.
    Size "size" libc::EMSGSIZE;
    /// Over the rate or a quota.
    Rate "rate" libc::EDQUOT;
    /// Two agents answer each other without end.
    Loop "loop" libc::EDQUOT;
    /// An inbox or the quarantine is full.
    Quota "quota" libc::EDQUOT;
    /// A recipient that is no agent here, or not whom this log is for.
    Recipient "recipient" libc::EBADMSG;
    /// A proposal for a domain that exchange.toml does not name.
    Domain "domain" libc::EBADMSG;
    /// An entry in decisions.jsonl that no proposal with all its owners' acks stands for.
    Decision "decision" libc::EPERM;
    /// One more counter-proposal after three round trips.
    Rounds "rounds" libc::EPERM;
    /// An ack of a proposal that a decision on the same domain has overtaken.
    Conflict "conflict" libc::EPERM;
    /// An ack of a proposal that lapsed.
    Lapsed "lapsed" libc::ETIME;
    /// Safe mode: only acks, heartbeats and incidents.
    SafeMode "safe-mode" libc::EROFS;
    /// A handoff past expires_at.
    Expired "expired" libc::ETIME;
    /// A move that is no transition of the handoff state machine.
    Transition "transition" libc::EPERM;
    /// The bytes of a published handoff never change.
    Immutable "immutable" libc::EPERM;
    /// A credential write or link change that changes whose account it is.
    Identity "identity" libc::EPERM;
    /// Switching to a slot that is expired or unreadable.
    StaleSlot "stale-slot" key_errno::EXPIRED;
    /// A place that is read-only, or where nothing of this kind can be made.
    ReadOnly "read-only" libc::EPERM;
}

/// An operation that broke a rule, with the sentence that tells its writer what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {advice}", .rule.name())]
pub struct Refusal {
    /// The broken rule.
    pub rule: Rule,
    /// What is wrong and what to do next, for the agent that reads it.
    pub advice: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(rule: Rule, advice: impl Into<String>) -> Self {
        Refusal { rule, advice: advice.into() }
    }
}

impl From<JsonError> for Refusal {
    fn from(e: JsonError) -> Self {
        let rule = match e.kind {
            JsonErrorKind::DuplicateKey(_) => Rule::DuplicateKey,
            _ => Rule::Json,
        };
        Refusal::new(rule, format!("{e}. Write complete JSON objects, one per line or pretty-printed."))
    }
}

impl From<MessageError> for Refusal {
    fn from(e: MessageError) -> Self {
        let (rule, mend) = match &e {
            MessageError::Schema(_) => (
                Rule::Schema,
                "A message needs timestamp, from, type, subject, body and correlation_id; see PROTOCOL.md.",
            ),
            MessageError::AckNeedsParent => {
                (Rule::AckNeedsParent, "Copy the correlation_id of the message you acknowledge.")
            }
            MessageError::ProposalNeedsAckRequired => {
                (Rule::ProposalNeedsAckRequired, "Set ack_required to true and sign again.")
            }
            MessageError::Unsigned => {
                (Rule::Unsigned, "Sign it first: baton sign --as <you> < message.json.")
            }
            MessageError::FromMismatch { .. } => {
                (Rule::FromMismatch, "Sign with the key of the agent named in from.")
            }
            MessageError::UnknownKey(_) => {
                (Rule::UnknownKey, "Ask the operator to import your key: baton trust import.")
            }
            MessageError::RevokedKey(_) => {
                (Rule::RevokedKey, "Sign with your active key; baton trust show lists it.")
            }
            MessageError::EventId => (Rule::EventId, "The message was changed after signing; sign it again."),
            MessageError::Signature(_) => (
                Rule::Signature,
                "The message was changed after signing, or signed with another key; sign it again.",
            ),
            MessageError::Blocked(_) => {
                (Rule::Tier, "Ask the operator, who alone can lift that: baton trust unblock.")
            }
            MessageError::Tier { .. } => (Rule::Tier, "Ask the operator to raise your tier."),
        };
        Refusal::new(rule, format!("{e}. {mend}"))
    }
}

impl From<LetterError> for Refusal {
    fn from(e: LetterError) -> Self {
        let (rule, mend) = match &e {
            LetterError::Json(j) => return j.clone().into(),
            LetterError::NotUtf8(_) => {
                (Rule::Schema, "A letter is text. Put other bytes in a file and its path in refs.".to_owned())
            }
            LetterError::FrontMatter { .. } => (
                Rule::Schema,
                format!(
                    "Front matter stands between two lines ---, one `key: value` in a line, and may set {}. A text that \
                     starts with --- and has none needs an empty line before it.",
                    letter::KEYS.join(", ")
                ),
            ),
            LetterError::NoBody => (
                Rule::Schema,
                "A .json file in send/ is a message: give it a body. To send other JSON as it is, name the file .txt."
                    .to_owned(),
            ),
            LetterError::NotFor(to) => (
                Rule::Recipient,
                format!("Sign it with {to} in `to`, or put it into the folder of whom it is for."),
            ),
        };
        Refusal::new(rule, format!("{e}. {mend}"))
    }
}

impl From<HandoffError> for Refusal {
    fn from(e: HandoffError) -> Self {
        let (rule, mend) = match &e {
            HandoffError::Json(j) => return j.clone().into(),
            HandoffError::Version => (Rule::Version, "This exchange speaks handoff protocol_version 1."),
            HandoffError::ToItself => (Rule::ToItself, "Name another agent in to_agent."),
            HandoffError::Schema(_) => {
                (Rule::Schema, "See PROTOCOL.md for a handoff's members; baton handoff new makes one.")
            }
            HandoffError::Hmac(..) => {
                (Rule::Hmac, "Sign the payload with the pair's secret; baton handoff new does.")
            }
            HandoffError::Expired(_) => (Rule::Expired, "Start a new handoff."),
        };
        Refusal::new(rule, format!("{e}. {mend}"))
    }
}
