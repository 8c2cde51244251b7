//! Mounts as they come and go: raced for, in use, killed, in the foreground, on odd paths. Most are made on
//! folders that do not exist yet.

use crate::common::{BATON, Fixture, Mount, mounts_under, run, signal, wait_until};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const INBOX: &str = "inbox/alice.jsonl";

/// Mounts the exchange on a folder that `baton mount` has to make.
fn mount(fixture: &Fixture, name: &str, args: &[&str]) -> Mount {
    fixture.mount_at(fixture.root().join(name), args)
}

fn line(fixture: &Fixture, body: &str) -> String {
    fixture.line("bob", body) + "\n"
}

/// The process id that `baton status` gives.
fn daemon(fixture: &Fixture) -> u32 {
    fixture.status()["daemon"]["pid"].as_u64().unwrap().try_into().unwrap()
}

/// Waits until a process has ended. Says whether it succeeded.
#[track_caller]
fn succeeds(child: &mut Child) -> bool {
    let mut status = None;
    wait_until("the process has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().success()
}

#[test]
fn mounts_racing_to_start_the_daemon_all_succeed() {
    for _ in 0..5 {
        let fixture = Fixture::new();
        let mountpoints: Vec<PathBuf> = (0..4).map(|n| fixture.root().join(format!("race{n}"))).collect();
        let children: Vec<Child> = mountpoints
            .iter()
            .map(|mountpoint| {
                let mut command = fixture.mount_command(mountpoint, &[]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(fixture.status()["daemon"]["mounts"].as_array().unwrap().len(), 4);
        for mountpoint in &mountpoints {
            fixture.umount(mountpoint).ok();
        }
        assert!(!fixture.is_running());
    }
}

#[test]
fn the_umount_of_the_last_mount_ends_the_daemon_and_the_next_mount_finds_the_way_free() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        mount(&fixture, "mnt", &[]).umount();
        assert!(!fixture.is_running());
    }
    let log = fs::read_to_string(fixture.dir().join("private/daemon.log")).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn an_unmount_by_hand_counts_too() {
    let fixture = Fixture::new();
    let first = mount(&fixture, "first", &[]);
    let second = mount(&fixture, "second", &["--as", "bob"]);
    run(Command::new("umount").arg(first.path()), "").ok();
    wait_until("one mount is left", || {
        fixture.status()["daemon"]["mounts"].as_array().is_some_and(|mounts| mounts.len() == 1)
    });
    assert_eq!(fixture.status()["daemon"]["mounts"][0]["as"], "bob");
    run(Command::new("umount").arg(second.path()), "").ok();
    wait_until("the daemon has ended", || !fixture.is_running());
}

#[test]
fn a_mount_in_use_is_not_unmounted_and_the_error_says_what_to_do() {
    let fixture = Fixture::new();
    let mount = mount(&fixture, "mnt", &[]);
    let held = File::open(mount.at(INBOX)).unwrap();
    let said = fixture.umount(mount.path()).failed();
    assert!(said.contains("is in use"), "{said}");
    mount.append(INBOX, &line(&fixture, "still there"));
    drop(held);
    mount.umount();
}

#[test]
fn a_signal_ends_all_mounts_even_one_in_use() {
    for name in ["TERM", "INT"] {
        let fixture = Fixture::new();
        let first = mount(&fixture, "first", &[]);
        let _second = mount(&fixture, "second", &[]);
        let line = line(&fixture, "kept");
        first.append(INBOX, &line);
        let held = File::open(first.at(INBOX)).unwrap();
        signal(daemon(&fixture), name);
        wait_until("the daemon has ended", || !fixture.is_running());
        assert!(mounts_under(fixture.root()).is_empty());
        drop(held);
        let again = mount(&fixture, "first", &[]);
        assert_eq!(again.read(INBOX), line);
        again.umount();
    }
}

#[test]
fn a_foreground_mount_ends_with_its_signal_or_umount_and_leaves_the_others_alone() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.root().join(name);
    let answers = |name: &str| at(name).join("README.md").exists();
    let spawn = |name: &str| {
        let mut command = fixture.mount_command(&at(name), &["--foreground"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the tree answers", || answers(name));
        child
    };
    let mut first = spawn("first");
    assert_eq!(daemon(&fixture), first.id());
    let mut second = spawn("second");
    let mut third = spawn("third");
    signal(second.id(), "INT");
    assert!(succeeds(&mut second));
    assert!(!answers("second"));
    fixture.umount(&at("third")).ok();
    assert!(succeeds(&mut third));
    assert!(answers("first"));
    signal(first.id(), "TERM");
    assert!(succeeds(&mut first));
    assert!(mounts_under(fixture.root()).is_empty());
}

#[test]
fn what_a_killed_daemon_left_is_mounted_over_or_unmounted() {
    let fixture = Fixture::new();
    let mount = mount(&fixture, "mnt", &[]);
    let line = line(&fixture, "kept");
    mount.append(INBOX, &line);
    let kill = || {
        signal(daemon(&fixture), "KILL");
        wait_until("the daemon has ended", || !fixture.is_running());
    };
    for _ in 0..3 {
        kill();
        assert!(fs::metadata(mount.path()).is_err(), "a dead mount answers nothing");
        run(&mut fixture.mount_command(mount.path(), &[]), "").ok();
        assert_eq!(mount.read(INBOX), line);
    }
    kill();
    mount.umount();
    assert!(mounts_under(fixture.root()).is_empty());
}

#[test]
fn odd_and_long_paths_are_mounted_and_found_again() {
    let fixture = Fixture::named(&format!("odd, \\name/{}/exchange", "long".repeat(40)));
    let mount = mount(&fixture, "a mount, point", &[]);
    mount.append(INBOX, &line(&fixture, "one"));
    let mountpoint = mount.path().to_str().unwrap();
    assert_eq!(fixture.status()["daemon"]["mounts"][0]["mountpoint"], mountpoint);
    run(Command::new(BATON).args(["status", "--json", mountpoint]), "").ok();
    mount.umount();
}

#[test]
fn a_mount_that_can_not_be_says_why_and_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let refused = |mountpoint: PathBuf, args: &[&str], reason: &str| {
        let said = run(&mut fixture.mount_command(&mountpoint, args), "").failed();
        assert!(said.contains(reason), "{said}");
    };
    refused(fixture.root().join("mnt"), &["--as", "zed"], "alice, bob");
    assert!(!fixture.is_running());
    let mount = mount(&fixture, "mnt", &[]);
    refused(mount.path().to_owned(), &[], "already a mount");
    refused(fixture.dir().join("mnt"), &[], "inside the exchange");
    refused(fixture.root().to_owned(), &[], "would hide");
    let other = fixture.root().join("other");
    let told = run(&mut fixture.mount_command(&other, &["--durability", "os"]), "");
    assert_eq!(told.status, 0, "{told:?}");
    assert!(told.stderr.contains("keeps --durability commit"), "{}", told.stderr);
    fixture.umount(&other).ok();
}
