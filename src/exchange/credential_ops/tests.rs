//! What the operator asks about credentials, without a mount.

use super::*;
use crate::exchange::operator::OperatorRequest;
use crate::exchange::{Caller, Durability, OpenOptions, init};
use crate::wire::name::AgentName;
use std::ffi::OsStr;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn exchange() -> (tempfile::TempDir, Arc<Exchange>) {
    let dir = tempfile::TempDir::new().unwrap();
    let root = dir.path().join("exchange");
    init::create(&root, &["bob".parse().unwrap()], NOW).unwrap();
    let toml = std::fs::read_to_string(root.join("exchange.toml")).unwrap();
    let mut profiles = String::new();
    for name in ["claude", "codex"] {
        if !toml.lines().any(|line| line.starts_with(&format!("[credentials.{name}]"))) {
            profiles += &format!("\n[credentials.{name}]\nformat = \"{name}\"\n");
        }
    }
    std::fs::write(root.join("exchange.toml"), toml + &profiles).unwrap();
    let exchange = start(&dir, 0);
    (dir, exchange)
}

/// Another start: each look at its clock finds it a microsecond later, from `later` seconds after NOW.
fn start(dir: &tempfile::TempDir, later: i64) -> Arc<Exchange> {
    let ticks = std::sync::atomic::AtomicI64::new(NOW.plus_seconds(later).0);
    let clock = move || Timestamp(ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let options = OpenOptions { durability: Durability::Os, clock: Arc::new(clock) };
    Exchange::open(&dir.path().join("exchange"), options).unwrap()
}

fn text(token: &str, expires_in: i64) -> Vec<u8> {
    serde_json::to_vec(&json!({"claudeAiOauth": {
        "accessToken": format!("access-{token}"), "refreshToken": format!("refresh-{token}"),
        "expiresAt": NOW.plus_seconds(expires_in).unix_millis(), "scopes": ["a"], "subscriptionType": "max"}}))
    .unwrap()
}

/// Writes a slot in place as bob; the errno if it is refused.
fn write(exchange: &Exchange, slot: &str, bytes: &[u8]) -> Result<(), i32> {
    let bob = Caller { uid: 0, gid: 0, pid: std::process::id(), bound: AgentName::parse("bob").ok() };
    let files = exchange.files();
    let name = format!(".credentials.json.{slot}");
    let top = files.lookup(&bob, files.credentials(), OsStr::new("claude")).unwrap().id;
    let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_CREAT;
    let open = match files.lookup(&bob, top, OsStr::new(&name)) {
        Ok(entry) => files.open(&bob, entry.id, flags).unwrap(),
        Err(_) => files.create(&bob, top, OsStr::new(&name), 0o600, flags).unwrap().1,
    };
    let written = files.write(&bob, &open, 0, false, bytes);
    files.release(&open);
    written.map(|_| ()).map_err(|denied| denied.errno())
}

fn adopt(exchange: &Exchange, slot: &str, quarantine: Option<&str>) -> Result<Value, String> {
    exchange.operate(OperatorRequest::CredentialsAdopt {
        profile: "claude".into(),
        slot: slot.into(),
        quarantine: quarantine.map(str::to_owned),
    })
}

fn switch(exchange: &Exchange, slot: &str) -> Result<Value, String> {
    exchange.operate(OperatorRequest::CredentialsSwitch {
        profile: "claude".into(),
        slot: slot.into(),
        even_if_expired: false,
    })
}

fn status(exchange: &Exchange) -> Value {
    let answer =
        exchange.operate(OperatorRequest::CredentialsStatus { profile: Some("claude".into()) }).unwrap();
    assert!(!answer.to_string().contains("refresh-"), "no token in {answer}");
    answer["profiles"][0].clone()
}

#[test]
fn the_newest_refused_bytes_are_adopted_and_heal_the_slot() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("old", 3600)).unwrap();
    assert!(adopt(&exchange, "work", None).unwrap_err().contains("nothing was refused"));
    for token in ["one", "two"] {
        assert_eq!(write(&exchange, "work", &text(token, 3600)), Err(libc::EPERM));
    }
    assert_eq!(status(&exchange)["slots"][0]["last_verdict"]["verdict"], "refused");
    let adopted = adopt(&exchange, "work", None).unwrap();
    let slot = exchange.layout.tree("credentials/claude/.credentials.json.work");
    assert_eq!(std::fs::read(&slot).unwrap(), text("two", 3600));
    assert_eq!(status(&exchange)["slots"][0]["fingerprint"], adopted["fingerprint"]);
    assert_eq!(status(&exchange)["slots"][0]["last_verdict"]["verdict"], "adopted");
    write(&exchange, "work", &text("two", 7200)).unwrap();
    let events = std::fs::read_to_string(exchange.layout.events()).unwrap();
    assert!(events.contains("credential-adopted") && !events.contains("refresh-"));
}

#[test]
fn named_bytes_may_go_into_another_slot_but_nothing_outside_quarantine_may() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("old", 3600)).unwrap();
    write(&exchange, "work", &text("other", 3600)).unwrap_err();
    let profile = exchange.profile("claude").unwrap();
    let id = exchange.newest_refused(profile, &SlotName::parse("work").unwrap()).unwrap().unwrap();
    adopt(&exchange, "home", Some(&format!("private/quarantine/{id}"))).unwrap();
    let home = exchange.layout.tree("credentials/claude/.credentials.json.home");
    assert_eq!(std::fs::read(home).unwrap(), text("other", 3600));
    for outside in ["../../trust.json", "..", "", "/etc/passwd"] {
        assert!(adopt(&exchange, "home", Some(outside)).is_err(), "{outside}");
    }
}

#[test]
fn the_operator_switches_by_the_same_rule_as_agents() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("a", 3600)).unwrap();
    write(&exchange, "old", &text("b", 100)).unwrap();
    assert!(switch(&exchange, "old").unwrap_err().starts_with("stale-slot"));
    assert!(switch(&exchange, "missing").unwrap_err().contains("no slot missing"));
    assert!(switch(&exchange, "../x").unwrap_err().contains("no slot name"));
    assert_eq!(status(&exchange)["live"], Value::Null);
    switch(&exchange, "work").unwrap();
    switch(&exchange, "work").unwrap();
    let profile = status(&exchange);
    assert_eq!(profile["live"], "work");
    let slots = profile["slots"].as_array().unwrap();
    let fresh: Vec<_> = slots.iter().map(|slot| (&slot["slot"], &slot["fresh"], &slot["live"])).collect();
    assert_eq!(
        fresh,
        [(&json!("old"), &json!(false), &json!(false)), (&json!("work"), &json!(true), &json!(true))]
    );
}

#[test]
fn an_unknown_profile_is_answered_with_those_there_are() {
    let (_dir, exchange) = exchange();
    let unknown = OperatorRequest::CredentialsStatus { profile: Some("claud".into()) };
    assert!(exchange.operate(unknown).unwrap_err().contains("there is claude"));
}

fn add(exchange: &Exchange, profile: &str, slot: &str, bytes: &[u8]) -> Result<Value, String> {
    exchange.operate(OperatorRequest::CredentialsAdd {
        profile: profile.into(),
        slot: slot.into(),
        text: String::from_utf8(bytes.to_vec()).unwrap().into(),
    })
}

fn history(exchange: &Exchange) -> Vec<Value> {
    let request = OperatorRequest::CredentialsHistory { profile: "claude".into(), slot: None };
    exchange.operate(request).unwrap()["history"].as_array().unwrap().clone()
}

fn slot_file(exchange: &Exchange, slot: &str) -> std::path::PathBuf {
    exchange.layout.tree(&format!("credentials/claude/.credentials.json.{slot}"))
}

#[test]
fn adopted_bytes_leave_quarantine_and_what_they_replaced_comes_there() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("old", 3600)).unwrap();
    write(&exchange, "work", &text("spent", 200)).unwrap_err();
    let done = adopt(&exchange, "work", None).unwrap();
    let adopted = exchange.layout.quarantine().join(done["quarantine"].as_str().unwrap());
    assert!(!adopted.exists());
    let shown = history(&exchange).into_iter().find(|record| record["what"] == "adopted").unwrap();
    let replaced = exchange.layout.tree(shown["replaced"].as_str().unwrap());
    assert_eq!(std::fs::read(&replaced).unwrap(), text("old", 3600));

    // A refresh is due: what the slot then holds must not be replaced by what it was adopted with.
    write(&exchange, "work", &text("refreshed", 3600)).unwrap();
    let again = adopt(&exchange, "work", None).unwrap_err();
    assert!(again.contains("since it was changed last") && again.contains("--quarantine ID"), "{again}");
    assert_eq!(std::fs::read(slot_file(&exchange, "work")).unwrap(), text("refreshed", 3600));

    // The way back is by the name that the history tells.
    let id = replaced.file_name().unwrap().to_str().unwrap();
    adopt(&exchange, "work", Some(id)).unwrap();
    assert_eq!(std::fs::read(slot_file(&exchange, "work")).unwrap(), text("old", 3600));
}

#[test]
fn refused_bytes_that_are_gone_are_told_of_with_the_way_on() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("old", 3600)).unwrap();
    write(&exchange, "work", &text("other", 3600)).unwrap_err();
    exchange.operate(OperatorRequest::RefusalsClear { agent: None, older_than_days: None }).unwrap();
    let gone = adopt(&exchange, "work", None).unwrap_err();
    assert!(gone.contains("can't be read") && gone.contains("--quarantine ID"), "{gone}");
}

#[test]
fn the_login_before_a_refresh_is_kept_for_one_generation() {
    let (dir, exchange) = exchange();
    write(&exchange, "work", &text("one", 200)).unwrap();
    write(&exchange, "work", &text("two", 200)).unwrap();
    write(&exchange, "work", &text("three", 3600)).unwrap();
    let told: Vec<_> = history(&exchange)
        .iter()
        .filter_map(|record| record["replaced"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(told, ["private/previous/claude/work"], "only the last one is there still");
    assert_eq!(std::fs::read(exchange.layout.tree(&told[0])).unwrap(), text("two", 200));
    drop(exchange);
    let report = crate::exchange::verify::verify(&dir.path().join("exchange")).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn the_last_verdict_is_the_same_after_a_restart() {
    let (dir, exchange) = exchange();
    let bob = Caller { uid: 0, gid: 0, pid: std::process::id(), bound: AgentName::parse("bob").ok() };
    write(&exchange, "work", &text("a", 3600)).unwrap();
    write(&exchange, "work", &text("a", 3600)).unwrap();
    write(&exchange, "home", &text("b", 3600)).unwrap();
    write(&exchange, "home", &text("other", 3600)).unwrap_err();
    write(&exchange, "home", &text("b", 7200)).unwrap();
    write(&exchange, "idle", &text("c", 3600)).unwrap();
    write(&exchange, "idle", &text("other", 3600)).unwrap_err();
    let files = exchange.files();
    let top = files.lookup(&bob, files.credentials(), OsStr::new("claude")).unwrap().id;
    for slot in ["work", "home"] {
        files.unlink(&bob, top, OsStr::new(&format!(".credentials.json.{slot}"))).unwrap_err();
    }
    let verdicts = |exchange: &Exchange| -> Vec<(String, String)> {
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let slots = status(exchange)["slots"].as_array().unwrap().clone();
        slots.iter().map(|slot| (word(&slot["slot"]), word(&slot["last_verdict"]["verdict"]))).collect()
    };
    let before = verdicts(&exchange);
    let expected = [("home", "unchanged"), ("idle", "refused"), ("work", "captured")];
    assert_eq!(before, expected.map(|(slot, verdict)| (slot.to_owned(), verdict.to_owned())));
    drop(exchange);
    assert_eq!(verdicts(&start(&dir, 60)), before);
}

#[test]
fn a_file_under_the_live_name_is_told_of_and_kept_by_a_switch() {
    let (_dir, exchange) = exchange();
    write(&exchange, "work", &text("a", 3600)).unwrap();
    switch(&exchange, "work").unwrap();
    assert_eq!(status(&exchange)["stray"], Value::Null);
    let live = exchange.layout.tree("credentials/claude/.credentials.json");
    std::fs::remove_file(&live).unwrap();
    std::fs::write(&live, text("behind", 3600)).unwrap();
    assert_eq!(status(&exchange)["stray"], live.to_str().unwrap());
    add(&exchange, "claude", "next", &std::fs::read(&live).unwrap()).unwrap();
    switch(&exchange, "work").unwrap();
    let shown = history(&exchange).into_iter().rfind(|record| record["what"] == "switched").unwrap();
    let kept = std::fs::read(exchange.layout.tree(shown["replaced"].as_str().unwrap())).unwrap();
    assert_eq!(kept, text("behind", 3600));
    assert_eq!((&status(&exchange)["stray"], &status(&exchange)["live"]), (&Value::Null, &json!("work")));
}

#[test]
fn what_is_no_login_of_the_profile_or_is_in_a_slot_already_is_not_added() {
    let (_dir, exchange) = exchange();
    let foreign = add(&exchange, "codex", "work", &text("a", 3600)).unwrap_err();
    assert!(foreign.contains("no codex login") && !foreign.contains("keeps its own"), "{foreign}");
    assert!(add(&exchange, "claude", "work", b"{").unwrap_err().contains("no claude login"));
    add(&exchange, "claude", "work", &text("a", 3600)).unwrap();
    let twice = add(&exchange, "claude", "home", &text("a", 3600)).unwrap_err();
    assert!(twice.contains("baton credentials switch work"), "{twice}");
    assert!(!slot_file(&exchange, "home").exists());
    let unknown = add(&exchange, "gemini", "work", b"{}").unwrap_err();
    assert!(unknown.contains("unmount every mount") && unknown.contains("[credentials.gemini]"), "{unknown}");
}
