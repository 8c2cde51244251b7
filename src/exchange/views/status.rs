//! status/: who is there, what waits for whom, and how that stands, as its reader sees it.
//!
//! An agent sees the others towards itself; the operator, and whoever is nobody here, sees all pairs.

use super::super::{Actor, Caller, Exchange};
use super::View;
use crate::rules::conversation::Conversation;
use crate::rules::conversation::incidents::Incident;
use crate::rules::conversation::presence::Activity;
use crate::rules::conversation::proposals::{Proposal, Standing};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The directory.
pub(super) const DIR: &str = "status";
/// One file per peer.
pub(super) const PEERS: &str = "status/peers";

const FILES: [&str; 6] = [
    "status/me",
    "status/peers.json",
    "status/safe_mode",
    "status/proposals.json",
    "status/incidents.json",
    "status/unread",
];

/// An agent as its messages show it.
#[derive(Debug, Clone, Serialize)]
pub struct Peer {
    /// `state` of its last heartbeat: idle, busy, blocked, paused. `None`: it has sent none.
    pub state: Option<String>,
    /// When its last message was committed.
    pub last_seen: Option<String>,
    /// Type and subject of its last message that was no heartbeat.
    pub last_action: Option<String>,
    /// The tier of activity towards the reader. `None` where the reader is no agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// The tiers of activity of its pairs, where the reader is no agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pairs: BTreeMap<AgentName, Activity>,
    /// Seconds between its heartbeats: the fastest of its pairs'.
    pub period_seconds: i64,
    /// When its next heartbeat is due. `None`: it has never been seen.
    pub next_due: Option<String>,
    /// For how many seconds that has been overdue.
    pub overdue_seconds: Option<i64>,
    /// Its tier of trust. `None`: it has no trusted key.
    pub trust: Option<&'static str>,
    /// Whether a mount sends its heartbeats.
    pub heartbeats_by_mount: bool,
}

/// A proposal as its reader sees it.
#[derive(Debug, Clone, Serialize)]
pub struct ProposalView {
    /// Its thread.
    pub correlation_id: String,
    /// Where it stands.
    pub standing: Standing,
    /// `subject`
    pub subject: String,
    /// `body` as JSON; a long one is cut.
    pub body: String,
    /// Its author.
    pub proposer: AgentName,
    /// When it was committed.
    pub at: String,
    /// Until when the acks must come.
    pub due: String,
    /// The domains it names.
    pub affected_domains: BTreeSet<String>,
    /// Who acked it.
    pub acked_by: Vec<AgentName>,
    /// Whose acks it still lacks.
    pub missing: Vec<AgentName>,
    /// Whether one of them is enough.
    pub one_is_enough: bool,
    /// Counter-proposals so far.
    pub counter_proposals: u32,
    /// Whether the reader's ack is needed.
    pub waits_for_you: bool,
    /// Its message id in hex.
    pub id: String,
}

#[derive(Debug, Serialize)]
struct IncidentView<'a> {
    correlation_id: &'a str,
    subject: &'a str,
    from: &'a AgentName,
    at: String,
    due: String,
    is_overdue: bool,
    waits_for_you: bool,
    id: &'a str,
}

impl Exchange {
    /// The files and directories in status/ or status/peers/.
    pub(super) fn list_status(&self, caller: &Caller, dir: &str) -> Vec<View> {
        if dir == PEERS {
            let peers =
                self.peer_names(&self.actor(caller)).map(|agent| View::file(&format!("{PEERS}/{agent}")));
            return peers.collect();
        }
        FILES.map(View::file).into_iter().chain([View::dir(PEERS)]).collect()
    }

    /// A file of status/ by its path; `None` for what is not there.
    pub(super) fn status_text(&self, caller: &Caller, path: &str) -> Option<String> {
        let actor = self.actor(caller);
        let now = self.now();
        Some(match path {
            "status/me" => match actor {
                Actor::Stranger(_) => "nobody\n".into(),
                named => format!("{named}\n"),
            },
            "status/unread" => self.unread_text(&actor),
            "status/safe_mode" => safe_mode_text(&self.conversation()),
            "status/peers.json" => pretty(&self.peers_json(&actor, now)),
            "status/proposals.json" => pretty(&self.proposals(&actor)),
            "status/incidents.json" => pretty(&incidents_json(&self.conversation(), &actor, now)),
            _ => {
                let name = path.strip_prefix(PEERS)?.strip_prefix('/')?;
                let agent = self.peer_names(&actor).find(|agent| agent.as_str() == name)?;
                let peer = self.peer(&self.conversation(), agent, &actor, now);
                peer_text(agent, &peer, now)
            }
        })
    }

    fn peer_names<'a>(&'a self, reader: &Actor) -> impl Iterator<Item = &'a AgentName> + use<'a> {
        let reader = match reader {
            Actor::Agent(agent) => Some(agent.clone()),
            _ => None,
        };
        self.config.agents.keys().filter(move |agent| Some(*agent) != reader.as_ref())
    }

    fn unread_text(&self, reader: &Actor) -> String {
        if let Actor::Agent(agent) = reader {
            return format!("{}\n", self.unread(agent));
        }
        self.config.agents.keys().map(|agent| format!("{agent} {}\n", self.unread(agent))).collect()
    }

    /// What `status/peers.json` and `baton peers --json` show.
    pub(in crate::exchange) fn peers_json(&self, reader: &Actor, now: Timestamp) -> serde_json::Value {
        let you = match reader {
            Actor::Agent(agent) => {
                let unread = self.unread(agent);
                let you = self.peer(&self.conversation(), agent, &Actor::Operator, now);
                let mut you = serde_json::json!(you);
                you["agent"] = agent.as_str().into();
                you["unread"] = unread.into();
                you
            }
            _ => serde_json::Value::Null,
        };
        let conversation = self.conversation();
        let peers: BTreeMap<&AgentName, Peer> = self
            .peer_names(reader)
            .map(|agent| (agent, self.peer(&conversation, agent, reader, now)))
            .collect();
        serde_json::json!({"time": now.to_string(), "you": you, "peers": peers})
    }

    fn peer(&self, conversation: &Conversation, agent: &AgentName, reader: &Actor, now: Timestamp) -> Peer {
        let presence = &conversation.presence;
        let seen = presence.seen(agent);
        let next_due = presence.next_due(agent, now);
        let others = self.config.agents.keys().filter(|other| *other != agent);
        let (activity, pairs) = match reader {
            Actor::Agent(reader) => (Some(presence.activity(reader, agent, now)), BTreeMap::new()),
            _ => (None, others.map(|other| (other.clone(), presence.activity(agent, other, now))).collect()),
        };
        Peer {
            state: seen.and_then(|seen| seen.state.clone()),
            last_seen: seen.map(|seen| seen.last.to_string()),
            last_action: seen.and_then(|seen| seen.last_action.clone()),
            activity,
            pairs,
            period_seconds: presence.period(agent, now),
            next_due: next_due.map(|due| due.to_string()),
            overdue_seconds: next_due.map(|due| seconds_between(due, now)).filter(|seconds| *seconds > 0),
            trust: self.trust().agents.get(agent).map(|entry| entry.tier.as_str()),
            heartbeats_by_mount: self.is_attended(agent),
        }
    }

    /// All proposals that still matter, as a reader sees them.
    pub(in crate::exchange) fn proposals(&self, reader: &Actor) -> Vec<ProposalView> {
        self.conversation().proposals.all().map(|proposal| proposal_view(proposal, reader)).collect()
    }
}

fn proposal_view(proposal: &Proposal, reader: &Actor) -> ProposalView {
    let missing: Vec<AgentName> = proposal.missing().cloned().collect();
    let is_yours = matches!(reader, Actor::Agent(agent) if missing.contains(agent));
    ProposalView {
        correlation_id: proposal.correlation_id.clone(),
        standing: proposal.standing,
        subject: proposal.subject.clone(),
        body: proposal.body[..proposal.body.floor_char_boundary(2000)].to_owned(),
        proposer: proposal.proposer.clone(),
        at: proposal.at.to_string(),
        due: proposal.due.to_string(),
        affected_domains: proposal.domains.keys().cloned().collect(),
        acked_by: proposal.acks.keys().cloned().collect(),
        missing,
        one_is_enough: proposal.one_is_enough,
        counter_proposals: proposal.counters,
        waits_for_you: is_yours && proposal.is_pending(),
        id: proposal.id.clone(),
    }
}

/// What `status/incidents.json` shows.
fn incidents_json(conversation: &Conversation, reader: &Actor, now: Timestamp) -> serde_json::Value {
    let view = |incident: &Incident| {
        serde_json::json!(IncidentView {
            correlation_id: &incident.correlation_id,
            subject: &incident.subject,
            from: &incident.from,
            at: incident.at.to_string(),
            due: incident.due.to_string(),
            is_overdue: incident.due < now,
            waits_for_you: matches!(reader, Actor::Agent(agent) if *agent != incident.from),
            id: &incident.id,
        })
    };
    let open: Vec<serde_json::Value> = conversation.incidents.open().map(view).collect();
    let safe_mode = conversation.incidents.safe_mode();
    let safe_mode = safe_mode.map(|mode| {
        serde_json::json!({
            "since": mode.since.to_string(),
            "from": mode.incident.from,
            "subject": mode.incident.subject,
            "id": mode.incident.id,
        })
    });
    serde_json::json!({"safe_mode": safe_mode, "open": open})
}

/// What `status/safe_mode` and `baton safe-mode` show.
pub(in crate::exchange) fn safe_mode_text(conversation: &Conversation) -> String {
    let Some(mode) = conversation.incidents.safe_mode() else { return "off\n".into() };
    format!(
        "on since {}\nwhy: nobody acked the incident {} of {} before {}\nwhat passes: ack, heartbeat and incident; \
         all else fails as a read-only file system\nwhat to do: ack the incident (status/incidents.json), mend what \
         it tells of, then the operator lifts safe mode: baton safe-mode clear\n",
        mode.since,
        quoted(&mode.incident.subject),
        mode.incident.from,
        mode.incident.due,
    )
}

/// status/peers/<agent>: lines of `name: value`.
fn peer_text(agent: &AgentName, peer: &Peer, now: Timestamp) -> String {
    let unknown = || "-".to_owned();
    let ago = |time: &Option<String>| {
        let seconds = time
            .as_deref()
            .and_then(|time| Timestamp::parse(time, true))
            .map(|time| seconds_between(time, now));
        seconds.map_or_else(String::new, |seconds| format!(" ({seconds} s ago)"))
    };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name}: {value}");
    };
    line("agent", agent.to_string());
    line("state", peer.state.as_deref().map_or_else(unknown, one_line));
    line(
        "last_seen",
        peer.last_seen.as_ref().map_or_else(unknown, |time| time.clone() + &ago(&peer.last_seen)),
    );
    line("last_action", peer.last_action.as_deref().map_or_else(unknown, one_line));
    if let Some(activity) = peer.activity {
        line("activity", activity.as_str().to_owned());
    }
    for (other, activity) in &peer.pairs {
        line(&format!("activity with {other}"), activity.as_str().to_owned());
    }
    line("period_seconds", peer.period_seconds.to_string());
    line("next_due", peer.next_due.clone().unwrap_or_else(unknown));
    line("overdue", peer.overdue_seconds.map_or("no".into(), |seconds| format!("by {seconds} s")));
    line("trust", peer.trust.map_or_else(unknown, str::to_owned));
    text
}

/// Whole seconds from one time to another.
fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    (to.0 - from.0).div_euclid(1_000_000)
}

/// An agent's text on one line of ours.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text))
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
