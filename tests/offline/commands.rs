//! init, key, trust, secret, sign, handoff, refusals and events.

use crate::{Ran, Sample, baton_in};
use batonfs::wire::handoff::Handoff;
use batonfs::wire::json;
use batonfs::wire::keys::PairSecret;
use batonfs::wire::message::Message;
use batonfs::wire::trust::TrustList;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const HELLO: &str = r#"{"type":"request","subject":"hello","body":"are you there?"}"#;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn trust(sample: &Sample) -> TrustList {
    TrustList::parse(&fs::read(sample.path("trust.json")).unwrap()).unwrap()
}

fn verified(sample: &Sample, line: &str) -> Message {
    let object = json::parse(line.as_bytes()).unwrap().as_object().unwrap().clone();
    Message::from_object(object).unwrap().verify(&trust(sample)).unwrap().message().clone()
}

#[test]
fn init_makes_a_whole_exchange_that_only_its_owner_can_look_into() {
    let sample = Sample::make();
    assert_eq!(mode(&sample.dir()), 0o700);
    for dir in ["private", "private/keys", "private/secrets", "private/quarantine", "credentials/claude"] {
        assert_eq!(mode(&sample.path(dir)), 0o700, "{dir}");
    }
    for file in ["private/keys/bob.key", "private/keys/alice.key", "private/secrets/alice,bob.secret"] {
        assert_eq!(mode(&sample.path(file)), 0o600, "{file}");
    }
    for log in
        ["inbox/bob.jsonl", "inbox/alice.jsonl", "decisions.jsonl", "incident_log.jsonl", "events.jsonl"]
    {
        assert_eq!(fs::read(sample.path(log)).unwrap(), b"", "{log}");
    }
    assert_eq!(trust(&sample).agents.len(), 2);
    sample.baton(&["verify"], "").ok();
}

#[test]
fn init_never_touches_a_folder_that_holds_something() {
    let sample = Sample::make();
    let before = fs::read(sample.path("private/keys/bob.key")).unwrap();
    let error = baton_in(sample.temp.path(), &["init", "exchange", "--agent", "bob"], "").failed(1);
    assert!(error.contains("is an exchange already"), "{error}");
    assert_eq!(fs::read(sample.path("private/keys/bob.key")).unwrap(), before);

    let error = baton_in(sample.temp.path(), &["init", "exchange/inbox/new", "--agent", "bob"], "").failed(1);
    assert!(error.contains("inside the exchange"), "{error}");
    assert!(!sample.path("inbox/new").exists());

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.txt"), "mine").unwrap();
    let error = baton_in(other.path(), &["init", ".", "--agent", "bob"], "").failed(1);
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn init_refuses_agents_that_no_exchange_can_have_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let init = |agents: &[&str]| -> Ran {
        let args: Vec<_> =
            ["init", "x"].into_iter().chain(agents.iter().flat_map(|a| ["--agent", a])).collect();
        baton_in(temp.path(), &args, "")
    };
    init(&[]).failed(2);
    init(&["../up"]).failed(2);
    init(&["operator"]).failed(2);
    let error = init(&["bob=root"]).failed(2);
    assert!(error.contains("user id"), "{error}");
    init(&["bob", "bob"]).failed(1);
    let error = init(&["bob=7", "alice=7"]).failed(1);
    assert!(error.contains("same uid 7"), "{error}");
    assert!(!temp.path().join("x").exists());
}

#[test]
fn sign_completes_messages_and_signs_each_on_a_line_of_its_own() {
    let sample = Sample::make();
    let pretty = "{\n  \"type\": \"ship\",\n  \"subject\": \"s\", \"body\": {\"n\": 1}\n}";
    let lines = sample.baton(&["sign", "--as", "bob"], &format!("{HELLO}{pretty}")).ok();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    let first = verified(&sample, lines[0]);
    assert_eq!((first.from.as_str(), first.message_type.as_str()), ("bob", "request"));
    assert!(first.object.contains_key("event_id"));
    assert_eq!(verified(&sample, lines[1]).kind, Some(1200));

    let v3 = sample.baton(&["sign", "--as", "bob", "--v3"], HELLO).ok();
    assert!(!verified(&sample, v3.trim_end()).object.contains_key("event_id"));
}

#[test]
fn python_verifies_what_sign_makes() {
    let sample = Sample::make();
    let importable =
        Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    if !importable.is_ok_and(|status| status.success()) {
        eprintln!("skipped: python3 has no cryptography");
        return;
    }
    let line =
        sample.baton(&["sign", "--as", "bob"], r#"{"type":"request","subject":"ö","body":[1.0,1e16]}"#).ok();
    let program = r#"
import base64, hashlib, json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
message, trust = json.loads(sys.argv[1]), json.load(open(sys.argv[2]))
key, = trust["agents"][message["from"]]["public_keys"]
assert key["key_id"] == message["public_key_id"]
bare = {k: v for k, v in message.items() if k not in ("event_id", "public_key_id", "signature")}
text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
digest = hashlib.sha256(text.encode()).digest()
assert digest.hex() == message["event_id"]
Ed25519PublicKey.from_public_bytes(base64.b64decode(key["key"])).verify(base64.b64decode(message["signature"]), digest)
"#;
    let mut python = Command::new("python3");
    python.args(["-c", program, line.trim_end()]).arg(sample.path("trust.json"));
    let status = python.status().unwrap();
    assert!(status.success());
}

#[test]
fn sign_names_the_object_that_it_cannot_sign() {
    let sample = Sample::make();
    let sign = |input: &str| sample.baton(&["sign", "--as", "bob"], input);
    let ran = sign(&format!("{HELLO}\n{{\"type\":\"request\",\"body\":\"no subject\"}}"));
    assert_eq!(ran.out.lines().count(), 1, "what came before it is signed");
    let error = ran.failed(1);
    assert!(error.contains("object 2") && error.contains("subject"), "{error}");

    let error = sign(r#"{"type":"request","subject":"s","body":"b","from":"alice"}"#).failed(1);
    assert!(error.contains("object 1") && error.contains("from-mismatch"), "{error}");
    let error = sign(&HELLO[..20]).failed(1);
    assert!(error.contains("object 1 is incomplete"), "{error}");
    let error = sign("").failed(1);
    assert!(error.contains("no message"), "{error}");
    let error = sign("hello").failed(1);
    assert!(error.contains("JSON"), "{error}");
}

#[test]
fn sign_works_with_a_key_outside_the_exchange_that_only_its_owner_can_read() {
    let sample = Sample::make();
    let outside = tempfile::tempdir().unwrap();
    let key = outside.path().join("bob.key");
    fs::copy(sample.path("private/keys/bob.key"), &key).unwrap();
    let args = ["sign", "--as", "bob", "--key", key.to_str().unwrap()];
    let line = baton_in(outside.path(), &args, HELLO).ok();
    verified(&sample, line.trim_end());

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = baton_in(outside.path(), &args, HELLO).failed(1);
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn commands_say_where_they_looked_for_an_exchange() {
    let sample = Sample::make();
    let error = baton_in(sample.temp.path(), &["trust", "show"], "").failed(1);
    assert!(error.contains("--exchange DIR") && error.contains("BATON_EXCHANGE"), "{error}");
    let error = baton_in(sample.temp.path(), &["verify", "nowhere"], "").failed(1);
    assert!(error.contains("nowhere"), "{error}");
    baton_in(sample.temp.path(), &["trust", "show", "--exchange", "exchange"], "").ok();
    baton_in(&sample.path("inbox"), &["trust", "show"], "").ok();
}

#[test]
fn handoff_new_prints_a_payload_that_the_pair_s_secret_verifies() {
    let sample = Sample::make();
    fs::write(sample.path("turns"), r#"[{"role":"user","text":"hi"}]"#).unwrap();
    let args = ["handoff", "new", "--from", "bob", "--to", "alice", "--caller", "c1", "--reason", "r"];
    let payload = sample.baton(&[&args[..], &["--transcript", "turns", "--ttl", "5"]].concat(), "").ok();
    let handoff = Handoff::parse(payload.as_bytes()).unwrap();
    let secret = fs::read(sample.path("private/secrets/alice,bob.secret")).unwrap();
    handoff.verify(&PairSecret::from_file_bytes(&secret)).unwrap();
    assert_eq!(handoff.expires_at.unix_seconds() - handoff.initiated_at.unix_seconds(), 5);
    assert_eq!(handoff.object["transcript"].as_array().unwrap().len(), 1);

    let one_per_line = "{\"role\":\"user\",\"text\":\"a\"}\n{\"role\":\"assistant\",\"text\":\"b\"}\n";
    let payload = sample.baton(&[&args[..], &["--transcript", "-"]].concat(), one_per_line).ok();
    assert_eq!(Handoff::parse(payload.as_bytes()).unwrap().object["transcript"].as_array().unwrap().len(), 2);

    let error = sample
        .baton(&["handoff", "new", "--from", "bob", "--to", "carol", "--caller", "c", "--reason", "r"], "");
    let error = error.failed(1);
    assert!(error.contains("secret import --pair bob,carol"), "{error}");
    let to_self = ["handoff", "new", "--from", "bob", "--to", "bob", "--caller", "c", "--reason", "r"];
    let error = sample.baton(&to_self, "").failed(1);
    assert!(error.contains("itself"), "{error}");
}

#[test]
fn key_show_prints_public_keys_and_never_a_private_one() {
    let sample = Sample::make();
    let private = fs::read_to_string(sample.path("private/keys/bob.key")).unwrap();
    let keys = sample.baton(&["key", "show", "bob", "--json"], "").json();
    assert_eq!((keys[0]["agent"].as_str(), keys[0]["state"].as_str()), (Some("bob"), Some("active")));
    let id = keys[0]["key_id"].as_str().unwrap();
    let table = sample.baton(&["key", "show"], "").ok();
    assert!(table.contains(id) && table.contains("alice:"), "{table}");
    assert!(!table.contains(private.trim_end()) && !keys.to_string().contains(private.trim_end()));
    sample.baton(&["key", "show", "carol"], "").failed(1);
}

#[test]
fn key_import_stores_and_trusts_a_key_and_never_replaces_one_unasked() {
    let sample = Sample::make();
    let elsewhere = Sample::make();
    let file = elsewhere.path("private/keys/bob.key");
    let file = file.to_str().unwrap();
    let error = sample.baton(&["key", "import", "--as", "bob", file], "").failed(1);
    assert!(error.contains("--replace"), "{error}");
    sample.baton(&["key", "import", "--as", "bob", "--replace", file], "").ok();
    assert_eq!(fs::read(sample.path("private/keys/bob.key")).unwrap(), fs::read(file).unwrap());
    assert_eq!(mode(&sample.path("private/keys/bob.key")), 0o600);
    verified(&sample, sample.baton(&["sign", "--as", "bob"], HELLO).ok().trim_end());
    assert_eq!(sample.baton(&["key", "show", "bob", "--json"], "").json().as_array().unwrap().len(), 2);

    let error = sample.baton(&["key", "import", "--as", "carol", file], "").failed(1);
    assert!(error.contains("exchange.toml"), "{error}");
    let error = sample.baton(&["key", "import", "--as", "bob", "-"], "not a key\n").failed(1);
    assert!(error.contains("signing key"), "{error}");
    sample.baton(&["verify"], "").ok();
}

#[test]
fn trust_import_merges_and_says_what_changed() {
    let sample = Sample::make();
    let other = Sample::make();
    let file = other.path("trust.json");
    let changes = sample.baton(&["trust", "import", file.to_str().unwrap()], "").ok();
    assert!(changes.contains("bob") && changes.contains("alice"), "{changes}");
    assert_eq!(trust(&sample).agents.values().map(|a| a.keys.len()).sum::<usize>(), 4);
    let again = sample.baton(&["trust", "import", file.to_str().unwrap()], "").ok();
    assert!(again.contains("nothing changed"), "{again}");
    let shown = sample.baton(&["trust", "show", "--json"], "").ok();
    assert_eq!(shown.as_bytes(), fs::read(sample.path("trust.json")).unwrap());
    let error = sample.baton(&["trust", "import", "-"], "{}").failed(1);
    assert!(error.contains("no trust list"), "{error}");
    assert!(sample.baton(&["trust", "show"], "").ok().contains("ATTESTED"));
}

#[test]
fn secret_import_takes_the_bytes_as_they_are() {
    let sample = Sample::make();
    sample.baton(&["secret", "import", "--pair", "bob,alice", "-"], "new secret\n").ok();
    let stored = fs::read(sample.path("private/secrets/alice,bob.secret")).unwrap();
    assert_eq!(PairSecret::from_file_bytes(&stored).as_bytes(), b"new secret");
    assert_eq!(mode(&sample.path("private/secrets/alice,bob.secret")), 0o600);
    sample.baton(&["secret", "import", "--pair", "bob,bob", "-"], "x").failed(2);
    sample.baton(&["secret", "import", "--pair", "bob", "-"], "x").failed(2);
    let error = sample.baton(&["secret", "import", "--pair", "bob,alice", "-"], "\n").failed(1);
    assert!(error.contains("empty"), "{error}");
    let error = sample.baton(&["secret", "import", "--pair", "bob,eve", "-"], "x").failed(1);
    assert!(error.contains("eve"), "{error}");
}

#[test]
fn refusals_and_events_show_the_last_records_and_survive_a_closed_pipe() {
    let sample = Sample::make();
    assert_eq!(sample.baton(&["refusals", "--json"], "").ok(), "", "nothing was refused yet");
    let book = sample.path("private/refusals/all.jsonl");
    let line = |n: usize| {
        format!(
            r#"{{"time":"2026-05-10T00:00:0{n}Z","agent":"bob","uid":1001,"pid":1,"operation":"write","path":"inbox/alice.jsonl","errno":1,"rule":"signature","advice":"sign it\u001b[31m again","quarantine":null}}"#
        )
    };
    fs::write(&book, (0..3).map(|n| line(n) + "\n").collect::<String>()).unwrap();
    let table = sample.baton(&["refusals", "--last", "2"], "").ok();
    assert!(
        !table.contains("00:00:00Z") && table.contains("00:00:02Z") && table.contains("signature"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "an agent's text never steers the operator's terminal");
    assert_eq!(sample.baton(&["refusals", "--json", "--last", "1"], "").ok(), line(2) + "\n");
    assert!(sample.baton(&["events"], "").ok().contains("EVENT"));

    fs::write(&book, (0..200_000).map(|n| line(n % 10) + "\n").collect::<String>()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_baton"))
        .arg("refusals")
        .arg(sample.dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr), "");
}

#[test]
fn every_command_explains_itself() {
    let temp = tempfile::tempdir().unwrap();
    for command in [
        &["--help"][..],
        &["init", "--help"],
        &["sign", "--help"],
        &["handoff", "new", "--help"],
        &["key", "import", "--help"],
        &["trust", "import", "--help"],
        &["secret", "import", "--help"],
        &["refusals", "--help"],
        &["events", "--help"],
        &["verify", "--help"],
        &["archive", "--help"],
        &["import", "--help"],
        &["export", "--help"],
    ] {
        let help = baton_in(temp.path(), command, "").ok();
        assert!(help.contains("baton ") && (help.contains("Example") || help.contains("session")), "{help}");
    }
    baton_in(temp.path(), &["frobnicate"], "").failed(2);
    baton_in(temp.path(), &[], "").failed(2);
}

#[test]
fn every_help_stays_as_it_is_laid_out_on_80_columns_and_shows_no_source() {
    let sample = Sample::make();
    let mut commands = vec![String::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = sample.baton(&args, "").ok();
        seen += 1;
        assert!(!help.contains("[`"), "baton {command} --help: {help}");
        let examples = help.split("Example").nth(1).or_else(|| help.split("A first session").nth(1));
        for line in examples.unwrap_or_default().lines().filter(|line| line.starts_with("  ")) {
            assert!(line.len() < 80, "baton {command} --help: {line}");
        }
        // A line that was broken in the source and again by the terminal's width leaves a stub.
        for pair in help.lines().collect::<Vec<_>>().windows(3) {
            let stub =
                pair[1].starts_with(char::is_alphabetic) && pair[1].len() < 20 && !pair[1].ends_with(':');
            assert!(!(stub && pair[0].len() > 90 && !pair[2].is_empty()), "baton {command} --help: {pair:?}");
        }
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
        let listed = listed.lines().take_while(|line| !line.is_empty());
        let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        commands.extend(names.map(|name| format!("{command} {name}")));
    }
    assert!(seen >= 20, "only {seen} helps were found");
}
