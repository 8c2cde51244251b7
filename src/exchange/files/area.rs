//! Where an ordinary file lies: in a profile, in an agent's memory, or beside them. Between areas nothing is renamed
//! or linked, because who may use a file is its area's to say.

use super::fd::{self, FileKey};
use super::guard::profile::Profile;
use crate::wire::name::AgentName;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// `credentials/` in the exchange's folder and in the tree.
pub(super) const CREDENTIALS: &str = "credentials";
/// `memory/` in the exchange's folder and in the tree.
pub(super) const MEMORY: &str = "memory";

/// Where a file lies.
#[derive(Clone)]
pub(super) enum Area {
    /// credentials/ itself, and folders there that are no profile's.
    Credentials,
    /// credentials/<profile>/
    Profile(Arc<Profile>),
    /// memory/ itself, and folders there that are no agent's.
    Memories,
    /// memory/<agent>/
    Memory(Arc<Memory>),
}

impl Area {
    /// The name of the root that it lies under.
    pub fn root(&self) -> &'static str {
        match self {
            Area::Credentials | Area::Profile(_) => CREDENTIALS,
            Area::Memories | Area::Memory(_) => MEMORY,
        }
    }
}

impl PartialEq for Area {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Area::Credentials, Area::Credentials) | (Area::Memories, Area::Memories) => true,
            (Area::Profile(one), Area::Profile(other)) => one.key == other.key,
            (Area::Memory(one), Area::Memory(other)) => one.key == other.key,
            _ => false,
        }
    }
}

/// An agent's own folder.
pub(super) struct Memory {
    pub agent: AgentName,
    pub dir: Arc<File>,
    pub key: FileKey,
}

impl Memory {
    /// Opens `memory/<agent>/`, making it if it is missing: the agent's, where the daemon may give it away and knows
    /// the agent's uid; readable by all.
    pub fn open(memory: &File, agent: &AgentName, owner: Option<u32>) -> io::Result<Self> {
        let made = match rustix::fs::mkdirat(memory, agent.as_str(), Mode::RWXU) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => return Err(e.into()),
        };
        let dir = directory(memory, agent.as_str())?;
        if made {
            if owner.is_some() {
                fd::chown(&dir, owner, None)?;
            }
            // Whatever the umask says.
            fd::chmod(&dir, 0o755)?;
        }
        let key = FileKey::of(&dir.metadata()?);
        Ok(Memory { agent: agent.clone(), dir: Arc::new(dir), key })
    }
}

/// Opens a directory that is no link to one.
pub(super) fn directory(parent: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?.into())
}
