//! Reading a large log through the mount beside reading the same file natively.

use crate::world::World;
use crate::{Scale, Spread};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

pub fn report(scale: Scale) {
    let world = World::new();
    {
        let mount = world.mount("mnt", &["--as", "bob", "--durability", "os"]);
        let mut log = File::options().append(true).open(mount.at.join("inbox/alice.jsonl")).unwrap();
        let body = 60_000;
        let mut written = 0;
        for number in 0.. {
            let line = world.line(number, body);
            log.write_all(&line).unwrap();
            written += line.len();
            if written >= scale.read_mib << 20 {
                break;
            }
        }
    }
    let native_path = world.exchange().join("inbox/alice.jsonl");
    let (mut native, mut passthrough, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    read_all(&native_path);
    for _ in 0..scale.rounds {
        native.push(read_all(&native_path));
        let mount = world.mount("mnt", &["--as", "bob"]);
        passthrough.push(read_all(&mount.at.join("inbox/alice.jsonl")));
        drop(mount);
        let mount = world.mount("mnt", &["--as", "bob", "--no-passthrough"]);
        cached.push(read_all(&mount.at.join("inbox/alice.jsonl")));
    }
    let ratio = Spread::of(native.iter().zip(&passthrough).map(|(n, p)| p / n).collect());
    println!("## Reading a log of {} MiB, warm, GB/s\n", scale.read_mib);
    println!("| native | mount, passthrough allowed | mount, no passthrough |\n|---|---|---|");
    println!("| {} | {} | {} |\n", Spread::of(native), Spread::of(passthrough), Spread::of(cached));
    println!("Mount beside native, round by round: {ratio}; aim 0.95.\n");
}

fn read_all(path: &Path) -> f64 {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (start, mut total) = (Instant::now(), 0);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert!(total > 0);
    total as f64 / start.elapsed().as_secs_f64() / 1e9
}
