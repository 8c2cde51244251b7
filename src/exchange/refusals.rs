//! refusals.jsonl and quarantine: nothing is ever lost to a rule.
//!
//! Line: `{"time","agent","uid","pid","operation","path","errno","errno_name","rule","advice","quarantine"}`.
//! All of them are in private/refusals/all.jsonl (the operator's view); each actor's own are kept in a
//! file of its own as well, which is what it reads as refusals.jsonl.

use super::{Actor, Attempt, Caller};
use crate::rules::Refusal;
use crate::store::{LocalStore, Store};
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that was refused, in the exchange in `root`.
pub(super) struct RefusalBook {
    root: PathBuf,
    files: Mutex<HashMap<String, Arc<File>>>,
    /// Held while a line is written, so that what a full disk took of one can be cut again.
    writing: Mutex<()>,
    next: AtomicU64,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    agent: Option<String>,
    uid: u32,
    pid: u32,
    operation: &'a str,
    path: &'a str,
    errno: i32,
    errno_name: &'static str,
    rule: &'static str,
    advice: &'a str,
    quarantine: Option<String>,
}

impl RefusalBook {
    pub fn open(root: &Path) -> io::Result<Self> {
        let store = LocalStore::new(root);
        for dir in ["private/refusals/agents", "private/refusals/uids", "private/quarantine"] {
            store.make_dir(dir, 0o700)?;
        }
        Ok(RefusalBook {
            root: root.into(),
            files: Mutex::default(),
            writing: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Records one refusal and keeps its bytes. Where they can't be kept, the record says so.
    ///
    /// # Errors
    /// The disk's; the bytes, or the record, are then not kept.
    pub fn record(
        &self,
        now: Timestamp,
        actor: &Actor,
        caller: &Caller,
        attempt: &Attempt<'_>,
        refusal: &Refusal,
    ) -> io::Result<()> {
        let kept = if attempt.bytes.is_empty() {
            Ok(None)
        } else {
            self.keep(now, refusal.rule.name(), attempt.bytes).map(Some)
        };
        let advice = match &kept {
            Ok(_) => refusal.advice.clone(),
            Err(error) => format!("{} The bytes could not be kept: {error}.", refusal.advice),
        };
        let entry = Entry {
            time: now.to_string(),
            agent: match actor {
                Actor::Stranger(_) => None,
                named => Some(named.to_string()),
            },
            uid: caller.uid,
            pid: caller.pid,
            operation: attempt.operation,
            path: attempt.path,
            errno: refusal.rule.errno(),
            errno_name: refusal.rule.errno_name(),
            rule: refusal.rule.name(),
            advice: &advice,
            quarantine: kept.as_ref().ok().cloned().flatten(),
        };
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        self.write("all.jsonl", &line)?;
        if let Some(own) = own_file(actor) {
            self.write(&own, &line)?;
        }
        kept.map(drop)
    }

    fn write(&self, name: &str, line: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        let _one = self.writing.lock();
        let end = file.metadata()?.len();
        (&*file).write_all(line).inspect_err(|_| {
            let _ = file.set_len(end);
        })
    }

    /// Keeps bytes that no rule lets in; returns their path relative to the exchange's folder.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self, now: Timestamp, why: &str, bytes: &[u8]) -> io::Result<String> {
        self.keep_as(now, why, bytes, false)
    }

    /// The same, and on disk when it returns: for bytes that are then taken away elsewhere.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep_durably(&self, now: Timestamp, why: &str, bytes: &[u8]) -> io::Result<String> {
        self.keep_as(now, why, bytes, true)
    }

    fn keep_as(&self, now: Timestamp, why: &str, bytes: &[u8], durable: bool) -> io::Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = format!("private/quarantine/{}-{}-{number}-{why}", now.0, std::process::id());
        LocalStore::new(&self.root).create(&path, bytes, 0o600, durable)?;
        Ok(path)
    }

    /// The file that `actor` reads as refusals.jsonl.
    ///
    /// # Errors
    /// The disk's.
    pub fn view(&self, actor: &Actor) -> io::Result<Arc<File>> {
        self.file(&own_file(actor).unwrap_or_else(|| "all.jsonl".into()))
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(name) {
            return Ok(Arc::clone(file));
        }
        let path = self.root.join("private/refusals").join(name);
        let file = Arc::new(OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?);
        end_last_line(&file)?;
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }
}

/// A kill in the middle of a write leaves half a line, which must not swallow the next one.
fn end_last_line(file: &File) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut end = len;
    let mut byte = [b'\n'];
    while end > 0 {
        file.read_exact_at(&mut byte, end - 1)?;
        if byte == *b"\n" {
            break;
        }
        end -= 1;
    }
    if end < len { file.set_len(end) } else { Ok(()) }
}

fn own_file(actor: &Actor) -> Option<String> {
    match actor {
        Actor::Agent(name) => Some(format!("agents/{name}.jsonl")),
        Actor::Stranger(uid) => Some(format!("uids/{uid}.jsonl")),
        Actor::Operator => None,
    }
}
