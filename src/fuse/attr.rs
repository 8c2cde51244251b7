//! How attributes look to the kernel, and for how long it may believe them.

use super::inodes::Inodes;
use super::tree::Node;
use crate::exchange::{Attr, Exchange, NodeKind};
use fuser::{FileAttr, FileType, INodeNo};
use std::time::Duration;

/// st_blksize where a whole message must arrive in one write(): programs size their buffers by it.
const MESSAGE_BLOCK: u32 = 65_536;
const FILE_BLOCK: u32 = 4_096;

/// What the kernel may keep of ordinary files, which change through other mounts too.
const ORDINARY: Duration = Duration::from_secs(1);

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

/// How long a node's attributes stay true. What the exchange changes on its own, never: a log grows by more than was
/// written, a handoff moves, a view differs by caller, a slot takes the bytes of a file renamed over its link.
pub(super) fn attr_ttl(exchange: &Exchange, inodes: &Inodes, node: &Node) -> Duration {
    match node {
        Node::File { id, .. } if !inodes.is_volatile(*id) && !exchange.files().names_are_volatile(*id) => {
            ORDINARY
        }
        _ => Duration::ZERO,
    }
}

/// How long names in a directory stay true.
pub(super) fn entry_ttl(exchange: &Exchange, parent: &Node) -> Duration {
    match parent {
        Node::File { id, .. } if !exchange.files().names_are_volatile(*id) => ORDINARY,
        _ => Duration::ZERO,
    }
}
