"""Programs that keep a Claude login in credential slots, written from the protocol: they know nothing of the mount."""
import hashlib, json, os, secrets, time

LINK = ".credentials.json"


def login(account, expires_in=86400, **members):
    """A credential file's content."""
    oauth = {
        "accessToken": f"at-{account}",
        "refreshToken": f"rt-{account}",
        "expiresAt": int((time.time() + expires_in) * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
        "rateLimitTier": "default",
        **members,
    }
    return json.dumps({"claudeAiOauth": oauth, "mcpOAuth": {"kept": True}})


STUB = json.dumps({"claudeAiOauth": {"accessToken": "", "refreshToken": "", "expiresAt": 0, "scopes": []}})


def save(text, path=LINK):
    """How the program saves: a temp file renamed over the link, then chmod 600."""
    temp = f"{path}.tmp.{secrets.token_hex(8)}"
    with open(temp, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    try:
        os.rename(temp, path)
    except OSError:
        os.unlink(temp)
        raise
    os.chmod(path, 0o600)


def save_in_place(text, path=LINK, pause=None):
    """How it saves where a rename does not work: truncate and write through the link."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    half = len(text) // 2
    try:
        os.write(fd, text[:half].encode())
        if pause:
            pause()
        os.write(fd, text[half:].encode())
    finally:
        os.close(fd)


def load(path=LINK):
    with open(path, encoding="utf-8") as f:
        return json.load(f)["claudeAiOauth"]


class RefreshLock:
    """The lock a refresh holds: a directory whose mtime is touched."""

    def __init__(self, directory="."):
        self.path = os.path.join(directory, ".oauth_refresh.lock")

    def __enter__(self):
        os.mkdir(self.path)
        self.touch()
        return self

    def touch(self):
        os.utime(self.path)

    def __exit__(self, *_):
        os.rmdir(self.path)


def refresh(generation, writer=save):
    """A refresh as the program does it: under the lock, every one changes the single-use token."""
    old = load()
    with RefreshLock():
        new = login(f"{old['refreshToken'][3:].split('#')[0]}#{generation}")
        writer(new)


def switch(slot):
    """How a slot switcher switches: sidecar of what it leaves, then symlink + rename."""
    current = os.path.basename(os.readlink(LINK))
    token = load()["refreshToken"]
    sidecar = {
        "refresh_token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        "captured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "slot": current.rsplit(".", 1)[1],
    }
    with open(f"{current}.fingerprint.json", "w", encoding="utf-8") as f:
        json.dump(sidecar, f)
    temp = f"{LINK}.switch.{os.getpid()}"
    os.symlink(f"{LINK}.{slot}", temp)
    try:
        os.rename(temp, LINK)
    except OSError:
        os.unlink(temp)
        raise
