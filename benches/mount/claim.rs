//! Claims: a rename from handoff/ to claimed/, and listing what waits.

use crate::world::{World, run};
use crate::{Scale, Spread};
use batonfs::wire::handoff::{NewHandoff, create};
use batonfs::wire::keys::PairSecret;
use batonfs::wire::name::AgentName;
use batonfs::wire::time::Timestamp;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub fn report(scale: Scale) {
    println!("## Handoffs\n");
    println!("| case | per second |\n|---|---|");
    let per_round = (scale.handoffs / scale.rounds).max(50);
    let mut native = Vec::new();
    for round in 0..scale.rounds {
        let world = World::new();
        let dirs = [world.scratch("handoff"), world.scratch("claimed")];
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        (0..per_round)
            .for_each(|n| std::fs::write(dirs[0].join(format!("{n}.json")), format!("{round}")).unwrap());
        native.push(rename_all(&world.scratch(""), per_round));
    }
    println!("| native rename | {} |", Spread::of(native));
    for durability in ["os", "commit"] {
        let (mut published, mut claimed) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            let world = World::new();
            let mount = world.mount("mnt", &["--durability", durability]);
            published.push(publish(&world, &mount.at, per_round));
            claimed.push(rename_all(&mount.at, per_round));
        }
        println!("| publish by temp + rename, {durability} | {} |", Spread::of(published));
        println!("| claim, {durability} | {} |", Spread::of(claimed));
    }
    let world = World::new();
    let mount = world.mount("mnt", &["--durability", "os"]);
    publish(&world, &mount.at, scale.handoffs);
    let (mut listed, mut both) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let start = Instant::now();
        let names: Vec<_> =
            std::fs::read_dir(mount.at.join("handoff")).unwrap().map(|e| e.unwrap().path()).collect();
        listed.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(names.len(), scale.handoffs);
        names.iter().for_each(|path| assert!(path.metadata().unwrap().len() > 0));
        both.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "\nListing {} pending handoffs: {} ms; listing and stat of each: {} ms.\n",
        scale.handoffs,
        Spread::of(listed),
        Spread::of(both)
    );
}

fn publish(world: &World, mount: &Path, count: usize) -> f64 {
    let secret = std::fs::read(world.exchange().join("private/secrets/alice,bob.secret")).unwrap();
    let secret = PairSecret::from_file_bytes(&secret);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let payloads: Vec<String> = (0..count)
        .map(|n| {
            let new = NewHandoff {
                from: AgentName::parse("bob").unwrap(),
                to: AgentName::parse("alice").unwrap(),
                caller: format!("caller {n}"),
                reason: "benchmark".into(),
                ttl_seconds: 3600,
                transcript: vec![],
            };
            create(&new, &secret, Timestamp(now)).unwrap()
        })
        .collect();
    let start = Instant::now();
    for (n, payload) in payloads.iter().enumerate() {
        let temp = mount.join(format!("handoff/.{n}.json.tmp"));
        std::fs::write(&temp, payload).unwrap();
        std::fs::rename(&temp, mount.join(format!("handoff/{n}.json"))).unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn rename_all(root: &Path, count: usize) -> f64 {
    let names: Vec<_> = (0..count)
        .map(|n| (root.join(format!("handoff/{n}.json")), root.join(format!("claimed/{n}.json"))))
        .collect();
    let start = Instant::now();
    names.iter().for_each(|(from, to)| std::fs::rename(from, to).unwrap());
    let rate = count as f64 / start.elapsed().as_secs_f64();
    run(std::process::Command::new("sync").arg("-f").arg(root));
    rate
}
