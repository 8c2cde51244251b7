//! Trust through real mounts: tiers, blocking, digits, cards, rotation of keys by the operator and by messages.

use crate::common::{BATON, Fixture, Mount, run, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const HELLO: &str = r#"{"type":"feedback","subject":"s","body":"hello"}"#;
const REJECTED: &str = "Key was rejected by service";

impl Fixture {
    /// What trust.json says of an agent.
    fn entry(&self, agent: &str) -> Value {
        let list: Value =
            serde_json::from_str(&fs::read_to_string(self.dir().join("trust.json")).unwrap()).unwrap();
        list["agents"][agent].clone()
    }

    fn tier(&self, agent: &str) -> String {
        self.entry(agent)["tier"].as_str().unwrap().to_owned()
    }

    /// The id of the key that the exchange holds for an agent.
    fn held_key(&self, agent: &str) -> String {
        let shown = self.baton(&["key", "show", agent, "--json"]).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let held = shown.as_array().unwrap().iter().find(|key| key["held"] == true).unwrap();
        held["key_id"].as_str().unwrap().to_owned()
    }

    /// A new key in a file of its own: the file, its public half and its id.
    fn new_key(&self, agent: &str) -> (PathBuf, String, String) {
        let file = self.scratch().join(format!("{agent}.new.key"));
        let path = file.display();
        self.bash(&format!("umask 077; head -c 32 /dev/urandom | base64 > {path}")).ok();
        let shown = self.baton(&["key", "show", agent, "--key", file.to_str().unwrap(), "--json"]).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let text = |member: &str| shown[0][member].as_str().unwrap().to_owned();
        (file.clone(), text("public_key"), text("key_id"))
    }

    /// The changes of the trust list, as events.
    fn trust_events(&self) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == "trust-changed").collect()
    }
}

/// The last line of an inbox.
fn last(mount: &Mount, inbox: &str) -> Value {
    serde_json::from_str(mount.read(inbox).lines().last().unwrap()).unwrap()
}

/// Says something through a mount that seals it.
fn send(from: &Mount, to: &str, object: &str) -> String {
    format!("echo '{object}' >> {}/inbox/{to}.jsonl", from.path().display())
}

#[test]
fn a_blocked_agent_is_told_so_and_is_let_in_again() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash(&send(&bob, "alice", HELLO)).ok();
    fixture.baton(&["trust", "block", "bob"]).ok();
    bob.refuses(&send(&bob, "alice", HELLO), "Permission denied", "tier");
    let advice = bob.refusals().pop().unwrap()["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("bob is blocked") && advice.contains("baton trust unblock"), "{advice}");
    bob.refuses("line bob >> inbox/alice.jsonl", "Permission denied", "tier");
    fixture.baton(&["trust", "unblock", "bob"]).ok();
    bob.bash(&send(&bob, "alice", HELLO)).ok();
    bob.umount();
    fixture.verify();
}

#[test]
fn a_new_tier_holds_from_the_next_line_on() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let claim = HELLO.replace("feedback", "claim");
    bob.bash(&send(&bob, "alice", &claim)).ok();
    fixture.baton(&["trust", "demote", "bob"]).ok();
    bob.refuses(&send(&bob, "alice", &claim), "Permission denied", "tier");
    bob.bash(&send(&bob, "alice", HELLO)).ok();
    fixture.baton(&["trust", "demote", "bob"]).ok();
    bob.refuses(&send(&bob, "alice", HELLO), "Permission denied", "tier");
    fixture.baton(&["trust", "promote", "bob", "ATTESTED"]).ok();
    bob.bash(&send(&bob, "alice", &claim)).ok();
    let told = bob.bash("jq -r 'select(.event == \"trust-changed\") | .changes[0]' events.jsonl").ok();
    assert_eq!(told.lines().count(), 3, "{told}");
    bob.umount();
    fixture.verify();
}

#[test]
fn digits_compared_on_both_sides_verify_over_a_kill() {
    let fixture = Fixture::new();
    fixture.baton(&["trust", "demote", "bob", "UNTRUSTED"]).ok();
    let bob = fixture.mount_as("bob");
    bob.refuses(&send(&bob, "alice", HELLO), "Permission denied", "tier");
    let digits = fixture.baton(&["trust", "sas", "bob", "--as", "alice"]).ok().trim().to_owned();
    assert_eq!(fixture.baton(&["trust", "sas", "alice", "--as", "bob"]).ok().trim(), digits);
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let confirm = |other: &str, own: &str, digits: &str| {
        fixture.baton(&["trust", "sas", other, "--as", own, "--confirm", digits])
    };
    confirm("bob", "alice", wrong).failed_with("Nothing is confirmed");
    confirm("bob", "alice", &digits).ok();
    fixture.kill_daemon();
    bob.take_dead();
    let bob = fixture.mount_as("bob");
    assert_eq!(fixture.tier("bob"), "UNTRUSTED");
    confirm("alice", "bob", &digits).ok();
    assert_eq!(
        (fixture.tier("bob").as_str(), &fixture.entry("bob")["sas_verified"]),
        ("VERIFIED", &true.into())
    );
    bob.bash(&send(&bob, "alice", HELLO)).ok();
    bob.umount();
    fixture.verify();
}

#[test]
fn ten_answered_questions_attest_a_verified_agent() {
    let fixture = Fixture::new();
    fixture.baton(&["trust", "demote", "bob", "VERIFIED"]).ok();
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    let round = |n: usize| {
        let ask = format!(
            r#"{{"type":"request","subject":"review {n}","body":"please","ack_required":true,"correlation_id":"r{n}"}}"#
        );
        bob.bash(&send(&bob, "alice", &ask)).ok();
        alice.bash(&send(&alice, "bob", &format!(r#"{{"correlation_id":"r{n}"}}"#))).ok();
    };
    (0..9).for_each(round);
    let claim = HELLO.replace("feedback", "claim");
    bob.refuses(&send(&bob, "alice", &claim), "Permission denied", "tier");
    round(9);
    bob.bash(&send(&bob, "alice", &claim)).ok();
    assert_eq!(fixture.entry("bob")["successful_reciprocations"], 10);
    let event = fixture.trust_events().pop().unwrap();
    assert!(event["changes"].to_string().contains("after 10 successful reciprocations"), "{event}");
    // What is done once more promotes nobody once more.
    fixture.kill_daemon();
    alice.take_dead();
    bob.take_dead();
    let bob = fixture.mount_as("bob");
    assert_eq!((fixture.tier("bob").as_str(), fixture.trust_events().len()), ("ATTESTED", 2));
    fixture.baton(&["trust", "demote", "bob", "VERIFIED"]).ok();
    fixture.kill_daemon();
    bob.take_dead();
    let bob = fixture.mount_as("bob");
    assert_eq!((fixture.tier("bob").as_str(), fixture.trust_events().len()), ("VERIFIED", 3));
    bob.umount();
    fixture.verify();
}

#[test]
fn what_is_counted_outlives_the_daemon() {
    let fixture = Fixture::new();
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    let ask = r#"{"type":"request","subject":"s","body":"b","ack_required":true,"correlation_id":"r"}"#;
    bob.bash(&send(&bob, "alice", ask)).ok();
    alice.bash(&send(&alice, "bob", r#"{"correlation_id":"r"}"#)).ok();
    assert_eq!(fixture.entry("bob")["successful_reciprocations"], 0, "an ack is no write of trust.json");
    alice.umount();
    bob.umount();
    wait_until("the daemon has ended", || !fixture.is_running());
    for agent in ["alice", "bob"] {
        assert_eq!(fixture.entry(agent)["successful_reciprocations"], 1, "{agent}");
    }
    let shown = fixture.baton(&["trust", "list"]).ok();
    assert!(shown.lines().any(|line| line.contains("bob") && line.contains(" 1 ")), "{shown}");
}

#[test]
fn the_operator_rotates_a_key_under_a_running_mount() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("cp $EXCHANGE/private/keys/bob.key $SCRATCH/old.key").ok();
    let old = fixture.held_key("bob");
    let say = |body: &str| send(&bob, "alice", &HELLO.replace("hello", body));
    bob.bash(&say("before")).ok();
    assert_eq!(last(&bob, "inbox/alice.jsonl")["public_key_id"], old);
    fixture.baton(&["key", "rotate", "bob"]).ok();
    let new = fixture.held_key("bob");
    assert_ne!(new, old);
    bob.bash(&say("after")).ok();
    assert_eq!(last(&bob, "inbox/alice.jsonl")["public_key_id"], new);
    let with_old = |body: &str| {
        format!(
            "l=$(echo '{}' | baton sign --as bob --key $SCRATCH/old.key); echo \"$l\" >> inbox/alice.jsonl",
            HELLO.replace("hello", body)
        )
    };
    bob.bash(&with_old("within the grace")).ok();
    let card = bob.bash("jq -r '.verify_keys | keys[]' trust/bob.card.json").ok();
    assert!(card.contains(&old) && card.contains(&new), "{card}");

    fixture.baton(&["key", "deactivate", &old]).ok();
    bob.refuses(&with_old("compromised"), "Key has been revoked", "revoked-key");
    bob.bash("jq -e --arg k \"ed25519:$(baton key show bob --json | jq -r '.[] | select(.state == \"deactivated\").key_id')\" '.old_verify_keys[$k]' trust/bob.card.json").ok();
    fixture.baton(&["key", "rotate", "bob", "--now"]).ok();
    bob.bash(&say("with the third")).ok();
    assert_eq!(last(&bob, "inbox/alice.jsonl")["public_key_id"], fixture.held_key("bob"));
    bob.umount();
    // Two of the three keys are retired, and what they signed at their time is right.
    fixture.verify();
}

#[test]
fn an_agent_rotates_its_key_by_messages() {
    let fixture = Fixture::new();
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    let (file, public, id) = fixture.new_key("bob");
    let with_new = |body: &str| {
        format!(
            "l=$(echo '{}' | baton sign --as bob --key {}); echo \"$l\" >> inbox/alice.jsonl",
            HELLO.replace("hello", body),
            file.display()
        )
    };
    bob.refuses(&with_new("too early"), REJECTED, "unknown-key");
    let propose = |subject: &str, body: Value| {
        let proposal = serde_json::json!({
            "type": "proposal", "subject": subject, "body": body, "correlation_id": subject,
        });
        bob.bash(&send(&bob, "alice", &proposal.to_string())).ok();
    };
    let ack = |subject: &str| {
        alice.bash(&send(&alice, "bob", &format!(r#"{{"correlation_id":"{subject}"}}"#))).ok()
    };
    propose("add_key", serde_json::json!({"key": public, "key_id": id}));
    bob.refuses(&with_new("not acked yet"), REJECTED, "unknown-key");
    ack("add_key");
    bob.bash(&with_new("with the new key")).ok();

    // The old one signs on for a day; then the janitor retires it.
    let old = fixture.held_key("bob");
    propose("deactivate_key", serde_json::json!({"key_id": old}));
    ack("deactivate_key");
    let keys = fixture.entry("bob")["public_keys"].clone();
    assert_eq!((&keys[0]["key_id"], &keys[0]["active"]), (&old.as_str().into(), &true.into()));
    assert!(keys[0]["deactivate_at"].is_string(), "{keys}");
    bob.bash(&send(&bob, "alice", HELLO)).ok();
    // The key that would be left may not go.
    let refused = |fixture: &Fixture| fixture.events().iter().filter(|e| e["event"] == "key-refused").count();
    let proposal = serde_json::json!({
        "type": "proposal", "subject": "deactivate_key", "body": {"key_id": id}, "correlation_id": "again",
    });
    bob.bash(&send(&bob, "alice", &proposal.to_string())).ok();
    ack("again");
    assert_eq!(refused(&fixture), 1);
    bob.bash(&with_new("still")).ok();
    alice.umount();
    bob.umount();
    fixture.verify();
}

#[test]
fn a_first_contact_is_pinned_from_its_card_and_never_with_another_key() {
    let fixture = Fixture::new();
    fixture.configure("[agents.dave]");
    let elsewhere = |name: &str| {
        let dir = fixture.scratch().join(name);
        run(Command::new(BATON).arg("init").arg(&dir).args(["--agent", "dave"]), "").ok();
        dir
    };
    let (home, impostor) = (elsewhere("home"), elsewhere("impostor"));
    let dave = fixture.mount_as("dave");
    let announce = |dir: &PathBuf, key_of: &PathBuf| {
        format!(
            "c=$(cat {}/trust/dave.card.json); l=$(echo \"{{\\\"type\\\":\\\"agent_card\\\",\\\"subject\\\":\\\"card\\\",\\\"body\\\":$c}}\" \
             | baton sign --as dave --key {}/private/keys/dave.key) && echo \"$l\" >> inbox/alice.jsonl",
            dir.display(),
            key_of.display()
        )
    };
    let say = |object: &str| {
        let key = home.join("private/keys/dave.key");
        format!(
            "l=$(echo '{object}' | baton sign --as dave --key {}); echo \"$l\" >> inbox/alice.jsonl",
            key.display()
        )
    };
    let heartbeat = r#"{"type":"heartbeat","subject":"alive","body":{"state":"idle"}}"#;
    dave.refuses(&say(heartbeat), REJECTED, "unknown-key");
    dave.refuses(&announce(&home, &impostor), REJECTED, "unknown-key");
    assert!(fixture.entry("dave").is_null());

    // A write is all or nothing, and so is what its card does.
    let with_another = announce(&home, &home)
        .replace("echo \"$l\" >> ", "printf '%s\\n{}\\n' \"$l\" > $SCRATCH/w; cat $SCRATCH/w >> ");
    dave.refuses(&with_another, "Bad message", "schema");
    assert!(fixture.entry("dave").is_null());

    dave.bash(&announce(&home, &home)).ok();
    assert_eq!(fixture.tier("dave"), "UNTRUSTED");
    dave.bash(&say(heartbeat)).ok();
    dave.refuses(&say(HELLO), "Permission denied", "tier");
    dave.bash(&format!("cmp trust/dave.card.json {}/trust/dave.card.json", home.display())).ok();
    dave.refuses(&announce(&impostor, &impostor), REJECTED, "unknown-key");
    dave.refuses(&announce(&impostor, &home), REJECTED, "unknown-key");
    fixture.baton(&["trust", "promote", "dave"]).ok();
    dave.bash(&say(HELLO)).ok();
    dave.umount();
    fixture.verify();
}

#[test]
fn a_change_that_a_kill_interrupts_is_whole_or_not_there() {
    let fixture = Fixture::new();
    let before = fs::read(fixture.dir().join("trust.json")).unwrap();
    let bob = fixture.mount_as("bob");
    fixture.baton(&["trust", "demote", "bob", "UNTRUSTED"]).ok();
    fixture.kill_daemon();
    bob.take_dead();
    // As if the daemon had died after the event, before the file.
    fs::write(fixture.dir().join("trust.json"), before).unwrap();
    let bob = fixture.mount_as("bob");
    assert_eq!(fixture.tier("bob"), "UNTRUSTED");
    bob.refuses(&send(&bob, "alice", HELLO), "Permission denied", "tier");
    bob.umount();
    fixture.verify();
}
