//! `baton sign`: messages in, signed lines out.

use super::{keyfile, output, place::ExchangeOption};
use crate::rules::Refusal;
use crate::wire::json::{ObjectStream, StreamedObject};
use crate::wire::message::{self, SignatureVersion};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use anyhow::{Context as _, anyhow, bail};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Complete and sign messages: JSON objects on standard input, signed lines on standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What a message lacks of from, timestamp, correlation_id, refs, priority and ack_required is filled in. \
Objects may stand on one line or many, with anything white between them. Each line is written as soon \
as its object is complete; the first object that can't be signed ends the command.

Examples:
  echo '{\"type\":\"request\",\"subject\":\"build\",\"body\":\"please rebuild\"}' |
      baton sign --as bob >> mnt/inbox/alice.jsonl
  baton sign --as bob --key ~/.config/bob.key < messages.json
      with a key held outside the exchange (mode 0600); needs no exchange")]
pub struct SignArgs {
    #[command(flatten)]
    exchange: ExchangeOption,
    /// Whose messages they are
    #[arg(long = "as", value_name = "AGENT", value_parser = keyfile::agent_name)]
    agent: AgentName,
    /// The signing key's file [default: the one in the exchange]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Sign as v3 (over the canonical message) instead of v3.1 (over event_id)
    #[arg(long)]
    v3: bool,
}

/// Runs the command. `clock` tells the time of each message that has no timestamp.
///
/// # Errors
/// What stopped it.
pub fn run(args: SignArgs, clock: impl Fn() -> Timestamp) -> anyhow::Result<ExitCode> {
    let key = match args.key {
        Some(file) => keyfile::read_signing_key(&file)?,
        None => {
            let file = args.exchange.find()?.key(&args.agent);
            keyfile::read_signing_key(&file).with_context(|| {
                format!(
                    "no key to sign as {} with. Give --key FILE, or import one: baton key import --as {} FILE",
                    args.agent, args.agent
                )
            })?
        }
    };
    let version = if args.v3 { SignatureVersion::V3 } else { SignatureVersion::V31 };

    let mut out = output::stdout();
    let mut input = std::io::stdin().lock();
    let mut stream = ObjectStream::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut number = 0_usize;
    loop {
        let read = input.read(&mut buffer).context("standard input")?;
        if read == 0 {
            break;
        }
        let objects = stream.push(&buffer[..read]).map_err(|e| {
            // Those before the broken one in the same piece of input are not signed either.
            anyhow!("an object after object {number} is not acceptable JSON: {e} of that object")
        })?;
        for StreamedObject { object, .. } in objects {
            number += 1;
            let line = message::sign(object, &args.agent, &key, version, clock())
                .map_err(|e| anyhow!("object {number}: {}", Refusal::from(e)))?;
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
    }
    if !stream.pending().is_empty() {
        bail!("object {} is incomplete: standard input ends inside it", number + 1);
    }
    if number == 0 {
        bail!("no message on standard input; see baton sign --help for an example");
    }
    Ok(ExitCode::SUCCESS)
}
