use super::*;
use crate::rules::conversation::limits::Ahead;

fn with_limits(limits: Limits) -> Scene {
    let mut scene = Scene::new();
    scene.charter.limits = limits;
    scene
}

fn refs(count: usize) -> String {
    format!(r#"{{"refs":[{}]}}"#, vec!["\"r\""; count].join(","))
}

#[test]
fn size_more_refs_than_allowed() {
    let mut scene = with_limits(Limits { max_refs: 3, ..Limits::default() });
    scene.with("bob", "alice", "request", "t", &refs(3));
    scene.refused(Rule::Size, "at most 3", ["bob", "alice", "request", "t"], &refs(4));
    scene.tier = Tier::Trusted;
    scene.refused(Rule::Size, "refs has 4 entries", ["bob", "alice", "request", "t"], &refs(4));
    scene.charter.limits.max_refs = 0;
    scene.with("bob", "alice", "request", "t", &refs(1000));
}

#[test]
fn rate_messages_a_minute() {
    let mut scene = with_limits(Limits { rate_per_minute: 3, ..Limits::default() });
    for seconds in [0, 10, 10] {
        scene.at(seconds).say("bob", "alice", "request", "t");
    }
    // Others have rates of their own, and every type counts.
    scene.say("carol", "alice", "request", "t");
    scene.at(20).refused(Rule::Rate, "(in 40 s)", ["bob", "alice", "heartbeat", "h"], "{}");
    scene.refused(Rule::Rate, "2026-05-10T00:01:00Z", ["bob", "alice", "request", "t"], "{}");
    scene.at(59).refused(Rule::Rate, "(in 1 s)", ["bob", "alice", "request", "t"], "{}");
    scene.at(60).say("bob", "alice", "request", "t");
    scene.refused(Rule::Rate, "(in 10 s)", ["bob", "alice", "request", "t"], "{}");
    // TRUSTED is exempt, and what it wrote as such does not count.
    scene.tier = Tier::Trusted;
    for _ in 0..100 {
        scene.say("carol", "alice", "request", "t");
    }
    scene.tier = Tier::Verified;
    scene.at(60).say("carol", "alice", "request", "t");
}

#[test]
fn rate_of_single_agents_goes_before_the_rate_of_all() {
    let rates = [(agent("bob"), 1), (agent("carol"), 0)].into();
    let mut scene = with_limits(Limits { rate_per_minute: 2, rates, ..Limits::default() });
    scene.say("bob", "alice", "request", "t");
    scene.refused(Rule::Rate, "bob may write 1 messages a minute", ["bob", "alice", "request", "t"], "{}");
    scene.say("dave", "alice", "request", "t");
    scene.say("dave", "alice", "request", "t");
    scene.refused(Rule::Rate, "dave may write 2", ["dave", "alice", "request", "t"], "{}");
    for _ in 0..100 {
        scene.say("carol", "alice", "request", "t");
    }
}

#[test]
fn rate_counts_those_ahead_in_the_same_write() {
    let mut scene = with_limits(Limits { rate_per_minute: 4, ..Limits::default() });
    scene.say("bob", "alice", "request", "t");
    scene.at(30).say("bob", "alice", "request", "t");
    let last = message(99, "bob", "request", "t", "{}");
    let to = agents("alice");
    let check = |scene: &Scene, ahead| {
        let fact = Fact { at: scene.now, message: &last, to: &to, tier: Tier::Attested };
        scene.conversation.check(&fact, Ahead { messages: ahead, ..Ahead::default() }, &scene.charter)
    };
    assert_eq!(check(&scene, 1), Ok(()));
    // Three need the first to go, four need both to.
    for (ahead, advice) in [(2, "(in 30 s)"), (3, "(in 60 s)"), (4, "at most 4 at once")] {
        let refusal = check(&scene, ahead).expect_err(advice);
        assert_eq!(refusal.rule, Rule::Rate);
        assert!(refusal.advice.contains(advice), "{refusal}");
    }
    assert_eq!(check(scene.at(59), 1), Ok(()));
    assert!(check(scene.at(59), 2).is_err());
    assert_eq!(check(scene.at(60), 2), Ok(()));
    assert!(check(scene.at(89), 3).is_err());
    assert_eq!(check(scene.at(90), 3), Ok(()));
}

#[test]
fn rate_of_incidents() {
    let mut scene = with_limits(Limits { incidents_per_minute: 2, ..Limits::default() });
    scene.say("bob", "alice", "incident", "i");
    scene.at(7).say("bob", "alice", "incident", "j");
    scene.refused(Rule::Rate, "2 incidents a minute", ["bob", "alice", "incident", "k"], "{}");
    scene.refused(Rule::Rate, "(in 53 s)", ["bob", "alice", "incident", "k"], "{}");
    scene.say("bob", "alice", "request", "t");
    scene.tier = Tier::Trusted;
    scene.say("bob", "alice", "incident", "k");
}

#[test]
fn loop_two_agents_answer_each_other() {
    let mut scene = with_limits(Limits { turns_per_thread: 3, ..Limits::default() });
    scene.say("alice", "bob", "request", "t");
    for (seconds, from, to) in [(60, "bob", "alice"), (120, "alice", "bob"), (180, "bob", "alice")] {
        scene.at(seconds).say(from, to, "feedback", "t");
    }
    let answer = ["alice", "bob", "feedback", "t"];
    scene.at(200).refused(Rule::Loop, "(in 3460 s)", answer, "{}");
    scene.refused(Rule::Loop, "2026-05-10T01:01:00Z", answer, "{}");
    scene.refused(Rule::Loop, "each other 3 times", ["alice", "bob carol", "ack", "t"], "{}");
    // To others, in other threads, of one's own accord: no turn. A heartbeat is none either.
    scene.say("bob", "alice", "feedback", "t");
    scene.say("alice", "bob", "heartbeat", "t");
    scene.say("alice", "carol", "feedback", "t");
    scene.say("alice", "bob", "feedback", "u");
    // TRUSTED is not exempt: it loops as well as others.
    scene.tier = Tier::Trusted;
    scene.refused(Rule::Loop, "bob", answer, "{}");
    scene.at(3659).refused(Rule::Loop, "(in 1 s)", answer, "{}");
    scene.at(3660).say("alice", "bob", "feedback", "t");
    scene.refused(Rule::Loop, "(in 60 s)", ["bob", "alice", "feedback", "t"], "{}");
}

#[test]
fn loop_counts_every_pair_of_a_thread_by_itself() {
    let mut scene = with_limits(Limits { turns_per_thread: 2, ..Limits::default() });
    scene.say("alice", "bob carol", "request", "t");
    scene.say("bob", "alice carol", "feedback", "t");
    scene.say("carol", "alice bob", "feedback", "t");
    // alice's second turn with bob and with carol; carol's first with bob came just now.
    scene.say("alice", "bob carol", "feedback", "t");
    scene.refused(Rule::Loop, "alice", ["bob", "alice", "feedback", "t"], "{}");
    scene.say("bob", "carol", "feedback", "t");
    scene.refused(Rule::Loop, "bob", ["carol", "bob", "feedback", "t"], "{}");
}

#[test]
fn a_thread_is_known_by_its_newest_author_and_first_subject() {
    let mut scene = Scene::new();
    assert_eq!(scene.conversation.limits.thread("t"), None);
    scene.say("alice", "bob", "heartbeat", "t");
    assert_eq!(scene.conversation.limits.thread("t"), None);
    scene.with("alice", "bob", "request", "t", r#"{"subject":"first"}"#);
    scene.say("bob", "alice", "feedback", "t");
    let thread = scene.conversation.limits.thread("t").expect("remembered");
    assert_eq!((thread.from.as_str(), thread.subject.as_str()), ("bob", "first"));
}

#[test]
fn the_newest_4096_threads_are_remembered() {
    let mut scene = with_limits(Limits { turns_per_thread: 1000, ..Limits::default() });
    let known = |scene: &Scene, n: u32| scene.conversation.limits.thread(&format!("t{n}")).is_some();
    for n in 0..4096 {
        scene.say("alice", "bob", "request", &format!("t{n}"));
    }
    assert!(known(&scene, 0));
    // One that goes on is among the newest again.
    scene.say("bob", "alice", "feedback", "t0");
    scene.say("alice", "bob", "request", "t4096");
    assert_eq!([0, 1, 2, 4096].map(|n| known(&scene, n)), [true, false, true, true]);
    // As long as an id may be, no more than a part of it is kept: of any character.
    let long = "ü".repeat(100_000);
    scene.say("alice", "bob", "request", &long);
    assert!(scene.conversation.limits.thread(&long).is_some());
    let snapshot = serde_json::to_string(&scene.conversation).expect("a snapshot");
    assert!(snapshot.len() < 500_000, "{}", snapshot.len());
}

#[test]
fn an_ack_of_what_was_asked_is_a_reciprocation() {
    let asking = r#"{"ack_required":true}"#;
    let mut scene = Scene::new();
    let thanks = |effects: Vec<Effect>| words(&effects);
    scene.say("alice", "bob", "request", "t");
    assert!(scene.say("bob", "alice", "ack", "t").is_empty(), "nobody asked");
    scene.with("alice", "bob carol", "request", "t", asking);
    assert!(scene.say("alice", "bob", "ack", "t").is_empty(), "her own question");
    assert!(scene.say("dave", "alice", "ack", "t").is_empty(), "not asked");
    assert!(scene.say("bob", "carol", "ack", "t").is_empty(), "not to her");
    assert!(scene.say("bob", "alice", "feedback", "t").is_empty(), "no ack");
    assert!(scene.say("bob", "alice", "ack", "u").is_empty(), "another thread");
    assert_eq!(thanks(scene.say("bob", "alice", "ack", "t")), ["alice thanks bob"]);
    assert!(scene.say("bob", "alice", "ack", "t").is_empty(), "once per question");
    assert_eq!(thanks(scene.say("carol", "alice", "ack", "t")), ["alice thanks carol"]);
    // Each question by itself.
    scene.with("alice", "bob", "request", "t", asking);
    scene.with("alice", "bob", "request", "t", asking);
    assert_eq!(scene.say("bob", "alice", "ack", "t").len(), 1);
    assert_eq!(scene.say("bob", "alice", "ack", "t").len(), 1);
    assert!(scene.say("bob", "alice", "ack", "t").is_empty());
    // Heartbeats ask nothing.
    scene.with("alice", "bob", "heartbeat", "t", asking);
    assert!(scene.say("bob", "alice", "ack", "t").is_empty());
}
