//! What the operator asks of the trust list.

use crate::exchange::Exchange;
use crate::rules::trust as rules;
use crate::wire::name::AgentName;
use crate::wire::trust::{Tier, TrustList};
use serde_json::{Value, json};

impl Exchange {
    pub(in crate::exchange) fn import_trust(&self, text: &str) -> Result<Value, String> {
        let other = TrustList::parse(text.as_bytes()).map_err(|e| e.to_string())?;
        let changes = self.change_trust("operator", |list, changes| {
            changes.extend(list.merge(&other));
            Ok(())
        })?;
        Ok(json!({ "changes": changes }))
    }

    /// Raises or lowers an agent's tier, to `tier` or to the next.
    pub(in crate::exchange) fn set_tier(
        &self,
        agent: &str,
        raise: bool,
        tier: Option<&str>,
    ) -> Result<Value, String> {
        let agent = AgentName::parse(agent).map_err(|e| e.to_string())?;
        let tier = tier.map(|word| {
            Tier::from_word(word).ok_or_else(|| {
                format!("{word:?} is no tier: it must be UNTRUSTED, VERIFIED, ATTESTED or TRUSTED")
            })
        });
        let (tier, now) = (tier.transpose()?, self.now());
        let changes = self.change_trust("operator", |list, changes| {
            let step = if raise { rules::promote } else { rules::demote };
            step(list, &agent, tier, now, changes)
        })?;
        Ok(json!({ "changes": changes }))
    }

    /// Shuts an agent out, or lets it in again.
    pub(in crate::exchange) fn set_blocked(&self, agent: &str, blocked: bool) -> Result<Value, String> {
        let agent = AgentName::parse(agent).map_err(|e| e.to_string())?;
        let changes = self
            .change_trust("operator", |list, changes| rules::set_blocked(list, &agent, blocked, changes))?;
        Ok(json!({ "changes": changes }))
    }

    /// Records that `own`'s side has compared the digits with `other`'s.
    pub(in crate::exchange) fn confirm_sas(
        &self,
        own: &str,
        other: &str,
        digits: &str,
    ) -> Result<Value, String> {
        let own = AgentName::parse(own).map_err(|e| e.to_string())?;
        let other = AgentName::parse(other).map_err(|e| e.to_string())?;
        let now = self.now();
        let changes = self.change_trust("operator", |list, changes| {
            rules::sas::confirm(list, &own, &other, digits, now, changes)
        })?;
        let trust = self.trust();
        let digits = rules::sas::digits(&trust, &own, &other)?;
        let both = rules::sas::has_confirmed(&trust, &other, &own, &digits);
        Ok(json!({ "confirmed_by_both": both, "changes": changes }))
    }
}
