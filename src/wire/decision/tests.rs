use super::*;
use crate::wire::json;

/// As the protocol's own programs enter it.
const FOREIGN: &str = r#"{"decision_id":"c","ratified_at":"2026-05-10T00:01:00+00:00","proposer":"did:wire:bob",
    "acked_by":["carol","alice"],"decision":"v2","canonical":true,"note":1}"#;

fn entry(text: &str) -> Object {
    json::parse(text.as_bytes()).expect(text).as_object().expect(text).clone()
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).expect(name)
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let acks = BTreeMap::from([(agent("alice"), "aa".to_owned()), (agent("carol"), "cc".to_owned())]);
    let evidence = |settled_by_operator| {
        Some(Evidence { proposal: "bb".to_owned(), acks: acks.clone(), settled_by_operator })
    };
    for evidence in [None, evidence(false), evidence(true)] {
        let decision = Decision {
            decision_id: "ä\n".to_owned(),
            ratified_at: Timestamp(1_778_371_200_000_001),
            proposer: agent("bob"),
            acked_by: acks.keys().cloned().collect(),
            decision: Value::Object(entry(r#"{"subject":"s","body":[1e16,"\u0001",{"b":1,"a":null}]}"#)),
            domains: [("api".to_owned(), acks.keys().cloned().collect()), ("ui".to_owned(), BTreeSet::new())]
                .into(),
            evidence,
        };
        let line = decision.to_line();
        assert!(!line.contains('\n'));
        assert_eq!(Decision::from_object(&entry(&line)), Ok(decision), "{line}");
    }
}

#[test]
fn an_entry_of_another_program_need_not_say_more_than_invariant_7_asks() {
    let decision = Decision::from_object(&entry(FOREIGN)).expect(FOREIGN);
    assert_eq!((decision.decision_id.as_str(), decision.proposer), ("c", agent("bob")));
    assert_eq!(decision.acked_by, [agent("alice"), agent("carol")].into());
    assert_eq!((decision.domains.len(), decision.evidence), (0, None));
    let with_domains = FOREIGN.replace("\"note\":1", r#""affected_domains":["api"]"#);
    let decision = Decision::from_object(&entry(&with_domains)).expect(&with_domains);
    assert_eq!(decision.domains, [("api".to_owned(), BTreeSet::new())].into());
}

#[test]
fn an_entry_says_which_member_is_wrong() {
    for (member, value, problem) in [
        ("decision_id", None, "decision_id is missing"),
        ("ratified_at", None, "ratified_at is missing"),
        ("ratified_at", Some("\"soon\""), "ratified_at must be ISO 8601"),
        ("proposer", Some("7"), "proposer must be a string"),
        ("proposer", Some("\"a b\""), "proposer: \"a b\" is no agent name"),
        ("acked_by", None, "acked_by is missing"),
        ("acked_by", Some("\"alice\""), "acked_by must be a list of handles"),
        ("acked_by", Some("[1]"), "acked_by must be a list of handles"),
        ("decision", None, "decision is missing"),
        ("canonical", None, "canonical must be true"),
        ("canonical", Some("\"true\""), "canonical must be true"),
        ("affected_domains", Some("[1]"), "affected_domains must be a list of strings"),
        ("domain_owners", Some("[]"), "domain_owners must be an object"),
        ("domain_owners", Some(r#"{"api":"alice"}"#), "domain_owners must be a list of handles"),
        ("evidence", Some("[]"), "evidence must be an object"),
        ("evidence", Some("{}"), "evidence.acks must be an object"),
        ("evidence", Some(r#"{"acks":{"alice":1}}"#), "evidence.acks must be an object of strings"),
        ("evidence", Some(r#"{"acks":{}}"#), "proposal is missing"),
        ("evidence", Some(r#"{"acks":{},"proposal":"p","settled_by":"bob"}"#), "evidence.settled_by must be"),
    ] {
        let mut entry = entry(FOREIGN);
        entry.remove(member);
        if let Some(value) = value {
            entry.insert(member.to_owned(), json::parse(value.as_bytes()).expect(value));
        }
        let DecisionError(said) = Decision::from_object(&entry).expect_err(problem);
        assert!(said.starts_with(problem), "{said}");
    }
}

#[test]
fn a_claim_is_read_from_an_entry_or_from_a_messages_body() {
    let object = entry(FOREIGN);
    let claim = Claim::from_object(&object).expect(FOREIGN);
    assert_eq!((claim.ids, claim.proposer), (vec!["c"], Some(agent("bob"))));
    assert_eq!(claim.acked_by, Some([agent("alice"), agent("carol")].into()));
    let message =
        entry(r#"{"type":"decision","correlation_id":"c","body":{"decision_id":"d","proposer":"bob"}}"#);
    let claim = Claim::from_object(&message).expect("a message");
    assert_eq!((claim.ids, claim.proposer, claim.acked_by), (vec!["d", "c"], Some(agent("bob")), None));
    let wrong = entry(r#"{"correlation_id":"c","body":{"acked_by":7}}"#);
    assert!(Claim::from_object(&wrong).is_err());
}
