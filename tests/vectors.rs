//! The golden vectors: bytes made by the Python programs that batonfs must agree with.
//!
//! Each test judges the copies beside it, the originals in `../shared/vectors` where they are present, and those in
//! the directory that `BATON_VECTORS` names: `make_vectors.py --seed N --out DIR` makes fresh ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use batonfs::wire::canonical;
use batonfs::wire::card::{AgentCard, short_authentication_string};
use batonfs::wire::handoff::{Handoff, HandoffError};
use batonfs::wire::json::{self, JsonErrorKind, Object, ObjectStream, Value};
use batonfs::wire::keys::{PairSecret, PublicKey, SigningKey};
use batonfs::wire::message::{self, Message, SignatureVersion};
use batonfs::wire::name::AgentName;
use batonfs::wire::time::Timestamp;
use batonfs::wire::trust::{Tier, TrustList};
use std::path::{Path, PathBuf};

fn directories() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![here.join("tests/vectors")];
    found.extend(Some(here.join("../shared/vectors")).filter(|dir| dir.is_dir()));
    found.extend(std::env::var_os("BATON_VECTORS").map(PathBuf::from));
    found
}

fn read(dir: &Path, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", dir.display()))
}

/// A row of a vector file.
struct Row(Object);

impl Row {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("{name} is a string"))
    }
    fn valid(&self) -> bool {
        self.0["valid"].as_bool().expect("valid is a bool")
    }
}

/// Calls `judge` with every row of a file in every place it is kept.
fn each_row(file: &str, at_least: usize, mut judge: impl FnMut(&Path, &Row)) {
    for dir in directories() {
        let mut stream = ObjectStream::new();
        let rows = stream.push(&read(&dir, file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(stream.pending().is_empty(), "{file} ends inside a row");
        assert!(rows.len() >= at_least, "{file} has only {} rows", rows.len());
        for row in rows {
            judge(&dir, &Row(row.object));
        }
    }
}

fn test_keys(dir: &Path) -> Object {
    json::parse(&read(dir, "keys.json")).expect("keys.json").as_object().expect("an object").clone()
}

fn base64_text(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().expect("a string")).expect("base64")
}

fn signing_key(dir: &Path, agent: &AgentName) -> SigningKey {
    let keys = test_keys(dir);
    let agent = keys["agents"].as_object().expect("agents")[agent.as_str()].as_object().expect("an agent");
    let seed: [u8; 32] = base64_text(&agent["seed_b64"]).try_into().expect("32 bytes");
    let key = SigningKey::from_seed(&seed);
    assert_eq!(key.public().to_bytes().as_slice(), base64_text(&agent["public_b64"]));
    key
}

fn pair_secret(dir: &Path, pair: &str) -> PairSecret {
    let keys = test_keys(dir);
    PairSecret::from_file_bytes(&base64_text(&keys["handoff_secrets"].as_object().expect("secrets")[pair]))
}

fn trust(dir: &Path) -> TrustList {
    TrustList::parse(&read(dir, "trust.json")).expect("trust.json")
}

#[test]
fn canonical_json_is_pythons() {
    each_row("canonical.jsonl", 50, |_, row| {
        let name = row.text("name");
        let value = json::parse(row.text("input").as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(canonical::ascii(&value), row.text("ascii"), "{name}");
        assert_eq!(canonical::utf8(&value), row.text("utf8"), "{name}");
        let object = value.as_object().expect("every input is an object");
        assert_eq!(canonical::ascii_without(object, &[]), row.text("ascii"), "{name}");
        assert_eq!(canonical::utf8_without(object, &[]), row.text("utf8"), "{name}");
    });
}

/// The rule that a line breaks.
fn judge_line(line: &str, trust: &TrustList) -> Result<(), &'static str> {
    let value = json::parse(line.as_bytes()).map_err(|e| match e.kind {
        JsonErrorKind::DuplicateKey(_) => "duplicate-key",
        _ => "json",
    })?;
    let Value::Object(object) = value else { return Err("json") };
    Message::from_object(object).and_then(|m| m.verify(trust)).map(drop).map_err(|e| e.rule())
}

#[test]
fn every_message_is_accepted_or_breaks_exactly_its_rule() {
    each_row("messages.jsonl", 119, |dir, row| {
        let expected = if row.valid() { Ok(()) } else { Err(row.text("rule")) };
        assert_eq!(judge_line(row.text("line"), &trust(dir)), expected, "{}", row.text("name"));
    });
}

#[test]
fn the_message_file_is_a_stream_whose_lines_are_kept_byte_for_byte() {
    let mut lines = Vec::new();
    each_row("messages.jsonl", 119, |_, row| {
        if row.valid() {
            lines.push(row.text("line").as_bytes().to_vec());
        }
    });
    let log = lines.join(&b'\n');
    for size in [1, 7, 4096, log.len()] {
        let mut stream = ObjectStream::new();
        let read: Vec<_> = log
            .chunks(size)
            .flat_map(|piece| stream.push(piece).expect("valid rows"))
            .map(|object| object.line)
            .collect();
        assert!(read == lines && stream.pending().is_empty(), "in pieces of {size}");
    }
}

#[test]
fn signing_again_gives_the_same_signatures() {
    let mut signed_again = 0;
    each_row("messages.jsonl", 119, |dir, row| {
        if !row.valid() {
            return;
        }
        let name = row.text("name");
        let value = json::parse(row.text("line").as_bytes()).expect(name);
        let original = value.as_object().expect(name);
        let author = AgentName::parse(original["from"].as_str().expect(name)).expect(name);
        let version = match original.get("event_id") {
            Some(_) => SignatureVersion::V31,
            None => SignatureVersion::V3,
        };
        let key = signing_key(dir, &author);
        let line = message::sign(original.clone(), &author, &key, version, Timestamp(0)).expect(name);
        assert_eq!(json::parse(line.as_bytes()).as_ref(), Ok(&value), "{name}");
        assert_eq!(judge_line(&line, &trust(dir)), Ok(()), "{name}");
        signed_again += 1;
    });
    assert!(signed_again > 50, "only {signed_again}");
}

#[test]
fn every_handoff_is_accepted_or_breaks_exactly_its_rule() {
    each_row("handoffs.jsonl", 30, |dir, row| {
        let secret = pair_secret(dir, "bob|alice");
        let now = Timestamp::parse(row.text("now"), false).expect("now");
        let judged = Handoff::parse(row.text("payload").as_bytes())
            .and_then(|handoff| handoff.verify(&secret).and_then(|()| handoff.check_expiry(now)));
        let expected = if row.valid() { Ok(()) } else { Err(row.text("rule")) };
        assert_eq!(judged.as_ref().map_err(HandoffError::rule).copied(), expected, "{}", row.text("name"));
    });
}

#[test]
fn a_handoff_made_here_is_the_one_that_python_makes() {
    use batonfs::wire::handoff::{NewHandoff, create};
    let mut compared = 0;
    each_row("handoffs.jsonl", 30, |dir, row| {
        if !["plain", "microseconds", "empty transcript"].contains(&row.text("name")) {
            return;
        }
        let original = Handoff::parse(row.text("payload").as_bytes()).expect("a valid row");
        let new = NewHandoff {
            from: original.from,
            to: original.to,
            caller: "+15550001234".to_owned(),
            reason: "scheduling_capability".to_owned(),
            ttl_seconds: 60,
            transcript: original.object["transcript"].as_array().expect("a list").to_vec(),
        };
        let made = create(&new, &pair_secret(dir, "bob|alice"), original.initiated_at).expect("valid");
        assert_eq!(made, row.text("payload"), "{}", row.text("name"));
        compared += 1;
    });
    assert!(compared >= 3);
}

#[test]
fn every_card_is_judged() {
    each_row("cards.jsonl", 8, |_, row| {
        let judged = AgentCard::verify(row.text("card").as_bytes());
        assert_eq!(judged.is_ok(), row.valid(), "{}: {judged:?}", row.text("name"));
    });
}

#[test]
fn both_sides_see_the_same_six_digits() {
    each_row("sas.jsonl", 15, |_, row| {
        let side = |did, key| (row.text(did), PublicKey::from_base64(row.text(key)).expect("a key"));
        let (a, b) = (side("a_did", "a_public_b64"), side("b_did", "b_public_b64"));
        assert_eq!(short_authentication_string((a.0, &a.1), (b.0, &b.1)), row.text("sas"));
        assert_eq!(short_authentication_string((b.0, &b.1), (a.0, &a.1)), row.text("sas"));
    });
}

#[test]
fn the_trust_list_is_read_and_written_back() {
    for dir in directories() {
        let list = trust(&dir);
        assert_eq!(list.agents.len(), 5);
        let alice = AgentName::parse("did:wire:alice").expect("a name");
        assert_eq!(list.agents[&alice].tier, Tier::Trusted);
        assert_eq!(list.agents.keys().filter(|name| name.as_str() == "alice").count(), 1);
        let text = list.to_json();
        let again = TrustList::parse(text.as_bytes()).expect("what was written");
        assert_eq!(again.to_json(), text);
        assert!(text.ends_with("}\n") && !text.contains("did:wire:"));
        assert_eq!(again.agents.len(), list.agents.len());
        for (agent, entry) in &list.agents {
            for key in &entry.keys {
                let read = again.key(&key.id).expect("every key");
                assert_eq!((read.active, &read.added_at), (key.active, &key.added_at), "{agent}");
            }
        }
    }
}
