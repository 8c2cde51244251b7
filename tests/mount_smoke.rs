//! The process model and the adapter through real mounts: what comes, goes and is fresh. What the rules refuse is
//! tested elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BATON: &str = env!("CARGO_BIN_EXE_baton");

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World::named("exchange")
    }

    fn named(exchange: &str) -> Self {
        let world = World { folder: tempfile::tempdir().unwrap() };
        fs::write(world.folder.path().join("name"), exchange).unwrap();
        fs::create_dir_all(world.exchange().parent().unwrap()).unwrap();
        let made = Command::new(BATON)
            .arg("init")
            .arg(world.exchange())
            .args(["--agent", "alice", "--agent", "bob"])
            .output()
            .unwrap();
        succeeded(&made);
        world
    }

    fn exchange(&self) -> PathBuf {
        let name = fs::read_to_string(self.folder.path().join("name")).unwrap();
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mount_command(&self, mountpoint: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(BATON);
        command.arg("mount").arg(self.exchange()).arg(mountpoint).args(options);
        command
    }

    fn mount(&self, name: &str, options: &[&str]) -> Mount {
        let at = self.at(name);
        succeeded(&self.mount_command(&at, options).output().unwrap());
        Mount { at }
    }

    fn line(&self, body: &str) -> String {
        let mut sign = Command::new(BATON)
            .args(["sign", "--as", "bob", "--exchange"])
            .arg(self.exchange())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let message = serde_json::json!({"type": "request", "subject": "test", "body": body});
        sign.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
        let output = sign.wait_with_output().unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let output = Command::new(BATON).args(["status", "--json"]).arg(self.exchange()).output().unwrap();
        succeeded(&output);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn daemon(&self) -> i32 {
        self.status()["daemon"]["pid"].as_i64().unwrap() as i32
    }

    fn is_running(&self) -> bool {
        self.status()["running"].as_bool().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mountpoint in mounts_under(self.folder.path()) {
            let _ = Command::new("umount").arg("-l").arg(mountpoint).status();
        }
    }
}

struct Mount {
    at: PathBuf,
}

impl Mount {
    fn log(&self) -> PathBuf {
        self.at.join("inbox/alice.jsonl")
    }

    fn append(&self, line: &str) {
        OpenOptions::new().append(true).open(self.log()).unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn umount(&self) -> Output {
        Command::new(BATON).arg("umount").arg(&self.at).output().unwrap()
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mounts_under(folder: &Path) -> Vec<PathBuf> {
    let found = batonfs::daemon::mount_table::mounted_exchanges().unwrap();
    found.into_iter().map(|mount| mount.mountpoint).filter(|path| path.starts_with(folder)).collect()
}

fn signal(pid: i32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap().success());
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 30 s in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn wait_for_exit(child: &mut Child) -> bool {
    let mut status = None;
    wait_until("the process has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().success()
}

#[test]
fn readers_who_have_read_to_the_end_see_an_append_at_once_with_and_without_passthrough() {
    for options in [&[][..], &["--no-passthrough"]] {
        let world = World::new();
        let first = world.mount("first", options);
        let second = world.mount("second", options);
        let mut expected = String::new();
        let mut readers: Vec<File> =
            [&first, &second].into_iter().map(|mount| File::open(mount.log()).unwrap()).collect();
        for round in 0..20 {
            let line = world.line(&format!("round {round}"));
            [&first, &second][round % 2].append(&line);
            expected.push_str(&line);
            for (reader, mount) in readers.iter_mut().zip([&first, &second]) {
                let mut rest = String::new();
                reader.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, line);
                assert_eq!(reader.metadata().unwrap().len(), expected.len() as u64);
                assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), expected.len() as u64);
                assert_eq!(fs::read_to_string(mount.log()).unwrap(), expected);
                assert_eq!(fs::metadata(mount.log()).unwrap().len(), expected.len() as u64);
            }
        }
    }
}

#[test]
fn the_tree_answers_under_coordination_with_the_same_files_and_directories_of_their_own() {
    let world = World::new();
    let mount = world.mount("mnt", &[]);
    let alias = mount.at.join("_coordination");
    mount.append(&world.line("one"));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    for file in ["inbox/alice.jsonl", "decisions.jsonl", "trust.json"] {
        assert_eq!(fs::read(alias.join(file)).unwrap(), fs::read(mount.at.join(file)).unwrap());
        assert_eq!(inode(&alias.join(file)), inode(&mount.at.join(file)));
    }
    for folder in ["", "inbox", "handoff", "credentials"] {
        assert_ne!(inode(&alias.join(folder)), inode(&mount.at.join(folder)));
    }
    let names = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(names(&mount.at).contains(&"_coordination".into()));
    assert!(!names(&alias).contains(&"_coordination".into()));
    assert!(!alias.join("_coordination").exists());
    fs::create_dir(mount.at.join("credentials/claude/notes")).unwrap();
    fs::write(alias.join("credentials/claude/notes/a"), "text").unwrap();
    assert_eq!(fs::read_to_string(mount.at.join("credentials/claude/notes/a")).unwrap(), "text");
    fs::remove_dir_all(alias.join("credentials/claude/notes")).unwrap();
}

#[test]
fn an_ordinary_file_is_read_written_mapped_and_truncated_in_both_modes() {
    for options in [&[][..], &["--no-passthrough"]] {
        let world = World::new();
        let mount = world.mount("mnt", options);
        fs::create_dir(mount.at.join("credentials/claude/work")).unwrap();
        let path = mount.at.join("credentials/claude/work/data");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all_at(b"hello world", 0).unwrap();
        let mut other = File::open(&path).unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
        file.set_len(5).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
        let mapped = "import mmap,sys\n\
            f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); m[0:1]=b'J'; m.flush(); m.close(); f.close()";
        let python = Command::new("python3").args(["-c", mapped]).arg(&path).output().unwrap();
        succeeded(&python);
        assert_eq!(fs::read_to_string(&path).unwrap(), "Jello");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert_eq!(
            fs::read_to_string(world.exchange().join("credentials/claude/work/data")).unwrap(),
            "Jello!"
        );
        fs::rename(&path, mount.at.join("credentials/claude/work/moved")).unwrap();
        drop((file, other));
        fs::remove_dir_all(mount.at.join("credentials/claude/work")).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_directory_is_removed_with_all_its_names_while_it_is_being_listed() {
    let world = World::new();
    let mount = world.mount("mnt", &[]);
    let folder = mount.at.join("credentials/claude/many");
    fs::create_dir(&folder).unwrap();
    for n in 0..3000 {
        File::create(folder.join(format!("a-file-with-quite-a-long-name-{n}"))).unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3000);
    let removed = Command::new("rm").arg("-r").arg(&folder).output().unwrap();
    succeeded(&removed);
    assert!(!folder.exists());
}

#[test]
fn two_mounts_racing_to_start_the_daemon_both_succeed() {
    for _ in 0..5 {
        let world = World::new();
        let children: Vec<Child> = (0..4)
            .map(|n| {
                let mut command = world.mount_command(&world.at(&format!("mnt{n}")), &[]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            succeeded(&child.wait_with_output().unwrap());
        }
        assert_eq!(world.status()["daemon"]["mounts"].as_array().unwrap().len(), 4);
        for n in 0..4 {
            succeeded(&Mount { at: world.at(&format!("mnt{n}")) }.umount());
        }
        assert!(!world.is_running());
    }
}

#[test]
fn the_umount_of_the_last_mount_ends_the_daemon_and_the_next_mount_finds_the_way_free() {
    let world = World::new();
    for _ in 0..10 {
        let mount = world.mount("mnt", &[]);
        succeeded(&mount.umount());
        assert!(!world.is_running());
    }
    let log = fs::read_to_string(world.exchange().join("private/daemon.log")).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn an_unmount_by_hand_counts_too() {
    let world = World::new();
    let first = world.mount("first", &[]);
    let second = world.mount("second", &["--as", "bob"]);
    succeeded(&Command::new("umount").arg(&first.at).output().unwrap());
    wait_until("one mount is left", || {
        world.status()["daemon"]["mounts"].as_array().is_some_and(|mounts| mounts.len() == 1)
    });
    assert_eq!(world.status()["daemon"]["mounts"][0]["as"], "bob");
    succeeded(&Command::new("umount").arg(&second.at).output().unwrap());
    wait_until("the daemon has ended", || !world.is_running());
}

#[test]
fn a_mount_in_use_is_not_unmounted_and_the_error_says_what_to_do() {
    let world = World::new();
    let mount = world.mount("mnt", &[]);
    let held = File::open(mount.log()).unwrap();
    let refused = mount.umount();
    assert!(!refused.status.success());
    assert!(said(&refused).contains("is in use"), "{}", said(&refused));
    mount.append(&world.line("still there"));
    drop(held);
    succeeded(&mount.umount());
}

#[test]
fn a_signal_ends_all_mounts_even_one_in_use() {
    for name in ["TERM", "INT"] {
        let world = World::new();
        let first = world.mount("first", &[]);
        world.mount("second", &[]);
        let line = world.line("kept");
        first.append(&line);
        let held = File::open(first.log()).unwrap();
        signal(world.daemon(), name);
        wait_until("the daemon has ended", || !world.is_running());
        assert!(mounts_under(world.folder.path()).is_empty());
        drop(held);
        let again = world.mount("first", &[]);
        assert_eq!(fs::read_to_string(again.log()).unwrap(), line);
        succeeded(&again.umount());
    }
}

#[test]
fn a_foreground_mount_ends_with_its_signal_or_umount_and_leaves_the_others_alone() {
    let world = World::new();
    let spawn = |name: &str| {
        let mut command = world.mount_command(&world.at(name), &["--foreground"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the tree answers", || world.at(name).join("README.md").exists());
        child
    };
    let mut daemon = spawn("first");
    assert_eq!(world.daemon(), daemon.id() as i32);
    let mut second = spawn("second");
    let mut third = spawn("third");
    signal(second.id() as i32, "INT");
    assert!(wait_for_exit(&mut second));
    assert!(!world.at("second/README.md").exists());
    succeeded(&Mount { at: world.at("third") }.umount());
    assert!(wait_for_exit(&mut third));
    assert!(world.at("first/README.md").exists());
    signal(daemon.id() as i32, "TERM");
    assert!(wait_for_exit(&mut daemon));
    assert!(mounts_under(world.folder.path()).is_empty());
}

#[test]
fn what_a_killed_daemon_left_is_mounted_over_or_unmounted() {
    let world = World::new();
    let mount = world.mount("mnt", &[]);
    let line = world.line("kept");
    mount.append(&line);
    for _ in 0..3 {
        signal(world.daemon(), "KILL");
        wait_until("the daemon has ended", || !world.is_running());
        assert!(fs::metadata(&mount.at).is_err(), "a dead mount answers nothing");
        world.mount("mnt", &[]);
        assert_eq!(fs::read_to_string(mount.log()).unwrap(), line);
    }
    signal(world.daemon(), "KILL");
    wait_until("the daemon has ended", || !world.is_running());
    succeeded(&mount.umount());
    assert!(mounts_under(world.folder.path()).is_empty());
}

#[test]
fn odd_and_long_paths_are_mounted_and_found_again() {
    let world = World::named(&format!("odd, \\name/{}/exchange", "long".repeat(40)));
    let mount = world.mount("a mount, point", &[]);
    mount.append(&world.line("one"));
    let status = world.status();
    assert_eq!(status["daemon"]["mounts"][0]["mountpoint"], mount.at.to_str().unwrap());
    let by_mount = Command::new(BATON).args(["status", "--json"]).arg(&mount.at).output().unwrap();
    succeeded(&by_mount);
    succeeded(&mount.umount());
}

#[test]
fn a_mount_that_can_not_be_says_why_and_leaves_nothing_behind() {
    let world = World::new();
    let refused = world.mount_command(&world.at("mnt"), &["--as", "zed"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(said(&refused).contains("alice, bob"), "{}", said(&refused));
    assert!(!world.is_running());
    let mount = world.mount("mnt", &[]);
    for (mountpoint, reason) in [
        (mount.at.clone(), "already a mount"),
        (world.exchange().join("mnt"), "inside the exchange"),
        (world.folder.path().to_owned(), "would hide"),
    ] {
        let refused = world.mount_command(&mountpoint, &[]).output().unwrap();
        assert!(!refused.status.success());
        assert!(said(&refused).contains(reason), "{}", said(&refused));
    }
    let told = world.mount_command(&world.at("other"), &["--durability", "os"]).output().unwrap();
    succeeded(&told);
    assert!(said(&told).contains("keeps --durability commit"), "{}", said(&told));
}
