//! Changes of the trust list against crashes, restarts, hands and the clock.

use crate::exchange::events::members;
use crate::exchange::init::{self, NewAgent};
use crate::exchange::verify::{Fault, verify};
use crate::exchange::{Caller, Denied, Durability, Exchange, OpenOptions};
use crate::rules::Rule;
use crate::rules::trust::keys::GRACE_SECONDS;
use crate::wire::card::{AgentCard, CardKey, NewCard};
use crate::wire::json::{self, Value};
use crate::wire::keys::{KeyId, SigningKey};
use crate::wire::message::{SignatureVersion, sign};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList, TrustedKey};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const NOW: i64 = 1_780_000_000_000_000;
const LOG: &str = "inbox/alice.jsonl";

fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

/// An exchange of alice and bob, opened in this process.
struct World {
    dir: tempfile::TempDir,
    exchange: Option<Arc<Exchange>>,
    clock: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agents = ["alice", "bob"].map(|agent| NewAgent { name: name(agent), uid: None });
        init::create(&dir.path().join("x"), &agents, Timestamp(NOW - 3_600_000_000)).unwrap();
        let mut world = World { dir, exchange: None, clock: Arc::new(AtomicI64::new(NOW)) };
        world.start();
        world
    }

    fn start(&mut self) {
        let clock = Arc::clone(&self.clock);
        let clock = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
        let options = OpenOptions { durability: Durability::Os, clock };
        self.exchange = Some(Exchange::open(&self.at(""), options).unwrap());
    }

    /// Ends it in order and starts it again.
    fn restart(&mut self) {
        self.exchange = None;
        self.start();
    }

    /// As kill -9 ends it: no checkpoint, no drop.
    fn crash(&mut self) {
        std::mem::forget(self.exchange.take());
        // The leaked exchange keeps the lock of the old file.
        fs::remove_file(self.at("private/daemon.lock")).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("x").join(path)
    }

    fn ex(&self) -> &Arc<Exchange> {
        self.exchange.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::SeqCst))
    }

    fn later(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// trust.json, as it is on disk.
    fn trust(&self) -> TrustList {
        TrustList::parse(self.read("trust.json").as_bytes()).unwrap()
    }

    fn tier(&self, agent: &str) -> Tier {
        self.trust().agents[&name(agent)].tier
    }

    fn edit_trust(&self, from: &str, to: &str) {
        let text = self.read("trust.json");
        assert!(text.contains(from), "{text}");
        fs::write(self.at("trust.json"), text.replace(from, to)).unwrap();
    }

    /// The events with this name.
    fn events(&self, event: &str) -> Vec<serde_json::Value> {
        let all = self.read("events.jsonl");
        let all = all.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        all.filter(|line| line["event"] == event).collect()
    }

    fn signing_key(&self, agent: &str) -> Arc<SigningKey> {
        self.ex().signing_key(&name(agent)).unwrap()
    }

    fn key_id(&self, agent: &str) -> KeyId {
        self.signing_key(agent).public().id(&name(agent))
    }

    /// A line of an agent, signed with this key.
    fn line(&self, agent: &str, key: &SigningKey, object: &str) -> String {
        let Value::Object(object) = json::parse(object.as_bytes()).unwrap() else { unreachable!() };
        sign(object, &name(agent), key, SignatureVersion::V31, self.now()).unwrap()
    }

    fn append(&self, agent: &str, line: &str) -> Result<(), Rule> {
        let caller = Caller { uid: 0, gid: 0, pid: std::process::id(), bound: Some(name(agent)) };
        let log = self.ex().find_log(LOG).unwrap();
        let writer = self.ex().open_log_writer(&caller, &log, libc::O_WRONLY | libc::O_APPEND).unwrap();
        let written = writer.write(&caller, 0, true, line.as_bytes());
        writer.release();
        match written {
            Ok(_) => Ok(()),
            Err(Denied::Refused(refusal)) => Err(refusal.rule),
            Err(Denied::Io(error)) => panic!("{error}"),
        }
    }

    /// Sends what says `body`, signed with this key.
    fn say(&self, agent: &str, key: &SigningKey, body: &str) -> Result<(), Rule> {
        let line = self.line(agent, key, &format!(r#"{{"type":"ship","subject":"s","body":"{body}"}}"#));
        self.append(agent, &line)
    }

    /// Ends it, and proves it.
    fn faults(&mut self) -> Vec<Fault> {
        self.exchange = None;
        let report = verify(&self.at("")).unwrap();
        self.start();
        report.faults
    }

    fn promote(&self, agent: &str) {
        self.ex().set_tier(agent, true, None).unwrap();
    }
}

#[test]
fn a_crash_between_the_event_and_the_file_is_mended() {
    let mut world = World::new();
    world.ex().set_blocked("alice", true).unwrap();
    let before = world.read("trust.json");
    world.promote("bob");
    world.ex().rotate_key("bob", false).unwrap();
    let after = world.read("trust.json");
    world.crash();
    fs::write(world.at("trust.json"), before).unwrap();
    world.start();
    assert_eq!(world.read("trust.json"), after);
    assert_eq!(world.ex().trust().to_json(), after);
    assert_eq!(world.tier("bob"), Tier::Trusted);
    assert!(world.trust().agents[&name("alice")].blocked);
    assert_eq!(world.events("trust-changed").len(), 3, "mended, not changed");
}

#[test]
fn a_change_of_many_agents_is_one_event_however_long_and_the_next_start_is_from_the_checkpoint() {
    let mut world = World::new();
    world.promote("bob");
    let mut list = world.trust();
    for n in 0..400 {
        let entry = list.agents[&name("bob")].clone();
        let agent = name(&format!("agent-{n}"));
        let keys = vec![TrustedKey::new(&agent, SigningKey::from_seed(&[3; 32]).public(), Timestamp(NOW))];
        list.agents.insert(agent, TrustEntry { keys, ..entry });
    }
    world.ex().import_trust(&list.to_json()).unwrap();
    world.exchange = None;
    let events = world.read("events.jsonl");
    // What lies before the checkpoint is not read: damage there is for verify to find.
    fs::write(world.at("events.jsonl"), events.replacen("{\"seq\":1,", "{\"seq\":7,", 1)).unwrap();
    assert!(events.lines().last().unwrap().len() > 100_000, "the checkpoint is right after the long one");
    world.start();
    assert_eq!(world.ex().trust().agents.len(), 402);
}

#[test]
fn a_list_that_was_edited_by_hand_stands_and_an_event_tells_of_it() {
    let mut world = World::new();
    world.promote("bob");
    world.restart();
    assert_eq!(world.events("trust-changed").len(), 1);
    world.exchange = None;
    world.edit_trust("\"tier\": \"TRUSTED\"", "\"tier\": \"VERIFIED\"");
    let edited = world.read("trust.json");
    world.start();
    assert_eq!(world.read("trust.json"), edited);
    let events = world.events("trust-changed");
    assert_eq!((events.len(), &events[1]["by"]), (2, &"operator".into()));
    assert!(events[1]["changes"][0].as_str().unwrap().contains("while no daemon ran"));
    assert_eq!(events[1]["tiers"][1], serde_json::json!({"agent": "bob", "tier": "VERIFIED"}));
    world.restart();
    assert_eq!(world.events("trust-changed").len(), 2, "told once");
    // After a crash too.
    world.promote("bob");
    world.crash();
    world.edit_trust("\"tier\": \"ATTESTED\"", "\"tier\": \"UNTRUSTED\"");
    let edited = world.read("trust.json");
    world.start();
    assert_eq!(world.read("trust.json"), edited);
    assert_eq!(world.events("trust-changed").len(), 4);
}

#[test]
fn reciprocations_outlive_a_restart_and_attest_once() {
    let mut world = World::new();
    let (alice, bob) = (name("alice"), name("bob"));
    world.ex().set_tier("bob", false, Some("VERIFIED")).unwrap();
    for _ in 0..6 {
        world.ex().count_reciprocation(&alice, &bob).unwrap();
    }
    assert_eq!(world.trust().agents[&bob].reciprocations(), 0, "no write for each ack");
    world.restart();
    assert_eq!(world.trust().agents[&bob].reciprocations(), 6);
    for _ in 0..3 {
        world.ex().count_reciprocation(&bob, &alice).unwrap();
    }
    assert_eq!(world.tier("bob"), Tier::Verified);
    world.ex().count_reciprocation(&bob, &alice).unwrap();
    assert_eq!((world.tier("bob"), world.trust().agents[&bob].reciprocations()), (Tier::Attested, 10));
    let event = world.events("trust-changed").pop().unwrap();
    assert_eq!((&event["by"], &event["tiers"][0]["was"]), (&"reciprocations".into(), &"VERIFIED".into()));
    assert!(event["changes"].to_string().contains("after 10 successful reciprocations"), "{event}");
    world.ex().count_reciprocation(&bob, &alice).unwrap();
    world.crash();
    world.start();
    assert_eq!(world.events("trust-changed").len(), 3, "a lost count promotes nobody again");
}

#[test]
fn a_key_that_messages_bring_signs_at_once_and_the_old_one_goes_after_the_grace() {
    let mut world = World::new();
    let (bob, old) = (name("bob"), world.signing_key("bob"));
    let old_id = world.key_id("bob").to_string();
    let new = SigningKey::from_seed(&[9; 32]);
    let new_id = new.public().id(&bob).to_string();
    let public = base64::engine::general_purpose::STANDARD.encode(new.public().to_bytes());

    world.ex().deactivate_key(&bob, &old_id).unwrap();
    assert!(world.events("key-refused")[0]["problem"].as_str().unwrap().contains("the last key of bob"));
    world.ex().add_key(&bob, &public, "bob:00000000").unwrap();
    assert_eq!(world.events("key-refused").len(), 2);
    assert_eq!(world.say("bob", &new, "too early"), Err(Rule::UnknownKey));

    world.ex().add_key(&bob, &public, &new_id).unwrap();
    world.ex().add_key(&bob, &public, &new_id).unwrap();
    world.say("bob", &new, "with the new key").unwrap();
    world.later(3600);
    world.ex().deactivate_key(&bob, &old_id).unwrap();
    world.say("bob", &old, "with the old key").unwrap();
    world.restart();
    world.later(GRACE_SECONDS - 3601);
    world.ex().run_janitor();
    world.say("bob", &old, "in the last second").unwrap();
    world.later(1);
    world.ex().run_janitor();
    assert_eq!(world.say("bob", &old, "too late"), Err(Rule::RevokedKey));
    world.say("bob", &new, "still").unwrap();
    assert_eq!(world.events("trust-changed").len(), 3);
    assert_eq!(world.events("trust-changed")[2]["by"], "janitor");
    // The exchange holds the old key, which is retired: verify says so. The lines are right.
    let faults = world.faults();
    assert!(faults.iter().all(|fault| fault.rule == "key") && faults.len() == 1, "{faults:?}");
}

#[test]
fn rotation_makes_the_new_key_the_one_that_is_held() {
    let mut world = World::new();
    let (old, old_id) = (world.signing_key("bob"), world.key_id("bob"));
    world.say("bob", &old, "before").unwrap();
    world.ex().rotate_key("bob", false).unwrap();
    let new = world.signing_key("bob");
    assert_ne!(world.key_id("bob"), old_id);
    world.say("bob", &new, "with the new").unwrap();
    world.say("bob", &old, "with the old").unwrap();
    let card = AgentCard::verify(world.read("trust/bob.card.json").as_bytes()).unwrap();
    assert_eq!((card.keys.len(), &card.signed_by), (2, &world.key_id("bob")));
    world.restart();
    assert_ne!(world.key_id("bob"), old_id);
    let second = world.key_id("bob");
    world.ex().rotate_key("bob", true).unwrap();
    assert_eq!(world.say("bob", &old, "compromised"), Err(Rule::RevokedKey));
    assert_eq!(world.say("bob", &new, "also"), Err(Rule::RevokedKey));
    assert!(!world.trust().key(&second).unwrap().active);
    let third = world.key_id("bob").to_string();
    world.ex().retire_key(&third).unwrap();
    assert!(
        world.events("trust-changed").pop().unwrap()["changes"].to_string().contains("no active key now")
    );
    assert_eq!(world.say("bob", &world.signing_key("bob"), "last"), Err(Rule::RevokedKey));
    world.ex().rotate_key("bob", false).unwrap();
    world.say("bob", &world.signing_key("bob"), "and again").unwrap();
    assert_eq!(world.faults(), []);
}

#[test]
fn a_crash_while_a_key_is_taken_over_leaves_one_or_the_other() {
    let mut world = World::new();
    let old = world.key_id("bob");
    let key = SigningKey::from_seed(&[9; 32]);
    let next = world.at("private/keys/bob.key.next");
    let put = || {
        fs::write(&next, key.to_file_text().as_bytes()).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    };
    // Before it was trusted.
    put();
    world.restart();
    assert_eq!((world.key_id("bob"), next.exists()), (old.clone(), false));
    // After.
    let public = base64::engine::general_purpose::STANDARD.encode(key.public().to_bytes());
    let id = key.public().id(&name("bob"));
    world.ex().add_key(&name("bob"), &public, &id.to_string()).unwrap();
    put();
    world.restart();
    assert_eq!((world.key_id("bob"), next.exists()), (id, false));
}

#[test]
fn verify_judges_a_line_by_the_keys_and_tiers_of_its_time() {
    let mut world = World::new();
    let (old, old_id) = (world.signing_key("bob"), world.key_id("bob").to_string());
    world.say("bob", &old, "before").unwrap();
    let late = world.line("bob", &old, r#"{"type":"ship","subject":"s","body":"late"}"#);
    world.ex().rotate_key("bob", true).unwrap();
    let low =
        world.line("bob", &world.signing_key("bob"), r#"{"type":"request","subject":"s","body":"low"}"#);
    world.say("bob", &world.signing_key("bob"), "at a high tier").unwrap();
    world.ex().set_tier("bob", false, Some("UNTRUSTED")).unwrap();
    assert_eq!(world.append("bob", &late), Err(Rule::RevokedKey));
    assert_eq!(world.append("bob", &low), Err(Rule::Tier));
    assert_eq!(world.faults(), [], "what was right when it was written stays right");

    // A program that went round the mount, and even wrote the events.
    for line in [late, low] {
        let exchange = world.ex();
        let bytes = exchange.store.open_log(LOG, false).unwrap();
        let (start, line) = (bytes.len().unwrap(), line + "\n");
        bytes.append_at(start, line.as_bytes()).unwrap();
        let members = members! {
            "log": LOG, "by": "bob", "order": exchange.next_order(), "lines": 1, "start": start,
            "end": start + line.len() as u64,
            "sha256": crate::exchange::events::hex(&Sha256::digest(line.as_bytes())),
        };
        exchange.events.append(world.now(), "append", &members).unwrap();
    }
    let faults = world.faults();
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.rule)).collect();
    assert_eq!(found, [(Some(3), "revoked-key"), (Some(4), "tier")], "{faults:?}");
    assert!(faults[0].problem.contains(&old_id), "{faults:?}");
}

#[test]
fn a_blocked_agent_is_refused_signed_and_unsigned() {
    let mut world = World::new();
    world.exchange = None;
    let toml = world.read("exchange.toml");
    let allowed = toml.replace("allow_unsigned_from = []", "allow_unsigned_from = [\"bob\"]");
    fs::write(world.at("exchange.toml"), allowed).unwrap();
    world.start();
    let key = world.signing_key("bob");
    let unsigned = |n: u8| {
        format!(
            r#"{{"timestamp":"2026-01-01T00:00:0{n}Z","from":"bob","type":"ship","subject":"s","body":"b","correlation_id":"c"}}"#
        )
    };
    let operator = |line: &str| {
        let caller = Caller { uid: world.ex().owner_uid(), gid: 0, pid: std::process::id(), bound: None };
        let log = world.ex().find_log(LOG).unwrap();
        let writer = world.ex().open_log_writer(&caller, &log, libc::O_WRONLY | libc::O_APPEND).unwrap();
        match writer.write(&caller, 0, true, line.as_bytes()) {
            Ok(_) => Ok(()),
            Err(Denied::Refused(refusal)) => Err(refusal.rule),
            Err(Denied::Io(error)) => panic!("{error}"),
        }
    };
    operator(&unsigned(0)).unwrap();
    world.say("bob", &key, "signed").unwrap();
    world.ex().set_blocked("bob", true).unwrap();
    assert_eq!(operator(&unsigned(1)), Err(Rule::Tier));
    assert_eq!(world.say("bob", &key, "signed again"), Err(Rule::Tier));
    world.restart();
    assert_eq!(world.say("bob", &key, "signed again"), Err(Rule::Tier));
    world.ex().set_blocked("bob", false).unwrap();
    world.say("bob", &key, "signed again").unwrap();
    assert_eq!(world.faults(), []);
}

/// A card of `agent`'s, signed with this key, with a limit.
fn card(agent: &str, key: &SigningKey, rate: Option<u32>) -> String {
    card_at(Timestamp(NOW), agent, key, rate)
}

fn card_at(issued_at: Timestamp, agent: &str, key: &SigningKey, rate: Option<u32>) -> String {
    let agent = name(agent);
    let public = key.public();
    let keys = vec![CardKey { id: public.id(&agent), key: public, valid_from: None, valid_until: None }];
    let (max_body_bytes, clock_skew_seconds) = (65_536, 300);
    let new = NewCard {
        agent: &agent,
        keys,
        old_keys: vec![],
        max_body_bytes,
        clock_skew_seconds,
        rate_per_minute: rate,
    };
    new.sign(key, issued_at).replace('\n', "")
}

fn add_carol(world: &mut World, toml: &str) {
    world.exchange = None;
    let text = world.read("exchange.toml");
    fs::write(world.at("exchange.toml"), format!("{text}\n[agents.carol]\n{toml}")).unwrap();
    world.start();
}

#[test]
fn the_card_of_a_first_contact_is_pinned_and_another_key_never() {
    let mut world = World::new();
    add_carol(&mut world, "");
    let (carols, eves) = (SigningKey::from_seed(&[5; 32]), SigningKey::from_seed(&[6; 32]));
    let announce = |key: &SigningKey, card: &str, subject: &str| {
        let object = format!(r#"{{"type":"agent_card","subject":"{subject}","body":{card}}}"#);
        world.append("carol", &world.line("carol", key, &object))
    };
    assert_eq!(world.say("carol", &carols, "unknown yet"), Err(Rule::UnknownKey));
    // A card that somebody else sends in her name pins nothing.
    assert_eq!(announce(&eves, &card("carol", &carols, None), "not hers"), Err(Rule::UnknownKey));
    assert!(!world.trust().agents.contains_key(&name("carol")));

    announce(&carols, &card("carol", &carols, Some(7)), "here I am").unwrap();
    let trust = world.trust();
    assert_eq!(trust.agents[&name("carol")].tier, Tier::Untrusted);
    assert!(trust.key(&carols.public().id(&name("carol"))).unwrap().active);
    assert_eq!(world.ex().charter().limits.rates.get(&name("carol")), Some(&7));
    assert_eq!(world.events("card-stored").len(), 1);
    assert_eq!(world.say("carol", &carols, "not yet"), Err(Rule::Tier));

    assert_eq!(announce(&carols, &card("carol", &eves, None), "a new key"), Err(Rule::UnknownKey));
    assert_eq!(announce(&eves, &card("carol", &eves, None), "a new key"), Err(Rule::UnknownKey));
    assert_eq!(world.trust().agents[&name("carol")].keys.len(), 1);

    assert_eq!(announce(&carols, &card("carol", &carols, Some(9)), "no newer card"), Err(Rule::Replay));
    announce(&carols, &card("carol", &carols, Some(7)), "the same again").unwrap();
    let better = card_at(Timestamp(NOW + 1_000_000), "carol", &carols, Some(9));
    announce(&carols, &better, "a better card").unwrap();
    assert_eq!(announce(&carols, &card("carol", &carols, Some(7)), "the old one"), Err(Rule::Replay));
    assert!(world.read("trust/carol.card.json").contains("\"rate_limit_msg_per_min\":9"));
    world.restart();
    assert_eq!(world.ex().charter().limits.rates.get(&name("carol")), Some(&9));
    world.promote("carol");
    world.say("carol", &carols, "now").unwrap();
    assert_eq!(world.faults(), []);
}

#[test]
fn a_cards_limit_only_lowers_the_exchanges_and_the_operators_word_is_above_it() {
    let mut world = World::new();
    add_carol(&mut world, "");
    let key = SigningKey::from_seed(&[5; 32]);
    let rate = |world: &World| world.ex().charter().limits.rates.get(&name("carol")).copied();
    world.ex().pin_card(&card("carol", &key, Some(50))).unwrap();
    assert_eq!(rate(&world), Some(50));
    let set = |world: &mut World, from: &str, to: &str| {
        world.exchange = None;
        let text = world.read("exchange.toml");
        assert!(text.contains(from));
        fs::write(world.at("exchange.toml"), text.replace(from, to)).unwrap();
        world.start();
    };
    set(&mut world, "\nrate_per_minute = 0", "\nrate_per_minute = 20");
    assert_eq!(rate(&world), Some(20));
    set(&mut world, "[agents.carol]\n", "[agents.carol]\nrate_per_minute = 90\n");
    assert_eq!(rate(&world), Some(90));
}

#[test]
fn the_exchange_writes_the_cards_of_the_keys_it_holds() {
    let mut world = World::new();
    let read = |world: &World| AgentCard::verify(world.read("trust/bob.card.json").as_bytes()).unwrap();
    let first = world.read("trust/bob.card.json");
    assert_eq!((read(&world).agent, read(&world).rate_per_minute()), (name("bob"), None));
    world.restart();
    assert_eq!(world.read("trust/bob.card.json"), first, "nothing has changed");

    world.exchange = None;
    fs::remove_file(world.at("trust/alice.card.json")).unwrap();
    let toml = world.read("exchange.toml").replace("\nrate_per_minute = 0", "\nrate_per_minute = 30");
    fs::write(world.at("exchange.toml"), toml).unwrap();
    world.start();
    assert_eq!(read(&world).rate_per_minute(), Some(30));
    assert!(world.at("trust/alice.card.json").exists());

    // A card that bob has made himself stays, until his keys are others.
    let own = card_at(Timestamp(NOW + 1), "bob", &world.signing_key("bob"), Some(3))
        .replace("\"host\":\"\"", "\"host\":\"laptop\"");
    let Value::Object(mut members) = json::parse(own.as_bytes()).unwrap() else { unreachable!() };
    members.remove("signature");
    let signed = crate::wire::canonical::utf8(&Value::Object(members.clone()));
    let signature = world.signing_key("bob").sign(signed.as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    members.insert("signature".to_owned(), Value::String(signature));
    world.ex().pin_card(&crate::wire::canonical::utf8(&Value::Object(members))).unwrap();
    world.restart();
    assert_eq!(read(&world).object["host"].as_str(), Some("laptop"));
    assert_eq!(world.ex().charter().limits.rates.get(&name("bob")), Some(&3));
    world.ex().rotate_key("bob", true).unwrap();
    assert_eq!(
        (read(&world).object["host"].as_str(), read(&world).signed_by),
        (Some(""), world.key_id("bob"))
    );
    assert_eq!(world.faults(), []);
    fs::write(world.at("trust/alice.card.json"), first).unwrap();
    let report = verify(&world.at("")).unwrap();
    assert_eq!(report.faults.iter().map(|fault| fault.rule).collect::<Vec<_>>(), ["card"]);
}

#[test]
fn digits_are_confirmed_by_both_sides_over_a_restart() {
    let mut world = World::new();
    world.ex().set_tier("bob", false, Some("UNTRUSTED")).unwrap();
    let digits = crate::rules::trust::sas::digits(&world.trust(), &name("alice"), &name("bob")).unwrap();
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let before = world.read("events.jsonl");
    let error = world.ex().confirm_sas("alice", "bob", wrong).unwrap_err();
    assert!(error.contains("Nothing is confirmed"), "{error}");
    assert_eq!(world.read("events.jsonl"), before);
    let answer = world.ex().confirm_sas("alice", "bob", &digits).unwrap();
    assert_eq!((answer["confirmed_by_both"].as_bool(), world.tier("bob")), (Some(false), Tier::Untrusted));
    world.restart();
    let answer = world.ex().confirm_sas("bob", "alice", &digits).unwrap();
    assert_eq!((answer["confirmed_by_both"].as_bool(), world.tier("bob")), (Some(true), Tier::Verified));
    assert_eq!(world.events("trust-changed").len(), 3);
}
