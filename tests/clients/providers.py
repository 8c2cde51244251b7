"""What logins come from, on loopback: an HTTPS proxy that answers in place of the providers' servers.

Usage: providers.py FOLDER. Makes a certificate authority in FOLDER (ca.pem) and prints the port it listens on. A refresh
token works once, as the providers have it; every request is told of in FOLDER/requests, one a line. What is asked for beside
tokens is answered with an error: the programs are run for what they do with their logins.
"""
import base64, http.server, json, os, socketserver, ssl, subprocess, sys, threading, time

FOLDER = sys.argv[1]
HOSTS = ["platform.claude.com", "api.anthropic.com", "auth.openai.com", "chatgpt.com", "api.github.com",
         "oauth2.googleapis.com", "www.googleapis.com", "cloudcode-pa.googleapis.com", "play.googleapis.com"]
lock = threading.Lock()
spent = set()


def certificates():
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=FOLDER, check=True, capture_output=True)

    key = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=providers of a test")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=providers")
    with open(f"{FOLDER}/names", "w") as f:
        f.write("subjectAltName=" + ",".join(f"DNS:{host}" for host in HOSTS) + "\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
            "server.pem", "-days", "2", "-extfile", "names")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/server.pem", f"{FOLDER}/server.key")
    return context


def jwt(claims):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


def codex_login(account, number, expires_in):
    """Codex's tokens, with the claims that say whose they are."""
    whose = {"sub": f"sub-{account}", "email": f"{account}@localhost", "exp": int(time.time()) + expires_in,
             "https://api.openai.com/auth": {"chatgpt_account_id": f"account-{account}", "chatgpt_user_id": f"user-{account}",
                                             "chatgpt_plan_type": "plus"}}
    return {"id_token": jwt(whose), "access_token": jwt(whose), "refresh_token": f"codex-{account}-{number}"}


def gemini_login(account, number, expires_in):
    return {"access_token": f"ya29.{account}-{number}", "id_token": jwt({"sub": f"sub-{account}", "email": f"{account}@localhost"}),
            "expires_in": expires_in, "scope": "openid", "token_type": "Bearer"}


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    context = None

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
        except (OSError, ssl.SSLError):
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self):
        self.note("GET")
        if self.host() == "api.github.com" and self.path == "/":
            return self.answer(200, {}, {"X-Oauth-Scopes": "repo, read:org, gist"})
        self.answer(500, {"error": {"type": "api_error", "message": "only tokens are served here"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.note("POST")
        if self.host() == "api.github.com" and self.path == "/graphql":
            return self.answer(200, {"data": {"viewer": {"login": "mona"}}})
        if self.host() == "oauth2.googleapis.com" and self.path.startswith("/token") and b"refresh_token" in body:
            # Google's refresh tokens stay as they are.
            return self.answer(200, gemini_login("g", 1, 3600))
        if self.path.endswith("/oauth/token"):
            return self.refresh(json.loads(body)["refresh_token"])
        self.answer(500, {"error": {"type": "api_error", "message": "only tokens are served here"}})

    def refresh(self, token):
        with lock:
            if token in spent:
                return self.answer(400, {"error": "invalid_grant", "error_description": "the refresh token was used"})
            spent.add(token)
            number = len(spent)
        if token.startswith("codex-"):
            return self.answer(200, codex_login(token.split("-")[1], number, 3600))
        self.answer(200, {"access_token": f"at-{number}", "refresh_token": f"rt-{number}", "expires_in": 28800,
                          "token_type": "Bearer", "scope": "user:inference user:profile"})

    def host(self):
        return self.headers.get("host", "").split(":")[0]

    def note(self, method):
        with lock, open(f"{FOLDER}/requests", "a") as f:
            f.write(f"{method} {self.host()} {self.path}\n")

    def answer(self, code, body, headers={}):
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a program that hangs up


if __name__ == "__main__":
    Provider.context = certificates()
    open(f"{FOLDER}/requests", "w").close()
    server = Server(("127.0.0.1", 0), Provider)
    print(server.server_address[1], flush=True)
    server.serve_forever()
