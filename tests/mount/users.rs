//! Several users, and users without privileges.

use crate::common::{BATON, CLIENTS, Fixture, Mount, Output, detach, mounts_under, run};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// `nobody`: fusermount3 mounts only for users that the machine knows.
const ORDINARY: u32 = 65534;
/// Made-up users that no machine knows.
pub const BOB: u32 = 4243;
pub const ALICE: u32 = 4244;
pub const STRANGER: u32 = 4245;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// /dev/fuse open to everybody, as a distribution's udev rules make it; as it was on drop.
struct FuseForEverybody {
    was: Permissions,
    _one_at_a_time: File,
}

impl FuseForEverybody {
    fn new() -> Self {
        // The device itself is the lock, for every test process on this machine.
        let lock = File::open("/dev/fuse").expect("/dev/fuse is missing");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let was = fs::metadata("/dev/fuse").unwrap().permissions();
        fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666)).unwrap();
        FuseForEverybody { was, _one_at_a_time: lock }
    }
}

impl Drop for FuseForEverybody {
    fn drop(&mut self) {
        fs::set_permissions("/dev/fuse", self.was.clone()).unwrap();
    }
}

/// A folder of an ordinary user, with the program in it (the build folder may be closed to others).
struct Home {
    temp: tempfile::TempDir,
}

impl Home {
    fn new(uid: u32) -> Self {
        let temp = tempfile::Builder::new().prefix("baton-home-").tempdir().unwrap();
        fs::create_dir(temp.path().join("bin")).unwrap();
        fs::copy(BATON, temp.path().join("bin/baton")).unwrap();
        for client in ["peer.py", "slots.py", "prelude.sh"] {
            fs::copy(format!("{CLIENTS}/{client}"), temp.path().join("bin").join(client)).unwrap();
        }
        fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            chown(temp.path(), Some(uid), Some(uid)).unwrap();
        }
        Home { temp }
    }

    fn run(&self, uid: u32, script: &str) -> Output {
        run_as(uid, self.temp.path(), self.temp.path(), script)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        mounts_under(self.temp.path()).iter().for_each(|mountpoint| detach(mountpoint));
    }
}

/// Runs a bash script as another user (as oneself, where one is not root).
fn run_as(uid: u32, home: &Path, cwd: &Path, script: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120"]);
    if is_root() {
        let id = uid.to_string();
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    let bin = home.join("bin");
    command
        .args(["bash", "-c", &format!(". {}/prelude.sh\n{script}", bin.display())])
        .current_dir(cwd)
        .env("HOME", home)
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .env("PYTHONPATH", &bin)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("BATON_EXCHANGE");
    run(&mut command, "")
}

#[test]
fn an_ordinary_user_has_the_same_rules() {
    let _fuse = is_root().then(FuseForEverybody::new);
    let home = Home::new(ORDINARY);
    // Without CAP_SYS_ADMIN there is no passthrough: the fallback serves every read here.
    home.run(
        ORDINARY,
        r#"
set -eE
trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
export BATON_EXCHANGE=$HOME/exchange EXCHANGE=$HOME/exchange SCRATCH=$HOME
baton init exchange --agent bob --agent alice
mkdir mnt mnt2
baton mount exchange mnt --as bob
trap 'cd $HOME; baton umount mnt2; baton umount mnt' EXIT
baton mount exchange mnt2 --as alice
cd mnt
line bob one > $HOME/line
cat $HOME/line >> inbox/alice.jsonl
line bob two >> inbox/alice.jsonl
[ "$(wc -l < inbox/alice.jsonl)" = 2 ]
[ "$(jq -s length $HOME/mnt2/inbox/alice.jsonl)" = 2 ]
[ "$(stat -c %s inbox/alice.jsonl)" = "$(cat inbox/alice.jsonl | wc -c)" ]
refused() { local text=$1; shift; if out=$(eval "$*" 2>&1); then echo "not refused: $*"; exit 1; fi; case $out in *"$text"*) ;; *) echo "$*: $out"; exit 1;; esac; }
refused 'Operation not permitted' ': > inbox/alice.jsonl'
refused 'Operation not permitted' 'truncate -s 0 inbox/alice.jsonl'
refused 'Operation not permitted' 'rm -f inbox/alice.jsonl'
refused 'Operation not permitted' 'exec 3<> inbox/alice.jsonl'
refused 'File exists' 'cat $HOME/line >> inbox/alice.jsonl'
refused 'Bad message' 'echo hello >> inbox/alice.jsonl'
handoff bob alice > handoff/x.json
refused 'Permission denied' 'mv handoff/x.json claimed/'
mv $HOME/mnt2/handoff/x.json $HOME/mnt2/claimed/
[ -e claimed/x.json ]
slots
refused 'Operation not permitted' 'login somebody-else > credentials/claude/.credentials.json'
grep -q rt-account-a credentials/claude/.credentials.json
[ "$(wc -l < refusals.jsonl)" -ge 7 ]
cd $HOME
baton verify exchange
"#,
    )
    .ok();
    assert!(mounts_under(home.temp.path()).is_empty(), "left mounted");
}

/// One mount that several users share; each is the agent that the exchange maps its uid to.
pub struct Shared {
    pub fixture: Fixture,
    pub mount: Mount,
    home: Home,
}

impl Shared {
    /// `None` where the test is not root and so cannot be anybody else.
    pub fn new() -> Option<Self> {
        Self::configured(|_| {})
    }

    /// As [`Shared::new`], with a mount of the test's own.
    pub fn mounted(args: &[&str]) -> Option<Self> {
        Self::with(|_| {}, |fixture| fixture.mount_with(args))
    }

    fn configured(configure: impl FnOnce(&Fixture)) -> Option<Self> {
        Self::with(configure, Fixture::mount_as_operator)
    }

    fn with(configure: impl FnOnce(&Fixture), mount: impl FnOnce(&Fixture) -> Mount) -> Option<Self> {
        if !is_root() {
            eprintln!("not root: several users cannot be tried here");
            return None;
        }
        let fixture = Fixture::with_init_args(&[
            "--agent",
            &format!("bob={BOB}"),
            "--agent",
            &format!("alice={ALICE}"),
        ]);
        fs::set_permissions(fixture.dir().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        configure(&fixture);
        let mount = mount(&fixture);
        Some(Shared { fixture, mount, home: Home::new(BOB) })
    }

    /// Writes a text where every user can read it.
    fn give(&self, name: &str, text: &str) {
        let file = self.home.temp.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    }

    pub fn run(&self, uid: u32, script: &str) -> Output {
        run_as(uid, self.home.temp.path(), self.mount.path(), script)
    }
}

#[test]
fn one_mount_knows_its_users_by_uid() {
    let Some(shared) = Shared::new() else { return };
    shared.give("bobs", &(shared.fixture.line("bob", "one") + "\n"));
    shared.give("alices", &(shared.fixture.line("alice", "two") + "\n"));
    shared.give("handoff", &shared.fixture.handoff("bob", "alice"));
    shared.run(BOB, "cat ~/bobs >> inbox/alice.jsonl").ok();
    shared.run(ALICE, "cat ~/alices >> alice_to_bob.jsonl").ok();
    shared.run(BOB, "cat ~/alices >> inbox/carol.jsonl").failed_with("Permission denied");
    shared.run(BOB, "cat ~/bobs >> alice_to_bob.jsonl").failed_with("Permission denied");
    shared.run(BOB, "cat ~/handoff > handoff/x.json").ok();
    shared.run(BOB, "mv handoff/x.json claimed/").failed_with("Permission denied");
    shared.run(ALICE, "mv handoff/x.json claimed/").ok();
    let own = shared.run(BOB, "jq -r .rule refusals.jsonl").ok();
    assert!(own.lines().count() >= 2 && own.lines().all(|rule| rule == "authority"), "{own}");
    shared.fixture.verify();
}

#[test]
fn a_stranger_reads_and_changes_nothing() {
    let Some(shared) = Shared::new() else { return };
    shared.give("line", &(shared.fixture.line("bob", "one") + "\n"));
    shared.give("handoff", &shared.fixture.handoff("bob", "alice"));
    shared.run(BOB, "cat ~/handoff > handoff/x.json").ok();
    shared.run(STRANGER, "ls; cat README.md trust.json > /dev/null").ok();
    for script in [
        "cat ~/line >> inbox/alice.jsonl",
        "cat ~/line >> decisions.jsonl",
        "mv handoff/x.json claimed/",
        "rm -f handoff/x.json",
        "cat ~/handoff > handoff/y.json",
        "mkdir credentials/mine",
        "touch credentials/file",
        "truncate -s 0 inbox/alice.jsonl",
    ] {
        let output = shared.run(STRANGER, script);
        assert_ne!(output.status, 0, "a stranger could: {script}");
    }
    assert_eq!(shared.mount.read("inbox/alice.jsonl"), "");
    assert_eq!(shared.mount.names("handoff"), ["x.json"]);
    let credentials = shared.mount.names("credentials");
    assert!(
        !credentials.contains(&"mine".to_owned()) && !credentials.contains(&"file".to_owned()),
        "{credentials:?}"
    );
    shared.fixture.verify();
}

#[test]
fn each_user_is_told_what_it_may_without_trying() {
    let Some(shared) = Shared::new() else { return };
    shared.give("bobs", &(shared.fixture.line("bob", "one") + "\n"));
    shared.run(BOB, "cat ~/bobs >> bob_to_alice.jsonl").ok();
    for (path, bob, alice, stranger) in [
        ("inbox/alice.jsonl", "rw", "rw", "r"),
        ("bob_to_alice.jsonl", "rw", "r", "r"),
        ("handoff", "rwx", "rwx", "rx"),
        ("trust.json", "r", "r", "r"),
        ("credentials", "rx", "rx", "rx"),
        ("credentials/claude", "rwx", "rwx", ""),
    ] {
        for (uid, may) in [(BOB, bob), (ALICE, alice), (STRANGER, stranger)] {
            let script = format!("for t in r w x; do [ -$t {path} ] && printf $t; done; true");
            assert_eq!(shared.run(uid, &script).ok(), may, "{path} for {uid}");
        }
    }
    shared.run(STRANGER, "cd credentials/claude").failed_with("Permission denied");
    shared.run(BOB, "cd credentials/claude && ls").ok();
    assert!(shared.fixture.refusals().is_empty(), "asking is no attempt");
}

#[test]
fn the_users_of_one_mount_send_files_as_themselves() {
    let Some(shared) = Shared::configured(|fixture| {
        fixture.reconfigure(|text| text.replace("[agents.\"bob\"]", "[agents.\"bob\"]\nseal = true"));
    }) else {
        return;
    };
    shared
        .run(
            BOB,
            "{ echo a; echo log >&2; echo b; } > send/alice/x.md && ls send/alice && cat send/alice/x.md",
        )
        .ok();
    shared.run(BOB, "bash -c 'echo half > /dev/fd/1; kill -9 $$' > send/alice/y.md").failed();
    let inbox = shared.mount.read("inbox/alice.jsonl");
    assert!(inbox.contains(r#""body":"a\nb""#) && inbox.lines().count() == 1, "{inbox}");
    shared.run(BOB, "[ $(jq -r .rule refusals.jsonl) = partial ]").ok();
    // No uid's lines are sealed but where exchange.toml says so.
    shared.run(ALICE, "echo x > send/bob/x.md").failed_with("Key was rejected by service");
    shared.run(STRANGER, "echo x > send/alice/x.md").failed_with("Permission denied");
    assert_eq!(shared.run(ALICE, "ls send/alice").ok(), "", "what others sent is in the inbox");
    assert_eq!(shared.run(STRANGER, "ls send/alice").ok(), "");
    assert_eq!(shared.mount.names("send/alice"), ["bob:x.md"]);
    for (uid, may) in [(BOB, "rwx"), (STRANGER, "rx")] {
        let script = "for t in r w x; do [ -$t send/alice ] && printf $t; done; true";
        assert_eq!(shared.run(uid, script).ok(), may);
    }
    shared.fixture.verify();
}

#[test]
fn the_exchange_itself_is_closed_to_its_agents() {
    let Some(shared) = Shared::new() else { return };
    let dir = shared.fixture.dir();
    for uid in [BOB, STRANGER] {
        for path in ["private/keys/bob.key", "private/secrets/alice,bob.secret"] {
            shared.run(uid, &format!("cat {}/{path}", dir.display())).failed_with("Permission denied");
        }
        shared
            .run(uid, &format!("echo x >> {}/inbox/alice.jsonl", dir.display()))
            .failed_with("Permission denied");
        shared.run(uid, &format!("rm -f {}/trust.json", dir.display())).failed_with("Permission denied");
    }
}
