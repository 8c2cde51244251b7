//! How the answers about credentials read.

use crate::cli::output::{printable, write_table};
use crate::exchange::operator::TO_MAKE_A_PROFILE;
use anyhow::Context as _;
use serde_json::Value;
use std::io::Write;

type Written = anyhow::Result<()>;

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or("-"))
}

/// The account, else the login's first digits.
fn login(value: &Value) -> String {
    if value["account"].is_string() { text(&value["account"]) } else { text(&value["fingerprint"]) }
}

/// As [`login`], within a sentence.
fn said(value: &Value) -> String {
    format!("{} {}", if value["account"].is_string() { "account" } else { "login" }, login(value))
}

/// The profiles in a status.
pub(super) fn profiles(status: &Value) -> anyhow::Result<&Vec<Value>> {
    status["profiles"]
        .as_array()
        .context("the exchange's daemon answered what this baton does not know; restart it")
}

/// What a slot holds now.
pub(super) fn held(out: &mut impl Write, done: &Value) -> Written {
    let (slot, profile, until) = (text(&done["slot"]), text(&done["profile"]), &done["expires_at"]);
    write!(out, "slot {slot} of {profile} holds {} now", said(done))?;
    if until.is_string() {
        write!(out, ", until {}", text(until))?;
    }
    writeln!(out, "{}", if done["live"] == true { ", and is live" } else { "" })?;
    Ok(())
}

/// Which slot is live now.
pub(super) fn switched(out: &mut impl Write, done: &Value) -> Written {
    writeln!(out, "{} uses slot {} now, {}", text(&done["profile"]), text(&done["slot"]), said(done))?;
    Ok(())
}

/// What was accepted.
pub(super) fn baseline(out: &mut impl Write, done: &Value) -> Written {
    let profile = text(&done["profile"]);
    let slots = done["slots"].as_array();
    for slot in slots.into_iter().flatten() {
        let (name, login) = (text(&slot["slot"]), login(slot));
        if slot["changed"] == true {
            writeln!(out, "slot {name} of {profile}: login {login} is accepted as its own")?;
        } else {
            writeln!(out, "slot {name} of {profile}: login {login} was its own already")?;
        }
    }
    if slots.is_none_or(Vec::is_empty) {
        writeln!(out, "{profile} has no slot with a login")?;
    }
    Ok(())
}

/// What happened, one line each.
pub(super) fn history(out: &mut impl Write, answer: &Value) -> Written {
    let rows: Vec<Vec<String>> = answer["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| {
            let mut notes = Vec::new();
            if record["rule"].is_string() {
                notes.push(text(&record["rule"]));
            }
            if record["recorded"].is_string() {
                notes.push(format!("instead of login {}", text(&record["recorded"])));
            }
            if record["quarantine"].is_string() {
                notes.push(format!("kept as {}", text(&record["quarantine"])));
            }
            if record["replaced"].is_string() {
                notes.push(format!("what it replaced is in {}", text(&record["replaced"])));
            }
            let login = if record["account"].is_string() { &record["account"] } else { &record["login"] };
            let row = [&record["time"], &record["slot"], &record["what"], &record["by"], login];
            row.into_iter().map(text).chain([notes.join(", ")]).collect()
        })
        .collect();
    if rows.is_empty() {
        writeln!(out, "nothing has happened to these slots yet")?;
        return Ok(());
    }
    write_table(out, &["TIME", "SLOT", "WHAT", "BY", "LOGIN", "NOTE"], &rows)
}

/// The profiles, their slots and their locks.
pub(super) fn status(out: &mut impl Write, status: &Value) -> Written {
    let profiles = profiles(status)?;
    if profiles.is_empty() {
        writeln!(out, "no credential profiles. To make one, {TO_MAKE_A_PROFILE}")?;
    }
    for profile in profiles {
        writeln!(out, "{}: live link -> {}", text(&profile["profile"]), text(&profile["live"]))?;
        if profile["stray"].is_string() {
            let (name, file) = (text(&profile["profile"]), text(&profile["stray"]));
            writeln!(
                out,
                "  {file} is a file, put there behind the mount: baton credentials add SLOT {file} --profile {name} \
                 takes it in, and baton credentials switch SLOT --profile {name} puts the link back"
            )?;
        }
        if profile["refresh_lock"].is_object() {
            writeln!(out, "  refresh lock: {}", lock(&profile["refresh_lock"]))?;
        }
        let rows: Vec<Vec<String>> =
            profile["slots"].as_array().into_iter().flatten().map(|slot| row(profile, slot)).collect();
        if rows.is_empty() {
            writeln!(out, "  no slots yet: the first login that is written becomes one")?;
        } else {
            write_table(out, &["  SLOT", "LOGIN", "EXPIRES", "LAST WRITE", "STATE"], &rows)?;
        }
    }
    Ok(())
}

fn row(profile: &Value, slot: &Value) -> Vec<String> {
    let mut state = match (slot["problem"].as_str(), slot["fresh"] == true) {
        (Some(problem), _) => printable(problem),
        (None, true) => "fresh".to_owned(),
        (None, false) => "stale".to_owned(),
    };
    if slot["drift"].is_string() {
        let (name, profile) = (text(&slot["slot"]), text(&profile["profile"]));
        let was = text(&slot["drift"]);
        state += &format!(", drift: changed behind the mount from login {was}");
        state += &if slot["problem"].is_string() {
            "; write its login again".to_owned()
        } else {
            format!("; to accept it: baton credentials baseline {name} --profile {profile}")
        };
    }
    vec![
        format!("{} {}", if slot["live"] == true { "*" } else { " " }, text(&slot["slot"])),
        login(slot),
        text(&slot["expires_at"]),
        text(&slot["last_verdict"]["verdict"]),
        state,
    ]
}

fn lock(lock: &Value) -> String {
    let age = lock["age_seconds"].as_i64().unwrap_or(0);
    let program = lock["program"].as_str().map_or(String::new(), |name| format!(" ({})", printable(name)));
    let maker = lock["pid"].as_u64().map(|pid| format!("process {pid}{program}"));
    let state = if lock["stale"] == true { "stale" } else { "held" };
    match maker {
        Some(maker) if lock["holder_ended"] == true => {
            let then = if lock["stale"] == true {
                "the next refresh takes it over"
            } else {
                "the next refresh takes it over once it is 60 s old"
            };
            format!("{state}, touched {age} s ago; its maker, {maker}, has ended: {then}")
        }
        Some(maker) => format!("{state}, made by {maker}, touched {age} s ago"),
        None => format!("{state}, made by a process unknown, touched {age} s ago"),
    }
}
