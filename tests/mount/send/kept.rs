//! What has been sent stays as it is: against its sender, a restart, a crash and a full disk.

use super::Pair;
use crate::common::{Fixture, wait_until};
use crate::faults::{Faulty, recover};
use std::fs;

#[test]
fn what_has_been_sent_stays_as_it_is() {
    let pair = Pair::new();
    pair.bob.bash("echo first > send/alice/x.md").ok();
    for script in [
        "echo second > send/alice/x.md",
        "echo second >> send/alice/x.md",
        "cp README.md send/alice/x.md",
        "truncate -s 0 send/alice/x.md",
        "rm -f send/alice/x.md",
        "mv send/alice/x.md send/alice/y.md",
        "mv send/alice/x.md send/carol/x.md",
        "mv send/alice/x.md handoff/x.json",
        "ln send/alice/x.md send/alice/y.md",
        "echo second > send/alice/t; mv -f send/alice/t send/alice/x.md",
        "fallocate -l 9 send/alice/x.md",
        "sed -i s/first/second/ send/alice/x.md",
    ] {
        pair.bob.refuses(script, "Operation not permitted", "immutable");
        assert!(pair.fixture.last_refusal()["advice"].as_str().unwrap().contains("another name"), "{script}");
    }
    pair.bob.refuses_python("open('send/alice/x.md', 'r+')", "Operation not permitted", "immutable");
    pair.bob.refuses_node("fs.writeFileSync('send/alice/x.md', 'second')", "EPERM", "immutable");
    pair.bob.refuses("vi -u NONE -es -c '%d' -c 'normal isecond' -c 'wq!' send/alice/x.md", "", "immutable");
    pair.is_last("x.md");
    assert_eq!(pair.bodies(), ["first"]);
    pair.bob.bash("setfattr -n user.x -v y send/alice/x.md").failed_with("not supported");
    // Programs give copies modes and times after the fact.
    pair.bob.bash("chmod 644 send/alice/x.md && touch -d 2001-01-01 send/alice/x.md && [ ! -w send/alice/x.md ] || [ $(stat -c %a send/alice/x.md) = 444 ]").ok();
    pair.is_last("x.md");
    assert!(pair.names().contains(&"t".to_owned()), "what could not be renamed over it is kept");
    pair.bob.bash("mv send/alice/t send/alice/z.md").ok();
    assert_eq!(pair.bodies(), ["first", "second"]);
}

#[test]
fn each_sender_has_names_of_its_own_and_the_operator_sees_all() {
    let pair = Pair::new();
    let (carol, operator) = (pair.fixture.mount_as("carol"), pair.fixture.mount_as_operator());
    pair.bob.bash("echo from bob > send/alice/note.md").ok();
    carol.bash("[ ! -e send/alice/note.md ] && echo from carol > send/alice/note.md && echo draft > send/alice/d").ok();
    assert_eq!(pair.bodies(), ["from bob", "from carol"]);
    assert_eq!(
        (pair.names(), carol.names("send/alice")),
        (vec!["note.md".to_owned()], vec!["d".into(), "note.md".into()])
    );
    assert_eq!(pair.alice.names("send/alice"), Vec::<String>::new());
    assert_eq!(operator.names("send"), ["alice", "bob", "carol"]);
    assert_eq!(operator.names("send/alice"), ["bob:note.md", "carol:note.md"]);
    assert_eq!(operator.read("send/alice/carol:note.md"), carol.read("send/alice/note.md"));
    assert_eq!(
        fs::read_to_string(pair.fixture.dir().join("send/alice/bob/note.md")).unwrap(),
        pair.bob.read("send/alice/note.md")
    );
    operator.refuses("rm -f send/alice/bob:note.md", "Operation not permitted", "immutable");
    operator.refuses("echo x > send/alice/x.md", "Permission denied", "authority");
    operator.bash("ls send/alice/bob:.. send/alice/bob: send/alice/zoe:note.md").failed_with("No such file");
    pair.bob.refuses("mkdir send/zoe", "Operation not permitted", "read-only");
    pair.bob.refuses("echo x > send/x.md", "Operation not permitted", "read-only");
    assert!(pair.fixture.last_refusal()["advice"].as_str().unwrap().contains("send/<agent>/"));
    pair.bob.bash("echo x > send/zoe/x.md").failed_with("No such file or directory");
    pair.bob.refuses("rmdir send/alice", "Operation not permitted", "read-only");
    pair.bob.refuses("mkdir send/alice/folder", "Operation not permitted", "read-only");
    pair.fixture.verify();
}

#[test]
fn what_has_been_sent_outlives_the_daemon_and_drafts_do_not() {
    let mut pair = Pair::new();
    pair.bob.bash("echo one > send/alice/one.md; echo draft > send/alice/draft").ok();
    for kill in [false, true] {
        let line = pair.bob.read("send/alice/one.md");
        let Pair { fixture, bob, alice } = pair;
        if kill {
            fixture.kill_daemon();
            bob.take_dead();
            alice.take_dead();
        } else {
            bob.umount();
            alice.umount();
            wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
        }
        pair = Pair { bob: fixture.mount_as("bob"), alice: fixture.mount_as("alice"), fixture };
        assert_eq!(pair.names(), ["one.md"]);
        assert_eq!(pair.bob.read("send/alice/one.md"), line);
        pair.bob.refuses("echo two > send/alice/one.md", "Operation not permitted", "immutable");
        assert_eq!(pair.bodies(), ["one"]);
    }
    pair.fixture.verify();
}

#[test]
fn a_crash_on_the_way_sends_a_letter_whole_or_not_at_all() {
    // The system call in which the daemon is killed, and on which file; whether the letter was sent.
    for (path, injection, sent) in [
        ("", "renameat2:signal=KILL:when=1", true),
        ("outbox/bob.jsonl", "pwrite64:signal=KILL:when=1", false),
        ("outbox/bob.jsonl", "fdatasync:signal=KILL:when=1", true),
    ] {
        let fixture = Fixture::new();
        let bob = Faulty::mount(&fixture, path, injection);
        bob.bash("echo hello > send/alice/x.md");
        bob.take_dead();
        recover(&fixture).umount();
        let pair = Pair { bob: fixture.mount_as("bob"), alice: fixture.mount_as("alice"), fixture };
        if sent {
            assert_eq!(pair.bodies(), ["hello"], "{injection}");
            pair.is_last("x.md");
            pair.bob.refuses("echo again > send/alice/x.md", "Operation not permitted", "immutable");
        } else {
            assert_eq!((pair.bodies().len(), pair.names().len()), (0, 0), "{injection}");
            let refusal = pair.bob.refusals().pop().unwrap();
            assert_eq!((&refusal["rule"], &refusal["path"]), (&"partial".into(), &"send/alice/x.md".into()));
            pair.bob.bash("echo again > send/alice/x.md").ok();
            pair.is_last("x.md");
        }
        let staged = fs::read_dir(pair.fixture.dir().join("private/sending/alice/bob")).unwrap().count();
        assert_eq!(staged, 0);
        pair.fixture.verify();
    }
}

#[test]
fn a_full_disk_keeps_the_draft_for_another_try() {
    let fixture = Fixture::new();
    let bob = Faulty::mount(&fixture, "outbox/bob.jsonl", "pwrite64:error=ENOSPC:when=1");
    bob.bash("printf hello > $SCRATCH/f; cp $SCRATCH/f send/alice/x.md")
        .failed_with("No space left on device");
    bob.bash("[ $(cat send/alice/x.md) = hello ] && [ ! -s inbox/alice.jsonl ]").ok();
    // The fault comes once in each of the daemon's threads.
    bob.bash(
        "for n in $(seq 100); do mv send/alice/x.md send/alice/y.md 2> $SCRATCH/err && break; done
         [ ! -e send/alice/x.md ] && grep -q hello send/alice/y.md && [ $(wc -l < inbox/alice.jsonl) = 1 ]",
    )
    .ok();
    bob.umount();
    fixture.verify();
}
