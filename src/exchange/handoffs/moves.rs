//! Every move of a handoff, from publication to its end.
//!
//! One move is made at a time: its event first, durably, then the rename, so that after a crash the events
//! say which rename to finish. The lock for that is the exchange's, so a claim has one winner across any
//! number of mounts; who only looks waits for the short lock of the book, never for the disk.

use super::book::{About, Book};
use super::{HandoffNode, State};
use crate::exchange::events::{Members, hex, members};
use crate::exchange::{Actor, Attempt, Caller, Denied, Durability, Exchange, Outcome};
use crate::rules::handoff::{REASON, Transition, check_move, check_name, check_publish, is_final_name};
use crate::rules::{Refusal, Rule};
use crate::wire::handoff::{Handoff, HandoffError};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use parking_lot::MutexGuard;
use sha2::{Digest, Sha256};
use std::io;

/// A handoff whose payload every rule lets in; where it is staged on disk.
struct Staged {
    handoff: Handoff,
    sha256: String,
    path: String,
}

impl Exchange {
    /// rename(2) between or within the four directories: publishes a draft, claims, completes, rejects.
    ///
    /// # Errors
    /// ENOENT when `from` is not there (the claim was lost), `replay` when `to` exists, `transition`,
    /// `authority`, `expired`, and the rules of the payload.
    pub fn move_handoff(&self, caller: &Caller, from: (State, &str), to: (State, &str)) -> Outcome<()> {
        let actor = self.actor(caller);
        let path = format!("{}/{}", from.0.dir(), from.1);
        let attempt = Attempt { operation: "rename", path: &path, bytes: &[] };
        let Some(node) = self.find_handoff(caller, from.0, from.1) else {
            return Err(Denied::os(libc::ENOENT));
        };
        let draft = self.handoffs().book.lock().drafts.get(node).map(|draft| draft.bytes.clone());
        if let Some(bytes) = draft {
            return self.move_draft(caller, &actor, node, &bytes, &path, to);
        }
        self.transfer(&actor, node, from, Some(to.0), to.1)
            .map_err(|denied| self.record(caller, attempt, denied))
    }

    fn move_draft(
        &self,
        caller: &Caller,
        actor: &Actor,
        node: HandoffNode,
        bytes: &[u8],
        path: &str,
        to: (State, &str),
    ) -> Outcome<()> {
        let attempt = Attempt { operation: "rename", path, bytes };
        if to.0 != State::Pending {
            let advice = format!("{path} is not published yet. Rename it within handoff/ first.");
            return Err(self.refuse(caller, attempt, Refusal::new(Rule::Transition, advice)));
        }
        if !is_final_name(to.1) {
            let mut book = self.handoffs().book.lock();
            book.drafts.rename(node, (to.0.dir(), to.1));
            return Ok(());
        }
        self.publish(actor, node, bytes, to.1).map_err(|denied| self.record(caller, attempt, denied))
    }

    /// Verifies a draft's bytes and publishes them as handoff/`name`. The node stays the same.
    pub(super) fn publish(&self, actor: &Actor, node: HandoffNode, bytes: &[u8], name: &str) -> Outcome<()> {
        check_name(State::Pending, name)?;
        self.conversation().incidents.check_safe_mode("Publishing a handoff")?;
        let handoff = Handoff::parse(bytes).map_err(Refusal::from)?;
        check_publish(actor, self.may_relay(actor), &handoff.from)?;
        self.verify_handoff(&handoff)?;
        handoff.check_expiry(self.now()).map_err(Refusal::from)?;
        let staged = self.stage(handoff, bytes)?;
        let published = self.publish_staged(actor, node, &staged, name);
        // While the chain has it as published, the next start must find it and finish.
        if published.is_err() && !self.events.owes_an_undo() {
            let _ = self.store.remove(&staged.path);
        }
        published
    }

    /// Writes the bytes where no reader sees them, durably, before the lock is taken.
    fn stage(&self, handoff: Handoff, bytes: &[u8]) -> io::Result<Staged> {
        let sha256 = hex(&Sha256::digest(bytes));
        let path = format!("private/staging/{sha256}-{}", self.next_number());
        let durable = self.durability == Durability::Commit;
        self.store.create(&path, bytes, 0o444, durable)?;
        Ok(Staged { handoff, sha256, path })
    }

    fn publish_staged(&self, actor: &Actor, node: HandoffNode, staged: &Staged, name: &str) -> Outcome<()> {
        let path = format!("{}/{name}", State::Pending.dir());
        let _one_at_a_time = self.handoffs().moves.lock();
        let keys = {
            let book = self.handoffs().book.lock();
            if book.taken(State::Pending, name) || self.store.stat(&path).is_ok() {
                let advice = format!("{path} exists. Choose another name; your file is kept as it was.");
                return Err(Refusal::new(Rule::Replay, advice).into());
            }
            book.check_unused(&staged.handoff)?
        };
        let mut book = self.note_move(
            "published",
            &members! {
                "name": name, "handoff_id": staged.handoff.id.as_str(), "from": staged.handoff.from.as_str(),
                "to": staged.handoff.to.as_str(), "sha256": staged.sha256.as_str(), "by": actor.to_string(),
                "staged": staged.path.as_str(),
            },
            &staged.path,
            &path,
        )?;
        book.mark_used(keys);
        book.drafts.remove(node);
        book.insert(node, State::Pending, name, Some(About::of(&staged.handoff)));
        Ok(())
    }

    /// Writes a move's event, durably, and makes the move; returns the book, which is to be told.
    fn note_move(
        &self,
        event: &str,
        members: &Members,
        from_path: &str,
        to_path: &str,
    ) -> io::Result<MutexGuard<'_, Book>> {
        let end = self.events.append(self.now(), event, members)?;
        let durable = self.make_events_durable(end);
        // A reader finds a file by the book, so it is moved and told of in one.
        let book = self.handoffs().book.lock();
        durable.and_then(|()| self.store.rename_new(from_path, to_path)).inspect_err(|_| {
            if let Err(error) = self.events.undo(self.now(), to_path, from_path) {
                tracing::error!(
                    from_path, %error,
                    "a failed move could not be noted; it will be before anything else is"
                );
            }
        })?;
        Ok(book)
    }

    /// unlink(2): withdraws a pending handoff, discards an own draft.
    ///
    /// # Errors
    /// `authority` or `immutable` for anything else.
    pub fn unlink_handoff(&self, caller: &Caller, state: State, name: &str) -> Outcome<()> {
        let actor = self.actor(caller);
        let path = format!("{}/{name}", state.dir());
        let attempt = Attempt { operation: "unlink", path: &path, bytes: &[] };
        let Some(node) = self.find_handoff(caller, state, name) else {
            return Err(Denied::os(libc::ENOENT));
        };
        {
            let mut book = self.handoffs().book.lock();
            if book.drafts.get(node).is_some() {
                book.drafts.unlink(node);
                return Ok(());
            }
        }
        self.transfer(&actor, node, (state, name), None, name)
            .map_err(|denied| self.record(caller, attempt, denied))
    }

    /// Moves what expired while pending to rejected/, and drops drafts that nobody finished for an
    /// hour (their bytes go to quarantine). Called about once a second; returns how many handoffs moved.
    pub fn run_janitor(&self) -> usize {
        let now = self.now();
        let due: Vec<(HandoffNode, String)> = {
            let book = self.handoffs().book.lock();
            book.expiring
                .iter()
                .take_while(|(expires_at, _)| *expires_at < now)
                .filter_map(|(_, node)| Some((*node, book.published.get(node)?.name.clone())))
                .collect()
        };
        let mut moved = 0;
        for (node, name) in due {
            let free = self.free_name(State::Rejected, &name);
            match self.transition(
                node,
                (State::Pending, &name),
                &free,
                |_, _| Ok((Transition::Expire, State::Rejected)),
                "janitor",
            ) {
                Ok(_) => moved += 1,
                Err(error) => tracing::warn!(name, %error, "an expired handoff could not be moved"),
            }
        }
        self.drop_stale_handoff_drafts(now);
        self.drop_stale_letter_drafts(now);
        self.run_trust_janitor(now);
        self.tick();
        self.archive_if_due(self.now());
        moved
    }

    /// Moves a published handoff as `actor` asks; `to` is `None` for its unlink.
    fn transfer(
        &self,
        actor: &Actor,
        node: HandoffNode,
        from: (State, &str),
        to: Option<State>,
        to_name: &str,
    ) -> Outcome<()> {
        if to.is_some() && !is_final_name(to_name) {
            let advice =
                format!("{to_name} is no name for a handoff: it must end in .json and not be hidden.");
            return Err(Refusal::new(Rule::Transition, advice).into());
        }
        if let Some(state) = to {
            check_name(state, to_name)?;
        }
        let free;
        let to_name = match to {
            Some(_) => to_name,
            None => {
                free = self.free_name(State::Rejected, to_name);
                &free
            }
        };
        let judge = |about: Option<&About>, now: Timestamp| {
            let Some(about) = about else {
                return Err(Refusal::new(
                    Rule::Immutable,
                    format!("{}/{} has ended; it is the record and stays where it is.", from.0.dir(), from.1),
                ));
            };
            self.conversation().incidents.check_safe_mode("Moving a handoff")?;
            let transition = check_move(actor, self.may_relay(actor), &about.parties, from.0, to, now)?;
            Ok((transition, to.unwrap_or(State::Rejected)))
        };
        self.transition(node, from, to_name, judge, &actor.to_string())
    }

    /// The one place where a published handoff moves.
    fn transition(
        &self,
        node: HandoffNode,
        from: (State, &str),
        to_name: &str,
        judge: impl Fn(Option<&About>, Timestamp) -> Result<(Transition, State), Refusal>,
        by: &str,
    ) -> Outcome<()> {
        let _one_at_a_time = self.handoffs().moves.lock();
        let now = self.now();
        // Another mount may have moved it since the caller looked.
        let about = match self.handoffs().book.lock().published.get(&node) {
            Some(p) if (p.state, p.name.as_str()) == from => p.about.clone(),
            _ => return Err(Denied::os(libc::ENOENT)),
        };
        let (transition, to_state) = judge(about.as_ref(), now)?;
        let (from_path, to_path) =
            (format!("{}/{}", from.0.dir(), from.1), format!("{}/{to_name}", to_state.dir()));
        if self.handoffs().book.lock().taken(to_state, to_name) || self.store.stat(&to_path).is_ok() {
            return Err(Refusal::new(Rule::Replay, format!("{to_path} exists. Choose another name.")).into());
        }
        let handoff_id = about.as_ref().map_or("", |a| a.handoff_id.as_str());
        let reason_name = format!("{to_name}{REASON}");
        if to_state == State::Rejected {
            let reason = serde_json::json!({
                "handoff_id": handoff_id, "reason": transition.event(), "by": by, "at": now.to_string(),
                "expires_at": about.as_ref().map(|a| a.parties.expires_at.to_string()),
            });
            let path = format!("{}/{reason_name}", to_state.dir());
            match self.store.create(&path, format!("{reason:#}\n").as_bytes(), 0o444, false) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        let mut book = self.note_move(
            transition.event(),
            &members! {
                "name": from.1, "to_name": to_name, "from_dir": from.0.dir(), "to_dir": to_state.dir(),
                "handoff_id": handoff_id, "by": by,
            },
            &from_path,
            &to_path,
        )?;
        book.relocate(node, to_state, to_name);
        if to_state == State::Rejected && !book.taken(State::Rejected, &reason_name) {
            let reason = book.new_node();
            book.insert(reason, State::Rejected, &reason_name, None);
        }
        Ok(())
    }

    fn free_name(&self, state: State, name: &str) -> String {
        let book = self.handoffs().book.lock();
        let stem = name.strip_suffix(".json").unwrap_or(name);
        std::iter::once(name.to_owned())
            .chain((2..).map(|n| format!("{stem}.{n}.json")))
            .find(|candidate| !book.taken(state, candidate))
            .unwrap_or_else(|| name.to_owned())
    }

    pub(super) fn verify_handoff(&self, handoff: &Handoff) -> Result<(), Refusal> {
        for agent in [&handoff.from, &handoff.to] {
            if !self.config.agents.contains_key(agent) {
                return Err(Refusal::new(
                    Rule::Schema,
                    format!("{agent} is no agent of this exchange. It has: {}.", self.agent_names()),
                ));
            }
        }
        match self.secret(&handoff.from, &handoff.to) {
            Some(secret) => Ok(handoff.verify(&secret)?),
            None if self.config.relay_handoffs => Ok(()),
            None => Err(no_secret(&handoff.from, &handoff.to)),
        }
    }
}

fn no_secret(from: &AgentName, to: &AgentName) -> Refusal {
    let cause = HandoffError::Hmac(from.clone(), to.clone());
    Refusal::new(
        Rule::Hmac,
        format!(
            "{cause}: this exchange holds no secret for them. The operator adds it: baton secret import --pair {from},{to} FILE."
        ),
    )
}
