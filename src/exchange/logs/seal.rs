//! Sealing: what an agent left out is filled in, and its key signs.

use super::LogName;
use super::admit::Judge;
use crate::exchange::{Actor, Caller, Exchange};
use crate::rules::{Refusal, Rule};
use crate::wire::json::{Object, StreamedObject, Value};
use crate::wire::keys::SigningKey;
use crate::wire::message::{self, Message, SignatureVersion};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An object after sealing.
pub(super) enum Sealing {
    /// Completed and signed: the message and its line.
    Sealed(Message, String),
    /// Signed already, or there is no key to seal it with.
    AsItIs(StreamedObject),
}

impl Exchange {
    /// The key with which the lines of a caller are sealed: its agent's, on mounts that are the agent's unless
    /// exchange.toml says `seal = false`, by uid only where it says `seal = true`.
    pub fn sealing_key(&self, caller: &Caller) -> Option<Arc<SigningKey>> {
        let Actor::Agent(agent) = self.actor(caller) else { return None };
        let wanted = self.config.agents.get(&agent)?.seal.unwrap_or(caller.bound.is_some());
        wanted
            .then(|| self.lent_keys.read().get(&agent).cloned().or_else(|| self.signing_key(&agent)))
            .flatten()
    }

    /// Seals an agent's lines with a key that the exchange does not hold.
    ///
    /// # Errors
    /// A sentence, where trust.json does not have it as an active key of the agent.
    pub fn lend_key(&self, agent: &AgentName, key: &Arc<SigningKey>) -> Result<(), String> {
        let id = key.public().id(agent);
        match self.trust().key(&id) {
            Some(known) if known.active => {}
            Some(_) => return Err(format!("the key {id} is deactivated: mount with {agent}'s active key")),
            None => {
                return Err(format!(
                    "the key {id} is not trusted here: baton key show {agent} --key FILE shows whose it is, and \
                     baton trust import makes it known"
                ));
            }
        }
        self.lent_keys.write().insert(agent.clone(), Arc::clone(key));
        Ok(())
    }

    /// Forgets a key that was lent.
    pub fn take_back_key(&self, agent: &AgentName) {
        self.lent_keys.write().remove(agent);
    }

    /// Seals an object that is not signed, where there is a key for it.
    ///
    /// # Errors
    /// The rules of the message's form; `from-mismatch` where `from` is somebody else.
    pub(super) fn seal(&self, judge: &Judge<'_>, streamed: StreamedObject) -> Result<Sealing, Refusal> {
        let Actor::Agent(agent) = judge.actor else { return Ok(Sealing::AsItIs(streamed)) };
        if message::is_signed(&streamed.object) {
            return Ok(Sealing::AsItIs(streamed));
        }
        let Some(key) = self.sealing_key(judge.caller) else { return Ok(Sealing::AsItIs(streamed)) };
        let mut object = streamed.object;
        self.complete(&mut object, agent, judge.log)?;
        let now = self.stamp();
        let (message, line) = message::sign_message(object, agent, &key, SignatureVersion::V31, now)?;
        Ok(Sealing::Sealed(message, line))
    }

    /// What the place and the thread of a message say, and its author need not: `to`, and in a reply type,
    /// subject and body.
    ///
    /// # Errors
    /// EBADMSG `recipient` for a reply in an outbox of which nobody knows any more what it answers.
    fn complete(&self, object: &mut Object, author: &AgentName, log: &LogName) -> Result<(), Refusal> {
        let text = |text: &str| Value::String(text.to_owned());
        let correlation_id = object.get("correlation_id").and_then(Value::as_str).map(str::to_owned);
        let is_reply = !object.contains_key("type") || !object.contains_key("subject");
        let message_type = object.get("type").and_then(Value::as_str).unwrap_or("ack").to_owned();
        let Some(correlation_id) = correlation_id else {
            if let LogName::Inbox(own) | LogName::Bilateral { to: own, .. } = log {
                object.entry("to".into()).or_insert_with(|| Value::Array(vec![text(own.as_str())]));
            }
            return Ok(());
        };
        let (partner, subject) = {
            let conversation = self.conversation();
            let known = conversation.limits.thread(&correlation_id);
            let partner = known.and_then(|thread| thread.partner_of(author, message_type == "ack")).cloned();
            (partner, known.map_or(&*correlation_id, |thread| &thread.subject).to_owned())
        };
        let own = match log {
            LogName::Inbox(agent) | LogName::Bilateral { to: agent, .. } => Some(agent),
            // A proposal is for everyone whom it concerns, also where it counters another.
            LogName::Outbox(_) if message_type != "proposal" => partner.as_ref(),
            LogName::Outbox(_) | LogName::Decisions | LogName::Incidents => None,
        };
        let is_outbox = matches!(log, LogName::Outbox(_));
        if is_outbox && own.is_none() && !object.contains_key("to") && (is_reply || message_type == "ack") {
            let advice = format!(
                "Nobody has written to you in the thread {correlation_id:?}, as far as is remembered, so it is not \
                 known whom this answers. Name them in `to`, or write to inbox/<agent>.jsonl."
            );
            return Err(Refusal::new(Rule::Recipient, advice));
        }
        if let Some(own) = own {
            object.entry("to".into()).or_insert_with(|| Value::Array(vec![text(own.as_str())]));
        }
        let subject = if subject.starts_with("Re: ") { subject } else { format!("Re: {subject}") };
        object.entry("type".into()).or_insert_with(|| text("ack"));
        object.entry("subject".into()).or_insert(Value::String(subject));
        object.entry("body".into()).or_insert_with(|| text(""));
        Ok(())
    }

    /// The time, a microsecond after the last stamp at least: two sealed messages with the same words are two.
    fn stamp(&self) -> Timestamp {
        let now = self.now().0;
        let last = self
            .last_stamp
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last.saturating_add(1))));
        Timestamp(last.map_or(now, |last| now.max(last.saturating_add(1))))
    }
}
