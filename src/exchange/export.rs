//! Moving out: a plain `_coordination/` folder that programs without a mount read. Ordinary files stay where they are:
//! `cp -a` of `memory/` takes them along.

use super::Exchange;
use super::archive::count;
use super::events::members;
use super::handoffs::State;
use super::logs::LogName;
use crate::rules::archive;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How an exchange is exported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportRequest {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// It may hold something; files with the same names are replaced.
    pub force: bool,
}

/// What was written.
#[derive(Default)]
struct Written {
    logs: u64,
    bytes: u64,
    handoffs: u64,
}

impl Exchange {
    /// Writes the logs, the archive, the handoffs and the trust list into a folder. Every log is cut at the line that
    /// its last event tells of, all at the same event.
    ///
    /// # Errors
    /// A sentence; what was written stays.
    pub(super) fn export(&self, request: &ExportRequest) -> Result<Value, String> {
        let dir = &request.dir;
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        let around = dir.ancestors().find_map(|dir| dir.canonicalize().ok());
        if around.is_some_and(|around| around.starts_with(self.dir())) {
            return Err(format!("{} lies in the exchange: export it elsewhere", dir.display()));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let is_empty = fs::read_dir(dir).map_err(failed)?.next().is_none();
        if !is_empty && !request.force {
            return Err(format!(
                "{} is not empty: choose a new folder, or --force to replace the files of the same names",
                dir.display()
            ));
        }
        // No log is cut meanwhile.
        let _no_archive = self.archiving.lock();
        let written = self.export_to(dir).map_err(failed)?;
        let Written { logs, bytes, handoffs } = written;
        let path = dir.display().to_string();
        let sentence = format!(
            "{} with {bytes} bytes, {} and trust.json are in {path}",
            count(logs, "log"),
            count(handoffs, "handoff file")
        );
        self.event(
            "exported",
            members! {"to": path.as_str(), "logs": logs, "bytes": bytes, "handoffs": handoffs},
        );
        Ok(json!({"changes": [sentence], "dir": path, "logs": logs, "bytes": bytes, "handoffs": handoffs}))
    }

    fn export_to(&self, dir: &Path) -> io::Result<Written> {
        // So that all that was acknowledged has its event.
        for log in self.open_logs() {
            log.flush(self)?;
        }
        let covered = self.events.all_covered();
        let mut files: BTreeMap<String, u64> =
            self.list_logs().iter().map(LogName::path).map(|path| (path, 0)).collect();
        files.extend(covered);
        let archives = self.events.with_archives(|archives| archives.all().cloned().collect::<Vec<_>>());
        files.extend(archives.into_iter().map(|file| (file.path, file.bytes)));
        let mut written = Written::default();
        for (path, len) in &files {
            match self.store.open(path) {
                Ok(source) => written.bytes += put(dir, path, source.take(*len))?,
                // An inbox before its first line.
                Err(error) if error.kind() == io::ErrorKind::NotFound && *len == 0 => {
                    put(dir, path, io::empty())?;
                }
                // Moved to other storage.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with(archive::DIR) => {
                    continue;
                }
                Err(error) => return Err(error),
            }
            written.logs += 1;
        }
        // No handoff is in two places, or in none.
        let _no_move = self.handoffs().moves.lock();
        for state in State::ALL {
            fs::create_dir_all(dir.join(state.dir()))?;
            for name in self.store.list(state.dir())?.iter().filter(|name| !name.starts_with('.')) {
                let path = format!("{}/{name}", state.dir());
                put(dir, &path, self.store.open(&path)?)?;
                written.handoffs += 1;
            }
        }
        put(dir, "trust.json", self.store.open("trust.json")?)?;
        sync(dir)?;
        Ok(written)
    }
}

/// Writes one file anew.
fn put(dir: &Path, path: &str, mut from: impl Read) -> io::Result<u64> {
    let to = dir.join(path);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    io::copy(&mut from, &mut File::create_new(&to)?)
}

/// All of it at once: the folder's filesystem.
fn sync(dir: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(dir)?)?;
    #[cfg(not(target_os = "linux"))]
    let _ = dir;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}
