//! The live link of a profile: which slot it selects, and what else may lie under its name.

use super::change::{Change, Fault, Live, Note};
use super::profile::Profile;
use crate::exchange::files::fd;
use crate::rules::credential::{self, SlotName};
use crate::rules::{Refusal, Rule};
use crate::wire::credential::Credential;
use crate::wire::time::Timestamp;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use zeroize::Zeroizing;

impl Profile {
    /// What the live link is.
    pub fn live(&self) -> io::Result<Live> {
        let Some(handle) = fd::find(&self.dir, OsStr::new(self.live_name()))? else {
            return Ok(Live::Absent);
        };
        if !handle.metadata()?.is_symlink() {
            return Ok(Live::Other);
        }
        let target = fd::read_link(&handle)?;
        Ok(credential::link_target(&self.config.format, target.as_bytes()).map_or(Live::Other, Live::To))
    }

    /// The regular file that lies under the live name, as a program leaves it that runs behind the mount, or while
    /// nothing is mounted. A handle; `None` where there is none.
    pub(in crate::exchange) fn stray(&self) -> io::Result<Option<File>> {
        let handle = fd::find(&self.dir, OsStr::new(self.live_name()))?;
        Ok(match handle {
            Some(handle) if handle.metadata()?.is_file() => Some(handle),
            _ => None,
        })
    }

    /// Keeps what [`Profile::stray`] holds, before the link replaces it. Returns where.
    fn keep_stray(&self) -> io::Result<Option<String>> {
        let Some(handle) = self.stray()? else { return Ok(None) };
        let mut bytes = Zeroizing::new(Vec::new());
        fd::reopen(&handle, OFlags::RDONLY)?.read_to_end(&mut bytes)?;
        self.office()?.keep("replaced", &bytes).map(Some)
    }

    /// Whether a login may become the profile's first: no link, no slot.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_unused(&self) -> io::Result<bool> {
        Ok(self.live()? == Live::Absent && self.slots()?.is_empty())
    }

    /// As [`Profile::is_unused`], with the refusal.
    pub(in crate::exchange::files) fn check_unused(&self) -> Result<(), Fault> {
        if self.is_unused()? {
            return Ok(());
        }
        Err(Refusal::new(Rule::Identity, self.switch_first()).into())
    }

    /// The sentence for a write through a live link that selects no slot.
    pub(in crate::exchange::files) fn switch_first(&self) -> String {
        format!(
            "{} selects no slot, so it is not known whose login this is. Switch first: \
             {}, then write again.",
            self.path(self.live_name()),
            self.config.format.switch_command("<slot>")
        )
    }

    /// Makes a profile's first live link, its owner the slot's.
    pub(super) fn link_first(&self, slot: &SlotName, staged: &File) -> io::Result<()> {
        rustix::fs::symlinkat(self.slot_file_name(slot).as_str(), &self.dir, self.live_name())?;
        let owner = staged.metadata()?;
        if let Some(link) = fd::find(&self.dir, OsStr::new(self.live_name()))?
            && link.metadata()?.uid() != owner.uid()
        {
            fd::chown(&link, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// Points the live link at a slot by `perform`, if the slot may be switched to. `even_if_expired`: the
    /// operator's word that its refresh token lives.
    pub(in crate::exchange) fn switch(
        &self,
        slot: &SlotName,
        now: Timestamp,
        even_if_expired: bool,
        perform: impl FnOnce() -> io::Result<()>,
        note: Note<'_>,
    ) -> Result<Credential, Fault> {
        let stale = |what: String| Refusal::new(Rule::StaleSlot, what);
        let _commit = self.commit.lock();
        let name = &self.name;
        let bytes = match self.slot_bytes(slot) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let what = format!("{name} has no slot {slot}; `baton credentials status` lists its slots.");
                return Err(stale(what).into());
            }
            Err(e) => return Err(stale(format!("Slot {slot} of {name} can't be read ({e}).")).into()),
        };
        let Some(credential) = self.slot_login(slot, &bytes) else {
            let what = format!("Slot {slot} of {name} holds no readable login; write one to it first.");
            return Err(stale(what).into());
        };
        if !even_if_expired {
            credential::check_fresh(self.slot_ref(slot), &credential, now)?;
        }
        let live = self.live()?;
        let replaced = self.keep_stray()?;
        let replaced = replaced.as_deref();
        note(&Change::Selects { slot, credential: &credential, replaced })?;
        if let Err(error) = perform() {
            if note(&Change::StillSelects { live: &live, tried: slot }).is_err() {
                tracing::error!(
                    profile = self.name,
                    "a switch that failed could not be noted: verify will tell"
                );
            }
            return Err(error.into());
        }
        rustix::fs::fsync(&self.dir)?;
        Ok(credential)
    }

    /// Points the live link at a slot, whatever it was.
    pub(in crate::exchange) fn relink(&self, slot: &SlotName) -> io::Result<()> {
        let half_made = self.half_made();
        rustix::fs::symlinkat(self.slot_file_name(slot).as_str(), &self.dir, half_made.as_str())?;
        rustix::fs::renameat(&self.dir, half_made.as_str(), &self.dir, self.live_name())?;
        Ok(())
    }
}
