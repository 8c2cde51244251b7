//! What the operator asks about credentials: which slots there are, to accept refused bytes, to switch.

mod accept;
mod history;
mod status;

use super::files::guard::change::{Accepted, Change};
use super::files::guard::profile::Profile;
use super::{Actor, Exchange};
use crate::rules::credential::SlotName;
use crate::wire::credential::Credential;
use crate::wire::time::Timestamp;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

impl Exchange {
    /// Puts refused bytes into a slot: those named, or the newest that were refused for it.
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
            None => self.newest_refused(&profile.slot_path(&slot))?.ok_or_else(|| {
                format!(
                    "nothing was refused for slot {slot} of {0}. `baton refusals` lists what was; adopt other bytes \
                     with `baton credentials adopt {slot} --profile {0} --quarantine ID`.",
                    profile.name
                )
            })?,
        };
        let bytes = std::fs::read(self.layout.quarantine().join(&id)).map_err(|e| {
            format!("private/quarantine/{id} can't be read: {e}. `baton refusals` lists what there is.")
        })?;
        let accepted = self.files().adopt(profile, &slot, &bytes).map_err(String::from)?;
        profile.settle_notice_of(&id);
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
                [] => "this exchange has no credential profile: add [credentials.<name>] to exchange.toml."
                    .to_owned(),
                names => format!("there is no credential profile {name:?}; there is {}.", names.join(", ")),
            }
        })
    }

    /// The quarantine id of the bytes that were refused last for this path as another's login.
    fn newest_refused(&self, path: &str) -> Result<Option<String>, String> {
        let file = self.layout.refusals().join("all.jsonl");
        let lines = match std::fs::File::open(&file) {
            Ok(file) => BufReader::new(file).lines(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{}: {e}", file.display())),
        };
        let mut newest = None;
        for line in lines {
            let line = line.map_err(|e| format!("{}: {e}", file.display()))?;
            // A line that a crash tore says nothing about bytes.
            let Ok(refusal) = serde_json::from_str::<Value>(&line) else { continue };
            if refusal["path"] == path
                && refusal["rule"] == "identity"
                && let Some(kept) = refusal["quarantine"].as_str()
            {
                newest = Path::new(kept).file_name().and_then(|id| id.to_str()).map(str::to_owned);
            }
        }
        Ok(newest)
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
mod tests {
    use super::*;
    use crate::exchange::operator::OperatorRequest;
    use crate::exchange::{Caller, Durability, OpenOptions, init};
    use crate::wire::name::AgentName;
    use std::ffi::OsStr;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn exchange() -> (tempfile::TempDir, Arc<Exchange>) {
        let dir = tempfile::TempDir::new().unwrap();
        let root = dir.path().join("exchange");
        init::create(&root, &["bob".parse().unwrap()], NOW).unwrap();
        let toml = std::fs::read_to_string(root.join("exchange.toml")).unwrap();
        if !toml.lines().any(|line| line.starts_with("[credentials.claude]")) {
            std::fs::write(
                root.join("exchange.toml"),
                toml + "\n[credentials.claude]\nformat = \"claude\"\n",
            )
            .unwrap();
        }
        let options = OpenOptions { durability: Durability::Os, clock: Arc::new(|| NOW) };
        (dir, Exchange::open(&root, options).unwrap())
    }

    fn text(token: &str, expires_in: i64) -> Vec<u8> {
        serde_json::to_vec(&json!({"claudeAiOauth": {
            "accessToken": format!("access-{token}"), "refreshToken": format!("refresh-{token}"),
            "expiresAt": NOW.plus_seconds(expires_in).unix_millis(), "scopes": ["a"], "subscriptionType": "max"}}))
        .unwrap()
    }

    /// Writes a slot in place as bob; the errno if it is refused.
    fn write(exchange: &Exchange, slot: &str, bytes: &[u8]) -> Result<(), i32> {
        let bob = Caller { uid: 0, gid: 0, pid: std::process::id(), bound: AgentName::parse("bob").ok() };
        let files = exchange.files();
        let name = format!(".credentials.json.{slot}");
        let top = files.lookup(&bob, files.credentials(), OsStr::new("claude")).unwrap().id;
        let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_CREAT;
        let open = match files.lookup(&bob, top, OsStr::new(&name)) {
            Ok(entry) => files.open(&bob, entry.id, flags).unwrap(),
            Err(_) => files.create(&bob, top, OsStr::new(&name), 0o600, flags).unwrap().1,
        };
        let written = files.write(&bob, &open, 0, false, bytes);
        files.release(&open);
        written.map(|_| ()).map_err(|denied| denied.errno())
    }

    fn adopt(exchange: &Exchange, slot: &str, quarantine: Option<&str>) -> Result<Value, String> {
        exchange.operate(OperatorRequest::CredentialsAdopt {
            profile: "claude".into(),
            slot: slot.into(),
            quarantine: quarantine.map(str::to_owned),
        })
    }

    fn switch(exchange: &Exchange, slot: &str) -> Result<Value, String> {
        exchange.operate(OperatorRequest::CredentialsSwitch {
            profile: "claude".into(),
            slot: slot.into(),
            even_if_expired: false,
        })
    }

    fn status(exchange: &Exchange) -> Value {
        let answer =
            exchange.operate(OperatorRequest::CredentialsStatus { profile: Some("claude".into()) }).unwrap();
        assert!(!answer.to_string().contains("refresh-"), "no token in {answer}");
        answer["profiles"][0].clone()
    }

    #[test]
    fn the_newest_refused_bytes_are_adopted_and_heal_the_slot() {
        let (_dir, exchange) = exchange();
        write(&exchange, "work", &text("old", 3600)).unwrap();
        assert!(adopt(&exchange, "work", None).unwrap_err().contains("nothing was refused"));
        for token in ["one", "two"] {
            assert_eq!(write(&exchange, "work", &text(token, 3600)), Err(libc::EPERM));
        }
        assert_eq!(status(&exchange)["slots"][0]["last_verdict"]["verdict"], "refused");
        let adopted = adopt(&exchange, "work", None).unwrap();
        let slot = exchange.layout.tree("credentials/claude/.credentials.json.work");
        assert_eq!(std::fs::read(&slot).unwrap(), text("two", 3600));
        assert_eq!(status(&exchange)["slots"][0]["fingerprint"], adopted["fingerprint"]);
        assert_eq!(status(&exchange)["slots"][0]["last_verdict"]["verdict"], "adopted");
        write(&exchange, "work", &text("two", 7200)).unwrap();
        let events = std::fs::read_to_string(exchange.layout.events()).unwrap();
        assert!(events.contains("credential-adopted") && !events.contains("refresh-"));
    }

    #[test]
    fn named_bytes_may_go_into_another_slot_but_nothing_outside_quarantine_may() {
        let (_dir, exchange) = exchange();
        write(&exchange, "work", &text("old", 3600)).unwrap();
        write(&exchange, "work", &text("other", 3600)).unwrap_err();
        let id = exchange.newest_refused("credentials/claude/.credentials.json.work").unwrap().unwrap();
        adopt(&exchange, "home", Some(&format!("private/quarantine/{id}"))).unwrap();
        let home = exchange.layout.tree("credentials/claude/.credentials.json.home");
        assert_eq!(std::fs::read(home).unwrap(), text("other", 3600));
        for outside in ["../../trust.json", "..", "", "/etc/passwd"] {
            assert!(adopt(&exchange, "home", Some(outside)).is_err(), "{outside}");
        }
    }

    #[test]
    fn the_operator_switches_by_the_same_rule_as_agents() {
        let (_dir, exchange) = exchange();
        write(&exchange, "work", &text("a", 3600)).unwrap();
        write(&exchange, "old", &text("b", 100)).unwrap();
        assert!(switch(&exchange, "old").unwrap_err().starts_with("stale-slot"));
        assert!(switch(&exchange, "missing").unwrap_err().contains("no slot missing"));
        assert!(switch(&exchange, "../x").unwrap_err().contains("no slot name"));
        assert_eq!(status(&exchange)["live"], Value::Null);
        switch(&exchange, "work").unwrap();
        switch(&exchange, "work").unwrap();
        let profile = status(&exchange);
        assert_eq!(profile["live"], "work");
        let slots = profile["slots"].as_array().unwrap();
        let fresh: Vec<_> = slots.iter().map(|slot| (&slot["slot"], &slot["fresh"], &slot["live"])).collect();
        assert_eq!(
            fresh,
            [(&json!("old"), &json!(false), &json!(false)), (&json!("work"), &json!(true), &json!(true))]
        );
    }

    #[test]
    fn an_unknown_profile_is_answered_with_those_there_are() {
        let (_dir, exchange) = exchange();
        let unknown = OperatorRequest::CredentialsStatus { profile: Some("claud".into()) };
        assert!(exchange.operate(unknown).unwrap_err().contains("there is claude"));
    }
}
