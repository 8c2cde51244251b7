//! The short authentication string: both sides compare six digits, then both are VERIFIED.

use super::{set_tier, unknown};
use crate::wire::card::short_authentication_string;
use crate::wire::json::{Object, Value};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList};

/// An agent's member for the digits that its side has compared, by the other's name.
const CONFIRMED: &str = "sas_confirmed";

/// The six digits of two agents, made of the newest active key of each.
///
/// # Errors
/// A sentence: one of them is unknown or has no active key, or both are the same.
pub fn digits(list: &TrustList, a: &AgentName, b: &AgentName) -> Result<String, String> {
    if a == b {
        return Err(format!("{a} has nobody to compare with but another agent"));
    }
    let side = |agent: &AgentName| {
        let entry = list.agents.get(agent).ok_or_else(|| unknown(agent))?;
        let key = entry
            .newest_key()
            .ok_or_else(|| format!("{agent} has no active key: baton key rotate {agent} makes one"))?;
        Ok::<_, String>((format!("did:wire:{agent}"), &key.key))
    };
    let (a, b) = (side(a)?, side(b)?);
    Ok(short_authentication_string((&a.0, a.1), (&b.0, b.1)))
}

/// Records that `own`'s side has compared the digits with `other`'s. Once both sides have, both are
/// `sas_verified`, and who is UNTRUSTED becomes VERIFIED.
///
/// # Errors
/// A sentence: those of [`digits`], and that these are not the digits; nothing is changed then.
pub fn confirm(
    list: &mut TrustList,
    own: &AgentName,
    other: &AgentName,
    compared: &str,
    now: Timestamp,
    changes: &mut Vec<String>,
) -> Result<(), String> {
    let digits = digits(list, own, other)?;
    let compared: String = compared.chars().filter(|c| !c.is_whitespace()).collect();
    if compared != digits {
        return Err(format!(
            "{compared:?} are not the digits of {own} and {other}. Nothing is confirmed. Compare again over a channel \
             that you trust; where they stay different, one of the keys is not its agent's: don't trust it"
        ));
    }
    if !has_confirmed(list, own, other, &digits) {
        let entry = list.agents.get_mut(own).ok_or_else(|| unknown(own))?;
        note(entry, other, &digits);
        changes.push(format!("{own}'s side has compared the digits with {other}'s"));
    }
    if !has_confirmed(list, other, own, &digits) {
        return Ok(());
    }
    for (agent, peer) in [(own, other), (other, own)] {
        let entry = list.agents.get_mut(agent).ok_or_else(|| unknown(agent))?;
        if !entry.sas_verified() {
            entry.set_sas_verified();
            changes.push(format!("{agent} is sas_verified: both sides have compared the digits"));
        }
        if entry.tier == Tier::Untrusted {
            set_tier(entry, agent, Tier::Verified, now, &format!("digits compared with {peer}"), changes);
        }
    }
    Ok(())
}

/// Whether `own`'s side has compared these digits with `other`'s.
pub fn has_confirmed(list: &TrustList, own: &AgentName, other: &AgentName, digits: &str) -> bool {
    let confirmed = list.agents.get(own).and_then(|entry| entry.other.get(CONFIRMED));
    let noted = confirmed.and_then(Value::as_object).and_then(|by_name| by_name.get(other.as_str()));
    noted.and_then(Value::as_str) == Some(digits)
}

fn note(entry: &mut TrustEntry, other: &AgentName, digits: &str) {
    let confirmed = entry.other.entry(CONFIRMED.to_owned()).or_insert_with(|| Value::Object(Object::new()));
    if !matches!(confirmed, Value::Object(_)) {
        *confirmed = Value::Object(Object::new());
    }
    if let Value::Object(by_name) = confirmed {
        by_name.insert(other.to_string(), Value::String(digits.to_owned()));
    }
}
