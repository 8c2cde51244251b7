//! Which names the mounted tree has, and what each one stands for.

use crate::exchange::files::{DirEntry, FileId};
use crate::exchange::handoffs::{HandoffNode, State};
use crate::exchange::logs::LogName;
use crate::exchange::send::{LetterNode, SEND};
use crate::exchange::views::View;
use crate::exchange::{Attr, Caller, Denied, Exchange, NodeKind, Outcome};
use crate::wire::name::AgentName;
use std::ffi::{OsStr, OsString};

/// The folder under which the whole tree answers once more, for programs that expect it.
pub const ALIAS: &str = "_coordination";

/// The directories of ordinary files, which are always there.
fn ordinary(exchange: &Exchange) -> [(&'static str, FileId); 2] {
    [("credentials", exchange.files().credentials()), ("memory", exchange.files().memory())]
}

/// A directory that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The top of the tree.
    Top,
    /// `inbox/`
    Inbox,
    /// `outbox/`
    Outbox,
    /// `send/`
    Send,
    /// `handoff/`, `claimed/`, `archive/`, `rejected/`
    State(State),
}

impl Dir {
    /// All of them.
    pub const ALL: [Dir; 8] = [
        Dir::Top,
        Dir::Inbox,
        Dir::Outbox,
        Dir::Send,
        Dir::State(State::Pending),
        Dir::State(State::Claimed),
        Dir::State(State::Archived),
        Dir::State(State::Rejected),
    ];

    /// Its path in the tree; the top's is empty.
    pub fn path(self) -> &'static str {
        match self {
            Dir::Top => "",
            Dir::Inbox => "inbox",
            Dir::Outbox => "outbox",
            Dir::Send => SEND,
            Dir::State(state) => state.dir(),
        }
    }
}

/// One thing in the tree.
///
/// `aliased` marks the directories seen through `_coordination/`: the kernel allows a directory one name only, so
/// there each is a directory of its own with the same content. Files are the same file in both places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A directory that is always there; the aliased top is `_coordination` itself.
    Dir {
        /// Which.
        dir: Dir,
        /// Seen through `_coordination/`.
        aliased: bool,
    },
    /// A log.
    Log(LogName),
    /// A file in one of the four handoff directories, seen there. It is another inode in each: the kernel takes a rename
    /// between two names of one inode for done, and the loser of a claim won through another mount would be told that
    /// it had won.
    Handoff {
        /// Which.
        node: HandoffNode,
        /// Where it was seen.
        state: State,
    },
    /// An agent's folder in `send/`.
    Mailbox {
        /// Whom its letters are for.
        to: AgentName,
        /// Seen through `_coordination/`.
        aliased: bool,
    },
    /// A file in such a folder.
    Letter(LetterNode),
    /// A read-only file or directory that the exchange makes.
    View {
        /// Which.
        view: View,
        /// A directory seen through `_coordination/`.
        aliased: bool,
    },
    /// Something under `credentials/` or `memory/`, which are such themselves.
    File {
        /// Which.
        id: FileId,
        /// A directory seen through `_coordination/`.
        aliased: bool,
    },
}

/// The top of the tree.
pub const TOP: Node = Node::Dir { dir: Dir::Top, aliased: false };

/// One name in a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The name.
    pub name: OsString,
    /// File, directory or symlink.
    pub kind: NodeKind,
    /// What it stands for.
    pub node: Node,
}

/// The node and attributes behind one name, as `caller` sees them. A [`Node::File`] other than `credentials/` and
/// `memory/` counts one reference.
///
/// # Errors
/// ENOENT; ENOTDIR where `parent` is no directory; the ordinary directory's own.
pub fn lookup(exchange: &Exchange, caller: &Caller, parent: &Node, name: &OsStr) -> Outcome<(Node, Attr)> {
    match parent {
        Node::File { id, aliased } => {
            let entry = exchange.files().lookup(caller, *id, name)?;
            let aliased = *aliased && entry.attr.kind == NodeKind::Directory;
            Ok((Node::File { id: entry.id, aliased }, entry.attr))
        }
        Node::Dir { dir, aliased } => {
            let node = find(exchange, caller, *dir, *aliased, name).ok_or_else(missing)?;
            let attr = attr(exchange, caller, &node)?;
            Ok((node, attr))
        }
        Node::View { view, aliased } if view.kind() == NodeKind::Directory => {
            let found = name.to_str().and_then(|name| exchange.find_view(caller, view.path(), name));
            let node = view_node(found.ok_or_else(missing)?, *aliased);
            let attr = attr(exchange, caller, &node)?;
            Ok((node, attr))
        }
        Node::Mailbox { to, .. } => {
            let found = name.to_str().and_then(|name| exchange.find_letter(caller, to, name));
            let node = Node::Letter(found.ok_or_else(missing)?);
            let attr = attr(exchange, caller, &node)?;
            Ok((node, attr))
        }
        Node::Log(_) | Node::Handoff { .. } | Node::Letter(_) | Node::View { .. } => {
            Err(Denied::os(libc::ENOTDIR))
        }
    }
}

fn view_node(view: View, aliased: bool) -> Node {
    let aliased = aliased && view.kind() == NodeKind::Directory;
    Node::View { view, aliased }
}

fn missing() -> Denied {
    Denied::os(libc::ENOENT)
}

fn find(exchange: &Exchange, caller: &Caller, dir: Dir, aliased: bool, name: &OsStr) -> Option<Node> {
    let name = name.to_str()?;
    let node = match dir {
        Dir::Top => {
            if name == ALIAS {
                return (!aliased).then_some(Node::Dir { dir: Dir::Top, aliased: true });
            }
            if let Some((_, id)) = ordinary(exchange).into_iter().find(|(root, _)| *root == name) {
                return Some(Node::File { id, aliased });
            }
            if let Some(dir) = Dir::ALL.into_iter().find(|d| *d != Dir::Top && d.path() == name) {
                return Some(Node::Dir { dir, aliased });
            }
            exchange.find_log(name).map(Node::Log)
        }
        Dir::Inbox | Dir::Outbox => exchange.find_log(&format!("{}/{name}", dir.path())).map(Node::Log),
        Dir::Send => exchange.find_mailbox(name).map(|to| Node::Mailbox { to, aliased }),
        Dir::State(state) => {
            exchange.find_handoff(caller, state, name).map(|node| Node::Handoff { node, state })
        }
    };
    node.or_else(|| exchange.find_view(caller, dir.path(), name).map(|view| view_node(view, aliased)))
}

/// What stat() shows `caller`.
///
/// # Errors
/// ENOENT for what is not there (any more).
pub fn attr(exchange: &Exchange, caller: &Caller, node: &Node) -> Outcome<Attr> {
    match node {
        Node::Dir { dir: Dir::State(state), .. } => Ok(exchange.handoff_dir_attr(*state)),
        Node::Dir { dir, .. } => Ok(exchange.dir_attr(dir.path())),
        Node::Log(log) => exchange.log_attr(log).ok_or_else(missing),
        Node::Handoff { node, .. } => exchange.handoff_attr(*node).ok_or_else(missing),
        Node::Mailbox { to, .. } => Ok(exchange.mailbox_attr(to)),
        Node::Letter(letter) => exchange.letter_attr(*letter).ok_or_else(missing),
        Node::View { view, .. } => exchange.view_attr(caller, view),
        Node::File { id, .. } => exchange.files().attr(*id),
    }
}

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// ENOTDIR; the ordinary directory's own.
pub fn list(exchange: &Exchange, caller: &Caller, node: &Node) -> Outcome<Vec<Listed>> {
    let file = |name: &str, node| Listed { name: name.into(), kind: NodeKind::File, node };
    let directory = |name: &str, node| Listed { name: name.into(), kind: NodeKind::Directory, node };
    let views = |dir: &str, aliased: bool| {
        let views = exchange.list_views(caller, dir).into_iter();
        views.map(move |view| Listed {
            name: view.name().into(),
            kind: view.kind(),
            node: view_node(view, aliased),
        })
    };
    match node {
        Node::Dir { dir: Dir::Top, aliased } => {
            let aliased = *aliased;
            let mut names: Vec<Listed> = Dir::ALL
                .into_iter()
                .filter(|dir| *dir != Dir::Top)
                .map(|dir| directory(dir.path(), Node::Dir { dir, aliased }))
                .collect();
            names.extend(ordinary(exchange).map(|(name, id)| directory(name, Node::File { id, aliased })));
            if !aliased {
                names.push(directory(ALIAS, Node::Dir { dir: Dir::Top, aliased: true }));
            }
            names.extend(views("", aliased));
            for log in exchange.list_logs() {
                let path = log.path();
                if !path.contains('/') {
                    names.push(file(&path, Node::Log(log)));
                }
            }
            Ok(names)
        }
        Node::Dir { dir: dir @ (Dir::Inbox | Dir::Outbox), aliased } => Ok(exchange
            .list_logs()
            .into_iter()
            .filter_map(|log| {
                let path = log.path();
                let (folder, name) = path.split_once('/')?;
                (folder == dir.path()).then(|| file(name, Node::Log(log)))
            })
            .chain(views(dir.path(), *aliased))
            .collect()),
        Node::Dir { dir: dir @ Dir::State(state), aliased } => Ok(exchange
            .list_handoffs(caller, *state)
            .into_iter()
            .map(|(name, node)| file(&name, Node::Handoff { node, state: *state }))
            .chain(views(dir.path(), *aliased))
            .collect()),
        Node::Dir { dir: Dir::Send, aliased } => Ok(exchange
            .list_mailboxes()
            .into_iter()
            .map(|to| directory(to.as_str(), Node::Mailbox { to: to.clone(), aliased: *aliased }))
            .collect()),
        Node::Mailbox { to, .. } => Ok(exchange
            .list_letters(caller, to)
            .into_iter()
            .map(|(name, letter)| file(&name, Node::Letter(letter)))
            .collect()),
        Node::View { view, aliased } if view.kind() == NodeKind::Directory => {
            Ok(views(view.path(), *aliased).collect())
        }
        Node::File { id, aliased } => {
            let listed = |entry: DirEntry| {
                let aliased = *aliased && entry.kind == NodeKind::Directory;
                Listed { name: entry.name, kind: entry.kind, node: Node::File { id: entry.id, aliased } }
            };
            Ok(exchange.files().list(caller, *id)?.into_iter().map(listed).collect())
        }
        Node::Log(_) | Node::Handoff { .. } | Node::Letter(_) | Node::View { .. } => {
            Err(Denied::os(libc::ENOTDIR))
        }
    }
}

/// A node's path in the tree without `_coordination/`, for refusals. A handoff's is its directory's business: `None`.
pub fn path(exchange: &Exchange, node: &Node) -> Option<String> {
    match node {
        Node::Dir { dir, .. } => Some(dir.path().to_owned()),
        Node::Log(log) => Some(log.path()),
        Node::Handoff { .. } => None,
        Node::Mailbox { to, .. } => Some(format!("{SEND}/{to}")),
        Node::Letter(letter) => Some(exchange.letter_path(*letter)),
        Node::View { view, .. } => Some(view.path().to_owned()),
        Node::File { id, .. } => Some(exchange.files().path(*id).to_string_lossy().into_owned()),
    }
}

/// The path of a name in a directory, as in [`path`].
pub fn child_path(exchange: &Exchange, parent: &Node, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    match path(exchange, parent) {
        Some(parent) if !parent.is_empty() => format!("{parent}/{name}"),
        _ => name.into_owned(),
    }
}
