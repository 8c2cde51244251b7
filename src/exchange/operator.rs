//! What the operator asks of an exchange, whether its daemon runs or not.

use super::events::members;
use super::export::ExportRequest;
use super::import::ImportRequest;
use super::{Actor, Exchange};
use crate::wire::keys::PairSecret;
use crate::wire::name::AgentName;
use base64::Engine;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What makes a credential profile: an exchange that is mounted keeps the exchange.toml that it started with.
pub const TO_MAKE_A_PROFILE: &str = "add a [credentials.NAME] section to exchange.toml, unmount every mount of the \
                                     exchange (`baton status` lists them), then mount again";

/// An operator's request; travels as JSON over the control socket.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum OperatorRequest {
    /// Merges a trust.json's text.
    TrustImport {
        /// The file's text.
        text: String,
    },
    /// Raises an agent's tier, or lowers it.
    TrustTier {
        /// Whose.
        agent: String,
        /// Which way.
        raise: bool,
        /// To which; to the next where absent.
        tier: Option<String>,
    },
    /// Shuts an agent out, or lets it in again.
    TrustBlock {
        /// Which.
        agent: String,
        /// Whether it is shut out.
        blocked: bool,
    },
    /// Confirms the short authentication string of two agents, for the side of one.
    TrustConfirm {
        /// Whose side.
        own: String,
        /// The other.
        other: String,
        /// The digits that were compared.
        digits: String,
    },
    /// Takes an agent's card in.
    TrustPin {
        /// The card's text.
        card: String,
    },
    /// Gives an agent a new signing key, made here.
    KeyRotate {
        /// Whose.
        agent: String,
        /// Whether its old keys are retired at once.
        at_once: bool,
    },
    /// Retires a key at once.
    KeyDeactivate {
        /// Which.
        key_id: String,
    },
    /// Takes a pair's secret (base64 of its bytes).
    SecretImport {
        /// One agent.
        a: String,
        /// The other.
        b: String,
        /// Base64.
        secret: Zeroizing<String>,
    },
    /// Takes an agent's signing key (a key file's text) and trusts its public half.
    KeyImport {
        /// Whose key.
        agent: String,
        /// The file's text.
        key: Zeroizing<String>,
    },
    /// Archives what the logs hold.
    Archive {
        /// Under which year; this one where absent.
        year: Option<i16>,
    },
    /// Takes in an existing `_coordination/` folder.
    Import(ImportRequest),
    /// Writes a plain `_coordination/` folder.
    Export(ExportRequest),
    /// Deletes refused bytes that were kept.
    RefusalsClear {
        /// Whose: an agent, `uid:<n>` or `operator`; everybody's where absent.
        agent: Option<String>,
        /// Only what was refused at least so many days ago.
        older_than_days: Option<u32>,
    },
    /// Shows the slots of a profile (or of all).
    CredentialsStatus {
        /// Profile name.
        profile: Option<String>,
    },
    /// Accepts refused bytes for a slot.
    CredentialsAdopt {
        /// Profile name.
        profile: String,
        /// Slot name.
        slot: String,
        /// Quarantine id; the newest refusal for that slot where absent.
        quarantine: Option<String>,
    },
    /// Points the live link at a slot.
    CredentialsSwitch {
        /// Profile name.
        profile: String,
        /// Slot name.
        slot: String,
        /// Also where its login has expired: its refresh token may live.
        #[serde(default)]
        even_if_expired: bool,
    },
    /// Takes what a slot holds as its own, or what each slot of a profile holds.
    CredentialsBaseline {
        /// Profile name.
        profile: String,
        /// Slot name; all where absent.
        slot: Option<String>,
    },
    /// Shows what happened to a slot, or to all slots of a profile.
    CredentialsHistory {
        /// Profile name.
        profile: String,
        /// Slot name; all where absent.
        slot: Option<String>,
    },
    /// Puts a login from elsewhere into a new slot.
    CredentialsAdd {
        /// Profile name.
        profile: String,
        /// Slot name.
        slot: String,
        /// The login file's text.
        text: Zeroizing<String>,
    },
    /// Shows the decisions, and how every proposal stands that is none.
    DecisionsList,
    /// Settles a proposal that its owners did not.
    Settle {
        /// Its correlation_id or message id.
        id: String,
        /// Enters it as decided; otherwise it is dropped.
        accept: bool,
    },
    /// Shows whether safe mode is on, and why.
    SafeModeStatus,
    /// Lifts safe mode.
    SafeModeClear,
    /// Shows who is there.
    Peers,
}

impl Exchange {
    /// Carries out an operator's request. The result is JSON for `--json`; the command words it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn operate(&self, request: OperatorRequest) -> Result<serde_json::Value, String> {
        match request {
            OperatorRequest::TrustImport { text } => self.import_trust(&text),
            OperatorRequest::TrustTier { agent, raise, tier } => {
                self.set_tier(&agent, raise, tier.as_deref())
            }
            OperatorRequest::TrustBlock { agent, blocked } => self.set_blocked(&agent, blocked),
            OperatorRequest::TrustConfirm { own, other, digits } => self.confirm_sas(&own, &other, &digits),
            OperatorRequest::TrustPin { card } => self.pin_card(&card),
            OperatorRequest::KeyRotate { agent, at_once } => self.rotate_key(&agent, at_once),
            OperatorRequest::KeyDeactivate { key_id } => self.retire_key(&key_id),
            OperatorRequest::SecretImport { a, b, secret } => self.import_secret(&a, &b, secret),
            OperatorRequest::KeyImport { agent, key } => self.import_key(&agent, key),
            OperatorRequest::Archive { year } => self.archive(year),
            OperatorRequest::Import(request) => self.import(&request),
            OperatorRequest::Export(request) => self.export(&request),
            OperatorRequest::RefusalsClear { agent, older_than_days } => {
                self.clear_refusals(agent.as_deref(), older_than_days)
            }
            OperatorRequest::CredentialsStatus { profile } => self.credentials_status(profile.as_deref()),
            OperatorRequest::CredentialsAdopt { profile, slot, quarantine } => {
                self.credentials_adopt(&profile, &slot, quarantine.as_deref())
            }
            OperatorRequest::CredentialsSwitch { profile, slot, even_if_expired } => {
                self.credentials_switch(&profile, &slot, even_if_expired)
            }
            OperatorRequest::CredentialsBaseline { profile, slot } => {
                self.credentials_baseline(&profile, slot.as_deref())
            }
            OperatorRequest::CredentialsHistory { profile, slot } => {
                self.credentials_history(&profile, slot.as_deref())
            }
            OperatorRequest::CredentialsAdd { profile, slot, text } => {
                self.credentials_add(&profile, &slot, &text)
            }
            OperatorRequest::DecisionsList => self.list_decisions(),
            OperatorRequest::Settle { id, accept } => self.settle_proposal(&id, accept),
            OperatorRequest::SafeModeStatus => Ok(self.safe_mode_status()),
            OperatorRequest::SafeModeClear => self.clear_safe_mode(),
            OperatorRequest::Peers => Ok(self.peers_json(&Actor::Operator, self.now())),
        }
    }

    fn import_secret(
        &self,
        a: &str,
        b: &str,
        encoded: Zeroizing<String>,
    ) -> Result<serde_json::Value, String> {
        let (a, b) = (self.known_agent(a)?, self.known_agent(b)?);
        if a == b {
            return Err("a secret is shared by two different agents".into());
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| "the secret did not arrive as base64".to_owned())?;
        let secret = PairSecret::from_file_bytes(&bytes);
        if secret.as_bytes().is_empty() {
            return Err("the secret is empty".into());
        }
        let pair = if a < b { (a, b) } else { (b, a) };
        let names = format!("{},{}", pair.0, pair.1);
        // First the event: without it, every handoff verified with the old secret would look forged.
        let end = self
            .events
            .append(self.now(), "secret-imported", &members! {"pair": names.as_str()})
            .and_then(|end| self.make_events_durable(end));
        end.map_err(|e| format!("events.jsonl could not be written, so the secret was not taken: {e}"))?;
        // As the file had it: reading strips the one newline again, and must strip it only once.
        self.write_private(&self.layout.secret(&pair.0, &pair.1), &bytes)?;
        self.secrets.write().insert(pair, secret);
        Ok(serde_json::json!({ "pair": names }))
    }

    pub(super) fn known_agent(&self, name: &str) -> Result<AgentName, String> {
        let agent = AgentName::parse(name).map_err(|e| e.to_string())?;
        if self.config.agents.contains_key(&agent) {
            Ok(agent)
        } else {
            Err(format!("{agent} is no agent of this exchange; it has: {}", self.agent_names()))
        }
    }

    pub(super) fn write_private(&self, file: &std::path::Path, bytes: &[u8]) -> Result<(), String> {
        let relative = file.strip_prefix(self.layout.root()).map_err(|e| e.to_string())?;
        self.store
            .replace(&relative.to_string_lossy(), bytes, 0o600)
            .map_err(|e| format!("{}: {e}", file.display()))
    }
}
