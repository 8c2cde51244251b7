//! What happened to the slots of a profile, from the events and the refusals.

use super::{Profile, slot_name};
use crate::exchange::Exchange;
use crate::rules::credential::{GuardedName, SlotName};
use crate::wire::credential::Credential;
use crate::wire::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// One thing that happened to a slot.
struct Record {
    at: Timestamp,
    shown: Value,
    /// It is a refusal of bytes that were to become the slot's login.
    refused_login: bool,
}

/// The events after which what was refused before is no longer meant for the slot.
const CHANGES: [&str; 5] = ["captured", "rotated", "adopted", "removed", "baseline"];

impl Exchange {
    /// `{"profile", "history": [{time, slot, what, by, login, rule, quarantine, replaced}]}`, oldest first. `what` is the
    /// event's name without `credential-`, or `refused`; `login` is an account or 12 hex digits.
    pub(in crate::exchange) fn credentials_history(
        &self,
        profile: &str,
        slot: Option<&str>,
    ) -> Result<Value, String> {
        let profile = self.profile(profile)?;
        let slot = slot.map(|slot| slot_name(profile, slot)).transpose()?;
        let mut history = self.records(profile)?;
        if let Some(slot) = &slot {
            history.retain(|record| record.shown["slot"] == slot.as_str());
        }
        let history: Vec<Value> = history.into_iter().map(|record| record.shown).collect();
        Ok(json!({ "profile": profile.name, "history": history }))
    }

    /// What was last decided about each slot, as far back as the events tell.
    pub(super) fn verdicts_on_record(&self, profile: &Profile) -> Result<BTreeMap<String, Value>, String> {
        let mut verdicts = BTreeMap::new();
        for Record { shown, refused_login, .. } in self.records(profile)? {
            let what = shown["what"].as_str().unwrap_or_default();
            if !matches!(what, "captured" | "unchanged" | "rotated" | "adopted" | "baseline")
                && !refused_login
            {
                continue;
            }
            if let Some(slot) = shown["slot"].as_str() {
                let verdict = json!({"verdict": what, "at": shown["time"]});
                verdicts.insert(slot.to_owned(), verdict);
            }
        }
        Ok(verdicts)
    }

    /// The quarantine id of the bytes that were refused last as another's login for a slot, since it was changed last.
    pub(super) fn newest_refused(
        &self,
        profile: &Profile,
        slot: &SlotName,
    ) -> Result<Option<String>, String> {
        let mut newest = None;
        for Record { shown, refused_login, .. } in self.records(profile)? {
            let what = shown["what"].as_str().unwrap_or_default();
            if shown["slot"] != slot.as_str() {
                continue;
            }
            if refused_login {
                newest = shown["quarantine"].as_str().map(str::to_owned);
            } else if CHANGES.contains(&what) {
                newest = None;
            }
        }
        Ok(newest)
    }

    /// The profile's events and refusals, oldest first.
    fn records(&self, profile: &Profile) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        each_line(&self.layout.events(), r#""event":"credential-"#, |event| {
            if event["profile"] == profile.name {
                records.extend(of_event(event));
            }
        })?;
        let folder = profile.path("");
        each_line(&self.layout.refusals().join("all.jsonl"), &folder, |refusal| {
            let name = refusal["path"].as_str().and_then(|path| path.strip_prefix(&folder));
            let guarded = name.and_then(|name| GuardedName::of(&profile.config.format, name.as_bytes()));
            let is_slot = matches!(guarded, Some(GuardedName::Slot(_)));
            let slot = match guarded {
                Some(GuardedName::Slot(slot) | GuardedName::Sidecar(slot)) => Some(slot),
                Some(GuardedName::Live) => None,
                Some(GuardedName::Notice) | None => return,
            };
            records.extend(self.of_refusal(profile, refusal, slot).map(|record| {
                let refused_login =
                    is_slot && record.shown["rule"] == "identity" && record.shown["quarantine"].is_string();
                Record { refused_login, ..record }
            }));
        })?;
        records.sort_by_key(|record| record.at);
        self.forget_overwritten(&mut records);
        Ok(records)
    }

    /// Of each file of replaced bytes, only the last event that names it tells what it holds.
    fn forget_overwritten(&self, records: &mut [Record]) {
        let mut told = BTreeSet::new();
        for record in records.iter_mut().rev() {
            let Some(shown) = record.shown.as_object_mut() else { continue };
            let Some(file) = shown.get("replaced").and_then(Value::as_str).map(str::to_owned) else {
                continue;
            };
            if !self.layout.tree(&file).exists() || !told.insert(file) {
                shown.remove("replaced");
            }
        }
    }

    fn of_refusal(&self, profile: &Profile, refusal: &Value, slot: Option<SlotName>) -> Option<Record> {
        let kept = refusal["quarantine"].as_str();
        let id = kept.and_then(|path| Path::new(path).file_name()?.to_str());
        // May have been cleared since.
        let bytes = id.and_then(|id| std::fs::read(self.layout.quarantine().join(id)).ok());
        let offered = bytes.map(zeroize::Zeroizing::new).and_then(|bytes| profile.login(&bytes));
        let by = match refusal["agent"].as_str() {
            Some(agent) => agent.to_owned(),
            None => format!("uid {}", refusal["uid"]),
        };
        let shown = json!({
            "time": refusal["time"], "slot": slot.map(|slot| slot.to_string()), "what": "refused", "by": by,
            "account": offered.as_ref().and_then(Credential::account),
            "login": offered.and_then(|login| login.fingerprint).map(|login| login.to_string()), "rule": refusal["rule"], "quarantine": id,
            "pid": refusal["pid"], "operation": refusal["operation"],
        });
        Some(Record { at: time_of(refusal)?, shown, refused_login: false })
    }
}

fn of_event(event: &Value) -> Option<Record> {
    let what = event["event"].as_str()?.strip_prefix("credential-")?;
    let mut shown = Map::new();
    for (member, value) in [
        ("time", &event["time"]),
        ("slot", &event["slot"]),
        ("what", &Value::from(what)),
        ("by", &event["by"]),
        ("login", if what == "drift" { &event["holds"] } else { &event["fingerprint"] }),
        ("account", &event["account"]),
        ("expires_at", &event["expires_at"]),
        ("recorded", &event["recorded"]),
        ("quarantine", &event["quarantine"]),
        ("replaced", &event["replaced"]),
    ] {
        if !value.is_null() {
            shown.insert(member.to_owned(), value.clone());
        }
    }
    Some(Record { at: time_of(event)?, shown: shown.into(), refused_login: false })
}

fn time_of(line: &Value) -> Option<Timestamp> {
    Timestamp::parse(line["time"].as_str()?, true)
}

/// Reads the lines of a file that hold `text`. A line that a crash tore is passed over.
fn each_line(file: &Path, text: &str, mut see: impl FnMut(&Value)) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let lines = match std::fs::File::open(file) {
        Ok(open) => BufReader::new(open).split(b'\n'),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let text = text.as_bytes();
    for line in lines {
        let line = line.map_err(failed)?;
        if line.windows(text.len()).any(|part| part == text)
            && let Ok(value) = serde_json::from_slice(&line)
        {
            see(&value);
        }
    }
    Ok(())
}
