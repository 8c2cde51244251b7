//! private/quarantine/: the bytes that no rule let in, and those that the exchange itself had to take out.
//!
//! File: `<microseconds>-<process>-<number>-<why>`, followed by `@<who>` for what was refused to somebody: an
//! agent, `uid:<n>` or `operator`. What is kept for one agent or stranger is limited; what the exchange takes out
//! by itself never is, and is not cleared.

use super::Actor;
use crate::rules::credential::cause;
use crate::rules::{Refusal, Rule};
use crate::store::{LocalStore, Store};
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const DIR: &str = "private/quarantine";
/// What the smallest file takes on disk: small files count as much.
const BLOCK: u64 = 4096;

/// What is kept, and how much of it for whom.
pub(super) struct Quarantine {
    store: LocalStore,
    /// Bytes for one agent or stranger; 0: any number.
    limit: u64,
    next: AtomicU64,
    /// By who: the bytes kept, as they take room on disk. Counted when first asked for.
    used: Mutex<Option<HashMap<String, u64>>>,
}

/// Why refused bytes are not kept.
pub(super) enum NotKept {
    /// There is no more room for this actor.
    Full,
    /// The disk's.
    Io(io::Error),
}

/// How much was cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cleared {
    pub files: u64,
    pub bytes: u64,
}

impl Quarantine {
    pub fn new(root: &Path, limit: u64) -> Self {
        let store = LocalStore::new(root);
        Quarantine { store, limit, next: AtomicU64::new(0), used: Mutex::default() }
    }

    /// Keeps what was refused to `actor`; returns the file's path relative to the exchange's folder. A login is on disk
    /// when this returns, and has as much room again as everything else: it may be the only copy of a token that is
    /// valid, for each refresh makes the one before it worthless.
    pub fn keep_for(
        &self,
        actor: &Actor,
        now: Timestamp,
        rule: Rule,
        bytes: &[u8],
    ) -> Result<String, NotKept> {
        let (who, size) = (who(actor), room_of(bytes.len() as u64));
        let is_login = rule == Rule::Identity;
        let limit = if is_login { self.limit.saturating_mul(2) } else { self.limit };
        {
            let mut used = self.used.lock();
            let used = match &mut *used {
                Some(used) => used,
                none => none.insert(self.count().map_err(NotKept::Io)?),
            };
            let own = used.entry(who.clone()).or_default();
            if *actor != Actor::Operator && limit > 0 && own.saturating_add(size) > limit {
                return Err(NotKept::Full);
            }
            *own += size;
        }
        self.create(now, &format!("{}@{who}", rule.name()), bytes, is_login).map_err(|error| {
            if let Some(own) = self.used.lock().as_mut().and_then(|used| used.get_mut(&who)) {
                *own = own.saturating_sub(size);
            }
            NotKept::Io(error)
        })
    }

    /// Keeps what the exchange takes out by itself; on disk when it returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep_durably(&self, now: Timestamp, why: &str, bytes: &[u8]) -> io::Result<String> {
        self.create(now, why, bytes, true)
    }

    /// Keeps bytes under a name that says what they are; once, however often it is asked for.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep_named(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let path = format!("{DIR}/{name}");
        match self.store.create(&path, bytes, 0o600, true) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        self.store.sync_dir(DIR)?;
        Ok(path)
    }

    fn create(&self, now: Timestamp, why: &str, bytes: &[u8], durable: bool) -> io::Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = format!("{DIR}/{}-{}-{number}-{why}", now.0, std::process::id());
        self.store.create(&path, bytes, 0o600, durable)?;
        if durable {
            self.store.sync_dir(DIR)?;
        }
        Ok(path)
    }

    /// What to tell somebody whose refused bytes are not kept: the rule that they broke comes first.
    pub fn refuse_full(&self, actor: &Actor, broken: &Refusal) -> Refusal {
        let who = who(actor);
        let advice = format!(
            "{}: {} The bytes are NOT kept: {who} has used up the {} bytes of quarantine. What breaks no rule is taken \
             at once; the operator makes room with: baton refusals clear --agent {who}",
            broken.rule.name(),
            cause(&broken.advice),
            self.limit
        );
        Refusal::new(Rule::Quota, advice)
    }

    /// Removes what was refused: to one or to all, before a time or ever.
    ///
    /// # Errors
    /// The disk's; what was removed before it is gone.
    pub fn clear(&self, whose: Option<&str>, before: Option<Timestamp>) -> io::Result<Cleared> {
        let mut used = self.used.lock();
        // Counted anew when next asked for.
        *used = None;
        let mut cleared = Cleared::default();
        for name in self.store.list(DIR)? {
            let Some(owner) = owner(&name) else { continue };
            let kept_at = name.split('-').next().and_then(|micros| micros.parse().ok()).map(Timestamp);
            let old = before.is_none_or(|before| kept_at.is_some_and(|at| at < before));
            if old && whose.is_none_or(|whose| whose == owner) {
                let path = format!("{DIR}/{name}");
                let size = self.store.stat(&path)?.size;
                self.store.remove(&path)?;
                cleared.files += 1;
                cleared.bytes += size;
            }
        }
        Ok(cleared)
    }

    /// Removes what has become a slot's login.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut used = self.used.lock();
        // Counted anew when next asked for.
        *used = None;
        self.store.remove(&format!("{DIR}/{name}"))?;
        self.store.sync_dir(DIR)
    }

    fn count(&self) -> io::Result<HashMap<String, u64>> {
        let mut used = HashMap::new();
        for name in self.store.list(DIR)? {
            if let (Some(owner), Ok(stat)) = (owner(&name), self.store.stat(&format!("{DIR}/{name}"))) {
                *used.entry(owner.to_owned()).or_default() += room_of(stat.size);
            }
        }
        Ok(used)
    }
}

fn room_of(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(BLOCK)
}

fn who(actor: &Actor) -> String {
    match actor {
        Actor::Agent(name) => name.to_string(),
        // No agent's name holds a colon.
        Actor::Stranger(uid) => format!("uid:{uid}"),
        Actor::Operator => "operator".to_owned(),
    }
}

fn owner(name: &str) -> Option<&str> {
    name.split_once('@').map(|(_, owner)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::AgentName;

    fn quarantine(dir: &Path, limit: u64) -> Quarantine {
        LocalStore::new(dir).make_dir(DIR, 0o700).unwrap();
        Quarantine::new(dir, limit)
    }

    fn agent(name: &str) -> Actor {
        Actor::Agent(AgentName::parse(name).unwrap())
    }

    #[test]
    fn each_actor_has_its_own_room_which_a_restart_counts_again() {
        let dir = tempfile::tempdir().unwrap();
        let kept = quarantine(dir.path(), 3 * BLOCK);
        let keep =
            |kept: &Quarantine, actor: &Actor| kept.keep_for(actor, Timestamp(5), Rule::Json, b"x").is_ok();
        assert!((0..3).all(|_| keep(&kept, &agent("bob"))));
        assert!(
            !keep(&kept, &agent("bob")) && keep(&kept, &agent("alice")) && keep(&kept, &Actor::Stranger(7))
        );
        assert!((0..9).all(|_| keep(&kept, &Actor::Operator)));
        kept.keep_durably(Timestamp(5), "torn", &[0; 99_999]).unwrap();
        let again = quarantine(dir.path(), 3 * BLOCK);
        assert!(!keep(&again, &agent("bob")) && keep(&again, &agent("alice")));
    }

    #[test]
    fn a_login_finds_room_where_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let kept = quarantine(dir.path(), 2 * BLOCK);
        let keep = |rule| kept.keep_for(&agent("bob"), Timestamp(5), rule, b"x").is_ok();
        assert!((0..2).all(|_| keep(Rule::Json)) && !keep(Rule::Json));
        assert!((0..2).all(|_| keep(Rule::Identity)) && !keep(Rule::Identity));
    }

    #[test]
    fn clearing_makes_room_and_leaves_what_is_young_anothers_or_the_exchanges_own() {
        let dir = tempfile::tempdir().unwrap();
        let kept = quarantine(dir.path(), BLOCK);
        let own = kept.keep_durably(Timestamp(1), "torn", b"own").unwrap();
        for (actor, at) in [("bob", 5), ("alice", 5), ("carol", 9)] {
            assert!(kept.keep_for(&agent(actor), Timestamp(at), Rule::Json, b"12").is_ok());
        }
        assert_eq!(kept.clear(Some("bob"), None).unwrap(), Cleared { files: 1, bytes: 2 });
        assert!(kept.keep_for(&agent("bob"), Timestamp(6), Rule::Json, b"x").is_ok());
        assert_eq!(kept.clear(None, Some(Timestamp(6))).unwrap().files, 1);
        assert!(kept.keep_for(&agent("carol"), Timestamp(9), Rule::Json, b"x").is_err());
        assert_eq!(kept.clear(None, None).unwrap().files, 2);
        assert_eq!(std::fs::read(dir.path().join(own)).unwrap(), b"own");
    }
}
