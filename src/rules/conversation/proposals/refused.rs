//! Which proposals, acks and entries of decisions.jsonl are refused, and what their writers are told.

use super::{MOST_COUNTERS, MOST_PENDING, Proposal, Proposals, Standing, terms};
use crate::rules::conversation::presence::Cadence;
use crate::rules::conversation::{Charter, Fact, excerpt};
use crate::rules::{Refusal, Rule};
use crate::wire::decision::Claim;
use crate::wire::json::{Object, Value};
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;

impl Proposals {
    pub(in crate::rules::conversation) fn check(
        &self,
        fact: &Fact<'_>,
        ahead: u32,
        charter: &Charter,
        in_force: Cadence,
    ) -> Result<(), Refusal> {
        match fact.message.message_type.as_str() {
            "proposal" => self.check_proposal(fact, ahead, charter, in_force),
            "ack" => self.check_ack(fact),
            _ => Ok(()),
        }
    }

    fn check_proposal(
        &self,
        fact: &Fact<'_>,
        ahead: u32,
        charter: &Charter,
        in_force: Cadence,
    ) -> Result<(), Refusal> {
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
        terms::Act::read(message, in_force)?;
        let before = self.threads.get(&message.correlation_id);
        if let Some(before) = before.filter(|before| before.standing == Standing::Escalated) {
            return Err(rounds(before, fact.at));
        }
        if before.is_some_and(|before| before.id == message.id_hex()) {
            // The same message, in another log.
            return Ok(());
        }
        if let Some(before) = before {
            self.check_thread(before, fact)?;
        }
        let owners = self.parts(fact, named, charter).owners;
        if owners.is_empty() {
            let advice = "Nobody but yourself would get this proposal, so nobody could ack it. Name the agents \
                          whose acks you need in `to`, or write it to their inbox.";
            return Err(Refusal::new(Rule::Recipient, advice));
        }
        let left_out: Vec<_> = owners.iter().filter(|owner| !fact.to.contains(owner)).collect();
        if !left_out.is_empty() {
            let advice = format!(
                "This proposal needs the acks of {}, and would not reach {}. Write it to your outbox without `to`, \
                 or with all of them in it.",
                listed(&owners),
                listed(left_out)
            );
            return Err(Refusal::new(Rule::Recipient, advice));
        }
        self.check_pending(&message.from, ahead, fact.at)
    }

    /// Who may propose in a thread that has a proposal: nobody once it is decided; while it waits, those whom it
    /// concerns, and not its proposer, whose acks may be on their way.
    fn check_thread(&self, before: &Proposal, fact: &Fact<'_>) -> Result<(), Refusal> {
        let from = &fact.message.from;
        let (proposer, subject) = (&before.proposer, excerpt(&before.subject));
        if before.standing == Standing::Decided {
            let advice = format!("{subject:?} is decided in this thread. Propose in a thread of its own.");
            return Err(Refusal::new(Rule::Decision, advice));
        }
        if !before.is_pending_at(fact.at) {
            return Ok(());
        }
        if proposer == from {
            let advice = format!(
                "Your proposal {subject:?} waits for acks in this thread, and what is being acked can't be changed. \
                 Wait until {}, or propose in a thread of its own.",
                before.due
            );
            return Err(Refusal::new(Rule::Replay, advice));
        }
        if !before.owners.contains(from) && !before.parties.contains(from) {
            let advice = format!(
                "{proposer}'s proposal {subject:?} concerns {} here, and only they counter it. Propose in a thread \
                 of its own.",
                listed(before.owners.iter().chain(&before.parties))
            );
            return Err(Refusal::new(Rule::Authority, advice));
        }
        Ok(())
    }

    /// One agent can't fill the memory with questions.
    fn check_pending(&self, from: &AgentName, ahead: u32, now: Timestamp) -> Result<(), Refusal> {
        let pending = self.all().filter(|proposal| proposal.is_pending_at(now));
        let own: Vec<_> = pending.filter(|proposal| proposal.proposer == *from).collect();
        if own.len() + (ahead as usize) < MOST_PENDING {
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
            Standing::Open | Standing::Escalated
                if proposal.counters > 0 && names_another(message, proposal) =>
            {
                let why = format!(
                    "{proposer} has countered it with {:?}; read that, and ack it with its id {} in refs",
                    excerpt(&proposal.subject),
                    proposal.id
                );
                return Err(Refusal::new(
                    Rule::Conflict,
                    format!("This acks a proposal that is no more: {why}."),
                ));
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

/// Whether an ack's refs name a message that is not the newest proposal.
fn names_another(ack: &Message, proposal: &Proposal) -> bool {
    let refs = ack.object.get("refs").and_then(Value::as_array).unwrap_or_default();
    let mut ids = refs.iter().filter_map(Value::as_str).filter(|id| is_id(id)).peekable();
    ids.peek().is_some() && ids.all(|id| !id.eq_ignore_ascii_case(&proposal.id))
}

/// Whether a text is a message's id: 64 hex digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
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
