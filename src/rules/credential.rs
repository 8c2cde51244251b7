//! Which writes keep a credential slot's account, which names are guarded, and when a slot is fresh.
//! The evidence and its limits: PROTOCOLS section 5.

use super::{Refusal, Rule};
use crate::wire::credential::{Credential, CredentialFile, Format};
use crate::wire::time::Timestamp;
use std::collections::BTreeSet;
use std::fmt;

/// The file in a profile's top that tells of a refused login.
pub const NOTICE: &str = "LOGIN-REFUSED.txt";

/// Stands in a refusal for the id that its bytes get in quarantine.
pub const KEPT_AS: &str = "<id>";

const KEPT: &str = "The bytes are in quarantine";

/// What a login was refused for, without the way out, which is none where its bytes are not kept.
pub fn cause(advice: &str) -> &str {
    advice.split(KEPT).next().unwrap_or_default().trim_end()
}

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
    /// The way out where bytes are the login of another slot.
    fn switch_to(&self, other: &SlotName) -> String {
        format!(
            "It is the login of slot {other}: switch to that slot first ({}, or `baton credentials switch {other} \
             --profile {}`), then write again.",
            self.format.switch_command(other.as_str()),
            self.profile
        )
    }

    /// The operator's way out of an `identity` refusal.
    fn adopt(&self) -> String {
        format!(
            "{KEPT}: if they belong in this slot, the operator accepts them with \
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
    /// The same token.
    Unchanged,
    /// Another token of the same account, or one that came while a refresh was under way or due.
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

/// Why bytes may not enter a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    what: String,
    /// It is a login, which may belong somewhere else.
    is_login: bool,
}

impl Mismatch {
    /// As a refusal. `elsewhere`: the slot that holds the same account's login.
    pub fn refusal(self, slot: SlotRef<'_>, elsewhere: Option<&SlotName>) -> Refusal {
        let advice = match elsewhere {
            _ if !self.is_login => self.what,
            Some(other) => format!("{} {}", self.what, slot.switch_to(other)),
            None => format!("{} {}", self.what, slot.adopt()),
        };
        Refusal::new(Rule::Identity, advice)
    }
}

/// How the accounts that two logins name compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accounts {
    Same,
    Different,
    /// The new one does not say all that the old one says of it. Were that let through, even with the same token,
    /// another account could follow, whose name would then have nothing to differ from.
    Lost,
    Unknown,
}

fn compare_accounts(old: &Credential, new: &Credential) -> Accounts {
    let agrees = |(place, id): (&String, &String)| new.accounts.get(place).map(|named| named == id);
    let compared: Vec<Option<bool>> = old.accounts.iter().map(agrees).collect();
    if compared.contains(&Some(false)) {
        Accounts::Different
    } else if compared.contains(&None) {
        Accounts::Lost
    } else if compared.is_empty() {
        Accounts::Unknown
    } else {
        Accounts::Same
    }
}

/// Whether a login names less of its account than another does, or holds no token where that one holds one.
pub fn lacks(new: &Credential, old: &Credential) -> bool {
    old.accounts.keys().any(|place| !new.accounts.contains_key(place))
        || (old.fingerprint.is_some() && new.fingerprint.is_none())
}

/// Whether two logins are known to be of one account.
pub fn is_same_login(one: &Credential, other: &Credential) -> bool {
    match compare_accounts(one, other) {
        Accounts::Same => true,
        Accounts::Different => false,
        Accounts::Lost | Accounts::Unknown => {
            one.fingerprint.is_some() && one.fingerprint == other.fingerprint
        }
    }
}

/// Whether `new` may replace `old` in a slot; `strict` refuses every change of the token, also where the account is
/// known to be the same: then only the operator changes what a slot holds.
///
/// # Errors
/// A stub, or a login that is not known to be of the slot's account.
pub fn judge(
    slot: SlotRef<'_>,
    old: Option<&Credential>,
    new: &CredentialFile,
    witness: Witness,
    now: Timestamp,
    strict: bool,
) -> Result<Verdict, Mismatch> {
    let name = slot.slot;
    let CredentialFile::Login(new) = new else {
        let what = format!(
            "A login without tokens (a stub) never enters a slot; {name} stays as it was. Log in again."
        );
        return Err(Mismatch { what, is_login: false });
    };
    let Some(old) = old else { return Ok(Verdict::Captured) };
    let refuse = |what: String| Err(Mismatch { what, is_login: true });
    let (was, is) = (old.shown(), new.shown());
    let same_token = new.fingerprint == old.fingerprint;
    match compare_accounts(old, new) {
        Accounts::Different => {
            return refuse(format!("Slot {name} holds {was}; these bytes hold {is}, which is another."));
        }
        Accounts::Lost => {
            return refuse(format!(
                "Slot {name} holds {was}; these bytes hold {is} and do not say all of whose that is."
            ));
        }
        Accounts::Same | Accounts::Unknown if same_token => return Ok(Verdict::Unchanged),
        _ if lacks(new, old) => {
            return refuse(format!("Slot {name} holds {was} with its token; these bytes hold none."));
        }
        _ if strict => {
            return refuse(format!(
                "Slot {name} holds {was}; these bytes hold {is} with another token, and this profile (identity = \
                 \"strict\") lets no token change."
            ));
        }
        Accounts::Same => return Ok(Verdict::Rotated),
        Accounts::Unknown => {}
    }
    if new.unchanging != old.unchanging {
        let places = || old.unchanging.keys().chain(new.unchanging.keys());
        let changed: BTreeSet<&str> = places()
            .filter(|place| old.unchanging.get(*place) != new.unchanging.get(*place))
            .map(|place| place.rsplit('/').next().unwrap_or(place))
            .collect();
        let changed = changed.into_iter().collect::<Vec<_>>().join(" and ");
        return refuse(format!(
            "Slot {name} holds {was}; these bytes hold {is} with other {changed}, which no refresh changes. Keep \
             another account in a slot of its own."
        ));
    }
    if witness.holds_refresh_lock || is_due(old, now) {
        return Ok(Verdict::Rotated);
    }
    let lock = slot.format.lock.as_ref();
    let lock = lock.map_or(String::new(), |lock| format!("Refresh under the {lock} lock, and keep "));
    let keep = if lock.is_empty() { "Keep " } else { "" };
    refuse(format!(
        "Slot {name} holds {was}; these bytes hold {is}, and no refresh was under way or due. {lock}{keep}another \
         account in a slot of its own."
    ))
}

/// The refusal of a login whose token another slot of the profile holds: whichever of two copies is refreshed first makes
/// the other worthless.
pub fn refuse_second_copy(slot: SlotRef<'_>, new: &Credential, other: &SlotName) -> Refusal {
    let what = format!("These bytes hold {}, and slot {} stays as it was.", new.shown(), slot.slot);
    Refusal::new(Rule::Identity, format!("{what} {}", slot.switch_to(other)))
}

/// Whether a refresh of this login is to be expected: it has expired, or will within [`GRACE_SECONDS`].
pub fn is_due(credential: &Credential, now: Timestamp) -> bool {
    credential.expires_at_ms.is_some_and(|ms| now.unix_millis() >= ms.saturating_sub(GRACE_SECONDS * 1000))
}

/// Whether the live file may be switched to a slot with this login. What never expires is always fresh.
///
/// # Errors
/// `stale-slot` unless it lasts longer than [`GRACE_SECONDS`] from now.
pub fn check_fresh(slot: SlotRef<'_>, credential: &Credential, now: Timestamp) -> Result<(), Refusal> {
    if credential.expires_at_ms.is_none_or(|ms| ms > now.plus_seconds(GRACE_SECONDS).unix_millis()) {
        return Ok(());
    }
    Err(Refusal::new(
        Rule::StaleSlot,
        format!(
            "Slot {0} of {1} has expired, or will within {GRACE_SECONDS} s. Refresh its login first, or switch to \
             another slot; `baton credentials status` lists them. The operator may switch to it all the same: \
             `baton credentials switch {0} --profile {1} --even-if-expired`.",
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
mod tests;
