//! baton trust and baton key without a daemon: what they change, print and refuse.

use crate::{Sample, baton_in};
use batonfs::wire::card::AgentCard;
use batonfs::wire::name::AgentName;
use batonfs::wire::trust::{Tier, TrustEntry, TrustList};
use serde_json::Value;
use std::fs;

const HELLO: &str = r#"{"type":"request","subject":"hello","body":"are you there?"}"#;

fn entry(sample: &Sample, agent: &str) -> TrustEntry {
    let list = TrustList::parse(&fs::read(sample.path("trust.json")).unwrap()).unwrap();
    list.agents[&AgentName::parse(agent).unwrap()].clone()
}

fn events(sample: &Sample, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(sample.path("events.jsonl")).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["event"] == event).collect()
}

fn key_id(sample: &Sample, agent: &str) -> String {
    let shown = sample.baton(&["key", "show", agent, "--json"], "").json();
    let held = shown.as_array().unwrap().iter().find(|key| key["held"] == true).unwrap();
    held["key_id"].as_str().unwrap().to_owned()
}

#[test]
fn tiers_are_raised_and_lowered_and_every_change_is_an_event() {
    let sample = Sample::make();
    let said = sample.baton(&["trust", "demote", "bob", "unverified"], "").failed(2);
    assert!(said.contains("UNTRUSTED, VERIFIED"), "{said}");
    let said = sample.baton(&["trust", "demote", "bob", "UNTRUSTED"], "").ok();
    assert_eq!(said, "bob is UNTRUSTED now, was ATTESTED: by the operator\n");
    assert_eq!(entry(&sample, "bob").tier, Tier::Untrusted);
    sample.baton(&["trust", "promote", "bob"], "").ok();
    let changed = sample.baton(&["trust", "promote", "bob", "trusted", "--json"], "").json();
    assert_eq!(changed["changes"].as_array().unwrap().len(), 1);
    assert_eq!(entry(&sample, "bob").tier, Tier::Trusted);
    let said = sample.baton(&["trust", "promote", "bob", "TRUSTED"], "").ok();
    assert!(said.starts_with("nothing changed"), "{said}");
    let said = sample.baton(&["trust", "promote", "bob", "VERIFIED"], "").failed(1);
    assert!(said.contains("baton trust demote bob VERIFIED"), "{said}");
    let said = sample.baton(&["trust", "promote", "zoe"], "").failed(1);
    assert!(said.contains("baton trust pin"), "{said}");
    let tiers: Vec<_> =
        events(&sample, "trust-changed").iter().map(|e| e["tiers"][0]["tier"].clone()).collect();
    assert_eq!(tiers, ["UNTRUSTED", "VERIFIED", "TRUSTED"]);
    let orders: Vec<_> =
        events(&sample, "trust-changed").iter().map(|e| e["order"].as_u64().unwrap()).collect();
    assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
    sample.baton(&["verify"], "").ok();
}

#[test]
fn block_and_show() {
    let sample = Sample::make();
    sample.baton(&["trust", "block", "bob"], "").ok();
    assert!(entry(&sample, "bob").blocked);
    let said = sample.baton(&["trust", "block", "bob"], "").ok();
    assert!(said.contains("nothing changed"), "{said}");
    let listed = sample.baton(&["trust", "list"], "").ok();
    assert!(listed.contains("ATTESTED, blocked") && listed.contains("SAS"), "{listed}");
    assert_eq!(sample.baton(&["trust", "show", "alice"], "").ok().lines().count(), 2);
    sample.baton(&["trust", "show", "zoe"], "").failed(1);
    sample.baton(&["trust", "unblock", "bob"], "").ok();
    assert!(!entry(&sample, "bob").blocked);
    // Another program's reader finds what it knows.
    let list: Value = serde_json::from_str(&sample.baton(&["trust", "show", "--json"], "").ok()).unwrap();
    assert_eq!(list["agents"]["bob"]["public_keys"][0]["active"], true);
    assert_eq!(list["agents"]["bob"]["tier"], "ATTESTED");
}

#[test]
fn digits_are_the_same_from_both_sides_and_make_both_verified() {
    let sample = Sample::make();
    sample.baton(&["trust", "demote", "bob", "UNTRUSTED"], "").ok();
    let digits = sample.baton(&["trust", "sas", "bob", "--as", "alice"], "").ok().trim().to_owned();
    assert!(digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()), "{digits}");
    let from_bob = sample.baton(&["trust", "sas", "alice", "--as", "bob", "--json"], "").json();
    assert_eq!(from_bob, serde_json::json!({"digits": digits, "confirmed_by": []}));

    let wrong = if digits == "123456" { "654321" } else { "123456" };
    let (trust, told) = (fs::read(sample.path("trust.json")), fs::read(sample.path("events.jsonl")));
    let said = sample.baton(&["trust", "sas", "bob", "--as", "alice", "--confirm", wrong], "").failed(1);
    assert!(said.contains("Nothing is confirmed"), "{said}");
    assert_eq!(fs::read(sample.path("trust.json")).unwrap(), trust.unwrap());
    assert_eq!(fs::read(sample.path("events.jsonl")).unwrap(), told.unwrap());

    sample.baton(&["trust", "sas", "bob", "--as", "alice", "--confirm", &digits], "").ok();
    assert_eq!(entry(&sample, "bob").tier, Tier::Untrusted);
    let half = sample.baton(&["trust", "sas", "alice", "--as", "bob", "--json"], "").json();
    assert_eq!(half["confirmed_by"], serde_json::json!(["alice"]));
    let said = sample.baton(&["trust", "sas", "alice", "--as", "bob", "--confirm", &digits], "").ok();
    assert!(said.contains("bob is VERIFIED now"), "{said}");
    assert_eq!(entry(&sample, "bob").tier, Tier::Verified);
    sample.baton(&["trust", "sas", "bob", "--as", "bob"], "").failed(1);
}

#[test]
fn a_card_is_pinned_at_untrusted_and_brings_a_known_agent_no_key() {
    let sample = Sample::make();
    let other = tempfile::tempdir().unwrap();
    let make = |dir: &str| {
        baton_in(other.path(), &["init", dir, "--agent", "carol"], "").ok();
        other.path().join(dir).join("trust/carol.card.json")
    };
    let (hers, another) = (make("hers"), make("another"));
    let card = AgentCard::verify(&fs::read(&hers).unwrap()).unwrap();
    assert_eq!(card.agent.as_str(), "carol");
    let pin = |card: &std::path::Path| sample.baton(&["trust", "pin", card.to_str().unwrap()], "");
    let said = pin(&hers).failed(1);
    assert!(said.contains("exchange.toml"), "{said}");
    let toml = fs::read_to_string(sample.path("exchange.toml")).unwrap();
    fs::write(sample.path("exchange.toml"), toml + "\n[agents.carol]\n").unwrap();
    let said = pin(&hers).ok();
    assert!(said.contains("carol is new, UNTRUSTED"), "{said}");
    assert_eq!((entry(&sample, "carol").tier, entry(&sample, "carol").keys.len()), (Tier::Untrusted, 1));
    assert!(pin(&hers).ok().contains("nothing changed"));
    let said = pin(&another).failed(1);
    assert!(said.contains("no known key of carol"), "{said}");
    assert_eq!(fs::read(sample.path("trust/carol.card.json")).unwrap(), fs::read(&hers).unwrap());

    let tampered = fs::read_to_string(&hers).unwrap().replace("\"host\":\"\"", "\"host\":\"evil\"");
    let said = sample.baton(&["trust", "pin", "-"], &tampered).failed(1);
    assert!(said.contains("standard input is no agent card"), "{said}");
    sample.baton(&["verify"], "").ok();
}

#[test]
fn init_writes_cards_that_python_would_verify() {
    let sample = Sample::make();
    let card: Value = serde_json::from_slice(&fs::read(sample.path("trust/bob.card.json")).unwrap()).unwrap();
    for member in [
        "schema_version",
        "did",
        "name",
        "host",
        "agent_card_url",
        "verify_keys",
        "old_verify_keys",
        "capabilities",
        "supported_kinds",
        "trust_tier_offered",
        "trust_tier_required_from_peers",
        "policies",
        "issued_at",
        "signature",
    ] {
        assert!(card.get(member).is_some(), "{member}");
    }
    assert_eq!(card["policies"]["max_message_body_kb"], 64);
    assert_eq!(card["policies"].get("rate_limit_msg_per_min"), None, "no limit is set");
    let id = key_id(&sample, "bob");
    assert!(card["verify_keys"][format!("ed25519:{id}")]["key"].is_string());
}

#[test]
fn rotate_gives_a_new_key_and_a_day_to_the_old_one() {
    let sample = Sample::make();
    let old = key_id(&sample, "bob");
    let said = sample.baton(&["key", "rotate", "bob"], "").ok();
    let new = key_id(&sample, "bob");
    assert!(new != old && said.contains(&format!("{new} is a new key of bob")), "{said}");
    assert!(said.contains(&format!("{old} is deactivated at ")), "{said}");
    let shown = sample.baton(&["trust", "show", "bob"], "").ok();
    assert!(shown.contains("active until 2"), "{shown}");
    let line: Value = serde_json::from_str(&sample.baton(&["sign", "--as", "bob"], HELLO).ok()).unwrap();
    assert_eq!(line["public_key_id"], new);

    let said = sample.baton(&["key", "rotate", "bob", "--now"], "").ok();
    assert!(said.contains(&format!("{old} is deactivated\n")), "{said}");
    assert!(said.contains(&format!("{new} is deactivated\n")), "{said}");
    assert_eq!(entry(&sample, "bob").keys.iter().filter(|key| key.active).count(), 1);
    sample.baton(&["key", "rotate", "zoe"], "").failed(1);
    sample.baton(&["verify"], "").ok();
}

#[test]
fn deactivate_is_at_once_and_for_good() {
    let sample = Sample::make();
    let id = key_id(&sample, "bob");
    let key = fs::read_to_string(sample.path("private/keys/bob.key")).unwrap();
    let said = sample.baton(&["key", "deactivate", &id], "").ok();
    assert!(said.contains("bob has no active key now: baton key rotate bob"), "{said}");
    assert!(sample.baton(&["key", "deactivate", &id], "").ok().contains("nothing changed"));
    sample.baton(&["key", "deactivate", "bob:00000000"], "").failed(1);
    sample.baton(&["key", "deactivate", "bob"], "").failed(1);
    let said = sample.baton(&["key", "import", "--as", "bob", "-"], &key).failed(1);
    assert!(said.contains("stays so"), "{said}");
    sample.baton(&["key", "rotate", "bob"], "").ok();
    sample.baton(&["verify"], "").ok();
    let card = AgentCard::verify(&fs::read(sample.path("trust/bob.card.json")).unwrap()).unwrap();
    let old = card.object["old_verify_keys"].as_object().unwrap();
    assert!(old.contains_key(&format!("ed25519:{id}")));
}
