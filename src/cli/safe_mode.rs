//! `baton safe-mode`: whether the exchange has stopped because of an incident, and to lift that.

use super::output::{self, printable};
use super::place::{ExchangeOption, operate, print_answer};
use crate::exchange::operator::OperatorRequest;
use std::io::Write as _;
use std::process::ExitCode;

/// Show whether the exchange is in safe mode, and lift it
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
An incident that nobody acks in time stops all messages but acks, heartbeats and incidents, and all handoffs, \
until you lift safe mode. With --json: on, and since, incident (its id), from, subject.

Examples:
  baton safe-mode
  baton safe-mode clear"
)]
pub struct SafeModeArgs {
    #[command(subcommand)]
    command: Option<SafeModeCommand>,
    #[command(flatten)]
    status: PlainArgs,
}

#[derive(Debug, clap::Subcommand)]
enum SafeModeCommand {
    /// Show whether it is on, since when, why, and what to do
    Status(PlainArgs),
    /// Lift it: all messages and handoffs pass again
    Clear(PlainArgs),
}

#[derive(Debug, clap::Args)]
struct PlainArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(args: SafeModeArgs) -> anyhow::Result<ExitCode> {
    match args.command.unwrap_or(SafeModeCommand::Status(args.status)) {
        SafeModeCommand::Clear(args) => {
            let answer = operate(&args.exchange.find()?, OperatorRequest::SafeModeClear)?;
            print_answer(&answer, args.json, "safe mode is off")
        }
        SafeModeCommand::Status(args) => {
            let mut answer = operate(&args.exchange.find()?, OperatorRequest::SafeModeStatus)?;
            let text = answer["text"].take();
            let mut out = output::stdout();
            if args.json {
                if let Some(members) = answer.as_object_mut() {
                    members.remove("text");
                }
                output::write_json(&mut out, &answer)?;
                return Ok(ExitCode::SUCCESS);
            }
            for line in text.as_str().unwrap_or_default().lines() {
                writeln!(out, "{}", printable(line))?;
            }
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
