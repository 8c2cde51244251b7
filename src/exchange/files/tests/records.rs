//! Sidecars and the notice of a refused login.

use super::*;
use crate::rules::credential::{NOTICE, SlotName};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;

const SIDECAR: &str = ".credentials.json.work.fingerprint.json";

fn sidecar_of(token: &str, slot: &str) -> Vec<u8> {
    let hash: String =
        Sha256::digest(format!("refresh-{token}")).iter().map(|byte| format!("{byte:02x}")).collect();
    let sidecar = json!({"refresh_token_sha256": hash, "captured_at": "2026-01-01T00:00:00Z", "slot": slot});
    serde_json::to_vec(&sidecar).unwrap()
}

impl Place {
    /// The token hash and the slot that a sidecar names.
    fn recorded(&self, name: &str) -> (String, String) {
        let sidecar: Value = serde_json::from_slice(&self.bytes(name)).unwrap();
        let text = |member: &str| sidecar[member].as_str().unwrap().to_owned();
        assert!(Timestamp::parse(&text("captured_at"), true).is_some());
        (text("refresh_token_sha256"), text("slot"))
    }
    #[track_caller]
    fn assert_recorded(&self, token: &str) {
        let expected: Value = serde_json::from_slice(&sidecar_of(token, "work")).unwrap();
        let expected = expected["refresh_token_sha256"].as_str().unwrap();
        assert_eq!(self.recorded(SIDECAR), (expected.to_owned(), "work".to_owned()));
    }
    /// Another start of the same exchange.
    fn again(self) -> Self {
        let Place { dir, desk: _, files, .. } = self;
        drop(files);
        place_with(dir, false)
    }
    fn events_named(&self, name: &str) -> Vec<Map<String, Value>> {
        let events = self.desk.events.lock();
        events.iter().filter(|(event, _)| *event == name).map(|(_, fields)| fields.clone()).collect()
    }
}

#[test]
fn a_slot_has_a_true_sidecar_from_its_first_login_to_its_last() {
    let p = place();
    p.write(&alice(), WORK, &login("a")).unwrap();
    p.assert_recorded("a");
    let metadata = p.on_disk(SIDECAR).metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let slot = p.on_disk(WORK).metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (slot.uid(), slot.gid()));
    let captured = p.bytes(SIDECAR);
    p.write(&alice(), WORK, &login_with("a", 10, "max")).unwrap();
    assert_eq!(p.bytes(SIDECAR), captured, "the same token: the same sidecar");
    p.write(&alice(), WORK, &login("b")).unwrap();
    p.assert_recorded("b");
    assert_eq!(p.write(&alice(), WORK, &login("other")).unwrap_err().errno(), libc::EPERM);
    p.assert_recorded("b");
    p.files.unlink(&operator(), p.top, OsStr::new(WORK)).unwrap();
    assert!(!p.all_names().contains(&SIDECAR.to_owned()));
}

#[test]
fn everybody_entitled_reads_a_sidecar_and_writes_the_truth_to_it() {
    let p = place().with_two_slots();
    assert_eq!(p.read(&caller(BOB), SIDECAR).unwrap(), p.bytes(SIDECAR));
    let truth = sidecar_of("work", "work");
    for write in [Place::write, Place::replace] {
        let temps_before = p.all_names();
        write(&p, &alice(), SIDECAR, &truth).unwrap();
        assert_eq!(p.bytes(SIDECAR), truth, "captured_at is the program's own");
        assert_eq!(p.on_disk(SIDECAR).metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(p.all_names(), temps_before);
        for lie in [sidecar_of("home", "work"), sidecar_of("work", "home"), b"{}".to_vec()] {
            let lied = write(&p, &alice(), SIDECAR, &lie);
            assert_eq!(lied.unwrap_err().errno(), libc::EPERM);
            assert_eq!(p.bytes(SIDECAR), truth);
            let refused = p.refused();
            assert_eq!(refused.len(), 1);
            assert_eq!((refused[0].1.as_str(), refused[0].2), (path(SIDECAR).as_str(), Rule::Identity));
        }
        // What a refused rename leaves is its writer's.
        let _ = p.files.unlink(&alice(), p.top, OsStr::new(&format!("{SIDECAR}.tmp.0a1b2c")));
    }
    assert_eq!(p.write(&caller(EVE), SIDECAR, &truth).unwrap_err().errno(), libc::EACCES);
}

#[test]
fn a_sidecar_is_never_seen_half_written() {
    let p = place().with_two_slots();
    let (before, truth) = (p.bytes(SIDECAR), sidecar_of("work", "work"));
    let open = p.open(&alice(), SIDECAR, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(p.bytes(SIDECAR), before);
    p.files.write(&alice(), &open, 0, false, &truth[..20]).unwrap();
    assert_eq!(p.bytes(SIDECAR), before);
    assert_errno(p.files.flush(&alice(), &open), libc::EBADMSG);
    p.files.write(&alice(), &open, 20, false, &truth[20..]).unwrap();
    assert_eq!(p.bytes(SIDECAR), truth);
    p.files.release(&open);
    let open = p.open(&alice(), SIDECAR, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    p.files.write(&alice(), &open, 0, false, &truth[..20]).unwrap();
    p.files.release(&open);
    assert_eq!(p.bytes(SIDECAR), truth);
    assert_eq!(p.refused().pop().unwrap().2, Rule::Partial);
}

#[test]
fn a_sidecar_stays_with_its_slot() {
    let p = place().with_two_slots();
    let name = OsStr::new(SIDECAR);
    p.assert_refused(p.files.unlink(&alice(), p.top, name), Rule::Identity, "unlink", &path(SIDECAR));
    p.assert_refused(p.mv(&alice(), SIDECAR, "x"), Rule::Identity, "rename", &path(SIDECAR));
    let id = p.find(SIDECAR).unwrap().id;
    let linked = p.files.link(&alice(), id, p.top, OsStr::new("x"));
    p.assert_refused(linked, Rule::Identity, "link", &path(SIDECAR));
    let made = p.files.symlink(&alice(), p.top, name, OsStr::new("x"));
    p.assert_refused(made, Rule::Identity, "symlink", &path(SIDECAR));
    let chmod = SetAttr { mode: Some(0o644), ..SetAttr::default() };
    p.assert_refused(p.files.set_attr(&alice(), id, None, chmod), Rule::Identity, "chmod", &path(SIDECAR));
    p.files.set_attr(&alice(), id, None, SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    let none = ".credentials.json.none.fingerprint.json";
    p.assert_refused(p.write(&alice(), none, b"{}"), Rule::Identity, "create", &path(none));
    std::fs::write(p.on_disk(none), "left behind").unwrap();
    p.files.unlink(&alice(), p.top, OsStr::new(none)).unwrap();
}

#[test]
fn a_sidecar_that_is_missing_is_captured_at_the_start() {
    let p = place().with_two_slots();
    std::fs::remove_file(p.on_disk(SIDECAR)).unwrap();
    std::fs::write(p.on_disk(".credentials.json.home.fingerprint.json"), "torn").unwrap();
    let p = p.again();
    p.assert_recorded("work");
    assert_eq!(p.recorded(".credentials.json.home.fingerprint.json").1, "home");
    assert!(p.events_named("credential-drift").is_empty());
}

#[test]
fn a_slot_that_was_changed_behind_the_mount_is_told_of_and_left_alone() {
    let p = place().with_two_slots();
    let foreign = login("foreign");
    std::fs::write(p.on_disk(WORK), &foreign).unwrap();
    let p = p.again();
    p.assert_recorded("work");
    assert_eq!(p.bytes(WORK), foreign);
    let told = p.events_named("credential-drift");
    assert_eq!((told.len(), &told[0]["slot"]), (1, &json!("work")));
    assert!(told[0]["recorded"].as_str().unwrap().len() == 12 && told[0]["holds"] != told[0]["recorded"]);
    let drift = || {
        let profile = p.files.profiles().next().unwrap();
        p.files.tell_of_drift(profile, &SlotName::parse("work").unwrap()).unwrap().is_some()
    };
    assert!(drift());
    assert_eq!(p.events_named("credential-drift").len(), 1, "once for each change");
    // Saving the same token again, or a sidecar for it, does not make it the slot's own.
    p.write(&alice(), WORK, &login_with("foreign", 9000, "max")).unwrap();
    p.assert_recorded("work");
    let lie = p.write(&alice(), SIDECAR, &sidecar_of("foreign", "work"));
    p.assert_refused(lie, Rule::Identity, "write", &path(SIDECAR));
    assert!(drift());
    // A manager that puts its own copy back heals it.
    p.replace(&alice(), WORK, &login("work")).unwrap();
    assert!(!drift());
    p.assert_recorded("work");
}

#[test]
fn the_operator_takes_what_a_slot_holds_as_its_own() {
    let p = place().with_two_slots();
    std::fs::write(p.on_disk(WORK), login("new")).unwrap();
    let profile = p.files.profiles().next().unwrap();
    let work = SlotName::parse("work").unwrap();
    assert!(p.files.tell_of_drift(profile, &work).unwrap().is_some(), "also while it is mounted");
    assert!(p.files.baseline(profile, &work).unwrap().changed);
    p.assert_recorded("new");
    assert_eq!(p.files.tell_of_drift(profile, &work).unwrap(), None);
    assert!(!p.files.baseline(profile, &work).unwrap().changed);
    assert_eq!(p.events_named("credential-baseline").len(), 1);
    assert!(p.files.baseline(profile, &SlotName::parse("none").unwrap()).is_err());
}

#[test]
fn a_refused_login_leaves_a_notice_until_a_login_is_accepted() {
    let p = place().with_two_slots();
    assert_eq!(p.write(&alice(), WORK, &login("other")).unwrap_err().errno(), libc::EPERM);
    let notice = String::from_utf8(p.read(&caller(BOB), NOTICE).unwrap()).unwrap();
    for part in [
        "By:       alice, process ",
        "Slot:     work, which holds login ",
        "Refused:  login ",
        "  baton credentials adopt work --profile claude --quarantine 1-2-3-identity@bob\n",
        "  baton credentials adopt work-2 --profile claude --quarantine 1-2-3-identity@bob\n",
        "  baton credentials switch work-2 --profile claude\n",
    ] {
        assert!(notice.contains(part), "{part:?} in\n{notice}");
    }
    assert!(!notice.contains("refresh-") && !notice.contains("access-"), "{notice}");
    assert_eq!(p.on_disk(NOTICE).metadata().unwrap().mode() & 0o777, 0o644);
    p.refused();
    p.assert_refused(p.write(&alice(), NOTICE, b"x"), Rule::ReadOnly, "open", &path(NOTICE));
    p.assert_refused(p.mv(&alice(), NOTICE, "x"), Rule::ReadOnly, "rename", &path(NOTICE));
    p.write(&alice(), HOME, &login("home")).unwrap();
    assert!(p.find(NOTICE).is_ok(), "it was about another slot");
    p.replace(&alice(), LINK, &login("work")).unwrap();
    assert!(p.find(NOTICE).is_err(), "a login was accepted in its slot");
    p.assert_refused(p.write(&alice(), NOTICE, b"x"), Rule::ReadOnly, "create", &path(NOTICE));

    p.replace(&alice(), WORK, br#"{"claudeAiOauth":{}}"#).unwrap_err();
    let notice = String::from_utf8(p.bytes(NOTICE)).unwrap();
    assert!(notice.contains("Refused:  no login") && !notice.contains("baton credentials"), "{notice}");
    p.files.unlink(&alice(), p.top, OsStr::new(NOTICE)).unwrap();
    assert!(p.find(NOTICE).is_err());
}
