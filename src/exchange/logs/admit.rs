//! Everything that can be judged about an object without the log it is for. No lock is held here.

use super::LogName;
use super::seal::Sealing;
use crate::exchange::replay::{ShortId, short};
use crate::exchange::{Actor, Caller, Exchange};
use crate::rules::trust::cards::NewContact;
use crate::rules::{self, Refusal, Rule};
use crate::wire::json::StreamedObject;
use crate::wire::keys::KeyId;
use crate::wire::message::Message;
use crate::wire::name::AgentName;
use crate::wire::trust::{Tier, TrustList};
use std::sync::Arc;

/// Longest incomplete object that a descriptor may hold, in bytes, also for whom no rule limits it.
const MAX_PENDING: usize = 16 * 1024 * 1024;
/// From this many objects in one write on, signatures are checked on several cores.
const PARALLEL_FROM: usize = 8;

/// An object that every rule lets in that needs neither the log nor the conversation.
pub(in crate::exchange) struct Admitted {
    /// As it is stored, without newline.
    pub line: Vec<u8>,
    pub id: ShortId,
    pub message: Message,
    /// Whose inboxes it goes to.
    pub to: Vec<AgentName>,
    pub tier: Tier,
    /// The key that signed it; `None`: unsigned, by an agent that may.
    pub key: Option<KeyId>,
    /// The agent card that it brings.
    pub contact: Option<NewContact>,
}

/// Who wrote an object, and by what it is judged.
pub(super) struct Judge<'a> {
    pub log: &'a LogName,
    pub caller: &'a Caller,
    pub actor: &'a Actor,
    pub trust: Arc<TrustList>,
}

impl Exchange {
    /// Everything that can be judged without the log: schema, authority, signature, limits, recipients. An
    /// unsigned object of an agent whose key is at hand is sealed first.
    pub(super) fn admit(&self, judge: &Judge<'_>, streamed: StreamedObject) -> Result<Admitted, Refusal> {
        let (log, actor) = (judge.log, judge.actor);
        let (message, line) = match self.seal(judge, streamed)? {
            Sealing::Sealed(message, line) => (message, line.into_bytes()),
            Sealing::AsItIs(streamed) => (Message::from_object(streamed.object)?, streamed.line),
        };
        rules::append::check_author(log, actor, self.may_relay(actor), &message.from)?;
        rules::append::check_kind(log, &message)?;
        let to = rules::address::recipients(log, &message, self.config.agents.keys())?;
        let id = short(&message.id);
        let (now, config) = (self.now(), &self.config);
        let check = |message: &Message, tier| {
            rules::append::check_line(line.len(), tier, config.max_body_bytes)?;
            rules::append::check_limits(message, tier, now, config.clock_skew_seconds, config.max_body_bytes)
        };
        let contact = self.judge_card(&message, &judge.trust)?;
        let (message, tier, key) =
            if !message.is_signed() && config.allow_unsigned_from.contains(&message.from) {
                message.check_not_blocked(&judge.trust)?;
                (message, Tier::Verified, None)
            } else {
                let introduction = contact.as_ref().filter(|c| c.is_first).map(|c| c.introduction(now));
                let verified = message.verify(introduction.as_ref().unwrap_or(&judge.trust))?;
                let (tier, key) = (verified.tier(), verified.key().clone());
                (verified.into_message(), tier, Some(key))
            };
        check(&message, tier)?;
        Ok(Admitted { line, id, message, to, tier, key, contact })
    }

    /// A line that was admitted once, as it is read back; `None` where it is no message any more.
    pub(in crate::exchange) fn readmit(&self, log: &LogName, line: &[u8]) -> Option<Admitted> {
        let message = Message::from_object(super::lines::one_object(line).ok()?.object).ok()?;
        let to = rules::address::recipients(log, &message, self.config.agents.keys()).ok()?;
        let tier = self.trust().agents.get(&message.from).map_or(Tier::Verified, |entry| entry.tier);
        Some(Admitted {
            line: line.to_vec(),
            id: short(&message.id),
            message,
            to,
            tier,
            key: None,
            contact: None,
        })
    }

    /// Rule `size`, as soon as an incomplete object breaks it: what is parsed of it takes many times its
    /// bytes of memory. Who may relay may be writing for a TRUSTED agent.
    pub(in crate::exchange) fn check_pending(&self, actor: &Actor, pending: usize) -> Result<(), Refusal> {
        if pending > MAX_PENDING {
            let advice = format!("An object of more than {MAX_PENDING} bytes. Put the content in a file.");
            return Err(Refusal::new(Rule::Size, advice));
        }
        let Actor::Agent(agent) = actor else { return Ok(()) };
        if self.may_relay(actor) {
            return Ok(());
        }
        let tier = self.trust().agents.get(agent).map_or(Tier::Untrusted, |entry| entry.tier);
        rules::append::check_line(pending, tier, self.config.max_body_bytes)
    }

    /// Admits all objects of one write, or says why the first that is not admitted is not.
    pub(super) fn admit_all(
        &self,
        judge: &Judge<'_>,
        objects: Vec<StreamedObject>,
    ) -> Result<Vec<Admitted>, Refusal> {
        let cores = self.cores;
        if objects.len() < PARALLEL_FROM || cores == 1 {
            return objects.into_iter().map(|object| self.admit(judge, object)).collect();
        }
        let share = objects.len().div_ceil(cores);
        let mut objects = objects.into_iter();
        let shares: Vec<Vec<_>> = std::iter::from_fn(|| {
            let part: Vec<_> = objects.by_ref().take(share).collect();
            (!part.is_empty()).then_some(part)
        })
        .collect();
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            let mut shares = shares.into_iter();
            let first = shares.next().unwrap_or_default();
            for part in shares {
                workers.push(scope.spawn(move || {
                    part.into_iter().map(|o| self.admit(judge, o)).collect::<Result<Vec<_>, _>>()
                }));
            }
            let mut all: Vec<Admitted> =
                first.into_iter().map(|o| self.admit(judge, o)).collect::<Result<_, _>>()?;
            for worker in workers {
                match worker.join() {
                    Ok(part) => all.extend(part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(all)
        })
    }
}
