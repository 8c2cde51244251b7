//! What the exchange makes for its readers: directories of read-only files, and what stands in them.

use crate::common::{Fixture, wait_until};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

#[test]
fn directories_of_views_are_listed_read_and_never_changed_under_both_names() {
    let fixture = Fixture::new();
    let mount = fixture.mount_as("bob");
    fs::write(fixture.dir().join("trust/alice.card.json"), "{\"name\":\"alice\"}").unwrap();
    fs::write(fixture.dir().join("trust/.alice.card.json.tmp"), "{").unwrap();
    for top in ["", "_coordination/"] {
        assert_eq!(
            mount.names(&format!("{top}trust")),
            ["alice.card.json", "bob.card.json", "carol.card.json"]
        );
        let card = format!("{top}trust/alice.card.json");
        assert_eq!(mount.read(&card), "{\"name\":\"alice\"}");
        assert_eq!(fs::metadata(mount.at(&card)).unwrap().len(), 16);
        mount.refuses(&format!("echo x > {card}"), "Operation not permitted", "read-only");
        mount.refuses(&format!("rm -f {card}"), "Operation not permitted", "read-only");
        mount.refuses(&format!("echo x > {top}trust/bob.card.json"), "Operation not permitted", "read-only");
        mount.refuses(&format!("mkdir {top}trust/x"), "Operation not permitted", "read-only");
        mount.refuses(&format!("rmdir {top}trust"), "Operation not permitted", "read-only");
        mount.refuses(&format!("mv {top}trust {top}archive/"), "Operation not permitted", "read-only");
        mount.bash(&format!("cat {top}trust/zoe.card.json")).failed_with("No such file or directory");
        mount.bash(&format!("cat {card}/x")).failed_with("Not a directory");
        mount.bash(&format!("[ -d {top}trust ] && [ ! -w {top}trust ] && [ ! -w {card} ]")).ok();
    }
    let inode = |path: &str| fs::metadata(mount.at(path)).unwrap().ino();
    assert_eq!(inode("trust/alice.card.json"), inode("_coordination/trust/alice.card.json"));
    assert_ne!(inode("trust"), inode("_coordination/trust"));
    let refused = mount.refusals();
    assert!(refused[0]["advice"].as_str().unwrap().contains("trust/alice.card.json is kept by the exchange"));
    mount.bash("jq -e '.T1_active == 90' tiers.json").ok();
}

#[test]
fn status_is_small_files_to_cat_each_as_long_as_stat_says() {
    let fixture = Fixture::new();
    let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
    alice.bash(r#"echo '{"type":"request","subject":"review?","body":"PR 12"}' >> inbox/bob.jsonl"#).ok();
    assert_eq!(
        bob.names("status"),
        ["incidents.json", "me", "peers", "peers.json", "proposals.json", "safe_mode", "unread"]
    );
    assert_eq!(bob.names("status/peers"), ["alice", "carol"]);
    assert_eq!(bob.names("_coordination/status/peers"), ["alice", "carol"]);
    assert_eq!(bob.bash("cat status/me status/unread status/safe_mode").ok(), "bob\n1\noff\n");
    assert_eq!(alice.bash("cat status/me status/unread").ok(), "alice\n0\n");
    bob.bash("tail -n 1 inbox/bob.jsonl | jq -e '.subject == \"review?\"'").ok();
    assert_eq!(bob.read("status/unread"), "0\n");
    let peer = bob.read("status/peers/alice");
    assert!(peer.contains("last_action: request") && peer.contains("activity: T1_active"), "{peer}");
    bob.bash("for f in status/*.json; do jq -e . $f > /dev/null || exit 1; done").ok();
    bob.bash("jq -e '.you.agent == \"bob\" and .peers.alice.trust == \"ATTESTED\"' status/peers.json").ok();
    // What differs by its reader differs in length too, and stat tells each its own.
    for mount in [&bob, &alice] {
        for file in ["README.md", "SKILL.md", "status/me", "status/unread", "_coordination/status/me"] {
            assert_eq!(fs::metadata(mount.at(file)).unwrap().len(), mount.read(file).len() as u64, "{file}");
        }
    }
    bob.refuses("echo x > status/me", "Operation not permitted", "read-only");
    bob.refuses("echo x > status/note", "Operation not permitted", "read-only");
    bob.refuses("rm -rf status", "Operation not permitted", "read-only");
}

#[test]
fn a_text_and_its_size_stay_as_they_are_while_it_is_open() {
    let fixture = Fixture::new();
    let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
    let file = std::fs::File::open(bob.at("status/unread")).unwrap();
    for _ in 0..12 {
        alice.bash(r#"echo '{"type":"request","subject":"s","body":"b"}' >> inbox/bob.jsonl"#).ok();
    }
    assert_eq!(bob.bash("cat status/unread").ok(), "12\n");
    assert_eq!(file.metadata().unwrap().len(), 2, "as long as it is read");
    assert_eq!(std::io::read_to_string(&file).unwrap(), "0\n");
    drop(file);
    assert_eq!(fs::metadata(bob.at("status/unread")).unwrap().len(), 3);
    // Node reads as many bytes as fstat says.
    let script = "console.log(JSON.stringify(require('fs').readFileSync('status/unread', 'utf8')))";
    assert_eq!(bob.node(script).ok(), "\"12\\n\"\n");
}

#[test]
fn the_mount_of_an_agent_sends_its_heartbeats_for_as_long_as_it_stands() {
    let fixture = Fixture::new();
    fixture.reconfigure(|text| text.replace("[agents.\"bob\"]", "[agents.\"bob\"]\nheartbeat = true"));
    let alice = fixture.mount_as("alice");
    assert_eq!(alice.read("outbox/bob.jsonl"), "");
    let bob = fixture.mount_as("bob");
    wait_until("bob's heartbeat arrived", || alice.read("inbox/alice.jsonl").contains("heartbeat"));
    alice.bash("jq -e '.body | .wakeup_count == 1 and .state == \"idle\"' inbox/alice.jsonl").ok();
    alice.bash("grep -q '^state: idle' status/peers/bob").ok();
    alice.bash("jq -e '.peers.bob.heartbeats_by_mount' status/peers.json").ok();
    bob.umount();
    alice.bash("jq -e '.peers.bob.heartbeats_by_mount | not' status/peers.json").ok();
    fixture.verify();
}
