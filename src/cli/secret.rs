//! `baton secret import`: take over the secret that a pair of agents shares.

use super::keyfile;
use super::place::{self, ExchangeOption, operate};
use crate::exchange::operator::OperatorRequest;
use crate::wire::keys::PairSecret;
use crate::wire::name::AgentName;
use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::PathBuf;
use std::process::ExitCode;

/// Take over pair secrets
#[derive(Debug, clap::Subcommand)]
pub enum SecretCommand {
    /// Take over the secret with which two agents sign their handoffs
    Import(ImportArgs),
}

/// `baton secret import`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file's bytes are the secret as they are; one newline at the end is not part of it. It replaces the \
pair's secret, if there is one: handoffs that were signed with the old one can then no longer be \
published. The secret is stored 0600 in the exchange and never printed.

Example:
  head -c 32 /dev/urandom | base64 > pair.secret
  baton secret import --pair bob,alice pair.secret")]
pub struct ImportArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The two agents
    #[arg(long, value_name = "A,B", value_parser = pair)]
    pair: (AgentName, AgentName),
    /// The secret's file (`-`: standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(AgentName, AgentName), String> {
    let Some((a, b)) = text.split_once(',') else {
        return Err("name two agents, as in bob,alice".into());
    };
    let (a, b) = (keyfile::agent_name(a)?, keyfile::agent_name(b)?);
    if a == b { Err("name two different agents".into()) } else { Ok((a, b)) }
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: SecretCommand) -> anyhow::Result<ExitCode> {
    let SecretCommand::Import(args) = command;
    let layout = args.exchange.find()?;
    let (a, b) = args.pair;
    place::check_agents(&layout, [&a, &b])?;
    let bytes = keyfile::read_any(&args.file)?;
    if PairSecret::from_file_bytes(&bytes).as_bytes().is_empty() {
        bail!("{} is empty: a secret needs bytes, best 32 random ones", args.file.display());
    }
    let request = OperatorRequest::SecretImport {
        a: a.to_string(),
        b: b.to_string(),
        secret: STANDARD.encode(&*bytes).into(),
    };
    let answer = operate(&layout, request)?;
    place::print_answer(&answer, args.json, &format!("the secret of {a} and {b} is in place"))
}
