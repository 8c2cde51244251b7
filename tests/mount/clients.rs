//! Programs written from the protocol alone, doing what the existing ones do, against one mount each.

use crate::common::Fixture;

#[test]
fn a_dead_drop_writer_locks_writes_and_syncs() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.python(
        "import peer\n\
         for line in peer.sign('bob', *[peer.message(f'n {n}') for n in range(20)]):\n\
         \x20   peer.append('_coordination/bob_to_alice.jsonl', line)\n",
    )
    .ok();
    assert_eq!(bob.read("bob_to_alice.jsonl").lines().count(), 20);
    fixture.verify();
}

#[test]
fn a_session_of_two_agents() {
    let fixture = Fixture::new();
    let (alice, bob) = (fixture.mount_as("alice"), fixture.mount_as("bob"));
    bob.python(
        "import peer\n\
         peer.append('inbox/alice.jsonl', peer.sign('bob', {'type': 'request', 'subject': 'help', 'body': 'take the call', 'ack_required': True})[0])\n\
         peer.publish(peer.payload('bob', 'alice', caller='+41 79'))\n",
    )
    .ok();
    alice
        .python(
            "import json, os, peer\n\
             request = json.loads(open('inbox/alice.jsonl').readlines()[-1])\n\
             name = sorted(n for n in os.listdir('handoff') if n.endswith('.json'))[0]\n\
             assert peer.claim(name)\n\
             ack = {'type': 'ack', 'subject': 'on it', 'body': name, 'correlation_id': request['correlation_id']}\n\
             peer.append('inbox/bob.jsonl', peer.sign('alice', ack)[0])\n\
             peer.complete(name)\n",
        )
        .ok();
    let acks = crate::common::json_lines(&bob.read("inbox/bob.jsonl"));
    assert_eq!(acks[0]["type"], "ack");
    assert_eq!(bob.names("archive").len(), 1);
    fixture.verify();
}

#[test]
fn python_reads_the_errno_of_each_rule() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    bob.python(
        r#"
import json, os, peer
log = 'inbox/alice.jsonl'
line = peer.sign('bob', peer.message('hello'))[0]
peer.append(log, line)
assert peer.refused('EEXIST', peer.append, log, line) == 'File exists'
assert peer.refused('EKEYREJECTED', peer.append, log, line.replace('hello', 'jello')) == 'Key was rejected by service'
assert peer.refused('EBADMSG', peer.append, log, 'hello') == 'Bad message'
assert peer.refused('EACCES', peer.append, log, peer.sign('carol', peer.message('x'))[0]) == 'Permission denied'
assert peer.refused('EPERM', os.truncate, log, 0) == 'Operation not permitted'
assert peer.refused('EPERM', os.unlink, log) == 'Operation not permitted'
big = peer.sign('bob', peer.message('x' * 70000))[0]
assert peer.refused('EMSGSIZE', peer.append, log, big) == 'Message too long'
name = peer.publish(peer.payload('bob', 'alice'))
assert peer.refused('EACCES', peer.claim, name) == 'Permission denied'
assert peer.refused('ENOENT', os.rename, 'handoff/none.json', 'claimed/none.json') == 'No such file or directory'
tampered = peer.payload('bob', 'alice', caller='other').replace('"test"', '"best"')
assert peer.refused('EKEYREJECTED', peer.publish, tampered) == 'Key was rejected by service'
"#,
    )
    .ok();
    assert_eq!(bob.read("inbox/alice.jsonl").lines().count(), 1);
}
