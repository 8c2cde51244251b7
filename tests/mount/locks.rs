//! Locks of programs: flock(1), Python's fcntl, through one mount and two.

use crate::common::{Fixture, Mount, run, signal, wait_until};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Python that locks: `lock`s are (start, length) by fcntl(2), `ofd` by an open file description's. `other` runs one in
/// a process of its own and gives `ok` or the errno's name.
const PRELUDE: &str = r#"
import errno, fcntl, os, struct, sys, time
OFD_SETLK, OFD_GETLK = 37, 36
NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
def whole(kind): return struct.pack("hhqqi4x", kind, 0, 0, 0, 0)
def ofd(file, kind=fcntl.F_WRLCK): fcntl.fcntl(file, OFD_SETLK, whole(kind))
def other(act):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try: said = act() or "ok"
        except OSError as e: said = errno.errorcode[e.errno]
        os.write(w, str(said).encode())
        os._exit(0)
    os.close(w)
    said = os.read(r, 100).decode()
    os.close(r); os.waitpid(pid, 0)
    return said
def expect(said, wanted): assert said == wanted, (said, wanted)
"#;

/// A fixture with a file `f` in a profile, mounted twice.
fn two() -> (Fixture, Mount, Mount) {
    let fixture = Fixture::new();
    let (a, b) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
    fs::write(a.at("credentials/claude/f"), "0123456789").unwrap();
    (fixture, a, b)
}

fn python(a: &Mount, b: &Mount, program: &str) {
    let f = |mount: &Mount| mount.at("credentials/claude/f").to_str().unwrap().to_owned();
    a.python(&format!("{PRELUDE}A, B = {:?}, {:?}\n{program}", f(a), f(b))).ok();
}

/// `flock ARGS` on a file.
fn flock(mount: &Mount, path: &str, args: &[&str]) -> Command {
    let mut command = Command::new("flock");
    command.args(&args[..args.len() - 1]).arg(mount.at(path)).arg(args[args.len() - 1]);
    command.stdout(Stdio::piped());
    command
}

/// Somebody who holds a lock until killed.
fn holder(mount: &Mount, path: &str) -> Child {
    let mut child = Command::new("python3")
        .args(["-c", "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"])
        .arg(mount.at(path))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    child
}

const F: &str = "credentials/claude/f";

#[test]
fn flock_excludes_through_two_mounts_and_behind_them() {
    let (fixture, a, b) = two();
    let mut held = holder(&a, F);
    let try_it = |mount: &Mount| run(&mut flock(mount, F, &["-n", "true"]), "").status;
    assert_eq!((try_it(&a), try_it(&b)), (1, 1));
    let behind = fixture.dir().join(F);
    assert_eq!(run(Command::new("flock").arg("-n").arg(&behind).arg("true"), "").status, 1);
    assert_eq!(run(&mut flock(&b, F, &["-w0.2", "true"]), "").status, 1, "a signal ends the wait");
    held.kill().unwrap();
    held.wait().unwrap();
    wait_until("a killed holder's lock is gone", || try_it(&b) == 0);
    assert_eq!((try_it(&a), try_it(&b)), (0, 0));
}

#[test]
fn who_waits_gets_the_lock_when_it_is_given_up_in_the_other_mount() {
    let (fixture, a, b) = two();
    for holds_behind in [false, true] {
        let file = if holds_behind { fixture.dir().join(F) } else { a.at(F) };
        let file = fs::File::open(file).unwrap();
        file.lock().unwrap();
        let mut waits = flock(&b, F, &["-w20", "true"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(waits.try_wait().unwrap().is_none());
        let start = Instant::now();
        drop(file);
        assert!(waits.wait().unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn a_killed_waiter_is_gone_at_once_and_waits_no_more() {
    let (_fixture, a, b) = two();
    let mut held = holder(&a, F);
    for program in ["fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX)"] {
        let lock = fs::File::options().write(true).open(a.at(F)).unwrap();
        rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut waits = Command::new("python3")
            .args(["-c", &format!("import fcntl, sys; f = open(sys.argv[1], 'r+'); {program}")])
            .arg(b.at(F))
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(waits.try_wait().unwrap().is_none(), "{program} did not wait");
        let start = Instant::now();
        signal(waits.id(), "KILL");
        waits.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{program}: {:?}", start.elapsed());
    }
    held.kill().unwrap();
    held.wait().unwrap();
    wait_until("nobody holds it", || run(&mut flock(&b, F, &["-n", "true"]), "").status == 0);
}

#[test]
fn fcntl_locks_ranges_tells_who_holds_them_and_ends_with_any_close() {
    let (_fixture, a, b) = two();
    python(
        &a,
        &b,
        r#"
a = open(A, "r+")
fcntl.lockf(a, NOW, 5, 2)
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW, 2, 0)), "ok")
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW, 3, 0)), "EAGAIN")
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW, 0, 7)), "ok")
def holder():
    kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(open(B, "r+"), fcntl.F_GETLK, whole(fcntl.F_WRLCK)))
    return (kind, start, length, pid)
expect(other(holder), str((fcntl.F_WRLCK, 2, 5, os.getpid())))
open(A).close()
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW)), "ok")
"#,
    );
}

#[test]
fn flock_and_fcntl_are_apart_and_flock_goes_with_the_last_copy_of_its_descriptor() {
    let (_fixture, a, b) = two();
    python(
        &a,
        &b,
        r#"
a = open(A, "r+")
fcntl.flock(a, NOW)
fcntl.lockf(a, NOW)
expect(other(lambda: fcntl.flock(open(B), NOW)), "EAGAIN")
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW)), "EAGAIN")
fcntl.lockf(a, fcntl.LOCK_UN)
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW)), "ok")
pid = os.fork()
if pid == 0:
    time.sleep(1)
    os._exit(0)
a.close()
expect(other(lambda: fcntl.flock(open(B), NOW)), "EAGAIN")
os.waitpid(pid, 0)
expect(other(lambda: fcntl.flock(open(B), NOW)), "ok")
for turn in range(300):
    for path in A, B:
        with open(path) as f: fcntl.flock(f, NOW)
"#,
    );
}

#[test]
fn locks_of_open_file_descriptions_outlive_other_closes() {
    let (_fixture, a, b) = two();
    python(
        &a,
        &b,
        r#"
a = open(A, "r+")
ofd(a)
open(A).close()
copy = os.dup(a.fileno())
a.close()
expect(other(lambda: ofd(open(B, "r+"))), "EAGAIN")
expect(other(lambda: fcntl.lockf(open(B, "r+"), NOW)), "EAGAIN")
os.close(copy)
expect(other(lambda: ofd(open(B, "r+"))), "ok")
a, b = open(A, "r+"), open(B, "r+")
ofd(a, fcntl.F_RDLCK); ofd(b, fcntl.F_RDLCK)
expect(other(lambda: ofd(open(A, "r+"))), "EAGAIN")
"#,
    );
}

#[test]
fn logs_and_logins_are_locked_too() {
    let (_fixture, a, b) = two();
    b.bash("login account-a > credentials/claude/.credentials.json").ok();
    for path in ["inbox/bob.jsonl", "credentials/claude/.credentials.json", "trust.json"] {
        let mut held = holder(&a, path);
        assert_eq!(run(&mut flock(&b, path, &["-n", "true"]), "").status, 1, "{path}");
        assert_eq!(run(&mut flock(&b, "inbox/carol.jsonl", &["-n", "true"]), "").status, 0);
        held.kill().unwrap();
        held.wait().unwrap();
        wait_until("it is free", || run(&mut flock(&b, path, &["-n", "true"]), "").status == 0);
    }
}
