//! Writing a slot in place: what is written stays the writer's own until it is a whole login that the
//! rule accepts; only then do readers see it.

use super::change::{Change, Fault, Grounds, Submission};
use super::profile::Profile;
use super::too_long;
use crate::exchange::files::Files;
use crate::exchange::files::process::Process;
use crate::exchange::{Attempt, Caller, Denied, Outcome};
use crate::rules::credential::{MAX_CREDENTIAL_BYTES, SlotName};
use crate::rules::{Refusal, Rule};
use crate::wire::json::{self, Value};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::sync::Arc;

/// One open(2) of a slot for writing.
pub(in crate::exchange::files) struct SlotWriter {
    pub profile: Arc<Profile>,
    pub slot: SlotName,
    /// Opened as `.credentials.json` in a profile that has no login yet.
    link_first: bool,
    draft: Mutex<Draft>,
}

struct Draft {
    bytes: Vec<u8>,
    /// Something in `bytes` is neither published nor refused yet.
    pending: bool,
    /// The process that wrote last, since the last decision.
    written_by: Option<u32>,
    /// What was refused last. Buffered writers (Python's) try once more from the start when they close.
    refused: Option<Vec<u8>>,
    /// Who answers for what is left at the last close.
    caller: Caller,
}

impl Draft {
    fn put(&mut self, offset: usize, data: &[u8]) {
        if offset == 0 && !self.pending && self.refused.is_some() {
            self.bytes.clear(); // a second try replaces the first, not the slot's content
        }
        let end = offset + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
    }

    /// One JSON object, whole, with nothing but white space around it.
    fn is_whole(&self) -> bool {
        // Most drafts that are not whole show it in their last byte, without a parse.
        self.bytes.trim_ascii_end().ends_with(b"}")
            && matches!(json::parse(&self.bytes), Ok(Value::Object(_)))
    }

    /// Back to the slot's content, because what was written is refused: gives that out.
    fn start_over(&mut self, writer: &SlotWriter) -> io::Result<Vec<u8>> {
        let kept = writer.profile.slot_bytes(&writer.slot)?.unwrap_or_default();
        (self.pending, self.written_by) = (false, None);
        Ok(std::mem::replace(&mut self.bytes, kept))
    }

    fn partial(&self, slot: &SlotName) -> Refusal {
        let what = match json::parse(&self.bytes) {
            _ if self.bytes.is_empty() => "it was emptied and nothing was written".to_owned(),
            // Not the error itself, which may quote a key: what is in this file stays in it.
            Err(e) => format!("what was written is not one whole JSON object (see byte {})", e.at),
            Ok(_) => "what was written is not a JSON object".to_owned(),
        };
        Refusal::new(
            Rule::Partial,
            format!("Slot {slot} keeps its login, because {what}. Write the whole file before closing it."),
        )
    }
}

/// What came of looking at a draft.
enum Decision {
    NotWhole,
    Published,
    Refused(Refusal, Vec<u8>),
    /// As before: recorded already.
    RefusedAgain(Refusal),
}

impl SlotWriter {
    /// With the content that the descriptor starts from. `pending`: that content is not the slot's (it
    /// was truncated, or there is no slot yet).
    pub fn new(
        profile: Arc<Profile>,
        slot: SlotName,
        link_first: bool,
        caller: &Caller,
        bytes: Vec<u8>,
        pending: bool,
    ) -> Self {
        let draft = Draft { bytes, pending, written_by: None, refused: None, caller: caller.clone() };
        SlotWriter { profile, slot, link_first, draft: Mutex::new(draft) }
    }

    /// pread(2): the writer sees its own draft.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let draft = self.draft.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(draft.bytes.len());
        let end = start.saturating_add(size).min(draft.bytes.len());
        draft.bytes[start..end].to_vec()
    }

    /// The draft's length: what fstat() on the descriptor shows.
    pub fn len(&self) -> u64 {
        self.draft.lock().bytes.len() as u64
    }
}

impl Files {
    /// pwrite(2) to a slot.
    ///
    /// # Errors
    /// `identity`, `size`.
    pub(in crate::exchange::files) fn write_slot(
        &self,
        caller: &Caller,
        writer: &SlotWriter,
        offset: u64,
        append: bool,
        data: &[u8],
    ) -> Outcome<usize> {
        let process = Process::of(caller.pid);
        let mut draft = writer.draft.lock();
        let offset = if append { draft.bytes.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        if offset.saturating_add(data.len()) > MAX_CREDENTIAL_BYTES {
            let mut refused = draft.start_over(writer)?;
            drop(draft);
            refused.extend_from_slice(data);
            return Err(self.too_long(caller, "write", &writer.profile, &writer.slot, &refused));
        }
        draft.put(offset, data);
        self.changed(caller, writer, draft, process, "write")?;
        Ok(data.len())
    }

    /// ftruncate(2) of a slot.
    ///
    /// # Errors
    /// `identity`, `size`.
    pub(in crate::exchange::files) fn truncate_slot(
        &self,
        caller: &Caller,
        writer: &SlotWriter,
        len: u64,
    ) -> Outcome<()> {
        let process = Process::of(caller.pid);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= MAX_CREDENTIAL_BYTES) else {
            return Err(self.too_long(caller, "truncate", &writer.profile, &writer.slot, &[]));
        };
        let mut draft = writer.draft.lock();
        if draft.bytes.len() == len {
            return Ok(());
        }
        draft.bytes.resize(len, 0);
        self.changed(caller, writer, draft, process, "truncate")
    }

    /// Judges a changed draft at once if it is whole, so that the system call that made it so can fail.
    fn changed(
        &self,
        caller: &Caller,
        writer: &SlotWriter,
        mut draft: MutexGuard<'_, Draft>,
        process: Option<Process>,
        operation: &'static str,
    ) -> Outcome<()> {
        draft.pending = true;
        draft.written_by = Some(process.map_or(caller.pid, |process| process.tgid));
        draft.caller = caller.clone();
        let decision = self.decide(caller, writer, &mut draft, process)?;
        drop(draft); // what follows writes refusals and quarantine
        match decision {
            Decision::NotWhole | Decision::Published => Ok(()),
            Decision::RefusedAgain(refusal) => Err(Denied::Refused(refusal)),
            Decision::Refused(refusal, bytes) => {
                Err(self.refuse_login(caller, operation, (&writer.profile, &writer.slot), &bytes, refusal))
            }
        }
    }

    fn decide(
        &self,
        caller: &Caller,
        writer: &SlotWriter,
        draft: &mut Draft,
        process: Option<Process>,
    ) -> Outcome<Decision> {
        if !draft.is_whole() {
            return Ok(Decision::NotWhole);
        }
        let now = self.office()?.now();
        let SlotWriter { profile, slot, .. } = writer;
        let grounds = Grounds::Judged(profile.witness(process, now)?);
        // The slot exists once this descriptor's first login is published.
        let link_first = writer.link_first && profile.slot_handle(slot)?.is_none();
        let by = self.office()?.actor(caller);
        let note = |change: &Change<'_>| self.note(&by, profile, change);
        let owner = self.new_owner(caller);
        let submission = Submission { slot, bytes: &draft.bytes, grounds, owner, link_first, now };
        match profile.submit(submission, &note) {
            Ok(_) => {
                (draft.pending, draft.written_by) = (false, None);
                Ok(Decision::Published)
            }
            Err(Fault::Broke(refusal)) => {
                let refused = draft.start_over(writer)?;
                if draft.refused.as_ref() == Some(&refused) {
                    return Ok(Decision::RefusedAgain(refusal));
                }
                draft.refused = Some(refused.clone());
                Ok(Decision::Refused(refusal, refused))
            }
            Err(Fault::Io(e)) => Err(Denied::Io(e)),
        }
    }

    /// close(2) by a writer that leaves its draft incomplete fails, so that it hears of it; the refusal
    /// is recorded at the last close, since another descriptor's write may still complete the draft.
    ///
    /// # Errors
    /// `partial`.
    pub(in crate::exchange::files) fn flush_slot(&self, caller: &Caller, writer: &SlotWriter) -> Outcome<()> {
        // A shell's redirection closes a copy before the first write, and its children close theirs.
        let by = Process::of(caller.pid).map_or(caller.pid, |process| process.tgid);
        let draft = writer.draft.lock();
        if draft.pending && draft.written_by == Some(by) && !draft.is_whole() {
            return Err(Denied::Refused(draft.partial(&writer.slot)));
        }
        Ok(())
    }

    /// The last close: what is still incomplete is refused.
    pub(in crate::exchange::files) fn release_slot(&self, writer: &SlotWriter) {
        let mut draft = writer.draft.lock();
        if !draft.pending {
            return;
        }
        let caller = draft.caller.clone();
        if draft.is_whole() {
            // Its publication failed for want of space or the like: this is the last chance. Nobody
            // is left to be told, and the refusal, if it comes to one, is recorded.
            let process = Process::of(caller.pid);
            if let Err(error) = self.changed(&caller, writer, draft, process, "close") {
                tracing::warn!(slot = %writer.slot, %error, "a credential could not be published at its last close");
            }
            return;
        }
        let refusal = draft.partial(&writer.slot);
        let bytes = std::mem::take(&mut draft.bytes);
        draft.pending = false;
        drop(draft);
        let path = writer.profile.slot_path(&writer.slot);
        self.refuse(&caller, Attempt { operation: "close", path: &path, bytes: &bytes }, refusal);
    }

    /// Refuses a credential over [`MAX_CREDENTIAL_BYTES`].
    pub(in crate::exchange::files) fn too_long(
        &self,
        caller: &Caller,
        operation: &'static str,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
    ) -> Denied {
        let path = profile.slot_path(slot);
        self.refuse(caller, Attempt { operation, path: &path, bytes }, too_long())
    }
}
