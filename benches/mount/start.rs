//! Time to ready and memory with a long log.

use crate::world::{World, daemon_memory};
use crate::{Scale, Spread, percentile};
use std::fs::File;
use std::io::Write;
use std::time::Instant;

pub fn report(scale: Scale) {
    let world = World::new();
    println!("## A log of {} lines\n", scale.lines);
    {
        let mount = world.mount("mnt", &["--as", "bob", "--durability", "os"]);
        let mut log = File::options().append(true).open(mount.at.join("inbox/alice.jsonl")).unwrap();
        let start = Instant::now();
        let mut next = 0;
        while next < scale.lines {
            let end = (next + 500).min(scale.lines);
            log.write_all(&world.lines(next..end).concat()).unwrap();
            next = end;
        }
        println!(
            "Signed and appended through the mount, 500 lines a write, in {:.1} s.\n",
            start.elapsed().as_secs_f64()
        );
    }
    let (mut ready, mut memory, mut short_log, mut long_log) = (vec![], vec![], vec![], vec![]);
    let mut number = scale.lines + 1;
    for _ in 0..scale.rounds {
        let start = Instant::now();
        let mount = world.mount("mnt", &["--as", "bob", "--durability", "os"]);
        let mut log = File::options().append(true).open(mount.at.join("inbox/alice.jsonl")).unwrap();
        log.write_all(&world.line(number, 8)).unwrap();
        number += 1;
        ready.push(start.elapsed().as_secs_f64());
        memory.push(daemon_memory(&world.exchange()));
        // In turn, so that what slows the machine down slows both.
        let mut logs = ["carol", "alice"].map(|inbox| {
            let log = File::options().append(true).open(mount.at.join(format!("inbox/{inbox}.jsonl")));
            (log.unwrap(), Vec::new())
        });
        for (n, line) in world.lines(number..number + 1000).iter().enumerate() {
            let (log, latencies) = &mut logs[n % 2];
            let start = Instant::now();
            log.write_all(line).unwrap();
            latencies.push(start.elapsed());
        }
        number += 1000;
        let [(_, mut short), (_, mut long)] = logs;
        short_log.push(percentile(&mut short, 0.5));
        long_log.push(percentile(&mut long, 0.5));
    }
    let ratio = Spread::of(long_log.iter().zip(&short_log).map(|(long, short)| long / short).collect());
    println!(
        "| mount + first append, s | resident MiB | append p50 us, this log | append p50 us, short log |\n|---|---|---|---|"
    );
    println!(
        "| {} | {} | {} | {} |\n",
        Spread::of(ready),
        Spread::of(memory),
        Spread::of(long_log),
        Spread::of(short_log)
    );
    println!("This log beside the short one, round by round: {ratio}; aim 1.2 at most.");
    println!("Aims: ready in 2 s, under 200 MiB.");
}
