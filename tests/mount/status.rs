//! What the exchange makes for its readers: directories of read-only files, and what stands in them.

use crate::common::Fixture;
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
