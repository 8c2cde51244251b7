//! The command line without a mount: what each command prints, refuses and leaves on disk.

#![allow(missing_docs, clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commands;
mod moving;
mod skill;
mod trust;
mod verify;

use batonfs::exchange::layout::Layout;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}", self.err);
        self.out
    }
    /// Standard error of a command that failed with this status.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self.err
    }
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// Runs `baton` in `dir` with this on standard input.
pub fn baton_in(dir: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(args)
        .current_dir(dir)
        .env_remove("BATON_EXCHANGE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it closes the pipe; that is no fault.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An exchange of bob (uid 1001) and alice, made by `baton init`.
pub struct Sample {
    pub temp: tempfile::TempDir,
}

impl Sample {
    pub fn make() -> Self {
        let sample = Sample { temp: tempfile::tempdir().unwrap() };
        baton_in(sample.temp.path(), &["init", "exchange", "--agent", "bob=1001", "--agent", "alice"], "")
            .ok();
        sample
    }
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("exchange")
    }
    pub fn layout(&self) -> Layout {
        Layout::new(self.dir())
    }
    /// A path in the exchange's folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir().join(path)
    }
    /// Runs `baton` inside the exchange's folder.
    pub fn baton(&self, args: &[&str], input: &str) -> Ran {
        baton_in(&self.dir(), args, input)
    }
}
