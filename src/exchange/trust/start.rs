//! The trust list at the start: what a crash left undone, and what was changed while no daemon ran.

use super::{EVENT, FILE, KNOWN, hash};
use crate::exchange::events::{Event, members};
use crate::exchange::{Durability, Exchange, OpenError};
use crate::store::Store;
use crate::wire::trust::TrustList;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// The trust list, as the start leaves it.
pub(in crate::exchange) struct Found {
    /// The list.
    pub list: TrustList,
    /// sha256 of trust.json, in hex.
    pub sha256: String,
    /// The same at the last checkpoint; `None`: nothing is known of that.
    pub noted: Option<String>,
    /// Whether it was changed while no daemon ran.
    pub untold: bool,
}

/// Brings trust.json to where the events say that it is. A list that is neither what it was before a change nor
/// after it was edited by hand: it stands.
///
/// # Errors
/// The disk's.
pub(in crate::exchange) fn finish(
    store: &dyn Store,
    root: &Path,
    recent: &[Event],
    list: TrustList,
) -> Result<Found, OpenError> {
    let io_error = |error| OpenError::Io { file: root.join(FILE), error };
    let mut sha256 = hash(&store.read(FILE).map_err(io_error)?);
    let noted =
        store.read(KNOWN).ok().and_then(|text| String::from_utf8(text).ok()).filter(|text| text.len() == 64);
    let mut told = noted.clone();
    let mut redone: Option<TrustList> = None;
    for event in recent.iter().filter(|event| event.event == EVENT) {
        if let Some(after) = event.text("after") {
            told = Some(after.to_owned());
        }
        match (event.text("before"), event.text("redo")) {
            (Some(before), Some(redo)) if redone.is_some() || before == sha256 => {
                let list = redone.get_or_insert_with(|| list.clone());
                list.apply(redo).map_err(|e| io_error(io::Error::other(e)))?;
            }
            (Some(_), Some(_)) => {}
            // It was taken as it was found then: what was changed before lies behind that.
            _ => redone = None,
        }
    }
    let list = match redone {
        None => list,
        Some(redone) => {
            let text = redone.to_json();
            if hash(text.as_bytes()) != sha256 {
                store.replace(FILE, text.as_bytes(), 0o644).map_err(io_error)?;
                sha256 = hash(text.as_bytes());
                tracing::info!("trust.json was brought to where events.jsonl says that it is");
            }
            redone
        }
    };
    let untold = told.is_some_and(|told| told != sha256);
    Ok(Found { list, sha256, noted, untold })
}

impl Exchange {
    /// Tells, once, that trust.json was changed while no daemon ran, and what it says now: keys and tiers can
    /// be followed through the events from there on.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn note_found_trust(&self) -> io::Result<()> {
        let mut importing = self.importing.lock();
        if !importing.untold {
            return Ok(());
        }
        let list = self.trust();
        let keys = list.agents.values().flat_map(|entry| &entry.keys);
        let keys = keys.map(|key| json!({"key_id": key.id.to_string(), "active": key.active}));
        let tiers =
            list.agents.iter().map(|(agent, entry)| json!({"agent": agent, "tier": entry.tier.as_str()}));
        let event = members! {
            "changes": vec!["trust.json was changed while no daemon ran: it is taken as it is"],
            "keys": keys.collect::<Vec<Value>>(), "tiers": tiers.collect::<Vec<Value>>(),
            "by": "operator", "after": importing.sha256.as_str(), "order": self.next_order(),
        };
        let end = self.events.append(self.now(), EVENT, &event)?;
        self.events.make_durable(end, Durability::Commit)?;
        importing.untold = false;
        Ok(())
    }
}
