//! What travels over the control socket: one JSON object per line, one response for each request.

use super::harden::Hardening;
use crate::exchange::Durability;
use crate::exchange::operator::OperatorRequest;
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What can be asked of a running daemon. Not `Debug`: an operator's request may carry a secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Request {
    /// One more mount; answered with a [`MountReport`] when the tree answers.
    Mount {
        /// An empty directory, absolute.
        mountpoint: PathBuf,
        /// The agent that the whole mount is.
        #[serde(rename = "as")]
        bound: Option<String>,
        /// A key file's text: the key that this agent's lines are sealed with.
        #[serde(default)]
        key: Option<Zeroizing<String>>,
        /// Let other users in.
        allow_other: bool,
        /// Let the kernel read past the daemon where it may.
        passthrough: bool,
    },
    /// Ends one mount; answered when it has ended.
    Umount {
        /// Its path, absolute.
        mountpoint: PathBuf,
    },
    /// Answered when there is no such mount (any more).
    Wait {
        /// Its path, absolute.
        mountpoint: PathBuf,
    },
    /// Answered with a [`StatusReport`].
    Status,
    /// What only the exchange itself can do.
    Operate {
        /// The operation.
        operation: OperatorRequest,
    },
    /// Ends all mounts and the daemon; answered before it ends.
    Stop,
}

/// A daemon's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// Done; what was asked for.
    Ok(serde_json::Value),
    /// Not done: a sentence that says what to do.
    Error(String),
}

impl Response {
    /// The answer as JSON.
    ///
    /// # Errors
    /// The daemon's sentence.
    pub fn into_result(self) -> anyhow::Result<serde_json::Value> {
        match self {
            Response::Ok(value) => Ok(value),
            Response::Error(sentence) => Err(anyhow::Error::msg(sentence)),
        }
    }

    /// The answer as what the request promises.
    ///
    /// # Errors
    /// The daemon's sentence; or it is of another version and answers in another form.
    pub fn parse<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        serde_json::from_value(self.into_result()?)
            .context("the running daemon is of another version: end it with baton umount, then mount again")
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReport {
    /// Its path, absolute.
    pub mountpoint: PathBuf,
    /// The agent that the whole mount is.
    #[serde(rename = "as")]
    pub bound: Option<String>,
    /// The kernel reads logs and ordinary files without asking the daemon.
    pub passthrough: bool,
    /// Users other than the mounter are let in.
    pub allow_other: bool,
    /// When write() returns: `commit` or `os`; the same for all mounts of the daemon.
    pub durability: String,
}

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its process.
    pub pid: u32,
    /// The version of batonfs that runs.
    pub version: String,
    /// When write() returns: `commit` or `os`.
    pub durability: String,
    /// What keeps its memory off every disk.
    #[serde(default)]
    pub hardening: Hardening,
    /// exchange.toml is no longer what the daemon read and goes by.
    #[serde(default)]
    pub config_changed: bool,
    /// The mounts that it serves.
    pub mounts: Vec<MountReport>,
}

/// Where [`StatusReport::config_changed`]: what it means and what to do.
pub const CONFIG_CHANGED: &str = "exchange.toml has changed since the daemon read it: unmount every mount of this exchange \
                                  (baton status lists them), then mount again";

/// The word for a durability, as `--durability` takes it.
pub fn durability_word(durability: Durability) -> &'static str {
    match durability {
        Durability::Commit => "commit",
        Durability::Os => "os",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_survive_the_wire() {
        let requests = [
            Request::Mount {
                mountpoint: "/mnt".into(),
                bound: Some("bob".into()),
                key: None,
                allow_other: false,
                passthrough: true,
            },
            Request::Stop,
            Request::Operate {
                operation: OperatorRequest::CredentialsSwitch {
                    profile: "p".into(),
                    slot: "s".into(),
                    even_if_expired: false,
                },
            },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).unwrap();
            let back: Request = serde_json::from_str(&line).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), line);
        }
        let error = serde_json::to_string(&Response::Error("no".into())).unwrap();
        assert_eq!(error, r#"{"error":"no"}"#);
        let response: Response = serde_json::from_str(&error).unwrap();
        assert_eq!(response.into_result().unwrap_err().to_string(), "no");
    }
}
