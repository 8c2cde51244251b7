//! Credential slots: can each be read, by its owner alone, and is it what the last event left there?

use super::chain::Chain;
use super::{Faults, Setting};
use crate::rules::credential::{self, GuardedName, SlotName};
use crate::wire::credential::{CredentialFile, Format};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use zeroize::Zeroizing;

/// Checks every profile; returns how many slots there are.
pub(super) fn check(setting: &Setting<'_>, chain: &Chain, faults: &mut Faults) -> u64 {
    let mut slots = 0;
    for (profile, config) in &setting.config.credentials {
        slots += check_profile(setting, chain, (profile, &config.format), faults);
    }
    slots
}

fn check_profile(
    setting: &Setting<'_>,
    chain: &Chain,
    (profile, format): (&str, &Format),
    faults: &mut Faults,
) -> u64 {
    let dir = format!("credentials/{profile}");
    let mut slots: Vec<SlotName> = Vec::new();
    for entry in fs::read_dir(setting.layout.tree(&dir)).into_iter().flatten().flatten() {
        if let Some(GuardedName::Slot(slot)) = GuardedName::of(format, entry.file_name().as_bytes()) {
            slots.push(slot);
        }
    }
    for slot in &slots {
        let file = format!("{dir}/{}", format.slot_file(slot));
        let known = chain.slots.get(&(profile.to_owned(), slot.as_str().to_owned()));
        if let Err((rule, problem)) = check_slot(setting, &file, format, known) {
            faults.add(file, None, rule, problem);
        }
    }
    for ((_, slot), (_, event)) in chain.slots.iter().filter(|((p, _), _)| p == profile) {
        if !slots.iter().any(|present| present.as_str() == slot) {
            let problem = format!("the slot is gone (events.jsonl, line {event} tells of it)");
            faults.add(format!("{dir}/{}.{slot}", format.live), None, "missing", problem);
        }
    }

    let link = format!("{dir}/{}", format.live);
    let switched = chain.live_links.get(profile);
    match fs::read_link(setting.layout.tree(&link)) {
        Ok(target) => {
            let selected = credential::link_target(format, target.as_os_str().as_bytes()).ok();
            if selected.as_ref().is_none_or(|slot| !slots.contains(slot)) {
                let problem = format!("the live link points at {}, which is no slot here", target.display());
                faults.add(link, None, "credential", problem);
            } else if let Some((slot, event)) =
                switched.filter(|(slot, _)| selected.is_none_or(|selected| selected.as_str() != slot))
            {
                let problem = format!(
                    "the live link points at {}, but was switched to {slot} last (events.jsonl, line {event}): \
                     changed behind the mount",
                    target.display()
                );
                faults.add(link, None, "credential", problem);
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Some((slot, event)) = switched {
                let problem = format!("the live link to {slot} is gone (events.jsonl, line {event} made it)");
                faults.add(link, None, "missing", problem);
            }
        }
        Err(_) => faults.add(link, None, "credential", "the live link is not a symbolic link"),
    }
    slots.len() as u64
}

fn check_slot(
    setting: &Setting<'_>,
    file: &str,
    format: &Format,
    known: Option<&(String, u64)>,
) -> Result<(), (&'static str, String)> {
    let path = setting.layout.tree(file);
    let unreadable = |e: std::io::Error| ("unreadable", e.to_string());
    let meta = fs::symlink_metadata(&path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(("credential", "a slot must be a regular file".into()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err((
            "modes",
            format!("mode {:04o}: others can read the login; chmod 600 it", meta.mode() & 0o7777),
        ));
    }
    let bytes = Zeroizing::new(fs::read(&path).map_err(unreadable)?);
    let login = match format.read(&bytes) {
        Ok(CredentialFile::Login(login)) => login,
        Ok(CredentialFile::Stub) => return Err(("credential", "holds no login".into())),
        Err(e) => return Err(("credential", e.to_string())),
    };
    let fingerprint = login.fingerprint.as_ref().map(ToString::to_string);
    let held = fingerprint.or_else(|| login.account()).unwrap_or_default();
    match known {
        Some((recorded, event)) if *recorded != held => Err((
            "identity",
            format!(
                "holds the login {held}, but {recorded} was put there (events.jsonl, line {event}): changed behind \
                 the mount"
            ),
        )),
        _ => Ok(()),
    }
}
