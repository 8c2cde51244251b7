//! Ed25519 keys and pair secrets. Secret values are zeroized on drop and never printed.

mod multiples;
#[cfg(test)]
mod tests;

use super::name::AgentName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use ed25519_dalek::Signer;
use multiples::Multiples;
use sha2::{Digest, Sha256, Sha512};
use std::sync::{Arc, LazyLock, OnceLock};
use zeroize::Zeroizing;

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
        let bad = || KeyError::Id(text.to_owned());
        let (agent, short) = text.rsplit_once(':').ok_or_else(bad)?;
        let hex = short.len() == 8 && short.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match AgentName::parse(agent) {
            Ok(agent) if hex => Ok(KeyId { agent, short: short.to_owned() }),
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.agent, self.short)
    }
}

/// A public key prepared for fast strict verification: 215 KB of multiples, made at its first verification.
/// Cheap to clone: clones share them.
#[derive(Clone)]
pub struct PublicKey(Arc<PreparedKey>);

struct PreparedKey {
    raw: [u8; 32],
    /// `-A`, never of small order.
    negated: EdwardsPoint,
    multiples: OnceLock<Multiples<6>>,
}

/// Shared by all keys, so it may be the larger.
static BASE_MULTIPLES: LazyLock<Multiples<8>> = LazyLock::new(|| Multiples::of(&ED25519_BASEPOINT_POINT));

impl PublicKey {
    /// From 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError::Point`].
    pub fn from_bytes(raw: &[u8; 32]) -> Result<Self, KeyError> {
        let point = CompressedEdwardsY(*raw).decompress().ok_or(KeyError::Point)?;
        if point.is_small_order() {
            return Err(KeyError::Point);
        }
        Ok(PublicKey(Arc::new(PreparedKey { raw: *raw, negated: -point, multiples: OnceLock::new() })))
    }
    /// From base64 of 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode_base64(text).ok_or(KeyError::Encoding(32))?)
    }
    /// The raw bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.raw
    }
    /// The id this key has as `agent`'s.
    pub fn id(&self, agent: &AgentName) -> KeyId {
        let digest = Sha256::digest(self.0.raw);
        KeyId { agent: agent.clone(), short: hex(&digest[..4]) }
    }
    /// Whether `signature` (64 bytes) is this key's over `bytes`, exactly as ed25519-dalek's
    /// `verify_strict` decides.
    pub fn verify_strict(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let (r, s) = signature.split_at(32);
        let (Ok(r), Ok(s)) = (<[u8; 32]>::try_from(r), <[u8; 32]>::try_from(s)) else { return false };
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else { return false };
        let mut hash = Sha512::new();
        hash.update(r);
        hash.update(self.0.raw);
        hash.update(bytes);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let multiples = self.0.multiples.get_or_init(|| Multiples::of(&self.0.negated));
        let expected = BASE_MULTIPLES.add_multiple(EdwardsPoint::identity(), &s);
        let expected = multiples.add_multiple(expected, &k);
        // R need not be decompressed: equal bytes mean that it is the point just computed, canonically
        // encoded, so R is of small order exactly if that point is.
        expected.compress().0 == r && !expected.is_small_order()
    }
}

/// Decodes base64 of exactly `N` bytes.
pub(super) fn decode_base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // decode_slice wants room for whole groups of three.
    let mut room = Zeroizing::new([0; 96]);
    let length = BASE64.decode_slice(text, room.as_mut_slice()).ok()?;
    bytes.copy_from_slice(room.get(..length).filter(|b| b.len() == N)?);
    Some(bytes)
}

/// Encodes base64.
pub(super) fn encode_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicKey")
    }
}

/// An agent's signing key. Zeroized on drop; `Debug` shows nothing of it.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From the 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }
    /// Reads a key file's text: base64 of the seed, one trailing newline allowed.
    ///
    /// # Errors
    /// [`KeyError::Encoding`].
    pub fn from_file_text(text: &[u8]) -> Result<Self, KeyError> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let seed = std::str::from_utf8(text).ok().and_then(decode_base64).ok_or(KeyError::Encoding(32))?;
        Ok(Self::from_seed(&Zeroizing::new(seed)))
    }
    /// The text to keep in a key file: base64 of the seed and a newline.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: a string that grows leaves its old bytes behind.
        let mut text = Zeroizing::new(String::with_capacity(48));
        BASE64.encode_string(self.0.as_bytes(), &mut text);
        text.push('\n');
        text
    }
    /// The public half.
    pub fn public(&self) -> PublicKey {
        let public = self.0.verifying_key();
        // A clamped scalar is no multiple of the group's order, so this is never of small order.
        PublicKey(Arc::new(PreparedKey {
            raw: public.to_bytes(),
            negated: -public.to_edwards(),
            multiples: OnceLock::new(),
        }))
    }
    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The secret that a pair of agents shares for handoff HMACs. Zeroized on drop.
#[derive(Clone)]
pub struct PairSecret(Zeroizing<Vec<u8>>);

impl PairSecret {
    /// A secret file's bytes as they are, one trailing newline stripped.
    pub fn from_file_bytes(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        PairSecret(Zeroizing::new(bytes.to_vec()))
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
