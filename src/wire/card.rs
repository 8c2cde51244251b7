//! Agent cards and the short authentication string. Format: PROTOCOLS section 2.

use super::canonical;
use super::json::{self, Object, Value};
use super::keys::{self, KeyId, PublicKey, SigningKey};
use super::message;
use super::name::AgentName;
use super::time::Timestamp;
use sha2::{Digest, Sha256};

const DID: &str = "did:wire:";
const ALGORITHM: &str = "ed25519:";
const VERIFY_KEYS: &str = "verify_keys";
const OLD_VERIFY_KEYS: &str = "old_verify_keys";
const POLICIES: &str = "policies";
const RATE: &str = "rate_limit_msg_per_min";
const ISSUED_AT: &str = "issued_at";
const SIGNATURE: &str = "signature";

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
    pub keys: Vec<CardKey>,
    /// Which of them signed it.
    pub signed_by: KeyId,
    /// All members.
    pub object: Object,
}

/// One of a card's `verify_keys`.
#[derive(Debug, Clone)]
pub struct CardKey {
    /// Its id.
    pub id: KeyId,
    /// The key.
    pub key: PublicKey,
    /// From when it signs; `None`: ever since.
    pub valid_from: Option<Timestamp>,
    /// Until when; `None`: no end is set.
    pub valid_until: Option<Timestamp>,
}

impl CardKey {
    /// Whether it signs at a time. `skew_seconds`: how far the clock of its owner may be ahead.
    pub fn is_valid(&self, now: Timestamp, skew_seconds: i64) -> bool {
        self.valid_from.is_none_or(|from| from <= now.plus_seconds(skew_seconds))
            && self.valid_until.is_none_or(|until| now < until)
    }

    fn to_member(&self) -> (String, Value) {
        let time = |time: Option<Timestamp>| time.map_or(Value::Null, |t| Value::String(t.to_string()));
        let members = Object::from([
            ("key".to_owned(), Value::String(keys::encode_base64(&self.key.to_bytes()))),
            ("valid_from".to_owned(), time(self.valid_from)),
            ("valid_until".to_owned(), time(self.valid_until)),
        ]);
        (format!("{ALGORITHM}{}", self.id), Value::Object(members))
    }
}

/// What an agent's card is to say, where this program writes it.
#[derive(Debug, Clone)]
pub struct NewCard<'a> {
    /// Whose.
    pub agent: &'a AgentName,
    /// The keys that sign.
    pub keys: Vec<CardKey>,
    /// The keys that have signed.
    pub old_keys: Vec<CardKey>,
    /// Longest body in bytes.
    pub max_body_bytes: usize,
    /// How far into the future a timestamp may lie.
    pub clock_skew_seconds: i64,
    /// Messages a minute; `None`: no limit is set.
    pub rate_per_minute: Option<u32>,
}

impl NewCard<'_> {
    /// The card without `issued_at` and `signature`.
    pub fn members(&self) -> Object {
        let text = |text: &str| Value::String(text.to_owned());
        let number = |number: i64| Value::Int(number.to_string());
        let keys = |keys: &[CardKey]| Value::Object(keys.iter().map(CardKey::to_member).collect());
        let (words, kinds) = message::types_with_kinds().unzip::<_, _, Vec<_>, Vec<_>>();
        let mut policies = Object::from([
            ("max_message_body_kb".to_owned(), number((self.max_body_bytes / 1024) as i64)),
            ("max_clock_skew_seconds".to_owned(), number(self.clock_skew_seconds)),
        ]);
        if let Some(rate) = self.rate_per_minute {
            policies.insert(RATE.to_owned(), number(i64::from(rate)));
        }
        [
            ("schema_version", text("v3.1")),
            ("did", text(&format!("{DID}{}", self.agent))),
            ("name", text(self.agent.as_str())),
            ("host", text("")),
            ("agent_card_url", text("")),
            (VERIFY_KEYS, keys(&self.keys)),
            (OLD_VERIFY_KEYS, keys(&self.old_keys)),
            ("capabilities", Value::Array(words.into_iter().map(text).collect())),
            ("supported_kinds", Value::Array(kinds.into_iter().map(|kind| number(kind.into())).collect())),
            ("trust_tier_offered", text("ATTESTED")),
            ("trust_tier_required_from_peers", text("VERIFIED")),
            (POLICIES, Value::Object(policies)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// The card, signed: its text, for a file.
    pub fn sign(&self, key: &SigningKey, now: Timestamp) -> String {
        let mut card = self.members();
        card.insert(ISSUED_AT.to_owned(), Value::String(now.to_string()));
        let signature = key.sign(canonical::utf8_without(&card, &[SIGNATURE]).as_bytes());
        card.insert(SIGNATURE.to_owned(), Value::String(keys::encode_base64(&signature)));
        file_text(&card)
    }

    /// Whether `card` says all this, whoever signed it and whenever.
    pub fn is_said_by(&self, card: &AgentCard) -> bool {
        canonical::utf8(&Value::Object(self.members()))
            == canonical::utf8_without(&card.object, &[ISSUED_AT, SIGNATURE])
    }

    /// Whether `card` is one that this program wrote for the same agent, perhaps with other keys and limits.
    pub fn resembles(&self, card: &AgentCard) -> bool {
        const CHANGING: [&str; 5] = [VERIFY_KEYS, OLD_VERIFY_KEYS, POLICIES, ISSUED_AT, SIGNATURE];
        canonical::utf8_without(&self.members(), &CHANGING)
            == canonical::utf8_without(&card.object, &CHANGING)
    }
}

impl AgentCard {
    /// Reads a card and verifies its signature.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn verify(text: &[u8]) -> Result<Self, CardError> {
        let value = json::parse(text).map_err(|e| CardError(format!("not acceptable JSON: {e}")))?;
        let Value::Object(object) = value else { return fail("a card must be a JSON object") };
        Self::verify_object(object)
    }

    /// Verifies a card's signature.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn verify_object(object: Object) -> Result<Self, CardError> {
        let did = object.get("did").and_then(Value::as_str).unwrap_or_default();
        if !did.starts_with(DID) {
            return fail("did is missing or not of the form did:wire:<handle>");
        }
        let agent = AgentName::parse(did).map_err(|e| CardError(format!("did: {e}")))?;
        let keys = read_keys(&agent, object.get(VERIFY_KEYS))?;
        let Some(signature) = object.get(SIGNATURE).and_then(Value::as_str) else {
            return fail("signature is missing or not a string");
        };
        let signed = canonical::utf8_without(&object, &[SIGNATURE]);
        let signer = keys::decode_base64(signature)
            .and_then(|signature| keys.iter().find(|k| k.key.verify_strict(signed.as_bytes(), &signature)));
        match signer.map(|key| key.id.clone()) {
            Some(signed_by) => Ok(AgentCard { agent, keys, signed_by, object }),
            None => fail("the signature is by none of the card's own verify_keys"),
        }
    }

    /// `policies.rate_limit_msg_per_min`, where it sets a limit.
    pub fn rate_per_minute(&self) -> Option<u32> {
        let rate = self.object.get(POLICIES)?.as_object()?.get(RATE)?.as_i64()?;
        u32::try_from(rate).ok().filter(|rate| *rate > 0)
    }

    /// `issued_at`, where it is a time.
    pub fn issued_at(&self) -> Option<Timestamp> {
        Timestamp::parse(self.object.get(ISSUED_AT)?.as_str()?, true)
    }

    /// Its text, for a file: canonical, with a newline.
    pub fn to_text(&self) -> String {
        file_text(&self.object)
    }
}

/// Reads `{"ed25519:<key_id>": {key, valid_from, valid_until}}`.
fn read_keys(agent: &AgentName, listed: Option<&Value>) -> Result<Vec<CardKey>, CardError> {
    let Some(listed) = listed.and_then(Value::as_object) else {
        return fail("verify_keys is missing or not an object");
    };
    let mut keys = Vec::with_capacity(listed.len());
    for (name, entry) in listed {
        let Some(written) = name.strip_prefix(ALGORITHM) else {
            return fail(format!("verify_keys: {name:?} is not of the form ed25519:<key id>"));
        };
        let written = KeyId::parse(written).map_err(|e| CardError(format!("verify_keys: {e}")))?;
        let member = |member| entry.as_object().and_then(|entry| entry.get(member));
        let Some(key) = member("key").and_then(Value::as_str) else {
            return fail(format!("verify_keys.{name}: key is missing or not a string"));
        };
        let key = PublicKey::from_base64(key).map_err(|e| CardError(format!("verify_keys.{name}: {e}")))?;
        let id = key.id(agent);
        if id != written {
            return fail(format!("verify_keys: {written} is the id of another key; this one is {id}"));
        }
        let time = |what| match member(what) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(given) => match given.as_str().and_then(|text| Timestamp::parse(text, true)) {
                Some(time) => Ok(Some(time)),
                None => fail(format!("verify_keys.{name}: {what} is neither an ISO 8601 time nor null")),
            },
        };
        let (valid_from, valid_until) = (time("valid_from")?, time("valid_until")?);
        keys.push(CardKey { id, key, valid_from, valid_until });
    }
    Ok(keys)
}

fn file_text(card: &Object) -> String {
    canonical::utf8_without(card, &[]) + "\n"
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
