//! What a start does in a profile: it finishes what a crash interrupted, and takes in a login that was there before.

use super::change::{Accepted, Change, Fault, Grounds, Live, Note, Submission};
use super::profile::{DRIFT, Profile, REMOVED, SWITCHED, UNLINKED, read_up_to_limit};
use crate::exchange::events::Event;
use crate::exchange::files::fd;
use crate::rules::credential::{HALF_MADE, SlotName, Witness};
use crate::wire::time::Timestamp;
use rustix::fs::{AtFlags, OFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;

fn is_half_made(name: &str) -> bool {
    name.starts_with(HALF_MADE) && !name.contains('/')
}

impl Profile {
    /// Does what the events tell of and a crash prevented.
    pub(super) fn finish(&self, recent: &[Event]) -> io::Result<()> {
        let mut slots: BTreeMap<SlotName, &Event> = BTreeMap::new();
        let mut selected = None;
        for event in recent.iter().filter(|event| event.text("profile") == Some(&self.name)) {
            let Some(slot) = event.text("slot").and_then(SlotName::parse) else { continue };
            match event.event.as_str() {
                SWITCHED => selected = Some(slot),
                UNLINKED => selected = None,
                DRIFT => {} // tells of nothing that was done here
                _ => drop(slots.insert(slot, event)),
            }
        }
        for (slot, event) in slots {
            let is_its_login = |bytes: &[u8]| {
                self.login(bytes).is_some_and(|login| {
                    let fingerprint = login.fingerprint.map(|fingerprint| fingerprint.to_string());
                    event.text("fingerprint") == fingerprint.as_deref()
                })
            };
            if event.event == REMOVED {
                let held = self.slot_bytes(&slot)?;
                if held.is_some_and(|bytes| is_its_login(&bytes)) && self.live()? != Live::To(slot.clone()) {
                    rustix::fs::unlinkat(&self.dir, self.slot_file_name(&slot).as_str(), AtFlags::empty())?;
                    self.remove_sidecar(&slot)?;
                    tracing::info!(profile = self.name, %slot, "finished a removal that a crash interrupted");
                }
                continue;
            }
            let Some(staged) = event.text("staged").filter(|name| is_half_made(name)) else { continue };
            let Some(handle) = fd::find(&self.dir, OsStr::new(staged))? else { continue };
            let bytes = read_up_to_limit(&fd::reopen(&handle, OFlags::RDONLY)?)?;
            if !is_its_login(&bytes) {
                continue;
            }
            if event.members.contains_key("link_first") && self.live()? == Live::Absent {
                self.link_first(&slot, &handle)?;
            }
            self.remove_sidecar(&slot)?;
            rustix::fs::renameat(&self.dir, staged, &self.dir, self.slot_file_name(&slot).as_str())?;
            tracing::info!(profile = self.name, %slot, "finished a write that a crash interrupted");
        }
        if let Some(slot) = selected
            && self.slot_handle(&slot)?.is_some()
            && matches!(self.live()?, Live::Absent | Live::To(_))
            && self.live()? != Live::To(slot.clone())
        {
            self.relink(&slot)?;
            tracing::info!(profile = self.name, %slot, "finished a switch that a crash interrupted");
        }
        Ok(())
    }

    /// Takes in a login that lies where the live link belongs, as a program left it that ran without the guard: it
    /// becomes a slot of its own, `default` if that is free, and the live one. Where a slot holds its token already,
    /// that one becomes live. `None` where nothing new is taken in.
    pub(in crate::exchange::files) fn take_in(
        &self,
        as_root: bool,
        now: Timestamp,
        note: Note<'_>,
    ) -> Result<Option<Accepted>, Fault> {
        let Some(handle) = self.stray()? else { return Ok(None) };
        let file = fd::reopen(&handle, OFlags::RDONLY)?;
        let bytes = read_up_to_limit(&file)?;
        let holder = match self.login(&bytes) {
            Some(login) => self.holder_of_token(None, &login)?,
            None => None,
        };
        let (slot, accepted) = match holder {
            Some(slot) => (slot, None),
            None => {
                let slot = self.free_first()?;
                let metadata = file.metadata()?;
                let owner = as_root.then_some((metadata.uid(), metadata.gid()));
                let grounds = Grounds::Judged(Witness::default());
                let (account, link_first) = (None, false);
                let submission =
                    Submission { slot: &slot, bytes: &bytes, account, grounds, owner, link_first, now };
                let accepted = self.submit(submission, note)?;
                (slot, Some(accepted))
            }
        };
        let same_bytes = self.slot_bytes(&slot)?.is_some_and(|held| held == bytes);
        let replaced = if same_bytes { None } else { Some(self.office()?.keep("replaced", &bytes)?) };
        if let Some(credential) = self.login(&bytes) {
            note(&Change::Selects { slot: &slot, credential: &credential, replaced: replaced.as_deref() })?;
        }
        self.relink(&slot)?;
        rustix::fs::fsync(&self.dir)?;
        Ok(accepted)
    }

    /// A name for the slot of a login that comes without one.
    fn free_first(&self) -> io::Result<SlotName> {
        let first = SlotName::first();
        if self.slot_handle(&first)?.is_none() {
            return Ok(first);
        }
        SlotName::parse(&self.free_slot(&first)).ok_or_else(|| io::Error::other("no slot name is free"))
    }
}
