//! Whom a message is for: by the log it is written to, and by its `to`.

use super::append::LogName;
use super::{Refusal, Rule};
use crate::wire::message::Message;
use crate::wire::name::AgentName;

/// The agents whose inbox a message goes to, sorted. `agents`: all of the exchange.
///
/// An inbox and a bilateral log name one agent already, whom `to`, where it is given, must include.
/// An outbox and the incident log speak to those in `to`, or to everyone but the author.
///
/// # Errors
/// EBADMSG `recipient` for a handle that is no agent here, for a `to` that leaves out the log's own
/// agent, and for an empty one.
pub fn recipients<'a>(
    log: &LogName,
    message: &Message,
    agents: impl Iterator<Item = &'a AgentName> + Clone,
) -> Result<Vec<AgentName>, Refusal> {
    let own = match log {
        LogName::Inbox(agent) | LogName::Bilateral { to: agent, .. } => Some(agent),
        LogName::Decisions => return Ok(Vec::new()),
        LogName::Outbox(_) | LogName::Incidents => None,
    };
    let everyone = || agents.clone().filter(|agent| **agent != message.from).cloned();
    let mut to: Vec<AgentName> = Vec::new();
    match (message.to(), own) {
        (None, Some(own)) => to.push(own.clone()),
        (None, None) => to.extend(everyone()),
        (Some(handles), own) => {
            for handle in handles {
                if handle == "*" {
                    to.extend(everyone());
                    to.extend(own.cloned());
                    continue;
                }
                let agent = AgentName::parse(handle).ok().filter(|a| agents.clone().any(|known| known == a));
                to.push(agent.ok_or_else(|| unknown(handle, agents.clone()))?);
            }
            if let Some(own) = own.filter(|own| !to.contains(own)) {
                return Err(Refusal::new(
                    Rule::Recipient,
                    format!(
                        "{log} is for {own}, and this message's `to` leaves {own} out. Append it to \
                         outbox/{}.jsonl, or to the inbox of whom it is for.",
                        message.from
                    ),
                ));
            }
            if to.is_empty() {
                let advice = "`to` is empty. Name the agents it is for, or [\"*\"] for everyone.";
                return Err(Refusal::new(Rule::Recipient, advice));
            }
        }
    }
    to.sort();
    to.dedup();
    Ok(to)
}

fn unknown<'a>(handle: &str, agents: impl Iterator<Item = &'a AgentName>) -> Refusal {
    let known: Vec<&str> = agents.map(AgentName::as_str).collect();
    Refusal::new(
        Rule::Recipient,
        format!("{handle:?} is no agent of this exchange; it has: {}. Correct `to`.", known.join(", ")),
    )
}
