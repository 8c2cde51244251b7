//! Which writes keep a credential slot's account, which names are guarded, and when a slot is fresh.
//! The evidence and its limits: PROTOCOLS section 5.

use super::{Refusal, Rule};
use crate::wire::credential::{Credential, CredentialFile, Format};
use crate::wire::time::Timestamp;
use std::fmt;

/// The file in a profile's top that tells of a refused login.
pub const NOTICE: &str = "LOGIN-REFUSED.txt";

/// Stands in a refusal for the id that its bytes get in quarantine.
pub const KEPT_AS: &str = "<id>";

/// How the names of a half-made slot or link begin: the exchange's own, never shown.
pub const HALF_MADE: &str = ".baton-half-made.";

/// Seconds after its last touch at which a refresh lock no longer counts.
pub const REFRESH_LOCK_SECONDS: i64 = 60;

/// Seconds before `expiresAt` from which a token is due for a refresh, and too old to switch to.
pub const GRACE_SECONDS: i64 = 300;

/// Most bytes a credential may have.
pub const MAX_CREDENTIAL_BYTES: usize = 1 << 20;

// Suffixes that editors and writers use for their own scratch files beside the link.
const NO_SLOTS: [&str; 5] = ["tmp", "bak", "lock", "new", "swp"];

/// A slot's name: `[A-Za-z0-9][A-Za-z0-9@_+-]*`, and not `tmp`, `bak`, `lock`, `new` or `swp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName(String);

impl SlotName {
    /// Reads a slot's name; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let first_ok = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'@' | b'_' | b'+' | b'-'));
        (first_ok && rest_ok && !NO_SLOTS.contains(&text)).then(|| SlotName(text.to_owned()))
    }
    /// The slot that a profile's first login becomes.
    pub fn first() -> Self {
        SlotName("default".to_owned())
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in a profile's top directory that is not an ordinary file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardedName {
    /// The live file: a link or a file, as the format has it.
    Live,
    /// `<live>.<slot>`
    Slot(SlotName),
    /// `<live>.<slot>.fingerprint.json`: which login the slot holds, for programs that manage slots.
    Sidecar(SlotName),
    /// [`NOTICE`]
    Notice,
}

const SIDECAR: &str = ".fingerprint.json";

impl Format {
    /// A slot's file: `<live>.<slot>`.
    pub fn slot_file(&self, slot: &SlotName) -> String {
        format!("{}.{slot}", self.live)
    }
    /// A slot's sidecar: `<live>.<slot>.fingerprint.json`.
    pub fn sidecar_file(&self, slot: &SlotName) -> String {
        format!("{}.{slot}{SIDECAR}", self.live)
    }
    /// The command that selects a slot from a shell.
    pub fn switch_command(&self, slot: &str) -> String {
        format!("ln -sfn {0}.{slot} {0}", self.live)
    }
}

impl GuardedName {
    /// What a file name is in a profile of this format, if it is guarded. Temp files have a further dot, so
    /// they are not.
    pub fn of(format: &Format, file_name: &[u8]) -> Option<Self> {
        if file_name == NOTICE.as_bytes() {
            return Some(GuardedName::Notice);
        }
        let rest = file_name.strip_prefix(format.live.as_bytes())?;
        if rest.is_empty() {
            return Some(GuardedName::Live);
        }
        let slot = std::str::from_utf8(rest.strip_prefix(b".")?).ok()?;
        match slot.strip_suffix(SIDECAR) {
            Some(slot) => SlotName::parse(slot).map(GuardedName::Sidecar),
            None => SlotName::parse(slot).map(GuardedName::Slot),
        }
    }
    /// The file name.
    pub fn file_name(&self, format: &Format) -> String {
        match self {
            GuardedName::Live => format.live.clone(),
            GuardedName::Slot(slot) => format.slot_file(slot),
            GuardedName::Sidecar(slot) => format.sidecar_file(slot),
            GuardedName::Notice => NOTICE.to_owned(),
        }
    }
}

/// One slot of one profile, to word refusals.
#[derive(Debug, Clone, Copy)]
pub struct SlotRef<'a> {
    /// The profile's format.
    pub format: &'a Format,
    /// The profile's name.
    pub profile: &'a str,
    /// The slot.
    pub slot: &'a SlotName,
}

impl SlotRef<'_> {
    /// The operator's way out of an `identity` refusal.
    fn adopt(&self) -> String {
        format!(
            "The bytes are in quarantine: if they belong in this slot, the operator accepts them with \
             `baton credentials adopt {} --profile {} --quarantine {KEPT_AS}`.",
            self.slot, self.profile
        )
    }
}

/// What is known about the process that writes a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witness {
    /// It, or its process group, holds the profile's refresh lock.
    pub holds_refresh_lock: bool,
}

/// Why a write to a slot was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There was nothing to compare with: these bytes are the baseline from now on.
    Captured,
    /// The same refresh token.
    Unchanged,
    /// Another refresh token, while a refresh was under way or due.
    Rotated,
}

impl Verdict {
    /// The event that tells of it.
    pub fn event(self) -> &'static str {
        match self {
            Verdict::Captured => "credential-captured",
            Verdict::Unchanged => "credential-unchanged",
            Verdict::Rotated => "credential-rotated",
        }
    }
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Captured => "captured",
            Verdict::Unchanged => "unchanged",
            Verdict::Rotated => "rotated",
        }
    }
}

/// Whether `new` may replace `old` in a slot; `strict` refuses rotation too.
///
/// # Errors
/// `identity`: a stub, or a login that is not known to be of the slot's account.
pub fn judge(
    slot: SlotRef<'_>,
    old: Option<&Credential>,
    new: &CredentialFile,
    witness: Witness,
    now: Timestamp,
    strict: bool,
) -> Result<Verdict, Refusal> {
    let name = slot.slot;
    let CredentialFile::Login(new) = new else {
        return Err(Refusal::new(
            Rule::Identity,
            format!(
                "A login without tokens (a stub) never enters a slot; {name} keeps its own. Log in again."
            ),
        ));
    };
    let Some(old) = old else { return Ok(Verdict::Captured) };
    if new.fingerprint == old.fingerprint {
        return Ok(Verdict::Unchanged);
    }
    let (was, is) = (&old.fingerprint, &new.fingerprint);
    let adopt = slot.adopt();
    let refuse = |what: String| Err(Refusal::new(Rule::Identity, format!("{what} {adopt}")));
    if strict {
        return refuse(format!(
            "Slot {name} holds login {was}, these bytes hold {is}, and this profile (identity = \"strict\") lets \
             no refresh token change."
        ));
    }
    if new.scopes != old.scopes || new.subscription_type != old.subscription_type {
        return refuse(format!(
            "Slot {name} holds login {was}; these bytes hold {is} with other scopes or another subscription, \
             which no refresh changes. Keep another account in a slot of its own."
        ));
    }
    if witness.holds_refresh_lock || is_due(old, now) {
        return Ok(Verdict::Rotated);
    }
    refuse(format!(
        "Slot {name} holds login {was}; these bytes hold {is}, and no refresh was under way or due. Refresh under \
         the program's lock, and keep another account in a slot of its own."
    ))
}

/// Whether a refresh of this login is to be expected: it has expired, or will within [`GRACE_SECONDS`].
pub fn is_due(credential: &Credential, now: Timestamp) -> bool {
    now.unix_millis() >= credential.expires_at_ms.saturating_sub(GRACE_SECONDS * 1000)
}

/// Whether the live link may be pointed at a slot with this login.
///
/// # Errors
/// `stale-slot` unless it lasts longer than [`GRACE_SECONDS`] from now.
pub fn check_fresh(slot: SlotRef<'_>, credential: &Credential, now: Timestamp) -> Result<(), Refusal> {
    if credential.expires_at_ms > now.plus_seconds(GRACE_SECONDS).unix_millis() {
        return Ok(());
    }
    Err(Refusal::new(
        Rule::StaleSlot,
        format!(
            "Slot {} of {} has expired, or will within {GRACE_SECONDS} s. Refresh its login first, or switch to \
             another slot; `baton credentials status` lists them.",
            slot.slot, slot.profile
        ),
    ))
}

/// The slot that a live link with this target would select.
///
/// # Errors
/// `identity` unless the target is `<live>.<slot>` in the same directory (`./` is allowed).
pub fn link_target(format: &Format, target: &[u8]) -> Result<SlotName, Refusal> {
    let mut name = target;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    match GuardedName::of(format, name) {
        Some(GuardedName::Slot(slot)) => Ok(slot),
        _ => Err(Refusal::new(
            Rule::Identity,
            format!(
                "{} can only point at a slot beside it, not at {:?}: {}",
                format.live,
                String::from_utf8_lossy(target),
                format.switch_command("<slot>")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::credential::Fingerprint;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn login(token: u8, expires_in: i64) -> Credential {
        Credential {
            fingerprint: Fingerprint([token; 32]),
            expires_at_ms: NOW.plus_seconds(expires_in).unix_millis(),
            scopes: ["user:inference".to_owned()].into(),
            subscription_type: Some("max".to_owned()),
        }
    }

    fn judged(old: Option<&Credential>, new: &Credential, lock: bool, strict: bool) -> Result<Verdict, Rule> {
        let slot = SlotName::first();
        let new = CredentialFile::Login(new.clone());
        let witness = Witness { holds_refresh_lock: lock };
        judge(
            SlotRef { format: &Format::claude(), profile: "claude", slot: &slot },
            old,
            &new,
            witness,
            NOW,
            strict,
        )
        .map_err(|r| r.rule)
    }

    #[test]
    fn the_first_login_is_captured() {
        assert_eq!(judged(None, &login(1, 3600), false, true), Ok(Verdict::Captured));
    }

    #[test]
    fn the_same_refresh_token_is_unchanged() {
        assert_eq!(judged(Some(&login(1, 3600)), &login(1, 7200), false, true), Ok(Verdict::Unchanged));
    }

    #[test]
    fn a_new_token_is_a_rotation_under_the_lock_or_when_due_only() {
        let new = login(2, 7200);
        assert_eq!(judged(Some(&login(1, 3600)), &new, false, false), Err(Rule::Identity));
        assert_eq!(judged(Some(&login(1, 3600)), &new, true, false), Ok(Verdict::Rotated));
        assert_eq!(judged(Some(&login(1, 300)), &new, false, false), Ok(Verdict::Rotated));
        assert_eq!(judged(Some(&login(1, 301)), &new, false, false), Err(Rule::Identity));
        assert_eq!(judged(Some(&login(1, -5)), &new, true, true), Err(Rule::Identity));
    }

    #[test]
    fn no_refresh_changes_scopes_or_subscription() {
        let old = login(1, -5);
        let mut scopes = login(2, 7200);
        scopes.scopes.insert("org:admin".to_owned());
        let subscription = Credential { subscription_type: None, ..login(2, 7200) };
        assert_eq!(judged(Some(&old), &scopes, true, false), Err(Rule::Identity));
        assert_eq!(judged(Some(&old), &subscription, true, false), Err(Rule::Identity));
    }

    #[test]
    fn a_stub_never_enters_a_slot() {
        let slot = SlotName::first();
        let format = Format::claude();
        let at = SlotRef { format: &format, profile: "claude", slot: &slot };
        let held = Witness { holds_refresh_lock: true };
        assert!(judge(at, None, &CredentialFile::Stub, held, NOW, false).is_err());
        assert!(judge(at, Some(&login(1, -5)), &CredentialFile::Stub, held, NOW, false).is_err());
    }

    #[test]
    fn an_identity_refusal_names_the_command_that_accepts_the_bytes() {
        let slot = SlotName::parse("work").unwrap();
        let format = Format::claude();
        let at = SlotRef { format: &format, profile: "claude", slot: &slot };
        let new = CredentialFile::Login(login(2, 7200));
        let refusal = judge(at, Some(&login(1, 3600)), &new, Witness::default(), NOW, false).unwrap_err();
        assert!(refusal.advice.contains("baton credentials adopt work --profile claude"), "{refusal}");
    }

    #[test]
    fn fresh_means_more_than_the_grace_left() {
        let slot = SlotName::first();
        let format = Format::claude();
        let at = SlotRef { format: &format, profile: "claude", slot: &slot };
        assert!(check_fresh(at, &login(1, 301), NOW).is_ok());
        assert_eq!(check_fresh(at, &login(1, 300), NOW).unwrap_err().rule, Rule::StaleSlot);
    }

    #[test]
    fn the_live_name_slots_sidecars_and_the_notice_are_guarded() {
        let slot = |name: &str| GuardedName::of(&Format::claude(), name.as_bytes());
        assert_eq!(slot(".credentials.json"), Some(GuardedName::Live));
        assert_eq!(slot("LOGIN-REFUSED.txt"), Some(GuardedName::Notice));
        let sidecar = slot(".credentials.json.work.fingerprint.json");
        assert_eq!(sidecar, SlotName::parse("work").map(GuardedName::Sidecar));
        for name in ["work", "a@b+c_d-e", "0"] {
            let file = format!(".credentials.json.{name}");
            assert_eq!(slot(&file), SlotName::parse(name).map(GuardedName::Slot), "{file}");
        }
        for name in [
            ".credentials.json.tmp",
            ".credentials.json.bak",
            ".credentials.json.lock",
            ".credentials.json.new",
            ".credentials.json.swp",
            ".credentials.json.tmp.fingerprint.json",
            ".credentials.json.work.fingerprint.json.tmp",
            ".credentials.json.tmp.0a1b",
            ".credentials.json.work.tmp.x",
            ".credentials.json.",
            ".credentials.json.-x",
            ".credentials.jsonx",
            "credentials.json",
        ] {
            assert_eq!(slot(name), None, "{name}");
        }
    }

    #[test]
    fn a_link_points_at_a_slot_beside_it() {
        assert_eq!(link_target(&Format::claude(), b".credentials.json.work").unwrap().as_str(), "work");
        assert_eq!(link_target(&Format::claude(), b"././.credentials.json.work").unwrap().as_str(), "work");
        for target in ["/x/.credentials.json.work", "../.credentials.json.work", ".credentials.json", "x", ""]
        {
            assert_eq!(
                link_target(&Format::claude(), target.as_bytes()).unwrap_err().rule,
                Rule::Identity,
                "{target}"
            );
        }
    }
}
