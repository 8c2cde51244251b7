//! Quotas: an inbox that is full, and a quarantine that is.

use super::*;
use batonfs::exchange::operator::OperatorRequest;

fn configured(exchange_toml: &str) -> World {
    let mut world = World::new();
    world.exchange = None;
    let file = world.dir.path().join("exchange.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("[exchange]\n{exchange_toml}\n{text}")).unwrap();
    world.reopen().unwrap();
    world
}

#[track_caller]
fn advice<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome.unwrap_err() {
        Denied::Refused(refusal) => {
            assert_eq!(refusal.rule.name(), "quota");
            refusal.advice
        }
        Denied::Io(error) => panic!("no refusal but {error}"),
    }
}

#[test]
fn a_full_inbox_takes_nothing_by_any_way_until_it_is_archived() {
    let world = configured("inbox_bytes = 1000");
    let line = message("bob", "one") + "\n";
    let times = 1000 / line.len();
    for n in 0..times {
        world.append("bob", &inbox("alice"), &(message("bob", &format!("{n:03}")) + "\n")).unwrap();
    }
    let over = world.append("bob", &inbox("alice"), &line);
    let advice = advice(over);
    assert!(advice.contains("baton archive") && advice.contains("2027-01-01T00:00:00Z"), "{advice}");
    let bilateral = LogName::Bilateral { from: agent("bob"), to: agent("alice") };
    assert_eq!(rule(world.append("bob", &bilateral, &line)), "quota");
    assert_eq!(world.read("bob_to_alice.jsonl"), "", "a message is for all of its recipients or for none");
    // Others go on.
    world.append("bob", &inbox("carol"), &line).unwrap();
    world.ex().operate(OperatorRequest::Archive { year: None }).unwrap();
    world.append("bob", &bilateral, &line).unwrap();
    assert_eq!(world.read("inbox/alice.jsonl"), line);
}

#[test]
fn a_full_quarantine_names_the_broken_rule_and_keeps_nothing_more_until_it_is_cleared() {
    let world = configured("quarantine_bytes = 8192");
    let bad = "not json\n";
    for _ in 0..2 {
        assert_eq!(rule(world.append("bob", &inbox("alice"), bad)), "json");
    }
    let advice = advice(world.append("bob", &inbox("alice"), bad));
    for part in ["json: ", "NOT kept", "baton refusals clear --agent bob"] {
        assert!(advice.contains(part), "{advice}");
    }
    let last = world.refusals().pop().unwrap();
    assert_eq!((&last["rule"], &last["quarantine"]), (&"quota".into(), &serde_json::Value::Null));
    assert_eq!(last["errno_name"], "EDQUOT");
    // What breaks no rule passes, and so do the others' refusals.
    world.append("bob", &inbox("alice"), &(message("bob", "good") + "\n")).unwrap();
    assert_eq!(rule(world.append("alice", &inbox("bob"), bad)), "json");

    let clear = |agent: Option<&str>, older_than_days| {
        let agent = agent.map(str::to_owned);
        world.ex().operate(OperatorRequest::RefusalsClear { agent, older_than_days })
    };
    assert_eq!(clear(Some("bob"), Some(1)).unwrap()["files"], 0, "they are too young");
    assert!(clear(Some("zed"), None).unwrap_err().contains("no agent"));
    world.later(2 * 86_400);
    assert_eq!(clear(Some("bob"), Some(1)).unwrap()["files"], 2);
    assert_eq!(rule(world.append("bob", &inbox("alice"), bad)), "json");
    assert_eq!(clear(None, None).unwrap()["files"], 2);
}
