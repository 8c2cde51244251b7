//! Ordinary files behave as on the disk below: a public conformance suite and scripts run in both places and compared.

use crate::common::{Fixture, Mount, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENT: &str = include_str!("../../mount/SEMANTICS.md");
const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/pjdfstest");

/// Users of every machine, between whom the suite switches where it is run by root.
const SUITE_CONFIG: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An exchange that other users can reach, and whose agents they are where that can be tried.
fn for_several_users() -> Fixture {
    let fixture = Fixture::new();
    if is_root() {
        fs::set_permissions(fixture.root(), Permissions::from_mode(0o755)).unwrap();
        fixture.configure_agent("alice", "uid = 65534");
        fixture.configure_agent("bob", "uid = 1");
    }
    fixture
}

/// The cases of the suite, each with what came of it there: `ok`, `skipped` or `FAILED`.
fn suite_in(fixture: &Fixture, folder: &Path) -> BTreeMap<String, String> {
    assert!(Path::new(SUITE).exists(), "{SUITE} is missing: scripts/test installs it");
    let config = fixture.scratch().join("pjdfstest.toml");
    fs::write(&config, SUITE_CONFIG).unwrap();
    // A socket's path has at most 107 bytes, and the suite makes some deep down.
    let short = tempfile::Builder::new().prefix("p").tempdir_in("/tmp").unwrap();
    fs::set_permissions(short.path(), Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(folder, short.path().join("f")).unwrap();
    let folder = short.path().join("f");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300", SUITE, "-c"]).arg(config).arg("-p").arg(folder).env("NO_COLOR", "1");
    let output = run(&mut command, "");
    let results = output.stdout.lines().filter_map(|line| {
        let (case, result) = line.rsplit_once(' ')?;
        let known = ["ok", "skipped", "FAILED"].contains(&result) && case.contains("::");
        known.then(|| (case.trim().to_owned(), result.to_owned()))
    });
    let results: BTreeMap<String, String> = results.collect();
    assert!(results.len() > 300, "the suite did not run to its end:\n{}{}", output.stdout, output.stderr);
    results
}

/// The cases that SEMANTICS.md says differ: the items of a list, each `- \`case\`: why`.
fn known_differences() -> BTreeSet<String> {
    let section = DOCUMENT.split("\n## Where ordinary files differ from the disk\n").nth(1);
    let section = section.expect("SEMANTICS.md has that section").split("\n## ").next().unwrap();
    let items = section.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: "));
    items.map(|(case, _)| case.to_owned()).collect()
}

#[test]
fn a_conformance_suite_finds_the_documented_differences_and_no_others() {
    let fixture = for_several_users();
    let disk = fixture.root().join("disk");
    fs::create_dir(&disk).unwrap();
    let on_disk = suite_in(&fixture, &disk);
    if is_root() {
        assert!(!on_disk.values().any(|result| result == "FAILED"), "{on_disk:?}");
    }
    for args in [&[][..], &["--no-passthrough"]] {
        let mount = fixture.mount_with(args);
        for folder in ["credentials/claude", "credentials/claude/folder"] {
            fs::create_dir_all(mount.at(folder)).unwrap();
            let in_mount = suite_in(&fixture, &mount.at(folder));
            assert_eq!(in_mount.len(), on_disk.len());
            let differ = in_mount.iter().filter(|(case, result)| on_disk.get(*case) != Some(result));
            let differ: BTreeMap<&str, &str> = differ.map(|(case, r)| (case.as_str(), r.as_str())).collect();
            let cases: BTreeSet<String> = differ.keys().map(|case| (*case).to_owned()).collect();
            // A disk may lack what makes a difference to it.
            let mut known = known_differences();
            known.retain(|case| on_disk.get(case).is_some_and(|result| result == "ok"));
            assert_eq!(cases, known, "in {folder} with {args:?}: {differ:?}");
        }
        mount.umount();
    }
}

/// What a bash script prints in a fresh folder on the disk and in one of a profile.
fn in_both_places(mount: &Mount, fixture: &Fixture, script: &str) -> (String, String) {
    let run_in = |folder: PathBuf| {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let mut command = mount.command("bash", &["-c", script]);
        let output = run(command.current_dir(&folder), "");
        fs::remove_dir_all(folder).unwrap();
        format!("{}{}", output.stdout, output.stderr)
    };
    (run_in(fixture.root().join("here")), run_in(mount.at("credentials/claude/here")))
}

const SAME_EVERYWHERE: [&str; 6] = [
    // extended attributes
    "echo hi > f; setfattr -n user.a -v one f; getfattr -d f; setfattr -n user.b -v two f; getfattr -m - f
     setfattr -x user.a f; getfattr -d f; setfattr -x user.zz f; ln -s f l; setfattr -h -n user.x -v 1 l
     mkdir d; setfattr -n user.d -v 1 d; getfattr -d d; cp --preserve=all f g; getfattr -d g
     head -c 3000 /dev/zero | tr '\\0' x > long; setfattr -n user.long -v \"$(cat long)\" f; getfattr -n user.long f | wc -c",
    // holes and space
    "truncate -s 1M f; printf x | dd of=f bs=1 seek=500000 conv=notrunc status=none
     python3 -c 'import os
f = os.open(\"f\", os.O_RDWR)
data = os.lseek(f, 0, os.SEEK_DATA)
print(data, os.lseek(f, data, os.SEEK_HOLE))
try: os.lseek(f, 1 << 20, os.SEEK_DATA)
except OSError as e: print(e)
os.posix_fallocate(f, 0, 32768)
print(os.fstat(f).st_blocks >= 64)'
     fallocate -p -o 0 -l 8192 f; fallocate -z -o 8192 -l 4096 f; fallocate -n -o 2000000 -l 4096 f; stat -c '%s %b' f
     cp --sparse=always f g; cmp f g && stat -c %s g",
    // copies within the disk
    "head -c 3000000 /dev/urandom > f; python3 -c 'import os
a, b, n = os.open(\"f\", os.O_RDONLY), os.open(\"g\", os.O_CREAT | os.O_RDWR), 0
while (k := os.copy_file_range(a, b, 1 << 30)): n += k
print(n)'; cmp f g && echo same",
    // pipes and sockets
    "mkfifo p; (echo through > p &); cat p; stat -c '%F %a' p; python3 -c 'import socket
s = socket.socket(socket.AF_UNIX); s.bind(\"s\"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect(\"s\"); c.send(b\"x\"); print(s.accept()[0].recv(1))'
     stat -c %F s; find . -type p -o -type s | sort; rm p s; ls",
    // times, and names' own sync
    "echo > f; touch -d @5 f; stat -c '%X %Y' f; touch -r /bin/sh f; [ f -nt /bin/sh ] || echo as old; touch f; [ f -nt /bin/sh ] && echo new; sync f . && echo synced",
    // what runs with its owner's rights
    "for op in 'printf x | dd of=f conv=notrunc status=none' 'truncate -s 1 f' ': > f' 'fallocate -l 9 f' 'chown :$(id -g) f'; do
     echo abc > f; chmod 6777 f; eval \"$op\"; stat -c %a f; done",
];

#[test]
fn what_programs_do_with_a_disk_they_can_do_in_a_profile() {
    let fixture = Fixture::new();
    for args in [&[][..], &["--no-passthrough"]] {
        let mount = fixture.mount_with(args);
        for script in SAME_EVERYWHERE {
            let (on_disk, in_mount) = in_both_places(&mount, &fixture, script);
            assert_eq!(on_disk, in_mount, "{args:?}: {script}");
            assert!(!on_disk.is_empty(), "{script} shows nothing");
        }
    }
}

#[test]
fn another_user_s_write_takes_set_ids_away_as_on_the_disk() {
    if !is_root() {
        return; // SAME_EVERYWHERE has shown it for the user's own files
    }
    let fixture = for_several_users();
    for args in [&[][..], &["--no-passthrough"]] {
        let mount = fixture.mount_with(args);
        let script = "for op in 'printf x | dd of=f conv=notrunc status=none' 'truncate -s 1 f' ': > f' 'fallocate -l 9 f'; do
            echo abc > f; chmod 6777 f; setpriv --reuid 1 --regid 1 --clear-groups bash -c \"$op\"; stat -c %a f; done
            echo x > t; chmod 666 t; setpriv --reuid 1 --regid 1 --clear-groups touch t && echo touched
            setpriv --reuid 1 --regid 1 --clear-groups touch -d @5 t
            mkdir -m 777 d; chmod 604 t; setfattr -n user.a -v 1 t; setpriv --reuid 1 --regid 1 --clear-groups getfattr -d t
            setpriv --reuid 1 --regid 1 --clear-groups setfattr -n user.a -v 2 t
            setpriv --reuid 1 --regid 1 --clear-groups mknod d/n c 1 3
            cp /bin/true x; for mode in 711 744 111 700 444; do chmod $mode x
            setpriv --reuid 1 --regid 1 --clear-groups bash -c ./x && echo ran; done";
        let (on_disk, in_mount) = in_both_places(&mount, &fixture, script);
        assert_eq!(on_disk, in_mount, "{args:?}");
        mount.bash("cd credentials/claude && mknod null c 1 3").ok();
        mount.bash("cat credentials/claude/null").failed_with("Permission denied");
        mount.bash("rm credentials/claude/null").ok();
        assert!(on_disk.starts_with("777\n777\n777\n777\ntouched\n"), "{on_disk}");
    }
}

#[test]
fn a_stream_of_writes_asks_for_no_attributes() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    // The daemon tells each request that it is sent.
    run(fixture.mount_command(&mountpoint, &["--as", "bob"]).env("RUST_LOG", "fuser=debug"), "").ok();
    let mount = fixture.mount_with(&["--as", "alice"]);
    let script = format!(
        "import os\nf = os.open('{}/credentials/claude/f', os.O_CREAT | os.O_WRONLY)\nfor i in range(500): os.write(f, b'x' * 4096)",
        mountpoint.display()
    );
    mount.python(&script).ok();
    fixture.umount(&mountpoint).ok();
    let told = fs::read_to_string(fixture.dir().join("private/daemon.log")).unwrap();
    let asked = told.lines().filter(|line| line.contains(" GETXATTR ")).count();
    assert!(told.contains(" FLUSH "), "the daemon tells nothing of its requests");
    assert!(asked < 10, "{asked} requests for attributes");
}

/// Two mounts of one exchange, A and B: one folder of a profile through each.
const TWO_MOUNTS: &str = r#"
import ctypes, errno, multiprocessing, os, sys, time
A, B = sys.argv[1:]
def soon(true):
    """The daemon of an ordinary user lets the kernel keep names of folders for a second."""
    until = time.monotonic() + 3
    while not true():
        assert time.monotonic() < until, "never"
        time.sleep(0.01)
LINES = 4000
def writer(path, tag):
    f = os.open(path + "/log", os.O_WRONLY | os.O_APPEND)
    for i in range(LINES): os.write(f, b"%s-%06d %s\n" % (tag, i, tag * (i % 90)))
open(A + "/log", "w").close()
writers = [multiprocessing.Process(target=writer, args=args) for args in ((A, b"a"), (B, b"b"), (A, b"c"))]
for w in writers: w.start()
for w in writers: w.join()
lines = open(B + "/log", "rb").read().splitlines()
assert lines == open(A + "/log", "rb").read().splitlines()
for tag in b"a", b"b", b"c":
    assert [l for l in lines if l.startswith(tag)] == [b"%s-%06d %s" % (tag, i, tag * (i % 90)) for i in range(LINES)]

f = open(A + "/unlinked", "w+")
f.write("x" * 10000); f.flush()
os.unlink(B + "/unlinked")
f.seek(0)
assert len(f.read()) == 10000
f.write("more"); f.flush()
assert (os.fstat(f.fileno()).st_size, os.fstat(f.fileno()).st_nlink) == (10004, 0)
soon(lambda: not os.path.exists(A + "/unlinked") and not os.path.exists(B + "/unlinked"))

open(A + "/target", "w").write("old")
f = open(B + "/target")
open(A + "/new", "w").write("new")
os.rename(A + "/new", A + "/target")
assert f.read() == "old"
soon(lambda: (open(B + "/target").read(), os.fstat(f.fileno()).st_nlink) == ("new", 0))

libc = ctypes.CDLL(None, use_errno=True)
def rename(old, new, flags): return ctypes.get_errno() if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) else 0
NOREPLACE, EXCHANGE = 1, 2
open(A + "/x", "w").write("x"); open(B + "/y", "w").write("y")
assert rename(A + "/x", A + "/y", NOREPLACE) == errno.EEXIST
assert rename(A + "/x", A + "/y", EXCHANGE) == 0
soon(lambda: (open(B + "/x").read(), open(A + "/y").read()) == ("y", "x"))
os.unlink(B + "/y")
soon(lambda: rename(A + "/x", A + "/y", NOREPLACE) == 0)
soon(lambda: os.path.exists(B + "/y") and open(B + "/y").read() == "y")
"#;

#[test]
fn two_mounts_append_unlink_and_rename_as_one_disk() {
    let fixture = Fixture::new();
    for args in [&[][..], &["--no-passthrough"]] {
        let with = |agent: &str| fixture.mount_with(&[&["--as", agent], args].concat());
        let (a, b) = (with("bob"), with("alice"));
        let folder = |mount: &Mount| mount.at("credentials/claude/folder");
        fs::create_dir_all(folder(&a)).unwrap();
        let mut command = a.command("python3", &["-c", TWO_MOUNTS]);
        run(command.arg(folder(&a)).arg(folder(&b)), "").ok();
    }
}
