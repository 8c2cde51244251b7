//! Agent cards and the short authentication string. Format: PROTOCOLS section 2.

use super::canonical;
use super::json::{self, Object, Value};
use super::keys::{self, KeyId, PublicKey};
use super::name::AgentName;
use sha2::{Digest, Sha256};

/// Why a card is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CardError(pub String);

/// A card signed by one of its own `verify_keys`.
#[derive(Debug, Clone)]
pub struct AgentCard {
    /// The agent that its `did` names.
    pub agent: AgentName,
    /// Its `verify_keys`.
    pub keys: Vec<(KeyId, PublicKey)>,
    /// All members.
    pub object: Object,
}

impl AgentCard {
    /// Reads a card and verifies its signature.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn verify(text: &[u8]) -> Result<Self, CardError> {
        let value = json::parse(text).map_err(|e| CardError(format!("not acceptable JSON: {e}")))?;
        let Value::Object(object) = value else { return fail("a card must be a JSON object") };
        let did = object.get("did").and_then(Value::as_str).unwrap_or_default();
        if !did.starts_with("did:wire:") {
            return fail("did is missing or not of the form did:wire:<handle>");
        }
        let agent = AgentName::parse(did).map_err(|e| CardError(format!("did: {e}")))?;
        let keys = read_keys(&agent, object.get("verify_keys"))?;
        let Some(signature) = object.get("signature").and_then(Value::as_str) else {
            return fail("signature is missing or not a string");
        };
        let signed = canonical::utf8_without(&object, &["signature"]);
        let verifies = keys::decode_base64(signature).is_some_and(|signature| {
            keys.iter().any(|(_, key)| key.verify_strict(signed.as_bytes(), &signature))
        });
        if !verifies {
            return fail("the signature is by none of the card's own verify_keys");
        }
        Ok(AgentCard { agent, keys, object })
    }
}

/// Reads `{"ed25519:<key_id>": {key, ...}}`.
fn read_keys(agent: &AgentName, listed: Option<&Value>) -> Result<Vec<(KeyId, PublicKey)>, CardError> {
    let Some(listed) = listed.and_then(Value::as_object) else {
        return fail("verify_keys is missing or not an object");
    };
    let mut keys = Vec::with_capacity(listed.len());
    for (name, entry) in listed {
        let Some(written) = name.strip_prefix("ed25519:") else {
            return fail(format!("verify_keys: {name:?} is not of the form ed25519:<key id>"));
        };
        let written = KeyId::parse(written).map_err(|e| CardError(format!("verify_keys: {e}")))?;
        let Some(key) = entry.as_object().and_then(|entry| entry.get("key")).and_then(Value::as_str) else {
            return fail(format!("verify_keys.{name}: key is missing or not a string"));
        };
        let key = PublicKey::from_base64(key).map_err(|e| CardError(format!("verify_keys.{name}: {e}")))?;
        let id = key.id(agent);
        if id != written {
            return fail(format!("verify_keys: {written} is the id of another key; this one is {id}"));
        }
        keys.push((id, key));
    }
    Ok(keys)
}

fn fail<T>(problem: impl Into<String>) -> Result<T, CardError> {
    Err(CardError(problem.into()))
}

/// The six digits two operators compare. Arguments: did and key of each side, in any order.
pub fn short_authentication_string(a: (&str, &PublicKey), b: (&str, &PublicKey)) -> String {
    let (first, second) = if a.0 <= b.0 { (a, b) } else { (b, a) };
    let mut hash = Sha256::new();
    for (did, key) in [first, second] {
        hash.update(did);
        hash.update(b":");
        hash.update(key.to_bytes());
    }
    let digest = hash.finalize();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    format!("{:06}", number % 1_000_000)
}
