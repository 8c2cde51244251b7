//! Becoming the daemon of an exchange: in this process, or in one of its own in the background.

use super::harden::harden;
use super::open_options;
use super::protocol::{MountReport, durability_word};
use super::server::Daemon;
use crate::exchange::layout::Layout;
use crate::exchange::open::check_private;
use crate::exchange::{Durability, Exchange, OpenError};
use crate::fuse::MountSpec;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tracing_subscriber::EnvFilter;

/// The hidden flag of `baton mount` with which this module starts the background process.
pub const BACKGROUND_FLAG: &str = "--background";

/// How the daemon's log reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

impl LogFormat {
    fn word(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// What became of an attempt to become the daemon: the line that the background process tells the one that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// It runs, and the first mount answers.
    Mounted(MountReport),
    /// Another process holds the exchange's lock; its pid, as the lock file says.
    InUse(String),
    /// A sentence that says what to do.
    Failed(String),
}

/// Becomes the daemon in this process: tells `announce` how that went, then serves until the last mount has ended or a
/// signal (SIGTERM, SIGINT, SIGHUP) ended them all. Returns at once where `announce` was not told of a mount.
///
/// # Errors
/// `announce`'s own.
pub fn serve(
    exchange_dir: &Path,
    first: &MountSpec,
    durability: Durability,
    announce: impl FnOnce(&Launch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Before anything is mounted: a signal that comes any later must find somebody who unmounts.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("waiting for signals")?;
    raise_file_limit();
    let hardening = harden();
    let exchange = match Exchange::open(exchange_dir, open_options(durability)) {
        Ok(exchange) => exchange,
        Err(OpenError::InUse { holder, .. }) => return announce(&Launch::InUse(holder)),
        Err(e) => return announce(&Launch::Failed(e.to_string())),
    };
    let (daemon, report) = match Daemon::start(exchange, durability, hardening, first) {
        Ok(started) => started,
        Err(e) => return announce(&Launch::Failed(format!("{e:#}"))),
    };
    let stopper = daemon.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!(signal, "ending all mounts");
            stopper.stop();
        }
    })?;
    announce(&Launch::Mounted(report)).inspect_err(|_| daemon.stop())?;
    daemon.run();
    tracing::info!("the daemon has ended");
    Ok(())
}

/// Every file that is open through a mount is open here too, so the usual limit of 1,024 is one program's.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Starts the daemon in the background and waits until its first mount answers, or it says why not. `key`: the
/// absolute path of the key file of that mount.
///
/// # Errors
/// It could not be started, or ended without a word: the end of its log.
pub fn start_in_background(
    exchange_dir: &Path,
    first: &MountSpec,
    key: Option<&Path>,
    durability: Durability,
    log_format: LogFormat,
) -> anyhow::Result<Launch> {
    let layout = Layout::new(exchange_dir);
    if let Err(e) = check_private(&layout) {
        return Ok(Launch::Failed(e.to_string()));
    }
    let log_path = layout.daemon_log();
    let mut log = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .with_context(|| log_path.display().to_string())?;
    let log_start = log.seek(SeekFrom::End(0))?;
    let program = std::env::current_exe().context("finding the baton command itself")?;
    let mut command = Command::new(program);
    command.arg("mount").arg(exchange_dir).arg(&first.mountpoint).arg(BACKGROUND_FLAG);
    command.args(["--durability", durability_word(durability), "--log-format", log_format.word()]);
    if let Some(agent) = &first.bound {
        command.args(["--as", agent.as_str()]);
    }
    if let Some(key) = key {
        command.arg("--key").arg(key);
    }
    command.args(first.allow_other.then_some("--allow-other"));
    command.args((!first.passthrough).then_some("--no-passthrough"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?);
    let mut child = command.spawn().context("starting the daemon")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match serde_json::from_str(&line) {
        // It goes on without us.
        Ok(Launch::Mounted(report)) => Ok(Launch::Mounted(report)),
        Ok(launch) => {
            child.wait()?;
            Ok(launch)
        }
        Err(_) => {
            let status = child.wait()?;
            let said = end_of_log(log, log_start).unwrap_or_default();
            Ok(Launch::Failed(format!(
                "the daemon ended ({status}) before its mount answered; {} says:\n{said}",
                log_path.display()
            )))
        }
    }
}

fn end_of_log(mut log: File, start: u64) -> std::io::Result<String> {
    let mut said = Vec::new();
    log.seek(SeekFrom::Start(start))?;
    log.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.trim_end().lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// Leaves the terminal and folder of the process that started this one. The process must be one that
/// [`start_in_background`] made, which is no group's leader.
///
/// # Errors
/// The operating system's.
pub fn leave_session() -> anyhow::Result<()> {
    rustix::process::setsid().context("leaving the terminal")?;
    // So that no folder is kept busy.
    std::env::set_current_dir("/").context("leaving the folder")?;
    Ok(())
}

/// Tells the process that waits in [`start_in_background`], and lets it go.
///
/// # Errors
/// It is gone.
pub fn announce_on_stdout(launch: &Launch) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(launch)?)?;
    stdout.flush()?;
    // The log takes the pipe's place, so that whoever waits for the pipe to close does not wait for this daemon's end.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(())
}

/// Sends the log to stderr: what `RUST_LOG` asks for, or else what an operator wants to know.
pub fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,fuser=error"));
    // Told to report that it can't write, it would panic on the same full disk, and fail the request that it logs.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // Fails only where a log is set up already, which then serves as well.
    let _ = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
