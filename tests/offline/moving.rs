//! archive, import, export and refusals clear: what the commands print, and what `baton verify` says afterwards.

use crate::{Sample, baton_in};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of another program with these files.
fn folder(sample: &Sample, files: &[(&str, &str)]) -> PathBuf {
    let folder = sample.temp.path().join("old");
    for (path, text) in files {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    folder
}

/// Signed lines of bob, one for each word.
fn lines(sample: &Sample, words: &[&str]) -> String {
    let object = |word: &&str| format!(r#"{{"type":"ship","subject":"s","body":"{word}"}}"#) + "\n";
    sample.baton(&["sign", "--as", "bob"], &words.iter().map(object).collect::<String>()).ok()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An exchange with two of bob's messages archived and one not.
fn archived() -> Sample {
    let sample = Sample::make();
    let old = folder(&sample, &[("inbox/alice.jsonl", &lines(&sample, &["one", "two"]))]);
    sample.baton(&["import", path(&old)], "").ok();
    sample.baton(&["archive", "--year", "2024"], "").ok();
    fs::write(old.join("inbox/alice.jsonl"), lines(&sample, &["three"])).unwrap();
    sample.baton(&["import", path(&old)], "").ok();
    sample
}

#[test]
fn archive_says_what_moved_where_and_is_proved() {
    let sample = Sample::make();
    let nothing = sample.baton(&["archive"], "").ok();
    assert!(nothing.contains("nothing to archive"), "{nothing}");
    let old = folder(&sample, &[("bob_to_alice.jsonl", &lines(&sample, &["one", "two"]))]);
    sample.baton(&["import", path(&old)], "").ok();
    let said = sample.baton(&["archive", "--year", "2024"], "").ok();
    assert!(said.contains("inbox/alice.jsonl: 2 lines now in archive/2024/inbox/alice.jsonl"), "{said}");
    assert!(said.contains("archive/2024/bob_to_alice.jsonl"), "{said}");
    assert_eq!(fs::read(sample.path("inbox/alice.jsonl")).unwrap(), b"");
    let json = sample.baton(&["archive", "--json"], "").json();
    assert_eq!(json["archived"], serde_json::json!([]));
    let report = sample.baton(&["verify", "--json"], "").json();
    assert_eq!((&report["faults"], &report["counts"]["lines"]), (&serde_json::json!([]), &4.into()));
    let error = sample.baton(&["archive", "--year", "2999"], "").failed(1);
    assert!(error.contains("from 1970 to"), "{error}");
}

#[test]
fn verify_finds_what_was_done_to_an_archive_behind_the_mount() {
    type Change = fn(&str) -> String;
    let file = "archive/2024/inbox/alice.jsonl";
    let damage: [(&str, Change); 3] = [
        ("append-only", |text| text.lines().skip(1).map(|line| format!("{line}\n")).collect()),
        ("append-only", |text| text.replacen("one", "uno", 1)),
        ("uncovered", |text| format!("{text}{text}")),
    ];
    for (rule, change) in damage {
        let sample = archived();
        sample.baton(&["verify"], "").ok();
        let text = fs::read_to_string(sample.path(file)).unwrap();
        fs::write(sample.path(file), change(&text)).unwrap();
        let ran = sample.baton(&["verify", "--json"], "");
        assert_eq!(ran.code, 1);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let faults = report["faults"].as_array().unwrap();
        assert!(faults.iter().any(|f| f["file"] == file && f["rule"] == rule), "{rule}: {report:#}");
    }
    let sample = archived();
    fs::copy(sample.path(file), sample.path("archive/2024/inbox/bob.jsonl")).unwrap();
    let found = sample.baton(&["verify"], "").out;
    assert!(found.contains("archive/2024/inbox/bob.jsonl: added"), "{found}");
    fs::remove_file(sample.path(file)).unwrap();
    let found = sample.baton(&["verify"], "").out;
    assert!(found.contains(&format!("{file}: missing")), "{found}");
}

#[test]
fn verify_finds_a_message_that_is_archived_and_live() {
    let sample = archived();
    let text = fs::read_to_string(sample.path("archive/2024/inbox/alice.jsonl")).unwrap();
    let live = fs::read_to_string(sample.path("inbox/alice.jsonl")).unwrap();
    fs::write(sample.path("inbox/alice.jsonl"), live + &text).unwrap();
    let found = sample.baton(&["verify"], "").out;
    assert!(found.contains("the same message as in archive/2024/inbox/alice.jsonl, line 1"), "{found}");
}

#[test]
fn import_lists_what_it_refuses_and_fails_while_something_is() {
    let sample = Sample::make();
    let good = lines(&sample, &["one"]);
    let text = format!("{good}nonsense\n");
    let zed = r#"{"timestamp":"2026-01-01T00:00:00Z","from":"zed","type":"ship","subject":"s","body":"b","correlation_id":"c"}"#;
    let old = folder(&sample, &[("bob_to_alice.jsonl", &text), ("zed_to_alice.jsonl", zed), ("todo.md", "")]);
    let ran = sample.baton(&["import", path(&old)], "");
    assert_eq!(ran.code, 1, "{}", ran.err);
    for part in [
        "bob_to_alice.jsonl:2: json: ",
        "zed_to_alice.jsonl:1: authority: zed takes no part",
        "  [agents.\"zed\"]",
        "1 delivered to inbox/alice.jsonl",
        "left where it is: todo.md",
        "private/quarantine/import-",
    ] {
        assert!(ran.out.contains(part), "{part:?} is missing in:\n{}", ran.out);
    }
    // Once it is mended, the rest comes in and nothing twice.
    fs::write(old.join("bob_to_alice.jsonl"), &good).unwrap();
    fs::remove_file(old.join("zed_to_alice.jsonl")).unwrap();
    sample.baton(&["import", path(&old)], "").ok();
    assert_eq!(fs::read_to_string(sample.path("inbox/alice.jsonl")).unwrap(), good);
    sample.baton(&["verify"], "").ok();
    let error = sample.baton(&["import", "nowhere"], "").failed(1);
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn what_is_exported_is_a_folder_that_another_exchange_takes_in() {
    let sample = archived();
    let out = sample.temp.path().join("plain");
    // Relative to the folder that the command runs in.
    let said = baton_in(sample.temp.path(), &["export", "plain", "--exchange", "exchange"], "").ok();
    assert!(said.contains("trust.json are in"), "{said}");
    let error = sample.baton(&["export", path(&out)], "").failed(1);
    assert!(error.contains("--force"), "{error}");
    sample.baton(&["export", path(&out), "--force"], "").ok();
    assert!(!out.join("private").exists());

    baton_in(sample.temp.path(), &["init", "other", "--agent", "bob", "--agent", "alice"], "").ok();
    let other = sample.temp.path().join("other");
    baton_in(&other, &["import", path(&out)], "").failed(1);
    let report = baton_in(&other, &["import", path(&out), "--with-trust", "--json"], "").json();
    assert_eq!(report["refused"], serde_json::json!([]));
    let lines = |file: PathBuf| fs::read_to_string(file).unwrap();
    let whole =
        lines(sample.path("archive/2024/inbox/alice.jsonl")) + &lines(sample.path("inbox/alice.jsonl"));
    assert_eq!(lines(other.join("inbox/alice.jsonl")), whole);
    baton_in(&other, &["verify"], "").ok();
}

#[test]
fn refusals_clear_is_a_command_beside_the_list() {
    let sample = Sample::make();
    let said = sample.baton(&["refusals", "clear"], "").ok();
    assert!(said.contains("nothing to delete"), "{said}");
    let error = sample.baton(&["refusals", "clear", "--agent", "zed"], "").failed(1);
    assert!(error.contains("no agent"), "{error}");
    sample.baton(&["refusals"], "").ok();
}
