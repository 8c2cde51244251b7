//! refusals.jsonl and quarantine: nothing is ever lost to a rule.
//!
//! Line: `{"time","agent","uid","pid","operation","path","errno","errno_name","rule","advice","quarantine"}`.
//! All of them are in private/refusals/all.jsonl (the operator's view); each actor's own are kept in a
//! file of its own as well, which is what it reads as refusals.jsonl.

use super::archive::count;
use super::events::members;
use super::quarantine::{NotKept, Quarantine};
use super::{Actor, Attempt, Caller, Exchange};
use crate::rules::credential::{KEPT_AS, cause};
use crate::rules::{Refusal, Rule};
use crate::store::{LocalStore, Store};
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that was refused, in the exchange in `root`.
pub(super) struct RefusalBook {
    root: PathBuf,
    files: Mutex<HashMap<String, Arc<File>>>,
    /// Held while a line is written, so that what a full disk took of one can be cut again.
    writing: Mutex<()>,
    pub quarantine: Quarantine,
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

/// What became of a refusal.
#[derive(Default)]
pub(super) struct Recorded {
    /// `quota` in place of the refusal, where the bytes may not be kept: what its writer must be told.
    pub full: Option<Refusal>,
    /// Where the bytes are kept, relative to the exchange's folder.
    pub kept: Option<String>,
}

impl RefusalBook {
    /// `quarantine_bytes`: what may be kept for one actor; 0: any number.
    pub fn open(root: &Path, quarantine_bytes: u64) -> io::Result<Self> {
        let store = LocalStore::new(root);
        for dir in ["private/refusals/agents", "private/refusals/uids", "private/quarantine"] {
            store.make_dir(dir, 0o700)?;
        }
        Ok(RefusalBook {
            root: root.into(),
            files: Mutex::default(),
            writing: Mutex::default(),
            quarantine: Quarantine::new(root, quarantine_bytes),
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
    ) -> io::Result<Recorded> {
        let mut full = None;
        let kept = if attempt.bytes.is_empty() {
            Ok(None)
        } else {
            match self.quarantine.keep_for(actor, now, refusal.rule, attempt.bytes) {
                Ok(path) => Ok(Some(path)),
                Err(NotKept::Full) => {
                    full = Some(self.quarantine.refuse_full(actor, refusal));
                    Ok(None)
                }
                Err(NotKept::Io(error)) => Err(error),
            }
        };
        let refusal = full.as_ref().unwrap_or(refusal);
        let advice = match &kept {
            Ok(kept) => excerpt(&with_id(refusal, kept.as_deref())).to_owned(),
            Err(error) => {
                format!("{} The bytes could not be kept: {error}.", excerpt(cause(&refusal.advice)))
            }
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
        kept.map(|kept| Recorded { full, kept })
    }

    fn write(&self, name: &str, line: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        let _one = self.writing.lock();
        let end = file.metadata()?.len();
        (&*file).write_all(line).inspect_err(|_| {
            let _ = file.set_len(end);
        })
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

impl Exchange {
    /// Deletes the refused bytes that are kept: of one or all, of at least so many days ago or ever.
    pub(super) fn clear_refusals(&self, whose: Option<&str>, days: Option<u32>) -> Result<Value, String> {
        let whose = match whose {
            Some(uid) if uid.strip_prefix("uid:").is_some_and(|n| n.parse::<u32>().is_ok()) => {
                Some(uid.to_owned())
            }
            Some("operator") => Some("operator".to_owned()),
            Some(agent) => Some(self.known_agent(agent)?.to_string()),
            None => None,
        };
        let before = days.map(|days| self.now().plus_seconds(-i64::from(days) * 86_400));
        let cleared = self.refusals.quarantine.clear(whose.as_deref(), before);
        let cleared = cleared.map_err(|error| format!("private/quarantine: {error}"))?;
        let (files, bytes) = (cleared.files, cleared.bytes);
        let mut changes = Vec::new();
        if files > 0 {
            let of = whose.as_deref().unwrap_or("everybody");
            self.event("refusals-cleared", members! {"of": of, "files": files, "bytes": bytes});
            changes.push(format!("deleted {} of {of}, {bytes} bytes", count(files, "refused write")));
        }
        Ok(json!({"changes": changes, "files": files, "bytes": bytes}))
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

/// A login's refusal names the command that accepts it, with the id of the bytes.
fn with_id<'a>(refusal: &'a Refusal, kept: Option<&str>) -> Cow<'a, str> {
    let id = kept.and_then(|path| Path::new(path).file_name()?.to_str());
    match (refusal.rule, id) {
        (Rule::Identity, Some(id)) => refusal.advice.replacen(KEPT_AS, id, 1).into(),
        _ => (&refusal.advice).into(),
    }
}

/// As much of an advice as an agent should have to read: what was refused may stand in it.
fn excerpt(advice: &str) -> &str {
    &advice[..advice.floor_char_boundary(1500)]
}

fn own_file(actor: &Actor) -> Option<String> {
    match actor {
        Actor::Agent(name) => Some(format!("agents/{name}.jsonl")),
        Actor::Stranger(uid) => Some(format!("uids/{uid}.jsonl")),
        Actor::Operator => None,
    }
}
