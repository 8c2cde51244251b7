//! Ordinary files: on the disk itself, through the mount, and through libfuse's passthrough_ll, one after the other in
//! each round.

use crate::world::{World, run};
use crate::{Scale, Spread};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Where scripts/bench put libfuse's example.
const PASSTHROUGH_LL: &str = "PASSTHROUGH_LL";

const REPOSITORY_FILES: usize = 5_000;

/// libfuse's example, which shows the whole tree at its mountpoint.
struct PassthroughLl {
    at: PathBuf,
    process: Child,
}

impl PassthroughLl {
    fn mount(world: &World) -> Option<Self> {
        let program = std::env::var_os(PASSTHROUGH_LL)?;
        let at = world.scratch("passthrough_ll");
        fs::create_dir_all(&at).unwrap();
        let process = Command::new(program).args(["-f", "-o", "timeout=1"]).arg(&at).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !at.join("proc").exists() {
            assert!(Instant::now() < deadline, "passthrough_ll does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(PassthroughLl { at, process })
    }
}

impl Drop for PassthroughLl {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = self.process.wait();
    }
}

/// How much of each thing.
struct Amounts {
    mib: usize,
    reads: usize,
    small_files: usize,
    names: usize,
}

/// Rates by what was measured; more is better everywhere.
type Rates = BTreeMap<&'static str, f64>;

pub fn report(scale: Scale) {
    let amounts = Amounts {
        mib: scale.read_mib,
        reads: scale.read_mib * 256,
        small_files: scale.appends * 2,
        names: scale.lines.min(100_000),
    };
    let world = World::new();
    let mount = world.mount("mnt", &["--as", "bob"]);
    let other = PassthroughLl::mount(&world);
    let native = world.exchange().join("credentials/claude");
    let mut places =
        vec![("ext4 itself", native.join("native")), ("baton", mount.at.join("credentials/claude/baton"))];
    if let Some(other) = &other {
        let root = other.at.join(native.strip_prefix("/").unwrap());
        places.push(("passthrough_ll", root.join("passthrough_ll")));
    }
    for (_, place) in &places {
        fs::create_dir(place).unwrap();
        make_repository(&place.join("repository"));
        // On the disk itself: passthrough_ll holds every file open that it has been asked for.
        let many = native.join(place.file_name().unwrap()).join("many");
        fs::create_dir(&many).unwrap();
        (0..amounts.names).for_each(|n| drop(File::create(many.join(format!("name-{n}"))).unwrap()));
    }
    let mut rounds: Vec<Vec<Rates>> = Vec::new();
    for _ in 0..scale.rounds {
        rounds.push(places.iter().map(|(_, place)| measure(place, &amounts)).collect());
    }
    println!("## Ordinary files, {} MiB, {} names\n", amounts.mib, amounts.names);
    print!("| what |");
    places.iter().for_each(|(name, _)| print!(" {name} |"));
    print!(" baton / ext4 |");
    if other.is_some() {
        print!(" baton / passthrough_ll |");
    }
    println!("\n|---|{}", "---|".repeat(places.len() + if other.is_some() { 2 } else { 1 }));
    for what in rounds[0][0].keys() {
        print!("| {what} |");
        for place in 0..places.len() {
            print!(" {} |", Spread::of(rounds.iter().map(|round| round[place][what]).collect()));
        }
        for beside in [0, 2].into_iter().filter(|place| *place < places.len()) {
            print!(
                " {} |",
                Spread::of(rounds.iter().map(|round| round[1][what] / round[beside][what]).collect())
            );
        }
        println!();
    }
    if other.is_none() {
        println!(
            "\npassthrough_ll was not there: scripts/bench builds it where cc and libfuse3-dev are installed."
        );
    }
    println!("\nAims: reading and writing at 0.9 of ext4 or more; the rest beside passthrough_ll.\n");
}

fn measure(place: &Path, amounts: &Amounts) -> Rates {
    let mut rates = Rates::new();
    let (write, read) = sequential(&place.join("large"), amounts.mib);
    rates.insert("1 sequential write, GB/s", write);
    rates.insert("2 sequential read, GB/s", read);
    rates.insert("3 random 4 KiB reads, thousands/s", random_reads(&place.join("large"), amounts));
    fs::remove_file(place.join("large")).unwrap();
    rates.insert("4 create, write, close, unlink, thousands/s", small_files(place, amounts.small_files));
    let repository = place.join("repository");
    let status = || {
        let start = Instant::now();
        run(Command::new("git").arg("-C").arg(&repository).args(["status", "--porcelain"]));
        1.0 / start.elapsed().as_secs_f64()
    };
    status();
    rates.insert("5 git status, warm, 1/s", status());
    let touched = fs::read_dir(&repository).unwrap().flatten().filter(|entry| entry.path().is_dir());
    for file in touched.take(5).flat_map(|dir| fs::read_dir(dir.path()).unwrap()).flatten() {
        let _ = File::open(file.path()).unwrap().set_modified(std::time::SystemTime::now());
    }
    rates.insert("6 git status, some touched, 1/s", status());
    let start = Instant::now();
    let names = fs::read_dir(place.join("many")).unwrap().count();
    assert_eq!(names, amounts.names);
    rates.insert("7 names listed, thousands/s", names as f64 / start.elapsed().as_secs_f64() / 1e3);
    let start = Instant::now();
    let many = fs::read_dir(place.join("many")).unwrap();
    // Few enough for passthrough_ll, which keeps a file open for each that it was ever asked for.
    let looked_at = amounts.names.min(2_000);
    for entry in many.take(looked_at) {
        let len = entry.unwrap().metadata().map(|metadata| metadata.len());
        assert_eq!(len.unwrap_or_else(|error| panic!("{}: {error}", place.display())), 0);
    }
    rates.insert(
        "8 names listed and looked at, thousands/s",
        looked_at as f64 / start.elapsed().as_secs_f64() / 1e3,
    );
    rates
}

fn sequential(path: &Path, mib: usize) -> (f64, f64) {
    let mut block = vec![7_u8; 1 << 20];
    let rate = |start: Instant| (mib << 20) as f64 / start.elapsed().as_secs_f64() / 1e9;
    let start = Instant::now();
    let mut file = File::create(path).unwrap();
    (0..mib).for_each(|_| file.write_all(&block).unwrap());
    drop(file);
    let written = rate(start);
    let mut file = File::open(path).unwrap();
    let start = Instant::now();
    (0..mib).for_each(|_| file.read_exact(&mut block).unwrap());
    (written, rate(start))
}

fn random_reads(path: &Path, amounts: &Amounts) -> f64 {
    let file = File::open(path).unwrap();
    let (mut block, blocks) = ([0; 4096], (amounts.mib * 256) as u64);
    let (start, mut at) = (Instant::now(), 1_u64);
    for _ in 0..amounts.reads {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        file.read_exact_at(&mut block, (at >> 33) % blocks * 4096).unwrap();
    }
    amounts.reads as f64 / start.elapsed().as_secs_f64() / 1e3
}

fn small_files(place: &Path, count: usize) -> f64 {
    let start = Instant::now();
    for n in 0..count {
        let path = place.join(format!("small-{n}"));
        File::create(&path).unwrap().write_all(&[7; 1000]).unwrap();
        fs::remove_file(&path).unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64() / 1e3
}

fn make_repository(at: &Path) {
    fs::create_dir(at).unwrap();
    for n in 0..REPOSITORY_FILES {
        let folder = at.join(format!("folder-{}", n / 100));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{n}.txt")), format!("text {n}\n").repeat(20)).unwrap();
    }
    let git = |args: &[&str]| run(Command::new("git").arg("-C").arg(at).args(args));
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", "all"]);
}
