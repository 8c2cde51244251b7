//! Credential slots: can each be read, by its owner alone, and is it what the last event left there?

use super::chain::Chain;
use super::{Faults, Setting};
use crate::wire::credential::{self, CredentialFile};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use zeroize::Zeroizing;

const LINK: &str = ".credentials.json";

/// Checks every profile; returns how many slots there are.
pub(super) fn check(setting: &Setting<'_>, chain: &Chain, faults: &mut Faults) -> u64 {
    let mut slots = 0;
    for (profile, config) in &setting.config.credentials {
        let _ = config;
        slots += check_claude(setting, chain, profile, faults);
    }
    slots
}

fn check_claude(setting: &Setting<'_>, chain: &Chain, profile: &str, faults: &mut Faults) -> u64 {
    let dir = format!("credentials/{profile}");
    let mut slots = Vec::new();
    for entry in fs::read_dir(setting.layout.tree(&dir)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let slot = name.strip_prefix(LINK).and_then(|rest| rest.strip_prefix('.'));
        // Sidecars and temporary files have a further dot.
        if let Some(slot) = slot.filter(|slot| !slot.is_empty() && !slot.contains('.')) {
            slots.push(slot.to_owned());
        }
    }
    for slot in &slots {
        let file = format!("{dir}/{LINK}.{slot}");
        let known = chain.slots.get(&(profile.to_owned(), slot.clone()));
        if let Err((rule, problem)) = check_slot(setting, &file, known) {
            faults.add(file, None, rule, problem);
        }
    }
    for ((_, slot), (_, event)) in chain.slots.iter().filter(|((p, _), _)| p == profile) {
        if !slots.contains(slot) {
            let problem = format!("the slot is gone (events.jsonl, line {event} tells of it)");
            faults.add(format!("{dir}/{LINK}.{slot}"), None, "missing", problem);
        }
    }

    let link = format!("{dir}/{LINK}");
    let switched = chain.live_links.get(profile);
    match fs::read_link(setting.layout.tree(&link)) {
        Ok(target) => {
            let selected = target.to_str().and_then(|t| t.strip_prefix(LINK)?.strip_prefix('.'));
            if selected.is_none_or(|slot| !slots.iter().any(|s| s == slot)) {
                let problem = format!("the live link points at {}, which is no slot here", target.display());
                faults.add(link, None, "credential", problem);
            } else if let Some((slot, event)) = switched.filter(|(slot, _)| selected != Some(slot.as_str())) {
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
    let login = match credential::parse_claude(&bytes) {
        Ok(CredentialFile::Login(login)) => login,
        Ok(CredentialFile::Stub) => return Err(("credential", "holds no login".into())),
        Err(e) => return Err(("credential", e.to_string())),
    };
    let fingerprint = login.fingerprint.to_string();
    match known {
        Some((recorded, event)) if *recorded != fingerprint => Err((
            "identity",
            format!(
                "holds the login {fingerprint}, but {recorded} was put there (events.jsonl, line {event}): changed \
                 behind the mount"
            ),
        )),
        _ => Ok(()),
    }
}
