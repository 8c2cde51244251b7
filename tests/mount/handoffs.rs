//! The handoff state machine as peers drive it: files created and renamed.

use crate::common::{Fixture, Mount, Output, count_from_env, run, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;

/// An exchange mounted as bob (who sends) and as alice (who receives).
struct Pair {
    fixture: Fixture,
    bob: Mount,
    alice: Mount,
}

impl Pair {
    fn new() -> Self {
        let fixture = Fixture::new();
        let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
        Pair { fixture, bob, alice }
    }

    /// With `handoff/x.json` from bob to alice published.
    fn with_pending() -> Self {
        let pair = Pair::new();
        pair.bob.bash("handoff bob alice > handoff/x.json").ok();
        pair
    }

    /// Where every handoff is; the reasons beside the rejected ones are left out.
    fn place(&self) -> String {
        let mut places = Vec::new();
        for state in ["handoff", "claimed", "archive", "rejected"] {
            let names = self.alice.names(state).into_iter().filter(|name| !name.ends_with(".reason.json"));
            places.extend(names.map(|name| format!("{state}/{name}")));
        }
        places.join(" ")
    }
}

#[test]
fn a_handoff_is_published_by_creating_it() {
    let pair = Pair::new();
    let payload = pair.fixture.handoff("bob", "alice");
    fs::write(pair.bob.at("handoff/x.json"), &payload).unwrap();
    assert_eq!(pair.alice.names("handoff"), ["x.json"]);
    assert_eq!(pair.alice.read("handoff/x.json"), payload);
    pair.fixture.verify();
}

#[test]
fn a_handoff_is_published_by_renaming_a_temp_file() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > handoff/.x.json.tmp").ok();
    assert_eq!(pair.place(), "", "a draft is nobody else's to see");
    assert_eq!(pair.bob.names("handoff"), [".x.json.tmp"]);
    pair.bob.bash("mv handoff/.x.json.tmp handoff/x.json").ok();
    assert_eq!(pair.place(), "handoff/x.json");
}

#[test]
fn the_python_peer_does_its_whole_cycle() {
    let pair = Pair::new();
    let name = pair.bob.python("import peer; print(peer.publish(peer.payload('bob', 'alice')))").ok();
    let archived = pair
        .alice
        .python(&format!("import peer; n = {:?}; assert peer.claim(n); print(peer.complete(n))", name.trim()))
        .ok();
    assert_eq!(pair.place(), format!("archive/{}", archived.trim()));
    pair.fixture.verify();
}

#[test]
fn two_publishers_of_one_name_both_survive() {
    let pair = Pair::new();
    let carol = pair.fixture.mount_as("carol");
    let publish = |mount: &Mount, from: &str| {
        mount.python(&format!("import peer; print(peer.publish(peer.payload({from:?}, 'alice'), number=1))"))
    };
    publish(&pair.bob, "bob").ok();
    // The same temp name and the same final name: both are each publisher's own choice.
    publish(&carol, "carol").failed_with("File exists");
    assert_eq!(pair.fixture.last_refusal()["rule"], "replay");
    let draft =
        carol.names("handoff").into_iter().find(|n| n.ends_with(".tmp")).expect("the temp file is kept");
    let next = draft.trim_start_matches('.').replace("-1.json.tmp", "-2.json");
    carol.bash(&format!("mv handoff/{draft} handoff/{next}")).ok();
    let senders: BTreeSet<String> = pair
        .alice
        .names("handoff")
        .iter()
        .map(|name| {
            serde_json::from_str::<serde_json::Value>(&pair.alice.read(&format!("handoff/{name}")))
                    .unwrap()["from_agent"]
                    .to_string()
        })
        .collect();
    assert_eq!(senders.len(), 2);
}

#[test]
fn many_publishers_of_one_caller_lose_nothing() {
    let pair = Pair::new();
    let publishers: Vec<_> = (0..4)
        .map(|worker| {
            let program = format!(
                "import peer\nfor n in range(10):\n    peer.publish_until_it_fits(peer.payload('bob', 'alice', worker={worker}, n=n))"
            );
            let mut command = pair.bob.command("python3", &["-c", &program]);
            std::thread::spawn(move || run(&mut command, ""))
        })
        .collect();
    for publisher in publishers {
        publisher.join().unwrap().ok();
    }
    assert_eq!(pair.alice.names("handoff").len(), 40);
    pair.fixture.verify();
}

#[test]
fn nothing_is_visible_before_it_is_verified() {
    let pair = Pair::new();
    let payload = pair.fixture.handoff("bob", "alice");
    let mut draft = fs::File::create(pair.bob.at("handoff/x.json")).unwrap();
    let (last, rest) = payload.as_bytes().split_last().unwrap();
    for piece in rest.chunks(50) {
        draft.write_all(piece).unwrap();
        assert_eq!(pair.place(), "");
        assert!(fs::metadata(pair.alice.at("handoff/x.json")).is_err());
    }
    draft.write_all(&[*last]).unwrap();
    assert_eq!(pair.place(), "handoff/x.json", "the write that completes it publishes it");
    assert_eq!(pair.alice.read("handoff/x.json"), payload);
}

#[test]
fn an_incomplete_handoff_is_partial() {
    let pair = Pair::new();
    pair.bob.refuses_python(
        "f = open('handoff/x.json', 'w'); f.write('{\"protocol_version\": 1,'); f.close()",
        "Bad message",
        "partial",
    );
    wait_until("the draft is gone", || pair.bob.names("handoff").is_empty());
    assert_eq!(pair.place(), "");
}

macro_rules! refused_payloads {
    ($($name:ident: $script:expr => $text:literal, $rule:literal;)*) => {$(
        #[test]
        fn $name() {
            let pair = Pair::new();
            pair.bob.refuses($script, $text, $rule);
            assert_eq!(pair.place(), "");
            pair.fixture.verify();
        }
    )*};
}

refused_payloads! {
    json_refuses_plain_text: "echo hello > handoff/x.json" => "Bad message", "json";
    schema_refuses_missing_members: "echo '{\"protocol_version\":1}' > handoff/x.json" => "Bad message", "schema";
    version_refuses_others: "h=$(handoff bob alice | jq -c .protocol_version=2); echo \"$h\" > handoff/x.json"
        => "Bad message", "version";
    self_refuses: "h=$(handoff bob alice | jq -c .to_agent=\\\"bob\\\"); echo \"$h\" > handoff/x.json" => "Bad message", "self";
    hmac_refuses_tampered_payloads: "h=$(handoff bob alice | jq -c .reason=\\\"other\\\"); echo \"$h\" > handoff/x.json"
        => "Key was rejected by service", "hmac";
    hmac_refuses_the_wrong_secret:
        "h=$(python3 -c 'import peer; print(peer.payload(\"bob\", \"alice\", secret=b\"guessed\"))'); echo \"$h\" > handoff/x.json"
        => "Key was rejected by service", "hmac";
    expired_refuses_to_publish:
        "h=$(python3 -c 'import peer; from datetime import *; print(peer.payload(\"bob\", \"alice\", now=datetime.now(timezone.utc) - timedelta(hours=1)))'); echo \"$h\" > handoff/x.json"
        => "Timer expired", "expired";
    authority_refuses_payloads_of_others: "h=$(handoff carol alice); echo \"$h\" > handoff/x.json"
        => "Permission denied", "authority";
    transition_refuses_to_create_in_claimed: "h=$(handoff bob alice); echo \"$h\" > claimed/x.json"
        => "Operation not permitted", "transition";
}

#[test]
fn a_refused_draft_stays_to_be_mended() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice | jq -c '.reason=\"other\"' > handoff/.x.json.tmp").ok();
    pair.bob.refuses("mv handoff/.x.json.tmp handoff/x.json", "Key was rejected by service", "hmac");
    assert_eq!(pair.bob.names("handoff"), [".x.json.tmp"]);
    pair.bob.bash("handoff bob alice > handoff/.x.json.tmp; mv handoff/.x.json.tmp handoff/x.json").ok();
    assert_eq!(pair.place(), "handoff/x.json");
}

#[test]
fn only_the_receiver_claims() {
    let pair = Pair::with_pending();
    let carol = pair.fixture.mount_as("carol");
    carol.refuses("mv handoff/x.json claimed/x.json", "Permission denied", "authority");
    pair.bob.refuses("mv handoff/x.json claimed/x.json", "Permission denied", "authority");
    assert_eq!(pair.place(), "handoff/x.json");
    pair.alice.bash("mv handoff/x.json claimed/x.json").ok();
    assert_eq!(pair.place(), "claimed/x.json");
}

#[test]
fn a_lost_claim_reads_no_such_file() {
    let pair = Pair::with_pending();
    let second = pair.fixture.mount_as("alice");
    second.names("handoff");
    pair.alice.bash("mv handoff/x.json claimed/x.json").ok();
    second
        .python("import os; os.rename('handoff/x.json', 'claimed/x.json')")
        .failed_with("No such file or directory");
    pair.alice
        .python("import os; os.rename('handoff/x.json', 'claimed/x.json')")
        .failed_with("No such file or directory");
    assert_eq!(pair.place(), "claimed/x.json");
}

#[test]
fn a_claimed_handoff_is_completed_under_another_name() {
    let pair = Pair::with_pending();
    let payload = pair.bob.read("handoff/x.json");
    pair.alice.bash("mv handoff/x.json claimed/ && mv claimed/x.json archive/1-bob-alice-x.json").ok();
    assert_eq!(pair.place(), "archive/1-bob-alice-x.json");
    assert_eq!(pair.bob.read("archive/1-bob-alice-x.json"), payload);
    pair.fixture.verify();
}

#[test]
fn a_handoff_is_rejected_before_and_after_the_claim() {
    for prepare in ["", "mv handoff/x.json claimed/; "] {
        let pair = Pair::with_pending();
        let from = if prepare.is_empty() { "handoff" } else { "claimed" };
        pair.alice.bash(&format!("{prepare} mv {from}/x.json rejected/x.json")).ok();
        assert_eq!(pair.place(), "rejected/x.json");
        pair.fixture.verify();
    }
}

#[test]
fn the_sender_withdraws_by_unlink() {
    let pair = Pair::with_pending();
    let carol = pair.fixture.mount_as("carol");
    carol.refuses("rm -f handoff/x.json", "Permission denied", "authority");
    pair.alice.refuses("rm -f handoff/x.json", "Permission denied", "authority");
    pair.bob.bash("rm handoff/x.json").ok();
    assert_eq!(pair.place(), "rejected/x.json");
    pair.fixture.verify();
}

#[test]
fn a_claimed_handoff_cannot_be_withdrawn() {
    let pair = Pair::with_pending();
    pair.alice.bash("mv handoff/x.json claimed/").ok();
    pair.bob.bash("rm -f claimed/x.json").failed_with("");
    assert_eq!(pair.place(), "claimed/x.json");
}

#[test]
fn transition_refuses_every_other_move() {
    let pair = Pair::with_pending();
    let refused = |script: &str| pair.alice.refuses(script, "Operation not permitted", "transition");
    refused("mv handoff/x.json archive/x.json");
    refused("mv handoff/x.json handoff/y.json");
    pair.alice.bash("mv handoff/x.json claimed/").ok();
    refused("mv claimed/x.json handoff/x.json");
    pair.alice.bash("mv claimed/x.json archive/").ok();
    refused("mv archive/x.json handoff/x.json");
    refused("mv archive/x.json claimed/x.json");
    refused("mv archive/x.json rejected/x.json");
    assert_eq!(pair.place(), "archive/x.json");
}

#[test]
fn a_handoff_cannot_leave_the_four_folders() {
    let pair = Pair::with_pending();
    for target in ["inbox/x.json", "credentials/x.json", "x.json"] {
        pair.alice.refuses_python(
            &format!("import os; os.rename('handoff/x.json', {target:?})"),
            "Operation not permitted",
            "immutable",
        );
    }
    assert_eq!(pair.place(), "handoff/x.json");
}

#[test]
fn a_draft_under_any_other_name_waits_for_its_rename() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > handoff/x.txt").ok();
    assert_eq!(pair.place(), "");
    pair.bob.bash("mv handoff/x.txt handoff/x.json").ok();
    assert_eq!(pair.place(), "handoff/x.json");
}

#[test]
fn published_bytes_never_change() {
    let pair = Pair::with_pending();
    let payload = pair.bob.read("handoff/x.json");
    for script in [
        "echo x > handoff/x.json",
        "echo x >> handoff/x.json",
        "truncate -s 0 handoff/x.json",
        "chmod 666 handoff/x.json",
        "ln handoff/x.json handoff/y.json",
        "setfattr -n user.note -v x handoff/x.json",
        "touch -d 2001-01-01 handoff/x.json",
        "fallocate -l 9999 handoff/x.json",
    ] {
        for mount in [&pair.bob, &pair.alice] {
            mount.refuses(script, "Operation not permitted", "immutable");
        }
    }
    assert_eq!(pair.alice.read("handoff/x.json"), payload);
    pair.alice.bash("mv handoff/x.json claimed/").ok();
    pair.alice.refuses("echo x > claimed/x.json", "Operation not permitted", "immutable");
    pair.alice.refuses("rm -f claimed/x.json", "Operation not permitted", "immutable");
    assert_eq!(pair.alice.read("claimed/x.json"), payload);
    pair.fixture.verify();
}

#[test]
fn a_descriptor_kept_open_cannot_change_what_it_published() {
    let pair = Pair::new();
    let payload = pair.fixture.handoff("bob", "alice");
    let mut file = fs::File::create(pair.bob.at("handoff/x.json")).unwrap();
    file.write_all(payload.as_bytes()).unwrap();
    let error = file.write_all(b"{\"more\": 1}").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(1), "{error}");
    assert!(file.set_len(0).is_err());
    assert_eq!(pair.alice.read("handoff/x.json"), payload);
}

#[test]
fn a_handoff_id_is_used_once() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > $SCRATCH/h; cat $SCRATCH/h > handoff/x.json").ok();
    let again =
        |name: &str| pair.bob.refuses(&format!("cat $SCRATCH/h > handoff/{name}"), "File exists", "replay");
    again("y.json");
    pair.alice.bash("mv handoff/x.json claimed/").ok();
    again("y.json");
    again("x.json");
    pair.alice.bash("mv claimed/x.json archive/").ok();
    again("x.json");
    assert_eq!(pair.place(), "archive/x.json");
}

#[test]
fn a_handoff_id_is_remembered_over_a_remount() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > $SCRATCH/h; cat $SCRATCH/h > handoff/x.json; rm handoff/x.json").ok();
    let Pair { fixture, bob, alice } = pair;
    bob.umount();
    alice.umount();
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    let bob = fixture.mount_as("bob");
    bob.refuses("cat $SCRATCH/h > handoff/x.json", "File exists", "replay");
}

#[test]
fn the_same_caller_twice_in_a_second_makes_two_handoffs() {
    let pair = Pair::new();
    // The id is the same, for it counts seconds; the content is not.
    pair.bob
        .python(
            "import peer; from datetime import *; now = datetime.now(timezone.utc)\n\
             peer.publish(peer.payload('bob', 'alice', now=now, n=1))\n\
             peer.publish(peer.payload('bob', 'alice', now=now, n=2))\n",
        )
        .ok();
    assert_eq!(pair.alice.names("handoff").len(), 2);
}

#[test]
fn the_janitor_rejects_what_expired() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice --ttl 2 > handoff/x.json").ok();
    wait_until("the janitor has moved it", || pair.place().contains("rejected/x.json"));
    wait_until("with a reason", || pair.alice.names("rejected").contains(&"x.json.reason.json".to_owned()));
    let reason = pair.alice.read("rejected/x.json.reason.json");
    assert!(reason.contains("expired"), "{reason}");
    pair.alice
        .python("import os; os.rename('handoff/x.json', 'claimed/x.json')")
        .failed_with("No such file or directory");
    pair.fixture.verify();
}

#[test]
fn handoffs_also_answer_under_coordination() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > _coordination/handoff/x.json").ok();
    pair.alice.bash("mv _coordination/handoff/x.json _coordination/claimed/x.json").ok();
    assert_eq!(pair.place(), "claimed/x.json");
}

#[test]
fn names_that_exist_are_never_replaced() {
    let pair = Pair::new();
    pair.bob.bash("handoff bob alice > handoff/x.json; handoff bob alice > handoff/y.json").ok();
    pair.alice.bash("mv handoff/x.json claimed/z.json").ok();
    pair.alice.refuses_python(
        "import os; os.rename('handoff/y.json', 'claimed/z.json')",
        "File exists",
        "replay",
    );
    assert_eq!(pair.place(), "handoff/y.json claimed/z.json");
}

#[test]
fn every_step_is_an_event() {
    let pair = Pair::with_pending();
    pair.alice.bash("mv handoff/x.json claimed/ && mv claimed/x.json archive/").ok();
    let events: Vec<String> =
        pair.fixture.events().iter().map(|e| e["event"].as_str().unwrap_or_default().to_owned()).collect();
    let at = |what: &str| {
        events.iter().position(|e| e.contains(what)).unwrap_or_else(|| panic!("no {what} in {events:?}"))
    };
    assert!(at("claimed") < at("completed"), "{events:?}");
    pair.fixture.verify();
}

/// 8 processes race for every handoff, spread over some mounts and over both names of the tree; each
/// handoff must have exactly one winner.
fn claim_race(mounts: usize, trees: &[&str]) {
    let handoffs = count_from_env("BATON_TEST_HANDOFFS", 1000);
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.python(&format!(
        "import peer\n\
         for n in range({handoffs}):\n\
         \x20   with open(f'handoff/{{n}}.json', 'w') as f:\n\
         \x20       f.write(peer.payload('bob', 'alice', caller=f'caller {{n}}', ttl=3600))\n"
    ))
    .ok();
    let names: Vec<String> = (0..handoffs).map(|n| format!("{n}.json")).collect();
    fs::write(fixture.scratch().join("names"), names.join("\n")).unwrap();
    let mounts: Vec<Mount> = (0..mounts).map(|_| fixture.mount_as("alice")).collect();
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let script = format!("{}/peer.py", crate::common::CLIENTS);
            let names = fixture.scratch().join("names");
            let won = fixture.scratch().join(format!("won{n}"));
            let args = [script.as_str(), "race-for-claims", names.to_str().unwrap(), won.to_str().unwrap()];
            let mut command = mounts[n % mounts.len()].command("python3", &args);
            command.current_dir(mounts[n % mounts.len()].at(trees[n % trees.len()]));
            std::thread::spawn(move || run(&mut command, ""))
        })
        .collect();
    let outputs: Vec<Output> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    outputs.into_iter().for_each(|output| drop(output.ok()));
    let mut wins: BTreeMap<String, usize> = names.iter().map(|name| (name.clone(), 0)).collect();
    for n in 0..8 {
        let won = fs::read_to_string(fixture.scratch().join(format!("won{n}"))).unwrap();
        won.lines().for_each(|name| *wins.get_mut(name).unwrap() += 1);
    }
    wins.retain(|_, winners| *winners != 1);
    assert!(wins.is_empty(), "each handoff has exactly one winner, but: {wins:?}");
    assert_eq!(bob.names("claimed").len(), handoffs);
    assert!(bob.names("handoff").is_empty());
    fixture.verify();
}

#[test]
fn a_claim_race_over_one_mount_has_one_winner_each() {
    claim_race(1, &[""]);
}

#[test]
fn a_claim_race_over_two_mounts_has_one_winner_each() {
    claim_race(2, &[""]);
}

#[test]
fn a_claim_race_over_both_names_of_the_tree_has_one_winner_each() {
    claim_race(1, &["", "_coordination"]);
}
