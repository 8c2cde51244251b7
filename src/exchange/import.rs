//! Moving in: the lines of an existing `_coordination/` folder become history of this exchange.
//!
//! Judged as `baton verify` judges, and appended to the log that they stood in; a message from a log that only its
//! author writes comes to its recipients' inboxes too, an incident to the incident log, each exactly once. Nobody
//! acts on them: they open no proposals and owe no acks. What can't come in is kept aside. Nothing in the folder is
//! changed, and a second import finds everything there already, so that one that was interrupted is run again.

mod folder;

use super::Exchange;
use super::archive::count;
use super::events::hex;
use super::logs::{Incoming, LogName};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::trust::TrustList;
use folder::{Folder, Found, Judge, Judged, Line};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};

/// How a folder is imported.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct ImportRequest {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// The operator vouches for lines without a signature.
    pub allow_unsigned: bool,
    /// Merge the folder's trust.json first.
    pub with_trust: bool,
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct FileReport {
    file: String,
    log: Option<String>,
    lines: u64,
    imported: u64,
    duplicates: u64,
    refused: u64,
    kept_aside: Option<String>,
}

/// A line that did not come in.
#[derive(Debug, Serialize)]
struct RefusedReport<'a> {
    file: &'a str,
    line: u64,
    rule: &'static str,
    problem: &'a str,
}

/// A line, and the file that it stands in.
type Placed<'a> = (&'a Judged, &'a Line);

impl Exchange {
    /// Imports a folder; the report is JSON.
    ///
    /// # Errors
    /// A sentence. What came in before it stays, and running it again completes it.
    pub(super) fn import(&self, request: &ImportRequest) -> Result<Value, String> {
        let dir = &request.dir;
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        let own = dir.canonicalize().map_err(failed)?;
        if own.starts_with(self.dir()) {
            return Err(format!(
                "{} is this exchange's own folder: there is nothing to import",
                dir.display()
            ));
        }
        let folder = Folder::read(dir, self).map_err(failed)?;
        if folder.logs.is_empty() {
            let inner = dir.join("_coordination");
            let instead = if inner.is_dir() { format!("; give {}", inner.display()) } else { String::new() };
            return Err(format!(
                "{} holds no <a>_to_<b>.jsonl, inbox/, outbox/, decisions.jsonl or incident_log.jsonl{instead}",
                dir.display()
            ));
        }
        let mut hints = Vec::new();
        if folder.has_trust {
            hints.extend(self.import_folders_trust(&dir.join("trust.json"), request.with_trust)?);
        }
        let judge =
            Judge { exchange: self, history: self.trust().as_history(), vouched: request.allow_unsigned };
        let mut unknown: BTreeSet<AgentName> =
            folder.logs.iter().flat_map(|found| found.unknown_agents(self)).collect();
        let judge_one = |found: Found| {
            let name = dir.join(&found.name);
            judge.judge(dir, found).map_err(|error| format!("{}: {error}", name.display()))
        };
        let files: Vec<Judged> = folder.logs.into_iter().map(judge_one).collect::<Result<_, _>>()?;
        unknown.extend(files.iter().flat_map(|file| file.strangers(self)));

        let mut reports = Vec::new();
        for file in &files {
            let kept_aside = self.keep_aside(file)?;
            reports.push(FileReport {
                file: file.name.clone(),
                log: file.log.as_ref().map(LogName::path),
                lines: (file.lines.len() + file.refused.len()) as u64,
                imported: 0,
                duplicates: 0,
                refused: file.refused.len() as u64,
                kept_aside,
            });
        }
        let alone = self.archiving.lock();
        let delivered = self.take_in(&files, &mut reports)?;
        drop(alone);
        self.checkpoint().map_err(|error| format!("the exchange could not be made durable: {error}"))?;
        if dir.join("memory").is_dir() {
            hints.push(
                "memory/ stays where it is: cp -a what agents keep there into memory/<agent>/".to_owned(),
            );
        }
        hints.extend(self.full_inboxes());
        let refused: Vec<RefusedReport<'_>> = files.iter().flat_map(Judged::report_refused).collect();
        let tables: String = unknown.iter().map(|agent| format!("[agents.\"{agent}\"]\n")).collect();
        Ok(json!({
            "files": reports,
            "delivered": delivered,
            "refused": refused,
            "unknown_agents": unknown.iter().map(AgentName::as_str).collect::<Vec<_>>(),
            "add_to_exchange_toml": tables,
            "handoffs_left": folder.handoffs,
            "left": folder.left,
            "hints": hints,
        }))
    }

    /// Merges the folder's trust list, or says what it would bring.
    fn import_folders_trust(&self, file: &Path, merge: bool) -> Result<Option<String>, String> {
        let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let theirs = match TrustList::parse(&text) {
            Ok(theirs) => theirs,
            Err(error) if merge => return Err(format!("{} is no trust list: {error}", file.display())),
            Err(error) => return Ok(Some(format!("{} is no trust list: {error}", file.display()))),
        };
        if merge {
            self.import_trust(&String::from_utf8_lossy(&text))?;
            return Ok(None);
        }
        let ours = self.trust();
        let keys = theirs.agents.values().flat_map(|entry| &entry.keys);
        let new = keys.filter(|key| ours.key(&key.id).is_none()).count() as u64;
        Ok((new > 0).then(|| {
            format!(
                "{} holds {} not trusted here; look at it, then run baton trust import on it, or baton import \
                 --with-trust",
                file.display(),
                count(new, "key")
            )
        }))
    }

    /// Puts the lines of a file that can't come in where the operator finds them.
    fn keep_aside(&self, file: &Judged) -> Result<Option<String>, String> {
        if file.refused.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        for line in &file.refused {
            bytes.extend_from_slice(&file.bytes[line.at.clone()]);
            bytes.push(b'\n');
        }
        let digest = hex(&Sha256::digest(&bytes));
        let name: String = file.name.replace('/', "%2F").chars().take(180).collect();
        let kept = self.refusals.quarantine.keep_named(&format!("import-{}-{name}", &digest[..16]), &bytes);
        kept.map(Some).map_err(|error| {
            format!("the lines of {} that can't come in could not be kept aside: {error}", file.name)
        })
    }

    /// Appends everything to where it belongs. Returns what came to other logs than its own, by log.
    fn take_in(&self, files: &[Judged], reports: &mut [FileReport]) -> Result<BTreeMap<String, u64>, String> {
        let mut own: BTreeMap<&LogName, Vec<usize>> = BTreeMap::new();
        let mut copies: BTreeMap<LogName, Vec<Vec<Placed<'_>>>> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let Some(log) = &file.log else { continue };
            own.entry(log).or_default().push(index);
            for (target, lines) in file.copies(log) {
                copies.entry(target).or_default().push(lines);
            }
        }
        let mut delivered = BTreeMap::new();
        let mut targets: BTreeSet<LogName> = own.keys().map(|log| (*log).clone()).collect();
        targets.extend(copies.keys().cloned());
        for target in &targets {
            let to_others = copies.remove(target).unwrap_or_default();
            let mine = own.get(target).map_or(&[][..], Vec::as_slice);
            let came = self.take_in_one(target, files, mine, to_others, reports).map_err(|error| {
                format!("{target}: {error}. What came in before it stays; run the import again")
            })?;
            if came > 0 {
                delivered.insert(target.path(), came);
            }
        }
        Ok(delivered)
    }

    /// Appends what a log lacks of the lines in its own files (`own`, as indices) and of the `copies` that belong
    /// there too. Returns how many of the latter came.
    fn take_in_one<'a>(
        &self,
        target: &LogName,
        files: &'a [Judged],
        own: &[usize],
        copies: Vec<Vec<Placed<'a>>>,
        reports: &mut [FileReport],
    ) -> std::io::Result<u64> {
        let ids = own.iter().flat_map(|&index| files[index].lines.iter().map(|line| line.id));
        let ids = ids.chain(copies.iter().flatten().map(|(_, line)| line.id));
        let mut known = self.known_ids(target, ids)?;
        let mut sequence = Vec::new();
        for &index in own {
            for line in &files[index].lines {
                if known.insert(line.id) {
                    reports[index].imported += 1;
                    sequence.push((&files[index], line));
                } else {
                    reports[index].duplicates += 1;
                }
            }
        }
        let (mut sequences, mut came) = (vec![sequence], 0);
        for mut lines in copies {
            lines.retain(|(_, line)| known.insert(line.id));
            came += lines.len() as u64;
            sequences.push(lines);
        }
        let lines: Vec<Incoming<'_>> = merge(sequences).iter().map(incoming).collect();
        self.append_history(target, &lines)?;
        Ok(came)
    }

    /// Inboxes that take nothing more before they are archived.
    fn full_inboxes(&self) -> Vec<String> {
        let limit = self.config.inbox_bytes;
        let inboxes = self.config.agents.keys().map(|agent| LogName::Inbox(agent.clone()).path());
        let full =
            inboxes.filter(|path| limit > 0 && self.store.stat(path).is_ok_and(|stat| stat.size >= limit));
        full.map(|path| {
            format!("{path} is over its inbox_bytes and takes nothing more until you run baton archive")
        })
        .collect()
    }
}

impl Judged {
    /// Authors of lines that did not come in because they take no part here.
    fn strangers(&self, exchange: &Exchange) -> BTreeSet<AgentName> {
        let author = |bytes: &[u8]| {
            let line: Value = serde_json::from_slice(bytes).ok()?;
            AgentName::parse(line["from"].as_str()?).ok()
        };
        let authors = self.refused.iter().filter_map(|line| author(&self.bytes[line.at.clone()]));
        authors.filter(|agent| !exchange.config().agents.contains_key(agent)).collect()
    }

    fn report_refused(&self) -> impl Iterator<Item = RefusedReport<'_>> {
        self.refused.iter().map(|line| RefusedReport {
            file: &self.name,
            line: line.number,
            rule: line.refusal.rule.name(),
            problem: &line.refusal.advice,
        })
    }

    /// The lines that belong into other logs too.
    fn copies(&self, log: &LogName) -> BTreeMap<LogName, Vec<Placed<'_>>> {
        let mut copies: BTreeMap<LogName, Vec<Placed<'_>>> = BTreeMap::new();
        for line in &self.lines {
            let inboxes = line.to.iter().cloned().map(LogName::Inbox);
            let mirror = line.is_incident.then_some(LogName::Incidents);
            for target in inboxes.chain(mirror).filter(|target| target != log) {
                copies.entry(target).or_default().push((self, line));
            }
        }
        copies
    }
}

fn incoming<'a>((file, line): &Placed<'a>) -> Incoming<'a> {
    Incoming { line: &file.bytes[line.at.clone()], id: line.id, unsigned: line.unsigned }
}

/// One sequence out of several, by the time at which the lines were written; each keeps its own order.
fn merge(sequences: Vec<Vec<Placed<'_>>>) -> Vec<Placed<'_>> {
    let mut merged = Vec::with_capacity(sequences.iter().map(Vec::len).sum());
    let mut rest: Vec<_> = sequences.into_iter().map(|lines| lines.into_iter().peekable()).collect();
    let mut heads: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
    for (index, lines) in rest.iter_mut().enumerate() {
        heads.extend(lines.peek().map(|(_, line)| Reverse((line.written, index))));
    }
    while let Some(Reverse((_, index))) = heads.pop() {
        merged.extend(rest[index].next());
        heads.extend(rest[index].peek().map(|(_, line)| Reverse((line.written, index))));
    }
    merged
}
