//! Agent cards and the short authentication string. Format: PROTOCOLS section 2.

use super::keys::PublicKey;

/// Why a card is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CardError(pub String);

/// A card signed by one of its own `verify_keys`.
#[derive(Debug, Clone)]
pub struct AgentCard {
    /// All members.
    pub object: super::json::Object,
}

impl AgentCard {
    /// Reads a card and verifies its signature.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn verify(text: &[u8]) -> Result<Self, CardError> {
        let _ = text;
        todo!()
    }
}

/// The six digits two operators compare. Arguments: did and key of each side, in any order.
pub fn short_authentication_string(a: (&str, &PublicKey), b: (&str, &PublicKey)) -> String {
    let _ = (a, b);
    todo!()
}
