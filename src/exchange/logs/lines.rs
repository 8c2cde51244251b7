//! The lines of a log on disk, and the index of their ids.

use super::LogName;
use crate::exchange::Exchange;
use crate::exchange::archive::ArchiveFile;
use crate::exchange::replay::{ReplayIndex, ShortId, short};
use crate::rules::{Refusal, Rule};
use crate::store::LogBytes;
use crate::wire::json::{Object, ObjectStream, StreamedObject};
use crate::wire::message::Message;
use std::io;
use std::path::PathBuf;

impl Exchange {
    /// The ids of a log's first `len` bytes, from its index as far as that goes.
    pub(in crate::exchange) fn index_up_to(
        &self,
        name: &LogName,
        bytes: &dyn LogBytes,
        len: u64,
    ) -> io::Result<ReplayIndex> {
        let path = name.path();
        let mut ids = self.index_of(&path, bytes, len)?;
        for archive in self.events.archives_of(&path) {
            ids.absorb(self.index_of_archive(&archive)?);
        }
        Ok(ids)
    }

    /// Where the index of a log or an archive lies.
    pub(in crate::exchange) fn index_file(&self, path: &str) -> PathBuf {
        self.layout.index().join(format!("{}.ids", path.replace('/', "%2F")))
    }

    fn index_of(&self, path: &str, bytes: &dyn LogBytes, len: u64) -> io::Result<ReplayIndex> {
        let mut ids = ReplayIndex::open(&self.index_file(path), len)?;
        if !ends_with_the_indexed_line(bytes, &ids)? {
            tracing::warn!(path, "the replay index is of another log; it is rebuilt");
            ids.clear()?;
        }
        index_lines(bytes, &mut ids, len)?;
        ids.flush()?;
        Ok(ids)
    }

    /// The ids in an archive. Its file may have been moved to other storage, if its index is whole.
    fn index_of_archive(&self, archive: &ArchiveFile) -> io::Result<ReplayIndex> {
        match self.store.open_log(&archive.path, false) {
            Ok(bytes) => self.index_of(&archive.path, &*bytes, archive.bytes.min(bytes.len()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ids = ReplayIndex::open(&self.index_file(&archive.path), archive.bytes)?;
                if ids.end() == archive.bytes { Ok(ids) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }
}

pub(in crate::exchange) fn one_object(line: &[u8]) -> Result<StreamedObject, Refusal> {
    let mut stream = ObjectStream::new();
    let mut objects = stream.push(line)?;
    match objects.pop() {
        Some(object) if objects.is_empty() && stream.pending().is_empty() => Ok(object),
        _ => Err(Refusal::new(Rule::Json, "Not exactly one JSON object.")),
    }
}

/// Whether the line that ends where the index ends is the one it knows. A log restored from a backup
/// would otherwise be judged by another log's index.
fn ends_with_the_indexed_line(bytes: &dyn LogBytes, ids: &ReplayIndex) -> io::Result<bool> {
    let Some(last) = ids.last() else { return Ok(true) };
    let mut window = 4096;
    loop {
        let start = ids.end().saturating_sub(window);
        let mut chunk = vec![0; usize::try_from(ids.end() - start).map_err(io::Error::other)?];
        bytes.read_exact_at(&mut chunk, start)?;
        let Some(chunk) = chunk.strip_suffix(b"\n") else { return Ok(false) };
        match chunk.iter().rposition(|&b| b == b'\n') {
            None if start > 0 => window *= 4,
            found => {
                let line = &chunk[found.map_or(0, |at| at + 1)..];
                return Ok(line_id(line) == Some(last));
            }
        }
    }
}

/// The id of a stored line: its message's, or the hash of an object that is no message (a decision); `None` if
/// it is no object.
pub(in crate::exchange) fn line_id(line: &[u8]) -> Option<ShortId> {
    let object: Object = one_object(line).ok()?.object;
    Some(match Message::from_object(object.clone()) {
        Ok(message) => short(&message.id),
        Err(_) => super::deliver::id_of_object(object),
    })
}

/// Reads the lines that the index doesn't know yet. A line that is no message has no id; the judgement
/// of such lines is recovery's and verify's.
fn index_lines(bytes: &dyn LogBytes, ids: &mut ReplayIndex, len: u64) -> io::Result<()> {
    for_each_line(bytes, ids.end(), len, |line, end| match line_id(line) {
        Some(id) => ids.insert(id, end),
        None => Ok(()),
    })
}

/// Calls `each` with every complete line (without newline) between two offsets and the offset behind it.
pub(in crate::exchange) fn for_each_line(
    bytes: &dyn LogBytes,
    from: u64,
    to: u64,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut line: Vec<u8> = Vec::new();
    let mut at = from;
    while at < to {
        let size = CHUNK.min(to - at);
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
        bytes.read_exact_at(&mut chunk, at)?;
        let mut start = 0;
        while let Some(found) = chunk[start..].iter().position(|&b| b == b'\n') {
            let end = start + found;
            if line.is_empty() {
                each(&chunk[start..end], at + end as u64 + 1)?;
            } else {
                line.extend_from_slice(&chunk[start..end]);
                each(&line, at + end as u64 + 1)?;
                line.clear();
            }
            start = end + 1;
        }
        line.extend_from_slice(&chunk[start..]);
        at += size;
    }
    Ok(())
}
