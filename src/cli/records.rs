//! `baton refusals` and `baton events`: what was refused and what happened, as tables or as they stand.

use super::output::{self, printable};
use super::place::{ExchangeOption, ExchangePlace, operate, print_answer};
use crate::exchange::operator::OperatorRequest;
use anyhow::Context as _;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

/// Show what was refused, to whom, by which rule, and what to do about it
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
The exchange's folder shows every refusal; a mount of it shows those of the reader. The refused bytes \
are kept in the exchange, in the file that the last column names, up to quarantine_bytes for each agent \
(exchange.toml); baton refusals clear makes room.

Examples:
  baton refusals ./exchange --last 20
  baton refusals ./exchange --json | jq -r .advice
  baton refusals clear --older-than 30"
)]
pub struct RefusalsArgs {
    #[command(flatten)]
    records: RecordsArgs,
    #[command(subcommand)]
    command: Option<RefusalsCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum RefusalsCommand {
    /// Delete refused bytes that were kept; look at them first
    Clear(ClearArgs),
}

/// `baton refusals clear`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The list of refusals stays; only the kept bytes go. What the exchange itself took aside (torn lines after a \
crash, credentials that were removed) stays too.")]
struct ClearArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Only this agent's [default: everybody's]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only what was refused at least so many days ago
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Show what happened in an exchange
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The events are hash-chained: baton verify proves them and what they say about the logs and handoffs.

Examples:
  baton events ./exchange --last 20
  baton events ./exchange --json | jq 'select(.event == \"claimed\")'")]
pub struct EventsArgs {
    #[command(flatten)]
    records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
struct RecordsArgs {
    #[command(flatten)]
    place: ExchangePlace,
    /// Only the last N
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Print the records as they are stored: one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs `baton refusals`.
///
/// # Errors
/// What stopped it.
pub fn run_refusals(args: &RefusalsArgs) -> anyhow::Result<ExitCode> {
    if let Some(RefusalsCommand::Clear(args)) = &args.command {
        let layout = args.exchange.find()?;
        let request =
            OperatorRequest::RefusalsClear { agent: args.agent.clone(), older_than_days: args.older_than };
        return print_answer(&operate(&layout, request)?, args.json, "there was nothing to delete");
    }
    let args = &args.records;
    let file = args.place.find_record(|layout| layout.refusals().join("all.jsonl"), "refusals.jsonl")?;
    show(
        &file,
        args,
        "TIME                         WHO         OPERATION   RULE            WHERE AND WHAT TO DO",
        |m| {
            let who = match m.get("agent").and_then(Value::as_str) {
                Some(agent) => printable(agent),
                None => format!("uid {}", text(m, "uid")),
            };
            let kept = match m.get("quarantine").and_then(Value::as_str) {
                Some(kept) => format!(" [kept: {}]", printable(kept)),
                None => String::new(),
            };
            format!(
                "{:<27}  {who:<10}  {:<10}  {:<14}  {}: {}{kept}",
                text(m, "time"),
                text(m, "operation"),
                text(m, "rule"),
                text(m, "path"),
                text(m, "advice")
            )
        },
    )
}

/// Runs `baton events`.
///
/// # Errors
/// What stopped it.
pub fn run_events(args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let args = &args.records;
    let file = args.place.find_record(|layout| layout.events(), "events.jsonl")?;
    show(&file, args, "SEQ     TIME                         EVENT               DETAILS", |m| {
        let details: Vec<_> = m
            .iter()
            .filter(|(key, _)| {
                !matches!(key.as_str(), "seq" | "time" | "event" | "prev" | "sha256" | "staged")
            })
            .map(|(key, _)| format!("{}={}", printable(key), text(m, key)))
            .collect();
        let (seq, time, event) = (text(m, "seq"), text(m, "time"), text(m, "event"));
        format!("{seq:<6}  {time:<27}  {event:<18}  {}", details.join(" "))
    })
}

fn text(members: &Map<String, Value>, key: &str) -> String {
    match members.get(key) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => printable(text),
        Some(other) => printable(&other.to_string()),
    }
}

fn show(
    file: &Path,
    args: &RecordsArgs,
    head: &str,
    row: impl Fn(&Map<String, Value>) -> String,
) -> anyhow::Result<ExitCode> {
    let name = || file.display().to_string();
    let mut out = output::stdout();
    if !args.json {
        writeln!(out, "{head}")?;
    }
    let mut print = |line: &[u8]| -> anyhow::Result<()> {
        if args.json {
            out.write_all(line)?;
        } else {
            match serde_json::from_slice(line) {
                Ok(members) => out.write_all(row(&members).trim_end().as_bytes())?,
                Err(_) => out.write_all(printable(&String::from_utf8_lossy(line)).as_bytes())?,
            }
        }
        Ok(out.write_all(b"\n")?)
    };

    // An exchange in which nothing was refused yet has no file.
    let lines = match File::open(file) {
        Ok(open) => Some(BufReader::new(open).split(b'\n')),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(name),
    };
    let mut last = VecDeque::new();
    for line in lines.into_iter().flatten() {
        let line = line.with_context(name)?;
        match args.last {
            None => print(&line)?,
            Some(0) => break,
            Some(most) => {
                if last.len() == most {
                    last.pop_front();
                }
                last.push_back(line);
            }
        }
    }
    for line in last {
        print(&line)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
