//! What a credential file says about whose account it is. Format: PROTOCOLS section 5.

use std::collections::BTreeSet;

/// sha256 of the refresh token. Never printed whole: `Debug` and `Display` show 12 hex digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A login in the Claude format, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Of the refresh token.
    pub fingerprint: Fingerprint,
    /// `expiresAt`, ms since the epoch.
    pub expires_at_ms: i64,
    /// `scopes`
    pub scopes: BTreeSet<String>,
    /// `subscriptionType`
    pub subscription_type: Option<String>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialFile {
    /// A login.
    Login(Credential),
    /// Empty tokens or expiresAt 0: what a program leaves when it has lost its login.
    Stub,
}

/// Why a file is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub String);

/// Reads `{"claudeAiOauth": {...}, ...}`.
///
/// # Errors
/// [`CredentialError`], which never contains a token.
pub fn parse_claude(text: &[u8]) -> Result<CredentialFile, CredentialError> {
    let _ = text;
    todo!()
}
