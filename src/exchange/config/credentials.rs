//! `[credentials.<profile>]`: a built-in format, or the table of one of the user's own.

use super::ProfileConfig;
use crate::rules::credential::{GuardedName, HALF_MADE, NOTICE};
use crate::wire::credential::{BUILT_IN, ExpiryUnit, Format, LiveKind, Place, Syntax};
use crate::wire::name::AgentName;
use serde::Deserialize;
use toml::Spanned;

/// Longest name of a live file, in bytes: a slot's name and `.fingerprint.json` come behind it, and a file name ends
/// at 255.
const MAX_LIVE_NAME: usize = 100;

/// A profile as it stands in exchange.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenProfile {
    format: Option<Spanned<String>>,
    identity: Option<Spanned<String>>,
    agents: Option<Vec<Spanned<String>>>,
    identity_command: Option<Spanned<Vec<String>>>,
    file: Option<Spanned<String>>,
    live: Option<Spanned<String>>,
    syntax: Option<Spanned<String>>,
    account: Option<Spanned<OneOrMany>>,
    token: Option<Spanned<OneOrMany>>,
    expires_at: Option<Spanned<String>>,
    expires_unit: Option<Spanned<String>>,
    unchanging: Option<Spanned<OneOrMany>>,
    lock: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn texts(&self) -> &[String] {
        match self {
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// What is wrong, and at which byte of exchange.toml.
pub(super) type Problem = (usize, String);

/// Reads the list of a key's agents.
pub(super) type KnownAgents<'a> = &'a dyn Fn(&[Spanned<String>], &str) -> Result<Vec<AgentName>, String>;

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The meaning of a key that has one of a few words; the first where it is not given.
fn choose<T: Copy>(
    profile: &str,
    key: &str,
    written: Option<&Spanned<String>>,
    words: &[(&str, T)],
) -> Result<T, Problem> {
    let Some(written) = written else { return Ok(words[0].1) };
    let chosen = words.iter().find(|(word, _)| word == written.get_ref());
    chosen.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let problem =
            format!("credentials.{profile}.{key} is {:?}; it must be {}", written.get_ref(), quoted(&words));
        (written.span().start, problem)
    })
}

impl WrittenProfile {
    /// The profile.
    ///
    /// # Errors
    /// What is wrong, or what `known` said.
    pub(super) fn check(
        &self,
        name: &Spanned<String>,
        known: KnownAgents<'_>,
    ) -> Result<Result<ProfileConfig, Problem>, String> {
        let allowed = |list: &Vec<_>| known(list, &format!("credentials.{}.agents", name.get_ref()));
        let agents = self.agents.as_ref().map(allowed).transpose()?;
        Ok(self.read(name, agents))
    }

    fn read(&self, name: &Spanned<String>, agents: Option<Vec<AgentName>>) -> Result<ProfileConfig, Problem> {
        let (start, name) = (name.span().start, name.get_ref().as_str());
        // A profile is a folder of the tree; the rules for handles keep it one path component.
        if name.starts_with("did:") || AgentName::parse(name).is_err() {
            let problem = format!("{name:?} is no profile name: use letters, digits, '.', '_' and '-'");
            return Err((start, problem));
        }
        let format = match (&self.format, self.own_key()) {
            (Some(format), None) => Format::built_in(format.get_ref()).ok_or_else(|| {
                let problem = format!(
                    "credentials.{name}.format is {:?}; the guard knows {}. A format of your own has file = \"...\" \
                     in place of format.",
                    format.get_ref(),
                    quoted(&BUILT_IN)
                );
                (format.span().start, problem)
            })?,
            (Some(format), Some((at, key))) => {
                let problem = format!(
                    "credentials.{name} has both format = {:?} and {key}: a built-in format is taken as it is. Leave \
                     out one of the two.",
                    format.get_ref()
                );
                return Err((at, problem));
            }
            (None, _) => self.own(start, name)?,
        };
        let words = [("rotating", false), ("strict", true)];
        let strict = choose(name, "identity", self.identity.as_ref(), &words)?;
        Ok(ProfileConfig { format, strict, agents, identity_command: self.command(name)? })
    }

    /// The first key that only a format of the user's own has.
    fn own_key(&self) -> Option<(usize, &'static str)> {
        let texts = [
            (&self.file, "file"),
            (&self.live, "live"),
            (&self.syntax, "syntax"),
            (&self.expires_at, "expires_at"),
            (&self.expires_unit, "expires_unit"),
            (&self.lock, "lock"),
        ];
        let lists = [(&self.account, "account"), (&self.token, "token"), (&self.unchanging, "unchanging")];
        let texts =
            texts.into_iter().filter_map(|(written, key)| Some((written.as_ref()?.span().start, key)));
        let lists =
            lists.into_iter().filter_map(|(written, key)| Some((written.as_ref()?.span().start, key)));
        texts.chain(lists).min()
    }

    /// A format of the user's own.
    fn own(&self, start: usize, name: &str) -> Result<Format, Problem> {
        let Some(file) = &self.file else {
            let problem = format!(
                "credentials.{name} says nothing of its file: give it format = {}, or file = \"...\" and where in it \
                 account and token stand",
                quoted(&BUILT_IN)
            );
            return Err((start, problem));
        };
        let checked = |written: &Spanned<String>, key: &str| {
            check_file_name(written.get_ref())
                .map_err(|why| (written.span().start, format!("credentials.{name}.{key} {why}")))
        };
        checked(file, "file")?;
        let places = |written: &Option<Spanned<OneOrMany>>, key: &str| match written {
            None => Ok(Vec::new()),
            Some(written) => {
                let read = |text: &String| {
                    let wrong =
                        |why| (written.span().start, format!("credentials.{name}.{key}: {text:?} {why}"));
                    Place::parse(text).map_err(wrong)
                };
                written.get_ref().texts().iter().map(read).collect::<Result<Vec<_>, Problem>>()
            }
        };
        let mut format = Format {
            kind: choose(
                name,
                "live",
                self.live.as_ref(),
                &[("file", LiveKind::File), ("link", LiveKind::Link)],
            )?,
            syntax: choose(
                name,
                "syntax",
                self.syntax.as_ref(),
                &[("json", Syntax::Json), ("yaml", Syntax::Yaml)],
            )?,
            account: places(&self.account, "account")?,
            token: places(&self.token, "token")?,
            unchanging: places(&self.unchanging, "unchanging")?,
            expires_at: self.expiry(name)?,
            ..Format::plain("own", file.get_ref())
        };
        if format.account.is_empty() && format.token.is_empty() {
            let problem = format!(
                "credentials.{name} says neither where the account stands (account = [\"/a/b\", \"/id_token#sub\"]) nor \
                 where the token does (token = \"/refresh_token\")"
            );
            return Err((file.span().start, problem));
        }
        if let Some(lock) = &self.lock {
            checked(lock, "lock")?;
            if GuardedName::of(&format, lock.get_ref().as_bytes()).is_some() {
                let problem =
                    format!("credentials.{name}.lock is {:?}, the name of a login there", lock.get_ref());
                return Err((lock.span().start, problem));
            }
            format.lock = Some(lock.get_ref().clone());
        }
        Ok(format)
    }

    fn expiry(&self, name: &str) -> Result<Option<(Place, ExpiryUnit)>, Problem> {
        let unit = self.expires_unit.as_ref();
        let Some(written) = &self.expires_at else {
            return match unit {
                None => Ok(None),
                Some(unit) => {
                    let problem = format!("credentials.{name}.expires_unit is of no use without expires_at");
                    Err((unit.span().start, problem))
                }
            };
        };
        let at = written.span().start;
        let place = Place::parse(written.get_ref())
            .map_err(|why| (at, format!("credentials.{name}.expires_at {why}")))?;
        // A JWT's times are in seconds.
        if unit.is_none() && !place.is_claim() {
            let problem =
                format!("credentials.{name}.expires_at needs expires_unit = \"ms\", \"s\" or \"rfc3339\"");
            return Err((at, problem));
        }
        let words =
            [("s", ExpiryUnit::Seconds), ("ms", ExpiryUnit::Milliseconds), ("rfc3339", ExpiryUnit::Rfc3339)];
        Ok(Some((place, choose(name, "expires_unit", unit, &words)?)))
    }

    fn command(&self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let Some(command) = &self.identity_command else { return Ok(None) };
        // It runs without the environment that would say where a program is.
        if command.get_ref().first().is_some_and(|program| program.starts_with('/')) {
            return Ok(Some(command.get_ref().clone()));
        }
        let problem = format!(
            "credentials.{name}.identity_command must be a list that begins with the program's whole path: \
             [\"/usr/local/bin/whose-login\", \"--id\"]"
        );
        Err((command.span().start, problem))
    }
}

/// Whether a name may be a live file's or a lock's.
fn check_file_name(name: &str) -> Result<(), String> {
    let why = if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        "must be a file name without '/': it stands in the profile's own folder"
    } else if name.chars().any(char::is_control) {
        "may hold no control characters"
    } else if name.len() > MAX_LIVE_NAME {
        return Err(format!("may have {MAX_LIVE_NAME} bytes"));
    } else if name.starts_with(HALF_MADE) {
        "begins as the exchange's own names do"
    } else if name == NOTICE {
        "is the name of the file that tells of a refused login"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn profile(text: &str) -> Result<ProfileConfig, String> {
        Config::parse(&format!("[credentials.p]\n{text}")).map(|config| config.credentials["p"].clone())
    }

    #[test]
    fn built_in_formats_are_known_by_name() {
        for name in BUILT_IN {
            let profile = profile(&format!("format = {name:?}\nidentity = \"strict\"\n")).unwrap();
            assert_eq!((profile.format.name.as_str(), profile.strict), (name, true));
        }
    }

    #[test]
    fn a_format_of_ones_own_is_a_table_of_places() {
        let profile = profile(
            "file = \"token.json\"\nlive = \"link\"\naccount = [\"/a/b\", \"/id_token#sub\"]\ntoken = \"/refresh\"\n\
             expires_at = \"/exp\"\nexpires_unit = \"rfc3339\"\nunchanging = [\"/scopes\"]\nlock = \".lock\"\n\
             identity_command = [\"/bin/whose\", \"--id\"]\n",
        )
        .unwrap();
        let format = profile.format;
        assert_eq!(
            (format.live.as_str(), format.kind, format.syntax),
            ("token.json", LiveKind::Link, Syntax::Json)
        );
        let places = |places: &[Place]| places.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(places(&format.account), ["/a/b", "/id_token#sub"]);
        assert_eq!(
            (places(&format.token), places(&format.unchanging)),
            (vec!["/refresh".into()], vec!["/scopes".into()])
        );
        assert_eq!(format.expires_at.map(|(_, unit)| unit), Some(ExpiryUnit::Rfc3339));
        assert_eq!(format.lock.as_deref(), Some(".lock"));
        assert_eq!(profile.identity_command.unwrap(), ["/bin/whose", "--id"]);
    }

    #[test]
    fn a_format_of_ones_own_is_a_json_file_where_nothing_else_is_said() {
        let format =
            profile("file = \"t\"\ntoken = [\"/a\", \"/b\"]\nexpires_at = \"/jwt#exp\"\n").unwrap().format;
        assert_eq!((format.kind, format.syntax, format.token.len()), (LiveKind::File, Syntax::Json, 2));
        assert_eq!(format.expires_at.map(|(_, unit)| unit), Some(ExpiryUnit::Seconds));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        for (text, line, words) in [
            ("agents = []\n", 1, "says nothing of its file"),
            ("format = \"other\"\n", 2, "\"claude\", \"codex\", \"gemini\" or \"gh\""),
            ("format = \"claude\"\ntoken = \"/x\"\n", 3, "both format = \"claude\" and token"),
            ("file = \"t\"\n", 2, "neither where the account"),
            ("file = \"a/t\"\ntoken = \"/x\"\n", 2, "credentials.p.file must be a file name"),
            ("file = \".baton-half-made.t\"\ntoken = \"/x\"\n", 2, "exchange's own"),
            ("file = \"LOGIN-REFUSED.txt\"\ntoken = \"/x\"\n", 2, "refused login"),
            ("file = \"t\"\ntoken = \"x\"\n", 3, "credentials.p.token: \"x\" must be a JSON pointer"),
            ("file = \"t\"\naccount = [\"/x#\"]\n", 3, "names no claim"),
            ("file = \"t\"\ntoken = \"/x\"\nlive = \"both\"\n", 4, "\"file\" or \"link\""),
            ("file = \"t\"\ntoken = \"/x\"\nsyntax = \"ini\"\n", 4, "\"json\" or \"yaml\""),
            ("file = \"t\"\ntoken = \"/x\"\nexpires_at = \"/e\"\n", 4, "needs expires_unit"),
            ("file = \"t\"\ntoken = \"/x\"\nexpires_unit = \"s\"\n", 4, "without expires_at"),
            ("file = \"t\"\ntoken = \"/x\"\nexpires_at = \"/e\"\nexpires_unit = \"h\"\n", 5, "\"rfc3339\""),
            ("file = \"t\"\ntoken = \"/x\"\nlock = \"t.work\"\n", 4, "the name of a login"),
            ("file = \"t\"\ntoken = \"/x\"\nlock = \"../x\"\n", 4, "credentials.p.lock must be"),
            ("format = \"gh\"\nidentity_command = [\"whose\"]\n", 3, "whole path"),
            ("format = \"gh\"\nidentity_command = []\n", 3, "whole path"),
        ] {
            let problem = profile(text).expect_err(text);
            assert!(
                problem.starts_with(&format!("line {line}: ")) && problem.contains(words),
                "{text}: {problem}"
            );
        }
        assert!(profile("format = \"gh\"\ntokens = \"/x\"\n").unwrap_err().contains("tokens"));
    }
}
