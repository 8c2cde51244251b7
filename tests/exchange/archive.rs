//! Archives: nothing is lost, nothing comes twice, and the year's turn is seen by the exchange's clock.

use super::*;
use batonfs::exchange::operator::OperatorRequest;
use batonfs::exchange::verify::verify;

const YEAR: i64 = 366 * 86_400;

fn archive(world: &World) -> Vec<String> {
    let answer = world.ex().operate(OperatorRequest::Archive { year: None }).unwrap();
    let archived = answer["archived"].as_array().unwrap();
    archived.iter().map(|a| a["to"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub fn prove(world: &World) {
    let mut faults = verify(world.dir.path()).unwrap().faults;
    // The world makes its private folder itself, open to all.
    faults.retain(|fault| fault.rule != "modes");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn lines_move_to_the_year_and_the_logs_start_empty() {
    let mut world = World::new();
    let (one, two) = (message("bob", "one"), message("bob", "two"));
    world.append("bob", &inbox("alice"), &format!("{one}\n")).unwrap();
    let bilateral = LogName::Bilateral { from: agent("bob"), to: agent("carol") };
    world.append("bob", &bilateral, &format!("{two}\n")).unwrap();
    let to = archive(&world);
    assert_eq!(
        to,
        [
            "archive/2026/inbox/alice.jsonl",
            "archive/2026/inbox/carol.jsonl",
            "archive/2026/bob_to_carol.jsonl"
        ]
    );
    assert_eq!(world.read("archive/2026/inbox/alice.jsonl"), format!("{one}\n"));
    assert_eq!(world.read("inbox/alice.jsonl"), "");
    assert!(archive(&world).is_empty(), "what is empty is not archived");
    assert!(!world.dir.path().join("outbox/bob.jsonl").exists(), "and what is not there is not made");
    prove(&world);

    // The same year again, and the next start goes on from there.
    let three = message("bob", "three");
    world.append("bob", &inbox("alice"), &format!("{three}\n")).unwrap();
    assert_eq!(archive(&world), ["archive/2026/inbox/alice.2.jsonl"]);
    world.reopen().unwrap();
    world.append("bob", &inbox("alice"), &format!("{}\n", message("bob", "four"))).unwrap();
    assert_eq!(archive(&world), ["archive/2026/inbox/alice.3.jsonl"]);
    assert_eq!(world.read("archive/2026/inbox/alice.2.jsonl"), format!("{three}\n"));
    prove(&world);
}

#[test]
fn decisions_stay_where_they_are() {
    let world = World::new();
    std::fs::write(world.dir.path().join("decisions.jsonl"), "").unwrap();
    world.append("bob", &inbox("alice"), &(message("bob", "x") + "\n")).unwrap();
    assert!(!archive(&world).iter().any(|to| to.contains("decisions")));
}

#[test]
fn an_archived_message_is_a_replay_after_a_restart_a_crash_and_without_its_index() {
    let mut world = World::new();
    let line = message("bob", "hello") + "\n";
    world.append("bob", &inbox("alice"), &line).unwrap();
    archive(&world);
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    world.crash();
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    // Sent another way, it would come to the same inbox.
    let bilateral = LogName::Bilateral { from: agent("bob"), to: agent("alice") };
    world.append("bob", &bilateral, &line).unwrap();
    assert_eq!(world.read("inbox/alice.jsonl"), "");
    prove(&world);
}

#[test]
fn an_archive_may_be_moved_away_but_not_with_its_index() {
    let mut world = World::new();
    let line = message("bob", "hello") + "\n";
    world.append("bob", &inbox("alice"), &line).unwrap();
    archive(&world);
    let file = world.dir.path().join("archive/2026/inbox/alice.jsonl");
    let aside = world.dir.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
    world.exchange = None;
    std::fs::remove_dir_all(world.dir.path().join("private/index")).unwrap();
    let error = world.reopen().unwrap_err().to_string();
    assert!(error.contains("alice.jsonl: is gone") && error.contains("mend: restore"), "{error}");
    std::fs::rename(&aside, &file).unwrap();
    world.reopen().unwrap();
    assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay");
}

#[test]
fn the_turn_of_the_year_archives_what_is_of_the_year_before() {
    let mut world = World::new();
    world.append("bob", &inbox("alice"), &(message("bob", "old") + "\n")).unwrap();
    world.ex().run_janitor();
    assert_ne!(world.read("inbox/alice.jsonl"), "");
    world.reopen().unwrap();
    world.later(YEAR);
    world.ex().run_janitor();
    assert_eq!(world.read("inbox/alice.jsonl"), "");
    assert_eq!(world.read("archive/2026/inbox/alice.jsonl").lines().count(), 1);
    let events = world.read("events.jsonl").lines().count();
    world.append("bob", &inbox("alice"), &(message("bob", "new") + "\n")).unwrap();
    world.ex().run_janitor();
    assert_eq!(world.read("inbox/alice.jsonl").lines().count(), 1, "this year's lines stay");
    assert_eq!(world.read("events.jsonl").lines().count(), events + 1);
    prove(&world);
}

#[test]
fn a_year_that_is_not_over_is_not_taken_for_a_name() {
    let world = World::new();
    for year in [2027, 0, -5, 1969] {
        let error = world.ex().operate(OperatorRequest::Archive { year: Some(year) }).unwrap_err();
        assert!(error.contains("1970 to 2026"), "{error}");
    }
    world.append("bob", &inbox("alice"), &(message("bob", "x") + "\n")).unwrap();
    let answer = world.ex().operate(OperatorRequest::Archive { year: Some(2020) }).unwrap();
    assert_eq!(answer["archived"][0]["to"], "archive/2020/inbox/alice.jsonl");
}

/// What a crash may leave of an archive, by how far it had come.
#[test]
fn a_crash_at_any_point_of_an_archive_leaves_every_line_once() {
    for point in ["copying", "before the name", "before the cut", "after the cut", "torn index"] {
        let mut world = World::new();
        let line = message("bob", "hello") + "\n";
        world.append("bob", &inbox("alice"), &line).unwrap();
        let root = world.dir.path().to_owned();
        let at = |path: &str| root.join(path);
        let (live, archived) = (at("inbox/alice.jsonl"), at("archive/2026/inbox/alice.jsonl"));
        let part = at("archive/2026/inbox/.alice.jsonl.part");
        let index = at("private/index/inbox%2Falice.jsonl.ids");
        if point == "copying" {
            std::fs::create_dir_all(part.parent().unwrap()).unwrap();
            std::fs::write(&part, &line[..10]).unwrap();
        } else {
            archive(&world);
        }
        world.crash();
        // A crash at such a point comes before the checkpoint that ends an archive.
        let _ = std::fs::remove_file(at("private/index/events.checkpoint"));
        match point {
            "before the name" => {
                std::fs::rename(&archived, &part).unwrap();
                std::fs::write(&live, &line).unwrap();
            }
            "before the cut" => std::fs::write(&live, &line).unwrap(),
            "torn index" => std::fs::write(&index, [1; 45]).unwrap(),
            _ => {}
        }
        world.reopen().unwrap();
        assert!(!part.exists(), "{point}");
        let moved = point != "copying";
        assert_eq!(world.read("inbox/alice.jsonl"), if moved { "" } else { &line }, "{point}");
        assert_eq!(archived.exists(), moved, "{point}");
        if moved {
            assert_eq!(world.read("archive/2026/inbox/alice.jsonl"), line, "{point}");
        }
        assert_eq!(rule(world.append("bob", &inbox("alice"), &line)), "replay", "{point}");
        world.append("bob", &inbox("alice"), &(message("bob", "next") + "\n")).unwrap();
        prove(&world);
    }
}

#[test]
fn writers_that_go_on_while_their_log_is_archived_lose_nothing() {
    let world = World::new();
    let lines: Vec<Vec<String>> = (0..4)
        .map(|writer| (0..200).map(|n| message("bob", &format!("{writer} {n}")) + "\n").collect())
        .collect();
    let exchange = world.ex();
    std::thread::scope(|scope| {
        let writers: Vec<_> = lines
            .iter()
            .map(|lines| {
                scope.spawn(move || {
                    let bob = as_agent("bob");
                    let open =
                        exchange.open_log_writer(&bob, &inbox("alice"), libc::O_WRONLY | libc::O_APPEND);
                    let writer = open.unwrap();
                    for line in lines {
                        assert_eq!(writer.write(&bob, 0, true, line.as_bytes()).unwrap(), line.len());
                    }
                    writer.release();
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            exchange.operate(OperatorRequest::Archive { year: None }).unwrap();
        }
    });
    archive(&world);
    let mut files: Vec<_> = std::fs::read_dir(world.dir.path().join("archive/2026/inbox")).unwrap().collect();
    files.sort_by_key(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.split('.').nth(1).unwrap().parse().unwrap_or(1)
    });
    let stored: String =
        files.into_iter().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect();
    assert_eq!(stored.lines().count(), 800);
    for own in &lines {
        let found: Vec<&str> =
            stored.lines().filter(|line| own.iter().any(|o| o.trim_end() == *line)).collect();
        assert_eq!(found, own.iter().map(|line| line.trim_end()).collect::<Vec<_>>());
    }
    prove(&world);
}
