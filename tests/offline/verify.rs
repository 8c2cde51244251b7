//! `baton verify`: a real exchange passes, and every way of changing it behind the mount shows.

use crate::{Sample, baton_in};
use batonfs::exchange::handoffs::State;
use batonfs::exchange::{Caller, Durability, Exchange, OpenOptions};
use batonfs::wire::name::AgentName;
use batonfs::wire::time::Timestamp;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::time::SystemTime;

/// An exchange in which five messages were sent in four writes, the last by a bilateral log, from where it was
/// delivered to the inbox too; and three handoffs went their ways.
struct Busy {
    sample: Sample,
}

fn open(sample: &Sample) -> Arc<Exchange> {
    let clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_micros()).unwrap())
    });
    Exchange::open(&sample.dir(), OpenOptions { durability: Durability::Os, clock }).unwrap()
}

fn operator(exchange: &Exchange) -> Caller {
    Caller { uid: exchange.owner_uid(), gid: 0, pid: std::process::id(), bound: None }
}

fn send(sample: &Sample, exchange: &Exchange, log: &str, from: &str, bodies: &[&str]) {
    let objects: String =
        bodies.iter().map(|body| format!(r#"{{"type":"request","subject":"s","body":"{body}"}}"#)).collect();
    let lines = sample.baton(&["sign", "--as", from], &objects).ok();
    let caller = operator(exchange);
    let log = exchange.find_log(log).unwrap();
    let writer = exchange.open_log_writer(&caller, &log, libc::O_WRONLY | libc::O_APPEND).unwrap();
    assert_eq!(writer.write(&caller, 0, true, lines.as_bytes()).unwrap(), lines.len());
    writer.release();
}

fn hand_over(sample: &Sample, exchange: &Exchange, name: &str) {
    let args = [
        "handoff", "new", "--from", "bob", "--to", "alice", "--reason", "r", "--ttl", "600", "--caller", name,
    ];
    let payload = sample.baton(&args, "").ok();
    let caller = operator(exchange);
    let (_, draft) = exchange.create_draft(&caller, State::Pending, name).unwrap();
    draft.write(&caller, 0, false, payload.trim_end().as_bytes()).unwrap();
    draft.release();
}

impl Busy {
    fn new() -> Self {
        let sample = Sample::make();
        let exchange = open(&sample);
        send(&sample, &exchange, "inbox/alice.jsonl", "bob", &["one", "two"]);
        send(&sample, &exchange, "inbox/alice.jsonl", "bob", &["three"]);
        send(&sample, &exchange, "inbox/alice.jsonl", "alice", &["four"]);
        send(&sample, &exchange, "bob_to_alice.jsonl", "bob", &["five"]);
        let caller = operator(&exchange);
        for name in ["a.json", "b.json", "c.json"] {
            hand_over(&sample, &exchange, name);
        }
        exchange.move_handoff(&caller, (State::Pending, "a.json"), (State::Claimed, "a.json")).unwrap();
        exchange.move_handoff(&caller, (State::Claimed, "a.json"), (State::Archived, "done.json")).unwrap();
        exchange.unlink_handoff(&caller, State::Pending, "b.json").unwrap();
        drop(exchange);
        let busy = Busy { sample };
        busy.expect(&[]);
        busy
    }

    fn report(&self) -> Value {
        let ran = self.sample.baton(&["verify", "--json"], "");
        assert_eq!(ran.err, "");
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(ran.code == 0, report["faults"].as_array().unwrap().is_empty());
        report
    }

    /// The proof finds exactly these faults: file, line (0: none), rule.
    #[track_caller]
    fn expect(&self, faults: &[(&str, u64, &str)]) {
        let report = self.report();
        let found: Vec<_> = report["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| {
                (f["file"].as_str().unwrap(), f["line"].as_u64().unwrap_or(0), f["rule"].as_str().unwrap())
            })
            .collect();
        assert_eq!(found, faults, "{report:#}");
    }

    fn edit(&self, file: &str, change: impl Fn(&str) -> String) {
        let path = self.sample.path(file);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed);
        fs::remove_file(&path).unwrap();
        fs::write(path, changed).unwrap();
    }

    /// Rewrites a file's lines.
    fn edit_lines(&self, file: &str, change: impl Fn(&mut Vec<&str>)) {
        self.edit(file, |text| {
            let mut lines: Vec<_> = text.split_inclusive('\n').collect();
            change(&mut lines);
            lines.concat()
        });
    }

    fn chmod(&self, file: &str, mode: u32) {
        fs::set_permissions(self.sample.path(file), fs::Permissions::from_mode(mode)).unwrap();
    }
}

const INBOX: &str = "inbox/alice.jsonl";

#[test]
fn a_message_that_is_missing_in_the_inbox_it_names_is_found() {
    let busy = Busy::new();
    // The copy of what stands in the bilateral log came last.
    busy.edit_lines(INBOX, |lines| lines.truncate(lines.len() - 1));
    busy.expect(&[("bob_to_alice.jsonl", 1, "undelivered"), (INBOX, 5, "append-only")]);
}

#[test]
fn an_untouched_exchange_passes_with_its_counts_and_the_chain_s_head() {
    let busy = Busy::new();
    let report = busy.report();
    let counts = &report["counts"];
    assert_eq!((counts["lines"].as_u64(), counts["handoffs"].as_u64()), (Some(6), Some(3)), "{report:#}");
    let head = report["head"].as_str().unwrap();
    let text = baton_in(busy.sample.temp.path(), &["verify", "exchange"], "").ok();
    assert!(text.starts_with("verified: ") && text.contains(head), "{text}");

    // The next event's prev is the head that was printed.
    let exchange = open(&busy.sample);
    exchange.event("mounted", serde_json::Map::new());
    drop(exchange);
    assert!(fs::read_to_string(busy.sample.path("events.jsonl")).unwrap().contains(head));
    busy.expect(&[]);
}

#[test]
fn a_change_of_one_letter_in_a_line_is_found_twice_over() {
    let busy = Busy::new();
    busy.edit(INBOX, |text| text.replace("three", "thrEe"));
    busy.expect(&[(INBOX, 3, "append-only"), (INBOX, 3, "event-id")]);
}

#[test]
fn a_change_that_no_signature_covers_is_found() {
    let busy = Busy::new();
    busy.edit_lines(INBOX, |lines| lines[2] = Box::leak(lines[2].replacen("{", "{ ", 1).into_boxed_str()));
    busy.expect(&[(INBOX, 3, "append-only")]);
}

#[test]
fn a_dropped_line_is_found_where_it_was() {
    let busy = Busy::new();
    busy.edit_lines(INBOX, |lines| lines.retain(|line| !line.contains("three")));
    busy.expect(&[(INBOX, 3, "append-only")]);
    busy.edit_lines(INBOX, |lines| lines.truncate(2));
    busy.expect(&[("bob_to_alice.jsonl", 1, "undelivered"), (INBOX, 3, "append-only")]);
}

#[test]
fn lines_in_another_order_are_found() {
    let busy = Busy::new();
    busy.edit_lines(INBOX, |lines| lines.swap(2, 3));
    busy.expect(&[(INBOX, 3, "append-only"), (INBOX, 4, "append-only")]);
    let busy = Busy::new();
    busy.edit_lines(INBOX, |lines| lines.swap(0, 1));
    busy.expect(&[(INBOX, 1, "append-only")]);
}

#[test]
fn a_line_added_behind_the_mount_is_found_though_its_signature_is_right() {
    let busy = Busy::new();
    let line =
        busy.sample.baton(&["sign", "--as", "bob"], r#"{"type":"ship","subject":"s","body":"x"}"#).ok();
    busy.edit(INBOX, |text| format!("{text}{line}"));
    busy.expect(&[(INBOX, 6, "uncovered")]);
    busy.edit_lines(INBOX, |lines| lines.rotate_right(1));
    busy.expect(&[(INBOX, 1, "append-only")]);
}

#[test]
fn a_line_given_twice_is_a_replay() {
    let busy = Busy::new();
    busy.edit_lines(INBOX, |lines| lines.push(lines[0]));
    busy.expect(&[(INBOX, 6, "uncovered"), (INBOX, 6, "replay")]);
}

#[test]
fn a_torn_tail_is_found_and_the_next_mount_mends_it() {
    let busy = Busy::new();
    busy.edit(INBOX, |text| format!("{text}{{\"type\":"));
    busy.expect(&[(INBOX, 6, "uncovered"), (INBOX, 6, "torn")]);
    let text = busy.sample.baton(&["verify"], "").out;
    assert!(text.contains("mount the exchange once"), "{text}");
    drop(open(&busy.sample));
    busy.expect(&[]);
}

#[test]
fn a_line_that_is_not_json_and_one_without_a_signature_are_named() {
    let busy = Busy::new();
    busy.edit(INBOX, |text| {
        let unsigned = r#"{"timestamp":"2026-05-10T00:00:00Z","from":"bob","type":"ship","subject":"s","body":"b","correlation_id":"c"}"#;
        format!("{text}hello\n{unsigned}\n{{\"a\":1,\"a\":2}}\n[]\n")
    });
    busy.expect(&[
        (INBOX, 6, "uncovered"),
        (INBOX, 6, "json"),
        (INBOX, 7, "unsigned"),
        (INBOX, 8, "duplicate-key"),
        (INBOX, 9, "json"),
    ]);
}

#[test]
fn a_log_that_is_gone_and_one_from_another_author_are_found() {
    let busy = Busy::new();
    fs::remove_file(busy.sample.path("bob_to_alice.jsonl")).unwrap();
    busy.expect(&[("bob_to_alice.jsonl", 0, "missing")]);
    let line =
        busy.sample.baton(&["sign", "--as", "alice"], r#"{"type":"ship","subject":"s","body":"x"}"#).ok();
    fs::write(busy.sample.path("bob_to_alice.jsonl"), line).unwrap();
    busy.expect(&[("bob_to_alice.jsonl", 1, "append-only"), ("bob_to_alice.jsonl", 1, "authority")]);
}

#[test]
fn history_signed_with_a_key_that_was_deactivated_since_stays_right() {
    let busy = Busy::new();
    busy.edit("trust.json", |text| text.replace("\"active\": true", "\"active\": false"));
    busy.expect(&[("private/keys/alice.key", 0, "key"), ("private/keys/bob.key", 0, "key")]);
}

#[test]
fn every_change_of_the_event_chain_is_found() {
    let chain = "event-chain";
    let busy = Busy::new();
    busy.edit_lines("events.jsonl", |lines| {
        lines[0] = Box::leak(lines[0].replace("Z\"", "z\"").into_boxed_str())
    });
    busy.expect(&[("events.jsonl", 2, chain)]);

    let busy = Busy::new();
    busy.edit_lines("events.jsonl", |lines| lines.retain(|line| !line.contains("\"seq\":1,")));
    let report = busy.report();
    assert!(
        report["faults"].as_array().unwrap().iter().any(|f| f["file"] == "events.jsonl" && f["line"] == 1)
    );

    let busy = Busy::new();
    busy.edit_lines("events.jsonl", |lines| lines.swap(0, 1));
    let report = busy.report();
    assert!(
        report["faults"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["file"] == "events.jsonl" && f["rule"] == chain)
    );

    let busy = Busy::new();
    busy.edit("events.jsonl", |text| text[..text.len() - 10].to_owned());
    let report = busy.report();
    assert!(report["faults"].as_array().unwrap().iter().any(|f| f["rule"] == "torn"), "{report:#}");
}

#[test]
fn every_change_of_the_handoffs_is_found() {
    let busy = Busy::new();
    let path = |name: &str| busy.sample.path(name);
    busy.edit("handoff/c.json", |text| text.replace("\"reason\":\"r\"", "\"reason\":\"R\""));
    busy.expect(&[("handoff/c.json", 0, "immutable")]);
    busy.edit("handoff/c.json", |text| text.replace("\"reason\":\"R\"", "\"reason\":\"r\""));

    fs::rename(path("handoff/c.json"), path("claimed/c.json")).unwrap();
    busy.expect(&[("claimed/c.json", 0, "added"), ("handoff/c.json", 0, "missing")]);
    fs::rename(path("claimed/c.json"), path("handoff/c.json")).unwrap();

    fs::write(path("handoff/d.json"), "{}").unwrap();
    busy.expect(&[("handoff/d.json", 0, "added")]);
    fs::remove_file(path("handoff/d.json")).unwrap();

    fs::write(path("rejected/x.json.reason.json"), r#"{"handoff_id":"never"}"#).unwrap();
    busy.expect(&[("rejected/x.json.reason.json", 0, "added")]);
    fs::remove_file(path("rejected/x.json.reason.json")).unwrap();

    fs::remove_file(path("archive/done.json")).unwrap();
    busy.expect(&[("archive/done.json", 0, "missing")]);
}

#[test]
fn every_change_of_what_was_sent_is_found() {
    let busy = Busy::new();
    let exchange = open(&busy.sample);
    let bob = Caller { bound: AgentName::parse("bob").ok(), ..operator(&exchange) };
    for name in ["x.md", "y.md"] {
        let alice = AgentName::parse("alice").unwrap();
        let (_, letter) = exchange.create_letter(&bob, &alice, name).unwrap();
        letter.write(&bob, 0, false, b"hello").unwrap();
        letter.release();
    }
    drop(exchange);
    busy.expect(&[]);
    // One that a crash caught on its way is for the next mount to finish.
    fs::copy(busy.sample.path("send/alice/bob/x.md"), busy.sample.path("private/sending/alice/bob/z.md"))
        .unwrap();
    busy.expect(&[]);
    let (x, y) = ("send/alice/bob/x.md", "send/alice/bob/y.md");
    busy.chmod(x, 0o644);
    busy.edit(x, |text| text.replace("hello", "jello"));
    fs::rename(busy.sample.path(y), busy.sample.path("send/alice/bob/z.md")).unwrap();
    busy.expect(&[(x, 0, "immutable"), (y, 0, "missing"), ("send/alice/bob/z.md", 0, "added")]);
}

#[test]
fn a_handoff_that_was_signed_with_a_secret_replaced_since_stays_right() {
    let busy = Busy::new();
    let import = ["secret", "import", "--pair", "bob,alice", "-"];
    busy.sample.baton(&import, "another secret").ok();
    busy.expect(&[]);
    fs::write(busy.sample.path("private/secrets/alice,bob.secret"), "a third, behind the mount").unwrap();
    busy.expect(&[]);
    let exchange = open(&busy.sample);
    hand_over(&busy.sample, &exchange, "d.json");
    drop(exchange);
    fs::write(busy.sample.path("private/secrets/alice,bob.secret"), "a fourth").unwrap();
    busy.expect(&[("handoff/d.json", 0, "hmac")]);
}

#[test]
fn wide_modes_and_unreadable_keys_and_lists_are_found() {
    let busy = Busy::new();
    busy.chmod("private/keys/bob.key", 0o640);
    busy.chmod("private", 0o755);
    busy.expect(&[("private", 0, "modes"), ("private/keys/bob.key", 0, "modes")]);
    busy.chmod("private/keys/bob.key", 0o600);
    busy.chmod("private", 0o700);
    fs::write(busy.sample.path("private/keys/bob.key"), "x").unwrap();
    fs::write(busy.sample.path("private/secrets/alice,bob.secret"), "").unwrap();
    let report = busy.report();
    let found: Vec<_> =
        report["faults"].as_array().unwrap().iter().map(|f| f["file"].as_str().unwrap()).collect();
    assert!(found.contains(&"private/keys/bob.key") && found.contains(&"private/secrets/alice,bob.secret"));

    let busy = Busy::new();
    fs::write(busy.sample.path("exchange.toml"), "[agents\n").unwrap();
    fs::write(busy.sample.path("trust.json"), "{").unwrap();
    let report = busy.report();
    let rules: Vec<_> =
        report["faults"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert!(
        rules.contains(&"config") && rules.contains(&"trust") && rules.contains(&"unknown-key"),
        "{rules:?}"
    );
}

fn login(token: &str) -> String {
    format!(
        r#"{{"claudeAiOauth":{{"accessToken":"a","refreshToken":"{token}","expiresAt":9999999999999,"scopes":["user"],"subscriptionType":"max"}}}}"#
    )
}

#[test]
fn credential_slots_and_the_live_link_are_checked() {
    let busy = Busy::new();
    let dir = busy.sample.path("credentials/claude");
    let slot = dir.join(".credentials.json.a");
    fs::write(&slot, login("t1")).unwrap();
    busy.chmod("credentials/claude/.credentials.json.a", 0o600);
    std::os::unix::fs::symlink(".credentials.json.a", dir.join(".credentials.json")).unwrap();
    fs::write(dir.join(".credentials.json.a.fingerprint.json"), "{}").unwrap();
    busy.expect(&[]);
    assert_eq!(busy.report()["counts"]["slots"], 1);

    busy.chmod("credentials/claude/.credentials.json.a", 0o644);
    busy.expect(&[("credentials/claude/.credentials.json.a", 0, "modes")]);
    busy.chmod("credentials/claude/.credentials.json.a", 0o600);

    let exchange = open(&busy.sample);
    let mut members = serde_json::Map::new();
    for (key, value) in [("profile", "claude"), ("slot", "a"), ("fingerprint", "0123456789ab"), ("by", "bob")]
    {
        members.insert(key.into(), value.into());
    }
    exchange.event("credential-rotated", members);
    drop(exchange);
    busy.expect(&[("credentials/claude/.credentials.json.a", 0, "identity")]);

    fs::write(&slot, "{}").unwrap();
    busy.expect(&[("credentials/claude/.credentials.json.a", 0, "credential")]);
    fs::remove_file(&slot).unwrap();
    busy.expect(&[
        ("credentials/claude/.credentials.json", 0, "credential"),
        ("credentials/claude/.credentials.json.a", 0, "missing"),
    ]);
}

#[test]
fn a_running_daemon_s_exchange_passes_and_says_so() {
    let busy = Busy::new();
    let exchange = open(&busy.sample);
    assert_eq!(busy.report()["live"], true);
    busy.expect(&[]);
    drop(exchange);
    assert_eq!(busy.report()["live"], false);
}

#[test]
fn verify_changes_nothing() {
    let busy = Busy::new();
    let stamp = |file: &str| {
        let meta = fs::metadata(busy.sample.path(file)).unwrap();
        (meta.mtime_nsec(), meta.ctime_nsec(), meta.len())
    };
    let files = [INBOX, "events.jsonl", "trust.json", "private/daemon.lock", "handoff/c.json"];
    let before = files.map(stamp);
    busy.expect(&[]);
    assert_eq!(files.map(stamp), before);
}
