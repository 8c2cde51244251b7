//! The lock directory that programs make while they refresh a login, from two mounts of one exchange.

use crate::common::{Fixture, Mount, wait_until};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

const LOCK: &str = "credentials/claude/.oauth_refresh.lock";

/// A program that makes the lock, and holds it until it is told to end.
fn holder(mount: &Mount) -> Child {
    // Not through a wrapper: the lock's maker must be the process that is ended here.
    let mut command = std::process::Command::new("python3");
    command.args([
        "-c",
        &format!("import os, sys\nos.mkdir('{LOCK}')\nprint('made', flush=True)\nsys.stdin.read()"),
    ]);
    let mut child =
        command.current_dir(mount.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "made\n");
    child
}

#[test]
fn a_lock_excludes_through_every_mount_and_shows_its_touches() {
    let fixture = Fixture::new();
    let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
    let make = format!("import os\nos.mkdir('{LOCK}')");
    for (holder, other) in [(&bob, &alice), (&alice, &bob)] {
        holder.python(&make).ok();
        other.python(&make).failed_with("FileExistsError");
        holder.python(&make).failed_with("FileExistsError");
        holder.python(&format!("import os\nos.utime('{LOCK}', (1000, 1000))")).ok();
        other.python(&format!("import os\nassert os.stat('{LOCK}').st_mtime == 1000")).ok();
        other.python(&format!("import os\nos.utime('{LOCK}')")).ok();
        holder.python(&format!("import os, time\nassert time.time() - os.stat('{LOCK}').st_mtime < 20")).ok();
        holder.python(&format!("import os\nos.rmdir('{LOCK}')")).ok();
        other.python(&format!("import os\nassert not os.path.exists('{LOCK}')")).ok();
    }
}

#[test]
fn of_many_who_want_the_lock_one_gets_it_at_a_time() {
    let fixture = Fixture::new();
    let mounts = [fixture.mount_as("bob"), fixture.mount_as("alice")];
    let counter = fixture.scratch().join("counter");
    std::fs::write(&counter, "0").unwrap();
    let program = format!(
        "import os, time\n\
         for n in range(25):\n\
         \x20   while True:\n\
         \x20       try:\n\
         \x20           os.mkdir('{LOCK}'); break\n\
         \x20       except FileExistsError:\n\
         \x20           time.sleep(0.001)\n\
         \x20   value = int(open('{0}').read())\n\
         \x20   time.sleep(0.001)\n\
         \x20   open('{0}', 'w').write(str(value + 1))\n\
         \x20   os.rmdir('{LOCK}')\n",
        counter.display()
    );
    let start = |mount: &Mount| mount.command("python3", &["-c", &program]).spawn().unwrap();
    let children: Vec<_> = (0..4).map(|n| start(&mounts[n % 2])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(std::fs::read_to_string(&counter).unwrap(), "100");
}

#[test]
fn status_says_who_holds_the_lock_and_when_its_maker_has_ended() {
    let fixture = Fixture::new();
    let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
    let status = || fixture.baton(&["credentials", "status"]).ok();
    let mut child = holder(&bob);
    let pid = child.id();
    let shown = status();
    assert!(
        shown.contains(&format!("refresh lock: held, made by process {pid} (python3), touched ")),
        "{shown}"
    );
    alice.python(&format!("import os\nos.mkdir('{LOCK}')")).failed_with("FileExistsError");

    child.stdin.take().unwrap().flush().unwrap();
    child.wait().unwrap();
    wait_until("its maker has ended", || {
        status().contains(&format!("its maker, process {pid} (python3), has ended"))
    });
    alice.python(&format!("import os, time\nold = time.time() - 61\nos.utime('{LOCK}', (old, old))")).ok();
    let shown = status();
    assert!(shown.contains("refresh lock: stale, touched 6") && shown.contains("takes it over"), "{shown}");
    assert!(bob.at(LOCK).is_dir(), "a stale lock is the programs' own to remove");
    let json = fixture.baton(&["credentials", "status", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let lock = &json["profiles"][0]["refresh_lock"];
    assert_eq!(
        (&lock["holder_ended"], &lock["stale"], &lock["pid"]),
        (&true.into(), &true.into(), &pid.into())
    );
    // Another maker is another holder, whatever number the directory gets.
    std::fs::remove_dir(fixture.dir().join(LOCK)).unwrap();
    std::fs::create_dir(fixture.dir().join(LOCK)).unwrap();
    assert!(status().contains("made by a process unknown"), "{}", status());
}
