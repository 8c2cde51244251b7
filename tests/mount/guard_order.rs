//! What happens in an order that nobody planned: switches during refreshes, descriptors that outlive a refresh, pieces of a
//! login, programs that start others while they write, names that change hands between two mounts.

use crate::common::{Fixture, Mount, Output, wait_until};
use std::fs;

struct World {
    fixture: Fixture,
    bob: Mount,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new();
        fixture.configure("[credentials.codex]\nformat = \"codex\"\n[credentials.gh]\nformat = \"gh\"\n");
        let bob = fixture.mount_as("bob");
        World { fixture, bob }
    }

    fn python(&self, profile: &str, program: &str) -> Output {
        let imports = "import ctypes, json, os, sys, time, logins, slots";
        self.bob.python(&format!("{imports}\nos.chdir('credentials/{profile}')\n{program}"))
    }

    fn read(&self, file: &str) -> String {
        self.bob.read(&format!("credentials/{file}"))
    }
}

#[test]
fn a_refresh_that_began_before_a_switch_saves_the_login_it_began_with() {
    let world = World::new();
    let script = "slots; cd credentials/claude; mkdir .oauth_refresh.lock; ln -sfn .credentials.json.b .credentials.json; \
                  login account-a2 > .credentials.json.tmp.1f; mv .credentials.json.tmp.1f .credentials.json";
    world.bob.bash(script).ok();
    assert!(world.read("claude/.credentials.json.a").contains("rt-account-a2"));
    assert!(world.read("claude/.credentials.json.b").contains("rt-account-b"));
    // In place it can't be told through which name the slot was opened: what is not b's is refused, and kept.
    world.bob.refuses(
        "cd credentials/claude; login account-a3 > .credentials.json",
        "Operation not permitted",
        "identity",
    );
    assert!(world.read("claude/.credentials.json.b").contains("rt-account-b"));
}

#[test]
fn a_descriptor_that_was_open_before_a_refresh_brings_no_old_token_back() {
    let world = World::new();
    let program = "
logins.in_place(logins.codex('me', 'tok-one'), 'auth.json')
old = os.open('auth.json', os.O_RDWR)
appending = os.open('auth.json', os.O_WRONLY | os.O_APPEND)
logins.replace(logins.codex('me', 'tok-two'), 'auth.json')
os.pwrite(old, b'{', 0)
os.write(appending, b'\\n')
os.close(old)
os.close(appending)
";
    world.python("codex", program).ok();
    assert!(world.read("codex/auth.json").contains("tok-two"), "{}", world.read("codex/auth.json"));
}

#[test]
fn a_login_that_is_patched_is_seen_once_its_writer_has_closed_it() {
    let world = World::new();
    let program = "
old = logins.codex('me', 'one')
new = logins.codex('me', 'two')
assert len(old) == len(new)
logins.in_place(old, 'auth.json')
fd = os.open('auth.json', os.O_WRONLY)
for start in range(0, len(new), 7):
    os.pwrite(fd, new[start:start + 7].encode(), start)
    assert open('auth.json').read() == old, 'a mixture'
os.close(fd)
assert open('auth.json').read() == new
";
    world.python("codex", program).ok();
}

#[test]
fn the_first_lines_of_a_yaml_login_are_not_one() {
    let world = World::new();
    world.python("gh", "logins.in_place(logins.gh('me', 'gho_one'), 'hosts.yml')").ok();
    let before = world.read("gh/hosts.yml");
    // bash closes a copy of the descriptor after each printf.
    let pieces = "cd credentials/gh; exec 3> hosts.yml; printf 'github.com:\\n' >&3; printf '    user: me\\n' >&3; \
                  cat hosts.yml; printf '    oauth_token: gho_two\\n' >&3; exec 3>&-; cat hosts.yml";
    let seen = world.bob.bash(pieces).ok();
    assert_eq!(seen, format!("{before}github.com:\n    user: me\n    oauth_token: gho_two\n"));
    let before = world.read("gh/hosts.yml");
    for end in ["sys.exit('crash')", "os.kill(os.getpid(), 9)", "f.close()"] {
        let program =
            format!("f = open('hosts.yml', 'w')\nf.write('github.com:\\n    user: me\\n')\nf.flush()\n{end}");
        let refused = world.fixture.refusals().len();
        world.python("gh", &program).failed();
        wait_until("it is closed", || world.fixture.refusals().len() > refused);
        assert_eq!(world.read("gh/hosts.yml"), before, "{end}");
    }
}

// The kernel holds back whoever looks at a process in execve(2), and that waits until its files are closed.
#[test]
fn a_program_that_is_replaced_while_it_writes_a_login_does_not_hang() {
    let world = World::new();
    world.python("gh", "logins.in_place(logins.gh('me'), 'hosts.yml')").ok();
    for text in ["github.com:\\n    user: other\\n    oauth_token: t\\n", "github.com:\\n    user"] {
        let program = format!(
            "fd = os.open('hosts.yml', os.O_WRONLY | os.O_TRUNC)\nos.write(fd, b'{0}'[:9])\ntry: os.write(fd, b'{0}'[9:])\n\
             except PermissionError: pass\nos.execv('/bin/echo', ['echo', 'started'])",
            text
        );
        assert_eq!(world.python("gh", &program).ok(), "started\n");
    }
    let sidecar = "fd = os.open('hosts.yml.default.fingerprint.json', os.O_WRONLY | os.O_TRUNC)\nos.write(fd, b'{')\n\
                   os.execv('/bin/echo', ['echo', 'started'])";
    assert_eq!(world.python("gh", sidecar).ok(), "started\n");
}

#[test]
fn nothing_comes_by_a_slots_name_through_an_exchange_or_a_link() {
    let world = World::new();
    world.bob.bash("slots").ok();
    let exchange = "
def exchange(a, b):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
open('plain', 'w').write(slots.login('somebody-else'))
os.mkdir('folder')
os.symlink('x', '.credentials.json.ex')
";
    for (a, b) in [
        (".credentials.json.ex", "plain"),
        ("plain", ".credentials.json.ex"),
        ("folder", ".credentials.json.ex"),
    ] {
        let program = format!(
            "{exchange}\ntry: exchange('{a}', '{b}')\nfinally:\n    os.unlink('.credentials.json.ex'); os.rmdir('folder')"
        );
        world.python("claude", &program).failed_with("Operation not permitted");
        assert_eq!(world.fixture.last_refusal()["rule"], "identity");
    }
    world
        .python("claude", "os.symlink('.credentials.json.a', 't'); os.rename('t', '.credentials.json.new2')")
        .failed_with("Operation not permitted");
    // The way some programs name their temp link.
    let switch = "os.symlink('.credentials.json.b', '.credentials.json.next'); os.rename('.credentials.json.next', '.credentials.json')";
    world.python("claude", switch).ok();
    assert!(!world.bob.at("credentials/claude/.credentials.json.next").is_symlink());
    assert!(world.read("claude/.credentials.json").contains("rt-account-b"));
}

// The kernel's locks of directories are each mount's own.
#[test]
fn a_link_that_another_mount_replaces_while_it_is_moved_brings_nothing_else() {
    let world = World::new();
    world.bob.bash("slots").ok();
    let alice = world.fixture.mount_as("alice");
    let live = world.fixture.dir().join("credentials/claude/.credentials.json");
    let switching = "
end = time.time() + 4
while time.time() < end:
    try:
        os.symlink('.credentials.json.b', 't1'); os.rename('t1', '.credentials.json')
    except OSError: pass
";
    let replacing = "
import os, time, slots
os.chdir('credentials/claude')
end, n = time.time() + 4, 0
while time.time() < end:
    n += 1
    try:
        if n % 2: os.symlink('/etc/passwd', 't2')
        else: open('t2', 'w').write(slots.login('somebody-else'))
        os.rename('t2', 't1')
    except OSError: pass
";
    std::thread::scope(|scope| {
        let other = scope.spawn({
            let mut command = world.fixture.client_command("python3", &["-c", replacing], alice.path());
            move || crate::common::run(&mut command, "").ok()
        });
        let looking = scope.spawn({
            let live = live.clone();
            move || {
                let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
                while std::time::Instant::now() < end {
                    let target = fs::read_link(&live).expect("the live link is a link");
                    assert!(target.to_str().unwrap().starts_with(".credentials.json."), "{target:?}");
                }
            }
        });
        world.python("claude", switching).ok();
        other.join().unwrap();
        looking.join().unwrap();
    });
    assert!(world.read("claude/.credentials.json").contains("rt-account-"));
    drop(alice);
    world.fixture.verify();
}
