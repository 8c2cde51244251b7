//! `baton status`: whether an exchange's daemon runs, what it serves, and what the exchange holds.

use super::output;
use super::place::{self, ExchangePlace};
use crate::daemon::protocol::CONFIG_CHANGED;
use crate::daemon::{self, Request, StatusReport};
use crate::exchange::handoffs::State;
use crate::exchange::layout::Layout;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show an exchange: its daemon and mounts, agents, handoffs and logs
///
/// Read from its files, so it also answers when no daemon runs.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: exchange, running, daemon {pid, version, durability, \
hardening {core_dumps_off, memory_locked}, config_changed (exchange.toml, since the daemon read it), mounts [{mountpoint, as, passthrough, \
allow_other, durability}]}, agents [{name, uid, tier}], handoffs {handoff, claimed, archive, rejected}, \
logs [{path, bytes}], refusals (how many), last_event. A member is null where there is none, or where \
this user may not look.

Example:
  baton status ./exchange --json | jq -r '.daemon.mounts[].mountpoint'")]
pub struct StatusArgs {
    #[command(flatten)]
    place: ExchangePlace,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints; `--help` names the members.
#[derive(Debug, Serialize)]
struct Status {
    exchange: PathBuf,
    running: Option<bool>,
    daemon: Option<StatusReport>,
    agents: Vec<Agent>,
    /// How many handoffs are in each of the four directories.
    handoffs: BTreeMap<&'static str, Option<usize>>,
    logs: Vec<Log>,
    refusals: Option<usize>,
    last_event: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Agent {
    name: String,
    uid: Option<u32>,
    /// Null for an agent without a trusted key.
    tier: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Log {
    path: String,
    bytes: u64,
}

/// Runs the command.
///
/// # Errors
/// There is no exchange, or its configuration can't be read.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let layout = args.place.find()?;
    let status = gather(&layout)?;
    let mut out = output::stdout();
    if args.json {
        output::write_json(&mut out, &status)?;
    } else {
        write(&mut out, &status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(layout: &Layout) -> anyhow::Result<Status> {
    let config = place::read_config(layout)?;
    let trust = place::read_trust(layout).unwrap_or_default();
    let agents = config.agents.iter().map(|(name, agent)| Agent {
        name: name.to_string(),
        uid: agent.uid,
        tier: trust.agents.get(name).map(|entry| entry.tier.as_str()),
    });
    let daemon = match daemon::call(layout.root(), &Request::Status) {
        Ok(Some(response)) => response.parse().ok(),
        Ok(None) | Err(_) => None,
    };
    Ok(Status {
        exchange: layout.root().to_owned(),
        running: daemon::is_running(layout.root()).ok(),
        daemon,
        agents: agents.collect(),
        handoffs: State::ALL
            .into_iter()
            .map(|state| (state.dir(), count_handoffs(&layout.tree(state.dir())).ok()))
            .collect(),
        logs: logs(layout)?,
        refusals: count_lines(&layout.refusals().join("all.jsonl")).ok(),
        last_event: last_line(&layout.events()).ok().and_then(|line| serde_json::from_slice(&line).ok()),
    })
}

fn count_handoffs(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".json") && !name.ends_with(".reason.json") && !name.starts_with('.') {
            count += 1;
        }
    }
    Ok(count)
}

fn logs(layout: &Layout) -> anyhow::Result<Vec<Log>> {
    let mut logs = Vec::new();
    for (folder, prefix) in [(layout.root().to_owned(), ""), (layout.tree("inbox"), "inbox/")] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".jsonl")) else { continue };
            if entry.path() != layout.events() {
                logs.push(Log { path: format!("{prefix}{name}"), bytes: entry.metadata()?.len() });
            }
        }
    }
    logs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(logs)
}

fn count_lines(path: &Path) -> io::Result<usize> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut count = 0;
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(count),
            n => count += block[..n].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

/// The last complete line, which may be long, without reading what is before it.
fn last_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    let mut reach = 4096;
    loop {
        let start = size.saturating_sub(reach);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        (&mut file).take(size - start).read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let line_start = tail[..end].iter().rposition(|byte| *byte == b'\n').map(|newline| newline + 1);
        match line_start {
            Some(line_start) => return Ok(tail[line_start..end].to_vec()),
            None if start == 0 => return Ok(tail[..end].to_vec()),
            None => reach *= 4,
        }
    }
}

fn write(out: &mut impl Write, status: &Status) -> anyhow::Result<()> {
    writeln!(out, "{}", status.exchange.display())?;
    match (&status.daemon, status.running) {
        (Some(daemon), _) => {
            writeln!(
                out,
                "  served by process {} (batonfs {}, durability {})",
                daemon.pid, daemon.version, daemon.durability
            )?;
            let hardening = daemon.hardening;
            writeln!(
                out,
                "  its memory: {}, {}",
                if hardening.core_dumps_off { "never dumped" } else { "a crash may write it to a core file" },
                if hardening.memory_locked { "never swapped out" } else { "may be swapped out" },
            )?;
            if daemon.config_changed {
                writeln!(out, "  {CONFIG_CHANGED}")?;
            }
            for mount in &daemon.mounts {
                writeln!(
                    out,
                    "  mounted at {}{}{}{}",
                    mount.mountpoint.display(),
                    mount.bound.as_ref().map(|agent| format!(" as {agent}")).unwrap_or_default(),
                    if mount.allow_other { ", other users let in" } else { "" },
                    if mount.passthrough { ", kernel passthrough" } else { "" },
                )?;
            }
        }
        (None, Some(false)) => writeln!(out, "  not mounted: baton mount {} MNT", status.exchange.display())?,
        (None, Some(true)) => writeln!(out, "  in use by a process that does not answer")?,
        (None, None) => writeln!(out, "  whether it is served only its owner may see")?,
    }
    let count = |number: &Option<usize>| number.map_or("?".to_owned(), |number| number.to_string());
    let states: Vec<String> =
        State::ALL.iter().map(|s| format!("{} {}", count(&status.handoffs[s.dir()]), s.dir())).collect();
    writeln!(out, "  handoffs: {}", states.join(", "))?;
    writeln!(out, "  refusals: {}", count(&status.refusals))?;
    if let Some(event) = &status.last_event {
        let member = |name: &str| event[name].as_str().map(output::printable).unwrap_or_default();
        writeln!(out, "  last event: {} {}", member("time"), member("event"))?;
    }
    writeln!(out)?;
    let rows: Vec<Vec<String>> = status
        .agents
        .iter()
        .map(|agent| {
            let uid = agent.uid.map_or("-".to_owned(), |uid| uid.to_string());
            vec![agent.name.clone(), uid, agent.tier.unwrap_or("no key").to_owned()]
        })
        .collect();
    output::write_table(out, &["AGENT", "UID", "TIER"], &rows)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> =
        status.logs.iter().map(|log| vec![output::printable(&log.path), log.bytes.to_string()]).collect();
    output::write_table(out, &["LOG", "BYTES"], &rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_is_found_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.jsonl");
        let long = "x".repeat(100_000);
        for (text, last) in [
            (String::new(), ""),
            ("one\n".to_owned(), "one"),
            ("one\ntwo\ntorn".to_owned(), "two"),
            (format!("one\n{long}\n"), long.as_str()),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(last_line(&file).unwrap(), last.as_bytes());
        }
    }

    #[test]
    fn reasons_and_drafts_are_not_counted_as_handoffs() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.json.reason.json", "b.reason.json", ".c.json", "d.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(count_handoffs(folder.path()).unwrap(), 1);
    }
}
