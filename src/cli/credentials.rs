//! `baton credentials`: which slots there are, to accept refused bytes, to switch.

use super::output;
use super::place::{ExchangeOption, operate};
use crate::exchange::operator::OperatorRequest;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::Write as _;
use std::process::ExitCode;

/// Look after credential slots and live links
#[derive(Debug, clap::Subcommand)]
pub enum CredentialsCommand {
    /// Show the slots of each profile: which is live, whose login it holds, until when
    Status(StatusArgs),
    /// Accept bytes that were refused as another login: put them into a slot
    Adopt(AdoptArgs),
    /// Point the live link at a slot
    Switch(SwitchArgs),
}

/// `baton credentials status`
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Only this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `baton credentials adopt`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Look before you adopt: the refusal says which login was refused, and who wrote it (baton refusals). \
From then on the slot is that login's, and its refreshes are accepted.")]
pub struct AdoptArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The slot that gets the bytes
    slot: String,
    /// The slot's profile [default: the only one]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The refused bytes, as `quarantine` in baton refusals names them [default: the newest for this slot]
    #[arg(long, value_name = "ID")]
    quarantine: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `baton credentials switch`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same as ln -sfn .credentials.json.SLOT .credentials.json in the mounted profile. The slot's login must \
last for more than 5 minutes.")]
pub struct SwitchArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The slot to use from now on
    slot: String,
    /// The slot's profile [default: the only one]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How a request reaches the exchange.
type Call<'a> = &'a dyn Fn(OperatorRequest) -> anyhow::Result<Value>;

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: CredentialsCommand) -> anyhow::Result<ExitCode> {
    let (CredentialsCommand::Status(StatusArgs { exchange, .. })
    | CredentialsCommand::Adopt(AdoptArgs { exchange, .. })
    | CredentialsCommand::Switch(SwitchArgs { exchange, .. })) = &command;
    let layout = exchange.find()?;
    let mut out = output::stdout();
    run_with(command, &|request| operate(&layout, request), &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn run_with(
    command: CredentialsCommand,
    call: Call<'_>,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    match command {
        CredentialsCommand::Status(args) => {
            let status = call(OperatorRequest::CredentialsStatus { profile: args.profile })?;
            if args.json { output::write_json(out, &status) } else { write_status(out, &status) }
        }
        CredentialsCommand::Adopt(AdoptArgs { slot, profile, quarantine, json, .. }) => {
            let profile = named_or_only(profile, call)?;
            let done = call(OperatorRequest::CredentialsAdopt { profile, slot, quarantine })?;
            if json {
                return output::write_json(out, &done);
            }
            let text = |member: &str| output::printable(done[member].as_str().unwrap_or("?"));
            writeln!(
                out,
                "slot {} of {} holds login {} now, until {}",
                text("slot"),
                text("profile"),
                text("fingerprint"),
                text("expires_at")
            )?;
            Ok(())
        }
        CredentialsCommand::Switch(SwitchArgs { slot, profile, json, .. }) => {
            let profile = named_or_only(profile, call)?;
            let done = call(OperatorRequest::CredentialsSwitch { profile, slot, even_if_expired: false })?;
            if json {
                return output::write_json(out, &done);
            }
            let text = |member: &str| output::printable(done[member].as_str().unwrap_or("?"));
            writeln!(
                out,
                "{} uses slot {} now, login {}",
                text("profile"),
                text("slot"),
                text("fingerprint")
            )?;
            Ok(())
        }
    }
}

fn named_or_only(profile: Option<String>, call: Call<'_>) -> anyhow::Result<String> {
    if let Some(profile) = profile {
        return Ok(profile);
    }
    let status = call(OperatorRequest::CredentialsStatus { profile: None })?;
    let names: Vec<_> = profiles(&status)?.iter().filter_map(|profile| profile["profile"].as_str()).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => bail!("this exchange has no credential profile: add [credentials.<name>] to its exchange.toml"),
        names => bail!("there are several credential profiles; choose one: --profile {}", names.join("|")),
    }
}

fn profiles(status: &Value) -> anyhow::Result<&Vec<Value>> {
    status["profiles"]
        .as_array()
        .context("the exchange's daemon answered what this baton does not know; restart it")
}

fn write_status(out: &mut impl std::io::Write, status: &Value) -> anyhow::Result<()> {
    let profiles = profiles(status)?;
    if profiles.is_empty() {
        writeln!(out, "no credential profiles: add [credentials.<name>] to exchange.toml")?;
    }
    let text = |value: &Value| output::printable(value.as_str().unwrap_or("-"));
    for profile in profiles {
        writeln!(out, "{}: live link -> {}", text(&profile["profile"]), text(&profile["live"]))?;
        let lock = &profile["refresh_lock"];
        if let Some(age) = lock["age_seconds"].as_i64() {
            let by =
                lock["pid"].as_u64().map_or("a process unknown".to_owned(), |pid| format!("process {pid}"));
            let state = if lock["stale"] == true { "stale" } else { "held" };
            writeln!(out, "  refresh lock: {state}, made by {by}, touched {age} s ago")?;
        }
        let rows: Vec<Vec<String>> = profile["slots"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|slot| {
                let state = match (slot["problem"].as_str(), slot["fresh"] == true) {
                    (Some(problem), _) => output::printable(problem),
                    (None, true) => "fresh".to_owned(),
                    (None, false) => "stale".to_owned(),
                };
                vec![
                    format!("{} {}", if slot["live"] == true { "*" } else { " " }, text(&slot["slot"])),
                    text(&slot["fingerprint"]),
                    text(&slot["expires_at"]),
                    text(&slot["last_verdict"]["verdict"]),
                    state,
                ]
            })
            .collect();
        if rows.is_empty() {
            writeln!(out, "  no slots yet: the first login written to .credentials.json becomes one")?;
        } else {
            output::write_table(out, &["  SLOT", "LOGIN", "EXPIRES", "LAST WRITE", "STATE"], &rows)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use serde_json::json;
    use std::cell::RefCell;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: CredentialsCommand,
    }

    fn answered(args: &[&str], profiles: Value) -> (anyhow::Result<String>, Vec<OperatorRequest>) {
        let command = Line::try_parse_from([&["credentials"], args].concat()).unwrap().command;
        let asked = RefCell::new(Vec::new());
        let call = |request: OperatorRequest| {
            asked.borrow_mut().push(request.clone());
            Ok(match request {
                OperatorRequest::CredentialsStatus { .. } => json!({ "profiles": profiles }),
                _ => {
                    json!({"profile": "claude", "slot": "work", "fingerprint": "0123456789ab", "expires_at": "x"})
                }
            })
        };
        let mut out = Vec::new();
        let result = run_with(command, &call, &mut out).map(|()| String::from_utf8(out).unwrap());
        (result, asked.into_inner())
    }

    #[test]
    fn the_only_profile_needs_no_name() {
        let (result, asked) = answered(&["switch", "work"], json!([{"profile": "claude"}]));
        assert_eq!(result.unwrap(), "claude uses slot work now, login 0123456789ab\n");
        assert!(
            matches!(&asked[1], OperatorRequest::CredentialsSwitch { profile, slot, .. } if profile == "claude" && slot == "work")
        );
    }

    #[test]
    fn of_several_profiles_one_is_to_be_chosen() {
        let (result, _) = answered(&["adopt", "work"], json!([{"profile": "a"}, {"profile": "b"}]));
        assert!(result.unwrap_err().to_string().contains("--profile a|b"));
    }

    #[test]
    fn status_shows_each_slot_on_a_line() {
        let slot = json!({"slot": "work", "live": true, "fingerprint": "0123456789ab", "expires_at": "2030-01-01T00:00:00Z",
            "fresh": true, "last_verdict": {"verdict": "rotated", "at": "x"}, "problem": null});
        let lock = json!({"pid": 7, "process_group": 7, "age_seconds": 3, "stale": false});
        let profile = json!([{"profile": "claude", "live": "work", "slots": [slot], "refresh_lock": lock}]);
        let (result, _) = answered(&["status"], profile);
        let shown = result.unwrap();
        assert!(shown.contains("claude: live link -> work\n"), "{shown}");
        assert!(shown.contains("refresh lock: held, made by process 7, touched 3 s ago"), "{shown}");
        assert!(shown.contains("* work  0123456789ab  2030-01-01T00:00:00Z  rotated"), "{shown}");
    }
}
