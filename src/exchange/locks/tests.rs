//! The locks against the kernel's own, without a mount.

use super::held::{Range, changed};
use super::*;
use parking_lot::Mutex as Lock;
use std::time::{Duration, Instant};

fn range(start: u64, end: u64, mode: LockMode) -> Range {
    Range { start, end, mode }
}

fn place() -> (tempfile::TempDir, LockFile, Locks) {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("f");
    let file = File::options().create_new(true).read(true).write(true).open(path).unwrap();
    (dir, LockFile::OnDisk(Arc::new(file)), Locks::default())
}

fn by(id: u64, kind: LockKind, mode: LockMode, (start, end): (u64, u64)) -> LockRequest {
    let owner = LockOwner { mount: 0, id };
    LockRequest { owner, handle: id * 10, kind, mode, start, end, pid: 1000 + id as u32, thread: 0 }
}

fn ranges(id: u64, mode: LockMode, span: (u64, u64)) -> LockRequest {
    by(id, LockKind::Range, mode, span)
}

fn whole(id: u64, mode: LockMode) -> LockRequest {
    by(id, LockKind::Whole, mode, (0, TO_THE_END))
}

/// Answers as they come: who, and which errno (0 for a lock).
type Answers = Arc<Lock<Vec<(u64, i32)>>>;

fn ask(locks: &Locks, file: &LockFile, request: LockRequest, wait: bool, answers: &Answers) {
    let answers = answers.clone();
    let reply = move |done: Outcome<()>| {
        let errno = done.err().map_or(0, |denied| denied.errno());
        answers.lock().push((request.owner.id, errno));
    };
    locks.set(file, request, wait, Box::new(reply));
}

fn set(locks: &Locks, file: &LockFile, request: LockRequest) -> i32 {
    let answers = Answers::default();
    ask(locks, file, request, false, &answers);
    let answer = answers.lock().pop().expect("who does not wait is answered at once");
    answer.1
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_new_range_cuts_those_that_it_covers() {
    use LockMode::{Read, Unlocked, Write};
    let one = changed(&[], range(0, 99, Read));
    let two = changed(&one, range(10, 19, Write));
    assert_eq!(two, [range(0, 9, Read), range(20, 99, Read), range(10, 19, Write)]);
    assert_eq!(
        changed(&two, range(5, TO_THE_END, Unlocked)),
        [range(0, 4, Read)],
        "to the end means for ever"
    );
    assert!(changed(&two, range(0, 99, Unlocked)).is_empty());
}

#[test]
fn owners_exclude_one_another_where_their_ranges_meet() {
    use LockMode::{Read, Unlocked, Write};
    let (_dir, file, locks) = place();
    assert_eq!(set(&locks, &file, ranges(1, Write, (0, 9))), 0);
    assert_eq!(set(&locks, &file, ranges(2, Write, (10, 19))), 0);
    assert_eq!(set(&locks, &file, ranges(2, Read, (9, 9))), libc::EAGAIN);
    let found = locks.test(&file, &ranges(3, Read, (5, TO_THE_END))).unwrap().unwrap();
    assert_eq!(found, LockFound { mode: Write, start: 0, end: 9, pid: 1001 });
    assert_eq!(locks.test(&file, &ranges(1, Write, (0, 9))).unwrap(), None, "one's own is in nobody's way");
    assert_eq!(locks.test(&file, &ranges(3, Write, (100, 200))).unwrap(), None);
    assert_eq!(set(&locks, &file, ranges(1, Unlocked, (0, TO_THE_END))), 0);
    assert_eq!(set(&locks, &file, ranges(2, Read, (9, 9))), 0);
    assert_eq!(set(&locks, &file, ranges(3, Read, (9, 9))), 0);
}

#[test]
fn flock_and_fcntl_do_not_see_each_other_but_what_may_be_either_sees_both() {
    use LockMode::{Unlocked, Write};
    let (_dir, file, locks) = place();
    let either = |id, mode| by(id, LockKind::Either, mode, (0, TO_THE_END));
    assert_eq!(set(&locks, &file, whole(1, Write)), 0);
    assert_eq!(set(&locks, &file, ranges(2, Write, (0, TO_THE_END))), 0);
    assert_eq!(set(&locks, &file, whole(3, Write)), libc::EAGAIN);
    assert_eq!(set(&locks, &file, either(4, Write)), libc::EAGAIN);
    assert_eq!(set(&locks, &file, ranges(2, Unlocked, (0, TO_THE_END))), 0);
    assert_eq!(set(&locks, &file, either(4, Write)), libc::EAGAIN);
    assert_eq!(set(&locks, &file, ranges(3, Write, (0, 0))), 0, "a try that failed has left nothing");
    assert_eq!(set(&locks, &file, ranges(3, Unlocked, (0, 0))), 0);
    assert_eq!(set(&locks, &file, whole(1, Unlocked)), 0);
    assert_eq!(set(&locks, &file, either(4, Write)), 0);
    assert_eq!(set(&locks, &file, whole(1, Write)), libc::EAGAIN);
    assert_eq!(set(&locks, &file, ranges(2, Write, (7, 7))), libc::EAGAIN);
    assert_eq!(set(&locks, &file, either(4, Unlocked)), 0);
    assert_eq!(locks.0.owners.load(Ordering::Relaxed), 0);
}

#[test]
fn they_exclude_who_locks_the_file_behind_the_mount() {
    let (dir, file, locks) = place();
    assert_eq!(set(&locks, &file, whole(1, LockMode::Write)), 0);
    let behind = File::open(dir.path().join("f")).unwrap();
    assert!(behind.try_lock().is_err());
    locks.released(0, 10);
    behind.try_lock().unwrap();
    assert_eq!(set(&locks, &file, whole(1, LockMode::Read)), libc::EAGAIN);
    assert_eq!(locks.0.owners.load(Ordering::Relaxed), 0);
}

#[test]
fn closing_drops_what_is_the_process_s_and_the_last_close_what_is_the_open_file_s() {
    let (_dir, file, locks) = place();
    let free = |locks: &Locks| locks.test(&file, &ranges(9, LockMode::Write, (0, 0))).unwrap().is_none();
    assert_eq!(set(&locks, &file, ranges(1, LockMode::Write, (0, 0))), 0);
    locks.closed(&file, LockOwner { mount: 1, id: 1 }, 10);
    assert!(!free(&locks), "another mount's owner of the same number is another");
    locks.closed(&file, LockOwner { mount: 0, id: 1 }, 10);
    assert!(free(&locks));
    let mut other_handle = ranges(1, LockMode::Write, (0, 0));
    assert_eq!(set(&locks, &file, other_handle), 0);
    other_handle.handle = 11;
    assert_eq!(set(&locks, &file, other_handle), 0);
    locks.released(0, 10);
    assert!(!free(&locks));
    locks.released(0, 11);
    assert!(free(&locks));
    assert_eq!(set(&locks, &file, ranges(1, LockMode::Write, (0, 0))), 0);
    locks.unmounted(0);
    assert!(free(&locks));
}

#[test]
fn who_waits_gets_the_lock_in_turn_when_it_is_given_up() {
    let (_dir, file, locks) = place();
    let answers = Answers::default();
    assert_eq!(set(&locks, &file, whole(1, LockMode::Write)), 0);
    for id in [2, 3] {
        ask(&locks, &file, whole(id, LockMode::Write), true, &answers);
    }
    std::thread::sleep(Duration::from_millis(120));
    assert!(answers.lock().is_empty());
    assert_eq!(set(&locks, &file, whole(1, LockMode::Unlocked)), 0);
    until(|| *answers.lock() == [(2, 0)]);
    locks.released(0, 20);
    until(|| *answers.lock() == [(2, 0), (3, 0)]);
    until(|| !locks.0.table.lock().attended);
}

#[test]
fn who_waits_gets_the_lock_that_is_given_up_behind_the_mount() {
    let (dir, file, locks) = place();
    let behind = File::open(dir.path().join("f")).unwrap();
    behind.lock().unwrap();
    let answers = Answers::default();
    ask(&locks, &file, whole(1, LockMode::Read), true, &answers);
    std::thread::sleep(Duration::from_millis(60));
    assert!(answers.lock().is_empty());
    behind.unlock().unwrap();
    until(|| *answers.lock() == [(1, 0)]);
}

#[test]
fn who_is_gone_waits_no_more() {
    let (_dir, file, locks) = place();
    let answers = Answers::default();
    assert_eq!(set(&locks, &file, whole(1, LockMode::Write)), 0);
    let gone = LockRequest { thread: u32::MAX, ..whole(2, LockMode::Write) };
    ask(&locks, &file, gone, true, &answers);
    until(|| *answers.lock() == [(2, libc::EINTR)]);
    let unmounted = LockRequest { owner: LockOwner { mount: 7, id: 3 }, ..whole(3, LockMode::Write) };
    ask(&locks, &file, unmounted, true, &answers);
    locks.unmounted(7);
    assert_eq!(answers.lock().last(), Some(&(3, libc::EINTR)));
}

#[test]
fn a_lock_whose_file_is_being_closed_is_waited_for_a_moment() {
    let (_dir, file, locks) = place();
    assert_eq!(set(&locks, &file, whole(1, LockMode::Write)), 0);
    assert_eq!(set(&locks, &file, whole(2, LockMode::Write)), libc::EAGAIN, "at once");
    let process = LockOwner { mount: 0, id: 99 };
    locks.closed(&file, process, 10);
    let answers = Answers::default();
    ask(&locks, &file, whole(2, LockMode::Write), false, &answers);
    assert!(answers.lock().is_empty());
    locks.released(0, 10);
    until(|| *answers.lock() == [(2, 0)]);
    locks.closed(&file, process, 20);
    ask(&locks, &file, whole(3, LockMode::Write), false, &answers);
    until(|| *answers.lock() == [(2, 0), (3, libc::EAGAIN)]);
}

#[test]
fn what_has_no_file_on_disk_is_locked_by_its_name() {
    let locks = Locks::default();
    let log = LockFile::Named("inbox/bob.jsonl".to_owned());
    assert_eq!(set(&locks, &log, whole(1, LockMode::Write)), 0);
    assert_eq!(set(&locks, &log, whole(2, LockMode::Read)), libc::EAGAIN);
    assert_eq!(set(&locks, &log, ranges(2, LockMode::Write, (3, 4))), 0);
    assert_eq!(set(&locks, &LockFile::Named("inbox/eve.jsonl".to_owned()), whole(2, LockMode::Write)), 0);
    assert_eq!(set(&locks, &log, whole(1, LockMode::Unlocked)), 0);
    assert_eq!(set(&locks, &log, whole(2, LockMode::Read)), 0);
}
