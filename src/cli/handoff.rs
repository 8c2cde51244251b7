//! `baton handoff new`: make a signed handoff payload.

use super::{keyfile, output, place::ExchangeOption};
use crate::rules::Refusal;
use crate::wire::handoff::{self, NewHandoff};
use crate::wire::json::{self, ObjectStream, Value};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use anyhow::{Context as _, bail};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make handoffs
#[derive(Debug, clap::Subcommand)]
pub enum HandoffCommand {
    /// Print a new, signed handoff payload
    New(NewArgs),
}

/// `baton handoff new`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  baton handoff new --from bob --to alice --caller c-17 --reason billing \\
      > mnt/handoff/42.json
      publishes it; alice claims it with: mv mnt/handoff/42.json mnt/claimed/
  baton handoff new --from bob --to alice --caller c-17 --reason billing \\
      --transcript turns.json --ttl 300
      turns.json: [{\"role\":\"user\",\"text\":\"hello\"}, ...], or an object per line")]
pub struct NewArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The sender
    #[arg(long, value_name = "AGENT", value_parser = keyfile::agent_name)]
    from: AgentName,
    /// Who may claim it
    #[arg(long, value_name = "AGENT", value_parser = keyfile::agent_name)]
    to: AgentName,
    /// The caller's id; only its hash is sent
    #[arg(long, value_name = "ID")]
    caller: String,
    /// Why it is handed over
    #[arg(long)]
    reason: String,
    /// Seconds for which it may be claimed
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=31_536_000))]
    ttl: i64,
    /// The conversation so far: a JSON list of {role, text} objects (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// The pair's secret [default: the one in the exchange]
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: HandoffCommand, now: Timestamp) -> anyhow::Result<ExitCode> {
    let HandoffCommand::New(args) = command;
    if args.from == args.to {
        bail!("{} can't hand over to itself: name another agent with --to", args.from);
    }
    let secret = match &args.secret {
        Some(file) => keyfile::read_secret(file)?,
        None => {
            keyfile::read_secret(&args.exchange.find()?.secret(&args.from, &args.to)).with_context(|| {
                format!(
                    "no secret of {} and {}. Give --secret FILE, or import one: \
                     baton secret import --pair {},{} FILE",
                    args.from, args.to, args.from, args.to
                )
            })?
        }
    };
    let transcript = args.transcript.as_deref().map_or(Ok(Vec::new()), read_transcript)?;
    let new = NewHandoff {
        from: args.from,
        to: args.to,
        caller: args.caller,
        reason: args.reason,
        ttl_seconds: args.ttl,
        transcript,
    };
    let payload = handoff::create(&new, &secret, now).map_err(Refusal::from)?;
    let mut out = output::stdout();
    writeln!(out, "{payload}")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn read_transcript(file: &Path) -> anyhow::Result<Vec<Value>> {
    let name = || format!("transcript {}", file.display());
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).with_context(name)?;
    } else {
        text = std::fs::read(file).with_context(name)?;
    }
    if text.trim_ascii_start().starts_with(b"[") {
        return match json::parse(&text).with_context(name)? {
            Value::Array(turns) => Ok(turns),
            _ => bail!("{}: not a list", name()),
        };
    }
    let mut stream = ObjectStream::new();
    let turns = stream.push(&text).with_context(name)?;
    if !stream.pending().is_empty() {
        bail!("{}: ends inside an object", name());
    }
    Ok(turns.into_iter().map(|turn| Value::Object(turn.object)).collect())
}
