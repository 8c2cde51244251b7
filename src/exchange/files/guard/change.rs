//! What can happen to a slot or the live link, on which grounds, and why it did not.

use crate::rules::Refusal;
use crate::rules::credential::{SlotName, Verdict, Witness};
use crate::wire::credential::Credential;
use crate::wire::time::Timestamp;
use std::io;

/// Why a change was not made; not recorded yet.
#[derive(Debug)]
pub(in crate::exchange) enum Fault {
    Broke(Refusal),
    Io(io::Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Fault::Broke(refusal)
    }
}
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}
impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        Fault::Io(errno.into())
    }
}
impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Broke(refusal) => refusal.to_string(),
            Fault::Io(error) => error.to_string(),
        }
    }
}

/// Why new bytes may enter a slot.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) enum Grounds {
    /// The rule decides.
    Judged(Witness),
    /// The operator has decided.
    Adopted,
}

/// Bytes that are to become a slot's content.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) struct Submission<'a> {
    pub slot: &'a SlotName,
    pub bytes: &'a [u8],
    /// Whose the operator's `identity_command` says they are, if it was asked and has answered.
    pub account: Option<&'a str>,
    pub grounds: Grounds,
    /// The uid and gid of a new slot, where we may give files away; a slot that exists keeps its own.
    pub owner: Option<(u32, u32)>,
    /// It is the profile's first login: the live link is made as well.
    pub link_first: bool,
    pub now: Timestamp,
}

/// What is about to happen in a profile. Its event comes first, so that after a crash the events say
/// what to finish; where the event can't be written, nothing happens.
pub(in crate::exchange) enum Change<'a> {
    /// A login enters a slot from the file `staged`; `None`: the slot holds these bytes already.
    Enters {
        slot: &'a SlotName,
        /// `None`: adopted.
        verdict: Option<Verdict>,
        credential: &'a Credential,
        staged: Option<&'a str>,
        link_first: bool,
        /// Where the bytes that it replaces are kept.
        replaced: Option<&'a str>,
    },
    /// A slot goes; its bytes are in quarantine.
    Goes { slot: &'a SlotName, credential: Option<&'a Credential>, quarantine: &'a str },
    /// The live link comes to select a slot. `replaced`: where the file is kept that lay under its name.
    Selects { slot: &'a SlotName, credential: &'a Credential, replaced: Option<&'a str> },
    /// What was noted last of this slot did not happen: it holds this login, or is not there.
    Stays { slot: &'a SlotName, credential: Option<&'a Credential> },
    /// What was noted last of the live link did not happen.
    StillSelects { live: &'a Live, tried: &'a SlotName },
}

impl Change<'_> {
    /// Where replaced bytes are kept, relative to the exchange's folder.
    pub fn replaced(&self) -> Option<&str> {
        match self {
            Change::Enters { replaced, .. } | Change::Selects { replaced, .. } => *replaced,
            _ => None,
        }
    }
}

/// Writes a change's event.
pub(in crate::exchange) type Note<'a> = &'a dyn Fn(&Change<'_>) -> io::Result<()>;

/// A slot's new content, on disk.
#[derive(Debug)]
pub(in crate::exchange) struct Accepted {
    /// `None`: adopted.
    pub verdict: Option<Verdict>,
    pub credential: Credential,
    /// Whether any byte changed.
    pub changed: bool,
}

/// What the live file is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::exchange) enum Live {
    Absent,
    /// A link to a slot, which may be missing.
    To(SlotName),
    /// A regular file, or a link to elsewhere, put there behind the mount.
    Other,
}
