//! `baton import` and `baton export`: moving in and out.

use super::output::{self, printable};
use super::place::{ExchangeOption, operate, print_answer};
use crate::exchange::export::ExportRequest;
use crate::exchange::import::ImportRequest;
use crate::exchange::operator::OperatorRequest;
use anyhow::Context as _;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Take in the logs of an existing _coordination/ folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes <a>_to_<b>.jsonl, inbox/, outbox/, decisions.jsonl, incident_log.jsonl and archive/<year>/. Every line \
is judged as baton verify judges: any key that is or was trusted counts, the clock does not. Right lines go to \
the same log here, in their order; messages come to their recipients' inboxes too, each once. Nobody acts on \
them. Lines that can't come in are listed by file, line and rule, and kept aside in private/quarantine. DIR is \
not changed, and what is here already is skipped: run it again after an interruption or once a fault is mended.

Exit status: 0 when every line came in, 1 otherwise.

With --json: files [{file, log, lines, imported, duplicates, refused, kept_aside}], delivered {log: lines}, refused \
[{file, line, rule, problem}], unknown_agents, add_to_exchange_toml, handoffs_left, left, hints.

Examples:
  baton import ~/project/_coordination --with-trust
  baton import ./old --json | jq -c '.refused[] | [.file, .line, .problem]'")]
pub struct ImportArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Take lines without a signature too: you vouch for them
    #[arg(long)]
    allow_unsigned: bool,
    /// Merge DIR/trust.json first, as baton trust import does
    #[arg(long)]
    with_trust: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Write the logs, handoffs and the trust list into a plain folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder is a _coordination/ folder as programs without a mount read it: logs, archive/<year>/, the handoff \
folders and trust.json, all as they stood at one moment. No keys and no secrets; memory/ is the agents' \
own to copy. Works while the exchange is mounted. baton import takes it in again.

Example:
  baton export ./backup-2026")]
pub struct ExportArgs {
    /// The folder: new or empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Replace files with the same names in a folder that is not empty
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `baton import`.
///
/// # Errors
/// What stopped it.
pub fn run_import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let dir = args.dir.canonicalize().with_context(|| args.dir.display().to_string())?;
    let (allow_unsigned, with_trust) = (args.allow_unsigned, args.with_trust);
    let request = OperatorRequest::Import(ImportRequest { dir: dir.clone(), allow_unsigned, with_trust });
    let report = operate(&layout, request)?;
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &report)?;
    } else {
        print_import(&mut out, &dir, &report)?;
    }
    out.flush()?;
    let complete = report["refused"].as_array().is_none_or(Vec::is_empty);
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `baton export`.
///
/// # Errors
/// What stopped it.
pub fn run_export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    // The daemon, which may carry this out, is in another folder.
    let dir = std::path::absolute(&args.dir).with_context(|| args.dir.display().to_string())?;
    let request = OperatorRequest::Export(ExportRequest { dir, force: args.force });
    print_answer(&operate(&layout, request)?, args.json, "nothing was written")
}

fn print_import(out: &mut impl Write, dir: &Path, report: &Value) -> anyhow::Result<()> {
    let list = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| printable(value.as_str().unwrap_or_default());
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    for refused in list("refused") {
        let (file, rule, problem) =
            (text(&refused["file"]), text(&refused["rule"]), text(&refused["problem"]));
        writeln!(out, "{file}:{}: {rule}: {problem}", refused["line"])?;
    }
    let mut rows = Vec::new();
    for file in list("files") {
        let counts = ["lines", "imported", "duplicates", "refused"].map(|key| number(&file[key]).to_string());
        let kept = file["kept_aside"].as_str().map_or_else(String::new, printable);
        rows.push([vec![text(&file["file"])], counts.to_vec(), vec![kept]].concat());
    }
    output::write_table(out, &["FILE", "LINES", "IMPORTED", "KNOWN", "REFUSED", "KEPT ASIDE IN"], &rows)?;
    for (log, lines) in report["delivered"].as_object().into_iter().flatten() {
        writeln!(out, "{lines} delivered to {}", printable(log))?;
    }
    if !list("unknown_agents").is_empty() {
        writeln!(out, "\nUnknown agents. To let them in, add this to exchange.toml and import again:")?;
        for line in report["add_to_exchange_toml"].as_str().unwrap_or_default().lines() {
            writeln!(out, "  {}", printable(line))?;
        }
    }
    for (state, handoffs) in report["handoffs_left"].as_object().into_iter().flatten() {
        writeln!(out, "left where they are: {handoffs} handoffs in {}/{state}", dir.display())?;
    }
    for left in list("left") {
        writeln!(out, "left where it is: {}", text(&left))?;
    }
    for hint in list("hints") {
        writeln!(out, "{}", text(&hint))?;
    }
    Ok(())
}
