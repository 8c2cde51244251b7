//! Ordinary files, and who may do what with them.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// Only root can act for several users.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn nested_directories_hold_files_that_move_between_them() {
    let p = place();
    let a = p.files.mkdir(&alice(), p.top, name("a"), 0o750).unwrap();
    assert_eq!((a.attr.kind, a.attr.mode), (NodeKind::Directory, 0o750));
    let b = p.files.mkdir(&alice(), a.id, name("b"), 0o700).unwrap();
    let (file, open) = p
        .files
        .create(&alice(), b.id, name("f"), 0o640, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
        .unwrap();
    assert_eq!(file.attr.mode, 0o640);
    assert_errno(
        p.files.create(&alice(), b.id, name("f"), 0o640, libc::O_CREAT | libc::O_EXCL),
        libc::EEXIST,
    );
    p.files.write(&alice(), &open, 0, false, b"hello").unwrap();
    assert_eq!(p.files.path(file.id), PathBuf::from("credentials/claude/a/b/f"));
    p.files.rename(&alice(), b.id, name("f"), p.top, name("g"), 0).unwrap();
    assert_eq!(p.files.path(file.id), PathBuf::from("credentials/claude/g"));
    assert_eq!(p.find("g").unwrap().id, file.id, "a file stays the same through a rename");
    p.files.write(&alice(), &open, 0, true, b" world").unwrap();
    assert_eq!(p.bytes("g"), b"hello world");
    assert_errno(p.files.rmdir(&alice(), p.top, name("a")), libc::ENOTEMPTY);
    p.files.rmdir(&alice(), a.id, name("b")).unwrap();
    p.files.rmdir(&alice(), p.top, name("a")).unwrap();
    assert_errno(p.find("a"), libc::ENOENT);
}

#[test]
fn rename_knows_noreplace_and_exchange() {
    let p = place();
    p.write(&alice(), "x", b"x").unwrap();
    p.write(&alice(), "y", b"y").unwrap();
    let rename = |flags: rustix::fs::RenameFlags| {
        p.files.rename(&alice(), p.top, name("x"), p.top, name("y"), flags.bits())
    };
    assert_errno(rename(rustix::fs::RenameFlags::NOREPLACE), libc::EEXIST);
    rename(rustix::fs::RenameFlags::EXCHANGE).unwrap();
    assert_eq!((p.bytes("x"), p.bytes("y")), (b"y".to_vec(), b"x".to_vec()));
}

#[test]
fn an_unlinked_file_lives_as_long_as_it_is_open() {
    let p = place();
    p.write(&alice(), "f", b"still here").unwrap();
    let open = p.open(&alice(), "f", libc::O_RDWR).unwrap();
    let id = p.find("f").unwrap().id;
    p.files.unlink(&alice(), p.top, name("f")).unwrap();
    assert_eq!(p.files.attr(id).unwrap().nlink, 0);
    assert_eq!(p.files.read(&open, 0, 100).unwrap(), b"still here");
    p.files.set_attr(&alice(), id, Some(&open), size(5)).unwrap();
    assert_eq!(p.files.attr(id).unwrap().size, 5);
    p.write(&alice(), "f", b"another").unwrap();
    assert_ne!(p.find("f").unwrap().id, id);
}

#[test]
fn hard_links_are_one_file_and_symlinks_hold_any_target() {
    let p = place();
    p.write(&alice(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    let linked = p.files.link(&alice(), f, p.top, name("g")).unwrap();
    assert_eq!((linked.id, linked.attr.nlink), (f, 2));
    let link = p.files.symlink(&alice(), p.top, name("s"), name("/any/where")).unwrap();
    assert_eq!(p.files.readlink(link.id).unwrap(), "/any/where");
    assert_errno(p.files.open(&alice(), link.id, libc::O_RDONLY), libc::ELOOP);
    let mtime = UNIX_EPOCH + Duration::from_secs(99);
    let times = SetAttr { mtime: Some(mtime), ..SetAttr::default() };
    assert_eq!(p.files.set_attr(&alice(), link.id, None, times).unwrap().mtime, mtime);
    let listed: Vec<_> = p.files.list(&alice(), p.top).unwrap();
    assert_eq!(listed.iter().filter(|entry| entry.kind == NodeKind::Symlink).count(), 1);
    assert_eq!(p.names(), ["f", "g", "s"]);
}

#[test]
fn times_modes_and_lengths_are_as_set() {
    let p = place();
    p.write(&alice(), "f", b"0123456789").unwrap();
    let id = p.find("f").unwrap().id;
    let (atime, mtime) = (UNIX_EPOCH - Duration::from_millis(1500), UNIX_EPOCH + Duration::new(5, 7));
    let change = SetAttr {
        mode: Some(0o4711),
        size: Some(1 << 30),
        atime: Some(atime),
        mtime: Some(mtime),
        ..SetAttr::default()
    };
    let attr = p.files.set_attr(&alice(), id, None, change).unwrap();
    assert_eq!(
        (attr.mode, attr.size, attr.atime, attr.mtime),
        (0o4711 & attr.mode | 0o711, 1 << 30, atime, mtime)
    );
    assert!(attr.blocks < 100, "sparse");
    let open = p.open(&alice(), "f", libc::O_RDWR).unwrap();
    p.files.write(&alice(), &open, (1 << 30) - 1, false, b"z").unwrap();
    assert_eq!(p.files.read(&open, (1 << 30) - 2, 10).unwrap(), b"\0z");
    p.files.fsync(&alice(), &open, false).unwrap();
    p.files.fsync(&alice(), &open, true).unwrap();
    let emptied = p.open(&alice(), "f", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(p.files.attr(id).unwrap().size, 0);
    p.files.release(&emptied);
}

#[test]
fn forgotten_files_leave_the_table() {
    let p = place();
    p.write(&alice(), "f", b"x").unwrap();
    let known = p.files.nodes.len();
    let one = p.find("f").unwrap().id;
    let two = p.find("f").unwrap().id;
    assert_eq!((one, p.files.nodes.len()), (two, known));
    p.files.forget(one, 3); // the create's, and these two
    assert_eq!(p.files.nodes.len(), known - 1);
    assert_errno(p.files.attr(one), libc::ESTALE);
    p.files.forget(p.files.credentials(), 1_000);
    assert!(p.files.attr(p.files.credentials()).is_ok());
}

#[test]
fn read_only_only_profiles_stand_directly_under_credentials() {
    let p = place();
    let root = p.files.credentials();
    let advice = |result: Outcome<FileEntry>| result.unwrap_err().to_string();
    assert!(advice(p.files.mkdir(&operator(), root, name("new"), 0o700)).contains("[credentials.<name>]"));
    assert_eq!(p.refused()[0], ("mkdir", "credentials/new".to_owned(), Rule::ReadOnly, Vec::new()));
    let read_only =
        |result, operation| p.assert_refused(result, Rule::ReadOnly, operation, "credentials/claude");
    read_only(p.files.rmdir(&operator(), root, name("claude")), "rmdir");
    read_only(p.files.rename(&operator(), root, name("claude"), p.top, name("x"), 0), "rename");
    let made = p.files.create(&operator(), root, name("f"), 0o600, libc::O_CREAT).map(|_| ());
    p.assert_refused(made, Rule::ReadOnly, "create", "credentials/f");
    let mode = std::fs::metadata(p.on_disk("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn profiles_are_as_separate_as_disks() {
    let p = place();
    let other = p.files.lookup(&operator(), p.files.credentials(), name("other")).unwrap().id;
    p.write(&operator(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    assert_errno(p.files.rename(&operator(), p.top, name("f"), other, name("f"), 0), libc::EXDEV);
    assert_errno(p.files.link(&operator(), f, other, name("f")), libc::EXDEV);
}

#[test]
fn authority_an_agent_without_entitlement_does_nothing() {
    let p = place().with_two_slots();
    let eve = caller(EVE);
    p.assert_refused(p.files.lookup(&eve, p.top, name(LINK)), Rule::Authority, "lookup", &path(LINK));
    p.assert_refused(p.files.list(&eve, p.top), Rule::Authority, "readdir", "credentials/claude");
    p.assert_refused(p.open(&eve, LINK, libc::O_RDONLY), Rule::Authority, "open", &path(WORK));
    let made = p.files.mkdir(&eve, p.top, name("x"), 0o700);
    p.assert_refused(made, Rule::Authority, "mkdir", &path("x"));
    let denied = p.files.list(&eve, p.top).unwrap_err();
    assert!(denied.to_string().contains("[credentials.claude]"), "{denied}");
    let bound = Caller { bound: Some(agent("eve")), ..operator() };
    p.refused();
    p.assert_refused(p.open(&bound, LINK, libc::O_WRONLY), Rule::Authority, "open", &path(WORK));
    // The other profile is for all agents, but its own files are their owners'.
    let other = p.files.lookup(&eve, p.files.credentials(), name("other")).unwrap().id;
    p.files.list(&eve, other).unwrap();
}

#[test]
fn authority_a_stranger_reads_what_modes_allow_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let p = place().with_two_slots();
    let stranger = caller(STRANGER);
    assert_errno(p.files.lookup(&stranger, p.top, name("f")), libc::EACCES);
    assert_errno(p.open(&stranger, LINK, libc::O_RDONLY), libc::EACCES);
    assert!(p.refused().is_empty());
    std::fs::set_permissions(p.on_disk(""), PermissionsExt::from_mode(0o755)).unwrap();
    p.write(&operator(), "f", b"public").unwrap();
    std::fs::set_permissions(p.on_disk("f"), PermissionsExt::from_mode(0o646)).unwrap();
    assert_eq!(p.read(&stranger, "f").unwrap(), b"public");
    assert_errno(p.read(&stranger, LINK), libc::EACCES);
    p.assert_refused(p.write(&stranger, "f", b"x"), Rule::Authority, "open", &path("f"));
    let id = p.find("f").unwrap().id;
    p.assert_refused(p.files.set_attr(&stranger, id, None, size(0)), Rule::Authority, "setattr", &path("f"));
    p.assert_refused(p.files.unlink(&stranger, p.top, name("f")), Rule::Authority, "unlink", &path("f"));
}

#[test]
fn entitled_agents_of_other_users_share_the_slots_but_not_each_others_files() {
    if !is_root() {
        return;
    }
    let p = place().with_two_slots();
    let bob = caller(BOB);
    assert_eq!(p.read(&bob, LINK).unwrap(), p.bytes(WORK));
    p.replace(&bob, LINK, &login_with("work", 9000, "max")).unwrap();
    assert_eq!(std::fs::metadata(p.on_disk(WORK)).unwrap().uid(), 0, "a slot keeps its owner");
    p.write(&bob, "mine", b"x").unwrap();
    let metadata = std::fs::metadata(p.on_disk("mine")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (BOB, BOB, 0o600));
    p.write(&operator(), "root's", b"x").unwrap();
    assert_errno(p.open(&bob, "root's", libc::O_RDONLY), libc::EACCES);
    let id = p.find("root's").unwrap().id;
    let chmod = SetAttr { mode: Some(0o666), ..SetAttr::default() };
    assert_errno(p.files.set_attr(&bob, id, None, chmod), libc::EPERM);
    let chown = SetAttr { uid: Some(BOB), ..SetAttr::default() };
    assert_errno(p.files.set_attr(&bob, id, None, chown), libc::EPERM);
    let (private, _) = (p.files.mkdir(&operator(), p.top, name("private"), 0o700).unwrap(), ());
    assert_errno(p.files.lookup(&bob, private.id, name("x")), libc::EACCES);
    assert_errno(p.files.mkdir(&bob, private.id, name("x"), 0o700), libc::EACCES);
}

#[test]
fn setgid_directories_give_their_group() {
    if !is_root() {
        return;
    }
    let p = place();
    let dir = p.files.mkdir(&operator(), p.top, name("team"), 0o2777).unwrap();
    let group = SetAttr { gid: Some(777), mode: Some(0o2777), ..SetAttr::default() };
    p.files.set_attr(&operator(), dir.id, None, group).unwrap();
    let sub = p.files.mkdir(&caller(BOB), dir.id, name("sub"), 0o700).unwrap();
    assert_eq!((sub.attr.uid, sub.attr.gid, sub.attr.mode), (BOB, 777, 0o2700));
}

#[test]
fn a_sticky_directory_keeps_files_for_their_owners() {
    if !is_root() {
        return;
    }
    let p = place();
    let dir = p.files.mkdir(&operator(), p.top, name("tmp"), 0o1777).unwrap();
    p.files.create(&operator(), dir.id, name("f"), 0o666, libc::O_CREAT | libc::O_WRONLY).unwrap();
    assert_errno(p.files.unlink(&caller(BOB), dir.id, name("f")), libc::EPERM);
    assert_errno(p.files.rename(&caller(BOB), dir.id, name("f"), dir.id, name("g"), 0), libc::EPERM);
    p.files.create(&caller(BOB), dir.id, name("mine"), 0o666, libc::O_CREAT | libc::O_WRONLY).unwrap();
    p.files.unlink(&caller(BOB), dir.id, name("mine")).unwrap();
}

#[test]
fn names_that_are_no_names_are_invalid() {
    let p = place();
    for bad in ["", ".", "..", "a/b", "a\0b"] {
        assert_errno(p.files.lookup(&alice(), p.top, name(bad)), libc::EINVAL);
        assert_errno(p.files.mkdir(&alice(), p.top, name(bad), 0o700), libc::EINVAL);
    }
    let hidden = p.files.mkdir(&alice(), p.top, name(".baton-half-made.9"), 0o700);
    p.assert_refused(hidden, Rule::ReadOnly, "mkdir", &path(".baton-half-made.9"));
}
