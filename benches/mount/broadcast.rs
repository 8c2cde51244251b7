//! Twelve agents on mounts of their own, each telling everyone else something, unsigned: completed, signed,
//! stored and delivered to eleven inboxes.

use crate::world::World;
use crate::{Scale, Spread, percentile};
use std::fs::File;
use std::io::Write;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const AGENTS: [&str; 12] = ["alice", "bob", "carol", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

pub fn report(scale: Scale) {
    println!("## Broadcasts of 12 agents, unsigned objects, one a write\n");
    println!("| case | p50 us a write | p99 us a write | messages/s | deliveries/s |\n|---|---|---|---|---|");
    for (writers, durability) in [(1, "os"), (12, "os"), (1, "commit"), (12, "commit")] {
        let (mut p50, mut p99, mut rate, mut delivered) = (vec![], vec![], vec![], vec![]);
        for _ in 0..scale.rounds {
            let world = World::of(&AGENTS);
            let mounts = AGENTS.map(|agent| world.mount(agent, &["--as", agent, "--durability", durability]));
            let each = (scale.appends / 4 / writers).max(20);
            let ready = Barrier::new(writers);
            let (mut latencies, mut seconds): (Vec<Duration>, f64) = (Vec::new(), 0.0);
            std::thread::scope(|scope| {
                let workers: Vec<_> = AGENTS[..writers]
                    .iter()
                    .zip(&mounts)
                    .map(|(agent, mount)| {
                        let (outbox, ready) = (mount.at.join(format!("outbox/{agent}.jsonl")), &ready);
                        scope.spawn(move || write_all(&outbox, each, ready))
                    })
                    .collect();
                for worker in workers {
                    let (taken, elapsed) = worker.join().unwrap();
                    latencies.extend(taken);
                    seconds = seconds.max(elapsed);
                }
            });
            let messages = latencies.len() as f64 / seconds;
            let inbox = std::fs::read_to_string(mounts[11].at.join("inbox/l.jsonl")).unwrap();
            assert_eq!(
                inbox.lines().count(),
                (writers.min(11)) * (each + each / 5),
                "not all were delivered"
            );
            p50.push(percentile(&mut latencies, 0.5));
            p99.push(percentile(&mut latencies, 0.99));
            rate.push(messages);
            delivered.push(messages * (AGENTS.len() - 1) as f64);
        }
        let who = if writers == 1 { "one speaks" } else { "all speak at once" };
        println!(
            "| {who}, {durability} | {} | {} | {} | {} |",
            Spread::of(p50),
            Spread::of(p99),
            Spread::of(rate),
            Spread::of(delivered)
        );
    }
    println!();
}

/// Latencies and seconds of `each` writes, after a fifth as many that are not counted.
fn write_all(outbox: &std::path::Path, each: usize, ready: &Barrier) -> (Vec<Duration>, f64) {
    let mut log = File::options().append(true).open(outbox).unwrap();
    let mut write = |n: usize| {
        let object = format!(r#"{{"type":"ship","subject":"n {n}","body":"xxxxxxxx"}}"#);
        let start = Instant::now();
        log.write_all(object.as_bytes()).unwrap();
        start.elapsed()
    };
    for n in 0..each / 5 {
        write(n);
    }
    ready.wait();
    let start = Instant::now();
    let latencies = (each..2 * each).map(write).collect();
    (latencies, start.elapsed().as_secs_f64())
}
