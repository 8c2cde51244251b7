//! Where an exchange's bytes live. One trait, the local directory first; it knows bytes and names,
//! no rules.

mod local;

pub use local::LocalStore;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

/// What a store knows of one file.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: SystemTime,
}

/// The bytes of one append-only log.
pub trait LogBytes: Send + Sync {
    /// What is known of it.
    ///
    /// # Errors
    /// The disk's.
    fn stat(&self) -> io::Result<Stat>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// The disk's.
    fn len(&self) -> io::Result<u64> {
        Ok(self.stat()?.size)
    }

    /// Whether it holds nothing.
    ///
    /// # Errors
    /// The disk's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes `bytes` at `end`, which is the log's length. All or nothing: what a full disk took is cut again.
    ///
    /// # Errors
    /// The disk's; the log is then as before.
    fn append_at(&self, end: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes over what is there. Only for repair: where it fails, what was there stays or is overwritten.
    ///
    /// # Errors
    /// The disk's.
    fn rewrite_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The disk's; `UnexpectedEof` past the end.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync(&self) -> io::Result<()>;

    /// Cuts a torn tail: only for repair.
    ///
    /// # Errors
    /// The disk's.
    fn cut(&self, len: u64) -> io::Result<()>;

    /// The open file, for readers that the kernel serves directly.
    fn file(&self) -> Arc<File>;
}

/// The bytes of one exchange, by path relative to its folder, `/`-separated.
pub trait Store: Send + Sync {
    /// Opens a log; makes it (empty) when `create`.
    ///
    /// # Errors
    /// `NotFound` when absent and not `create`.
    fn open_log(&self, path: &str, create: bool) -> io::Result<Arc<dyn LogBytes>>;

    /// What is known of a file or directory.
    ///
    /// # Errors
    /// `NotFound` and the disk's.
    fn stat(&self, path: &str) -> io::Result<Stat>;

    /// The names of the regular files in a directory, sorted.
    ///
    /// # Errors
    /// The disk's.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// The names of the directories in a directory, sorted.
    ///
    /// # Errors
    /// The disk's.
    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// The disk's.
    fn open(&self, path: &str) -> io::Result<File>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// The disk's.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Makes a new file with these bytes and this mode; never replaces. Its bytes are durable when `durable`.
    ///
    /// # Errors
    /// `AlreadyExists`, and the disk's.
    fn create(&self, path: &str, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()>;

    /// Replaces a file atomically and durably.
    ///
    /// # Errors
    /// The disk's; the old file then stands.
    fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Renames; never replaces.
    ///
    /// # Errors
    /// `AlreadyExists` where `to` exists, `NotFound` where `from` does not.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file that never became visible.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes a directory with this mode, and its parents, where absent.
    ///
    /// # Errors
    /// The disk's.
    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}
