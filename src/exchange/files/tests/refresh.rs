//! Refreshes: a token may change while its writer, or the writer's process group, holds the refresh lock.

use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LOCK: &str = ".oauth_refresh.lock";

/// A process that waits for the end of its input, in the group of `leader` or one of its own.
struct Process(Child);

impl Process {
    fn start(leader: Option<&Process>) -> Self {
        let group = leader.map_or(0, |leader| leader.0.id() as i32);
        Process(Command::new("cat").stdin(Stdio::piped()).process_group(group).spawn().unwrap())
    }
    fn caller(&self) -> Caller {
        Caller { pid: self.0.id(), ..alice() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn lock(p: &Place, who: &Process) -> FileId {
    p.files.mkdir(&who.caller(), p.top, OsStr::new(LOCK), 0o700).unwrap().id
}

fn unlock(p: &Place, who: &Process) {
    p.files.rmdir(&who.caller(), p.top, OsStr::new(LOCK)).unwrap();
}

#[test]
fn the_holder_and_its_group_rotate_and_nobody_else() {
    let p = place().with_two_slots();
    let (holder, other) = (Process::start(None), Process::start(None));
    let helper = Process::start(Some(&holder));
    lock(&p, &holder);
    assert_errno(p.files.mkdir(&other.caller(), p.top, OsStr::new(LOCK), 0o700), libc::EEXIST);
    p.assert_refused(p.replace(&other.caller(), LINK, &login("x")), Rule::Identity, "rename", &path(WORK));
    p.replace(&holder.caller(), LINK, &login("by-rename")).unwrap();
    p.write(&helper.caller(), LINK, &login("in-place")).unwrap();
    unlock(&p, &holder);
    p.assert_refused(p.write(&holder.caller(), LINK, &login("late")), Rule::Identity, "write", &path(WORK));
    assert_eq!(p.events(), ["credential-rotated", "credential-rotated"]);
    assert!(String::from_utf8(p.bytes(LINK)).unwrap().contains("refresh-in-place"));
}

#[test]
fn the_lock_does_not_cover_another_subscription_or_a_stub() {
    let p = place().with_two_slots();
    let holder = Process::start(None);
    lock(&p, &holder);
    let other = p.replace(&holder.caller(), LINK, &login_with("x", 7200, "pro"));
    p.assert_refused(other, Rule::Identity, "rename", &path(WORK));
    let stub = p.write(&holder.caller(), LINK, br#"{"claudeAiOauth":{"accessToken":"","refreshToken":""}}"#);
    p.assert_refused(stub, Rule::Identity, "write", &path(WORK));
}

#[test]
fn a_lock_counts_for_a_minute_after_its_last_touch() {
    let p = place().with_two_slots();
    let holder = Process::start(None);
    let lock = lock(&p, &holder);
    let touched = |seconds_ago| SetAttr {
        mtime: Some(SystemTime::now() - Duration::from_secs(seconds_ago)),
        ..SetAttr::default()
    };
    p.files.set_attr(&holder.caller(), lock, None, touched(61)).unwrap();
    p.assert_refused(p.write(&holder.caller(), LINK, &login("x")), Rule::Identity, "write", &path(WORK));
    p.files.set_attr(&holder.caller(), lock, None, touched(50)).unwrap();
    p.write(&holder.caller(), LINK, &login("x")).unwrap();
}

#[test]
fn a_lock_made_anew_by_another_is_not_the_old_holders() {
    let p = place().with_two_slots();
    let (first, second) = (Process::start(None), Process::start(None));
    lock(&p, &first);
    unlock(&p, &first);
    lock(&p, &second);
    p.assert_refused(p.write(&first.caller(), LINK, &login("x")), Rule::Identity, "write", &path(WORK));
    p.write(&second.caller(), LINK, &login("x")).unwrap();
}

#[test]
fn a_lock_elsewhere_or_of_another_name_is_no_witness() {
    let p = place().with_two_slots();
    let holder = Process::start(None);
    let dir = p.files.mkdir(&holder.caller(), p.top, OsStr::new("dir"), 0o700).unwrap();
    p.files.mkdir(&holder.caller(), dir.id, OsStr::new(LOCK), 0o700).unwrap();
    p.files.mkdir(&holder.caller(), p.top, OsStr::new("lock"), 0o700).unwrap();
    p.mv(&holder.caller(), "lock", LOCK).unwrap();
    p.assert_refused(p.write(&holder.caller(), LINK, &login("x")), Rule::Identity, "write", &path(WORK));
}
