//! The callbacks that open, read, write, flush and close.

use super::adapter::Mounted;
use super::handles::Handle;
use super::names::Entry;
use super::tree::{self, Dir, Node};
use crate::exchange::files::OpenFile;
use crate::exchange::logs::LogName;
use crate::exchange::send::LetterNode;
use crate::exchange::views::ViewReader;
use crate::exchange::{Caller, Denied, NodeKind, Outcome, Reading, read_at};
use fuser::FopenFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// A handle to give the kernel, and how its I/O travels.
pub(super) struct Opened {
    pub(super) handle: Handle,
    /// The file to which the kernel may pass reads through.
    pub(super) backing: Option<Arc<File>>,
    /// How I/O travels without passthrough.
    pub(super) plain: FopenFlags,
    /// What is added to passthrough: DIRECT_IO brings reads and writes to us all the same.
    pub(super) passed_through: FopenFlags,
}

impl Opened {
    /// Every read and write comes to us.
    fn direct(handle: Handle, backing: Option<Arc<File>>) -> Self {
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        Opened { handle, backing, plain: direct, passed_through: direct }
    }

    /// A log's reader. Without passthrough it reads from us directly: a cached page that was filled while somebody
    /// appended would show zeros where the line is.
    fn log_reader(file: Arc<File>, reading: Option<Reading>) -> Self {
        let passed_through = FopenFlags::empty();
        let handle = Handle::Reader { file: file.clone(), _reading: reading };
        Opened { passed_through, ..Opened::direct(handle, Some(file)) }
    }

    /// A reader of bytes that never change: what the kernel has cached stays true.
    fn unchanging(file: Arc<File>) -> Self {
        Opened {
            handle: Handle::Reader { file, _reading: None },
            backing: None,
            plain: FopenFlags::FOPEN_KEEP_CACHE,
            passed_through: FopenFlags::empty(),
        }
    }

    fn file(open: OpenFile, flags: i32) -> Self {
        match open.backing() {
            None => Opened::direct(Handle::File(open), None),
            Some(file) => {
                let cached = FopenFlags::empty();
                // The page cache would send one append in several pieces, between which another mount's may come.
                let appends = flags & libc::O_APPEND != 0;
                let plain = if appends { FopenFlags::FOPEN_DIRECT_IO } else { cached };
                let handle = Handle::File(open);
                Opened { handle, backing: Some(file), plain, passed_through: cached }
            }
        }
    }
}

fn bad_handle() -> Denied {
    Denied::os(libc::EBADF)
}

fn reads_only(flags: i32) -> bool {
    flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_TRUNC == 0
}

fn slice(text: &[u8], offset: u64, size: usize) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    text[start..text.len().min(start.saturating_add(size))].to_vec()
}

impl Mounted {
    pub(super) fn open_node(&self, caller: &Caller, number: u64, flags: i32) -> Outcome<Opened> {
        match self.node(number)? {
            Node::Dir { .. } | Node::Mailbox { .. } => Err(Denied::os(libc::EISDIR)),
            Node::Letter(letter) => self.open_letter(caller, letter, flags),
            Node::Log(log) => self.open_log(caller, &log, flags),
            Node::View { view, .. } => {
                let reader = self.exchange.open_view(caller, &view, flags)?;
                Ok(Opened::direct(Handle::View { reader, inode: number, opener: caller.pid }, None))
            }
            Node::File { id, .. } => Ok(Opened::file(self.exchange.files().open(caller, id, flags)?, flags)),
            Node::Handoff { node, .. } if reads_only(flags) => match self.exchange.open_handoff(caller, node)
            {
                Ok(file) => Ok(Opened::unchanging(file)),
                // Not published (yet): the draft's own writer may read what it wrote.
                Err(Denied::Io(e)) if e.raw_os_error() == Some(libc::ENOENT) => {
                    let draft = self.exchange.open_draft(caller, node, flags)?;
                    Ok(Opened::direct(Handle::Draft(draft), None))
                }
                Err(denied) => Err(denied),
            },
            Node::Handoff { node, .. } => {
                let draft = self.exchange.open_draft(caller, node, flags)?;
                Ok(Opened::direct(Handle::Draft(draft), None))
            }
        }
    }

    fn open_letter(&self, caller: &Caller, letter: LetterNode, flags: i32) -> Outcome<Opened> {
        if reads_only(flags) && !self.exchange.is_draft_letter(letter) {
            return Ok(Opened::unchanging(self.exchange.open_letter(caller, letter)?));
        }
        let draft = self.exchange.open_letter_draft(caller, letter, flags)?;
        Ok(Opened::direct(Handle::Letter(draft), None))
    }

    fn open_log(&self, caller: &Caller, log: &LogName, flags: i32) -> Outcome<Opened> {
        if reads_only(flags) {
            let (file, reading) = self.exchange.open_log_reader(caller, log)?;
            return Ok(Opened::log_reader(file, reading));
        }
        let writer = self.exchange.open_log_writer(caller, log, flags)?;
        let backing = writer.backing();
        Ok(Opened::direct(Handle::LogWriter(writer), Some(backing)))
    }

    /// open(2) with O_CREAT of a name that the kernel did not find.
    pub(super) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Outcome<(Entry, Opened)> {
        let parent = self.node(parent)?;
        let (node, opened) = match &parent {
            Node::File { id, .. } => {
                let (entry, open) = self.exchange.files().create(caller, *id, name, mode, flags)?;
                let node = Node::File { id: entry.id, aliased: false };
                let kept = self.count(&parent, name, &node, &entry.attr);
                return Ok((Entry { node, attr: entry.attr, kept }, Opened::file(open, flags)));
            }
            Node::Dir { dir: Dir::State(state), .. } => {
                let Some(name) = name.to_str() else {
                    return Err(self.refuse_creation(caller, &parent, name));
                };
                let (node, draft) = self.exchange.create_draft(caller, *state, name)?;
                (Node::Handoff { node, state: *state }, Opened::direct(Handle::Draft(draft), None))
            }
            Node::Mailbox { to, .. } => {
                let Some(name) = name.to_str() else {
                    return Err(self.refuse_creation(caller, &parent, name));
                };
                let (node, draft) = self.exchange.create_letter(caller, to, name)?;
                (Node::Letter(node), Opened::direct(Handle::Letter(draft), None))
            }
            Node::Dir { dir: Dir::Send, .. } => return Err(self.refuse_creation(caller, &parent, name)),
            Node::Dir { dir: Dir::Top | Dir::Inbox | Dir::Outbox, .. } => {
                let path = tree::child_path(&self.exchange, &parent, name);
                let Some(log) = self.exchange.find_log(&path) else {
                    return Err(self.refuse_creation(caller, &parent, name));
                };
                (Node::Log(log.clone()), self.create_log(caller, &log, flags)?)
            }
            Node::View { view, .. } if view.kind() == NodeKind::Directory => {
                return Err(self.refuse_creation(caller, &parent, name));
            }
            Node::Log(_) | Node::Handoff { .. } | Node::Letter(_) | Node::View { .. } => {
                return Err(Denied::os(libc::ENOTDIR));
            }
        };
        match tree::attr(&self.exchange, caller, &node) {
            Ok(attr) => Ok((Entry { node, attr, kept: Duration::ZERO }, opened)),
            Err(denied) => {
                self.close(&opened.handle);
                Err(denied)
            }
        }
    }

    fn create_log(&self, caller: &Caller, log: &LogName, flags: i32) -> Outcome<Opened> {
        if reads_only(flags) && self.exchange.log_attr(log).is_none() {
            // Only a writer makes a log, and may be refused.
            let writing = flags & !libc::O_ACCMODE | libc::O_WRONLY;
            self.exchange.open_log_writer(caller, log, writing)?.release();
        }
        self.open_log(caller, log, flags)
    }

    fn refuse_creation(&self, caller: &Caller, parent: &Node, name: &OsStr) -> Denied {
        let path = tree::child_path(&self.exchange, parent, name);
        self.exchange.refuse_read_only(caller, &path, "create")
    }

    pub(super) fn read(&self, handle: u64, offset: u64, size: usize) -> Outcome<Vec<u8>> {
        let handle = self.handles.get(handle).ok_or_else(bad_handle)?;
        match &*handle {
            Handle::Reader { file, .. } => Ok(read_at(file, offset, size)?),
            Handle::View { reader: ViewReader::Text(text), .. } => Ok(slice(text, offset, size)),
            Handle::View { reader: ViewReader::Growing(file), .. } => Ok(read_at(file, offset, size)?),
            Handle::Draft(draft) => Ok(draft.read(offset, size)),
            Handle::Letter(letter) => Ok(letter.read(offset, size)),
            Handle::File(open) => self.exchange.files().read(open, offset, size),
            Handle::LogWriter(_) => Err(bad_handle()),
            Handle::Directory(_) => Err(Denied::os(libc::EISDIR)),
        }
    }

    /// `flags`: the descriptor's as they are now; fcntl can have changed them since the open.
    pub(super) fn write(
        &self,
        caller: &Caller,
        handle: u64,
        offset: u64,
        flags: i32,
        data: &[u8],
    ) -> Outcome<usize> {
        let append = flags & libc::O_APPEND != 0;
        let handle = self.handles.get(handle).ok_or_else(bad_handle)?;
        match &*handle {
            Handle::LogWriter(writer) => writer.write(caller, offset, append, data),
            Handle::Draft(draft) => draft.write(caller, offset, append, data),
            Handle::Letter(letter) => letter.write(caller, offset, append, data),
            Handle::File(open) => self.exchange.files().write(caller, open, offset, append, data),
            Handle::Reader { .. } | Handle::View { .. } | Handle::Directory(_) => Err(bad_handle()),
        }
    }

    pub(super) fn flush(&self, caller: &Caller, handle: u64) -> Outcome<()> {
        let handle = self.handles.get(handle).ok_or_else(bad_handle)?;
        match &*handle {
            Handle::LogWriter(writer) => writer.flush(caller),
            Handle::Draft(draft) => draft.flush(caller),
            Handle::Letter(letter) => letter.flush(caller),
            Handle::File(open) => self.exchange.files().flush(caller, open),
            Handle::Reader { .. } | Handle::View { .. } | Handle::Directory(_) => Ok(()),
        }
    }

    pub(super) fn fsync(&self, caller: &Caller, handle: u64, data_only: bool) -> Outcome<()> {
        let handle = self.handles.get(handle).ok_or_else(bad_handle)?;
        match &*handle {
            Handle::LogWriter(writer) => writer.fsync(),
            Handle::Reader { file, .. } | Handle::View { reader: ViewReader::Growing(file), .. } => {
                Ok(file.sync_data()?)
            }
            Handle::File(open) => self.exchange.files().fsync(caller, open, data_only),
            // A draft is nothing yet that could be lost; publishing or sending it is what must last.
            Handle::Draft(_)
            | Handle::Letter(_)
            | Handle::View { reader: ViewReader::Text(_), .. }
            | Handle::Directory(_) => Ok(()),
        }
    }

    pub(super) fn release(&self, number: u64, handle: u64) {
        if let Some(handle) = self.handles.remove(handle) {
            self.close(&handle);
        }
        self.backings.detach(number);
    }

    /// Lets the exchange know of a last close.
    pub(super) fn close(&self, handle: &Handle) {
        match handle {
            Handle::LogWriter(writer) => writer.release(),
            Handle::Draft(draft) => draft.release(),
            Handle::Letter(letter) => letter.release(),
            Handle::File(open) => self.exchange.files().release(open),
            Handle::Reader { .. } | Handle::View { .. } | Handle::Directory(_) => {}
        }
    }

    /// Closes what the kernel did not before the mount ended.
    pub(super) fn abandon(&self, handle: &Handle) {
        match handle {
            Handle::Letter(letter) => letter.abandon(),
            handle => self.close(handle),
        }
    }

    /// fallocate(2), setxattr(2) and removexattr(2): refused where they would change what is guarded.
    pub(super) fn unsupported(&self, caller: &Caller, number: u64, operation: &'static str) -> Outcome<()> {
        match self.node(number)? {
            // Editors and copying tools ask for it in passing, also of what they have just sent.
            Node::File { .. } | Node::Letter(_) => Err(Denied::os(libc::EOPNOTSUPP)),
            node => Err(self.refuse(caller, &node, operation)),
        }
    }
}
