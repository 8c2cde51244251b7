//! N agents: whatever way a message is sent, it arrives in the inbox of everyone it is for, once, and in the
//! order of commits.

use crate::common::{Fixture, Mount, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

/// alice, bob and carol with a mount each.
fn three() -> (Fixture, [Mount; 3]) {
    let fixture = Fixture::new();
    let mounts = crate::common::AGENTS.map(|agent| fixture.mount_as(agent));
    (fixture, mounts)
}

/// An exchange of alice, bob, carol and these.
fn with(more: &[&str]) -> Fixture {
    let args: Vec<&str> = more.iter().flat_map(|agent| ["--agent", agent]).collect();
    Fixture::with_init_args(&args)
}

/// How often each of these inboxes holds a message that says `body`.
fn arrivals(mount: &Mount, agents: &[&str], body: &str) -> Vec<usize> {
    let count =
        |agent: &&str| mount.bodies(&format!("inbox/{agent}.jsonl")).iter().filter(|b| *b == body).count();
    agents.iter().map(count).collect()
}

fn note(body: &str, members: &str) -> String {
    format!(r#"{{"type":"feedback","subject":"note","body":"{body}"{members}}}"#)
}

#[test]
fn a_line_in_an_outbox_arrives_with_whom_it_is_for() {
    let fixture = with(&["dave", "erin"]);
    let bob = fixture.mount_as("bob");
    let all = ["alice", "bob", "carol", "dave", "erin"];
    for (body, to, arrives) in [
        ("one", r#","to":["carol"]"#, [0, 0, 1, 0, 0]),
        ("several", r#","to":["erin","alice"]"#, [1, 0, 0, 0, 1]),
        ("twice the same", r#","to":["erin","erin"]"#, [0, 0, 0, 0, 1]),
        ("everyone", r#","to":["*"]"#, [1, 0, 1, 1, 1]),
        ("everyone and carol", r#","to":["*","carol"]"#, [1, 0, 1, 1, 1]),
        ("a DID", r#","to":["did:wire:dave"]"#, [0, 0, 0, 1, 0]),
        ("nobody named", "", [1, 0, 1, 1, 1]),
        ("to myself too", r#","to":["bob","alice"]"#, [1, 1, 0, 0, 0]),
    ] {
        bob.bash(&format!("echo '{}' >> outbox/bob.jsonl", note(body, to))).ok();
        assert_eq!(arrivals(&bob, &all, body), arrives, "{body}");
    }
    assert_eq!(bob.bodies("outbox/bob.jsonl").len(), 8);
    // What arrived is what was stored, byte for byte.
    let sent = bob.read("outbox/bob.jsonl");
    for agent in all {
        for line in bob.read(&format!("inbox/{agent}.jsonl")).lines() {
            assert!(sent.lines().any(|sent| sent == line), "{agent}: {line}");
        }
    }
    bob.umount();
    fixture.verify();
}

#[test]
fn recipients_that_are_none_are_refused_with_the_names_there_are() {
    let (fixture, [_, bob, _]) = three();
    for (log, to) in [
        ("outbox/bob.jsonl", r#","to":["zoe"]"#),
        ("outbox/bob.jsonl", r#","to":["alice","zoe"]"#),
        ("outbox/bob.jsonl", r#","to":[]"#),
        ("bob_to_alice.jsonl", r#","to":["carol"]"#),
        ("bob_to_alice.jsonl", r#","to":["zoe","alice"]"#),
        ("inbox/alice.jsonl", r#","to":["carol"]"#),
        ("inbox/alice.jsonl", r#","to":[]"#),
        ("incident_log.jsonl", r#","to":["zoe"]"#),
    ] {
        let mut object = note("lost?", to);
        if log == "incident_log.jsonl" {
            object = object.replace("feedback", "incident");
        }
        bob.refuses(&format!("echo '{object}' >> {log}"), "Bad message", "recipient");
    }
    let advice = fixture.refusals()[0]["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("\"zoe\"") && advice.contains("alice, bob, carol"), "{advice}");
    for log in ["inbox/alice.jsonl", "inbox/carol.jsonl", "outbox/bob.jsonl", "incident_log.jsonl"] {
        assert_eq!(bob.read(log), "", "{log}");
    }
    bob.refuses(
        &format!("echo '{}' >> outbox/bob.jsonl", note("x", r#","to":"alice""#)),
        "Bad message",
        "schema",
    );
    bob.refuses(&format!("echo '{}' >> outbox/alice.jsonl", note("x", "")), "Permission denied", "authority");
}

#[test]
fn an_inbox_and_a_bilateral_log_reach_their_agent_and_the_others_that_to_names() {
    let (fixture, [alice, bob, carol]) = three();
    let all = crate::common::AGENTS;
    for (body, log, to, arrives) in [
        ("inbox", "inbox/alice.jsonl", "", [1, 0, 0]),
        ("inbox and more", "inbox/alice.jsonl", r#","to":["alice","carol"]"#, [1, 0, 1]),
        ("inbox and all", "inbox/alice.jsonl", r#","to":["*"]"#, [1, 0, 1]),
        ("bilateral", "bob_to_alice.jsonl", "", [1, 0, 0]),
        ("bilateral and more", "bob_to_alice.jsonl", r#","to":["carol","alice"]"#, [1, 0, 1]),
        ("the old folder", "_coordination/bob_to_carol.jsonl", "", [0, 0, 1]),
    ] {
        bob.bash(&format!("echo '{}' >> {log}", note(body, to))).ok();
        for reader in [&alice, &bob, &carol] {
            assert_eq!(arrivals(reader, &all, body), arrives, "{body}");
        }
    }
    assert_eq!(bob.bodies("bob_to_alice.jsonl"), ["bilateral", "bilateral and more"]);
    // A sealed line says whom it is for, though its author did not.
    assert_eq!(bob.lines("inbox/alice.jsonl")[0]["to"], serde_json::json!(["alice"]));
    drop((alice, bob, carol));
    fixture.verify();
}

#[test]
fn the_same_message_in_two_places_arrives_once() {
    let (fixture, [_, bob, _]) = three();
    let all = crate::common::AGENTS;
    for version in ["", "--v3"] {
        // A program that writes one signed line to every file it knows of.
        let body = format!("logs first {version}");
        fixture.bash(&format!("echo '{}' | baton sign --as bob {version} > line", note(&body, ""))).ok();
        bob.bash("cat $SCRATCH/line >> bob_to_alice.jsonl").ok();
        assert_eq!(arrivals(&bob, &all, &body), [1, 0, 0]);
        bob.bash("cat $SCRATCH/line >> bob_to_carol.jsonl; cat $SCRATCH/line >> outbox/bob.jsonl").ok();
        assert_eq!(arrivals(&bob, &all, &body), [1, 0, 1]);
        for log in ["inbox/alice.jsonl", "bob_to_alice.jsonl", "outbox/bob.jsonl"] {
            bob.refuses(&format!("cat $SCRATCH/line >> {log}"), "File exists", "replay");
        }

        let body = format!("inbox first {version}");
        fixture.bash(&format!("echo '{}' | baton sign --as bob {version} > line", note(&body, ""))).ok();
        bob.bash("cat $SCRATCH/line >> inbox/alice.jsonl; cat $SCRATCH/line >> bob_to_alice.jsonl").ok();
        assert_eq!(arrivals(&bob, &all, &body), [1, 0, 0]);
        bob.bash("cat $SCRATCH/line >> outbox/bob.jsonl").ok();
        assert_eq!(arrivals(&bob, &all, &body), [1, 0, 1]);
    }
    drop(bob);
    fixture.verify();
}

#[test]
fn inboxes_hold_messages_in_the_order_of_commits() {
    let (fixture, [alice, bob, carol]) = three();
    for n in 0..6 {
        let from = [&alice, &bob, &carol][n % 3];
        let name = crate::common::AGENTS[n % 3];
        from.bash(&format!("echo '{}' >> outbox/{name}.jsonl", note(&format!("out {n}"), ""))).ok();
        from.bash(&format!(
            "echo '{}' >> inbox/alice.jsonl",
            note(&format!("direct {n}"), r#","to":["alice","bob"]"#)
        ))
        .ok();
    }
    bob.bash(&format!("echo '{}' >> bob_to_alice.jsonl", note("last", ""))).ok();
    let all: Vec<String> =
        (0..6).flat_map(|n| [format!("out {n}"), format!("direct {n}")]).chain(["last".to_owned()]).collect();
    let without = |own: usize| -> Vec<String> {
        let own: Vec<String> = [own, own + 3].iter().map(|n| format!("out {n}")).collect();
        all.iter().filter(|body| !own.contains(body)).cloned().collect()
    };
    assert_eq!(alice.bodies("inbox/alice.jsonl"), without(0));
    assert_eq!(
        alice.bodies("inbox/bob.jsonl"),
        without(1).into_iter().filter(|b| b != "last").collect::<Vec<_>>()
    );
    drop((alice, bob, carol));
    fixture.verify();
}

#[test]
fn many_objects_for_many_recipients_in_one_write_are_all_or_nothing() {
    let fixture = with(&["dave", "erin"]);
    let bob = fixture.mount_as("bob");
    let to = |n: usize| [r#"["alice"]"#, r#"["carol","dave"]"#, r#"["*"]"#, r#"["erin"]"#][n % 4];
    let objects: Vec<String> =
        (0..400).map(|n| note(&format!("{n} {}", "x".repeat(500)), &format!(r#","to":{}"#, to(n)))).collect();
    let append = |text: &str| {
        let mut log = fs::File::options().append(true).open(bob.at("outbox/bob.jsonl")).unwrap();
        log.write_all(text.as_bytes())
    };
    let mut spoilt = objects.clone();
    spoilt[399] = spoilt[399].replace("erin", "zoe");
    assert_eq!(append(&spoilt.join("\n")).unwrap_err().raw_os_error(), Some(libc::EBADMSG));
    let inboxes = ["alice", "carol", "dave", "erin"].map(|agent| format!("inbox/{agent}.jsonl"));
    for log in &inboxes {
        assert_eq!(bob.read(log), "", "{log}");
    }
    append(&objects.join("\n")).unwrap();
    assert_eq!(bob.read("outbox/bob.jsonl").lines().count(), 400);
    assert_eq!(inboxes.map(|log| bob.read(&log).lines().count()), [200, 200, 200, 200]);
    let numbers: Vec<String> = bob
        .bodies("inbox/dave.jsonl")
        .iter()
        .map(|body| body.split(' ').next().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = (0..400).filter(|n| matches!(n % 4, 1 | 2)).map(|n| n.to_string()).collect();
    assert_eq!(numbers, expected);
    bob.umount();
    fixture.verify();
}

#[test]
fn an_agent_may_write_to_itself() {
    let (fixture, [_, bob, _]) = three();
    bob.bash(&format!("echo '{}' >> inbox/bob.jsonl", note("remember", ""))).ok();
    bob.bash(&format!("echo '{}' >> outbox/bob.jsonl", note("and this", r#","to":["bob"]"#))).ok();
    assert_eq!(bob.bodies("inbox/bob.jsonl"), ["remember", "and this"]);
    bob.umount();
    fixture.verify();
}

/// The position of each message in an inbox.
fn positions(lines: &[Value]) -> BTreeMap<&str, usize> {
    lines.iter().enumerate().map(|(n, line)| (line["event_id"].as_str().unwrap(), n)).collect()
}

#[test]
fn twelve_agents_broadcast_at_once() {
    const EACH: usize = 50;
    let agents = ["alice", "bob", "carol", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let fixture = with(&agents[3..]);
    let mounts = agents.map(|agent| fixture.mount_as(agent));
    std::thread::scope(|scope| {
        for (agent, mount) in agents.iter().zip(&mounts) {
            let outbox = mount.at(&format!("outbox/{agent}.jsonl"));
            scope.spawn(move || {
                for n in 0..EACH {
                    // Every message opened anew, as `echo >>` does.
                    let mut log = fs::File::options().append(true).open(&outbox).unwrap();
                    log.write_all((note(&format!("{agent} {n}"), "") + "\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let inboxes: Vec<Vec<Value>> = agents
        .iter()
        .zip(&mounts)
        .map(|(agent, mount)| mount.lines(&format!("inbox/{agent}.jsonl")))
        .collect();
    for (agent, inbox) in agents.iter().zip(&inboxes) {
        assert_eq!(inbox.len(), (agents.len() - 1) * EACH, "{agent}");
        assert_eq!(positions(inbox).len(), inbox.len(), "{agent} has a message twice");
        for other in agents.iter().filter(|other| *other != agent) {
            let said: Vec<&str> = inbox
                .iter()
                .filter(|line| line["from"] == **other)
                .map(|line| line["body"].as_str().unwrap())
                .collect();
            let in_order: Vec<String> = (0..EACH).map(|n| format!("{other} {n}")).collect();
            assert_eq!(said, in_order, "what {agent} got from {other}");
        }
    }
    for (n, one) in inboxes.iter().enumerate() {
        for (m, other) in inboxes.iter().enumerate().skip(n + 1) {
            let places = positions(other);
            let shared: Vec<usize> = one
                .iter()
                .filter_map(|line| places.get(line["event_id"].as_str().unwrap()).copied())
                .collect();
            assert_eq!(shared.len(), (agents.len() - 2) * EACH);
            assert!(
                shared.is_sorted(),
                "{} and {} got the same messages in another order",
                agents[n],
                agents[m]
            );
        }
    }
    drop(mounts);
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    fixture.verify();
}
