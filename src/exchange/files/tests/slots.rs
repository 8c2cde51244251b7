//! Writes to slots: in place and by rename, the verdicts, torn writers, and the ways round the guard.

use super::*;

#[test]
fn the_first_login_through_the_link_becomes_the_slot_default() {
    for rename in [false, true] {
        let p = place();
        let first = login("first");
        let write = if rename { Place::replace } else { Place::write };
        write(&p, &alice(), LINK, &first).unwrap();
        assert_eq!(p.live(), ".credentials.json.default");
        assert_eq!(p.bytes(".credentials.json.default"), first);
        assert_eq!(p.read(&alice(), LINK).unwrap(), first);
        assert_eq!(p.names(), [".credentials.json", ".credentials.json.default"]);
        let events = p.desk.events.lock();
        let (event, fields) = &events[0];
        assert_eq!((*event, fields["by"].as_str()), ("credential-captured", Some("alice")));
        assert_eq!((&fields["profile"], &fields["slot"]), (&json!("claude"), &json!("default")));
        assert_eq!(fields["fingerprint"].as_str().unwrap().len(), 12);
        assert!(!format!("{events:?}").contains("refresh-"), "no token in an event");
    }
}

#[test]
fn a_login_that_lay_in_the_profile_before_the_guard_is_taken_in() {
    let dir = TempDir::new().unwrap();
    let top = dir.path().join("credentials/claude");
    std::fs::create_dir_all(&top).unwrap();
    std::fs::write(top.join(LINK), login("old")).unwrap();
    std::fs::write(top.join(".baton-half-made.1.2"), "torn by a crash").unwrap();
    let p = place_with(dir, false);
    assert_eq!(p.live(), ".credentials.json.default");
    assert_eq!(p.names(), [".credentials.json", ".credentials.json.default"]);
    assert_eq!(p.events(), ["credential-captured", "credential-switched"]);
    assert!(!p.on_disk(".baton-half-made.1.2").exists());
}

#[test]
fn a_slot_in_the_making_is_not_seen() {
    let p = place();
    let text = login("new");
    let open = p.open(&alice(), WORK, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL).unwrap();
    p.files.write(&alice(), &open, 0, false, &text[..40]).unwrap();
    assert_errno(p.find(WORK), libc::ENOENT);
    assert!(p.names().is_empty());
    p.files.write(&alice(), &open, 40, false, &text[40..]).unwrap();
    assert_eq!(p.find(WORK).unwrap().attr.size, text.len() as u64);
    assert_eq!(p.find(WORK).unwrap().attr.mode, 0o600);
    p.files.release(&open);
    assert!(p.refused().is_empty());
}

#[test]
fn readers_see_the_old_login_until_the_last_of_three_chunks() {
    let p = place().with_two_slots();
    let (old, mut new) = (p.bytes(WORK), login("work"));
    new.push(b'\n');
    let reader = p.open(&alice(), LINK, libc::O_RDONLY).unwrap();
    let writer = p.open(&alice(), LINK, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    let inode = p.find(WORK).unwrap().id;
    for (offset, chunk) in
        new.chunks(new.len() / 3 + 1).enumerate().map(|(n, c)| (n * (new.len() / 3 + 1), c))
    {
        assert_eq!(p.read(&alice(), LINK).unwrap(), old);
        p.files.write(&alice(), &writer, offset as u64, false, chunk).unwrap();
    }
    assert_eq!(p.read(&alice(), LINK).unwrap(), new);
    assert_eq!(p.files.read(&reader, 0, 1 << 20).unwrap(), old, "an open reader keeps what it opened");
    assert_eq!(p.find(WORK).unwrap().id, inode, "a slot stays the same file");
    p.files.flush(&alice(), &writer).unwrap();
    p.files.release(&writer);
    assert_eq!(p.events(), ["credential-unchanged"]);
}

#[test]
fn identity_another_login_is_refused_in_the_write_itself() {
    let p = place().with_two_slots();
    let (old, other) = (p.bytes(WORK), login("mallory"));
    let open = p.open(&alice(), LINK, libc::O_RDWR | libc::O_TRUNC).unwrap();
    let bytes = p.assert_refused(
        p.files.write(&alice(), &open, 0, false, &other),
        Rule::Identity,
        "write",
        &path(WORK),
    );
    assert_eq!(bytes, other, "the refused bytes are kept");
    assert_eq!(p.files.read(&open, 0, 1 << 20).unwrap(), old, "the writer is back at the slot's content");
    p.files.flush(&alice(), &open).unwrap();
    p.files.release(&open);
    assert_eq!(p.bytes(WORK), old);
    assert!(p.refused().is_empty(), "refused once");
    assert!(p.events().is_empty());
}

#[test]
fn identity_another_login_is_refused_in_the_rename_and_the_temp_file_stays() {
    let p = place().with_two_slots();
    let (old, other) = (p.bytes(WORK), login("mallory"));
    for target in [LINK, WORK] {
        let bytes =
            p.assert_refused(p.replace(&alice(), target, &other), Rule::Identity, "rename", &path(WORK));
        assert_eq!(bytes, other);
        assert_eq!(p.bytes(&format!("{target}.tmp.0a1b2c")), other);
        assert_eq!((p.bytes(WORK), p.live()), (old.clone(), WORK.to_owned()));
    }
}

#[test]
fn a_rename_over_the_link_changes_the_slot_and_leaves_the_link() {
    let p = place().with_two_slots();
    let new = login_with("work", 9000, "max");
    p.replace(&alice(), LINK, &new).unwrap();
    assert_eq!((p.bytes(WORK), p.live()), (new, WORK.to_owned()));
    assert_eq!(p.names(), [LINK, HOME, WORK], "the temp file is gone");
    assert_eq!(p.events(), ["credential-unchanged"]);
}

#[test]
fn a_due_login_may_rotate_but_not_under_strict_identity() {
    for strict in [false, true] {
        let p = place_with(TempDir::new().unwrap(), strict);
        p.write(&alice(), LINK, &login_with("a", 100, "max")).unwrap();
        p.events();
        let rotated = p.write(&alice(), LINK, &login("b"));
        if strict {
            p.assert_refused(rotated, Rule::Identity, "write", &path(".credentials.json.default"));
        } else {
            rotated.unwrap();
            assert_eq!(p.events(), ["credential-rotated"]);
            let back = p.write(&alice(), LINK, &login("a"));
            p.assert_refused(back, Rule::Identity, "write", &path(".credentials.json.default"));
        }
    }
}

#[test]
fn a_due_login_does_not_rotate_into_another_subscription() {
    let p = place();
    p.write(&alice(), LINK, &login_with("a", 100, "max")).unwrap();
    let other = p.replace(&alice(), LINK, &login_with("b", 7200, "pro"));
    p.assert_refused(other, Rule::Identity, "rename", &path(".credentials.json.default"));
}

#[test]
fn a_stub_never_enters_a_slot() {
    let p = place().with_two_slots();
    let stub = br#"{"claudeAiOauth":{"accessToken":"","refreshToken":"","expiresAt":0,"scopes":[]}}"#;
    let old = p.bytes(WORK);
    p.assert_refused(p.write(&alice(), LINK, stub), Rule::Identity, "write", &path(WORK));
    p.assert_refused(p.replace(&alice(), LINK, stub), Rule::Identity, "rename", &path(WORK));
    let new = ".credentials.json.fresh";
    p.assert_refused(p.write(&alice(), new, stub), Rule::Identity, "write", &path(new));
    assert_eq!(p.bytes(WORK), old);
    assert_errno(p.find(new), libc::ENOENT);
}

#[test]
fn partial_a_torn_writer_is_told_at_close_and_recorded_once() {
    let p = place().with_two_slots();
    let old = p.bytes(WORK);
    let torn = &login("work")[..50];
    let open = p.open(&alice(), LINK, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    p.files.flush(&alice(), &open).unwrap(); // a shell's dup2 closes before the first write
    p.files.write(&alice(), &open, 0, false, torn).unwrap();
    assert_errno(p.files.flush(&alice(), &open), libc::EBADMSG);
    assert!(p.refused().is_empty());
    p.files.release(&open);
    let refused = p.refused();
    assert_eq!(refused, [("close", path(WORK), Rule::Partial, torn.to_vec())]);
    assert_eq!(p.bytes(WORK), old);
}

#[test]
fn partial_another_process_closing_its_copy_is_not_the_writer() {
    let p = place().with_two_slots();
    let text = p.bytes(WORK);
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let other = Caller { pid: child.id(), ..alice() };
    let open = p.open(&alice(), LINK, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    p.files.write(&alice(), &open, 0, false, &text[..50]).unwrap();
    p.files.flush(&other, &open).unwrap();
    p.files.write(&other, &open, 50, false, &text[50..]).unwrap();
    p.files.flush(&other, &open).unwrap();
    p.files.release(&open);
    assert!(p.refused().is_empty());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn partial_emptying_a_slot_changes_nothing() {
    let p = place().with_two_slots();
    let old = p.bytes(WORK);
    let open = p.open(&alice(), LINK, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    p.files.flush(&alice(), &open).unwrap();
    p.files.release(&open);
    assert_eq!(p.refused(), [("close", path(WORK), Rule::Partial, Vec::new())]);
    assert_eq!(p.bytes(WORK), old);
}

#[test]
fn ftruncate_then_write_and_write_then_ftruncate_both_work_in_place() {
    let p = place().with_two_slots();
    let slot = p.find(WORK).unwrap().id;
    let shorter = serde_json::to_vec(&serde_json::from_slice::<Value>(&login("work")).unwrap()).unwrap();
    let open = p.open(&alice(), LINK, libc::O_RDWR).unwrap();
    p.files.write(&alice(), &open, 0, false, &shorter).unwrap();
    assert_ne!(p.bytes(WORK), shorter);
    let attr = p.files.set_attr(&alice(), slot, Some(&open), size(shorter.len() as u64)).unwrap();
    assert_eq!(attr.size, shorter.len() as u64);
    assert_ne!(p.bytes(WORK), shorter, "a patch of what was there is not done before it is closed");
    p.files.flush(&alice(), &open).unwrap();
    assert_eq!(p.bytes(WORK), shorter);
    assert_eq!(p.files.set_attr(&alice(), slot, Some(&open), size(0)).unwrap().size, 0);
    assert_eq!(p.bytes(WORK), shorter);
    let longer = login("work");
    assert_eq!(p.files.write(&alice(), &open, 0, true, &longer).unwrap(), longer.len());
    p.files.flush(&alice(), &open).unwrap();
    p.files.release(&open);
    assert_eq!(p.bytes(WORK), longer);
    assert!(p.refused().is_empty());
}

#[test]
fn mixed_writers_each_have_their_own_draft_and_are_judged_against_the_slot_as_it_is_then() {
    let p = place();
    p.write(&alice(), LINK, &login_with("a", 100, "max")).unwrap();
    let (one, two) = (login("b"), login("c"));
    let flags = libc::O_WRONLY | libc::O_TRUNC;
    let (first, second) = (p.open(&alice(), LINK, flags).unwrap(), p.open(&alice(), LINK, flags).unwrap());
    p.files.write(&alice(), &first, 0, false, &one[..30]).unwrap();
    p.files.write(&alice(), &second, 0, false, &two[..30]).unwrap();
    p.files.write(&alice(), &first, 30, false, &one[30..]).unwrap();
    // The slot holds b now, which is not due: c was a rotation of a, but is none of b.
    let late = p.files.write(&alice(), &second, 30, false, &two[30..]);
    p.assert_refused(late, Rule::Identity, "write", &path(".credentials.json.default"));
    assert_eq!(p.bytes(LINK), one);
}

#[test]
fn racing_writers_leave_one_whole_login() {
    let p = place();
    p.write(&alice(), LINK, &login_with("a", 100, "max")).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let p = &p;
            scope.spawn(move || {
                let text = login(&format!("thread-{n}"));
                match n % 2 {
                    0 => p.write(&alice(), LINK, &text).is_ok(),
                    _ => {
                        let temp = format!(".tmp-{n}");
                        p.write(&alice(), &temp, &text).unwrap();
                        p.mv(&alice(), &temp, LINK).is_ok()
                    }
                }
            });
        }
    });
    let rotated = p.events().iter().filter(|event| **event == "credential-rotated").count();
    assert_eq!((rotated, p.refused().len()), (1, 7), "one rotation of a; the rest come late");
    assert!(String::from_utf8(p.bytes(LINK)).unwrap().contains("refresh-thread-"));
}

#[test]
fn size_a_credential_over_a_mebibyte_is_refused() {
    let p = place().with_two_slots();
    let huge = vec![b' '; (1 << 20) + 1];
    let old = p.bytes(WORK);
    p.assert_refused(p.write(&alice(), LINK, &huge), Rule::Size, "write", &path(WORK));
    assert_eq!(p.bytes(WORK), old);
    p.write(&alice(), "huge", &huge).unwrap();
    p.assert_refused(p.mv(&alice(), "huge", LINK), Rule::Size, "rename", &path(WORK));
    let open = p.open(&alice(), LINK, libc::O_WRONLY).unwrap();
    let slot = p.find(WORK).unwrap().id;
    let stretched = p.files.set_attr(&alice(), slot, Some(&open), size(1 << 40));
    p.assert_refused(stretched, Rule::Size, "truncate", &path(WORK));
    assert_errno(p.files.write(&alice(), &open, u64::MAX, false, b"x"), Rule::Size.errno());
}

#[test]
fn identity_the_link_and_live_slots_stay_where_they_are() {
    let p = place().with_two_slots();
    let (top, name) = (p.top, OsStr::new);
    p.assert_refused(p.mv(&alice(), WORK, "mine"), Rule::Identity, "rename", &path(WORK));
    p.assert_refused(p.mv(&alice(), WORK, HOME), Rule::Identity, "rename", &path(WORK));
    p.assert_refused(p.mv(&alice(), LINK, "mine"), Rule::Identity, "rename", &path(LINK));
    p.assert_refused(p.files.unlink(&alice(), top, name(LINK)), Rule::Identity, "unlink", &path(LINK));
    p.assert_refused(p.files.unlink(&operator(), top, name(LINK)), Rule::Identity, "unlink", &path(LINK));
    p.assert_refused(p.files.unlink(&alice(), top, name(HOME)), Rule::Identity, "unlink", &path(HOME));
    p.assert_refused(p.files.unlink(&operator(), top, name(WORK)), Rule::Identity, "unlink", &path(WORK));
    p.write(&alice(), "plain", b"x").unwrap();
    for (one, other) in [("plain", LINK), ("plain", WORK), (LINK, "plain"), (WORK, HOME)] {
        let exchange = rustix::fs::RenameFlags::EXCHANGE.bits();
        let swapped = p.files.rename(&alice(), top, name(one), top, name(other), exchange);
        let guarded = if one == "plain" { other } else { one };
        p.assert_refused(swapped, Rule::Identity, "rename", &path(guarded));
    }
    p.assert_refused(
        p.files.mkdir(&alice(), top, name(".credentials.json.x"), 0o700),
        Rule::Identity,
        "mkdir",
        &path(".credentials.json.x"),
    );
    p.files.mkdir(&alice(), top, name("dir"), 0o700).unwrap();
    p.assert_refused(
        p.mv(&alice(), "dir", ".credentials.json.x"),
        Rule::Identity,
        "rename",
        &path(".credentials.json.x"),
    );
    assert_eq!(p.live(), WORK);
}

#[test]
fn the_operator_may_remove_a_slot_that_is_not_live() {
    let p = place().with_two_slots();
    let home = p.bytes(HOME);
    p.files.unlink(&operator(), p.top, OsStr::new(HOME)).unwrap();
    assert_eq!(p.names(), [LINK, WORK]);
    assert_eq!(*p.desk.kept.lock(), [home]);
    let events = p.desk.events.lock();
    assert_eq!((events[0].0, &events[0].1["by"]), ("credential-removed", &json!("operator")));
    assert_eq!(events[0].1["quarantine"], "private/quarantine/removed");
}

#[test]
fn identity_no_hard_link_leads_to_or_from_a_guarded_name() {
    let p = place().with_two_slots();
    let old = p.bytes(WORK);
    p.write(&alice(), "plain", b"x").unwrap();
    let (plain, slot, link) =
        (p.find("plain").unwrap().id, p.find(WORK).unwrap().id, p.find(LINK).unwrap().id);
    let hard = |id, name| p.files.link(&alice(), id, p.top, OsStr::new(name));
    p.assert_refused(hard(slot, "alias"), Rule::Identity, "link", &path(WORK));
    p.assert_refused(hard(link, "alias"), Rule::Identity, "link", &path(LINK));
    p.assert_refused(
        hard(plain, ".credentials.json.new1"),
        Rule::Identity,
        "link",
        &path(".credentials.json.new1"),
    );
    // A temp file that is open, or has another name, is not what the slot becomes.
    let text = login_with("work", 9000, "max");
    p.write(&alice(), "temp", &text).unwrap();
    hard(p.find("temp").unwrap().id, "alias").unwrap();
    let open = p.open(&alice(), "temp", libc::O_WRONLY).unwrap();
    p.mv(&alice(), "temp", LINK).unwrap();
    p.write(&alice(), "alias", &login("mallory")).unwrap();
    p.files.write(&alice(), &open, 0, false, &login("mallory")).unwrap();
    assert_eq!(p.bytes(WORK), text);
    assert_ne!(p.bytes(WORK), old);
}

#[test]
fn identity_a_slot_keeps_its_length_mode_and_owner() {
    let p = place().with_two_slots();
    let entry = p.find(WORK).unwrap();
    let set = |change| p.files.set_attr(&alice(), entry.id, None, change);
    set(size(entry.attr.size)).unwrap();
    p.assert_refused(set(size(0)), Rule::Identity, "truncate", &path(WORK));
    p.assert_refused(set(size(entry.attr.size + 1)), Rule::Identity, "truncate", &path(WORK));
    set(SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    let wider = SetAttr { mode: Some(0o644), ..SetAttr::default() };
    assert_eq!(set(wider).unwrap().mode, 0o600, "as programs ask that copy a mode too");
    set(SetAttr { uid: Some(entry.attr.uid), gid: Some(entry.attr.gid), ..SetAttr::default() }).unwrap();
    let given = SetAttr { uid: Some(entry.attr.uid + 1), ..SetAttr::default() };
    p.assert_refused(set(given), Rule::Identity, "chown", &path(WORK));
    let mtime = UNIX_EPOCH + std::time::Duration::from_millis(1_234_567);
    let attr = set(SetAttr { mtime: Some(mtime), ..SetAttr::default() }).unwrap();
    assert_eq!((attr.mtime, attr.mode, attr.size), (mtime, 0o600, entry.attr.size));
}

#[test]
fn temp_files_are_ordinary() {
    let p = place().with_two_slots();
    for name in [".credentials.json.tmp.deadbeef", ".credentials.json.work.tmp.x", ".credentials.json.bak"] {
        p.write(&alice(), name, b"anything").unwrap();
        assert_eq!(p.read(&alice(), name).unwrap(), b"anything");
        assert!(p.open(&alice(), name, libc::O_RDWR).unwrap().backing().is_some());
        p.files.unlink(&alice(), p.top, OsStr::new(name)).unwrap();
    }
    assert!(p.open(&alice(), LINK, libc::O_RDONLY).unwrap().backing().is_none());
}

#[test]
fn guarded_names_are_ordinary_below_the_top() {
    let p = place();
    let dir = p.files.mkdir(&alice(), p.top, OsStr::new("backup"), 0o700).unwrap();
    let (_, open) =
        p.files.create(&alice(), dir.id, OsStr::new(LINK), 0o600, libc::O_WRONLY | libc::O_CREAT).unwrap();
    p.files.write(&alice(), &open, 0, false, b"not json").unwrap();
    p.files.unlink(&alice(), dir.id, OsStr::new(LINK)).unwrap();
    assert!(p.refused().is_empty());
}

#[test]
fn identity_a_second_try_of_the_same_bytes_is_refused_again_but_recorded_once() {
    let p = place().with_two_slots();
    let (old, other) = (p.bytes(WORK), login("m")); // shorter than the slot's content
    let open = p.open(&alice(), LINK, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    p.assert_refused(p.files.write(&alice(), &open, 0, false, &other), Rule::Identity, "write", &path(WORK));
    assert_errno(p.files.write(&alice(), &open, 0, false, &other), libc::EPERM);
    p.files.flush(&alice(), &open).unwrap();
    p.files.release(&open);
    assert!(p.refused().is_empty());
    assert_eq!(p.bytes(WORK), old);
}
