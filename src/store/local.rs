//! The store that is a directory of plain files.

use super::{LogBytes, Stat, Store};
use rustix::fs::{AtFlags, CWD, RenameFlags};
use std::fs::{DirBuilder, File, FileType, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of plain files.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    next_temp: AtomicU64,
}

impl LocalStore {
    /// The store in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        LocalStore { root: root.into(), next_temp: AtomicU64::new(0) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Store for LocalStore {
    fn open_log(&self, path: &str, create: bool) -> io::Result<Arc<dyn LogBytes>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.at(path))?;
        Ok(Arc::new(LocalLog { file: Arc::new(file) }))
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        stat_of(&std::fs::symlink_metadata(self.at(path))?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        names_in(&self.at(dir), |kind| kind.is_file())
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        names_in(&self.at(dir), |kind| kind.is_dir())
    }

    fn open(&self, path: &str) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.at(path))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.at(path))
    }

    fn create(&self, path: &str, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
        let path = self.at(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        let written = file.write_all(bytes).and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // A file that is not whole must not be found under its name.
            let _ = std::fs::remove_file(&path);
        }
        written
    }

    fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temp = format!("{path}.{}.new", self.next_temp.fetch_add(1, Ordering::Relaxed));
        let _ = std::fs::remove_file(self.at(&temp));
        self.create(&temp, bytes, mode, true)?;
        std::fs::rename(self.at(&temp), self.at(path)).inspect_err(|_| {
            let _ = std::fs::remove_file(self.at(&temp));
        })?;
        self.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.at(from), self.at(to));
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            // Some filesystems lack the flag; a hard link never replaces either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                rustix::fs::linkat(CWD, &from, CWD, &to, AtFlags::empty())?;
                std::fs::remove_file(&from)
            }
            other => other.map_err(io::Error::from),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(path))
    }

    fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        make_dir(&self.at(path), mode)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.at(dir))?.sync_all()
    }
}

fn names_in(dir: &Path, is_wanted: impl Fn(FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if is_wanted(entry.file_type()?)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

fn stat_of(meta: &Metadata) -> io::Result<Stat> {
    Ok(Stat {
        size: meta.len(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: meta.modified()?,
    })
}

struct LocalLog {
    file: Arc<File>,
}

impl LogBytes for LocalLog {
    fn stat(&self) -> io::Result<Stat> {
        stat_of(&self.file.metadata()?)
    }

    fn append_at(&self, end: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, end).inspect_err(|_| {
            // ENOSPC in the middle: a reader must not find half a line.
            let _ = self.file.set_len(end);
        })
    }

    fn rewrite_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.sync_all()
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}
