//! What a credential file says about whose account it is. Format: PROTOCOLS section 5.

mod format;

pub use format::{Format, LiveKind};

use super::json::{self, Object, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use zeroize::Zeroize;

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
    // A JSON error may quote a key, and whatever is in this file stays in it.
    let mut file =
        json::parse(text).map_err(|e| CredentialError(format!("not acceptable JSON at byte {}", e.at)))?;
    let result = match file.as_object().and_then(|file| file.get("claudeAiOauth")) {
        Some(Value::Object(login)) => read_login(login),
        Some(_) => fail("claudeAiOauth must be an object"),
        None => fail("claudeAiOauth is missing: this is no credential file of the Claude format"),
    };
    wipe(&mut file);
    result
}

fn read_login(login: &Object) -> Result<CredentialFile, CredentialError> {
    let token = |name: &str| match login.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(token)) => Ok(token.as_str()),
        Some(_) => fail(format!("claudeAiOauth.{name} must be a string")),
    };
    let (access, refresh) = (token("accessToken")?, token("refreshToken")?);
    let expires_at_ms = match login.get("expiresAt") {
        None | Some(Value::Null) => None,
        Some(Value::Float(ms)) if *ms == 0.0 => Some(0),
        Some(given) => match given.as_i64() {
            Some(ms) => Some(ms),
            None => return fail("claudeAiOauth.expiresAt must be an integer of milliseconds"),
        },
    };
    if access.trim().is_empty() || refresh.trim().is_empty() || expires_at_ms.is_some_and(|ms| ms <= 0) {
        return Ok(CredentialFile::Stub);
    }
    let Some(expires_at_ms) = expires_at_ms else { return fail("claudeAiOauth.expiresAt is missing") };
    let scopes = match login.get("scopes") {
        None | Some(Value::Null) => Some(BTreeSet::new()),
        Some(Value::Array(scopes)) => scopes.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    let Some(scopes) = scopes else { return fail("claudeAiOauth.scopes must be a list of strings") };
    let subscription_type = match login.get("subscriptionType") {
        None | Some(Value::Null) => None,
        Some(Value::String(word)) => Some(word.clone()),
        Some(_) => return fail("claudeAiOauth.subscriptionType must be a string"),
    };
    Ok(CredentialFile::Login(Credential {
        fingerprint: Fingerprint(Sha256::digest(refresh).into()),
        expires_at_ms,
        scopes,
        subscription_type,
    }))
}

fn fail<T>(problem: impl Into<String>) -> Result<T, CredentialError> {
    Err(CredentialError(problem.into()))
}

/// Zeroizes every string value: other tokens than the two known ones may be in the file.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "sk-ant-ort01-secret";

    fn login(members: &str) -> Result<CredentialFile, CredentialError> {
        parse_claude(format!(r#"{{"claudeAiOauth":{{{members}}},"mcpOAuth":{{"x":1}}}}"#).as_bytes())
    }

    #[test]
    fn a_login_is_known_by_its_refresh_token() {
        let file = login(&format!(
            r#""accessToken":"a","refreshToken":"{TOKEN}","expiresAt":1776765600000,
               "scopes":["user:inference","user:profile"],"subscriptionType":"max""#
        ));
        let Ok(CredentialFile::Login(credential)) = file else { panic!("{file:?}") };
        assert_eq!(credential.fingerprint, Fingerprint(Sha256::digest(TOKEN).into()));
        assert_eq!(credential.expires_at_ms, 1_776_765_600_000);
        assert_eq!(credential.scopes.len(), 2);
        assert_eq!(credential.subscription_type.as_deref(), Some("max"));
        assert_eq!(format!("{:?}", credential.fingerprint).len(), 12);
        assert!(!format!("{credential:?}").contains(TOKEN));
    }

    #[test]
    fn what_a_lost_login_leaves_is_a_stub() {
        for members in [
            "",
            r#""accessToken":"","refreshToken":"","expiresAt":0"#,
            r#""accessToken":"a","refreshToken":"","expiresAt":1776765600000"#,
            r#""accessToken":"","refreshToken":"r","expiresAt":1776765600000"#,
            r#""accessToken":"a","refreshToken":"r","expiresAt":0"#,
            r#""accessToken":null,"expiresAt":0"#,
        ] {
            assert_eq!(login(members), Ok(CredentialFile::Stub), "{members}");
        }
    }

    #[test]
    fn no_error_shows_a_token() {
        for text in [
            String::new(),
            TOKEN.to_owned(),
            format!(r#"["{TOKEN}"]"#),
            format!(r#"{{"claudeAiOauth":"{TOKEN}"}}"#),
            format!(r#"{{"{TOKEN}":1,"{TOKEN}":2}}"#),
            format!(r#"{{"claudeAiOauth":{{"refreshToken":["{TOKEN}"]}}}}"#),
            format!(r#"{{"claudeAiOauth":{{"accessToken":"a","refreshToken":"{TOKEN}"}}}}"#),
            format!(
                r#"{{"claudeAiOauth":{{"accessToken":"a","refreshToken":"{TOKEN}","expiresAt":"{TOKEN}"}}}}"#
            ),
        ] {
            let error = parse_claude(text.as_bytes()).expect_err(&text);
            assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
        }
    }
}
