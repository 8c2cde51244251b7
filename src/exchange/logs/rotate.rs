//! A log's lines move into an archive file, and the log starts empty.
//!
//! The log stays the same file, because the kernel reads it through descriptors that are open: its bytes are copied,
//! most of them while it goes on growing. Then, with the log held: the rest, the event `archived`, the copy's name,
//! the cut. A crash before the event leaves a nameless copy, which the next start removes; one after it is finished.

use super::{Log, LogName, Tail};
use crate::exchange::events::{hex, members};
use crate::exchange::{Durability, Exchange};
use crate::rules;
use crate::store::LogBytes;
use parking_lot::MutexGuard;
use sha2::{Digest, Sha256};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// Bytes that are copied at a time.
const CHUNK: u64 = 4 << 20;

/// A log that nobody else appends to for the moment; all it holds is durable and has its events.
pub(super) struct Held<'a> {
    pub tail: MutexGuard<'a, Tail>,
    _recorder: MutexGuard<'a, ()>,
}

/// What was archived of one log.
#[derive(Debug, Clone)]
pub(in crate::exchange) struct Archived {
    /// The log's path.
    pub log: String,
    /// The archive's.
    pub to: String,
    /// How many lines.
    pub lines: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Log {
    /// # Errors
    /// The disk's; the log is then let go.
    pub(super) fn hold(&self, exchange: &Exchange) -> io::Result<Held<'_>> {
        let recorder = self.recorder.lock();
        let mut tail = self.tail.lock();
        self.commit.check()?;
        self.bytes.sync().inspect_err(|_| self.commit.fail())?;
        while let Some(accepted) = tail.unrecorded.front() {
            let stamp = &accepted.stamp;
            exchange.events.append(stamp.at, stamp.event, &accepted.members(&self.path))?;
            tail.unrecorded.pop_front();
        }
        Ok(Held { tail, _recorder: recorder })
    }
}

impl Exchange {
    /// Archives what a log holds under `year`. `None`: it holds nothing. The caller holds the lock of archives.
    ///
    /// # Errors
    /// The disk's. The log is then as before; or, after its event, takes nothing until a start finishes the move.
    pub(in crate::exchange) fn rotate(
        &self,
        name: &LogName,
        year: i16,
        by: &str,
    ) -> io::Result<Option<Archived>> {
        match self.store.stat(&name.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(stat) if stat.size == 0 => return Ok(None),
            Ok(_) => {}
        }
        let log = self.log(name)?;
        let stable = log.tail.lock().len;
        let to = self.free_archive_path(&log.path, year);
        let temp = temp_path(&to);
        let dir = self.make_archive_dir(&to)?;
        let mode = self.store.stat(&log.path)?.mode;
        let _ = self.store.remove(&temp);
        let mut copy = Copy { to: self.store.open_log(&temp, true)?, end: 0, lines: 0, hash: Sha256::new() };
        copy.to.file().set_permissions(Permissions::from_mode(mode))?;
        let moved = self.rotate_into(&log, &mut copy, stable, (&to, &temp, &dir), by);
        if moved.is_err() && log.commit.check().is_ok() {
            let _ = self.store.remove(&temp);
        }
        moved.map(Some)
    }

    fn rotate_into(
        &self,
        log: &Arc<Log>,
        copy: &mut Copy,
        stable: u64,
        (to, temp, dir): (&str, &str, &str),
        by: &str,
    ) -> io::Result<Archived> {
        // What was appended once never changes, so most of it is copied while others append.
        copy.take(&*log.bytes, stable)?;
        copy.to.sync()?;
        let _no_checkpoint = self.upheaval.lock();
        let mut held = log.hold(self)?;
        copy.take(&*log.bytes, held.tail.len)?;
        copy.to.sync()?;
        self.store.sync_dir(dir)?;
        let done = Archived { log: log.path.clone(), to: to.to_owned(), lines: copy.lines, bytes: copy.end };
        let members = members! {
            "log": log.path.as_str(), "to": to, "by": by, "bytes": done.bytes, "lines": done.lines,
            "sha256": hex(&copy.hash.clone().finalize()),
        };
        let event = self.events.append(self.now(), "archived", &members)?;
        self.events
            .make_durable(event, Durability::Commit)
            .and_then(|()| self.store.rename_new(temp, to))
            .and_then(|()| self.store.sync_dir(dir))
            .and_then(|()| log.bytes.cut(0))
            .inspect_err(|error| {
                tracing::error!(log = log.path, to, %error, "an archive is not finished: its log takes nothing \
                    until the exchange is mounted anew");
                log.commit.fail();
            })?;
        held.tail.cut += held.tail.len;
        held.tail.len = 0;
        if let Err(error) = held.tail.ids.rotate_to(&self.index_file(to)) {
            tracing::warn!(log = log.path, %error, "the replay index of an archive will be rebuilt");
        }
        self.begin_inbox(&log.name);
        Ok(done)
    }

    /// The first name that no archive of the log has in this year.
    fn free_archive_path(&self, log: &str, year: i16) -> String {
        let taken = |path: &String| {
            self.store.stat(path).is_ok() || self.events.with_archives(|archives| archives.has(path))
        };
        // An agent called alice.2 has logs with the names of alice's second archives.
        let of_others = |path: &String, n| {
            n > 1
                && rules::archive::parse(path, |log| self.find_log(log))
                    .is_none_or(|(_, _, first)| first == 1)
        };
        (1..)
            .map(|n| (rules::archive::path(log, year, n), n))
            .find(|(path, n)| !taken(path) && !of_others(path, *n))
            .map(|(path, _)| path)
            .unwrap_or_default()
    }

    /// Makes the directories of an archive file, durably; returns the innermost.
    fn make_archive_dir(&self, to: &str) -> io::Result<String> {
        let (dir, _) = to.rsplit_once('/').unwrap_or((rules::archive::DIR, to));
        self.store.make_dir(dir, 0o755)?;
        let mut inner = dir;
        while let Some((outer, _)) = inner.rsplit_once('/') {
            self.store.sync_dir(outer)?;
            inner = outer;
        }
        Ok(dir.to_owned())
    }
}

/// Where an archive is while it is being copied: hidden, beside its place.
pub(in crate::exchange) fn temp_path(to: &str) -> String {
    match to.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/.{name}.part"),
        None => format!(".{to}.part"),
    }
}

/// A copy of a log's beginning.
struct Copy {
    to: Arc<dyn LogBytes>,
    end: u64,
    lines: u64,
    hash: Sha256,
}

impl Copy {
    /// Goes on to byte `end` of the log.
    fn take(&mut self, log: &dyn LogBytes, end: u64) -> io::Result<()> {
        let from = self.end;
        each_chunk(log, from, end, |chunk| {
            self.to.append_at(self.end, chunk)?;
            self.hash.update(chunk);
            self.lines += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.end += chunk.len() as u64;
            Ok(())
        })
    }
}

/// sha256 of a log's first `end` bytes.
///
/// # Errors
/// The disk's.
pub(in crate::exchange) fn hash_of(log: &dyn LogBytes, end: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    each_chunk(log, 0, end, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

fn each_chunk(
    log: &dyn LogBytes,
    mut from: u64,
    to: u64,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut chunk = Vec::new();
    while from < to {
        let size = CHUNK.min(to - from);
        chunk.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
        log.read_exact_at(&mut chunk, from)?;
        each(&chunk)?;
        from += size;
    }
    Ok(())
}
