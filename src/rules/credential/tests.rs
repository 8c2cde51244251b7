use super::*;
use crate::wire::credential::Fingerprint;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn print(token: u8) -> Fingerprint {
    Fingerprint([token; 32])
}

/// A login without account evidence, as Claude's are.
fn login(token: u8, expires_in: i64) -> Credential {
    Credential {
        accounts: BTreeMap::new(),
        fingerprint: Some(print(token)),
        expires_at_ms: Some(NOW.plus_seconds(expires_in).unix_millis()),
        unchanging: [("/oauth/scopes".to_owned(), print(100)), ("/oauth/plan".to_owned(), print(101))].into(),
    }
}

/// A login that names accounts.
fn named(token: u8, accounts: &[(&str, &str)]) -> Credential {
    let accounts = accounts.iter().map(|(place, id)| ((*place).to_owned(), (*id).to_owned())).collect();
    Credential { accounts, ..login(token, 3600) }
}

fn judged(old: Option<&Credential>, new: &Credential, lock: bool, strict: bool) -> Result<Verdict, String> {
    let (slot, format) = (SlotName::first(), Format::claude());
    let new = CredentialFile::Login(new.clone());
    let witness = Witness { holds_refresh_lock: lock };
    let at = SlotRef { format: &format, profile: "claude", slot: &slot };
    judge(at, old, &new, witness, NOW, strict).map_err(|mismatch| mismatch.refusal(at, None).advice)
}

#[track_caller]
fn refused(old: &Credential, new: &Credential, lock: bool, strict: bool) -> String {
    judged(Some(old), new, lock, strict).expect_err("it should be refused")
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
    refused(&login(1, 3600), &new, false, false);
    assert_eq!(judged(Some(&login(1, 3600)), &new, true, false), Ok(Verdict::Rotated));
    assert_eq!(judged(Some(&login(1, 300)), &new, false, false), Ok(Verdict::Rotated));
    refused(&login(1, 301), &new, false, false);
    let lasting = Credential { expires_at_ms: None, ..login(1, 0) };
    refused(&lasting, &new, false, false);
    assert!(refused(&login(1, -5), &new, true, true).contains("strict"));
}

#[test]
fn no_refresh_changes_scopes_or_subscription() {
    let old = login(1, -5);
    let mut scopes = login(2, 7200);
    scopes.unchanging.insert("/oauth/scopes".to_owned(), print(7));
    assert!(refused(&old, &scopes, true, false).contains("with other scopes,"));
    scopes.unchanging.remove("/oauth/plan");
    assert!(refused(&old, &scopes, true, false).contains("with other plan and scopes,"));
}

#[test]
fn the_same_account_may_change_its_token_at_any_time() {
    let old = named(1, &[("/id", "me"), ("/jwt#/sub", "42")]);
    for same in
        [&[("/id", "me"), ("/jwt#/sub", "42")][..], &[("/id", "me"), ("/jwt#/sub", "42"), ("/x", "y")]]
    {
        assert_eq!(judged(Some(&old), &named(1, same), false, true), Ok(Verdict::Unchanged));
        let other_members = Credential { unchanging: BTreeMap::new(), ..named(2, same) };
        assert_eq!(judged(Some(&old), &other_members, false, false), Ok(Verdict::Rotated));
        assert!(refused(&old, &named(2, same), true, true).contains("strict"));
    }
}

#[test]
fn another_account_is_refused_whatever_the_token_and_the_lock() {
    let old = Credential { expires_at_ms: Some(0), ..named(1, &[("/id", "me"), ("/jwt#/sub", "42")]) };
    let others: [&[(&str, &str)]; 6] = [
        &[("/id", "you"), ("/jwt#/sub", "42")],
        &[("/id", "me"), ("/jwt#/sub", "43")],
        &[("/id", "me")], // what would differ is left out
        &[("/jwt#/sub", "42")],
        &[("/other", "me")],
        &[],
    ];
    for other in others {
        for token in [1, 2] {
            let advice = refused(&old, &named(token, other), true, false);
            assert!(advice.contains("holds account me, 42;"), "{advice}");
        }
    }
}

#[test]
fn an_account_that_only_the_new_login_names_is_judged_by_its_token() {
    let (old, new) = (login(1, 3600), named(2, &[("/id", "me")]));
    refused(&old, &new, false, false);
    assert_eq!(judged(Some(&old), &new, true, false), Ok(Verdict::Rotated));
    assert_eq!(judged(Some(&old), &named(1, &[("/id", "me")]), false, true), Ok(Verdict::Unchanged));
}

#[test]
fn a_login_without_a_token_is_known_by_its_account() {
    let keyring = |id| Credential { fingerprint: None, ..named(1, &[("/github.com/user", id)]) };
    assert_eq!(judged(Some(&keyring("me")), &keyring("me"), false, true), Ok(Verdict::Unchanged));
    refused(&keyring("me"), &keyring("you"), true, false);
    assert!(is_same_login(&keyring("me"), &keyring("me")) && !is_same_login(&keyring("me"), &keyring("you")));
    let nobody = Credential { accounts: BTreeMap::new(), ..keyring("me") };
    assert!(!is_same_login(&nobody, &nobody));
}

#[test]
fn a_stub_never_enters_a_slot() {
    let (slot, format) = (SlotName::first(), Format::claude());
    let at = SlotRef { format: &format, profile: "claude", slot: &slot };
    let held = Witness { holds_refresh_lock: true };
    assert!(judge(at, None, &CredentialFile::Stub, held, NOW, false).is_err());
    assert!(judge(at, Some(&login(1, -5)), &CredentialFile::Stub, held, NOW, false).is_err());
}

#[test]
fn an_identity_refusal_names_the_command_that_accepts_the_bytes_or_the_slot_they_belong_to() {
    let (work, home, format) =
        (SlotName::parse("work").unwrap(), SlotName::parse("home").unwrap(), Format::claude());
    let at = SlotRef { format: &format, profile: "claude", slot: &work };
    let new = CredentialFile::Login(login(2, 7200));
    let mismatch = judge(at, Some(&login(1, 3600)), &new, Witness::default(), NOW, false).unwrap_err();
    let refusal = mismatch.clone().refusal(at, None);
    assert!(refusal.advice.contains("baton credentials adopt work --profile claude"), "{refusal}");
    let cause = cause(&refusal.advice);
    assert!(cause.starts_with("Slot work holds login") && !cause.contains("adopt"), "{cause}");
    let refusal = mismatch.refusal(at, Some(&home));
    assert!(refusal.advice.contains("ln -sfn .credentials.json.home .credentials.json"), "{refusal}");
    assert!(refusal.advice.contains("baton credentials switch home --profile claude"), "{refusal}");
}

#[test]
fn fresh_means_more_than_the_grace_left() {
    let slot = SlotName::first();
    let format = Format::claude();
    let at = SlotRef { format: &format, profile: "claude", slot: &slot };
    assert!(check_fresh(at, &login(1, 301), NOW).is_ok());
    assert_eq!(check_fresh(at, &login(1, 300), NOW).unwrap_err().rule, Rule::StaleSlot);
    assert!(check_fresh(at, &Credential { expires_at_ms: None, ..login(1, 0) }, NOW).is_ok());
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
    for target in ["/x/.credentials.json.work", "../.credentials.json.work", ".credentials.json", "x", ""] {
        assert_eq!(
            link_target(&Format::claude(), target.as_bytes()).unwrap_err().rule,
            Rule::Identity,
            "{target}"
        );
    }
}
