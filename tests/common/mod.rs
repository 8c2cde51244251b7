//! What every test with a real mount needs: an exchange of its own, mounts that are always taken
//! away again, and ways to act as the programs that agents are (bash, Python, Node).

#![allow(dead_code, reason = "each test binary uses its part")]

mod run;

pub use run::{Output, run, signal, wait_until};

use serde_json::Value;
use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The program under test.
pub const BATON: &str = env!("CARGO_BIN_EXE_baton");
/// Where the Python, Node and bash clients lie.
pub const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// The agents of every fixture.
pub const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

/// A whole number from the environment, so that the long tests have a short form.
pub fn count_from_env(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")),
        Err(_) => default,
    }
}

/// An exchange made by the real `baton init`, with the agents alice, bob and carol.
#[derive(Clone)]
pub struct Fixture {
    inner: Rc<Inner>,
}

struct Inner {
    // Dropped last: the folder may only go once nothing is mounted in it.
    temp: tempfile::TempDir,
    dir: PathBuf,
    mounts_made: Cell<u32>,
}

impl Fixture {
    /// A fresh exchange. Fails, never skips, where FUSE is not to be had.
    pub fn new() -> Self {
        Self::with_init_args(&[])
    }

    /// A fresh exchange, with more arguments to `baton init`.
    pub fn with_init_args(args: &[&str]) -> Self {
        Self::make("exchange", args)
    }

    /// A fresh exchange at a path of its own below the fixture's folder.
    pub fn named(path: &str) -> Self {
        Self::make(path, &[])
    }

    fn make(path: &str, args: &[&str]) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is missing: these tests need a kernel with FUSE (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
        );
        let temp = tempfile::Builder::new().prefix("baton-test-").tempdir().unwrap();
        let dir = temp.path().join(path);
        let fixture = Fixture { inner: Rc::new(Inner { temp, dir: dir.clone(), mounts_made: Cell::new(0) }) };
        fs::create_dir(fixture.scratch()).unwrap();
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        let mut command = Command::new(BATON);
        command.arg("init").arg(&dir);
        for agent in AGENTS {
            if !args.iter().any(|arg| arg.starts_with(&format!("{agent}="))) {
                command.args(["--agent", agent]);
            }
        }
        command.args(args);
        run(&mut command, "").ok();
        fixture
    }

    /// The exchange's own folder.
    pub fn dir(&self) -> PathBuf {
        self.inner.dir.clone()
    }

    /// The folder that everything of this fixture lies in.
    pub fn root(&self) -> &Path {
        self.inner.temp.path()
    }

    /// A folder outside every mount, for the clients' own files.
    pub fn scratch(&self) -> PathBuf {
        self.inner.temp.path().join("scratch")
    }

    /// Adds lines to exchange.toml. For before the first mount.
    pub fn configure(&self, toml: &str) {
        let file = self.dir().join("exchange.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\n{toml}\n")).unwrap();
    }

    /// Changes exchange.toml's text. For before the first mount.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let file = self.dir().join("exchange.toml");
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// Adds a line to an agent's table in exchange.toml. For before the first mount.
    pub fn configure_agent(&self, agent: &str, line: &str) {
        let table = format!("[agents.\"{agent}\"]\n");
        self.reconfigure(|toml| {
            assert!(toml.contains(&table), "{agent} has no table in {toml}");
            toml.replace(&table, &format!("{table}{line}\n"))
        });
    }

    /// Gives a key of exchange.toml that stands there already another value. For before the first mount.
    pub fn configure_key(&self, key: &str, value: &str) {
        self.reconfigure(|toml| {
            let start = toml.find(&format!("\n{key} = ")).unwrap_or_else(|| panic!("no {key} in {toml}")) + 1;
            let end = start + toml[start..].find('\n').unwrap();
            format!("{}{key} = {value}{}", &toml[..start], &toml[end..])
        });
    }

    /// Says who decides about what: `release = ["alice", "bob"]`. For before the first mount.
    pub fn configure_domains(&self, domains: &str) {
        self.reconfigure(|toml| toml.replace("\n[domains]\n", &format!("\n[domains]\n{domains}\n")));
    }

    /// Runs `baton` with this exchange as its default.
    pub fn baton(&self, args: &[&str]) -> Output {
        self.baton_with_input(args, "")
    }

    /// Runs `baton` with text on its standard input.
    pub fn baton_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(BATON);
        command.args(args).env("BATON_EXCHANGE", self.dir()).current_dir(self.scratch());
        run(&mut command, input)
    }

    /// The objects, signed by an agent: one line each, without the last newline.
    pub fn sign(&self, agent: &str, objects: &str) -> String {
        self.baton_with_input(&["sign", "--as", agent], objects).ok().trim_end().to_owned()
    }

    /// A signed line that says `body`.
    pub fn line(&self, agent: &str, body: &str) -> String {
        self.sign(agent, &message(body))
    }

    /// A signed handoff payload that may be claimed for a minute.
    pub fn handoff(&self, from: &str, to: &str) -> String {
        self.handoff_for(from, to, "caller-1", 60)
    }

    /// A signed handoff payload.
    pub fn handoff_for(&self, from: &str, to: &str, caller: &str, ttl_seconds: i64) -> String {
        let ttl = format!("--ttl={ttl_seconds}");
        let args =
            ["handoff", "new", "--from", from, "--to", to, "--caller", caller, "--reason", "test", &ttl];
        self.baton(&args).ok().trim_end().to_owned()
    }

    /// Mounts the exchange as one agent.
    pub fn mount_as(&self, agent: &str) -> Mount {
        self.mount_with(&["--as", agent])
    }

    /// Mounts it for whoever calls: here the user that owns it, its operator.
    pub fn mount_as_operator(&self) -> Mount {
        self.mount_with(&[])
    }

    /// Mounts it with these arguments.
    pub fn mount_with(&self, args: &[&str]) -> Mount {
        let mountpoint = self.new_mountpoint();
        self.mount_at(mountpoint, args)
    }

    /// An empty folder to mount on.
    pub fn new_mountpoint(&self) -> PathBuf {
        let n = self.inner.mounts_made.get();
        self.inner.mounts_made.set(n + 1);
        let mountpoint = self.inner.temp.path().join(format!("mnt{n}"));
        fs::create_dir(&mountpoint).unwrap();
        mountpoint
    }

    /// Mounts it on a given folder.
    pub fn mount_at(&self, mountpoint: PathBuf, args: &[&str]) -> Mount {
        let mount = Mount { fixture: self.clone(), mountpoint, gone: Cell::new(false) };
        run(&mut self.mount_command(&mount.mountpoint, args), "").ok();
        assert!(is_mounted(&mount.mountpoint), "`baton mount` returned but nothing is mounted");
        mount
    }

    /// `baton mount` about to run, for who wants more of it than a mount.
    pub fn mount_command(&self, mountpoint: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(BATON);
        command.arg("mount").arg(self.dir()).arg(mountpoint).args(args);
        command
    }

    /// Runs `baton umount`, which may fail.
    pub fn umount(&self, mountpoint: &Path) -> Output {
        run(Command::new(BATON).arg("umount").arg(mountpoint), "")
    }

    /// What `baton status` says of the exchange.
    #[track_caller]
    pub fn status(&self) -> Value {
        let status = self.baton(&["status", "--json", self.dir().to_str().unwrap()]).ok();
        serde_json::from_str(&status).expect("--json is JSON")
    }

    /// Whether `baton status` says that a daemon is running.
    #[track_caller]
    pub fn is_running(&self) -> bool {
        self.status()["running"].as_bool().unwrap()
    }

    /// Every refusal on record, oldest first.
    pub fn refusals(&self) -> Vec<Value> {
        json_lines(&fs::read_to_string(self.dir().join("private/refusals/all.jsonl")).unwrap_or_default())
    }

    /// The newest refusal on record.
    #[track_caller]
    pub fn last_refusal(&self) -> Value {
        self.refusals().pop().expect("nothing was refused")
    }

    /// The events on record, oldest first.
    pub fn events(&self) -> Vec<Value> {
        json_lines(&fs::read_to_string(self.dir().join("events.jsonl")).unwrap_or_default())
    }

    /// `baton verify` must find no fault.
    #[track_caller]
    pub fn verify(&self) {
        self.baton(&["verify", self.dir().to_str().unwrap()]).ok();
    }

    /// The running daemon's process id, from its lock file.
    pub fn daemon_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.dir().join("private/daemon.lock")).ok()?;
        let pid: u32 = text.split(|c: char| !c.is_ascii_digit()).find(|s| !s.is_empty())?.parse().ok()?;
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (exe.file_name()? == "baton").then_some(pid)
    }

    /// kill -9, and waits until it is gone.
    #[track_caller]
    pub fn kill_daemon(&self) {
        let pid = self.daemon_pid().expect("no daemon is running");
        signal(pid, "KILL");
        wait_until("the killed daemon is gone", || self.daemon_pid().is_none());
    }

    /// Runs a bash script outside any mount.
    pub fn bash(&self, script: &str) -> Output {
        self.shell(&self.scratch(), script)
    }

    fn shell(&self, cwd: &Path, script: &str) -> Output {
        let script = format!(". {CLIENTS}/prelude.sh\n{script}");
        self.client("bash", &["-c", &script], cwd)
    }

    fn client(&self, program: &str, args: &[&str], cwd: &Path) -> Output {
        run(&mut self.client_command(program, args, cwd), "")
    }

    /// A client program about to run in `cwd`, with what the clients need in its environment.
    pub fn client_command(&self, program: &str, args: &[&str], cwd: &Path) -> Command {
        // A mount that hangs must fail its test, not stop the run.
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "300", program]).args(args).current_dir(cwd);
        let mut path = vec![Path::new(BATON).parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        command
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("BATON_EXCHANGE", self.dir())
            .env("EXCHANGE", self.dir())
            .env("SCRATCH", self.scratch())
            .env("PYTHONPATH", CLIENTS)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mounted = mounts_under(self.temp.path());
        for mountpoint in &mounted {
            detach(mountpoint);
        }
        if !std::thread::panicking() {
            assert!(mounted.is_empty(), "left mounted: {mounted:?}");
        }
    }
}

/// A mounted exchange; unmounted on drop, also when the test fails.
pub struct Mount {
    fixture: Fixture,
    mountpoint: PathBuf,
    gone: Cell<bool>,
}

impl Mount {
    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path in the tree.
    pub fn at(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// Reads a file of the tree as text.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("reading {path}: {e}"))
    }

    /// The lines of a log, parsed.
    #[track_caller]
    pub fn lines(&self, log: &str) -> Vec<Value> {
        json_lines(&self.read(log))
    }

    /// What the messages of a log say: each one's `body`, which must be a text.
    #[track_caller]
    pub fn bodies(&self, log: &str) -> Vec<String> {
        let body =
            |line: Value| line["body"].as_str().unwrap_or_else(|| panic!("no text in {line}")).to_owned();
        self.lines(log).into_iter().map(body).collect()
    }

    /// Appends to a file of the tree with one write.
    #[track_caller]
    pub fn append(&self, path: &str, text: &str) {
        let mut file = fs::File::options().append(true).open(self.at(path)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The names in a folder of the tree, sorted.
    #[track_caller]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).unwrap_or_else(|e| panic!("listing {path}: {e}"));
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs a bash script in the mount, with the functions of tests/clients/prelude.sh.
    pub fn bash(&self, script: &str) -> Output {
        self.fixture.shell(&self.mountpoint, script)
    }

    /// Runs a Python program in the mount; tests/clients is on its path.
    pub fn python(&self, program: &str) -> Output {
        self.fixture.client("python3", &["-c", program], &self.mountpoint)
    }

    /// Runs a Node program in the mount.
    pub fn node(&self, program: &str) -> Output {
        self.fixture.client("node", &["-e", program], &self.mountpoint)
    }

    /// A client program about to run in the mount.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        self.fixture.client_command(program, args, &self.mountpoint)
    }

    /// The refusals that this mount's reader is shown.
    pub fn refusals(&self) -> Vec<Value> {
        json_lines(&self.read("refusals.jsonl"))
    }

    /// Runs a bash script that must fail, show `text`, and be refused by `rule`.
    #[track_caller]
    pub fn refuses(&self, script: &str, text: &str, rule: &str) {
        self.expect_refusal(|| self.bash(script), text, rule);
    }

    /// Runs a Python program that must fail, show `text`, and be refused by `rule`.
    #[track_caller]
    pub fn refuses_python(&self, program: &str, text: &str, rule: &str) {
        self.expect_refusal(|| self.python(program), text, rule);
    }

    /// Runs a Node program that must fail, show `text`, and be refused by `rule`.
    #[track_caller]
    pub fn refuses_node(&self, program: &str, text: &str, rule: &str) {
        self.expect_refusal(|| self.node(program), text, rule);
    }

    #[track_caller]
    fn expect_refusal(&self, act: impl FnOnce() -> Output, text: &str, rule: &str) {
        let before = self.refusals().len();
        act().failed_with(text);
        let refusals = self.refusals();
        assert!(refusals.len() > before, "it failed as it should, but refusals.jsonl says nothing of it");
        assert_eq!(refusals[refusals.len() - 1]["rule"], rule, "{:#}", refusals[refusals.len() - 1]);
    }

    /// Unmounts with `baton umount`, which must succeed.
    #[track_caller]
    pub fn umount(self) {
        self.gone.set(true);
        self.fixture.umount(&self.mountpoint).ok();
        assert!(!is_mounted(&self.mountpoint), "`baton umount` returned but it is still mounted");
    }

    /// Takes away what a killed daemon left behind, and gives the folder back.
    pub fn take_dead(self) -> PathBuf {
        self.gone.set(true);
        detach(&self.mountpoint);
        self.mountpoint.clone()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.gone.get() || !is_mounted(&self.mountpoint) {
            return;
        }
        let output = run(Command::new("timeout").args(["20", BATON, "umount"]).arg(&self.mountpoint), "");
        let still_there = is_mounted(&self.mountpoint);
        if still_there {
            detach(&self.mountpoint);
        }
        if !std::thread::panicking() {
            assert!(!still_there, "`baton umount` left the mount: {output:?}");
            assert_eq!(output.status, 0, "{output:?}");
        }
    }
}

/// A minimal message that says `body`.
pub fn message(body: &str) -> String {
    serde_json::json!({"type": "feedback", "subject": "test", "body": body}).to_string()
}

/// Whether something is mounted on exactly this path, alive or dead.
pub fn is_mounted(path: &Path) -> bool {
    mounts_under(path).iter().any(|mounted| mounted == path)
}

/// The mounts at and below a path.
pub fn mounts_under(path: &Path) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mounted| PathBuf::from(mounted.replace("\\040", " ")))
        .filter(|mounted| mounted.starts_with(path))
        .collect()
}

/// Takes a mount away whatever state it is in.
pub fn detach(mountpoint: &Path) {
    for (program, flags) in [("umount", "-l"), ("fusermount3", "-uz")] {
        let _ = Command::new(program).arg(flags).arg(mountpoint).stderr(Stdio::null()).status();
        if !is_mounted(mountpoint) {
            return;
        }
    }
}

/// The lines of a JSONL text.
#[track_caller]
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}")))
        .collect()
}

/// A time by which something must have happened.
pub fn deadline(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}
