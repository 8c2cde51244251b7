"""A coordination program as they exist, written from the protocol alone: it knows nothing of the mount.

Dead-drop lines: open for append, flock, one write, fsync, unlock. Handoffs: a temp file renamed to a
number picked by listing the directory; claims and the rest are renames. Only the standard library;
Ed25519 is not in it, so lines are signed by `baton sign`.
"""
import base64, fcntl, hashlib, hmac, json, os, subprocess, sys
from datetime import datetime, timedelta, timezone


def sign(agent, *objects, version="v3.1"):
    """The objects as signed lines, newlines included."""
    text = "".join(json.dumps(o) + "\n" for o in objects)
    command = ["baton", "sign", "--as", agent] + (["--v3"] if version == "v3" else [])
    out = subprocess.run(command, input=text, capture_output=True, text=True)
    if out.returncode != 0:
        raise RuntimeError(out.stderr)
    return out.stdout.splitlines(keepends=True)


def message(body, **members):
    return {"type": "feedback", "subject": "test", "body": body, **members}


def line(version, agent, kind, subject, body, parent=None, **members):
    """A whole line as a program of protocol v2 (unsigned), v3 or v3.1 writes it."""
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    whole = {
        "timestamp": now,
        "from": agent,
        "type": kind,
        "subject": subject,
        "body": body,
        "refs": [],
        "priority": "normal",
        "correlation_id": parent or now,
        "ack_required": kind in ("proposal", "incident", "request"),
        **members,
    }
    if version == "v2":
        return json.dumps(whole, ensure_ascii=False) + "\n"
    return sign(agent, whole, version=version)[0]


def tell(version, agent, other, kind, subject, body, parent=None, **members):
    """Appends a line to one's file to another agent, as far as there is one; returns it."""
    text = line(version, agent, kind, subject, body, parent, **members)
    append(f"_coordination/{agent}_to_{other}.jsonl", text)
    if kind == "incident":
        append("_coordination/incident_log.jsonl", text)
    return json.loads(text)


def heard(agent, other):
    """What another agent has told this one."""
    with open(f"_coordination/{other}_to_{agent}.jsonl", encoding="utf-8") as f:
        return [json.loads(text) for text in f]


def answer(version, agent, other):
    """Acks everything of another agent that asks for it and has no ack yet."""
    done = set()
    try:
        done = {m["correlation_id"] for m in heard(other, agent) if m["type"] == "ack"}
    except FileNotFoundError:
        pass
    for m in heard(agent, other):
        if m["ack_required"] and m["correlation_id"] not in done:
            tell(version, agent, other, "ack", "Re: " + m["subject"], "agreed", m["correlation_id"])


def append(path, line):
    """What every existing writer of a dead drop does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        data = line.encode()
        written = os.write(fd, data)
        assert written == len(data), f"{written} of {len(data)} bytes written"
        os.fsync(fd)
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def pair_secret(a, b):
    """The pair's secret, from the file that both agents were given."""
    first, second = sorted((a, b))
    with open(f"{os.environ['EXCHANGE']}/private/secrets/{first},{second}.secret", "rb") as f:
        secret = f.read()
    return secret[:-1] if secret.endswith(b"\n") else secret


def payload(sender, receiver, caller="caller", ttl=60, secret=None, now=None, **members):
    """A signed handoff as JSON text."""
    now = now or datetime.now(timezone.utc)
    caller_hash = hashlib.sha256(caller.encode()).hexdigest()[:16]
    handoff = {
        "protocol_version": 1,
        "handoff_id": f"{int(now.timestamp())}-{sender}-{receiver}-{caller_hash}",
        "caller_hash": caller_hash,
        "from_agent": sender,
        "to_agent": receiver,
        "reason": "test",
        "initiated_at": now.isoformat().replace("+00:00", "Z"),
        "expires_at": (now + timedelta(seconds=ttl)).isoformat().replace("+00:00", "Z"),
        "transcript": [{"role": "user", "text": "Grüezi — connect me, please 🎧", "ts": "x"}],
        **members,
    }
    canonical = json.dumps(handoff, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    key = secret if secret is not None else pair_secret(sender, receiver)
    handoff["hmac"] = base64.b64encode(hmac.new(key, canonical.encode(), hashlib.sha256).digest()).decode()
    return json.dumps(handoff, indent=2, ensure_ascii=False)


def next_number(caller_hash, directory="handoff"):
    """The number that a publisher picks by listing the directory; two may pick the same."""
    taken = [n for n in os.listdir(directory) if n.startswith(caller_hash + "-") and n.endswith(".json")]
    return max((int(n[len(caller_hash) + 1:-5]) for n in taken), default=0) + 1


def publish(text, number=None):
    """Publishes a payload; returns the name it got. Keeps the temp file when the name is taken."""
    caller_hash = json.loads(text)["caller_hash"]
    if number is None:
        number = next_number(caller_hash)
    temp, final = f"handoff/.{caller_hash}-{number}.json.tmp", f"{caller_hash}-{number}.json"
    with open(temp, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temp, f"handoff/{final}")
    return final


def publish_until_it_fits(text):
    """Publishes; takes the next number when somebody else was faster."""
    caller_hash = json.loads(text)["caller_hash"]
    number = next_number(caller_hash)
    temp = f"handoff/.{caller_hash}-{os.getpid()}.json.tmp"
    with open(temp, "w", encoding="utf-8") as f:
        f.write(text)
    while True:
        try:
            os.replace(temp, f"handoff/{caller_hash}-{number}.json")
            return f"{caller_hash}-{number}.json"
        except FileExistsError:
            number += 1


def claim(name):
    """True for the one who gets it."""
    try:
        os.rename(f"handoff/{name}", f"claimed/{name}")
        return True
    except FileNotFoundError:
        return False


def complete(name):
    with open(f"claimed/{name}", encoding="utf-8") as f:
        handoff = json.load(f)
    now = int(datetime.now(timezone.utc).timestamp())
    final = f"{now}-{handoff['from_agent']}-{handoff['to_agent']}-{handoff['handoff_id']}.json"
    os.rename(f"claimed/{name}", f"archive/{final}")
    return final


def refused(errno_name, act, *args):
    """Checks that an act fails with this errno; returns the text that an agent would read."""
    import errno
    try:
        act(*args)
    except OSError as e:
        wanted = getattr(errno, errno_name, None)
        assert e.errno == wanted, f"wanted {errno_name}, got {e!r}"
        return e.strerror
    raise AssertionError(f"it should have failed with {errno_name}")


def race_for_claims(names, result):
    """One of several processes that claim whatever they can; writes the names it won to `result`."""
    with open(names, encoding="utf-8") as f:
        names = f.read().split()
    turn = os.getpid() % len(names)
    won = [n for n in names[turn:] + names[:turn] if claim(n)]
    with open(result, "w", encoding="utf-8") as f:
        f.writelines(n + "\n" for n in won)


def append_all(path, lines, acknowledged):
    """Appends a file's lines one by one; notes each in `acknowledged` once it was accepted."""
    with open(lines, encoding="utf-8") as source, open(acknowledged, "a", encoding="utf-8") as notes:
        for line in source:
            try:
                append(path, line)
            except OSError as e:
                print(e, file=sys.stderr)
                return 1
            notes.write(line)
            notes.flush()
    return 0


def broadcast(agent, prefix, count, acknowledged):
    """Tells everyone, unsigned, on a mount that seals; notes what was accepted."""
    with open(acknowledged, "a", encoding="utf-8") as notes:
        for n in range(int(count)):
            body = f"{prefix} {agent} {n}"
            try:
                append(f"outbox/{agent}.jsonl", json.dumps(message(body)))
            except OSError as e:
                print(e, file=sys.stderr)
                return 1
            notes.write(body + "\n")
            notes.flush()
    return 0


if __name__ == "__main__":
    command, *args = sys.argv[1:]
    sys.exit({"race-for-claims": race_for_claims, "append-all": append_all, "broadcast": broadcast}[command](*args))
