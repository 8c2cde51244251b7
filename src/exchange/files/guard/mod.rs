//! The guard around slots and live links: what becomes of each operation on a guarded name.

mod accounts;
pub(in crate::exchange) mod change;
mod live;
mod notice;
pub(in crate::exchange) mod profile;
pub(in crate::exchange::files) mod record;
pub(in crate::exchange) mod refresh_lock;
pub(in crate::exchange) mod sidecar;
pub(super) mod slot;
mod start;

use crate::exchange::events::members;
use crate::exchange::files::access::Operation;
use crate::exchange::files::fd;
use crate::exchange::files::nodes::{Node, Plain, SlotNode};
use crate::exchange::files::process::Process;
use crate::exchange::files::{FileEntry, Files, OpenFile, Opened, SetAttr};
use crate::exchange::{Actor, Attempt, Attr, Caller, Denied, NodeKind, Outcome};
use crate::rules::credential::{self, GuardedName, MAX_CREDENTIAL_BYTES, SlotName, Verdict, Witness};
use crate::rules::{Refusal, Rule};
use crate::wire::time::Timestamp;
use change::{Accepted, Change, Fault, Grounds, Live, Submission};
use profile::{Profile, REMOVED, SWITCHED, UNLINKED, read_up_to_limit};
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use slot::SlotWriter;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use zeroize::Zeroizing;

const WHOLE_FILE: &str = "Write the whole file, in place or by a temp file renamed over it.";

/// A credential over [`MAX_CREDENTIAL_BYTES`].
pub(in crate::exchange::files) fn too_long() -> Refusal {
    Refusal::new(
        Rule::Size,
        format!("A credential has at most {MAX_CREDENTIAL_BYTES} bytes. Write only the login."),
    )
}

/// A guarded name that a login stands under. Sidecars and the notice are ordinary files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::exchange::files) enum LoginName {
    Live,
    Slot(SlotName),
}

/// What a name in a directory is guarded as, and where.
pub(in crate::exchange::files) fn guarded<'a>(
    dir: &'a Plain,
    name: &OsStr,
) -> Option<(&'a Arc<Profile>, LoginName)> {
    let profile = dir.top()?;
    match GuardedName::of(&profile.config.format, name.as_bytes())? {
        GuardedName::Live => Some((profile, LoginName::Live)),
        GuardedName::Slot(slot) => Some((profile, LoginName::Slot(slot))),
        GuardedName::Sidecar(_) | GuardedName::Notice => None,
    }
}

/// The tree's path of a guarded name.
fn guarded_path(profile: &Profile, name: &LoginName) -> String {
    match name {
        LoginName::Live => profile.path(profile.live_name()),
        LoginName::Slot(slot) => profile.slot_path(slot),
    }
}

impl Files {
    /// Refuses as `identity`.
    pub(in crate::exchange::files) fn refuse_identity(
        &self,
        caller: &Caller,
        operation: &'static str,
        profile: &Profile,
        name: &LoginName,
        advice: impl Into<String>,
    ) -> Denied {
        let path = guarded_path(profile, name);
        self.refuse(
            caller,
            Attempt { operation, path: &path, bytes: &[] },
            Refusal::new(Rule::Identity, advice),
        )
    }

    /// Puts bytes into a slot because the operator says that they belong there.
    pub(in crate::exchange) fn adopt(
        &self,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
    ) -> Result<Accepted, Fault> {
        self.submit_for_operator(profile, slot, bytes, Grounds::Adopted)
    }

    /// Puts a login that the operator brings into a new slot, the profile's first as its live one.
    pub(in crate::exchange) fn add(
        &self,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
    ) -> Result<Accepted, Fault> {
        self.submit_for_operator(profile, slot, bytes, Grounds::Judged(Witness::default()))
    }

    fn submit_for_operator(
        &self,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
        grounds: Grounds,
    ) -> Result<Accepted, Fault> {
        let now = self.office_io()?.now();
        let dir = profile.dir.metadata()?;
        let owner = self.as_root.then_some((dir.uid(), dir.gid()));
        let account = self.ask_account(profile, slot, bytes);
        let (account, link_first) = (account.as_deref(), profile.is_unused()?);
        self.submit(
            &Actor::Operator,
            profile,
            Submission { slot, bytes, account, grounds, owner, link_first, now },
        )
    }

    /// Submits bytes for a slot, and keeps what is known of their account.
    pub(in crate::exchange::files) fn submit(
        &self,
        by: &Actor,
        profile: &Profile,
        submission: Submission<'_>,
    ) -> Result<Accepted, Fault> {
        let note = |change: &Change<'_>| self.note(by, profile, change);
        let accepted = profile.submit(submission, &note)?;
        if submission.account.is_some() {
            self.keep_accounts(profile);
        }
        Ok(accepted)
    }

    /// Writes a change's event, on disk where that was asked for: never a token, never a whole hash.
    ///
    /// # Errors
    /// The disk's.
    pub(in crate::exchange) fn note(
        &self,
        by: &Actor,
        profile: &Profile,
        change: &Change<'_>,
    ) -> io::Result<()> {
        let (event, slot, credential) = match change {
            Change::Enters { slot, verdict, credential, .. } => {
                (verdict.map_or("credential-adopted", Verdict::event), *slot, Some(*credential))
            }
            Change::Goes { slot, credential, .. } | Change::Stays { slot, credential: credential @ None } => {
                (REMOVED, *slot, *credential)
            }
            Change::Stays { slot, credential } => ("credential-kept", *slot, *credential),
            Change::Selects { slot, credential, .. } => (SWITCHED, *slot, Some(*credential)),
            Change::StillSelects { live: Live::To(slot), .. } => (SWITCHED, slot, None),
            Change::StillSelects { tried, .. } => (UNLINKED, *tried, None),
        };
        let mut fields = members! {
            "profile": profile.name.as_str(), "slot": slot.as_str(), "by": by.to_string(),
        };
        if let Some(credential) = credential {
            if let Some(fingerprint) = &credential.fingerprint {
                fields.insert("fingerprint".to_owned(), fingerprint.to_string().into());
            }
            accounts::tell(credential, &mut fields);
            if let Some(ms) = credential.expires_at_ms {
                let expires = Timestamp(ms.saturating_mul(1000));
                fields.insert("expires_at".to_owned(), expires.to_string().into());
            }
        }
        match change {
            Change::Goes { quarantine, .. } => {
                fields.insert("quarantine".to_owned(), (*quarantine).into());
            }
            Change::Enters { staged: Some(staged), link_first, .. } => {
                fields.insert("staged".to_owned(), (*staged).into());
                if *link_first {
                    fields.insert("link_first".to_owned(), true.into());
                }
            }
            _ => {}
        }
        if let Some(replaced) = change.replaced() {
            fields.insert("replaced".to_owned(), replaced.into());
        }
        self.office_io()?.event(event, fields)
    }

    /// open(2) of a slot.
    pub(in crate::exchange::files) fn open_slot(
        &self,
        caller: &Caller,
        node: &SlotNode,
        flags: OFlags,
    ) -> Outcome<OpenFile> {
        let (read, write) = crate::exchange::files::wanted(flags);
        let operation = Operation { name: "open", node: &Node::Slot(node.clone()), child: None };
        let standing = self.standing(caller, &operation, write != 0)?;
        let file = node.profile.slot_file(&node.slot)?.ok_or_else(|| Denied::os(libc::ENOENT))?;
        if !standing.entitled {
            self.check_mode(caller, standing, &file.metadata()?, read | write)?;
        }
        if write == 0 {
            return Ok(OpenFile { opened: Opened::SlotReader(file) });
        }
        let present = read_up_to_limit(&file)?;
        let emptied = flags.contains(OFlags::TRUNC) && !present.is_empty();
        let bytes = if emptied { Zeroizing::default() } else { present };
        let (profile, slot) = (node.profile.clone(), node.slot.clone());
        let writer = SlotWriter::new(profile, slot, false, caller, bytes, emptied);
        Ok(OpenFile { opened: Opened::SlotWriter(writer) })
    }

    /// O_CREAT of a guarded name that does not exist: it is not seen before it holds a login.
    pub(in crate::exchange::files) fn create_guarded(
        &self,
        caller: &Caller,
        profile: &Arc<Profile>,
        name: LoginName,
        flags: OFlags,
    ) -> Outcome<(FileEntry, OpenFile)> {
        let (slot, link_first) = match name {
            LoginName::Live => match profile.live()? {
                Live::Absent => match profile.check_unused() {
                    Ok(()) => (SlotName::first(), true),
                    Err(Fault::Io(e)) => return Err(Denied::Io(e)),
                    Err(Fault::Broke(refusal)) => {
                        let path = profile.path(profile.live_name());
                        let attempt = Attempt { operation: "create", path: &path, bytes: &[] };
                        return Err(self.refuse(caller, attempt, refusal));
                    }
                },
                // Agents see no link here, so it is not the kernel that follows it.
                Live::To(slot) if profile.shows_a_file() => (slot, false),
                Live::To(_) | Live::Other => return Err(Denied::os(libc::EEXIST)),
            },
            LoginName::Slot(slot) => (slot, false),
        };
        if let Some(handle) = fd::find(&profile.dir, OsStr::new(&profile.slot_file_name(&slot)))? {
            if flags.contains(OFlags::EXCL) || !handle.metadata()?.is_file() {
                return Err(Denied::os(libc::EEXIST));
            }
            let attr = fd::attr(&handle.metadata()?);
            let node = SlotNode::new(profile.clone(), slot, attr);
            let open = self.open_slot(caller, &node, flags)?;
            return Ok((self.nodes.entry(Node::Slot(node), attr), open));
        }
        let now = self.office()?.now();
        let time = UNIX_EPOCH + Duration::from_micros(u64::try_from(now.0).unwrap_or(0));
        let (uid, gid) = self.new_owner(caller).unwrap_or(self.own_ids);
        let attr = Attr {
            kind: NodeKind::File,
            size: 0,
            mode: 0o600,
            uid,
            gid,
            nlink: 1,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
        };
        let writer =
            SlotWriter::new(profile.clone(), slot.clone(), link_first, caller, Zeroizing::default(), true);
        let node = SlotNode::new(profile.clone(), slot, attr);
        Ok((self.nodes.entry(Node::Slot(node), attr), OpenFile { opened: Opened::SlotWriter(writer) }))
    }

    /// chmod, chown, truncate, utimensat of a slot.
    pub(in crate::exchange::files) fn set_slot_attr(
        &self,
        caller: &Caller,
        node: &SlotNode,
        open: Option<&OpenFile>,
        change: SetAttr,
    ) -> Outcome<Attr> {
        let whole = Node::Slot(node.clone());
        let standing =
            self.standing(caller, &Operation { name: "setattr", node: &whole, child: None }, true)?;
        let (profile, name) = (&node.profile, LoginName::Slot(node.slot.clone()));
        let attr = node.attr()?;
        if change.uid.is_some_and(|uid| uid != attr.uid) || change.gid.is_some_and(|gid| gid != attr.gid) {
            let advice =
                "A slot keeps its owner and group. Leave them; the agents of the profile share its slots.";
            return Err(self.refuse_identity(caller, "chown", profile, &name, advice));
        }
        let mut shown = None;
        match (change.size, open.map(|open| &open.opened)) {
            (None, _) => {}
            (Some(size), Some(Opened::SlotWriter(writer))) => {
                self.truncate_slot(caller, writer, size)?;
                shown = Some(writer.len());
            }
            (Some(size), _) if size == attr.size => {}
            (Some(_), _) => {
                let advice = format!("A slot can't be cut or stretched by itself. {WHOLE_FILE}");
                return Err(self.refuse_identity(caller, "truncate", profile, &name, advice));
            }
        }
        if let Some(handle) = profile.slot_handle(&node.slot)? {
            if !standing.entitled {
                self.check_owner(caller, standing, &handle.metadata()?)?;
            }
            if change.mode.is_some() {
                // Whatever was asked for: copying programs give the modes of what they copied.
                fd::chmod(&handle, 0o600)?;
            }
            if change.atime.is_some() || change.mtime.is_some() {
                fd::set_times(&handle, change.atime, change.mtime)?;
            }
        }
        let mut attr = node.attr()?;
        attr.size = shown.unwrap_or(attr.size);
        Ok(attr)
    }

    /// unlink(2) of a guarded name. `None`: there is only an ordinary file of that name.
    pub(in crate::exchange::files) fn unlink_guarded(
        &self,
        caller: &Caller,
        profile: &Arc<Profile>,
        name: &LoginName,
    ) -> Outcome<Option<()>> {
        let slot = match name {
            LoginName::Live if profile.live()? == Live::Absent => return Err(Denied::os(libc::ENOENT)),
            LoginName::Live => {
                let advice = format!(
                    "The live login is never removed: to use another, {}.",
                    profile.config.format.switch_command("<slot>")
                );
                return Err(self.refuse_identity(caller, "unlink", profile, name, advice));
            }
            LoginName::Slot(slot) => slot,
        };
        if profile.slot_handle(slot)?.is_none() {
            // Another mount may be making the slot: what is removed by its name must not be that.
            let _commit = profile.commit.lock();
            if profile.slot_handle(slot)?.is_none() {
                let name = profile.slot_file_name(slot);
                rustix::fs::unlinkat(&profile.dir, name.as_str(), AtFlags::empty())
                    .map_err(io::Error::from)?;
                return Ok(Some(()));
            }
        }
        let office = self.office()?;
        if office.actor(caller) != Actor::Operator {
            let advice = "Only the operator removes a slot, and only one that is not live. Ask for it.";
            return Err(self.refuse_identity(caller, "unlink", profile, name, advice));
        }
        let path = profile.slot_path(slot);
        let by = office.actor(caller);
        let note = |change: &Change<'_>| self.note(&by, profile, change);
        match profile.remove(slot, |bytes| office.keep("removed", bytes), &note) {
            Ok(false) => Err(Denied::os(libc::ENOENT)),
            Ok(true) => Ok(Some(())),
            Err(Fault::Io(e)) => Err(Denied::Io(e)),
            Err(Fault::Broke(refusal)) => {
                Err(self.refuse(caller, Attempt { operation: "unlink", path: &path, bytes: &[] }, refusal))
            }
        }
    }

    /// Points the live link at a slot by `perform`: symlink(2) of the link, or rename(2) of a symlink over it.
    pub(in crate::exchange::files) fn switch_by(
        &self,
        caller: &Caller,
        operation: &'static str,
        profile: &Profile,
        target: &OsStr,
        perform: impl FnOnce(&SlotName) -> io::Result<()>,
    ) -> Outcome<()> {
        let link = LoginName::Live;
        let slot = match credential::link_target(&profile.config.format, target.as_bytes()) {
            Ok(slot) => slot,
            Err(refusal) => {
                return Err(self.refuse_identity(caller, operation, profile, &link, refusal.advice));
            }
        };
        let office = self.office()?;
        let by = office.actor(caller);
        let note = |change: &Change<'_>| self.note(&by, profile, change);
        match profile.switch(&slot, office.now(), false, || perform(&slot), &note) {
            Ok(_) => Ok(()),
            Err(Fault::Io(e)) => Err(Denied::Io(e)),
            Err(Fault::Broke(refusal)) => {
                let path = profile.slot_path(&slot);
                Err(self.refuse(caller, Attempt { operation, path: &path, bytes: &[] }, refusal))
            }
        }
    }

    /// rename(2) where a name is guarded. `None`: only ordinary files are involved.
    pub(in crate::exchange::files) fn rename_guarded(
        &self,
        caller: &Caller,
        (dir, name): (&Plain, &OsStr),
        (new_dir, new_name): (&Plain, &OsStr),
        flags: RenameFlags,
    ) -> Outcome<Option<()>> {
        let source = fd::at(&dir.handle, name)?;
        let from = source.metadata()?;
        let target_guard = guarded(new_dir, new_name);
        if let Some((profile, guard)) = guarded(dir, name) {
            if dir.key == new_dir.key && name == new_name {
                return Ok(Some(())); // as rename(2) does of a name to itself
            }
            // A link may have a slot's name only to become the live one: of two mounts, the other may just be making
            // that slot.
            let switches = from.is_symlink() && matches!(target_guard, Some((_, LoginName::Live)));
            let advice = match guard {
                LoginName::Slot(_) if switches && !flags.contains(RenameFlags::EXCHANGE) => None,
                LoginName::Live => Some(format!(
                    "The live login stays where it is: to use another, {}.",
                    profile.config.format.switch_command("<slot>")
                )),
                LoginName::Slot(_) => Some(
                    "What has a slot's name stays where it is. To use a slot, point the live link at it."
                        .to_owned(),
                ),
            };
            if let Some(advice) = advice {
                return Err(self.refuse_identity(caller, "rename", profile, &guard, advice));
            }
        }
        let Some((profile, guard)) = target_guard else { return Ok(None) };
        let present = fd::find(&new_dir.handle, new_name)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            if present.is_none() {
                return Err(Denied::os(libc::ENOENT));
            }
            let advice = format!("A guarded name is never exchanged with another. {WHOLE_FILE}");
            return Err(self.refuse_identity(caller, "rename", profile, &guard, advice));
        }
        if flags.contains(RenameFlags::NOREPLACE) && present.is_some() {
            return Err(Denied::os(libc::EEXIST));
        }
        if from.is_symlink() {
            return match guard {
                LoginName::Live => {
                    let target = fd::read_link(&source)?;
                    // Not the link that was looked at, whose name may have been given to anything meanwhile.
                    self.switch_by(caller, "rename", profile, &target, |slot| profile.relink(slot))?;
                    remove_if_still(dir, name, &from).map(Some)
                }
                LoginName::Slot(_) => {
                    let advice = format!("A slot is a file and never becomes a link. {WHOLE_FILE}");
                    Err(self.refuse_identity(caller, "rename", profile, &guard, advice))
                }
            };
        }
        if !from.is_file() {
            let advice = format!("Only a login can have this name. {WHOLE_FILE}");
            return Err(self.refuse_identity(caller, "rename", profile, &guard, advice));
        }
        self.rename_login(caller, (&source, profile, guard))?;
        remove_if_still(dir, name, &from).map(Some)
    }

    /// Judges a temp file's bytes for the slot that a rename would put them in, directly or through the link.
    fn rename_login(
        &self,
        caller: &Caller,
        (source, profile, guard): (&File, &Arc<Profile>, LoginName),
    ) -> Outcome<()> {
        let (process, now) = (Process::of(caller.pid), self.office()?.now());
        let (slot, link_first) = match guard {
            LoginName::Slot(slot) => (slot, false),
            LoginName::Live => match profile.live()? {
                // Who began its refresh before a switch saves the login that it began with.
                Live::To(slot) => (profile.refreshed_by(process, now)?.unwrap_or(slot), false),
                Live::Absent if profile.slots()?.is_empty() => (SlotName::first(), true),
                Live::Absent | Live::Other => {
                    let bytes = read_up_to_limit(&fd::reopen(source, OFlags::RDONLY)?)?;
                    let refusal = Refusal::new(Rule::Identity, profile.switch_first());
                    let path = profile.path(profile.live_name());
                    return Err(self.refuse(
                        caller,
                        Attempt { operation: "rename", path: &path, bytes: &bytes },
                        refusal,
                    ));
                }
            },
        };
        let bytes = read_up_to_limit(&fd::reopen(source, OFlags::RDONLY)?)?;
        if bytes.len() > MAX_CREDENTIAL_BYTES {
            // The temp file keeps its bytes, so none are lost.
            return Err(self.too_long(caller, "rename", profile, &slot, &[]));
        }
        let grounds = Grounds::Judged(profile.witness(process, &slot, now)?);
        let by = self.office()?.actor(caller);
        let owner = self.new_owner(caller);
        let account = self.ask_account(profile, &slot, &bytes);
        let account = account.as_deref();
        let submission = Submission { slot: &slot, bytes: &bytes, account, grounds, owner, link_first, now };
        match self.submit(&by, profile, submission) {
            Ok(_) => Ok(()),
            Err(Fault::Broke(refusal)) => {
                Err(self.refuse_login(caller, "rename", (profile, &slot), &bytes, refusal))
            }
            Err(Fault::Io(e)) => Err(Denied::Io(e)),
        }
    }
}

/// Removes a name that still leads to the file that it led to: it may have been given to another meanwhile.
fn remove_if_still(dir: &Plain, name: &OsStr, from: &std::fs::Metadata) -> Outcome<()> {
    if let Some(still) = fd::find(&dir.handle, name)?
        && fd::FileKey::of(&still.metadata()?) == fd::FileKey::of(from)
    {
        rustix::fs::unlinkat(&dir.handle, name, AtFlags::empty()).map_err(io::Error::from)?;
    }
    Ok(())
}
