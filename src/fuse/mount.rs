//! Puts an exchange on a mountpoint and serves it from threads of its own.

use super::adapter::{Joined, Mounted};
use super::crowd::Crowd;
use super::fusermount;
pub(crate) use super::fusermount::detach;
use super::handles::{Backings, Handles};
use super::inodes::Inodes;
use crate::exchange::Exchange;
use crate::wire::keys::SigningKey;
use crate::wire::name::AgentName;
use fuser::{Config, Session, SessionACL};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Callbacks wait for the disk, so there are more threads than cores even on a small machine.
const LEAST_THREADS: usize = 4;

/// What to mount where.
#[derive(Debug, Clone)]
pub struct MountSpec {
    /// An empty directory, absolute.
    pub mountpoint: PathBuf,
    /// The agent that everybody who comes through this mount is; `None`: by uid.
    pub bound: Option<AgentName>,
    /// The key that this agent's lines are sealed with, where it is not the one that the exchange holds.
    pub key: Option<Arc<SigningKey>>,
    /// Let users other than the mounter in, also where the configuration does not ask for it.
    pub allow_other: bool,
    /// Let the kernel read logs and ordinary files without asking the daemon, where it may.
    pub passthrough: bool,
}

/// How a mount turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountInfo {
    /// The kernel reads logs and ordinary files without asking the daemon.
    pub passthrough: bool,
    /// Users other than the mounter are let in.
    pub allow_other: bool,
}

/// Why a mount failed; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// fusermount3 does not let an ordinary user open a mount to others.
    #[error(
        "only root may let other users into a mount here. Add the line `user_allow_other` to /etc/fuse.conf, \
         or mount for one agent with --as (exchange.toml maps other users: {})", .others.join(", ")
    )]
    AllowOther {
        /// The agents in exchange.toml that run as other users.
        others: Vec<String>,
    },
    /// There is no FUSE here, or this user may not use it.
    #[error(
        "/dev/fuse: {0}. Load the kernel module (modprobe fuse); ordinary users need /dev/fuse at mode 0666"
    )]
    Device(io::Error),
    /// The kernel or fusermount3 said no.
    #[error("{}: {error}", .mountpoint.display())]
    Fuse {
        /// The mountpoint.
        mountpoint: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

/// Mounts an exchange and returns once the kernel has shaken hands; the tree answers from then on. `on_end` is called
/// when the mount has ended, whoever ended it, and perhaps where this fails.
///
/// # Errors
/// See [`MountError`].
pub fn mount(
    exchange: &Arc<Exchange>,
    spec: &MountSpec,
    on_end: impl FnOnce() + Send + Sync + 'static,
) -> Result<MountInfo, MountError> {
    let others = other_users(exchange, spec);
    let allow_other = spec.allow_other || !others.is_empty();
    if let Err(error) = std::fs::metadata("/dev/fuse")
        && cfg!(target_os = "linux")
    {
        return Err(MountError::Device(error));
    }
    let passthrough = Arc::new(AtomicBool::new(spec.passthrough));
    let failed = |error: io::Error| {
        if error.to_string().contains("user_allow_other") {
            MountError::AllowOther { others: others.clone() }
        } else {
            MountError::Fuse { mountpoint: spec.mountpoint.clone(), error }
        }
    };
    let (crowd, too_many) = Crowd::new();
    let mounted = Mounted {
        exchange: exchange.clone(),
        bound: spec.bound.clone(),
        shared: allow_other,
        inodes: Arc::new(Inodes::new([exchange.files().credentials(), exchange.files().memory()])),
        crowd,
        handles: Handles::default(),
        backings: Backings::default(),
        #[cfg(target_os = "linux")]
        locks_mount: exchange.locks().new_mount(),
        passthrough: passthrough.clone(),
        _joined: Joined::new(exchange),
        on_end: Some(Box::new(on_end)),
    };
    let mut config = Config::default();
    config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    if cfg!(target_os = "linux") {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        config.n_threads = Some(LEAST_THREADS.max(2 * cores));
        // A descriptor per thread must be opened by this user itself; without them the threads share one.
        config.clone_fd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    }
    let (session, device) = attach(exchange.dir(), spec, mounted, config, allow_other).map_err(failed)?;
    if passthrough.load(Ordering::Relaxed) {
        passthrough.store(kernel_passes_through(&session, exchange.dir()), Ordering::Relaxed);
    }
    let notifier = session.notifier();
    let forget = move || too_many.forget_by(&notifier, device);
    if let Err(error) = std::thread::Builder::new().name("forget".into()).spawn(forget) {
        tracing::warn!(%error, "the kernel may come to know more files than this process may open");
    }
    let serve = move || {
        if let Err(error) = session.run() {
            tracing::error!(%error, "a mount ended with an error");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("mount".into()).spawn(serve) {
        let _ = fusermount::detach(&spec.mountpoint, true);
        return Err(failed(error));
    }
    Ok(MountInfo { passthrough: passthrough.load(Ordering::Relaxed), allow_other })
}

/// The agents that the configuration lets in as users other than this process's, where the mount is not for one agent.
fn other_users(exchange: &Exchange, spec: &MountSpec) -> Vec<String> {
    if spec.bound.is_some() {
        return Vec::new();
    }
    let own = rustix::process::geteuid().as_raw();
    let agents = exchange.config().agents.iter();
    agents
        .filter(|(_, agent)| agent.uid.is_some_and(|uid| uid != own))
        .map(|(name, _)| name.to_string())
        .collect()
}

/// Attaches the mount; and one more descriptor of the device that the kernel is told by, for what fuser can't tell it.
#[cfg(target_os = "linux")]
fn attach(
    source: &Path,
    spec: &MountSpec,
    mounted: Mounted,
    config: Config,
    allow_other: bool,
) -> io::Result<(Session<Mounted>, Option<std::fs::File>)> {
    let device = fusermount::attach(source, &spec.mountpoint, allow_other)?;
    let acl = config.acl;
    let ours = device.try_clone().ok().map(std::fs::File::from);
    let session = Session::from_fd(mounted, device, acl, config).inspect_err(|_| {
        let _ = fusermount::detach(&spec.mountpoint, true);
    })?;
    Ok((session, ours))
}

#[cfg(not(target_os = "linux"))]
fn attach(
    source: &Path,
    spec: &MountSpec,
    mounted: Mounted,
    mut config: Config,
    _: bool,
) -> io::Result<(Session<Mounted>, Option<std::fs::File>)> {
    use fuser::MountOption;
    config.mount_options = vec![
        MountOption::FSName(source.display().to_string()),
        MountOption::Subtype("batonfs".into()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    Ok((Session::new(mounted, &spec.mountpoint, &config)?, None))
}

/// Whether the kernel lets this process pass files of the exchange's folder through: it needs CAP_SYS_ADMIN, and a
/// file system below that is no stack of others itself. Asked once, because an inode's opens must all agree.
fn kernel_passes_through(session: &Session<Mounted>, exchange: &Path) -> bool {
    let file = match std::fs::File::open(exchange.join("exchange.toml")) {
        Ok(file) => file,
        Err(_) => return false,
    };
    // The kernel forgets the registration when the mount ends; fuser offers no safe way to forget it before.
    match fuser::BackingId::create_raw(session, &file) {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(%error, "the kernel does not pass reads through to this exchange; the daemon serves them");
            false
        }
    }
}
