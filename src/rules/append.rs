//! The rules of append-only logs: what counts as an append, and which messages a log takes.

use super::identity::{Actor, check_acts_for};
use super::{Refusal, Rule};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::Tier;

/// A log's name; valid for the exchange that gave it out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// `inbox/<agent>.jsonl`
    Inbox(AgentName),
    /// `outbox/<agent>.jsonl`
    Outbox(AgentName),
    /// `<from>_to_<to>.jsonl`
    Bilateral {
        /// Only this agent appends.
        from: AgentName,
        /// For this agent.
        to: AgentName,
    },
    /// `decisions.jsonl`
    Decisions,
    /// `incident_log.jsonl`
    Incidents,
}

impl LogName {
    /// Its path in the tree, and under the exchange's folder.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The log at a path of the tree, where `known` says whose handles exist.
    /// Handles may contain `_to_`, so every split is tried.
    pub fn parse(path: &str, known: impl Fn(&AgentName) -> bool) -> Option<Self> {
        let agent = |text: &str| AgentName::parse(text).ok().filter(|a| a.as_str() == text && known(a));
        match path {
            "decisions.jsonl" => return Some(LogName::Decisions),
            "incident_log.jsonl" => return Some(LogName::Incidents),
            _ => {}
        }
        let stem = path.strip_suffix(".jsonl")?;
        if let Some(name) = stem.strip_prefix("inbox/") {
            return agent(name).map(LogName::Inbox);
        }
        if let Some(name) = stem.strip_prefix("outbox/") {
            return agent(name).map(LogName::Outbox);
        }
        stem.match_indices("_to_").find_map(|(at, sep)| {
            let (from, to) = (agent(&stem[..at])?, agent(&stem[at + sep.len()..])?);
            (from != to).then_some(LogName::Bilateral { from, to })
        })
    }

    /// Whether the exchange itself puts copies of messages here that were written to another log.
    pub fn takes_copies(&self) -> bool {
        matches!(self, LogName::Inbox(_) | LogName::Incidents)
    }

    /// The one agent that appends here, where there is only one.
    pub fn only_writer(&self) -> Option<&AgentName> {
        match self {
            LogName::Outbox(from) | LogName::Bilateral { from, .. } => Some(from),
            _ => None,
        }
    }
}

impl std::fmt::Display for LogName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogName::Inbox(agent) => write!(f, "inbox/{agent}.jsonl"),
            LogName::Outbox(agent) => write!(f, "outbox/{agent}.jsonl"),
            LogName::Bilateral { from, to } => write!(f, "{from}_to_{to}.jsonl"),
            LogName::Decisions => f.write_str("decisions.jsonl"),
            LogName::Incidents => f.write_str("incident_log.jsonl"),
        }
    }
}

/// Rule `append-only` at open(2).
///
/// # Errors
/// EPERM: O_RDWR would allow a mapping that writes past the rules; O_TRUNC would cut the log.
pub fn check_open(path: &str, read_write: bool, truncate: bool) -> Result<(), Refusal> {
    if truncate {
        return Err(append_only(
            path,
            "can't be truncated; open it with O_APPEND (>> in a shell, \"a\" in Python)",
        ));
    }
    if read_write {
        return Err(append_only(
            path,
            "can't be opened for reading and writing at once; read it or append to it",
        ));
    }
    Ok(())
}

/// Rule `append-only` for an operation that no log allows.
pub fn refuse_operation(path: &str, operation: &str) -> Refusal {
    let why = match operation {
        "unlink" => "can't be deleted; a correction is a new line of type correction",
        "rename" => "can't be renamed or replaced; append with >>",
        "link" => "can't be linked; read it under its own name",
        "truncate" => "can't be cut; a correction is a new line of type correction",
        "fallocate" => "can't be preallocated or punched; append with >>",
        "chmod" | "chown" => "keeps its modes and owner; the operator sets them on the exchange's folder",
        "setxattr" | "removexattr" => "takes no extended attributes",
        "utimens" => "keeps its own times; touch without a date is accepted",
        _ => "only takes appended lines",
    };
    append_only(path, why)
}

/// Rule `append-only` at write(2). A write is an append when its descriptor says O_APPEND, or when
/// its offset is the log's end, or where this descriptor's last write ended.
///
/// # Errors
/// EPERM for any other offset.
pub fn check_write(
    path: &str,
    descriptor_appends: bool,
    offset: u64,
    log_end: u64,
    last_write_end: Option<u64>,
) -> Result<(), Refusal> {
    if descriptor_appends || offset == log_end || last_write_end == Some(offset) {
        return Ok(());
    }
    Err(append_only(
        path,
        &format!("ends at byte {log_end} and can't be overwritten at {offset}; append with >>"),
    ))
}

fn append_only(path: &str, why: &str) -> Refusal {
    Refusal::new(Rule::AppendOnly, format!("{path} is append-only: it {why}."))
}

/// Rule `authority` of a log: its one writer where it has one, and never in another's name.
///
/// # Errors
/// EACCES `authority`.
pub fn check_author(log: &LogName, actor: &Actor, may_relay: bool, from: &AgentName) -> Result<(), Refusal> {
    if let Some(writer) = log.only_writer()
        && writer != from
    {
        return Err(Refusal::new(
            Rule::Authority,
            format!(
                "{} takes lines from {writer} only, and this one is from {from}. Use inbox/<agent>.jsonl.",
                log.path()
            ),
        ));
    }
    check_acts_for(actor, from, may_relay, format_args!("append lines from {from} to {log}"))
}

/// Rule `schema` of the incident log: it takes incidents, and what is said about them.
///
/// # Errors
/// EBADMSG `schema`.
pub fn check_kind(log: &LogName, message: &Message) -> Result<(), Refusal> {
    let about_incidents = matches!(message.message_type.as_str(), "incident" | "ack" | "correction");
    if *log == LogName::Incidents && !about_incidents {
        return Err(Refusal::new(
            Rule::Schema,
            format!(
                "{log} takes messages of type incident, ack and correction, and this is of type {}. Append it \
                 to inbox/<agent>.jsonl or outbox/{}.jsonl.",
                message.message_type, message.from
            ),
        ));
    }
    Ok(())
}

/// Longest line, as a multiple of the longest body: escapes make six bytes of one, and the other members are short.
const LINE_PER_BODY: usize = 16;

/// Rule `size` for a line, complete or not, that is certain to be of an author with `tier`.
///
/// # Errors
/// EMSGSIZE `size` beyond 16 times `max_body_bytes`, unless the author is TRUSTED.
pub fn check_line(line_bytes: usize, tier: Tier, max_body_bytes: usize) -> Result<(), Refusal> {
    let limit = max_body_bytes.saturating_mul(LINE_PER_BODY);
    if line_bytes > limit && tier < Tier::Trusted {
        return Err(Refusal::new(
            Rule::Size,
            format!(
                "A line has at most {limit} bytes. Put the content in a file, and its path and digest in refs."
            ),
        ));
    }
    Ok(())
}

/// Rules `clock-skew` and `size`, for a message whose author has `tier`.
///
/// # Errors
/// EBADMSG `clock-skew` beyond `skew_seconds` into the future; EMSGSIZE `size` for a body over
/// `max_body_bytes`, unless the author is TRUSTED.
pub fn check_limits(
    message: &Message,
    tier: Tier,
    now: Timestamp,
    skew_seconds: i64,
    max_body_bytes: usize,
) -> Result<(), Refusal> {
    if message.timestamp > now.plus_seconds(skew_seconds) {
        return Err(Refusal::new(
            Rule::ClockSkew,
            format!(
                "The timestamp {} is more than {skew_seconds} s in the future (now {now}). \
                 Set the clock, stamp and sign the message again.",
                message.timestamp
            ),
        ));
    }
    if message.body_bytes > max_body_bytes && tier < Tier::Trusted {
        return Err(Refusal::new(
            Rule::Size,
            format!(
                "The body has {} bytes, the limit is {max_body_bytes}. Put the content in a file, \
                 and its path and digest in refs.",
                message.body_bytes
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    fn log(path: &str) -> Option<LogName> {
        LogName::parse(path, |a| ["bob", "alice", "a_to_b", "b"].contains(&a.as_str()))
    }

    #[test]
    fn log_names_are_those_of_known_agents() {
        assert_eq!(log("inbox/bob.jsonl"), Some(LogName::Inbox(agent("bob"))));
        assert_eq!(
            log("bob_to_alice.jsonl"),
            Some(LogName::Bilateral { from: agent("bob"), to: agent("alice") })
        );
        assert_eq!(
            log("a_to_b_to_bob.jsonl"),
            Some(LogName::Bilateral { from: agent("a_to_b"), to: agent("bob") })
        );
        for path in [
            "inbox/zed.jsonl",
            "bob_to_bob.jsonl",
            "bob_to_zed.jsonl",
            "inbox/did:wire:bob.jsonl",
            "x.jsonl",
            "inbox/.jsonl",
        ] {
            assert_eq!(log(path), None, "{path}");
        }
        for path in ["inbox/bob.jsonl", "bob_to_alice.jsonl", "decisions.jsonl", "incident_log.jsonl"] {
            assert_eq!(log(path).unwrap().path(), path);
        }
    }

    #[test]
    fn append_only_takes_o_append_the_true_end_and_a_continued_write() {
        assert!(check_write("l", true, 7, 100, None).is_ok());
        assert!(check_write("l", false, 100, 100, None).is_ok());
        assert!(check_write("l", false, 50, 100, Some(50)).is_ok());
        for offset in [0, 99, 101] {
            let refusal = check_write("l", false, offset, 100, Some(50)).unwrap_err();
            assert_eq!(refusal.rule, Rule::AppendOnly);
        }
    }

    #[test]
    fn append_only_refuses_o_rdwr_and_o_trunc_at_open() {
        assert!(check_open("l", false, false).is_ok());
        assert!(check_open("l", true, false).is_err());
        assert!(check_open("l", false, true).is_err());
    }

    #[test]
    fn authority_keeps_a_bilateral_log_to_its_one_writer() {
        let log = LogName::Bilateral { from: agent("bob"), to: agent("alice") };
        assert!(check_author(&log, &Actor::Agent(agent("bob")), false, &agent("bob")).is_ok());
        assert!(check_author(&log, &Actor::Operator, false, &agent("alice")).is_err());
        assert!(check_author(&log, &Actor::Agent(agent("alice")), false, &agent("bob")).is_err());
        assert!(check_author(&log, &Actor::Agent(agent("alice")), true, &agent("bob")).is_ok());
    }
}
