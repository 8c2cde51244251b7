//! `baton trust`: who is trusted, with which keys, at which tier.

use super::place::{ExchangeOption, operate};
use super::{output, place};
use crate::exchange::operator::OperatorRequest;
use crate::wire::trust::TrustList;
use anyhow::Context as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show or extend the trust list
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    /// Show who is trusted, with which keys, at which tier
    Show(ShowArgs),
    /// Merge a trust.json into the exchange's
    Import(ImportArgs),
}

/// `baton trust show`
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Print it as a trust.json
    #[arg(long)]
    json: bool,
}

/// `baton trust import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
New agents and keys are added, a key that is inactive on either side becomes inactive, the tiers of \
known agents follow FILE. Nothing is removed, so importing twice changes nothing more. A running daemon \
takes the new list over at once.

Examples:
  baton trust import their-trust.json
  baton trust show --json > trust-for-them.json")]
pub struct ImportArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// A trust.json (`-`: standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: TrustCommand) -> anyhow::Result<ExitCode> {
    match command {
        TrustCommand::Show(args) => show(&args),
        TrustCommand::Import(args) => import(&args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let trust = place::read_trust(&args.exchange.find()?)?;
    let mut out = output::stdout();
    if args.json {
        out.write_all(trust.to_json().as_bytes())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for (agent, entry) in &trust.agents {
        let tier = entry.tier.as_str().to_owned();
        if entry.keys.is_empty() {
            rows.push(vec![agent.to_string(), tier, "none".into(), "-".into(), "-".into()]);
            continue;
        }
        for key in &entry.keys {
            let state = if key.active { "active" } else { "deactivated" };
            let added = output::printable(&key.added_at);
            rows.push(vec![agent.to_string(), tier.clone(), key.id.to_string(), state.into(), added]);
        }
    }
    output::write_table(&mut out, &["AGENT", "TIER", "KEY", "STATE", "ADDED"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let name = args.file.display().to_string();
    let text = if args.file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock()).context("standard input")?
    } else {
        std::fs::read_to_string(&args.file).with_context(|| name.clone())?
    };
    // Told here, before a daemon is asked: then the message names the file.
    TrustList::parse(text.as_bytes()).with_context(|| format!("{name} is no trust list"))?;
    let answer = operate(&layout, OperatorRequest::TrustImport { text })?;
    place::print_answer(&answer, args.json, "nothing changed: it was all known")
}
