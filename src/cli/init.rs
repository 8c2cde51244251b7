//! `baton init`: make an exchange.

use super::output;
use crate::exchange::init::{self, NewAgent};
use crate::wire::time::Timestamp;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make an exchange: keys, pair secrets, trust list and exchange.toml
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  baton init ./exchange --agent bob --agent alice
      two agents of one user, each with its own mount (baton mount --as bob)
  baton init ./exchange --agent bob=1001 --agent alice=$(id -u alice)
      agents that are users of their own; one mount serves all of them

DIR is made, or must be empty. Every agent gets an Ed25519 key, every pair of agents a secret for \
handoffs, and everybody is trusted (ATTESTED). DIR/exchange.toml says how to change all that.")]
pub struct InitArgs {
    /// The exchange's folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// An agent, and the user id that acts as it; once for each agent
    #[arg(long = "agent", value_name = "NAME[=UID]", required = true)]
    agents: Vec<NewAgent>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(args: InitArgs, now: Timestamp) -> anyhow::Result<ExitCode> {
    let created = init::create(&args.dir, &args.agents, now)?;
    let dir = args.dir.canonicalize()?;
    let mut out = output::stdout();
    if args.json {
        let agents: Vec<_> = created
            .agents
            .iter()
            .map(|(agent, id)| {
                serde_json::json!({"agent": agent.name.as_str(), "uid": agent.uid, "key_id": id.to_string()})
            })
            .collect();
        let made = serde_json::json!({"exchange": dir, "agents": agents, "pair_secrets": created.pairs});
        output::write_json(&mut out, &made)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "made the exchange {}", dir.display())?;
    for (agent, id) in &created.agents {
        match agent.uid {
            Some(uid) => writeln!(out, "  {} is uid {uid}, key {id}", agent.name)?,
            None => writeln!(out, "  {} has key {id}", agent.name)?,
        }
    }
    // A mount without --as tells agents apart by uid only.
    let bound = match created.agents.first() {
        Some((agent, _)) if agent.uid.is_none() => format!(" --as {}", agent.name),
        _ => String::new(),
    };
    writeln!(out, "mount it: baton mount {} MOUNTPOINT{bound}", args.dir.display())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
