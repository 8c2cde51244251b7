//! The offline proof: is an exchange what its events say, and is every line and handoff in it what its
//! author signed? From the files alone; nothing is changed.
//!
//! The order is the one in which the daemon writes, turned round: events first, then what they tell of.
//! While a daemon runs, what it did in between is then never taken for a fault.

mod chain;
mod credentials;
mod delivery;
mod handoffs;
mod history;
pub(super) mod lines;
mod logs;
mod private;
mod send;

use super::OpenError;
use super::config::Config;
use super::layout::Layout;
use chain::Chain;
use delivery::Delivery;
use history::History;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, relative to the exchange's folder.
    pub file: String,
    /// The line in it, from 1; `None` where it is about the file as a whole.
    pub line: Option<u64>,
    /// The broken rule: a name from [`crate::rules::Rule`], or one of the proof's own (`event-chain`,
    /// `uncovered`, `undelivered`, `torn`, `moved`, `missing`, `added`, `modes`, `config`, `trust`, `key`, `card`,
    /// `credential`, `unreadable`).
    pub rule: &'static str,
    /// What is wrong.
    pub problem: String,
    /// Whether a crash leaves such a thing behind, and the next mount repairs it.
    pub mended_by_a_mount: bool,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines of events.jsonl.
    pub events: u64,
    /// Logs.
    pub logs: u64,
    /// Lines of all logs.
    pub lines: u64,
    /// Handoffs in all four directories.
    pub handoffs: u64,
    /// Credential slots.
    pub slots: u64,
}

/// The outcome of [`verify`].
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Everything that is wrong, by file and line.
    pub faults: Vec<Fault>,
    /// What was looked at.
    pub counts: Counts,
    /// sha256 of the last event's line, in hex: it stands for all events before it. `None`: no events.
    pub head: Option<String>,
    /// Whether a daemon was at work; what it had under way is left out.
    pub live: bool,
}

/// Faults, as they are found.
#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(
        &mut self,
        file: impl Into<String>,
        line: Option<u64>,
        rule: &'static str,
        problem: impl Into<String>,
    ) {
        let (file, problem) = (file.into(), problem.into());
        self.0.push(Fault { file, line, rule, problem, mended_by_a_mount: false });
    }
    /// A fault that a crash may have left and the next mount repairs.
    fn add_mendable(
        &mut self,
        file: impl Into<String>,
        line: Option<u64>,
        rule: &'static str,
        problem: impl Into<String>,
    ) {
        self.add(file, line, rule, problem);
        if let Some(fault) = self.0.last_mut() {
            fault.mended_by_a_mount = true;
        }
    }
}

/// What every part of the proof is judged against.
struct Setting<'a> {
    layout: &'a Layout,
    config: &'a Config,
    history: History,
    live: bool,
}

/// Proves the exchange in `dir`.
///
/// # Errors
/// `dir` can't be looked at at all. Whatever is wrong inside is a [`Fault`].
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let layout = Layout::new(dir);
    let io_error = |file: &Path| {
        let file = file.to_owned();
        move |error| OpenError::Io { file, error }
    };
    std::fs::read_dir(layout.private()).map_err(io_error(&layout.private()))?;
    loop {
        let live = daemon_runs(&layout).map_err(io_error(&layout.lock()))?;
        let report = verify_once(&layout, live);
        // A daemon that started meanwhile may have been caught between an event and its deed.
        if live || report.faults.is_empty() || !daemon_runs(&layout).map_err(io_error(&layout.lock()))? {
            return Ok(report);
        }
    }
}

fn verify_once(layout: &Layout, live: bool) -> Report {
    let mut faults = Faults::default();
    let mut counts = Counts::default();
    let config = private::check_config(layout, &mut faults);
    let trust = private::check_trust(layout, &mut faults);
    private::check_modes(layout, &mut faults);
    private::check_keys(layout, &trust, &mut faults);
    private::check_cards(layout, &trust, &mut faults);
    let mut chain = Chain::default();
    chain.read_on(layout, live, &mut faults);
    let history = History::new(&trust, &chain.trust_changes);
    let setting = Setting { layout, config: &config, history, live };
    let mut delivery = Delivery::default();
    for log in logs::find(layout, &chain) {
        counts.logs += 1;
        // A log that is archived while it is read is neither what it was nor what it will be; look again then.
        let mut tries = if live { 10 } else { 1 };
        loop {
            tries -= 1;
            let mut found = Faults::default();
            let lines = logs::check(&setting, &log, &chain, &mut found);
            if found.0.is_empty() || tries == 0 {
                counts.lines += lines.count;
                delivery.add(lines);
                faults.0.append(&mut found.0);
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            let before = chain.archives(&log).len();
            chain.read_on(layout, live, &mut faults);
            if chain.archives(&log).len() == before {
                tries = tries.min(1);
            }
        }
    }

    if !live {
        delivery.check(&mut faults);
    }

    // A file that moves while its directory is listed is missing or there twice; look again then.
    let mut tries = if live { 10 } else { 1 };
    loop {
        tries -= 1;
        let mut found = Faults::default();
        logs::check_archive(&setting, &chain, &mut found);
        counts.handoffs = handoffs::check(&setting, &chain, &mut found);
        send::check(&setting, &chain, &mut found);
        counts.slots = credentials::check(&setting, &chain, &mut found);
        if found.0.is_empty() || tries == 0 {
            faults.0.append(&mut found.0);
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        chain.read_on(layout, live, &mut faults);
    }

    counts.events = chain.count();
    faults.0.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Report { faults: faults.0, counts, head: chain.head(), live }
}

/// Whether a daemon holds the exchange's lock.
fn daemon_runs(layout: &Layout) -> std::io::Result<bool> {
    match std::fs::File::open(layout.lock()) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
        Ok(lock) => match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        },
    }
}

/// `1 line`, `2 lines`.
fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Lower-case hex of some bytes.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// 32 bytes from 64 hex digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}
