use super::*;
use crate::rules::conversation::presence::{Activity, Cadence};

#[test]
fn a_pair_goes_from_active_to_idle_to_long_idle() {
    let mut scene = Scene::new();
    assert_eq!(scene.activity("alice", "bob"), "T3_long_idle");
    scene.say("alice", "bob", "request", "t");
    // Three cycles of 90 s, then nine of 270 s.
    for (seconds, tier) in
        [(0, "T1_active"), (269, "T1_active"), (270, "T2_idle"), (2699, "T2_idle"), (2700, "T3_long_idle")]
    {
        scene.at(seconds);
        assert_eq!(
            (scene.activity("alice", "bob"), scene.activity("bob", "alice")),
            (tier, tier),
            "{seconds}"
        );
        assert_eq!(scene.activity("alice", "carol"), "T3_long_idle");
    }
    // A clock that was set back finds them active, too.
    assert_eq!(scene.at(-10).activity("alice", "bob"), "T1_active");
}

#[test]
fn the_tier_falls_with_time_whatever_the_cadence() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "request", "t");
    for periods in [[1, 1, 1, 1], [30, 90, 270, 1200], [86_400; 4], [1, 86_400, 1, 86_400], [9, 7, 5, 3]] {
        let [heads_down, active, idle, long_idle] = periods;
        let cadence = Cadence { heads_down, active, idle, long_idle };
        scene.conversation.presence.set_cadence(cadence);
        let (to_idle, to_long) = (i64::from(active) * 3, i64::from(active) * 3 + i64::from(idle) * 9);
        let mut before = Activity::HeadsDown;
        for seconds in
            [0, 1, to_idle - 1, to_idle, to_idle + 1, to_long - 1, to_long, to_long + 1, i64::MAX / 4]
        {
            scene.now = START.plus_seconds(seconds);
            let tier = scene.conversation.presence.activity(&agent("alice"), &agent("bob"), scene.now);
            let expected = match seconds {
                s if s < to_idle => Activity::Active,
                s if s < to_long => Activity::Idle,
                _ => Activity::LongIdle,
            };
            assert_eq!(tier, expected, "{periods:?} after {seconds} s");
            assert!(tier >= before);
            before = tier;
        }
    }
}

#[test]
fn heartbeats_keep_nobody_awake() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "request", "t");
    for seconds in (0..2700).step_by(90) {
        scene.at(seconds).say("bob", "alice", "heartbeat", "h");
    }
    assert_eq!(scene.at(2700).activity("alice", "bob"), "T3_long_idle");
    scene.say("bob", "alice", "feedback", "t");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
}

#[test]
fn an_agents_period_is_the_fastest_of_its_pairs() {
    let mut scene = Scene::new();
    let period = |scene: &Scene, of: &str| scene.conversation.presence.period(&agent(of), scene.now);
    assert_eq!(period(&scene, "alice"), 1200);
    scene.say("alice", "bob", "request", "t");
    scene.at(300).say("alice", "carol", "request", "u");
    assert_eq!(["alice", "bob", "carol", "dave"].map(|of| period(&scene, of)), [90, 270, 90, 1200]);
    scene.say("dave", "bob", "incident", "i");
    assert_eq!(["alice", "bob", "carol", "dave"].map(|of| period(&scene, of)), [90, 30, 90, 30]);
}

#[test]
fn the_next_heartbeat_is_due_a_period_after_the_last() {
    let mut scene = Scene::new();
    let due = |scene: &Scene| {
        let due = scene.conversation.presence.next_due(&agent("bob"), scene.now)?;
        Some((due.0 - START.0) / 1_000_000)
    };
    assert_eq!(due(&scene), None);
    scene.say("bob", "alice", "request", "t");
    assert_eq!(due(&scene), Some(90));
    // Another message is no heartbeat.
    scene.at(60).say("bob", "alice", "request", "t");
    assert_eq!(due(&scene), Some(90));
    scene.at(80).say("bob", "alice", "heartbeat", "h");
    assert_eq!(due(&scene), Some(170));
    // The pair falls idle after 60 + 270 s: what was due by the fast cadence is due by the slow one.
    assert_eq!(due(scene.at(329)), Some(170));
    assert_eq!(due(scene.at(330)), Some(350));
}

#[test]
fn what_is_known_of_an_agent_is_what_its_messages_tell() {
    let mut scene = Scene::new();
    let seen = |scene: &Scene| scene.conversation.presence.seen(&agent("bob")).cloned();
    assert_eq!(seen(&scene), None);
    scene.say("bob", "alice", "ship", "t");
    scene.at(30).with("bob", "alice", "heartbeat", "h", r#"{"body":{"state":"busy","wakeup_count":3}}"#);
    let known = seen(&scene).expect("seen");
    assert_eq!((known.first, known.last), (START, START.plus_seconds(30)));
    assert_eq!((known.heartbeat, known.heartbeats), (Some(START.plus_seconds(30)), 1));
    assert_eq!((known.state.as_deref(), known.last_action.as_deref()), (Some("busy"), Some("ship: ship 1")));
    // A word that is no state is none, and so is a body that is no object.
    for body in [r#"{"body":{"state":"asleep"}}"#, r#"{"body":"idle"}"#, r#"{"body":{"state":1}}"#] {
        scene.with("bob", "alice", "heartbeat", "h", r#"{"body":{"state":"paused"}}"#);
        assert_eq!(seen(&scene).and_then(|seen| seen.state).as_deref(), Some("paused"));
        scene.with("bob", "alice", "heartbeat", "h", body);
        assert_eq!(seen(&scene).and_then(|seen| seen.state), None, "{body}");
    }
    // However long a subject is, a part of it is kept.
    let long = format!(r#"{{"subject":"{}"}}"#, "ä".repeat(2048));
    scene.with("bob", "alice", "ship", "t", &long);
    let action = seen(&scene).and_then(|seen| seen.last_action).expect("an action");
    assert!(action.starts_with("ship: ää") && action.len() < 400, "{action}");
}

#[test]
fn a_conflict_is_heads_down_and_a_state_change_ends_that() {
    for calming in ["ship", "claim", "release", "decision", "correction", "shutdown"] {
        let mut scene = Scene::new();
        scene.say("alice", "bob carol", "incident", "i");
        assert_eq!(
            ["bob", "carol", "dave"].map(|other| scene.activity("alice", other)),
            ["T0_HEADS_DOWN", "T0_HEADS_DOWN", "T3_long_idle"]
        );
        // It stays so, however long, and whatever else is said.
        scene.say("bob", "alice", "feedback", "i");
        assert_eq!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
        scene.say("bob", "alice", calming, "i");
        assert_eq!(
            [scene.activity("alice", "bob"), scene.activity("alice", "carol")],
            ["T1_active", "T0_HEADS_DOWN"]
        );
        // Still open, but calm: it goes idle as any other pair.
        scene.at(2);
        scene.say("bob", "alice", "feedback", "i");
        assert_eq!(
            [scene.activity("alice", "bob"), scene.at(272).activity("alice", "bob")],
            ["T1_active", "T2_idle"]
        );
        // The next conflict starts it again.
        scene.at(3).say("bob", "alice", "incident", "j");
        assert_eq!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
    }
}

#[test]
fn the_end_of_a_conflict_ends_heads_down() {
    let mut scene = Scene::new();
    scene.say("alice", "bob", "incident", "i");
    scene.say("bob", "alice", "ack", "i");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
    scene.say("bob", "carol", "request", "t");
    // A counter-proposal is one until it is acked, or lapses: for those two only.
    scene.say("alice", "bob carol", "proposal", "p");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
    scene.say("bob", "alice carol", "proposal", "p");
    assert_eq!(
        [scene.activity("alice", "bob"), scene.activity("bob", "carol"), scene.activity("alice", "carol")],
        ["T0_HEADS_DOWN", "T1_active", "T1_active"]
    );
    let mut lapsing = scene.clone();
    scene.say("carol", "bob", "ack", "p");
    assert_eq!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
    scene.say("alice", "bob", "ack", "p");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
    assert_eq!(words(&lapsing.at(181).tick()), ["lapsed p"]);
    assert_eq!(lapsing.activity("alice", "bob"), "T1_active");
    assert_eq!(lapsing.at(270).activity("alice", "bob"), "T2_idle");
}

#[test]
fn open_proposals_of_two_agents_on_one_domain_are_a_conflict() {
    let mut scene = Scene::new();
    let api = r#"{"affected_domains":["api"]}"#;
    // A domain of neither, so that what they propose on it need not reach the other.
    let ops = r#"{"affected_domains":["ops"]}"#;
    scene.charter.domains.insert("ops".to_owned(), agents("carol").into_iter().collect());
    scene.with("alice", "carol", "proposal", "p", api);
    scene.with("alice", "carol", "proposal", "q", api);
    scene.with("bob", "alice carol", "proposal", "r", r#"{"affected_domains":["db","api"]}"#);
    assert_eq!(
        [scene.activity("alice", "bob"), scene.activity("alice", "carol")],
        ["T0_HEADS_DOWN", "T1_active"]
    );
    // Calmed, until they are at odds about one more domain.
    scene.say("alice", "bob", "ship", "t");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
    scene.with("bob", "carol", "proposal", "s", ops);
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
    scene.with("alice", "carol", "proposal", "u", ops);
    assert_eq!(scene.activity("alice", "bob"), "T0_HEADS_DOWN");
    for thread in ["s", "u"] {
        scene.conversation.settle(thread, false, scene.now).expect("dropped");
    }
    // Decided: the other two are overtaken, and nobody is in conflict.
    scene.say("carol", "alice", "ack", "p");
    assert_eq!(scene.activity("alice", "bob"), "T1_active");
}

#[test]
fn an_agent_alone_is_no_pair() {
    let mut scene = Scene::new();
    scene.say("alice", "alice", "request", "t");
    scene.commit(&message(99, "alice", "incident", "t", "{}"), "alice");
    assert_eq!(scene.activity("alice", "alice"), "T3_long_idle");
    assert_eq!(scene.conversation.presence.period(&agent("alice"), scene.now), 1200);
}
