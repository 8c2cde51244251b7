//! exchange.toml, trust.json, and what only the operator may read: keys, secrets and their modes.

use super::Faults;
use crate::exchange::config::Config;
use crate::exchange::layout::Layout;
use crate::wire::card::AgentCard;
use crate::wire::keys::{PairSecret, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// Reads exchange.toml; the defaults where it can't be read.
pub(super) fn check_config(layout: &Layout, faults: &mut Faults) -> Config {
    let parsed = fs::read_to_string(layout.config()).map_err(|e| e.to_string());
    parsed.and_then(|text| Config::parse(&text)).unwrap_or_else(|problem| {
        faults.add("exchange.toml", None, "config", problem);
        Config::parse("").expect("an empty exchange.toml means the defaults")
    })
}

/// Reads trust.json; nobody is trusted where it can't be read.
pub(super) fn check_trust(layout: &Layout, faults: &mut Faults) -> TrustList {
    let parsed = fs::read(layout.trust()).map_err(|e| e.to_string());
    parsed.and_then(|text| TrustList::parse(&text).map_err(|e| e.to_string())).unwrap_or_else(|problem| {
        faults.add("trust.json", None, "trust", problem);
        TrustList::default()
    })
}

/// Nothing under private/ may be open to anybody but the owner of the exchange.
pub(super) fn check_modes(layout: &Layout, faults: &mut Faults) {
    let Ok(owner) = fs::metadata(layout.root()).map(|m| m.uid()) else { return };
    check_mode(layout, &layout.private(), owner, faults);
    // What is on its way out has the mode already that it will have there; its folder is closed.
    let on_its_way = ["private/staging", "private/sending"].map(|dir| layout.tree(dir));
    let mut dirs = vec![layout.private()];
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) => {
                faults.add(relative(layout, &dir), None, "unreadable", e.to_string());
                continue;
            }
        };
        let is_passing = on_its_way.iter().any(|passing| dir.starts_with(passing));
        for entry in entries.flatten() {
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_dir || !is_passing {
                check_mode(layout, &entry.path(), owner, faults);
            }
            if is_dir {
                dirs.push(entry.path());
            }
        }
    }
    for open in
        ["", "inbox", "handoff", "claimed", "archive", "rejected", "credentials", "memory", "send", "trust"]
    {
        if let Ok(meta) = fs::metadata(layout.tree(open))
            && meta.mode() & 0o022 != 0
        {
            let problem = format!("mode {:04o}: others can change what is in it", meta.mode() & 0o7777);
            faults.add(if open.is_empty() { "." } else { open }, None, "modes", problem);
        }
    }
}

fn check_mode(layout: &Layout, file: &Path, owner: u32, faults: &mut Faults) {
    // Gone since it was listed: a temporary file of the daemon.
    let Ok(meta) = fs::symlink_metadata(file) else { return };
    // A socket's mode is no door: whoever reaches it went through private/.
    let guarded = meta.is_file() || meta.is_dir();
    if guarded && meta.mode() & 0o077 != 0 {
        let problem = format!(
            "mode {:04o}: others can get at it; chmod go-rwx it, and replace what they may have read",
            meta.mode() & 0o7777
        );
        faults.add(relative(layout, file), None, "modes", problem);
    }
    if meta.uid() != owner {
        let problem = format!("owned by uid {}, not by uid {owner}, who owns the exchange", meta.uid());
        faults.add(relative(layout, file), None, "modes", problem);
    }
}

/// Every key and secret must be readable, every key an active one of its agent.
pub(super) fn check_keys(layout: &Layout, trust: &TrustList, faults: &mut Faults) {
    for (folder, suffix) in [("keys", ".key"), ("secrets", ".secret")] {
        for entry in fs::read_dir(layout.private().join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(whose) = name.strip_suffix(suffix) else { continue };
            let bytes = fs::read(entry.path()).map(Zeroizing::new).map_err(|e| e.to_string());
            let checked = bytes.and_then(|bytes| match folder {
                "keys" => check_key(whose, &bytes, trust),
                _ if PairSecret::from_file_bytes(&bytes).as_bytes().is_empty() => Err("empty".into()),
                _ => Ok(()),
            });
            if let Err(problem) = checked {
                faults.add(relative(layout, &entry.path()), None, "key", problem);
            }
        }
    }
}

fn check_key(whose: &str, bytes: &[u8], trust: &TrustList) -> Result<(), String> {
    let agent = AgentName::parse(whose).map_err(|e| e.to_string())?;
    let id = SigningKey::from_file_text(bytes).map_err(|e| e.to_string())?.public().id(&agent);
    match trust.key(&id) {
        Some(key) if key.active => Ok(()),
        Some(_) => Err(format!("{id} is deactivated in trust.json: lines signed with it are refused")),
        None => Err(format!("{id} is not in trust.json: lines signed with it are refused")),
    }
}

/// Every agent card must be its agent's, and signed by a key that the agent has or had.
pub(super) fn check_cards(layout: &Layout, trust: &TrustList, faults: &mut Faults) {
    for entry in fs::read_dir(layout.tree("trust")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(whose) = name.strip_suffix(".card.json") else { continue };
        let text = fs::read(entry.path()).map_err(|e| e.to_string());
        let checked = text.and_then(|text| {
            let card = AgentCard::verify(&text).map_err(|e| e.to_string())?;
            if card.agent.as_str() != whose {
                return Err(format!("it is {}'s card", card.agent));
            }
            match trust.key(&card.signed_by) {
                Some(_) => Ok(()),
                None => Err(format!("it is signed by {}, which trust.json does not have", card.signed_by)),
            }
        });
        if let Err(problem) = checked {
            faults.add(relative(layout, &entry.path()), None, "card", problem);
        }
    }
}

/// A file's path in the exchange's folder.
pub(super) fn relative(layout: &Layout, file: &Path) -> String {
    file.strip_prefix(layout.root()).unwrap_or(file).display().to_string()
}
