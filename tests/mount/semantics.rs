//! mount/SEMANTICS.md is executed: every row's command runs, and must do and say what the row says.
//!
//! A row has the columns: situation | as | command | seen | rule. It runs in bash, in a fresh exchange
//! mounted as the agent in `as`; `seen` is `ok`, or a text that must be shown while the command fails;
//! `rule` is what the newest refusal must name, or a dash for none.

use crate::common::{AGENTS, Fixture, Mount};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;

/// One row of the document.
#[derive(Debug, Clone)]
struct Row {
    number: usize,
    situation: String,
    agent: String,
    command: String,
    seen: String,
    rule: String,
    /// What exchange.toml and tiers.json say in the row's section.
    toml: String,
    tiers: String,
}

const DOCUMENT: &str = include_str!("../../mount/SEMANTICS.md");

/// The rows of every table whose head is ours; complains about any other row.
fn rows(document: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut in_table = false;
    let (mut toml, mut tiers) = (String::new(), String::new());
    let mut lines = document.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        if line.starts_with("##") {
            (toml, tiers) = Default::default();
        }
        if let Some(language) = line.strip_prefix("```") {
            let block = match language {
                "toml" => &mut toml,
                "json" => &mut tiers,
                other => panic!("SEMANTICS.md:{number}: nothing is done with {other:?}"),
            };
            for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
                writeln!(block, "{line}").unwrap();
            }
            continue;
        }
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let cells = cells(line);
        if cells == ["situation", "as", "command", "seen", "rule"] {
            in_table = true;
        } else if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            assert!(in_table, "SEMANTICS.md:{number}: a table with other columns is not executed");
        } else {
            let [situation, agent, command, seen, rule] = &cells[..] else {
                panic!("SEMANTICS.md:{number}: a row has five cells, this one {}", cells.len());
            };
            let command = command
                .strip_prefix('`')
                .and_then(|c| c.strip_suffix('`'))
                .filter(|c| !c.trim().is_empty())
                .unwrap_or_else(|| panic!("SEMANTICS.md:{number}: a row needs a command in backticks"));
            rows.push(Row {
                number,
                situation: situation.clone(),
                agent: agent.clone(),
                command: command.to_owned(),
                seen: seen.trim_matches('`').to_owned(),
                rule: rule.trim_matches('`').to_owned(),
                toml: toml.clone(),
                tiers: tiers.clone(),
            });
        }
    }
    rows
}

/// The cells of a table's line; a bar inside a cell is written `\|`.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut chars = line.trim().trim_start_matches('|').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'|') => cells.last_mut().unwrap().push(chars.next().unwrap()),
            '|' => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    if cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// A TOML text with another one's keys in it.
fn merged(written: &str, more: &str) -> String {
    fn merge(into: &mut toml::Table, more: toml::Table) {
        for (key, value) in more {
            match (into.get_mut(&key), value) {
                (Some(toml::Value::Table(known)), toml::Value::Table(more)) => merge(known, more),
                (_, value) => drop(into.insert(key, value)),
            }
        }
    }
    let mut table: toml::Table = written.parse().unwrap();
    merge(&mut table, more.parse().unwrap());
    table.to_string()
}

/// Runs a row; says what differs.
fn execute(row: &Row) -> Result<(), String> {
    let fixture = Fixture::new();
    if !row.toml.is_empty() {
        fixture.reconfigure(|written| merged(&written, &row.toml));
    }
    if !row.tiers.is_empty() {
        std::fs::write(fixture.dir().join("tiers.json"), &row.tiers).unwrap();
    }
    let mount_for = |agent: &str| match agent {
        "operator" => fixture.mount_as_operator(),
        agent => fixture.mount_as(agent),
    };
    let own = mount_for(&row.agent);
    // The other agents' mounts, for the rows that speak of them ($ALICE, $BOB, $CAROL, $OPERATOR).
    let others: HashMap<String, Mount> = AGENTS
        .iter()
        .chain(&["operator"])
        .map(|agent| (agent.to_uppercase(), *agent))
        .filter(|(variable, _)| row.command.contains(&format!("${variable}")))
        .map(|(variable, agent)| (variable, mount_for(agent)))
        .collect();
    let mut script = String::new();
    for (variable, mount) in &others {
        writeln!(script, "{variable}={}", mount.path().display()).unwrap();
    }
    script.push_str(&row.command);
    let output = own.bash(&script);
    let shown = format!("{}{}", output.stdout, output.stderr);
    let mut faults = Vec::new();
    if row.seen == "ok" {
        if output.status != 0 {
            faults.push(format!("should succeed, but exits with {}", output.status));
        }
    } else if output.status == 0 {
        faults.push(format!("should fail with {:?}, but succeeds", row.seen));
    } else if !shown.contains(&row.seen) {
        faults.push(format!("should show {:?}", row.seen));
    }
    let rule =
        fixture.refusals().pop().map_or("-".to_owned(), |r| r["rule"].as_str().unwrap_or("?").to_owned());
    if rule != row.rule {
        faults.push(format!("the rule should be {}, but is {rule}", row.rule));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "SEMANTICS.md:{}: {} ({}): {}\n{shown}",
        row.number,
        row.situation,
        row.command,
        faults.join("; ")
    ))
}

#[test]
fn every_row_of_the_semantics_is_true() {
    let rows = rows(DOCUMENT);
    assert!(rows.len() > 50, "only {} rows were found", rows.len());
    let queue = Mutex::new(rows.iter());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(row) = queue.lock().unwrap().next() else { return };
                    let outcome = std::panic::catch_unwind(|| execute(row));
                    let fault = match outcome {
                        Ok(Ok(())) => continue,
                        Ok(Err(fault)) => fault,
                        Err(_) => format!(
                            "SEMANTICS.md:{}: {}: the test itself failed (see above)",
                            row.number, row.situation
                        ),
                    };
                    faults.lock().unwrap().push(fault);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    assert!(
        faults.is_empty(),
        "{} of {} rows are not true:\n\n{}",
        faults.len(),
        rows.len(),
        faults.join("\n")
    );
}

#[test]
fn every_rule_has_a_row() {
    let rows = rows(DOCUMENT);
    let missing: Vec<&str> = batonfs::rules::Rule::ALL
        .iter()
        .map(|rule| rule.name())
        .filter(|name| !rows.iter().any(|row| row.rule == *name))
        .collect();
    assert!(missing.is_empty(), "no row shows {missing:?}");
}
