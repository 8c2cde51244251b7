//! Moving in and out: every line comes in once or is kept aside, and comes out as it went in.

use super::archive::prove;
use super::*;
use batonfs::exchange::export::ExportRequest;
use batonfs::exchange::import::ImportRequest;
use batonfs::exchange::operator::OperatorRequest;
use serde_json::Value as Json;
use std::path::PathBuf;

/// A folder as another program left it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let file = folder.0.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

fn import_with(
    world: &World,
    folder: &Folder,
    allow_unsigned: bool,
    with_trust: bool,
) -> Result<Json, String> {
    let request = ImportRequest { dir: folder.path(), allow_unsigned, with_trust };
    world.ex().operate(OperatorRequest::Import(request))
}

#[track_caller]
fn import(world: &World, folder: &Folder) -> Json {
    import_with(world, folder, false, false).unwrap()
}

/// (imported, duplicates, refused) of a file.
#[track_caller]
fn counts(report: &Json, file: &str) -> (u64, u64, u64) {
    let files = report["files"].as_array().unwrap();
    let found =
        files.iter().find(|f| f["file"] == file).unwrap_or_else(|| panic!("{file} is not in {report:#}"));
    let number = |key: &str| found[key].as_u64().unwrap();
    (number("imported"), number("duplicates"), number("refused"))
}

/// A message of a moment, in seconds after the epoch's.
fn at(from: &str, seconds: i64, members: &str) -> String {
    let time = Timestamp(NOW - 1_000_000_000_000 + seconds * 1_000_000);
    let text = format!(r#"{{"type":"ship","subject":"s","body":"{from} {seconds}"{members}}}"#);
    let Value::Object(object) = parse(text.as_bytes()).unwrap() else { unreachable!() };
    sign(object, &agent(from), &key(from), SignatureVersion::V31, time).unwrap()
}

fn unsigned(from: &str, body: &str) -> String {
    format!(
        r#"{{"timestamp":"2026-01-01T00:00:00Z","from":"{from}","type":"ship","subject":"s","body":"{body}","correlation_id":"c"}}"#
    )
}

fn lines(lines: &[&String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn lines_come_to_their_logs_and_to_their_recipients_once_and_in_the_order_of_their_times() {
    let world = World::new();
    let (one, two, three) = (at("bob", 1, ""), at("carol", 2, ""), at("bob", 3, ""));
    let (four, five) = (at("bob", 4, r#","to":["alice"]"#), at("carol", 5, ""));
    let folder = Folder::new(&[
        ("bob_to_alice.jsonl", &lines(&[&one, &three])),
        ("outbox/bob.jsonl", &lines(&[&four])),
        ("carol_to_alice.jsonl", &lines(&[&two, &five])),
        // The recipient's program had copied some already.
        ("inbox/alice.jsonl", &lines(&[&two])),
    ]);
    let report = import(&world, &folder);
    assert_eq!(report["refused"], serde_json::json!([]), "{report:#}");
    assert_eq!(counts(&report, "bob_to_alice.jsonl"), (2, 0, 0));
    assert_eq!(report["delivered"], serde_json::json!({"inbox/alice.jsonl": 4}));
    assert_eq!(world.read("bob_to_alice.jsonl"), lines(&[&one, &three]));
    assert_eq!(world.read("outbox/bob.jsonl"), lines(&[&four]));
    assert_eq!(world.read("inbox/alice.jsonl"), lines(&[&one, &two, &three, &four, &five]));
    assert_eq!(rule(world.append("bob", &inbox("alice"), &lines(&[&one]))), "replay");
    prove(&world);

    // Again: nothing changes but the record that nothing did.
    let before = world.read("inbox/alice.jsonl");
    let again = import(&world, &folder);
    assert_eq!(counts(&again, "bob_to_alice.jsonl"), (0, 2, 0));
    assert_eq!(counts(&again, "inbox/alice.jsonl"), (0, 1, 0));
    assert_eq!(again["delivered"], serde_json::json!({}));
    assert_eq!(world.read("inbox/alice.jsonl"), before);
    prove(&world);
}

#[test]
fn what_can_not_come_in_is_named_by_line_and_rule_and_kept_aside_once() {
    let world = World::new();
    let good = at("bob", 1, "");
    let tampered = at("bob", 2, "").replace("bob 2", "bob X");
    let foreign = at("carol", 3, "");
    let text = format!("{good}\nnot json\n\n{tampered}\n{foreign}\n{{\"half\":");
    let zed = unsigned("zed", "who?");
    let folder = Folder::new(&[
        ("bob_to_alice.jsonl", &text),
        ("zed_to_alice.jsonl", &lines(&[&zed])),
        ("inbox/alice.jsonl", &lines(&[&zed])),
        ("notes.txt", "x"),
        ("handoff/a.json", "{}"),
        ("archive/b.json", "{}"),
    ]);
    let report = import_with(&world, &folder, true, false).unwrap();
    assert_eq!(counts(&report, "bob_to_alice.jsonl"), (1, 0, 4));
    let refused: Vec<_> =
        report["refused"].as_array().unwrap().iter().map(|r| (&r["line"], &r["rule"])).collect();
    let expected =
        [(2, "json"), (4, "event-id"), (5, "authority"), (6, "json"), (1, "authority"), (1, "authority")]
            .map(|(line, rule)| (Json::from(line), Json::from(rule)));
    assert_eq!(refused, expected.iter().map(|(l, r)| (l, r)).collect::<Vec<_>>());
    assert_eq!(report["unknown_agents"], serde_json::json!(["zed"]));
    assert_eq!(report["add_to_exchange_toml"], "[agents.\"zed\"]\n");
    assert_eq!(report["left"], serde_json::json!(["notes.txt"]));
    assert_eq!(report["handoffs_left"], serde_json::json!({"handoff": 1, "archive": 1}));
    let kept = report["files"][0]["kept_aside"].as_str().unwrap();
    assert_eq!(world.read(kept), format!("not json\n{tampered}\n{foreign}\n{{\"half\":\n"));
    assert_eq!(std::fs::read_to_string(folder.path().join("bob_to_alice.jsonl")).unwrap(), text);
    let files = || std::fs::read_dir(world.dir.path().join("private/quarantine")).unwrap().count();
    let before = files();
    import_with(&world, &folder, true, false).unwrap();
    assert_eq!(files(), before, "the same lines are kept aside once");
    assert!(!world.dir.path().join("zed_to_alice.jsonl").exists());
    prove(&world);
}

#[test]
fn unsigned_lines_come_in_only_if_the_operator_vouches_and_stay_proved() {
    let mut world = World::new();
    let (plain, signed) = (unsigned("bob", "plain"), at("bob", 1, ""));
    let folder = Folder::new(&[("bob_to_alice.jsonl", &lines(&[&plain, &signed]))]);
    let report = import(&world, &folder);
    assert_eq!(counts(&report, "bob_to_alice.jsonl"), (1, 0, 1));
    assert_eq!(report["refused"][0]["rule"], "unsigned");
    let report = import_with(&world, &folder, true, false).unwrap();
    assert_eq!(counts(&report, "bob_to_alice.jsonl"), (1, 1, 0));
    let events = world.read("events.jsonl");
    assert!(events.contains(r#""event":"imported""#) && events.contains(r#""unsigned":true"#));
    prove(&world);
    // Nobody else gets an unsigned line in, and it is still proved once it is archived.
    assert_eq!(rule(world.append("bob", &inbox("alice"), &(unsigned("bob", "other") + "\n"))), "unsigned");
    world.ex().operate(OperatorRequest::Archive { year: None }).unwrap();
    prove(&world);
    world.reopen().unwrap();
    assert_eq!(counts(&import_with(&world, &folder, true, false).unwrap(), "bob_to_alice.jsonl"), (0, 2, 0));
    prove(&world);
}

#[test]
fn imported_messages_are_history_that_nobody_acts_on() {
    let mut world = World::new();
    let incident = at("bob", 1, "").replace("ship", "x");
    assert!(incident.contains("\"x\""));
    let sign_as = |kind: &str, members: &str| {
        let text = format!(r#"{{"type":"{kind}","subject":"s","body":"b"{members}}}"#);
        let Value::Object(object) = parse(text.as_bytes()).unwrap() else { unreachable!() };
        sign(object, &agent("bob"), &key("bob"), SignatureVersion::V31, Timestamp(NOW - 1_000_000)).unwrap()
    };
    let (incident, proposal) = (sign_as("incident", ""), sign_as("proposal", r#","ack_required":true"#));
    let folder = Folder::new(&[("bob_to_alice.jsonl", &lines(&[&incident, &proposal]))]);
    let report = import(&world, &folder);
    assert_eq!(report["delivered"], serde_json::json!({"inbox/alice.jsonl": 2, "incident_log.jsonl": 1}));
    assert_eq!(world.read("incident_log.jsonl"), lines(&[&incident]));
    // An open incident would bring safe mode.
    for reopen in [false, true] {
        if reopen {
            world.crash();
            world.reopen().unwrap();
        }
        world.later(7200);
        world.ex().run_janitor();
        world.append("bob", &inbox("carol"), &(message("bob", &format!("{reopen}")) + "\n")).unwrap();
    }
}

#[test]
fn decisions_of_another_program_are_kept_as_they_are() {
    let world = World::new();
    let entry = r#"{"decision_id":"d1","ratified_at":"2026-01-01T00:00:00Z","proposer":"bob","acked_by":["alice"],"decision":{"use":"rust"},"canonical":true}"#;
    let folder = Folder::new(&[("decisions.jsonl", &format!("{entry}\n{{\"decision_id\":\"d2\"}}\n"))]);
    let report = import(&world, &folder);
    assert_eq!(counts(&report, "decisions.jsonl"), (1, 0, 1));
    assert_eq!(world.read("decisions.jsonl"), format!("{entry}\n"));
    assert_eq!(counts(&import(&world, &folder), "decisions.jsonl"), (0, 1, 1));
    prove(&world);
}

#[test]
fn a_key_that_only_the_folder_trusts_counts_once_its_trust_list_is_taken() {
    let world = World::new();
    let own = key("somebody else's");
    let public = own.public();
    use base64::Engine;
    let trust = serde_json::json!({"version": 1, "agents": {"bob": {"tier": "ATTESTED", "public_keys": [{
        "key_id": public.id(&agent("bob")).to_string(), "active": false,
        "key": base64::engine::general_purpose::STANDARD.encode(public.to_bytes()),
    }]}}});
    let Value::Object(object) = parse(br#"{"type":"ship","subject":"s","body":"old key"}"#).unwrap() else {
        unreachable!()
    };
    let line = sign(object, &agent("bob"), &own, SignatureVersion::V3, Timestamp(NOW)).unwrap();
    let folder = Folder::new(&[("bob_to_alice.jsonl", &lines(&[&line])), ("trust.json", &trust.to_string())]);
    let report = import(&world, &folder);
    assert_eq!(report["refused"][0]["rule"], "unknown-key");
    assert!(report["hints"][0].as_str().unwrap().contains("1 key not trusted here"), "{report:#}");
    let report = import_with(&world, &folder, false, true).unwrap();
    assert_eq!(counts(&report, "bob_to_alice.jsonl"), (1, 0, 0), "deactivated, but history");
    prove(&world);
}

#[test]
fn a_crash_in_the_middle_of_an_import_is_completed_by_the_next() {
    for torn in [false, true] {
        let mut world = World::new();
        let all: Vec<String> = (0..20).map(|n| at("bob", n, "")).collect();
        let plain = unsigned("bob", "plain");
        let text = lines(&all.iter().chain([&plain]).collect::<Vec<_>>());
        let folder = Folder::new(&[("bob_to_alice.jsonl", &text)]);
        import_with(&world, &folder, true, false).unwrap();
        world.crash();
        // As it was when the log had its bytes and the events only the intention.
        let events = world.read("events.jsonl");
        let path = world.dir.path().to_owned();
        let intended =
            events.lines().position(|l| l.contains("importing") && l.contains("bob_to_alice")).unwrap();
        let kept: String = events.lines().take(intended + 1).map(|line| format!("{line}\n")).collect();
        std::fs::write(path.join("events.jsonl"), kept).unwrap();
        std::fs::remove_dir_all(path.join("private/index")).unwrap();
        if torn {
            std::fs::write(path.join("bob_to_alice.jsonl"), &text[..text.len() / 2]).unwrap();
        }
        world.reopen().unwrap();
        assert!(!world.read("events.jsonl").contains("recovered"), "history, not news");
        prove(&world);
        let report = import_with(&world, &folder, true, false).unwrap();
        assert_eq!(report["refused"], serde_json::json!([]));
        assert_eq!(world.read("bob_to_alice.jsonl"), text);
        assert_eq!(world.read("inbox/alice.jsonl").lines().count(), 21, "recovery delivers no history");
        prove(&world);
    }
}

#[test]
fn what_is_exported_comes_in_again_as_it_was() {
    let world = World::new();
    for n in 0..5 {
        world.append("bob", &inbox("alice"), &(at("bob", n, "") + "\n")).unwrap();
        let bilateral = LogName::Bilateral { from: agent("carol"), to: agent("bob") };
        world.append("carol", &bilateral, &(at("carol", n, "") + "\n")).unwrap();
        if n == 2 {
            world.ex().operate(OperatorRequest::Archive { year: None }).unwrap();
        }
    }
    world.publish("bob", "x.json", &handoff("c")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("plain/_coordination");
    let export = |dir: &Path, force| {
        world.ex().operate(OperatorRequest::Export(ExportRequest { dir: dir.into(), force }))
    };
    export(&dir, false).unwrap();
    assert!(export(&dir, false).unwrap_err().contains("not empty"));
    export(&dir, true).unwrap();
    assert!(export(&world.dir.path().join("inbox/x"), false).unwrap_err().contains("lies in the exchange"));
    for path in [
        "inbox/alice.jsonl",
        "archive/2026/inbox/alice.jsonl",
        "carol_to_bob.jsonl",
        "trust.json",
        "handoff/x.json",
    ] {
        assert_eq!(std::fs::read_to_string(dir.join(path)).unwrap(), world.read(path), "{path}");
    }
    assert!(!dir.join("private").exists());

    let other = World::new();
    let request = ImportRequest { dir, allow_unsigned: false, with_trust: false };
    let report = other.ex().operate(OperatorRequest::Import(request)).unwrap();
    assert_eq!((&report["refused"], &report["hints"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(report["delivered"], serde_json::json!({}), "its inboxes hold everything already");
    for log in ["inbox/alice.jsonl", "inbox/bob.jsonl", "carol_to_bob.jsonl"] {
        let whole = world.read(&format!("archive/2026/{log}")) + &world.read(log);
        assert_eq!(other.read(log), whole, "{log}");
    }
    prove(&other);
}

#[test]
fn folders_that_hold_nothing_to_import_are_told_so() {
    let world = World::new();
    let project = Folder::new(&[("_coordination/inbox/alice.jsonl", ""), ("main.py", "")]);
    let error = import_with(&world, &project, false, false).unwrap_err();
    assert!(error.contains("_coordination"), "{error}");
    let own = ImportRequest { dir: world.dir.path().into(), allow_unsigned: false, with_trust: false };
    let error = world.ex().operate(OperatorRequest::Import(own)).unwrap_err();
    assert!(error.contains("own folder"), "{error}");
}
