//! `baton trust`: who is trusted, with which keys, at which tier.

use super::place::{ExchangeOption, operate};
use super::{keyfile, output, place};
use crate::exchange::operator::OperatorRequest;
use crate::rules::trust::sas;
use crate::wire::card::AgentCard;
use crate::wire::name::AgentName;
use crate::wire::trust::{Tier, TrustEntry, TrustList, TrustedKey};
use anyhow::{Context as _, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show and change who is trusted
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    /// Show who is trusted, with which keys, at which tier
    #[command(visible_alias = "list")]
    Show(ShowArgs),
    /// Merge a trust.json into the exchange's
    Import(ImportArgs),
    /// Take in an agent's card: an agent that is not known yet becomes UNTRUSTED, with the card's keys
    Pin(PinArgs),
    /// Compare two agents' keys by six digits, and confirm that they are the same
    Sas(SasArgs),
    /// Raise an agent's tier
    Promote(TierArgs),
    /// Lower an agent's tier
    Demote(TierArgs),
    /// Shut an agent out: whatever it sends is refused
    Block(BlockArgs),
    /// Let a blocked agent in again
    Unblock(BlockArgs),
}

/// `baton trust show`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SAS: whether both sides have compared the six digits. DONE: successful reciprocations (a message that asked for \
an ack, and got it); ten of them make a VERIFIED agent ATTESTED. A running daemon writes the count at least \
once a minute.")]
pub struct ShowArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Only this agent
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: Option<AgentName>,
    /// Print it as a trust.json
    #[arg(long)]
    json: bool,
}

/// `baton trust import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
New agents and keys are added, a key that is inactive on either side becomes inactive, an agent that is blocked \
on either side is blocked, the tiers of known agents follow FILE. Nothing is removed, so importing twice changes \
nothing more. A running daemon takes the new list over at once.

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

/// `baton trust pin`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The card must be signed by one of its own keys, and its agent must have a table in exchange.toml. Of an agent \
that is known already it may name known keys only; a new one comes by a proposal add_key, or by baton key import.

Example:
  baton trust pin carol.card.json && baton trust sas carol --as bob")]
pub struct PinArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// An agent card (`-`: standard input)
    #[arg(value_name = "CARD")]
    card: PathBuf,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

/// `baton trust sas`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The digits are made of both agents' names and newest keys. Each side reads them to the other over a channel that \
nobody else writes to (a telephone, a room), and confirms. Once both sides have, both agents are sas_verified, \
and who is UNTRUSTED becomes VERIFIED.

Examples:
  baton trust sas bob --as alice                     six digits
  baton trust sas bob --as alice --confirm 174158    compared, by alice's side
  baton trust sas alice --as bob --confirm 174158    and by bob's")]
pub struct SasArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The other agent
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    other: AgentName,
    /// The agent whose side compares
    #[arg(long = "as", value_name = "AGENT", value_parser = keyfile::agent_name)]
    own: AgentName,
    /// The digits that the other side has read out
    #[arg(long, value_name = "DIGITS")]
    confirm: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `baton trust promote`, `baton trust demote`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The tiers: UNTRUSTED sends heartbeats, its card and tier announcements; VERIFIED everything but claims; ATTESTED \
everything; TRUSTED past the limits of size and rate too. After demote, reciprocations count anew.

Examples:
  baton trust promote bob            to the next tier
  baton trust demote bob UNTRUSTED")]
pub struct TierArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Whose tier
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: AgentName,
    /// UNTRUSTED, VERIFIED, ATTESTED or TRUSTED [default: the next]
    #[arg(value_name = "TIER", value_parser = tier)]
    tier: Option<Tier>,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

/// `baton trust block`, `baton trust unblock`
#[derive(Debug, clap::Args)]
pub struct BlockArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Which agent
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: AgentName,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

fn tier(text: &str) -> Result<Tier, String> {
    Tier::from_word(&text.to_ascii_uppercase())
        .ok_or_else(|| "it must be UNTRUSTED, VERIFIED, ATTESTED or TRUSTED".to_owned())
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: TrustCommand) -> anyhow::Result<ExitCode> {
    match command {
        TrustCommand::Show(args) => show(&args),
        TrustCommand::Import(args) => import(&args),
        TrustCommand::Pin(args) => pin(&args),
        TrustCommand::Sas(args) => compare(&args),
        TrustCommand::Promote(args) => set_tier(&args, true),
        TrustCommand::Demote(args) => set_tier(&args, false),
        TrustCommand::Block(args) => block(&args, true),
        TrustCommand::Unblock(args) => block(&args, false),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let mut trust = place::read_trust(&args.exchange.find()?)?;
    if let Some(agent) = &args.agent {
        trust.agents.retain(|name, _| name == agent);
        if trust.agents.is_empty() {
            bail!("{agent} is not in trust.json; baton trust show lists who is");
        }
    }
    let mut out = output::stdout();
    if args.json {
        out.write_all(trust.to_json().as_bytes())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = trust.agents.iter().flat_map(|(agent, entry)| rows(agent, entry)).collect();
    output::write_table(&mut out, &["AGENT", "TIER", "SAS", "DONE", "KEY", "STATE", "ADDED"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(agent: &AgentName, entry: &TrustEntry) -> Vec<Vec<String>> {
    let tier = entry.tier.as_str();
    let tier = if entry.blocked { format!("{tier}, blocked") } else { tier.to_owned() };
    let sas = if entry.sas_verified() { "yes" } else { "no" };
    let row = |key: [String; 3]| {
        let about = [agent.to_string(), tier.clone(), sas.to_owned(), entry.reciprocations().to_string()];
        about.into_iter().chain(key).collect()
    };
    if entry.keys.is_empty() {
        return vec![row(["none".into(), "-".into(), "-".into()])];
    }
    entry.keys.iter().map(|k| row([k.id.to_string(), state(k), output::printable(&k.added_at)])).collect()
}

fn state(key: &TrustedKey) -> String {
    match key.deactivate_at.into_iter().chain(key.valid_until).min() {
        _ if !key.active => "deactivated".to_owned(),
        Some(until) => format!("active until {until}"),
        None => "active".to_owned(),
    }
}

fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let (name, text) = read(&args.file)?;
    // Told here, before a daemon is asked: then the message names the file.
    TrustList::parse(text.as_bytes()).with_context(|| format!("{name} is no trust list"))?;
    let answer = operate(&layout, OperatorRequest::TrustImport { text })?;
    place::print_answer(&answer, args.json, "nothing changed: it was all known")
}

fn pin(args: &PinArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let (name, card) = read(&args.card)?;
    AgentCard::verify(card.as_bytes()).with_context(|| format!("{name} is no agent card"))?;
    let answer = operate(&layout, OperatorRequest::TrustPin { card })?;
    place::print_answer(&answer, args.json, "nothing changed: the card was known")
}

/// A file's name and text; `-` is standard input.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin().lock()).context("standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    Ok((name, text))
}

fn compare(args: &SasArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let (own, other) = (&args.own, &args.other);
    if let Some(digits) = &args.confirm {
        let (own, other, digits) = (own.to_string(), other.to_string(), digits.clone());
        let answer = operate(&layout, OperatorRequest::TrustConfirm { own, other, digits })?;
        return place::print_answer(
            &answer,
            args.json,
            "nothing changed: this side has confirmed them before",
        );
    }
    let trust = place::read_trust(&layout)?;
    let digits = sas::digits(&trust, own, other).map_err(anyhow::Error::msg)?;
    let mut out = output::stdout();
    if args.json {
        let confirmed = |own, other| sas::has_confirmed(&trust, own, other, &digits);
        let by: Vec<_> = [(own, other), (other, own)]
            .into_iter()
            .filter(|(a, b)| confirmed(a, b))
            .map(|(a, _)| a)
            .collect();
        output::write_json(&mut out, &serde_json::json!({ "digits": digits, "confirmed_by": by }))?;
    } else {
        writeln!(out, "{digits}")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn set_tier(args: &TierArgs, raise: bool) -> anyhow::Result<ExitCode> {
    let tier = args.tier.map(|tier| tier.as_str().to_owned());
    let request = OperatorRequest::TrustTier { agent: args.agent.to_string(), raise, tier };
    let answer = operate(&args.exchange.find()?, request)?;
    place::print_answer(&answer, args.json, "nothing changed: that is its tier")
}

fn block(args: &BlockArgs, blocked: bool) -> anyhow::Result<ExitCode> {
    let request = OperatorRequest::TrustBlock { agent: args.agent.to_string(), blocked };
    let answer = operate(&args.exchange.find()?, request)?;
    let otherwise =
        if blocked { "nothing changed: it is blocked" } else { "nothing changed: it is not blocked" };
    place::print_answer(&answer, args.json, otherwise)
}
