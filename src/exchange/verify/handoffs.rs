//! Handoffs: is each where the events say, with the bytes that were published and a right HMAC?

use super::chain::{Chain, KnownHandoff};
use super::{Faults, Setting};
use crate::exchange::handoffs::State;
use crate::rules::Refusal;
use crate::rules::archive::parse_year;
use crate::rules::handoff::REASON;
use crate::wire::handoff::Handoff;
use crate::wire::json::{self, Value};
use crate::wire::keys::PairSecret;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use zeroize::Zeroizing;

/// Checks the four directories; returns how many handoffs they hold.
pub(super) fn check(setting: &Setting<'_>, chain: &Chain, faults: &mut Faults) -> u64 {
    let mut found = BTreeSet::new();
    for state in State::ALL {
        let dir = state.dir();
        let entries = match fs::read_dir(setting.layout.tree(dir)) {
            Ok(entries) => entries,
            Err(e) => {
                faults.add(dir, None, "unreadable", e.to_string());
                continue;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    found.insert((dir.to_owned(), entry.file_name().to_string_lossy().into_owned()));
                }
                Err(e) => faults.add(dir, None, "unreadable", e.to_string()),
            }
        }
    }

    let mut handoffs = 0;
    for place in &found {
        let (dir, name) = place;
        let file = format!("{dir}/{name}");
        let bytes = match fs::symlink_metadata(setting.layout.tree(&file)) {
            // A year of archived logs.
            Ok(meta) if meta.is_dir() && dir == State::Archived.dir() && parse_year(name).is_some() => {
                continue;
            }
            Ok(meta) if !meta.is_file() => {
                faults.add(file, None, "added", "no handoff and no reason: only files belong here");
                continue;
            }
            // Moved on since it was listed; the next look tells.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && setting.live => continue,
            _ => match fs::read(setting.layout.tree(&file)) {
                Ok(bytes) => bytes,
                Err(e) => {
                    faults.add(file, None, "unreadable", e.to_string());
                    continue;
                }
            },
        };
        match chain.handoffs.get(place) {
            Some(known) => {
                handoffs += 1;
                if known.sha256.is_some_and(|sha256| sha256 != <[u8; 32]>::from(Sha256::digest(&bytes))) {
                    let problem = format!(
                        "not the bytes that were published (events.jsonl, line {}): edited behind the mount",
                        known.event
                    );
                    faults.add(file, None, "immutable", problem);
                } else {
                    check_payload(setting, chain, known, file, &bytes, faults);
                }
            }
            // Written just before its handoff moves, so it may stand alone after a crash.
            None if dir == State::Rejected.dir() && name.ends_with(REASON) => {
                if !is_reason(&bytes, chain) {
                    faults.add(file, None, "added", "gives no reason for any handoff that was published");
                }
            }
            None => faults.add_mendable(
                file,
                None,
                "added",
                "no event put a handoff here: added or moved behind the mount, or a crash",
            ),
        }
    }
    for (place, known) in &chain.handoffs {
        if !found.contains(place) {
            let problem = format!(
                "the handoff is gone from here (events.jsonl, line {}): removed or moved behind the mount, or \
                 a crash",
                known.event
            );
            faults.add_mendable(format!("{}/{}", place.0, place.1), None, "missing", problem);
        }
    }
    handoffs
}

fn is_reason(bytes: &[u8], chain: &Chain) -> bool {
    let Ok(Value::Object(reason)) = json::parse(bytes) else { return false };
    reason.get("handoff_id").and_then(Value::as_str).is_some_and(|id| chain.handoff_ids.contains(id))
}

fn check_payload(
    setting: &Setting<'_>,
    chain: &Chain,
    known: &KnownHandoff,
    file: String,
    bytes: &[u8],
    faults: &mut Faults,
) {
    let handoff = match Handoff::parse(bytes) {
        Ok(handoff) => handoff,
        Err(e) => return faults.add(file, None, Refusal::from(e.clone()).rule.name(), e.to_string()),
    };
    let secret_file = setting.layout.secret(&handoff.from, &handoff.to);
    let pair = secret_file.file_stem().unwrap_or_default().to_string_lossy();
    if chain.secrets.get(&*pair).is_some_and(|replaced| *replaced > known.published) {
        // It was verified with a secret that is gone; that its bytes are the published ones is proved.
        return;
    }
    let secret = match fs::read(&secret_file).map(Zeroizing::new) {
        Ok(bytes) => PairSecret::from_file_bytes(&bytes),
        // Relayed: whoever holds the secret verifies.
        Err(_) if setting.config.relay_handoffs => return,
        Err(e) => {
            let problem = format!("no secret of {} and {} to verify it with: {e}", handoff.from, handoff.to);
            return faults.add(file, None, "hmac", problem);
        }
    };
    if let Err(e) = handoff.verify(&secret) {
        faults.add(file, None, "hmac", e.to_string());
    }
}
