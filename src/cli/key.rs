//! `baton key`: the agents' signing keys.

use super::place::{self, ExchangeOption, operate};
use super::{keyfile, output};
use crate::exchange::layout::Layout;
use crate::exchange::operator::OperatorRequest;
use crate::wire::keys::{PublicKey, SigningKey};
use crate::wire::name::AgentName;
use crate::wire::trust::TrustList;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show, take over and replace signing keys
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Show public keys and their ids; never the private half
    Show(ShowArgs),
    /// Take over an agent's signing key and trust it
    Import(ImportArgs),
    /// Make an agent a new signing key; the old ones are retired
    Rotate(RotateArgs),
    /// Retire a key at once: somebody else has it
    Deactivate(DeactivateArgs),
}

/// `baton key show`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  baton key show                        every key the exchange knows
  baton key show bob --json
  baton key show bob --key ~/bob.key    the public half of a key held elsewhere")]
pub struct ShowArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Only this agent's
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: Option<AgentName>,
    /// Show the key in this file instead, as AGENT's
    #[arg(long, value_name = "FILE", requires = "agent")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `baton key import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A key file holds base64 of the 32-byte Ed25519 seed. The key is stored 0600 in the exchange, where \
baton sign finds it, and its public half is added to trust.json. An agent that keeps its key to itself \
needs only the latter: baton trust import.

Example:
  head -c 32 /dev/urandom | base64 > carol.key
  baton key import --as carol carol.key && rm carol.key")]
pub struct ImportArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Whose key it is
    #[arg(long = "as", value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: AgentName,
    /// The key's file (`-`: standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the key that the exchange holds for this agent
    #[arg(long)]
    replace: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `baton key rotate`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new key is kept in the exchange and trusted at once. The agent's other keys sign for 24 hours more, so that \
what is under way arrives; with --now they are retired at once, as when somebody else has got hold of one. What \
a retired key has signed stays right: baton verify judges every line by the keys of its time.

An agent that keeps its key to itself proposes the new one: a proposal with subject add_key, signed with the old.

Examples:
  baton key rotate bob
  baton key rotate bob --now")]
pub struct RotateArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Whose key
    #[arg(value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: AgentName,
    /// Retire its other keys at once
    #[arg(long)]
    now: bool,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

/// `baton key deactivate`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It is never active again. Where it was the agent's last, the agent sends nothing until it has another.

Example:
  baton key deactivate bob:6587a754")]
pub struct DeactivateArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The key's id, as baton key show lists it
    #[arg(value_name = "KEY_ID")]
    key_id: String,
    /// Print what changed as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::Show(args) => show(&args),
        KeyCommand::Import(args) => import(&args),
        KeyCommand::Rotate(args) => rotate(&args),
        KeyCommand::Deactivate(args) => deactivate(&args),
    }
}

/// One public key, as shown.
#[derive(Serialize)]
struct Shown {
    agent: String,
    key_id: String,
    public_key: String,
    /// `active`, `deactivated` or `untrusted`
    state: &'static str,
    /// Whether the exchange holds the private half.
    held: bool,
}

impl Shown {
    fn new(agent: &AgentName, key: &PublicKey, trust: Option<&TrustList>, held: bool) -> Self {
        let id = key.id(agent);
        let state = match trust.and_then(|t| t.key(&id)) {
            Some(known) if known.active => "active",
            Some(_) => "deactivated",
            None => "untrusted",
        };
        Shown {
            agent: agent.to_string(),
            key_id: id.to_string(),
            public_key: STANDARD.encode(key.to_bytes()),
            state,
            held,
        }
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let shown = match (&args.agent, &args.key) {
        (Some(agent), Some(file)) => {
            let key = keyfile::read_signing_key(file)?.public();
            let trust = args.exchange.find().ok().and_then(|layout| place::read_trust(&layout).ok());
            vec![Shown::new(agent, &key, trust.as_ref(), false)]
        }
        _ => known_keys(&args.exchange.find()?, args.agent.as_ref())?,
    };
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|s| {
            let held = if s.held { "yes" } else { "no" };
            vec![s.agent, s.key_id, s.public_key, s.state.to_owned(), held.to_owned()]
        })
        .collect();
    output::write_table(&mut out, &["AGENT", "KEY", "PUBLIC KEY", "STATE", "HELD HERE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn known_keys(layout: &Layout, only: Option<&AgentName>) -> anyhow::Result<Vec<Shown>> {
    let trust = place::read_trust(layout)?;
    let config = place::read_config(layout)?;
    let mut agents: Vec<&AgentName> = trust.agents.keys().chain(config.agents.keys()).collect();
    agents.sort_unstable();
    agents.dedup();
    agents.retain(|agent| only.is_none_or(|only| only == *agent));
    if let (Some(agent), true) = (only, agents.is_empty()) {
        bail!("{agent} is neither in exchange.toml nor in trust.json of {}", layout.root().display());
    }
    let mut shown = Vec::new();
    for agent in agents {
        let file = layout.key(agent);
        // Whoever may not look into private/ still gets to see the public keys.
        let held: Option<SigningKey> = match file.try_exists() {
            Ok(true) => Some(keyfile::read_signing_key(&file)?),
            _ => None,
        };
        let held_id = held.as_ref().map(|key| key.public().id(agent));
        for known in trust.agents.get(agent).into_iter().flat_map(|entry| &entry.keys) {
            shown.push(Shown::new(agent, &known.key, Some(&trust), held_id.as_ref() == Some(&known.id)));
        }
        if let (Some(key), Some(id)) = (&held, &held_id)
            && trust.key(id).is_none()
        {
            shown.push(Shown::new(agent, &key.public(), Some(&trust), true));
        }
    }
    Ok(shown)
}

fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let agent = &args.agent;
    place::check_agents(&layout, [agent])?;
    let key = SigningKey::from_file_text(&keyfile::read_any(&args.file)?).with_context(|| {
        format!("{} is no signing key (base64 of a 32-byte Ed25519 seed)", args.file.display())
    })?;
    let trust = place::read_trust(&layout)?;
    let id = key.public().id(agent);
    if trust.key(&id).is_some_and(|known| !known.active) {
        bail!("the key {id} is deactivated in trust.json and stays so: make {agent} a new one");
    }
    let file = layout.key(agent);
    if file.try_exists().with_context(|| file.display().to_string())? {
        let held = keyfile::read_signing_key(&file)?.public().id(agent);
        if held != id && !args.replace {
            bail!(
                "the exchange holds the key {held} of {agent}. --replace puts {id} in its place; the old one stays \
                 active until: baton key deactivate {held}"
            );
        }
    }

    operate(&layout, OperatorRequest::KeyImport { agent: agent.to_string(), key: key.to_file_text() })?;

    let mut out = output::stdout();
    if args.json {
        output::write_json(
            &mut out,
            &Shown::new(agent, &key.public(), Some(&place::read_trust(&layout)?), true),
        )?;
    } else {
        writeln!(out, "{agent} signs with {id}")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rotate(args: &RotateArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    place::check_agents(&layout, [&args.agent])?;
    let request = OperatorRequest::KeyRotate { agent: args.agent.to_string(), at_once: args.now };
    place::print_answer(&operate(&layout, request)?, args.json, "nothing changed")
}

fn deactivate(args: &DeactivateArgs) -> anyhow::Result<ExitCode> {
    let request = OperatorRequest::KeyDeactivate { key_id: args.key_id.clone() };
    let answer = operate(&args.exchange.find()?, request)?;
    place::print_answer(&answer, args.json, "nothing changed: it is deactivated")
}
