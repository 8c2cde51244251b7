//! `baton credentials`: which slots there are, whose logins they hold, and what the operator decides about them.

mod show;

use super::keyfile;
use super::output;
use super::place::{ExchangeOption, operate};
use crate::exchange::operator::{OperatorRequest, TO_MAKE_A_PROFILE};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Look after credential slots and live links
#[derive(Debug, clap::Subcommand)]
pub enum CredentialsCommand {
    /// Show the slots of each profile: which is live, whose login it holds, until when
    Status(StatusArgs),
    /// Point the live link at a slot
    Switch(SwitchArgs),
    /// Accept bytes that were refused as another login: put them into a slot
    Adopt(AdoptArgs),
    /// Accept what slots hold after they were changed behind the mount
    Baseline(BaselineArgs),
    /// Show what happened to slots: writes, refusals, switches, drift
    History(HistoryArgs),
    /// Put a login from a file into a new slot
    Add(AddArgs),
}

/// Where the slot is, and how to print the result.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// The slot's profile [default: the only one]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `baton credentials status`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
LOGIN is the first 12 digits of the refresh token's sha256. LAST WRITE is what \
was decided about the last write: captured, unchanged, rotated (a refresh), \
adopted, baseline or refused. A slot that was changed behind the mount shows \
drift, until its own login comes back or you accept the new one.

Examples:
  baton credentials status
  baton credentials status --json | jq '.profiles[].slots[] | select(.drift)'")]
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
Look before you adopt: the refusal says which login was refused, and who wrote \
it (baton refusals). From then on the slot is that login's, and its refreshes \
are accepted. What the slot held goes to quarantine; baton credentials history \
says where. Adopted bytes leave quarantine: a refresh makes them worthless. \
With --quarantine, the slot may be a new one.

Examples:
  baton credentials adopt work
  baton credentials adopt home --quarantine 1776765600000000-812-0-identity@bob")]
pub struct AdoptArgs {
    /// The slot that gets the bytes
    slot: String,
    /// The refused bytes, as `quarantine` in baton refusals names them [default: the newest for this slot, since it was changed last]
    #[arg(long, value_name = "ID")]
    quarantine: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `baton credentials switch`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same as ln -sfn .credentials.json.SLOT .credentials.json in the mounted \
profile. The slot's login must last for more than 5 minutes: otherwise the \
program that finds it may have to log in again.

Examples:
  baton credentials switch work
  baton credentials switch idle --even-if-expired")]
pub struct SwitchArgs {
    /// The slot to use from now on
    slot: String,
    /// Also where its access token has expired: the program then refreshes it
    #[arg(long)]
    even_if_expired: bool,
    #[command(flatten)]
    common: Common,
}

/// `baton credentials baseline`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A slot drifts where its file was changed behind the mount: it then holds \
another login than its sidecar (SLOT.fingerprint.json) says. Make sure that \
you know whose login it is; baton credentials history shows what was there.

Examples:
  baton credentials baseline work
  baton credentials baseline --profile codex")]
pub struct BaselineArgs {
    /// The slot to accept [default: all slots of the profile]
    slot: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `baton credentials history`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
From the events and the refusals of the exchange, oldest first. LOGIN is the \
first 12 digits of the refresh token's sha256, also of refused bytes as long as \
they are kept. NOTE says where replaced bytes are: those that you replaced by \
adopt or switch, and the login before a slot's last refresh where the files name \
no account.

Examples:
  baton credentials history work
  baton credentials history --json | jq '.history[] | select(.rule)'")]
pub struct HistoryArgs {
    /// Only this slot
    slot: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `baton credentials add`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The slot must be new; in a profile without slots it also becomes the live one. \
From then on use the login through the mount only: each refresh makes the \
tokens in FILE worthless.

Examples:
  baton credentials add work ~/.claude/.credentials.json
  pass show claude | baton credentials add home - --profile claude")]
pub struct AddArgs {
    /// The new slot
    slot: String,
    /// The login file, as the program wrote it; - for standard input
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// How a request reaches the exchange.
type Call<'a> = &'a dyn Fn(OperatorRequest) -> anyhow::Result<Value>;

/// Runs the command.
///
/// # Errors
/// What stopped it.
pub fn run(command: CredentialsCommand) -> anyhow::Result<ExitCode> {
    let exchange = match &command {
        CredentialsCommand::Status(args) => &args.exchange,
        CredentialsCommand::Switch(SwitchArgs { common, .. })
        | CredentialsCommand::Adopt(AdoptArgs { common, .. })
        | CredentialsCommand::Baseline(BaselineArgs { common, .. })
        | CredentialsCommand::History(HistoryArgs { common, .. })
        | CredentialsCommand::Add(AddArgs { common, .. }) => &common.exchange,
    };
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
    type Show<W> = fn(&mut W, &Value) -> anyhow::Result<()>;
    let (request, common, show): (OperatorRequest, Common, Show<_>) = match command {
        CredentialsCommand::Status(StatusArgs { exchange, profile, json }) => {
            let request = OperatorRequest::CredentialsStatus { profile };
            (request, Common { exchange, profile: None, json }, show::status)
        }
        CredentialsCommand::Switch(SwitchArgs { slot, even_if_expired, common }) => {
            let profile = named_or_only(&common, call)?;
            let request = OperatorRequest::CredentialsSwitch { profile, slot, even_if_expired };
            (request, common, show::switched)
        }
        CredentialsCommand::Adopt(AdoptArgs { slot, quarantine, common }) => {
            let profile = named_or_only(&common, call)?;
            (OperatorRequest::CredentialsAdopt { profile, slot, quarantine }, common, show::held)
        }
        CredentialsCommand::Baseline(BaselineArgs { slot, common }) => {
            let profile = named_or_only(&common, call)?;
            (OperatorRequest::CredentialsBaseline { profile, slot }, common, show::baseline)
        }
        CredentialsCommand::History(HistoryArgs { slot, common }) => {
            let profile = named_or_only(&common, call)?;
            (OperatorRequest::CredentialsHistory { profile, slot }, common, show::history)
        }
        CredentialsCommand::Add(AddArgs { slot, file, common }) => {
            let bytes = keyfile::read_any(&file)?;
            let text = std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()));
            let text = text.with_context(|| format!("{} is no text, so no login", file.display()))?;
            let profile = named_or_only(&common, call)?;
            (OperatorRequest::CredentialsAdd { profile, slot, text }, common, show::held)
        }
    };
    let answer = call(request)?;
    if common.json { output::write_json(out, &answer) } else { show(out, &answer) }
}

fn named_or_only(common: &Common, call: Call<'_>) -> anyhow::Result<String> {
    if let Some(profile) = &common.profile {
        return Ok(profile.clone());
    }
    let status = call(OperatorRequest::CredentialsStatus { profile: None })?;
    let profiles = show::profiles(&status)?;
    let names: Vec<_> = profiles.iter().filter_map(|profile| profile["profile"].as_str()).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => bail!("this exchange has no credential profile. To make one, {TO_MAKE_A_PROFILE}"),
        names => bail!("there are several credential profiles; choose one: --profile {}", names.join("|")),
    }
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
            matches!(&asked[1], OperatorRequest::CredentialsSwitch { profile, slot, even_if_expired: false } if profile == "claude" && slot == "work")
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
