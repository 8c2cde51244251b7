//! Not a test of a rule: what a message costs. `cargo test --release --lib conversation::tests::speed -- \
//! --ignored --nocapture`

use super::*;
use std::time::{Duration, Instant};

#[test]
#[ignore = "measures; prints nanoseconds"]
#[expect(clippy::print_stdout, reason = "what it measured is for whoever runs it")]
fn nanoseconds_a_message() {
    const ROUNDS: usize = 200;
    let limits = Limits {
        max_refs: 50,
        rate_per_minute: 1_000_000_000,
        incidents_per_minute: 10,
        turns_per_thread: 1_000_000_000,
        rates: BTreeMap::new(),
    };
    let twelve = "alice bob carol dave erin frank grace heidi ivan judy mallory niaj";
    for (what, from, to, kind, replies) in [
        ("heartbeat to one", "alice", "bob", "heartbeat", false),
        ("new thread to one", "alice", "bob", "request", false),
        ("reply to one", "alice", "bob", "feedback", true),
        ("ack to one", "alice", "bob", "ack", true),
        ("new thread to eleven", "alice", &twelve[6..], "request", false),
        ("reply to eleven", "alice", &twelve[6..], "feedback", true),
    ] {
        let mut scene = Scene::new();
        scene.charter.limits = limits.clone();
        let thread = |n: u64| if replies { format!("t{}", n % 64) } else { format!("2026-05-10T00:00:{n}Z") };
        let lines: Vec<Message> = (0..8192)
            .map(|n| {
                let from = if replies && n % 128 < 64 { "niaj" } else { from };
                message(n, from, kind, &thread(n), "{}")
            })
            .collect();
        let to = agents(to);
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for line in &lines {
                scene.now.0 += 30;
                let fact = Fact { at: scene.now, message: line, to: &to, tier: Tier::Attested };
                scene.conversation.check(&fact, Default::default(), &scene.charter).expect(what);
                scene.conversation.observe(&fact, &scene.charter);
            }
            // Others use the processor, too: the best round is the one that they left alone.
            best = best.min(start.elapsed());
        }
        let nanoseconds = best.as_nanos() / lines.len() as u128;
        println!("{what}: {nanoseconds} ns");
    }
}
