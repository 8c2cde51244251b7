//! Which proposals, acks and entries of decisions.jsonl are refused, and what their writers are told.

use super::{MOST_COUNTERS, MOST_PENDING, Proposal, Proposals, Standing, terms};
use crate::rules::conversation::presence::Cadence;
use crate::rules::conversation::{Charter, Fact, excerpt};
use crate::rules::{Refusal, Rule};
use crate::wire::decision::Claim;
use crate::wire::json::Object;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;

impl Proposals {
    pub(in crate::rules::conversation) fn check(
        &self,
        fact: &Fact<'_>,
        charter: &Charter,
    ) -> Result<(), Refusal> {
        match fact.message.message_type.as_str() {
            "proposal" => self.check_proposal(fact, charter),
            "ack" => self.check_ack(fact),
            _ => Ok(()),
        }
    }

    fn check_proposal(&self, fact: &Fact<'_>, charter: &Charter) -> Result<(), Refusal> {
        let message = fact.message;
        let named = terms::domains(message)?;
        let mut domains = named.iter().flatten();
        if let Some(unknown) = domains.find(|domain| !charter.domains.contains_key(*domain)) {
            let advice = format!(
                "No domain is called {unknown:?} in this exchange; it has: {}. Correct affected_domains, or ask \
                 the operator to add it to exchange.toml.",
                listed(charter.domains.keys())
            );
            return Err(Refusal::new(Rule::Domain, advice));
        }
        // Which periods are in force makes no difference to whether the body is well-formed.
        terms::Act::read(message, Cadence::default())?;
        let before = self.threads.get(&message.correlation_id);
        if let Some(before) = before.filter(|before| before.standing == Standing::Escalated) {
            return Err(rounds(before, fact.at));
        }
        if self.parts(fact, named, charter).owners.is_empty() {
            let advice = "Nobody but yourself would get this proposal, so nobody could ack it. Name the agents \
                          whose acks you need in `to`, or write it to their inbox.";
            return Err(Refusal::new(Rule::Recipient, advice));
        }
        // In place of its own it is none more.
        let is_own = |before: &Proposal| before.is_pending_at(fact.at) && before.proposer == message.from;
        if before.is_some_and(is_own) { Ok(()) } else { self.check_pending(&message.from, fact.at) }
    }

    /// One agent can't fill the memory with questions.
    fn check_pending(&self, from: &AgentName, now: Timestamp) -> Result<(), Refusal> {
        let pending = self.all().filter(|proposal| proposal.is_pending_at(now));
        let own: Vec<_> = pending.filter(|proposal| proposal.proposer == *from).collect();
        if own.len() < MOST_PENDING {
            return Ok(());
        }
        let open = own.iter().filter(|proposal| proposal.standing == Standing::Open);
        let when = open.map(|proposal| proposal.due).min().map_or_else(
            || "once the operator has settled one: baton decisions settle ID".to_owned(),
            |due| format!("when one of them is acked, or after {due}, when the first lapses"),
        );
        let advice = format!("{MOST_PENDING} proposals of {from} wait for acks. Propose this again {when}.");
        Err(Refusal::new(Rule::Quota, advice))
    }

    fn check_ack(&self, fact: &Fact<'_>) -> Result<(), Refusal> {
        let message = fact.message;
        let Some(proposal) = self.threads.get(&message.correlation_id) else { return Ok(()) };
        if proposal.moved_on || !proposal.needs(&message.from) {
            return Ok(());
        }
        let Proposal { proposer, due, .. } = proposal;
        let (rule, why) = match proposal.standing_at(fact.at) {
            Standing::Lapsed => {
                (Rule::Lapsed, format!("it lapsed at {due}; ask {proposer} to propose it again"))
            }
            Standing::Escalated if *due < fact.at => (
                Rule::Lapsed,
                format!("its acks were due at {due}, after three counter-proposals; {}", operator(proposal)),
            ),
            Standing::Dropped => {
                (Rule::Lapsed, format!("the operator dropped it; ask {proposer} to propose something else"))
            }
            Standing::Overtaken => {
                let thread = proposal.overtaken_by.as_deref().unwrap_or_default();
                let why = format!(
                    "the decision {:?} on the same domain came first; read it in decisions.jsonl, and propose \
                     anew if this is still wanted",
                    excerpt(thread)
                );
                (Rule::Conflict, why)
            }
            Standing::Open | Standing::Escalated | Standing::Decided => return Ok(()),
        };
        let what = format!("{proposer}'s proposal {:?} can't be acked any more", excerpt(&proposal.subject));
        Err(Refusal::new(rule, format!("{what}: {why}.")))
    }

    /// Rule `decision`, for an entry that an agent writes to decisions.jsonl itself: it must be what the
    /// exchange has entered already.
    ///
    /// # Errors
    /// EPERM `decision`, saying which acks are missing or what differs.
    pub fn check_entry(&self, entry: &Object) -> Result<(), Refusal> {
        let refused = |why: String| Err(Refusal::new(Rule::Decision, why));
        let claim = match Claim::from_object(entry) {
            Ok(claim) => claim,
            Err(e) => {
                return refused(format!(
                    "{e}. The exchange enters decisions itself, once all owners have acked the proposal: write \
                     that to them instead."
                ));
            }
        };
        let Some(proposal) = claim.ids.iter().find_map(|id| self.find(id)) else {
            return refused(format!(
                "No proposal is known by {}. Write a proposal to those who must ack it: once all have, the \
                 exchange enters the decision itself.",
                if claim.ids.is_empty() {
                    "a decision_id or correlation_id, because there is none".to_owned()
                } else {
                    listed(claim.ids.iter().map(|id| format!("{:?}", excerpt(id))))
                }
            ));
        };
        let subject = excerpt(&proposal.subject);
        match proposal.standing {
            Standing::Decided => {}
            Standing::Open => {
                return refused(format!(
                    "The proposal {subject:?} lacks {} of {}, due by {}. The exchange enters the decision itself \
                     once it is there: nothing is left to write here.",
                    if proposal.one_is_enough { "one ack" } else { "the acks" },
                    listed(proposal.missing()),
                    proposal.due
                ));
            }
            Standing::Escalated => {
                return refused(format!(
                    "The proposal {subject:?} has seen three counter-proposals and lacks the acks of {}; {}.",
                    listed(proposal.missing()),
                    operator(proposal)
                ));
            }
            Standing::Lapsed | Standing::Overtaken | Standing::Dropped => {
                let how = match proposal.standing {
                    Standing::Lapsed => format!("lapsed at {} without the acks of", proposal.due),
                    Standing::Overtaken => {
                        "was overtaken by another decision; it lacked the acks of".to_owned()
                    }
                    _ => "was dropped by the operator; it lacked the acks of".to_owned(),
                };
                return refused(format!(
                    "The proposal {subject:?} {how} {}. Propose it again.",
                    listed(proposal.missing())
                ));
            }
        }
        if let Some(proposer) = claim.proposer.filter(|proposer| *proposer != proposal.proposer) {
            return refused(format!(
                "{subject:?} was proposed by {}, not by {proposer}. It stands in decisions.jsonl already.",
                proposal.proposer
            ));
        }
        if claim.acked_by.is_some_and(|acked_by| !acked_by.iter().eq(proposal.acks.keys())) {
            return refused(format!(
                "{subject:?} was acked by {}. It stands in decisions.jsonl already.",
                listed(proposal.acks.keys())
            ));
        }
        Ok(())
    }
}

fn rounds(before: &Proposal, now: Timestamp) -> Refusal {
    let operator = operator(before);
    let next = if before.due < now {
        operator
    } else {
        let (proposer, subject) = (&before.proposer, excerpt(&before.subject));
        format!("{proposer}'s {subject:?} can be acked until {}; after that, {operator}", before.due)
    };
    let advice =
        format!("This thread has seen {MOST_COUNTERS} counter-proposals, and takes no other: {next}.");
    Refusal::new(Rule::Rounds, advice)
}

/// What to do about a proposal that is the operator's.
fn operator(proposal: &Proposal) -> String {
    let id = excerpt(&proposal.correlation_id);
    format!("the operator settles it: baton decisions settle {id:?} --accept|--drop")
}

fn listed<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
