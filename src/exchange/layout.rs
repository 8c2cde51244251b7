//! Where things lie in an exchange's folder.
//!
//! What agents see lies under its name in the tree; what they must not see lies under `private/` (0700).

use crate::wire::name::AgentName;
use std::path::{Path, PathBuf};

/// The paths of one exchange.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the exchange in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Layout { root: root.into() }
    }
    /// The exchange's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// exchange.toml
    pub fn config(&self) -> PathBuf {
        self.root.join("exchange.toml")
    }
    /// trust.json
    pub fn trust(&self) -> PathBuf {
        self.root.join("trust.json")
    }
    /// events.jsonl
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }
    /// A path of the tree.
    pub fn tree(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
    /// private/: 0700.
    pub fn private(&self) -> PathBuf {
        self.root.join("private")
    }
    /// An agent's signing key: private/keys/bob.key, 0600.
    pub fn key(&self, agent: &AgentName) -> PathBuf {
        self.private().join(format!("keys/{agent}.key"))
    }
    /// A pair's secret: private/secrets/alice,bob.secret (names sorted), 0600.
    pub fn secret(&self, a: &AgentName, b: &AgentName) -> PathBuf {
        let (first, second) = if a < b { (a, b) } else { (b, a) };
        self.private().join(format!("secrets/{first},{second}.secret"))
    }
    /// Refusals by actor: `private/refusals/<agent>.jsonl`, `uid-<n>.jsonl`, `all.jsonl`.
    pub fn refusals(&self) -> PathBuf {
        self.private().join("refusals")
    }
    /// Refused bytes: private/quarantine/, files 0600.
    pub fn quarantine(&self) -> PathBuf {
        self.private().join("quarantine")
    }
    /// Derived indexes: private/index/. May be deleted; they are rebuilt.
    pub fn index(&self) -> PathBuf {
        self.private().join("index")
    }
    /// The daemon's lock file.
    pub fn lock(&self) -> PathBuf {
        self.private().join("daemon.lock")
    }
    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.private().join("control.sock")
    }
    /// Where a background daemon logs.
    pub fn daemon_log(&self) -> PathBuf {
        self.private().join("daemon.log")
    }
    /// The exchange around a folder: the nearest parent that holds an exchange.toml.
    pub fn find_around(start: &Path) -> Option<PathBuf> {
        start.ancestors().find(|dir| dir.join("exchange.toml").is_file()).map(Path::to_path_buf)
    }
}
