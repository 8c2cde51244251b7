//! Whether a caller may do something here: by the exchange's config first, then by mode bits as on any disk.
//!
//! The kernel does not check for us (no `default_permissions`), because an entitled agent uses a
//! profile's slots whoever owns their files.

use super::area::Area;
use super::nodes::{Node, Plain};
use super::{FileId, Files, process};
use crate::exchange::{Actor, Attempt, Caller, Denied, Outcome};
use crate::rules::{Refusal, Rule};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Mode bits of one class: what is wanted.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// What a caller wants to do, for the refusal if it may not.
pub(super) struct Operation<'a> {
    pub name: &'static str,
    /// The node, or the directory in which ...
    pub node: &'a Node,
    /// ... this name is meant.
    pub child: Option<&'a OsStr>,
}

/// How a caller stands to an area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Named by the config as a user of this profile, or it is the caller's memory: its top directory and slots are
    /// the caller's own.
    pub entitled: bool,
    /// Mode bits don't bind it: root, or a mount on which the daemon's own user does everything.
    pub exempt: bool,
}

impl Files {
    /// How `caller` stands to a node's area.
    ///
    /// # Errors
    /// `authority`: a stranger who wants to change something, or an agent without entitlement.
    pub(super) fn standing(
        &self,
        caller: &Caller,
        operation: &Operation<'_>,
        change: bool,
    ) -> Outcome<Standing> {
        self.stands(caller, operation.node, change)?.map_err(|advice| {
            let path = self.tree_path(operation.node, operation.child);
            self.refuse(
                caller,
                Attempt { operation: operation.name, path: &path, bytes: &[] },
                Refusal::new(Rule::Authority, advice),
            )
        })
    }

    /// As [`Files::standing`], or else the advice for a refusal that is not recorded.
    pub(super) fn stands(
        &self,
        caller: &Caller,
        node: &Node,
        change: bool,
    ) -> Outcome<Result<Standing, String>> {
        let area = match node {
            Node::Plain(plain) => plain.area.clone(),
            Node::Slot(slot) => Area::Profile(slot.profile.clone()),
        };
        let actor = self.office()?.actor(caller);
        let exempt = self.is_exempt(caller);
        Ok(entitlement(&actor, &area, change).map(|entitled| Standing { entitled, exempt }))
    }

    /// Whether mode bits don't bind a caller: root, or whoever comes through a mount on which the daemon's own user
    /// does everything.
    pub fn is_exempt(&self, caller: &Caller) -> bool {
        caller.uid == 0 || (caller.bound.is_some() && !self.as_root)
    }

    /// access(2): whether the caller could do what the bits of `want` say.
    ///
    /// # Errors
    /// EACCES. Not recorded, for a probe is no attempt; but whoever is not entitled to a profile may no more look
    /// at it in this way than in another.
    pub fn access(&self, caller: &Caller, id: FileId, want: u32) -> Outcome<()> {
        let node = self.nodes.get(id)?;
        let denied = || Denied::os(libc::EACCES);
        let mut standing =
            self.standing(caller, &Operation { name: "access", node: &node, child: None }, false)?;
        if want & WRITE != 0 {
            standing = self.stands(caller, &node, true)?.map_err(|_| denied())?;
        }
        let metadata = match &node {
            Node::Plain(plain) => {
                let metadata = plain.handle.metadata()?;
                if metadata.is_dir() {
                    return self.check_dir(caller, standing, plain, want);
                }
                metadata
            }
            Node::Slot(_) if standing.entitled && want & SEARCH == 0 => return Ok(()),
            Node::Slot(slot) => slot.profile.slot_file(&slot.slot)?.ok_or_else(denied)?.metadata()?,
        };
        if want & SEARCH != 0 && metadata.mode() & 0o111 == 0 {
            return Err(denied());
        }
        self.check_mode(caller, standing, &metadata, want)
    }

    /// EACCES unless mode bits let the caller do what it wants.
    pub(super) fn check_mode(
        &self,
        caller: &Caller,
        standing: Standing,
        metadata: &Metadata,
        want: u32,
    ) -> Outcome<()> {
        let (mode, ids) = (metadata.mode(), (metadata.uid(), metadata.gid()));
        let grants = |bits: u32| bits & want == want;
        // Which groups a caller is in is asked only where it matters: the answer is in /proc.
        let is_known = caller.uid != ids.0 && grants(mode >> 3) == grants(mode);
        let granted =
            standing.exempt || if is_known { grants(mode) } else { grants(class_bits(caller, mode, ids)) };
        if granted { Ok(()) } else { Err(Denied::os(libc::EACCES)) }
    }

    /// As [`Files::check_mode`], for a directory. Everybody may see which profiles and memories there are; an
    /// entitled agent uses the top directory of either as its own.
    pub(super) fn check_dir(
        &self,
        caller: &Caller,
        standing: Standing,
        dir: &Plain,
        want: u32,
    ) -> Outcome<()> {
        if (self.is_root(dir) && want & WRITE == 0) || (dir.is_top() && standing.entitled) {
            return Ok(());
        }
        self.check_mode(caller, standing, &dir.handle.metadata()?, want)
    }

    /// EPERM where a sticky directory keeps a file for its owner.
    pub(super) fn check_sticky(
        &self,
        caller: &Caller,
        standing: Standing,
        dir: &Plain,
        file: &Metadata,
    ) -> Outcome<()> {
        let dir = dir.handle.metadata()?;
        let owns = caller.uid == file.uid() || caller.uid == dir.uid();
        const STICKY: u32 = 0o1000;
        if dir.mode() & STICKY == 0 || owns || standing.exempt {
            return Ok(());
        }
        Err(Denied::os(libc::EPERM))
    }

    /// EPERM unless the caller owns the file.
    pub(super) fn check_owner(&self, caller: &Caller, standing: Standing, file: &Metadata) -> Outcome<()> {
        if standing.exempt || caller.uid == file.uid() {
            return Ok(());
        }
        Err(Denied::os(libc::EPERM))
    }
}

/// Whether an area is the actor's own, or the advice of a refusal.
fn entitlement(actor: &Actor, area: &Area, change: bool) -> Result<bool, String> {
    match (actor, area) {
        (Actor::Operator, _) => Ok(true),
        (Actor::Agent(agent), Area::Profile(profile)) => match &profile.config.agents {
            Some(agents) if !agents.contains(agent) => Err(format!(
                "{agent} is not entitled to the credentials of {0}. The operator adds {agent} to agents under \
                 [credentials.{0}] in exchange.toml.",
                profile.name
            )),
            _ => Ok(true),
        },
        (Actor::Agent(agent), Area::Memory(memory)) if *agent == memory.agent => Ok(true),
        _ if !change => Ok(false),
        (Actor::Agent(agent), Area::Memory(memory)) => Err(format!(
            "This is the memory of {0}, so only {0} changes it. Write in memory/{agent}/, or ask {0} by a line in \
             inbox/{0}.jsonl.",
            memory.agent
        )),
        (Actor::Agent(agent), Area::Memories) => Err(format!(
            "This folder is no agent's memory, so only the operator changes it. Write in memory/{agent}/."
        )),
        (Actor::Agent(_), Area::Credentials) => {
            Err("This folder belongs to no profile, so only the operator changes it. The \
                 operator makes it a profile with a section [credentials.<name>] in exchange.toml."
                .to_owned())
        }
        (Actor::Stranger(uid), _) => Err(format!(
            "uid {uid} is no agent of this exchange, so it changes nothing here. The operator gives an agent \
             that uid in exchange.toml."
        )),
    }
}

/// The mode bits of the class that a caller is in, lowest three, for a file of this user and group.
pub(in crate::exchange) fn class_bits(caller: &Caller, mode: u32, (uid, gid): (u32, u32)) -> u32 {
    if caller.uid == uid {
        mode >> 6
    } else if in_group(caller, gid) {
        mode >> 3
    } else {
        mode
    }
}

/// Whether a caller is in a group.
pub(super) fn in_group(caller: &Caller, gid: u32) -> bool {
    caller.gid == gid || process::groups(caller.pid).contains(&gid)
}
