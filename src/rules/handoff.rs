//! The handoff state machine: which moves exist, and who may make them.

use super::identity::{Actor, check_acts_for, check_takes_part};
use super::{Refusal, Rule};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;

/// One of the four directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// `handoff/`: published, waiting for a claim.
    Pending,
    /// `claimed/`
    Claimed,
    /// `archive/`: completed.
    Archived,
    /// `rejected/`: rejected, withdrawn or expired.
    Rejected,
}

impl State {
    /// All four.
    pub const ALL: [State; 4] = [State::Pending, State::Claimed, State::Archived, State::Rejected];

    /// The directory's name.
    pub fn dir(self) -> &'static str {
        match self {
            State::Pending => "handoff",
            State::Claimed => "claimed",
            State::Archived => "archive",
            State::Rejected => "rejected",
        }
    }

    /// The state with this directory name.
    pub fn from_dir(name: &str) -> Option<Self> {
        State::ALL.into_iter().find(|s| s.dir() == name)
    }
}

/// A move that the state machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// handoff/ -> claimed/, by the receiver, in time.
    Claim,
    /// claimed/ -> archive/, by the receiver.
    Complete,
    /// handoff/ or claimed/ -> rejected/, by the receiver.
    Reject,
    /// handoff/ -> rejected/, by the sender (its unlink).
    Withdraw,
    /// handoff/ -> rejected/, by time.
    Expire,
}

impl Transition {
    /// The event's name.
    pub fn event(self) -> &'static str {
        match self {
            Transition::Claim => "claimed",
            Transition::Complete => "completed",
            Transition::Reject => "rejected",
            Transition::Withdraw => "withdrawn",
            Transition::Expire => "expired",
        }
    }
}

/// What the rules need to know of a published handoff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// The sender.
    pub from: AgentName,
    /// The receiver.
    pub to: AgentName,
    /// Until when it may be claimed.
    pub expires_at: Timestamp,
}

/// Whether a name is one under which a handoff is published: `*.json`, not hidden. Any other name
/// in handoff/ is a temporary one.
pub fn is_final_name(name: &str) -> bool {
    name.ends_with(".json") && !name.starts_with('.')
}

/// What the name of the file that says why a handoff was rejected adds to the handoff's own.
pub const REASON: &str = ".reason.json";

/// Longest name of a handoff that may still be rejected: beside it in rejected/ there must be room for
/// [`REASON`], and for a number where the name is taken there, in the 255 bytes that a name may have.
const MAX_NAME_BYTES: usize = 232;

/// Rules `transition` and `size` for the name that a handoff gets in `state`.
///
/// # Errors
/// EPERM `transition` for a reason file's name, EMSGSIZE `size` for a name that leaves no room for one.
pub fn check_name(state: State, name: &str) -> Result<(), Refusal> {
    if name.ends_with(REASON) {
        let advice =
            format!("Names that end in {REASON} say why a handoff was rejected. Choose another name.");
        return Err(Refusal::new(Rule::Transition, advice));
    }
    if state != State::Archived && name.len() > MAX_NAME_BYTES {
        let advice = format!("The name has {} bytes, a handoff's has at most {MAX_NAME_BYTES}.", name.len());
        return Err(Refusal::new(Rule::Size, advice));
    }
    Ok(())
}

/// Rule `authority` for a new handoff: its sender, or who may carry it.
///
/// # Errors
/// EACCES `authority`.
pub fn check_publish(actor: &Actor, may_relay: bool, from: &AgentName) -> Result<(), Refusal> {
    check_acts_for(actor, from, may_relay, format_args!("publish a handoff from {from}"))
}

/// Rules `transition`, `authority` and `expired` for a move of a published handoff, or its unlink
/// (`to` is then `None`).
///
/// # Errors
/// EPERM `transition` where no such move exists, EACCES `authority`, ETIME `expired`.
pub fn check_move(
    actor: &Actor,
    may_relay: bool,
    parties: &Parties,
    from: State,
    to: Option<State>,
    now: Timestamp,
) -> Result<Transition, Refusal> {
    check_takes_part(actor, "move handoffs")?;
    let sender_withdraws = matches!(actor, Actor::Agent(me) if *me == parties.from && *me != parties.to);
    let transition = match (from, to) {
        (State::Pending, Some(State::Claimed)) => Transition::Claim,
        (State::Claimed, Some(State::Archived)) => Transition::Complete,
        (State::Pending, Some(State::Rejected)) if sender_withdraws => Transition::Withdraw,
        (State::Pending | State::Claimed, Some(State::Rejected)) => Transition::Reject,
        (State::Pending, None) => Transition::Withdraw,
        (from, Some(to)) => {
            return Err(Refusal::new(
                Rule::Transition,
                format!(
                    "A handoff moves handoff/ -> claimed/ -> archive/, or to rejected/; {}/ -> {}/ is no such move.",
                    from.dir(),
                    to.dir()
                ),
            ));
        }
        (from, None) => {
            return Err(Refusal::new(
                Rule::Immutable,
                format!("Handoffs in {}/ can't be deleted; they are the record.", from.dir()),
            ));
        }
    };
    let (owner, what) = match transition {
        Transition::Withdraw => (&parties.from, "withdraw"),
        Transition::Claim => (&parties.to, "claim"),
        Transition::Complete => (&parties.to, "complete"),
        Transition::Reject | Transition::Expire => (&parties.to, "reject"),
    };
    check_acts_for(
        actor,
        owner,
        may_relay,
        format_args!("{what} this handoff from {} to {}", parties.from, parties.to),
    )?;
    if transition == Transition::Claim && now > parties.expires_at {
        return Err(Refusal::new(
            Rule::Expired,
            format!("This handoff expired at {}. Ask {} for a new one.", parties.expires_at, parties.from),
        ));
    }
    Ok(transition)
}

/// Rule `immutable` for an operation that no published handoff allows.
pub fn refuse_operation(path: &str, operation: &str) -> Refusal {
    Refusal::new(
        Rule::Immutable,
        format!(
            "{path} is published and never changes ({operation} refused). Claim it by renaming it into claimed/, \
             or publish a new handoff."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }
    fn acting(name: &str) -> Actor {
        Actor::Agent(agent(name))
    }
    #[test]
    fn a_handoff_s_name_leaves_room_for_the_reason_of_its_rejection() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        assert!(check_name(State::Pending, &longest).is_ok());
        assert!(longest.len() + ".99999".len() + REASON.len() <= 255);
        for state in [State::Pending, State::Claimed, State::Rejected] {
            let refusal = check_name(state, &format!("x{longest}")).unwrap_err();
            assert_eq!(refusal.rule, Rule::Size);
        }
        assert!(check_name(State::Archived, &"x".repeat(255)).is_ok());
        for state in State::ALL {
            assert_eq!(check_name(state, "x.reason.json").unwrap_err().rule, Rule::Transition);
        }
    }
    fn parties() -> Parties {
        Parties { from: agent("bob"), to: agent("alice"), expires_at: Timestamp(1_000_000) }
    }
    fn moved(actor: &Actor, from: State, to: Option<State>, now: i64) -> Result<Transition, Rule> {
        check_move(actor, false, &parties(), from, to, Timestamp(now)).map_err(|r| r.rule)
    }

    #[test]
    fn only_the_receiver_claims_and_only_in_time() {
        use State::*;
        assert_eq!(moved(&acting("alice"), Pending, Some(Claimed), 1_000_000), Ok(Transition::Claim));
        assert_eq!(moved(&acting("alice"), Pending, Some(Claimed), 1_000_001), Err(Rule::Expired));
        assert_eq!(moved(&acting("bob"), Pending, Some(Claimed), 0), Err(Rule::Authority));
        assert_eq!(moved(&Actor::Stranger(7), Pending, Some(Claimed), 0), Err(Rule::Authority));
        assert_eq!(moved(&Actor::Operator, Pending, Some(Claimed), 0), Ok(Transition::Claim));
    }

    #[test]
    fn transition_has_exactly_these_moves() {
        use State::*;
        let alice = acting("alice");
        let mut allowed = Vec::new();
        for from in State::ALL {
            for to in State::ALL {
                if let Ok(t) = moved(&alice, from, Some(to), 0) {
                    allowed.push((from, to, t));
                }
            }
        }
        assert_eq!(
            allowed,
            [
                (Pending, Claimed, Transition::Claim),
                (Pending, Rejected, Transition::Reject),
                (Claimed, Archived, Transition::Complete),
                (Claimed, Rejected, Transition::Reject),
            ]
        );
    }

    #[test]
    fn the_sender_withdraws_only_while_pending() {
        use State::*;
        assert_eq!(moved(&acting("bob"), Pending, None, 0), Ok(Transition::Withdraw));
        assert_eq!(moved(&acting("bob"), Pending, Some(Rejected), 0), Ok(Transition::Withdraw));
        assert_eq!(moved(&acting("alice"), Pending, None, 0), Err(Rule::Authority));
        assert_eq!(moved(&acting("bob"), Claimed, None, 0), Err(Rule::Immutable));
        assert_eq!(moved(&acting("bob"), Claimed, Some(Rejected), 0), Err(Rule::Authority));
    }
}
