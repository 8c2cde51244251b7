//! `baton verify`: prove an exchange from its files alone.

use super::output::{self, printable};
use super::place::ExchangePlace;
use crate::exchange::verify::{self, Report};
use std::io::Write as _;
use std::process::ExitCode;

/// Prove an exchange from its files alone, and list every fault
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks every line of every log (JSON, signature, replay), that the logs are byte for byte what the \
hash-chained events.jsonl says was appended, that every handoff is where and what the events say, the \
credential slots, and the modes of what is private. Needs no daemon; while one runs, what is under way \
is left out. Exit status: 0 when there is no fault, 1 otherwise.

The last event's hash is printed: note it elsewhere, and a later run can show that nothing before it was \
rewritten (it is then the `prev` of some line in events.jsonl).

With --json: faults [{file, line, rule, problem, mended_by_a_mount}], counts {events, logs, lines, \
handoffs, slots}, head (that hash), live (whether a daemon runs).

Example:
  baton verify ./exchange --json | jq -r '.faults[] | .file, .rule'")]
pub struct VerifyArgs {
    #[command(flatten)]
    place: ExchangePlace,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What kept it from looking at the exchange at all.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let layout = args.place.find()?;
    let report = verify::verify(layout.root())?;
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &report)?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(out: &mut impl std::io::Write, report: &Report) -> anyhow::Result<()> {
    for fault in &report.faults {
        write!(out, "{}", printable(&fault.file))?;
        if let Some(line) = fault.line {
            write!(out, ":{line}")?;
        }
        writeln!(out, ": {}: {}", fault.rule, printable(&fault.problem))?;
    }
    let counts = &report.counts;
    let result = match report.faults.len() as u64 {
        0 => "verified".to_owned(),
        n => count(n, "fault"),
    };
    writeln!(
        out,
        "{result}: {}, {} with {}, {}, {}{}",
        count(counts.events, "event"),
        count(counts.logs, "log"),
        count(counts.lines, "line"),
        count(counts.handoffs, "handoff"),
        count(counts.slots, "credential slot"),
        if report.live { " (its daemon runs; what is under way is left out)" } else { "" }
    )?;
    match &report.head {
        Some(head) => writeln!(out, "head of the event chain: {head}")?,
        None => writeln!(out, "head of the event chain: none, there are no events")?,
    }
    if !report.live && report.faults.iter().any(|f| f.mended_by_a_mount) {
        writeln!(
            out,
            "Some of this is what a crash leaves behind: mount the exchange once so that it recovers, then \
             verify again."
        )?;
    }
    Ok(())
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
