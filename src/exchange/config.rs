//! exchange.toml: who takes part, as which uid, under which limits.

mod credentials;

use crate::wire::credential::Format;
use crate::wire::name::AgentName;
use credentials::WrittenProfile;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use toml::Spanned;

/// Longest agent name in an exchange, in bytes: the names of a pair's files hold two of them, and a
/// file name ends at 255.
pub const MAX_NAME: usize = 100;

/// exchange.toml, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agents.
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// Seconds a timestamp may lie in the future. Default 300.
    pub clock_skew_seconds: i64,
    /// Bytes a message body may have (TRUSTED agents: any). Default 65,536.
    pub max_body_bytes: usize,
    /// Agents whose unsigned (v2) lines are accepted. Default: none.
    pub allow_unsigned_from: Vec<AgentName>,
    /// Accept handoffs of pairs whose secret is not held here, checking their shape only.
    pub relay_handoffs: bool,
    /// Most `refs` of one message. Default 64.
    pub max_refs: usize,
    /// Messages a minute that an agent may send; 0, the default: any number.
    pub rate_per_minute: u32,
    /// Incidents a minute that an agent may send; 0: any number. Default 6.
    pub incidents_per_minute: u32,
    /// How often two agents may answer each other in one thread within an hour; 0: any number. Default 60.
    pub turns_per_thread: u32,
    /// Bytes that an inbox may have before it is archived; 0: any number. Default 4 GiB.
    pub inbox_bytes: u64,
    /// Bytes that are kept in quarantine for one actor; 0: any number. Default 256 MiB.
    pub quarantine_bytes: u64,
    /// Who decides about what: a domain's owners.
    pub domains: BTreeMap<String, Vec<AgentName>>,
    /// The credential profiles by name.
    pub credentials: BTreeMap<String, ProfileConfig>,
}

/// `[agents.<name>]`
#[derive(Debug, Clone, Default)]
pub struct AgentConfig {
    /// The uid that acts as this agent.
    pub uid: Option<u32>,
    /// Whether it may carry signed lines and handoffs of others.
    pub may_relay: bool,
    /// Whether its unsigned lines are completed and signed with its key. Where nothing is said: on the
    /// mounts that are the agent's (`--as`), not for its uid on a mount of many.
    pub seal: Option<bool>,
    /// Whether a mount that is the agent's sends its heartbeats.
    pub heartbeat: bool,
    /// Messages a minute that it may send, in place of the exchange's.
    pub rate_per_minute: Option<u32>,
}

/// `[credentials.<profile>]`
#[derive(Debug, Clone)]
pub struct ProfileConfig {
    /// The file format of its slots.
    pub format: Format,
    /// `strict` refuses rotation too.
    pub strict: bool,
    /// The agents that may use it; `None`: all.
    pub agents: Option<Vec<AgentName>>,
    /// The operator's own program and its arguments: prints whose the login on its standard input is.
    pub identity_command: Option<Vec<String>>,
}

/// exchange.toml as it stands in the file, before names and limits are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    exchange: WrittenExchange,
    #[serde(default)]
    agents: BTreeMap<Spanned<String>, WrittenAgent>,
    #[serde(default)]
    domains: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    credentials: BTreeMap<Spanned<String>, WrittenProfile>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenExchange {
    clock_skew_seconds: Option<Spanned<i64>>,
    max_body_bytes: Option<Spanned<i64>>,
    #[serde(default)]
    allow_unsigned_from: Vec<Spanned<String>>,
    #[serde(default)]
    relay_handoffs: bool,
    max_refs: Option<Spanned<i64>>,
    rate_per_minute: Option<Spanned<i64>>,
    incidents_per_minute: Option<Spanned<i64>>,
    turns_per_thread: Option<Spanned<i64>>,
    inbox_bytes: Option<Spanned<i64>>,
    quarantine_bytes: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAgent {
    uid: Option<Spanned<i64>>,
    #[serde(default)]
    may_relay: bool,
    seal: Option<bool>,
    #[serde(default)]
    heartbeat: bool,
    rate_per_minute: Option<u32>,
}

impl Config {
    /// Reads exchange.toml's text.
    ///
    /// # Errors
    /// A sentence that names the line or key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let at = |offset: usize, problem: String| {
            let line = text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
            format!("line {line}: {problem}")
        };

        let mut agents = BTreeMap::new();
        let mut uids: BTreeMap<u32, AgentName> = BTreeMap::new();
        for (name, agent) in &written.agents {
            let start = name.span().start;
            let name = check_agent_name(name.get_ref()).map_err(|problem| at(start, problem))?;
            let uid = match &agent.uid {
                None => None,
                Some(written) => {
                    let start = written.span().start;
                    // -1 is chown's "leave as it is" and nobody's uid.
                    let uid = u32::try_from(*written.get_ref()).ok().filter(|&uid| uid != u32::MAX);
                    let uid = uid.ok_or_else(|| {
                        at(start, format!("agents.{name}.uid must be a user id, from 0 to 4294967294"))
                    })?;
                    if let Some(other) = uids.insert(uid, name.clone()) {
                        return Err(at(
                            start,
                            format!(
                                "{other} and {name} have the same uid {uid}; give it to one of them and mount \
                                 with --as for the other"
                            ),
                        ));
                    }
                    Some(uid)
                }
            };
            agents.insert(
                name,
                AgentConfig {
                    uid,
                    may_relay: agent.may_relay,
                    seal: agent.seal,
                    heartbeat: agent.heartbeat,
                    rate_per_minute: agent.rate_per_minute,
                },
            );
        }
        check_bilateral_names(agents.keys())?;

        let known = |list: &[Spanned<String>], key: &str| -> Result<Vec<AgentName>, String> {
            list.iter()
                .map(|name| {
                    AgentName::parse(name.get_ref()).ok().filter(|n| agents.contains_key(n)).ok_or_else(
                        || {
                            at(
                                name.span().start,
                                format!(
                                    "{key} names {:?}, which has no [agents.…] table here",
                                    name.get_ref()
                                ),
                            )
                        },
                    )
                })
                .collect()
        };
        let within = |value: &Option<Spanned<i64>>, key: &str, default: i64, most: i64| match value {
            None => Ok(default),
            Some(v) if (0..=most).contains(v.get_ref()) => Ok(*v.get_ref()),
            Some(v) => Err(at(v.span().start, format!("exchange.{key} must be from 0 to {most}"))),
        };

        let mut domains = BTreeMap::new();
        for (name, owners) in &written.domains {
            domains.insert(name.clone(), known(owners, &format!("domains.{name}"))?);
        }

        let mut credentials = BTreeMap::new();
        for (name, profile) in &written.credentials {
            let checked = profile.check(name, &known)?;
            let checked = checked.map_err(|(offset, problem)| at(offset, problem))?;
            credentials.insert(name.get_ref().clone(), checked);
        }

        let exchange = &written.exchange;
        Ok(Config {
            clock_skew_seconds: within(&exchange.clock_skew_seconds, "clock_skew_seconds", 300, 86_400)?,
            max_body_bytes: within(&exchange.max_body_bytes, "max_body_bytes", 65_536, 16 << 20)? as usize,
            allow_unsigned_from: known(&exchange.allow_unsigned_from, "exchange.allow_unsigned_from")?,
            relay_handoffs: exchange.relay_handoffs,
            max_refs: within(&exchange.max_refs, "max_refs", 64, 100_000)? as usize,
            rate_per_minute: within(&exchange.rate_per_minute, "rate_per_minute", 0, 1_000_000_000)? as u32,
            incidents_per_minute: within(
                &exchange.incidents_per_minute,
                "incidents_per_minute",
                6,
                1_000_000,
            )? as u32,
            turns_per_thread: within(&exchange.turns_per_thread, "turns_per_thread", 60, 1_000_000)? as u32,
            inbox_bytes: within(&exchange.inbox_bytes, "inbox_bytes", 4 << 30, 1 << 50)? as u64,
            quarantine_bytes: within(&exchange.quarantine_bytes, "quarantine_bytes", 256 << 20, 1 << 50)?
                as u64,
            domains,
            agents,
            credentials,
        })
    }

    /// The commented exchange.toml of a new exchange: the defaults, these agents with their uids, and
    /// one credential profile `claude`.
    ///
    /// # Errors
    /// What [`Config::parse`] would say of it: a reserved or too long name, one uid for two agents.
    pub fn template(agents: &[(AgentName, Option<u32>)]) -> Result<String, String> {
        let mut text = TEMPLATE_HEAD.to_owned();
        for (name, uid) in agents {
            // Handles may hold dots, which an unquoted key would take for tables.
            let _ = writeln!(text, "\n[agents.\"{name}\"]");
            match uid {
                Some(uid) => {
                    let _ = writeln!(text, "uid = {uid}");
                }
                None => text.push_str("# uid = 1001\n"),
            }
        }
        text.push_str(TEMPLATE_TAIL);
        Config::parse(&text)?;
        Ok(text)
    }
}

/// Reads an agent's name and keeps out those that would collide in the exchange's folder.
///
/// # Errors
/// A sentence.
pub fn check_agent_name(text: &str) -> Result<AgentName, String> {
    let name = AgentName::parse(text).map_err(|e| e.to_string())?;
    // Events and refusals name the operator by this word.
    if name.as_str() == "operator" {
        return Err(format!("{text:?} is the human who owns the exchange; choose another agent name"));
    }
    if name.as_str().len() > MAX_NAME {
        return Err(format!("{text:?} is too long: an agent name may have {MAX_NAME} characters here"));
    }
    Ok(name)
}

/// `a_to_b` and `c` share the log `a_to_b_to_c.jsonl` with `a` and `b_to_c`: no such four in one exchange.
fn check_bilateral_names<'a>(agents: impl Iterator<Item = &'a AgentName> + Clone) -> Result<(), String> {
    let mut logs: BTreeMap<String, (&AgentName, &AgentName)> = BTreeMap::new();
    if !agents.clone().any(|a| a.as_str().contains("_to_")) {
        return Ok(());
    }
    for from in agents.clone() {
        for to in agents.clone().filter(|to| *to != from) {
            let log = format!("{from}_to_{to}.jsonl");
            if let Some((a, b)) = logs.insert(log.clone(), (from, to)) {
                return Err(format!(
                    "the log {log} would be both {a}'s to {b} and {from}'s to {to}; rename one of these agents"
                ));
            }
        }
    }
    Ok(())
}

const TEMPLATE_HEAD: &str = r#"# This folder is a batonfs exchange. Mount it: baton mount <this folder> <mountpoint>
# The daemon reads this file when it starts.

[exchange]
# How far into the future a message's timestamp may lie.
clock_skew_seconds = 300
# Largest body of a message. Agents of tier TRUSTED may send any size.
max_body_bytes = 65536
# Agents whose unsigned lines are accepted all the same. Only the uid or mount it was written through
# vouches for such a line, and nothing for it later: keep this empty unless a program cannot sign.
allow_unsigned_from = []
# true: also take handoffs of pairs whose secret is not held here. Only their form is checked; the
# receiver has to verify them.
relay_handoffs = false
# Most refs of one message.
max_refs = 64
# Messages a minute that one agent may send (TRUSTED agents: any number), incidents a minute, and how often
# two agents may answer each other in one thread within an hour. 0 is no limit.
rate_per_minute = 0
incidents_per_minute = 6
turns_per_thread = 60
# Bytes of an inbox before it must be archived (baton archive), and of what is kept of one agent's refused
# writes. 0 is no limit.
inbox_bytes = 4294967296
quarantine_bytes = 268435456

# One table per agent. A process with the agent's uid acts as that agent; agents that share a user
# have no uid here and get a mount of their own: baton mount --as <agent>.
# may_relay = true lets an agent carry lines and handoffs that others have signed.
# Unsigned lines that come through an agent's own mount (--as) are completed and signed with its key.
# seal = true does so for its uid too, seal = false nowhere: its lines must arrive signed.
# heartbeat = true has its mount send its heartbeats.
# rate_per_minute = 60 gives it a limit of its own.
#
# To add one: give it a table here, then
#   head -c 32 /dev/urandom | base64 > carol.key
#   baton key import --as carol carol.key && rm carol.key
#   baton secret import --pair bob,carol FILE      # for handoffs; FILE holds any secret bytes
"#;

const TEMPLATE_TAIL: &str = r#"
# Who decides about what. A proposal that names a domain in affected_domains becomes a decision when all
# the domain's owners have acked it; one that names none, when all its recipients have.
[domains]
# release = ["bob", "alice"]

# Guarded logins: the folder credentials/<profile>/ of the tree.
[credentials.claude]
format = "claude"
# "rotating": a refresh of the same login is let through, another account's login is refused.
# "strict": no change of the refresh token is let through.
identity = "rotating"
# The agents that may use it. Without this line: all.
# agents = ["bob"]
# A program of your own: gets a login on its standard input and prints whose it is, where the file can't say.
# identity_command = ["/usr/local/bin/whose-login"]

# Logins of other programs: auth.json of Codex, oauth_creds.json of Gemini, hosts.yml of gh.
# [credentials.codex]
# format = "codex"
# [credentials.gemini]
# format = "gemini"
# [credentials.gh]
# format = "gh"

# One of your own: the live file's name, and where in it stand what says whose account it is ("/a/b", or a claim of
# the JWT there: "/id_token#sub"), the token, and when it expires ("ms" or "s" since 1970, or "rfc3339").
# [credentials.mine]
# file = "token.json"
# live = "file"                  # or "link": agents see the symlink
# syntax = "json"                # or "yaml"
# account = ["/user/id"]
# token = "/refresh_token"
# expires_at = "/expires_at"
# expires_unit = "s"
# unchanging = ["/scopes"]       # what no refresh changes
# lock = ".refresh.lock"         # the folder that the program makes while it refreshes
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Config::parse(text).expect_err("it should be refused")
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = Config::parse("").expect("parse");
        assert_eq!((config.clock_skew_seconds, config.max_body_bytes), (300, 65_536));
        assert!(config.agents.is_empty() && config.allow_unsigned_from.is_empty() && !config.relay_handoffs);
    }

    #[test]
    fn the_template_is_read_back() {
        let names = [("bob", Some(1001)), ("alice", None), ("dot.ted", Some(1002))];
        let agents: Vec<_> =
            names.iter().map(|(n, uid)| (AgentName::parse(n).expect("name"), *uid)).collect();
        let config = Config::parse(&Config::template(&agents).expect("template")).expect("parse");
        assert_eq!(config.agents.len(), 3);
        for (name, uid) in &agents {
            assert_eq!(config.agents[name].uid, *uid);
        }
        assert!(!config.credentials["claude"].strict);
    }

    #[test]
    fn the_templates_examples_of_profiles_are_good() {
        let (_, tail) = TEMPLATE_TAIL.split_once("# Logins of other programs").expect("the examples");
        let is_toml = |line: &str| line.starts_with('[') || line.contains(" = ");
        let lines = tail.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| is_toml(line));
        let config = Config::parse(&lines.collect::<Vec<_>>().join("\n")).expect("parse");
        let formats: Vec<_> =
            config.credentials.values().map(|profile| profile.format.live.as_str()).collect();
        assert_eq!(formats, ["auth.json", "oauth_creds.json", "hosts.yml", "token.json"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let problem = refused("[exchange]\nclock_skew = 5\n");
        assert!(problem.contains("line 2") && problem.contains("clock_skew"), "{problem}");
    }

    #[test]
    fn what_breaks_a_check_is_named_with_its_line() {
        for (text, line, words) in [
            ("[agents.\"-x\"]\n", 1, "no agent name"),
            ("\n[agents.operator]\n", 2, "owns the exchange"),
            ("[agents.a]\nuid = -1\n", 2, "user id"),
            ("[agents.a]\nuid = 5\n[agents.b]\nuid = 5\n", 4, "same uid"),
            ("[exchange]\nallow_unsigned_from = [\"eve\"]\n", 2, "eve"),
            ("[exchange]\nmax_body_bytes = -1\n", 2, "from 0 to"),
            ("[credentials.\"../x\"]\nformat = \"claude\"\n", 1, "profile name"),
            ("[credentials.c]\nformat = \"codec\"\n", 2, "codec"),
            ("[credentials.c]\nformat = \"claude\"\nidentity = \"lax\"\n", 3, "lax"),
            ("[credentials.c]\nformat = \"claude\"\nagents = [\"eve\"]\n", 3, "eve"),
        ] {
            let problem = refused(text);
            assert!(problem.starts_with(&format!("line {line}: ")) && problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn four_agents_whose_bilateral_logs_collide_are_refused() {
        let problem = refused("[agents.a]\n[agents.b_to_c]\n[agents.a_to_b]\n[agents.c]\n");
        assert!(problem.contains("a_to_b_to_c.jsonl"), "{problem}");
    }
}
