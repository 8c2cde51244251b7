//! Credential slots and the live link, as the programs that keep logins in them behave.

use crate::common::{Fixture, Mount};
use std::fs;
use std::io::Write;

/// A profile `claude` with the slots a (live) and b, in an exchange mounted as bob.
struct Profile {
    fixture: Fixture,
    bob: Mount,
}

impl Profile {
    fn new() -> Self {
        Self::with_identity("identity = \"rotating\"")
    }

    /// With other lines in place of `identity = "rotating"` in exchange.toml.
    fn with_identity(lines: &str) -> Self {
        let fixture = Fixture::new();
        fixture.reconfigure(|text| {
            assert!(text.contains("\nidentity = \"rotating\"\n"), "{text}");
            text.replace("identity = \"rotating\"", lines)
        });
        let bob = fixture.mount_as("bob");
        bob.bash("slots").ok();
        Profile { fixture, bob }
    }

    /// Runs a program of tests/clients/slots.py's kind, in the profile's folder.
    fn python(&self, program: &str) -> crate::common::Output {
        self.bob.python(&in_profile(program))
    }

    #[track_caller]
    fn refuses(&self, program: &str, text: &str, rule: &str) {
        self.bob.refuses_python(&in_profile(program), text, rule);
    }

    fn slot(&self, slot: &str) -> String {
        self.bob.read(&format!("credentials/claude/.credentials.json.{slot}"))
    }

    #[track_caller]
    fn link_points_at(&self, slot: &str) {
        let target = fs::read_link(self.bob.at("credentials/claude/.credentials.json"))
            .expect("the link stays a link");
        assert_eq!(target.to_str().unwrap(), format!(".credentials.json.{slot}"));
    }
}

fn in_profile(program: &str) -> String {
    format!("import os, json, slots, subprocess\nos.chdir('credentials/claude')\n{program}")
}

#[test]
fn an_unchanged_login_may_be_saved_again() {
    let profile = Profile::new();
    profile.python("slots.save(slots.login('account-a', extra=1))").ok();
    profile.link_points_at("a");
    assert!(profile.slot("a").contains("\"extra\""), "the slot has the bytes");
    profile.python("slots.save_in_place(slots.login('account-a', extra=2))").ok();
    profile.link_points_at("a");
    assert!(profile.slot("a").contains("\"extra\": 2"));
    assert!(profile.slot("b").contains("account-b"), "the other slot is as it was");
}

#[test]
fn a_refresh_under_its_lock_rotates_the_token() {
    let profile = Profile::new();
    for writer in ["save", "save_in_place"] {
        profile.python(&format!("slots.refresh({writer:?}, writer=slots.{writer})")).ok();
        assert!(profile.slot("a").contains(&format!("rt-account-a#{writer}")));
        profile.link_points_at("a");
    }
    assert!(profile.fixture.refusals().is_empty());
}

#[test]
fn a_refresh_keeps_its_lock_fresh_and_exclusive() {
    let profile = Profile::new();
    profile
        .python(
            "with slots.RefreshLock() as lock:\n\
             \x20   lock.touch()\n\
             \x20   try:\n\
             \x20       os.mkdir('.oauth_refresh.lock')\n\
             \x20   except FileExistsError:\n\
             \x20       pass\n\
             \x20   else:\n\
             \x20       raise AssertionError('two hold the lock')\n",
        )
        .ok();
}

#[test]
fn a_due_refresh_needs_no_lock() {
    let profile = Profile::new();
    profile.python("slots.save(slots.login('account-a', expires_in=10))").ok();
    profile.python("slots.save(slots.login('account-a#2'))").ok();
    assert!(profile.slot("a").contains("rt-account-a#2"));
}

#[test]
fn identity_refuses_a_login_through_the_link() {
    let profile = Profile::new();
    let before = profile.slot("a");
    profile.refuses("slots.save(slots.login('somebody-else'))", "Operation not permitted", "identity");
    assert_eq!(profile.slot("a"), before);
    profile.link_points_at("a");
    let kept = fs::read_dir(profile.fixture.dir().join("private/quarantine"))
        .unwrap()
        .filter(|e| {
            fs::read_to_string(e.as_ref().unwrap().path()).is_ok_and(|t| t.contains("rt-somebody-else"))
        })
        .count();
    assert_eq!(kept, 1, "the login is kept for `baton credentials adopt`");
}

#[test]
fn identity_refuses_a_login_in_place() {
    let profile = Profile::new();
    let before = profile.slot("a");
    profile.refuses(
        "slots.save_in_place(slots.login('somebody-else'))",
        "Operation not permitted",
        "identity",
    );
    assert_eq!(profile.slot("a"), before);
    profile.link_points_at("a");
}

#[test]
fn identity_refuses_a_login_into_the_slot_itself() {
    let profile = Profile::new();
    let before = profile.slot("b");
    profile.refuses(
        "slots.save(slots.login('somebody-else'), '.credentials.json.b')",
        "Operation not permitted",
        "identity",
    );
    profile.refuses(
        "slots.save_in_place(slots.login('somebody-else'), '.credentials.json.b')",
        "Operation not permitted",
        "identity",
    );
    assert_eq!(profile.slot("b"), before);
}

#[test]
fn identity_refuses_other_scopes_even_under_the_lock() {
    let profile = Profile::new();
    profile.refuses(
        "with slots.RefreshLock():\n    slots.save(slots.login('account-a#2', scopes=['everything']))",
        "Operation not permitted",
        "identity",
    );
    assert!(!profile.slot("a").contains("everything"));
}

#[test]
fn strict_identity_refuses_rotation_too() {
    let profile = Profile::with_identity("identity = \"strict\"");
    profile.refuses("slots.refresh(2)", "Operation not permitted", "identity");
    profile.python("slots.save(slots.login('account-a', extra=1))").ok();
}

#[test]
fn a_stub_never_enters_a_slot() {
    let profile = Profile::new();
    let before = profile.slot("a");
    profile.refuses("slots.save(slots.STUB)", "Operation not permitted", "identity");
    profile.refuses("slots.save_in_place(slots.STUB)", "Operation not permitted", "identity");
    assert_eq!(profile.slot("a"), before);
}

#[test]
fn a_torn_write_is_never_published() {
    let profile = Profile::new();
    let before = profile.slot("a");
    let carol = profile.fixture.mount_as("carol");
    let login: String = profile.python("print(slots.login('account-a', extra='x' * 3000), end='')").ok();
    let mut slot = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(profile.bob.at("credentials/claude/.credentials.json"))
        .unwrap();
    for piece in login.as_bytes().chunks(500) {
        let seen = carol.read("credentials/claude/.credentials.json");
        assert!(seen == before, "another reader sees the old login whole until the new one is complete");
        slot.write_all(piece).unwrap();
    }
    drop(slot);
    assert_eq!(carol.read("credentials/claude/.credentials.json"), login);
}

#[test]
fn a_torn_write_that_is_closed_changes_nothing() {
    let profile = Profile::new();
    let before = profile.slot("a");
    profile
        .python("fd = os.open('.credentials.json', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'{\"claudeAi'); os.close(fd)")
        .failed_with("");
    assert_eq!(profile.slot("a"), before);
    json_is_whole(&profile.bob.read("credentials/claude/.credentials.json"));
}

#[test]
fn the_mode_stays_private() {
    use std::os::unix::fs::PermissionsExt;
    let profile = Profile::new();
    profile.python("slots.save(slots.login('account-a', extra=1))").ok();
    let mode =
        fs::metadata(profile.bob.at("credentials/claude/.credentials.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn switching_by_symlink_and_rename() {
    let profile = Profile::new();
    profile.python("slots.switch('b')").ok();
    profile.link_points_at("b");
    assert!(profile.bob.read("credentials/claude/.credentials.json").contains("rt-account-b"));
    assert!(
        profile.bob.names("credentials/claude").contains(&".credentials.json.a.fingerprint.json".to_owned())
    );
    profile.python("slots.switch('a'); slots.switch('b'); slots.switch('a')").ok();
    profile.link_points_at("a");
}

#[test]
fn switching_by_ln_sfn() {
    let profile = Profile::new();
    profile.bob.bash("cd credentials/claude && ln -sfn .credentials.json.b .credentials.json").ok();
    profile.link_points_at("b");
}

#[test]
fn a_refresh_after_a_switch_reaches_the_new_slot() {
    let profile = Profile::new();
    profile.python("slots.switch('b'); slots.refresh(2)").ok();
    assert!(profile.slot("a").contains("rt-account-a\""));
    assert!(profile.slot("b").contains("rt-account-b#2"));
}

#[test]
fn identity_refuses_links_to_anything_but_a_slot() {
    let profile = Profile::new();
    for target in ["/etc/passwd", "../../inbox/bob.jsonl", "/tmp/mine.json", ".credentials.json"] {
        profile.bob.refuses(
            &format!("cd credentials/claude && ln -sfn {target} .credentials.json"),
            "Operation not permitted",
            "identity",
        );
        profile.link_points_at("a");
    }
}

#[test]
fn the_link_cannot_be_removed_or_become_something_else() {
    let profile = Profile::new();
    profile.bob.refuses("rm -f credentials/claude/.credentials.json", "Operation not permitted", "identity");
    profile.bob.refuses(
        "mv credentials/claude/.credentials.json credentials/claude/old",
        "Operation not permitted",
        "identity",
    );
    profile.link_points_at("a");
}

#[test]
fn stale_slot_refuses_a_switch_to_an_expired_login() {
    let profile = Profile::new();
    profile.bob.bash("login account-c 60 > credentials/claude/.credentials.json.c").ok();
    profile.refuses("slots.switch('c')", "Key has expired", "stale-slot");
    profile.link_points_at("a");
}

#[test]
fn stale_slot_refuses_a_switch_to_a_slot_that_is_not_there() {
    let profile = Profile::new();
    profile.refuses("slots.switch('none')", "Key has expired", "stale-slot");
    profile.link_points_at("a");
}

#[test]
fn only_entitled_agents_use_a_profile() {
    let profile = Profile::with_identity("agents = [\"bob\"]");
    let carol = profile.fixture.mount_as("carol");
    carol.refuses(
        "ln -sfn .credentials.json.b credentials/claude/.credentials.json",
        "Permission denied",
        "authority",
    );
    carol.refuses(
        "cd credentials/claude && python3 -c 'import slots; slots.save(slots.login(\"account-a\"))'",
        "Permission denied",
        "authority",
    );
    profile.link_points_at("a");
}

#[test]
fn adopt_heals_a_slot_with_the_refused_login() {
    let profile = Profile::new();
    profile.refuses("slots.save(slots.login('somebody-else'))", "Operation not permitted", "identity");
    profile.fixture.baton(&["credentials", "adopt", "--profile", "claude", "a"]).ok();
    assert!(profile.slot("a").contains("rt-somebody-else"));
    profile.python("slots.save(slots.login('somebody-else', extra=1))").ok();
    profile.fixture.verify();
}

#[test]
fn the_operator_switches_and_looks() {
    let profile = Profile::new();
    profile.fixture.baton(&["credentials", "switch", "--profile", "claude", "b"]).ok();
    profile.link_points_at("b");
    let status = profile.fixture.baton(&["credentials", "status"]).ok();
    assert!(status.contains("claude") && status.contains('b'), "{status}");
    assert!(!status.contains("rt-account"), "tokens are never shown: {status}");
}

#[test]
fn everything_else_in_a_profile_is_an_ordinary_file() {
    let profile = Profile::new();
    profile
        .bob
        .bash(
            "cd credentials/claude && mkdir sub && echo one > sub/f && echo two >> sub/f && mv sub/f sub/g && ln -s g sub/l \
             && cat sub/l && cp sub/g h && truncate -s 3 h && chmod 640 h && touch -d 2001-01-01 h && sed -i s/one/six/ sub/g \
             && exec 3<> h && echo over >&3 && exec 3>&- && rm sub/l sub/g h && rmdir sub",
        )
        .ok();
}

fn json_is_whole(text: &str) {
    serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|e| panic!("{e} in {text:?}"));
}
