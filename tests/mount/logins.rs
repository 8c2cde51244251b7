//! The programs whose logins the guard keeps, as their makers ship them: Claude Code, Codex, Gemini CLI and gh, with their
//! configuration folder in the mount and their providers' servers on loopback (`tests/clients/providers.py`).
//!
//! `scripts/test` installs them under target/programs.

use crate::common::{CLIENTS, Fixture, Mount, Output, run, wait_until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/programs/node_modules/.bin");

/// The providers' servers; ended on drop.
struct Providers {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl Providers {
    fn new(fixture: &Fixture) -> Self {
        let folder = fixture.scratch().join("providers");
        fs::create_dir(&folder).unwrap();
        let mut server = Command::new("python3")
            .arg(format!("{CLIENTS}/providers.py"))
            .arg(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Providers { server, port: port.trim().parse().expect("the port that it listens on"), folder }
    }
}

impl Drop for Providers {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// An exchange with a profile for each program, mounted as bob.
struct World {
    fixture: Fixture,
    bob: Mount,
    providers: Providers,
}

impl World {
    fn new() -> Self {
        assert!(
            Path::new(PROGRAMS).join("claude").exists(),
            "the programs are not installed in {PROGRAMS}: run scripts/test, which does it"
        );
        let fixture = Fixture::new();
        let others =
            ["codex", "gemini", "gh"].map(|name| format!("\n[credentials.{name}]\nformat = \"{name}\"\n"));
        fixture.reconfigure(|text| text + &others.concat());
        let bob = fixture.mount_as("bob");
        let providers = Providers::new(&fixture);
        World { fixture, bob, providers }
    }

    fn profile(&self, name: &str) -> PathBuf {
        self.bob.at(&format!("credentials/{name}"))
    }

    /// A program as bob would start it, in a working folder of its own.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let home = self.fixture.scratch().join("home");
        fs::create_dir_all(&home).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "120", program]).args(args).current_dir(&home);
        let path = std::env::var("PATH").unwrap();
        let ca = self.providers.folder.join("ca.pem");
        let proxy = format!("http://127.0.0.1:{}", self.providers.port);
        command
            .env_clear()
            .env("PATH", format!("{PROGRAMS}:{path}"))
            .env("HOME", &home)
            .env("LC_ALL", "C.UTF-8");
        command.env("HTTPS_PROXY", &proxy).env("NODE_EXTRA_CA_CERTS", &ca).env("SSL_CERT_FILE", &ca);
        command.env("CLAUDE_CONFIG_DIR", self.profile("claude")).env("DISABLE_AUTOUPDATER", "1");
        command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1").env("CLAUDE_CODE_MAX_RETRIES", "0");
        command.env("CODEX_HOME", self.profile("codex"));
        command.env(
            "CODEX_REFRESH_TOKEN_URL_OVERRIDE",
            format!("http://127.0.0.1:{}/oauth/token", self.providers.port),
        );
        command.env("GH_CONFIG_DIR", self.profile("gh")).env("GH_NO_UPDATE_NOTIFIER", "1");
        command.env("GEMINI_CLI_TRUST_WORKSPACE", "true");
        command
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> Output {
        run(&mut self.command(program, args), input)
    }

    /// Starts a program that would go on with what is not served here, and ends it once it has refreshed its login.
    fn run_until_rotated(&self, command: &mut Command) {
        let before = self.count("credential-rotated");
        let log = fs::File::create(self.fixture.scratch().join("program.log")).unwrap();
        let mut program =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        wait_until("the program refreshes its login", || self.count("credential-rotated") > before);
        crate::common::signal(program.id(), "TERM");
        program.wait().unwrap();
    }

    fn count(&self, event: &str) -> usize {
        self.fixture.events().iter().filter(|e| e["event"] == event).count()
    }

    fn put(&self, file: &str, python: &str) -> PathBuf {
        let path = self.fixture.scratch().join(file);
        let program = format!("import sys, json, time\nsys.argv.append('')\nimport providers\n{python}");
        let text =
            run(&mut self.fixture.client_command("python3", &["-c", &program], &self.fixture.scratch()), "")
                .ok();
        fs::write(&path, text).unwrap();
        path
    }

    #[track_caller]
    fn is_verified(&self) {
        self.fixture.verify();
    }
}

#[test]
fn two_processes_of_claude_code_refresh_one_login_once() {
    let world = World::new();
    let profile = world.profile("claude");
    world.bob.bash("login account-a > credentials/claude/.credentials.json").ok();
    let status = world.run("claude", &["auth", "status"], "").ok();
    assert!(status.contains("\"loggedIn\": true"), "{status}");
    // Due only now: a program that ends while it refreshes leaves its lock, and the others would wait for that to go stale.
    world.bob.bash("login account-a 100 > credentials/claude/.credentials.json").ok();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut command = world.command("claude", &["-p", "hello"]);
            scope.spawn(move || run(&mut command, "").failed_with("only tokens are served here"));
        }
    });
    let requests = fs::read_to_string(world.providers.folder.join("requests")).unwrap();
    let refreshes =
        requests.lines().filter(|line| *line == "POST platform.claude.com /v1/oauth/token").count();
    assert_eq!(refreshes, 1, "{requests}{:?}", world.fixture.refusals());
    assert_eq!(world.count("credential-rotated"), 1);
    assert!(profile.join(".credentials.json").is_symlink(), "the link stays");
    let slot = fs::read_to_string(profile.join(".credentials.json.default")).unwrap();
    assert!(slot.contains("rt-1") && !profile.join(".oauth_refresh.lock").exists(), "{slot}");
    assert!(world.fixture.refusals().is_empty(), "{:?}", world.fixture.refusals());
    world.is_verified();
}

// It takes locks, renames temp files and makes backups in its folder; and it forgets no login that the exchange keeps.
#[test]
fn claude_code_keeps_its_settings_in_the_mount() {
    let world = World::new();
    world.bob.bash("login account-a > credentials/claude/.credentials.json").ok();
    world.run("claude", &["mcp", "add", "tool", "--", "echo", "hi"], "").ok();
    assert!(world.run("claude", &["mcp", "list"], "").ok().contains("tool"));
    assert!(world.fixture.refusals().is_empty(), "{:?}", world.fixture.refusals());
    world.run("claude", &["auth", "logout"], "").ok();
    assert_eq!(world.fixture.last_refusal()["rule"], "identity");
    assert!(world.run("claude", &["auth", "status"], "").ok().contains("\"loggedIn\": true"));
    world.is_verified();
}

#[test]
fn codex_logs_in_once_and_refreshes_as_the_same_account() {
    let world = World::new();
    let auth = world.profile("codex").join("auth.json");
    world.run("codex", &["login", "--with-api-key"], "sk-first-000000000").ok();
    assert!(fs::symlink_metadata(&auth).unwrap().is_file(), "a plain file, as Codex knows it");
    world.run("codex", &["login", "--with-api-key"], "sk-second-00000000").failed();
    assert_eq!(world.fixture.last_refusal()["rule"], "identity");
    assert!(fs::read_to_string(&auth).unwrap().contains("sk-first"));

    let due = world.put(
        "due.json",
        "tokens = providers.codex_login('a', 0, -100)\n\
         print(json.dumps({'auth_mode': 'chatgpt', 'OPENAI_API_KEY': None, 'tokens': {**tokens, 'account_id': 'account-a'}, \
         'last_refresh': '2026-01-01T00:00:00Z'}))",
    );
    world.fixture.baton(&["credentials", "add", "chat", due.to_str().unwrap(), "--profile", "codex"]).ok();
    world.fixture.baton(&["credentials", "switch", "chat", "--profile", "codex", "--even-if-expired"]).ok();
    assert!(world.run("codex", &["login", "status"], "").stderr.contains("ChatGPT"));
    world.run_until_rotated(&mut world.command("codex", &["exec", "--skip-git-repo-check", "hello"]));
    let slot = fs::read_to_string(world.profile("codex").join("auth.json.chat")).unwrap();
    assert!(slot.contains("codex-a-1") && slot == fs::read_to_string(&auth).unwrap(), "{slot}");
    assert!(
        fs::read_to_string(world.profile("codex").join("auth.json.default")).unwrap().contains("sk-first")
    );
    world.is_verified();
}

#[test]
fn gemini_refreshes_in_place() {
    let world = World::new();
    let creds = world.put(
        "creds.json",
        "print(json.dumps({'refresh_token': '1//refresh', 'expiry_date': int(time.time() * 1000) - 1000, \
         **{k: v for k, v in providers.gemini_login('g', 0, 0).items() if k != 'expires_in'}}))",
    );
    let profile = world.profile("gemini");
    fs::copy(creds, profile.join("oauth_creds.json")).unwrap();
    fs::write(profile.join("settings.json"), r#"{"security":{"auth":{"selectedType":"oauth-personal"}}}"#)
        .unwrap();
    let home = world.fixture.scratch().join("home");
    fs::create_dir_all(&home).unwrap();
    std::os::unix::fs::symlink(&profile, home.join(".gemini")).unwrap();
    let before = fs::read(profile.join("oauth_creds.json")).unwrap();
    let mut program = world
        .command("gemini", &["-p", "hello"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it refreshes", || fs::read(profile.join("oauth_creds.json")).unwrap() != before);
    crate::common::signal(program.id(), "TERM");
    program.wait().unwrap();
    let after = fs::read_to_string(profile.join("oauth_creds.json")).unwrap();
    assert!(after.contains("1//refresh") && !after.contains("ya29.g-0\""), "{after}");
    assert!(world.fixture.refusals().is_empty(), "{:?}", world.fixture.refusals());
    world.is_verified();
}

#[test]
fn gh_changes_no_token_of_a_slot() {
    let world = World::new();
    let hosts = world.profile("gh").join("hosts.yml");
    world.run("gh", &["auth", "login", "--with-token"], "ghp_first").ok();
    assert!(fs::read_to_string(&hosts).unwrap().contains("ghp_first"));
    world.run("gh", &["auth", "status"], "").ok();
    world.run("gh", &["auth", "login", "--with-token"], "ghp_second").failed();
    assert_eq!(world.fixture.last_refusal()["rule"], "identity");
    world.run("gh", &["auth", "logout", "--hostname", "github.com"], "").failed();
    assert!(fs::read_to_string(&hosts).unwrap().contains("ghp_first"));
    world.run("gh", &["config", "set", "editor", "vi"], "").ok();
    world.is_verified();
}
