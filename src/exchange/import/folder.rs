//! A `_coordination/` folder as another program left it: which files in it are logs, and which of their lines are
//! right.

use crate::exchange::Exchange;
use crate::exchange::handoffs::State;
use crate::exchange::logs::LogName;
use crate::exchange::replay::{ShortId, short};
use crate::exchange::verify::lines::{check_message, check_stored};
use crate::rules::{Refusal, Rule, address, archive};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Longest line, in bytes: `baton verify` reads none that is longer.
const MAX_LINE: usize = 64 << 20;

/// What a folder holds.
#[derive(Default)]
pub(super) struct Folder {
    /// Files that are logs by their name, the older first.
    pub logs: Vec<Found>,
    /// By state: how many handoffs.
    pub handoffs: BTreeMap<&'static str, u64>,
    /// Whether there is a trust.json.
    pub has_trust: bool,
    /// Everything else, by its path in the folder.
    pub left: Vec<String>,
}

/// A file that is a log by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// The year and number of an archive; live files come after all of them.
    age: (i16, usize),
    /// Its path in the folder.
    pub name: String,
    /// The log that its lines belong to; `None` where an agent in its name is not of this exchange.
    pub log: Option<LogName>,
}

/// A file after its lines were judged.
pub(super) struct Judged {
    pub name: String,
    pub log: Option<LogName>,
    pub bytes: Vec<u8>,
    pub lines: Vec<Line>,
    pub refused: Vec<RefusedLine>,
}

/// A line that is right.
pub(super) struct Line {
    pub at: Range<usize>,
    pub id: ShortId,
    pub written: Timestamp,
    pub unsigned: bool,
    /// Whose inboxes it goes to; nobody's where it stands in one.
    pub to: Vec<AgentName>,
    /// It belongs into the incident log too.
    pub is_incident: bool,
}

/// A line that is not.
pub(super) struct RefusedLine {
    pub number: u64,
    pub at: Range<usize>,
    pub refusal: Refusal,
}

/// By what lines are judged.
pub(super) struct Judge<'a> {
    pub exchange: &'a Exchange,
    pub history: TrustList,
    /// The operator vouches for lines without a signature.
    pub vouched: bool,
}

impl Folder {
    /// Looks round. Links, sockets and the like are left.
    pub fn read(dir: &Path, exchange: &Exchange) -> io::Result<Self> {
        let mut folder = Folder::default();
        folder.visit(dir, "", exchange)?;
        folder.logs.sort();
        Ok(folder)
    }

    fn visit(&mut self, root: &Path, dir: &str, exchange: &Exchange) -> io::Result<()> {
        let mut entries = fs::read_dir(root.join(dir))?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            let kind = entry.file_type()?;
            let state = State::ALL.into_iter().find(|state| state.dir() == dir);
            if kind.is_dir() && is_expected_dir(dir, &name) {
                self.visit(root, &path, exchange)?;
            } else if kind.is_file() && path == "trust.json" {
                self.has_trust = true;
            } else if let (true, Some(state)) = (kind.is_file() && name.ends_with(".json"), state) {
                *self.handoffs.entry(state.dir()).or_default() += 1;
            } else if let (true, Some(found)) = (kind.is_file(), Found::of(&path, exchange)) {
                self.logs.push(found);
            } else {
                self.left.push(path);
            }
        }
        Ok(())
    }
}

/// Whether a folder in `dir` is one that logs or handoffs are in.
fn is_expected_dir(dir: &str, name: &str) -> bool {
    let is_year_of_archive =
        || dir.strip_prefix("archive/").and_then(archive::parse_year).is_some() && !name.contains('/');
    match name {
        "inbox" | "outbox" => dir.is_empty() || is_year_of_archive(),
        _ if dir.is_empty() => State::ALL.iter().any(|state| state.dir() == name),
        year => dir == archive::DIR && archive::parse_year(year).is_some(),
    }
}

impl Found {
    /// `None`: no log by its name.
    fn of(path: &str, exchange: &Exchange) -> Option<Self> {
        // Any agent's, to tell a log of somebody unknown from another file.
        let by_name = |path: &str| LogName::parse(path, |_| true);
        let known = |path: &str| exchange.find_log(path);
        let (age, log) = if path.starts_with("archive/") {
            let (year, _, n) = archive::parse(path, by_name)?;
            match archive::parse(path, known) {
                Some((year, log, n)) => ((year, n), Some(log)),
                None => ((year, n), None),
            }
        } else {
            by_name(path)?;
            ((i16::MAX, 0), known(path))
        };
        Some(Found { age, name: path.to_owned(), log })
    }

    /// The agents in its name that the exchange doesn't know.
    pub fn unknown_agents(&self, exchange: &Exchange) -> Vec<AgentName> {
        let any = |path: &str| LogName::parse(path, |_| true);
        let log = any(&self.name).or_else(|| archive::parse(&self.name, any).map(|(_, log, _)| log));
        let agents = match log {
            Some(LogName::Inbox(agent) | LogName::Outbox(agent)) => vec![agent],
            Some(LogName::Bilateral { from, to }) => vec![from, to],
            _ => Vec::new(),
        };
        agents.into_iter().filter(|agent| !exchange.config().agents.contains_key(agent)).collect()
    }
}

impl Judge<'_> {
    /// Reads a file and judges each of its lines, on all cores.
    pub fn judge(&self, dir: &Path, found: Found) -> io::Result<Judged> {
        let bytes = fs::read(dir.join(&found.name))?;
        let lines = lines_of(&bytes);
        let unknown = found.unknown_agents(self.exchange);
        let judge_all = |lines: &[(u64, Range<usize>)]| -> Vec<Result<Line, Refusal>> {
            let judge = |(_, at): &(u64, Range<usize>)| match &found.log {
                Some(log) => self.judge_line(log, &bytes[at.clone()], at.clone()),
                None => Err(unknown_agents(&unknown)),
            };
            lines.iter().map(judge).collect()
        };
        let share = lines.len().div_ceil(self.exchange.cores).max(64);
        let results: Vec<_> = std::thread::scope(|scope| {
            let judge_all = &judge_all;
            let workers: Vec<_> =
                lines.chunks(share).map(|part| scope.spawn(move || judge_all(part))).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().flat_map(join).collect()
        });
        let (mut right, mut refused) = (Vec::with_capacity(lines.len()), Vec::new());
        for ((number, at), result) in lines.into_iter().zip(results) {
            match result {
                Ok(line) => right.push(line),
                Err(refusal) => refused.push(RefusedLine { number, at, refusal }),
            }
        }
        Ok(Judged { name: found.name, log: found.log, bytes, lines: right, refused })
    }

    fn judge_line(&self, log: &LogName, line: &[u8], at: Range<usize>) -> Result<Line, Refusal> {
        if line.len() > MAX_LINE {
            return Err(Refusal::new(Rule::Size, format!("a line of more than {MAX_LINE} bytes")));
        }
        let config = self.exchange.config();
        if *log == LogName::Decisions {
            let id = check_stored(config, &self.history, Some(log), self.vouched, line)?;
            let (written, to) = (Timestamp(0), Vec::new());
            return Ok(Line { at, id, written, unsigned: true, to, is_incident: false });
        }
        let message = check_message(config, &self.history, log.only_writer(), self.vouched, line)?;
        if !config.agents.contains_key(&message.from) {
            return Err(unknown_agents(std::slice::from_ref(&message.from)));
        }
        let to = match log {
            LogName::Outbox(_) | LogName::Bilateral { .. } => {
                address::recipients(log, &message, config.agents.keys())?
            }
            _ => Vec::new(),
        };
        Ok(Line {
            at,
            id: short(&message.id),
            written: message.timestamp,
            unsigned: !message.is_signed(),
            to,
            is_incident: message.message_type == "incident",
        })
    }
}

/// The lines that are not empty, with their numbers, without white space around them.
fn lines_of(bytes: &[u8]) -> Vec<(u64, Range<usize>)> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for (line, number) in bytes.split(|&b| b == b'\n').zip(1..) {
        let from = start + line.len() - line.trim_ascii_start().len();
        let to = from + line.trim_ascii().len();
        if from < to {
            lines.push((number, from..to));
        }
        start += line.len() + 1;
    }
    lines
}

fn unknown_agents(agents: &[AgentName]) -> Refusal {
    let names: Vec<_> = agents.iter().map(AgentName::as_str).collect();
    Refusal::new(Rule::Authority, format!("{} takes no part in this exchange", names.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_as_an_editor_does_and_stripped() {
        let text = b"{\"a\":1}\n\n  {\"b\":2}\r\n{\"c\":3}";
        let lines: Vec<_> = lines_of(text).into_iter().map(|(n, at)| (n, &text[at])).collect();
        assert_eq!(
            lines,
            [(1, b"{\"a\":1}".as_slice()), (3, b"{\"b\":2}".as_slice()), (4, b"{\"c\":3}".as_slice())]
        );
        assert!(lines_of(b"").is_empty() && lines_of(b"\n \n").is_empty());
    }
}
