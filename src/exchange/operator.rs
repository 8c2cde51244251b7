//! What the operator asks of an exchange, whether its daemon runs or not.

use super::Exchange;
use serde::{Deserialize, Serialize};

/// An operator's request; travels as JSON over the control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum OperatorRequest {
    /// Merges a trust.json's text.
    TrustImport {
        /// The file's text.
        text: String,
    },
    /// Takes a pair's secret (base64 of its bytes).
    SecretImport {
        /// One agent.
        a: String,
        /// The other.
        b: String,
        /// Base64.
        secret: String,
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
    },
}

impl Exchange {
    /// Carries out an operator's request. The result is JSON for `--json`; the CLI words it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn operate(&self, request: OperatorRequest) -> Result<serde_json::Value, String> {
        let _ = request;
        todo!()
    }
}
