//! What keeps the daemon's memory, and what it wrote, to itself.

use crate::common::{BATON, Fixture, signal, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn field(pid: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

#[test]
fn a_daemon_that_crashes_leaves_no_core_dump() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    // Allowed by whoever starts it, so that the daemon's own doing shows.
    let script = format!(
        "ulimit -c unlimited || ulimit -c $(ulimit -Hc); cd {scratch}; exec {BATON} mount {dir} {at} --as bob --foreground",
        scratch = fixture.scratch().display(),
        dir = fixture.dir().display(),
        at = mountpoint.display(),
    );
    let mut daemon = Command::new("bash").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it is mounted", || mountpoint.join("README.md").exists());
    let core = field(daemon.id(), "limits", "Max core file size");
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    // The first one meets the handler that looks for an overflow of the stack, and finds none.
    let mut ended = None;
    wait_until("it has crashed", || {
        signal(daemon.id(), "SEGV");
        std::thread::sleep(std::time::Duration::from_millis(20));
        ended = daemon.try_wait().unwrap();
        ended.is_some()
    });
    let ended = ended.unwrap();
    assert_eq!(ended.signal(), Some(11), "{ended:?}");
    assert!(!ended.core_dumped());
    assert!(fs::read_dir(fixture.scratch()).unwrap().next().is_none(), "no core file");
    crate::common::detach(&mountpoint);
}

#[test]
fn memory_is_locked_where_that_is_allowed_and_status_says_so() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let pid = fixture.daemon_pid().unwrap();
    let hardening = &fixture.status()["daemon"]["hardening"];
    assert_eq!(hardening["core_dumps_off"], true);
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let capabilities = u64::from_str_radix(&field(pid, "status", "CapEff:"), 16).unwrap();
    let limit = field(pid, "limits", "Max locked memory");
    let may = capabilities & CAP_IPC_LOCK != 0 || limit.starts_with("unlimited");
    let locked: u64 = field(pid, "status", "VmLck:").trim_end_matches(" kB").parse().unwrap();
    assert_eq!((hardening["memory_locked"] == true, locked > 0), (may, may));
    let shown = fixture.baton(&["status"]).ok();
    let expected = if may { "never dumped, never swapped out" } else { "never dumped, may be swapped out" };
    assert!(shown.contains(expected), "{shown}");
    // What is only reserved is not taken.
    let resident: u64 = field(pid, "status", "VmRSS:").trim_end_matches(" kB").parse().unwrap();
    assert!(resident < 120_000, "{resident} kB");
    bob.bash("line bob >> inbox/alice.jsonl").ok();
    let dumpable = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&dumpable),
        0,
        "no other process of its user looks into it"
    );
}

fn modes(folder: &Path, check: &impl Fn(&Path, u32)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        check(&path, metadata.permissions().mode() & 0o777);
        if metadata.is_dir() {
            modes(&path, check);
        }
    }
}

#[test]
fn what_was_refused_and_removed_is_its_owners_alone() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("slots; umask 0; login somebody-else > credentials/claude/.credentials.json").failed();
    bob.bash("umask 0; echo nonsense >> inbox/alice.jsonl").failed();
    let operator = fixture.mount_as_operator();
    operator.bash("umask 0; rm credentials/claude/.credentials.json.b").ok();
    let quarantine = fixture.dir().join("private/quarantine");
    assert_eq!(fs::read_dir(&quarantine).unwrap().count(), 3);
    for folder in [fixture.dir().join("private"), quarantine.clone()] {
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            folder.display()
        );
    }
    modes(&fixture.dir().join("private"), &|path, mode| {
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    });
}
