//! Archives through a mount: writers and readers that go on meanwhile, kills in the middle, full disks.

use crate::common::{BATON, Fixture, Mount, json_lines, message, run, wait_until};
use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const INBOX: &str = "inbox/alice.jsonl";

/// Every line of a log, archived ones first, as it lies in the exchange's folder.
fn whole(fixture: &Fixture, log: &str) -> String {
    let (dir, name) = log.rsplit_once('/').unwrap_or(("", log));
    let stem = name.strip_suffix(".jsonl").unwrap();
    let mut archives: Vec<(String, u32)> = Vec::new();
    for year in fs::read_dir(fixture.dir().join("archive")).unwrap().flatten() {
        let folder = year.path().join(dir);
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = file.file_name().into_string().unwrap();
            let number = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".jsonl"));
            match number {
                Some("") => archives.push((file.path().to_str().unwrap().into(), 1)),
                Some(n) => archives.push((file.path().to_str().unwrap().into(), n[1..].parse().unwrap())),
                None => {}
            }
        }
    }
    archives.sort_by_key(|(_, n)| *n);
    let mut text: String = archives.iter().map(|(file, _)| fs::read_to_string(file).unwrap()).collect();
    text += &fs::read_to_string(fixture.dir().join(log)).unwrap();
    text
}

fn archive(fixture: &Fixture) {
    fixture.baton(&["archive"]).ok();
}

/// Signs `count` lines of bob, a file each for `writers` writers.
fn signed_lines(fixture: &Fixture, writers: usize, count: usize) -> Vec<Vec<String>> {
    let lines =
        |w| -> String { (0..count).map(|n| message(&format!("writer {w} line {n}")) + "\n").collect() };
    (0..writers).map(|w| fixture.sign("bob", &lines(w)).lines().map(|l| format!("{l}\n")).collect()).collect()
}

#[test]
fn archived_lines_are_read_in_place_and_can_not_be_touched() {
    for passthrough in [&[][..], &["--no-passthrough"]] {
        let fixture = Fixture::new();
        let bob = fixture.mount_with(&[&["--as", "bob"], passthrough].concat());
        bob.bash("line bob one >> inbox/alice.jsonl; line bob two >> bob_to_carol.jsonl").ok();
        let before = bob.read(INBOX);
        archive(&fixture);
        assert_eq!(bob.read(INBOX), "");
        let year = bob.names("archive").pop().unwrap();
        assert_eq!(bob.names(&format!("archive/{year}")), ["bob_to_carol.jsonl", "inbox"]);
        assert_eq!(bob.names(&format!("archive/{year}/inbox")), ["alice.jsonl", "carol.jsonl"]);
        let path = format!("archive/{year}/{INBOX}");
        assert_eq!(bob.read(&path), before);
        assert_eq!(bob.read(&format!("_coordination/{path}")), before);
        for script in [
            format!("line bob x >> {path}"),
            format!("rm -f {path}"),
            format!("mv {path} {path}.old"),
            format!("mv {path} inbox/"),
            format!("truncate -s 0 {path}"),
            format!("echo x > archive/{year}/new.jsonl"),
            format!("mkdir archive/{year}/d"),
            format!("rmdir archive/{year}"),
        ] {
            bob.refuses(&script, "Operation not permitted", "read-only");
        }
        assert_eq!(bob.read(&path), before);
        // The names that handoffs move to are still free.
        bob.bash("handoff bob alice > handoff/x.json").ok();
        let alice = fixture.mount_as("alice");
        alice.bash("mv handoff/x.json claimed/ && mv claimed/x.json archive/").ok();
        assert_eq!(bob.names("archive"), [year.as_str(), "x.json"]);
        fixture.verify();
    }
}

#[test]
fn descriptors_that_are_open_go_on_in_the_same_file() {
    for passthrough in [&[][..], &["--no-passthrough"]] {
        let fixture = Fixture::new();
        let bob = fixture.mount_with(&[&["--as", "bob"], passthrough].concat());
        let lines = signed_lines(&fixture, 1, 4).remove(0);
        let inode = |mount: &Mount| fs::metadata(mount.at(INBOX)).unwrap().ino();
        let before = inode(&bob);
        let mut appender = fs::File::options().append(true).open(bob.at(INBOX)).unwrap();
        // Without O_APPEND: at the end, then where its last write ended.
        let mut writer = fs::File::options().write(true).open(bob.at(INBOX)).unwrap();
        appender.write_all(lines[0].as_bytes()).unwrap();
        writer.seek(SeekFrom::End(0)).unwrap();
        writer.write_all(lines[1].as_bytes()).unwrap();
        let mut reader = fs::File::open(bob.at(INBOX)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, lines[..2].concat());
        archive(&fixture);
        assert_eq!(fs::metadata(bob.at(INBOX)).unwrap().len(), 0);
        text.clear();
        assert_eq!(reader.read_to_string(&mut text).unwrap(), 0, "behind the new end there is nothing");
        appender.write_all(lines[2].as_bytes()).unwrap();
        writer.write_all(lines[3].as_bytes()).unwrap();
        assert_eq!(bob.read(INBOX), lines[2..].concat());
        assert_eq!(fs::metadata(bob.at(INBOX)).unwrap().len(), lines[2..].concat().len() as u64);
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, lines[2..].concat());
        assert_eq!(inode(&bob), before);
        assert_eq!(whole(&fixture, INBOX), lines.concat());
        fixture.verify();
    }
}

#[test]
fn who_follows_a_log_with_tail_sees_every_line() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let lines = signed_lines(&fixture, 1, 6).remove(0);
    let seen = fixture.scratch().join("seen");
    let mut tail = bob
        .command("tail", &["-n", "+1", "-s", "0.05", "-F", INBOX])
        .stdout(fs::File::create(&seen).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for (n, line) in lines.iter().enumerate() {
        // Its own polling tells a shorter file by its size alone.
        if n == 4 {
            archive(&fixture);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        bob.append(INBOX, line);
        wait_until("tail shows the line", || fs::read_to_string(&seen).unwrap().lines().count() == n + 1);
    }
    assert_eq!(fs::read_to_string(&seen).unwrap(), lines.concat());
    crate::common::signal(tail.id(), "TERM");
    tail.wait().unwrap();
}

#[test]
fn eight_writers_lose_nothing_and_repeat_nothing_while_their_log_is_archived() {
    for passthrough in [&[][..], &["--no-passthrough"]] {
        let fixture = Fixture::new();
        let bob = fixture.mount_with(&[&["--as", "bob"], passthrough].concat());
        let lines = signed_lines(&fixture, 8, 150);
        std::thread::scope(|scope| {
            let writers: Vec<_> = lines
                .iter()
                .enumerate()
                .map(|(w, lines)| {
                    let path = bob.at(if w % 2 == 0 { INBOX } else { "bob_to_alice.jsonl" });
                    scope.spawn(move || {
                        let open = || fs::File::options().append(true).create(true).open(&path).unwrap();
                        // Half of them open the log for every line.
                        let mut held = open();
                        for line in lines {
                            let mut file = if w % 4 < 2 { open() } else { held.try_clone().unwrap() };
                            file.write_all(line.as_bytes()).unwrap();
                        }
                        held.flush().unwrap();
                    })
                })
                .collect();
            let mut archives = 0;
            while writers.iter().any(|writer| !writer.is_finished()) {
                run(Command::new(BATON).arg("archive").env("BATON_EXCHANGE", fixture.dir()), "").ok();
                archives += 1;
            }
            assert!(archives > 1, "the writers were done before the second archive");
        });
        let stored = whole(&fixture, INBOX);
        assert_eq!(json_lines(&stored).len(), 8 * 150);
        for (w, own) in lines.iter().enumerate() {
            let mark = format!("writer {w} line ");
            let found: Vec<&str> = stored.lines().filter(|line| line.contains(&mark)).collect();
            assert_eq!(found, own.iter().map(|line| line.trim_end()).collect::<Vec<_>>(), "writer {w}");
        }
        fixture.verify();
        // Still so when it is all archived and the daemon a new one.
        archive(&fixture);
        bob.umount();
        let bob = fixture.mount_as("bob");
        let again = lines[0].last().unwrap();
        fs::write(fixture.scratch().join("again"), again).unwrap();
        bob.refuses("cat $SCRATCH/again >> inbox/alice.jsonl", "File exists", "replay");
        bob.refuses("cat $SCRATCH/again >> inbox/alice.jsonl", "File exists", "replay");
        assert_eq!(bob.read(INBOX), "");
        fixture.verify();
    }
}

/// Where a kill may come: the system call, and the file that it is about.
const KILLS: &[(&str, &str)] = &[
    ("pwrite64", "archive/YEAR/inbox/.alice.jsonl.part"),
    ("fdatasync", "archive/YEAR/inbox/.alice.jsonl.part"),
    ("pwrite64", "events.jsonl"),
    ("fdatasync", "events.jsonl"),
    ("renameat2", "archive/YEAR/inbox/alice.jsonl"),
    ("ftruncate", "inbox/alice.jsonl"),
    ("fsync", "inbox/alice.jsonl"),
    ("rename", "private/index/inbox%2Falice.jsonl.ids"),
    ("rename", "private/index/events.checkpoint.1.new"),
];

#[test]
fn a_kill_between_any_two_steps_leaves_every_line_once() {
    let year = &fixture_year();
    for (call, path) in KILLS {
        let fixture = Fixture::new();
        let bob = fixture.mount_as("bob");
        let lines = signed_lines(&fixture, 1, 3).remove(0);
        for line in &lines[..2] {
            bob.append(INBOX, line);
        }
        bob.umount();
        wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
        let path = path.replace("YEAR", year);
        let killed = run(
            Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-P"])
                .arg(fixture.dir().join(&path))
                .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=KILL:when=1")])
                .args([BATON, "archive"])
                .env("BATON_EXCHANGE", fixture.dir()),
            "",
        );
        assert_eq!(killed.status, 128 + 9, "{call} {path}: {killed:?}");
        let bob = fixture.mount_as("bob");
        fixture.verify();
        assert_eq!(whole(&fixture, INBOX), lines[..2].concat(), "{call} {path}");
        fs::write(fixture.scratch().join("again"), &lines[0]).unwrap();
        bob.refuses("cat $SCRATCH/again >> inbox/alice.jsonl", "File exists", "replay");
        bob.append(INBOX, &lines[2]);
        archive(&fixture);
        assert_eq!(whole(&fixture, INBOX), lines.concat(), "{call} {path}");
        fixture.verify();
    }
}

/// The year that an archive of now is under.
fn fixture_year() -> String {
    String::from_utf8(Command::new("date").args(["-u", "+%Y"]).output().unwrap().stdout)
        .unwrap()
        .trim()
        .into()
}

#[test]
fn kills_while_writers_are_at_work_and_the_log_is_archived_lose_nothing_acknowledged() {
    let fixture = Fixture::new();
    let mut acknowledged: HashSet<String> = HashSet::new();
    let lines = signed_lines(&fixture, 10, 200);
    for round in 0..5 {
        let bob = fixture.mount_as("bob");
        let own = &lines[round * 2..round * 2 + 2];
        let done: Vec<Vec<String>> = std::thread::scope(|scope| {
            let writers: Vec<_> = own
                .iter()
                .map(|lines| {
                    let path = bob.at(INBOX);
                    scope.spawn(move || {
                        let write = |line: &&String| {
                            let file = fs::File::options().append(true).open(&path);
                            file.and_then(|mut file| file.write_all(line.as_bytes())).is_ok()
                        };
                        lines.iter().take_while(write).cloned().collect::<Vec<_>>()
                    })
                })
                .collect();
            // Each round is cut at another place.
            for _ in 0..=round {
                archive(&fixture);
            }
            let mut last = Command::new(BATON)
                .arg("archive")
                .env("BATON_EXCHANGE", fixture.dir())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(round as u64 * 7));
            fixture.kill_daemon();
            last.wait().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        acknowledged.extend(done.into_iter().flatten());
        bob.take_dead();
        let operator = fixture.mount_as_operator();
        fixture.verify();
        let stored = whole(&fixture, INBOX);
        let all: Vec<&str> = stored.lines().collect();
        let once: HashSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), once.len(), "round {round}: a line is there twice");
        for line in &acknowledged {
            assert!(once.contains(line.trim_end()), "round {round}: acknowledged but lost: {line}");
        }
        operator.umount();
    }
    assert!(acknowledged.len() > 20, "only {} lines were acknowledged", acknowledged.len());
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was_and_says_so() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob one >> inbox/alice.jsonl").ok();
    bob.umount();
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    let part = format!("archive/{}/inbox/.alice.jsonl.part", fixture_year());
    let bob = crate::faults::Faulty::mount_on(
        &fixture,
        &[&part],
        "pwrite64:error=ENOSPC:when=1+",
        &["--as", "bob"],
    );
    fixture.baton(&["archive"]).failed_with("inbox/alice.jsonl could not be archived: No space left");
    bob.bash("line bob two >> inbox/alice.jsonl").ok();
    assert_eq!(fs::read_to_string(fixture.dir().join(INBOX)).unwrap().lines().count(), 2);
    assert!(!fixture.dir().join(&part).exists());
    bob.umount();
    fixture.verify();
    archive(&fixture);
    assert_eq!(whole(&fixture, INBOX).lines().count(), 2);
    fixture.verify();
}

#[test]
fn a_log_whose_cut_fails_takes_nothing_until_the_next_start_has_finished_it() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob one >> inbox/alice.jsonl; line bob two > $SCRATCH/two").ok();
    bob.umount();
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    let bob =
        crate::faults::Faulty::mount_on(&fixture, &[INBOX], "ftruncate:error=EIO:when=1+", &["--as", "bob"]);
    fixture.baton(&["archive"]).failed_with("could not be archived");
    bob.bash("cat $SCRATCH/two >> inbox/alice.jsonl").failed_with("Input/output error");
    bob.bash("line bob three >> inbox/carol.jsonl").ok();
    bob.umount();
    let bob = fixture.mount_as("bob");
    fixture.verify();
    assert_eq!(bob.read(INBOX), "");
    bob.bash("cat $SCRATCH/two >> inbox/alice.jsonl").ok();
    assert_eq!(whole(&fixture, INBOX).lines().count(), 2);
    fixture.verify();
}

#[test]
fn a_folder_is_imported_and_exported_while_agents_write() {
    let fixture = Fixture::new();
    let old = fixture.scratch().join("old/_coordination");
    fs::create_dir_all(&old).unwrap();
    let lines = signed_lines(&fixture, 2, 100);
    fs::write(old.join("bob_to_alice.jsonl"), lines[0].concat()).unwrap();
    let bob = fixture.mount_as("bob");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    std::thread::scope(|scope| {
        let path = bob.at("bob_to_alice.jsonl");
        let own = &lines[1];
        let writer = scope.spawn(move || {
            let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
            own.iter().for_each(|line| file.write_all(line.as_bytes()).unwrap());
        });
        run(
            Command::new(BATON).args(["import", old.to_str().unwrap()]).env("BATON_EXCHANGE", fixture.dir()),
            "",
        )
        .ok();
        writer.join().unwrap();
    });
    assert_eq!(bob.read(INBOX).lines().count(), 200);
    assert_eq!(bob.read("bob_to_alice.jsonl").lines().count(), 200);
    fixture.verify();
    fixture.baton(&["export", "plain"]).ok();
    let plain = fixture.scratch().join("plain");
    assert_eq!(read(&plain.join(INBOX)), bob.read(INBOX));
    assert_eq!(read(&plain.join("trust.json")), bob.read("trust.json"));
    // The program that the folder was of reads it as before.
    fixture.bash("cd plain && jq -es 'map(.body) | length == 200' bob_to_alice.jsonl").ok();
}

#[test]
fn a_full_inbox_is_told_to_its_writers_and_goes_on_once_it_is_archived() {
    let fixture = Fixture::new();
    fixture.reconfigure(|text| text.replace("inbox_bytes = 4294967296", "inbox_bytes = 2000"));
    let bob = fixture.mount_as("bob");
    for n in 0..2 {
        bob.bash(&format!("line bob {n}{} >> inbox/alice.jsonl", "x".repeat(300))).ok();
    }
    let long = format!("line bob {} > $SCRATCH/long", "y".repeat(700));
    bob.bash(&long).ok();
    for log in [INBOX, "bob_to_alice.jsonl", "outbox/bob.jsonl"] {
        bob.refuses(&format!("cat $SCRATCH/long >> {log}"), "Disk quota exceeded", "quota");
        let advice = fixture.last_refusal()["advice"].to_string();
        assert!(advice.contains("baton archive") && advice.contains("-01-01T00:00:00Z"), "{advice}");
    }
    archive(&fixture);
    bob.bash("cat $SCRATCH/long >> bob_to_alice.jsonl").ok();
    assert_eq!(bob.read(INBOX), bob.read("bob_to_alice.jsonl"));
    fixture.verify();
}

#[test]
fn a_full_quarantine_keeps_no_more_until_the_operator_clears_it() {
    let fixture = Fixture::new();
    fixture.reconfigure(|text| text.replace("quarantine_bytes = 268435456", "quarantine_bytes = 8192"));
    let bob = fixture.mount_as("bob");
    let bad = "echo hello >> inbox/alice.jsonl";
    for _ in 0..2 {
        bob.refuses(bad, "Bad message", "json");
    }
    bob.refuses(bad, "Disk quota exceeded", "quota");
    let refusal = fixture.last_refusal();
    assert!(
        refusal["quarantine"].is_null() && refusal["advice"].as_str().unwrap().contains("json: "),
        "{refusal:#}"
    );
    bob.bash("line bob good >> inbox/alice.jsonl").ok();
    let said = fixture.baton(&["refusals", "clear", "--agent", "bob"]).ok();
    assert!(said.contains("2 refused writes of bob"), "{said}");
    bob.refuses(bad, "Bad message", "json");
    fixture.verify();
}
