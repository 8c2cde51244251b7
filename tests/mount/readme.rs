//! The README's first session is run as a newcomer pastes it; what it shows under a command must be shown.

use crate::common::Fixture;

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
