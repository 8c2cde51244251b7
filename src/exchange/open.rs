//! Opening an exchange: its lock, its files, and the repair of what a crash left half done.

use super::events::{Event, Events, Found};
use super::handoffs::Handoffs;
use super::layout::Layout;
use super::logs::{LogName, Logs};
use super::recover::last_order;
use super::refusals::RefusalBook;
use super::{Attempt, Caller, Exchange, OpenError, OpenOptions, config::Config, files::Files, trust};
use crate::rules::conversation::presence::Cadence;
use crate::rules::{Refusal, Rule};
use crate::store::{LocalStore, Store};
use crate::wire::keys::{PairSecret, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use parking_lot::{Mutex, RwLock};
use rustix::fs::FlockOperation;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

/// The directories that an exchange has, with their modes.
pub(super) const DIRECTORIES: &[(&str, u32)] = &[
    ("inbox", 0o755),
    ("outbox", 0o755),
    ("handoff", 0o755),
    ("claimed", 0o755),
    ("archive", 0o755),
    ("rejected", 0o755),
    ("credentials", 0o755),
    ("memory", 0o755),
    ("trust", 0o755),
    ("send", 0o755),
    ("private", 0o700),
    ("private/keys", 0o700),
    ("private/secrets", 0o700),
    ("private/staging", 0o700),
    ("private/index", 0o700),
    ("private/quarantine", 0o700),
    ("private/refusals", 0o700),
];

impl Exchange {
    /// Takes the exchange's lock, reads it and repairs what a crash left half done.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: OpenOptions) -> Result<Arc<Self>, OpenError> {
        let root = dir.canonicalize().map_err(|error| OpenError::Io { file: dir.into(), error })?;
        let layout = Layout::new(&root);
        let (config, config_text) = read_config(&layout)?;
        let local = LocalStore::new(&root);
        check_private(&layout)?;
        for (path, mode) in DIRECTORIES {
            local.make_dir(path, *mode).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => OpenError::Damaged {
                    file: root.join(path),
                    problem: "is no directory".into(),
                    mend: "move it aside and restore the directory from a backup; one that held nothing is made anew"
                        .into(),
                },
                _ => OpenError::Io { file: root.join(path), error },
            })?;
        }
        check_files(&layout, &config)?;
        let lock = take_lock(&layout)?;
        let io_at = |file: std::path::PathBuf| move |error| OpenError::Io { file, error };
        let meta = root.metadata().map_err(io_at(root.clone()))?;
        let trust = read_trust(&layout)?;
        let secrets = read_secrets(&layout, &config)?;
        let Found { events, recent, mut appends, mut ledger } = Events::open(&local, &root)?;
        let known_order = ledger.order;
        ledger.order = known_order.max(last_order(&appends, &recent));
        let cadence = read_cadence(&layout)?;
        // A checkpoint has the periods that were in force when its successors were committed.
        if let Some(cadence) = cadence.filter(|_| known_order == 0) {
            ledger.conversation.presence.set_cadence(cadence);
        }
        let found = trust::finish(&local, &root, &recent, trust)?;
        trust::finish_key_files(&local, &config, &found.list)
            .map_err(io_at(layout.private().join("keys")))?;
        let signing_keys = read_signing_keys(&layout, &config)?;
        trust::write_own_cards(&local, &config, &found.list, &signing_keys, (options.clock)())
            .map_err(io_at(layout.tree("trust")))?;
        let charter = trust::charter(&config, &local, &found.list);
        finish_moves(&local, &recent);
        let unread = Exchange::open_unread(&local, &config);
        let refusals = RefusalBook::open(&root, config.quarantine_bytes).map_err(io_at(layout.refusals()))?;
        let exchange = Arc::new_cyclic(|this: &Weak<Exchange>| Exchange {
            this: this.clone(),
            layout: layout.clone(),
            config,
            config_text,
            store: Arc::new(local),
            importing: Mutex::new(trust::Importing::new(&found)),
            taking_key: Mutex::new(()),
            trust: RwLock::new(Arc::new(found.list)),
            ledger: Mutex::new(ledger),
            carrying_out: Mutex::default(),
            lent_keys: RwLock::default(),
            last_stamp: AtomicI64::new(0),
            charter: RwLock::new(Arc::new(charter)),
            secrets: RwLock::new(secrets),
            signing_keys: RwLock::new(signing_keys),
            events,
            archiving: Mutex::new(Timestamp(i64::MIN)),
            upheaval: Mutex::new(()),
            refusals,
            logs: Logs::default(),
            handoffs: OnceLock::new(),
            letters: super::send::Letters::default(),
            files: OnceLock::new(),
            #[cfg(target_os = "linux")]
            locks: Default::default(),
            unread,
            attendance: super::heartbeat::Attendance::default(),
            durability: options.durability,
            clock: options.clock,
            started: SystemTime::now(),
            owner_uid: meta.uid(),
            owner_gid: meta.gid(),
            numbers: AtomicU64::new(u64::from(std::process::id()) << 32),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            _lock: lock,
        });
        exchange.finish_archives(&recent)?;
        appends.extend(exchange.recover_logs(&recent)?);
        let handoffs = Handoffs::load(&exchange, &recent).map_err(io_at(root.clone()))?;
        let _ = exchange.handoffs.set(handoffs);
        let office: Arc<dyn super::files::Office> = exchange.clone();
        let files = Files::new(&root, &exchange.config, Arc::downgrade(&office), &recent)
            .map_err(io_at(root.clone()))?;
        let _ = exchange.files.set(files);
        exchange.remove_orphans();
        exchange.fold(known_order, &appends, &recent)?;
        if let Some(cadence) = read_cadence(&layout)? {
            exchange.conversation().presence.set_cadence(cadence);
        }
        exchange.note_found_trust().map_err(io_at(layout.events()))?;
        exchange.finish_letters();
        Ok(exchange)
    }

    /// Staged payloads whose publication was never decided go to quarantine.
    fn remove_orphans(&self) {
        for name in self.store.list("private/staging").unwrap_or_default() {
            let path = format!("private/staging/{name}");
            if let Ok(bytes) = self.store.read(&path) {
                let operator = Caller { uid: self.owner_uid, gid: self.owner_gid, pid: 0, bound: None };
                let advice = "The daemon stopped before this handoff was published. Publish it again.";
                let attempt = Attempt { operation: "publish", path: "handoff/", bytes: &bytes };
                let refusal = Refusal::new(Rule::Partial, advice);
                match self.refusals.record(self.now(), &self.actor(&operator), &operator, &attempt, &refusal)
                {
                    Ok(_) => drop(self.store.remove(&path)),
                    // The next start finds it again.
                    Err(error) => {
                        tracing::warn!(path, %error, "an unpublished handoff could not be put aside")
                    }
                }
            }
        }
    }
}

/// The periods of heartbeats in tiers.json, if there is one.
fn read_cadence(layout: &Layout) -> Result<Option<Cadence>, OpenError> {
    let file = layout.tree("tiers.json");
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Io { file, error }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| OpenError::Damaged {
        file,
        problem: format!("is not the four periods in seconds: {error}"),
        mend: "correct it, or remove it: the defaults are 30, 90, 270 and 1200 seconds".into(),
    })
}

/// Finishes the handoff moves that have an event and no rename yet.
fn finish_moves(store: &dyn Store, recent: &[Event]) {
    let mut places: HashMap<String, Vec<String>> = HashMap::new();
    for event in recent {
        let path = |dir: &str, name: &str| Some(format!("{}/{}", event.text(dir)?, event.text(name)?));
        match event.event.as_str() {
            "published" => {
                if let (Some(name), Some(staged)) = (event.text("name"), event.text("staged")) {
                    places.insert(format!("handoff/{name}"), vec![staged.to_owned()]);
                }
            }
            "undone" => {
                if let (Some(at), Some(back_at)) = (event.text("at"), event.text("back_at"))
                    && let Some(mut earlier) = places.remove(at)
                {
                    earlier.pop();
                    if !earlier.is_empty() {
                        places.insert(back_at.to_owned(), earlier);
                    }
                }
            }
            "claimed" | "completed" | "rejected" | "withdrawn" | "expired" => {
                if let (Some(from), Some(to)) = (path("from_dir", "name"), path("to_dir", "to_name")) {
                    let mut earlier = places.remove(&from).unwrap_or_default();
                    earlier.push(from);
                    places.insert(to, earlier);
                }
            }
            _ => {}
        }
    }
    for (place, earlier) in &places {
        if store.stat(place).is_ok() {
            continue;
        }
        // A name that another handoff has taken since is that one's: it stays.
        let free = |path: &&String| !places.contains_key(*path) && store.stat(path).is_ok();
        let Some(found) = earlier.iter().rev().find(free) else { continue };
        match store.rename_new(found, place) {
            Ok(()) => tracing::info!(from = found, to = place, "finished a move that a crash interrupted"),
            Err(error) => {
                tracing::warn!(from = found, to = place, %error, "an interrupted move is not finished")
            }
        }
    }
}

/// private/ holds what nothing else does, so it is never made anew behind an operator's back.
///
/// # Errors
/// [`OpenError::Damaged`] where it is gone.
pub fn check_private(layout: &Layout) -> Result<(), OpenError> {
    if !layout.config().exists() || layout.private().is_dir() {
        return Ok(());
    }
    Err(OpenError::Damaged {
        file: layout.private(),
        problem: "is gone, and with it the keys, the secrets and what was refused".into(),
        mend: format!(
            "restore it from a backup; or mkdir -m 700 {} and import every key (baton key import) and secret \
             (baton secret import) again",
            layout.private().display()
        ),
    })
}

/// What must be a regular file, and a profile's or an agent's folder, is one or is not there: a pipe or a link in its
/// place would be served as if it were.
fn check_files(layout: &Layout, config: &Config) -> Result<(), OpenError> {
    let wrong = |file: std::path::PathBuf, what: &str| OpenError::Damaged {
        problem: format!("is no {what}"),
        mend: "move it aside, and restore what belongs here from a backup".into(),
        file,
    };
    let kind = |file: &Path| std::fs::symlink_metadata(file).ok().map(|meta| meta.file_type());
    let agents = config.agents.keys();
    let bilateral = agents.clone().flat_map(|from| {
        let others = agents.clone().filter(move |to| *to != from);
        others.map(move |to| LogName::Bilateral { from: from.clone(), to: to.clone() })
    });
    let logs = agents
        .clone()
        .cloned()
        .map(LogName::Inbox)
        .chain(agents.clone().cloned().map(LogName::Outbox))
        .chain([LogName::Decisions, LogName::Incidents]);
    let logs = logs.chain(bilateral).map(|log| layout.tree(&log.path()));
    for file in logs.chain([layout.events(), layout.trust()]) {
        if kind(&file).is_some_and(|kind| !kind.is_file()) {
            return Err(wrong(file, "regular file"));
        }
    }
    let profiles = config.credentials.keys().map(|profile| layout.tree("credentials").join(profile));
    let memories = agents.map(|agent| layout.tree("memory").join(agent.as_str()));
    for folder in profiles.chain(memories) {
        if kind(&folder).is_some_and(|kind| !kind.is_dir()) {
            return Err(wrong(folder, "directory"));
        }
    }
    Ok(())
}

/// exchange.toml, and what stands in it.
fn read_config(layout: &Layout) -> Result<(Config, String), OpenError> {
    let file = layout.config();
    let text = std::fs::read_to_string(&file).map_err(|error| OpenError::Damaged {
        file: file.clone(),
        problem: error.to_string(),
        mend: "this is no exchange, or its exchange.toml is gone; baton init makes a new one".into(),
    })?;
    let config = Config::parse(&text).map_err(|problem| OpenError::Damaged {
        file,
        problem,
        mend: "correct the file and mount again".into(),
    })?;
    Ok((config, text))
}

fn read_trust(layout: &Layout) -> Result<TrustList, OpenError> {
    let file = layout.trust();
    let text = std::fs::read(&file).map_err(|error| OpenError::Damaged {
        file: file.clone(),
        problem: error.to_string(),
        mend: "restore it from a backup, or put the list that you would import in its place".into(),
    })?;
    TrustList::parse(&text).map_err(|error| OpenError::Damaged {
        file,
        problem: error.to_string(),
        mend: "correct the file, or restore it from a backup".into(),
    })
}

/// The signing keys that the exchange holds: readable, whole, and their owner's alone.
fn read_signing_keys(
    layout: &Layout,
    config: &Config,
) -> Result<HashMap<AgentName, Arc<SigningKey>>, OpenError> {
    let mut keys = HashMap::new();
    for agent in config.agents.keys() {
        let file = layout.key(agent);
        if let Some(bytes) = read_private(&file)? {
            let key = SigningKey::from_file_text(&bytes).map_err(|error| OpenError::Damaged {
                file,
                problem: format!("is no signing key: {error}"),
                mend: format!(
                    "restore it from a backup; or rm {} and import {agent}'s key: baton key import --as {agent} FILE",
                    layout.key(agent).display()
                ),
            })?;
            keys.insert(agent.clone(), Arc::new(key));
        }
    }
    Ok(keys)
}

fn read_secrets(
    layout: &Layout,
    config: &Config,
) -> Result<HashMap<(AgentName, AgentName), PairSecret>, OpenError> {
    let mut secrets = HashMap::new();
    let agents: Vec<_> = config.agents.keys().collect();
    for (n, a) in agents.iter().enumerate() {
        for b in &agents[n + 1..] {
            let file = layout.secret(a, b);
            if let Some(bytes) = read_private(&file)? {
                let secret = PairSecret::from_file_bytes(&bytes);
                if secret.as_bytes().is_empty() {
                    return Err(OpenError::Damaged {
                        problem: "is empty".into(),
                        mend: format!(
                            "restore it from a backup; or rm {} and import it: baton secret import --pair {a},{b} FILE",
                            file.display()
                        ),
                        file,
                    });
                }
                secrets.insert(((*a).clone(), (*b).clone()), secret);
            }
        }
    }
    Ok(secrets)
}

/// A key or secret file's bytes, if there is one.
fn read_private(file: &Path) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, OpenError> {
    let damaged = |problem: String, mend: String| OpenError::Damaged { file: file.into(), problem, mend };
    let mut open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(damaged(error.to_string(), "make it readable for the user that mounts".into()));
        }
    };
    let io_error = |error| OpenError::Io { file: file.into(), error };
    let mode = open.metadata().map_err(io_error)?.mode();
    if mode & 0o077 != 0 {
        return Err(damaged(
            format!("can be read by others (mode {:o})", mode & 0o777),
            format!("chmod 600 {}; change it if somebody may have read it", file.display()),
        ));
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    open.read_to_end(&mut bytes).map_err(io_error)?;
    Ok(Some(bytes))
}

/// The daemon's lock: an flock, so that it ends with the process however it ends.
fn take_lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.lock();
    let io_error = |error| OpenError::Io { file: path.clone(), error };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().to_owned() };
            return Err(OpenError::InUse { dir: layout.root().into(), holder });
        }
        Err(error) => return Err(io_error(error.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io_error)?;
    Ok(file)
}
