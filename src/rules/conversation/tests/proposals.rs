use super::*;
use crate::rules::conversation::proposals::{Proposal, Standing};
use crate::wire::decision::Decision;
use crate::wire::keys::SigningKey;

const API: &str = r#"{"affected_domains":["api"]}"#;

fn proposal<'a>(scene: &'a Scene, thread: &str) -> &'a Proposal {
    scene.conversation.proposals.find(thread).expect(thread)
}

fn standing(scene: &Scene, thread: &str) -> Standing {
    proposal(scene, thread).standing
}

fn due(scene: &Scene, thread: &str) -> i64 {
    (proposal(scene, thread).due.0 - START.0) / 1_000_000
}

fn decided(effects: &[Effect]) -> Decision {
    let line = effects.iter().find_map(|effect| match effect {
        Effect::Decided { line, .. } => Some(line),
        _ => None,
    });
    let value = json::parse(line.expect("a decision").as_bytes()).expect("JSON");
    Decision::from_object(value.as_object().expect("an object")).expect("an entry")
}

#[test]
fn a_proposal_with_the_acks_of_all_owners_is_a_decision() {
    let mut scene = Scene::new();
    let extra = r#"{"affected_domains":["api"],"subject":"v2","body":{"z":1.0,"ä":[null,"x"]}}"#;
    assert!(scene.with("bob", "alice carol dave", "proposal", "p", extra).is_empty());
    assert_eq!(proposal(&scene, "p").owners, agents("alice carol").into_iter().collect());
    // Its proposer, and who owns nothing of it, ratify nothing.
    assert!(decisions(&scene.say("bob", "alice", "ack", "p")).is_empty());
    assert!(decisions(&scene.say("dave", "bob", "ack", "p")).is_empty());
    assert!(decisions(&scene.say("carol", "bob", "ack", "p")).is_empty());
    assert!(decisions(&scene.say("carol", "bob", "ack", "p")).is_empty(), "one owner's second ack");
    assert_eq!(proposal(&scene, "p").missing().collect::<Vec<_>>(), [&agent("alice")]);
    let effects = scene.at(5).say("alice", "bob", "ack", "p");
    assert_eq!(words(&effects), ["decided p", "bob thanks alice"]);
    assert_eq!(standing(&scene, "p"), Standing::Decided);
    let ids = [1, 4, 6].map(|n| {
        let (from, kind, extra) = match n {
            1 => ("bob", "proposal", extra),
            4 => ("carol", "ack", "{}"),
            _ => ("alice", "ack", "{}"),
        };
        message(n, from, kind, "p", extra).id_hex()
    });
    let Effect::Decided { line, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(
        *line,
        format!(
            "{{\"acked_by\":[\"alice\",\"carol\"],\"affected_domains\":[\"api\"],\"canonical\":true,\
             \"decision\":{{\"body\":{{\"z\":1.0,\"ä\":[null,\"x\"]}},\"subject\":\"v2\"}},\
             \"decision_id\":\"p\",\"domain_owners\":{{\"api\":[\"alice\",\"carol\"]}},\
             \"evidence\":{{\"acks\":{{\"alice\":\"{}\",\"carol\":\"{}\"}},\"proposal\":\"{}\"}},\
             \"proposer\":\"bob\",\"ratified_at\":\"2026-05-10T00:00:05Z\"}}",
            ids[2], ids[1], ids[0]
        )
    );
    assert!(decisions(&scene.say("alice", "bob", "ack", "p")).is_empty(), "decided once");
}

#[test]
fn who_has_to_ack() {
    let mut scene = Scene::new();
    let (some, all) = ("carol dave bob", "alice carol dave bob");
    for (n, (extra, to, owners, one)) in [
        // Without domains: whom it is addressed to.
        ("{}", some, "carol dave", false),
        (r#"{"affected_domains":[]}"#, some, "carol dave", false),
        (r#"{"body":{"affected_domains":["api"]}}"#, all, "alice carol", false),
        (r#"{"affected_domains":["db"],"body":{"affected_domains":["api"]}}"#, some, "carol dave", true),
        (r#"{"affected_domains":["db","ui"]}"#, all, "alice carol", false),
        (r#"{"affected_domains":["api","ui"]}"#, all, "alice carol", false),
    ]
    .into_iter()
    .enumerate()
    {
        let thread = format!("t{n}");
        scene.with("bob", to, "proposal", &thread, extra);
        let proposal = proposal(&scene, &thread);
        assert_eq!(proposal.owners, agents(owners).into_iter().collect(), "{extra}");
        assert_eq!(proposal.one_is_enough, one, "{extra}");
    }
    // The proposer owns all of it: one ack of those it asks.
    assert!(decisions(&scene.say("alice", "bob", "ack", "t3")).is_empty(), "not asked");
    assert_eq!(decisions(&scene.say("dave", "bob", "ack", "t3")), ["decided t3"]);
    assert!(decisions(&scene.say("dave", "bob", "ack", "t0")).is_empty());
    assert_eq!(decisions(&scene.say("carol", "bob", "ack", "t0")), ["decided t0"]);
}

#[test]
fn recipient_a_proposal_that_nobody_could_ack() {
    let mut scene = Scene::new();
    scene.refused(Rule::Recipient, "Name the agents", ["bob", "bob", "proposal", "p"], "{}");
    let own = r#"{"affected_domains":["db"]}"#;
    scene.refused(Rule::Recipient, "Name the agents", ["bob", "", "proposal", "p"], own);
}

#[test]
fn recipient_a_proposal_that_leaves_an_owner_out() {
    let mut scene = Scene::new();
    for (to, left_out) in
        [("", "alice, carol."), ("carol dave", "reach alice."), ("alice bob", "reach carol.")]
    {
        scene.refused(Rule::Recipient, left_out, ["bob", to, "proposal", "p"], API);
    }
    scene.with("bob", "alice carol", "proposal", "p", API);
    // A counter-proposal is about the thread's domains, whether or not it names any.
    scene.refused(Rule::Recipient, "reach carol.", ["alice", "bob", "proposal", "p"], "{}");
}

#[test]
fn a_counter_proposal_without_domains_concerns_all_of_the_one_before() {
    let mut scene = Scene::new();
    scene.say("bob", "alice carol", "proposal", "p");
    for (to, left_out) in [("bob", "reach carol."), ("carol", "reach bob."), ("dave", "reach bob, carol.")] {
        scene.refused(Rule::Recipient, left_out, ["alice", to, "proposal", "p"], "{}");
    }
    // Who merely gets it as well need not ack it.
    scene.say("alice", "bob carol dave", "proposal", "p");
    assert_eq!(proposal(&scene, "p").owners, agents("bob carol").into_iter().collect());
    scene.refused(Rule::Recipient, "reach alice.", ["carol", "bob", "proposal", "p"], "{}");
    scene.say("carol", "alice bob", "proposal", "p");
    assert_eq!(proposal(&scene, "p").owners, agents("alice bob").into_iter().collect());
    assert!(decisions(&scene.say("alice", "carol", "ack", "p")).is_empty());
    assert_eq!(decisions(&scene.say("bob", "carol", "ack", "p")), ["decided p"]);
}

#[test]
fn periods_concern_everybody_or_the_owners_of_tiers() {
    let mut scene = Scene::new();
    let tiers = r#"{"subject":"set_tiers","body":{"T1_active":60},"affected_domains":["db"]}"#;
    scene.refused(Rule::Recipient, "reach carol, dave.", ["bob", "alice", "proposal", "p"], tiers);
    scene.with("bob", "alice carol dave", "proposal", "p", tiers);
    assert!(!proposal(&scene, "p").one_is_enough);
    for from in ["alice", "dave"] {
        assert!(decisions(&scene.say(from, "bob", "ack", "p")).is_empty());
    }
    assert_eq!(decisions(&scene.say("carol", "bob", "ack", "p")), ["decided p", "cadence 30 60"]);
    scene.charter.domains.insert("tiers".to_owned(), agents("dave").into_iter().collect());
    scene.refused(Rule::Recipient, "reach dave.", ["bob", "alice", "proposal", "q"], tiers);
    scene.with("bob", "dave", "proposal", "q", tiers);
    assert_eq!(decisions(&scene.say("dave", "bob", "ack", "q")), ["decided q", "cadence 30 60"]);
}

#[test]
fn authority_a_counter_proposal_by_whom_it_does_not_concern() {
    let mut scene = Scene::new();
    scene.with("bob", "alice carol dave", "proposal", "p", API);
    let outsider = ["dave", "alice bob carol", "proposal", "p"];
    scene.refused(Rule::Authority, "concerns alice, carol, bob here", outsider, "{}");
    scene.refused(Rule::Authority, "bob's proposal", outsider, r#"{"affected_domains":["db"]}"#);
    // Who proposed before is a party, though no owner.
    scene.say("alice", "bob carol", "proposal", "p");
    scene.refused(Rule::Authority, "alice's proposal", outsider, "{}");
    scene.say("bob", "alice carol", "proposal", "p");
    // Once it has lapsed, the thread is anybody's.
    scene.at(2401).say("dave", "alice bob carol", "proposal", "p");
    assert_eq!(proposal(&scene, "p").counters, 0);
}

#[test]
fn decision_a_decided_thread_is_decided() {
    let mut scene = Scene::new();
    scene.say("bob", "alice", "proposal", "p");
    scene.say("alice", "bob", "ack", "p");
    for (from, to) in [("bob", "alice"), ("alice", "bob"), ("dave", "alice bob")] {
        scene.refused(Rule::Decision, "is decided in this thread", [from, to, "proposal", "p"], "{}");
        let words = [from, to, "proposal", "p"];
        scene.at(100_000).refused(Rule::Decision, "a thread of its own", words, "{}");
    }
}

#[test]
fn the_same_proposal_again_is_no_other() {
    let mut scene = Scene::new();
    let same = message(99, "bob", "proposal", "p", API);
    let check = |scene: &Scene| scene.check(&same, "alice", Ahead::default());
    assert_eq!(check(&scene).map_err(|refusal| refusal.rule), Err(Rule::Recipient));
    scene.commit(&same, "alice carol");
    scene.say("carol", "bob", "ack", "p");
    assert_eq!(check(&scene), Ok(()));
    let before = proposal(&scene, "p").clone();
    assert!(scene.at(5).commit(&same, "alice").is_empty());
    assert_eq!(*proposal(&scene, "p"), before, "the acks stand");
    assert_eq!(decisions(&scene.say("alice", "bob", "ack", "p")), ["decided p"]);
    assert_eq!(check(&scene), Ok(()));
    assert!(decisions(&scene.commit(&same, "alice")).is_empty());
    assert_eq!(standing(&scene, "p"), Standing::Decided);
}

#[test]
fn conflict_an_ack_of_a_proposal_that_was_countered() {
    let mut scene = Scene::new();
    let refs = |ids: &[&str]| format!(r#"{{"refs":["{}"]}}"#, ids.join("\",\""));
    let other = "0".repeat(64);
    scene.say("bob", "alice carol", "proposal", "p");
    let old = proposal(&scene, "p").id.clone();
    // Not countered: whatever else it refers to, there is one proposal only.
    scene.with("carol", "bob", "ack", "p", &refs(&[&other]));
    assert_eq!(proposal(&scene, "p").acks.len(), 1);
    scene.say("alice", "bob carol", "proposal", "p");
    let new = proposal(&scene, "p").id.clone();
    for ids in [&[old.as_str()][..], &[&other], &[&old, &other, "README.md"]] {
        scene.refused(Rule::Conflict, &new, ["carol", "alice", "ack", "p"], &refs(ids));
    }
    let mut escalated = scene.clone();
    for ids in [&["README.md", &old[..63]][..], &[&old, &new], &[&new]] {
        let mut scene = scene.clone();
        scene.with("carol", "alice", "ack", "p", &refs(ids));
        assert!(proposal(&scene, "p").acks.contains_key(&agent("carol")), "{ids:?}");
    }
    scene.say("carol", "alice", "ack", "p");
    assert_eq!(decisions(&scene.with("bob", "alice", "ack", "p", &refs(&[&new]))), ["decided p"]);
    escalated.say("bob", "alice carol", "proposal", "p");
    escalated.say("alice", "bob carol", "proposal", "p");
    assert_eq!(standing(&escalated, "p"), Standing::Escalated);
    escalated.refused(Rule::Conflict, "alice has countered", ["carol", "alice", "ack", "p"], &refs(&[&new]));
}

#[test]
fn domain_that_exchange_toml_does_not_name() {
    let mut scene = Scene::new();
    let extra = r#"{"affected_domains":["api","infra"]}"#;
    scene.refused(Rule::Domain, "api, db, ui", ["bob", "alice", "proposal", "p"], extra);
    scene.charter.domains.clear();
    scene.refused(Rule::Domain, "it has: none", ["bob", "alice", "proposal", "p"], extra);
    for malformed in [r#""api""#, r#"[1]"#, r#"null"#] {
        let extra = format!(r#"{{"affected_domains":{malformed}}}"#);
        scene.refused(Rule::Schema, "list of domains", ["bob", "alice", "proposal", "p"], &extra);
    }
}

#[test]
fn acks_are_due_within_two_heartbeats_of_the_slowest_pair() {
    let mut scene = Scene::new();
    scene.say("bob", "alice", "request", "t");
    scene.say("bob", "alice", "proposal", "fast");
    scene.with("bob", "alice carol", "proposal", "slow", API);
    assert_eq!([due(&scene, "fast"), due(&scene, "slow")], [180, 2400]);
    assert!(scene.at(180).tick().is_empty());
    assert_eq!(words(&scene.at(181).tick()), ["lapsed fast"]);
    assert!(scene.tick().is_empty());
    assert_eq!(standing(&scene, "fast"), Standing::Lapsed);
}

#[test]
fn lapsed_an_ack_that_comes_too_late() {
    let mut scene = Scene::new();
    scene.with("bob", "alice carol", "proposal", "p", API);
    scene.at(2400).say("carol", "bob", "ack", "p");
    let late = ["alice", "bob", "ack", "p"];
    scene.at(2401).refused(Rule::Lapsed, "2026-05-10T00:40:00Z", late, "{}");
    assert_eq!(standing(&scene, "p"), Standing::Open, "no tick has come by");
    scene.tick();
    scene.refused(Rule::Lapsed, "ask bob to propose it again", late, "{}");
    // Whose ack counts for nothing may ack.
    scene.say("dave", "bob", "ack", "p");
    scene.say("bob", "alice", "ack", "p");
    // Proposed again, it needs all acks again.
    scene.with("bob", "alice carol", "proposal", "p", API);
    assert!(decisions(&scene.say("alice", "bob", "ack", "p")).is_empty());
    assert_eq!(decisions(&scene.say("carol", "bob", "ack", "p")), ["decided p"]);
}

#[test]
fn an_ack_of_what_else_the_thread_asks_is_none_of_a_lapsed_proposal() {
    for (kind, extra) in [("incident", "{}"), ("request", r#"{"ack_required":true}"#)] {
        let mut scene = Scene::new();
        scene.say("bob", "alice", "proposal", "p");
        scene.at(3000).say("bob", "alice", "feedback", "p");
        scene.refused(Rule::Lapsed, "lapsed", ["alice", "bob", "ack", "p"], "{}");
        scene.with("bob", "alice", kind, "p", extra);
        scene.say("alice", "bob", "ack", "p");
        assert_eq!(scene.conversation.incidents.open().count(), 0);
    }
}

#[test]
fn a_counter_proposal_replaces_and_acks_start_again() {
    let mut scene = Scene::new();
    scene.with("bob", "alice carol", "proposal", "p", API);
    scene.say("carol", "bob", "ack", "p");
    // It names no domain: it is about the thread's, of which alice's own ack is not needed.
    scene.at(7).with("alice", "bob carol", "proposal", "p", r#"{"subject":"v3"}"#);
    let counter = proposal(&scene, "p");
    assert_eq!((counter.proposer.as_str(), counter.counters, counter.acks.len()), ("alice", 1, 0));
    assert_eq!(counter.owners, agents("carol").into_iter().collect());
    assert_eq!(counter.parties, agents("alice bob").into_iter().collect());
    assert_eq!(due(&scene, "p"), 7 + 2400);
    // Who proposed before ratifies nothing by it, unless an owner.
    assert!(decisions(&scene.say("bob", "alice", "ack", "p")).is_empty());
    let effects = scene.say("carol", "alice", "ack", "p");
    let decision = decided(&effects);
    assert_eq!(
        (decision.proposer, decision.acked_by),
        (agent("alice"), agents("carol").into_iter().collect())
    );
}

#[test]
fn replay_a_proposers_own_second_proposal() {
    let mut scene = Scene::new();
    scene.say("bob", "alice", "proposal", "p");
    let again = ["bob", "alice", "proposal", "p"];
    scene.refused(Rule::Replay, "Wait until 2026-05-10T00:40:00Z", again, "{}");
    scene.at(2400).refused(Rule::Replay, "what is being acked can't be changed", again, API);
    // Once it has lapsed, with or without a tick, it is no counter-proposal.
    scene.at(2401).say("bob", "alice", "proposal", "p");
    assert_eq!(proposal(&scene, "p").counters, 0);
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
}

#[test]
fn rounds_a_fourth_counter_proposal() {
    let mut scene = Scene::new();
    let turns = [("alice", "bob"), ("bob", "alice"), ("alice", "bob"), ("bob", "alice")];
    for (n, (from, to)) in turns.into_iter().enumerate() {
        assert!(n == 0 || standing(&scene, "p") == Standing::Open);
        scene.say(from, to, "proposal", "p");
    }
    assert_eq!((standing(&scene, "p"), proposal(&scene, "p").counters), (Standing::Escalated, 3));
    let due = due(&scene, "p");
    for (from, to) in turns {
        let words = [from, to, "proposal", "p"];
        scene.refused(Rule::Rounds, "baton decisions settle \"p\" --accept|--drop", words, "{}");
        scene.refused(Rule::Rounds, "can be acked until", words, "{}");
    }
    // It may still be acked in time.
    let mut acked = scene.clone();
    assert_eq!(decisions(&acked.at(due).say("alice", "bob", "ack", "p")), ["decided p"]);
    // After that it is the operator's, and does not lapse.
    assert!(scene.at(due + 1).tick().is_empty());
    assert_eq!(standing(&scene, "p"), Standing::Escalated);
    scene.refused(Rule::Lapsed, "baton decisions settle", ["alice", "bob", "ack", "p"], "{}");
    scene.refused(Rule::Rounds, "the operator settles it", ["alice", "bob", "proposal", "p"], "{}");
    let mut dropped = scene.clone();
    let effects = scene.conversation.settle("p", true, scene.now).expect("settled");
    let decision = decided(&effects);
    assert_eq!((decision.proposer, decision.acked_by.len()), (agent("bob"), 0));
    assert!(decision.evidence.is_some_and(|evidence| evidence.settled_by_operator));
    assert_eq!(scene.activity("alice", "bob"), "T1_active");

    assert_eq!(dropped.conversation.settle("p", false, dropped.now), Ok(Vec::new()));
    assert_eq!(standing(&dropped, "p"), Standing::Dropped);
    dropped.refused(Rule::Lapsed, "the operator dropped it", ["alice", "bob", "ack", "p"], "{}");
    dropped.say("alice", "bob", "proposal", "p");
    assert_eq!(proposal(&dropped, "p").counters, 0);
}

#[test]
fn conflict_an_ack_of_what_a_decision_has_overtaken() {
    let mut scene = Scene::new();
    let ui = r#"{"affected_domains":["ui","api"]}"#;
    scene.with("bob", "alice carol", "proposal", "p", ui);
    scene.with("dave", "alice carol", "proposal", "q", API);
    scene.with("dave", "bob", "proposal", "r", r#"{"affected_domains":["db"]}"#);
    scene.say("carol", "bob", "ack", "p");
    scene.say("alice", "dave", "ack", "q");
    assert_eq!(decisions(&scene.say("carol", "dave", "ack", "q")), ["decided q"]);
    assert_eq!(
        ["p", "q", "r"].map(|thread| standing(&scene, thread)),
        [Standing::Overtaken, Standing::Decided, Standing::Open]
    );
    scene.refused(Rule::Conflict, "the decision \"q\"", ["alice", "bob", "ack", "p"], "{}");
    scene.say("dave", "bob", "ack", "p");
    // Proposed again, it is judged anew.
    scene.with("bob", "alice carol", "proposal", "p", ui);
    scene.say("carol", "bob", "ack", "p");
    assert_eq!(decisions(&scene.say("alice", "bob", "ack", "p")), ["decided p"]);
}

#[test]
fn the_operator_settles_by_either_id_and_only_what_is_undecided() {
    let mut scene = Scene::new();
    scene.with("bob", "alice carol", "proposal", "p", API);
    scene.say("carol", "bob", "ack", "p");
    let id = proposal(&scene, "p").id.clone();
    assert!(scene.conversation.settle("nothing", true, scene.now).is_err_and(|e| e.contains("\"nothing\"")));
    scene.at(5000).tick();
    let effects = scene.conversation.settle(&id, true, scene.now).expect("lapsed, but the operator's");
    let decision = decided(&effects);
    assert_eq!(decision.acked_by, agents("carol").into_iter().collect());
    assert!(scene.conversation.settle("p", false, scene.now).is_err_and(|e| e.contains("decided")));
}

#[test]
fn quota_a_hundred_proposals_wait() {
    let mut scene = Scene::new();
    scene.say("bob", "alice", "request", "t");
    for n in 0..100 {
        scene.at(n).say("bob", "alice", "proposal", &format!("p{n}"));
    }
    let more = ["bob", "alice", "proposal", "more"];
    scene.refused(Rule::Quota, "2026-05-10T00:03:00Z", more, "{}");
    scene.refused(Rule::Replay, "waits for acks", ["bob", "alice", "proposal", "p7"], "{}");
    scene.say("carol", "alice", "proposal", "hers");
    scene.say("alice", "bob", "ack", "p3");
    scene.say("bob", "alice", "proposal", "yet-more");
    // The first lapses, with or without a tick: room for one.
    scene.at(180).refused(Rule::Quota, "100 proposals of bob", more, "{}");
    scene.at(181).say("bob", "alice", "proposal", "last");
    scene.refused(Rule::Quota, "after 2026-05-10T00:03:01Z", more, "{}");
}

#[test]
fn quota_counts_proposals_ahead_in_the_same_write() {
    let mut scene = Scene::new();
    for n in 0..98 {
        scene.say("bob", "alice", "proposal", &format!("p{n}"));
    }
    let last = message(999, "bob", "proposal", "last", "{}");
    let mut ahead = Ahead { messages: 10, incidents: 10, proposals: 0 };
    assert_eq!(scene.check(&last, "alice", ahead), Ok(()));
    ahead.count(&last);
    assert_eq!(scene.check(&last, "alice", ahead), Ok(()));
    ahead.count(&last);
    assert_eq!(scene.check(&last, "alice", ahead).map_err(|refusal| refusal.rule), Err(Rule::Quota));
}

#[test]
fn the_newest_thousand_that_ended_are_kept() {
    let mut scene = Scene::new();
    for n in 0..1200 {
        let thread = format!("p{n}");
        scene.say("bob", "alice", "proposal", &thread);
        scene.say("alice", "bob", "ack", &thread);
    }
    scene.say("bob", "alice", "proposal", "open");
    let known = |thread: &str| scene.conversation.proposals.find(thread).is_some();
    assert_eq!(scene.conversation.proposals.all().count(), 1001);
    assert_eq!(["p199", "p200", "p1199", "open"].map(known), [false, true, true, true]);
    // Of large ones fewer.
    let large = format!(r#"{{"body":"{}"}}"#, "x".repeat(1 << 20));
    for n in 0..10 {
        let thread = format!("large{n}");
        scene.with("bob", "alice", "proposal", &thread, &large);
        scene.say("alice", "bob", "ack", &thread);
    }
    let kept: usize = scene.conversation.proposals.all().map(|proposal| proposal.body.len()).sum();
    assert!(kept <= 4 << 20, "{kept}");
}

#[test]
fn schema_of_proposals_that_the_exchange_carries_out() {
    let mut scene = Scene::new();
    let key = SigningKey::from_seed(&[7; 32]).public();
    let (text, id, other) = (base64(&key.to_bytes()), key.id(&agent("bob")), key.id(&agent("alice")));
    for (subject, body, advice) in [
        ("add_key", "\"x\"".to_owned(), "no JSON object"),
        ("add_key", "{}".to_owned(), "key_id is missing"),
        ("add_key", format!(r#"{{"key_id":"{id}"}}"#), "key is missing"),
        ("add_key", format!(r#"{{"key_id":"{id}","key":"AAAA"}}"#), "base64 of 32 bytes"),
        ("add_key", format!(r#"{{"key_id":"{other}","key":"{text}"}}"#), "no key of bob's"),
        ("add_key", format!(r#"{{"key_id":"bob:00000000","key":"{text}"}}"#), "the id of this key is"),
        ("deactivate_key", "{}".to_owned(), "key_id is missing"),
        ("deactivate_key", r#"{"key_id":"bob"}"#.to_owned(), "no key id"),
        ("deactivate_key", format!(r#"{{"key_id":"{other}"}}"#), "no key of bob's"),
        ("set_tiers", "{}".to_owned(), "names no tier"),
        ("set_tiers", r#"{"T1":60}"#.to_owned(), "T0_HEADS_DOWN, T1_active, T2_idle, T3_long_idle"),
        ("set_tiers", r#"{"T0_HEADS_DOWN":9}"#.to_owned(), "from 10 to 3600"),
        ("set_tiers", r#"{"T3_long_idle":3601}"#.to_owned(), "from 10 to 3600"),
        ("set_tiers", r#"{"T1_active":300,"T2_idle":299}"#.to_owned(), "must not fall from T0 to T3"),
        ("set_tiers", r#"{"T1_active":60.0}"#.to_owned(), "whole seconds"),
        ("set_tiers", r#"{"T1_active":"60"}"#.to_owned(), "whole seconds"),
        ("set_tiers", r#"{"T1_active":60,"T9":1}"#.to_owned(), "is no tier"),
    ] {
        let extra = format!(r#"{{"subject":"{subject}","body":{body}}}"#);
        scene.refused(Rule::Schema, advice, ["bob", "alice", "proposal", "p"], &extra);
        scene.refused(Rule::Schema, "Its body must be", ["bob", "alice", "proposal", "p"], &extra);
        // Only a proposal asks for it.
        scene.with("bob", "alice", "request", "t", &extra);
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_key_is_added_and_retired_by_an_acked_proposal() {
    let mut scene = Scene::new();
    let key = SigningKey::from_seed(&[7; 32]).public();
    let (text, id) = (base64(&key.to_bytes()), key.id(&agent("bob")));
    let add = format!(r#"{{"subject":"add_key","body":{{"key_id":"{id}","key":"{text}"}}}}"#);
    assert!(scene.with("bob", "alice", "proposal", "k", &add).is_empty());
    let effects = scene.say("alice", "bob", "ack", "k");
    let key_id = id.to_string();
    assert!(effects.contains(&Effect::AddKey { agent: agent("bob"), key: text, key_id }), "{effects:?}");
    let retire = format!(r#"{{"subject":"deactivate_key","body":{{"key_id":"{id}"}}}}"#);
    scene.with("bob", "alice", "proposal", "l", &retire);
    let effects = scene.say("alice", "bob", "ack", "l");
    assert_eq!(decisions(&effects), ["decided l".to_owned(), format!("deactivate-key bob {id}")]);
}

#[test]
fn periods_are_changed_by_an_acked_proposal() {
    let mut scene = Scene::new();
    let tiers = r#"{"subject":"set_tiers","body":{"T1_active":60,"T0_HEADS_DOWN":20}}"#;
    scene.with("bob", "alice carol dave", "proposal", "c", tiers);
    for from in ["carol", "dave"] {
        assert!(decisions(&scene.say(from, "bob", "ack", "c")).is_empty());
    }
    assert_eq!(scene.conversation.presence.cadence().active, 90);
    assert_eq!(decisions(&scene.say("alice", "bob", "ack", "c")), ["decided c", "cadence 20 60"]);
    let cadence = scene.conversation.presence.cadence();
    assert_eq!((cadence.heads_down, cadence.active, cadence.idle, cadence.long_idle), (20, 60, 270, 1200));
    assert_eq!(scene.conversation.presence.period(&agent("bob"), scene.now), 60);
    // By the operator, too.
    let bounds = r#"{"subject":"set_tiers","body":{"T2_idle":200}}"#;
    scene.with("bob", "alice carol dave", "proposal", "d", bounds);
    scene.conversation.settle("d", true, scene.now).expect("settled");
    let cadence = scene.conversation.presence.cadence();
    assert_eq!((cadence.heads_down, cadence.active, cadence.idle), (20, 60, 200));
}

#[test]
fn decision_an_entry_that_no_ratified_proposal_stands_for() {
    let mut scene = Scene::new();
    scene.with("bob", "alice carol", "proposal", "p", API);
    scene.say("alice", "bob", "ack", "p");
    let check = |scene: &Scene, entry: &str| {
        let value = json::parse(entry.as_bytes()).expect(entry);
        scene.conversation.proposals.check_entry(value.as_object().expect(entry))
    };
    let refused = |scene: &Scene, entry: &str, advice: &str| {
        let refusal = check(scene, entry).expect_err(entry);
        assert_eq!(refusal.rule, Rule::Decision);
        assert!(refusal.advice.contains(advice), "{entry}: {refusal}");
    };
    let id = proposal(&scene, "p").id.clone();
    let entry = |id: &str, proposer: &str, acked_by: &str| {
        format!(
            r#"{{"decision_id":"{id}","ratified_at":"2026-05-10T00:00:00Z","proposer":"{proposer}",
                "acked_by":[{acked_by}],"decision":"v2","canonical":true}}"#
        )
    };
    let both = r#""carol","did:wire:alice""#;
    refused(&scene, &entry("p", "bob", both), "lacks the acks of carol, due by 2026-05-10T00:40:00Z");
    refused(&scene, &entry("q", "bob", both), "No proposal is known by \"q\"");
    refused(&scene, "{}", "there is none");
    refused(&scene, r#"{"decision_id":7}"#, "decision_id must be a string");
    scene.say("carol", "bob", "ack", "p");
    assert_eq!(check(&scene, &entry("p", "bob", both)), Ok(()));
    assert_eq!(check(&scene, &entry(&id, "did:wire:bob", both)), Ok(()));
    refused(&scene, &entry("p", "alice", both), "was proposed by bob, not by alice");
    refused(&scene, &entry("p", "bob", r#""alice""#), "was acked by alice, carol");
    refused(&scene, &entry("p", "bob", r#""alice","carol","dave""#), "was acked by alice, carol");
    refused(&scene, r#"{"decision_id":"p","acked_by":"alice"}"#, "acked_by must be a list");
    // As a message of type decision, which says less.
    let body = r#"{"proposer":"bob","acked_by":["alice","carol"]}"#;
    assert_eq!(
        check(&scene, &format!(r#"{{"type":"decision","correlation_id":"p","body":{body}}}"#)),
        Ok(())
    );
    assert_eq!(check(&scene, r#"{"type":"decision","correlation_id":"p","body":"v2"}"#), Ok(()));
    let wrong = r#"{"type":"decision","correlation_id":"p","body":{"proposer":"dave"}}"#;
    refused(&scene, wrong, "was proposed by bob");
}

#[test]
fn decision_an_entry_says_why_a_proposal_came_to_nothing() {
    let mut scene = Scene::new();
    let refused = |scene: &Scene, thread: &str, advice: &str| {
        let entry = [("decision_id".to_owned(), Value::String(thread.to_owned()))].into();
        let refusal = scene.conversation.proposals.check_entry(&entry).expect_err(thread);
        assert!(refusal.advice.contains(advice), "{refusal}");
    };
    for (from, to) in [("alice", "bob"), ("bob", "alice"), ("alice", "bob"), ("bob", "alice")] {
        scene.say(from, to, "proposal", "escalated");
    }
    scene.with("bob", "alice carol", "proposal", "one", r#"{"affected_domains":["db"]}"#);
    refused(&scene, "one", "lacks one ack of alice, carol");
    scene.with("dave", "bob", "proposal", "db", r#"{"affected_domains":["db"]}"#);
    scene.say("bob", "dave", "ack", "db");
    refused(&scene, "one", "was overtaken by another decision");
    scene.with("dave", "alice carol", "proposal", "lapsed", API);
    scene.at(5000).tick();
    refused(&scene, "lapsed", "without the acks of alice, carol");
    refused(&scene, "escalated", "baton decisions settle");
    scene.conversation.settle("escalated", false, scene.now).expect("dropped");
    refused(&scene, "escalated", "was dropped by the operator");
}
