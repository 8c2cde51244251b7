//! A slot's sidecar, `<live>.<slot>.fingerprint.json`: which login the slot holds, for programs that manage slots.
//! Format: PROTOCOLS section 5.

use super::credential::Fingerprint;
use super::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Most bytes a sidecar may have.
pub const MAX_SIDECAR_BYTES: usize = 16 << 10;

/// `{"refresh_token_sha256", "captured_at", "slot"}`. Not `Debug`: it holds a whole hash.
#[derive(Serialize, Deserialize)]
pub struct Sidecar {
    refresh_token_sha256: String,
    /// In whatever form a program writes it.
    captured_at: serde_json::Value,
    slot: String,
}

/// Why a text is no sidecar; never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a sidecar is {{\"refresh_token_sha256\": 64 hex digits, \"captured_at\": a time, \"slot\": a slot's name}}"
)]
pub struct SidecarError;

impl Sidecar {
    /// Of a slot that holds this login.
    pub fn new(slot: &str, fingerprint: &Fingerprint, at: Timestamp) -> Self {
        let refresh_token_sha256 = fingerprint.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Sidecar { refresh_token_sha256, captured_at: at.to_string().into(), slot: slot.to_owned() }
    }

    /// Reads a sidecar. Members beyond the three are let be.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<Self, SidecarError> {
        let sidecar: Sidecar = serde_json::from_slice(text).map_err(|_| SidecarError)?;
        sidecar.fingerprint().map(|_| sidecar).ok_or(SidecarError)
    }

    /// Its text, one line.
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default(); // three texts: it can't fail
        text.push(b'\n');
        text
    }

    /// The login that it names.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let hex = self.refresh_token_sha256.as_bytes();
        let mut hash = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(hex.chunks(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
        }
        Some(Fingerprint(hash))
    }

    /// Whether it says that this slot holds this login.
    pub fn says(&self, slot: &str, fingerprint: &Fingerprint) -> bool {
        self.slot == slot && self.fingerprint().as_ref() == Some(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_says_the_same() {
        let fingerprint = Fingerprint(std::array::from_fn(|n| n as u8 * 7));
        let text = Sidecar::new("work", &fingerprint, Timestamp(1_800_000_000_000_000)).text();
        let read = Sidecar::parse(&text).unwrap();
        assert!(read.says("work", &fingerprint));
        assert!(!read.says("home", &fingerprint) && !read.says("work", &Fingerprint([0; 32])));
        let shown = String::from_utf8(text).unwrap();
        assert!(shown.contains(r#""captured_at":"2027-01-15T08:00:00"#), "{shown}");
        assert!(
            Sidecar::parse(shown.to_uppercase().replace("REFRESH_TOKEN_SHA256", "x").as_bytes()).is_err()
        );
    }

    #[test]
    fn what_is_no_sidecar_is_refused_and_never_quoted() {
        let hash = "ab".repeat(32);
        for text in [
            String::new(),
            "{}".into(),
            format!(r#"{{"refresh_token_sha256":"{hash}","slot":"a"}}"#),
            format!(r#"{{"refresh_token_sha256":"{}","captured_at":"x","slot":"a"}}"#, &hash[1..]),
            format!(r#"{{"refresh_token_sha256":"{}g","captured_at":"x","slot":"a"}}"#, &hash[1..]),
            format!(r#"{{"refresh_token_sha256":"{hash}","captured_at":"x","slot":"a","slot":"b"}}"#),
            format!(r#"{{"refresh_token_sha256":"{hash}","captured_at":"x","slot":"a"}}{{}}"#),
        ] {
            let error = Sidecar::parse(text.as_bytes()).err().expect(&text).to_string();
            assert!(!error.contains("abab"), "{error}");
        }
        let more = format!(r#"{{"refresh_token_sha256":"{hash}","captured_at":5,"slot":"a","by":"me"}}"#);
        assert!(Sidecar::parse(more.as_bytes()).is_ok());
    }
}
