//! What a program's credential file is called and where in it stands what the guard needs: a small table for each
//! format.

/// How the live file stands in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveKind {
    /// Agents see the symlink that selects a slot.
    Link,
    /// Agents see a regular file with the selected slot's content; the symlink is on disk only.
    File,
}

/// One credential format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Its name in exchange.toml; of a profile of the user's own, the live file's name.
    pub name: String,
    /// The live file's name.
    pub live: String,
    /// How the live file is seen.
    pub kind: LiveKind,
    /// The directory that a program makes while it refreshes, if it does.
    pub lock: Option<String>,
}

impl Format {
    /// `.credentials.json` of Claude Code.
    pub fn claude() -> Self {
        Format {
            name: "claude".into(),
            live: ".credentials.json".into(),
            kind: LiveKind::Link,
            lock: Some(".oauth_refresh.lock".into()),
        }
    }
}
