//! LOGIN-REFUSED.txt: tells whoever looks into a profile that a login was refused, and how to accept it.

use super::profile::Profile;
use crate::exchange::files::Files;
use crate::exchange::files::fd;
use crate::exchange::files::process;
use crate::exchange::process::process_of;
use crate::exchange::{Attempt, Caller, Denied};
use crate::rules::credential::{self, NOTICE, SlotName};
use crate::rules::{Refusal, Rule};
use crate::wire::credential::Credential;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a notice tells.
struct Told<'a> {
    when: String,
    who: String,
    profile: &'a str,
    slot: &'a SlotName,
    held: Option<Credential>,
    offered: Option<Credential>,
    why: &'a str,
    /// The id of the bytes in quarantine, if they are kept.
    kept: Option<&'a str>,
    /// A name for a slot of its own.
    free: String,
}

fn label(login: Option<&Credential>) -> String {
    login.map_or("no login".to_owned(), Credential::shown)
}

/// The line by which a later start knows which slot a notice is about.
fn slot_line(slot: &SlotName) -> String {
    format!("Slot:     {slot}, ")
}

impl Told<'_> {
    fn text(&self) -> String {
        let Told { profile, slot, .. } = self;
        let mut text = format!(
            "A login was refused here, and nothing was changed.\n\n\
             When:     {}\nBy:       {}\n{}which holds {}\nRefused:  {}\nWhy:      {}\n",
            self.when,
            self.who,
            slot_line(slot),
            label(self.held.as_ref()),
            label(self.offered.as_ref()),
            self.why.replace('\n', " "),
        );
        match (self.kept, &self.offered) {
            (None, _) => text.push_str("\nThe refused bytes are not kept. Log in again, into a slot of its own.\n"),
            (Some(id), None) => text.push_str(&format!(
                "Bytes:    private/quarantine/{id} in the exchange\n\nThey hold no login that could be accepted: log \
                 in again.\n"
            )),
            (Some(id), Some(_)) => text.push_str(&format!(
                "Bytes:    private/quarantine/{id} in the exchange\n\n\
                 If this login belongs into slot {slot}, the operator of the exchange accepts it with:\n\n\
                 \x20 baton credentials adopt {slot} --profile {profile} --quarantine {id}\n\n\
                 To keep both, give it a slot of its own (here {free}), and use that one:\n\n\
                 \x20 baton credentials adopt {free} --profile {profile} --quarantine {id}\n\
                 \x20 baton credentials switch {free} --profile {profile}\n",
                free = self.free,
            )),
        }
        text.push_str(
            "\nThis file goes by itself when the login is accepted, or another one is written to the slot.\n\
             You may remove it; the refusal stays in refusals.jsonl.\n",
        );
        text
    }
}

impl Files {
    /// Refuses bytes that were to become a slot's login. Where they could be another's login, a notice is left.
    pub(in crate::exchange::files) fn refuse_login(
        &self,
        caller: &Caller,
        operation: &'static str,
        (profile, slot): (&Profile, &SlotName),
        bytes: &[u8],
        refusal: Refusal,
    ) -> Denied {
        let path = profile.slot_path(slot);
        let Ok(office) = self.office() else { return Denied::Refused(refusal) };
        let attempt = Attempt { operation, path: &path, bytes };
        let (is_identity, why) = (refusal.rule == Rule::Identity, refusal.advice.clone());
        let (denied, kept) = office.refuse_kept(caller, attempt, refusal);
        if is_identity {
            // By what may be asked of a thread in execve(2), too.
            let pid = process_of(caller.pid);
            let program = process::program(pid).map_or(String::new(), |program| format!(" ({program})"));
            let kept = kept.as_deref().and_then(|path| Path::new(path).file_name()?.to_str());
            let told = Told {
                when: office.now().to_string(),
                who: printable(&format!("{}, process {pid}{program}", office.actor(caller))),
                profile: &profile.name,
                slot,
                held: profile
                    .slot_bytes(slot)
                    .ok()
                    .flatten()
                    .and_then(|bytes| profile.slot_login(slot, &bytes)),
                offered: profile.login(bytes),
                // The command follows below, with its own lines.
                why: credential::cause(&why),
                kept,
                free: profile.free_slot(slot),
            };
            if let Err(error) = profile.put_notice(&told.text()) {
                tracing::warn!(profile = profile.name, %error, "{NOTICE} could not be written");
            }
        }
        denied
    }
}

impl Profile {
    fn put_notice(&self, text: &str) -> io::Result<()> {
        let dir = self.dir.metadata()?;
        let owner = rustix::process::geteuid().is_root().then(|| (dir.uid(), dir.gid()));
        let staged = self.stage(text.as_bytes(), owner)?;
        let readable = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        rustix::fs::chmodat(&self.dir, staged.as_str(), readable, AtFlags::empty())?;
        Ok(rustix::fs::renameat(&self.dir, staged.as_str(), &self.dir, NOTICE)?)
    }

    fn notice(&self) -> io::Result<Option<String>> {
        let Some(handle) = fd::find(&self.dir, OsStr::new(NOTICE))? else { return Ok(None) };
        if !handle.metadata()?.is_file() {
            return Ok(None);
        }
        let bytes = super::profile::read_up_to_limit(&fd::reopen(&handle, OFlags::RDONLY)?)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Removes the notice if it is about this slot: a login was accepted there.
    pub(super) fn settle_notice(&self, slot: &SlotName) {
        self.remove_notice_if(|text| text.lines().any(|line| line.starts_with(&slot_line(slot))));
    }

    /// Removes the notice if it is about these bytes in quarantine.
    pub fn settle_notice_of(&self, id: &str) {
        self.remove_notice_if(|text| text.lines().any(|line| line.contains(&format!("quarantine/{id} "))));
    }

    fn remove_notice_if(&self, settled: impl FnOnce(&str) -> bool) {
        let removed = self.notice().and_then(|text| match text {
            Some(text) if settled(&text) => Ok(rustix::fs::unlinkat(&self.dir, NOTICE, AtFlags::empty())?),
            _ => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(profile = self.name, %error, "{NOTICE} could not be removed");
        }
    }

    /// A name for a new slot, after that of one there is.
    pub(super) fn free_slot(&self, slot: &SlotName) -> String {
        let names = (2..100).filter_map(|n| SlotName::parse(&format!("{slot}-{n}")));
        let free = |name: &SlotName| matches!(self.slot_handle(name), Ok(None));
        names.into_iter().find(free).map_or("NEW".to_owned(), |name| name.to_string())
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
