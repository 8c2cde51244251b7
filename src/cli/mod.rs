//! The command line: one file per command.

mod archive;
mod credentials;
mod decisions;
mod handoff;
mod import;
mod init;
mod key;
mod keyfile;
mod mount;
mod output;
mod peers;
mod place;
mod records;
mod safe_mode;
mod secret;
mod sign;
mod skill;
mod status;
mod trust;
mod umount;
mod verify;

use crate::wire::time::Timestamp;
use clap::Parser as _;
use std::process::ExitCode;
use std::time::SystemTime;

/// A filesystem that keeps AI agents to the rules they coordinate by
///
/// An exchange is a folder with the agents' logs, handoffs, keys and rules. Mounted, what breaks a rule
/// fails in the system call that broke it; `baton refusals` says why.
#[derive(Debug, clap::Parser)]
#[command(
    name = "baton",
    version,
    after_help = "\
A first session:
  baton init ./exchange --agent bob --agent alice
  mkdir mnt && baton mount ./exchange ./mnt --as bob
  echo '{\"type\":\"ship\",\"subject\":\"s\",\"body\":\"hi\"}' >> mnt/inbox/alice.jsonl
  baton umount ./mnt && baton verify ./exchange

Exit status: 0 on success, 1 on failure, 2 when the command line is wrong."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::InitArgs),
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    Status(status::StatusArgs),
    Sign(sign::SignArgs),
    #[command(subcommand)]
    Handoff(handoff::HandoffCommand),
    Decisions(decisions::DecisionsArgs),
    Peers(peers::PeersArgs),
    SafeMode(safe_mode::SafeModeArgs),
    Refusals(records::RefusalsArgs),
    Events(records::EventsArgs),
    Verify(verify::VerifyArgs),
    Archive(archive::ArchiveArgs),
    Import(import::ImportArgs),
    Export(import::ExportArgs),
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    #[command(subcommand)]
    Credentials(credentials::CredentialsCommand),
    #[command(subcommand)]
    Skill(skill::SkillCommand),
}

/// Runs the command line: 0 on success, 1 on failure, 2 when the command line is wrong.
pub fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Init(args) => init::run(args, now()),
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Status(args) => status::run(&args),
        Command::Sign(args) => sign::run(args, now),
        Command::Handoff(command) => handoff::run(command, now()),
        Command::Decisions(args) => decisions::run(args),
        Command::Peers(args) => peers::run(&args),
        Command::SafeMode(args) => safe_mode::run(args),
        Command::Refusals(args) => records::run_refusals(&args),
        Command::Events(args) => records::run_events(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Archive(args) => archive::run(&args),
        Command::Import(args) => import::run_import(&args),
        Command::Export(args) => import::run_export(&args),
        Command::Key(command) => key::run(command),
        Command::Trust(command) => trust::run(command),
        Command::Secret(command) => secret::run(command),
        Command::Credentials(command) => credentials::run(command),
        Command::Skill(command) => skill::run(command),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::from(128 + libc::SIGPIPE as u8),
        Err(error) => {
            output::warn(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output (`head`, a pager) has seen enough: no reason to complain.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The time.
fn now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    };
    Timestamp(micros)
}
