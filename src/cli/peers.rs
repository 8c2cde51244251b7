//! `baton peers`: who is there, and who is late.

use super::output::{self, printable};
use super::place::{ExchangePlace, operate};
use crate::exchange::operator::OperatorRequest;
use serde_json::Value;
use std::process::ExitCode;

/// Show the agents: what they do, when they were seen, whose heartbeat is overdue
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --json: time, and peers by name: {state, last_seen, last_action, pairs {agent: tier of activity}, \
period_seconds, next_due, overdue_seconds, trust, heartbeats_by_mount}. In a mount, status/peers/<agent> \
shows the same to agents.

Example:
  baton peers --json | jq '.peers | map_values(.overdue_seconds)'")]
pub struct PeersArgs {
    #[command(flatten)]
    place: ExchangePlace,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(args: &PeersArgs) -> anyhow::Result<ExitCode> {
    let layout = args.place.find()?;
    let mut answer = operate(&layout, OperatorRequest::Peers)?;
    if let Some(members) = answer.as_object_mut() {
        // Nobody: who asks here is no agent.
        members.remove("you");
    }
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let peers = answer["peers"].as_object().cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|(agent, peer)| {
            let overdue = match peer["overdue_seconds"].as_i64() {
                Some(seconds) => format!("{seconds} s"),
                None => "-".into(),
            };
            vec![
                printable(agent),
                text(&peer["state"]),
                text(&peer["last_seen"]),
                format!("{} s", peer["period_seconds"]),
                text(&peer["next_due"]),
                overdue,
                text(&peer["trust"]),
                text(&peer["last_action"]),
            ]
        })
        .collect();
    let head = ["AGENT", "STATE", "LAST SEEN", "PERIOD", "NEXT DUE", "OVERDUE", "TRUST", "LAST ACTION"];
    output::write_table(&mut out, &head, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), printable)
}
