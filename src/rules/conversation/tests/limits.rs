use super::*;

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
    let check = |scene: &Scene, messages| scene.check(&last, "alice", Ahead { messages, ..Ahead::default() });
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
    let long = "ü".repeat(128);
    scene.say("alice", "bob", "request", &long);
    assert!(scene.conversation.limits.thread(&long).is_some());
    let snapshot = serde_json::to_string(&scene.conversation).expect("a snapshot");
    assert!(snapshot.len() < 500_000, "{}", snapshot.len());
}

#[test]
fn size_a_long_correlation_id_or_subject() {
    let mut scene = Scene::new();
    for kind in ["request", "ack", "proposal", "heartbeat"] {
        scene.say("bob", "alice", kind, &"ü".repeat(128));
        let words = ["bob", "alice", kind, &"x".repeat(257)];
        scene.refused(Rule::Size, "correlation_id has 257 bytes; at most 256", words, "{}");
        let subject = |bytes| format!(r#"{{"subject":"{}"}}"#, "x".repeat(bytes));
        scene.with("bob", "alice", kind, kind, &subject(4096));
        let advice = "subject has 4097 bytes; at most 4096";
        scene.refused(Rule::Size, advice, ["bob", "alice", kind, "u"], &subject(4097));
        scene.tier = Tier::Trusted;
        scene.refused(Rule::Size, advice, ["bob", "alice", kind, "u"], &subject(4097));
        scene.tier = Tier::Attested;
    }
}

#[test]
fn rate_of_incidents_counts_incidents_ahead_in_the_same_write() {
    let mut scene = with_limits(Limits { incidents_per_minute: 3, ..Limits::default() });
    scene.say("bob", "alice", "incident", "i");
    let last = message(99, "bob", "incident", "j", "{}");
    let mut ahead = Ahead::default();
    // Others ahead of it are no incidents.
    for kind in ["request", "proposal", "ack", "heartbeat", "incident"] {
        ahead.count(&message(98, "bob", kind, "k", "{}"));
        assert_eq!(scene.check(&last, "alice", ahead), Ok(()), "{kind}");
    }
    assert_eq!(ahead, Ahead { messages: 5, incidents: 1, proposals: 1 });
    ahead.count(&last);
    let refusal = scene.check(&last, "alice", ahead).expect_err("rate");
    assert_eq!(refusal.rule, Rule::Rate);
    assert!(refusal.advice.contains("3 incidents a minute"), "{refusal}");
}

#[test]
fn a_reply_is_for_who_asked_last_or_wrote_last() {
    let mut scene = Scene::new();
    let partner = |scene: &Scene, author: &str, is_ack| {
        let thread = scene.conversation.limits.thread("t").expect("remembered");
        thread.partner_of(&agent(author), is_ack).map(|partner| partner.as_str().to_owned())
    };
    let both = |scene: &Scene, author: &str| {
        [true, false].map(|is_ack| partner(scene, author, is_ack).unwrap_or_default())
    };
    let asking = r#"{"ack_required":true}"#;
    scene.with("alice", "bob carol", "request", "t", asking);
    assert_eq!(both(&scene, "alice"), ["", ""], "nobody wrote to her");
    assert_eq!(both(&scene, "dave"), ["", ""], "he got nothing");
    assert_eq!(both(&scene, "bob"), ["alice", "alice"]);
    // Who speaks last need not be who asked; and what went to others counts for nothing.
    scene.say("carol", "bob", "feedback", "t");
    scene.say("dave", "carol", "feedback", "t");
    assert_eq!(both(&scene, "bob"), ["alice", "carol"]);
    assert_eq!(both(&scene, "carol"), ["alice", "dave"]);
    // The newest question first, then the one before.
    scene.with("dave", "bob", "request", "t", asking);
    scene.say("carol", "bob", "feedback", "t");
    assert_eq!(both(&scene, "bob"), ["dave", "carol"]);
    scene.say("bob", "dave", "ack", "t");
    assert_eq!(both(&scene, "bob"), ["alice", "carol"]);
    scene.say("bob", "alice", "ack", "t");
    assert_eq!(both(&scene, "bob"), ["carol", "carol"]);
}

#[test]
fn threads_only_to_oneself_are_not_remembered() {
    let mut scene = Scene::new();
    scene.say("alice", "alice", "request", "t");
    assert_eq!(scene.conversation.limits.thread("t"), None);
    scene.say("alice", "alice bob", "request", "t");
    assert!(scene.conversation.limits.thread("t").is_some());
}

#[test]
fn who_opens_many_threads_pushes_out_its_own() {
    let mut scene = Scene::new();
    scene.charter.limits.turns_per_thread = 1000;
    let open = |scene: &mut Scene, from: &str, to: &str, threads: std::ops::Range<u32>| {
        for n in threads {
            scene.say(from, to, "request", &format!("{from}{n}"));
        }
    };
    let known = |scene: &Scene, thread: &str| scene.conversation.limits.thread(thread).is_some();
    open(&mut scene, "bob", "alice", 0..1023);
    open(&mut scene, "alice", "bob", 0..3073);
    assert!(known(&scene, "bob0") && known(&scene, "alice0"));
    // 4096 are remembered. Her own oldest go, although his are older; after a restart, too.
    open(&mut scene, "alice", "bob", 3073..3075);
    let text = serde_json::to_string(&scene.conversation).expect("a snapshot");
    scene.conversation = serde_json::from_str(&text).expect("what was written");
    open(&mut scene, "alice", "bob", 3075..3077);
    let threads = ["bob0", "alice0", "alice3", "alice4", "alice3076"];
    assert_eq!(threads.map(|thread| known(&scene, thread)), [true, false, false, true, true]);
    // Whoever has not had its share pushes out the oldest of all.
    open(&mut scene, "bob", "alice", 1023..1024);
    let threads = ["bob0", "bob1", "alice4", "bob1023"];
    assert_eq!(threads.map(|thread| known(&scene, thread)), [false, true, true, true]);
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
