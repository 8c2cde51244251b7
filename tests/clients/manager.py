"""A program that manages credential slots, written from the protocol: plain file I/O, and no knowledge of any mount.

    manager.py list | switch SLOT | capture | check | heal | guard ROUNDS

It keeps a copy of each slot in its own folder ($MANAGER_STATE), and works on the profile in the current folder.
"""
import hashlib, json, os, secrets, sys, time

LINK = ".credentials.json"
LOCK = ".oauth_refresh.lock"
SIDECAR = ".fingerprint.json"
STALE_AFTER = 60
# What a program makes beside the link while it writes is no slot.
SCRATCH = {"tmp", "bak", "lock", "new", "swp", "switch"}


def state(name):
    folder = os.environ["MANAGER_STATE"]
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.path.join(folder, name)


def slots():
    found = []
    for name in os.listdir("."):
        rest = name.removeprefix(LINK + ".")
        if rest != name and "." not in rest and rest not in SCRATCH and os.path.isfile(name):
            found.append(rest)
    return sorted(found)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def read_login(path):
    """A credential file's content, once it is whole: others write it in place."""
    deadline = time.monotonic() + 10
    while True:
        content = read(path)
        try:
            json.loads(content)
            return content
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def slot_file(slot):
    return f"{LINK}.{slot}"


def fingerprint(content):
    token = json.loads(content)["claudeAiOauth"]["refreshToken"]
    return hashlib.sha256(token.encode()).hexdigest()


def replace(path, content):
    """Writes a file as a whole: a temp file beside it, renamed over it."""
    temp = f"{path}.tmp.{secrets.token_hex(4)}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.rename(temp, path)
    except OSError:
        os.unlink(temp)
        raise


class RefreshLock:
    """The lock that a refresh takes too: so no slot is looked at while its token changes."""

    def __enter__(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                os.mkdir(LOCK)
                return self
            except FileExistsError:
                try:
                    age = time.time() - os.stat(LOCK).st_mtime
                    if age > STALE_AFTER:
                        os.rmdir(LOCK)
                        continue
                except FileNotFoundError:
                    continue
            if time.monotonic() > deadline:
                raise TimeoutError("the refresh lock is held")
            time.sleep(0.02)

    def touch(self):
        os.utime(LOCK)

    def __exit__(self, *_):
        os.rmdir(LOCK)


def live_slot():
    """The slot that the link selects; None where it is no link, or points elsewhere."""
    try:
        target = os.readlink(LINK)
    except OSError:
        return None
    slot = target.removeprefix(LINK + ".")
    return slot if slot in slots() else None


def sidecar(slot):
    try:
        return json.loads(read(slot_file(slot) + SIDECAR))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def capture(slot):
    """Notes whose login a slot holds, and keeps a copy of it."""
    content = read_login(slot_file(slot))
    record = {
        "refresh_token_sha256": fingerprint(content),
        "captured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "slot": slot,
    }
    replace(slot_file(slot) + SIDECAR, json.dumps(record).encode())
    replace(state(slot), content)
    replace(state("live"), (live_slot() or slot).encode())


def point_link_at(slot):
    temp = f"{LINK}.switch.{os.getpid()}"
    os.symlink(slot_file(slot), temp)
    try:
        os.rename(temp, LINK)
    except OSError:
        os.unlink(temp)
        raise


def switch(slot):
    """Needs the lock."""
    leaving = live_slot()
    if leaving:
        capture(leaving)
    point_link_at(slot)
    capture(slot)


def check():
    """What is wrong: (kind, slot, what)."""
    faults = []
    if live_slot() is None:
        faults.append(("live", None, "the link is no link to a slot"))
    for slot in slots():
        recorded = sidecar(slot)
        if recorded is None:
            faults.append(("uncaptured", slot, "no sidecar"))
        elif recorded["slot"] != slot or recorded["refresh_token_sha256"] != fingerprint(read_login(slot_file(slot))):
            faults.append(("identity", slot, "the sidecar is of another login"))
    return faults


def heal():
    for kind, slot, _ in check():
        if kind == "live":
            point_link_at(read(state("live")).decode())
        elif kind == "uncaptured":
            capture(slot)
        else:
            replace(slot_file(slot), read(state(slot)))


def main(command, *arguments):
    if command == "list":
        for slot in slots():
            print("*" if slot == live_slot() else " ", slot)
    elif command == "switch":
        with RefreshLock():
            switch(*arguments)
    elif command == "capture":
        with RefreshLock():
            for slot in slots():
                capture(slot)
    elif command in ("check", "heal"):
        with RefreshLock():
            if command == "heal":
                heal()
            faults = check()
        for fault in faults:
            print(*fault)
        return 1 if faults else 0
    elif command == "guard":
        # Switches to and fro, and heals what it finds wrong.
        healed = []
        for n in range(int(arguments[0])):
            with RefreshLock() as lock:
                switch(slots()[n % len(slots())])
                lock.touch()
                healed += check()
                heal()
        print("healed", len(healed), *healed)
    else:
        raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
