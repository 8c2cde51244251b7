//! What the operator asks about credentials: which slots there are, to accept refused bytes, to switch.

mod accept;
mod history;
mod status;

use super::files::guard::change::{Accepted, Change};
use super::files::guard::profile::Profile;
use super::operator::TO_MAKE_A_PROFILE;
use super::{Actor, Exchange};
use crate::rules::credential::SlotName;
use crate::wire::credential::Credential;
use crate::wire::time::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Exchange {
    /// Puts refused bytes into a slot: those named, or the newest that were refused for it since it was changed last.
    /// They leave quarantine with that.
    pub(super) fn credentials_adopt(
        &self,
        profile: &str,
        slot: &str,
        quarantine: Option<&str>,
    ) -> Result<Value, String> {
        let profile = self.profile(profile)?;
        let slot = slot_name(profile, slot)?;
        let id = match quarantine {
            Some(id) => Path::new(id).file_name().and_then(|id| id.to_str()).unwrap_or_default().to_owned(),
            None => self.newest_refused(profile, &slot)?.ok_or_else(|| {
                format!(
                    "nothing was refused for slot {slot} of {0} since it was changed last. `baton credentials history \
                     {slot} --profile {0}` lists what was refused and replaced; adopt other bytes with `baton \
                     credentials adopt {slot} --profile {0} --quarantine ID`.",
                    profile.name
                )
            })?,
        };
        let bytes = std::fs::read(self.layout.quarantine().join(&id)).map_err(|e| {
            format!(
                "private/quarantine/{id} can't be read: {e}. `baton credentials history {slot} --profile {0}` lists \
                 what there is; name it with --quarantine ID.",
                profile.name
            )
        })?;
        let bytes = Zeroizing::new(bytes);
        let accepted = self.files().adopt(profile, &slot, &bytes).map_err(String::from)?;
        profile.settle_notice_of(&id);
        if let Err(error) = self.refusals.quarantine.remove(&id) {
            // They are the slot's; adopted again, they would replace what it has come to by then.
            tracing::warn!(%id, %error, "adopted bytes could not be removed from quarantine");
        }
        let Accepted { credential, changed, .. } = accepted;
        let mut answer = slot_answer(profile, &slot, &credential);
        answer["quarantine"] = id.into();
        answer["changed"] = changed.into();
        Ok(answer)
    }

    /// Points the live link at a slot, under the rule that agents switch by.
    pub(super) fn credentials_switch(
        &self,
        profile: &str,
        slot: &str,
        even_if_expired: bool,
    ) -> Result<Value, String> {
        let profile = self.profile(profile)?;
        let slot = slot_name(profile, slot)?;
        let note = |change: &Change<'_>| self.files().note(&Actor::Operator, profile, change);
        let credential = profile
            .switch(&slot, self.now(), even_if_expired, || profile.relink(&slot), &note)
            .map_err(String::from)?;
        Ok(slot_answer(profile, &slot, &credential))
    }

    fn profile(&self, name: &str) -> Result<&Arc<Profile>, String> {
        let mut profiles = self.files().profiles();
        profiles.find(|profile| profile.name == name).ok_or_else(|| {
            let names: Vec<_> = self.files().profiles().map(|profile| profile.name.as_str()).collect();
            match names.as_slice() {
                [] => format!("this exchange has no credential profile. To make one, {TO_MAKE_A_PROFILE}."),
                names => format!("there is no credential profile {name:?}; there is {}.", names.join(", ")),
            }
        })
    }
}

/// What an answer tells of a slot and its login.
fn slot_answer(profile: &Profile, slot: &SlotName, credential: &Credential) -> Value {
    json!({
        "profile": profile.name,
        "slot": slot.as_str(),
        "account": credential.account(),
        "fingerprint": credential.fingerprint.as_ref().map(ToString::to_string),
        "expires_at": credential.expires_at_ms.map(expires_at),
    })
}

fn slot_name(profile: &Profile, text: &str) -> Result<SlotName, String> {
    let live = text.strip_prefix(profile.live_name());
    let bare = live.and_then(|rest| rest.strip_prefix('.')).unwrap_or(text);
    SlotName::parse(bare).ok_or_else(|| {
        format!("{text:?} is no slot name: it must match [A-Za-z0-9][A-Za-z0-9@_+-]* and not be tmp, bak, lock, new, swp.")
    })
}

fn expires_at(ms: i64) -> String {
    Timestamp(ms.saturating_mul(1000)).to_string()
}

#[cfg(test)]
mod tests;
