//! What the operator sees of credentials and decides about them, and that no token shows anywhere.

use crate::common::{Fixture, Mount, Output};
use crate::faults::{Faulty, recover};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;

const NOTICE: &str = "credentials/claude/LOGIN-REFUSED.txt";

fn credentials(fixture: &Fixture, args: &[&str]) -> Output {
    fixture.baton(&[&["credentials"], args].concat())
}

fn json(fixture: &Fixture, args: &[&str]) -> Value {
    serde_json::from_str(&credentials(fixture, &[args, &["--json"]].concat()).ok()).unwrap()
}

fn with_slots() -> (Fixture, Mount) {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("slots").ok();
    (fixture, bob)
}

/// The indented commands in a notice, without `baton`.
fn commands(notice: &str) -> Vec<Vec<String>> {
    let lines = notice.lines().filter_map(|line| line.strip_prefix("  baton "));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn run_command(fixture: &Fixture, command: &[String]) {
    fixture.baton(&command.iter().map(String::as_str).collect::<Vec<_>>()).ok();
}

#[test]
fn the_notice_of_a_refused_login_names_the_command_that_accepts_it() {
    let (fixture, bob) = with_slots();
    bob.bash("login somebody-else > credentials/claude/.credentials.json").failed();
    let notice = bob.read(NOTICE);
    assert!(notice.contains("By:       bob, process ") && notice.contains(" (bash)\n"), "{notice}");
    let accept = &commands(&notice)[0];
    let advice = fixture.last_refusal()["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains(&format!("baton {}", accept.join(" "))), "{advice}\n{accept:?}");
    bob.bash("echo x >> credentials/claude/LOGIN-REFUSED.txt").failed_with("Operation not permitted");
    run_command(&fixture, accept);
    assert!(!bob.at(NOTICE).exists());
    bob.bash("grep -q rt-somebody-else credentials/claude/.credentials.json").ok();
    // From then on it is the slot's.
    bob.bash("login somebody-else 9999 > credentials/claude/.credentials.json").ok();
    assert_eq!(
        json(&fixture, &["status"])["profiles"][0]["slots"][0]["last_verdict"]["verdict"],
        "unchanged"
    );
}

#[test]
fn both_logins_can_be_kept() {
    let (fixture, bob) = with_slots();
    bob.bash("login somebody-else > credentials/claude/.credentials.json").failed();
    let [_, adopt, switch] = &commands(&bob.read(NOTICE))[..] else { panic!("{}", bob.read(NOTICE)) };
    run_command(&fixture, adopt);
    run_command(&fixture, switch);
    assert!(!bob.at(NOTICE).exists());
    let target = fs::read_link(bob.at("credentials/claude/.credentials.json")).unwrap();
    assert_eq!(target, Path::new(".credentials.json.a-2"));
    bob.bash(
        "cd credentials/claude; grep -q rt-account-a .credentials.json.a; grep -q somebody .credentials.json",
    )
    .ok();
    bob.bash("login another > credentials/claude/.credentials.json.b").failed();
    bob.bash("rm credentials/claude/LOGIN-REFUSED.txt").ok();
    assert!(!bob.at(NOTICE).exists());
}

#[test]
fn status_remembers_verdicts_and_drift_over_a_restart_until_the_operator_accepts_it() {
    let (fixture, bob) = with_slots();
    bob.bash("login somebody-else > credentials/claude/.credentials.json").failed();
    bob.umount();
    let slot = fixture.dir().join("credentials/claude/.credentials.json.b");
    fs::write(&slot, fs::read_to_string(&slot).unwrap().replace("rt-account-b", "rt-account-b2")).unwrap();
    let bob = fixture.mount_as("bob");
    let slots = &json(&fixture, &["status"])["profiles"][0]["slots"];
    let of = |slot: &Value| {
        (slot["slot"].clone(), slot["last_verdict"]["verdict"].clone(), !slot["drift"].is_null())
    };
    assert_eq!(of(&slots[0]), ("a".into(), "refused".into(), false));
    assert_eq!(of(&slots[1]), ("b".into(), "captured".into(), true));
    assert_eq!(slots[1]["drift"].as_str().unwrap().len(), 12);
    let shown = credentials(&fixture, &["status"]).ok();
    assert!(shown.contains("baton credentials baseline b --profile claude"), "{shown}");
    let sidecar = "credentials/claude/.credentials.json.b.fingerprint.json";
    let before = bob.read(sidecar);
    let done = credentials(&fixture, &["baseline"]).ok();
    assert!(done.contains("slot a of claude: login") && done.contains("is accepted as its own"), "{done}");
    assert_ne!(bob.read(sidecar), before);
    assert_eq!(json(&fixture, &["baseline", "b"])["slots"][0]["changed"], false);
    assert!(!credentials(&fixture, &["status"]).ok().contains("drift"));
    drop(bob);
    fixture.verify();

    let history = json(&fixture, &["history"])["history"].clone();
    let what: Vec<_> =
        history.as_array().unwrap().iter().map(|record| record["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["captured", "captured", "switched", "refused", "drift", "baseline"]);
    assert_eq!(history[3]["by"], "bob");
    assert_eq!(history[3]["login"].as_str().unwrap().len(), 12);
    assert_eq!((&history[4]["login"], &history[4]["recorded"]), (&history[5]["login"], &history[1]["login"]));
    assert_eq!(json(&fixture, &["history", "b"])["history"].as_array().unwrap().len(), 3);
    let shown = credentials(&fixture, &["history", "b"]).ok();
    assert!(shown.starts_with("TIME ") && shown.contains("instead of login"), "{shown}");
}

#[test]
fn a_kill_at_any_step_of_a_refresh_leaves_no_drift() {
    for injection in [
        "unlinkat:signal=KILL:when=1",
        "renameat:signal=KILL:when=1",
        "renameat:signal=KILL:when=2",
        "renameat:error=EIO:when=1",
        "renameat:error=EIO:when=2",
    ] {
        let (fixture, bob) = with_slots();
        bob.bash("login account-a -10 > credentials/claude/.credentials.json.a").ok();
        bob.umount();
        crate::common::wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
        let bob = Faulty::mount(&fixture, "", injection);
        bob.bash("login account-a-next > $SCRATCH/t; cp $SCRATCH/t credentials/claude/.credentials.json.a");
        if injection.contains("KILL") {
            bob.take_dead()
        } else {
            bob.umount()
        }
        let mount = recover(&fixture);
        let slot: Value =
            serde_json::from_str(&mount.read("credentials/claude/.credentials.json.a")).unwrap();
        let token = slot["claudeAiOauth"]["refreshToken"].as_str().unwrap();
        assert_eq!(token == "rt-account-a-next", injection != "renameat:error=EIO:when=1", "{injection}");
        let sidecar = mount.read("credentials/claude/.credentials.json.a.fingerprint.json");
        assert!(sidecar.contains(&hash(token)), "{injection}: {sidecar} of {token}");
        let slots = &json(&fixture, &["status"])["profiles"][0]["slots"];
        assert!(slots[0]["drift"].is_null() && slots[1]["drift"].is_null(), "{injection}: {slots}");
    }
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_login_from_a_file_becomes_a_slot() {
    let fixture = Fixture::new();
    fixture.bash("login elsewhere > old.json; login expired 60 > expired.json; echo {} > none.json").ok();
    let bob = fixture.mount_as("bob");
    let added = credentials(&fixture, &["add", "home", "old.json"]).ok();
    assert!(
        added.contains("slot home of claude holds login") && added.contains(", and is live\n"),
        "{added}"
    );
    bob.bash("grep -q rt-elsewhere credentials/claude/.credentials.json").ok();
    bob.bash("[ $(stat -c %a credentials/claude/.credentials.json.home) = 600 ]").ok();
    credentials(&fixture, &["add", "home", "old.json"]).failed_with("baton credentials adopt home");
    credentials(&fixture, &["add", "x", "none.json"]).failed_with("these bytes are no claude login");
    let typed = fixture.bash("cat expired.json").ok();
    fixture.baton_with_input(&["credentials", "add", "idle", "-"], &typed).ok();
    credentials(&fixture, &["switch", "idle"]).failed_with("stale-slot");
    credentials(&fixture, &["switch", "idle", "--even-if-expired"]).ok();
    bob.bash("grep -q rt-expired credentials/claude/.credentials.json").ok();
    let unknown = credentials(&fixture, &["add", "x", "old.json", "--profile", "work"]).failed();
    assert!(unknown.contains("[credentials.work]\nformat = "), "{unknown}");
    drop(bob);
    fixture.verify();
}

#[test]
fn no_token_and_no_whole_hash_is_written_or_printed_anywhere() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    let mut mount = fixture.mount_command(&mountpoint, &["--as", "bob"]);
    crate::common::run(mount.env("RUST_LOG", "trace"), "").ok();
    let bob = fixture.mount_as("bob"); // the same daemon, and taken away at the end
    let mut said = String::new();
    let mut say = |output: Output| said += &format!("{}{}\n", output.stdout, output.stderr);
    for script in [
        "slots",
        "cd credentials/claude; mkdir .oauth_refresh.lock; login account-a2 > .credentials.json; rmdir .oauth_refresh.lock",
        "login somebody-else > credentials/claude/.credentials.json",
        "cd credentials/claude; login another-one > t; mv t .credentials.json.b; rm -f t",
        "printf '{\"claudeAiOauth\":{\"rt-torn-token\":1' > credentials/claude/.credentials.json",
        "printf '{\"claudeAiOauth\":{\"rt-torn-token\":1,\"rt-torn-token\":2}}' > credentials/claude/.credentials.json",
        "cd credentials/claude; sed s/a2/zz/ .credentials.json.a.fingerprint.json > s; mv s .credentials.json.b.fingerprint.json; rm -f s",
        "cd credentials/claude; ln -sfn .credentials.json.b .credentials.json; ln -sfn rt-no-slot .credentials.json",
        "cat credentials/claude/LOGIN-REFUSED.txt refusals.jsonl events.jsonl",
    ] {
        say(bob.bash(script));
    }
    let slot = fixture.dir().join("credentials/claude/.credentials.json.b");
    fs::write(&slot, fs::read_to_string(&slot).unwrap().replace("rt-account-b", "rt-behind")).unwrap();
    fixture.bash("login added > added.json").ok();
    for args in [
        &["credentials", "status"][..],
        &["credentials", "adopt", "a"],
        &["credentials", "baseline"],
        &["credentials", "add", "c", "added.json"],
        &["credentials", "add", "d", "/dev/null"],
        &["credentials", "switch", "c"],
        &["credentials", "switch", "none"],
        &["credentials", "history"],
        &["credentials", "status", "--json"],
        &["credentials", "baseline", "--json"],
        &["credentials", "history", "--json"],
        &["events", "--json"],
        &["refusals", "--json"],
        &["status", "--json"],
        &["verify"],
    ] {
        say(fixture.baton(args));
    }
    assert!(said.contains("Operation not permitted") && said.contains("\"adopted\""), "{said}");
    fixture.umount(&mountpoint).ok();

    let accounts =
        ["account-a", "account-b", "account-a2", "somebody-else", "another-one", "behind", "added"];
    let mut secrets = vec!["rt-torn-token".to_owned()];
    for account in accounts {
        secrets.extend([hash(&format!("rt-{account}")), format!("rt-{account}"), format!("at-{account}")]);
    }
    let check = |what: &str, text: &str| {
        for secret in &secrets {
            if let Some(at) = text.find(secret.as_str()) {
                let around =
                    &text[text.floor_char_boundary(at.saturating_sub(80))..text.ceil_char_boundary(at + 80)];
                panic!("{secret} in {what}: {around}");
            }
        }
    };
    let mut seen = 0;
    let mut folders = vec![fixture.dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let holds_logins =
                ["private/quarantine", "private/previous"].iter().any(|dir| path.ends_with(dir));
            let own = name.starts_with(".credentials.json") || holds_logins;
            if own || fs::symlink_metadata(&path).unwrap().is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                seen += 1;
                check(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
            }
        }
    }
    check("what was printed", &said);
    let log = fs::read_to_string(fixture.dir().join("private/daemon.log")).unwrap();
    assert!(seen > 10 && log.contains("TRACE"), "the log traces");
    drop(bob);
}
