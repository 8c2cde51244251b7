//! How attributes look to the kernel, and for how long it may believe them.

use super::adapter::Mounted;
use super::crowd::Name;
use super::tree::Node;
use crate::exchange::files::kept::MOMENT;
use crate::exchange::{Attr, NodeKind};
use fuser::{FileAttr, FileType, INodeNo};
use std::ffi::OsStr;
use std::time::Duration;

/// st_blksize where a whole message must arrive in one write(): programs size their buffers by it.
const MESSAGE_BLOCK: u32 = 65_536;
const FILE_BLOCK: u32 = 4_096;

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
        NodeKind::CharDevice(_) => FileType::CharDevice,
    }
}

pub(super) fn file_attr(node: &Node, number: u64, attr: &Attr) -> FileAttr {
    let blksize = match node {
        Node::Log(_) | Node::View { .. } | Node::Handoff { .. } | Node::Letter(_) => MESSAGE_BLOCK,
        Node::Dir { .. } | Node::Mailbox { .. } | Node::File { .. } => FILE_BLOCK,
    };
    FileAttr {
        ino: INodeNo(number),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        // Masked to 12 bits, which fit.
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: match attr.kind {
            NodeKind::BlockDevice(number) | NodeKind::CharDevice(number) => number,
            _ => 0,
        },
        blksize,
        flags: 0,
    }
}

impl Mounted {
    /// How long a node's attributes stay true. What the exchange changes on its own, never: a log grows by more than
    /// was written, a handoff moves, a view differs by caller, a slot takes the bytes of a file renamed over its link.
    /// Nor is the kernel told which writes take the right to run as a file's owner or group away.
    pub(super) fn attr_ttl(&self, node: &Node, attr: &Attr) -> Duration {
        const SET_IDS: u32 = 0o6000;
        match node {
            Node::File { .. } if attr.kind == NodeKind::File && attr.mode & SET_IDS != 0 => Duration::ZERO,
            Node::File { id, .. } if !self.inodes.is_volatile(*id) => self.exchange.files().moment(),
            _ => Duration::ZERO,
        }
    }

    /// Counts a reference to a node that was found or made as `name` in `parent`. Returns how long the kernel may keep
    /// the name, and so let its users pass without asking.
    pub(super) fn count(&self, parent: &Node, name: &OsStr, node: &Node, attr: &Attr) -> Duration {
        let Node::File { id, .. } = node else { return Duration::ZERO };
        let Node::File { id: dir, .. } = parent else { return MOMENT }; // credentials/ and memory/, always there
        let files = self.exchange.files();
        let volatile = files.is_volatile(*dir, attr.kind);
        let counted = self.inodes.count(*id, *dir, volatile);
        // A folder stays: forgetting it would unmount what is mounted in it, and lose the path of who is in it.
        if let Some(arrival) = counted.arrival
            && attr.kind != NodeKind::Directory
        {
            let (number, parent) = (self.inodes.number(node), self.inodes.number(parent));
            self.crowd.add((*id, arrival), Name { number, parent, name: name.to_owned() }, &self.inodes);
        }
        // Asked after the name was noted as kept: see Inodes::close.
        if volatile || counted.closing || (self.shared && !files.is_open_to_all(*dir)) {
            return Duration::ZERO;
        }
        files.moment()
    }
}
