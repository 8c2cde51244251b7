//! Which messages a log already holds: 16 bytes of each id in memory, 32 bytes a line on disk.
//!
//! The file under private/index/ is derived: deleted or damaged, it is rebuilt from the log.
//! Record: id (16) | end offset of the line in the log (8, LE) | chain check (8), where the check is
//! the start of sha256(previous check | id | end), so that a torn or edited tail shows.
//!
//! Where a log is archived, its index file becomes that of the archive file, byte for byte, and the log
//! starts a new one; the ids stay in memory, so that an archived message is refused like any other.

use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A shortened id. 128 bits of a sha256: only its own author could find two that collide.
pub(super) type ShortId = [u8; 16];

/// The first half of a 32-byte id.
pub(super) fn short(id: &[u8; 32]) -> ShortId {
    let mut out = [0; 16];
    out.copy_from_slice(&id[..16]);
    out
}

const RECORD: usize = 32;
/// Records kept in memory before they are written; a crash costs reading this many lines again.
const FLUSH_AT: usize = 256 * RECORD;

/// The ids of one log, those of its archives among them.
pub(super) struct ReplayIndex {
    ids: HashSet<ShortId>,
    path: PathBuf,
    file: Arc<File>,
    written: u64,
    unwritten: Vec<u8>,
    check: [u8; 8],
    end: u64,
    last: Option<ShortId>,
}

impl ReplayIndex {
    /// Reads the index as far as it is whole and speaks of the log's first `log_len` bytes.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(path: &Path, log_len: u64) -> io::Result<Self> {
        let file = open_file(path)?;
        let bytes = std::fs::read(path)?;
        let mut index = ReplayIndex {
            ids: HashSet::with_capacity(bytes.len() / RECORD),
            path: path.to_owned(),
            file: Arc::new(file),
            written: 0,
            unwritten: Vec::new(),
            check: [0; 8],
            end: 0,
            last: None,
        };
        for record in bytes.chunks_exact(RECORD) {
            let (id, rest) = record.split_at(16);
            let id = ShortId::try_from(id).expect("split at 16");
            let end = u64::from_le_bytes(rest[..8].try_into().expect("8 of 16 bytes"));
            let check = next_check(index.check, &id, end);
            if check != rest[8..] || end < index.end || end > log_len {
                break;
            }
            index.ids.insert(id);
            index.last = Some(id);
            index.check = check;
            index.end = end;
            index.written += RECORD as u64;
        }
        if index.written < bytes.len() as u64 {
            index.file.set_len(index.written)?;
        }
        Ok(index)
    }

    /// Starts over, for a log that is not the one this index was made from.
    ///
    /// # Errors
    /// The disk's.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.ids.clear();
        self.unwritten.clear();
        (self.written, self.check, self.end, self.last) = (0, [0; 8], 0, None);
        Ok(())
    }

    /// Takes over the ids of an archive of the same log.
    pub fn absorb(&mut self, archived: ReplayIndex) {
        let (mut most, least) = (archived.ids, std::mem::take(&mut self.ids));
        if most.len() < least.len() {
            self.ids = least;
            self.ids.extend(most);
        } else {
            most.extend(least);
            self.ids = most;
        }
    }

    /// The log starts at byte 0 again, and the index file becomes `archived`: that of its archive. The ids
    /// stay known.
    ///
    /// # Errors
    /// The disk's. The index of the archive is then rebuilt at the next start.
    pub fn rotate_to(&mut self, archived: &Path) -> io::Result<()> {
        let moved = self.flush().and_then(|()| std::fs::rename(&self.path, archived));
        self.unwritten.clear();
        (self.written, self.check, self.end, self.last) = (0, [0; 8], 0, None);
        match moved {
            Ok(()) => self.file = Arc::new(open_file(&self.path)?),
            Err(_) => self.file.set_len(0)?,
        }
        moved
    }

    /// Up to which byte of the log its lines are known.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The id of the line that ends there.
    pub fn last(&self) -> Option<ShortId> {
        self.last
    }

    /// Whether the log holds it.
    pub fn contains(&self, id: &ShortId) -> bool {
        self.ids.contains(id)
    }

    /// The open file, to make what was flushed durable.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// How many ids are known.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Adds a line that ends at byte `end`.
    ///
    /// # Errors
    /// The disk's. The id is known in memory all the same, and on disk again after the next start.
    pub fn insert(&mut self, id: ShortId, end: u64) -> io::Result<()> {
        self.ids.insert(id);
        self.last = Some(id);
        self.check = next_check(self.check, &id, end);
        self.end = end;
        self.unwritten.extend_from_slice(&id);
        self.unwritten.extend_from_slice(&end.to_le_bytes());
        self.unwritten.extend_from_slice(&self.check);
        if self.unwritten.len() >= FLUSH_AT { self.flush() } else { Ok(()) }
    }

    /// Writes what is only in memory.
    ///
    /// # Errors
    /// The disk's.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            self.file.write_all_at(&self.unwritten, self.written)?;
            self.written += self.unwritten.len() as u64;
            self.unwritten.clear();
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn next_check(previous: [u8; 8], id: &ShortId, end: u64) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(id);
    hash.update(end.to_le_bytes());
    hash.finalize()[..8].try_into().expect("8 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ShortId {
        [n; 16]
    }

    #[test]
    fn ids_survive_a_restart_and_a_damaged_tail_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut index = ReplayIndex::open(&path, 0).unwrap();
        for n in 0..10 {
            index.insert(id(n), u64::from(n) * 100 + 100).unwrap();
        }
        index.flush().unwrap();
        drop(index);

        let index = ReplayIndex::open(&path, 1000).unwrap();
        assert_eq!((index.len(), index.end()), (10, 1000));
        drop(index);

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5 * RECORD] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let index = ReplayIndex::open(&path, 1000).unwrap();
        assert_eq!((index.len(), index.end()), (5, 500));
        assert!(index.contains(&id(4)) && !index.contains(&id(5)));
    }

    #[test]
    fn an_archived_log_starts_a_new_index_and_forgets_no_id() {
        let dir = tempfile::tempdir().unwrap();
        let (path, archived) = (dir.path().join("index"), dir.path().join("archived"));
        let mut index = ReplayIndex::open(&path, 0).unwrap();
        index.insert(id(1), 100).unwrap();
        index.insert(id(2), 200).unwrap();
        index.rotate_to(&archived).unwrap();
        assert_eq!((index.end(), index.last()), (0, None));
        assert!(index.contains(&id(1)) && index.contains(&id(2)));
        index.insert(id(3), 50).unwrap();
        index.flush().unwrap();

        let old = ReplayIndex::open(&archived, 200).unwrap();
        assert_eq!((old.len(), old.end()), (2, 200));
        let mut index = ReplayIndex::open(&path, 50).unwrap();
        assert_eq!((index.len(), index.end()), (1, 50));
        index.absorb(old);
        assert!((1..=3).all(|n| index.contains(&id(n))) && index.end() == 50);
    }

    #[test]
    fn an_index_that_speaks_of_more_than_the_log_holds_is_cut_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut index = ReplayIndex::open(&path, 0).unwrap();
        index.insert(id(1), 100).unwrap();
        index.insert(id(2), 200).unwrap();
        index.flush().unwrap();
        assert_eq!(ReplayIndex::open(&path, 150).unwrap().end(), 100);
    }
}
