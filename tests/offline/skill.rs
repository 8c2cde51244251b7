//! `baton skill`, and the commands that look at a conversation, without a daemon.

use crate::{Ran, Sample};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// `baton skill` with this home folder and nothing else in the environment that says where skills go.
fn skill(home: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.arg("skill").args(args).current_dir(home).env("HOME", home).env_remove("CLAUDE_CONFIG_DIR");
    ran(&mut command)
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const USER: [&str; 3] = [".claude/skills", ".agents/skills", ".config/gptme/skills"];
const PROJECT: [&str; 3] = [".claude/skills", ".agents/skills", ".gptme/skills"];

#[test]
fn a_skill_is_put_where_each_program_looks_and_taken_away_again() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let text = skill(home, &["show"]).ok();
    assert!(text.starts_with("---\nname: batonfs\n"));
    let would = skill(home, &["install", "--dry-run"]).ok();
    assert_eq!((would.matches("would write").count(), fs::read_dir(home).unwrap().count()), (3, 0));
    skill(home, &["install"]).ok();
    for place in USER {
        let file = home.join(place).join("batonfs/SKILL.md");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{place}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temp file stays");
    }
    assert_eq!(skill(home, &["install"]).ok().matches("is there already").count(), 3);
    assert_eq!(skill(home, &["remove", "--dry-run"]).ok().matches("would remove").count(), 3);
    skill(home, &["remove"]).ok();
    for place in USER {
        assert_eq!(fs::read_dir(home.join(place)).unwrap().count(), 0, "{place}");
    }
    assert_eq!(skill(home, &["remove"]).ok().matches("is not there").count(), 3);
}

#[test]
fn a_skill_goes_to_one_program_or_one_project_when_that_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let project = home.join("project");
    fs::create_dir(&project).unwrap();
    skill(home, &["install", "--for", "codex"]).ok();
    assert!(home.join(".agents/skills/batonfs/SKILL.md").is_file() && !home.join(".claude").exists());
    skill(home, &["install", "--project", "project"]).ok();
    for place in PROJECT {
        assert!(project.join(place).join("batonfs/SKILL.md").is_file(), "{place}");
    }
    assert!(!home.join(".claude").exists());
    skill(home, &["install", "--project", "project", "--user"]).failed(2);
    skill(home, &["install", "--project", "nowhere"]).failed(1);
    skill(home, &["install", "--for", "emacs"]).failed(2);
    let moved = home.join("claude-config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command
        .args(["skill", "install", "--for", "claude-code"])
        .env("HOME", home)
        .env("CLAUDE_CONFIG_DIR", &moved);
    ran(&mut command).ok();
    assert!(moved.join("skills/batonfs/SKILL.md").is_file());
}

#[test]
fn a_skill_that_somebody_changed_stays_and_an_older_one_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    skill(home, &["install"]).ok();
    let text = skill(home, &["show"]).ok();
    let file = |place: &str| home.join(place).join("batonfs/SKILL.md");
    fs::write(file(USER[0]), format!("{text}\nAlways sign off with a joke.\n")).unwrap();
    let error = skill(home, &["install"]).failed(1);
    assert!(
        error.contains(".claude/skills/batonfs/SKILL.md was changed") && error.contains("--force"),
        "{error}"
    );
    assert!(fs::read_to_string(file(USER[0])).unwrap().ends_with("joke.\n"));
    let error = skill(home, &["remove"]).failed(1);
    assert!(error.contains("--force"), "{error}");
    assert!(file(USER[0]).is_file() && !file(USER[1]).exists(), "what is ours goes all the same");
    skill(home, &["install", "--force"]).ok();
    assert_eq!(fs::read_to_string(file(USER[0])).unwrap(), text);

    // What an older version wrote carries its own sum.
    let older = "---\nname: batonfs\n---\nas it was\n";
    let sum = {
        use sha2::Digest as _;
        let sum = sha2::Sha256::digest(older.as_bytes());
        sum[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    fs::write(file(USER[0]), format!("{older}\n<!-- written by baton skill install; its text: {sum} -->\n"))
        .unwrap();
    let done = skill(home, &["install", "--for", "claude-code"]).ok();
    assert!(done.starts_with("replaced "), "{done}");
    assert_eq!(fs::read_to_string(file(USER[0])).unwrap(), text);
    // What stands beside it is not ours.
    fs::write(file(USER[0]).with_file_name("notes.md"), "mine").unwrap();
    skill(home, &["remove"]).ok();
    assert!(file(USER[0]).with_file_name("notes.md").is_file());
}

#[test]
fn decisions_peers_and_safe_mode_answer_without_a_daemon() {
    let sample = Sample::make();
    assert_eq!(sample.baton(&["decisions"], "").ok(), "nothing was proposed yet\n");
    let listed = sample.baton(&["decisions", "--json"], "").json();
    for name in ["decided", "open", "escalated", "lapsed", "overtaken", "dropped"] {
        assert_eq!(listed[name], serde_json::json!([]), "{name}");
    }
    let error = sample.baton(&["decisions", "settle", "x", "--accept"], "").failed(1);
    assert!(error.contains("baton decisions"), "{error}");
    sample.baton(&["decisions", "settle", "x"], "").failed(2);
    sample.baton(&["decisions", "settle", "x", "--accept", "--drop"], "").failed(2);
    assert_eq!(sample.baton(&["safe-mode"], "").ok(), "off\n");
    assert_eq!(sample.baton(&["safe-mode", "status", "--json"], "").json(), serde_json::json!({"on": false}));
    assert_eq!(sample.baton(&["safe-mode", "clear"], "").ok(), "safe mode is off\n");
    let peers = sample.baton(&["peers"], "").ok();
    assert!(peers.starts_with("AGENT ") && peers.contains("\nalice  -"), "{peers}");
    let peers = sample.baton(&["peers", "--json"], "").json();
    assert_eq!(peers["peers"]["bob"]["period_seconds"], 1200);
    assert!(peers.get("you").is_none());
    sample.baton(&["verify"], "").ok();
}
