//! send/ without a mount: races and time.

use super::*;
use std::time::SystemTime;

fn sending() -> World {
    let world = World::new();
    world.ex().lend_key(&agent("bob"), &Arc::new(key("bob"))).unwrap();
    world
}

/// One file, written and closed by bob.
fn write(exchange: &Exchange, name: &str, text: &str) -> Outcome<()> {
    let bob = as_agent("bob");
    let (_, letter) = exchange.create_letter(&bob, &agent("alice"), name)?;
    letter.write(&bob, 0, false, text.as_bytes())?;
    let closed = letter.flush(&bob);
    letter.release();
    closed
}

fn bodies(world: &World) -> Vec<String> {
    let lines = world.read("inbox/alice.jsonl");
    let body = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].as_str().unwrap().to_owned()
    };
    lines.lines().map(body).collect()
}

fn refusals(world: &World) -> Vec<serde_json::Value> {
    let text =
        std::fs::read_to_string(world.dir.path().join("private/refusals/all.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn of_many_that_close_one_name_at_once_one_is_sent_and_the_others_are_told() {
    let world = sending();
    for round in 0..20 {
        let name = format!("{round}.md");
        let done: Vec<Outcome<()>> = std::thread::scope(|scope| {
            let write = |n: u32| write(world.ex(), &name, &format!("{round}-{n}"));
            let workers: Vec<_> = (0..4).map(|n| scope.spawn(move || write(n))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(done.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{done:?}");
        let rules = done.iter().filter_map(|outcome| match outcome {
            Err(Denied::Refused(refusal)) => Some(refusal.rule.name()),
            _ => None,
        });
        assert!(rules.eq(["immutable"; 3]));
        assert_eq!(bodies(&world).len(), round + 1);
        let bob = as_agent("bob");
        let letter = world.ex().find_letter(&bob, &agent("alice"), &name).unwrap();
        let sent = world.read(&format!("send/alice/bob/{name}"));
        assert_eq!(world.ex().letter_attr(letter).unwrap().size, sent.len() as u64);
        assert!(sent.contains(&format!(r#""body":"{}""#, bodies(&world)[round])));
    }
    let kept = refusals(&world).iter().filter(|refusal| refusal["quarantine"].is_string()).count();
    let before_the_first_byte =
        refusals(&world).iter().filter(|refusal| refusal["operation"] == "create").count();
    assert_eq!(kept + before_the_first_byte, 60, "what was not sent is kept");
}

#[test]
fn a_draft_that_nobody_finishes_is_given_up_after_an_hour() {
    let world = sending();
    for (name, text) in [("draft", "scratch"), ("empty.md", "")] {
        write(world.ex(), name, text).unwrap();
    }
    let shown = || world.ex().list_letters(&as_agent("bob"), &agent("alice")).len();
    let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    world.clock.store(now + 3_500_000_000, Ordering::SeqCst);
    world.ex().run_janitor();
    assert_eq!(shown(), 2);
    world.clock.store(now + 3_700_000_000, Ordering::SeqCst);
    world.ex().run_janitor();
    assert_eq!(shown(), 0);
    let [refusal] = &refusals(&world)[..] else { panic!("{:#?}", refusals(&world)) };
    assert_eq!((&refusal["rule"], &refusal["path"]), (&"partial".into(), &"send/alice/draft".into()));
    assert_eq!(world.read(refusal["quarantine"].as_str().unwrap()), "scratch");
}

#[test]
fn a_reader_of_a_draft_has_no_part_in_when_it_is_sent() {
    let world = sending();
    let bob = as_agent("bob");
    let (node, writer) = world.ex().create_letter(&bob, &agent("alice"), "x.md").unwrap();
    writer.write(&bob, 0, false, b"half").unwrap();
    let reader = world.ex().open_letter_draft(&bob, node, libc::O_RDONLY).unwrap();
    assert_eq!(reader.read(0, 9), b"half");
    reader.flush(&bob).unwrap();
    reader.release();
    assert!(bodies(&world).is_empty());
    let other = world.ex().open_letter_draft(&bob, node, libc::O_WRONLY).unwrap();
    writer.flush(&bob).unwrap();
    writer.release();
    assert!(bodies(&world).is_empty(), "somebody still writes to it");
    other.write(&bob, 0, true, b" and whole").unwrap();
    other.flush(&bob).unwrap();
    assert_eq!(bodies(&world), ["half and whole"]);
    let late = other.write(&bob, 0, true, b" and more").unwrap_err();
    assert!(late.to_string().starts_with("immutable"), "{late}");
}

#[test]
fn a_mount_that_ends_under_a_writer_sends_nothing() {
    let world = sending();
    let bob = as_agent("bob");
    let (_, writer) = world.ex().create_letter(&bob, &agent("alice"), "x.md").unwrap();
    writer.write(&bob, 0, false, b"half").unwrap();
    writer.abandon();
    assert!(bodies(&world).is_empty());
    assert_eq!(refusals(&world)[0]["rule"], "partial");
    write(world.ex(), "x.md", "whole").unwrap();
    assert_eq!(bodies(&world), ["whole"]);
}

#[test]
fn an_archived_outbox_still_knows_what_was_sent() {
    let mut world = sending();
    write(world.ex(), "x.md", "hello").unwrap();
    let staged = world.dir.path().join("private/sending/alice/bob/x.md");
    // As if the daemon had been killed before the file was in its place.
    std::fs::rename(world.dir.path().join("send/alice/bob/x.md"), &staged).unwrap();
    let request: batonfs::exchange::operator::OperatorRequest =
        serde_json::from_value(serde_json::json!({"request": "archive"})).unwrap();
    world.ex().operate(request).unwrap();
    assert_eq!(world.read("outbox/bob.jsonl"), "");
    world.reopen().unwrap();
    assert!(!staged.exists());
    assert!(world.read("send/alice/bob/x.md").contains("hello"));
}
