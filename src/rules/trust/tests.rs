//! What each step does to a list, and what it does not.

use super::keys::{GRACE_SECONDS, Retire};
use super::*;
use crate::rules::Rule;
use crate::wire::card::{AgentCard, CardKey, NewCard};
use crate::wire::json::{Object, Value};
use crate::wire::keys::{KeyId, SigningKey};
use crate::wire::message::{self, Message, SignatureVersion};
use crate::wire::trust::TrustedKey;

const NOW: Timestamp = Timestamp(1_780_000_000_000_000);
const DAY: i64 = 24 * 3600;

fn name(text: &str) -> AgentName {
    AgentName::parse(text).expect("a name")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn id(agent: &str, seed: u8) -> KeyId {
    key(seed).public().id(&name(agent))
}

/// A list of agents with one key each, all of this tier.
fn list(tier: Tier, agents: &[(&str, u8)]) -> TrustList {
    let mut list = TrustList::default();
    for (agent, seed) in agents {
        let agent = name(agent);
        let keys = vec![TrustedKey::new(&agent, key(*seed).public(), NOW.plus_seconds(-10 * DAY))];
        list.agents.insert(agent, TrustEntry { tier, keys, blocked: false, other: Object::new() });
    }
    list
}

fn tier(list: &TrustList, agent: &str) -> Tier {
    list.agents[&name(agent)].tier
}

/// Makes a change and gives its sentences.
fn told(change: impl FnOnce(&mut Vec<String>) -> Result<(), String>) -> Vec<String> {
    let mut changes = Vec::new();
    change(&mut changes).expect("allowed");
    changes
}

#[test]
fn promote_and_demote_go_step_by_step_or_to_a_tier() {
    let mut trust = list(Tier::Untrusted, &[("bob", 1)]);
    let bob = name("bob");
    for next in [Tier::Verified, Tier::Attested, Tier::Trusted] {
        assert_eq!(told(|c| promote(&mut trust, &bob, None, NOW, c)).len(), 1);
        assert_eq!(tier(&trust, "bob"), next);
    }
    promote(&mut trust, &bob, None, NOW, &mut vec![]).expect_err("nothing above");
    promote(&mut trust, &bob, Some(Tier::Verified), NOW, &mut vec![]).expect_err("that is lower");
    assert!(told(|c| promote(&mut trust, &bob, Some(Tier::Trusted), NOW, c)).is_empty());
    assert_eq!(told(|c| demote(&mut trust, &bob, Some(Tier::Verified), NOW, c)).len(), 1);
    assert_eq!(tier(&trust, "bob"), Tier::Verified);
    demote(&mut trust, &bob, Some(Tier::Trusted), NOW, &mut vec![]).expect_err("that is higher");
    told(|c| demote(&mut trust, &bob, None, NOW, c));
    let nothing_below = demote(&mut trust, &bob, None, NOW, &mut vec![]).expect_err("nothing below");
    assert!(nothing_below.contains("baton trust block bob"), "{nothing_below}");
    promote(&mut trust, &name("eve"), None, NOW, &mut vec![]).expect_err("nobody of that name");
}

#[test]
fn ten_reciprocations_attest_once_and_a_demotion_starts_them_anew() {
    let mut trust = list(Tier::Verified, &[("bob", 1), ("alice", 2)]);
    let bob = name("bob");
    let mut changes = Vec::new();
    count(&mut trust, &bob, 9, NOW, &mut changes);
    assert_eq!(tier(&trust, "bob"), Tier::Verified);
    count(&mut trust, &bob, 1, NOW, &mut changes);
    assert_eq!(tier(&trust, "bob"), Tier::Attested);
    assert!(changes[1].contains("after 10 successful reciprocations"), "{changes:?}");
    told(|c| demote(&mut trust, &bob, None, NOW, c));
    count(&mut trust, &bob, 9, NOW, &mut changes);
    assert_eq!((tier(&trust, "bob"), trust.agents[&bob].reciprocations()), (Tier::Verified, 9));
    // Who is not VERIFIED is not raised, however much it does.
    let mut trust = list(Tier::Untrusted, &[("bob", 1)]);
    count(&mut trust, &bob, 100, NOW, &mut changes);
    assert_eq!(tier(&trust, "bob"), Tier::Untrusted);
}

#[test]
fn a_blocked_agent_keeps_its_tier_and_sends_nothing() {
    let mut trust = list(Tier::Trusted, &[("bob", 1)]);
    let bob = name("bob");
    let message = |body: &str| {
        let object = Object::from([
            ("type".to_owned(), Value::String("ship".into())),
            ("subject".to_owned(), Value::String("s".into())),
            ("body".to_owned(), Value::String(body.into())),
        ]);
        message::sign_message(object, &bob, &key(1), SignatureVersion::V31, NOW).expect("signed").0
    };
    assert_eq!(told(|c| set_blocked(&mut trust, &bob, true, c)).len(), 1);
    assert!(told(|c| set_blocked(&mut trust, &bob, true, c)).is_empty());
    assert_eq!(message("one").verify(&trust).expect_err("blocked").rule(), "tier");
    assert_eq!(message("one").recheck(&id("bob", 1), &trust).expect_err("blocked").rule(), "tier");
    let read_back = TrustList::parse(trust.to_json().as_bytes()).expect("written");
    assert!(read_back.agents[&bob].blocked && tier(&read_back, "bob") == Tier::Trusted);
    message("one").verify(&trust.as_history()).expect("what it has sent stays right");
    told(|c| set_blocked(&mut trust, &bob, false, c));
    message("one").verify(&trust).expect("let in again");
    assert!(!trust.to_json().contains("blocked"));
}

#[test]
fn a_new_key_signs_at_once_and_the_old_one_for_a_day_more() {
    let mut trust = list(Tier::Attested, &[("bob", 1)]);
    let bob = name("bob");
    let state = |trust: &TrustList| -> Vec<bool> {
        trust.agents[&name("bob")].keys.iter().map(|key| key.active).collect()
    };
    assert_eq!(told(|c| keys::add(&mut trust, &bob, key(2).public(), NOW, c)).len(), 1);
    assert!(told(|c| keys::add(&mut trust, &bob, key(2).public(), NOW, c)).is_empty());
    assert_eq!(state(&trust), [true, true]);

    let hour = NOW.plus_seconds(3600);
    let scheduled = told(|c| keys::deactivate(&mut trust, &id("bob", 1), Retire::AfterGrace, hour, c));
    let due = NOW.plus_seconds(GRACE_SECONDS);
    assert_eq!(scheduled, [format!("{} is deactivated at {due}", id("bob", 1))]);
    assert!(told(|c| keys::deactivate(&mut trust, &id("bob", 1), Retire::AfterGrace, hour, c)).is_empty());
    assert_eq!((state(&trust), keys::next_due(&trust)), (vec![true, true], Some(due)));

    // The schedule is in the file.
    let mut trust = TrustList::parse(trust.to_json().as_bytes()).expect("written");
    let mut changes = Vec::new();
    keys::apply_due(&mut trust, due.plus_seconds(-1), &mut changes);
    assert!(changes.is_empty());
    keys::apply_due(&mut trust, due, &mut changes);
    assert_eq!((state(&trust), keys::next_due(&trust), changes.len()), (vec![false, true], None, 1));
    keys::add(&mut trust, &bob, key(1).public(), NOW, &mut vec![]).expect_err("retired keys stay so");
}

#[test]
fn a_key_whose_successor_is_old_enough_goes_at_once() {
    let mut trust = list(Tier::Attested, &[("bob", 1)]);
    told(|c| keys::add(&mut trust, &name("bob"), key(2).public(), NOW, c));
    let later = NOW.plus_seconds(GRACE_SECONDS);
    told(|c| keys::deactivate(&mut trust, &id("bob", 1), Retire::AfterGrace, later, c));
    assert!(!trust.key(&id("bob", 1)).expect("kept").active);
}

#[test]
fn an_agents_last_key_goes_only_by_the_operator() {
    let mut trust = list(Tier::Attested, &[("bob", 1)]);
    let retire =
        |trust: &mut TrustList, seed, when| keys::deactivate(trust, &id("bob", seed), when, NOW, &mut vec![]);
    retire(&mut trust, 1, Retire::AfterGrace).expect_err("its last");
    told(|c| keys::add(&mut trust, &name("bob"), key(2).public(), NOW, c));
    retire(&mut trust, 1, Retire::AfterGrace).expect("another stays");
    // The one that would be left is on its way out already.
    retire(&mut trust, 2, Retire::AfterGrace).expect_err("its last that stays");
    retire(&mut trust, 2, Retire::Now).expect("the operator may");
    let mut changes = Vec::new();
    keys::apply_due(&mut trust, NOW.plus_seconds(DAY), &mut changes);
    assert!(trust.key(&id("bob", 1)).expect("kept").active, "{changes:?}");
    assert!(changes[0].contains("stays active"), "{changes:?}");
    retire(&mut trust, 1, Retire::Now).expect("the operator may");
    assert!(trust.agents[&name("bob")].newest_key().is_none());
    retire(&mut trust, 3, Retire::Now).expect_err("no such key");
}

#[test]
fn both_sides_confirm_the_digits_and_wrong_ones_change_nothing() {
    let mut trust = list(Tier::Untrusted, &[("bob", 1), ("alice", 2)]);
    trust.agents.get_mut(&name("alice")).expect("alice").tier = Tier::Attested;
    let (alice, bob) = (name("alice"), name("bob"));
    let digits = sas::digits(&trust, &alice, &bob).expect("digits");
    assert_eq!(sas::digits(&trust, &bob, &alice).as_ref(), Ok(&digits));
    sas::digits(&trust, &bob, &bob).expect_err("nobody to compare with");
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let before = trust.to_json();
    sas::confirm(&mut trust, &alice, &bob, wrong, NOW, &mut vec![]).expect_err("wrong");
    assert_eq!(trust.to_json(), before);

    let spaced = format!("{} {}", &digits[..3], &digits[3..]);
    assert_eq!(told(|c| sas::confirm(&mut trust, &alice, &bob, &spaced, NOW, c)).len(), 1);
    assert!(told(|c| sas::confirm(&mut trust, &alice, &bob, &digits, NOW, c)).is_empty());
    assert_eq!(tier(&trust, "bob"), Tier::Untrusted);
    let mut trust = TrustList::parse(trust.to_json().as_bytes()).expect("written");
    told(|c| sas::confirm(&mut trust, &bob, &alice, &digits, NOW, c));
    assert_eq!((tier(&trust, "bob"), tier(&trust, "alice")), (Tier::Verified, Tier::Attested));
    assert!(trust.agents.values().all(TrustEntry::sas_verified));
}

#[test]
fn a_confirmation_is_of_the_keys_that_were_compared() {
    let mut trust = list(Tier::Untrusted, &[("bob", 1), ("alice", 2)]);
    let (alice, bob) = (name("alice"), name("bob"));
    let digits = sas::digits(&trust, &alice, &bob).expect("digits");
    told(|c| sas::confirm(&mut trust, &alice, &bob, &digits, NOW, c));
    told(|c| keys::add(&mut trust, &bob, key(3).public(), NOW, c));
    let new_digits = sas::digits(&trust, &alice, &bob).expect("digits");
    assert_ne!(new_digits, digits);
    sas::confirm(&mut trust, &bob, &alice, &digits, NOW, &mut vec![]).expect_err("of the old key");
    told(|c| sas::confirm(&mut trust, &bob, &alice, &new_digits, NOW, c));
    assert_eq!(tier(&trust, "bob"), Tier::Untrusted, "alice's side has not compared the new key");
}

/// A card of `agent`'s with these keys, signed by the first.
fn card(agent: &str, seeds: &[u8], valid_until: Option<Timestamp>) -> AgentCard {
    let agent = name(agent);
    let card_key = |seed: &u8| CardKey {
        id: key(*seed).public().id(&agent),
        key: key(*seed).public(),
        valid_from: Some(NOW.plus_seconds(-DAY)),
        valid_until,
    };
    let new = NewCard {
        agent: &agent,
        keys: seeds.iter().map(card_key).collect(),
        old_keys: vec![],
        max_body_bytes: 65_536,
        clock_skew_seconds: 300,
        rate_per_minute: Some(60),
    };
    AgentCard::verify(new.sign(&key(seeds[0]), NOW).as_bytes()).expect("a card")
}

fn judged(card: AgentCard, trust: &TrustList) -> Result<cards::NewContact, Rule> {
    cards::judge(card, trust, true, NOW, 300).map_err(|refusal| refusal.rule)
}

#[test]
fn a_first_contact_is_pinned_untrusted_with_its_keys() {
    let mut trust = list(Tier::Attested, &[("alice", 2)]);
    let contact = judged(card("bob", &[1, 3], None), &trust).expect("a first contact");
    assert!(contact.is_first);
    assert_eq!(contact.card.rate_per_minute(), Some(60));
    assert_eq!(told(|c| cards::pin(&mut trust, &contact, NOW, c)).len(), 1);
    assert!(told(|c| cards::pin(&mut trust, &contact, NOW, c)).is_empty());
    let bob = &trust.agents[&name("bob")];
    assert_eq!((bob.tier, bob.keys.len(), bob.sas_verified()), (Tier::Untrusted, 2, false));
    assert_eq!(
        cards::judge(card("zoe", &[1], None), &trust, false, NOW, 300)
            .map_err(|r| r.rule)
            .expect_err("no agent"),
        Rule::UnknownKey
    );
}

#[test]
fn a_card_brings_a_known_agent_no_key() {
    let mut trust = list(Tier::Attested, &[("bob", 1)]);
    assert!(!judged(card("bob", &[1], None), &trust).expect("its key is known").is_first);
    for seeds in [&[2][..], &[1, 2], &[2, 1]] {
        assert_eq!(judged(card("bob", seeds, None), &trust).expect_err("a new key"), Rule::UnknownKey);
    }
    // Two cards claim one name: whoever comes second brings nothing.
    let mut nobody = TrustList::default();
    let first = judged(card("bob", &[1], None), &nobody).expect("first");
    let second = judged(card("bob", &[2], None), &nobody).expect("also first, as yet");
    told(|c| cards::pin(&mut nobody, &first, NOW, c));
    cards::pin(&mut nobody, &second, NOW, &mut vec![]).expect_err("known with another key");
    assert_eq!(nobody.agents[&name("bob")].keys.len(), 1);

    trust.agents.get_mut(&name("bob")).expect("bob").keys[0].active = false;
    assert_eq!(judged(card("bob", &[1], None), &trust).expect_err("retired"), Rule::RevokedKey);
    trust.agents.get_mut(&name("bob")).expect("bob").blocked = true;
    assert_eq!(judged(card("bob", &[1], None), &trust).expect_err("blocked"), Rule::Tier);
}

#[test]
fn valid_from_and_valid_until_hold() {
    let mut trust = TrustList::default();
    let past = card("bob", &[1], Some(NOW.plus_seconds(-1)));
    assert_eq!(judged(past, &trust).expect_err("expired"), Rule::RevokedKey);
    let until = NOW.plus_seconds(3600);
    let contact = judged(card("bob", &[1], Some(until)), &trust).expect("valid");
    let early = cards::judge(contact.card.clone(), &trust, true, NOW.plus_seconds(-2 * DAY), 300);
    assert_eq!(early.map_err(|r| r.rule).expect_err("not valid yet"), Rule::RevokedKey);
    told(|c| cards::pin(&mut trust, &contact, NOW, c));
    assert_eq!(keys::next_due(&trust), Some(until));
    let mut trust = TrustList::parse(trust.to_json().as_bytes()).expect("written");
    // A later card may say otherwise, as long as it is signed by a key that is valid.
    let mut extended = trust.clone();
    let contact = judged(card("bob", &[1], None), &extended).expect("valid");
    told(|c| cards::pin(&mut extended, &contact, NOW, c));
    assert_eq!(keys::next_due(&extended), None);
    keys::apply_due(&mut trust, until, &mut vec![]);
    assert!(!trust.key(&id("bob", 1)).expect("kept").active, "its own word holds for its last key");
}

#[test]
fn the_card_in_a_message_is_its_authors() {
    let text = card("bob", &[1], None).to_text();
    let message = |from: &str, body: Value| {
        let object = Object::from([
            ("type".to_owned(), Value::String("agent_card".into())),
            ("subject".to_owned(), Value::String("my card".into())),
            ("body".to_owned(), body),
            ("timestamp".to_owned(), Value::String(NOW.to_string())),
            ("from".to_owned(), Value::String(from.into())),
            ("correlation_id".to_owned(), Value::String("c".into())),
        ]);
        cards::in_message(&Message::from_object(object).expect("a message")).map_err(|refusal| refusal.rule)
    };
    let body = crate::wire::json::parse(text.as_bytes()).expect("JSON");
    assert!(matches!(message("bob", body.clone()), Ok(Some(found)) if found.agent == name("bob")));
    assert!(matches!(message("bob", Value::String(text.clone())), Ok(Some(_))));
    assert_eq!(message("eve", body).expect_err("another's"), Rule::FromMismatch);
    assert_eq!(message("bob", Value::Null).expect_err("none"), Rule::Schema);
    let tampered = text.replace("\"host\":\"\"", "\"host\":\"evil\"");
    assert_eq!(message("bob", Value::String(tampered)).expect_err("tampered"), Rule::Schema);
}
