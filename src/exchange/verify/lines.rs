//! A log's lines by themselves: JSON, shape, signature, author, and none twice. Recovery after a crash
//! judges by the same check.

use super::{Faults, Setting};
use crate::exchange::config::Config;
use crate::exchange::logs::LogName;
use crate::rules::{Refusal, Rule};
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

/// Half of a message's id: enough to tell messages apart, at half the memory.
pub(in crate::exchange) type ShortId = [u8; 16];

/// Which commits the bytes of a log are of: start, end, number; ascending.
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

/// Checks every line, each by the trust list of its time; returns how many there are.
pub(super) fn check(
    setting: &Setting<'_>,
    path: &str,
    file: &File,
    orders: &Orders,
    faults: &mut Faults,
) -> io::Result<u64> {
    let log = LogName::parse(path, |agent| setting.config.agents.contains_key(agent));
    let only_author = log.as_ref().and_then(LogName::only_writer);
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut seen: HashMap<ShortId, u64> = HashMap::new();
    let (mut number, mut at) = (0, 0);
    loop {
        let (batch, torn) = read_batch(&mut reader)?;
        let batch: Vec<(Vec<u8>, &TrustList)> = batch
            .into_iter()
            .map(|line| {
                let trust = setting.history.at(orders.at(at));
                at += line.len() as u64 + 1;
                (line, trust)
            })
            .collect();
        for result in check_batch(setting, only_author, &batch) {
            number += 1;
            match result {
                Err(refusal) => faults.add(path, Some(number), refusal.rule.name(), refusal.advice),
                Ok(id) => {
                    if let Some(first) = seen.insert(id, number) {
                        let problem = format!("the same message as in line {first}");
                        faults.add(path, Some(number), Rule::Replay.name(), problem);
                    }
                }
            }
        }
        if let Some(length) = torn {
            // A daemon that is at work is about to finish it.
            if !setting.live {
                let problem = format!("the last line is torn after {length} bytes");
                faults.add_mendable(path, Some(number + 1), "torn", problem);
            }
            return Ok(number);
        }
        if batch.is_empty() {
            return Ok(number);
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

fn check_batch(
    setting: &Setting<'_>,
    only_author: Option<&AgentName>,
    batch: &[(Vec<u8>, &TrustList)],
) -> Vec<Result<ShortId, Refusal>> {
    let check = |lines: &[(Vec<u8>, &TrustList)]| -> Vec<_> {
        lines.iter().map(|(line, trust)| check_line(setting.config, trust, only_author, line)).collect()
    };
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

/// The id of a stored line that is right. `history`: the trust list of its time, or all that was ever trusted (see
/// [`TrustList::as_history`]). The clock has no say.
pub(in crate::exchange) fn check_line(
    config: &Config,
    history: &TrustList,
    only_author: Option<&AgentName>,
    line: &[u8],
) -> Result<ShortId, Refusal> {
    let problem = |refusal: Refusal, what: String| Refusal { advice: what, ..refusal };
    let object = match json::parse(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            let error = JsonError { kind: JsonErrorKind::NotAnObject, at: 0 };
            return Err(problem(error.clone().into(), error.to_string()));
        }
        Err(e) => return Err(problem(e.clone().into(), e.to_string())),
    };
    let message = Message::from_object(object).map_err(|e| problem(e.clone().into(), e.to_string()))?;
    if let Some(author) = only_author.filter(|author| **author != message.from) {
        let what = format!("from is {}, but only {author} appends to this log", message.from);
        return Err(Refusal::new(Rule::Authority, what));
    }
    let mut id = ShortId::default();
    id.copy_from_slice(&message.id[..16]);
    if message.is_signed() || !config.allow_unsigned_from.contains(&message.from) {
        message.verify(history).map_err(|e| problem(e.clone().into(), e.to_string()))?;
    }
    Ok(id)
}
