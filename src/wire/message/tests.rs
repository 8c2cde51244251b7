//! The rules of a message, each broken by name.

use super::*;
use crate::wire::json;

const GOOD: &str = r#"{"timestamp":"2026-05-10T00:01:00Z","from":"bob","type":"ship","subject":"s","body":"b",
    "correlation_id":"c"}"#;

fn object(text: &str) -> Object {
    json::parse(text.as_bytes()).expect(text).as_object().expect(text).clone()
}

/// The good message with some members set (given as JSON).
fn with(members: &[(&str, &str)]) -> Result<Message, MessageError> {
    let mut message = object(GOOD);
    for (name, value) in members {
        message.insert((*name).to_owned(), json::parse(value.as_bytes()).expect(value));
    }
    Message::from_object(message)
}

fn bob() -> (AgentName, SigningKey) {
    (AgentName::parse("bob").expect("a name"), SigningKey::from_seed(&[1; 32]))
}

fn trusting_bob(tier: &str) -> TrustList {
    let (name, key) = bob();
    let public = key.public();
    let list = format!(
        r#"{{"agents":{{"bob":{{"tier":"{tier}","public_keys":[{{"key_id":"{}","key":"{}"}}]}}}}}}"#,
        public.id(&name),
        keys::encode_base64(&public.to_bytes())
    );
    TrustList::parse(list.as_bytes()).expect("a list")
}

#[test]
fn a_kind_is_given_or_implied_and_must_agree_with_the_type() {
    for (message_type, kind, expected) in [
        ("\"ship\"", None, Some(Some(1200))),
        ("\"request\"", None, Some(None)),
        ("\"ship\"", Some("1200"), Some(Some(1200))),
        ("\"ship\"", Some("1201"), None),
        ("\"claim\"", Some("5000"), None),
        ("\"request\"", Some("1200"), None),
        ("\"gossip\"", None, None),
        ("\"gossip\"", Some("1100"), None),
        ("\"gossip\"", Some("1102"), Some(Some(1102))),
        ("\"gossip\"", Some("39999"), Some(Some(39999))),
        ("\"gossip\"", Some("999"), None),
        ("\"gossip\"", Some("40000"), None),
        ("\"gossip\"", Some("-1100"), None),
        ("\"gossip\"", Some("4294968396"), None),
        ("\"ship\"", Some("1200.0"), None),
        ("\"ship\"", Some("\"1200\""), None),
        ("\"ship\"", Some("null"), None),
    ] {
        let mut members = vec![("type", message_type)];
        members.extend(kind.map(|kind| ("kind", kind)));
        match (with(&members), expected) {
            (Ok(message), Some(expected)) => assert_eq!(message.kind, expected, "{members:?}"),
            (Err(e), None) => assert_eq!(e.rule(), "schema", "{members:?}"),
            (found, _) => panic!("{members:?}: {found:?}"),
        }
    }
}

#[test]
fn a_member_of_the_wrong_form_is_named() {
    for (name, value) in [
        ("timestamp", "1776765600"),
        ("timestamp", "\"yesterday\""),
        ("from", "\"b b\""),
        ("from", "null"),
        ("type", "7"),
        ("subject", "null"),
        ("correlation_id", "\"\""),
        ("correlation_id", "1"),
        ("refs", "\"r\""),
        ("priority", "\"urgent\""),
        ("priority", "1"),
        ("ack_required", "\"yes\""),
        ("to", "\"bob\""),
        ("to", "[\"b b\"]"),
        ("to", "[1]"),
        ("signature", "1"),
        ("public_key_id", "null"),
    ] {
        let error = with(&[(name, value)]).expect_err(value);
        assert!(matches!(&error, MessageError::Schema(problem) if problem.contains(name)), "{name}: {error}");
    }
    for (name, value) in [
        ("to", "[\"*\"]"),
        ("to", "[\"did:wire:alice\",\"bob\"]"),
        ("priority", "\"normal\""),
        ("body", "null"),
        ("timestamp", "\"2026-05-10T00:01:00.5\""),
        ("unknown", "{}"),
    ] {
        assert!(with(&[(name, value)]).is_ok(), "{name} {value}");
    }
}

#[test]
fn the_body_is_measured_as_written() {
    let measure = |body| with(&[("body", body)]).expect("valid").body_bytes;
    assert_eq!(measure("\"\\u00e5b\""), 3);
    assert_eq!(measure("{ \"a\" : [1.0] }"), r#"{"a":[1.0]}"#.len());
}

#[test]
fn a_minimal_message_is_completed_and_signed() {
    let (name, key) = bob();
    let trust = trusting_bob("ATTESTED");
    for (version, keys_in_order) in [
        (
            SignatureVersion::V3,
            "timestamp from type subject body refs priority correlation_id ack_required x public_key_id signature",
        ),
        (
            SignatureVersion::V31,
            "timestamp from type kind subject body refs priority correlation_id ack_required x event_id \
             public_key_id signature",
        ),
    ] {
        let minimal = object(r#"{"type":"proposal","x":1,"subject":"s","body":"b"}"#);
        let line = sign(minimal, &name, &key, version, Timestamp(1_500_000)).expect("valid");
        let mut rest = line.as_str();
        for member in keys_in_order.split(' ') {
            let at = rest.find(&format!("\"{member}\":")).unwrap_or_else(|| panic!("{member} in {line}"));
            rest = &rest[at..];
        }
        let message = Message::from_object(object(&line)).expect("valid");
        assert_eq!(message.timestamp, Timestamp(1_500_000));
        assert_eq!(message.correlation_id, "1970-01-01T00:00:01.500000Z");
        assert_eq!(message.object["ack_required"], json::Value::Bool(true));
        let id = message.id;
        let verified = message.verify(&trust).expect("signed");
        assert_eq!(verified.message().id, id);
        assert_eq!(verified.key().agent, name);
    }
}

#[test]
fn nobody_signs_for_somebody_else() {
    let (name, key) = bob();
    let theirs = object(&GOOD.replace("bob", "alice"));
    let error = sign(theirs, &name, &key, SignatureVersion::V31, Timestamp(0)).expect_err("alice's");
    assert_eq!(error.rule(), "from-mismatch");
    let did = object(&GOOD.replace("bob", "did:wire:bob"));
    let line = sign(did, &name, &key, SignatureVersion::V31, Timestamp(0)).expect("bob's own did");
    assert!(line.contains("did:wire:bob"));
    assert!(Message::from_object(object(&line)).and_then(|m| m.verify(&trusting_bob("TRUSTED"))).is_ok());
}

#[test]
fn an_untrusted_agents_heartbeat_passes_in_both_versions() {
    let (name, key) = bob();
    let trust = trusting_bob("UNTRUSTED");
    for version in [SignatureVersion::V3, SignatureVersion::V31] {
        let send = |message_type: &str| {
            let text = GOOD.replace("ship", message_type);
            let line = sign(object(&text), &name, &key, version, Timestamp(0)).expect("valid");
            Message::from_object(object(&line)).and_then(|m| m.verify(&trust)).map_err(|e| e.rule())
        };
        assert!(send("heartbeat").is_ok());
        assert_eq!(send("request").err(), Some("tier"));
    }
}

#[test]
fn an_event_id_of_another_form_breaks_its_rule() {
    let (name, key) = bob();
    let line = sign(object(GOOD), &name, &key, SignatureVersion::V31, Timestamp(0)).expect("valid");
    let trust = trusting_bob("TRUSTED");
    for wrong in ["null", "7", "\"\"", "\"ABC\""] {
        let mut message = object(&line);
        message.insert(EVENT_ID.to_owned(), json::parse(wrong.as_bytes()).expect(wrong));
        let error = Message::from_object(message).and_then(|m| m.verify(&trust)).expect_err(wrong);
        assert_eq!(error, MessageError::EventId);
    }
    let mut message = object(&line);
    message.remove(EVENT_ID);
    let error = Message::from_object(message).and_then(|m| m.verify(&trust)).expect_err("v3 now");
    assert_eq!(error.rule(), "signature");
}
