//! What the exchange shows of its agents and sends for them, with the clock as an argument.

use super::*;
use batonfs::exchange::operator::OperatorRequest;
use batonfs::exchange::verify::verify;
use batonfs::exchange::views::ViewReader;

/// The world, with alice's, bob's and carol's keys in the exchange and this configuration.
pub fn sealing(toml: &str) -> World {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    world.exchange = None;
    std::fs::create_dir_all(world.dir.path().join("private/keys")).unwrap();
    for name in ["alice", "bob", "carol"] {
        let file = world.dir.path().join(format!("private/keys/{name}.key"));
        std::fs::write(&file, key(name).to_file_text().as_bytes()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::fs::write(world.dir.path().join("exchange.toml"), toml).unwrap();
    world.reopen().unwrap();
    world
}

const PLAIN: &str = "[agents.alice]\n[agents.bob]\nheartbeat = true\n[agents.carol]\n\
                     [domains]\nrelease = [\"alice\", \"bob\"]\n";

pub fn operator() -> Caller {
    Caller { uid: rustix::process::geteuid().as_raw(), gid: 0, pid: std::process::id(), bound: None }
}

/// What `caller` reads at a path of the tree; stat() must tell its size.
fn shown(world: &World, caller: &Caller, path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let view = world.ex().find_view(caller, dir, name).unwrap_or_else(|| panic!("no {path}"));
    let size = world.ex().view_attr(caller, &view).unwrap().size;
    let ViewReader::Text(text) = world.ex().open_view(caller, &view, libc::O_RDONLY).unwrap() else {
        panic!("{path} is no text")
    };
    assert_eq!(text.len() as u64, size, "{path}");
    String::from_utf8(text.to_vec()).unwrap()
}

fn json(world: &World, caller: &Caller, path: &str) -> serde_json::Value {
    serde_json::from_str(&shown(world, caller, path)).unwrap()
}

pub fn say(world: &World, by: &str, object: &str) {
    world.append(by, &LogName::Outbox(agent(by)), object).unwrap();
}

fn last_line(world: &World, path: &str) -> serde_json::Value {
    serde_json::from_str(world.read(path).lines().last().unwrap()).unwrap()
}

/// What the janitor does once a second; how many heartbeats were sent.
pub fn second(world: &World) -> usize {
    world.ex().run_janitor();
    world.ex().send_due_heartbeats(world.ex().now())
}

#[track_caller]
pub fn prove(world: &World) {
    let mut faults = verify(world.dir.path()).unwrap().faults;
    faults.retain(|fault| fault.rule != "modes");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_mount_of_its_own_sends_an_agents_heartbeats_with_true_figures_at_the_right_times() {
    let world = sealing(PLAIN);
    assert_eq!(second(&world), 0, "nobody has a mount");
    world.ex().attend(&agent("alice"), true);
    assert_eq!(second(&world), 0, "alice sends her own");
    world.ex().attend(&agent("bob"), true);
    assert_eq!((second(&world), second(&world)), (1, 0));
    let beat = last_line(&world, "outbox/bob.jsonl");
    let body = &beat["body"];
    assert_eq!((&beat["type"], &beat["kind"]), (&"heartbeat".into(), &100.into()));
    assert_eq!((&body["wakeup_count"], &body["state"]), (&1.into(), &"idle".into()));
    assert_eq!((&body["last_action"], &body["inbox_unread_count"]), (&serde_json::Value::Null, &0.into()));
    assert_eq!(world.read("inbox/alice.jsonl"), world.read("inbox/carol.jsonl"), "everyone sees it");

    // Nobody spoke: 1200 s.
    world.later(1199);
    assert_eq!(second(&world), 0);
    world.later(1);
    assert_eq!(second(&world), 1);
    // A message makes it 90 s, and bob busy.
    world.later(1);
    say(&world, "bob", r#"{"type":"ship","subject":"1.2","body":"x"}"#);
    say(&world, "alice", r#"{"type":"request","subject":"more","body":"x","to":["bob"]}"#);
    world.later(89);
    assert_eq!(second(&world), 1);
    let body = last_line(&world, "outbox/bob.jsonl")["body"].clone();
    assert_eq!((&body["wakeup_count"], &body["state"]), (&3.into(), &"busy".into()));
    assert!(body["last_action"].as_str().unwrap().contains("1.2"), "{body}");
    assert_eq!(body["inbox_unread_count"], 1);
    let next = Timestamp(world.ex().now().0 + 90_000_000).to_string();
    assert_eq!(body["next_eta"], next);
    world.later(90);
    assert_eq!(second(&world), 1);
    assert_eq!(last_line(&world, "outbox/bob.jsonl")["body"]["state"], "idle");

    // Two mounts, and only the last one's end is the end.
    world.ex().attend(&agent("bob"), true);
    world.ex().attend(&agent("bob"), false);
    world.later(90);
    assert_eq!(second(&world), 1);
    world.ex().attend(&agent("bob"), false);
    world.later(1200);
    assert_eq!(second(&world), 0);
    prove(&world);
}

#[test]
fn a_heartbeat_tells_of_waiting_and_of_safe_mode() {
    let world = sealing(PLAIN);
    world.ex().attend(&agent("bob"), true);
    assert_eq!(second(&world), 1);
    say(&world, "bob", r#"{"type":"incident","subject":"api down","body":"x"}"#);
    world.later(30);
    assert_eq!(second(&world), 1, "T0 while an incident is open");
    assert_eq!(last_line(&world, "outbox/bob.jsonl")["body"]["state"], "blocked");
    world.later(1200);
    assert_eq!(second(&world), 1);
    assert_eq!(last_line(&world, "outbox/bob.jsonl")["body"]["state"], "paused");
    assert!(shown(&world, &as_agent("alice"), "status/safe_mode").starts_with("on since "));
}

#[test]
fn a_heartbeat_that_is_refused_is_not_tried_every_second() {
    let world = sealing("[agents.alice]\n[agents.bob]\nheartbeat = true\n[agents.carol]\n");
    let revoked = world.read("trust.json").replace("\"active\":true", "\"active\":false");
    world.ex().operate(OperatorRequest::TrustImport { text: revoked }).unwrap();
    world.ex().attend(&agent("bob"), true);
    for _ in 0..5 {
        assert_eq!(second(&world), 0);
        world.later(1);
    }
    assert_eq!(world.refusals().len(), 1);
    assert_eq!(world.refusals()[0]["operation"], "heartbeat");
}

#[test]
fn unread_is_what_came_since_the_agent_had_its_inbox_open() {
    let mut world = sealing(PLAIN);
    let unread = |world: &World| shown(world, &as_agent("alice"), "status/unread");
    let send =
        |world: &World| say(world, "bob", r#"{"type":"request","subject":"s","body":"b","to":["alice"]}"#);
    send(&world);
    send(&world);
    assert_eq!(unread(&world), "2\n");
    // Others looking into it changes nothing.
    drop(world.ex().open_log_reader(&as_agent("carol"), &inbox("alice")).unwrap());
    drop(world.ex().open_log_reader(&operator(), &inbox("alice")).unwrap());
    assert_eq!(unread(&world), "2\n");
    let open = world.ex().open_log_reader(&as_agent("alice"), &inbox("alice")).unwrap();
    assert_eq!(unread(&world), "0\n");
    send(&world);
    assert_eq!(unread(&world), "0\n", "she has it open: tail -f");
    drop(open);
    assert_eq!(unread(&world), "0\n");
    send(&world);
    world.reopen().unwrap();
    world.later(1);
    assert_eq!(unread(&world), "1\n", "also after a restart");
    world.ex().note_read(&agent("alice"));
    assert_eq!(unread(&world), "0\n");
    send(&world);
    assert_eq!(shown(&world, &operator(), "status/unread"), "alice 1\nbob 0\ncarol 0\n");
    assert_eq!(world.ex().unread(&agent("alice")), 1);
}

#[test]
fn a_peer_is_shown_towards_its_reader_and_all_pairs_to_the_operator() {
    let world = sealing(PLAIN);
    say(&world, "alice", r#"{"type":"heartbeat","subject":"h","body":{"state":"busy"}}"#);
    say(&world, "alice", r#"{"type":"ship","subject":"1.2","body":"x","to":["bob"]}"#);
    world.later(100);
    let to_bob = shown(&world, &as_agent("bob"), "status/peers/alice");
    for line in [
        "agent: alice",
        "state: busy",
        "activity: T1_active",
        "period_seconds: 90",
        "overdue: by 10 s",
        "trust: ATTESTED",
    ] {
        assert!(to_bob.lines().any(|l| l == line), "{line} is missing in\n{to_bob}");
    }
    assert!(to_bob.contains("(100 s ago)") && to_bob.contains("last_action: ship"), "{to_bob}");
    let to_carol = shown(&world, &as_agent("carol"), "status/peers/alice");
    assert!(to_carol.contains("activity: T3_long_idle\n"), "{to_carol}");
    let to_operator = shown(&world, &operator(), "status/peers/alice");
    assert!(to_operator.contains("activity with bob: T1_active\n"), "{to_operator}");
    assert!(to_operator.contains("activity with carol: T3_long_idle\n"), "{to_operator}");

    let peers = json(&world, &as_agent("bob"), "status/peers.json");
    assert_eq!((&peers["you"]["agent"], &peers["you"]["unread"]), (&"bob".into(), &2.into()));
    assert_eq!(peers["peers"]["alice"]["overdue_seconds"], 10);
    assert_eq!(peers["peers"]["carol"]["last_seen"], serde_json::Value::Null);
    assert!(peers["peers"].get("bob").is_none());
    let names = |caller: &Caller| -> Vec<String> {
        let views = world.ex().list_views(caller, "status/peers");
        views.iter().map(|view| view.name().to_owned()).collect()
    };
    assert_eq!(names(&as_agent("bob")), ["alice", "carol"]);
    assert_eq!(names(&operator()), ["alice", "bob", "carol"]);
    assert_eq!(shown(&world, &as_agent("bob"), "status/me"), "bob\n");
    assert_eq!(shown(&world, &operator(), "status/me"), "operator\n");
    // What an agent says of itself stays on its line.
    say(&world, "carol", r#"{"type":"ship","subject":"x\nstate: idle","body":"x"}"#);
    let carol = shown(&world, &as_agent("bob"), "status/peers/carol");
    assert_eq!(carol.lines().filter(|line| line.starts_with("state:")).count(), 1, "{carol}");
}

#[test]
fn proposals_show_whose_acks_they_lack_and_the_operator_settles_what_nobody_did() {
    let mut world = sealing(PLAIN);
    let propose = r#"{"type":"proposal","subject":"freeze","body":"x","affected_domains":["release"]}"#;
    say(&world, "carol", propose);
    let proposals = json(&world, &as_agent("alice"), "status/proposals.json");
    assert_eq!((&proposals[0]["standing"], &proposals[0]["proposer"]), (&"open".into(), &"carol".into()));
    assert_eq!(
        (&proposals[0]["waits_for_you"], &proposals[0]["one_is_enough"]),
        (&true.into(), &false.into())
    );
    let id = proposals[0]["correlation_id"].as_str().unwrap().to_owned();
    assert_eq!(proposals[0]["missing"], serde_json::json!(["alice", "bob"]));
    assert_eq!(json(&world, &as_agent("carol"), "status/proposals.json")[0]["waits_for_you"], false);
    say(&world, "alice", &format!(r#"{{"correlation_id":"{id}"}}"#));
    let proposals = json(&world, &as_agent("alice"), "status/proposals.json");
    assert_eq!(
        (&proposals[0]["waits_for_you"], &proposals[0]["missing"]),
        (&false.into(), &serde_json::json!(["bob"]))
    );

    world.later(2401);
    second(&world);
    let listed = world.ex().operate(OperatorRequest::DecisionsList).unwrap();
    assert_eq!(
        (&listed["lapsed"][0]["subject"], &listed["open"]),
        (&"freeze".into(), &serde_json::json!([]))
    );
    let settle = |world: &World, id: &str, accept| {
        world.ex().operate(OperatorRequest::Settle { id: id.to_owned(), accept })
    };
    assert!(settle(&world, "nonsense", true).unwrap_err().contains("baton decisions"));
    settle(&world, &id, true).unwrap();
    assert_eq!(last_line(&world, "decisions.jsonl")["decision_id"], id.as_str());
    assert!(settle(&world, &id, false).unwrap_err().contains("decided"));
    let event = world.read("events.jsonl");
    let event = event.lines().find(|line| line.contains("decision-settled")).unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!((&event["accept"], event["order"].as_u64().unwrap() > 0), (&true.into(), true));
    // A start without a checkpoint folds the act at its place.
    world.exchange = None;
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    world.reopen().unwrap();
    let listed = world.ex().operate(OperatorRequest::DecisionsList).unwrap();
    assert_eq!((&listed["lapsed"], listed["decided"].as_array().unwrap().len()), (&serde_json::json!([]), 1));

    say(&world, "carol", &propose.replace("freeze", "thaw"));
    let id = json(&world, &operator(), "status/proposals.json")
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["subject"] == "thaw")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    settle(&world, &id, false).unwrap();
    let listed = world.ex().operate(OperatorRequest::DecisionsList).unwrap();
    assert_eq!(listed["dropped"][0]["subject"], "thaw");
    assert_eq!(listed["decided"].as_array().unwrap().len(), 1);
    prove(&world);
}

#[test]
fn safe_mode_is_shown_with_its_cause_and_lifted_by_the_operator_for_good() {
    let mut world = sealing(PLAIN);
    let alice = as_agent("alice");
    assert_eq!(shown(&world, &alice, "status/safe_mode"), "off\n");
    assert_eq!(world.ex().operate(OperatorRequest::SafeModeClear).unwrap()["changes"], serde_json::json!([]));
    say(&world, "bob", r#"{"type":"incident","subject":"api down","body":"x","to":["alice"]}"#);
    let incidents = json(&world, &alice, "status/incidents.json");
    assert_eq!(
        (&incidents["safe_mode"], &incidents["open"][0]["waits_for_you"]),
        (&serde_json::Value::Null, &true.into())
    );
    // Whoever reads of it may ack it, but its author.
    for (other, may) in [("bob", false), ("carol", true)] {
        let incidents = json(&world, &as_agent(other), "status/incidents.json");
        assert_eq!(incidents["open"][0]["waits_for_you"], may, "{other}");
    }
    world.later(1201);
    second(&world);
    let text = shown(&world, &alice, "status/safe_mode");
    assert!(text.starts_with("on since ") && text.contains("\"api down\" of bob"), "{text}");
    assert_eq!(json(&world, &alice, "status/incidents.json")["safe_mode"]["subject"], "api down");
    let status = world.ex().operate(OperatorRequest::SafeModeStatus).unwrap();
    assert_eq!((&status["on"], &status["from"]), (&true.into(), &"bob".into()));
    let ship = r#"{"type":"ship","subject":"s","body":"b"}"#;
    assert_eq!(rule(world.append("bob", &LogName::Outbox(agent("bob")), ship)), "safe-mode");

    let cleared = world.ex().operate(OperatorRequest::SafeModeClear).unwrap();
    assert_eq!(cleared["changes"].as_array().unwrap().len(), 1);
    say(&world, "bob", ship);
    world.exchange = None;
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    world.reopen().unwrap();
    second(&world);
    assert_eq!(shown(&world, &alice, "status/safe_mode"), "off\n");
    prove(&world);
}

#[test]
fn the_texts_name_their_reader_and_what_the_exchange_has_laid_down() {
    let world = sealing(&format!("{PLAIN}\n[exchange]\nmax_body_bytes = 8192\nmax_refs = 7\n"));
    let bob = as_agent("bob");
    for text in ["README.md", "SKILL.md", "PROTOCOL.md"] {
        let shown = shown(&world, &bob, text);
        assert!(shown.contains("You are `bob`. The others are `alice`, `carol`."), "{text}");
    }
    let protocol = shown(&world, &bob, "PROTOCOL.md");
    assert!(protocol.contains("| `release` | alice, bob |"), "{protocol}");
    assert!(protocol.contains("| body | 8 KiB |") && protocol.contains("| `refs` of a message | 7 |"));
    assert!(protocol.contains("| T1_active | 90 s |"), "{protocol}");
    assert!(shown(&world, &bob, "SKILL.md").contains("Your mount sends them."));
    assert!(!shown(&world, &as_agent("alice"), "SKILL.md").contains("Your mount sends them."));
    assert!(shown(&world, &operator(), "README.md").contains("You are the operator"));
    assert!(shown(&world, &bob, "tiers.json").contains("\"T0_HEADS_DOWN\": 30"));
}
