//! memory/<agent>/, and what the kernel may keep of ordinary files: their numbers, names and attributes.

use crate::common::{Fixture, Mount, wait_until};
use crate::users::{ALICE, BOB, STRANGER, Shared};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

fn inode(mount: &Mount, path: &str) -> u64 {
    fs::symlink_metadata(mount.at(path)).unwrap().ino()
}

/// Runs a Python program as root, in which `be(uid)` makes it another user's.
#[track_caller]
fn as_users(shared: &Shared, program: &str) {
    let become_other = format!(
        "import errno, os, time\nBOB, ALICE = {BOB}, {ALICE}\nos.setgroups([])\n\
         def be(uid): os.seteuid(0); os.setegid(uid); os.seteuid(uid)\n"
    );
    shared.mount.python(&(become_other + program)).ok();
}

#[test]
fn a_memory_is_its_agents_to_change_and_everybodys_to_read() {
    let Some(shared) = Shared::new() else { return };
    shared.run(BOB, "cd memory/bob && mkdir -p a/b && echo deep > a/b/f && echo hello > note").ok();
    assert_eq!(shared.run(ALICE, "cat memory/bob/note _coordination/memory/bob/a/b/f").ok(), "hello\ndeep\n");
    assert_eq!(shared.run(STRANGER, "cat memory/bob/note").ok(), "hello\n");
    for script in [
        "echo x > memory/bob/x",
        "echo x >> memory/bob/note",
        "mkdir memory/bob/a/b/c",
        "rm -f memory/bob/note",
        "mv memory/bob/note memory/bob/other",
        "ln -s x memory/bob/link",
        "touch -d 2020-01-01 memory/bob/note",
    ] {
        for uid in [ALICE, STRANGER] {
            shared.run(uid, script).failed_with("Permission denied");
            assert_eq!(shared.fixture.last_refusal()["rule"], "authority", "{script}");
        }
    }
    let advice = shared.run(ALICE, "tail -n 1 refusals.jsonl | jq -r .advice").ok();
    assert!(advice.contains("memory of bob") && advice.contains("memory/alice/"), "{advice}");
    let refused = shared.fixture.refusals().len();
    shared.run(BOB, "chmod 600 memory/bob/note; chmod 700 memory/bob/a").ok();
    shared.run(ALICE, "cat memory/bob/note").failed_with("Permission denied");
    shared.run(ALICE, "ls memory/bob/a").failed_with("Permission denied");
    assert_eq!(shared.fixture.refusals().len(), refused, "modes are the file's own, and no rule");
    shared.run(BOB, "mv memory/bob/note memory/alice/").failed_with("Permission denied");
    for (path, bob, alice, stranger) in
        [("memory", "rx", "rx", "rx"), ("memory/bob", "rwx", "rx", "rx"), ("memory/bob/note", "rw", "", "")]
    {
        for (uid, may) in [(BOB, bob), (ALICE, alice), (STRANGER, stranger)] {
            let script = format!("for t in r w x; do [ -$t {path} ] && printf $t; done; true");
            assert_eq!(shared.run(uid, &script).ok(), may, "{path} for {uid}");
        }
    }
    shared.fixture.verify();
}

#[test]
fn an_agent_on_its_own_mount_and_the_operator_write_memories() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("echo note > memory/bob/note").ok();
    bob.refuses("echo x > memory/alice/note", "Permission denied", "authority");
    bob.refuses("mkdir memory/zoe", "Operation not permitted", "read-only");
    bob.refuses("rmdir memory/bob", "Operation not permitted", "read-only");
    // Between areas, as between disks: mv copies.
    bob.bash("mkdir credentials/claude/d && mv memory/bob/note credentials/claude/d/ && mv credentials/claude/d/note memory/bob/").ok();
    bob.python("import os, errno\ntry: os.link('memory/bob/note', 'credentials/claude/d/n')\nexcept OSError as e: assert e.errno == errno.EXDEV\nelse: raise SystemExit('linked')").ok();
    let operator = fixture.mount_as_operator();
    operator
        .bash("cat memory/bob/note; echo more >> memory/bob/note; echo yours > memory/alice/from-me")
        .ok();
    assert_eq!(bob.read("memory/bob/note"), "note\nmore\n");
    assert_eq!(fs::read_to_string(fixture.dir().join("memory/alice/from-me")).unwrap(), "yours\n");
}

#[test]
fn numbers_are_the_disks_and_survive_a_remount() {
    let fixture = Fixture::new();
    let paths = ["memory/bob", "memory/bob/d", "memory/bob/d/f", "memory/bob/l", "credentials/claude"];
    let all = |mount: &Mount| paths.map(|path| inode(mount, path));
    let mount = fixture.mount_as("bob");
    mount.bash("cd memory/bob && mkdir d && echo x > d/f && ln d/f hard && ln -s d/f l").ok();
    assert_eq!(inode(&mount, "memory/bob/hard"), inode(&mount, "memory/bob/d/f"));
    let before = all(&mount);
    let same = "
import os
for top in ('memory', '_coordination/memory', 'credentials', '.'):
    for folder, _, _ in os.walk(top):
        for entry in os.scandir(folder):
            assert entry.inode() == os.lstat(entry.path).st_ino, entry.path
";
    mount.bash("slots").ok();
    mount.python(same).ok();
    let slot = inode(&mount, "credentials/claude/.credentials.json.a");
    mount.umount();
    let mount = fixture.mount_as("bob");
    mount.python(same).ok();
    assert_eq!(all(&mount), before);
    mount.bash("login account-a 9999 > credentials/claude/.credentials.json").ok();
    assert_eq!(inode(&mount, "credentials/claude/.credentials.json.a"), slot);
}

#[test]
fn names_are_kept_for_a_moment_where_there_is_one_mount() {
    let Some(shared) = Shared::new() else { return };
    shared.run(BOB, "mkdir memory/bob/d && echo x > memory/bob/d/f && mkdir -m 700 memory/bob/p && echo x > memory/bob/p/f").ok();
    let behind = shared.fixture.dir().join("memory/bob");
    for (folder, kept) in [("d", true), ("p", false)] {
        // Whether a name that is gone from the disk is still believed.
        let program = format!(
            "be(BOB); os.stat('memory/bob/{folder}/f'); be(0)\n\
             os.rename('{behind}/{folder}/f', '{behind}/{folder}/g'); be(BOB)\n\
             assert os.path.exists('memory/bob/{folder}/f') == {kept}\n",
            behind = behind.display(),
            kept = if kept { "True" } else { "False" },
        );
        as_users(&shared, &program);
        wait_until("it is believed no more", || !shared.mount.at(&format!("memory/bob/{folder}/f")).exists());
    }
}

#[test]
fn a_directory_that_is_closed_is_closed_at_once() {
    let Some(shared) = Shared::new() else { return };
    as_users(
        &shared,
        "
d, f = 'memory/bob/d', 'memory/bob/d/f'
be(BOB); os.mkdir(d, 0o755); open(f, 'w').close()
def closed_to(uid):
    be(uid)
    try: os.stat(f)
    except OSError as e: return e.errno == errno.EACCES
    return False
for mode in (0o700, 0o744, 0o750):
    assert not closed_to(ALICE)
    be(BOB); os.chmod(d, mode)
    assert closed_to(ALICE), oct(mode)
    be(BOB); os.stat(f); os.chmod(d, 0o755)
# Nobody waits where nothing is kept, and nobody waits for what he may not do.
be(BOB)
start = time.monotonic()
for n in range(20): os.mkdir(f'memory/bob/{n}', 0o755); os.chmod(f'memory/bob/{n}', 0o700)
be(ALICE)
assert not closed_to(ALICE)
try: os.chmod(d, 0o700)
except PermissionError: pass
else: raise SystemExit('alice closed it')
assert time.monotonic() - start < 0.9
",
    );
}

/// As bob, on one mount with alice: what is moved into a closed directory is closed to her at once.
const MOVES: &str = "
import ctypes
def exchange(a, b):
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, a.encode(), -100, b.encode(), 2) == 0, os.strerror(ctypes.get_errno())
def closed(path, uid=ALICE):
    be(uid)
    try: open(path).close()
    except PermissionError: return True
    finally: be(BOB)
    return False
def write(path, text='x'):
    with open(path, 'w') as f: f.write(text)
    os.chmod(path, 0o666)
be(BOB)
os.umask(0)
top = 'memory/bob'
private, public = f'{top}/private', f'{top}/public'
os.mkdir(private, 0o700); os.mkdir(public, 0o755); os.mkdir(f'{top}/aside', 0o755)
";

#[test]
fn what_is_moved_into_a_closed_directory_is_closed_at_once() {
    for args in [&["--allow-other"][..], &["--allow-other", "--no-passthrough"]] {
        let Some(shared) = Shared::mounted(args) else { return };
        as_users(
            &shared,
            &(MOVES.to_owned()
                + "
for old, new in (
    (f'{top}/note', f'{private}/note'),
    ('_coordination/memory/bob/other', f'{private}/other'),
    (f'{public}/deep', f'{private}/deep'),
):
    write(old)
    assert not closed(old)
    os.rename(old, new)
    assert closed(new), new
    assert open(new).read() == 'x' and not os.path.exists(old)
# By its other path too.
write(f'{top}/both'); assert not closed('_coordination/memory/bob/both')
os.rename(f'{top}/both', f'{private}/both')
assert closed('_coordination/memory/bob/private/both')
try: open('_coordination/memory/bob/both'); raise SystemExit('it is still there')
except FileNotFoundError: pass
# A folder, and what is in it.
os.mkdir(f'{top}/d', 0o755); write(f'{top}/d/f'); assert not closed(f'{top}/d/f')
os.rename(f'{top}/d', f'{private}/d')
assert closed(f'{private}/d/f')
# An exchange, whichever of the two names is closed away.
for n, paths in enumerate(((f'{top}/a', f'{private}/a'), (f'{private}/b', f'{top}/b'))):
    write(paths[0], 'first'); write(paths[1], 'second')
    assert [closed(path) for path in paths] == [n == 1, n == 0]
    exchange(*paths)
    assert [closed(path) for path in paths] == [n == 1, n == 0]
    assert [open(path).read() for path in paths] == ['second', 'first']
# A link is another name, which nobody keeps there.
write(f'{top}/l'); assert not closed(f'{top}/l')
os.link(f'{top}/l', f'{private}/l')
assert closed(f'{private}/l')
# First into a directory that is open, and that is closed afterwards.
write(f'{top}/twice'); assert not closed(f'{top}/twice')
os.rename(f'{top}/twice', f'{public}/twice')
os.chmod(public, 0o700)
assert closed(f'{public}/twice')
"),
        );
        shared.fixture.verify();
    }
}

#[test]
fn nobody_finds_a_name_while_it_moves_into_a_closed_directory() {
    let Some(shared) = Shared::new() else { return };
    as_users(
        &shared,
        &(MOVES.to_owned()
            + "
write(f'{top}/0')
def look(old, new):
    # Keeps asking for the name, so that a lookup of it is always under way, until the move is over; then it is closed.
    os.seteuid(0); os.setegid(ALICE); os.seteuid(ALICE)
    while True:
        try: os.stat(old)
        except FileNotFoundError: break
    for _ in range(200):
        try: os.stat(new); os._exit(1)
        except PermissionError: pass
    os._exit(0)
for n in range(5):
    old, new = f'{top}/{n}', f'{private}/{n}'
    write(old)
    lookers = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0: look(old, new)
        lookers.append(pid)
    time.sleep(0.05)
    os.rename(old, new)
    assert [os.waitpid(pid, 0)[1] for pid in lookers] == [0] * 4
"),
    );
}

#[test]
fn a_move_waits_for_nobody_where_nothing_is_closed_away() {
    let Some(shared) = Shared::new() else { return };
    as_users(
        &shared,
        &(MOVES.to_owned()
            + "
os.mkdir(f'{top}/private2', 0o700)
start = time.monotonic()
for n in range(20):
    write(f'{top}/{n}'); closed(f'{top}/{n}')
    os.rename(f'{top}/{n}', f'{public}/{n}')
    write(f'{private}/{n}'); os.rename(f'{private}/{n}', f'{top}/private2/{n}')
    os.rename(f'{top}/private2/{n}', f'{public}/{n}')
    os.rename(f'{public}/{n}', f'{public}/same-{n}')
    # Who may not is told so at once.
    be(ALICE)
    try: os.rename(f'{public}/same-{n}', f'{private}/{n}')
    except PermissionError: pass
    else: raise SystemExit('alice moved it')
    be(BOB)
# Each wait would be a second.
assert time.monotonic() - start < 8, time.monotonic() - start
"),
    );
    let fixture = Fixture::new();
    let alone = fixture.mount_as("bob");
    alone.bash("cd memory/bob && mkdir -m 700 p && echo x > f && cat f").ok();
    let start = Instant::now();
    fs::rename(alone.at("memory/bob/f"), alone.at("memory/bob/p/f")).unwrap();
    assert!(start.elapsed() < Duration::from_millis(900), "on a mount of one user nobody is kept out");
}

#[test]
fn a_second_mount_changes_what_the_first_one_sees_at_once() {
    let fixture = Fixture::new();
    let first = fixture.mount_as("bob");
    first.bash("mkdir memory/bob/d && echo x > memory/bob/d/f && stat memory/bob/d/f").ok();
    let second = fixture.mount_as("bob");
    fs::rename(second.at("memory/bob/d/f"), second.at("memory/bob/d/g")).unwrap();
    assert!(!first.at("memory/bob/d/f").exists());
    for size in 1..20 {
        second.append("memory/bob/d/g", "x");
        assert_eq!(fs::metadata(first.at("memory/bob/d/g")).unwrap().len(), 2 + size);
        fs::write(second.at("memory/bob/d/h"), "x").unwrap();
        assert!(first.at("memory/bob/d/h").exists());
        fs::remove_file(first.at("memory/bob/d/h")).unwrap();
        assert!(!second.at("memory/bob/d/h").exists());
    }
}

#[test]
fn a_hundred_thousand_names_are_listed_and_looked_at() {
    const NAMES: usize = 100_000;
    let fixture = Fixture::new();
    let many = fixture.dir().join("memory/bob/many");
    let mount = fixture.mount_as("bob");
    fs::create_dir(mount.at("memory/bob/many")).unwrap();
    for n in 0..NAMES {
        File::create(many.join(format!("name-{n}"))).unwrap();
    }
    let start = Instant::now();
    let program = "
import os
names = os.listdir('memory/bob/many')
assert len(set(names)) == len(names) == 100000, len(names)
for _ in range(2):
    assert sum(os.lstat('memory/bob/many/' + name).st_size == 0 for name in names) == 100000
";
    mount.python(program).ok();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    mount.bash("line bob >> inbox/alice.jsonl").ok();
}
