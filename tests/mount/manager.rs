//! A program that manages slots (tests/clients/manager.py), unchanged on a plain folder and in a mount.

use crate::common::{CLIENTS, Fixture, Output, run};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Programs that work in one profile's folder, each in a process group of its own, as from another terminal.
struct Desk {
    folder: PathBuf,
    state: PathBuf,
}

impl Desk {
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "120", "python3"]).args(program).current_dir(&self.folder);
        command
            .env("MANAGER_STATE", &self.state)
            .env("PYTHONPATH", CLIENTS)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.process_group(0);
        command
    }

    fn manager(&self, arguments: &[&str]) -> Output {
        let script = format!("{CLIENTS}/manager.py");
        run(&mut self.command(&[&[script.as_str()], arguments].concat()), "")
    }

    fn start(&self, program: &[&str]) -> Child {
        self.command(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn python(&self, program: &str) -> Output {
        run(&mut self.command(&["-c", program]), "")
    }

    fn make_slots(&self) {
        self.python(
            "import os, slots\n\
             for name in 'ab':\n\
             \x20   slots.save(slots.login(f'account-{name}'), f'.credentials.json.{name}')\n\
             os.symlink('.credentials.json.a', '.credentials.json')\n",
        )
        .ok();
        self.manager(&["capture"]).ok();
        self.manager(&["check"]).ok();
    }

    fn slot(&self, slot: &str) -> String {
        fs::read_to_string(self.folder.join(format!(".credentials.json.{slot}"))).unwrap()
    }
}

/// Refreshes the live login, whichever it is, 20 times under the lock.
const REFRESHER: &str = "\
import manager, slots
for n in range(20):
    with manager.RefreshLock() as lock:
        account = manager.json.loads(manager.read_login(slots.LINK))['claudeAiOauth']['refreshToken'][3:].split('#')[0]
        lock.touch()
        slots.save_in_place(slots.login(f'{account}#{n}'))
";

/// Logs somebody else in, without any lock, 20 times.
const INTRUDER: &str = "\
import slots, time
refused = 0
for n in range(20):
    try:
        slots.save_in_place(slots.login(f'somebody-else-{n}'))
    except PermissionError:
        refused += 1
    time.sleep(0.01)
print(refused)
";

fn busy(desk: &Desk) -> (String, String) {
    desk.make_slots();
    let script = format!("{CLIENTS}/manager.py");
    let manager = desk.start(&[&script, "guard", "20"]);
    let others = [desk.start(&["-c", REFRESHER]), desk.start(&["-c", INTRUDER])];
    let mut said = [manager].into_iter().chain(others).map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    });
    let (healed, _, refused) = (said.next().unwrap(), said.next(), said.next().unwrap());
    desk.manager(&["heal"]).ok();
    desk.manager(&["check"]).ok();
    (healed, refused.trim().to_owned())
}

fn in_mount(fixture: &Fixture, mount: &Path) -> Desk {
    Desk { folder: mount.join("credentials/claude"), state: fixture.scratch().join("state") }
}

#[test]
fn a_manager_ends_without_drift_on_a_plain_folder_and_in_a_mount() {
    let plain = tempfile::tempdir().unwrap();
    let folder = plain.path().join("profile");
    fs::create_dir(&folder).unwrap();
    busy(&Desk { folder, state: plain.path().join("state") });

    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let desk = in_mount(&fixture, bob.path());
    let (healed, refused) = busy(&desk);
    assert_eq!(healed, "healed 0\n", "nothing was ever wrong");
    assert_eq!(refused, "20");
    for account in ["a", "b"] {
        assert!(desk.slot(account).contains(&format!("rt-account-{account}")), "{}", desk.slot(account));
    }
    let rules: Vec<_> =
        fixture.refusals().into_iter().filter(|refusal| refusal["rule"] != "identity").collect();
    assert!(rules.is_empty(), "{rules:?}");
    drop(bob);
    fixture.verify();
}

#[test]
fn a_manager_heals_what_was_done_behind_the_mount() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    in_mount(&fixture, bob.path()).make_slots();
    bob.umount();
    let behind = fixture.dir().join("credentials/claude");
    let slot = behind.join(".credentials.json.b");
    fs::write(&slot, fs::read_to_string(&slot).unwrap().replace("rt-account-b", "rt-somebody-else")).unwrap();
    fs::remove_file(behind.join(".credentials.json")).unwrap();
    fs::write(behind.join(".credentials.json"), "{}").unwrap();

    let bob = fixture.mount_as("bob");
    let desk = in_mount(&fixture, bob.path());
    let found = desk.manager(&["check"]);
    assert_ne!(found.status, 0);
    assert!(found.stdout.contains("live None") && found.stdout.contains("identity b"), "{}", found.stdout);
    let status = fixture.baton(&["credentials", "status"]).ok();
    assert!(status.contains("drift: changed behind the mount"), "{status}");
    desk.manager(&["heal"]).ok();
    desk.manager(&["check"]).ok();
    assert!(desk.slot("b").contains("rt-account-b"));
    let status = fixture.baton(&["credentials", "status"]).ok();
    assert!(!status.contains("drift") && status.contains("live link -> a"), "{status}");
    desk.manager(&["switch", "b"]).ok();
    assert!(fixture.refusals().is_empty(), "{:?}", fixture.refusals());
    drop(bob);
    fixture.verify();
}

#[test]
fn a_manager_takes_a_stale_lock_over() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let desk = in_mount(&fixture, bob.path());
    desk.make_slots();
    desk.python("import os, time\nos.mkdir('.oauth_refresh.lock')\nold = time.time() - 61\nos.utime('.oauth_refresh.lock', (old, old))")
        .ok();
    desk.manager(&["switch", "b"]).ok();
    assert_eq!(
        fs::read_link(desk.folder.join(".credentials.json")).unwrap(),
        Path::new(".credentials.json.b")
    );
    assert!(!desk.folder.join(".oauth_refresh.lock").exists());
}
