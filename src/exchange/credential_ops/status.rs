//! Which slots there are, which is live, and what is wrong with them.

use super::{Profile, expires_at};
use crate::exchange::Exchange;
use crate::exchange::files::guard::change::Live;
use crate::exchange::files::guard::refresh_lock::RefreshLock;
use crate::rules::credential::check_fresh;
use crate::wire::time::Timestamp;
use serde_json::{Value, json};
use std::sync::OnceLock;

impl Exchange {
    /// `{"profiles": [{profile, format, strict, agents, live, stray, slots: [{slot, live, fingerprint, expires_at, fresh,
    /// last_verdict: {verdict, at}, drift, problem}], refresh_lock: {pid, program, process_group, holder_ended,
    /// age_seconds, stale}}]}`. `fingerprint` is 12 hex digits; `drift` those of the login that the sidecar has, where
    /// the slot was changed behind the mount; `stray` the path of a file that lies under the live name; `null` stands for what is unknown or absent.
    pub(in crate::exchange) fn credentials_status(&self, profile: Option<&str>) -> Result<Value, String> {
        let profiles: Vec<_> = match profile {
            Some(name) => vec![self.profile(name)?],
            None => self.files().profiles().collect(),
        };
        let now = self.now();
        let shown: Result<Vec<_>, _> =
            profiles.into_iter().map(|profile| self.status_of(profile, now)).collect();
        Ok(json!({ "profiles": shown? }))
    }

    fn status_of(&self, profile: &Profile, now: Timestamp) -> Result<Value, String> {
        let failed = |e: std::io::Error| format!("credentials/{}: {e}", profile.name);
        let live = profile.live().map_err(failed)?;
        // Read only where a slot has seen no write since the start.
        let on_record = OnceLock::new();
        let mut slots = Vec::new();
        for slot in profile.slots().map_err(failed)? {
            let credential = match profile.slot_bytes(&slot) {
                Ok(bytes) => profile
                    .slot_login(&slot, &bytes.unwrap_or_default())
                    .ok_or("it holds no readable login".to_owned()),
                Err(e) => Err(e.to_string()),
            };
            let last_verdict = match profile.last_verdict(&slot) {
                Some(last) => json!({"verdict": last.name, "at": last.at.to_string()}),
                None => {
                    let on_record = on_record.get_or_init(|| self.verdicts_on_record(profile)).as_ref()?;
                    on_record.get(slot.as_str()).cloned().unwrap_or_default()
                }
            };
            let drift = self.files().tell_of_drift(profile, &slot).map_err(failed)?;
            let known = credential.as_ref().ok();
            slots.push(json!({
                "slot": slot.as_str(),
                "live": live == Live::To(slot.clone()),
                "account": known.and_then(|known| known.account()),
                "fingerprint": known.and_then(|known| known.fingerprint.as_ref()).map(ToString::to_string),
                "expires_at": known.and_then(|known| known.expires_at_ms).map(expires_at),
                "fresh": known.is_some_and(|known| check_fresh(profile.slot_ref(&slot), known, now).is_ok()),
                "last_verdict": last_verdict,
                "drift": drift.map(|recorded| recorded.to_string()),
                "problem": credential.as_ref().err(),
            }));
        }
        let stray = profile.stray().map_err(failed)?;
        let stray = stray.map(|_| self.layout.tree(&profile.path(profile.live_name())).display().to_string());
        let agents = profile.config.agents.as_ref();
        Ok(json!({
            "profile": profile.name,
            "format": profile.config.format.name,
            "strict": profile.config.strict,
            "agents": agents.map(|agents| agents.iter().map(|a| a.as_str()).collect::<Vec<_>>()),
            "live": match &live { Live::To(slot) => Some(slot.as_str()), Live::Absent | Live::Other => None },
            "stray": stray,
            "slots": slots,
            "refresh_lock": profile.refresh_lock(now).map_err(failed)?.as_ref().map(lock),
        }))
    }
}

fn lock(lock: &RefreshLock) -> Value {
    let holder = lock.holder.as_ref();
    json!({
        "pid": holder.map(|holder| holder.process.tgid),
        "program": holder.and_then(|holder| holder.program.clone()),
        "process_group": holder.map(|holder| holder.process.pgrp),
        "holder_ended": holder.map(|holder| !holder.process.is_alive()),
        "age_seconds": lock.age_seconds,
        "stale": lock.is_stale(),
    })
}
