//! The daemon: one per exchange, ended by its last umount, repaired after anything.

use crate::common::{BATON, Fixture, is_mounted, run, signal, wait_until};
use std::fs;
use std::io::Write as _;
use std::process::Command;

#[test]
fn one_daemon_serves_every_mount_and_ends_with_the_last() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let pid = fixture.daemon_pid().expect("a daemon holds the lock");
    let alice = fixture.mount_as("alice");
    assert_eq!(fixture.daemon_pid(), Some(pid));
    bob.umount();
    assert_eq!(fixture.daemon_pid(), Some(pid), "one mount is left");
    alice.read("README.md");
    alice.umount();
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
}

#[test]
fn sigterm_and_sigint_unmount_cleanly() {
    for name in ["TERM", "INT"] {
        let fixture = Fixture::new();
        let bob = fixture.mount_as("bob");
        let alice = fixture.mount_as("alice");
        bob.bash("line bob >> inbox/alice.jsonl").ok();
        let pid = fixture.daemon_pid().unwrap();
        signal(pid, name);
        wait_until("both mounts are gone", || !is_mounted(bob.path()) && !is_mounted(alice.path()));
        wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
        fixture.verify();
    }
}

#[test]
fn mount_returns_once_the_tree_answers() {
    let fixture = Fixture::new();
    for _ in 0..5 {
        let bob = fixture.mount_as("bob");
        assert!(bob.names("").contains(&"inbox".to_owned()));
        bob.umount();
    }
}

#[test]
fn a_mount_is_no_less_a_mount_where_its_message_can_not_be_written() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mount = |args: &[&str]| {
        let mut command = fixture.mount_command(&mountpoint, &["--as", "bob"]);
        command.args(args).stdout(full()).stderr(full());
        command
    };
    let umount = || Command::new(BATON).arg("umount").arg(&mountpoint).stdout(full()).status().unwrap();

    assert!(mount(&[]).status().unwrap().success());
    assert!(mountpoint.join("inbox").is_dir());
    assert!(umount().success());

    // Here the process that can't write is the daemon.
    let mut child = mount(&["--foreground"]).spawn().unwrap();
    wait_until("the tree answers", || mountpoint.join("inbox").is_dir());
    let written =
        fs::File::options().append(true).open(mountpoint.join("inbox/alice.jsonl")).unwrap().write(b"x");
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EBADMSG), "a refusal that can't be logged");
    assert!(umount().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_daemon_that_goes_by_an_older_exchange_toml_says_so() {
    const TEXT: &str =
        "exchange.toml has changed since the daemon read it: unmount every mount of this exchange";
    let fixture = Fixture::new();
    let says = |args: &[&str]| {
        let mountpoint = fixture.new_mountpoint();
        let output = run(&mut fixture.mount_command(&mountpoint, args), "");
        let said = output.stderr.contains(TEXT);
        if output.status == 0 {
            fixture.umount(&mountpoint).ok();
        }
        (output.status, said)
    };
    let status = || fixture.baton(&["status"]).ok().contains(TEXT);
    let bob = fixture.mount_as("bob");
    assert_eq!(says(&[]), (0, false));
    assert!(!status());
    assert_eq!(fixture.status()["daemon"]["config_changed"], false);
    fixture.reconfigure(|text| text + "\n[agents.zed]\n");
    assert_eq!(says(&[]), (0, true));
    assert_eq!(says(&["--as", "zed"]), (1, true), "the daemon does not know zed");
    assert!(status());
    assert_eq!(fixture.status()["daemon"]["config_changed"], true);
    bob.umount();
    assert_eq!(says(&["--as", "zed"]), (0, false));
    fixture.reconfigure(|text| text.replace("\n[agents.zed]\n", ""));
    let _bob = fixture.mount_as("bob");
    assert!(!status());
}

#[test]
fn mounting_a_mount_names_the_folder_to_mount() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let output = fixture.baton(&["mount", bob.path().to_str().unwrap(), "elsewhere"]);
    output.failed_with(&format!("is a mount of {}", fixture.dir().display()));
}

#[test]
fn a_foreground_mount_ends_with_its_signal() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    let mut child = fixture
        .mount_command(&mountpoint, &["--as", "bob", "--foreground"])
        .stderr(fs::File::create(fixture.scratch().join("log")).unwrap())
        .spawn()
        .unwrap();
    wait_until("the tree answers", || mountpoint.join("inbox").is_dir());
    signal(child.id(), "TERM");
    child.wait().unwrap();
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn status_and_verify_speak_of_a_running_exchange() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob >> inbox/alice.jsonl").ok();
    let dir = fixture.dir();
    let status = fixture.baton(&["status", dir.to_str().unwrap()]).ok();
    assert!(status.contains(bob.path().to_str().unwrap()), "{status}");
    assert!(fixture.is_running());
    fixture.verify();
}

#[test]
fn a_killed_daemon_leaves_an_exchange_that_mounts_again() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob > $SCRATCH/line; cat $SCRATCH/line >> inbox/alice.jsonl; handoff bob alice > handoff/x.json").ok();
    fixture.kill_daemon();
    // From outside: not even the folder of a dead mount can be entered.
    let log = bob.at("inbox/alice.jsonl");
    fixture.bash(&format!("cat {}", log.display())).failed_with("Transport endpoint is not connected");
    bob.take_dead();
    fixture.verify();
    let bob = fixture.mount_as("bob");
    assert_eq!(bob.read("inbox/alice.jsonl").lines().count(), 1);
    assert_eq!(bob.names("handoff"), ["x.json"]);
    bob.refuses("cat $SCRATCH/line >> inbox/alice.jsonl", "File exists", "replay");
}

#[test]
fn umount_takes_a_dead_mount_away() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    fixture.kill_daemon();
    bob.umount();
}

#[test]
fn a_torn_tail_is_repaired_and_reported() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob 1 >> inbox/alice.jsonl; line bob 2 > $SCRATCH/line").ok();
    fixture.kill_daemon();
    bob.take_dead();
    // What a crash in the middle of the store's write leaves behind.
    let log = fixture.dir().join("inbox/alice.jsonl");
    let whole = fs::read_to_string(&log).unwrap();
    let torn = fs::read_to_string(fixture.scratch().join("line")).unwrap();
    fs::write(&log, format!("{whole}{}", &torn[..torn.len() / 2])).unwrap();
    let bob = fixture.mount_as("bob");
    assert_eq!(bob.read("inbox/alice.jsonl"), whole);
    bob.bash("cat $SCRATCH/line >> inbox/alice.jsonl").ok();
    assert_eq!(bob.read("inbox/alice.jsonl").lines().count(), 2);
    let events = fs::read_to_string(fixture.dir().join("events.jsonl")).unwrap();
    assert!(
        events.contains("inbox/alice.jsonl") && (events.contains("repair") || events.contains("torn")),
        "{events}"
    );
    fixture.verify();
}

macro_rules! behind_the_mounts_back {
    ($($name:ident: $change:expr => $found:literal;)*) => {$(
        #[test]
        fn $name() {
            let fixture = Fixture::new();
            let bob = fixture.mount_as("bob");
            bob.bash("for n in 1 2 3; do line bob number-$n >> inbox/alice.jsonl; done; handoff bob alice > handoff/x.json").ok();
            bob.umount();
            wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
            fixture.verify();
            fixture.bash(&format!("cd $EXCHANGE && {}", $change)).ok();
            fixture.baton(&["verify", fixture.dir().to_str().unwrap()]).failed_with($found);
        }
    )*};
}

behind_the_mounts_back! {
    verify_finds_a_changed_line: "sed -i s/number-2/number-9/ inbox/alice.jsonl" => "inbox/alice.jsonl";
    verify_finds_a_dropped_line: "sed -i 2d inbox/alice.jsonl" => "inbox/alice.jsonl";
    verify_finds_lines_in_another_order: "sed -i '1{h;d};2{G}' inbox/alice.jsonl" => "inbox/alice.jsonl";
    verify_finds_a_changed_event: "sed -i '2s/bob/rob/' events.jsonl" => "events.jsonl";
    verify_finds_a_dropped_event: "sed -i 2d events.jsonl" => "events.jsonl";
    verify_finds_events_in_another_order: "sed -i '2{h;d};3{G}' events.jsonl" => "events.jsonl";
    verify_finds_a_changed_handoff: "sed -i s/test/best/ handoff/x.json" => "handoff/x.json";
}

#[test]
fn a_bad_config_stops_the_mount_with_the_mend() {
    let fixture = Fixture::new();
    fixture.configure("this is not toml = = =");
    let mountpoint = fixture.new_mountpoint();
    fixture
        .baton(&["mount", fixture.dir().to_str().unwrap(), mountpoint.to_str().unwrap()])
        .failed_with("exchange.toml");
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn a_bad_trust_list_stops_the_mount_with_the_mend() {
    let fixture = Fixture::new();
    fs::write(fixture.dir().join("trust.json"), "{").unwrap();
    let mountpoint = fixture.new_mountpoint();
    fixture
        .baton(&["mount", fixture.dir().to_str().unwrap(), mountpoint.to_str().unwrap()])
        .failed_with("trust.json");
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn mounting_where_nothing_can_be_mounted_says_what_to_do() {
    let fixture = Fixture::new();
    let dir = fixture.dir();
    fixture.baton(&["mount", dir.to_str().unwrap(), "/dev/null/mnt"]).failed_with("/dev/null/mnt");
    let file = fixture.scratch().join("file");
    fs::write(&file, "").unwrap();
    fixture.baton(&["mount", dir.to_str().unwrap(), file.to_str().unwrap()]).failed_with("file");
    fixture
        .baton(&["mount", "/nonexistent/exchange", fixture.new_mountpoint().to_str().unwrap()])
        .failed_with("/nonexistent/exchange");
}
