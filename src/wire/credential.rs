//! What a credential file says about whose account it is. Formats: PROTOCOLS section 5.

mod format;
mod place;
mod yaml;

#[cfg(test)]
mod tests;

pub use format::{BUILT_IN, ExpiryUnit, Format, LiveKind, Syntax};
pub use place::Place;

use super::json::{self, Value};
use super::time::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use zeroize::Zeroize;

/// Most bytes that an account's id may have.
pub const MAX_ACCOUNT_BYTES: usize = 256;

/// A sha256, of a refresh token mostly. Never printed whole: `Debug` and `Display` show 12 hex digits.
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

/// A login, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Account ids by the evidence for each: the place in the file that names it.
    pub accounts: BTreeMap<String, String>,
    /// sha256 of the refresh token; `None` where the file holds none.
    pub fingerprint: Option<Fingerprint>,
    /// ms since the epoch; `None` where the format or the file says nothing of it.
    pub expires_at_ms: Option<i64>,
    /// sha256 of each member that no refresh changes, by its place.
    pub unchanging: BTreeMap<String, Fingerprint>,
}

impl Credential {
    /// The account ids, each once, in the order of their places; `None` where the file names none.
    pub fn account(&self) -> Option<String> {
        let mut ids: Vec<&str> = Vec::new();
        for id in self.accounts.values() {
            if !ids.contains(&id.as_str()) {
                ids.push(id);
            }
        }
        (!ids.is_empty()).then(|| ids.join(", "))
    }

    /// For people: the account, else the first 12 digits of the token's fingerprint.
    pub fn shown(&self) -> String {
        match (self.account(), &self.fingerprint) {
            (Some(account), _) => format!("account {account}"),
            (None, Some(fingerprint)) => format!("login {fingerprint}"),
            (None, None) => "no known login".to_owned(),
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialFile {
    /// A login.
    Login(Credential),
    /// No token, or not what else belongs to a login: what a program leaves when it has lost its login.
    Stub,
}

/// Why a file is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub String);

fn fail<T>(problem: impl Into<String>) -> Result<T, CredentialError> {
    Err(CredentialError(problem.into()))
}

/// An account's id, as the file or the operator's `identity_command` gives it.
///
/// # Errors
/// A sentence without a subject: it is longer than [`MAX_ACCOUNT_BYTES`] or not one line of text.
pub fn check_account(id: &str) -> Result<&str, &'static str> {
    if id.len() > MAX_ACCOUNT_BYTES {
        return Err("is no account id: it is longer than 256 bytes");
    }
    if id.chars().any(char::is_control) {
        return Err("is no account id: it must be one line of text");
    }
    Ok(id)
}

impl Format {
    /// Reads a file of this format.
    ///
    /// # Errors
    /// [`CredentialError`], which never contains a token.
    pub fn read(&self, text: &[u8]) -> Result<CredentialFile, CredentialError> {
        let mut file = self.value(text).map_err(CredentialError)?;
        let result = self.read_value(&file);
        wipe(&mut file);
        result
    }

    /// The login in a text, if there is one.
    pub fn login(&self, text: &[u8]) -> Option<Credential> {
        match self.read(text) {
            Ok(CredentialFile::Login(credential)) => Some(credential),
            _ => None,
        }
    }

    /// Whether a text could be a whole file; else a clause that says why not and quotes nothing of it.
    ///
    /// # Errors
    /// That clause.
    pub fn check_whole(&self, text: &[u8]) -> Result<(), String> {
        if text.trim_ascii().is_empty() {
            return Err("it was emptied and nothing was written".to_owned());
        }
        match self.syntax {
            // Most drafts that are not whole show it in their last byte; the parse then only says where.
            Syntax::Json => {}
            Syntax::Yaml if text.ends_with(b"\n") => {}
            Syntax::Yaml => return Err("what was written does not end with a line's end".to_owned()),
        }
        let mut value = self.value(text).map_err(|problem| format!("what was written is {problem}"))?;
        let is_object = matches!(value, Value::Object(_));
        wipe(&mut value);
        if is_object { Ok(()) } else { Err(format!("what was written is not {}", self.whole())) }
    }

    /// What a whole file is.
    fn whole(&self) -> &'static str {
        match self.syntax {
            Syntax::Json => "one whole JSON object",
            Syntax::Yaml => "one whole YAML mapping",
        }
    }

    fn value(&self, text: &[u8]) -> Result<Value, String> {
        // Not the parsers' own words, which may quote a key: whatever is in this file stays in it.
        match self.syntax {
            Syntax::Json => {
                json::parse(text).map_err(|e| format!("not {} (see byte {})", self.whole(), e.at))
            }
            Syntax::Yaml => {
                yaml::parse(text).map_err(|e| format!("not {} (line {}: {})", self.whole(), e.line, e.what))
            }
        }
    }

    fn read_value(&self, file: &Value) -> Result<CredentialFile, CredentialError> {
        if !matches!(file, Value::Object(_)) {
            return fail(format!("not {}", self.whole()));
        }
        let mut stub = false;
        for place in &self.needs {
            stub |= !is_there(place, file)?;
        }
        let accounts = self.accounts(file)?;
        let fingerprint = self.fingerprint(file, &accounts)?;
        let is_known = match (&fingerprint, self.token.is_empty() || self.token_elsewhere) {
            (Some(_), _) => true,
            (None, may_lack) => may_lack && !accounts.is_empty(),
        };
        if stub || !is_known {
            return Ok(CredentialFile::Stub);
        }
        Ok(CredentialFile::Login(Credential {
            accounts,
            fingerprint,
            expires_at_ms: self.expires_at(file)?,
            unchanging: self.unchanging(file),
        }))
    }

    fn accounts(&self, file: &Value) -> Result<BTreeMap<String, String>, CredentialError> {
        let mut accounts = BTreeMap::new();
        let mut problem = None;
        for place in &self.account {
            place.each(file, &mut |at, value| {
                let id = match value {
                    Value::String(id) => id.trim(),
                    Value::Int(id) => id,
                    Value::Null => return,
                    // A claim of another kind is no evidence; the file's own member should be what it is said to be.
                    _ if place.is_claim() => return,
                    _ => return problem = Some(format!("{place} must be a text")),
                };
                match check_account(id) {
                    Ok("") => {}
                    Ok(id) => drop(accounts.insert(at.to_owned(), id.to_owned())),
                    Err(why) => problem = Some(format!("{place} {why}")),
                }
            });
        }
        problem.map_or(Ok(accounts), fail)
    }

    /// sha256 of the first token; where a `*` leads to several, of all of them.
    fn fingerprint(
        &self,
        file: &Value,
        accounts: &BTreeMap<String, String>,
    ) -> Result<Option<Fingerprint>, CredentialError> {
        for place in &self.token {
            let mut hash = Sha256::new();
            let (mut found, mut problem) = (0, None);
            place.each(file, &mut |_, value| match value {
                Value::String(token) if token.trim().is_empty() => {}
                Value::String(token) if accounts.values().any(|id| id == token.trim()) => {
                    problem = Some(format!("{place} holds what is said to be an account's id"));
                }
                Value::String(token) => {
                    if found > 0 {
                        hash.update([0]);
                    }
                    found += 1;
                    hash.update(token);
                }
                Value::Null => {}
                _ => problem = Some(format!("{place} must be a text")),
            });
            if let Some(problem) = problem {
                return fail(problem);
            }
            if found > 0 {
                return Ok(Some(Fingerprint(hash.finalize().into())));
            }
        }
        Ok(None)
    }

    fn expires_at(&self, file: &Value) -> Result<Option<i64>, CredentialError> {
        let Some((place, unit)) = &self.expires_at else { return Ok(None) };
        let (mut expires, mut problem) = (None, None);
        place.each(file, &mut |_, value| {
            let number = || match value {
                // A float has lost nothing that matters to a clock; `as` saturates.
                Value::Float(number) => Some(*number as i64),
                given => given.as_i64(),
            };
            let read = match unit {
                ExpiryUnit::Milliseconds => number(),
                ExpiryUnit::Seconds => number().map(|seconds| seconds.saturating_mul(1000)),
                ExpiryUnit::Rfc3339 => {
                    value.as_str().and_then(|text| Timestamp::parse(text, true)).map(Timestamp::unix_millis)
                }
            };
            match read {
                Some(ms) => expires = Some(expires.map_or(ms, |other: i64| other.min(ms))),
                None if *value == Value::Null || place.is_claim() => {}
                None => {
                    problem = Some(match unit {
                        ExpiryUnit::Milliseconds => format!("{place} must be a number of milliseconds"),
                        ExpiryUnit::Seconds => format!("{place} must be a number of seconds"),
                        ExpiryUnit::Rfc3339 => format!("{place} must be a time such as 2030-01-01T00:00:00Z"),
                    });
                }
            }
        });
        problem.map_or(Ok(expires), fail)
    }

    fn unchanging(&self, file: &Value) -> BTreeMap<String, Fingerprint> {
        let mut unchanging = BTreeMap::new();
        for place in &self.unchanging {
            place.each(file, &mut |at, value| {
                let mut text = match value {
                    Value::Null => return,
                    Value::Array(items) if items.is_empty() => return,
                    Value::Array(items) => {
                        let mut items: Vec<String> = items.iter().map(super::canonical::utf8).collect();
                        items.sort();
                        items.dedup();
                        items.join(",")
                    }
                    value => super::canonical::utf8(value),
                };
                unchanging.insert(at.to_owned(), Fingerprint(Sha256::digest(&text).into()));
                text.zeroize();
            });
        }
        unchanging
    }
}

/// Whether something stands at a place that a login needs.
fn is_there(place: &Place, file: &Value) -> Result<bool, CredentialError> {
    let (mut there, mut problem) = (false, None);
    place.each(file, &mut |_, value| match value {
        Value::String(text) => there |= !text.trim().is_empty(),
        Value::Int(_) => there |= value.as_i64().is_some_and(|number| number > 0),
        Value::Float(number) => there |= *number > 0.0,
        Value::Null => {}
        _ => problem = Some(format!("{place} must be a text or a number")),
    });
    problem.map_or(Ok(there), fail)
}

/// Zeroizes every text: other tokens than the known ones may be in the file.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        _ => {}
    }
}
