//! After a start: the commits since the checkpoint are folded into the ledger once more, and what a crash kept
//! from its recipients is delivered.

use super::events::{Appended, Event};
use super::ledger::Ledger;
use super::logs::{LogName, Stamp, for_each_line};
use super::replay::ShortId;
use super::{Exchange, OpenError};
use crate::rules::conversation::{Charter, Effect};
use std::collections::HashSet;
use std::io;

/// Something that has its place among the commits.
enum Since<'a> {
    /// Bytes of a log, and the file that they are in now: the log may have been archived.
    Lines(&'a Appended, &'a str),
    /// An operator's act.
    Act(&'a Event),
}

impl Exchange {
    /// Folds what happened since the checkpoint into the ledger, and delivers what is missing. `known`: the last
    /// commit that the checkpoint knows.
    pub(super) fn fold(&self, known: u64, appends: &[Appended], recent: &[Event]) -> Result<(), OpenError> {
        let io_error = |error| OpenError::Io { file: self.layout.events(), error };
        let charter = self.charter();
        let recorded = recorded_effects(recent);
        let archived: Vec<_> = recent.iter().filter(|event| event.event == "archived").collect();
        let mut ledger = self.ledger.lock();
        // Events from before there was a ledger have no order but their own.
        let is_new = |order: u64| order > known || (order == 0 && known == 0);
        let mut since: Vec<(u64, Since<'_>)> = Vec::new();
        for lines in appends.iter().filter(|lines| is_new(lines.order)) {
            let archive =
                archived.iter().find(|event| event.seq > lines.seq && event.text("log") == Some(&*lines.log));
            let file = archive.and_then(|event| event.text("to")).unwrap_or(&lines.log);
            since.push((lines.order, Since::Lines(lines, file)));
        }
        let acts = recent.iter().filter_map(|event| Some((event.number("order")?, event)));
        since.extend(
            acts.filter(|(order, _)| is_new(*order)).map(|(order, event)| (order, Since::Act(event))),
        );
        since.sort_by_key(|(order, _)| *order);
        let mut folded = HashSet::new();
        for (_, since) in &since {
            let effects = match since {
                Since::Lines(lines, file) => {
                    self.fold_lines(&mut ledger, lines, file, &mut folded, &charter).map_err(io_error)?
                }
                Since::Act(event) => fold_act(&mut ledger, event),
            };
            ledger.pending.extend(effects.into_iter().filter(|effect| !recorded(effect)));
        }
        drop(ledger);
        self.carry_out_pending();
        Ok(())
    }

    fn fold_lines(
        &self,
        ledger: &mut Ledger,
        lines: &Appended,
        file: &str,
        folded: &mut HashSet<ShortId>,
        charter: &Charter,
    ) -> io::Result<Vec<Effect>> {
        let mut effects = ledger.conversation.tick(lines.at);
        let Some(source) = self.find_log(&lines.log).filter(|log| *log != LogName::Decisions) else {
            return Ok(effects);
        };
        let stamp = Stamp { event: "delivered", by: lines.by.to_string(), order: lines.order, at: lines.at };
        let bytes = self.store.open_log(file, false)?;
        for_each_line(&*bytes, lines.start, lines.end, |line, _| {
            // A line that was edited behind the mount is for verify to tell of.
            let Some(line) = self.readmit(&source, line) else { return Ok(()) };
            let is_new = folded.insert(line.id);
            // A copy whose event a crash took looks like a line of its own: it is for the one inbox only.
            if is_new || !(lines.recovered && source.takes_copies()) {
                self.deliver_again(ledger, &source, &line, &stamp)?;
            }
            if is_new {
                effects.extend(ledger.conversation.observe(&line.fact(lines.at), charter));
            }
            Ok(())
        })?;
        Ok(effects)
    }
}

fn fold_act(ledger: &mut Ledger, event: &Event) -> Vec<Effect> {
    let at = event.time();
    let mut effects = ledger.conversation.tick(at);
    match event.event.as_str() {
        "decision-settled" => {
            let id = event.text("correlation_id").unwrap_or_default();
            let accept = event.members.get("accept").and_then(serde_json::Value::as_bool) == Some(true);
            effects.extend(ledger.conversation.settle(id, accept, at).unwrap_or_default());
        }
        "safe-mode-cleared" => {
            ledger.conversation.clear_safe_mode();
        }
        _ => {}
    }
    effects
}

/// The number of the last commit that the events tell of.
pub(super) fn last_order(appends: &[Appended], recent: &[Event]) -> u64 {
    let acts = recent.iter().filter_map(|event| event.number("order"));
    appends.iter().map(|lines| lines.order).chain(acts).max().unwrap_or(0)
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
