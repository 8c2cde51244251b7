//! `baton mount`: starts the daemon of an exchange with one mount, or asks the running one for one more.

use super::{keyfile, output};
use crate::daemon::launch::{self, Launch, LogFormat};
use crate::daemon::protocol::CONFIG_CHANGED;
use crate::daemon::{self, MountReport, PATIENCE, Request, StatusReport, mount_table, mountpoint};
use crate::exchange::Durability;
use crate::fuse::MountSpec;
use crate::wire::name::AgentName;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts while another daemon starts or ends.
const RETRY: Duration = Duration::from_millis(20);

/// Mount an exchange; returns when the tree answers
///
/// The first mount of an exchange starts its daemon; further ones are served by the same daemon, which ends with the
/// umount of the last.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton mount ./exchange ./mnt --as bob
      a mount for one agent; agents that share a user have one each
  baton mount ./exchange /srv/agents
      one mount for several users, whom exchange.toml maps to agents
  baton mount ./exchange ./mnt --as bob --key ~/bob.key
      bob keeps his key to himself; unsigned lines are signed with it

End it with baton umount. What the daemon has to say is in private/daemon.log of the exchange; what it \
refused, and why, in baton refusals.")]
pub struct MountArgs {
    /// The exchange's folder
    pub exchange: PathBuf,
    /// Where to mount it: an empty directory, made where it is missing
    pub mountpoint: PathBuf,
    /// Everybody who comes through this mount is this agent; without it, callers are told apart by their uid
    #[arg(long = "as", value_name = "AGENT", value_parser = parse_agent)]
    pub bound: Option<AgentName>,
    /// Seal this agent's unsigned lines with the key in FILE [default: the agent's key that the exchange holds]
    #[arg(long, value_name = "FILE", requires = "bound")]
    pub key: Option<PathBuf>,
    /// Stay in the foreground until the mount has ended; SIGINT or SIGTERM ends it
    #[arg(long)]
    pub foreground: bool,
    /// When a write returns: once it is on disk, or once the operating system has it [default: commit]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub durability: Option<DurabilityArg>,
    /// Let other users in even where exchange.toml maps none (an ordinary user needs user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    pub allow_other: bool,
    /// Have the daemon serve every read, also where the kernel could read the files itself (for diagnosis)
    #[arg(long)]
    pub no_passthrough: bool,
    /// How the daemon logs, to stderr or else to private/daemon.log; RUST_LOG says how much
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Be the daemon that another `baton mount` has started
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `--durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Survives a power cut
    Commit,
    /// Survives the end of the daemon; after a power cut, what was fsynced
    Os,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Commit => Durability::Commit,
            DurabilityArg::Os => Durability::Os,
        }
    }
}

fn parse_agent(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|e| e.to_string())
}

/// Runs the command.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub fn run(mut args: MountArgs) -> anyhow::Result<ExitCode> {
    let exchange = find_exchange(&args.exchange)?;
    if let Some(key) = &mut args.key {
        // The daemon that may be started for it works in another folder.
        *key = key.canonicalize().with_context(|| key.display().to_string())?;
    }
    if args.background {
        launch::leave_session()?;
        launch::log_to_stderr(args.log_format);
        launch::serve(
            &exchange,
            &spec(&args, args.mountpoint.clone())?,
            durability(&args),
            launch::announce_on_stdout,
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let ready = mountpoint::prepare(&exchange, &args.mountpoint)?;
    for note in &ready.notes {
        output::warn(note);
    }
    mount(&args, &exchange, &spec(&args, ready.path)?)?;
    Ok(ExitCode::SUCCESS)
}

fn find_exchange(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder
        .canonicalize()
        .with_context(|| format!("{}: baton init makes an exchange", folder.display()))?;
    match std::fs::metadata(path.join("exchange.toml")) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            bail!("{} is not yours to look into: its owner mounts it, or root", path.display())
        }
        Err(_) => {
            if let Some(mounted) = mount_table::around(&path)? {
                bail!("{} is a mount of {}: name that folder", path.display(), mounted.exchange.display());
            }
            bail!("{} is no exchange, for it has no exchange.toml; baton init makes one", path.display())
        }
    }
}

fn spec(args: &MountArgs, mountpoint: PathBuf) -> anyhow::Result<MountSpec> {
    let key = args.key.as_deref().map(keyfile::read_signing_key).transpose()?.map(Arc::new);
    Ok(MountSpec {
        mountpoint,
        bound: args.bound.clone(),
        key,
        allow_other: args.allow_other,
        passthrough: !args.no_passthrough,
    })
}

fn durability(args: &MountArgs) -> Durability {
    args.durability.map(Durability::from).unwrap_or_default()
}

/// Mounts by the running daemon or a new one, whichever it turns out to be: another `baton mount` may be starting it,
/// and the last umount may be ending it.
fn mount(args: &MountArgs, exchange: &Path, spec: &MountSpec) -> anyhow::Result<()> {
    let request = Request::Mount {
        mountpoint: spec.mountpoint.clone(),
        bound: spec.bound.as_ref().map(ToString::to_string),
        key: spec.key.as_ref().map(|key| key.to_file_text()),
        allow_other: spec.allow_other,
        passthrough: spec.passthrough,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Before the request: a signal must not end this process between its answer and the wait.
        let signals = args.foreground.then(|| Signals::new([SIGTERM, SIGINT, SIGHUP])).transpose()?;
        if let Some(response) = daemon::call(exchange, &request)? {
            // Before its answer, which may be a refusal for that very reason.
            warn_of_changed_config(exchange);
            let report: MountReport = response.parse()?;
            tell(args, exchange, &report);
            return match signals {
                Some(signals) => stay(exchange, &spec.mountpoint, signals),
                None => Ok(()),
            };
        }
        drop(signals);
        let launch = if args.foreground {
            let mut outcome = None;
            launch::log_to_stderr(args.log_format);
            launch::serve(exchange, spec, durability(args), |launch| {
                match launch {
                    Launch::Mounted(report) => tell(args, exchange, report),
                    Launch::InUse(holder) => outcome = Some(Launch::InUse(holder.clone())),
                    Launch::Failed(sentence) => outcome = Some(Launch::Failed(sentence.clone())),
                }
                Ok(())
            })?;
            match outcome {
                None => return Ok(()),
                Some(launch) => launch,
            }
        } else {
            launch::start_in_background(
                exchange,
                spec,
                args.key.as_deref(),
                durability(args),
                args.log_format,
            )?
        };
        match launch {
            Launch::Mounted(report) => {
                tell(args, exchange, &report);
                return Ok(());
            }
            Launch::Failed(sentence) => bail!(sentence),
            Launch::InUse(holder) if Instant::now() >= deadline => bail!(
                "{} is in use by process {holder}, which does not answer: wait for it or end it, then try again",
                exchange.display()
            ),
            Launch::InUse(_) => std::thread::sleep(RETRY),
        }
    }
}

/// Tells that the running daemon goes by an exchange.toml that is no longer the one that is there.
fn warn_of_changed_config(exchange: &Path) {
    let status = daemon::call(exchange, &Request::Status).ok().flatten();
    let status = status.and_then(|response| response.parse::<StatusReport>().ok());
    if status.is_some_and(|status| status.config_changed) {
        output::warn(format_args!("{CONFIG_CHANGED}"));
    }
}

fn tell(args: &MountArgs, exchange: &Path, report: &MountReport) {
    if let Some(asked) = args.durability
        && report.durability != daemon::protocol::durability_word(asked.into())
    {
        output::warn(format_args!(
            "the running daemon keeps --durability {}; to change it, umount all its mounts first",
            report.durability
        ));
    }
    let bound = report.bound.as_ref().map(|agent| format!(" as {agent}")).unwrap_or_default();
    output::tell(format_args!("mounted {} at {}{bound}", exchange.display(), report.mountpoint.display()));
}

/// Waits until a mount that another process serves has ended; a signal ends it.
fn stay(exchange: &Path, mountpoint: &Path, mut signals: Signals) -> anyhow::Result<()> {
    let request = Request::Umount { mountpoint: mountpoint.to_owned() };
    let folder = exchange.to_owned();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            let ended = daemon::call(&folder, &request).and_then(|answer| match answer {
                Some(response) => response.into_result().map(drop),
                None => Ok(()),
            });
            if let Err(e) = ended {
                output::warn(format_args!("{e:#}"));
            }
        }
    })?;
    match daemon::call(exchange, &Request::Wait { mountpoint: mountpoint.to_owned() })? {
        Some(response) => response.into_result().map(drop),
        // The daemon has ended, and its mounts with it.
        None => Ok(()),
    }
}
