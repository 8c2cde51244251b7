//! send/<agent>/: whole files become messages, as shells, interpreters, editors and copying tools write them.

use crate::common::{Fixture, Mount, Output, is_mounted, json_lines, signal, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

mod kept;

/// An exchange mounted as bob (who sends) and as alice (who receives).
struct Pair {
    fixture: Fixture,
    bob: Mount,
    alice: Mount,
}

impl Pair {
    fn new() -> Self {
        let fixture = Fixture::new();
        let (bob, alice) = (fixture.mount_as("bob"), fixture.mount_as("alice"));
        Pair { fixture, bob, alice }
    }

    /// What alice has received.
    fn received(&self) -> Vec<Value> {
        json_lines(&self.alice.read("inbox/alice.jsonl"))
    }

    /// The bodies of what alice has received.
    fn bodies(&self) -> Vec<String> {
        self.received().iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
    }

    /// What bob sent under this name is what alice received last.
    #[track_caller]
    fn is_last(&self, name: &str) {
        let path = self.bob.at(&format!("send/alice/{name}"));
        let inbox = self.alice.read("inbox/alice.jsonl");
        let line = inbox.lines().last().unwrap_or_else(|| panic!("{name}: nothing was received"));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{line}\n"), "{name} reads as the message");
        let meta = path.metadata().unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (line.len() as u64 + 1, 0o444));
    }

    /// Bob's files and drafts for alice.
    fn names(&self) -> Vec<String> {
        self.bob.names("send/alice")
    }
}

#[test]
fn whatever_writes_a_file_sends_it_when_it_is_closed() {
    let pair = Pair::new();
    let bash = |script: &'static str| move |bob: &Mount| bob.bash(script);
    let python = |program: &'static str| move |bob: &Mount| bob.python(program);
    let node = |program: &'static str| move |bob: &Mount| bob.node(program);
    type Writer = Box<dyn Fn(&Mount) -> Output>;
    let writers: Vec<(&str, Writer)> = vec![
        ("echo.md", Box::new(bash("echo the text > send/alice/echo.md"))),
        ("append.md", Box::new(bash("echo the text >> send/alice/append.md"))),
        ("printf.txt", Box::new(bash("printf 'the text' > send/alice/printf.txt"))),
        ("cat.txt", Box::new(bash("cat <<< 'the text' > send/alice/cat.txt"))),
        ("tee.md", Box::new(bash("echo the text | tee send/alice/tee.md"))),
        ("dd.md", Box::new(bash("echo the text | dd of=send/alice/dd.md bs=4 status=none"))),
        ("cp.md", Box::new(bash("echo the text > $SCRATCH/f; cp -p $SCRATCH/f send/alice/cp.md"))),
        ("cpa.md", Box::new(bash("echo the text > $SCRATCH/f; cp -a $SCRATCH/f send/alice/cpa.md"))),
        (
            "mv.md",
            Box::new(bash(
                "echo the text > $SCRATCH/mv.md; mv $SCRATCH/mv.md send/alice/ && [ ! -e $SCRATCH/mv.md ]",
            )),
        ),
        (
            "install.md",
            Box::new(bash("echo the text > $SCRATCH/f; install -m 640 $SCRATCH/f send/alice/install.md")),
        ),
        ("alias.md", Box::new(bash("echo the text > _coordination/send/alice/alias.md"))),
        // A shell copies descriptors to and fro, and its children inherit them.
        ("group.md", Box::new(bash("{ printf 'the '; echo log >&2; cat <<< text; } > send/alice/group.md"))),
        (
            "exec.md",
            Box::new(bash(
                "exec 3> send/alice/exec.md; echo -n 'the ' >&3; (true); echo text >&3; exec 3>&-",
            )),
        ),
        ("open-at-exit.md", Box::new(bash("exec > send/alice/open-at-exit.md; echo the text"))),
        ("sub.md", Box::new(bash("(printf 'the '; sleep 0.05; echo text) > send/alice/sub.md"))),
        // Through a rename.
        (
            "tmp.md",
            Box::new(bash(
                "echo the text > send/alice/.tmp.md.1f && mv send/alice/.tmp.md.1f send/alice/tmp.md",
            )),
        ),
        (
            "other.md",
            Box::new(bash("echo the text > send/carol/draft && mv send/carol/draft send/alice/other.md")),
        ),
        (
            "with.md",
            Box::new(python(
                "with open('send/alice/with.md', 'w') as f: f.write('the '); f.flush(); f.write('text')",
            )),
        ),
        (
            "path.txt",
            Box::new(python("import pathlib; pathlib.Path('send/alice/path.txt').write_text('the text\\n')")),
        ),
        (
            "exclusive.md",
            Box::new(python("with open('send/alice/exclusive.md', 'x') as f: f.write('the text')")),
        ),
        (
            "copy2.md",
            Box::new(python(
                "import shutil; open('../scratch/g', 'w').write('the text'); shutil.copy2('../scratch/g', 'send/alice/copy2.md')",
            )),
        ),
        (
            "replace.md",
            Box::new(python(
                "import os; open('send/alice/replace.tmp', 'w').write('the text'); os.replace('send/alice/replace.tmp', 'send/alice/replace.md')",
            )),
        ),
        (
            "named.md",
            Box::new(python(
                "import os, tempfile\n\
             with tempfile.NamedTemporaryFile('w', dir='send/alice', delete=False) as f:\n\
             \x20   f.write('the '); f.flush(); os.replace(f.name, 'send/alice/named.md'); f.write('text')",
            )),
        ),
        (
            "again.md",
            Box::new(python(
                "open('send/alice/again.md', 'w').close()\nwith open('send/alice/again.md', 'w') as f: f.write('the text')",
            )),
        ),
        (
            "child.md",
            Box::new(python(
                "import subprocess\n\
             with open('send/alice/child.md', 'w') as f: subprocess.run(['echo', 'the text'], stdout=f, check=True)",
            )),
        ),
        (
            "exit.md",
            Box::new(bash(
                "python3 -c 'import os; os.write(1, b\"the text\"); os._exit(3)' > send/alice/exit.md; [ $? = 3 ]",
            )),
        ),
        ("sync.md", Box::new(node("fs.writeFileSync('send/alice/sync.md', 'the text\\n')"))),
        (
            "promise.md",
            Box::new(node("fs.promises.writeFile('send/alice/promise.md', 'the text').then(() => {})")),
        ),
        (
            "stream.md",
            Box::new(node(
                "const s = fs.createWriteStream('send/alice/stream.md'); s.write('the '); s.end('text')",
            )),
        ),
        (
            "copied.md",
            Box::new(node(
                "fs.writeFileSync('../scratch/h', 'the text'); fs.copyFileSync('../scratch/h', 'send/alice/copied.md')",
            )),
        ),
        (
            "renamed.md",
            Box::new(node(
                "fs.writeFileSync('send/alice/renamed.md.123', 'the text'); fs.renameSync('send/alice/renamed.md.123', 'send/alice/renamed.md')",
            )),
        ),
        ("vi.md", Box::new(bash("vi -u NONE -es -c 'normal ithe text' -c wq send/alice/vi.md"))),
        // An editor that makes a backup of the empty file that it finds.
        (
            "found.md",
            Box::new(bash(
                "touch send/alice/found.md; vi -u NONE -es -c 'set backup writebackup' -c 'normal ithe text' -c wq send/alice/found.md",
            )),
        ),
    ];
    for (n, (name, write)) in writers.iter().enumerate() {
        write(&pair.bob).ok();
        assert_eq!(pair.bodies().len(), n + 1, "{name} is sent once, and at once");
        pair.is_last(name);
        let message = &pair.received()[n];
        assert_eq!(message["body"], "the text", "{name}");
        assert_eq!(message["subject"], name.rsplit_once('.').unwrap().0.replace('-', " "), "{name}");
        assert_eq!((&message["type"], &message["from"]), (&"request".into(), &"bob".into()), "{name}");
    }
    assert_eq!(pair.bob.refusals(), Vec::<Value>::new());
    let left: Vec<String> =
        pair.names().into_iter().filter(|name| !writers.iter().any(|(written, _)| written == name)).collect();
    assert!(left.is_empty(), "no draft is left: {left:?}");
    pair.fixture.verify();
}

#[test]
fn a_file_that_is_handed_to_a_child_is_sent_when_the_child_has_closed_it() {
    let pair = Pair::new();
    let program = "import subprocess, time\n\
                   f = open('send/alice/late.md', 'w')\n\
                   child = subprocess.Popen(['sh', '-c', 'echo one; sleep 0.3; echo two'], stdout=f)\n\
                   time.sleep(0.15)\n\
                   f.close()\n";
    pair.bob.python(program).ok();
    wait_until("the child has written", || !pair.received().is_empty());
    assert_eq!(pair.bodies(), ["one\ntwo"]);
    assert_eq!(pair.bob.refusals(), Vec::<Value>::new());
}

#[test]
fn a_writer_that_is_killed_sends_nothing() {
    let pair = Pair::new();
    for (name, script) in [
        (
            "python.md",
            "python3 -c 'import os, sys; f = open(\"send/alice/python.md\", \"w\"); f.write(\"half\"); f.flush(); os.kill(os.getpid(), 9)'",
        ),
        (
            "output.md",
            "python3 -c 'import os; os.write(1, b\"half\"); os.kill(os.getpid(), 15)' > send/alice/output.md",
        ),
        (
            "threads.md",
            "node -e 'fs.writeSync(fs.openSync(\"send/alice/threads.md\", \"w\"), \"half\"); process.kill(process.pid, \"SIGKILL\"); while (true);'",
        ),
        // The shell goes on, but what it is about to send lacks the rest.
        ("part.md", "{ echo one; sh -c 'echo half; kill -9 $$'; echo three; } > send/alice/part.md; false"),
    ] {
        pair.bob.bash(script).failed();
        wait_until("the kill is on record", || {
            pair.bob.refusals().last().is_some_and(|r| r["path"] == format!("send/alice/{name}"))
        });
        let refusal = pair.fixture.last_refusal();
        assert_eq!(refusal["rule"], "partial", "{refusal:#}");
        let kept =
            fs::read_to_string(pair.fixture.dir().join(refusal["quarantine"].as_str().unwrap())).unwrap();
        assert!(kept.contains("half"), "{kept}");
        pair.bob.bash(&format!("echo whole > send/alice/{name}")).ok();
    }
    assert_eq!(pair.bodies(), ["whole"; 4], "its name is free again");
}

#[test]
fn a_mount_that_ends_sends_nothing_that_is_still_being_written() {
    let pair = Pair::new();
    let program = "import time; f = open('send/alice/open.md', 'w'); f.write('half'); f.flush(); print('ready', flush=True); time.sleep(60)";
    let mut writer = pair.bob.command("python3", &["-c", program]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let daemon = pair.fixture.daemon_pid().unwrap();
    signal(daemon, "TERM");
    wait_until("the daemon has ended", || pair.fixture.daemon_pid().is_none());
    signal(writer.id(), "TERM");
    writer.wait().unwrap();
    let alice = Pair { bob: pair.bob, alice: pair.fixture.mount_as("alice"), fixture: pair.fixture };
    assert_eq!(alice.bodies(), Vec::<String>::new());
    assert!(!is_mounted(alice.bob.path()));
}

#[test]
fn editors_keep_files_of_their_own_beside_a_letter() {
    let pair = Pair::new();
    pair.bob
        .bash(
            "cd send/alice
             for name in .note.md.swp 4913 note.md~ '#note.md#' .#note note.md.tmp note; do
               echo scratch > \"$name\" && [ \"$(cat \"$name\")\" = scratch ] && echo more >> \"$name\" || exit 1
             done
             [ $(ls -A | wc -l) = 7 ] && mv note.md~ note.bak && chmod 600 note.bak && touch -d 2001-01-01 note.bak",
        )
        .ok();
    assert_eq!(pair.alice.names("send/alice"), Vec::<String>::new(), "drafts are their writer's");
    pair.bob.bash("cd send/alice && truncate -s 3 note && [ \"$(cat note)\" = scr ] && rm -f .note.md.swp * .#note && [ -z \"$(ls -A)\" ]").ok();
    assert_eq!(pair.bodies(), Vec::<String>::new());
    assert_eq!(pair.bob.refusals(), Vec::<Value>::new());
    // A draft goes nowhere else.
    pair.bob.refuses(
        "echo x > send/alice/d; mv send/alice/d handoff/x.json",
        "Operation not permitted",
        "read-only",
    );
    pair.bob.refuses(
        "echo x > send/alice/d; ln send/alice/d send/alice/d.md",
        "Operation not permitted",
        "read-only",
    );
}

#[test]
fn an_empty_file_is_no_message_yet() {
    let pair = Pair::new();
    pair.bob.bash("touch send/alice/a.md; : > send/alice/b.txt; printf '\\n \\n' > send/alice/c.md; cp /dev/null send/alice/d.json").ok();
    assert_eq!(pair.names(), ["a.md", "b.txt", "c.md", "d.json"]);
    assert_eq!(pair.bodies(), Vec::<String>::new());
    pair.bob.bash("echo now > send/alice/a.md; rm send/alice/b.txt; echo over > .x 2> /dev/null; echo new > send/alice/t; mv send/alice/t send/alice/d.json").failed();
    assert_eq!(pair.bodies(), ["now"], "and what is no JSON is no message");
    pair.bob.bash("mv -n send/alice/t send/alice/c.md; mv send/alice/t send/alice/c.md").ok();
    assert_eq!(pair.bodies(), ["now", "new"]);
}

#[test]
fn front_matter_and_json_say_more_of_a_message() {
    let pair = Pair::new();
    let carol = pair.fixture.mount_as("carol");
    pair.bob
        .bash(
            "printf -- '---\\ntype: proposal\\npriority: high\\nrefs: [src/a.rs, src/b.rs]\\nto: carol\\n---\\n\\n# A new cache\\n\\nShall we?\\n' > send/alice/cache.md
             echo '{\"body\": {\"n\": 1}, \"type\": \"feedback\", \"x\": [2]}' > send/alice/the-data.json
             sign bob '{\"type\":\"ship\",\"subject\":\"mine\",\"body\":\"b\",\"to\":[\"alice\"]}' > send/alice/signed.json",
        )
        .ok();
    let [proposal, data, signed] = &pair.received()[..] else { panic!("{:#?}", pair.received()) };
    assert_eq!(proposal["subject"], "A new cache");
    assert_eq!(proposal["body"], "# A new cache\n\nShall we?");
    assert_eq!((&proposal["type"], &proposal["priority"]), (&"proposal".into(), &"high".into()));
    assert_eq!(proposal["refs"], serde_json::json!(["src/a.rs", "src/b.rs"]));
    assert_eq!(proposal["to"], serde_json::json!(["alice", "carol"]));
    assert_eq!(proposal["ack_required"], true);
    assert_eq!(
        &json_lines(&carol.read("inbox/carol.jsonl"))[..],
        std::slice::from_ref(proposal),
        "carol, too"
    );
    assert_eq!(
        (&data["subject"], &data["body"], &data["x"]),
        (&"the data".into(), &serde_json::json!({"n": 1}), &serde_json::json!([2]))
    );
    assert_eq!((&signed["subject"], &signed["type"]), (&"mine".into(), &"ship".into()));

    // An answer names what it answers.
    let id = proposal["correlation_id"].as_str().unwrap();
    pair.alice
        .bash(&format!("printf -- '---\\ntype: ack\\ncorrelation_id: {id}\\n---\\n' > send/bob/yes.md"))
        .ok();
    let acks = json_lines(&pair.bob.read("inbox/bob.jsonl"));
    assert_eq!((acks.len(), &acks[0]["type"], &acks[0]["correlation_id"]), (1, &"ack".into(), &id.into()));
    pair.fixture.verify();
}

#[test]
fn what_can_not_be_sent_is_refused_in_the_call_that_shows_it() {
    let pair = Pair::new();
    let matter = |matter: &str| format!("---\n{matter}\n---\ntext");
    for (n, (name, text, shown, rule)) in [
        ("a.md", matter("kind: 7"), "Bad message", "schema"),
        ("a.txt", matter("type: gossip"), "Bad message", "schema"),
        ("a.md", matter("type: ack"), "Bad message", "ack-needs-parent"),
        ("a.md", matter("priority: urgent"), "Bad message", "schema"),
        ("a.md", matter("to: zoe"), "Bad message", "recipient"),
        ("a.md", "x".repeat(65_537), "Message too long", "size"),
        ("a.json", "hello".to_owned(), "Bad message", "json"),
        ("a.json", r#"{"a":1,"a":2}"#.to_owned(), "Bad message", "duplicate-key"),
        ("a.json", r#"{"a":1}"#.to_owned(), "Bad message", "schema"),
        (
            "a.json",
            r#"{"body":"","from":"carol"}"#.to_owned(),
            "Key was rejected by service",
            "from-mismatch",
        ),
        ("a.json", pair.fixture.line("carol", "hers"), "Permission denied", "authority"),
        (
            "a.json",
            pair.fixture.sign("bob", r#"{"type":"ship","subject":"","body":"","to":["carol"]}"#),
            "Bad message",
            "recipient",
        ),
        (
            "a.json",
            pair.fixture.line("bob", "his").replace("his", "her"),
            "Key was rejected by service",
            "event-id",
        ),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{n}{name}");
        fs::write(pair.fixture.scratch().join("text"), text).unwrap();
        // Whoever looks at the result of write(2) sees it: bash does not look at close(2)'s.
        pair.bob.refuses(&format!("t=$(<$SCRATCH/text); echo \"$t\" > send/alice/{name}"), shown, rule);
        pair.bob.refuses(&format!("cp $SCRATCH/text send/alice/{name}"), shown, rule);
        pair.bob.refuses(
            &format!("cp $SCRATCH/text send/alice/t; mv send/alice/t send/alice/{name}"),
            shown,
            rule,
        );
        pair.bob.refuses_python(
            &format!("with open('send/alice/p{name}', 'w') as f: f.write(open('../scratch/text').read())"),
            shown,
            rule,
        );
        let refusal = pair.fixture.last_refusal();
        assert_eq!(refusal["path"], format!("send/alice/p{name}"));
        let kept =
            fs::read_to_string(pair.fixture.dir().join(refusal["quarantine"].as_str().unwrap())).unwrap();
        assert_eq!(kept, *text);
    }
    // What more bytes could have mended is found at the close.
    for (name, text) in [("b.json", "{"), ("b.md", "---\\ntype: ship\\n")] {
        let write = format!("open('send/alice/{name}', 'w')");
        pair.bob.refuses_python(
            &format!("f = {write}; f.write('{text}'); f.close()"),
            "Bad message",
            if name == "b.md" { "schema" } else { "json" },
        );
        pair.bob.refuses_node(
            &format!("fs.writeFile('send/alice/{name}', '{text}', e => {{ if (e) throw e }})"),
            "-74",
            if name == "b.md" { "schema" } else { "json" },
        );
    }
    pair.bob.refuses_python(
        "open('send/alice/c.txt', 'wb', buffering=0).write(b'a\\xffb')",
        "Bad message",
        "schema",
    );
    // A refused file is told so again as long as it is open, once on record.
    let before = pair.bob.refusals().len();
    pair.bob.bash("{ echo hello; echo again; } > send/alice/d.json").failed_with("Bad message");
    assert_eq!(pair.bob.refusals().len(), before + 1);
    assert_eq!(pair.bodies(), Vec::<String>::new());
    assert_eq!(pair.names(), ["t"], "only the draft that could not be renamed is left");
}

#[test]
fn what_forbids_a_message_forbids_the_file() {
    let pair = Pair::new();
    let tier = |tier: &str| {
        pair.bob
            .bash(&format!(
                "jq '(.agents[] | select(.public_keys[0].key_id | startswith(\"bob:\"))).tier=\"{tier}\"' trust.json > $SCRATCH/t && baton trust import $SCRATCH/t"
            ))
            .ok();
    };
    tier("UNTRUSTED");
    pair.bob.refuses("echo hello > send/alice/a.md", "Permission denied", "tier");
    tier("VERIFIED");
    pair.bob.bash("echo hello > send/alice/a.md").ok();
    assert_eq!(pair.bodies(), ["hello"]);
}

#[test]
fn without_a_key_only_what_is_signed_already_can_be_sent() {
    let fixture = Fixture::new();
    fixture.reconfigure(|text| text.replace("[agents.\"bob\"]", "[agents.\"bob\"]\nseal = false"));
    let pair = Pair { bob: fixture.mount_as("bob"), alice: fixture.mount_as("alice"), fixture };
    for name in ["a.md", "a.txt"] {
        pair.bob.refuses(
            &format!("echo hello > send/alice/{name}"),
            "Key was rejected by service",
            "unsigned",
        );
    }
    assert!(pair.fixture.last_refusal()["advice"].as_str().unwrap().contains("--as bob"));
    pair.bob.refuses(
        "echo hello > send/alice/t; mv send/alice/t send/alice/a.md",
        "Key was rejected",
        "unsigned",
    );
    pair.bob.refuses("echo '{\"body\":1}' > send/alice/a.json", "Key was rejected by service", "unsigned");
    pair.bob.bash("l=$(sign bob '{\"type\":\"ship\",\"subject\":\"s\",\"body\":\"b\"}'); echo \"$l\" > send/alice/a.json").ok();
    assert_eq!(pair.bodies(), ["b"]);
    pair.is_last("a.json");
}
