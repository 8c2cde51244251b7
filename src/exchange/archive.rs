//! Archives: which there are, when a log is due, and finishing what a crash interrupted.

use super::events::{Event, Members, hex};
use super::logs::{Archived, LogName, hash_of, temp_path};
use super::views::View;
use super::{Exchange, OpenError};
use crate::rules::archive::{self, DIR};
use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// How long an archive that failed by itself is left before it is tried again.
const AGAIN_AFTER_SECONDS: i64 = 600;

/// What the events tell of archives. Part of every checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Archives {
    /// By log: its archives, oldest first.
    files: BTreeMap<String, Vec<ArchiveFile>>,
    /// By log that holds lines: when the first of them got its event.
    since: BTreeMap<String, Timestamp>,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArchiveFile {
    /// In the tree and under the exchange's folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

impl Archives {
    /// The archives of a log, oldest first.
    pub fn of(&self, log: &str) -> &[ArchiveFile] {
        self.files.get(log).map_or(&[], Vec::as_slice)
    }

    /// Whether an event tells of an archive at this path.
    pub fn has(&self, path: &str) -> bool {
        self.files.values().flatten().any(|file| file.path == path)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ArchiveFile> {
        self.files.values().flatten()
    }

    /// The logs with lines from before `year`, each with the year of its first line.
    fn due(&self, year: i16) -> impl Iterator<Item = (&String, i16)> {
        self.since.iter().map(|(log, since)| (log, since.year())).filter(move |(_, of)| *of < year)
    }

    /// A log reaches to byte `end` now.
    pub fn changed(&mut self, log: &str, end: u64, time: Option<Timestamp>) {
        if end == 0 {
            self.since.remove(log);
        } else if let (false, Some(time)) = (self.since.contains_key(log), time) {
            self.since.insert(log.to_owned(), time);
        }
    }

    /// A log's lines have moved to an archive.
    pub fn archived(&mut self, log: &str, members: &Members) {
        self.since.remove(log);
        let path = members.get("to").and_then(serde_json::Value::as_str);
        let bytes = members.get("bytes").and_then(serde_json::Value::as_u64);
        if let (Some(path), Some(bytes)) = (path, bytes) {
            self.files.entry(log.to_owned()).or_default().push(ArchiveFile { path: path.to_owned(), bytes });
        }
    }
}

impl Exchange {
    /// Archives every log that holds lines, under `year` or this year.
    ///
    /// # Errors
    /// A sentence; what was archived before it stays so.
    pub(super) fn archive(&self, year: Option<i16>) -> Result<serde_json::Value, String> {
        let this_year = self.now().year();
        let year = year.unwrap_or(this_year);
        if !(1970..=this_year).contains(&year) {
            return Err(format!("--year {year}: give a year from 1970 to {this_year}"));
        }
        let alone = self.archiving.lock();
        let mut done = Vec::new();
        for log in self.list_logs().into_iter().filter(archive::is_archived) {
            match self.rotate(&log, year, "operator") {
                Ok(archived) => done.extend(archived),
                Err(error) => {
                    return Err(format!(
                        "{log} could not be archived: {error}. {} logs before it are; run baton archive again for the \
                         rest",
                        done.len()
                    ));
                }
            }
        }
        drop(alone);
        self.checkpoint_archives();
        let sentences: Vec<String> = done
            .iter()
            .map(|Archived { log, to, lines, .. }| format!("{log}: {} now in {to}", count(*lines, "line")))
            .collect();
        let archived: Vec<_> = done
            .iter()
            .map(|a| json!({"log": a.log, "to": a.to, "lines": a.lines, "bytes": a.bytes}))
            .collect();
        Ok(json!({"changes": sentences, "archived": archived}))
    }

    /// When the year has turned: what the logs hold of earlier years moves to these years' archives. Called every
    /// second; costs a look at each log's first event.
    pub(super) fn archive_if_due(&self, now: Timestamp) {
        let archived = |path: &str| self.find_log(path).filter(archive::is_archived);
        let due: Vec<(LogName, i16)> = self.events.with_archives(|archives| {
            archives.due(now.year()).filter_map(|(path, year)| Some((archived(path)?, year))).collect()
        });
        if due.is_empty() {
            return;
        }
        let mut not_before = self.archiving.lock();
        if *not_before > now {
            return;
        }
        let mut some_moved = false;
        for (log, year) in due {
            match self.rotate(&log, year, "exchange") {
                Ok(Some(done)) => {
                    some_moved = true;
                    tracing::info!(%log, to = done.to, lines = done.lines, "archived");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%log, %error, "not archived; it is tried again in ten minutes");
                    *not_before = now.plus_seconds(AGAIN_AFTER_SECONDS);
                }
            }
        }
        drop(not_before);
        if some_moved {
            self.checkpoint_archives();
        }
    }

    /// From here on a start needs no line that was archived, so that the files may be moved to other storage.
    fn checkpoint_archives(&self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "no checkpoint after an archive; the next start reads more");
        }
    }

    /// After a crash: gives copies their names, cuts their logs, removes copies that no event tells of.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where an archive is gone and the ids of its lines with it.
    pub(super) fn finish_archives(&self, recent: &[Event]) -> Result<(), OpenError> {
        for event in recent.iter().filter(|event| event.event == "archived") {
            let (Some(log), Some(to)) = (event.text("log"), event.text("to")) else { continue };
            self.finish_archive(event, log, to)
                .map_err(|error| OpenError::Io { file: self.layout.tree(to), error })?;
        }
        for part in self.archive_parts() {
            if let Err(error) = self.store.remove(&part) {
                tracing::warn!(part, %error, "the copy of an archive that was not made could not be removed");
            }
        }
        let gone = self.events.with_archives(|archives| {
            archives.all().find(|file| self.archive_is_lost(file)).map(|file| file.path.clone())
        });
        match gone {
            None => Ok(()),
            Some(path) => Err(OpenError::Damaged {
                file: self.layout.tree(&path),
                problem: "is gone, and so is the index of its lines: their replays could not be told".into(),
                mend: format!("restore {path} from a backup, or copy it back from where it was moved to"),
            }),
        }
    }

    fn finish_archive(&self, event: &Event, log: &str, to: &str) -> io::Result<()> {
        let temp = temp_path(to);
        if self.store.stat(to).is_err() && self.store.stat(&temp).is_ok() {
            self.store.rename_new(&temp, to)?;
            self.store.sync_dir(to.rsplit_once('/').map_or(DIR, |(dir, _)| dir))?;
            tracing::info!(log, to, "finished an archive that a crash interrupted");
        }
        let Ok(stat) = self.store.stat(log) else { return Ok(()) };
        if self.events.covered(log) > 0 || Some(stat.size) != event.number("bytes") {
            return Ok(());
        }
        let bytes = self.store.open_log(log, false)?;
        if Some(hex(&hash_of(&*bytes, stat.size)?).as_str()) == event.text("sha256") {
            bytes.cut(0)?;
        }
        Ok(())
    }

    /// The archived logs in a directory under archive/, and the directories that lead to them.
    pub(super) fn archive_views(&self, dir: &str) -> Vec<View> {
        let paths: Vec<String> =
            self.events.with_archives(|archives| archives.all().map(|file| file.path.clone()).collect());
        let mut views = BTreeSet::new();
        for path in &paths {
            let Some(rest) = path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')) else { continue };
            match rest.split_once('/') {
                Some((inner, _)) => drop(views.insert(View::dir(&format!("{dir}/{inner}")))),
                // It may have been moved to other storage.
                None if self.store.stat(path).is_ok() => drop(views.insert(View::file(path))),
                None => {}
            }
        }
        views.into_iter().collect()
    }

    fn archive_is_lost(&self, file: &ArchiveFile) -> bool {
        self.store.stat(&file.path).is_err() && !self.index_file(&file.path).exists()
    }

    /// Copies that were being made when the exchange was left.
    fn archive_parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let mut years = self.store.list_dirs(DIR).unwrap_or_default();
        years.retain(|name| archive::parse_year(name).is_some());
        for year in years {
            for dir in ["", "/inbox", "/outbox"] {
                let dir = format!("{DIR}/{year}{dir}");
                let names = self.store.list(&dir).unwrap_or_default();
                let hidden = names.iter().filter(|name| name.starts_with('.') && name.ends_with(".part"));
                parts.extend(hidden.map(|name| format!("{dir}/{name}")));
            }
        }
        parts
    }
}

/// `1 line`, `2 lines`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_due_by_the_year_of_its_first_line_since_it_was_last_archived() {
        let (old, new) = (Timestamp::start_of_year(2025), Timestamp::start_of_year(2026));
        let due = |archives: &Archives| {
            archives.due(2026).map(|(log, year)| (log.clone(), year)).collect::<Vec<_>>()
        };
        let mut archives = Archives::default();
        archives.changed("a", 10, Some(old));
        archives.changed("a", 20, Some(new));
        archives.changed("b", 10, Some(new));
        archives.changed("torn", 10, Some(old));
        archives.changed("torn", 0, Some(new));
        assert_eq!(due(&archives), [("a".to_owned(), 2025)]);
        let members = serde_json::json!({"to": "archive/2025/a", "bytes": 20});
        archives.archived("a", members.as_object().unwrap());
        assert!(due(&archives).is_empty());
        archives.changed("a", 5, Some(new));
        assert!(due(&archives).is_empty() && archives.has("archive/2025/a"));
        assert_eq!(archives.of("a"), [ArchiveFile { path: "archive/2025/a".to_owned(), bytes: 20 }]);
    }
}
