//! `baton archive`: a year's lines move out of the live logs.

use super::place::{ExchangeOption, operate, print_answer};
use crate::exchange::operator::OperatorRequest;
use std::process::ExitCode;

/// Move what the logs hold into archive/<year>/, so that they start empty
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Inboxes, outboxes, bilateral logs and the incident log are archived; decisions stay whole and where they are. \
Nothing is lost, programs that follow a log go on following it, and an archived message is still refused as a \
replay. While the exchange is mounted this happens by itself when a year has ended. A second archive of a log in \
one year is archive/<year>/<log>.2.jsonl.

Example:
  baton archive --exchange ./exchange")]
pub struct ArchiveArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The year to archive under [default: this year]
    #[arg(long, value_name = "YEAR")]
    year: Option<i16>,
    /// Print what was archived as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(args: &ArchiveArgs) -> anyhow::Result<ExitCode> {
    let layout = args.exchange.find()?;
    let answer = operate(&layout, OperatorRequest::Archive { year: args.year })?;
    print_answer(&answer, args.json, "there was nothing to archive: the logs hold no lines")
}
