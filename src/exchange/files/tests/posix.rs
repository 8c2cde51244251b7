//! What a disk offers beyond names and bytes: extended attributes, pipes, holes, bits that a write takes away.

use super::*;
use rustix::fs::SeekFrom;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// What getxattr(2) says of an attribute that is not there.
const NO_ATTRIBUTE: i32 = if cfg!(target_os = "macos") { 93 } else { 61 };

#[test]
fn user_attributes_are_kept_listed_and_removed() {
    let p = place();
    p.write(&alice(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    assert_errno(p.files.get_xattr(&alice(), f, name("user.a")), NO_ATTRIBUTE);
    p.files.set_xattr(&alice(), f, name("user.a"), b"one", 0).unwrap();
    p.files.set_xattr(&alice(), f, name("user.b"), b"", 0).unwrap();
    assert_eq!(p.files.get_xattr(&alice(), f, name("user.a")).unwrap(), b"one");
    let listed = p.files.list_xattrs(&alice(), f).unwrap();
    let mut names: Vec<&[u8]> = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    assert_eq!(names, [b"user.a", b"user.b"]);
    const CREATE: i32 = 1;
    assert_errno(p.files.set_xattr(&alice(), f, name("user.a"), b"two", CREATE), libc::EEXIST);
    p.files.remove_xattr(&alice(), f, name("user.a")).unwrap();
    assert_errno(p.files.remove_xattr(&alice(), f, name("user.a")), NO_ATTRIBUTE);
    assert_errno(p.files.set_xattr(&alice(), f, name("system.posix_acl_access"), b"", 0), libc::EOPNOTSUPP);
    assert_errno(p.files.get_xattr(&alice(), f, name("system.posix_acl_access")), libc::EOPNOTSUPP);
}

#[test]
fn attributes_are_whose_the_modes_say_and_roots_are_roots() {
    let p = place();
    p.write(&operator(), "f", b"x").unwrap();
    let f = p.find("f").unwrap();
    let bob = caller(BOB);
    let set_mode = |mode| {
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        p.files.set_attr(&operator(), f.id, None, change).unwrap();
    };
    set_mode(0o604);
    assert_errno(p.files.set_xattr(&bob, f.id, name("user.a"), b"", 0), libc::EACCES);
    p.files.set_xattr(&operator(), f.id, name("user.a"), b"1", 0).unwrap();
    assert_eq!(p.files.get_xattr(&bob, f.id, name("user.a")).unwrap(), b"1");
    set_mode(0o600);
    assert_errno(p.files.get_xattr(&bob, f.id, name("user.a")), libc::EACCES);
    for roots in ["trusted.a", "security.a"] {
        assert_errno(p.files.set_xattr(&bob, f.id, name(roots), b"", 0), libc::EPERM);
    }
    assert_errno(p.files.get_xattr(&caller(STRANGER), f.id, name("user.a")), libc::EACCES);
}

#[test]
fn a_login_has_no_attributes_and_no_space_of_its_own() {
    let p = place();
    let bytes = login("a");
    p.write(&alice(), LINK, &bytes).unwrap();
    let (slot, found) = p.resolve(LINK);
    let id = found.unwrap().id;
    assert_errno(p.files.get_xattr(&alice(), id, name("user.a")), NO_ATTRIBUTE);
    assert!(p.files.list_xattrs(&alice(), id).unwrap().is_empty());
    assert_errno(p.files.set_xattr(&alice(), id, name("user.a"), b"", 0), libc::EOPNOTSUPP);
    let link = p.find(LINK).unwrap().id;
    assert_errno(p.files.set_xattr(&operator(), link, name("trusted.a"), b"", 0), libc::EOPNOTSUPP);
    let open = p.files.open(&alice(), id, libc::O_WRONLY).unwrap();
    assert_errno(p.files.allocate(&alice(), &open, 0, 0, 1 << 20), libc::EOPNOTSUPP);
    p.files.release(&open);
    assert_eq!(p.bytes(&slot), bytes);
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_sockets_are_made_with_their_modes_and_devices_by_root_alone() {
    let p = place();
    let make =
        |as_whom: &Caller, called: &str, mode: u32| p.files.mknod(as_whom, p.top, name(called), mode, 0x103);
    let pipe = make(&alice(), "pipe", 0o010_640).unwrap();
    assert_eq!((pipe.attr.kind, pipe.attr.mode), (NodeKind::Fifo, 0o640));
    assert_eq!(make(&alice(), "socket", 0o140_600).unwrap().attr.kind, NodeKind::Socket);
    assert_errno(make(&caller(BOB), "null", 0o020_666), libc::EPERM);
    assert_errno(make(&alice(), "pipe", 0o010_640), libc::EEXIST);
    assert_errno(p.files.open(&alice(), pipe.id, libc::O_RDONLY), libc::ENXIO);
    if rustix::process::geteuid().is_root() {
        assert_eq!(make(&operator(), "null", 0o020_666).unwrap().attr.kind, NodeKind::CharDevice(0x103));
    }
    for guarded in [LINK, WORK] {
        p.assert_refused(make(&alice(), guarded, 0o010_600), Rule::Identity, "mknod", &path(guarded));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn holes_are_found_and_space_is_set_aside() {
    let p = place();
    p.write(&alice(), "f", b"x").unwrap();
    let open = p.open(&alice(), "f", libc::O_RDWR).unwrap();
    p.files.write(&alice(), &open, 1 << 20, false, b"end").unwrap();
    assert_eq!(p.files.seek(&open, SeekFrom::Data(8192)).unwrap(), 1 << 20);
    assert_eq!(p.files.seek(&open, SeekFrom::Hole(1 << 20)).unwrap(), (1 << 20) + 3);
    assert_errno(p.files.seek(&open, SeekFrom::Data(2 << 20)), libc::ENXIO);
    p.files.allocate(&alice(), &open, 0, 0, 2 << 20).unwrap();
    assert_eq!(p.find("f").unwrap().attr.size, 2 << 20);
    p.write(&alice(), "g", b"").unwrap();
    let copy = p.open(&alice(), "g", libc::O_RDWR).unwrap();
    assert_eq!(p.files.copy_range(&alice(), (&open, 1 << 20), (&copy, 5), 3).unwrap(), 3);
    assert_eq!(p.bytes("g"), b"\0\0\0\0\0end");
}

#[test]
fn a_write_by_another_user_takes_set_ids_away() {
    if !rustix::process::geteuid().is_root() {
        return; // only a daemon that is root has to do it itself: tests/mount/posix.rs shows the other
    }
    let p = place();
    p.write(&operator(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    let bob = caller(BOB);
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    p.files.set_attr(&operator(), f, None, mode(0o6777)).unwrap();
    assert_eq!(p.files.set_attr(&operator(), f, None, cut).unwrap().mode, 0o6777, "root's leaves them");
    assert_eq!(p.files.set_attr(&bob, f, None, cut).unwrap().mode, 0o777);
    p.files.set_attr(&operator(), f, None, mode(0o6767)).unwrap();
    let open = p.open(&bob, "f", libc::O_WRONLY).unwrap();
    p.files.written_unprivileged(&open).unwrap();
    assert_eq!(
        p.files.attr(f).unwrap().mode,
        0o2767,
        "the group may not run it: that bit means something else"
    );
    p.files.set_attr(&operator(), f, None, mode(0o4666)).unwrap();
    p.files.release(&p.open(&bob, "f", libc::O_WRONLY | libc::O_TRUNC).unwrap());
    assert_eq!(p.files.attr(f).unwrap().mode, 0o666);
}

#[test]
fn whoever_may_write_may_set_the_times_to_now_and_the_owner_to_any() {
    let p = place();
    p.write(&operator(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    let mode = SetAttr { mode: Some(0o666), ..SetAttr::default() };
    p.files.set_attr(&operator(), f, None, mode).unwrap();
    let (bob, past) = (caller(BOB), Some(UNIX_EPOCH));
    let times = SetAttr { atime: past, mtime: past, ..SetAttr::default() };
    assert_errno(p.files.set_attr(&bob, f, None, times), libc::EPERM);
    assert_errno(p.files.set_attr(&bob, f, None, SetAttr { atime: None, ..times }), libc::EPERM);
    p.files.set_attr(&operator(), f, None, times).unwrap();
    let now = p.files.set_attr(&bob, f, None, SetAttr { touch: true, ..times }).unwrap();
    assert!(now.mtime > UNIX_EPOCH && now.mtime == now.atime);
}

#[cfg(target_os = "linux")]
#[test]
fn who_may_run_a_program_need_not_read_it_and_the_other_way_round() {
    let p = place();
    p.write(&operator(), "f", b"x").unwrap();
    let f = p.find("f").unwrap().id;
    let may = |mode, flags| {
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        p.files.set_attr(&operator(), f, None, change).unwrap();
        p.files.open(&caller(BOB), f, libc::O_RDONLY | flags).is_ok()
    };
    const RUN: i32 = 0x20;
    assert_eq!((may(0o701, RUN), may(0o701, 0)), (true, false));
    assert_eq!((may(0o704, RUN), may(0o704, 0)), (false, true));
}
