//! Conversations through every message type and invariant of the protocol, as agents hold them: with echo,
//! cat, jq and tail on their own mounts, or with the programs of protocol v2, v3 and v3.1 as they are.

use crate::common::{Fixture, Mount, wait_until};
use serde_json::{Value, json};
use std::fs;

/// alice and bob, each on a mount that seals; carol has none.
fn two(configure: impl Fn(&Fixture)) -> (Fixture, Mount, Mount) {
    let fixture = Fixture::new();
    configure(&fixture);
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    (fixture, alice, bob)
}

fn release_is_alices(fixture: &Fixture) {
    fixture.configure_domains("release = [\"alice\"]\nboth = [\"alice\", \"bob\"]");
}

/// Periods of these seconds, so that deadlines pass while a test waits.
fn short_periods(fixture: &Fixture, seconds: u32) {
    let cadence =
        json!({"T0_HEADS_DOWN": seconds, "T1_active": seconds, "T2_idle": seconds, "T3_long_idle": seconds});
    fs::write(fixture.dir().join("tiers.json"), cadence.to_string()).unwrap();
}

#[track_caller]
fn end(fixture: &Fixture, mounts: [Mount; 2]) {
    mounts.into_iter().for_each(Mount::umount);
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    fixture.verify();
}

/// Every type that needs no card, with what else it needs.
const TYPES: [(&str, &str); 15] = [
    ("request", ""),
    ("ship", ""),
    ("warning", ""),
    ("feedback", ""),
    ("incident", ""),
    ("ack", r#","correlation_id":"a thread""#),
    ("proposal", ""),
    (
        "heartbeat",
        r#","body":{"wakeup_count":3,"state":"busy","last_action":"built","next_eta":null,"inbox_unread_count":0}"#,
    ),
    ("correction", r#","refs":["an earlier line"]"#),
    ("shutdown", r#","priority":"high""#),
    ("claim", ""),
    ("release", ""),
    ("decision", ""),
    ("trust_tier_announcement", r#","body":{"tier":"ATTESTED"}"#),
    ("note_of_my_own", r#","kind":25000"#),
];
/// The kinds that they imply.
const KINDS: [(&str, u64); 14] = [
    ("ship", 1200),
    ("warning", 1201),
    ("feedback", 1300),
    ("incident", 1400),
    ("ack", 1500),
    ("proposal", 1600),
    ("heartbeat", 100),
    ("correction", 1700),
    ("shutdown", 1800),
    ("claim", 1100),
    ("release", 1101),
    ("decision", 1),
    ("trust_tier_announcement", 10001),
    ("note_of_my_own", 25000),
];

#[test]
fn every_type_is_completed_sealed_and_read_with_cat_and_jq() {
    let (fixture, alice, bob) = two(|_| ());
    for (kind, more) in &TYPES {
        let body = if more.contains("body") { "" } else { r#","body":"b""# };
        let object = format!(r#"{{"type":"{kind}","subject":"s"{body}{more}}}"#);
        bob.bash(&format!("echo '{object}' >> inbox/alice.jsonl")).ok();
        let line: Value =
            serde_json::from_str(&alice.bash("tail -n 1 inbox/alice.jsonl | jq -c .").ok()).unwrap();
        assert_eq!(line["type"], **kind, "{line}");
        assert_eq!(line["from"], "bob", "{line}");
        assert_eq!(line["to"], json!(["alice"]), "{line}");
        let number = KINDS.iter().find(|(word, _)| word == kind).map(|(_, number)| *number);
        assert_eq!(line["kind"].as_u64(), number, "{line}");
        assert_eq!(line["ack_required"], *kind == "proposal", "{line}");
        assert_eq!(line["priority"], if *kind == "shutdown" { "high" } else { "medium" }, "{line}");
        let thread = if *kind == "ack" { json!("a thread") } else { line["timestamp"].clone() };
        assert_eq!(line["correlation_id"], thread, "{line}");
        assert!(
            line["refs"].is_array() && line["event_id"].is_string() && line["signature"].is_string(),
            "{line}"
        );
        assert!(line["public_key_id"].as_str().unwrap().starts_with("bob:"), "{line}");
        for member in serde_json::from_str::<Value>(&object).unwrap().as_object().unwrap() {
            assert_eq!(line[member.0], *member.1, "what its author wrote stays: {line}");
        }
    }
    assert_eq!(alice.lines("inbox/alice.jsonl").len(), TYPES.len());
    bob.bash(r#"jq -c '{type:"agent_card",subject:"me",body:.}' trust/bob.card.json >> inbox/alice.jsonl"#)
        .ok();
    assert_eq!(alice.lines("inbox/alice.jsonl").pop().unwrap()["kind"], 10000);
    // Sealed lines are in the order of their timestamps, and no two are the same message.
    let stamps = bob.bash("jq -r .timestamp inbox/alice.jsonl | sort -c -u && echo sorted").ok();
    assert_eq!(stamps.trim(), "sorted");
    end(&fixture, [alice, bob]);
}

#[test]
fn what_a_seal_can_not_complete_is_refused() {
    let (fixture, alice, bob) = two(|_| ());
    for (object, text, rule) in [
        (r#"{"subject":"s","body":"b"}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","body":"b"}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","subject":"s"}"#, "Bad message", "schema"),
        (r#"{"type":"novel","subject":"s","body":"b"}"#, "Bad message", "schema"),
        (r#"{"type":"ship","kind":1300,"subject":"s","body":"b"}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","subject":"s","body":"b","correlation_id":""}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","subject":"s","body":"b","to":"alice"}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","subject":"s","body":"b","refs":"x"}"#, "Bad message", "schema"),
        (r#"{"type":"feedback","subject":"s","body":"b","priority":"urgent"}"#, "Bad message", "schema"),
        (r#"{"type":"ack","subject":"s","body":"b"}"#, "Bad message", "ack-needs-parent"),
        (
            r#"{"type":"proposal","subject":"s","body":"b","ack_required":false}"#,
            "Bad message",
            "proposal-needs-ack-required",
        ),
        (
            r#"{"type":"feedback","subject":"s","body":"b","timestamp":"2999-01-01T00:00:00Z"}"#,
            "Bad message",
            "clock-skew",
        ),
        (
            r#"{"type":"feedback","subject":"s","body":"b","from":"alice"}"#,
            "Key was rejected",
            "from-mismatch",
        ),
        (r#"{"type":"feedback","subject":"s","body":"b","signature":"AAAA"}"#, "Bad message", "schema"),
    ] {
        bob.refuses(&format!("echo '{object}' >> inbox/alice.jsonl"), text, rule);
    }
    assert_eq!(alice.read("inbox/alice.jsonl"), "");
    // An event_id alone is nobody's signature: the seal makes its own.
    bob.bash(r#"echo '{"type":"feedback","subject":"s","body":"b","event_id":"00"}' >> inbox/alice.jsonl"#)
        .ok();
    bob.bash(
        r#"echo '{"type":"feedback","subject":"s","body":"b","from":"did:wire:bob"}' >> inbox/alice.jsonl"#,
    )
    .ok();
    assert_eq!(alice.lines("inbox/alice.jsonl").len(), 2);
    end(&fixture, [alice, bob]);
}

#[test]
fn a_reply_needs_only_its_correlation_id() {
    let (fixture, alice, bob) = two(|_| ());
    bob.bash(r#"echo '{"type":"request","subject":"review?","body":"PR 12","ack_required":true}' >> outbox/bob.jsonl"#).ok();
    // In each place where alice may answer; the outbox goes to whom she answers.
    for place in ["outbox/alice.jsonl", "alice_to_bob.jsonl", "inbox/bob.jsonl"] {
        alice
            .bash(&format!(
                r#"id=$(jq -r 'select(.subject == "review?").correlation_id' inbox/alice.jsonl)
                echo "{{\"correlation_id\":\"$id\"}}" >> {place}"#
            ))
            .ok();
        let reply = bob.lines("inbox/bob.jsonl").pop().unwrap();
        assert_eq!(
            (&reply["type"], &reply["subject"], &reply["body"], &reply["to"], &reply["kind"]),
            (&json!("ack"), &json!("Re: review?"), &json!(""), &json!(["bob"]), &json!(1500)),
            "{place}"
        );
    }
    assert_eq!(bob.lines("inbox/carol.jsonl").len(), 1, "the replies are for bob only");
    alice
        .bash(r#"id=$(jq -r .correlation_id inbox/alice.jsonl)
              echo "{\"correlation_id\":\"$id\",\"type\":\"feedback\",\"body\":\"nice\"}" >> outbox/alice.jsonl"#)
        .ok();
    let thread = r#"id=$(jq -r .correlation_id inbox/alice.jsonl)
        cat inbox/*.jsonl | jq -r "select(.correlation_id == \"$id\") | .type" | sort | uniq -c | tr -s ' \n' ' '"#;
    assert_eq!(bob.bash(thread).ok().trim(), "3 ack 1 feedback 2 request");
    assert_eq!(bob.lines("inbox/bob.jsonl")[3]["subject"], "Re: review?", "one Re: is enough");
    // A thread that nobody here remembers is one all the same.
    alice.bash(r#"echo '{"correlation_id":"from elsewhere","body":"ok"}' >> inbox/bob.jsonl"#).ok();
    assert_eq!(bob.lines("inbox/bob.jsonl").pop().unwrap()["subject"], "Re: from elsewhere");
    end(&fixture, [alice, bob]);
}

#[test]
fn tail_f_on_ones_inbox_is_all_that_an_agent_needs_to_listen() {
    let (fixture, alice, bob) = two(|_| ());
    // alice acks whatever asks for it, from a shell loop.
    let answering = r#"
        tail -n +1 -s 0.1 -f inbox/alice.jsonl | while read -r line; do
          case $(jq -r .ack_required <<< "$line") in
            true) echo "{\"correlation_id\":\"$(jq -r .correlation_id <<< "$line")\",\"body\":\"seen\"}" >> outbox/alice.jsonl ;;
          esac
          [ "$(jq -r .type <<< "$line")" = shutdown ] && break
        done"#;
    let mut listener = alice.command("bash", &["-c", answering]).spawn().unwrap();
    for n in 1..=3 {
        bob.bash(&format!(r#"echo '{{"type":"request","subject":"r {n}","body":"b","ack_required":true}}' >> outbox/bob.jsonl"#)).ok();
        wait_until("the request is acked", || bob.lines("inbox/bob.jsonl").len() == n);
    }
    bob.bash(r#"for n in 1 2; do echo '{"type":"shutdown","subject":"bye","body":"b"}' >> outbox/bob.jsonl; sleep 0.3; done"#).ok();
    listener.wait().unwrap();
    let acks = bob.lines("inbox/bob.jsonl");
    assert!(acks.iter().all(|ack| ack["type"] == "ack" && ack["body"] == "seen"), "{acks:#?}");
    end(&fixture, [alice, bob]);
}

#[test]
fn the_past_stays_and_a_correction_is_a_new_line() {
    let (fixture, alice, bob) = two(|_| ());
    bob.bash(r#"echo '{"type":"ship","subject":"v1","body":"shipped on monday"}' >> outbox/bob.jsonl"#).ok();
    bob.refuses("sed -i s/monday/tuesday/ outbox/bob.jsonl", "Operation not permitted", "read-only");
    bob.refuses(": > outbox/bob.jsonl", "Operation not permitted", "append-only");
    bob.refuses(": > inbox/alice.jsonl", "Operation not permitted", "append-only");
    bob.bash(
        r#"id=$(jq -r .correlation_id outbox/bob.jsonl)
        echo "{\"type\":\"correction\",\"subject\":\"v1\",\"body\":\"shipped on tuesday\",\"correlation_id\":\"$id\"}" >> outbox/bob.jsonl"#,
    )
    .ok();
    assert_eq!(alice.bodies("inbox/alice.jsonl"), ["shipped on monday", "shipped on tuesday"]);
    let threads = alice.bash("jq -r .correlation_id inbox/alice.jsonl | sort -u | wc -l").ok();
    assert_eq!(threads.trim(), "1");
    end(&fixture, [alice, bob]);
}

const ACK: &str = r#"ack() { echo "{\"correlation_id\":\"$1\",\"body\":\"agreed\"}" >> "$2"; }; "#;

/// A proposal as one echo.
fn propose(thread: &str, body: &str, more: &str, log: &str) -> String {
    format!(
        r#"echo '{{"type":"proposal","subject":"{thread}","body":"{body}","correlation_id":"{thread}"{more}}}' >> {log}"#
    )
}

const RELEASE: &str = r#","affected_domains":["release"]"#;

#[test]
fn a_proposal_with_the_acks_of_all_owners_is_a_decision() {
    let (fixture, alice, bob) = two(release_is_alices);
    let carol = fixture.mount_as("carol");
    bob.bash(&propose("tag", "v2.0", RELEASE, "outbox/bob.jsonl")).ok();
    // Not the owner's, and not the proposer's own.
    carol.bash(&format!("{ACK} ack tag outbox/carol.jsonl")).ok();
    assert_eq!(bob.read("decisions.jsonl"), "");
    alice.bash(&format!("{ACK} ack tag alice_to_bob.jsonl")).ok();
    let decision = bob.lines("decisions.jsonl").pop().expect("it is entered when the ack's write returns");
    let id = |log: &str, n: usize| bob.lines(log)[n]["event_id"].clone();
    assert_eq!(
        (&decision["decision_id"], &decision["proposer"], &decision["acked_by"], &decision["canonical"]),
        (&json!("tag"), &json!("bob"), &json!(["alice"]), &json!(true))
    );
    assert_eq!(decision["decision"], json!({"subject": "tag", "body": "v2.0"}));
    assert_eq!(decision["affected_domains"], json!(["release"]));
    assert_eq!(decision["domain_owners"], json!({"release": ["alice"]}));
    assert_eq!(
        decision["evidence"],
        json!({"proposal": id("outbox/bob.jsonl", 0), "acks": {"alice": id("alice_to_bob.jsonl", 0)}})
    );
    assert!(decision["ratified_at"].is_string());
    // The proposer owns the domain with another: only the other has to ack.
    bob.bash(
        &propose("shared", "x", r#","body":{"affected_domains":["both"],"what":"y"}"#, "bob_to_alice.jsonl")
            .replacen(r#""body":"x","#, "", 1),
    )
    .ok();
    alice.bash(&format!("{ACK} ack shared inbox/bob.jsonl")).ok();
    assert_eq!(bob.lines("decisions.jsonl").len(), 2);
    // Without a domain: everyone whom it was for.
    bob.bash(&propose("lunch", "noon", "", "outbox/bob.jsonl")).ok();
    alice.bash(&format!("{ACK} ack lunch outbox/alice.jsonl")).ok();
    assert_eq!(bob.lines("decisions.jsonl").len(), 2, "carol has not acked");
    carol.bash(&format!("{ACK} ack lunch carol_to_bob.jsonl")).ok();
    assert_eq!(bob.lines("decisions.jsonl").pop().unwrap()["acked_by"], json!(["alice", "carol"]));
    bob.refuses(
        &propose("other", "x", r#","affected_domains":["nonsense"]"#, "outbox/bob.jsonl"),
        "Bad message",
        "domain",
    );
    carol.umount();
    end(&fixture, [alice, bob]);
}

#[test]
fn decisions_are_entered_by_the_exchange_alone() {
    let (fixture, alice, bob) = two(release_is_alices);
    let entry = |id: &str, by: &str| {
        format!(
            r#"echo '{{"decision_id":"{id}","ratified_at":"2026-01-01T00:00:00Z","proposer":"{by}","acked_by":["alice"],"decision":"x","canonical":true}}' >> decisions.jsonl"#
        )
    };
    bob.refuses(&entry("tag", "bob"), "Operation not permitted", "decision");
    bob.bash(&propose("tag", "v2.0", RELEASE, "outbox/bob.jsonl")).ok();
    bob.refuses(&entry("tag", "bob"), "Operation not permitted", "decision");
    assert!(
        fixture.last_refusal()["advice"].as_str().unwrap().contains("alice"),
        "it says whose ack is missing"
    );
    alice.bash(&format!("{ACK} ack tag outbox/alice.jsonl")).ok();
    let entered = bob.read("decisions.jsonl");
    assert_eq!(entered.lines().count(), 1);
    // Programs that enter decisions themselves go on as they do; nothing is stored twice.
    bob.bash(&entry("tag", "bob")).ok();
    alice.bash("cat decisions.jsonl > $SCRATCH/d; cat $SCRATCH/d >> decisions.jsonl").ok();
    bob.refuses(&entry("tag", "alice"), "Operation not permitted", "decision");
    bob.refuses("echo hello >> decisions.jsonl", "Bad message", "json");
    bob.refuses("truncate -s 0 decisions.jsonl", "Operation not permitted", "append-only");
    assert_eq!(bob.read("decisions.jsonl"), entered);
    end(&fixture, [alice, bob]);
}

#[test]
fn three_counter_proposals_and_then_the_operator() {
    let (fixture, alice, bob) = two(|fixture| fixture.configure_domains("both = [\"alice\", \"bob\"]"));
    let both = r#","affected_domains":["both"]"#;
    bob.bash(&propose("name", "beta", both, "outbox/bob.jsonl")).ok();
    alice.bash(&propose("name", "rc1", both, "outbox/alice.jsonl")).ok();
    // bob's own proposal is off the table; alice's wants his ack, not hers.
    alice.bash(&format!("{ACK} ack name outbox/alice.jsonl")).ok();
    assert_eq!(bob.read("decisions.jsonl"), "");
    bob.bash(&propose("name", "rc2", both, "outbox/bob.jsonl")).ok();
    alice.bash(&propose("name", "rc3", both, "outbox/alice.jsonl")).ok();
    bob.refuses(&propose("name", "rc4", both, "outbox/bob.jsonl"), "Operation not permitted", "rounds");
    let shown = fixture.baton(&["decisions", "settle", "name", "--accept"]).ok();
    assert!(shown.contains("name"), "{shown}");
    wait_until("the operator's decision is entered", || bob.lines("decisions.jsonl").len() == 1);
    let decision = bob.lines("decisions.jsonl").pop().unwrap();
    assert_eq!(decision["decision"], json!({"subject": "name", "body": "rc3"}));
    assert_eq!(decision["evidence"]["settled_by"], "operator");
    end(&fixture, [alice, bob]);
}

#[test]
fn of_two_proposals_on_one_domain_the_first_decision_wins() {
    let (fixture, alice, bob) = two(release_is_alices);
    let carol = fixture.mount_as("carol");
    bob.bash(&propose("monday", "x", RELEASE, "outbox/bob.jsonl")).ok();
    carol.bash(&propose("tuesday", "x", RELEASE, "outbox/carol.jsonl")).ok();
    alice.bash(&format!("{ACK} ack tuesday outbox/alice.jsonl")).ok();
    alice.refuses(&format!("{ACK} ack monday outbox/alice.jsonl"), "Operation not permitted", "conflict");
    let ids: Vec<_> = bob.lines("decisions.jsonl").iter().map(|d| d["decision_id"].clone()).collect();
    assert_eq!(ids, ["tuesday"]);
    carol.umount();
    end(&fixture, [alice, bob]);
}

#[test]
fn a_proposal_that_nobody_acks_in_time_lapses() {
    let (fixture, alice, bob) = two(|fixture| {
        release_is_alices(fixture);
        short_periods(fixture, 1);
    });
    bob.bash(&propose("late", "x", RELEASE, "outbox/bob.jsonl")).ok();
    wait_until("it has lapsed", || fixture.events().iter().any(|event| event["event"] == "proposal-lapsed"));
    alice.refuses(&format!("{ACK} ack late outbox/alice.jsonl"), "Timer expired", "lapsed");
    assert_eq!(bob.read("decisions.jsonl"), "");
    // Proposed once more, in the same thread, it waits again.
    bob.bash(&propose("late", "again", RELEASE, "outbox/bob.jsonl")).ok();
    alice.bash(&format!("{ACK} ack late outbox/alice.jsonl")).ok();
    assert_eq!(bob.lines("decisions.jsonl")[0]["decision"]["body"], "again");
    end(&fixture, [alice, bob]);
}

#[test]
fn new_periods_are_in_force_once_they_are_acked() {
    // Without such a domain, everybody has to ack them.
    let (fixture, alice, bob) = two(|fixture| fixture.configure_domains("tiers = [\"alice\"]"));
    let body = r#""body":{"T1_active":45}"#;
    bob.bash(
        &propose("set_tiers", "x", r#","to":["alice"]"#, "outbox/bob.jsonl").replace(r#""body":"x""#, body),
    )
    .ok();
    assert_eq!(serde_json::from_str::<Value>(&bob.read("tiers.json")).unwrap()["T1_active"], 90);
    alice.bash(&format!("{ACK} ack set_tiers outbox/alice.jsonl")).ok();
    let tiers: Value = serde_json::from_str(&bob.read("tiers.json")).unwrap();
    assert_eq!(
        (&tiers["T0_HEADS_DOWN"], &tiers["T1_active"], &tiers["T3_long_idle"]),
        (&json!(30), &json!(45), &json!(1200))
    );
    end(&fixture, [alice, bob]);
}

const INCIDENT: &str = r#"incident() { echo "{\"type\":\"incident\",\"subject\":\"$1\",\"body\":\"b\",\"correlation_id\":\"$1\"}" >> "$2"; }; "#;

#[test]
fn an_incident_is_mirrored_and_an_ack_closes_it() {
    let (fixture, alice, bob) = two(|fixture| short_periods(fixture, 2));
    for (n, log) in ["outbox/bob.jsonl", "bob_to_alice.jsonl", "inbox/alice.jsonl", "incident_log.jsonl"]
        .iter()
        .enumerate()
    {
        bob.bash(&format!("{INCIDENT} incident fire-{n} {log}")).ok();
        assert_eq!(bob.lines("incident_log.jsonl").len(), n + 1, "{log}");
        assert_eq!(alice.lines("inbox/alice.jsonl").len(), n + 1, "{log}");
        alice.bash(&format!("{ACK} ack fire-{n} outbox/alice.jsonl")).ok();
    }
    assert_eq!(bob.read("incident_log.jsonl").lines().next(), bob.read("outbox/bob.jsonl").lines().next());
    // Past every deadline.
    std::thread::sleep(std::time::Duration::from_millis(3500));
    bob.bash(r#"echo '{"type":"ship","subject":"s","body":"b"}' >> outbox/bob.jsonl"#).ok();
    // The log is for incidents and what is said about them.
    bob.refuses(
        r#"echo '{"type":"ship","subject":"s","body":"b"}' >> incident_log.jsonl"#,
        "Bad message",
        "schema",
    );
    end(&fixture, [alice, bob]);
}

#[test]
fn an_incident_that_nobody_acks_puts_the_exchange_in_safe_mode() {
    let (fixture, alice, bob) = two(|fixture| short_periods(fixture, 1));
    bob.bash("handoff bob alice > handoff/x.json").ok();
    bob.bash(&format!("{INCIDENT} incident fire outbox/bob.jsonl")).ok();
    // Its own author's ack is none.
    bob.bash(&format!("{ACK} ack fire inbox/alice.jsonl")).ok();
    wait_until("safe mode begins", || fixture.events().iter().any(|event| event["event"] == "safe-mode"));
    let ship = r#"echo '{"type":"ship","subject":"s","body":"b"}' >> outbox/alice.jsonl"#;
    alice.refuses(ship, "Read-only file system", "safe-mode");
    alice.refuses("mv handoff/x.json claimed/x.json", "Read-only file system", "safe-mode");
    alice.refuses("handoff alice bob > handoff/y.json", "Read-only file system", "safe-mode");
    let signed = fixture.line("alice", "signed elsewhere");
    alice.refuses(&format!("echo '{signed}' >> inbox/bob.jsonl"), "Read-only file system", "safe-mode");
    // What gets out of it passes, and so do logins: to refuse a refresh destroys it.
    alice
        .bash(&format!("{ACK} ack fire outbox/alice.jsonl; {INCIDENT} incident smoke outbox/alice.jsonl"))
        .ok();
    alice
        .bash(r#"echo '{"type":"heartbeat","subject":"s","body":{"state":"blocked"}}' >> outbox/alice.jsonl"#)
        .ok();
    bob.bash(&format!("{ACK} ack smoke outbox/bob.jsonl")).ok();
    alice.bash("slots; login account-a 9999 > credentials/claude/.credentials.json").ok();
    let text = alice.read("status/safe_mode");
    assert!(text.contains("fire"), "{text}");
    // It outlasts the daemon, and ends by the operator's word.
    fixture.kill_daemon();
    drop(alice.take_dead());
    drop(bob.take_dead());
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    alice.refuses(ship, "Read-only file system", "safe-mode");
    fixture.baton(&["safe-mode", "clear"]).ok();
    alice.bash(ship).ok();
    alice.bash("mv handoff/x.json claimed/x.json").ok();
    end(&fixture, [alice, bob]);
}

#[test]
fn a_flood_of_incidents_is_stopped_with_the_time_to_try_again() {
    let (fixture, alice, bob) = two(|_| ());
    bob.bash(&format!("{INCIDENT} for n in 1 2 3 4 5 6; do incident i-$n outbox/bob.jsonl; done")).ok();
    bob.refuses(&format!("{INCIDENT} incident i-7 outbox/bob.jsonl"), "Disk quota exceeded", "rate");
    let advice = fixture.last_refusal()["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("again") && advice.contains("20"), "when to retry: {advice}");
    alice.bash(&format!("{INCIDENT} incident other outbox/alice.jsonl")).ok();
    assert_eq!(bob.lines("incident_log.jsonl").len(), 7);
    end(&fixture, [alice, bob]);
}

#[test]
fn two_agents_that_answer_each_other_without_end_are_stopped() {
    let (fixture, alice, bob) = two(|fixture| fixture.configure_key("turns_per_thread", "4"));
    bob.bash(
        r#"echo '{"type":"request","subject":"s","body":"b","correlation_id":"ping"}' >> outbox/bob.jsonl"#,
    )
    .ok();
    let answer = |mount: &Mount, to: &str| {
        mount.bash(&format!(r#"echo '{{"correlation_id":"ping","type":"feedback"}}' >> inbox/{to}.jsonl"#))
    };
    for n in 0..4 {
        if n % 2 == 0 { answer(&alice, "bob") } else { answer(&bob, "alice") }.ok();
    }
    alice.refuses(
        r#"echo '{"correlation_id":"ping","type":"feedback"}' >> inbox/bob.jsonl"#,
        "Disk quota exceeded",
        "loop",
    );
    // Another thread goes on.
    alice.bash(r#"echo '{"correlation_id":"pong","type":"feedback"}' >> inbox/bob.jsonl"#).ok();
    end(&fixture, [alice, bob]);
}

/// bob's and alice's programs of one version, on mounts that seal nothing.
fn programs(version: &str) -> (Fixture, Mount, Mount) {
    two(|fixture| {
        fixture.configure_agent("alice", "seal = false");
        fixture.configure_agent("bob", "seal = false");
        fixture.configure_domains("release = [\"alice\"]\nnaming = [\"alice\"]");
        if version == "v2" {
            fixture.configure_key("allow_unsigned_from", "[\"alice\", \"bob\"]");
        }
    })
}

#[test]
fn programs_of_each_version_talk_through_their_files_as_they_are() {
    for version in ["v2", "v3", "v3.1"] {
        let (fixture, alice, bob) = programs(version);
        bob.python(&format!(
            r#"
import peer
say = lambda *a, **m: peer.tell("{version}", "bob", "alice", *a, **m)
for kind in ("request", "ship", "warning", "feedback", "shutdown"):
    say(kind, kind + " ü", "text 🎧")
first = say("claim" if "{version}" == "v3.1" else "ship", "task 7", {{"files": ["a.rs"]}})
say("correction", "task 7", "b.rs it is", first["correlation_id"])
say("heartbeat", "alive", {{"wakeup_count": 1, "state": "idle", "last_action": "x", "next_eta": None, "inbox_unread_count": 0}})
say("incident", "disk full", "at 3 am")
say("proposal", "ship v2", {{"tag": "v2.0", "affected_domains": ["release"]}})
say("proposal", "rename", {{"to": "baton"}}, affected_domains=["naming"])
"#
        ))
        .ok();
        alice.python(&format!(r#"import peer; peer.answer("{version}", "alice", "bob")"#)).ok();
        let sent = bob.read("bob_to_alice.jsonl");
        assert_eq!(bob.read("inbox/alice.jsonl"), sent, "{version}: it arrives byte for byte");
        assert_eq!(sent.lines().count(), 11, "{version}");
        assert_eq!(sent.contains("signature"), version != "v2");
        assert_eq!(sent.contains("event_id"), version == "v3.1");
        assert_eq!(alice.read("inbox/bob.jsonl"), alice.read("alice_to_bob.jsonl"), "{version}");
        assert_eq!(alice.lines("inbox/bob.jsonl").len(), 4, "{version}: request, incident, two proposals");
        assert_eq!(bob.lines("incident_log.jsonl").len(), 1, "{version}: mirrored twice, stored once");
        let decided: Vec<_> =
            bob.lines("decisions.jsonl").iter().map(|entry| entry["decision"]["subject"].clone()).collect();
        assert_eq!(decided, ["ship v2", "rename"], "{version}");
        assert_eq!(fixture.refusals(), [Value::Null; 0], "{version}");
        end(&fixture, [alice, bob]);
    }
}

#[test]
fn a_program_that_mirrors_its_incident_first_is_understood_too() {
    for version in ["v2", "v3", "v3.1"] {
        let (fixture, alice, bob) = programs(version);
        bob.python(&format!(
            r#"
import peer
text = peer.line("{version}", "bob", "incident", "fire", "b")
peer.append("_coordination/incident_log.jsonl", text)
peer.append("_coordination/bob_to_alice.jsonl", text)
peer.refused("EEXIST", peer.append, "_coordination/bob_to_alice.jsonl", text)
"#
        ))
        .ok();
        for log in ["incident_log.jsonl", "bob_to_alice.jsonl", "inbox/alice.jsonl"] {
            assert_eq!(alice.lines(log).len(), 1, "{version} {log}");
        }
        end(&fixture, [alice, bob]);
    }
}

#[test]
fn an_unsigned_line_is_taken_from_whom_exchange_toml_names_and_nobody_else() {
    let (fixture, alice, bob) = two(|fixture| {
        for agent in ["alice", "bob"] {
            fixture.configure_agent(agent, "seal = false");
        }
        fixture.configure_key("allow_unsigned_from", "[\"bob\"]");
    });
    let v2 = r#"import peer; peer.tell("v2", "AGENT", "carol", "feedback", "s", "b")"#;
    bob.python(&v2.replace("AGENT", "bob")).ok();
    alice.refuses_python(&v2.replace("AGENT", "alice"), "Key was rejected", "unsigned");
    bob.refuses_python(
        r#"import peer; peer.append("inbox/carol.jsonl", peer.line("v2", "alice", "ship", "s", "b"))"#,
        "Permission denied",
        "authority",
    );
    end(&fixture, [alice, bob]);
}
