//! Where something stands in a credential file: a JSON pointer, and behind it perhaps a claim of a JWT.

use super::wipe;
use crate::wire::json::{self, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// `/tokens/account_id`, `/*/user` (of any key), `/id_token#sub` (the claim of the JWT that stands there), or
/// `/id_token#/a/b` (a pointer into its claims). `~1` stands for `/` in a key, and `~0` for `~`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    text: String,
    pointer: Vec<Step>,
    claim: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Any,
}

fn steps(pointer: &str) -> Vec<Step> {
    let step = |part: &str| match part {
        "*" => Step::Any,
        key => Step::Key(key.replace("~1", "/").replace("~0", "~")),
    };
    pointer.split('/').skip(1).map(step).collect()
}

impl Place {
    /// Reads a place.
    ///
    /// # Errors
    /// A sentence, without a subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (pointer, claim) = match text.split_once('#') {
            Some((pointer, claim)) => (pointer, Some(claim)),
            None => (text, None),
        };
        if !pointer.starts_with('/') || pointer.len() < 2 {
            return Err("must be a JSON pointer such as \"/tokens/account_id\" or \"/id_token#sub\"".into());
        }
        let claim = match claim {
            None => None,
            Some("" | "/") => return Err("names no claim after '#'; write \"#sub\" or \"#/a/b\"".into()),
            Some(claim) if claim.starts_with('/') => Some(steps(claim)),
            Some(claim) => Some(vec![Step::Key(claim.to_owned())]),
        };
        Ok(Place { text: text.to_owned(), pointer: steps(pointer), claim })
    }

    /// Whether it is a claim of a JWT.
    pub fn is_claim(&self) -> bool {
        self.claim.is_some()
    }

    /// Hands out each value that stands here, with the place in which the keys that `*` met are named. A JWT
    /// that can't be read has no claims; nobody verifies its signature.
    pub(super) fn each(&self, file: &Value, found: &mut dyn FnMut(&str, &Value)) {
        walk(file, &self.pointer, &mut String::new(), &mut |at, value| match &self.claim {
            None => found(at, value),
            Some(claim) => {
                let Some(mut claims) = value.as_str().and_then(jwt_claims) else { return };
                let mut at = format!("{at}#");
                walk(&claims, claim, &mut at, found);
                wipe(&mut claims);
            }
        });
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn walk(value: &Value, steps: &[Step], at: &mut String, found: &mut dyn FnMut(&str, &Value)) {
    let Some((step, rest)) = steps.split_first() else { return found(at, value) };
    let Value::Object(members) = value else { return };
    let mut enter = |key: &str, member: &Value| {
        let length = at.len();
        at.push('/');
        at.push_str(key);
        walk(member, rest, at, found);
        at.truncate(length);
    };
    match step {
        Step::Key(key) => {
            if let Some(member) = members.get(key) {
                enter(key, member);
            }
        }
        Step::Any => members.iter().for_each(|(key, member)| enter(key, member)),
    }
}

/// The payload of a JWT.
fn jwt_claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    json::parse(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(place: &str, file: &str) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        let file = json::parse(file.as_bytes()).unwrap();
        Place::parse(place).unwrap().each(&file, &mut |at, value| all.push((at.to_owned(), value.clone())));
        all
    }

    fn text(at: &str, value: &str) -> (String, Value) {
        (at.to_owned(), Value::String(value.to_owned()))
    }

    #[test]
    fn a_pointer_leads_to_a_member_and_a_star_to_all() {
        let file = r#"{"a":{"b/c":{"u":"x"},"d~":{"u":"y"},"e":1},"u":"z"}"#;
        assert_eq!(all("/a/b~1c/u", file), [text("/a/b/c/u", "x")]);
        assert_eq!(all("/a/d~0/u", file), [text("/a/d~/u", "y")]);
        assert_eq!(all("/a/*/u", file), [text("/a/b/c/u", "x"), text("/a/d~/u", "y")]);
        assert_eq!(all("/nothing/u", file), []);
    }

    #[test]
    fn a_claim_is_read_from_the_jwt_that_stands_there() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"me","https://x/auth":{"id":"deep"}}"#);
        let file = format!(r#"{{"id_token":"e30.{payload}.sig"}}"#);
        assert_eq!(all("/id_token#sub", &file), [text("/id_token#/sub", "me")]);
        assert_eq!(
            all("/id_token#/https:~1~1x~1auth/id", &file),
            [text("/id_token#/https://x/auth/id", "deep")]
        );
        assert_eq!(all("/id_token#none", &file), []);
        for broken in ["", "a.b", "e30.!.x", "e30.e30.x.y", "e30.bm90IGpzb24.x"] {
            assert_eq!(all("/id_token#sub", &format!(r#"{{"id_token":"{broken}"}}"#)), [], "{broken}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_told() {
        for text in ["", "/", "a/b", "#sub", "/a#", "/a#/"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
