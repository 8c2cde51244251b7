//! Random conversations, cut by stops and crashes: what the messages amount to is the same after every start,
//! from a checkpoint or from all events, and every line stands where it stood.

use super::status::{prove, sealing};
use super::*;
use batonfs::exchange::operator::OperatorRequest;
use batonfs::rules::conversation::Conversation;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;

const TOML: &str = "[exchange]\nturns_per_thread = 6\nincidents_per_minute = 3\n\
                    [agents.alice]\n[agents.bob]\nrate_per_minute = 20\n[agents.carol]\n\
                    [domains]\nrelease = [\"alice\", \"bob\"]\nnaming = [\"carol\"]\n";
const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Debug, Clone)]
enum Step {
    /// An unsigned object: who, into which of its logs, what, in which thread, to whom.
    Say {
        by: usize,
        log: usize,
        what: usize,
        thread: usize,
        to: usize,
    },
    /// The line that was stored last, in another log of its author.
    Again {
        log: usize,
    },
    Later(i64),
    Tick,
    Settle {
        thread: usize,
        accept: bool,
    },
    ClearSafeMode,
    Checkpoint,
    Restart(Restart),
}

#[derive(Debug, Clone, Copy)]
enum Restart {
    Clean,
    Crash,
    /// A crash that took with it what is derived.
    CrashAndLose(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let restart = prop::sample::select(vec![
        Restart::Clean,
        Restart::Crash,
        Restart::Crash,
        Restart::CrashAndLose("private/index/events.checkpoint"),
        Restart::CrashAndLose("private/index"),
    ]);
    prop_oneof![
        12 => (0..3usize, 0..5usize, 0..WHAT.len(), 0..4usize, 0..TO.len())
            .prop_map(|(by, log, what, thread, to)| Step::Say { by, log, what, thread, to }),
        2 => (0..5usize).prop_map(|log| Step::Again { log }),
        4 => prop::sample::select(vec![0, 1, 29, 61, 91, 300, 3000]).prop_map(Step::Later),
        2 => Just(Step::Tick),
        1 => (0..4usize, any::<bool>()).prop_map(|(thread, accept)| Step::Settle { thread, accept }),
        2 => Just(Step::ClearSafeMode),
        1 => Just(Step::Checkpoint),
        3 => restart.prop_map(Step::Restart),
    ]
}

const WHAT: [&str; 9] = [
    r#""type":"proposal","subject":"p","body":"b""#,
    r#""type":"proposal","subject":"p","body":"b","affected_domains":["release"]"#,
    r#""type":"proposal","subject":"p","body":"b","affected_domains":["release","naming"]"#,
    r#""type":"ack""#,
    r#""type":"ack""#,
    r#""type":"incident","subject":"i","body":"b","ack_required":true"#,
    r#""type":"heartbeat","subject":"h","body":{"state":"busy"}"#,
    r#""type":"ship","subject":"s","body":"b""#,
    r#""type":"request","subject":"r","body":"b","ack_required":true"#,
];
const TO: [&str; 4] = ["", "", r#","to":["*"]"#, r#","to":["alice","carol"]"#];

fn log_of(by: usize, log: usize) -> LogName {
    let other = |n: usize| agent(AGENTS[(by + n) % 3]);
    match log {
        0 | 1 => LogName::Bilateral { from: agent(AGENTS[by]), to: other(log + 1) },
        2 => LogName::Inbox(other(1)),
        _ => LogName::Outbox(agent(AGENTS[by])),
    }
}

/// Everything that a start must leave as it was.
struct State {
    conversation: Conversation,
    files: BTreeMap<String, String>,
}

fn state(world: &World) -> State {
    let mut files = BTreeMap::new();
    for dir in ["", "inbox/", "outbox/"] {
        for entry in std::fs::read_dir(world.dir.path().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".jsonl") && name != "events.jsonl" {
                files.insert(format!("{dir}{name}"), world.read(&format!("{dir}{name}")));
            }
        }
    }
    files.retain(|_, text| !text.is_empty());
    State { conversation: world.ex().conversation().clone(), files }
}

/// Takes the steps, the restarts among them or not. Returns how many decisions there are, and what the trust list
/// has counted: both only ever grow, by what is done once.
fn run(steps: &[Step], restarts: bool) -> Result<(usize, serde_json::Value), TestCaseError> {
    let mut world = sealing(TOML);
    let mut last = (0, String::new());
    for (n, step) in steps.iter().enumerate() {
        match *step {
            Step::Say { by, log, what, thread, to } => {
                let text = format!(r#"{{{},"correlation_id":"t{thread}"{}}}"#, WHAT[what], TO[to]);
                let log = log_of(by, log);
                // Whether it is accepted is for other tests; here is what follows.
                if world.append(AGENTS[by], &log, &text).is_ok() {
                    last = (by, world.read(&log.path()).lines().last().unwrap().to_owned());
                }
            }
            Step::Again { log } if !last.1.is_empty() => {
                let _ = world.append(AGENTS[last.0], &log_of(last.0, log), &last.1);
            }
            Step::Again { .. } => {}
            Step::Later(seconds) => world.later(seconds),
            Step::Tick => drop(world.ex().run_janitor()),
            Step::Settle { thread, accept } => {
                let _ = world.ex().operate(OperatorRequest::Settle { id: format!("t{thread}"), accept });
            }
            Step::ClearSafeMode => drop(world.ex().operate(OperatorRequest::SafeModeClear)),
            Step::Checkpoint => world.ex().checkpoint().unwrap(),
            Step::Restart(how) => {
                // Lines with the same words are told apart by their time.
                world.clock.fetch_add(1000, Ordering::SeqCst);
                world.ex().run_janitor();
                if !restarts {
                    continue;
                }
                let before = state(&world);
                match how {
                    Restart::Clean => world.exchange = None,
                    Restart::Crash => world.crash(),
                    Restart::CrashAndLose(path) => {
                        world.crash();
                        let path = world.dir.path().join(path);
                        let _ = if path.is_dir() {
                            std::fs::remove_dir_all(&path)
                        } else {
                            std::fs::remove_file(&path)
                        };
                    }
                }
                world.reopen().unwrap();
                world.ex().run_janitor();
                let after = state(&world);
                // Piece by piece, for whoever reads what differs.
                prop_assert_eq!(after.files, before.files, "after step {} {:?}", n, step);
                prop_assert_eq!(after.conversation, before.conversation, "after step {} {:?}", n, step);
            }
        }
    }
    let decisions = world.read("decisions.jsonl").lines().count();
    world.exchange = None;
    let trust = serde_json::from_str(&world.read("trust.json")).unwrap();
    prove(&world);
    Ok((decisions, trust))
}

#[test]
fn every_start_finds_the_conversation_as_it_was() {
    let cases = std::env::var("BATON_TEST_CASES").map_or(64, |text| text.parse().unwrap());
    let config = Config { cases, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..60), |steps| {
            let (cut, whole) = (run(&steps, true)?, run(&steps, false)?);
            prop_assert_eq!(cut, whole, "with restarts, and without");
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
