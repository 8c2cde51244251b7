//! An open descriptor that appends: one write(2) from the kernel to the disk.
//!
//! Check the offset, split the stream into objects, admit each one (`admit`; no lock held), commit them
//! (`deliver`; replay, append, copies), then durability, then the events that cover the bytes.

use super::admit::{Admitted, Judge};
use super::deliver::check_conversation;
use super::{Log, LogName};
use crate::exchange::process::same_process;
use crate::exchange::replay::ShortId;
use crate::exchange::{Actor, Attempt, Caller, Denied, Durability, Exchange, Outcome};
use crate::rules::{self, Refusal, Rule};
use crate::wire::canonical;
use crate::wire::json::{Object, ObjectStream, StreamedObject, Value};
use crate::wire::trust::TrustList;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// An open descriptor that appends to a log.
pub struct LogWriter {
    exchange: Arc<Exchange>,
    log: Arc<Log>,
    opener: Caller,
    stream: Mutex<WriterState>,
}

/// An object that is sealed and judged, and can be posted.
pub(in crate::exchange) struct Ready {
    log: LogName,
    actor: Actor,
    trust: Arc<TrustList>,
    admitted: Admitted,
}

impl Ready {
    /// The line as it will be stored, without newline.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.admitted.line).into_owned()
    }

    /// What identifies it in a log.
    pub fn id(&self) -> ShortId {
        self.admitted.id
    }
}

struct WriterState {
    objects: ObjectStream,
    last_write_end: Option<u64>,
}

impl Exchange {
    /// All objects of one write, in one commit.
    fn write_objects(&self, log: &Arc<Log>, caller: &Caller, objects: Vec<StreamedObject>) -> Outcome<()> {
        if log.name == LogName::Decisions {
            return Ok(self.check_entries(objects)?);
        }
        let actor = self.actor(caller);
        let judge = Judge { log: &log.name, caller, actor: &actor, trust: self.trust() };
        let mut admitted = self.admit_all(&judge, objects)?;
        if log.name == LogName::Incidents {
            admitted = self.without_mirrored(log, admitted)?;
        }
        if admitted.is_empty() {
            return Ok(());
        }
        self.meet_all(&admitted)?;
        let committed = self.commit(log, &actor, &admitted, &judge.trust)?;
        Ok(self.settle(&committed)?)
    }

    /// Takes in the agent cards that a write brings, once nothing but replay and the disk can refuse it.
    fn meet_all(&self, admitted: &[Admitted]) -> Result<(), Refusal> {
        if admitted.iter().all(|line| line.contact.is_none()) {
            return Ok(());
        }
        check_conversation(&self.conversation(), admitted, self.now(), &self.charter())?;
        admitted.iter().filter_map(|line| line.contact.as_ref()).try_for_each(|contact| self.meet(contact))
    }

    /// Appends one object as if `caller` had written it to `log`; returns the line as it is stored.
    ///
    /// # Errors
    /// As a write's, recorded as a refusal of `attempt`; EIO where the log can't be opened.
    pub(in crate::exchange) fn post(
        &self,
        caller: &Caller,
        log: &LogName,
        object: Object,
        attempt: Attempt<'_>,
    ) -> Outcome<String> {
        let ready = self.make_ready(caller, log, object).map_err(Denied::from);
        ready.and_then(|ready| self.post_ready(ready)).map_err(|denied| self.record(caller, attempt, denied))
    }

    /// Seals an object and judges it as if `caller` had written it to `log`, but for replay; nothing is stored.
    ///
    /// # Errors
    /// The rules of a write.
    pub(in crate::exchange) fn make_ready(
        &self,
        caller: &Caller,
        log: &LogName,
        object: Object,
    ) -> Result<Ready, Refusal> {
        let (actor, trust) = (self.actor(caller), self.trust());
        let line = canonical::utf8(&Value::Object(object.clone())).into_bytes();
        let judge = Judge { log, caller, actor: &actor, trust: Arc::clone(&trust) };
        let admitted = self.admit(&judge, StreamedObject { line, object })?;
        let alone = std::slice::from_ref(&admitted);
        check_conversation(&self.conversation(), alone, self.now(), &self.charter())?;
        Ok(Ready { log: log.clone(), actor, trust, admitted })
    }

    /// Appends what was made ready; returns the line as it is stored.
    ///
    /// # Errors
    /// As a write's. Nothing is recorded.
    pub(in crate::exchange) fn post_ready(&self, ready: Ready) -> Outcome<String> {
        let admitted = std::slice::from_ref(&ready.admitted);
        self.meet_all(admitted)?;
        let committed = self.commit(&self.log(&ready.log)?, &ready.actor, admitted, &ready.trust)?;
        self.settle(&committed)?;
        Ok(ready.line())
    }

    /// Whether a log has a message.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn log_holds(&self, log: &LogName, id: &ShortId) -> io::Result<bool> {
        Ok(self.log(log)?.tail.lock().ids.contains(id))
    }

    /// Entries that agents write to decisions.jsonl themselves. The exchange has entered what they may say, so
    /// nothing is stored.
    fn check_entries(&self, objects: Vec<StreamedObject>) -> Result<(), Refusal> {
        let conversation = self.conversation();
        objects.iter().try_for_each(|entry| conversation.proposals.check_entry(&entry.object))
    }

    /// Without the incidents that the exchange has mirrored already: programs that mirror their incidents
    /// themselves go on doing so.
    fn without_mirrored(&self, log: &Log, admitted: Vec<Admitted>) -> Outcome<Vec<Admitted>> {
        let mut rest = Vec::with_capacity(admitted.len());
        for line in admitted {
            if !(log.tail.lock().ids.contains(&line.id) && self.stands_in_own_log(&line)?) {
                rest.push(line);
            }
        }
        Ok(rest)
    }

    /// Whether a line stands in one of the logs that only its author writes.
    fn stands_in_own_log(&self, line: &Admitted) -> Outcome<bool> {
        let from = &line.message.from;
        let bilateral = self.config.agents.keys().filter(|to| *to != from);
        let bilateral = bilateral.map(|to| LogName::Bilateral { from: from.clone(), to: to.clone() });
        for name in bilateral.chain([LogName::Outbox(from.clone())]) {
            if self.store.stat(&name.path()).is_ok() && self.log_holds(&name, &line.id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
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
        let written =
            split.map_err(Denied::from).and_then(|objects| exchange.write_objects(log, caller, objects));
        match written {
            Ok(()) => Ok(data.len()),
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
        let end = self.log.tail.lock().position();
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
