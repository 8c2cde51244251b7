"""Throws random bytes, and valid things changed at random, at everything that can be written.

usage: fuzz.py AGENT SECONDS SEED     in a mount as AGENT, whose profile `claude` has slots

Whatever is said about it is fine: that the daemon lives and the exchange is sound afterwards is for the
caller to check. Prints how often what was answered, and fails on EIO or on an answer that took too long.
"""
import collections, errno, json, os, random, sys, time
import peer

LOGS = ["inbox/alice.jsonl", "inbox/bob.jsonl", "decisions.jsonl", "incident_log.jsonl",
        "bob_to_alice.jsonl", "outbox/alice.jsonl", "outbox/bob.jsonl", "outbox/carol.jsonl", "_coordination/inbox/carol.jsonl", "_coordination/decisions.jsonl"]
FOLDERS = ["handoff", "claimed", "archive", "rejected", "inbox", "credentials", "credentials/claude", ".",
           "_coordination", "_coordination/handoff", "send/alice", "send/bob", "outbox", "status", "trust"]
NAMES = ["x.json", "x.md", "x.txt", ".x.md.swp", ".x.tmp", "x.json.reason.json", ".json", "n" * 240, "y.json", "alice.jsonl", "a\nb.json",
         ".credentials.json", ".credentials.json.a", ".credentials.json.b", ".credentials.json.a.tmp.1f",
         ".oauth_refresh.lock", "f", "\udcff", "events.jsonl", "refusals.jsonl", "trust.json"]
MEMBERS = {
    "type": ["ship", "request", "ack", "proposal", "heartbeat", "decision", "correction", "incident", "agent_card",
             "trust_tier_announcement", "claim", "novel", 7],
    "subject": ["s", "add_key", "set_tiers", "deactivate_key", "", 7],
    "body": ["b", {"affected_domains": ["x"]}, {"T1_active": 5}, {"key": "AA==", "key_id": "bob:00000000"}, [], None],
    "correlation_id": ["t1", "t2", "t3", "", 7],
    "to": [["alice"], ["bob", "carol"], ["*"], [], ["zoe"], "alice", [7]],
    "from": ["alice", "bob", "did:wire:carol", 7],
    "kind": [100, 1500, 25000, -1, 1e9, 10**30],
    "refs": [[], ["x"] * 100, 7],
    "affected_domains": [[], ["x"], 7],
    "ack_required": [True, False, 7],
}
PIECES = [b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b",", b":", b"\n", b"\r", b"\0", b"\xff",
          b"\xc3", b"\xef\xbb\xbf", b"1e999", b"-0", b"9" * 400, b'{"a":' * 70, b" " * 5000, b"x" * 70000]


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0: data[at:at] = rng.choice(PIECES)
            case 1: data[at:at + 1] = bytes([rng.randrange(256)])
            case 2: del data[at:at + rng.randrange(1, 50)]
            case 3: data[at:at] = data[:rng.randrange(len(data) + 1)]
            case 4: del data[at:]
    return bytes(data)


def pieces(rng, data):
    """The data as the writes of some program."""
    size = rng.choice([1 << 20, 16384, 100, max(1, len(data) // 2)])
    return [data[at:at + size] for at in range(0, len(data), size)]


def path(rng):
    return rng.choice(FOLDERS) + "/" + rng.choice(NAMES)


class Fuzz:
    def __init__(self, agent, seed):
        self.agent, self.rng = agent, random.Random(seed)
        self.lines = [line.encode() for line in peer.sign(agent, *[peer.message(f"{seed} {n}") for n in range(300)])]
        self.count = 0

    def login(self):
        account = self.rng.choice(["account-a", "account-b", "account-c"])
        return (f'{{"claudeAiOauth":{{"accessToken":"at","refreshToken":"rt-{account}","expiresAt":'
                f'{int(time.time() + 9999) * 1000},"scopes":["user:inference"]}}}}').encode()

    def object(self):
        """Unsigned, for the mount to seal: mostly whole, with members of all kinds and some that are wrong."""
        members = {"type": "ship", "subject": "s", "body": "b"}
        for name in self.rng.sample(sorted(MEMBERS), self.rng.randrange(5)):
            members[name] = self.rng.choice(MEMBERS[name])
        return json.dumps(members).encode()

    def content(self):
        self.count += 1
        other = self.rng.choice(["alice", "carol", "bob"])
        match self.rng.randrange(8):
            case 5 | 6: return self.object()
            case 7: return b"---\n" + self.object()[1:-1].replace(b",", b"\n") + b"\n---\n# Title\n\ntext\n"
            case 0: return self.rng.randbytes(self.rng.choice([1, 40, 5000]))
            case 1: return self.rng.choice(PIECES)
            case 2: return self.rng.choice(self.lines)
            case 3: return peer.payload(self.agent, other if other != self.agent else "alice" if self.agent != "alice" else "bob", caller=f"{self.agent} {self.rng.random()}").encode()
            case 4: return self.login()

    def write(self, where, flags):
        fd = os.open(where, flags, 0o600)
        try:
            for piece in pieces(self.rng, mutated(self.rng, self.content())):
                if self.rng.random() < 0.1:
                    os.pwrite(fd, piece, self.rng.randrange(100000))
                else:
                    os.write(fd, piece)
        finally:
            os.close(fd)

    def step(self):
        rng = self.rng
        match rng.randrange(12):
            case 0 | 1 | 2: self.write(rng.choice(LOGS), os.O_WRONLY | os.O_APPEND)
            case 3: self.write(rng.choice(LOGS), os.O_WRONLY | os.O_CREAT | rng.choice([0, os.O_TRUNC, os.O_SYNC]))
            case 4 | 5 | 6: self.write(path(rng), os.O_WRONLY | os.O_CREAT | rng.choice([0, os.O_TRUNC, os.O_APPEND, os.O_EXCL]))
            case 7 | 8: os.rename(path(rng), path(rng))
            case 9: rng.choice([os.unlink, os.rmdir, os.mkdir, os.mknod, os.listdir])(path(rng))
            case 10: rng.choice([os.symlink, os.link])(rng.choice([path(rng), ".credentials.json.b", "x"]), path(rng))
            case 11: rng.choice([
                lambda p: os.truncate(p, rng.randrange(1 << 21)), lambda p: os.chmod(p, rng.randrange(0o1000)),
                lambda p: os.utime(p, (1, 1)), lambda p: open(p, "rb").read(), os.readlink, os.listdir,
                lambda p: os.setxattr(p, "user.x", b"y"), lambda p: os.chown(p, 1, 1)])(path(rng))


def main(agent, seconds, seed):
    fuzz, answers, slowest = Fuzz(agent, int(seed)), collections.Counter(), 0.0
    end = time.monotonic() + float(seconds)
    while (start := time.monotonic()) < end:
        try:
            fuzz.step()
            answers["ok"] += 1
        except OSError as e:
            answers[errno.errorcode[e.errno]] += 1
        slowest = max(slowest, time.monotonic() - start)
    print(agent, seed, f"slowest {slowest:.2f} s", dict(answers.most_common()))
    return 1 if answers["EIO"] or slowest > 20 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
