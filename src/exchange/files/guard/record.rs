//! What the exchange itself writes into a profile's top, as programs meet it: sidecars, which they may write as long
//! as they say the truth, and the notice of a refused login, which they may remove.

use super::change::Fault;
use super::profile::{Profile, read_up_to_limit};
use crate::exchange::files::access::{Operation, READ};
use crate::exchange::files::nodes::{Node, Plain};
use crate::exchange::files::{FileEntry, Files, OpenFile, Opened, SetAttr, fd, wanted};
use crate::exchange::process::process_of;
use crate::exchange::{Attempt, Attr, Caller, Denied, Outcome};
use crate::rules::credential::{GuardedName, NOTICE, SlotName};
use crate::rules::{Refusal, Rule};
use crate::wire::sidecar::MAX_SIDECAR_BYTES;
use parking_lot::Mutex;
use rustix::fs::{OFlags, RenameFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A file that the exchange writes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::exchange::files) enum RecordName {
    Sidecar(SlotName),
    Notice,
}

/// Which record a name in a directory is, and where.
pub(in crate::exchange::files) fn record<'a>(
    dir: &'a Plain,
    name: &OsStr,
) -> Option<(&'a Arc<Profile>, RecordName)> {
    let profile = dir.top()?;
    match GuardedName::of(&profile.config.format, name.as_bytes())? {
        GuardedName::Sidecar(slot) => Some((profile, RecordName::Sidecar(slot))),
        GuardedName::Notice => Some((profile, RecordName::Notice)),
        GuardedName::Live | GuardedName::Slot(_) => None,
    }
}

/// One open(2) of a sidecar for writing: what is written stays the writer's own until it is whole and judged.
pub(in crate::exchange::files) struct SidecarWriter {
    profile: Arc<Profile>,
    slot: SlotName,
    draft: Mutex<Draft>,
}

struct Draft {
    bytes: Vec<u8>,
    /// Something in `bytes` is neither in place nor refused yet.
    pending: bool,
    written_by: Option<u32>,
    /// What was refused last: buffered writers try it once more when they close.
    refused: Option<Vec<u8>>,
    caller: Caller,
}

impl Draft {
    fn is_whole(&self) -> bool {
        // Whatever it says: an object that is closed can't become another by what follows.
        serde_json::from_slice::<serde_json::Map<_, _>>(&self.bytes).is_ok()
    }
}

impl SidecarWriter {
    fn path(&self) -> String {
        record_path(&self.profile, &RecordName::Sidecar(self.slot.clone()))
    }

    /// pread(2): the writer sees its own draft.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let draft = self.draft.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(draft.bytes.len());
        draft.bytes[start..start.saturating_add(size).min(draft.bytes.len())].to_vec()
    }
}

fn record_path(profile: &Profile, name: &RecordName) -> String {
    match name {
        RecordName::Sidecar(slot) => profile.path(&profile.config.format.sidecar_file(slot)),
        RecordName::Notice => profile.path(NOTICE),
    }
}

fn advice_against(name: &RecordName, what: &str) -> Refusal {
    match name {
        RecordName::Sidecar(slot) => Refusal::new(
            Rule::Identity,
            format!(
                "{what}: it tells which login slot {slot} holds, and comes and goes with the slot. Leave it."
            ),
        ),
        RecordName::Notice => Refusal::new(
            Rule::ReadOnly,
            format!("{what}: the exchange writes it. Read it, then rm {NOTICE} if you like."),
        ),
    }
}

impl Files {
    fn refuse_record(
        &self,
        caller: &Caller,
        operation: &'static str,
        (profile, name): (&Profile, &RecordName),
        refusal: Refusal,
    ) -> Denied {
        let path = record_path(profile, name);
        self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal)
    }

    /// Refuses to make anything but a file with a record's name.
    ///
    /// # Errors
    /// `identity`, `read-only`.
    pub(in crate::exchange::files) fn check_record_made(
        &self,
        caller: &Caller,
        operation: &'static str,
        dir: &Plain,
        name: &OsStr,
    ) -> Outcome<()> {
        match record(dir, name) {
            Some((profile, record)) if !matches!(operation, "create" | "unlink" | "rmdir" | "rename") => {
                let refusal = advice_against(&record, "Nothing else can have this name");
                Err(self.refuse_record(caller, operation, (profile, &record), refusal))
            }
            _ => Ok(()),
        }
    }

    /// open(2) of a record.
    pub(in crate::exchange::files) fn open_record(
        &self,
        caller: &Caller,
        (plain, profile, name): (&Plain, &Arc<Profile>, &RecordName),
        flags: OFlags,
    ) -> Outcome<OpenFile> {
        let (_, write) = wanted(flags);
        let node = Node::Plain(plain.clone());
        let standing =
            self.standing(caller, &Operation { name: "open", node: &node, child: None }, write != 0)?;
        if write == 0 {
            if !standing.entitled {
                self.check_mode(caller, standing, &plain.handle.metadata()?, READ)?;
            }
            let file = fd::reopen(&plain.handle, OFlags::RDONLY)?;
            return Ok(OpenFile { opened: Opened::SlotReader(file) });
        }
        let RecordName::Sidecar(slot) = name else {
            let refusal = advice_against(name, "The notice can't be written");
            return Err(self.refuse_record(caller, "open", (profile, name), refusal));
        };
        let present = read_up_to_limit(&fd::reopen(&plain.handle, OFlags::RDONLY)?)?;
        let emptied = flags.contains(OFlags::TRUNC) && !present.is_empty();
        let bytes = if emptied { Vec::new() } else { present.to_vec() };
        let draft =
            Draft { bytes, pending: emptied, written_by: None, refused: None, caller: caller.clone() };
        let writer = SidecarWriter { profile: profile.clone(), slot: slot.clone(), draft: Mutex::new(draft) };
        Ok(OpenFile { opened: Opened::SidecarWriter(writer) })
    }

    /// O_CREAT of a record that is not there: a slot's sidecar, which it should have had.
    pub(in crate::exchange::files) fn create_record(
        &self,
        caller: &Caller,
        (dir, file_name): (&Plain, &OsStr),
        (profile, name): (&Arc<Profile>, RecordName),
        flags: OFlags,
    ) -> Outcome<(FileEntry, OpenFile)> {
        let RecordName::Sidecar(slot) = &name else {
            let refusal = advice_against(&name, "The notice can't be made");
            return Err(self.refuse_record(caller, "create", (profile, &name), refusal));
        };
        let was_there = fd::find(&profile.dir, file_name)?.is_some();
        if was_there && flags.contains(OFlags::EXCL) {
            return Err(Denied::os(libc::EEXIST));
        }
        if !profile.capture_sidecar(slot, self.office()?.now())? {
            let refusal = Refusal::new(
                Rule::Identity,
                format!(
                    "There is no login in slot {slot}. Write it first: its sidecar then comes by itself."
                ),
            );
            return Err(self.refuse_record(caller, "create", (profile, &name), refusal));
        }
        let entry = self.find(dir, file_name)?.ok_or_else(|| Denied::os(libc::ENOENT))?;
        match self.open(caller, entry.id, (flags | OFlags::TRUNC).bits() as i32) {
            Ok(open) => Ok((entry, open)),
            Err(denied) => {
                self.forget(entry.id, 1);
                Err(denied)
            }
        }
    }

    /// pwrite(2) to a sidecar.
    ///
    /// # Errors
    /// `identity`, `size`.
    pub(in crate::exchange::files) fn write_sidecar(
        &self,
        caller: &Caller,
        writer: &SidecarWriter,
        (offset, append): (u64, bool),
        data: &[u8],
    ) -> Outcome<usize> {
        let mut draft = writer.draft.lock();
        let offset = if append { draft.bytes.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        let end = offset.saturating_add(data.len());
        if end > MAX_SIDECAR_BYTES {
            let what =
                format!("A sidecar has at most {MAX_SIDECAR_BYTES} bytes: a hash, a time and a slot's name.");
            let path = writer.path();
            let attempt = Attempt { operation: "write", path: &path, bytes: &[] };
            return Err(self.refuse(caller, attempt, Refusal::new(Rule::Size, what)));
        }
        if offset == 0 && !draft.pending {
            draft.bytes.clear(); // a new text, not a patch of the old one
        }
        let len = draft.bytes.len().max(end);
        draft.bytes.resize(len, 0);
        draft.bytes[offset..end].copy_from_slice(data);
        draft.pending = true;
        draft.written_by = Some(process_of(caller.pid));
        draft.caller = caller.clone();
        if draft.is_whole() {
            self.decide_sidecar(caller, writer, &mut draft, "write")?;
        }
        Ok(data.len())
    }

    fn decide_sidecar(
        &self,
        caller: &Caller,
        writer: &SidecarWriter,
        draft: &mut Draft,
        operation: &'static str,
    ) -> Outcome<()> {
        match writer.profile.submit_sidecar(&writer.slot, &draft.bytes) {
            Ok(()) => {
                (draft.pending, draft.written_by) = (false, None);
                Ok(())
            }
            Err(Fault::Io(error)) => Err(Denied::Io(error)),
            Err(Fault::Broke(refusal)) => {
                let bytes = std::mem::take(&mut draft.bytes);
                (draft.pending, draft.written_by) = (false, None);
                if draft.refused.as_ref() == Some(&bytes) {
                    return Err(Denied::Refused(refusal)); // recorded already
                }
                let path = writer.path();
                let denied = self.refuse(caller, Attempt { operation, path: &path, bytes: &bytes }, refusal);
                draft.refused = Some(bytes);
                Err(denied)
            }
        }
    }

    /// close(2) of a sidecar by the writer of what is not whole.
    ///
    /// # Errors
    /// `partial`.
    pub(in crate::exchange::files) fn flush_sidecar(
        &self,
        caller: &Caller,
        writer: &SidecarWriter,
    ) -> Outcome<()> {
        let draft = writer.draft.lock();
        if draft.pending && draft.written_by == Some(process_of(caller.pid)) && !draft.is_whole() {
            return Err(Denied::Refused(partial(&writer.slot)));
        }
        Ok(())
    }

    /// The last close of a sidecar.
    pub(in crate::exchange::files) fn release_sidecar(&self, writer: &SidecarWriter) {
        let mut draft = writer.draft.lock();
        if !draft.pending {
            return;
        }
        let caller = draft.caller.clone();
        if draft.is_whole() {
            // Its publication failed for want of space or the like: this is the last chance.
            if let Err(error) = self.decide_sidecar(&caller, writer, &mut draft, "close") {
                tracing::warn!(slot = %writer.slot, %error, "a sidecar could not be written at its last close");
            }
            return;
        }
        draft.pending = false;
        let (bytes, path) = (std::mem::take(&mut draft.bytes), writer.path());
        drop(draft);
        self.refuse(
            &caller,
            Attempt { operation: "close", path: &path, bytes: &bytes },
            partial(&writer.slot),
        );
    }

    /// chmod, chown, truncate, utimensat of a record: only times change.
    pub(in crate::exchange::files) fn set_record_attr(
        &self,
        caller: &Caller,
        (plain, profile, name): (&Plain, &Arc<Profile>, &RecordName),
        open: Option<&OpenFile>,
        change: SetAttr,
    ) -> Outcome<Attr> {
        let node = Node::Plain(plain.clone());
        self.standing(caller, &Operation { name: "setattr", node: &node, child: None }, true)?;
        let mut attr = fd::attr(&plain.handle.metadata()?);
        let other = |asked: Option<u32>, is: u32| asked.is_some_and(|asked| asked != is);
        let (mode, owner) = (
            change.mode.map(|mode| mode & 0o7777),
            other(change.uid, attr.uid) || other(change.gid, attr.gid),
        );
        if other(mode, attr.mode) || owner {
            let refusal = advice_against(name, "Its mode and owner stay as they are");
            let operation = if owner { "chown" } else { "chmod" };
            return Err(self.refuse_record(caller, operation, (profile, name), refusal));
        }
        match (change.size, open.map(|open| &open.opened)) {
            (None, _) => {}
            (Some(size), Some(Opened::SidecarWriter(writer))) if size <= MAX_SIDECAR_BYTES as u64 => {
                let mut draft = writer.draft.lock();
                draft.bytes.resize(size as usize, 0);
                draft.pending = true;
                attr.size = size;
            }
            (Some(size), _) if size == attr.size => {}
            (Some(_), _) => {
                let refusal = advice_against(name, "It can't be cut or stretched");
                return Err(self.refuse_record(caller, "truncate", (profile, name), refusal));
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            fd::set_times(&plain.handle, change.atime, change.mtime)?;
            let times = fd::attr(&plain.handle.metadata()?);
            (attr.atime, attr.mtime, attr.ctime) = (times.atime, times.mtime, times.ctime);
        }
        Ok(attr)
    }

    /// unlink(2): the notice, and a sidecar whose slot is gone, are ordinary files then.
    ///
    /// # Errors
    /// `identity`.
    pub(in crate::exchange::files) fn check_record_unlinked(
        &self,
        caller: &Caller,
        dir: &Plain,
        name: &OsStr,
    ) -> Outcome<()> {
        let Some((profile, record)) = record(dir, name) else { return Ok(()) };
        match &record {
            RecordName::Sidecar(slot)
                if fd::find(&profile.dir, name)?.is_some() && profile.slot_handle(slot)?.is_some() =>
            {
                let refusal = advice_against(&record, "A sidecar is not removed by itself");
                Err(self.refuse_record(caller, "unlink", (profile, &record), refusal))
            }
            _ => Ok(()),
        }
    }

    /// rename(2) where a record is involved: a file over a sidecar writes it. `None`: none is.
    pub(in crate::exchange::files) fn rename_record(
        &self,
        caller: &Caller,
        (dir, name): (&Plain, &OsStr),
        (new_dir, new_name): (&Plain, &OsStr),
        flags: RenameFlags,
    ) -> Outcome<Option<()>> {
        let source = fd::at(&dir.handle, name)?;
        let from = source.metadata()?;
        if let Some((profile, record)) = record(dir, name) {
            if dir.key == new_dir.key && name == new_name {
                return Ok(Some(()));
            }
            let refusal = advice_against(&record, "It stays where it is");
            return Err(self.refuse_record(caller, "rename", (profile, &record), refusal));
        }
        let Some((profile, record)) = record(new_dir, new_name) else { return Ok(None) };
        let present = fd::find(&new_dir.handle, new_name)?.is_some();
        if present && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Denied::os(libc::EEXIST));
        }
        let slot = match &record {
            RecordName::Sidecar(slot) if from.is_file() && !flags.contains(RenameFlags::EXCHANGE) => slot,
            _ => {
                let refusal = advice_against(&record, "Nothing is put in its place");
                return Err(self.refuse_record(caller, "rename", (profile, &record), refusal));
            }
        };
        let bytes = read_up_to_limit(&fd::reopen(&source, OFlags::RDONLY)?)?;
        let bytes = if bytes.len() > MAX_SIDECAR_BYTES { Vec::new() } else { bytes.to_vec() };
        match profile.submit_sidecar(slot, &bytes) {
            Ok(()) => {}
            Err(Fault::Io(error)) => return Err(Denied::Io(error)),
            // The temp file keeps its bytes, so none are lost.
            Err(Fault::Broke(refusal)) => {
                return Err(self.refuse_record(caller, "rename", (profile, &record), refusal));
            }
        }
        super::remove_if_still(dir, name, &from).map(Some)
    }

    /// link(2) of a record.
    pub(in crate::exchange::files) fn refuse_record_link(
        &self,
        caller: &Caller,
        (profile, name): (&Arc<Profile>, &RecordName),
    ) -> Denied {
        let refusal = advice_against(name, "It has one name");
        self.refuse_record(caller, "link", (profile, name), refusal)
    }
}

fn partial(slot: &SlotName) -> Refusal {
    Refusal::new(
        Rule::Partial,
        format!(
            "The sidecar of slot {slot} stays as it was, because what was written is not whole. Write all of it before closing it."
        ),
    )
}
