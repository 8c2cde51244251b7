//! `baton decisions`: what was decided, what waits for whose acks, and to settle what they can't.

use super::output::{self, printable};
use super::place::{ExchangeOption, ExchangePlace, operate, print_answer};
use crate::exchange::operator::OperatorRequest;
use serde_json::Value;
use std::io::Write as _;
use std::process::ExitCode;

/// Show what was decided, and what waits for whose acks until when
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
With --json: decided (the entries of decisions.jsonl), and open, escalated, lapsed, overtaken and dropped, each \
a list of {correlation_id, standing, subject, proposer, at, due, affected_domains, acked_by, missing, \
one_is_enough, counter_proposals, id}.

Examples:
  baton decisions
  baton decisions --json | jq -r '.open[] | \"\\(.subject): \\(.missing)\"'
  baton decisions settle 2026-07-28T10:00:00Z --accept"
)]
pub struct DecisionsArgs {
    #[command(subcommand)]
    command: Option<DecisionsCommand>,
    #[command(flatten)]
    place: ExchangePlace,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum DecisionsCommand {
    Settle(SettleArgs),
}

/// Enter a proposal as decided, or drop it: what its owners could not agree on is yours
#[derive(Debug, clap::Args)]
#[group(id = "verdict", required = true, multiple = false, args = ["accept", "drop"])]
struct SettleArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The proposal: its correlation_id, or its id
    id: String,
    /// Enter it in decisions.jsonl
    #[arg(long)]
    accept: bool,
    /// Drop it
    #[arg(long)]
    drop: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(args: DecisionsArgs) -> anyhow::Result<ExitCode> {
    if let Some(DecisionsCommand::Settle(settle)) = args.command {
        let layout = settle.exchange.find()?;
        let answer = operate(&layout, OperatorRequest::Settle { id: settle.id, accept: settle.accept })?;
        return print_answer(&answer, settle.json, "nothing changed");
    }
    let layout = args.place.find()?;
    let answer = operate(&layout, OperatorRequest::DecisionsList)?;
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let mut is_empty = true;
    let mut section = |name: &str, head: &str, row: &dyn Fn(&Value) -> String| -> anyhow::Result<()> {
        let entries = list(name);
        if entries.is_empty() {
            return Ok(());
        }
        writeln!(out, "{}{head}", if is_empty { "" } else { "\n" })?;
        is_empty = false;
        for entry in &entries {
            writeln!(out, "  {}", row(entry))?;
        }
        Ok(())
    };
    section("decided", "Decided", &decision)?;
    section("open", "Open", &waiting)?;
    section(
        "escalated",
        "Yours to settle, if the acks don't come (baton decisions settle ID --accept or --drop)",
        &waiting,
    )?;
    section("lapsed", "Lapsed", &|p| format!("{}; no ack of {}", proposal(p), missing(p)))?;
    section("overtaken", "Overtaken by a decision on the same domain", &proposal)?;
    section("dropped", "Dropped by you", &proposal)?;
    if is_empty {
        writeln!(out, "nothing was proposed yet")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn decision(entry: &Value) -> String {
    format!(
        "{}  {} by {}, acked by {} [{}]",
        text(&entry["ratified_at"]),
        subject(&entry["decision"]["subject"]),
        text(&entry["proposer"]),
        names(&entry["acked_by"]),
        text(&entry["decision_id"])
    )
}

fn waiting(entry: &Value) -> String {
    format!("{}; needs {} until {}", proposal(entry), missing(entry), text(&entry["due"]))
}

fn missing(entry: &Value) -> String {
    let names: Vec<String> = entry["missing"].as_array().into_iter().flatten().map(text).collect();
    names.join(if entry["one_is_enough"] == true { " or " } else { ", " })
}

fn proposal(entry: &Value) -> String {
    let id = text(&entry["correlation_id"]);
    format!("{}  {} by {} [{id}]", text(&entry["at"]), subject(&entry["subject"]), text(&entry["proposer"]))
}

fn subject(value: &Value) -> String {
    format!("\"{}\"", text(value))
}

/// A member as it is shown: an entry that was written behind the mount may hold anything.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "-".into(),
        other => printable(&other.to_string()),
    }
}

fn names(value: &Value) -> String {
    let names: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}
