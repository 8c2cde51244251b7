//! Who is acting, and for whom they may act.

use super::{Refusal, Rule};
use crate::wire::name::AgentName;
use std::fmt::Display;

/// Whom a caller acts as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// An agent of this exchange.
    Agent(AgentName),
    /// The human who owns the exchange: may act for any agent.
    Operator,
    /// Anybody else, by uid: reads what the modes allow and changes nothing.
    Stranger(u32),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Agent(name) => name.fmt(f),
            Actor::Operator => f.write_str("operator"),
            Actor::Stranger(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// Rule `authority`: `actor` may do what only `agent` may do, here `what` (`append to inbox/bob.jsonl`).
/// `may_relay`: the operator lets this actor carry what others have signed.
///
/// # Errors
/// EACCES `authority`.
pub fn check_acts_for(
    actor: &Actor,
    agent: &AgentName,
    may_relay: bool,
    what: impl Display,
) -> Result<(), Refusal> {
    match actor {
        Actor::Operator => Ok(()),
        Actor::Agent(me) if me == agent || may_relay => Ok(()),
        Actor::Agent(me) => Err(Refusal::new(
            Rule::Authority,
            format!(
                "You are {me}; only {agent} may {what}. Write as yourself, through your own mount or uid."
            ),
        )),
        Actor::Stranger(_) => Err(refuse_stranger(actor, what)),
    }
}

/// Rule `authority`: strangers change nothing.
///
/// # Errors
/// EACCES `authority`.
pub fn check_takes_part(actor: &Actor, what: impl Display) -> Result<(), Refusal> {
    match actor {
        Actor::Stranger(_) => Err(refuse_stranger(actor, what)),
        _ => Ok(()),
    }
}

fn refuse_stranger(actor: &Actor, what: impl Display) -> Refusal {
    Refusal::new(
        Rule::Authority,
        format!(
            "{actor} is no agent of this exchange and may not {what}. \
             Ask the operator to give an agent this uid in exchange.toml."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    #[test]
    fn authority_lets_an_agent_act_for_itself_only() {
        let bob = Actor::Agent(agent("bob"));
        assert_eq!(check_acts_for(&bob, &agent("bob"), false, "write"), Ok(()));
        let refusal = check_acts_for(&bob, &agent("alice"), false, "write").unwrap_err();
        assert_eq!(refusal.rule, Rule::Authority);
        assert!(refusal.advice.contains("only alice may write"), "{}", refusal.advice);
    }

    #[test]
    fn authority_lets_a_relay_and_the_operator_act_for_others() {
        assert_eq!(check_acts_for(&Actor::Agent(agent("bob")), &agent("alice"), true, "write"), Ok(()));
        assert_eq!(check_acts_for(&Actor::Operator, &agent("alice"), false, "write"), Ok(()));
    }

    #[test]
    fn authority_refuses_a_stranger_everything_even_as_a_relay() {
        let stranger = Actor::Stranger(1234);
        assert!(check_acts_for(&stranger, &agent("bob"), true, "write").is_err());
        assert!(check_takes_part(&stranger, "write").is_err());
    }
}
