//! Who is calling: bound mounts, the operator, and what the tree's owners and modes say.

use crate::common::Fixture;
use std::os::unix::fs::MetadataExt;

#[test]
fn a_bound_mount_is_its_agent_whoever_runs_it() {
    let fixture = Fixture::new();
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    bob.bash("line bob >> inbox/alice.jsonl").ok();
    alice.bash("line alice >> inbox/bob.jsonl").ok();
    alice.refuses("l=$(line bob); echo \"$l\" >> inbox/carol.jsonl", "Permission denied", "authority");
    bob.refuses("l=$(line alice); echo \"$l\" >> inbox/carol.jsonl", "Permission denied", "authority");
}

#[test]
fn the_operator_acts_for_any_agent_but_needs_their_signatures() {
    let fixture = Fixture::new();
    let operator = fixture.mount_as_operator();
    operator.bash("line bob >> inbox/alice.jsonl; line carol >> carol_to_bob.jsonl").ok();
    operator.bash("handoff bob alice > handoff/x.json && mv handoff/x.json claimed/").ok();
    operator.refuses(
        "l=$(line bob hello | tamper hello jello); echo \"$l\" >> inbox/alice.jsonl",
        "Key was rejected by service",
        "event-id",
    );
    operator.refuses("l=$(line bob); echo \"$l\" >> carol_to_bob.jsonl", "Permission denied", "authority");
    fixture.verify();
}

#[test]
fn a_relay_may_carry_what_others_signed() {
    let fixture = Fixture::new();
    fixture.reconfigure(|text| text.replace("[agents.\"bob\"]", "[agents.\"bob\"]\nmay_relay = true"));
    let bob = fixture.mount_as("bob");
    bob.bash("l=$(line carol); echo \"$l\" >> inbox/alice.jsonl").ok();
    assert_eq!(bob.read("inbox/alice.jsonl").lines().count(), 1);
}

#[test]
fn an_unknown_agent_cannot_be_mounted_as() {
    let fixture = Fixture::new();
    let mountpoint = fixture.new_mountpoint();
    let output = fixture.baton(&[
        "mount",
        fixture.dir().to_str().unwrap(),
        mountpoint.to_str().unwrap(),
        "--as",
        "zoe",
    ]);
    output.failed_with("zoe");
    assert!(!crate::common::is_mounted(&mountpoint));
}

#[test]
fn files_show_sensible_owners_and_modes() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("line bob >> inbox/alice.jsonl; handoff bob alice > handoff/x.json").ok();
    let mode = |path: &str| std::fs::symlink_metadata(bob.at(path)).unwrap().mode();
    let views =
        ["events.jsonl", "refusals.jsonl", "trust.json", "README.md", "SKILL.md", "PROTOCOL.md", "status"];
    for view in views {
        assert_eq!(mode(view) & 0o222, 0, "{view} is not writable by its mode");
    }
    assert_ne!(mode("inbox/alice.jsonl") & 0o200, 0);
    assert_eq!(mode("inbox/alice.jsonl") & 0o111, 0);
    assert_eq!(mode("handoff/x.json") & 0o222, 0, "a published handoff is not writable by its mode");
    for folder in ["inbox", "handoff", "claimed", "archive", "rejected", "credentials"] {
        assert_eq!(mode(folder) & 0o170_000, 0o040_000, "{folder}");
        // Where every agent may make files, the sticky bit says that they are not everybody's to remove.
        assert_ne!(mode(folder) & 0o1002, 0o0002, "{folder}");
    }
}

#[test]
fn test_says_what_the_modes_say() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.bash("slots; handoff bob alice > handoff/x.json; echo a > credentials/claude/f").ok();
    let may = |path: &str| {
        let script = format!("for t in r w x; do [ -$t {path} ] && printf $t; done; true");
        bob.bash(&script).ok()
    };
    assert_eq!(may("inbox/alice.jsonl"), "rw");
    assert_eq!(may("_coordination/inbox/alice.jsonl"), "rw");
    assert_eq!(may("handoff"), "rwx");
    assert_eq!(may("handoff/x.json"), "r");
    assert_eq!(may("trust.json"), "r");
    assert_eq!(may("README.md"), "r");
    assert_eq!(may("credentials/claude"), "rwx");
    assert_eq!(may("credentials/claude/.credentials.json"), "rw");
    assert_eq!(may("credentials/claude/f"), "rw");
    bob.bash("chmod +x credentials/claude/f").ok();
    assert_eq!(may("credentials/claude/f"), "rwx");
    assert!(bob.refusals().is_empty(), "asking is no attempt");
}

#[test]
fn the_tree_has_what_the_design_says() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    let names = bob.names("");
    for name in [
        "PROTOCOL.md",
        "README.md",
        "SKILL.md",
        "_coordination",
        "archive",
        "claimed",
        "credentials",
        "decisions.jsonl",
        "events.jsonl",
        "handoff",
        "inbox",
        "incident_log.jsonl",
        "refusals.jsonl",
        "rejected",
        "status",
        "tiers.json",
        "trust",
        "trust.json",
    ] {
        assert!(names.contains(&name.to_owned()), "{name} is missing in {names:?}");
    }
    assert_eq!(bob.names("inbox"), ["alice.jsonl", "bob.jsonl", "carol.jsonl"]);
    assert!(bob.read("README.md").len() > 100);
    let trust: serde_json::Value = serde_json::from_str(&bob.read("trust.json")).unwrap();
    assert_eq!(trust["schema_version"], "v3.1");
}
