//! After a start: the commits since the checkpoint are folded into the ledger once more, and what a crash kept
//! from its recipients is delivered.

use super::events::Event;
use super::ledger::Ledger;
use super::logs::{Admitted, LogName, Stamp, for_each_line};
use super::{Exchange, OpenError};
use crate::rules::conversation::{Charter, Effect};
use crate::wire::time::Timestamp;
use std::collections::HashSet;
use std::io;

/// A commit that the checkpoint doesn't know, or an operator's act among them.
struct Since<'a> {
    order: u64,
    at: Timestamp,
    event: &'a Event,
    /// Where the log's bytes are now: it may have been archived since.
    file: String,
}

impl Exchange {
    /// Folds `recent`, the events since the checkpoint, into the ledger, and delivers what is missing.
    pub(super) fn fold(&self, recent: &[Event]) -> Result<(), OpenError> {
        let io_error = |error| OpenError::Io { file: self.layout.events(), error };
        let charter = self.charter();
        let recorded = recorded_effects(recent);
        let mut ledger = self.ledger.lock();
        let known = ledger.order;
        let mut since: Vec<Since<'_>> = Vec::new();
        for (index, event) in recent.iter().enumerate() {
            let order = event.number("order").unwrap_or(0);
            ledger.order = ledger.order.max(order);
            if order > known || (order == 0 && known == 0) {
                let at =
                    event.text("time").and_then(|time| Timestamp::parse(time, true)).unwrap_or(Timestamp(0));
                let log = event.text("log").unwrap_or_default();
                let archived = recent[index..]
                    .iter()
                    .find(|later| later.event == "archived" && later.text("log") == Some(log));
                let file = archived.and_then(|event| event.text("to")).unwrap_or(log).to_owned();
                since.push(Since { order, at, event, file });
            }
        }
        since.sort_by_key(|since| since.order);
        let mut folded = HashSet::new();
        for since in &since {
            let due = ledger.conversation.tick(since.at);
            let mut effects: Vec<Effect> = due.into_iter().filter(|effect| !recorded(effect)).collect();
            match since.event.event.as_str() {
                "append" | "recovered" => {
                    for line in self.lines_of(since).map_err(io_error)? {
                        if folded.insert(line.id) {
                            effects.extend(
                                self.fold_line(&mut ledger, since, &line, &charter).map_err(io_error)?,
                            );
                        }
                    }
                }
                "decision-settled" => {
                    let id = since.event.text("correlation_id").unwrap_or_default();
                    let accept = since.event.members.get("accept").and_then(serde_json::Value::as_bool);
                    let settled = ledger.conversation.proposals.settle(id, accept == Some(true), since.at);
                    effects.extend(settled.unwrap_or_default());
                }
                "safe-mode-cleared" => {
                    ledger.conversation.incidents.clear_safe_mode();
                }
                _ => {}
            }
            ledger.pending.extend(effects);
        }
        drop(ledger);
        self.carry_out_pending();
        Ok(())
    }

    fn fold_line(
        &self,
        ledger: &mut Ledger,
        since: &Since<'_>,
        line: &Admitted,
        charter: &Charter,
    ) -> io::Result<Vec<Effect>> {
        let Some(source) = since.event.text("log").and_then(|log| self.find_log(log)) else {
            return Ok(Vec::new());
        };
        let by = since.event.text("by").unwrap_or("recovery").to_owned();
        let stamp = Stamp { event: "delivered", by, order: since.order, at: since.at };
        self.deliver_again(ledger, &source, line, &stamp)?;
        Ok(ledger.conversation.observe(&line.fact(since.at), charter))
    }

    /// The messages that an event tells of.
    fn lines_of(&self, since: &Since<'_>) -> io::Result<Vec<Admitted>> {
        let log = since.event.text("log").and_then(|log| self.find_log(log));
        let (Some(log), Some(start), Some(end)) =
            (log, since.event.number("start"), since.event.number("end"))
        else {
            return Ok(Vec::new());
        };
        if log == LogName::Decisions {
            return Ok(Vec::new());
        }
        let bytes = self.store.open_log(&since.file, false)?;
        let mut lines = Vec::new();
        for_each_line(&*bytes, start, end, |line, _| {
            // A line that was edited behind the mount is for verify to tell of.
            lines.extend(self.readmit(&log, line));
            Ok(())
        })?;
        Ok(lines)
    }
}

/// Which effects the events already tell of as carried out; the others may be carried out twice.
fn recorded_effects(recent: &[Event]) -> impl Fn(&Effect) -> bool {
    let told = |name: &str, member: &str| -> HashSet<String> {
        let events = recent.iter().filter(|event| event.event == name);
        events.filter_map(|event| event.text(member).map(str::to_owned)).collect()
    };
    let (lapsed, incidents) = (told("proposal-lapsed", "correlation_id"), told("safe-mode", "incident"));
    move |effect| match effect {
        Effect::Lapsed { correlation_id } => lapsed.contains(correlation_id),
        Effect::SafeMode { incident, .. } => incidents.contains(incident),
        _ => false,
    }
}
