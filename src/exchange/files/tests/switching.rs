//! The live link: switched by symlink and by rename, to fresh slots of its own profile only.

use super::*;

fn symlink(p: &Place, name: &str, target: &str) -> Outcome<FileEntry> {
    p.files.symlink(&alice(), p.top, OsStr::new(name), OsStr::new(target))
}

/// `ln -sfn target .credentials.json`
fn ln_sfn(p: &Place, target: &str) -> Outcome<()> {
    symlink(p, "CuAbCdEf", target)?;
    let renamed = p.mv(&alice(), "CuAbCdEf", LINK);
    if renamed.is_err() {
        p.files.unlink(&alice(), p.top, OsStr::new("CuAbCdEf")).unwrap();
    }
    renamed
}

#[test]
fn a_symlink_renamed_over_the_link_switches() {
    let p = place().with_two_slots();
    ln_sfn(&p, HOME).unwrap();
    assert_eq!((p.live(), p.read(&alice(), LINK).unwrap()), (HOME.to_owned(), p.bytes(HOME)));
    ln_sfn(&p, &format!("./{WORK}")).unwrap();
    assert_eq!(p.read(&alice(), WORK).unwrap(), p.bytes(LINK));
    assert_eq!(p.events(), ["credential-switched", "credential-switched"]);
    assert_eq!(p.names(), [LINK, HOME, WORK]);
}

#[test]
fn a_temp_link_may_have_a_slots_name() {
    let p = place().with_two_slots();
    symlink(&p, ".credentials.json.swap", HOME).unwrap();
    assert_eq!(p.find(".credentials.json.swap").unwrap().attr.kind, NodeKind::Symlink);
    p.mv(&alice(), ".credentials.json.swap", LINK).unwrap();
    assert_eq!(p.live(), HOME);
    symlink(&p, ".credentials.json.swap", HOME).unwrap();
    let swap = ".credentials.json.swap";
    p.assert_refused(p.mv(&alice(), swap, WORK), Rule::Identity, "rename", &path(swap));
    p.files.unlink(&alice(), p.top, OsStr::new(".credentials.json.swap")).unwrap();
}

#[test]
fn identity_the_link_never_points_elsewhere() {
    let p = place().with_two_slots();
    for target in
        ["/etc/passwd", "../other/.credentials.json.work", "plain", LINK, "sub/.credentials.json.work"]
    {
        p.assert_refused(ln_sfn(&p, target), Rule::Identity, "rename", &path(LINK));
    }
    assert_eq!(p.live(), WORK);
}

#[test]
fn stale_slot_no_switch_to_what_is_missing_unreadable_or_expired() {
    let p = place().with_two_slots();
    let old = ".credentials.json.old";
    p.write(&operator(), old, &login_with("old", 200, "max")).unwrap();
    std::fs::write(p.on_disk(".credentials.json.broken"), "{").unwrap();
    for target in [old, ".credentials.json.missing", ".credentials.json.broken"] {
        p.assert_refused(ln_sfn(&p, target), Rule::StaleSlot, "rename", &path(target));
    }
    *p.desk.ahead_seconds.lock() = 7200 - 299;
    p.assert_refused(ln_sfn(&p, HOME), Rule::StaleSlot, "rename", &path(HOME));
    assert_eq!(p.live(), WORK);
}

#[test]
fn without_a_link_symlink_makes_one_and_a_login_waits_for_it() {
    let p = place();
    p.write(&alice(), WORK, &login("work")).unwrap();
    p.assert_refused(p.write(&alice(), LINK, &login("work")), Rule::Identity, "create", &path(LINK));
    let bytes =
        p.assert_refused(p.replace(&alice(), LINK, &login("x")), Rule::Identity, "rename", &path(LINK));
    assert!(!bytes.is_empty());
    p.assert_refused(symlink(&p, LINK, "/tmp/x"), Rule::Identity, "symlink", &path(LINK));
    symlink(&p, LINK, WORK).unwrap();
    assert_eq!(p.live(), WORK);
    assert_errno(symlink(&p, LINK, WORK), libc::EEXIST);
}

#[test]
fn a_rename_that_must_not_replace_does_not_switch() {
    let p = place().with_two_slots();
    symlink(&p, "temp", HOME).unwrap();
    let noreplace = rustix::fs::RenameFlags::NOREPLACE.bits();
    let renamed = p.files.rename(&alice(), p.top, OsStr::new("temp"), p.top, OsStr::new(LINK), noreplace);
    assert_errno(renamed, libc::EEXIST);
    assert_eq!(p.live(), WORK);
}
