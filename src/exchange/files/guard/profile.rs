//! One profile on disk: its slots and its live link. What the guard decides is committed here.

use super::accounts::Accounts;
use super::change::{Accepted, Change, Fault, Grounds, Live, Note, Submission};
use super::refresh_lock::Holder;
use crate::exchange::config::ProfileConfig;
use crate::exchange::events::Event;
use crate::exchange::files::Office;
use crate::exchange::files::fd::{self, FileKey};
use crate::rules::credential::{
    self, GuardedName, HALF_MADE, MAX_CREDENTIAL_BYTES, SlotName, SlotRef, Verdict,
};
use crate::rules::{Refusal, Rule};
use crate::wire::credential::{Credential, CredentialFile, Fingerprint, LiveKind};
use crate::wire::time::Timestamp;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use zeroize::Zeroizing;

/// Names of events, which a start reads again.
pub(in crate::exchange::files) const SWITCHED: &str = "credential-switched";
pub(in crate::exchange::files) const UNLINKED: &str = "credential-unlinked";
pub(in crate::exchange::files) const REMOVED: &str = "credential-removed";
pub(in crate::exchange::files) const DRIFT: &str = "credential-drift";

/// What was last decided about a slot, and when.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) struct LastVerdict {
    pub name: &'static str,
    pub at: Timestamp,
}

/// A slot's content as it was read. While `file` is open, no other file can get its inode number.
struct Seen {
    file: File,
    bytes: Zeroizing<Vec<u8>>,
    metadata: Metadata,
}

/// A profile's directory.
pub(in crate::exchange) struct Profile {
    pub name: String,
    pub config: ProfileConfig,
    pub(in crate::exchange::files) dir: Arc<File>,
    pub(in crate::exchange::files) key: FileKey,
    /// Held while a slot or the live link is replaced.
    pub(super) commit: Mutex<()>,
    pub(in crate::exchange::files) refresh_holder: Mutex<Option<Holder>>,
    last: Mutex<BTreeMap<SlotName, LastVerdict>>,
    /// What the operator's `identity_command` said of the slots' logins.
    pub(in crate::exchange::files) accounts: Accounts,
    /// The slots whose change behind the mount has its event, with the login that they then held.
    pub(super) drifts_told: Mutex<BTreeMap<SlotName, Option<Fingerprint>>>,
    next_half_made: AtomicU64,
    office: Weak<dyn Office>,
}

impl Profile {
    /// Opens `credentials/<name>/`, making it if it is missing, and removes what a crash left half made.
    /// `recent`: the events since the last checkpoint; what they tell of is finished first.
    pub(in crate::exchange::files) fn open(
        credentials: &File,
        name: &str,
        config: ProfileConfig,
        recent: &[Event],
        office: Weak<dyn Office>,
    ) -> io::Result<Self> {
        match rustix::fs::mkdirat(credentials, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::openat(credentials, name, flags, Mode::empty())?);
        let key = FileKey::of(&dir.metadata()?);
        let profile = Profile {
            name: name.to_owned(),
            config,
            dir: Arc::new(dir),
            key,
            commit: Mutex::default(),
            refresh_holder: Mutex::default(),
            last: Mutex::default(),
            accounts: Accounts::default(),
            drifts_told: Mutex::default(),
            next_half_made: AtomicU64::new(0),
            office,
        };
        profile.finish(recent)?;
        for name in profile.names()? {
            if name.starts_with(HALF_MADE.as_bytes()) {
                rustix::fs::unlinkat(&profile.dir, OsStr::from_bytes(&name), AtFlags::empty())?;
            }
        }
        Ok(profile)
    }

    /// What keeps the bytes that are replaced.
    ///
    /// # Errors
    /// The exchange is being closed.
    pub(super) fn office(&self) -> io::Result<Arc<dyn Office>> {
        self.office.upgrade().ok_or_else(|| io::Error::other("the exchange is being closed"))
    }

    /// A slot of this profile, to word refusals.
    pub fn slot_ref<'a>(&'a self, slot: &'a SlotName) -> SlotRef<'a> {
        SlotRef { format: &self.config.format, profile: &self.name, slot }
    }

    /// The live file's name.
    pub fn live_name(&self) -> &str {
        &self.config.format.live
    }

    /// Whether agents see a regular file where the live link is on disk.
    pub fn shows_a_file(&self) -> bool {
        self.config.format.kind == LiveKind::File
    }

    /// A slot's file name.
    pub fn slot_file_name(&self, slot: &SlotName) -> String {
        self.config.format.slot_file(slot)
    }

    /// A name's path in the tree.
    pub fn path(&self, name: &str) -> String {
        format!("credentials/{}/{name}", self.name)
    }

    /// A slot's path in the tree.
    pub fn slot_path(&self, slot: &SlotName) -> String {
        self.path(&self.slot_file_name(slot))
    }
    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            names.push(entry?.file_name().to_bytes().to_vec());
        }
        Ok(names)
    }

    /// The slots, by name.
    pub fn slots(&self) -> io::Result<Vec<SlotName>> {
        let mut slots = Vec::new();
        for name in self.names()? {
            if let Some(GuardedName::Slot(slot)) = GuardedName::of(&self.config.format, &name)
                && self.slot_handle(&slot)?.is_some()
            {
                slots.push(slot);
            }
        }
        slots.sort();
        Ok(slots)
    }

    /// A handle to a slot's file; `None` where no regular file has its name.
    pub(in crate::exchange::files) fn slot_handle(&self, slot: &SlotName) -> io::Result<Option<File>> {
        let handle = fd::find(&self.dir, OsStr::new(&self.slot_file_name(slot)))?;
        Ok(match handle {
            Some(handle) if handle.metadata()?.is_file() => Some(handle),
            _ => None,
        })
    }

    /// A slot's file, for reading.
    pub(in crate::exchange::files) fn slot_file(&self, slot: &SlotName) -> io::Result<Option<File>> {
        self.slot_handle(slot)?.map(|handle| fd::reopen(&handle, OFlags::RDONLY)).transpose()
    }

    fn see(&self, slot: &SlotName) -> io::Result<Option<Seen>> {
        let Some(file) = self.slot_file(slot)? else { return Ok(None) };
        let metadata = file.metadata()?;
        let bytes = read_up_to_limit(&file)?;
        Ok(Some(Seen { file, bytes, metadata }))
    }

    fn is_still(&self, slot: &SlotName, seen: Option<&Seen>) -> io::Result<bool> {
        let present = self.slot_handle(slot)?.map(|handle| handle.metadata()).transpose()?;
        let stamp = |m: &Metadata| (FileKey::of(m), m.ctime(), m.ctime_nsec(), m.len());
        Ok(present.as_ref().map(stamp) == seen.map(|seen| stamp(&seen.metadata)))
    }

    /// A slot's bytes.
    pub fn slot_bytes(&self, slot: &SlotName) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        Ok(self.see(slot)?.map(|seen| seen.bytes))
    }

    /// The login in a text, if there is one.
    pub fn login(&self, bytes: &[u8]) -> Option<Credential> {
        self.config.format.login(bytes)
    }

    /// The login that a text in this slot is, with the account that the operator's command found it to be.
    pub fn slot_login(&self, slot: &SlotName, bytes: &[u8]) -> Option<Credential> {
        self.login(bytes).map(|login| self.accounts.complete(slot, login))
    }

    /// The other slot that holds this login's token.
    pub(super) fn holder_of_token(
        &self,
        slot: Option<&SlotName>,
        login: &Credential,
    ) -> io::Result<Option<SlotName>> {
        if login.fingerprint.is_none() {
            return Ok(None);
        }
        for other in self.slots()? {
            let held = self.slot_bytes(&other)?.and_then(|bytes| self.login(&bytes));
            if Some(&other) != slot && held.is_some_and(|held| held.fingerprint == login.fingerprint) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// The other slot that holds this login's account.
    fn elsewhere(&self, slot: &SlotName, login: &CredentialFile) -> Option<SlotName> {
        let CredentialFile::Login(login) = login else { return None };
        let holds_it = |other: &SlotName| {
            let bytes = self.slot_bytes(other).ok().flatten();
            let held = bytes.and_then(|bytes| self.slot_login(other, &bytes));
            held.is_some_and(|held| credential::is_same_login(&held, login))
        };
        self.slots().ok()?.into_iter().find(|other| other != slot && holds_it(other))
    }

    /// Replaces a slot's content, if there are grounds to.
    pub(in crate::exchange) fn submit(
        &self,
        submission: Submission<'_>,
        note: Note<'_>,
    ) -> Result<Accepted, Fault> {
        let outcome = self.try_submit(submission, note);
        // What leaves no event or refusal behind is not told either: it would be gone at the next start.
        let name = match &outcome {
            Ok(Accepted { verdict: Some(Verdict::Unchanged), changed: false, .. }) => None,
            Ok(Accepted { verdict, .. }) => Some(verdict.map_or("adopted", Verdict::name)),
            Err(Fault::Broke(_)) => matches!(submission.grounds, Grounds::Judged(_)).then_some("refused"),
            Err(Fault::Io(_)) => None,
        };
        if let Some(name) = name {
            self.set_last_verdict(submission.slot, name, submission.now);
        }
        if outcome.is_ok() {
            self.settle_notice(submission.slot);
        }
        outcome
    }

    fn try_submit(&self, submission: Submission<'_>, note: Note<'_>) -> Result<Accepted, Fault> {
        let Submission { slot, bytes, account, grounds, owner, link_first, now } = submission;
        let mut new = self.config.format.read(bytes).map_err(|e| {
            let what = format!(
                "These bytes are no login ({e}), so slot {slot} stays as it was. Write the whole file."
            );
            Refusal::new(Rule::Identity, what)
        })?;
        if let CredentialFile::Login(login) = &mut new {
            Accounts::add(login, account);
        }
        let at = self.slot_ref(slot);
        loop {
            let seen = self.see(slot)?;
            let old = seen.as_ref().and_then(|seen| match account {
                Some(_) => self.slot_login(slot, &seen.bytes),
                // Nobody said whose the new login is: the files' own evidence decides.
                None => self.login(&seen.bytes),
            });
            // The slot was changed behind the mount, and gets its own login back.
            let mut heals = false;
            // Nothing says whose the old login was: what replaces it might be another account's.
            let mut unnamed = false;
            let verdict = match grounds {
                Grounds::Judged(witness) => {
                    let compared = match account {
                        Some(_) => old.as_ref(),
                        None => self.compared_with(slot, old.as_ref(), &new)?,
                    };
                    heals = old.is_some() && compared.is_none();
                    unnamed = compared.is_some_and(|old| old.accounts.is_empty());
                    let judged = credential::judge(at, compared, &new, witness, now, self.config.strict);
                    Some(
                        judged
                            .map_err(|mismatch| mismatch.refusal(at, self.elsewhere(slot, &new).as_ref()))?,
                    )
                }
                Grounds::Adopted => None,
            };
            let CredentialFile::Login(credential) = &new else {
                let what = format!(
                    "These bytes are a login without tokens (a stub), which never enters slot {slot}."
                );
                return Err(Refusal::new(Rule::Identity, what).into());
            };
            let commit = self.commit.lock();
            if !self.is_still(slot, seen.as_ref())? {
                continue; // another writer came first: these bytes are judged against its login
            }
            if link_first {
                self.check_unused()?;
            }
            if matches!(verdict, Some(Verdict::Captured | Verdict::Rotated))
                && !heals
                && let Some(other) = self.holder_of_token(Some(slot), credential)?
            {
                return Err(credential::refuse_second_copy(at, credential, &other).into());
            }
            let changed = seen.as_ref().is_none_or(|seen| seen.bytes.as_slice() != bytes);
            if changed {
                let kept = seen.as_ref().map(|seen| (seen.metadata.uid(), seen.metadata.gid()));
                let replaced = match &seen {
                    Some(seen) => self.keep_replaced(slot, &seen.bytes, verdict, unnamed)?,
                    None => None,
                };
                let replaced = replaced.as_deref();
                let staged = self.stage(bytes, owner.and(kept).or(owner))?;
                let staged_name = Some(staged.as_str());
                let enters =
                    Change::Enters { slot, verdict, credential, staged: staged_name, link_first, replaced };
                let noted = note(&enters);
                let mut sidecar = None;
                let done = match &noted {
                    Ok(()) => self.take_sidecar(slot, verdict, credential).and_then(|taken| {
                        sidecar = taken;
                        self.publish(slot, &staged, link_first)
                    }),
                    Err(_) => Ok(()),
                };
                let stays = Change::Stays { slot, credential: old.as_ref() };
                // Where neither happens, the staged file stays: the next start finishes what is told.
                if noted.is_err() || (done.is_err() && note(&stays).is_ok()) {
                    // Best effort: what stays is hidden, and swept at the next start.
                    let _ = rustix::fs::unlinkat(&self.dir, staged.as_str(), AtFlags::empty());
                    self.put_back(slot, sidecar);
                }
                noted.and(done)?;
                rustix::fs::fsync(&self.dir)?;
            } else if verdict != Some(Verdict::Unchanged) {
                let (staged, link_first, replaced) = (None, false, None);
                note(&Change::Enters { slot, verdict, credential, staged, link_first, replaced })?;
            }
            self.accounts.keep(slot, credential);
            self.renew_sidecar(slot, verdict, credential, now);
            drop(commit);
            // Keeping the old file open until here is what makes `is_still` exact.
            drop(seen.map(|seen| seen.file));
            return Ok(Accepted { verdict, credential: credential.clone(), changed });
        }
    }

    /// Keeps a login that is about to be replaced where no account's name says that the new one is its successor.
    /// Returns where.
    fn keep_replaced(
        &self,
        slot: &SlotName,
        bytes: &[u8],
        verdict: Option<Verdict>,
        unnamed: bool,
    ) -> io::Result<Option<String>> {
        match verdict {
            None => self.office()?.keep("replaced", bytes).map(Some),
            Some(Verdict::Rotated) if unnamed => {
                let kept = self.office()?.keep_previous(&self.name, slot, bytes);
                // A refreshed login is worth more than the one that it makes worthless: it enters all the same.
                Ok(kept
                    .inspect_err(|error| {
                        tracing::warn!(profile = self.name, %slot, %error, "the login before a refresh is not kept");
                    })
                    .ok())
            }
            Some(_) => Ok(None),
        }
    }

    pub(super) fn half_made(&self) -> String {
        // The name lives inside one locked exchange, so a count and the process suffice.
        let n = self.next_half_made.fetch_add(1, Ordering::Relaxed);
        format!("{HALF_MADE}{}.{n}", std::process::id())
    }

    /// Writes a slot's coming content to a hidden file, on disk when it returns. Always a fresh file: one
    /// that a writer made could still be open or have another name, through which it could be changed unjudged.
    pub(super) fn stage(&self, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<String> {
        let half_made = self.half_made();
        let done = (|| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let mut file = File::from(rustix::fs::openat(&self.dir, half_made.as_str(), flags, mode)?);
            if let Some((uid, gid)) = owner {
                fd_chown(&file, uid, gid)?;
            }
            rustix::fs::fchmod(&file, mode)?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        if done.is_err() {
            // Best effort: what stays is hidden, and swept at the next start.
            let _ = rustix::fs::unlinkat(&self.dir, half_made.as_str(), AtFlags::empty());
        }
        done.map(|()| half_made)
    }

    /// Puts a staged file in a slot's place, atomically.
    fn publish(&self, slot: &SlotName, staged: &str, link_first: bool) -> io::Result<()> {
        if link_first && let Some(handle) = fd::find(&self.dir, OsStr::new(staged))? {
            self.link_first(slot, &handle)?;
        }
        Ok(rustix::fs::renameat(&self.dir, staged, &self.dir, self.slot_file_name(slot).as_str())?)
    }

    /// Removes a slot that is not live; `keep` gets its bytes before they go, and says where they are.
    /// Returns whether there was such a slot.
    pub(in crate::exchange::files) fn remove(
        &self,
        slot: &SlotName,
        keep: impl Fn(&[u8]) -> io::Result<String>,
        note: Note<'_>,
    ) -> Result<bool, Fault> {
        loop {
            let Some(seen) = self.see(slot)? else { return Ok(false) };
            let quarantine = keep(&seen.bytes)?;
            let _commit = self.commit.lock();
            if self.live()? == Live::To(slot.clone()) {
                let what = format!("Slot {slot} is live. Switch to another slot before removing it.");
                return Err(Refusal::new(Rule::Identity, what).into());
            }
            if self.is_still(slot, Some(&seen))? {
                let credential = self.slot_login(slot, &seen.bytes);
                let credential = credential.as_ref();
                note(&Change::Goes { slot, credential, quarantine: &quarantine })?;
                let gone =
                    rustix::fs::unlinkat(&self.dir, self.slot_file_name(slot).as_str(), AtFlags::empty());
                if gone.is_err() && note(&Change::Stays { slot, credential }).is_err() {
                    tracing::error!(profile = self.name, %slot, "a removal that failed could not be noted");
                }
                gone?;
                // Best effort: without its slot a sidecar tells of nothing.
                let _ = self.remove_sidecar(slot);
                return Ok(true);
            }
        }
    }

    /// Remembers what was decided about a slot.
    pub fn set_last_verdict(&self, slot: &SlotName, name: &'static str, at: Timestamp) {
        self.last.lock().insert(slot.clone(), LastVerdict { name, at });
    }

    /// What was last decided about a slot since the start.
    pub fn last_verdict(&self, slot: &SlotName) -> Option<LastVerdict> {
        self.last.lock().get(slot).copied()
    }
}

fn fd_chown(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?)
}

/// At most one byte more than a credential may have, so that the caller sees what is too long.
pub(in crate::exchange::files) fn read_up_to_limit(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = MAX_CREDENTIAL_BYTES as u64 + 1;
    // Room for all of it: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(file.metadata()?.len().min(most) as usize + 32));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
