//! Callers that are odd, greedy or hostile: each is refused or borne, and nobody else notices.

use crate::common::{BATON, CLIENTS, Fixture, Mount, count_from_env, run, wait_until};
use std::fs;
use std::process::Command;

/// The daemon's figure of this name in /proc/<pid>/status, in KiB.
fn memory(fixture: &Fixture, figure: &str) -> u64 {
    let pid = fixture.daemon_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

fn rules(mount: &Mount) -> Vec<String> {
    mount.refusals().iter().map(|refusal| refusal["rule"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_handoff_s_name_leaves_room_for_the_reason_of_its_rejection() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let alice = fixture.mount_as("alice");
    let too_long = "n=handoff/$(printf 'n%.0s' {1..228}).json";
    bob.refuses(&format!("{too_long}; handoff bob alice > $n"), "Message too long", "size");
    bob.refuses(
        &format!("{too_long}; handoff bob alice > handoff/.t.tmp; mv handoff/.t.tmp $n"),
        "Message too long",
        "size",
    );
    let longest = format!("{}.json", "n".repeat(227));
    // The first is rejected, the second withdrawn, the third expires: each beside the ones before.
    for (end, ttl) in [("reject", 60), ("withdraw", 60), ("expire", 1)] {
        let payload = fixture.handoff_for("bob", "alice", end, ttl);
        fs::write(bob.at("handoff").join(&longest), payload).unwrap();
        match end {
            "reject" => {
                fs::rename(alice.at("handoff").join(&longest), alice.at("rejected").join(&longest)).unwrap()
            }
            "withdraw" => fs::remove_file(bob.at("handoff").join(&longest)).unwrap(),
            _ => wait_until("it expires", || !bob.names("handoff").contains(&longest)),
        }
    }
    assert_eq!(bob.names("rejected").len(), 6, "{:?}", bob.names("rejected"));
    bob.umount();
    alice.umount();
    fixture.verify();
}

#[test]
fn no_handoff_takes_the_name_of_a_reason() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let alice = fixture.mount_as("alice");
    let refused = "Operation not permitted";
    bob.refuses("handoff bob alice > handoff/x.reason.json", refused, "transition");
    bob.refuses(
        "handoff bob alice > handoff/.t.tmp; mv handoff/.t.tmp handoff/x.json.reason.json",
        refused,
        "transition",
    );
    bob.bash("handoff bob alice > handoff/x.json").ok();
    for name in ["claimed/x.reason.json", "rejected/y.json.reason.json"] {
        alice.refuses(&format!("mv handoff/x.json {name}"), refused, "transition");
    }
    alice.bash("mv handoff/x.json rejected/").ok();
    assert!(bob.read("rejected/x.json.reason.json").contains("\"rejected\""));
}

#[test]
fn an_endless_line_is_refused_before_it_costs_memory() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let operator = fixture.mount_as_operator();
    bob.read("README.md");
    let before = memory(&fixture, "VmRSS:");
    // Two bytes each that are dozens once they are parsed, through several descriptors at once.
    let program = "
import os
fds = [os.open('inbox/alice.jsonl', os.O_WRONLY | os.O_APPEND) for _ in range(5)]
for fd in fds:
    os.write(fd, b'{\"a\":[')
    try:
        for _ in range(14):
            os.write(fd, b'0,' * (1 << 19))
        print('it took all of it')
    except OSError as e:
        print(e.strerror)
";
    let seen = bob.python(program).ok();
    assert!(!seen.contains("took"), "{seen}");
    assert!(rules(&bob).contains(&"size".to_owned()), "{:?}", rules(&bob));
    let grown = memory(&fixture, "VmHWM:") - before;
    assert!(grown < 400 * 1024, "the daemon grew by {grown} KiB");
    // Who is trusted, or carries what others signed, may write what has no end yet.
    operator.bash("head -c 3000000 /dev/zero | tr '\\0' x | (printf '{\"a\":\"'; cat) >> inbox/alice.jsonl");
    wait_until("what it left is recorded", || fixture.last_refusal()["rule"] == "partial");
}

#[test]
fn a_line_is_limited_as_a_whole_and_not_by_its_body_alone() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let write = "l=$(python3 -c 'import peer; print(peer.sign(\"bob\", peer.message(\"x\", extra=\"k\" * SIZE))[0], end=\"\")'); printf '%s\\n' \"$l\" | dd of=inbox/alice.jsonl bs=4M iflag=fullblock oflag=append conv=notrunc status=none";
    bob.bash(&write.replace("SIZE", "1000000")).ok();
    bob.bash(&write.replace("SIZE", "1100000")).failed_with("");
    assert!(rules(&bob).contains(&"size".to_owned()), "{:?}", rules(&bob));
    assert_eq!(bob.read("inbox/alice.jsonl").lines().count(), 1);
}

#[test]
fn drafts_are_limited_by_their_bytes_together() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let program = "
import os
block = b'x' * (1 << 20)
for n in range(100):
    try:
        fd = os.open(f'handoff/.{n}.tmp', os.O_WRONLY | os.O_CREAT)
        if n % 2: os.truncate(fd, len(block))
        else: assert os.write(fd, block) == len(block)
        os.close(fd)
    except OSError as e:
        print(n, e.strerror)
        break
for name in os.listdir('handoff'): os.unlink('handoff/' + name)
";
    assert_eq!(bob.python(program).ok().trim(), "64 Disk quota exceeded");
    assert_eq!(rules(&bob), ["rate"]);
    bob.bash("handoff bob alice > handoff/x.json").ok();
}

#[test]
fn a_large_folder_leaves_files_to_open_for_everybody_else() {
    const FILES: usize = 3000;
    let fixture = Fixture::new();
    let many = fixture.dir().join("credentials/claude/many");
    fs::create_dir_all(&many).unwrap();
    for n in 0..FILES {
        fs::write(many.join(n.to_string()), "").unwrap();
    }
    // The daemon of the first mount serves the second: one that may open few files, whatever this system allows.
    let first = fixture.new_mountpoint();
    let mut mount = Command::new("prlimit");
    mount.arg("--nofile=4096:4096").arg(BATON).arg("mount").arg(fixture.dir()).arg(&first);
    run(&mut mount, "").ok();
    let bob = fixture.mount_as("bob");
    fixture.umount(&first).ok();
    let files = format!("/proc/{}/fd", fixture.daemon_pid().unwrap());
    bob.bash("ls -l credentials/claude/many").ok();
    wait_until("the kernel has forgotten most of them", || fs::read_dir(&files).unwrap().count() < 1000);
    // What was forgotten is found again, and what is open stays.
    let program = "
import os
folder = 'credentials/claude/many/'
held = open(folder + '7', 'w')
held.write('kept')
for _ in range(2):
    for name in os.listdir(folder): os.stat(folder + name)
held.close()
print(open(folder + '7').read())
";
    assert_eq!(bob.python(program).ok().trim(), "kept");
}

#[test]
fn rename_leaves_no_whiteout_behind() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let program = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def whiteout(a, b):
    if libc.renameat2(-100, a, -100, b, 4): return os.strerror(ctypes.get_errno())
open('credentials/claude/f', 'w').close()
print(whiteout(b'credentials/claude/f', b'credentials/claude/g'))
print(whiteout(b'inbox/alice.jsonl', b'inbox/bob.jsonl'))
print(sorted(os.listdir('credentials/claude')))
";
    assert_eq!(bob.python(program).ok(), "Invalid argument\nInvalid argument\n['f']\n");
}

#[test]
fn a_descriptor_shared_by_two_processes_keeps_every_line_whole() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let program = "
import os, peer
lines = peer.sign('bob', *[peer.message(f'{n} ' + 'x' * (n * 37 % 5000)) for n in range(400)])
fd = os.open('inbox/alice.jsonl', os.O_WRONLY | os.O_APPEND)
children = []
for half in range(2):
    if not (child := os.fork()):
        for line in lines[half::2]: assert os.write(fd, line.encode()) == len(line)
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
os.close(fd)
assert sorted(open('inbox/alice.jsonl')) == sorted(lines)
";
    bob.python(program).ok();
    bob.umount();
    fixture.verify();
}

#[test]
fn who_stops_in_the_middle_of_a_line_or_a_file_stops_nobody_else() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let alice = fixture.mount_as("alice");
    bob.bash("slots").ok();
    let program = "
import os, signal
log = os.open('inbox/alice.jsonl', os.O_WRONLY | os.O_APPEND); os.write(log, b'{\"a\":')
draft = os.open('handoff/x.json', os.O_WRONLY | os.O_CREAT); os.write(draft, b'{\"a\":')
slot = os.open('credentials/claude/.credentials.json', os.O_WRONLY | os.O_TRUNC); os.write(slot, b'{')
listing = os.scandir('handoff'); next(listing, None)
print('stopping', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
";
    let mut stopped = bob.command("python3", &["-c", program]);
    let mut stopped =
        stopped.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut said = [0; 8];
    std::io::Read::read_exact(&mut stopped.stdout.take().unwrap(), &mut said).unwrap();
    bob.bash("line bob >> inbox/alice.jsonl; handoff bob alice > handoff/x.json; [ -s credentials/claude/.credentials.json ]").ok();
    bob.bash("login account-a 7777 > credentials/claude/.credentials.json").ok();
    alice.bash("mv handoff/x.json claimed/ && [ $(wc -l < inbox/alice.jsonl) = 1 ]").ok();
    // `timeout` leads the group that the client is in.
    Command::new("kill").args(["-9", "--", &format!("-{}", stopped.id())]).status().unwrap();
    let _ = stopped.kill();
    stopped.wait().unwrap();
    wait_until("what it left is recorded", || {
        rules(&bob).iter().filter(|rule| *rule == "partial").count() == 3
    });
}

#[test]
fn random_writes_everywhere_leave_the_exchange_sound() {
    let seconds = count_from_env("FUZZ_SECONDS", 3);
    let fixture = Fixture::new();
    let mounts: Vec<Mount> = ["alice", "bob", "carol"].map(|agent| fixture.mount_as(agent)).into();
    mounts[1].bash("slots").ok();
    let fuzzers: Vec<_> = [("alice", 0), ("bob", 1), ("carol", 2), ("bob", 1)]
        .iter()
        .enumerate()
        .map(|(seed, (agent, mount))| {
            let fuzz = format!("{CLIENTS}/fuzz.py");
            let args = [&fuzz, *agent, &seconds.to_string(), &seed.to_string()];
            mounts[*mount].command("python3", &args).spawn().unwrap()
        })
        .collect();
    for mut fuzzer in fuzzers {
        assert!(fuzzer.wait().unwrap().success());
    }
    for mount in mounts {
        mount.umount();
    }
    let log = fs::read_to_string(fixture.dir().join("private/daemon.log")).unwrap();
    assert!(!log.contains("defect"), "{log}");
    fixture.verify();
}
