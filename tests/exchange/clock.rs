//! Deadlines, tiers of activity, lapses and safe mode, with the clock as an argument: what an agent is told at
//! which second.

use super::status::{operator, prove, say, sealing, second};
use super::*;
use batonfs::exchange::operator::OperatorRequest;
use batonfs::rules::conversation::presence::Activity;
use batonfs::rules::conversation::proposals::Standing;

const TOML: &str = "[agents.alice]\n[agents.bob]\n[agents.carol]\n\
                    [domains]\nrelease = [\"alice\"]\nboth = [\"alice\", \"bob\"]\n";

fn try_say(world: &World, by: &str, object: &str) -> Outcome<usize> {
    world.append(by, &LogName::Outbox(agent(by)), object)
}

fn activity(world: &World, a: &str, b: &str) -> Activity {
    world.ex().conversation().presence.activity(&agent(a), &agent(b), world.ex().now())
}

fn standing(world: &World, id: &str) -> Standing {
    world.ex().conversation().proposals.find(id).unwrap().standing
}

fn is_safe(world: &World) -> bool {
    world.ex().conversation().incidents.safe_mode().is_some()
}

fn propose(id: &str, domains: &str) -> String {
    format!(
        r#"{{"type":"proposal","subject":"{id}","body":"b","correlation_id":"{id}","affected_domains":{domains}}}"#
    )
}

fn ack(id: &str) -> String {
    format!(r#"{{"correlation_id":"{id}"}}"#)
}

fn events(world: &World, name: &str) -> usize {
    world.read("events.jsonl").lines().filter(|line| line.contains(&format!("\"event\":\"{name}\""))).count()
}

const NOTE: &str = r#"{"type":"feedback","subject":"s","body":"b","to":["alice"]}"#;
const SHIP: &str = r#"{"type":"ship","subject":"s","body":"b"}"#;
const INCIDENT: &str = r#"{"type":"incident","subject":"fire","body":"b","correlation_id":"fire"}"#;

#[test]
fn a_pair_cools_down_and_is_warmed_by_a_message() {
    let world = sealing(TOML);
    assert_eq!(activity(&world, "bob", "alice"), Activity::LongIdle, "they have never spoken");
    say(&world, "bob", NOTE);
    for (after, tier) in [
        (0, Activity::Active),
        (269, Activity::Active),
        (1, Activity::Idle),
        (9 * 270 - 1, Activity::Idle),
        (1, Activity::LongIdle),
        (1_000_000, Activity::LongIdle),
    ] {
        world.later(after);
        assert_eq!(activity(&world, "alice", "bob"), tier, "{after} s later");
        assert_eq!(activity(&world, "carol", "bob"), Activity::LongIdle);
    }
    // A heartbeat warms nobody.
    say(&world, "bob", r#"{"type":"heartbeat","subject":"h","body":{"state":"idle"}}"#);
    assert_eq!(activity(&world, "alice", "bob"), Activity::LongIdle);
    say(&world, "alice", r#"{"type":"feedback","subject":"s","body":"b","to":["bob"]}"#);
    assert_eq!(activity(&world, "alice", "bob"), Activity::Active);
    prove(&world);
}

#[test]
fn an_open_incident_is_heads_down_until_something_changes() {
    let world = sealing(TOML);
    say(&world, "bob", INCIDENT);
    assert_eq!(activity(&world, "alice", "bob"), Activity::HeadsDown);
    assert_eq!(activity(&world, "alice", "carol"), Activity::LongIdle);
    say(&world, "alice", SHIP);
    assert_eq!(activity(&world, "alice", "bob"), Activity::Active, "a state change calms the two");
    assert_eq!(activity(&world, "carol", "bob"), Activity::HeadsDown);
    say(&world, "carol", &ack("fire"));
    assert_eq!(activity(&world, "carol", "bob"), Activity::Active);
    // Two proposals of different authors on one domain.
    say(&world, "bob", &propose("p", r#"["both"]"#));
    assert_eq!(activity(&world, "alice", "bob"), Activity::Active);
    say(&world, "carol", &propose("q", r#"["both"]"#));
    assert_eq!(activity(&world, "carol", "bob"), Activity::HeadsDown);
    prove(&world);
}

#[test]
fn a_proposal_has_two_periods_of_the_tier_in_force() {
    // Sent to somebody with whom one has just spoken it has 180 s, to somebody who sleeps 2,400.
    for (spoken, seconds) in [(true, 180), (false, 2400)] {
        for late in [false, true] {
            let world = sealing(TOML);
            if spoken {
                say(&world, "bob", NOTE);
            }
            say(&world, "bob", &propose("p", r#"["release"]"#));
            world.later(seconds);
            second(&world);
            assert_eq!(standing(&world, "p"), Standing::Open, "at the due time it may still be acked");
            if late {
                // Whether or not a tick came by.
                world.clock.fetch_add(1, Ordering::SeqCst);
                assert_eq!(rule(try_say(&world, "alice", &ack("p"))), "lapsed");
                second(&world);
                assert_eq!(standing(&world, "p"), Standing::Lapsed);
                assert_eq!(events(&world, "proposal-lapsed"), 1);
                assert_eq!(rule(try_say(&world, "alice", &ack("p"))), "lapsed");
                assert_eq!(world.read("decisions.jsonl"), "");
            } else {
                say(&world, "alice", &ack("p"));
                assert_eq!(standing(&world, "p"), Standing::Decided);
                assert_eq!(world.read("decisions.jsonl").lines().count(), 1);
            }
            prove(&world);
        }
    }
}

#[test]
fn a_lapse_that_fell_into_a_time_without_a_daemon_is_told_once() {
    let mut world = sealing(TOML);
    say(&world, "bob", &propose("p", r#"["release"]"#));
    world.crash();
    world.later(10_000);
    world.reopen().unwrap();
    assert_eq!(rule(try_say(&world, "alice", &ack("p"))), "lapsed");
    for _ in 0..3 {
        second(&world);
        world.crash();
        world.reopen().unwrap();
    }
    assert_eq!((standing(&world, "p"), events(&world, "proposal-lapsed")), (Standing::Lapsed, 1));
    // Proposed again it has its time again.
    say(&world, "bob", &propose("p", r#"["release"]"#));
    say(&world, "alice", &ack("p"));
    assert_eq!(standing(&world, "p"), Standing::Decided);
    prove(&world);
}

#[test]
fn an_incident_has_one_period_and_then_only_what_ends_it_passes() {
    let mut world = sealing(TOML);
    say(&world, "bob", NOTE);
    say(&world, "bob", INCIDENT);
    world.later(90);
    second(&world);
    say(&world, "carol", SHIP);
    assert!(!is_safe(&world), "alice, whom bob spoke to, has 90 s, all of them");
    world.clock.fetch_add(1, Ordering::SeqCst);
    // From that moment on, whether or not a tick came by.
    assert_eq!(rule(try_say(&world, "carol", SHIP)), "safe-mode");
    second(&world);
    assert!(is_safe(&world));
    for object in [SHIP, NOTE, &propose("p", r#"["release"]"#)] {
        assert_eq!(rule(try_say(&world, "carol", object)), "safe-mode");
    }
    assert_eq!(rule(world.append("carol", &LogName::Inbox(agent("bob")), SHIP)), "safe-mode");
    assert_eq!(rule(world.publish("bob", "x.json", &handoff("+1"))), "safe-mode");
    say(&world, "carol", r#"{"type":"heartbeat","subject":"h","body":{"state":"paused"}}"#);
    say(&world, "carol", r#"{"type":"incident","subject":"smoke","body":"b","correlation_id":"smoke"}"#);
    say(&world, "carol", &ack("fire"));
    say(&world, "bob", &ack("smoke"));
    assert!(is_safe(&world), "only the operator lifts it");
    for crash in [false, true] {
        if crash {
            world.crash()
        } else {
            world.exchange = None
        }
        world.reopen().unwrap();
        assert_eq!(rule(try_say(&world, "carol", SHIP)), "safe-mode");
    }
    assert_eq!(events(&world, "safe-mode"), 1);
    world.ex().operate(OperatorRequest::SafeModeClear).unwrap();
    say(&world, "carol", SHIP);
    world.crash();
    world.reopen().unwrap();
    say(&world, "carol", SHIP);
    prove(&world);
}

#[test]
fn an_incident_that_its_author_writes_once_more_after_its_ack_stays_closed() {
    let world = sealing(TOML);
    say(&world, "bob", INCIDENT);
    let line = world.read("outbox/bob.jsonl");
    say(&world, "alice", &ack("fire"));
    // A program that writes its incident to every file it knows of, and the ack was quick.
    let bilateral = LogName::Bilateral { from: agent("bob"), to: agent("carol") };
    world.append("bob", &bilateral, &line).unwrap();
    world.append("bob", &LogName::Incidents, &line).unwrap();
    world.later(100_000);
    second(&world);
    assert!(!is_safe(&world));
    prove(&world);
}

#[test]
fn a_proposal_in_two_files_asks_both_and_keeps_its_acks() {
    for restart in [false, true] {
        let mut world = sealing(TOML);
        let bilateral = |to: &str| LogName::Bilateral { from: agent("bob"), to: agent(to) };
        world
            .append(
                "bob",
                &bilateral("alice"),
                r#"{"type":"proposal","subject":"lunch","body":"b","correlation_id":"lunch","to":["alice"]}"#,
            )
            .unwrap();
        let sealed = world.read("bob_to_alice.jsonl");
        // As existing programs multicast: one signed line without `to`, in one file for each.
        let Value::Object(object) =
            parse(br#"{"type":"proposal","subject":"dinner","body":"b","correlation_id":"dinner"}"#).unwrap()
        else {
            unreachable!()
        };
        let line = sign(object, &agent("bob"), &key("bob"), SignatureVersion::V3, Timestamp(NOW)).unwrap();
        world.append("bob", &bilateral("alice"), &line).unwrap();
        say(&world, "alice", &ack("lunch"));
        assert_eq!(standing(&world, "lunch"), Standing::Decided, "{sealed}");
        if restart {
            world.append("bob", &bilateral("carol"), &line).unwrap();
            say(&world, "alice", &ack("dinner"));
            world.crash();
            world.reopen().unwrap();
        } else {
            world.append("bob", &bilateral("carol"), &line).unwrap();
            say(&world, "alice", &ack("dinner"));
        }
        assert_eq!(standing(&world, "dinner"), Standing::Open, "carol was asked too");
        say(&world, "carol", &ack("dinner"));
        assert_eq!(standing(&world, "dinner"), Standing::Decided);
        assert_eq!(world.read("decisions.jsonl").lines().count(), 2);
        prove(&world);
    }
}

#[test]
fn three_counter_proposals_are_the_last_and_the_operator_settles() {
    for accept in [true, false] {
        let mut world = sealing(TOML);
        for by in ["bob", "alice", "bob", "alice"] {
            say(&world, by, &propose("name", r#"["both"]"#));
        }
        assert_eq!(standing(&world, "name"), Standing::Escalated);
        assert_eq!(rule(try_say(&world, "bob", &propose("name", r#"["both"]"#))), "rounds");
        world.later(100_000);
        second(&world);
        assert_eq!(rule(try_say(&world, "bob", &ack("name"))), "lapsed");
        let settle = OperatorRequest::Settle { id: "name".into(), accept };
        world.ex().operate(settle).unwrap();
        world.crash();
        world.reopen().unwrap();
        assert_eq!(standing(&world, "name"), if accept { Standing::Decided } else { Standing::Dropped });
        assert_eq!(world.read("decisions.jsonl").lines().count(), usize::from(accept));
        prove(&world);
    }
}

#[test]
fn rates_tell_when_to_write_again_and_hold_over_a_restart() {
    let toml = TOML.replace("[agents.bob]", "[agents.bob]\nrate_per_minute = 3");
    let mut world = sealing(&toml);
    for _ in 0..3 {
        say(&world, "bob", NOTE);
        world.later(10);
    }
    assert_eq!(rule(try_say(&world, "bob", NOTE)), "rate");
    let advice = world.refusals().pop().unwrap()["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("in 3"), "the first was 30 s ago: {advice}");
    world.crash();
    world.reopen().unwrap();
    assert_eq!(rule(try_say(&world, "bob", NOTE)), "rate");
    say(&world, "alice", SHIP);
    world.later(31);
    say(&world, "bob", NOTE);
    assert_eq!(rule(try_say(&world, "bob", NOTE)), "rate");
    prove(&world);
}

#[test]
fn the_operator_is_no_party_to_a_conversation() {
    let world = sealing(TOML);
    let log = LogName::Outbox(agent("bob"));
    let writer = world.ex().open_log_writer(&operator(), &log, libc::O_WRONLY | libc::O_APPEND).unwrap();
    assert_eq!(rule(writer.write(&operator(), 0, true, NOTE.as_bytes())), "schema", "nobody seals for it");
    // But what an agent signed, it may carry.
    writer.write(&operator(), 0, true, message("bob", "carried").as_bytes()).unwrap();
    writer.release();
    assert_eq!(world.read("inbox/alice.jsonl"), world.read("outbox/bob.jsonl"));
    prove(&world);
}
