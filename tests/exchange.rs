//! The exchange without a mount: the same rules, called directly.

#![allow(clippy::unwrap_used)] // a test that can not go on should say so loudly
use batonfs::exchange::handoffs::State;
use batonfs::exchange::logs::LogName;
use batonfs::exchange::{Caller, Denied, Durability, Exchange, OpenError, OpenOptions, Outcome};
use batonfs::wire::handoff::{NewHandoff, create};
use batonfs::wire::json::{Value, parse};
use batonfs::wire::keys::{PairSecret, SigningKey};
use batonfs::wire::message::{SignatureVersion, sign};
use batonfs::wire::name::AgentName;
use batonfs::wire::time::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const NOW: i64 = 1_780_000_000_000_000;

struct World {
    dir: tempfile::TempDir,
    exchange: Option<Arc<Exchange>>,
    clock: Arc<AtomicI64>,
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn key(name: &str) -> SigningKey {
    let mut seed = [7; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_seed(&seed)
}

fn secret() -> PairSecret {
    PairSecret::from_file_bytes(b"a secret of alice and bob\n")
}

fn as_agent(name: &str) -> Caller {
    Caller { uid: 0, gid: 0, pid: std::process::id(), bound: Some(agent(name)) }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let mut trust = serde_json::json!({"version": 1, "schema_version": "v3.1", "agents": {}});
        let mut toml = String::new();
        for name in ["alice", "bob", "carol"] {
            let public = key(name).public();
            let id = public.id(&agent(name));
            use base64::Engine;
            let raw = base64::engine::general_purpose::STANDARD.encode(public.to_bytes());
            trust["agents"][name] = serde_json::json!({"tier": "ATTESTED", "public_keys": [
                {"key_id": id.to_string(), "key": raw, "added_at": "2026-01-01T00:00:00Z", "active": true}]});
            toml += &format!("[agents.{name}]\n");
        }
        std::fs::write(at("exchange.toml"), toml).unwrap();
        std::fs::write(at("trust.json"), trust.to_string()).unwrap();
        std::fs::create_dir_all(at("private/secrets")).unwrap();
        let file = at("private/secrets/alice,bob.secret");
        std::fs::write(&file, secret().as_bytes()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut world = World { dir, exchange: None, clock: Arc::new(AtomicI64::new(NOW)) };
        world.reopen().unwrap();
        world
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        self.exchange = None;
        let clock = Arc::clone(&self.clock);
        let options = OpenOptions {
            durability: Durability::Os,
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
        };
        self.exchange = Some(Exchange::open(self.dir.path(), options)?);
        Ok(())
    }

    /// Ends the exchange as kill -9 would: no checkpoint, no drop.
    fn crash(&mut self) {
        let exchange = self.exchange.take().unwrap();
        // The lock goes with the file descriptor, which a leaked exchange keeps; close it by hand.
        let lock = self.dir.path().join("private/daemon.lock");
        std::mem::forget(exchange);
        std::fs::remove_file(lock).unwrap();
    }

    fn ex(&self) -> &Arc<Exchange> {
        self.exchange.as_ref().unwrap()
    }

    fn later(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    fn append(&self, by: &str, log: &LogName, text: &str) -> Outcome<usize> {
        let writer = self.ex().open_log_writer(&as_agent(by), log, libc::O_WRONLY | libc::O_APPEND)?;
        let written = writer.write(&as_agent(by), 0, true, text.as_bytes());
        writer.release();
        written
    }

    fn publish(&self, by: &str, name: &str, payload: &str) -> Outcome<()> {
        let temp = format!(".{name}.tmp");
        let (_, writer) = self.ex().create_draft(&as_agent(by), State::Pending, &temp)?;
        writer.write(&as_agent(by), 0, false, payload.as_bytes())?;
        writer.release();
        self.ex().move_handoff(&as_agent(by), (State::Pending, &temp), (State::Pending, name))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).unwrap_or_default()
    }

    fn refusals(&self) -> Vec<serde_json::Value> {
        self.read("private/refusals/all.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

fn message(from: &str, text: &str) -> String {
    let Value::Object(object) =
        parse(format!(r#"{{"type":"ship","subject":"s","body":"{text}"}}"#).as_bytes()).unwrap()
    else {
        unreachable!()
    };
    sign(object, &agent(from), &key(from), SignatureVersion::V31, Timestamp(NOW)).unwrap()
}

fn handoff(caller: &str) -> String {
    let new = NewHandoff {
        from: agent("bob"),
        to: agent("alice"),
        caller: caller.into(),
        reason: "r".into(),
        ttl_seconds: 60,
        transcript: vec![],
    };
    create(&new, &secret(), Timestamp(NOW)).unwrap()
}

fn rule<T: std::fmt::Debug>(outcome: Outcome<T>) -> &'static str {
    match outcome.unwrap_err() {
        Denied::Refused(refusal) => refusal.rule.name(),
        Denied::Io(error) => panic!("no refusal but {error}"),
    }
}

fn inbox(name: &str) -> LogName {
    LogName::Inbox(agent(name))
}

#[test]
fn a_signed_line_is_stored_byte_for_byte_and_has_an_event() {
    let world = World::new();
    let line = message("bob", "hello");
    world.append("bob", &inbox("alice"), &format!("{line}\n")).unwrap();
    assert_eq!(world.read("inbox/alice.jsonl"), format!("{line}\n"));
    let event: serde_json::Value =
        serde_json::from_str(world.read("events.jsonl").lines().last().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &event["log"], &event["by"]),
        (&"append".into(), &"inbox/alice.jsonl".into(), &"bob".into())
    );
    assert_eq!(event["end"], line.len() + 1);
}

#[test]
fn one_write_is_all_or_nothing() {
    let world = World::new();
    let good: Vec<String> = (0..20).map(|n| message("bob", &n.to_string())).collect();
    let bad = message("bob", "x").replace("\"x\"", "\"y\"");
    let text = format!("{}\n{bad}\n", good.join("\n"));
    assert_eq!(rule(world.append("bob", &inbox("alice"), &text)), "event-id");
    assert_eq!(world.read("inbox/alice.jsonl"), "");
    let refusal = world.refusals().pop().unwrap();
    assert_eq!(world.read(refusal["quarantine"].as_str().unwrap()), text, "the refused bytes are kept");
    world.append("bob", &inbox("alice"), &good.join("")).unwrap();
    assert_eq!(world.read("inbox/alice.jsonl").lines().count(), 20);
}

#[test]
fn replay_is_refused_in_one_write_in_two_and_after_a_restart() {
    let mut world = World::new();
    let line = message("bob", "once");
    assert_eq!(rule(world.append("bob", &inbox("alice"), &format!("{line}\n{line}\n"))), "replay");
    world.append("bob", &inbox("alice"), &line).unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    world.append("bob", &inbox("carol"), &line).unwrap();
}

#[test]
fn authority_keeps_logs_to_their_writers() {
    let world = World::new();
    let bilateral = LogName::Bilateral { from: agent("bob"), to: agent("alice") };
    assert_eq!(rule(world.append("alice", &bilateral, &message("alice", "x"))), "authority");
    assert_eq!(rule(world.append("carol", &inbox("alice"), &message("bob", "x"))), "authority");
    world.append("bob", &bilateral, &message("bob", "x")).unwrap();
}

#[test]
fn clock_skew_and_size_are_refused_and_old_lines_are_fine() {
    let world = World::new();
    world.later(-301);
    assert_eq!(rule(world.append("bob", &inbox("alice"), &message("bob", "x"))), "clock-skew");
    world.later(1_000_000);
    assert_eq!(rule(world.append("bob", &inbox("alice"), &message("bob", &"x".repeat(65_537)))), "size");
    world.append("bob", &inbox("alice"), &message("bob", &"x".repeat(65_536))).unwrap();
}

#[test]
fn partial_is_told_to_the_closer_and_recorded_at_the_last_close() {
    let world = World::new();
    let line = message("bob", "in two parts");
    let bob = as_agent("bob");
    let writer = world.ex().open_log_writer(&bob, &inbox("alice"), libc::O_WRONLY | libc::O_APPEND).unwrap();
    writer.write(&bob, 0, true, &line.as_bytes()[..50]).unwrap();
    assert_eq!(rule(writer.flush(&bob)), "partial");
    writer.write(&bob, 50, true, &line.as_bytes()[50..]).unwrap();
    writer.flush(&bob).unwrap();
    assert_eq!(world.read("inbox/alice.jsonl").lines().count(), 1, "a close inside an object loses nothing");
    writer.write(&bob, 0, true, b"{\"half\":").unwrap();
    writer.release();
    let refusal = world.refusals().pop().unwrap();
    assert_eq!(refusal["rule"], "partial");
    assert_eq!(world.read(refusal["quarantine"].as_str().unwrap()), "{\"half\":");
}

#[test]
fn a_crash_between_a_line_and_its_event_is_repaired_and_a_torn_tail_is_kept_aside() {
    let mut world = World::new();
    let (first, second) = (message("bob", "1"), message("bob", "2"));
    world.append("bob", &inbox("alice"), &first).unwrap();
    world.crash();
    let torn = &message("bob", "3")[..40];
    std::fs::write(world.dir.path().join("inbox/alice.jsonl"), format!("{first}\n{second}\n{torn}")).unwrap();
    world.reopen().unwrap();
    assert_eq!(world.read("inbox/alice.jsonl"), format!("{first}\n{second}\n"));
    let events: Vec<String> = world.read("events.jsonl").lines().map(str::to_owned).collect();
    assert!(
        events.iter().any(|e| e.contains("\"recovered\""))
            && events.iter().any(|e| e.contains("\"truncated\""))
    );
    assert_eq!(rule(world.append("bob", &inbox("alice"), &second)), "replay");
    world.append("bob", &inbox("alice"), &message("bob", "4")).unwrap();
}

#[test]
fn a_log_that_lost_lines_behind_the_mount_stops_it_and_names_the_mend() {
    let mut world = World::new();
    world.append("bob", &inbox("alice"), &message("bob", "1")).unwrap();
    world.exchange = None;
    std::fs::write(world.dir.path().join("inbox/alice.jsonl"), "").unwrap();
    let error = world.reopen().unwrap_err().to_string();
    assert!(error.contains("inbox/alice.jsonl") && error.contains("mend:"), "{error}");
}

#[test]
fn a_handoff_goes_its_way_and_its_id_is_used_once() {
    let mut world = World::new();
    let (alice, bob) = (as_agent("alice"), as_agent("bob"));
    let payload = handoff("+1555");
    world.publish("bob", "a.json", &payload).unwrap();
    assert_eq!(world.read("handoff/a.json"), payload);
    assert_eq!(rule(world.publish("bob", "b.json", &payload)), "replay");
    assert_eq!(
        rule(world.ex().move_handoff(&bob, (State::Pending, "a.json"), (State::Claimed, "a.json"))),
        "authority"
    );
    world.ex().move_handoff(&alice, (State::Pending, "a.json"), (State::Claimed, "a.json")).unwrap();
    let lost = world.ex().move_handoff(&alice, (State::Pending, "a.json"), (State::Claimed, "a.json"));
    assert_eq!(lost.unwrap_err().errno(), libc::ENOENT);
    assert_eq!(
        rule(world.ex().move_handoff(&alice, (State::Claimed, "a.json"), (State::Pending, "a.json"))),
        "transition"
    );
    world.ex().move_handoff(&alice, (State::Claimed, "a.json"), (State::Archived, "done.json")).unwrap();
    assert_eq!(world.read("archive/done.json"), payload);
    world.reopen().unwrap();
    assert_eq!(rule(world.publish("bob", "c.json", &payload)), "replay");
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    world.reopen().unwrap();
    assert_eq!(rule(world.publish("bob", "c.json", &payload)), "replay");
}

#[test]
fn two_publishers_of_one_name_both_survive() {
    let world = World::new();
    let (first, second) = (handoff("+1"), handoff("+2"));
    world.publish("bob", "x.json", &first).unwrap();
    assert_eq!(rule(world.publish("bob", "x.json", &second)), "replay");
    let bob = as_agent("bob");
    let kept =
        world.ex().find_handoff(&bob, State::Pending, ".x.json.tmp").expect("the temp file is still there");
    assert_eq!(world.ex().handoff_attr(kept).unwrap().size, second.len() as u64);
    world.ex().move_handoff(&bob, (State::Pending, ".x.json.tmp"), (State::Pending, "y.json")).unwrap();
    assert_eq!((world.read("handoff/x.json"), world.read("handoff/y.json")), (first, second));
}

#[test]
fn a_handoff_created_under_its_final_name_is_published_by_the_write_that_completes_it() {
    let world = World::new();
    let (alice, bob) = (as_agent("alice"), as_agent("bob"));
    let payload = handoff("+1");
    let (node, writer) = world.ex().create_draft(&bob, State::Pending, "x.json").unwrap();
    writer.write(&bob, 0, false, &payload.as_bytes()[..30]).unwrap();
    assert!(world.ex().find_handoff(&alice, State::Pending, "x.json").is_none());
    assert!(world.ex().list_handoffs(&alice, State::Pending).is_empty());
    writer.write(&bob, 30, false, &payload.as_bytes()[30..]).unwrap();
    assert_eq!(world.ex().find_handoff(&alice, State::Pending, "x.json"), Some(node));
    writer.write(&bob, payload.len() as u64, false, b"\n").unwrap();
    assert_eq!(rule(writer.write(&bob, 0, false, b"{}")), "immutable");
    writer.release();
    assert_eq!(world.read("handoff/x.json"), payload);
}

#[test]
fn hmac_expired_and_tampered_payloads_are_never_published() {
    let world = World::new();
    let tampered = handoff("+1").replace("\"reason\":\"r\"", "\"reason\":\"s\"");
    assert_eq!(rule(world.publish("bob", "x.json", &tampered)), "hmac");
    world.later(61);
    assert_eq!(rule(world.publish("bob", "x.json", &handoff("+2"))), "expired");
    assert_eq!(world.read("handoff/x.json"), "");
    assert!(Path::new(&world.dir.path().join("private/staging")).read_dir().unwrap().next().is_none());
}

#[test]
fn expired_handoffs_move_to_rejected_with_a_reason() {
    let world = World::new();
    world.publish("bob", "x.json", &handoff("+1")).unwrap();
    assert_eq!(world.ex().run_janitor(), 0);
    world.later(61);
    assert_eq!(
        rule(world.ex().move_handoff(
            &as_agent("alice"),
            (State::Pending, "x.json"),
            (State::Claimed, "x.json")
        )),
        "expired"
    );
    assert_eq!(world.ex().run_janitor(), 1);
    let reason: serde_json::Value = serde_json::from_str(&world.read("rejected/x.json.reason.json")).unwrap();
    assert_eq!(reason["reason"], "expired");
    assert_eq!(world.read("rejected/x.json"), handoff("+1"));
}

#[test]
fn only_the_sender_withdraws_a_pending_handoff() {
    let world = World::new();
    world.publish("bob", "x.json", &handoff("+1")).unwrap();
    assert_eq!(rule(world.ex().unlink_handoff(&as_agent("alice"), State::Pending, "x.json")), "authority");
    world.ex().unlink_handoff(&as_agent("bob"), State::Pending, "x.json").unwrap();
    assert_eq!(world.read("rejected/x.json"), handoff("+1"));
}

#[test]
fn a_move_whose_rename_a_crash_prevented_is_finished_at_the_next_start() {
    let mut world = World::new();
    world.publish("bob", "x.json", &handoff("+1")).unwrap();
    world.publish("bob", "y.json", &handoff("+2")).unwrap();
    world
        .ex()
        .move_handoff(&as_agent("alice"), (State::Pending, "x.json"), (State::Claimed, "x.json"))
        .unwrap();
    world.crash();
    let at = |path: &str| world.dir.path().join(path);
    std::fs::rename(at("claimed/x.json"), at("handoff/x.json")).unwrap();
    world.reopen().unwrap();
    assert_eq!((world.read("claimed/x.json"), world.read("handoff/x.json")), (handoff("+1"), String::new()));
    assert!(world.ex().find_handoff(&as_agent("alice"), State::Claimed, "x.json").is_some());
}

#[test]
fn a_handoff_put_behind_the_mount_without_a_true_hmac_stays_invisible() {
    let mut world = World::new();
    world.exchange = None;
    let forged = handoff("+1").replace("\"reason\":\"r\"", "\"reason\":\"s\"");
    std::fs::write(world.dir.path().join("handoff/forged.json"), forged).unwrap();
    world.reopen().unwrap();
    assert!(world.ex().list_handoffs(&as_agent("alice"), State::Pending).is_empty());
}

#[test]
fn a_line_found_after_a_crash_is_kept_though_the_clock_went_back() {
    let mut world = World::new();
    let line = message("bob", "hello") + "\n";
    world.append("bob", &inbox("alice"), &line).unwrap();
    world.crash();
    // The events of the last moment were not on disk yet, and the clock lost its battery.
    std::fs::remove_file(world.dir.path().join("events.jsonl")).unwrap();
    world.later(-7200);
    world.reopen().unwrap();
    assert_eq!(world.read("inbox/alice.jsonl"), line);
    assert!(world.read("events.jsonl").contains("\"recovered\""));
}

#[test]
fn a_secret_that_ends_in_a_newline_is_the_same_after_a_restart() {
    use base64::Engine;
    let mut world = World::new();
    let file = b"ends in a newline\n\n";
    let request = batonfs::exchange::operator::OperatorRequest::SecretImport {
        a: "bob".into(),
        b: "alice".into(),
        secret: base64::engine::general_purpose::STANDARD.encode(file).into(),
    };
    world.ex().operate(request).unwrap();
    let mut new = NewHandoff {
        from: agent("bob"),
        to: agent("alice"),
        caller: "+1".into(),
        reason: "r".into(),
        ttl_seconds: 60,
        transcript: vec![],
    };
    let signed = |new: &NewHandoff| create(new, &PairSecret::from_file_bytes(file), Timestamp(NOW)).unwrap();
    world.publish("bob", "x.json", &signed(&new)).unwrap();
    world.reopen().unwrap();
    new.caller = "+2".into();
    world.publish("bob", "y.json", &signed(&new)).unwrap();
}

#[path = "exchange/archive.rs"]
mod archive;
#[path = "exchange/clock.rs"]
mod clock;
#[path = "exchange/fold.rs"]
mod fold;
#[path = "exchange/import.rs"]
mod import;
#[path = "exchange/quotas.rs"]
mod quotas;
#[path = "exchange/send.rs"]
mod send;
#[path = "exchange/status.rs"]
mod status;
