//! An open descriptor that appends: one write(2) from the kernel to the disk.
//!
//! Check the offset, split the stream into objects, admit each one (`admit`; no lock held), then under
//! the log's lock: replay, append. Then durability, then the event that covers the bytes.

use super::Log;
use crate::exchange::{Attempt, Caller, Denied, Durability, Exchange, Outcome, same_process};
use crate::rules::{self, Refusal, Rule};
use crate::wire::json::ObjectStream;
use parking_lot::Mutex;
use std::fs::File;
use std::sync::Arc;

/// An open descriptor that appends to a log.
pub struct LogWriter {
    exchange: Arc<Exchange>,
    log: Arc<Log>,
    opener: Caller,
    stream: Mutex<WriterState>,
}

struct WriterState {
    objects: ObjectStream,
    last_write_end: Option<u64>,
}

impl LogWriter {
    pub(super) fn new(exchange: Arc<Exchange>, log: Arc<Log>, opener: Caller) -> Self {
        let stream = WriterState { objects: ObjectStream::new(), last_write_end: None };
        LogWriter { exchange, log, opener, stream: Mutex::new(stream) }
    }

    /// One write(2): every object that it completes is accepted, or none is.
    /// `append`: the descriptor says O_APPEND. Returns the bytes taken: all of `data`.
    ///
    /// # Errors
    /// The refusal of the first object that breaks a rule; the incomplete object is then dropped
    /// (kept in quarantine together with `data`).
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let (log, exchange) = (&self.log, &self.exchange);
        let mut stream = self.stream.lock();
        let log_end = log.tail.lock().len;
        if let Err(refusal) =
            rules::append::check_write(&log.path, append, offset, log_end, stream.last_write_end)
        {
            drop(stream);
            return Err(self.refuse(caller, "write", data, refusal));
        }
        let actor = exchange.actor(caller);
        let before = stream.objects.pending().to_vec();
        let split = stream.objects.push(data).map_err(Refusal::from).and_then(|objects| {
            exchange.check_pending(&actor, stream.objects.pending().len())?;
            Ok(objects)
        });
        stream.last_write_end = Some(offset + data.len() as u64);
        // The rest is decided without the descriptor's lock: another thread may write meanwhile.
        drop(stream);
        let outcome = split.and_then(|objects| exchange.admit_all(&log.name, &actor, objects));
        let appended = match outcome {
            Ok(admitted) if admitted.is_empty() => return Ok(data.len()),
            Ok(admitted) => log.append(&actor, &admitted),
            Err(refusal) => Err(Denied::Refused(refusal)),
        };
        match appended {
            Ok(end) => {
                log.settle(exchange, end, exchange.durability)?;
                Ok(data.len())
            }
            Err(denied) => {
                {
                    let mut stream = self.stream.lock();
                    stream.objects.take_pending();
                    stream.last_write_end = None;
                }
                match denied {
                    Denied::Refused(refusal) => {
                        let mut bytes = before;
                        bytes.extend_from_slice(data);
                        Err(self.refuse(caller, "write", &bytes, refusal))
                    }
                    io => Err(io),
                }
            }
        }
    }

    /// One close(2) of possibly many: tells the opener of the descriptor about an incomplete object.
    /// Another process may have the descriptor too (a shell's redirection around several commands),
    /// so the object is dropped at the last close only.
    ///
    /// # Errors
    /// `partial`, if the process that opened the descriptor closes it inside an object.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let incomplete = !self.stream.lock().objects.pending().is_empty();
        if incomplete && same_process(caller.pid, self.opener.pid) {
            return Err(Denied::Refused(self.partial()));
        }
        Ok(())
    }

    /// fsync(2): durable whatever the mount's `--durability`.
    ///
    /// # Errors
    /// The disk's.
    pub fn fsync(&self) -> Outcome<()> {
        let end = self.log.tail.lock().len;
        Ok(self.log.settle(&self.exchange, end, Durability::Commit)?)
    }

    /// The last close: what is left incomplete is recorded as `partial`.
    pub fn release(&self) {
        let rest = self.stream.lock().objects.take_pending();
        if !rest.is_empty() {
            let opener = self.opener.clone();
            let _ = self.refuse(&opener, "close", &rest, self.partial());
        }
    }

    /// The log's own open file, for reading and for kernel passthrough; the same for every
    /// reader and writer of one log as long as the exchange is open.
    pub fn backing(&self) -> Arc<File> {
        self.log.bytes.file()
    }

    fn partial(&self) -> Refusal {
        Refusal::new(
            Rule::Partial,
            format!(
                "The last object written to {} is incomplete. Write the whole object again.",
                self.log.path
            ),
        )
    }

    fn refuse(&self, caller: &Caller, operation: &'static str, bytes: &[u8], refusal: Refusal) -> Denied {
        self.exchange.refuse(caller, Attempt { operation, path: &self.log.path, bytes }, refusal)
    }
}
