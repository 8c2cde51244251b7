//! Load: nothing is lost, torn or interleaved; and kill -9 in its middle loses nothing acknowledged.

use crate::common::{CLIENTS, Fixture, Mount, count_from_env, json_lines, message, wait_until};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const WRITERS: usize = 8;

/// Signs `count` lines of one agent into a file.
fn signed_lines(fixture: &Fixture, file: &str, count: usize, body: &str) -> PathBuf {
    let objects: String = (0..count).map(|n| message(&format!("{body} {n}")) + "\n").collect();
    let path = fixture.scratch().join(file);
    fs::write(&path, fixture.sign("bob", &objects) + "\n").unwrap();
    path
}

fn start_writer(mount: &Mount, log: &str, lines: &Path, acknowledged: &Path) -> Child {
    let script = format!("{CLIENTS}/peer.py");
    let (lines, acknowledged) = (lines.to_str().unwrap(), acknowledged.to_str().unwrap());
    mount
        .command("python3", &[&script, "append-all", log, lines, acknowledged])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn line_count(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.matches('\n').count())
}

#[test]
fn eight_writers_lose_tear_and_interleave_nothing() {
    let count = count_from_env("BATON_TEST_LINES", 2000);
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let files: Vec<PathBuf> = (0..WRITERS)
        .map(|w| signed_lines(&fixture, &format!("lines{w}"), count, &format!("writer {w} line")))
        .collect();
    let writers: Vec<Child> = files
        .iter()
        .map(|lines| start_writer(&bob, "inbox/alice.jsonl", lines, &lines.with_extension("acknowledged")))
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let stored = bob.read("inbox/alice.jsonl");
    assert_eq!(json_lines(&stored).len(), WRITERS * count);
    let mut stored: Vec<&str> = stored.lines().collect();
    let sent: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // Each writer's own lines are in the order in which it wrote them.
    for (w, text) in sent.iter().enumerate() {
        let mark = format!("writer {w} line ");
        let own: Vec<&str> = stored.iter().copied().filter(|line| line.contains(&mark)).collect();
        assert_eq!(own, text.lines().collect::<Vec<_>>(), "writer {w}");
    }
    let mut sent: Vec<&str> = sent.iter().flat_map(|text| text.lines()).collect();
    stored.sort_unstable();
    sent.sort_unstable();
    assert_eq!(stored, sent);
    fixture.verify();
}

#[test]
fn a_kill_in_the_middle_of_the_load_loses_nothing_acknowledged() {
    let rounds = count_from_env("BATON_TEST_KILLS", 20);
    let fixture = Fixture::new();
    let log = "inbox/alice.jsonl";
    let mut acknowledged_files = Vec::new();
    let mut won = Vec::new();
    for round in 0..rounds {
        // `os` promises as much against a kill as `commit` does; only a power cut tells them apart.
        let durability = if round % 2 == 0 { "os" } else { "commit" };
        let bob = fixture.mount_with(&["--as", "bob", "--durability", durability]);
        let alice = fixture.mount_as("alice");
        bob.python(&format!(
            "import peer\nfor n in range(40):\n    open(f'handoff/{round}-{{n}}.json', 'w').write(peer.payload('bob', 'alice', caller=f'{round} {{n}}', ttl=3600))"
        ))
        .ok();
        let mut children = Vec::new();
        let mut round_files = Vec::new();
        for w in 0..4 {
            let lines = signed_lines(
                &fixture,
                &format!("lines-{round}-{w}"),
                300,
                &format!("round {round} writer {w} line"),
            );
            let acknowledged = lines.with_extension("acknowledged");
            children.push(start_writer(&bob, log, &lines, &acknowledged));
            round_files.push(acknowledged);
        }
        let claims = fixture.scratch().join(format!("claims-{round}"));
        let claimer = format!(
            "import peer\nwith open({claims:?}, 'a') as f:\n    for n in range(40):\n        if peer.claim(f'{round}-{{n}}.json'):\n            f.write(f'{round}-{{n}}.json\\n'); f.flush()"
        );
        children.push(alice.command("python3", &["-c", &claimer]).stderr(Stdio::null()).spawn().unwrap());
        // Each round is cut at another place: after 5, 30, 55, ... acknowledged lines.
        let cut = 5 + round * 25;
        wait_until("enough lines are acknowledged", || {
            round_files.iter().map(|f| line_count(f)).sum::<usize>() >= cut.min(600)
        });
        fixture.kill_daemon();
        for mut child in children {
            child.wait().unwrap();
        }
        bob.take_dead();
        alice.take_dead();
        acknowledged_files.extend(round_files);
        won.extend(fs::read_to_string(&claims).unwrap_or_default().lines().map(str::to_owned));

        let operator = fixture.mount_as_operator();
        let stored = operator.read(log);
        assert!(stored.is_empty() || stored.ends_with('\n'), "round {round}: the tail is torn");
        let stored: HashSet<&str> = stored.lines().collect();
        for file in &acknowledged_files {
            for line in fs::read_to_string(file).unwrap_or_default().lines() {
                assert!(stored.contains(line), "round {round}: acknowledged but lost: {line}");
            }
        }
        let claimed: HashSet<String> = operator.names("claimed").into_iter().collect();
        let pending: HashSet<String> = operator.names("handoff").into_iter().collect();
        for name in &won {
            assert!(claimed.contains(name), "round {round}: the claim of {name} was acknowledged but lost");
        }
        for n in 0..40 {
            let name = format!("{round}-{n}.json");
            assert!(
                claimed.contains(&name) != pending.contains(&name),
                "round {round}: {name} is in no state or in two"
            );
        }
        operator.umount();
        fixture.verify();
    }
}
