//! Rotation and retirement of keys.

use super::entry;
use crate::wire::keys::{KeyId, PublicKey};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{TrustEntry, TrustList, TrustedKey};

/// For how long an agent's old key still signs beside its new one, in seconds.
pub const GRACE_SECONDS: i64 = 24 * 3600;

/// When a key is retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retire {
    /// At once, even an agent's last: by the operator, when somebody else has the key.
    Now,
    /// Once the agent's newest other key has been known for [`GRACE_SECONDS`]; never its last.
    AfterGrace,
}

/// Trusts one more key of an agent.
///
/// # Errors
/// A sentence: the agent is unknown, or the key is retired.
pub fn add(
    list: &mut TrustList,
    agent: &AgentName,
    key: PublicKey,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let entry = entry(list, agent)?;
    let id = key.id(agent);
    match entry.keys.iter().find(|known| known.id == id) {
        Some(known) if known.active => Ok(()),
        Some(_) => Err(format!("the key {id} is deactivated and stays so: make {agent} a new one")),
        None => {
            changes.push(format!("{id} is a new key of {agent}, active"));
            entry.keys.push(TrustedKey::new(agent, key, now));
            Ok(())
        }
    }
}

/// Retires a key, or sets the time at which [`apply_due`] does.
///
/// # Errors
/// A sentence: nobody has that key, or it is its agent's last and may not go.
pub fn deactivate(
    list: &mut TrustList,
    id: &KeyId,
    when: Retire,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let agent = &id.agent;
    let entry = entry(list, agent)?;
    let Some(at) = entry.keys.iter().position(|key| key.id == *id) else {
        return Err(format!("{agent} has no key {id}; baton trust show {agent} lists its keys"));
    };
    let key = &entry.keys[at];
    if !key.active || (when == Retire::AfterGrace && key.deactivate_at.is_some()) {
        return Ok(());
    }
    let due = match when {
        Retire::Now => now,
        Retire::AfterGrace => {
            let others = entry.keys.iter().filter(|key| key.id != *id && stays(key));
            match others.map(TrustedKey::added).max() {
                None => return Err(format!("{id} is the last key of {agent}: add another first")),
                // A key that came without a date has been there for long.
                Some(added) => added.map_or(now, |added| added.plus_seconds(GRACE_SECONDS)),
            }
        }
    };
    if due > now {
        entry.keys[at].deactivate_at = Some(due);
        changes.push(format!("{id} is deactivated at {due}"));
    } else {
        retire(entry, at, now, changes);
    }
    Ok(())
}

/// Whether a key goes on signing.
fn stays(key: &TrustedKey) -> bool {
    key.active && key.deactivate_at.is_none()
}

fn retire(entry: &mut TrustEntry, at: usize, now: Timestamp, changes: &mut Vec<String>) {
    let key = &mut entry.keys[at];
    key.deactivate(now);
    changes.push(format!("{} is deactivated", key.id));
    if !entry.keys.iter().any(|key| key.active) {
        let agent = &entry.keys[at].id.agent;
        changes.push(format!("{agent} has no active key now: baton key rotate {agent} makes one"));
    }
}

/// Retires the keys whose time has come.
pub fn apply_due(list: &mut TrustList, now: Timestamp, changes: &mut Vec<String>) {
    for entry in list.agents.values_mut() {
        for at in 0..entry.keys.len() {
            let key = &entry.keys[at];
            if !key.active {
                continue;
            }
            // Its owner's own word, so it holds for its last key too.
            if key.valid_until.is_some_and(|until| until <= now) {
                changes.push(format!("{} is past the valid_until of its card", key.id));
                retire(entry, at, now, changes);
            } else if key.deactivate_at.is_some_and(|due| due <= now) {
                if entry.keys.iter().enumerate().any(|(other, key)| other != at && key.active) {
                    retire(entry, at, now, changes);
                } else {
                    let key = &mut entry.keys[at];
                    key.deactivate_at = None;
                    changes.push(format!("{} stays active: it is {}'s last key", key.id, key.id.agent));
                }
            }
        }
    }
}

/// When [`apply_due`] next has something to do.
pub fn next_due(list: &TrustList) -> Option<Timestamp> {
    let keys = list.agents.values().flat_map(|entry| &entry.keys).filter(|key| key.active);
    keys.flat_map(|key| [key.deactivate_at, key.valid_until]).flatten().min()
}
