//! Writing a slot in place: what is written stays the writer's own until it is a whole login that the
//! rule accepts; only then do readers see it.

use super::change::{Fault, Grounds, Submission};
use super::profile::Profile;
use super::too_long;
use crate::exchange::files::Files;
use crate::exchange::files::process::Process;
use crate::exchange::process::{Ending, ending, process_of};
use crate::exchange::{Attempt, Caller, Denied, Outcome};
use crate::rules::credential::{self, MAX_CREDENTIAL_BYTES, SlotName};
use crate::rules::{Refusal, Rule};
use crate::wire::credential::{CredentialFile, Syntax};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One open(2) of a slot for writing.
pub(in crate::exchange::files) struct SlotWriter {
    pub profile: Arc<Profile>,
    pub slot: SlotName,
    /// Opened as `.credentials.json` in a profile that has no login yet.
    link_first: bool,
    draft: Mutex<Draft>,
}

struct Draft {
    bytes: Zeroizing<Vec<u8>>,
    /// Counts the changes, so that one who looked away sees whether there was another.
    changes: u64,
    /// Something in `bytes` is neither published nor refused yet.
    pending: bool,
    /// Some of `bytes` is the slot's content still, so that it may be a mixture until its writer closes it.
    patched: bool,
    /// The process that wrote last, since the last decision: its pid, and all of it where that is known.
    written_by: Option<(u32, Option<Process>)>,
    /// What was refused last. Buffered writers (Python's) try once more from the start when they close.
    refused: Option<Zeroizing<Vec<u8>>>,
    /// It was whole and could not be published for want of space or the like.
    try_again: bool,
    /// Who answers for what is left at the last close.
    caller: Caller,
}

impl Draft {
    fn put(&mut self, offset: usize, data: &[u8]) {
        if offset == 0 && !self.pending && self.refused.is_some() {
            self.bytes.clear(); // a second try replaces the first, not the slot's content
        }
        let end = offset + data.len();
        if !self.pending {
            self.patched = offset > 0 || end < self.bytes.len();
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
    }

    /// Back to the slot's content, because what was written is refused: gives that out.
    fn start_over(&mut self, writer: &SlotWriter) -> io::Result<Zeroizing<Vec<u8>>> {
        let kept = writer.profile.slot_bytes(&writer.slot)?.unwrap_or_default();
        (self.pending, self.patched, self.written_by, self.try_again) = (false, false, None, false);
        Ok(std::mem::replace(&mut self.bytes, kept))
    }
}

/// What came of judging a draft.
enum Decision {
    Published,
    Refused(Refusal, Zeroizing<Vec<u8>>),
    /// As before: recorded already.
    RefusedAgain(Refusal),
}

fn partial(slot: &SlotName, why: &str) -> Refusal {
    Refusal::new(
        Rule::Partial,
        format!("Slot {slot} keeps its login, because {why}. Write the whole file before closing it."),
    )
}

impl SlotWriter {
    /// With the content that the descriptor starts from. `pending`: that content is not the slot's (it
    /// was truncated, or there is no slot yet).
    pub fn new(
        profile: Arc<Profile>,
        slot: SlotName,
        link_first: bool,
        caller: &Caller,
        bytes: Zeroizing<Vec<u8>>,
        pending: bool,
    ) -> Self {
        let (written_by, refused, caller) = (None, None, caller.clone());
        let (changes, patched, try_again) = (0, false, false);
        let draft = Draft { bytes, changes, pending, patched, written_by, refused, try_again, caller };
        SlotWriter { profile, slot, link_first, draft: Mutex::new(draft) }
    }

    /// pread(2): the writer sees its own draft.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let draft = self.draft.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(draft.bytes.len());
        let end = start.saturating_add(size).min(draft.bytes.len());
        draft.bytes[start..end].to_vec()
    }

    /// Whether it can be seen only at close(2) that a draft is whole.
    fn is_whole_when_closed(&self, draft: &Draft) -> bool {
        draft.patched || self.profile.config.format.syntax == Syntax::Yaml
    }

    /// Before a change of what is not pending: the slot may have got another content since.
    fn look_again(&self, draft: &mut Draft) -> io::Result<()> {
        if !draft.pending
            && let Some(bytes) = self.profile.slot_bytes(&self.slot)?
        {
            draft.bytes = bytes;
        }
        Ok(())
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
        writer.look_again(&mut draft)?;
        let offset = if append { draft.bytes.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        if offset.saturating_add(data.len()) > MAX_CREDENTIAL_BYTES {
            let mut refused = draft.start_over(writer)?;
            drop(draft);
            refused.extend_from_slice(data);
            return Err(self.too_long(caller, "write", &writer.profile, &writer.slot, &refused));
        }
        draft.put(offset, data);
        let at_once = data.len() == draft.bytes.len()
            && writer.is_whole_when_closed(&draft)
            && self.is_foreign(writer, data, process)?;
        self.changed(caller, writer, draft, process, ("write", at_once))?;
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
        writer.look_again(&mut draft)?;
        if draft.bytes.len() == len {
            return Ok(());
        }
        draft.patched = len > 0 && (draft.patched || !draft.pending);
        draft.bytes.resize(len, 0);
        self.changed(caller, writer, draft, process, ("truncate", false))
    }

    /// Whether one write holds, by itself and beyond doubt, what its slot will not take, though it will be seen only at
    /// close(2) that it is whole: many programs don't look at what close(2) says.
    fn is_foreign(&self, writer: &SlotWriter, data: &[u8], process: Option<Process>) -> Outcome<bool> {
        let SlotWriter { profile, slot, .. } = writer;
        let format = &profile.config.format;
        if format.check_whole(data).is_err() {
            return Ok(false);
        }
        let Ok(new) = format.read(data) else { return Ok(false) };
        match new {
            // A mapping in braces ends with them; lines might follow the others.
            CredentialFile::Stub => Ok(data.trim_ascii_end().ends_with(b"}")),
            CredentialFile::Login(_) if self.must_ask(profile, slot, data) => Ok(false),
            CredentialFile::Login(login) => {
                let now = self.office()?.now();
                let held = profile.slot_bytes(slot)?.and_then(|bytes| profile.slot_login(slot, &bytes));
                if held.as_ref().is_some_and(|held| credential::lacks(&login, held)) {
                    return Ok(false); // in a further write
                }
                let new = CredentialFile::Login(login);
                let witness = profile.witness(process, slot, now)?;
                let (at, strict) = (profile.slot_ref(slot), profile.config.strict);
                Ok(credential::judge(at, held.as_ref(), &new, witness, now, strict).is_err())
            }
        }
    }

    /// Judges a changed draft at once if it is whole, so that the system call that made it so can fail; `at_once`:
    /// in any case.
    fn changed(
        &self,
        caller: &Caller,
        writer: &SlotWriter,
        mut draft: MutexGuard<'_, Draft>,
        process: Option<Process>,
        (operation, at_once): (&'static str, bool),
    ) -> Outcome<()> {
        (draft.pending, draft.try_again) = (true, false);
        draft.changes += 1;
        draft.written_by = Some((process.map_or(caller.pid, |process| process.tgid), process));
        draft.caller = caller.clone();
        // Most drafts that are not whole show it in their last byte, without a parse.
        let may_be_whole =
            !writer.is_whole_when_closed(&draft) && draft.bytes.trim_ascii_end().ends_with(b"}");
        if at_once || (may_be_whole && writer.profile.config.format.check_whole(&draft.bytes).is_ok()) {
            return self.judge_whole(caller, writer, draft, process, operation);
        }
        Ok(())
    }

    /// Judges a whole draft.
    fn judge_whole<'a>(
        &self,
        caller: &Caller,
        writer: &'a SlotWriter,
        mut draft: MutexGuard<'a, Draft>,
        process: Option<Process>,
        operation: &'static str,
    ) -> Outcome<()> {
        let mut account = None;
        if self.must_ask(&writer.profile, &writer.slot, &draft.bytes) {
            let (bytes, changes) = (draft.bytes.clone(), draft.changes);
            drop(draft); // the answer may take seconds
            account = self.ask_account(&writer.profile, &writer.slot, &bytes);
            draft = writer.draft.lock();
            if draft.changes != changes {
                return Ok(()); // whoever wrote meanwhile has it judged as it is now
            }
        }
        let decision = self.decide(caller, writer, &mut draft, process, account.as_deref())?;
        drop(draft); // what follows writes refusals and quarantine
        match decision {
            Decision::Published => Ok(()),
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
        account: Option<&str>,
    ) -> Outcome<Decision> {
        let now = self.office()?.now();
        let SlotWriter { profile, slot, .. } = writer;
        let grounds = Grounds::Judged(profile.witness(process, slot, now)?);
        // The slot exists once this descriptor's first login is published.
        let link_first = writer.link_first && profile.slot_handle(slot)?.is_none();
        let by = self.office()?.actor(caller);
        let owner = self.new_owner(caller);
        let submission = Submission { slot, bytes: &draft.bytes, account, grounds, owner, link_first, now };
        match self.submit(&by, profile, submission) {
            Ok(_) => {
                (draft.pending, draft.patched, draft.written_by, draft.try_again) =
                    (false, false, None, false);
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
            Err(Fault::Io(e)) => {
                draft.try_again = true;
                Err(Denied::Io(e))
            }
        }
    }

    /// close(2) by a writer: here a draft is judged that shows only now that it is whole. One that is left
    /// incomplete fails, so that its writer hears of it; that refusal is recorded at the last close, since another
    /// descriptor's write may still complete the draft.
    ///
    /// # Errors
    /// `partial`, `identity`.
    pub(in crate::exchange::files) fn flush_slot(&self, caller: &Caller, writer: &SlotWriter) -> Outcome<()> {
        let mut draft = writer.draft.lock();
        let Some((writer_pid, process)) = draft.written_by.filter(|_| draft.pending) else { return Ok(()) };
        // A shell's redirection closes a copy before the first write, and its children close theirs. Nothing here
        // may ask for more of the caller than its status: it may be in the middle of execve(2).
        if process_of(caller.pid) != writer_pid {
            return Ok(());
        }
        if let Err(why) = writer.profile.config.format.check_whole(&draft.bytes) {
            return Err(Denied::Refused(partial(&writer.slot, &why)));
        }
        if writer.is_whole_when_closed(&draft) && ending(caller.pid, caller.uid) == Ending::Killed {
            draft.try_again = false;
            // What a killed writer has written so far is all that it will write, whole or not. Nobody reads this.
            return Err(Denied::os(libc::EINTR));
        }
        if let Some(lost) = self.lacks(writer, &draft.bytes)? {
            // It may yet be written, and is judged at the last close; who closes for good hears of it here.
            draft.try_again = true;
            return Err(Denied::Refused(lost));
        }
        self.judge_whole(caller, writer, draft, process, "close")
    }

    /// What a whole draft lacks of what its slot holds, where that could still follow: the first lines of a YAML login
    /// are whole by themselves.
    fn lacks(&self, writer: &SlotWriter, bytes: &[u8]) -> Outcome<Option<Refusal>> {
        let SlotWriter { profile, slot, .. } = writer;
        if profile.config.format.syntax != Syntax::Yaml {
            return Ok(None);
        }
        let held = profile.slot_bytes(slot)?.and_then(|held| profile.login(&held));
        let lacks = match profile.config.format.read(bytes) {
            Ok(CredentialFile::Login(new)) => held.is_some_and(|held| credential::lacks(&new, &held)),
            _ => true,
        };
        Ok(lacks
            .then(|| partial(slot, "what was written holds less than a login, or less than the slot does")))
    }

    /// The last close: what is still incomplete is refused.
    pub(in crate::exchange::files) fn release_slot(&self, writer: &SlotWriter) {
        let mut draft = writer.draft.lock();
        if !draft.pending {
            return;
        }
        let caller = draft.caller.clone();
        let whole = writer.profile.config.format.check_whole(&draft.bytes);
        if whole.is_ok() && draft.try_again {
            // This is the last chance. Nobody is left to be told, and the refusal, if it comes to one, is recorded.
            let process = draft.written_by.and_then(|(_, process)| process);
            if let Err(error) = self.judge_whole(&caller, writer, draft, process, "close") {
                tracing::warn!(slot = %writer.slot, %error, "a credential could not be published at its last close");
            }
            return;
        }
        let why = whole.err().unwrap_or_else(|| "its writer ended before closing it".to_owned());
        let refusal = partial(&writer.slot, &why);
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
