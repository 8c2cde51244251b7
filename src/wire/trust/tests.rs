//! Trust lists: what is read, kept, refused and merged.

use super::*;
use crate::wire::keys::SigningKey;

fn name(text: &str) -> AgentName {
    AgentName::parse(text).expect("a name")
}

/// A list of one agent with one key, with `more` members in the agent and `key_more` in the key.
fn list(agent: &str, seed: u8, more: &str, key_more: &str) -> String {
    let key = SigningKey::from_seed(&[seed; 32]).public();
    let (id, key_text) = (key.id(&name(agent)), keys::encode_base64(&key.to_bytes()));
    format!(
        r#"{{"version":1,"note":[1.0],"agents":{{"{agent}":{{"public_keys":[
           {{"key_id":"{id}","key":"{key_text}"{key_more}}}]{more}}}}}}}"#
    )
}

fn parsed(text: &str) -> TrustList {
    TrustList::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn problem(text: &str) -> String {
    TrustList::parse(text.as_bytes()).expect_err(text).0
}

#[test]
fn members_of_other_versions_are_kept() {
    let text = list("did:wire:bob", 1, r#","sas_verified":true,"x":{"y":[]}"#, r#","comment":"\u00e5""#);
    let written = parsed(&text).to_json();
    for kept in ["\"note\": [\n    1.0", "\"sas_verified\": true", "\"y\": []", "\"comment\": \"\u{e5}\""] {
        assert!(written.contains(kept), "{kept} in {written}");
    }
    assert!(written.contains("\"bob\": {") && !written.contains("did:wire"));
    assert_eq!(parsed(&written).to_json(), written);
}

#[test]
fn an_agent_without_a_tier_is_attested() {
    assert_eq!(parsed(&list("bob", 1, "", "")).agents[&name("bob")].tier, Tier::Attested);
}

#[test]
fn an_error_names_the_agent_and_the_member() {
    let good = list("bob", 1, r#","tier":"VERIFIED""#, r#","active":true"#);
    let id = parsed(&good).agents[&name("bob")].keys[0].id.to_string();
    for (wrong, names) in [
        (good.replace("VERIFIED", "SUPERUSER"), "agents.bob: \"SUPERUSER\" is no tier"),
        (good.replace("\"VERIFIED\"", "3"), "agents.bob: tier"),
        (good.replace(&id, "bob:00000000"), "agents.bob: public_keys[0]: key_id is bob:00000000"),
        (good.replace(&id, &id.replace("bob", "eve")), "agents.bob: public_keys[0]: key_id is eve:"),
        (good.replace("\"active\":true", "\"active\":1"), "agents.bob: public_keys[0]: active"),
        (
            good.replace("\"active\"", "\"deactivate_at\":\"soon\",\"active\""),
            "public_keys[0]: deactivate_at \"soon\"",
        ),
        (
            good.replace("\"active\"", "\"valid_until\":7,\"active\""),
            "public_keys[0]: valid_until must be a string",
        ),
        (
            good.replace("\"tier\"", "\"blocked\":\"no\",\"tier\""),
            "agents.bob: blocked must be true or false",
        ),
        (good.replace("\"key\":\"", "\"key\":\"A"), "agents.bob: public_keys[0]: key: not base64"),
        (good.replace("{\"bob\"", "{\"b/b\""), "agents: \"b/b\" is no agent name"),
        (good.replace("\"agents\"", "\"agent\""), "agents is missing"),
        ("[]".to_owned(), "must be a JSON object"),
        ("{".to_owned(), "not acceptable JSON"),
        (r#"{"agents":{"bob":{},"did:wire:bob":{}}}"#.to_owned(), "agents.bob: listed twice"),
    ] {
        let found = problem(&wrong);
        assert!(found.contains(names), "{found} should say {names}");
    }
}

#[test]
fn a_merge_adds_and_deactivates_and_never_removes() {
    let mut ours = parsed(&list("bob", 1, r#","tier":"UNTRUSTED""#, ""));
    let second = parsed(&list("bob", 2, r#","tier":"TRUSTED""#, r#","active":false"#));
    let report = ours.merge(&second);
    assert_eq!(report.len(), 2, "{report:?}");
    assert!(report[0].contains("bob is TRUSTED now, was UNTRUSTED"));
    assert!(report[1].contains("deactivated"));
    let bob = &ours.agents[&name("bob")];
    assert_eq!(bob.keys.iter().map(|key| key.active).collect::<Vec<_>>(), [true, false]);

    // A key that is retired here stays retired, whatever an older list says.
    assert!(ours.merge(&parsed(&list("bob", 2, r#","tier":"TRUSTED""#, ""))).is_empty());
    assert!(!ours.agents[&name("bob")].keys[1].active);
    let retired = list("bob", 1, r#","tier":"TRUSTED""#, r#","active":false"#);
    assert_eq!(ours.merge(&parsed(&retired)).len(), 1);
    assert!(ours.agents[&name("bob")].keys.iter().all(|key| !key.active));

    assert_eq!(ours.merge(&parsed(&list("alice", 3, "", ""))).len(), 1);
    assert_eq!(ours.agents.len(), 2);
}

#[test]
fn tiers_say_what_may_be_sent() {
    for (tier, word, kind, may) in [
        (Tier::Untrusted, "heartbeat", Some(100), true),
        (Tier::Untrusted, "agent_card", Some(10000), true),
        (Tier::Untrusted, "trust_tier_announcement", Some(10001), true),
        (Tier::Untrusted, "request", None, false),
        (Tier::Untrusted, "ship", Some(1200), false),
        (Tier::Verified, "request", None, true),
        (Tier::Verified, "claim", Some(1100), false),
        (Tier::Verified, "release", Some(1101), true),
        (Tier::Attested, "claim", Some(1100), true),
        (Tier::Trusted, "anything", Some(30000), true),
    ] {
        assert_eq!(tier.may_send(word, kind), may, "{tier:?} {word}");
    }
    assert!(Tier::Untrusted < Tier::Verified && Tier::Attested < Tier::Trusted);
}

#[test]
fn what_differs_makes_one_list_of_the_other() {
    let old = parsed(&list("bob", 1, r#","tier":"VERIFIED","big":123456789012345678901234567890"#, ""));
    assert!(old.delta_from(&old).is_empty());
    let mut new = old.clone();
    new.merge(&parsed(&list("bob", 2, r#","tier":"TRUSTED""#, "")));
    new.merge(&parsed(&list("alice", 3, "", r#","active":false"#)));
    new.agents.get_mut(&name("bob")).expect("bob").keys[0].deactivate(Timestamp(0));
    let delta = new.delta_from(&old);
    let keys: Vec<_> = delta.keys.iter().map(|key| (key.id.agent.to_string(), key.active)).collect();
    assert_eq!(keys, [("alice".to_owned(), false), ("bob".to_owned(), false), ("bob".to_owned(), true)]);
    let tiers: Vec<_> = delta.tiers.iter().map(|change| (change.tier, change.was)).collect();
    assert_eq!(tiers, [(Tier::Attested, None), (Tier::Trusted, Some(Tier::Verified))]);
    let mut redone = old.clone();
    for _ in 0..2 {
        redone.apply(&delta.redo()).expect("what was written");
        assert_eq!(redone.to_json(), new.to_json());
    }
    redone.apply("[]").expect_err("no such text");
}

#[test]
fn who_is_blocked_on_either_side_is_blocked() {
    let mut ours = parsed(&list("bob", 1, "", ""));
    let theirs = parsed(&list("bob", 1, r#","blocked":true"#, ""));
    assert_eq!(ours.merge(&theirs), ["bob is blocked"]);
    assert!(ours.merge(&parsed(&list("bob", 1, r#","blocked":false"#, ""))).is_empty());
    assert!(ours.agents[&name("bob")].blocked);
}
