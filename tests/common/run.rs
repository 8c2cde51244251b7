//! Running programs and waiting for conditions.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status; 128 + signal where it was killed.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors: what an agent reads.
    pub stderr: String,
}

impl Output {
    /// It must have succeeded. Gives what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "it failed:\n{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// It must have failed. Gives what it printed as errors.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(self.status, 0, "it succeeded, but should fail:\n{}{}", self.stdout, self.stderr);
        self.stderr
    }

    /// It must have failed and shown `text`.
    #[track_caller]
    pub fn failed_with(&self, text: &str) {
        assert_ne!(
            self.status, 0,
            "it succeeded, but should fail with {text:?}:\n{}{}",
            self.stdout, self.stderr
        );
        let shown = format!("{}{}", self.stdout, self.stderr);
        assert!(shown.contains(text), "it should show {text:?}, but shows:\n{shown}");
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // In a thread of its own: a program that prints while it reads would otherwise block both sides.
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Output {
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a process a signal, given by its name.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    run(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()), "").ok();
}

/// Waits for a condition, up to 30 seconds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 30 s in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
