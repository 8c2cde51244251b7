//! An exchange with real keys, made by the real command, and a mount that always goes away.

use batonfs::wire::json::{Object, Value};
use batonfs::wire::keys::SigningKey;
use batonfs::wire::message::{SignatureVersion, sign};
use batonfs::wire::name::AgentName;
use batonfs::wire::time::Timestamp;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const AGENTS: [&str; 5] = ["bob", "alice", "carol", "dave", "erin"];

pub struct World {
    dir: tempfile::TempDir,
    key: SigningKey,
}

pub struct Mount {
    pub at: PathBuf,
}

impl World {
    pub fn new() -> Self {
        Self::of(&AGENTS)
    }

    /// An exchange of these agents, bob among them.
    pub fn of(agents: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut init = baton();
        init.arg("init").arg(dir.path().join("exchange"));
        for agent in agents {
            init.args(["--agent", agent]);
        }
        run(&mut init);
        let key = std::fs::read(dir.path().join("exchange/private/keys/bob.key")).unwrap();
        World { key: SigningKey::from_file_text(&key).unwrap(), dir }
    }

    pub fn exchange(&self) -> PathBuf {
        self.dir.path().join("exchange")
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn mount(&self, name: &str, options: &[&str]) -> Mount {
        let at = self.dir.path().join(name);
        std::fs::create_dir_all(&at).unwrap();
        run(baton().arg("mount").arg(self.exchange()).arg(&at).args(options));
        Mount { at }
    }

    /// A signed v3.1 line of bob's of about 400 bytes (or more, for a longer body), with its newline.
    pub fn line(&self, number: usize, body_bytes: usize) -> Vec<u8> {
        let text = |s: &str| Value::String(s.into());
        let now = Timestamp(1_760_000_000_000_000 + number as i64);
        let object: Object = [
            ("type".to_owned(), text("request")),
            ("subject".to_owned(), text(&format!("n {number}"))),
            ("body".to_owned(), text(&"x".repeat(body_bytes))),
        ]
        .into();
        let bob = AgentName::parse("bob").unwrap();
        let mut line = sign(object, &bob, &self.key, SignatureVersion::V31, now).unwrap().into_bytes();
        line.push(b'\n');
        line
    }

    pub fn lines(&self, numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        numbers.map(|n| self.line(n, 8)).collect()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = baton().arg("umount").arg(&self.at).stdout(std::process::Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.at.display());
        }
    }
}

pub fn baton() -> Command {
    Command::new(env!("CARGO_BIN_EXE_baton"))
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The daemon's resident memory in MiB.
pub fn daemon_memory(exchange: &Path) -> f64 {
    let pid = std::fs::read_to_string(exchange.join("private/daemon.lock")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
