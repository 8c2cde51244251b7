//! Handoffs that are being written: in memory, seen by their writer only, until they are published.
//!
//! Under a final name (`x.json`) the write that completes the object publishes it; under any other name
//! the rename to a final one does.

use super::{HandoffNode, State};
use crate::exchange::process::same_process;
use crate::exchange::{Attempt, Caller, Denied, Exchange, Outcome};
use crate::rules::handoff::{check_name, is_final_name, refuse_operation};
use crate::rules::identity::check_takes_part;
use crate::rules::{Refusal, Rule};
use crate::wire::json::{self, JsonErrorKind};
use crate::wire::time::Timestamp;
use std::sync::{Arc, OnceLock};

/// Longest handoff, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// An open draft.
pub struct DraftWriter {
    exchange: Arc<Exchange>,
    node: HandoffNode,
    path: String,
    opener: Caller,
    /// The errno with which the draft was refused: a program that tries its write again learns it again.
    refused: OnceLock<i32>,
}

impl Exchange {
    /// create(2) in one of the four directories: a draft in handoff/, under a final or temporary name.
    ///
    /// # Errors
    /// `transition` in another directory, `authority` for strangers, `replay` where the name is
    /// published, `rate` beyond 1,000 drafts.
    pub fn create_draft(
        &self,
        caller: &Caller,
        state: State,
        name: &str,
    ) -> Outcome<(HandoffNode, DraftWriter)> {
        let path = format!("{}/{name}", state.dir());
        let actor = self.actor(caller);
        let created = (|| {
            check_takes_part(&actor, "publish handoffs")?;
            if state != State::Pending {
                let advice = format!(
                    "Handoffs are published in handoff/ and reach {}/ by rename; nothing is created there.",
                    state.dir()
                );
                return Err(Refusal::new(Rule::Transition, advice));
            }
            if is_final_name(name) {
                check_name(state, name)?;
            }
            let mut book = self.handoffs().book.lock();
            if book.taken(state, name) {
                let advice = format!("{path} exists. Choose another name.");
                return Err(Refusal::new(Rule::Replay, advice));
            }
            let node = book.new_node();
            book.drafts.add(node, &actor, caller, (state.dir(), name))?;
            Ok(node)
        })();
        let node = created.map_err(|refusal| {
            self.refuse(caller, Attempt { operation: "create", path: &path, bytes: &[] }, refusal)
        })?;
        Ok((node, DraftWriter::new(self.this(), node, path, caller)))
    }

    /// Opens a draft (own ones only), or refuses to open a published handoff, for writing.
    ///
    /// # Errors
    /// `immutable`.
    pub fn open_draft(&self, caller: &Caller, node: HandoffNode, flags: i32) -> Outcome<DraftWriter> {
        let actor = self.actor(caller);
        let path = self.handoff_path(node);
        let mut book = self.handoffs().book.lock();
        let own = book.new_node();
        let opened = book.drafts.open(node, own, &actor, caller, flags);
        drop(book);
        let node = match opened {
            Ok(Some(node)) => node,
            Ok(None) => return Err(self.refuse_handoff_operation(caller, node, "open for writing")),
            Err(refusal) => {
                return Err(self.refuse(
                    caller,
                    Attempt { operation: "open", path: &path, bytes: &[] },
                    refusal,
                ));
            }
        };
        Ok(DraftWriter::new(self.this(), node, path, caller))
    }

    /// truncate(2) of a draft.
    ///
    /// # Errors
    /// `immutable` for a published handoff, `size` beyond 1 MiB, `rate` beyond 64 MiB in all drafts.
    pub fn truncate_draft(&self, caller: &Caller, node: HandoffNode, size: u64) -> Outcome<()> {
        let actor = self.actor(caller);
        let mut book = self.handoffs().book.lock();
        let Some(draft) = book.drafts.get(node).filter(|d| d.by == actor) else {
            drop(book);
            return Err(self.refuse_handoff_operation(caller, node, "truncate"));
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if let Err(refusal) = check_size(size).and_then(|()| book.drafts.check_room(draft, size)) {
            let path = draft.path();
            drop(book);
            let attempt = Attempt { operation: "truncate", path: &path, bytes: &[] };
            return Err(self.refuse(caller, attempt, refusal));
        }
        if let Some(draft) = book.drafts.get_mut(node) {
            draft.truncate(size);
        }
        Ok(())
    }

    /// Gives up drafts that nobody finished; their bytes go to quarantine.
    pub(super) fn drop_stale_handoff_drafts(&self, now: Timestamp) {
        let stale = self.handoffs().book.lock().drafts.take_stale(now);
        for draft in stale {
            self.give_up_draft(&draft, "Write it again and rename it to *.json.");
        }
    }
}

fn check_size(len: usize) -> Result<(), Refusal> {
    if len <= MAX_BYTES {
        return Ok(());
    }
    let advice = format!("A handoff may have {MAX_BYTES} bytes. Shorten the transcript, or refer to a file.");
    Err(Refusal::new(Rule::Size, advice))
}

impl DraftWriter {
    fn new(exchange: Arc<Exchange>, node: HandoffNode, path: String, opener: &Caller) -> Self {
        DraftWriter { exchange, node, path, opener: opener.clone(), refused: OnceLock::new() }
    }

    /// One write(2). Through a final name (`handoff/x.json`), the write that completes the object
    /// verifies and publishes it.
    ///
    /// # Errors
    /// The broken rule, `replay` where the name or the handoff exists, `immutable` after publication.
    pub fn write(&self, caller: &Caller, offset: u64, append: bool, data: &[u8]) -> Outcome<usize> {
        let exchange = &self.exchange;
        let (name, bytes) = {
            let mut book = exchange.handoffs().book.lock();
            let published = book.is_published(self.node);
            let Some(draft) = book.drafts.get(self.node) else {
                drop(book);
                // The newline that echo sends after the object is no change.
                if published && data.iter().all(u8::is_ascii_whitespace) {
                    return Ok(data.len());
                }
                if let Some(errno) = self.refused.get().filter(|_| !published) {
                    return Err(Denied::os(*errno));
                }
                return Err(self.refuse(caller, "write", data, refuse_operation(&self.path, "write")));
            };
            let (start, end) = draft.extent(offset, append, data.len());
            if let Err(refusal) = check_size(end).and_then(|()| book.drafts.check_room(draft, end)) {
                let bytes = draft.bytes.clone();
                drop(book);
                return Err(self.refuse(caller, "write", &bytes, refusal));
            }
            // Found above, under the same lock.
            let Some(draft) = book.drafts.get_mut(self.node) else { return Ok(0) };
            draft.put(start, data);
            if !is_final_name(&draft.name) {
                return Ok(data.len());
            }
            (draft.name.clone(), draft.bytes.clone())
        };
        let published = match json::parse(&bytes) {
            Err(error) if error.kind == JsonErrorKind::Incomplete => return Ok(data.len()),
            Err(error) => Err(Denied::Refused(error.into())),
            Ok(_) => exchange.publish(&exchange.actor(caller), self.node, &bytes, &name),
        };
        published.map(|()| data.len()).map_err(|denied| {
            exchange.handoffs().book.lock().drafts.remove(self.node);
            let _ = self.refused.set(denied.errno());
            exchange.record(caller, Attempt { operation: "write", path: &self.path, bytes: &bytes }, denied)
        })
    }

    /// Bytes of the draft, for a descriptor that reads too.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let book = self.exchange.handoffs().book.lock();
        book.drafts.get(self.node).map_or_else(Vec::new, |draft| draft.read(offset, size))
    }

    /// One close(2): tells the opener of a final name that what it wrote is incomplete.
    ///
    /// # Errors
    /// `partial`.
    pub fn flush(&self, caller: &Caller) -> Outcome<()> {
        let book = self.exchange.handoffs().book.lock();
        match book.drafts.get(self.node) {
            Some(draft)
                if is_final_name(&draft.name)
                    && !draft.bytes.is_empty()
                    && same_process(caller.pid, self.opener.pid) =>
            {
                Err(Denied::Refused(self.partial()))
            }
            _ => Ok(()),
        }
    }

    /// The last close. An unpublished draft under a final name goes to quarantine as `partial`.
    pub fn release(&self) {
        let abandoned = {
            let mut book = self.exchange.handoffs().book.lock();
            let Some(draft) = book.drafts.get_mut(self.node) else { return };
            draft.writers = draft.writers.saturating_sub(1);
            if draft.writers > 0 {
                return;
            }
            if draft.unlinked {
                book.drafts.remove(self.node);
                return;
            }
            if !is_final_name(&draft.name) {
                return;
            }
            book.drafts.remove(self.node)
        };
        if let Some(draft) = abandoned
            && !draft.bytes.is_empty()
        {
            let _ = self.refuse(&draft.creator, "close", &draft.bytes, self.partial());
        }
    }

    fn partial(&self) -> Refusal {
        let advice = format!(
            "{} was closed before its JSON object was complete. Write the whole file again.",
            self.path
        );
        Refusal::new(Rule::Partial, advice)
    }

    fn refuse(&self, caller: &Caller, operation: &'static str, bytes: &[u8], refusal: Refusal) -> Denied {
        self.exchange.refuse(caller, Attempt { operation, path: &self.path, bytes }, refusal)
    }
}
