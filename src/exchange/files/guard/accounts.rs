//! What the operator's `identity_command` says of logins that do not name their account.

use super::profile::Profile;
use crate::exchange::events::Event;
use crate::exchange::files::Files;
use crate::rules::credential::SlotName;
use crate::wire::credential::{Credential, CredentialFile, check_account};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The evidence that the command is.
const COMMAND: &str = "identity_command";
/// The member of an event that says that its `account` is what the command printed.
const SAID_BY: &str = "account_from";
/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(5);

/// What it said of one slot's login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The first 12 digits of the login's fingerprint: of another login in the slot nothing is known.
    login: String,
    account: String,
}

/// What it said of the slots of one profile.
#[derive(Default)]
pub(in crate::exchange::files) struct Accounts {
    kept: Mutex<BTreeMap<String, Kept>>,
}

fn login_of(credential: &Credential) -> Option<String> {
    credential.fingerprint.as_ref().map(ToString::to_string)
}

impl Accounts {
    /// Adds what the command said of a login to the evidence for its account.
    pub fn add(credential: &mut Credential, account: Option<&str>) {
        if let Some(account) = account {
            credential.accounts.insert(COMMAND.to_owned(), account.to_owned());
        }
    }

    /// A slot's login with what the command said of it when it came.
    pub fn complete(&self, slot: &SlotName, mut credential: Credential) -> Credential {
        let kept = self.kept.lock();
        let kept = kept.get(slot.as_str()).filter(|kept| login_of(&credential).as_ref() == Some(&kept.login));
        Self::add(&mut credential, kept.map(|kept| kept.account.as_str()));
        credential
    }

    /// Notes what the command said of the login that is in a slot now.
    pub fn keep(&self, slot: &SlotName, credential: &Credential) {
        if let (Some(account), Some(login)) = (credential.accounts.get(COMMAND), login_of(credential)) {
            let kept = Kept { login, account: account.clone() };
            self.kept.lock().insert(slot.as_str().to_owned(), kept);
        }
    }

    /// As text, to be kept over a restart.
    fn save(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&*self.kept.lock())?)
    }

    /// Takes in what was kept, and what the events since then tell of.
    pub fn recall(&self, profile: &str, saved: Option<&[u8]>, recent: &[Event]) {
        let mut kept: BTreeMap<String, Kept> = match saved.map(serde_json::from_slice).transpose() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(profile, %error, "what identity_command said of the slots can't be read");
                BTreeMap::new()
            }
        };
        let of_ours =
            |event: &&Event| event.text("profile") == Some(profile) && event.text(SAID_BY) == Some(COMMAND);
        for event in recent.iter().filter(of_ours) {
            if let (Some(slot), Some(login), Some(account)) =
                (event.text("slot"), event.text("fingerprint"), event.text("account"))
            {
                kept.insert(slot.to_owned(), Kept { login: login.to_owned(), account: account.to_owned() });
            }
        }
        *self.kept.lock() = kept;
    }
}

/// Whose login it is, for its event.
pub(super) fn tell(credential: &Credential, fields: &mut serde_json::Map<String, serde_json::Value>) {
    if let Some(account) = credential.account() {
        fields.insert("account".to_owned(), account.into());
    }
    if credential.accounts.contains_key(COMMAND) {
        fields.insert(SAID_BY.to_owned(), COMMAND.into());
    }
}

impl Profile {
    /// Whether only the command can say whose login these bytes are for a slot.
    fn is_to_be_asked(&self, slot: &SlotName, bytes: &[u8]) -> bool {
        let Ok(CredentialFile::Login(new)) = self.config.format.read(bytes) else { return false };
        if !new.accounts.is_empty() {
            return false;
        }
        let held = self.slot_bytes(slot).ok().flatten().and_then(|held| self.slot_login(slot, &held));
        held.is_none_or(|held| held.fingerprint != new.fingerprint || held.accounts.is_empty())
    }
}

impl Files {
    /// Asks the operator's `identity_command` whose login these bytes are, where the file can't say. It may take
    /// seconds: to be called with no lock held. Without an answer the file's own evidence decides.
    pub(in crate::exchange::files) fn ask_account(
        &self,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
    ) -> Option<String> {
        let command = profile.config.identity_command.as_deref()?;
        if !profile.is_to_be_asked(slot, bytes) {
            return None;
        }
        match ask(command, bytes, TIMEOUT) {
            Ok(account) => Some(account),
            Err(why) => {
                let profile = &profile.name;
                tracing::warn!(profile, %slot, why, "identity_command gave no account; the file's evidence decides");
                None
            }
        }
    }

    /// Whether [`Files::ask_account`] would ask.
    pub(in crate::exchange::files) fn must_ask(
        &self,
        profile: &Profile,
        slot: &SlotName,
        bytes: &[u8],
    ) -> bool {
        profile.config.identity_command.is_some() && profile.is_to_be_asked(slot, bytes)
    }

    /// Keeps what the command said over a restart. The events say it too until the next checkpoint.
    pub(in crate::exchange::files) fn keep_accounts(&self, profile: &Profile) {
        let saved = profile.accounts.save();
        let kept = self.office_io().and_then(|office| office.remember(&profile.name, &saved?));
        if let Err(error) = kept {
            tracing::warn!(profile = profile.name, %error, "what identity_command said could not be kept");
        }
    }

    /// Takes in what the command said before this start.
    pub(in crate::exchange::files) fn recall_accounts(&self, recent: &[Event]) -> io::Result<()> {
        let office = self.office_io()?;
        for profile in self.profiles.values().filter(|profile| profile.config.identity_command.is_some()) {
            profile.accounts.recall(&profile.name, office.recall(&profile.name)?.as_deref(), recent);
        }
        Ok(())
    }
}

/// Runs a command with `bytes` on its standard input; the one line that it prints is an account's id.
///
/// # Errors
/// A clause, which holds nothing that the command read or printed.
fn ask(command: &[String], bytes: &[u8], timeout: Duration) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("it is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own, so that nothing that it started outlives it.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("{program} could not be started: {e}"))?;
    let answer = converse(&mut child, bytes, timeout);
    if answer.is_err() {
        end(&mut child);
    }
    answer
}

fn converse(child: &mut Child, bytes: &[u8], timeout: Duration) -> Result<String, String> {
    let deadline = Instant::now() + timeout;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let bytes = Zeroizing::new(bytes.to_vec());
    // Threads, because a program that reads late or prints much would hold us up beyond the deadline.
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&bytes)));
    let (send, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map(|stdout| stdout.take(4096).read_to_end(&mut text));
        let _ = send.send(read.map(|read| read.map(|_| text))); // nobody waits any more after a timeout
    });
    let late = || format!("it took longer than {} s", timeout.as_secs_f32());
    let printed = match printed.recv_timeout(timeout) {
        Ok(Some(Ok(text))) => text,
        Ok(Some(Err(e))) => return Err(format!("what it printed can't be read: {e}")),
        Ok(None) | Err(_) => return Err(late()),
    };
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) => return Err(late()),
            Err(e) => return Err(e.to_string()),
        }
    };
    if !status.success() {
        return Err(format!("it failed ({status})"));
    }
    let line = printed.strip_suffix(b"\n").unwrap_or(&printed);
    let line = std::str::from_utf8(line).map_err(|_| "what it printed is not UTF-8")?.trim();
    match check_account(line) {
        Ok("") => Err("it printed nothing".to_owned()),
        Ok(account) => Ok(account.to_owned()),
        Err(why) => Err(format!("what it printed {why}")),
    }
}

/// Ends a command and whatever it started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL); // it may be gone
    }
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "an identity_command that was ended can't be waited for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String, String> {
        ask(&["/bin/sh".into(), "-c".into(), script.into()], b"the file", Duration::from_millis(500))
    }

    #[test]
    fn the_command_reads_the_file_and_prints_one_account() {
        assert_eq!(shell("read -r text; echo \"$text!\""), Ok("the file!".to_owned()));
        assert_eq!(shell("echo me; exit 0"), Ok("me".to_owned()), "it need not read");
        assert_eq!(shell("cat > /dev/null; printf ' %s ' me"), Ok("me".to_owned()));
        assert_eq!(shell("env | cut -d= -f1 | grep -v PWD | grep -v _ | tr -d '\\n'"), Ok("PATH".to_owned()));
    }

    #[test]
    fn what_is_no_answer_is_told_without_its_words() {
        for (script, why) in [
            ("echo secret; exit 3", "it failed"),
            ("true", "printed nothing"),
            ("printf 'secret\\nsecret\\n'", "one line"),
            ("head -c 300 /dev/zero | tr '\\0' s", "longer than 256"),
            ("yes secret", "it failed"),
            ("printf '\\377'", "not UTF-8"),
            ("sleep 20 & exec sleep 20", "took longer"),
            ("exec > /dev/null; sleep 20", "took longer"),
        ] {
            let told = shell(script).expect_err(script);
            assert!(told.contains(why) && !told.contains("secret"), "{script}: {told}");
        }
        assert!(ask(&["/nowhere/x".into()], b"", TIMEOUT).unwrap_err().contains("could not be started"));
    }

    #[test]
    fn what_it_started_ends_with_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("pid");
        shell(&format!("sleep 30 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display())).unwrap_err();
        let pid = std::fs::read_to_string(file).unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            state.is_err() || state.is_ok_and(|stat| stat.contains(") Z "))
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone() {
            assert!(Instant::now() < deadline, "its child lives on");
            std::thread::sleep(POLL);
        }
    }
}
