"""Logins of programs other than Claude, as these programs write them: they know nothing of the mount."""
import base64, json, os, secrets, time


def jwt(**claims):
    part = lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f'{part(json.dumps({"alg": "none"}))}.{part(json.dumps(claims))}.{part("signature")}'


def codex(account, token=None, expires_in=86400, **members):
    """auth.json of Codex."""
    auth = {"chatgpt_user_id": f"user-{account}", "chatgpt_plan_type": "plus"}
    return json.dumps({
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": jwt(sub=f"sub-{account}", **{"https://api.openai.com/auth": auth}),
            "access_token": jwt(exp=int(time.time() + expires_in)),
            "refresh_token": token or f"rt-{account}",
            "account_id": account,
        },
        "last_refresh": "2026-01-01T00:00:00Z",
        **members,
    }, indent=2)


def gemini(account, token=None, expires_in=3600):
    """oauth_creds.json of Gemini."""
    return json.dumps({
        "access_token": f"at-{secrets.token_hex(4)}",
        "refresh_token": token or f"rt-{account}",
        "id_token": jwt(sub=account, email=f"{account}@example.org"),
        "token_type": "Bearer",
        "expiry_date": int((time.time() + expires_in) * 1000),
    }, indent=2)


def gh(user, token=None, host="github.com"):
    """hosts.yml of gh."""
    token = token or f"gho-{user}"
    return (f"{host}:\n    git_protocol: https\n    users:\n        {user}:\n            oauth_token: {token}\n"
            f"    user: {user}\n    oauth_token: {token}\n")


def in_place(text, path, pieces=3):
    """Truncate and write, in several writes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        size = len(text) // pieces + 1
        for start in range(0, len(text), size):
            os.write(fd, text[start:start + size].encode())
    finally:
        os.close(fd)


def replace(text, path):
    """A temp file renamed over it."""
    temp = f".{path}.{secrets.token_hex(4)}.tmp"
    with open(temp, "w") as f:
        f.write(text)
    try:
        os.replace(temp, path)
    except OSError:
        os.unlink(temp)
        raise
