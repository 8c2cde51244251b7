//! Ed25519 keys and pair secrets. Secret values are zeroized on drop and never printed.

use super::name::AgentName;

/// `<agent>:<first 8 hex of sha256(raw public key)>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// Whose key it is.
    pub agent: AgentName,
    /// Eight lower-case hex digits.
    pub short: String,
}

/// Why a key could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 of the right length.
    #[error("not base64 of {0} bytes")]
    Encoding(usize),
    /// Not a point of the curve, or one of small order.
    #[error("not a usable Ed25519 public key")]
    Point,
    /// Not `<agent>:<8 hex>`.
    #[error("{0:?} is no key id: it must be <agent>:<8 hex digits>")]
    Id(String),
}

impl KeyId {
    /// Reads `<agent>:<8 hex>`; an agent may be given as `did:wire:<handle>`.
    ///
    /// # Errors
    /// [`KeyError::Id`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let _ = text;
        todo!()
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.agent, self.short)
    }
}

/// A public key prepared for fast strict verification (a table of multiples; about 30 KB).
#[derive(Clone)]
pub struct PublicKey {
    _todo: (),
}

impl PublicKey {
    /// From 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_bytes(raw: &[u8; 32]) -> Result<Self, KeyError> {
        let _ = raw;
        todo!()
    }
    /// From base64 of 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let _ = text;
        todo!()
    }
    /// The raw bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        todo!()
    }
    /// The id this key has as `agent`'s.
    pub fn id(&self, agent: &AgentName) -> KeyId {
        let _ = agent;
        todo!()
    }
    /// Whether `signature` (64 bytes) is this key's over `bytes`, exactly as ed25519-dalek's
    /// `verify_strict` decides.
    pub fn verify_strict(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let _ = (bytes, signature);
        todo!()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicKey")
    }
}

/// An agent's signing key. Zeroized on drop; `Debug` shows nothing of it.
pub struct SigningKey {
    _todo: (),
}

impl SigningKey {
    /// From the 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let _ = seed;
        todo!()
    }
    /// Reads a key file's text: base64 of the seed, one trailing newline allowed.
    ///
    /// # Errors
    /// [`KeyError::Encoding`].
    pub fn from_file_text(text: &[u8]) -> Result<Self, KeyError> {
        let _ = text;
        todo!()
    }
    /// The text to keep in a key file: base64 of the seed and a newline.
    pub fn to_file_text(&self) -> zeroize::Zeroizing<String> {
        todo!()
    }
    /// The public half.
    pub fn public(&self) -> PublicKey {
        todo!()
    }
    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let _ = bytes;
        todo!()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The secret that a pair of agents shares for handoff HMACs. Zeroized on drop.
#[derive(Clone)]
pub struct PairSecret(zeroize::Zeroizing<Vec<u8>>);

impl PairSecret {
    /// A secret file's bytes as they are, one trailing newline stripped.
    pub fn from_file_bytes(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        PairSecret(zeroize::Zeroizing::new(bytes.to_vec()))
    }
    /// The raw secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairSecret(..)")
    }
}
