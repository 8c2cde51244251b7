//! A log's lines by themselves: JSON, shape, signature, author, and none twice. Recovery after a crash
//! judges by the same check.

use super::chain::LogHistory;
use super::delivery::{Promise, Promised, promises};
use super::{Faults, Setting, unhex};
use crate::exchange::config::Config;
use crate::exchange::logs::{LogName, id_of_object};
use crate::exchange::replay::{ShortId, short};
use crate::rules::{Refusal, Rule};
use crate::wire::decision::Decision;
use crate::wire::json::{self, JsonError, JsonErrorKind, Value};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};

/// Lines that are read before their signatures are checked, on all cores.
const BATCH: usize = 4096;
/// The same in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// A longer line can't have been appended: one write(2) is never longer.
const MAX_LINE: u64 = 64 << 20;

/// Which commits the bytes of a file are of: start, end, number; ascending.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(u64, u64, u64)>);

impl Orders {
    /// Bytes after all others.
    pub fn push(&mut self, start: u64, end: u64, order: u64) {
        self.0.push((start, end, order));
    }
    fn at(&self, byte: u64) -> Option<u64> {
        let after = self.0.partition_point(|(start, ..)| *start <= byte);
        let (_, end, order) = self.0[..after].last()?;
        (byte < *end).then_some(*order)
    }
}

/// A line, and what it is judged by: the trust list of its time, and whether the operator vouched for it should it
/// have no signature.
struct Timed<'a> {
    line: Vec<u8>,
    trust: &'a TrustList,
    vouched: bool,
}

/// The lines of one log, in its archives and in itself.
pub(super) struct Lines<'a> {
    setting: &'a Setting<'a>,
    log: Option<LogName>,
    /// By message: the file, as an index into `files`, and the line that it stands in.
    seen: HashMap<ShortId, (u32, u64)>,
    files: Vec<String>,
    promised: Vec<Promised>,
    /// How many there are.
    pub count: u64,
}

/// A line that is right by itself.
struct Right {
    id: ShortId,
    promises: Vec<Promise>,
}

impl<'a> Lines<'a> {
    pub fn new(setting: &'a Setting<'a>, log: &str) -> Self {
        let log = LogName::parse(log, |agent| setting.config.agents.contains_key(agent));
        Lines { setting, log, seen: HashMap::new(), files: Vec::new(), promised: Vec::new(), count: 0 }
    }

    /// Checks every line of one file, each by what held at its time.
    pub fn check(
        &mut self,
        path: &str,
        file: &File,
        history: &LogHistory,
        orders: &Orders,
        faults: &mut Faults,
    ) -> io::Result<()> {
        self.files.push(path.to_owned());
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let (mut number, mut at) = (0, 0);
        loop {
            let (batch, torn) = read_batch(&mut reader)?;
            let timed = |line: Vec<u8>| {
                let (trust, vouched) = (self.setting.history.at(orders.at(at)), history.is_vouched(at));
                at += line.len() as u64 + 1;
                Timed { line, trust, vouched }
            };
            let batch: Vec<Timed<'_>> = batch.into_iter().map(timed).collect();
            for result in check_batch(self.setting, self.log.as_ref(), &batch) {
                number += 1;
                match result {
                    Err(refusal) => faults.add(path, Some(number), refusal.rule.name(), refusal.advice),
                    Ok(right) => {
                        self.check_replay(right.id, path, number, faults);
                        let stands = |promise| Promised { path: path.to_owned(), line: number, promise };
                        self.promised.extend(right.promises.into_iter().map(stands));
                    }
                }
            }
            if let Some(length) = torn {
                // A daemon that is at work is about to finish it.
                if !self.setting.live {
                    let problem = format!("the last line is torn after {length} bytes");
                    faults.add_mendable(path, Some(number + 1), "torn", problem);
                }
            }
            if batch.is_empty() || torn.is_some() {
                self.count += number;
                return Ok(());
            }
        }
    }

    /// Which log it is, the ids of its messages, and what they promise of other logs.
    pub fn into_parts(self) -> (Option<LogName>, impl Iterator<Item = ShortId>, Vec<Promised>) {
        (self.log, self.seen.into_keys(), self.promised)
    }

    fn check_replay(&mut self, id: ShortId, path: &str, number: u64, faults: &mut Faults) {
        let here = self.files.len() as u32 - 1;
        if let Some((file, first)) = self.seen.insert(id, (here, number)) {
            let problem = match self.files.get(file as usize).filter(|_| file != here) {
                Some(other) => format!("the same message as in {other}, line {first}"),
                None => format!("the same message as in line {first}"),
            };
            faults.add(path, Some(number), Rule::Replay.name(), problem);
        }
    }
}

/// The next lines without their newlines; and the length of a last line that has none.
fn read_batch(reader: &mut impl BufRead) -> io::Result<(Vec<Vec<u8>>, Option<usize>)> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let mut line = Vec::new();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            if line.len() as u64 == MAX_LINE {
                return Err(io::Error::other(format!("a line longer than {MAX_LINE} bytes")));
            }
            return Ok((batch, Some(line.len())));
        }
        bytes += line.len();
        batch.push(line);
    }
    Ok((batch, None))
}

/// `at`: where the batch starts in its file, and then where it ends.
fn check_batch(
    setting: &Setting<'_>,
    log: Option<&LogName>,
    batch: &[Timed<'_>],
) -> Vec<Result<Right, Refusal>> {
    let only_author = log.and_then(LogName::only_writer);
    let check_one = |timed: &Timed<'_>| {
        if log == Some(&LogName::Decisions) {
            return check_decision(&timed.line);
        }
        let message = check_message(setting.config, timed.trust, only_author, timed.vouched, &timed.line)?;
        let id = short(&message.id);
        let promises = if setting.live { Vec::new() } else { promises(log, &message, id) };
        Ok(Right { id, promises })
    };
    let check = |lines: &[Timed<'_>]| -> Vec<_> { lines.iter().map(check_one).collect() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = batch.len().div_ceil(cores);
    if cores == 1 || share < 16 {
        return check(batch);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = batch.chunks(share).map(|lines| scope.spawn(move || check(lines))).collect();
        let mut results = Vec::with_capacity(batch.len());
        for worker in workers {
            match worker.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

fn problem(refusal: Refusal, what: String) -> Refusal {
    Refusal { advice: what, ..refusal }
}

fn parse_object(line: &[u8]) -> Result<json::Object, Refusal> {
    match json::parse(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => {
            let error = JsonError { kind: JsonErrorKind::NotAnObject, at: 0 };
            Err(problem(error.clone().into(), error.to_string()))
        }
        Err(e) => Err(problem(e.clone().into(), e.to_string())),
    }
}

/// An entry of decisions.jsonl. Messages among them are from before the exchange entered decisions itself.
fn check_decision(line: &[u8]) -> Result<Right, Refusal> {
    let object = parse_object(line)?;
    if let Ok(message) = Message::from_object(object.clone()) {
        return Ok(Right { id: short(&message.id), promises: Vec::new() });
    }
    let decision = Decision::from_object(&object).map_err(|e| Refusal::new(Rule::Schema, e.to_string()))?;
    let evidence = decision.evidence.iter().flat_map(|e| std::iter::once(&e.proposal).chain(e.acks.values()));
    let promises = evidence.filter_map(|id| Some(Promise::Message(short(&unhex(id)?)))).collect();
    Ok(Right { id: id_of_object(object), promises })
}

/// The message of a stored line that is right. `history`: the trust list of its time, or all that was ever trusted
/// (see [`TrustList::as_history`]). The clock has no say. `vouched`: the operator does for lines without a signature.
pub(in crate::exchange) fn check_message(
    config: &Config,
    history: &TrustList,
    only_author: Option<&AgentName>,
    vouched: bool,
    line: &[u8],
) -> Result<Message, Refusal> {
    let object = parse_object(line)?;
    let message = Message::from_object(object).map_err(|e| problem(e.clone().into(), e.to_string()))?;
    if let Some(author) = only_author.filter(|author| **author != message.from) {
        let what = format!("from is {}, but only {author} appends to this log", message.from);
        return Err(Refusal::new(Rule::Authority, what));
    }
    if message.is_signed() || !(vouched || config.allow_unsigned_from.contains(&message.from)) {
        let verified = message.verify(history).map_err(|e| problem(e.clone().into(), e.to_string()))?;
        return Ok(verified.into_message());
    }
    Ok(message)
}

/// The id of a line that is right where it stands. As [`check_message`]; decisions have a form of their own.
pub(in crate::exchange) fn check_stored(
    config: &Config,
    history: &TrustList,
    log: Option<&LogName>,
    vouched: bool,
    line: &[u8],
) -> Result<ShortId, Refusal> {
    if log == Some(&LogName::Decisions) {
        return check_decision(line).map(|right| right.id);
    }
    let only_author = log.and_then(LogName::only_writer);
    check_message(config, history, only_author, vouched, line).map(|message| short(&message.id))
}
