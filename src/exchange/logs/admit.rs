//! Everything that can be judged about an object without the log it is for. No lock is held here.

use super::LogName;
use crate::exchange::replay::{ShortId, short};
use crate::exchange::{Actor, Exchange};
use crate::rules::{self, Refusal, Rule};
use crate::wire::json::StreamedObject;
use crate::wire::message::Message;
use crate::wire::trust::Tier;

/// Longest incomplete object that a descriptor may hold, in bytes, also for whom no rule limits it.
const MAX_PENDING: usize = 16 * 1024 * 1024;
/// From this many objects in one write on, signatures are checked on several cores.
const PARALLEL_FROM: usize = 8;

/// An object that every rule but replay lets into the log.
pub(super) struct Admitted {
    pub line: Vec<u8>,
    pub id: ShortId,
}

impl Exchange {
    /// Everything that can be judged without the log: schema, authority, signature, limits.
    fn admit(&self, log: &LogName, actor: &Actor, streamed: StreamedObject) -> Result<Admitted, Refusal> {
        let message = Message::from_object(streamed.object)?;
        rules::append::check_author(log, actor, self.may_relay(actor), &message.from)?;
        let id = message.id;
        let (now, config) = (self.now(), &self.config);
        let check = |message: &Message, tier| {
            rules::append::check_line(streamed.line.len(), tier, config.max_body_bytes)?;
            rules::append::check_limits(message, tier, now, config.clock_skew_seconds, config.max_body_bytes)
        };
        if !message.is_signed() && config.allow_unsigned_from.contains(&message.from) {
            check(&message, Tier::Verified)?;
        } else {
            let verified = message.verify(&self.trust())?;
            check(verified.message(), verified.tier())?;
        }
        Ok(Admitted { line: streamed.line, id: short(&id) })
    }

    /// Rule `size`, as soon as an incomplete object breaks it: what is parsed of it takes many times its
    /// bytes of memory. Who may relay may be writing for a TRUSTED agent.
    pub(super) fn check_pending(&self, actor: &Actor, pending: usize) -> Result<(), Refusal> {
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
        log: &LogName,
        actor: &Actor,
        objects: Vec<StreamedObject>,
    ) -> Result<Vec<Admitted>, Refusal> {
        let cores = self.cores;
        if objects.len() < PARALLEL_FROM || cores == 1 {
            return objects.into_iter().map(|object| self.admit(log, actor, object)).collect();
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
                    part.into_iter().map(|o| self.admit(log, actor, o)).collect::<Result<Vec<_>, _>>()
                }));
            }
            let mut all: Vec<Admitted> =
                first.into_iter().map(|o| self.admit(log, actor, o)).collect::<Result<_, _>>()?;
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
