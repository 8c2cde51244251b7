//! What the texts show is run as their readers paste it: the README's first session, what of it is shown under a
//! command must be shown; and the commands of README.md and SKILL.md in a mount, for every kind of reader.

use crate::common::{Fixture, Mount};

const README: &str = include_str!("../../README.md");

/// What the session prints that is another every time.
const VARIES: [&str; 2] = [": mine", "mv: cannot"];

/// The commands of the session in order, and the lines shown under each.
fn session() -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    let text = README.split("## A first session").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut block = "";
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) => block = language,
            None if block == "bash" => steps.push((line.to_owned(), Vec::new())),
            None if block == "console" => match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), Vec::new())),
                None => steps.last_mut().unwrap().1.push(line.to_owned()),
            },
            None => {}
        }
    }
    steps
}

#[test]
fn the_first_session_goes_as_the_readme_says() {
    let fixture = Fixture::new();
    let steps = session();
    assert!(steps.len() > 15, "only {} commands were found", steps.len());
    let mark = "== next ==";
    let script: String = steps.iter().map(|(command, _)| format!("{command}\necho '{mark}'\n")).collect();
    let mut command =
        fixture.client_command("bash", &["-c", &format!("exec 2>&1\n{script}")], &fixture.scratch());
    let output = crate::common::run(command.env_remove("BATON_EXCHANGE"), "").ok();
    let shown: Vec<&str> = output.split(&format!("{mark}\n")).collect();
    for ((command, expected), shown) in steps.iter().zip(shown) {
        for line in expected.iter().filter(|line| !VARIES.iter().any(|varies| line.contains(varies))) {
            // What stands before a shell's own messages differs between a prompt and a script.
            let text = line.trim_start_matches("bash: ");
            assert!(shown.contains(text), "{command}\nshould show: {line}\nbut shows:\n{shown}");
        }
    }
    assert_eq!(output.matches(": mine").count(), 1, "one wins the race:\n{output}");
    assert!(output.contains("verified"), "{output}");
}

/// The commands that a text in a mount shows, in order: its indented blocks. A line that ends in a pipe goes on.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => {
                command.push('\n');
                command.push_str(line);
            }
            None => commands.push(line.to_owned()),
        }
        goes_on = line.ends_with('|');
    }
    commands
}

/// Runs what a text shows, each command by itself; none may fail or be refused.
fn every_command_works(fixture: &Fixture, mount: &Mount, text: &str, at_least: usize) {
    let commands = commands(&mount.read(text));
    assert!(commands.len() >= at_least, "{text} shows {} commands only", commands.len());
    let before = fixture.refusals().len();
    for command in commands {
        // It never ends by itself.
        let command = command.replace("tail -f", "timeout 0.2 tail -f");
        let script = format!("set -o pipefail\n{command}\nstatus=$?; [ $status = 0 ] || [ $status = 124 ]");
        let output = mount.bash(&script);
        assert_eq!(output.status, 0, "{text}: {command}\n{}{}", output.stdout, output.stderr);
        assert_eq!(fixture.refusals().len(), before, "{text}: {command}\n{:?}", fixture.refusals().last());
    }
}

/// Something of every kind waits for bob: a refusal to read, a message, a proposal and an incident to ack.
fn world(more: &str) -> Fixture {
    let fixture = Fixture::new();
    let more = more.to_owned();
    fixture.reconfigure(|text| text.replace("[domains]", &format!("[domains]\n{more}")));
    fixture
}

fn stir(fixture: &Fixture) {
    let alice = fixture.mount_as("alice");
    alice
        .bash(
            r#"echo '{"type":"proposal","subject":"freeze","body":"x","to":["bob"]}' >> outbox/alice.jsonl
echo '{"type":"incident","subject":"api down","body":"x"}' >> outbox/alice.jsonl
echo '{"type":"request","subject":"review?","body":"PR 12"}' >> inbox/bob.jsonl"#,
        )
        .ok();
}

#[test]
fn every_command_that_the_texts_show_an_agent_works_as_it_stands() {
    for (domains, seal) in [("release = [\"bob\", \"alice\"]", true), ("", true), ("", false)] {
        for text in ["README.md", "SKILL.md"] {
            let fixture = world(domains);
            if !seal {
                fixture
                    .reconfigure(|text| text.replace("[agents.\"bob\"]", "[agents.\"bob\"]\nseal = false"));
            }
            let bob = fixture.mount_as("bob");
            stir(&fixture);
            bob.bash("echo nonsense >> outbox/bob.jsonl").failed();
            every_command_works(&fixture, &bob, text, 8);
            // The message, the proposal and the incident have bob's answers.
            if seal && text == "SKILL.md" {
                bob.bash("jq -se '[.[] | select(.type == \"ack\")] | length >= 3' outbox/bob.jsonl").ok();
                bob.bash("jq -e '[.open[] | select(.from == \"alice\")] == []' status/incidents.json").ok();
                bob.bash("jq -e '.decision.subject == \"freeze\"' decisions.jsonl").ok();
            }
            fixture.verify();
        }
    }
}

#[test]
fn every_command_that_the_texts_show_the_operator_works_as_it_stands() {
    let fixture = world("");
    let operator = fixture.mount_as_operator();
    let line = fixture.line("bob", "hello");
    operator.append("inbox/alice.jsonl", &(line + "\n"));
    operator.bash("echo nonsense >> inbox/alice.jsonl").failed();
    for text in ["README.md", "SKILL.md"] {
        every_command_works(&fixture, &operator, text, 8);
    }
    fixture.verify();
}
