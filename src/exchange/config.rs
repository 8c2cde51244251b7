//! exchange.toml: who takes part, as which uid, under which limits.

use crate::wire::name::AgentName;
use std::collections::BTreeMap;

/// exchange.toml, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agents.
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// Seconds a timestamp may lie in the future. Default 300.
    pub clock_skew_seconds: i64,
    /// Bytes a message body may have (TRUSTED agents: any). Default 65,536.
    pub max_body_bytes: usize,
    /// Agents whose unsigned (v2) lines are accepted. Default: none.
    pub allow_unsigned_from: Vec<AgentName>,
    /// Accept handoffs of pairs whose secret is not held here, checking their shape only.
    pub relay_handoffs: bool,
    /// The credential profiles by name.
    pub credentials: BTreeMap<String, ProfileConfig>,
}

/// `[agents.<name>]`
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// The uid that acts as this agent.
    pub uid: Option<u32>,
    /// Whether it may carry signed lines and handoffs of others.
    pub may_relay: bool,
}

/// `[credentials.<profile>]`
#[derive(Debug, Clone)]
pub struct ProfileConfig {
    /// The file format of its slots.
    pub format: CredentialFormat,
    /// `strict` refuses rotation too.
    pub strict: bool,
    /// The agents that may use it; `None`: all.
    pub agents: Option<Vec<AgentName>>,
}

/// A credential format that the guard knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFormat {
    /// `.credentials.json` of Claude Code.
    Claude,
}

impl Config {
    /// Reads exchange.toml's text.
    ///
    /// # Errors
    /// A sentence that names the line or key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        todo!()
    }
}
