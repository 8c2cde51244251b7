//! send/: is each file the message that was sent from it?

use super::chain::Chain;
use super::{Faults, Setting};
use crate::exchange::send::SEND;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Checks the files of all senders.
pub(super) fn check(setting: &Setting<'_>, chain: &Chain, faults: &mut Faults) {
    let mut found = BTreeSet::new();
    for to in names_in(&setting.layout.tree(SEND)) {
        for from in names_in(&setting.layout.tree(&format!("{SEND}/{to}"))) {
            let folder = format!("{SEND}/{to}/{from}");
            found.extend(names_in(&setting.layout.tree(&folder)).map(|name| format!("{folder}/{name}")));
        }
    }
    for file in &found {
        let Some(known) = chain.letters.get(file) else {
            faults.add(file, None, "added", "no event tells that this was sent: added behind the mount");
            continue;
        };
        match fs::read(setting.layout.tree(file)) {
            Ok(bytes) if known.sha256 == <[u8; 32]>::from(Sha256::digest(&bytes)) => {}
            Ok(_) => {
                let problem = format!(
                    "not what was sent (events.jsonl, line {}): edited behind the mount",
                    known.event
                );
                faults.add(file, None, "immutable", problem);
            }
            Err(e) => faults.add(file, None, "unreadable", e.to_string()),
        }
    }
    for (file, known) in chain.letters.iter().filter(|(file, _)| !found.contains(*file)) {
        let problem = format!(
            "it was sent (events.jsonl, line {}) and is gone: removed behind the mount, or a crash",
            known.event
        );
        faults.add_mendable(file, None, "missing", problem);
    }
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}
