//! Agent names: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`; `did:wire:<handle>` names the same agent.

use std::fmt;
use std::sync::Arc;

/// An agent's handle, valid by construction; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(Arc<str>);

/// The text is no handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no agent name: it must match [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}")]
pub struct BadName(pub String);

impl AgentName {
    /// Reads a handle, or the handle in `did:wire:<handle>`.
    ///
    /// # Errors
    /// [`BadName`] if it is not of that form.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let handle = text.strip_prefix("did:wire:").unwrap_or(text);
        let mut bytes = handle.bytes();
        let first_ok = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first_ok && rest_ok && handle.len() <= 128 {
            Ok(AgentName(handle.into()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }

    /// The bare handle.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for AgentName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for AgentName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        AgentName::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
