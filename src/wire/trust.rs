//! Trust lists (`trust.json`) and tiers. Format: PROTOCOLS section 2, "Trust list".

use super::json::Object;
use super::keys::{KeyId, PublicKey};
use super::name::AgentName;
use std::collections::BTreeMap;

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
    /// Whether this tier may send a message of this type and kind.
    pub fn may_send(self, message_type: &str, kind: Option<u32>) -> bool {
        let _ = (message_type, kind);
        todo!()
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
    /// Members this version doesn't know or use (tier_set_at, sas_verified, ...), kept.
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
        let _ = text;
        todo!()
    }
    /// The trust.json text: indented, ending in a newline; parse gives the same list again.
    pub fn to_json(&self) -> String {
        todo!()
    }
    /// The key with this id, whoever's.
    pub fn key(&self, id: &KeyId) -> Option<&TrustedKey> {
        let _ = id;
        todo!()
    }
    /// Takes over `other`'s agents and keys: new agents and keys are added, a key inactive on either
    /// side becomes inactive, tiers of known agents follow `other`. Nothing is removed.
    pub fn merge(&mut self, other: &TrustList) -> MergeReport {
        let _ = other;
        todo!()
    }
}
