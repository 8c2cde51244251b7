//! What a program's credential file is called and where in it stands what the guard needs: a small table for each
//! format.

use super::Place;

/// How the live file stands in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveKind {
    /// Agents see the symlink that selects a slot.
    Link,
    /// Agents see a regular file with the selected slot's content; the symlink is on disk only.
    File,
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// One JSON object: its end is seen in the text.
    Json,
    /// One YAML mapping: only its writer's close(2) says that it is whole.
    Yaml,
}

/// What an expiry counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryUnit {
    /// Milliseconds since the epoch.
    Milliseconds,
    /// Seconds since the epoch, as in a JWT's `exp`.
    Seconds,
    /// A text as in RFC 3339.
    Rfc3339,
}

/// One credential format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Its name in exchange.toml; of a profile of the user's own, `own`.
    pub name: String,
    /// The live file's name.
    pub live: String,
    /// How the live file is seen.
    pub kind: LiveKind,
    /// What it is written in.
    pub syntax: Syntax,
    /// Where it says whose account it is, the best known name first.
    pub account: Vec<Place>,
    /// Where the token stands that the login is known by: the first of these that holds one.
    pub token: Vec<Place>,
    /// Whether a login without that token is one all the same if it names its account: the token may be kept in
    /// a keyring.
    pub token_elsewhere: bool,
    /// What else must be there, a text that is not empty or a number above 0, for it to be a login and no stub.
    pub needs: Vec<Place>,
    /// When the login expires. Formats without it are always fresh and never due.
    pub expires_at: Option<(Place, ExpiryUnit)>,
    /// What no refresh changes. Lists are compared as sets.
    pub unchanging: Vec<Place>,
    /// The directory that a program makes while it refreshes, if it does.
    pub lock: Option<String>,
}

/// The names of the built-in formats.
pub const BUILT_IN: [&str; 4] = ["claude", "codex", "gemini", "gh"];

fn places<const N: usize>(texts: [&str; N]) -> Vec<Place> {
    // Every table here is read by the tests.
    texts.into_iter().filter_map(|text| Place::parse(text).ok()).collect()
}

fn expiry(text: &str, unit: ExpiryUnit) -> Option<(Place, ExpiryUnit)> {
    Some((Place::parse(text).ok()?, unit))
}

impl Format {
    /// A built-in format.
    pub fn built_in(name: &str) -> Option<Self> {
        Some(match name {
            "claude" => Format::claude(),
            "codex" => Format::codex(),
            "gemini" => Format::gemini(),
            "gh" => Format::gh(),
            _ => return None,
        })
    }

    /// A format of one file that says nothing yet of what stands in it.
    pub fn plain(name: &str, live: &str) -> Self {
        Format {
            name: name.to_owned(),
            live: live.to_owned(),
            kind: LiveKind::File,
            syntax: Syntax::Json,
            account: Vec::new(),
            token: Vec::new(),
            token_elsewhere: false,
            needs: Vec::new(),
            expires_at: None,
            unchanging: Vec::new(),
            lock: None,
        }
    }

    /// `.credentials.json` of Claude Code.
    pub fn claude() -> Self {
        Format {
            kind: LiveKind::Link,
            token: places(["/claudeAiOauth/refreshToken"]),
            needs: places(["/claudeAiOauth/accessToken", "/claudeAiOauth/expiresAt"]),
            expires_at: expiry("/claudeAiOauth/expiresAt", ExpiryUnit::Milliseconds),
            unchanging: places(["/claudeAiOauth/scopes", "/claudeAiOauth/subscriptionType"]),
            lock: Some(".oauth_refresh.lock".into()),
            ..Format::plain("claude", ".credentials.json")
        }
    }

    /// `auth.json` of Codex.
    pub fn codex() -> Self {
        Format {
            account: places([
                "/tokens/account_id",
                "/tokens/id_token#sub",
                "/tokens/id_token#chatgpt_user_id",
                "/tokens/id_token#/https:~1~1api.openai.com~1auth/chatgpt_user_id",
            ]),
            token: places(["/tokens/refresh_token", "/OPENAI_API_KEY"]),
            expires_at: expiry("/tokens/access_token#exp", ExpiryUnit::Seconds),
            ..Format::plain("codex", "auth.json")
        }
    }

    /// `oauth_creds.json` of Gemini.
    pub fn gemini() -> Self {
        Format {
            account: places(["/id_token#sub"]),
            token: places(["/refresh_token"]),
            expires_at: expiry("/expiry_date", ExpiryUnit::Milliseconds),
            ..Format::plain("gemini", "oauth_creds.json")
        }
    }

    /// `hosts.yml` of GitHub's `gh`.
    pub fn gh() -> Self {
        Format {
            syntax: Syntax::Yaml,
            account: places(["/*/user"]),
            token: places(["/*/oauth_token"]),
            token_elsewhere: true,
            ..Format::plain("gh", "hosts.yml")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_built_in_table_is_read_whole() {
        let counts = BUILT_IN.map(|name| {
            let format = Format::built_in(name).unwrap();
            assert_eq!(format.name, name);
            let expires = usize::from(format.expires_at.is_some());
            (format.account.len(), format.token.len(), format.needs.len(), expires, format.unchanging.len())
        });
        assert_eq!(counts, [(0, 1, 2, 1, 2), (4, 2, 0, 1, 0), (1, 1, 0, 1, 0), (1, 1, 0, 0, 0)]);
        assert_eq!(Format::built_in("other"), None);
    }
}
