//! Creating an exchange on disk: its folders, the agents' keys, the pairs' secrets and the trust list.

use super::config::{Config, check_agent_name};
use super::layout::Layout;
use crate::store::LocalStore;
use crate::wire::json::{Object, Value};
use crate::wire::keys::{KeyId, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::{Tier, TrustEntry, TrustList, TrustedKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// An agent that a new exchange starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Its name.
    pub name: AgentName,
    /// The uid that acts as it.
    pub uid: Option<u32>,
}

impl std::str::FromStr for NewAgent {
    type Err = String;

    /// Reads `bob` or `bob=1001`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, uid) = match text.split_once('=') {
            None => (text, None),
            Some((name, uid)) => match uid.parse() {
                Ok(uid) if uid != u32::MAX => (name, Some(uid)),
                _ => return Err(format!("{uid:?} is no user id; write {name}=$(id -u {name})")),
            },
        };
        Ok(NewAgent { name: check_agent_name(name)?, uid })
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The agents with the ids of their new keys, in the order given.
    pub agents: Vec<(NewAgent, KeyId)>,
    /// How many pairs got a secret.
    pub pairs: usize,
}

/// Why no exchange was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error(
        "{} is an exchange already. Mount it with baton mount; to add an agent, follow the comment above \
         the agents in its exchange.toml", .0.display()
    )]
    Exists(PathBuf),
    /// The folder holds something else.
    #[error(
        "{} is not empty and holds no exchange.toml. Choose a new folder, or empty this one if an \
         interrupted baton init left it so", .0.display()
    )]
    NotEmpty(PathBuf),
    /// The folder would lie in another exchange.
    #[error("{} would lie inside the exchange {}: make it elsewhere", .dir.display(), .around.display())]
    Inside {
        /// The folder.
        dir: PathBuf,
        /// The exchange around it.
        around: PathBuf,
    },
    /// No agents, one twice, or what exchange.toml can't express.
    #[error("{0}")]
    Agents(String),
    /// The operating system said no.
    #[error("{}: {error}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Its error.
        error: io::Error,
    },
}

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> InitError + '_ {
    move |error| InitError::Io { file: file.to_owned(), error }
}

/// Creates an exchange in `dir`, which must be empty or absent: a new key for each agent, a secret for
/// each pair, everybody ATTESTED in trust.json. exchange.toml comes last, so that a folder that holds
/// one is complete. After an error nothing of it is left.
///
/// # Errors
/// See [`InitError`].
pub fn create(dir: &Path, agents: &[NewAgent], now: Timestamp) -> Result<Created, InitError> {
    let layout = Layout::new(dir);
    if agents.is_empty() {
        return Err(InitError::Agents("an exchange needs agents: give --agent NAME[=UID] for each".into()));
    }
    for (i, agent) in agents.iter().enumerate() {
        if agents[..i].iter().any(|a| a.name == agent.name) {
            return Err(InitError::Agents(format!("{} is given twice", agent.name)));
        }
    }
    let table: Vec<_> = agents.iter().map(|a| (a.name.clone(), a.uid)).collect();
    let config = Config::template(&table).map_err(InitError::Agents)?;

    let absolute = std::path::absolute(dir).map_err(io_error(dir))?;
    if let Some(around) = absolute.parent().and_then(Layout::find_around) {
        return Err(InitError::Inside { dir: dir.to_owned(), around });
    }

    let was_there = match fs::read_dir(dir) {
        Ok(mut entries) => {
            if layout.config().exists() {
                return Err(InitError::Exists(dir.to_owned()));
            }
            if entries.next().is_some() {
                return Err(InitError::NotEmpty(dir.to_owned()));
            }
            true
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Nobody but its owner goes round the mount.
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))?;
            false
        }
        Err(e) => return Err(io_error(dir)(e)),
    };
    // Of two at once, the one that makes private/ goes on; only it may clean up.
    make_dir(&layout.private(), 0o700)?;
    let made = fill(&layout, agents, &config, now);
    if made.is_err() {
        // Best effort: the error to report is the one that stopped us. Everything in it is ours.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
        if !was_there {
            let _ = fs::remove_dir(dir);
        }
    }
    made
}

fn fill(layout: &Layout, agents: &[NewAgent], config: &str, now: Timestamp) -> Result<Created, InitError> {
    for shared in ["inbox", "handoff", "claimed", "archive", "rejected", "credentials", "memory", "trust"] {
        make_dir(&layout.tree(shared), 0o755)?;
    }
    make_dir(&layout.tree("credentials/claude"), 0o700)?;
    for private in ["keys", "secrets", "refusals", "quarantine", "index"] {
        make_dir(&layout.private().join(private), 0o700)?;
    }

    let mut trust = TrustList::default();
    let mut created = Created { agents: Vec::new(), pairs: 0 };
    let mut signing_keys = HashMap::new();
    for (i, agent) in agents.iter().enumerate() {
        let key = new_signing_key().map_err(io_error(&layout.key(&agent.name)))?;
        write_new(&layout.key(&agent.name), key.to_file_text().as_bytes(), 0o600)?;
        let (id, entry) = trust_entry(&agent.name, &key, now);
        trust.agents.insert(agent.name.clone(), entry);
        created.agents.push((agent.clone(), id));
        signing_keys.insert(agent.name.clone(), Arc::new(key));
        for other in &agents[..i] {
            let file = layout.secret(&agent.name, &other.name);
            write_new(&file, new_secret().map_err(io_error(&file))?.as_bytes(), 0o600)?;
            created.pairs += 1;
        }
        write_new(&layout.tree(&format!("inbox/{}.jsonl", agent.name)), b"", 0o644)?;
    }
    for log in ["decisions.jsonl", "incident_log.jsonl", "events.jsonl"] {
        write_new(&layout.tree(log), b"", 0o644)?;
    }
    write_new(&layout.trust(), trust.to_json().as_bytes(), 0o644)?;
    let store = LocalStore::new(layout.root());
    let parsed = Config::parse(config).map_err(InitError::Agents)?;
    super::trust::write_own_cards(&store, &parsed, &trust, &signing_keys, now)
        .map_err(io_error(&layout.tree("trust")))?;
    write_new(&layout.config(), config.as_bytes(), 0o644)?;
    File::open(layout.root()).and_then(|dir| dir.sync_all()).map_err(io_error(layout.root()))?;
    Ok(created)
}

/// A fresh signing key.
///
/// # Errors
/// There are no random numbers.
pub(super) fn new_signing_key() -> io::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_seed(&seed))
}

/// A fresh pair secret as the text of its file: base64 of 32 random bytes and a newline. The text is
/// the secret, so it can be handed to a program that reads secrets from the environment.
fn new_secret() -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(STANDARD.encode(*bytes));
    text.push('\n');
    Ok(text)
}

/// An ATTESTED entry for an agent with one active key, as an exchange's operator vouches for it.
fn trust_entry(agent: &AgentName, key: &SigningKey, now: Timestamp) -> (KeyId, TrustEntry) {
    let public = key.public();
    let id = public.id(agent);
    let other = Object::from([
        ("tier_set_at".to_owned(), Value::String(now.to_string())),
        ("sas_verified".to_owned(), Value::Bool(true)),
        ("successful_reciprocations".to_owned(), Value::Int("0".into())),
        ("agent_card_url".to_owned(), Value::Null),
    ]);
    let keys = vec![TrustedKey::new(agent, public, now)];
    (id, TrustEntry { tier: Tier::Attested, keys, blocked: false, other })
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), InitError> {
    DirBuilder::new().mode(mode).create(dir).map_err(io_error(dir))?;
    // Whatever the umask says: through the mount, these modes decide who reads.
    fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(io_error(dir))
}

fn write_new(file: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
    let write = || -> io::Result<()> {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        out.set_permissions(Permissions::from_mode(mode))?;
        out.write_all(bytes)?;
        out.sync_all()
    };
    write().map_err(io_error(file))
}
