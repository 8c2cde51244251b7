//! `baton umount`: ends one mount, and waits for the daemon to end where it was the last.

use super::output;
use crate::daemon::{self, Request, StatusReport, mount_table, server};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks at whether the daemon has ended.
const MOMENT: Duration = Duration::from_millis(10);
/// A daemon that takes longer to end is left to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unmount an exchange. The umount of the last mount ends the daemon
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Nothing is mounted there, or it is in use.
pub fn run(args: UmountArgs) -> anyhow::Result<ExitCode> {
    let path =
        mount_table::resolve(&args.mountpoint).with_context(|| args.mountpoint.display().to_string())?;
    let Some(mounted) = find(&path)? else {
        let known = mount_table::mounted_exchanges()?;
        let known: Vec<String> = known.iter().map(|mount| mount.mountpoint.display().to_string()).collect();
        bail!(
            "{} is no mount of an exchange; mounted are: {}",
            path.display(),
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        );
    };
    server::unmount(&mounted.mountpoint)?;
    wait_for_daemon(&mounted.exchange, &mounted.mountpoint);
    output::tell(format_args!("unmounted {}", mounted.mountpoint.display()));
    Ok(ExitCode::SUCCESS)
}

/// The mount at a path, or at what it links to.
fn find(path: &Path) -> anyhow::Result<Option<mount_table::MountedExchange>> {
    if let Some(mounted) = mount_table::at(path)? {
        return Ok(Some(mounted));
    }
    match path.canonicalize() {
        Ok(target) => Ok(mount_table::at(&target)?),
        Err(_) => Ok(None),
    }
}

/// Waits until the daemon knows, so that the next command finds either no daemon or one that serves.
fn wait_for_daemon(exchange: &Path, mountpoint: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Who may not look into the exchange has nothing to wait for.
        match daemon::is_running(exchange) {
            Ok(false) | Err(_) => return,
            Ok(true) => {}
        }
        if let Ok(Some(response)) = daemon::call(exchange, &Request::Status)
            && let Ok(status) = response.parse::<StatusReport>()
            && !status.mounts.is_empty()
            && status.mounts.iter().all(|mount| mount.mountpoint != mountpoint)
        {
            return;
        }
        std::thread::sleep(MOMENT);
    }
}
