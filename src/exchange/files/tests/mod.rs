//! The files against a real directory, without a mount: what each test here sees, a program would.

mod memory;
mod posix;
mod records;
mod refresh;
mod replaced;
mod slots;
mod switching;
mod tree;

use super::{FileEntry, FileId, Files, Office, OpenFile, SetAttr, kept};
use crate::exchange::config::{Config, ProfileConfig};
use crate::exchange::{Actor, Attempt, Caller, Denied, NodeKind, Outcome};
use crate::rules::credential::SlotName;
use crate::rules::{Refusal, Rule};
use crate::wire::credential::Format;
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const BOB: u32 = 1001;
const EVE: u32 = 1002;
const STRANGER: u32 = 4242;
const LINK: &str = ".credentials.json";
const WORK: &str = ".credentials.json.work";
const HOME: &str = ".credentials.json.home";

/// What was refused: (operation, path, rule, bytes).
type Refused = (&'static str, String, Rule, Vec<u8>);

/// An exchange's office that keeps what it is told.
#[derive(Default)]
struct Desk {
    ahead_seconds: Mutex<i64>,
    refused: Mutex<Vec<Refused>>,
    kept: Mutex<Vec<Vec<u8>>>,
    previous: Mutex<BTreeMap<String, Vec<u8>>>,
    events: Mutex<Vec<(&'static str, Map<String, Value>)>>,
    remembered: Mutex<Map<String, Value>>,
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

impl Office for Desk {
    fn actor(&self, caller: &Caller) -> Actor {
        match (&caller.bound, caller.uid) {
            (Some(name), _) => Actor::Agent(name.clone()),
            (None, BOB) => Actor::Agent(agent("bob")),
            (None, EVE) => Actor::Agent(agent("eve")),
            (None, STRANGER) => Actor::Stranger(STRANGER),
            (None, _) => Actor::Operator,
        }
    }
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(now.as_micros() as i64).plus_seconds(*self.ahead_seconds.lock())
    }
    fn refuse(&self, _caller: &Caller, attempt: Attempt<'_>, refusal: Refusal) -> Denied {
        let refused = (attempt.operation, attempt.path.to_owned(), refusal.rule, attempt.bytes.to_vec());
        self.refused.lock().push(refused);
        Denied::Refused(refusal)
    }
    fn refuse_kept(
        &self,
        caller: &Caller,
        attempt: Attempt<'_>,
        refusal: Refusal,
    ) -> (Denied, Option<String>) {
        (self.refuse(caller, attempt, refusal), Some("private/quarantine/1-2-3-identity@bob".to_owned()))
    }
    fn keep(&self, why: &'static str, bytes: &[u8]) -> io::Result<String> {
        self.kept.lock().push(bytes.to_vec());
        Ok(format!("private/quarantine/{why}"))
    }
    fn keep_previous(&self, profile: &str, slot: &SlotName, bytes: &[u8]) -> io::Result<String> {
        let place = format!("private/previous/{profile}/{slot}");
        self.previous.lock().insert(place.clone(), bytes.to_vec());
        Ok(place)
    }
    fn remember(&self, profile: &str, text: &[u8]) -> io::Result<()> {
        self.remembered.lock().insert(profile.to_owned(), serde_json::from_slice(text)?);
        Ok(())
    }
    fn recall(&self, profile: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.remembered.lock().get(profile).map(|text| text.to_string().into_bytes()))
    }
    fn event(&self, event: &'static str, fields: Map<String, Value>) -> io::Result<()> {
        self.events.lock().push((event, fields));
        Ok(())
    }
}

struct Place {
    dir: TempDir,
    desk: Arc<Desk>,
    files: Files,
    /// credentials/claude
    top: FileId,
}

fn place() -> Place {
    place_with(TempDir::new().unwrap(), false)
}

fn place_with(dir: TempDir, strict: bool) -> Place {
    place_of(dir, ProfileConfig { strict, ..profile(Format::claude()) })
}

/// The profile of a format for bob and alice.
fn profile(format: Format) -> ProfileConfig {
    let agents = Some(vec![agent("bob"), agent("alice")]);
    ProfileConfig { format, strict: false, agents, identity_command: None }
}

/// With `profile` as `claude`, and as `other` for everybody.
fn place_of(dir: TempDir, profile: ProfileConfig) -> Place {
    let other = ProfileConfig { agents: None, ..profile.clone() };
    let credentials = [("claude".to_owned(), profile), ("other".to_owned(), other)].into();
    let config = Config { credentials, ..Config::parse("").unwrap() };
    let desk = Arc::new(Desk::default());
    place_at(dir, desk, &config)
}

fn place_at(dir: TempDir, desk: Arc<Desk>, config: &Config) -> Place {
    let office: Arc<dyn Office> = desk.clone();
    let files = Files::new(dir.path(), config, Arc::downgrade(&office), &[]).unwrap();
    let top = files.lookup(&operator(), files.credentials(), OsStr::new("claude")).unwrap().id;
    Place { dir, desk, files, top }
}

fn caller(uid: u32) -> Caller {
    Caller { uid, gid: uid, pid: std::process::id(), bound: None }
}

/// The owner of the exchange: whoever runs the tests.
fn operator() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, pid: std::process::id(), bound: None }
}

/// An agent through a mount of its own.
fn alice() -> Caller {
    Caller { bound: Some(agent("alice")), ..operator() }
}

fn login_with(token: &str, expires_in: i64, subscription: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let oauth = json!({
        "accessToken": format!("access-{token}"), "refreshToken": format!("refresh-{token}"),
        "expiresAt": now + expires_in * 1000, "scopes": ["user:inference", "user:profile"],
        "subscriptionType": subscription,
    });
    serde_json::to_vec_pretty(&json!({"claudeAiOauth": oauth, "mcpOAuth": {}})).unwrap()
}

fn login(token: &str) -> Vec<u8> {
    login_with(token, 7200, "max")
}

impl Place {
    fn on_disk(&self, name: &str) -> PathBuf {
        self.dir.path().join("credentials/claude").join(name)
    }
    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.on_disk(name)).unwrap()
    }
    fn find(&self, name: &str) -> Outcome<FileEntry> {
        self.files.lookup(&operator(), self.top, OsStr::new(name))
    }
    /// Follows a symlink in the profile's top, as the kernel does.
    fn resolve(&self, name: &str) -> (String, Outcome<FileEntry>) {
        match self.find(name) {
            Ok(entry) if entry.attr.kind == NodeKind::Symlink => {
                let target = self.files.readlink(entry.id).unwrap().into_string().unwrap();
                let entry = self.find(&target);
                (target, entry)
            }
            found => (name.to_owned(), found),
        }
    }
    fn open(&self, who: &Caller, name: &str, flags: i32) -> Outcome<OpenFile> {
        match self.resolve(name) {
            (_, Ok(entry)) => self.files.open(who, entry.id, flags),
            (name, Err(_)) if flags & libc::O_CREAT != 0 => {
                Ok(self.files.create(who, self.top, OsStr::new(&name), 0o600, flags)?.1)
            }
            (_, Err(denied)) => Err(denied),
        }
    }
    /// `cat > name`: errors from write() or close().
    fn write(&self, who: &Caller, name: &str, bytes: &[u8]) -> Outcome<()> {
        let open = self.open(who, name, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?;
        let written = self.files.write(who, &open, 0, false, bytes).map(|_| ());
        let flushed = self.files.flush(who, &open);
        self.files.release(&open);
        written.and(flushed)
    }
    fn read(&self, who: &Caller, name: &str) -> Outcome<Vec<u8>> {
        let open = self.open(who, name, libc::O_RDONLY)?;
        self.files.read(&open, 0, 1 << 20)
    }
    fn mv(&self, who: &Caller, from: &str, to: &str) -> Outcome<()> {
        self.files.rename(who, self.top, OsStr::new(from), self.top, OsStr::new(to), 0)
    }
    /// How the programs write: a temp file renamed over `name`.
    fn replace(&self, who: &Caller, name: &str, bytes: &[u8]) -> Outcome<()> {
        let temp = format!("{name}.tmp.0a1b2c");
        self.write(who, &temp, bytes)?;
        self.mv(who, &temp, name)
    }
    /// Two fresh slots, work (live) and home.
    fn with_two_slots(self) -> Self {
        self.write(&operator(), WORK, &login("work")).unwrap();
        self.write(&operator(), HOME, &login("home")).unwrap();
        self.files.symlink(&operator(), self.top, OsStr::new(LINK), OsStr::new(WORK)).unwrap();
        self.desk.events.lock().clear();
        self
    }
    /// What was refused since the last time this was asked.
    fn refused(&self) -> Vec<Refused> {
        std::mem::take(&mut *self.desk.refused.lock())
    }
    fn events(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.desk.events.lock()).into_iter().map(|(event, _)| event).collect()
    }
    /// The names in the profile's top, but for sidecars, which come and go with their slots.
    fn names(&self) -> Vec<String> {
        let mut names = self.all_names();
        names.retain(|name| !name.ends_with(".fingerprint.json"));
        names
    }
    fn all_names(&self) -> Vec<String> {
        let listed = self.files.list(&operator(), self.top).unwrap();
        let mut names: Vec<_> = listed.into_iter().map(|entry| entry.name.into_string().unwrap()).collect();
        names.sort();
        names
    }
    fn live(&self) -> String {
        std::fs::read_link(self.on_disk(LINK)).unwrap().into_os_string().into_string().unwrap()
    }
    #[track_caller]
    fn assert_refused(
        &self,
        result: Outcome<impl Sized>,
        rule: Rule,
        operation: &str,
        path: &str,
    ) -> Vec<u8> {
        let denied = result.err().expect("it should be refused");
        assert_eq!(denied.errno(), rule.errno(), "{denied}");
        let mut refused = self.refused();
        assert_eq!(
            refused.len(),
            1,
            "one refusal: {:?}",
            refused.iter().map(|r| (r.0, r.2)).collect::<Vec<_>>()
        );
        let (by, at, broken, bytes) = refused.remove(0);
        assert_eq!((by, at.as_str(), broken), (operation, path, rule));
        bytes
    }
}

#[track_caller]
fn assert_errno(result: Outcome<impl Sized>, errno: i32) {
    assert_eq!(result.err().expect("it should fail").errno(), errno);
}

fn path(name: &str) -> String {
    format!("credentials/claude/{name}")
}

fn size(len: u64) -> SetAttr {
    SetAttr { size: Some(len), ..SetAttr::default() }
}
