//! When a log's lines move to `archive/<year>/`, under which name, and how much an inbox holds before they must.

use super::append::LogName;
use super::{Refusal, Rule};
use crate::wire::time::Timestamp;

/// The directory of the archive, in the tree and under the exchange's folder.
pub const DIR: &str = "archive";

/// Whether a log is archived at all. Decisions are not: they stay in force, whole and in one file.
pub fn is_archived(log: &LogName) -> bool {
    *log != LogName::Decisions
}

/// The path of a log's `n`th archive of one year, from 1: `archive/2026/inbox/alice.jsonl`, then
/// `archive/2026/inbox/alice.2.jsonl`.
pub fn path(log: &str, year: i16, n: usize) -> String {
    match log.strip_suffix(".jsonl") {
        Some(stem) if n > 1 => format!("{DIR}/{year:04}/{stem}.{n}.jsonl"),
        _ => format!("{DIR}/{year:04}/{log}"),
    }
}

/// The year, the log's path and the number of an archive file; `log` says which logs there are. None for what is
/// no name of one.
///
/// An agent may be called `alice.2`: then `inbox/alice.2.jsonl` is its log, not the second archive of alice's.
/// Where both are agents, the events tell which of them a file is of.
pub fn parse<T>(path: &str, log: impl Fn(&str) -> Option<T>) -> Option<(i16, T, usize)> {
    let (year, file) = path.strip_prefix(DIR)?.strip_prefix('/')?.split_once('/')?;
    let year = parse_year(year)?;
    if let Some(log) = log(file) {
        return Some((year, log, 1));
    }
    let (stem, number) = file.strip_suffix(".jsonl")?.rsplit_once('.')?;
    let n = number.parse().ok().filter(|n| *n > 1 && !number.starts_with(['0', '+']))?;
    Some((year, log(&format!("{stem}.jsonl"))?, n))
}

/// The year that a directory of the archive is named by: four digits.
pub fn parse_year(name: &str) -> Option<i16> {
    let digits = name.len() == 4 && name.bytes().all(|b| b.is_ascii_digit());
    name.parse().ok().filter(|year| digits && *year > 0)
}

/// Rule `quota`: an inbox takes no more than `inbox_bytes` (0: any number) before it is archived. `len`: its
/// bytes; `adding`: those that are to come.
///
/// # Errors
/// EDQUOT `quota`.
pub fn check_quota(
    log: &LogName,
    len: u64,
    adding: u64,
    inbox_bytes: u64,
    now: Timestamp,
) -> Result<(), Refusal> {
    let LogName::Inbox(_) = log else { return Ok(()) };
    if inbox_bytes == 0 || len.saturating_add(adding) <= inbox_bytes {
        return Ok(());
    }
    let next_year = Timestamp::start_of_year(now.year().saturating_add(1));
    Err(Refusal::new(
        Rule::Quota,
        format!(
            "{log} holds {len} of the {inbox_bytes} bytes that it may have, and this would add {adding}. Ask the \
             operator to archive it (baton archive) and write this again then; at {next_year} it is archived by \
             itself."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::AgentName;

    fn known(path: &str) -> Option<LogName> {
        LogName::parse(path, |a| ["bob", "alice", "alice.2"].contains(&a.as_str()))
    }

    #[test]
    fn archive_names_lead_back_to_their_logs() {
        for (log, n, expected) in [
            ("inbox/alice.jsonl", 1, "archive/2026/inbox/alice.jsonl"),
            ("bob_to_alice.jsonl", 3, "archive/2026/bob_to_alice.3.jsonl"),
            ("outbox/bob.jsonl", 12, "archive/2026/outbox/bob.12.jsonl"),
            ("inbox/alice.2.jsonl", 2, "archive/2026/inbox/alice.2.2.jsonl"),
        ] {
            assert_eq!(path(log, 2026, n), expected);
            assert_eq!(parse(expected, known), Some((2026, known(log).unwrap(), n)), "{expected}");
        }
        assert_eq!(path("incident_log.jsonl", 987, 1), "archive/0987/incident_log.jsonl");
        for other in [
            "archive/x.json",
            "archive/2026",
            "archive/20266/inbox/bob.jsonl",
            "archive/0000/inbox/bob.jsonl",
            "archive/+026/inbox/bob.jsonl",
            "archive/2026/inbox/zed.jsonl",
            "archive/2026/inbox/bob.1.jsonl",
            "archive/2026/inbox/bob.02.jsonl",
            "archive/2026/inbox/bob.x.jsonl",
            "inbox/bob.jsonl",
        ] {
            assert_eq!(parse(other, known), None, "{other}");
        }
    }

    #[test]
    fn only_an_inbox_has_a_quota_and_the_refusal_says_when_it_ends() {
        let bob = AgentName::parse("bob").unwrap();
        let now = Timestamp::start_of_year(2026);
        let inbox = LogName::Inbox(bob.clone());
        assert!(check_quota(&inbox, 90, 10, 100, now).is_ok());
        assert!(check_quota(&inbox, 90, 11, 0, now).is_ok());
        assert!(check_quota(&LogName::Outbox(bob), 90, 11, 100, now).is_ok());
        let refusal = check_quota(&inbox, 90, 11, 100, now).unwrap_err();
        assert_eq!(refusal.rule, Rule::Quota);
        assert!(refusal.advice.contains("2027-01-01T00:00:00Z"), "{}", refusal.advice);
    }
}
