//! A login is neither doubled nor lost: one slot for each token, and what is replaced is kept.

use super::*;
use crate::exchange::files::guard::change::Change;

const NEW: &str = ".credentials.json.next";

fn again(p: Place) -> Place {
    let Place { dir, desk: _, files, .. } = p;
    drop(files);
    place_with(dir, false)
}

fn replaced(p: &Place, event: &str) -> Vec<Value> {
    let events = p.desk.events.lock();
    let of_it = events.iter().filter(|(name, _)| *name == event);
    of_it.map(|(_, fields)| fields.get("replaced").cloned().unwrap_or_default()).collect()
}

#[test]
fn a_token_that_another_slot_holds_enters_no_second_one() {
    let p = place().with_two_slots();
    let (work, home) = (p.bytes(WORK), p.bytes(HOME));
    for write in [Place::write, Place::replace] {
        let denied = write(&p, &alice(), NEW, &home).unwrap_err();
        assert_eq!(denied.errno(), libc::EPERM);
        assert!(denied.to_string().contains("It is the login of slot home: switch to that slot"), "{denied}");
        assert_eq!(p.refused().pop().unwrap().3, home);
        assert!(p.find(NEW).is_err());
    }
    // A refresh of work is due: another token may come, but not that of home.
    *p.desk.ahead_seconds.lock() = 7200 - 100;
    let denied = p.write(&alice(), LINK, &home).unwrap_err();
    assert!(denied.to_string().contains("It is the login of slot home"), "{denied}");
    assert_eq!(p.bytes(WORK), work);
    p.write(&alice(), LINK, &login("refreshed")).unwrap();
    // The operator's word stands above it.
    let profile = p.files.profiles().next().unwrap();
    p.files.adopt(profile, &SlotName::parse("next").unwrap(), &home).unwrap();
    assert_eq!(p.bytes(NEW), home);
}

#[test]
fn slots_whose_logins_were_swapped_behind_the_mount_get_their_own_back() {
    let p = place().with_two_slots();
    let (work, home) = (p.bytes(WORK), p.bytes(HOME));
    std::fs::write(p.on_disk(WORK), &home).unwrap();
    std::fs::write(p.on_disk(HOME), &work).unwrap();
    p.replace(&alice(), WORK, &work).unwrap();
    p.replace(&alice(), HOME, &home).unwrap();
    assert_eq!((p.bytes(WORK), p.bytes(HOME)), (work, home));
}

#[test]
fn a_refresh_that_names_no_account_keeps_the_login_before_it() {
    let p = place().with_two_slots();
    let work = p.bytes(WORK);
    p.write(&alice(), WORK, &login_with("work", 7300, "max")).unwrap();
    assert!(p.desk.previous.lock().is_empty(), "the same token: nothing to keep");
    p.write(&alice(), WORK, &work).unwrap();
    *p.desk.ahead_seconds.lock() = 7200 - 100;
    p.write(&alice(), WORK, &login("refreshed")).unwrap();
    assert_eq!(p.desk.previous.lock()["private/previous/claude/work"], work);
    assert_eq!(replaced(&p, "credential-rotated"), [json!("private/previous/claude/work")]);
    assert!(p.desk.kept.lock().is_empty());
}

#[test]
fn what_an_adopted_login_replaces_is_kept() {
    let p = place().with_two_slots();
    let work = p.bytes(WORK);
    let profile = p.files.profiles().next().unwrap();
    p.files.adopt(profile, &SlotName::parse("work").unwrap(), &login_with("x", 9000, "pro")).unwrap();
    assert_eq!(*p.desk.kept.lock(), [work]);
    assert_eq!(replaced(&p, "credential-adopted"), [json!("private/quarantine/replaced")]);
    p.files.adopt(profile, &SlotName::parse("next").unwrap(), &login("new")).unwrap();
    assert_eq!(p.desk.kept.lock().len(), 1, "a new slot replaces nothing");
}

#[test]
fn a_switch_keeps_the_file_that_lies_under_the_live_name() {
    let p = place().with_two_slots();
    std::fs::remove_file(p.on_disk(LINK)).unwrap();
    std::fs::write(p.on_disk(LINK), "whatever it is").unwrap();
    let profile = p.files.profiles().next().unwrap();
    let note = |change: &Change<'_>| p.files.note(&Actor::Operator, profile, change);
    let home = SlotName::parse("home").unwrap();
    profile.switch(&home, p.desk.now(), false, || profile.relink(&home), &note).unwrap();
    assert_eq!(p.live(), HOME);
    assert_eq!(*p.desk.kept.lock(), [b"whatever it is".to_vec()]);
    assert_eq!(replaced(&p, "credential-switched"), [json!("private/quarantine/replaced")]);
}

#[test]
fn a_login_left_under_the_live_name_is_taken_in_beside_the_slots() {
    let p = place();
    p.write(&alice(), LINK, &login("first")).unwrap();
    let first = p.bytes(".credentials.json.default");
    std::fs::remove_file(p.on_disk(LINK)).unwrap();
    std::fs::write(p.on_disk(LINK), login("behind")).unwrap();
    let p = again(p);
    assert_eq!(p.live(), ".credentials.json.default-2");
    assert_eq!(p.bytes(".credentials.json.default"), first);
    assert_eq!(p.events(), ["credential-captured", "credential-switched"]);

    // The token of a slot: only the link comes back, and other bytes are kept.
    std::fs::remove_file(p.on_disk(LINK)).unwrap();
    std::fs::write(p.on_disk(LINK), &first).unwrap();
    let p = again(p);
    assert_eq!((p.live(), p.events()), (".credentials.json.default".to_owned(), vec!["credential-switched"]));
    assert!(p.desk.kept.lock().is_empty());
    std::fs::remove_file(p.on_disk(LINK)).unwrap();
    let other_bytes = login_with("first", 9000, "max");
    std::fs::write(p.on_disk(LINK), &other_bytes).unwrap();
    let p = again(p);
    assert_eq!((p.live(), p.bytes(LINK)), (".credentials.json.default".to_owned(), first));
    assert_eq!(*p.desk.kept.lock(), [other_bytes]);
    assert_eq!(p.names().len(), 3);
}
