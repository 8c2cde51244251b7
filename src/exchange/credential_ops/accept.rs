//! What the operator says belongs into slots: what they hold already, or a login from elsewhere.

use super::{Profile, slot_answer, slot_name};
use crate::exchange::Exchange;
use crate::exchange::files::guard::change::{Fault, Live};
use crate::exchange::files::guard::sidecar::Baseline;
use crate::exchange::operator::TO_MAKE_A_PROFILE;
use crate::wire::credential::CredentialFile;
use serde_json::{Value, json};
use std::sync::Arc;

impl Exchange {
    /// Takes what slots hold as theirs: of one slot, or of all that hold a login.
    pub(in crate::exchange) fn credentials_baseline(
        &self,
        profile: &str,
        slot: Option<&str>,
    ) -> Result<Value, String> {
        let profile = self.profile(profile)?;
        let failed = |e: std::io::Error| format!("credentials/{}: {e}", profile.name);
        let slots = match slot {
            Some(slot) => vec![slot_name(profile, slot)?],
            None => profile.slots().map_err(failed)?,
        };
        let mut done = Vec::new();
        for name in &slots {
            match self.files().baseline(profile, name) {
                Ok(Baseline { held, changed }) => done.push(json!({
                    "slot": name.as_str(), "fingerprint": held.to_string(), "changed": changed,
                })),
                // Of all slots, those that hold no login are left out.
                Err(Fault::Broke(_)) if slot.is_none() => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(json!({ "profile": profile.name, "slots": done }))
    }

    /// Puts a login from elsewhere into a new slot.
    pub(in crate::exchange) fn credentials_add(
        &self,
        profile: &str,
        slot: &str,
        text: &str,
    ) -> Result<Value, String> {
        let profile = self.profile_to_make(profile)?;
        let slot = slot_name(profile, slot)?;
        let failed = |e: std::io::Error| format!("credentials/{}: {e}", profile.name);
        if profile.slot_bytes(&slot).map_err(failed)?.is_some() {
            return Err(format!(
                "slot {slot} of {0} is there already. Choose another name; a login that was refused for it is \
                 accepted with: baton credentials adopt {slot} --profile {0}",
                profile.name
            ));
        }
        let format = &profile.config.format;
        let no_login = match format.read(text.as_bytes()) {
            Ok(CredentialFile::Login(_)) => None,
            Ok(CredentialFile::Stub) => Some("there is no token where its program keeps one".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = no_login {
            let name = if format.name == "own" { &profile.name } else { &format.name };
            return Err(format!(
                "these bytes are no {name} login: {why}. Nothing was changed. Give the file as its program wrote it, \
                 and the profile of that program: --profile NAME (`baton credentials status` lists them)."
            ));
        }
        let accepted = self.files().add(profile, &slot, text.as_bytes()).map_err(String::from)?;
        let mut answer = slot_answer(profile, &slot, &accepted.credential);
        answer["live"] = (profile.live().map_err(failed)? == Live::To(slot)).into();
        Ok(answer)
    }

    fn profile_to_make(&self, name: &str) -> Result<&Arc<Profile>, String> {
        if self.files().profiles().all(|profile| profile.name != name) {
            return Err(format!(
                "there is no credential profile {name:?}. To make it, {TO_MAKE_A_PROFILE}. The section:\n\n\
                 [credentials.{name}]\nformat = \"claude\"  # or codex, gemini, gh"
            ));
        }
        self.profile(name)
    }
}
