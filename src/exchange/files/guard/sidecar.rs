//! The sidecars of slots on disk: written with each change of a slot's login, and compared with it.
//!
//! A sidecar goes before its slot's login changes and comes back after that. So one that names another login than
//! the slot holds was not left by a crash: somebody changed the slot behind the mount.

use super::change::Fault;
use super::profile::{DRIFT, Profile, read_up_to_limit};
use crate::exchange::Actor;
use crate::exchange::events::members;
use crate::exchange::files::Files;
use crate::exchange::files::fd;
use crate::rules::Refusal;
use crate::rules::credential::{SlotName, Verdict};
use crate::rules::sidecar::{self, Standing};
use crate::wire::credential::{Credential, CredentialFile, Fingerprint};
use crate::wire::sidecar::Sidecar;
use crate::wire::time::Timestamp;
use rustix::fs::{AtFlags, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;

/// A slot that the operator accepts as it is.
#[derive(Debug, Clone)]
pub(in crate::exchange) struct Baseline {
    pub held: Fingerprint,
    /// Whether its sidecar said otherwise, or nothing.
    pub changed: bool,
}

impl Profile {
    fn sidecar(&self, slot: &SlotName) -> io::Result<Option<Sidecar>> {
        let name = self.config.format.sidecar_file(slot);
        let Some(handle) = fd::find(&self.dir, OsStr::new(&name))? else { return Ok(None) };
        if !handle.metadata()?.is_file() {
            return Ok(None);
        }
        let text = read_up_to_limit(&fd::reopen(&handle, OFlags::RDONLY)?)?;
        Ok(Sidecar::parse(&text).ok())
    }

    fn recorded(&self, slot: &SlotName) -> io::Result<Option<Fingerprint>> {
        Ok(self.sidecar(slot)?.and_then(|sidecar| sidecar.fingerprint()))
    }

    /// What a slot and its sidecar hold. For whoever holds `commit`.
    fn standing_now(&self, slot: &SlotName) -> io::Result<Standing> {
        let held = self.slot_bytes(slot)?.and_then(|bytes| self.login(&bytes));
        Ok(Standing { held: held.and_then(|login| login.fingerprint), recorded: self.recorded(slot)? })
    }

    /// What a new login is to be compared with: the slot's own, but nothing where the slot was changed behind the
    /// mount and the new login is the one that its sidecar has, which so comes back.
    pub(super) fn compared_with<'a>(
        &self,
        slot: &SlotName,
        old: Option<&'a Credential>,
        new: &CredentialFile,
    ) -> io::Result<Option<&'a Credential>> {
        let (Some(held), CredentialFile::Login(new)) = (old, new) else { return Ok(old) };
        let comes_back = held.fingerprint != new.fingerprint && self.recorded(slot)? == new.fingerprint;
        Ok(if comes_back { None } else { old })
    }

    /// Before a slot gets another login, its sidecar goes: gives that out. For whoever holds `commit`.
    pub(super) fn take_sidecar(
        &self,
        slot: &SlotName,
        verdict: Option<Verdict>,
        new: &Credential,
    ) -> io::Result<Option<Sidecar>> {
        let sidecar = self.sidecar(slot)?;
        let recorded = sidecar.as_ref().and_then(Sidecar::fingerprint);
        if verdict == Some(Verdict::Unchanged) || recorded == new.fingerprint {
            return Ok(None);
        }
        self.remove_sidecar(slot).map(|()| sidecar)
    }

    /// After the login did not change: what [`Profile::take_sidecar`] gave out. Best effort: the next start makes
    /// one that is missing.
    pub(super) fn put_back(&self, slot: &SlotName, sidecar: Option<Sidecar>) {
        if let Some(sidecar) = sidecar {
            let _ = self.put_sidecar(slot, &sidecar.text());
        }
    }

    /// Removes a slot's sidecar, if there is one. For whoever holds `commit`, or is alone yet.
    pub(super) fn remove_sidecar(&self, slot: &SlotName) -> io::Result<()> {
        let name = self.config.format.sidecar_file(slot);
        match rustix::fs::unlinkat(&self.dir, name.as_str(), AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// After a write was accepted: a sidecar that tells of it. One that is true stays, and so does one that is not
    /// where the write brought no other login. For whoever holds `commit`.
    pub(super) fn renew_sidecar(
        &self,
        slot: &SlotName,
        verdict: Option<Verdict>,
        new: &Credential,
        now: Timestamp,
    ) {
        let renewed = self.recorded(slot).and_then(|recorded| match (recorded, &new.fingerprint) {
            (_, None) => Ok(()),
            (Some(recorded), Some(new)) if recorded == *new || verdict == Some(Verdict::Unchanged) => Ok(()),
            (_, Some(new)) => self.put_sidecar(slot, &Sidecar::new(slot.as_str(), new, now).text()),
        });
        if let Err(error) = renewed {
            tracing::warn!(profile = self.name, %slot, %error, "no sidecar tells of a slot until the next start");
        }
    }

    fn put_sidecar(&self, slot: &SlotName, text: &[u8]) -> io::Result<()> {
        let slot_owner = self.slot_handle(slot)?.map(|handle| handle.metadata()).transpose()?;
        let may_give = rustix::process::geteuid().is_root();
        let owner = slot_owner.filter(|_| may_give).map(|slot| (slot.uid(), slot.gid()));
        let staged = self.stage(text, owner)?;
        let name = self.config.format.sidecar_file(slot);
        Ok(rustix::fs::renameat(&self.dir, staged.as_str(), &self.dir, name.as_str())?)
    }

    /// Writes the sidecar of a slot that has a login and no sidecar. Returns whether there is one now.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn capture_sidecar(&self, slot: &SlotName, now: Timestamp) -> io::Result<bool> {
        let _commit = self.commit.lock();
        let Standing { held, recorded } = self.standing_now(slot)?;
        match (held, recorded) {
            (_, Some(_)) => Ok(true),
            (None, None) => Ok(false),
            (Some(held), None) => {
                self.put_sidecar(slot, &Sidecar::new(slot.as_str(), &held, now).text()).map(|()| true)
            }
        }
    }

    /// Puts a program's own sidecar in place, if it says the truth.
    ///
    /// # Errors
    /// `identity`.
    pub(super) fn submit_sidecar(&self, slot: &SlotName, text: &[u8]) -> Result<(), Fault> {
        let _commit = self.commit.lock();
        sidecar::judge(self.slot_ref(slot), &self.standing_now(slot)?, text)?;
        Ok(self.put_sidecar(slot, text)?)
    }
}

impl Files {
    /// Compares a profile's slots with their sidecars; those that have none get theirs. What was changed behind the
    /// mount stays as it is, and is told.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange::files) fn look_at_sidecars(&self, profile: &Profile) -> io::Result<()> {
        let office = self.office_io()?;
        for slot in profile.slots()? {
            if profile.capture_sidecar(&slot, office.now())? {
                self.tell_of_drift(profile, &slot)?;
            }
        }
        Ok(())
    }

    /// Writes an event where a slot was changed behind the mount, once for each change. Returns the login that its
    /// sidecar has.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn tell_of_drift(
        &self,
        profile: &Profile,
        slot: &SlotName,
    ) -> io::Result<Option<Fingerprint>> {
        // Under the lock, so that no event comes between another one of the slot and its deed.
        let _commit = profile.commit.lock();
        let standing = profile.standing_now(slot)?;
        let drift = standing.drift().cloned();
        let mut told = profile.drifts_told.lock();
        match &drift {
            None => drop(told.remove(slot)),
            Some(_) if told.get(slot) == Some(&standing.held) => {}
            Some(recorded) => {
                let fields = members! {
                    "profile": profile.name.as_str(), "slot": slot.as_str(), "recorded": recorded.to_string(),
                    "holds": standing.held.as_ref().map(ToString::to_string),
                };
                self.office_io()?.event(DRIFT, fields)?;
                tracing::warn!(profile = profile.name, %slot, "a slot was changed behind the mount");
                told.insert(slot.clone(), standing.held);
            }
        }
        Ok(drift)
    }

    /// Takes what a slot holds as its own, by the operator's word.
    ///
    /// # Errors
    /// `identity`: it holds no login. The disk's.
    pub(in crate::exchange) fn baseline(
        &self,
        profile: &Profile,
        slot: &SlotName,
    ) -> Result<Baseline, Fault> {
        let office = self.office_io()?;
        let _commit = profile.commit.lock();
        let Standing { held, recorded } = profile.standing_now(slot)?;
        let Some(held) = held else {
            let what =
                format!("Slot {slot} of {} holds no login to take. Write one to it first.", profile.name);
            return Err(Refusal::new(crate::rules::Rule::Identity, what).into());
        };
        let changed = recorded.as_ref() != Some(&held);
        if changed {
            let fields = members! {
                "profile": profile.name.as_str(), "slot": slot.as_str(), "by": Actor::Operator.to_string(),
                "fingerprint": held.to_string(), "recorded": recorded.map(|recorded| recorded.to_string()),
            };
            office.event("credential-baseline", fields)?;
            profile.put_sidecar(slot, &Sidecar::new(slot.as_str(), &held, office.now()).text())?;
            profile.drifts_told.lock().remove(slot);
            profile.set_last_verdict(slot, "baseline", office.now());
        }
        Ok(Baseline { held, changed })
    }
}
