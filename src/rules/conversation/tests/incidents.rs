use super::*;

#[test]
fn an_incident_is_due_within_one_heartbeat_of_the_fastest_pair() {
    let mut scene = Scene::new();
    let due = |scene: &Scene| {
        let due = scene.conversation.incidents.open().map(|incident| incident.due.0 - START.0);
        due.map(|due| due / 1_000_000).collect::<Vec<_>>()
    };
    // Nobody has spoken: T3. By the tiers before it, not by the T0 that it brings.
    scene.say("alice", "bob carol", "incident", "a");
    assert_eq!(due(&scene), [1200]);
    scene.say("bob", "alice", "ack", "a");
    scene.at(10).say("alice", "bob carol", "incident", "b");
    assert_eq!(due(&scene), [100]);
    // Saying it again in its thread gives no more time.
    scene.at(20).say("alice", "bob carol", "incident", "b");
    assert_eq!(due(&scene), [100]);
    scene.say("alice", "bob", "incident", "c");
    assert_eq!(due(&scene), [100, 50]);
}

#[test]
fn an_ack_by_anyone_but_its_author_closes_an_incident() {
    let mut scene = Scene::new();
    let open = |scene: &Scene| scene.conversation.incidents.open().count();
    scene.say("alice", "bob", "incident", "i");
    scene.say("alice", "bob", "ack", "i");
    scene.say("bob", "alice", "ack", "j");
    scene.say("bob", "alice", "feedback", "i");
    assert_eq!(open(&scene), 1);
    scene.say("carol", "alice", "ack", "i");
    assert_eq!(open(&scene), 0);
    assert!(scene.at(10_000).tick().is_empty());
}

#[test]
fn safe_mode_begins_when_an_ack_is_overdue_and_ends_by_the_operator() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "incident", "i");
    scene.say("carol", "dave", "incident", "j");
    assert!(scene.at(1200).tick().is_empty());
    scene.say("bob", "alice", "request", "t");
    // From then on, with or without a tick.
    scene.at(1201).refused(Rule::SafeMode, "baton safe-mode clear", ["bob", "alice", "request", "t"], "{}");
    assert_eq!(scene.conversation.incidents.safe_mode(), None);
    let effects = scene.tick();
    assert_eq!(words(&effects), ["safe-mode alice"]);
    assert!(scene.tick().is_empty(), "once");
    let since = scene.conversation.incidents.safe_mode().map(|safe_mode| safe_mode.since);
    assert_eq!(since, Some(START.plus_seconds(1200)));

    for refused in ["request", "ship", "warning", "feedback", "proposal", "correction", "shutdown", "claim"] {
        scene.refused(Rule::SafeMode, "2026-05-10T00:20:00Z", ["bob", "alice", refused, "t"], "{}");
        scene.refused(
            Rule::SafeMode,
            "alice's incident \"incident 1\"",
            ["bob", "alice", refused, "t"],
            "{}",
        );
    }
    let refusal = scene.conversation.incidents.check_safe_mode("Claiming a handoff").expect_err("safe mode");
    assert_eq!(refusal.rule, Rule::SafeMode);
    assert!(refusal.advice.starts_with("Claiming a handoff must wait"), "{refusal}");
    assert!(refusal.advice.contains("baton safe-mode clear"), "{refusal}");
    scene.say("bob", "alice", "heartbeat", "h");
    scene.say("bob", "alice", "incident", "k");
    // An ack closes the incident, but safe mode is the operator's.
    scene.say("bob", "alice", "ack", "i");
    scene.refused(Rule::SafeMode, "correlation_id \"i\"", ["bob", "alice", "request", "t"], "{}");
    scene.say("bob", "carol", "ack", "j");
    scene.say("alice", "bob", "ack", "k");

    assert!(scene.conversation.clear_safe_mode());
    assert!(!scene.conversation.clear_safe_mode());
    assert_eq!(scene.conversation.incidents.check_safe_mode("Claiming a handoff"), Ok(()));
    assert!(scene.at(100_000).tick().is_empty());
    scene.say("bob", "alice", "request", "t");
}

#[test]
fn clearing_closes_the_incident_and_the_next_overdue_one_has_waited() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "incident", "i");
    scene.at(1).say("carol", "bob", "incident", "j");
    assert_eq!(words(&scene.at(5000).tick()), ["safe-mode alice"]);
    assert!(scene.tick().is_empty());
    assert_eq!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
    scene.conversation.clear_safe_mode();
    assert_ne!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
    assert_eq!(words(&scene.tick()), ["safe-mode carol"]);
    scene.conversation.clear_safe_mode();
    assert!(scene.tick().is_empty());
    assert_eq!(scene.conversation.incidents.open().count(), 0);
}

#[test]
fn a_new_incident_in_the_thread_of_the_one_that_was_cleared_stays_open() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "incident", "i");
    scene.at(5000).tick();
    scene.say("bob", "alice", "ack", "i");
    scene.say("alice", "bob", "incident", "i");
    scene.conversation.clear_safe_mode();
    assert_eq!(scene.conversation.incidents.open().count(), 1);
}

#[test]
fn recipient_an_incident_for_nobody_but_its_author() {
    let mut scene = Scene::new();
    for to in ["", "alice"] {
        scene.refused(Rule::Recipient, "Nobody but yourself", ["alice", to, "incident", "i"], "{}");
    }
    scene.say("alice", "alice bob", "incident", "i");
    assert_eq!(scene.conversation.incidents.open().count(), 1);
}

#[test]
fn an_ack_that_does_not_reach_its_author_closes_no_incident() {
    let mut scene = Scene::new();
    scene.say("alice", "bob carol", "incident", "i");
    for to in ["", "carol", "bob dave"] {
        scene.say("bob", to, "ack", "i");
        assert_eq!(scene.conversation.incidents.open().count(), 1, "to {to:?}");
    }
    scene.say("bob", "alice carol", "ack", "i");
    assert_eq!(scene.conversation.incidents.open().count(), 0);
}

#[test]
fn an_incident_that_nobody_gets_brings_safe_mode_too() {
    let mut scene = Scene::new();
    // No such one is committed any more; one that was is taken as it is.
    scene.commit(&message(1, "alice", "incident", "i", "{}"), "");
    assert_eq!(words(&scene.at(1201).tick()), ["safe-mode alice"]);
}

#[test]
fn no_flood_of_incidents_fills_the_memory() {
    let mut scene = Scene::new();
    for n in 0..3000 {
        scene.say("alice", "bob", "incident", &format!("i{n}"));
    }
    assert_eq!(scene.conversation.incidents.open().count(), 1024);
    assert_eq!(words(&scene.at(5000).tick()), ["safe-mode alice"]);
}
