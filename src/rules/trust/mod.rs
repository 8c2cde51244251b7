//! How the trust list may change: tiers, keys, the short authentication string, agent cards.
//!
//! Each function changes a list and adds to `changes` one sentence for everything that is other than before;
//! what is so already is no change, so doing a thing twice is doing it once.

pub mod cards;
pub mod keys;
pub mod sas;
#[cfg(test)]
mod tests;

use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList};

/// After this many successful reciprocations a VERIFIED agent is ATTESTED.
pub const RECIPROCATIONS_TO_ATTEST: u64 = 10;

/// Raises an agent's tier: to `tier`, or to the next.
///
/// # Errors
/// A sentence: nobody of that name, or not higher than the tier it has.
pub fn promote(
    list: &mut TrustList,
    agent: &AgentName,
    tier: Option<Tier>,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let entry = entry(list, agent)?;
    let next = Tier::ALL.into_iter().find(|tier| *tier > entry.tier);
    match tier.or(next) {
        Some(tier) if tier > entry.tier => set_tier(entry, agent, tier, now, "by the operator", changes),
        Some(tier) if tier == entry.tier => {}
        Some(tier) => {
            return Err(format!(
                "{agent} is {} already; to make it {}: baton trust demote {agent} {}",
                entry.tier.as_str(),
                tier.as_str(),
                tier.as_str()
            ));
        }
        None => return Err(format!("{agent} is TRUSTED already, and nothing is above that")),
    }
    Ok(())
}

/// Lowers an agent's tier: to `tier`, or to the next. Its reciprocations count anew from here.
///
/// # Errors
/// A sentence: nobody of that name, or not lower than the tier it has.
pub fn demote(
    list: &mut TrustList,
    agent: &AgentName,
    tier: Option<Tier>,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let entry = entry(list, agent)?;
    let next = Tier::ALL.into_iter().rev().find(|tier| *tier < entry.tier);
    match tier.or(next) {
        Some(tier) if tier < entry.tier => {
            // Otherwise its next ack would undo what the operator has just done.
            entry.set_reciprocations(0);
            set_tier(entry, agent, tier, now, "by the operator", changes);
        }
        Some(tier) if tier == entry.tier => {}
        Some(tier) => {
            return Err(format!(
                "{agent} is only {}; to make it {}: baton trust promote {agent} {}",
                entry.tier.as_str(),
                tier.as_str(),
                tier.as_str()
            ));
        }
        None => {
            return Err(format!(
                "{agent} is UNTRUSTED, and nothing is below that; to shut it out: baton trust block {agent}"
            ));
        }
    }
    Ok(())
}

/// Shuts an agent out, or lets it in again.
///
/// # Errors
/// A sentence: nobody of that name.
pub fn set_blocked(
    list: &mut TrustList,
    agent: &AgentName,
    blocked: bool,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let entry = entry(list, agent)?;
    if entry.blocked != blocked {
        entry.blocked = blocked;
        changes.push(if blocked {
            format!("{agent} is blocked: nothing that it sends is accepted")
        } else {
            format!("{agent} is no longer blocked; it is {}", entry.tier.as_str())
        });
    }
    Ok(())
}

/// Adds to what an agent has done together with others; enough of it makes a VERIFIED agent ATTESTED.
pub fn count(list: &mut TrustList, agent: &AgentName, more: u64, now: Timestamp, changes: &mut Vec<String>) {
    let Some(entry) = list.agents.get_mut(agent).filter(|_| more > 0) else { return };
    let total = entry.reciprocations().saturating_add(more);
    entry.set_reciprocations(total);
    if attests(entry.tier, total) {
        let why = format!("after {total} successful reciprocations");
        set_tier(entry, agent, Tier::Attested, now, &why, changes);
    } else {
        changes.push(format!("{agent} has {total} successful reciprocations"));
    }
}

/// Whether that many reciprocations make an agent of `tier` ATTESTED.
pub fn attests(tier: Tier, reciprocations: u64) -> bool {
    tier == Tier::Verified && reciprocations >= RECIPROCATIONS_TO_ATTEST
}

fn set_tier(
    entry: &mut TrustEntry,
    agent: &AgentName,
    tier: Tier,
    now: Timestamp,
    why: &str,
    changes: &mut Vec<String>,
) {
    changes.push(format!("{agent} is {} now, was {}: {why}", tier.as_str(), entry.tier.as_str()));
    entry.set_tier(tier, now);
}

/// An agent's entry.
///
/// # Errors
/// A sentence: there is none.
fn entry<'a>(list: &'a mut TrustList, agent: &AgentName) -> Result<&'a mut TrustEntry, String> {
    list.agents.get_mut(agent).ok_or_else(|| unknown(agent))
}

fn unknown(agent: &AgentName) -> String {
    format!(
        "{agent} is not in the trust list: pin its card (baton trust pin CARD.json), import its entry (baton trust \
         import FILE) or its key (baton key import --as {agent} FILE) first"
    )
}
