//! After a start: lines that a crash left without an event get one, the commits since the checkpoint are folded into
//! the ledger once more, and what a crash kept from its recipients is delivered.

use super::events::{Appended, Event, hex, members};
use super::ledger::Ledger;
use super::logs::{Admitted, LogName, Stamp, for_each_line};
use super::replay::ShortId;
use super::verify::lines::check_stored;
use super::{Exchange, OpenError};
use crate::rules::conversation::{Charter, Effect};
use crate::wire::time::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// The longest time, in microseconds, that a commit is thought to be without its event while later ones have theirs.
const EVENT_WITHIN: i64 = 60_000_000;

/// Something that has its place among the commits.
enum Since<'a> {
    /// Bytes of a log, and the file that they are in now: the log may have been archived.
    Lines(&'a Appended, &'a str),
    /// A line of a log that was found without an event.
    Found(&'a Appended, Box<Admitted>),
    /// An operator's act.
    Act(&'a Event),
}

impl Exchange {
    /// Gives every log's bytes an event, and takes out what no rule would have let in. Returns what it told of.
    pub(super) fn recover_logs(&self, recent: &[Event]) -> Result<Vec<Appended>, OpenError> {
        let mut events = Vec::new();
        for (path, covered) in self.events.all_covered() {
            let file = self.layout.tree(&path);
            let len = self.store.stat(&path).map_or(0, |stat| stat.size);
            if len < covered {
                return Err(OpenError::Damaged {
                    problem: format!(
                        "holds {len} bytes, but events.jsonl says {covered}: lines were removed behind the mount"
                    ),
                    mend: format!(
                        "restore {path} from a backup; baton verify lists the missing lines. To go on without \
                         them, move {path} and events.jsonl aside together"
                    ),
                    file,
                });
            }
        }
        let mut logs = self.list_logs();
        // What copies go to comes last, so that a line is found in the log that it was written to before; of an
        // incident that may be the incident log.
        logs.sort_by_key(|log| (log.takes_copies(), matches!(log, LogName::Inbox(_))));
        for name in logs {
            let path = name.path();
            let io_error = |error| OpenError::Io { file: self.layout.tree(&path), error };
            let Ok(stat) = self.store.stat(&path) else { continue };
            let covered = self.events.covered(&path);
            if covered > 0 {
                let bytes = self.store.open_log(&path, false).map_err(io_error)?;
                let mut last = [0];
                bytes.read_exact_at(&mut last, covered - 1).map_err(io_error)?;
                if last != *b"\n" {
                    return Err(OpenError::Damaged {
                        file: self.layout.tree(&path),
                        problem: format!(
                            "byte {covered} should end a line and does not: it was edited behind the mount"
                        ),
                        mend: format!("restore {path} from a backup; baton verify lists what differs"),
                    });
                }
            }
            if stat.size == covered && interrupted_import(recent, &path, covered).is_some() {
                let members = members! {"log": path.as_str()};
                self.events.append(self.now(), "import-abandoned", &members).map_err(io_error)?;
            }
            if stat.size > covered {
                let import = interrupted_import(recent, &path, covered);
                events.extend(self.recover_tail(&name, covered, stat.size, import).map_err(io_error)?);
            }
        }
        Ok(events)
    }

    /// Judges the bytes of a log that have no event: accepted lines get one, the rest goes to quarantine. `import`:
    /// they are of an import, and whether the operator vouches for unsigned lines in it.
    fn recover_tail(
        &self,
        name: &LogName,
        covered: u64,
        len: u64,
        import: Option<bool>,
    ) -> io::Result<Option<Appended>> {
        let path = name.path();
        let bytes = self.store.open_log(&path, false)?;
        let mut tail = vec![0; usize::try_from(len - covered).map_err(io::Error::other)?];
        bytes.read_exact_at(&mut tail, covered)?;
        let mut known = self.index_up_to(name, &*bytes, covered)?;
        let (mut kept, mut lost, mut lines) = (Vec::new(), Vec::new(), 0);
        let (history, vouched) = (self.trust().as_history(), import == Some(true));
        for line in tail.split_inclusive(|&b| b == b'\n') {
            // As verify judges, not as an append is judged: a line may have been acknowledged before a
            // crash, and neither the clock nor a key retired since may take it away.
            let id = line
                .strip_suffix(b"\n")
                .and_then(|text| check_stored(&self.config, &history, Some(name), vouched, text).ok());
            match id.filter(|id| !known.contains(id)) {
                Some(id) => {
                    kept.extend_from_slice(line);
                    lines += 1;
                    known.insert(id, covered + kept.len() as u64)?;
                }
                None => lost.extend_from_slice(line),
            }
        }
        known.flush()?;
        // Before anything tells of these lines they are on disk, also where an earlier sync had failed
        // and the kernel takes their pages for clean.
        let only_torn = tail.starts_with(&kept);
        if only_torn {
            bytes.rewrite_at(covered, &kept)?;
            bytes.sync()?;
        }
        if !lost.is_empty() {
            // A torn tail is simply cut. Where something else stood between good lines, they move up, and
            // the whole tail is kept in case of a second crash right here.
            let quarantine = self.refusals.quarantine.keep_durably(
                self.now(),
                "torn",
                if only_torn { &lost } else { &tail },
            )?;
            tracing::warn!(path, bytes = lost.len(), quarantine, "a torn or unverifiable tail was taken out");
            if !only_torn {
                bytes.rewrite_at(covered, &kept)?;
            }
            bytes.cut(covered + kept.len() as u64)?;
            self.events.append(
                self.now(),
                "truncated",
                &members! {"log": path.as_str(), "end": covered, "lost_bytes": lost.len(), "quarantine": quarantine},
            )?;
        }
        if lines > 0 {
            tracing::info!(path, lines, "lines without an event were verified and recovered");
            let (at, order, end) = (self.now(), self.next_order(), covered + kept.len() as u64);
            let mut members = members! {
                "log": path.as_str(), "by": "recovery", "order": order, "lines": lines, "start": covered,
                "end": end, "sha256": hex(&Sha256::digest(&kept)),
            };
            if import.is_some() {
                // Not folded: what was imported is history.
                members.insert("unsigned".into(), vouched.into());
                self.events.append(at, "imported", &members)?;
                return Ok(None);
            }
            self.events.append(at, "recovered", &members)?;
            let (log, by) = (path.as_str().into(), "recovery".into());
            return Ok(Some(Appended {
                seq: u64::MAX,
                order,
                at,
                log,
                by,
                start: covered,
                end,
                recovered: true,
            }));
        }
        Ok(None)
    }

    /// Folds what happened since the checkpoint into the ledger, and delivers what is missing. `known`: the last
    /// commit that the checkpoint knows.
    pub(super) fn fold(&self, known: u64, appends: &[Appended], recent: &[Event]) -> Result<(), OpenError> {
        let io_error = |error| OpenError::Io { file: self.layout.events(), error };
        let charter = self.charter();
        let mut recorded = recorded_effects(recent);
        let archived: Vec<_> = recent.iter().filter(|event| event.event == "archived").collect();
        let counted = counted_to(recent);
        let mut ledger = self.ledger.lock();
        ledger.pending.retain(|effect| !recorded(effect));
        // Events from before there was a ledger have no order but their own.
        let is_new = |order: u64| order > known || (order == 0 && known == 0);
        let mut since: Vec<(u64, Timestamp, Since<'_>)> = Vec::new();
        let mut found = Vec::new();
        for lines in appends.iter().filter(|lines| is_new(lines.order)) {
            let archive =
                archived.iter().find(|event| event.seq > lines.seq && event.text("log") == Some(&*lines.log));
            let file = archive.and_then(|event| event.text("to")).unwrap_or(&lines.log);
            if lines.recovered {
                found.push((lines, file));
            } else {
                since.push((lines.order, lines.at, Since::Lines(lines, file)));
            }
        }
        let acts = recent.iter().filter_map(|event| Some((event.number("order")?, event)));
        since.extend(
            acts.filter(|(order, _)| is_new(*order))
                .map(|(order, event)| (order, event.time(), Since::Act(event))),
        );
        since.sort_by_key(|(order, ..)| *order);
        // The order of commits, told as time; lines that were found without an event stood among them by theirs.
        let mut last = Timestamp(i64::MIN);
        for (_, at, _) in &mut since {
            last = last.max(*at);
            *at = last;
        }
        let found = self.found_lines(&found, &since).map_err(io_error)?;
        since.extend(found);
        since.sort_by_key(|(_, at, _)| *at);
        let mut folded = HashSet::new();
        for (order, at, since) in &since {
            let effects = match since {
                Since::Lines(lines, file) => {
                    self.fold_lines(&mut ledger, lines, file, &mut folded, &charter).map_err(io_error)?
                }
                Since::Found(lines, line) => {
                    let lines = Appended { at: *at, ..(*lines).clone() };
                    let mut effects = ledger.conversation.tick(*at);
                    let folding = self.fold_line(&mut ledger, &lines, line, &mut folded, &charter);
                    effects.extend(folding.map_err(io_error)?);
                    effects
                }
                Since::Act(event) => fold_act(&mut ledger, event),
            };
            ledger.pending.extend(effects.into_iter().filter(|effect| {
                let is_counted = matches!(effect, Effect::Reciprocated { .. }) && *order <= counted;
                !is_counted && !recorded(effect)
            }));
        }
        let due = ledger.conversation.tick(self.now());
        ledger.pending.extend(due.into_iter().filter(|effect| !recorded(effect)));
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
        for line in self.lines_in(lines, file)? {
            effects.extend(self.fold_line(ledger, lines, &line, folded, charter)?);
        }
        Ok(effects)
    }

    fn fold_line(
        &self,
        ledger: &mut Ledger,
        lines: &Appended,
        line: &Admitted,
        folded: &mut HashSet<ShortId>,
        charter: &Charter,
    ) -> io::Result<Vec<Effect>> {
        let Some(source) = self.find_log(&lines.log) else { return Ok(Vec::new()) };
        let stamp = Stamp { event: "delivered", by: lines.by.to_string(), order: lines.order, at: lines.at };
        self.deliver_again(ledger, &source, line, &stamp)?;
        if folded.insert(line.id) || !lines.recovered {
            return Ok(ledger.conversation.observe(&line.fact(lines.at), charter));
        }
        Ok(Vec::new())
    }

    /// The lines that were found without an event, each at the time that it says: though not in the future, and after
    /// what stands before it in its log. A copy of a line that stands elsewhere is none of its own. `evented`: what
    /// has events.
    fn found_lines<'a>(
        &self,
        found: &[(&'a Appended, &str)],
        evented: &[(u64, Timestamp, Since<'a>)],
    ) -> io::Result<Vec<(u64, Timestamp, Since<'a>)>> {
        let (mut ids, mut last) = (HashSet::new(), HashMap::new());
        for (_, at, since) in evented.iter().filter(|_| !found.is_empty()) {
            if let Since::Lines(lines, file) = since {
                ids.extend(self.lines_in(lines, file)?.into_iter().map(|line| line.id));
                last.insert(Arc::clone(&lines.log), *at);
            }
        }
        // Not long before what has its event, whatever its author's clock said: it would have lapsed at once.
        let now = self.now();
        let floor = evented.last().map_or(now, |(_, at, _)| *at).0.saturating_sub(EVENT_WITHIN);
        let takes_copies = |log: &str| self.find_log(log).is_some_and(|log| log.takes_copies());
        let mut result = Vec::new();
        // What was written comes before the copies of it.
        let (copies, written): (Vec<_>, Vec<_>) =
            found.iter().partition(|(lines, _)| takes_copies(&lines.log));
        for (lines, file) in written.into_iter().chain(copies) {
            let mut at = last.get(&lines.log).copied().unwrap_or(Timestamp(i64::MIN)).max(Timestamp(floor));
            for line in self.lines_in(lines, file)? {
                at = at.max(line.message.timestamp.min(now));
                if ids.insert(line.id) || !takes_copies(&lines.log) {
                    result.push((lines.order, at, Since::Found(lines, Box::new(line))));
                }
            }
        }
        Ok(result)
    }

    /// The messages that an event tells of. A line that was edited behind the mount is for verify to tell of.
    fn lines_in(&self, lines: &Appended, file: &str) -> io::Result<Vec<Admitted>> {
        let Some(source) = self.find_log(&lines.log).filter(|log| *log != LogName::Decisions) else {
            return Ok(Vec::new());
        };
        let bytes = self.store.open_log(file, false)?;
        let mut messages = Vec::new();
        for_each_line(&*bytes, lines.start, lines.end, |line, _| {
            messages.extend(self.readmit(&source, line));
            Ok(())
        })?;
        Ok(messages)
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

/// Which effects the events already tell of as carried out, each as often as they do; the others may be carried
/// out twice.
fn recorded_effects(recent: &[Event]) -> impl FnMut(&Effect) -> bool {
    let told = |name: &str, member: &str| -> HashMap<String, u32> {
        let mut told = HashMap::new();
        let events = recent.iter().filter(|event| event.event == name);
        for text in events.filter_map(|event| event.text(member)) {
            *told.entry(text.to_owned()).or_default() += 1;
        }
        told
    };
    let (mut lapsed, mut incidents) =
        (told("proposal-lapsed", "correlation_id"), told("safe-mode", "incident"));
    let mut cadences = told("cadence-set", "periods");
    let refused_keys = told("key-refused", "key_id");
    let take = |told: &mut HashMap<String, u32>, text: &str| {
        let left = told.get_mut(text).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    move |effect| match effect {
        Effect::AddKey { key_id, .. } | Effect::DeactivateKey { key_id, .. } => {
            refused_keys.contains_key(key_id)
        }
        Effect::CadenceSet { cadence } => take(&mut cadences, &format!("{cadence:?}")),
        Effect::Lapsed { correlation_id } => take(&mut lapsed, correlation_id),
        Effect::SafeMode { incident, .. } => take(&mut incidents, incident),
        _ => false,
    }
}

/// Up to which commit the reciprocations are in the trust list: every change of it takes them along. The few that
/// were not carried out yet when it changed are not counted.
fn counted_to(recent: &[Event]) -> u64 {
    let changes = recent.iter().filter(|event| event.event == "trust-changed");
    changes.filter_map(|event| event.number("order")).max().unwrap_or(0)
}

/// Whether a log's bytes from `covered` on are of an import that was interrupted, and if the operator vouched for
/// unsigned lines in it.
fn interrupted_import(recent: &[Event], log: &str, covered: u64) -> Option<bool> {
    let about = |event: &&Event| event.text("log") == Some(log) && event.event != "truncated";
    let import = recent.iter().rev().find(about)?;
    let unsigned = import.members.get("unsigned").and_then(serde_json::Value::as_bool);
    (import.event == "importing" && import.number("start") == Some(covered)).then_some(unsigned == Some(true))
}
