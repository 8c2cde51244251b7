//! The process model: one daemon per exchange, which holds its lock and serves any number of mounts and a control
//! socket. Adapters other than mounts (the hub) live beside them in [`server`] on the same exchange.
//!
//! Commands come in through [`call`] and [`operate`]; `baton mount` starts the daemon through [`launch`].

pub mod harden;
pub mod launch;
pub mod mount_table;
pub mod mountpoint;
pub mod protocol;
pub mod server;

mod control;

pub use control::call;
pub use protocol::{MountReport, Request, Response, StatusReport};

use crate::exchange::layout::Layout;
use crate::exchange::operator::OperatorRequest;
use crate::exchange::{Durability, Exchange, OpenError, OpenOptions};
use crate::wire::time::Timestamp;
use anyhow::{Context, bail};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a command waits for a daemon that is just starting or ending.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that will change soon.
pub(crate) const MOMENT: Duration = Duration::from_millis(10);

/// How a daemon or a command opens an exchange: by the system's clock.
pub fn open_options(durability: Durability) -> OpenOptions {
    OpenOptions { durability, clock: Arc::new(now) }
}

fn now() -> Timestamp {
    // A clock before 1970 or past the year 294,000 tells nothing; zero is refused nowhere and seen everywhere.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or_default())
}

/// Carries out an operator's request: by the daemon where one runs, else on the exchange itself.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub fn operate(exchange_dir: &Path, request: OperatorRequest) -> anyhow::Result<serde_json::Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(response) = call(exchange_dir, &Request::Operate { operation: request.clone() })? {
            return response.into_result();
        }
        match Exchange::open(exchange_dir, open_options(Durability::Commit)) {
            Ok(exchange) => return exchange.operate(request).map_err(anyhow::Error::msg),
            // Starting and not yet listening, or ending and still holding the lock.
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => std::thread::sleep(MOMENT),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether some process holds an exchange's lock.
///
/// # Errors
/// The lock file can't be read: this user has no business in the exchange's private folder.
pub fn is_running(exchange_dir: &Path) -> anyhow::Result<bool> {
    let path = Layout::new(exchange_dir).lock();
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    // Shared, and let go at once: a daemon that tries to start just now tries again.
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => bail!("{}: {e}", path.display()),
    }
}
