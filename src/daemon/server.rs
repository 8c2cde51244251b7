//! The daemon of one exchange: its mounts, its control socket and its janitor, until the last mount has ended.

use super::control;
use super::harden::Hardening;
use super::mount_table;
use super::protocol::{MountReport, Request, Response, StatusReport, durability_word};
use crate::exchange::{Durability, Exchange};
use crate::fuse::mount::{self, MountSpec, detach};
use crate::wire::keys::SigningKey;
use crate::wire::name::AgentName;
use anyhow::{Context, bail, ensure};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const JANITOR_PERIOD: Duration = Duration::from_secs(1);
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(60);
/// How long a daemon that was told to stop waits for programs that are using a mount.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A running daemon, shared by all its threads.
pub struct Daemon {
    exchange: Arc<Exchange>,
    durability: Durability,
    hardening: Hardening,
    state: Mutex<State>,
    /// Signalled whenever `state` changes.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mounts: BTreeMap<u64, MountReport>,
    last_id: u64,
    /// Mounts are being ended, and no new one is made.
    stopping: bool,
}

impl Daemon {
    /// Listens on the control socket of an exchange that this process has opened, and makes the first mount.
    /// From then on the daemon serves; [`Daemon::run`] waits for its end.
    ///
    /// # Errors
    /// The socket can't be made, or the mount failed (see [`crate::fuse::MountError`]) and nobody has asked for
    /// another one meanwhile.
    pub fn start(
        exchange: Arc<Exchange>,
        durability: Durability,
        hardening: Hardening,
        first: &MountSpec,
    ) -> anyhow::Result<(Arc<Self>, MountReport)> {
        let listener = control::listen(exchange.dir()).context("making the control socket")?;
        let daemon = Arc::new(Daemon {
            exchange,
            durability,
            hardening,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        // Before anybody can connect, so that no other request finds a daemon without mounts and about to end.
        let report = daemon.mount(first);
        let report = match report {
            Ok(report) => report,
            Err(e) => {
                drop(listener);
                daemon.end();
                return Err(e);
            }
        };
        let acceptor = daemon.clone();
        thread::Builder::new().name("control".into()).spawn(move || acceptor.accept(&listener))?;
        let janitor = daemon.clone();
        thread::Builder::new().name("janitor".into()).spawn(move || janitor.keep_house())?;
        Ok((daemon, report))
    }

    /// Serves until the last mount has ended or [`Daemon::stop`] was called; then unmounts what is left.
    pub fn run(&self) {
        {
            let mut state = self.state.lock();
            while !state.stopping && !state.mounts.is_empty() {
                self.changed.wait(&mut state);
            }
            // Under the same lock that saw the last mount go, so that no request for another one is lost.
            state.stopping = true;
        }
        self.changed.notify_all();
        self.unmount_all();
        self.end();
    }

    /// Tells the daemon to unmount everything and end.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    fn unmount_all(&self) {
        let mounts: Vec<MountReport> = self.state.lock().mounts.values().cloned().collect();
        for mount in mounts {
            let path = &mount.mountpoint;
            let detached = detach(path, false).or_else(|e| {
                tracing::warn!(mountpoint = %path.display(), error = %e, "in use: detaching it from the tree");
                detach(path, true)
            });
            if let Err(e) = detached {
                tracing::error!(mountpoint = %path.display(), error = %e, "can't unmount");
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut state = self.state.lock();
        while !state.mounts.is_empty() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                tracing::warn!("some programs still use a mount; they will see it end");
                break;
            }
        }
    }

    fn end(&self) {
        let socket = crate::exchange::layout::Layout::new(self.exchange.dir()).socket();
        if let Err(error) = std::fs::remove_file(socket) {
            tracing::warn!(%error, "can't remove the control socket");
        }
        self.checkpoint();
    }

    fn checkpoint(&self) {
        if let Err(error) = self.exchange.checkpoint() {
            tracing::error!(%error, "the exchange could not be made durable: look after its disk");
        }
    }

    /// Adds a mount; returns when the tree answers.
    fn mount(self: &Arc<Self>, spec: &MountSpec) -> anyhow::Result<MountReport> {
        if let Some(agent) = &spec.bound {
            let agents = &self.exchange.config().agents;
            let known: Vec<&str> = agents.keys().map(AgentName::as_str).collect();
            ensure!(
                agents.contains_key(agent),
                "--as {agent}: no such agent in exchange.toml, which names {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
        }
        if let (Some(agent), Some(key)) = (&spec.bound, &spec.key) {
            self.exchange.lend_key(agent, key).map_err(anyhow::Error::msg)?;
        }
        let mut report = MountReport {
            mountpoint: spec.mountpoint.clone(),
            bound: spec.bound.as_ref().map(ToString::to_string),
            passthrough: false,
            allow_other: false,
            durability: durability_word(self.durability).to_owned(),
        };
        let id = {
            let mut state = self.state.lock();
            ensure!(!state.stopping, "the daemon is ending");
            state.last_id += 1;
            let id = state.last_id;
            state.mounts.insert(id, report.clone());
            id
        };
        if let Some(agent) = &spec.bound {
            self.exchange.attend(agent, true);
        }
        let daemon = self.clone();
        match mount::mount(&self.exchange, spec, move || daemon.forget(id)) {
            Ok(info) => {
                report.passthrough = info.passthrough;
                report.allow_other = info.allow_other;
                // It may be gone again by now.
                if let Some(known) = self.state.lock().mounts.get_mut(&id) {
                    *known = report.clone();
                }
                tracing::info!(
                    mountpoint = %report.mountpoint.display(),
                    bound = report.bound.as_deref(),
                    passthrough = report.passthrough,
                    allow_other = report.allow_other,
                    "mounted"
                );
                Ok(report)
            }
            Err(e) => {
                self.remove(id);
                Err(e.into())
            }
        }
    }

    fn forget(&self, id: u64) {
        if let Some(report) = self.remove(id) {
            tracing::info!(mountpoint = %report.mountpoint.display(), "unmounted");
        }
    }

    /// Takes a mount off the list, if it is still on it.
    fn remove(&self, id: u64) -> Option<MountReport> {
        let mut state = self.state.lock();
        let report = state.mounts.remove(&id);
        let bound = report.as_ref().and_then(|report| report.bound.as_deref());
        if let Some(agent) = bound.and_then(|agent| AgentName::parse(agent).ok()) {
            self.exchange.attend(&agent, false);
            // A lent key goes with the last mount that is its agent's.
            if !state.mounts.values().any(|other| other.bound.as_deref() == bound) {
                self.exchange.take_back_key(&agent);
            }
        }
        drop(state);
        self.changed.notify_all();
        report
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    thread::sleep(super::MOMENT);
                    continue;
                }
            };
            if !control::may_ask(&stream, self.exchange.owner_uid()) {
                tracing::warn!("refused a control request from another user");
                continue;
            }
            let daemon = self.clone();
            let serve = move || {
                if let Err(error) = control::serve(&stream, |request| daemon.answer(request)) {
                    tracing::debug!(%error, "control connection");
                }
            };
            if let Err(error) = thread::Builder::new().name("request".into()).spawn(serve) {
                tracing::warn!(%error, "control socket");
            }
        }
    }

    /// `None`: this daemon is ending; whoever asks may start the next one.
    fn answer(self: &Arc<Self>, request: Request) -> Option<Response> {
        if matches!(request, Request::Mount { .. } | Request::Operate { .. }) && self.state.lock().stopping {
            return None;
        }
        let answered = catch_unwind(AssertUnwindSafe(|| self.carry_out(request)));
        Some(match answered {
            Ok(Ok(value)) => Response::Ok(value),
            Ok(Err(e)) => Response::Error(format!("{e:#}")),
            Err(_) => Response::Error(
                "the daemon failed with a defect: see private/daemon.log in the exchange".to_owned(),
            ),
        })
    }

    fn carry_out(self: &Arc<Self>, request: Request) -> anyhow::Result<serde_json::Value> {
        match request {
            Request::Mount { mountpoint, bound, key, allow_other, passthrough } => {
                let bound = bound.as_deref().map(AgentName::parse).transpose()?;
                let key =
                    key.map(|text| SigningKey::from_file_text(text.as_bytes())).transpose()?.map(Arc::new);
                let spec = MountSpec { mountpoint, bound, key, allow_other, passthrough };
                Ok(serde_json::to_value(self.mount(&spec)?)?)
            }
            Request::Umount { mountpoint } => {
                unmount(&mountpoint)?;
                self.wait_until_gone(&mountpoint);
                Ok(serde_json::Value::Null)
            }
            Request::Wait { mountpoint } => {
                self.wait_until_gone(&mountpoint);
                Ok(serde_json::Value::Null)
            }
            Request::Status => Ok(serde_json::to_value(self.status())?),
            Request::Operate { operation } => self.exchange.operate(operation).map_err(anyhow::Error::msg),
            Request::Stop => {
                self.stop();
                Ok(serde_json::Value::Null)
            }
        }
    }

    fn status(&self) -> StatusReport {
        StatusReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            durability: durability_word(self.durability).to_owned(),
            hardening: self.hardening,
            config_changed: self.exchange.config_has_changed(),
            mounts: self.state.lock().mounts.values().cloned().collect(),
        }
    }

    fn wait_until_gone(&self, mountpoint: &Path) {
        let mut state = self.state.lock();
        while state.mounts.values().any(|mount| mount.mountpoint == mountpoint) {
            self.changed.wait(&mut state);
        }
    }

    fn keep_house(&self) {
        let mut checkpointed = Instant::now();
        loop {
            {
                let mut state = self.state.lock();
                let next = Instant::now() + JANITOR_PERIOD;
                while !state.stopping && !self.changed.wait_until(&mut state, next).timed_out() {}
                if state.stopping {
                    return;
                }
            }
            let kept = catch_unwind(AssertUnwindSafe(|| {
                let expired = self.exchange.run_janitor();
                self.exchange.send_due_heartbeats(self.exchange.now());
                if expired > 0 {
                    tracing::info!(expired, "moved expired handoffs to rejected/");
                }
                if checkpointed.elapsed() >= CHECKPOINT_PERIOD {
                    checkpointed = Instant::now();
                    self.checkpoint();
                }
            }));
            if kept.is_err() {
                tracing::error!("the janitor failed with a defect in batonfs: please report it");
            }
        }
    }
}

/// How long an unmount waits for programs that are just leaving.
const LEAVING: Duration = Duration::from_secs(1);

/// Unmounts one mountpoint of an exchange, whether its daemon lives or not.
///
/// # Errors
/// Nothing is mounted there, or it is in use: a sentence that says what to do.
pub fn unmount(mountpoint: &Path) -> anyhow::Result<()> {
    if mount_table::at(mountpoint)?.is_none() {
        bail!("{} is no mount of an exchange", mountpoint.display());
    }
    let deadline = Instant::now() + LEAVING;
    let detached = loop {
        match detach(mountpoint, false) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(super::MOMENT);
            }
            done => break done,
        }
    };
    detached.map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => anyhow::anyhow!(
            "{path} is in use: leave the directory and end the programs that have files open there \
             (fuser -vm {path} lists them), then try again",
            path = mountpoint.display()
        ),
        _ if !rustix::process::geteuid().is_root() => anyhow::Error::new(e)
            .context(format!("{}: who mounted it unmounts it, or root", mountpoint.display())),
        _ => anyhow::Error::new(e).context(mountpoint.display().to_string()),
    })
}
