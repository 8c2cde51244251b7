use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

const TOKEN: &str = "sk-ant-ort01-secret";

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn sha(token: &str) -> Option<Fingerprint> {
    Some(Fingerprint(Sha256::digest(token).into()))
}

#[track_caller]
fn login(format: &Format, text: &str) -> Credential {
    match format.read(text.as_bytes()) {
        Ok(CredentialFile::Login(credential)) => credential,
        other => panic!("{other:?}"),
    }
}

fn claude(members: &str) -> Result<CredentialFile, CredentialError> {
    let text = format!(r#"{{"claudeAiOauth":{{{members}}},"mcpOAuth":{{"x":1}}}}"#);
    Format::claude().read(text.as_bytes())
}

#[test]
fn a_claude_login_is_known_by_its_refresh_token() {
    let file = |scopes: &str| {
        claude(&format!(
            r#""accessToken":"a","refreshToken":"{TOKEN}","expiresAt":1776765600000,
               "scopes":{scopes},"subscriptionType":"max""#
        ))
    };
    let Ok(CredentialFile::Login(credential)) = file(r#"["user:inference","user:profile"]"#) else {
        panic!()
    };
    assert_eq!(credential.fingerprint, sha(TOKEN));
    assert_eq!(credential.expires_at_ms, Some(1_776_765_600_000));
    assert_eq!(credential.unchanging.len(), 2);
    assert_eq!(credential.shown().len(), "login 0123456789ab".len());
    assert!(!format!("{credential:?}").contains(TOKEN));
    assert_eq!(
        file(r#"["user:profile","user:inference","user:profile"]"#),
        Ok(CredentialFile::Login(credential.clone()))
    );
    assert_ne!(file(r#"["user:profile"]"#), Ok(CredentialFile::Login(credential)));
}

#[test]
fn what_a_lost_claude_login_leaves_is_a_stub() {
    for members in [
        "",
        r#""accessToken":"","refreshToken":"","expiresAt":0"#,
        r#""accessToken":"a","refreshToken":"","expiresAt":1776765600000"#,
        r#""accessToken":"","refreshToken":"r","expiresAt":1776765600000"#,
        r#""accessToken":"a","refreshToken":"r","expiresAt":0"#,
        r#""accessToken":"a","refreshToken":"r","expiresAt":0.0"#,
        r#""accessToken":"a","refreshToken":"r""#,
        r#""accessToken":null,"expiresAt":0"#,
    ] {
        assert_eq!(claude(members), Ok(CredentialFile::Stub), "{members}");
    }
}

#[test]
fn a_codex_login_names_its_account_in_the_file_and_in_its_id_token() {
    let id = jwt(r#"{"sub":"auth0|1","https://api.openai.com/auth":{"chatgpt_user_id":"user-1","x":2}}"#);
    let access = jwt(r#"{"exp":1800000000}"#);
    let credential = login(
        &Format::codex(),
        &format!(
            r#"{{"OPENAI_API_KEY":null,"tokens":{{"id_token":"{id}","access_token":"{access}",
               "refresh_token":"{TOKEN}","account_id":"acc-1"}},"last_refresh":"2026-01-01T00:00:00Z"}}"#
        ),
    );
    assert_eq!(credential.account().as_deref(), Some("acc-1, user-1, auth0|1"));
    assert_eq!((credential.fingerprint, credential.expires_at_ms), (sha(TOKEN), Some(1_800_000_000_000)));
    let key = login(&Format::codex(), &format!(r#"{{"OPENAI_API_KEY":"{TOKEN}","tokens":null}}"#));
    assert_eq!((key.account(), key.fingerprint, key.expires_at_ms), (None, sha(TOKEN), None));
    for lost in
        [r#"{"OPENAI_API_KEY":null}"#, "{}", r#"{"tokens":{"account_id":"acc-1","refresh_token":""}}"#]
    {
        assert_eq!(Format::codex().read(lost.as_bytes()), Ok(CredentialFile::Stub), "{lost}");
    }
}

#[test]
fn a_gemini_login_names_its_account_in_its_id_token() {
    let id = jwt(r#"{"sub":"1084","email":"me@example.org"}"#);
    let text = format!(r#"{{"refresh_token":"{TOKEN}","id_token":"{id}","expiry_date":1800000000123}}"#);
    let credential = login(&Format::gemini(), &text);
    assert_eq!(credential.account().as_deref(), Some("1084"));
    assert_eq!(credential.expires_at_ms, Some(1_800_000_000_123));
}

#[test]
fn a_gh_login_names_a_user_for_each_host() {
    let credential = login(
        &Format::gh(),
        &format!(
            "github.com:\n    git_protocol: https\n    users:\n        octocat:\n            oauth_token: {TOKEN}\n    \
             user: octocat\n    oauth_token: {TOKEN}\nexample.org:\n    user: me\n    oauth_token: other\n"
        ),
    );
    let octocat = ("/github.com/user".to_owned(), "octocat".to_owned());
    assert_eq!(credential.accounts, [octocat, ("/example.org/user".to_owned(), "me".to_owned())].into());
    assert!(credential.fingerprint.is_some() && credential.fingerprint != sha(TOKEN), "of both tokens");
    let in_a_keyring = login(&Format::gh(), "github.com:\n    user: octocat\n");
    assert_eq!((in_a_keyring.account().as_deref(), in_a_keyring.fingerprint), (Some("octocat"), None));
    assert_eq!(Format::gh().read(b"{}\n"), Ok(CredentialFile::Stub));
    assert_eq!(Format::gh().read(b"github.com:\n    git_protocol: https\n"), Ok(CredentialFile::Stub));
}

#[test]
fn expiries_are_read_in_each_unit() {
    let format = |unit| Format {
        token: vec![Place::parse("/t").unwrap()],
        expires_at: Some((Place::parse("/e").unwrap(), unit)),
        ..Format::plain("own", "x.json")
    };
    for (unit, written, ms) in [
        (ExpiryUnit::Milliseconds, "1800000000000", Some(1_800_000_000_000)),
        (ExpiryUnit::Milliseconds, "1.8e12", Some(1_800_000_000_000)),
        (ExpiryUnit::Seconds, "1800000000", Some(1_800_000_000_000)),
        (ExpiryUnit::Seconds, "9223372036854775807", Some(i64::MAX)),
        (ExpiryUnit::Rfc3339, "\"2027-01-15T08:00:00Z\"", Some(1_800_000_000_000)),
        (ExpiryUnit::Rfc3339, "null", None),
    ] {
        let credential = login(&format(unit), &format!(r#"{{"t":"{TOKEN}","e":{written}}}"#));
        assert_eq!(credential.expires_at_ms, ms, "{unit:?} {written}");
    }
    assert!(format(ExpiryUnit::Seconds).read(br#"{"t":"x","e":"soon"}"#).is_err());
}

#[test]
fn a_text_is_whole_when_its_syntax_says_so() {
    let (json, yaml) = (Format::codex(), Format::gh());
    assert_eq!(json.check_whole(br#"{"a":1}"#), Ok(()));
    for part in ["", " ", "{", r#"{"a":1}x"#, "[]", r#"{"a":1,"a":2}"#] {
        assert!(json.check_whole(part.as_bytes()).is_err(), "{part}");
    }
    assert_eq!(yaml.check_whole(b"a: 1\n"), Ok(()));
    for part in ["", "\n", "a: 1", "a:\n b: 'c\n", "- a\n", "a\n", "a: 1\na: 2\n"] {
        assert!(yaml.check_whole(part.as_bytes()).is_err(), "{part}");
    }
}

#[test]
fn no_error_shows_a_token() {
    for text in [
        String::new(),
        TOKEN.to_owned(),
        format!(r#"["{TOKEN}"]"#),
        format!(r#"{{"{TOKEN}":1,"{TOKEN}":2}}"#),
        format!(r#"{{"claudeAiOauth":{{"refreshToken":["{TOKEN}"]}}}}"#),
        format!(
            r#"{{"claudeAiOauth":{{"accessToken":"a","refreshToken":"{TOKEN}","expiresAt":"{TOKEN}"}}}}"#
        ),
    ] {
        let error = match Format::claude().read(text.as_bytes()) {
            Err(error) => error,
            // A text where a number should be is there; that it is no time is told when the login is read.
            Ok(other) => panic!("{other:?}"),
        };
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
    }
    let same = format!(r#"{{"tokens":{{"account_id":"{TOKEN}","refresh_token":"{TOKEN}"}}}}"#);
    let error = Format::codex().read(same.as_bytes()).unwrap_err();
    assert!(!error.to_string().contains(TOKEN), "{error}");
}

/// JSON texts with the members of the formats, and the token anywhere.
fn texts() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(format!("\"{TOKEN}\"")),
        Just(format!(
            "\"e30.{}.x\"",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":["{TOKEN}"],"exp":"{TOKEN}"}}"#))
        )),
        Just("null".to_owned()),
        Just("1".to_owned()),
        Just("-1.5".to_owned()),
        Just("\"a\\nb\"".to_owned()),
        Just("broken".to_owned()),
    ];
    let key = prop::sample::select(vec![
        "claudeAiOauth",
        "accessToken",
        "refreshToken",
        "expiresAt",
        "scopes",
        "tokens",
        "id_token",
        "account_id",
        "refresh_token",
        "OPENAI_API_KEY",
        "access_token",
        "expiry_date",
        "user",
        "oauth_token",
        "github.com",
    ]);
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec((key.clone(), inner.clone()), 0..6).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
            prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_bytes_make_a_format_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in BUILT_IN {
            let format = Format::built_in(name).unwrap();
            let _ = (format.read(&bytes), format.check_whole(&bytes));
        }
    }

    #[test]
    fn no_text_makes_an_error_or_a_debug_text_show_its_token(text in texts()) {
        for name in BUILT_IN {
            let format = Format::built_in(name).unwrap();
            let told = match format.read(text.as_bytes()) {
                Ok(CredentialFile::Login(login)) => {
                    // An id that is the token of another format's place is an id here.
                    let ids_show_it = login.accounts.values().any(|id| id == TOKEN);
                    if ids_show_it { String::new() } else { format!("{login:?} {}", login.shown()) }
                }
                Ok(CredentialFile::Stub) => String::new(),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!told.contains(TOKEN), "{told}");
            if let Err(why) = format.check_whole(text.as_bytes()) {
                prop_assert!(!why.contains(TOKEN), "{why}");
            }
        }
    }
}
