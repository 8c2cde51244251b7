//! Verified appends of 400-byte lines.

use crate::world::World;
use crate::{Scale, Spread, bare, percentile};
use batonfs::wire::json::{ObjectStream, parse};
use batonfs::wire::message::Message;
use batonfs::wire::trust::TrustList;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const BATCH: usize = 32;

struct Case {
    name: &'static str,
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        Case { name, p50: vec![], p99: vec![], rate: vec![] }
    }

    /// One round: `clients` threads, each writing its blocks (of `lines` lines) to its file.
    fn round(&mut self, files: &[PathBuf], blocks: Vec<Vec<Vec<u8>>>, lines: usize, sync: bool) {
        let clients = blocks.len();
        let ready = Barrier::new(clients);
        let results: Vec<(Vec<Duration>, f64)> = std::thread::scope(|scope| {
            let workers: Vec<_> = blocks
                .iter()
                .enumerate()
                .map(|(n, blocks)| {
                    let (path, ready) = (&files[n % files.len()], &ready);
                    scope.spawn(move || write_blocks(path, blocks, sync, ready))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let elapsed = results.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        let mut latencies: Vec<Duration> = results.into_iter().flat_map(|(latencies, _)| latencies).collect();
        let count = latencies.len() * lines;
        assert!(clients > 0 && count > 0);
        self.rate.push(count as f64 / elapsed);
        self.p50.push(percentile(&mut latencies, 0.5));
        self.p99.push(percentile(&mut latencies, 0.99));
    }

    fn print(self) {
        println!(
            "| {} | {} | {} | {} |",
            self.name,
            Spread::of(self.p50),
            Spread::of(self.p99),
            Spread::of(self.rate)
        );
    }
}

/// Latencies and seconds of all blocks but the first fifth, which wakes up the processors: an idle virtual
/// machine takes its time.
fn write_blocks(path: &Path, blocks: &[Vec<u8>], sync: bool, ready: &Barrier) -> (Vec<Duration>, f64) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    let mut write = |block: &Vec<u8>| {
        let start = Instant::now();
        file.write_all(block).unwrap();
        if sync {
            file.sync_data().unwrap();
        }
        start.elapsed()
    };
    let (warm_up, counted) = blocks.split_at(blocks.len() / 5);
    for block in warm_up {
        write(block);
    }
    ready.wait();
    let start = Instant::now();
    let latencies = counted.iter().map(write).collect();
    (latencies, start.elapsed().as_secs_f64())
}

pub fn report(scale: Scale) {
    let world = World::new();
    let mut next = 0;
    // Lines are signed before anything is timed; no line is ever sent twice.
    let mut blocks = |clients: usize, lines: usize| -> Vec<Vec<Vec<u8>>> {
        let each = (scale.appends / lines.min(8)).max(8) / if clients > 1 { 2 } else { 1 };
        (0..clients)
            .map(|_| {
                (0..each)
                    .map(|_| {
                        next += lines;
                        world.lines(next - lines..next).concat()
                    })
                    .collect()
            })
            .collect()
    };
    let one = vec![world.scratch("native")];
    let mut native = Case::new("native append, 1 client");
    let mut native_sync = Case::new("native append + fdatasync, 1 client");
    let mut bare_one = Case::new("bare FUSE append, no checks, 1 client");
    let mut bare_batch = Case::new("bare FUSE append, no checks, 1 client, 32 lines a write");
    let mut checks = Vec::new();
    let mut batch_checks = Vec::new();
    let mut cases: Vec<(Case, &str, usize, usize)> = Vec::new();
    for (name, durability, clients, lines) in [
        ("baton, os, 1 client", "os", 1, 1),
        ("baton, os, 4 clients", "os", 4, 1),
        ("baton, os, 1 client, 32 lines a write", "os", 1, BATCH),
        ("baton, os, 4 clients, 32 lines a write", "os", 4, BATCH),
        ("baton, commit, 1 client", "commit", 1, 1),
        ("baton, commit, 4 clients", "commit", 4, 1),
        ("baton, commit, 1 client, 32 lines a write", "commit", 1, BATCH),
        ("baton, commit, 4 clients, 32 lines a write", "commit", 4, BATCH),
    ] {
        cases.push((Case::new(name), durability, clients, lines));
    }
    {
        let bare = bare::mount(&world.scratch("bare"), &world.scratch("bare.log"));
        let bare_file = vec![bare.file.clone()];
        let sample: Vec<Vec<u8>> = (0..2000).map(|n| world.line(900_000_000 + n, 8)).collect();
        for _ in 0..scale.rounds {
            native.round(&one, blocks(1, 1), 1, false);
            native_sync.round(&one, blocks(1, 1), 1, true);
            bare_one.round(&bare_file, blocks(1, 1), 1, false);
            bare_batch.round(&bare_file, blocks(1, BATCH), BATCH, false);
            checks.push(check_cost(&world, &sample));
            batch_checks.push(batch_cost(&world, &sample));
            for durability in ["os", "commit"] {
                let mount = world.mount("mnt", &["--as", "bob", "--durability", durability]);
                let files: Vec<PathBuf> = ["alice", "carol", "dave", "erin"]
                    .map(|a| mount.at.join(format!("inbox/{a}.jsonl")))
                    .into();
                for (case, d, clients, lines) in &mut cases {
                    if *d == durability {
                        case.round(&files, blocks(*clients, *lines), *lines, false);
                    }
                }
            }
        }
    }
    let (checks, batch_checks) = (Spread::of(checks), Spread::of(batch_checks));
    let expected = checks.median + Spread::of(bare_one.p50.clone()).median;
    let measured = Spread::of(cases[0].0.p50.clone()).median;
    let batch_rate = Spread::of(cases[2].0.rate.clone()).median;
    println!("## Appends of 400-byte lines\n");
    println!("| case | p50 us a write | p99 us a write | lines/s |\n|---|---|---|---|");
    native.print();
    native_sync.print();
    bare_one.print();
    bare_batch.print();
    for (case, ..) in cases {
        case.print();
    }
    println!(
        "\nIn process, us a line: parse + schema + strict verification {checks}; batch verification {batch_checks}."
    );
    println!(
        "\nOne client, one line: p50 is {:.2}x of (in-process checks + bare FUSE append); aim 1.5x.",
        measured / expected
    );
    println!(
        "32-line writes, one client: {:.0}% of the rate of in-process batch verification; aim 60%.\n",
        100.0 * batch_rate * batch_checks.median / 1e6
    );
}

fn trust(world: &World) -> TrustList {
    TrustList::parse(&std::fs::read(world.exchange().join("trust.json")).unwrap()).unwrap()
}

/// What the mount does to a line, without the mount: microseconds a line.
fn check_cost(world: &World, lines: &[Vec<u8>]) -> f64 {
    let trust = trust(world);
    let start = Instant::now();
    for line in lines {
        let object = ObjectStream::new().push(line).unwrap().remove(0).object;
        black_box(Message::from_object(object).unwrap().verify(&trust).unwrap());
    }
    start.elapsed().as_secs_f64() * 1e6 / lines.len() as f64
}

/// ed25519-dalek's batch verification of the same signatures, 32 at a time: microseconds a line.
fn batch_cost(world: &World, lines: &[Vec<u8>]) -> f64 {
    use base64::Engine;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let key = &trust(world).agents[&batonfs::wire::name::AgentName::parse("bob").unwrap()].keys[0];
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.key.to_bytes()).unwrap();
    let mut signed = Vec::new();
    for line in lines {
        let value = parse(line).unwrap();
        let object = value.as_object().unwrap();
        let signature: [u8; 64] = decode(object["signature"].as_str().unwrap()).try_into().unwrap();
        let event_id = object["event_id"].as_str().unwrap();
        let id: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&event_id[2 * n..2 * n + 2], 16).unwrap()).collect();
        signed.push((id, ed25519_dalek::Signature::from_bytes(&signature)));
    }
    let start = Instant::now();
    for chunk in signed.chunks(BATCH) {
        let messages: Vec<&[u8]> = chunk.iter().map(|(id, _)| id.as_slice()).collect();
        let signatures: Vec<_> = chunk.iter().map(|(_, s)| *s).collect();
        let keys = vec![key; chunk.len()];
        ed25519_dalek::verify_batch(&messages, &signatures, &keys).unwrap();
    }
    start.elapsed().as_secs_f64() * 1e6 / lines.len() as f64
}
