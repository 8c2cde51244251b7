//! Messages into logs: what is accepted, what is refused, and what readers see.

use crate::common::{Fixture, Mount, message, wait_until};
use std::fs;
use std::io::Write;
use std::io::{Read as _, Seek as _, SeekFrom};

const INBOX: &str = "inbox/alice.jsonl";

fn bob() -> (Fixture, Mount) {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    (fixture, bob)
}

/// The lines of alice's inbox.
fn inbox(mount: &Mount) -> Vec<String> {
    mount.read(INBOX).lines().map(str::to_owned).collect()
}

#[test]
fn a_signed_line_is_stored_byte_for_byte() {
    let (fixture, bob) = bob();
    let line = fixture.line("bob", "hello");
    fs::OpenOptions::new()
        .append(true)
        .open(bob.at(INBOX))
        .unwrap()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
    assert_eq!(bob.read(INBOX), format!("{line}\n"));
    assert_eq!(fs::read_to_string(fixture.dir().join(INBOX)).unwrap(), format!("{line}\n"));
    fixture.verify();
}

#[test]
fn every_usual_way_to_append_works() {
    let (_fixture, bob) = bob();
    bob.bash("line bob 1 >> inbox/alice.jsonl").ok();
    bob.bash("echo \"$(line bob 2)\" >> inbox/alice.jsonl").ok();
    bob.bash("printf '%s\\n' \"$(line bob 3)\" >> inbox/alice.jsonl").ok();
    bob.bash("line bob 4 | tee -a inbox/alice.jsonl > /dev/null").ok();
    bob.bash("line bob 5 | dd of=inbox/alice.jsonl oflag=append conv=notrunc status=none").ok();
    bob.bash("/bin/echo \"$(line bob 6)\" >> inbox/alice.jsonl").ok();
    bob.bash("line bob 7 > $SCRATCH/line; cat $SCRATCH/line >> inbox/alice.jsonl").ok();
    bob.python("import peer; peer.append('inbox/alice.jsonl', peer.sign('bob', peer.message('8'))[0])").ok();
    bob.python("import peer; open('inbox/alice.jsonl', 'a').write(peer.sign('bob', peer.message('9'))[0])")
        .ok();
    bob.node(&node("fs.appendFileSync('inbox/alice.jsonl', agent.sign('bob', agent.message('10')))")).ok();
    bob.node(&node("agent.append('inbox/alice.jsonl', agent.sign('bob', agent.message('11')))")).ok();
    let bodies: Vec<_> =
        crate::common::json_lines(&bob.read(INBOX)).iter().map(|m| m["body"].clone()).collect();
    assert_eq!(bodies, (1..=11).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn two_echoes_in_one_redirection_are_two_lines() {
    let (_fixture, bob) = bob();
    bob.bash("a=$(line bob a) b=$(line bob b); { echo \"$a\"; echo \"$b\"; } >> inbox/alice.jsonl").ok();
    assert_eq!(inbox(&bob).len(), 2);
}

#[test]
fn appending_at_the_end_without_o_append_works() {
    let (_fixture, bob) = bob();
    bob.bash("line bob first >> inbox/alice.jsonl").ok();
    bob.python(
        "import os, peer\n\
         fd = os.open('inbox/alice.jsonl', os.O_WRONLY)\n\
         os.lseek(fd, 0, os.SEEK_END)\n\
         for line in peer.sign('bob', peer.message('second'), peer.message('third')):\n\
         \x20   os.write(fd, line.encode())\n",
    )
    .ok();
    assert_eq!(inbox(&bob).len(), 3);
}

#[test]
fn both_signature_versions_are_accepted() {
    let (fixture, bob) = bob();
    bob.bash(&format!("echo '{}' | baton sign --as bob --v3 >> inbox/alice.jsonl", message("v3"))).ok();
    bob.bash(&format!("echo '{}' | baton sign --as bob >> inbox/alice.jsonl", message("v3.1"))).ok();
    let lines = inbox(&bob);
    assert!(!lines[0].contains("event_id"), "{}", lines[0]);
    assert!(lines[1].contains("event_id"), "{}", lines[1]);
    fixture.verify();
}

#[test]
fn every_log_also_answers_under_coordination() {
    let (_fixture, bob) = bob();
    bob.bash("line bob 1 >> _coordination/inbox/alice.jsonl").ok();
    bob.bash("line bob 2 >> _coordination/bob_to_alice.jsonl").ok();
    bob.bash("line bob 3 >> _coordination/outbox/bob.jsonl").ok();
    bob.bash("sign bob '{\"type\":\"incident\",\"subject\":\"s\",\"body\":\"4\"}' >> _coordination/incident_log.jsonl")
        .ok();
    for (log, lines) in [
        ("inbox/alice.jsonl", 4),
        ("inbox/carol.jsonl", 2),
        ("bob_to_alice.jsonl", 1),
        ("outbox/bob.jsonl", 1),
        ("incident_log.jsonl", 1),
        ("decisions.jsonl", 0),
    ] {
        assert_eq!(bob.read(log).lines().count(), lines, "{log}");
        assert_eq!(bob.read(log), bob.read(&format!("_coordination/{log}")), "{log}");
    }
    bob.bash("cmp trust.json _coordination/trust.json").ok();
}

#[test]
fn a_bilateral_log_appears_with_its_first_line() {
    let (_fixture, bob) = bob();
    assert!(!bob.names("").contains(&"bob_to_carol.jsonl".to_owned()));
    bob.bash("line bob hello >> bob_to_carol.jsonl").ok();
    assert!(bob.names("").contains(&"bob_to_carol.jsonl".to_owned()));
    assert_eq!(bob.read("bob_to_carol.jsonl").lines().count(), 1);
}

#[test]
fn an_object_counts_once_it_is_complete_even_without_newline() {
    let (_fixture, bob) = bob();
    bob.bash(
        "printf %s \"$(line bob 1)\" >> inbox/alice.jsonl; printf %s \"$(line bob 2)\" >> inbox/alice.jsonl",
    )
    .ok();
    let text = bob.read(INBOX);
    assert_eq!(text.lines().count(), 2);
    assert!(text.ends_with('\n'), "each object is a line of its own");
}

#[test]
fn a_pretty_printed_object_is_stored_as_one_line() {
    let (fixture, bob) = bob();
    bob.bash("line bob 'two  spaces' | jq . > $SCRATCH/pretty; cat $SCRATCH/pretty >> inbox/alice.jsonl")
        .ok();
    let lines = inbox(&bob);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("two  spaces"), "white space inside strings stays: {}", lines[0]);
    fixture.verify();
}

#[test]
fn an_object_may_arrive_in_several_writes() {
    let (fixture, bob) = bob();
    let line = fixture.line("bob", "in pieces");
    let mut file = fs::OpenOptions::new().append(true).open(bob.at(INBOX)).unwrap();
    for piece in line.as_bytes().chunks(7) {
        assert_eq!(bob.read(INBOX), "", "nothing is to be seen of an incomplete object");
        file.write_all(piece).unwrap();
    }
    assert_eq!(bob.read(INBOX), format!("{line}\n"), "the last byte completes it, before any close");
}

#[test]
fn pieces_of_two_writers_do_not_mix() {
    let (fixture, bob) = bob();
    let lines = [fixture.line("bob", "one"), fixture.line("bob", "two")];
    let open = || fs::OpenOptions::new().append(true).open(bob.at(INBOX)).unwrap();
    let (mut first, mut second) = (open(), open());
    let (a, b) = lines[0].as_bytes().split_at(40);
    let (c, d) = lines[1].as_bytes().split_at(60);
    first.write_all(a).unwrap();
    second.write_all(c).unwrap();
    first.write_all(b).unwrap();
    second.write_all(d).unwrap();
    assert_eq!(inbox(&bob), lines);
}

#[test]
fn one_write_is_all_or_nothing() {
    let (fixture, bob) = bob();
    bob.refuses_python(
        "import peer\n\
         lines = peer.sign('bob', *[peer.message(f'line {n}') for n in range(50)])\n\
         lines[29] = lines[29].replace('line 29', 'line 92')\n\
         with open('inbox/alice.jsonl', 'a') as f:\n\
         \x20   f.write(''.join(lines))\n",
        "Key was rejected by service",
        "event-id",
    );
    assert_eq!(bob.read(INBOX), "", "none of the 50 lines may be there");
    fixture.verify();
}

#[test]
fn the_refused_bytes_are_kept() {
    let (fixture, bob) = bob();
    bob.refuses("echo 'hello alice' >> inbox/alice.jsonl", "Bad message", "json");
    let kept: Vec<_> = fs::read_dir(fixture.dir().join("private/quarantine"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| fs::read(file).is_ok_and(|bytes| bytes.windows(11).any(|w| w == b"hello alice")))
        .collect();
    assert_eq!(kept.len(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn partial_is_refused_at_close_and_python_sees_it() {
    let (_fixture, bob) = bob();
    bob.refuses_python(
        "f = open('inbox/alice.jsonl', 'a'); f.write('{\"type\": '); f.close()",
        "Bad message",
        "partial",
    );
    assert_eq!(bob.read(INBOX), "");
}

#[test]
fn partial_is_on_record_where_the_shell_says_nothing() {
    let (fixture, bob) = bob();
    bob.bash("echo '{\"type\": ' >> inbox/alice.jsonl");
    wait_until("the refusal is on record", || fixture.refusals().iter().any(|r| r["rule"] == "partial"));
    assert_eq!(bob.refusals().last().unwrap()["rule"], "partial");
}

macro_rules! refused_lines {
    ($($name:ident: $script:expr => $text:literal, $rule:literal;)*) => {$(
        #[test]
        fn $name() {
            let (fixture, bob) = bob();
            bob.refuses($script, $text, $rule);
            assert_eq!(bob.read(INBOX), "");
            fixture.verify();
        }
    )*};
}

refused_lines! {
    json_refuses_plain_text: "echo hello >> inbox/alice.jsonl" => "Bad message", "json";
    json_refuses_arrays: "echo '[1]' >> inbox/alice.jsonl" => "Bad message", "json";
    json_refuses_nan: "echo '{\"a\": NaN}' >> inbox/alice.jsonl" => "Bad message", "json";
    json_refuses_lone_surrogates: r#"echo '{"a": "\ud800"}' >> inbox/alice.jsonl"# => "Bad message", "json";
    json_refuses_deep_nesting: "python3 -c 'print(\"{\\\"a\\\":\" + \"[\" * 100)' >> inbox/alice.jsonl"
        => "", "json";
    json_refuses_bytes_that_are_no_utf8: r#"printf '{"a":"\xff"}\n' >> inbox/alice.jsonl"# => "Bad message", "json";
    duplicate_key_refuses: r#"echo '{"type":"ship","type":"ack"}' >> inbox/alice.jsonl"# => "Bad message", "duplicate-key";
    schema_refuses_missing_members: r#"echo '{"type":"ship"}' >> inbox/alice.jsonl"# => "Bad message", "schema";
    event_id_refuses_changed_bodies: "line bob hello | tamper hello jello >> inbox/alice.jsonl; exit ${PIPESTATUS[1]}"
        => "", "event-id";
    signature_refuses_changed_v3_bodies:
        r#"l=$(echo '{"type":"feedback","subject":"s","body":"hello"}' | baton sign --as bob --v3 | tamper hello jello); echo "$l" >> inbox/alice.jsonl"#
        => "Key was rejected by service", "signature";
    from_mismatch_refuses: r#"l=$(line carol | jq -c '.from="bob"'); echo "$l" >> inbox/alice.jsonl"#
        => "Key was rejected by service", "from-mismatch";
    unknown_key_refuses: r#"l=$(line bob | jq -c '.public_key_id="bob:00000000"'); echo "$l" >> inbox/alice.jsonl"#
        => "Key was rejected by service", "unknown-key";
    authority_refuses_lines_of_others: r#"l=$(line carol); echo "$l" >> inbox/alice.jsonl"#
        => "Permission denied", "authority";
    ack_needs_parent: r#"l=$(line bob | jq -c '.type="ack" | .correlation_id=.timestamp | del(.kind)'); echo "$l" >> inbox/alice.jsonl"#
        => "Bad message", "ack-needs-parent";
    proposal_needs_ack_required: r#"l=$(line bob | jq -c '.type="proposal" | .ack_required=false | del(.kind)'); echo "$l" >> inbox/alice.jsonl"#
        => "Bad message", "proposal-needs-ack-required";
    clock_skew_refuses_the_future:
        r#"l=$(sign bob '{"type":"feedback","subject":"s","body":"b","timestamp":"2999-01-01T00:00:00Z"}'); echo "$l" >> inbox/alice.jsonl"#
        => "Bad message", "clock-skew";
}

const UNSIGNED: &str = r#"echo '{"timestamp":"2026-01-01T00:00:00Z","from":"bob","type":"ship","subject":"s","body":"b","correlation_id":"c"}' >> inbox/alice.jsonl"#;

#[test]
fn unsigned_refuses_where_nothing_seals() {
    let fixture = Fixture::new();
    fixture.configure_agent("bob", "seal = false");
    let bob = fixture.mount_as("bob");
    bob.refuses(UNSIGNED, "Key was rejected by service", "unsigned");
    let operator = fixture.mount_as_operator();
    operator.refuses(UNSIGNED, "Key was rejected by service", "unsigned");
    assert_eq!(bob.read(INBOX), "");
    fixture.verify();
}

#[test]
fn authority_keeps_bilateral_logs_to_their_author() {
    let (_fixture, bob) = bob();
    bob.refuses("l=$(line bob); echo \"$l\" >> alice_to_bob.jsonl", "Permission denied", "authority");
    bob.refuses("l=$(line bob); echo \"$l\" >> carol_to_alice.jsonl", "Permission denied", "authority");
}

#[test]
fn a_log_for_an_unknown_agent_cannot_be_made() {
    let (_fixture, bob) = bob();
    bob.refuses("l=$(line bob); echo \"$l\" >> inbox/zoe.jsonl", "Operation not permitted", "read-only");
    bob.refuses("l=$(line bob); echo \"$l\" >> bob_to_zoe.jsonl", "Operation not permitted", "read-only");
}

#[test]
fn the_past_is_fine() {
    let (_fixture, bob) = bob();
    bob.bash(r#"sign bob '{"type":"feedback","subject":"s","body":"b","timestamp":"2020-01-01T00:00:00Z"}' >> inbox/alice.jsonl"#)
        .ok();
    assert_eq!(inbox(&bob).len(), 1);
}

#[test]
fn size_refuses_bodies_over_the_limit() {
    let (fixture, bob) = bob();
    let program = |size: usize| {
        format!(
            "import peer; peer.append('inbox/alice.jsonl', peer.sign('bob', peer.message('x' * {size}))[0])"
        )
    };
    bob.python(&program(65_536)).ok();
    bob.refuses_python(&program(65_537), "Message too long", "size");
    assert_eq!(inbox(&bob).len(), 1);
    fixture.verify();
}

#[test]
fn size_spares_the_trusted() {
    let fixture = Fixture::new();
    let file = fixture.dir().join("trust.json");
    let mut trust: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let agents = trust["agents"].as_object_mut().unwrap();
    for (name, agent) in agents {
        if name.ends_with("bob") {
            agent["tier"] = "TRUSTED".into();
        }
    }
    fs::write(&file, serde_json::to_string_pretty(&trust).unwrap()).unwrap();
    let bob = fixture.mount_as("bob");
    bob.python(
        "import peer; peer.append('inbox/alice.jsonl', peer.sign('bob', peer.message('x' * 300_000))[0])",
    )
    .ok();
    assert_eq!(inbox(&bob).len(), 1);
}

#[test]
fn replay_refuses_the_same_line_again() {
    let (fixture, bob) = bob();
    bob.bash("line bob > $SCRATCH/line; cat $SCRATCH/line >> inbox/alice.jsonl").ok();
    bob.refuses("cat $SCRATCH/line >> inbox/alice.jsonl", "File exists", "replay");
    bob.refuses("jq -c 'to_entries | reverse | from_entries' $SCRATCH/line >> $SCRATCH/reordered; cat $SCRATCH/reordered >> inbox/alice.jsonl",
        "File exists", "replay");
    bob.refuses(
        "jq . $SCRATCH/line > $SCRATCH/pretty; cat $SCRATCH/pretty >> inbox/alice.jsonl",
        "File exists",
        "replay",
    );
    assert_eq!(inbox(&bob).len(), 1);
    fixture.verify();
}

#[test]
fn replay_refuses_a_line_twice_in_one_write() {
    let (_fixture, bob) = bob();
    bob.refuses(
        "l=$(line bob); printf '%s\\n%s\\n' \"$l\" \"$l\" > $SCRATCH/two; cat $SCRATCH/two >> inbox/alice.jsonl",
        "File exists",
        "replay",
    );
    assert_eq!(bob.read(INBOX), "");
}

#[test]
fn replay_is_remembered_over_a_remount() {
    let (fixture, bob) = bob();
    bob.bash("line bob > $SCRATCH/line; cat $SCRATCH/line >> inbox/alice.jsonl").ok();
    bob.umount();
    wait_until("the daemon has ended", || fixture.daemon_pid().is_none());
    let bob = fixture.mount_as("bob");
    bob.refuses("cat $SCRATCH/line >> inbox/alice.jsonl", "File exists", "replay");
}

#[test]
fn revoked_key_refuses() {
    let fixture = Fixture::new();
    let file = fixture.dir().join("trust.json");
    let mut trust: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for (name, agent) in trust["agents"].as_object_mut().unwrap() {
        if name.ends_with("bob") {
            agent["public_keys"][0]["active"] = false.into();
        }
    }
    fs::write(&file, serde_json::to_string_pretty(&trust).unwrap()).unwrap();
    let bob = fixture.mount_as("bob");
    bob.refuses("l=$(line bob); echo \"$l\" >> inbox/alice.jsonl", "Key has been revoked", "revoked-key");
}

#[test]
fn tier_refuses_what_the_untrusted_may_not_send() {
    let fixture = Fixture::new();
    let file = fixture.dir().join("trust.json");
    let mut trust: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for (name, agent) in trust["agents"].as_object_mut().unwrap() {
        if name.ends_with("bob") {
            agent["tier"] = "UNTRUSTED".into();
        }
    }
    fs::write(&file, serde_json::to_string_pretty(&trust).unwrap()).unwrap();
    let bob = fixture.mount_as("bob");
    bob.refuses("l=$(line bob); echo \"$l\" >> inbox/alice.jsonl", "Permission denied", "tier");
    bob.bash(r#"sign bob '{"type":"heartbeat","subject":"s","body":{"state":"idle"}}' >> inbox/alice.jsonl"#)
        .ok();
}

#[test]
fn readers_are_right_at_once_after_an_append() {
    let (_fixture, bob) = bob();
    bob.python(
        r#"
import json, os, subprocess, peer
log = 'inbox/alice.jsonl'
reader = open(log)
reader_fd = os.open(log, os.O_RDONLY)
size = 0
for n, line in enumerate(peer.sign('bob', *[peer.message(f'ü {n}') for n in range(20)]), 1):
    pretty = json.dumps(json.loads(line), indent=4, ensure_ascii=False)
    peer.append(log, pretty if n % 2 else line)
    stored = reader.readline()
    assert json.loads(stored) == json.loads(line), (n, stored)
    size += len(stored.encode())
    assert os.stat(log).st_size == size, (n, 'stat')
    assert os.fstat(reader_fd).st_size == size, (n, 'fstat')
    assert os.lseek(reader_fd, 0, os.SEEK_END) == size, (n, 'SEEK_END')
    assert len(open(log).readlines()) == n, (n, 'readlines')
    wc = subprocess.run(['wc', '-lc', log], capture_output=True, text=True).stdout.split()
    assert wc[:2] == [str(n), str(size)], (n, wc)
    jq = subprocess.run(['jq', '-s', 'length', log], capture_output=True, text=True).stdout
    assert jq.strip() == str(n), (n, jq)
"#,
    )
    .ok();
    bob.node(&node(
        "for (let n = 21; n <= 30; n++) {
           agent.append('inbox/alice.jsonl', agent.sign('bob', agent.message(String(n))));
           const lines = fs.readFileSync('inbox/alice.jsonl', 'utf8').trimEnd().split('\\n');
           if (lines.length !== n || JSON.parse(lines[n - 1]).body !== String(n)) throw new Error(`${n}: ${lines.length}`);
         }",
    ))
    .ok();
}

#[test]
fn a_reader_through_another_mount_sees_the_line_at_once() {
    let (fixture, bob) = bob();
    let alice = fixture.mount_as("alice");
    for n in 1..=10 {
        bob.bash(&format!("line bob {n} >> inbox/alice.jsonl")).ok();
        assert_eq!(inbox(&alice).len(), n);
        assert_eq!(fs::metadata(alice.at(INBOX)).unwrap().len(), fs::metadata(bob.at(INBOX)).unwrap().len());
    }
}

#[test]
fn readers_who_have_read_to_the_end_see_an_append_at_once_with_and_without_passthrough() {
    for options in [&[][..], &["--no-passthrough"]] {
        let fixture = Fixture::new();
        let mounts = [fixture.mount_with(options), fixture.mount_with(options)];
        let mut readers = mounts.each_ref().map(|mount| fs::File::open(mount.at(INBOX)).unwrap());
        let mut expected = String::new();
        for round in 0..20 {
            let line = fixture.line("bob", &format!("round {round}")) + "\n";
            mounts[round % 2].append(INBOX, &line);
            expected.push_str(&line);
            for (reader, mount) in readers.iter_mut().zip(&mounts) {
                let mut rest = String::new();
                reader.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, line);
                assert_eq!(reader.metadata().unwrap().len(), expected.len() as u64);
                assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), expected.len() as u64);
                assert_eq!(mount.read(INBOX), expected);
                assert_eq!(fs::metadata(mount.at(INBOX)).unwrap().len(), expected.len() as u64);
            }
        }
    }
}

#[test]
fn tail_f_shows_each_new_line() {
    let (fixture, bob) = bob();
    let seen = fixture.scratch().join("seen");
    let mut tail = bob
        .command("tail", &["-n", "+1", "-s", "0.1", "-f", INBOX])
        .stdout(fs::File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    for n in 1..=3 {
        bob.bash(&format!("line bob 'number {n}' >> inbox/alice.jsonl")).ok();
        let text = format!("number {n}");
        wait_until("tail -f shows the line", || fs::read_to_string(&seen).unwrap().contains(&text));
    }
    crate::common::signal(tail.id(), "TERM");
    tail.wait().unwrap();
}

#[test]
fn what_python_and_node_read_as_the_error() {
    let (fixture, bob) = bob();
    bob.refuses_python(
        "with open('inbox/alice.jsonl', 'a') as f: f.write('hello')",
        "[Errno 74] Bad message",
        "json",
    );
    bob.refuses_node(
        &node("fs.appendFileSync('inbox/alice.jsonl', 'hello')"),
        "Unknown system error -74",
        "json",
    );
    fs::write(fixture.scratch().join("forged"), fixture.line("bob", "hello").replace("hello", "jello"))
        .unwrap();
    // Node has no name for the key errnos; which words it puts around the number differs by version and call.
    bob.refuses_node(
        &node(
            "try { fs.appendFileSync('inbox/alice.jsonl', fs.readFileSync(process.env.SCRATCH + '/forged')) }
             catch (e) { console.error('errno', e.errno); process.exit(1) }",
        ),
        "errno -129",
        "event-id",
    );
}

#[test]
fn a_refusal_says_who_what_where_and_what_to_do() {
    let (fixture, bob) = bob();
    bob.refuses("echo hello >> inbox/alice.jsonl", "Bad message", "json");
    let refusal = fixture.last_refusal();
    assert_eq!(refusal["agent"], "bob");
    assert_eq!(refusal["uid"], 0);
    assert!(refusal["pid"].as_u64().unwrap() > 0);
    assert_eq!(refusal["operation"], "write");
    assert_eq!(refusal["path"], INBOX);
    assert_eq!(refusal["errno_name"], "EBADMSG");
    assert!(refusal["advice"].as_str().unwrap().contains("JSON"), "{refusal}");
    let cli = fixture.baton(&["refusals", fixture.dir().to_str().unwrap()]).ok();
    assert!(cli.contains("json"), "{cli}");
}

#[test]
fn refusals_are_shown_to_whom_they_concern() {
    let (fixture, bob) = bob();
    let carol = fixture.mount_as("carol");
    let operator = fixture.mount_as_operator();
    bob.refuses("echo hello >> inbox/alice.jsonl", "Bad message", "json");
    carol.refuses(": > inbox/alice.jsonl", "Operation not permitted", "append-only");
    let rules = |mount: &Mount| mount.refusals().iter().map(|r| r["rule"].clone()).collect::<Vec<_>>();
    assert_eq!(rules(&bob), ["json"]);
    assert_eq!(rules(&carol), ["append-only"]);
    assert_eq!(rules(&operator), ["json", "append-only"]);
}

#[test]
fn flock_works_between_clients_of_one_mount() {
    let (_fixture, bob) = bob();
    bob.python(
        "import fcntl, os\n\
         a, b = (os.open('inbox/alice.jsonl', os.O_WRONLY | os.O_APPEND) for _ in range(2))\n\
         fcntl.flock(a, fcntl.LOCK_EX)\n\
         try:\n\
         \x20   fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
         except BlockingIOError:\n\
         \x20   pass\n\
         else:\n\
         \x20   raise AssertionError('both hold the lock')\n",
    )
    .ok();
}

fn node(program: &str) -> String {
    format!(
        "const fs = require('fs'), agent = require({:?}); {program}",
        format!("{}/agent.js", crate::common::CLIENTS)
    )
}
