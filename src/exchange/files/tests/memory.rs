//! memory/<agent>/: whose it is, and that files are the same by their numbers on disk.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

struct Memories {
    dir: TempDir,
    desk: Arc<Desk>,
    files: Files,
    /// memory/bob
    bob: FileId,
    /// memory/eve
    eve: FileId,
}

fn memories() -> Memories {
    memories_in(TempDir::new().unwrap())
}

fn memories_in(dir: TempDir) -> Memories {
    let toml = format!(
        "[agents.bob]\nuid = {BOB}\n[agents.eve]\nuid = {EVE}\n[credentials.claude]\nformat = \"claude\""
    );
    let desk = Arc::new(Desk::default());
    let office: Arc<dyn Office> = desk.clone();
    let files = Files::new(dir.path(), &Config::parse(&toml).unwrap(), Arc::downgrade(&office), &[]).unwrap();
    let of = |agent| files.lookup(&operator(), files.memory(), OsStr::new(agent)).unwrap().id;
    let (bob, eve) = (of("bob"), of("eve"));
    Memories { dir, desk, files, bob, eve }
}

impl Memories {
    fn write(&self, who: &Caller, dir: FileId, name: &str) -> Outcome<FileEntry> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let (entry, open) = self.files.create(who, dir, OsStr::new(name), 0o644, flags)?;
        self.files.write(who, &open, 0, false, name.as_bytes())?;
        Ok(entry)
    }
    #[track_caller]
    fn assert_refused(&self, result: Outcome<impl Sized>, rule: Rule, path: &str) -> String {
        let denied = result.err().expect("it should be refused");
        assert_eq!(denied.errno(), rule.errno(), "{denied}");
        let (_, at, broken, _) = self.desk.refused.lock().pop().unwrap();
        assert_eq!((at.as_str(), broken), (path, rule));
        denied.to_string()
    }
}

/// An agent through a mount of its own.
fn bound(name: &str) -> Caller {
    Caller { bound: Some(agent(name)), ..operator() }
}

#[test]
fn authority_an_agent_changes_its_own_memory_only_and_reads_everybodys() {
    let m = memories();
    let (bob, eve) = (bound("bob"), bound("eve"));
    let note = m.write(&bob, m.bob, "note").unwrap();
    let sub = m.files.mkdir(&bob, m.bob, OsStr::new("sub"), 0o755).unwrap();
    m.write(&bob, sub.id, "deep").unwrap();
    let open = m.files.open(&eve, note.id, libc::O_RDONLY).unwrap();
    assert_eq!(m.files.read(&open, 0, 100).unwrap(), b"note");
    assert_eq!(m.files.list(&eve, m.bob).unwrap().len(), 2);
    let advice = m.assert_refused(m.write(&eve, m.bob, "x"), Rule::Authority, "memory/bob/x");
    assert!(advice.contains("memory of bob") && advice.contains("memory/eve/"), "{advice}");
    let name = OsStr::new("note");
    m.assert_refused(m.files.unlink(&eve, m.bob, name), Rule::Authority, "memory/bob/note");
    m.assert_refused(m.files.set_attr(&eve, note.id, None, size(0)), Rule::Authority, "memory/bob/note");
    let deep = m.files.mkdir(&eve, sub.id, OsStr::new("y"), 0o755);
    m.assert_refused(deep, Rule::Authority, "memory/bob/sub/y");
    let opened = m.files.open(&eve, note.id, libc::O_RDWR).map(|_| ());
    m.assert_refused(opened, Rule::Authority, "memory/bob/note");
    m.write(&eve, m.eve, "mine").unwrap();
    m.write(&operator(), m.bob, "from the operator").unwrap();
    assert!(m.desk.refused.lock().is_empty());
}

#[test]
fn authority_no_stranger_changes_a_memory() {
    let m = memories();
    let stranger = caller(STRANGER);
    m.write(&operator(), m.bob, "note").unwrap();
    let advice = m.assert_refused(m.write(&stranger, m.bob, "x"), Rule::Authority, "memory/bob/x");
    assert!(advice.contains("uid 4242"), "{advice}");
    let note = m.files.lookup(&stranger, m.bob, OsStr::new("note")).unwrap();
    m.files.open(&stranger, note.id, libc::O_RDONLY).unwrap();
}

#[test]
fn modes_of_a_memory_bind_as_on_disk() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let m = memories();
    let (bob, eve, stranger) = (caller(BOB), caller(EVE), caller(STRANGER));
    let top = std::fs::metadata(m.dir.path().join("memory/bob")).unwrap();
    assert_eq!((top.uid(), top.mode() & 0o7777), (BOB, 0o755));
    let note = m.write(&bob, m.bob, "note").unwrap();
    assert_eq!((note.attr.uid, note.attr.gid, note.attr.mode), (BOB, BOB, 0o644));
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    m.files.set_attr(&bob, note.id, None, private).unwrap();
    for other in [&eve, &stranger] {
        assert_errno(m.files.open(other, note.id, libc::O_RDONLY), libc::EACCES);
    }
    let closed = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    m.files.set_attr(&bob, m.bob, None, closed).unwrap();
    assert_errno(m.files.lookup(&eve, m.bob, OsStr::new("note")), libc::EACCES);
    assert_errno(m.files.list(&stranger, m.bob), libc::EACCES);
    assert!(m.desk.refused.lock().is_empty(), "modes are no rule of the exchange's");
}

#[test]
fn read_only_only_the_agents_folders_stand_directly_under_memory() {
    let m = memories();
    let (files, memory) = (&m.files, m.files.memory());
    for who in [operator(), bound("bob")] {
        m.assert_refused(m.write(&who, memory, "x"), Rule::ReadOnly, "memory/x");
        let made = files.mkdir(&who, memory, OsStr::new("zoe"), 0o755);
        let advice = m.assert_refused(made, Rule::ReadOnly, "memory/zoe");
        assert!(advice.contains("memory/<agent>/"), "{advice}");
        m.assert_refused(files.rmdir(&who, memory, OsStr::new("bob")), Rule::ReadOnly, "memory/bob");
    }
    let mut names: Vec<_> =
        files.list(&bound("eve"), memory).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, ["bob", "eve"]);
}

#[test]
fn areas_are_as_separate_as_disks() {
    let m = memories();
    let note = m.write(&operator(), m.bob, "note").unwrap();
    let claude = m.files.lookup(&operator(), m.files.credentials(), OsStr::new("claude")).unwrap().id;
    for elsewhere in [m.eve, claude] {
        let name = OsStr::new("note");
        assert_errno(m.files.rename(&operator(), m.bob, name, elsewhere, name, 0), libc::EXDEV);
        assert_errno(m.files.link(&operator(), note.id, elsewhere, name), libc::EXDEV);
    }
}

#[test]
fn nothing_is_guarded_in_a_memory() {
    let m = memories();
    m.write(&bound("bob"), m.bob, LINK).unwrap();
    m.write(&bound("bob"), m.bob, WORK).unwrap();
    m.files.rename(&bound("bob"), m.bob, OsStr::new(WORK), m.bob, OsStr::new(LINK), 0).unwrap();
    assert_eq!(std::fs::read(m.dir.path().join("memory/bob").join(LINK)).unwrap(), WORK.as_bytes());
}

#[test]
fn a_file_keeps_its_number_through_forgetting_renaming_and_a_restart() {
    let m = memories();
    let note = m.write(&operator(), m.bob, "note").unwrap();
    let other = m.write(&operator(), m.bob, "other").unwrap();
    assert_ne!(note.id, other.id);
    let linked = m.files.link(&operator(), note.id, m.bob, OsStr::new("linked")).unwrap();
    assert_eq!(linked.id, note.id);
    m.files.forget(note.id, 2);
    m.files.rename(&operator(), m.bob, OsStr::new("note"), m.bob, OsStr::new("renamed"), 0).unwrap();
    let Memories { dir, files, .. } = m;
    drop(files);
    let m = memories_in(dir);
    for name in ["renamed", "linked"] {
        assert_eq!(m.files.lookup(&operator(), m.bob, OsStr::new(name)).unwrap().id, note.id);
    }
    let mut listed: Vec<_> =
        m.files.list(&operator(), m.bob).unwrap().into_iter().map(|e| (e.name, e.id)).collect();
    listed.sort();
    let expected =
        [("linked", note.id), ("other", other.id), ("renamed", note.id)].map(|(n, id)| (n.into(), id));
    assert_eq!(listed, expected);
}

#[test]
fn a_slot_keeps_its_number_through_writes_and_a_restart() {
    let p = place().with_two_slots();
    let (work, home) = (p.find(WORK).unwrap().id, p.find(HOME).unwrap().id);
    assert_ne!(work, home);
    let inode = || std::fs::metadata(p.on_disk(WORK)).unwrap().ino();
    let was = inode();
    p.replace(&operator(), LINK, &login_with("work", 9000, "max")).unwrap();
    assert_ne!(inode(), was);
    assert_eq!(p.find(WORK).unwrap().id, work);
    let in_list = |p: &Place, name: &str| {
        p.files.list(&operator(), p.top).unwrap().into_iter().find(|entry| entry.name == name).unwrap().id
    };
    assert_eq!((in_list(&p, WORK), in_list(&p, HOME)), (work, home));
    let Place { dir, .. } = p;
    let p = place_with(dir, false);
    assert_eq!((in_list(&p, WORK), p.find(HOME).unwrap().id), (work, home));
}

#[test]
fn names_are_volatile_where_a_rename_may_write_a_slot_and_open_where_all_may_search() {
    let p = place().with_two_slots();
    assert!(p.files.is_volatile(p.top, NodeKind::File) && p.files.is_volatile(p.top, NodeKind::Symlink));
    assert!(!p.files.is_volatile(p.top, NodeKind::Directory));
    let sub = p.files.mkdir(&operator(), p.top, OsStr::new("sub"), 0o755).unwrap().id;
    assert!(!p.files.is_volatile(sub, NodeKind::File));
    assert!(p.files.is_open_to_all(sub));
    std::fs::set_permissions(p.on_disk("sub"), PermissionsExt::from_mode(0o750)).unwrap();
    assert!(!p.files.is_open_to_all(sub));
    std::fs::set_permissions(p.on_disk(""), PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!p.files.is_open_to_all(p.top), "claude is for bob and alice only");
    let other = p.files.lookup(&operator(), p.files.credentials(), OsStr::new("other")).unwrap().id;
    assert!(!p.files.is_open_to_all(other), "0700");
    std::fs::set_permissions(p.dir.path().join("credentials/other"), PermissionsExt::from_mode(0o755))
        .unwrap();
    assert!(p.files.is_open_to_all(other) && p.files.is_open_to_all(p.files.credentials()));
}

#[test]
fn nothing_is_kept_while_there_are_two_mounts() {
    let m = memories();
    m.files.join();
    assert_eq!(m.files.moment(), kept::MOMENT);
    let start = std::time::Instant::now();
    m.files.join();
    assert!(start.elapsed() >= kept::MOMENT, "what was kept has run out");
    assert!(m.files.moment().is_zero());
    let start = std::time::Instant::now();
    m.files.leave();
    m.files.leave();
    m.files.join();
    assert_eq!(m.files.moment(), kept::MOMENT);
    assert!(start.elapsed() < kept::MOMENT);
}
