//! The guard as the programs that keep logins meet it: every way to save a file, on the formats that agents see as a
//! link (Claude) and as a plain file (Codex, Gemini, gh), while somebody reads all the time.

use crate::common::{Fixture, Mount, Output, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A profile of one format, mounted as bob, with a login of the account `me` in its slot `default`.
struct Profile {
    fixture: Fixture,
    bob: Mount,
    name: &'static str,
    live: &'static str,
}

const OTHER_FORMATS: &str = "[credentials.codex]\nformat = \"codex\"\n[credentials.gemini]\nformat = \"gemini\"\n\
                             [credentials.gh]\nformat = \"gh\"\n";

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The same in all of a test, so that a login made twice is one text.
fn in_a_day() -> u64 {
    static START: std::sync::LazyLock<SystemTime> = std::sync::LazyLock::new(SystemTime::now);
    START.duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400
}

/// A login in a format: its account, its token, and a text that means nothing to the guard.
fn login(format: &str, account: &str, token: &str, mark: &str) -> String {
    let text = match format {
        "claude" => json!({"claudeAiOauth": {
            "accessToken": format!("at-{account}"), "refreshToken": token, "expiresAt": in_a_day() * 1000,
            "scopes": ["user:inference"], "subscriptionType": "max"}, "mark": mark}),
        "codex" => json!({"OPENAI_API_KEY": null, "mark": mark, "tokens": {
            "id_token": jwt(&json!({"sub": format!("sub-{account}")})), "refresh_token": token, "account_id": account,
            "access_token": jwt(&json!({"exp": in_a_day()}))}}),
        "gemini" => json!({"access_token": "at", "refresh_token": token, "expiry_date": in_a_day() * 1000,
            "id_token": jwt(&json!({"sub": account})), "mark": mark}),
        _ => {
            return format!(
                "github.com:\n    user: {account}\n    oauth_token: {token}\n    git_protocol: https\n\
                 ghe.example.org:\n    user: {account}\n    oauth_token: {token}\n    editor: mark-{mark}\n"
            );
        }
    };
    format!("{text:#}\n")
}

impl Profile {
    fn new(name: &'static str) -> Self {
        Self::with(name, OTHER_FORMATS)
    }

    /// With more in exchange.toml.
    fn with(name: &'static str, toml: &str) -> Self {
        let fixture = Fixture::new();
        fixture.configure(toml);
        let bob = fixture.mount_as("bob");
        let live = match name {
            "claude" => ".credentials.json",
            "codex" => "auth.json",
            "gemini" => "oauth_creds.json",
            _ => "hosts.yml",
        };
        let profile = Profile { fixture, bob, name, live };
        fs::write(profile.at(live), profile.login("me", "one", "0")).unwrap();
        profile
    }

    fn login(&self, account: &str, token: &str, mark: &str) -> String {
        login(self.name, account, token, mark)
    }
    fn at(&self, file: &str) -> PathBuf {
        self.bob.at(&format!("credentials/{}/{file}", self.name))
    }
    fn on_disk(&self, file: &str) -> PathBuf {
        self.fixture.dir().join(format!("credentials/{}/{file}", self.name))
    }
    fn slot(&self, slot: &str) -> PathBuf {
        self.at(&format!("{}.{slot}", self.live))
    }
    #[track_caller]
    fn content(&self) -> String {
        fs::read_to_string(self.at(self.live)).unwrap()
    }
    #[track_caller]
    fn selected(&self) -> String {
        let target = fs::read_link(self.on_disk(self.live)).expect("on disk it is a link");
        target.to_str().unwrap().rsplit('.').next().unwrap().to_owned()
    }
    /// Runs a bash script in the profile; $LIVE is the live file, $NEW one that holds `new`.
    fn bash(&self, script: &str, new: &str) -> Output {
        let file = self.fixture.scratch().join("new login");
        fs::write(&file, new).unwrap();
        let live = self.live;
        self.bob.bash(&format!(
            "cd credentials/{}; LIVE={live} NEW='{}'\n{script}",
            self.name,
            file.display()
        ))
    }
    /// Runs a Python program in the profile; `live` is the live file's name, `new` a text.
    fn python(&self, program: &str, new: &str) -> Output {
        self.bob.python(&self.program(program, new))
    }
    fn program(&self, program: &str, new: &str) -> String {
        let (name, live) = (self.name, self.live);
        format!(
            "import mmap, os, signal, sys, tempfile\nos.chdir('credentials/{name}')\nlive, new = '{live}', {}\n{program}",
            json!(new)
        )
    }
    #[track_caller]
    fn refuses(&self, program: &str, new: &str, rule: &str) -> Value {
        self.python(program, new).failed_with("Operation not permitted");
        let refusal = self.fixture.last_refusal();
        assert_eq!(refusal["rule"], rule, "{refusal:#}");
        refusal
    }

    /// Reads the live file all the time while `act` runs; whatever is read must be one of the texts that `act` says
    /// are whole.
    #[track_caller]
    fn watched(&self, whole: &dyn Fn(&str) -> bool, act: impl FnOnce()) {
        let (done, path) = (AtomicBool::new(false), self.at(self.live));
        let texts = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut texts = vec![fs::read_to_string(&path).unwrap()];
                while !done.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(&path).expect("there is always a login");
                    if texts.last() != Some(&text) {
                        texts.push(text);
                    }
                }
                texts
            });
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            done.store(true, Ordering::Relaxed);
            let texts = reader.join().unwrap();
            acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            texts
        });
        for text in texts {
            assert!(whole(&text), "somebody read {text:?}");
        }
    }
}

/// Ways to save a file that must leave the new content. Those in the second column edit what is there: they turn the
/// mark `old` into `new`.
const SAVES: &[(&str, &str)] = &[
    ("cp", "cp \"$NEW\" $LIVE"),
    ("cat", "cat \"$NEW\" > $LIVE"),
    ("tee", "tee $LIVE < \"$NEW\" > /dev/null"),
    ("dd", "dd if=\"$NEW\" of=$LIVE bs=64 status=none"),
    ("mv", "cp \"$NEW\" n && mv n $LIVE"),
    ("mv -f of a temp file with a further dot", "cp \"$NEW\" $LIVE.tmp.1f && mv -f $LIVE.tmp.1f $LIVE"),
    ("ln -f", "cp \"$NEW\" n && ln -f n $LIVE"),
    ("sed -i", "sed -i 's/mark-old/mark-new/' $LIVE"),
    ("ed", "printf '%s\\n' ',s/mark-old/mark-new/' w q | ed -s $LIVE"),
    ("vi", "vi -u NONE -N -es -c '%s/mark-old/mark-new/' -c wq $LIVE < /dev/null"),
    (
        "vi with a backup by rename",
        "vi -u NONE -N -es -c 'set backupcopy=no' -c '%s/mark-old/mark-new/' -c wq $LIVE < /dev/null",
    ),
    (
        "vi with a backup by copy",
        "vi -u NONE -N -es -c 'set backup backupcopy=yes backupdir=.' -c '%s/mark-old/mark-new/' -c wq $LIVE < /dev/null",
    ),
    (
        "node writeFileSync",
        "node -e 'fs=require(\"fs\"); fs.writeFileSync(process.argv[1], fs.readFileSync(process.argv[2]), {mode: 0o600})' $LIVE \"$NEW\"",
    ),
    (
        "node rename",
        "node -e 'fs=require(\"fs\"); fs.copyFileSync(process.argv[2], \"t\"); fs.renameSync(\"t\", process.argv[1])' $LIVE \"$NEW\"",
    ),
];

/// The same, in Python.
const PYTHON_SAVES: &[(&str, &str)] = &[
    (
        "tempfile and os.replace",
        "t = tempfile.NamedTemporaryFile('w', dir='.', delete=False)\nt.write(new); t.close()\nos.replace(t.name, live)",
    ),
    ("open w", "with open(live, 'w') as f: f.write(new)"),
    (
        "truncate, then write in pieces",
        "f = open(live, 'r+b', buffering=0)\nf.truncate(0)\nfor c in new.encode(): f.write(bytes([c]))",
    ),
    (
        "write over it, then cut (rsync --inplace)",
        "fd = os.open(live, os.O_RDWR)\nos.write(fd, new.encode())\nos.ftruncate(fd, len(new))\nos.close(fd)",
    ),
    (
        "pwrite backwards",
        "fd = os.open(live, os.O_WRONLY | os.O_TRUNC)\nb = new.encode()\nfor i in reversed(range(0, len(b), 50)): os.pwrite(fd, b[i:i+50], i)\nos.close(fd)",
    ),
    (
        "append to an emptied file",
        "fd = os.open(live, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)\nb = new.encode()\nfor i in range(0, len(b), 40): os.write(fd, b[i:i+40])\nos.close(fd)",
    ),
];

/// Ways that begin by removing or renaming the live file, which nobody may: the old content stays.
const REFUSED_SAVES: &[&str] = &[
    "install -m 600 \"$NEW\" $LIVE",
    "cp --remove-destination \"$NEW\" $LIVE",
    "rm -f $LIVE && cp \"$NEW\" $LIVE",
    "mv $LIVE $LIVE~ && cp \"$NEW\" $LIVE",
];

fn every_way_to_save(format: &'static str) {
    let profile = Profile::new(format);
    let text = |mark: &str| profile.login("me", "one", mark);
    let (old, new) = (text("mark-old"), text("mark-new"));
    // The object is whole before the line's end behind it has come.
    let is_whole = |text: &str| [old.trim_end(), new.trim_end()].contains(&text.trim_end());
    profile.python("with open(live, 'w') as f: f.write(new)", &old).ok();
    for (what, script) in SAVES {
        profile.watched(&is_whole, || drop(profile.bash(script, &new).ok()));
        assert_eq!(profile.content(), new, "{what}");
        profile.watched(&is_whole, || fs::write(profile.at(profile.live), &old).unwrap());
    }
    for (what, program) in PYTHON_SAVES {
        profile.watched(&is_whole, || drop(profile.python(program, &new).ok()));
        assert_eq!(profile.content(), new, "{what}");
        fs::write(profile.at(profile.live), &old).unwrap();
    }
    for script in REFUSED_SAVES {
        profile.watched(&|text| *text == old, || profile.bash(script, &new).failed_with(""));
        assert_eq!(profile.content(), old, "{script}");
    }
    assert_eq!(profile.selected(), "default");
    let mode =
        fs::metadata(profile.on_disk(&format!("{}.default", profile.live))).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    profile.fixture.verify();
}

#[test]
fn every_way_to_save_leaves_the_old_login_or_the_new_one_through_a_link() {
    every_way_to_save("claude");
}

#[test]
fn every_way_to_save_leaves_the_old_login_or_the_new_one_of_a_plain_file() {
    every_way_to_save("codex");
}

#[test]
fn a_plain_live_file_is_a_file_to_agents_and_a_link_on_disk() {
    let profile = Profile::new("codex");
    let seen = fs::symlink_metadata(profile.at("auth.json")).unwrap();
    assert!(seen.file_type().is_file() && seen.permissions().mode() & 0o7777 == 0o600);
    let listed = fs::read_dir(profile.at("")).unwrap().map(|entry| entry.unwrap());
    let kinds: Vec<_> = listed.map(|entry| entry.file_type().unwrap().is_file()).collect();
    assert_eq!(kinds, [true, true, true], "the live file, its slot and its sidecar");
    assert_eq!(profile.selected(), "default");
    fs::read_link(profile.at("auth.json")).unwrap_err();
}

#[test]
fn identity_of_a_codex_login_is_its_account_whatever_its_token() {
    let profile = Profile::new("codex");
    for (n, program) in [
        "with open(live, 'w') as f: f.write(new)",
        "with open('t', 'w') as f: f.write(new)\nos.replace('t', live)",
    ]
    .iter()
    .enumerate()
    {
        let refreshed = profile.login("me", &format!("refreshed-{n}"), "");
        profile.python(program, &refreshed).ok();
        assert_eq!(profile.content(), refreshed);
        let refusal = profile.refuses(program, &profile.login("you", "two", ""), "identity");
        let advice = refusal["advice"].as_str().unwrap();
        assert!(advice.contains("account me, sub-me; these bytes hold account you, sub-you"), "{advice}");
        assert!(advice.contains("baton credentials adopt default --profile codex"), "{advice}");
        profile.refuses(program, "{\"OPENAI_API_KEY\": null, \"tokens\": null}\n", "identity");
        profile.refuses(program, "{\"OPENAI_API_KEY\": \"sk-1\", \"tokens\": null}\n", "identity");
        assert_eq!(profile.content(), refreshed);
    }
    let events: Vec<_> = profile.fixture.events().into_iter().filter(|e| e["profile"] == "codex").collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["credential-captured", "credential-rotated", "credential-rotated"]);
    assert_eq!(events[0]["account"], "me, sub-me");
    assert!(!format!("{events:?}").contains("refreshed-"), "no token in an event");
}

#[test]
fn a_login_of_another_slot_is_told_which_slot_that_is() {
    for format in ["claude", "codex"] {
        let profile = Profile::new(format);
        let yours = profile.login("you", "two", "");
        fs::write(profile.slot("work"), &yours).unwrap();
        let refusal = profile.refuses("with open(live, 'w') as f: f.write(new)", &yours, "identity");
        let advice = refusal["advice"].as_str().unwrap();
        assert!(advice.contains(&format!("ln -sfn {0}.work {0}", profile.live)), "{advice}");
        assert!(advice.contains(&format!("baton credentials switch work --profile {format}")), "{advice}");
    }
}

#[test]
fn a_plain_live_file_is_switched_by_a_link_put_in_its_place() {
    let profile = Profile::new("codex");
    let (mine, yours) = (profile.content(), profile.login("you", "two", ""));
    fs::write(profile.slot("work"), &yours).unwrap();
    let whole = |text: &str| *text == mine || *text == yours;
    for (script, content) in [
        ("ln -sfn auth.json.work auth.json", &yours),
        ("ln -s auth.json.default t && mv -T t auth.json", &mine),
        ("ln -sf ./auth.json.work auth.json", &yours),
        ("baton credentials switch --profile codex default", &mine),
    ] {
        profile.watched(&whole, || drop(profile.bash(script, "").ok()));
        assert_eq!(&profile.content(), content, "{script}");
        assert!(fs::symlink_metadata(profile.at("auth.json")).unwrap().is_file());
    }
    for target in ["/etc/passwd", "../gh/hosts.yml.default", "elsewhere"] {
        profile.bash(&format!("ln -sfn {target} auth.json"), "").failed_with("Operation not permitted");
    }
    profile.bash("ln -sfn auth.json.none auth.json", "").failed_with("Key has expired");
    assert_eq!((profile.selected().as_str(), profile.content()), ("default", mine));
    profile.fixture.verify();
}

#[test]
fn a_login_that_lay_there_before_the_guard_is_taken_in() {
    let fixture = Fixture::new();
    fixture.configure(OTHER_FORMATS);
    let folder = fixture.dir().join("credentials/codex");
    fs::create_dir(&folder).unwrap();
    let text = login("codex", "me", "one", "");
    fs::write(folder.join("auth.json"), &text).unwrap();
    let bob = fixture.mount_as("bob");
    assert_eq!(bob.read("credentials/codex/auth.json"), text);
    let names = bob.names("credentials/codex");
    assert_eq!(names, ["auth.json", "auth.json.default", "auth.json.default.fingerprint.json"]);
    assert!(fs::symlink_metadata(folder.join("auth.json")).unwrap().is_symlink());
}

#[test]
fn what_is_open_across_a_switch_stays_with_its_slot() {
    for format in ["claude", "codex"] {
        let profile = Profile::new(format);
        let (mine, yours) = (profile.content(), profile.login("you", "two", ""));
        fs::write(profile.slot("work"), &yours).unwrap();
        let mut reader = fs::File::open(profile.at(profile.live)).unwrap();
        let mut writer =
            fs::File::options().write(true).truncate(true).open(profile.at(profile.live)).unwrap();
        let written = profile.login("me", "one", "written across the switch");
        let (first, rest) = written.split_at(written.len() / 2);
        writer.write_all(first.as_bytes()).unwrap();
        // Its shell begins as a child that closes our descriptors in execve(2), which must not hold up anything.
        profile.bash(&format!("ln -sfn {0}.work {0}", profile.live), "").ok();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, mine);
        assert_eq!(reader.metadata().unwrap().len() as usize, mine.len());
        reader.rewind().unwrap();
        writer.write_all(rest.as_bytes()).unwrap();
        drop(writer);
        assert_eq!(fs::read_to_string(profile.slot("default")).unwrap(), written);
        assert_eq!(profile.content(), yours, "{format}");
    }
}

#[test]
fn two_processes_that_refresh_at_once_leave_one_whole_login_of_the_account() {
    for format in ["claude", "codex"] {
        let profile = Profile::new(format);
        // Claude's take their lock; Codex's just write.
        let program = "
import json, time
for n in range(40):
    while True:
        try: os.mkdir('.oauth_refresh.lock'); break
        except FileExistsError: time.sleep(0.001)
    text = new.replace('TOKEN', f'{sys.argv[1]}-{n}')
    if n % 2:
        fd = os.open(live, os.O_WRONLY | os.O_TRUNC)
        for i in range(0, len(text), 97): os.write(fd, text[i:i+97].encode())
        os.close(fd)
    else:
        open(f't-{sys.argv[1]}', 'w').write(text)
        os.replace(f't-{sys.argv[1]}', live)
    os.rmdir('.oauth_refresh.lock')
";
        let program = match format {
            "claude" => program.to_owned(),
            _ => program
                .replace("os.mkdir('.oauth_refresh.lock')", "pass")
                .replace("os.rmdir('.oauth_refresh.lock')", "pass"),
        };
        let program = profile.program(&program, &profile.login("me", "TOKEN", ""));
        let whole = |text: &str| serde_json::from_str::<Value>(text).is_ok();
        profile.watched(&whole, || {
            let start = |who| {
                profile.bob.command("python3", &["-c", &program, who]).stderr(Stdio::piped()).spawn().unwrap()
            };
            let children = ["left", "right"].map(start);
            for child in children {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
            }
        });
        assert!(
            profile.content().contains("-39\""),
            "the last refresh of one of them: {}",
            profile.content()
        );
        assert!(profile.fixture.refusals().is_empty());
        profile.fixture.verify();
    }
}

#[test]
fn a_writer_that_is_killed_half_way_changes_nothing() {
    for format in ["claude", "codex", "gh"] {
        let profile = Profile::new(format);
        let before = profile.content();
        let new = profile.login("me", "one", "new");
        // What gh's writer gets out is a whole login by itself: only its end shows that it is not the file.
        let part = if format == "gh" { new.find("ghe.").unwrap() } else { new.len() / 2 };
        for flags in ["os.O_TRUNC", "os.O_RDWR"] {
            let kill = format!(
                "fd = os.open(live, os.O_WRONLY | {flags})\nos.write(fd, new[:{part}].encode())\n\
                 os.kill(os.getpid(), signal.SIGKILL)"
            );
            let kill = if flags == "os.O_RDWR" {
                kill.replace("os.O_WRONLY | os.O_RDWR", "os.O_RDWR")
                    .replace("os.write", "os.ftruncate(fd, 0); os.write")
            } else {
                kill
            };
            let refused = profile.fixture.refusals().len();
            profile.python(&kill, &new).failed_with("");
            wait_until("the kernel has closed it", || profile.fixture.refusals().len() > refused);
            let refusal = profile.fixture.last_refusal();
            assert_eq!((&refusal["rule"], &refusal["operation"]), (&json!("partial"), &json!("close")));
            assert_eq!(profile.content(), before, "{format} {flags}");
        }
        // One that ends without closing has said all that it had to say.
        profile
            .python("os.write(os.open(live, os.O_WRONLY | os.O_TRUNC), new.encode())\nos._exit(0)", &new)
            .ok();
        wait_until("the kernel has closed it", || profile.content() == new);
    }
}

#[test]
fn a_yaml_login_is_judged_when_its_writer_closes_it() {
    let profile = Profile::new("gh");
    let before = profile.content();
    let new = profile.login("me", "two", "new");
    let mut writer = fs::File::options().write(true).truncate(true).open(profile.at("hosts.yml")).unwrap();
    for line in new.split_inclusive('\n') {
        writer.write_all(line.as_bytes()).unwrap();
        assert_eq!(profile.content(), before, "it could go on after any line");
    }
    drop(writer);
    assert_eq!(profile.content(), new);
    let other = profile.login("you", "three", "new");
    profile.refuses("with open(live, 'w') as f: f.write(new)", &other, "identity");
    profile.refuses("with open('t', 'w') as f: f.write(new)\nos.replace('t', live)", &other, "identity");
    for torn in [new.trim_end(), "github.com:\n    user: 'me\n", "a: 1\na: 2\n", "- x\n"] {
        profile.python("with open(live, 'w') as f: f.write(new)", torn).failed_with("Bad message");
        assert_eq!(profile.fixture.last_refusal()["rule"], "partial");
    }
    assert_eq!(profile.content(), new);
}

#[test]
fn gh_itself_keeps_its_login_in_the_mount() {
    let profile = Profile::new("gh");
    profile.bash("GH_CONFIG_DIR=$PWD gh config set -h github.com git_protocol ssh", "").ok();
    let content = profile.content();
    assert!(content.contains("git_protocol: ssh") && content.contains("oauth_token: one"), "{content}");
    assert_eq!(profile.bash("GH_CONFIG_DIR=$PWD gh auth token -h github.com", "").ok().trim(), "one");
}

#[test]
fn no_hard_link_and_no_shared_mapping_leads_round_the_guard() {
    for format in ["claude", "codex"] {
        let profile = Profile::new(format);
        let before = profile.content();
        for script in
            ["ln -L $LIVE hard", "ln $LIVE.default hard", "ln \"$NEW\" x || cp \"$NEW\" x; ln x $LIVE.other"]
        {
            profile.bash(script, &profile.login("you", "two", "")).failed_with("");
        }
        // A temp file that is mapped and linked elsewhere is not what becomes the slot.
        profile
            .python(
                "with open('t', 'w') as f: f.write(new)\nos.link('t', 'kept')\n\
                 fd = os.open('t', os.O_RDWR); m = mmap.mmap(fd, 0)\n\
                 os.replace('t', live)\n\
                 m[:] = b'x' * len(m); m.flush(); os.pwrite(fd, b'y', 0)\n\
                 open('kept', 'w').write('z')",
                &profile.login("me", "one", "renamed"),
            )
            .ok();
        assert_eq!(profile.content(), profile.login("me", "one", "renamed"));
        profile
            .python(
                "fd = os.open(live, os.O_RDWR)\n\
                 try: mmap.mmap(fd, 0)\n\
                 except OSError: pass\n\
                 else: sys.exit('mapped')\n\
                 m = mmap.mmap(os.open(live, os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)\n\
                 assert b'renamed' in m[:]",
                "",
            )
            .ok();
        assert_ne!(profile.content(), before);
        profile.fixture.verify();
    }
}

#[test]
fn stale_slot_an_expired_gemini_slot_is_not_switched_to_and_one_of_gh_never_expires() {
    let profile = Profile::new("gemini");
    let expired = profile.login("you", "two", "").replace(&(in_a_day() * 1000).to_string()[..6], "170000");
    fs::write(profile.slot("work"), expired).unwrap();
    profile.bash("ln -sfn $LIVE.work $LIVE", "").failed_with("Key has expired");
    assert_eq!(profile.selected(), "default");
    let profile = Profile::new("gh");
    fs::write(profile.slot("work"), profile.login("you", "two", "x")).unwrap();
    profile.bash("ln -sfn $LIVE.work $LIVE", "").ok();
}

#[test]
fn a_format_of_ones_own_is_guarded_like_any_other() {
    let fixture = Fixture::new();
    fixture.configure(
        "[credentials.mine]\nfile = \"token.json\"\nlive = \"link\"\naccount = \"/user/*/id\"\ntoken = \"/secret\"\n\
         unchanging = [\"/scopes\"]\nlock = \".lock\"\n",
    );
    let bob = fixture.mount_as("bob");
    let text =
        |id: &str, token: &str| format!("{{\"user\":{{\"x\":{{\"id\":{id}}}}},\"secret\":\"{token}\"}}");
    let write = |text: &str| bob.bash(&format!("printf %s '{text}' > credentials/mine/token.json"));
    write(&text("1", "a")).ok();
    assert!(fs::symlink_metadata(bob.at("credentials/mine/token.json")).unwrap().is_symlink());
    write(&text("1", "b")).ok();
    write(&text("2", "b")).failed_with("Operation not permitted");
    assert_eq!(bob.read("credentials/mine/token.json"), text("1", "b"));
    fixture.verify();
}

/// What an operator's program might be: it takes a login for its access token's account.
const WHOSE: &str = "#!/bin/sh\nprintf asked >> \"$(dirname \"$0\")/asked\"\n[ -e \"$(dirname \"$0\")/broken\" ] && exit 1\n\
                     [ -e \"$(dirname \"$0\")/slow\" ] && sleep 60\nsed -n 's/.*\"accessToken\": \"at-\\([^\"]*\\)\".*/\\1/p'\n";

#[test]
fn an_identity_command_settles_what_the_file_cannot() {
    let fixture = Fixture::new();
    let whose = fixture.scratch().join("whose");
    fs::write(&whose, WHOSE).unwrap();
    fs::set_permissions(&whose, fs::Permissions::from_mode(0o755)).unwrap();
    fixture.reconfigure(|toml| {
        let line = format!("identity = \"rotating\"\nidentity_command = [{:?}]", whose.to_str().unwrap());
        toml.replacen("identity = \"rotating\"", &line, 1)
    });
    let bob = fixture.mount_as("bob");
    let live = ".credentials.json";
    let mut profile = Profile { fixture, bob, name: "claude", live };
    let write = "with open(live, 'w') as f: f.write(new)";
    let asked =
        || fs::read_to_string(whose.with_file_name("asked")).unwrap_or_default().len() / "asked".len();

    profile.python(write, &profile.login("me", "one", "")).ok();
    profile.python(write, &profile.login("me", "one", "again")).ok();
    assert_eq!(asked(), 1, "the same token needs no answer");
    // The same account without lock and not due; another one even under the lock.
    profile.python(write, &profile.login("me", "two", "")).ok();
    let locked = "os.mkdir('.oauth_refresh.lock')\ntry:\n    with open(live, 'w') as f: f.write(new)\nfinally: os.rmdir('.oauth_refresh.lock')";
    let refusal = profile.refuses(locked, &profile.login("you", "three", ""), "identity");
    assert!(
        refusal["advice"].as_str().unwrap().contains("holds account me; these bytes hold account you"),
        "{refusal:#}"
    );
    let replace = "with open('t', 'w') as f: f.write(new)\nos.replace('t', live)";
    profile.refuses(
        &locked.replace("with open(live, 'w') as f: f.write(new)", &replace.replace('\n', "\n    ")),
        &profile.login("you", "three", ""),
        "identity",
    );

    // A restart, also after a crash, knows whose the slots are.
    profile.fixture.kill_daemon();
    let mountpoint = profile.bob.take_dead();
    profile.bob = profile.fixture.mount_at(mountpoint, &["--as", "bob"]);
    profile.python(write, &profile.login("me", "four", "")).ok();
    let last = profile.fixture.events().into_iter().rfind(|event| event["profile"] == "claude").unwrap();
    assert_eq!((&last["event"], &last["account"]), (&json!("credential-rotated"), &json!("me")));

    // Without an answer the file's evidence decides.
    for trouble in ["broken", "slow"] {
        let file = whose.with_file_name(trouble);
        fs::write(&file, "").unwrap();
        profile.refuses(write, &profile.login("me", trouble, ""), "identity");
        profile.python(locked, &profile.login("me", &format!("{trouble}-2"), "")).ok();
        fs::remove_file(&file).unwrap();
    }
    let log = fs::read_to_string(profile.fixture.dir().join("private/daemon.log")).unwrap_or_default();
    assert!(!log.contains("at-me") && !log.contains("broken-2"), "{log}");
    profile.fixture.verify();
}
