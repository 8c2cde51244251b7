//! What the operator asks of the conversation: what was decided, who is there, and to settle what agents can't.

use super::events::members;
use super::logs::LogName;
use super::{Actor, Exchange};
use crate::rules::conversation::proposals::Standing;
use serde_json::{Value, json};

impl Exchange {
    /// The decisions, and the proposals that are none, by how they stand.
    pub(super) fn list_decisions(&self) -> Result<Value, String> {
        let path = LogName::Decisions.path();
        let text = match self.store.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(format!("{path}: {error}")),
        };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let decided: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let proposals = self.proposals(&Actor::Operator);
        let standing = |wanted: Standing| -> Vec<&super::views::ProposalView> {
            proposals.iter().filter(|proposal| proposal.standing == wanted).collect()
        };
        Ok(json!({
            "decided": decided,
            "open": standing(Standing::Open),
            "escalated": standing(Standing::Escalated),
            "lapsed": standing(Standing::Lapsed),
            "overtaken": standing(Standing::Overtaken),
            "dropped": standing(Standing::Dropped),
        }))
    }

    /// Enters a proposal as decided, or drops it. `id`: its thread's correlation_id, or its message id.
    pub(super) fn settle_proposal(&self, id: &str, accept: bool) -> Result<Value, String> {
        let end = {
            let mut ledger = self.ledger.lock();
            let at = self.now();
            ledger.tick(at);
            let mut conversation = ledger.conversation.clone();
            let thread = conversation.proposals.find(id);
            let thread = thread.map_or_else(|| id.to_owned(), |proposal| proposal.correlation_id.clone());
            let effects = conversation.settle(&thread, accept, at)?;
            let order = ledger.next_order();
            // First the event: a start folds it again, and without it would have the proposal open once more.
            let members = members! {"correlation_id": thread, "accept": accept, "order": order};
            let end = self.events.append(at, "decision-settled", &members);
            let end =
                end.map_err(|e| format!("events.jsonl could not be written, so nothing was settled: {e}"))?;
            ledger.conversation = conversation;
            ledger.pending.extend(effects);
            end
        };
        self.finish_act(end)?;
        let done = if accept { "entered in decisions.jsonl" } else { "dropped" };
        Ok(json!({"changes": [format!("the proposal {id} was {done}")]}))
    }

    /// Whether safe mode is on, since when, why and what to do.
    pub(super) fn safe_mode_status(&self) -> Value {
        let conversation = self.conversation();
        let text = super::views::safe_mode_text(&conversation);
        match conversation.incidents.safe_mode() {
            None => json!({"on": false, "text": text}),
            Some(mode) => json!({
                "on": true,
                "since": mode.since.to_string(),
                "incident": mode.incident.id,
                "from": mode.incident.from,
                "subject": mode.incident.subject,
                "text": text,
            }),
        }
    }

    /// Lifts safe mode.
    pub(super) fn clear_safe_mode(&self) -> Result<Value, String> {
        let end = {
            let mut ledger = self.ledger.lock();
            let at = self.now();
            ledger.tick(at);
            let Some(mode) = ledger.conversation.incidents.safe_mode().cloned() else {
                return Ok(json!({"changes": []}));
            };
            let order = ledger.next_order();
            let members = members! {"incident": mode.incident.id, "order": order};
            let end = self.events.append(at, "safe-mode-cleared", &members);
            let end =
                end.map_err(|e| format!("events.jsonl could not be written, so safe mode stays: {e}"))?;
            ledger.conversation.clear_safe_mode();
            end
        };
        self.finish_act(end)?;
        Ok(json!({"changes": ["safe mode is lifted: all messages and handoffs pass again"]}))
    }

    fn finish_act(&self, end: u64) -> Result<(), String> {
        let durable = self.make_events_durable(end);
        durable.map_err(|e| format!("done, but events.jsonl could not be made durable: {e}"))?;
        self.carry_out_pending();
        Ok(())
    }
}
