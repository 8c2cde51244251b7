//! README.md, SKILL.md and PROTOCOL.md: the texts in mount/tree/, with this exchange's names and limits.
//!
//! `{{name}}` stands for a value. A line that begins with `{{name?}}` is kept where that value is not empty, one with
//! `{{name!}}` where it is; with both, where both hold. So one text serves mounts that sign and mounts that do not.

use super::super::config::Config;
use super::super::{Actor, Caller, Exchange};
use crate::rules::conversation::presence::{Activity, Cadence};
use crate::wire::name::AgentName;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const README: &str = include_str!("../../../mount/tree/README.md");
const SKILL: &str = include_str!("../../../mount/tree/SKILL.md");
const PROTOCOL: &str = include_str!("../../../mount/tree/PROTOCOL.md");

/// One of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// README.md: the tree, and the commands that are needed most.
    Readme,
    /// SKILL.md: the same as a skill, with front matter.
    Skill,
    /// PROTOCOL.md: the formats.
    Protocol,
}

impl Text {
    /// All of them, by file name.
    pub(super) const ALL: [(&str, Text); 3] =
        [("README.md", Text::Readme), ("SKILL.md", Text::Skill), ("PROTOCOL.md", Text::Protocol)];

    fn template(self) -> &'static str {
        match self {
            Text::Readme => README,
            Text::Skill => SKILL,
            Text::Protocol => PROTOCOL,
        }
    }
}

type Values = BTreeMap<&'static str, String>;

impl Exchange {
    /// A text for its reader: with its name where the mount is an agent's.
    pub(super) fn text(&self, caller: &Caller, text: Text) -> String {
        let actor = self.actor(caller);
        let me = match &actor {
            Actor::Agent(agent) => Some(agent),
            Actor::Operator | Actor::Stranger(_) => None,
        };
        let cadence = self.conversation().presence.cadence();
        let signs = self.sealing_key(caller).is_some();
        let mut values = values(&self.config, me, signs, &cadence);
        if let Actor::Stranger(_) = actor {
            values.insert("who", "You may read here what its modes let you read, and change nothing.".into());
        }
        fill(text.template(), &values)
    }
}

/// SKILL.md for a skills directory: of no exchange in particular, with bob and alice as examples.
pub fn general_skill() -> String {
    let config = Config::parse("[agents.alice]\n[agents.bob]\n").expect("two agents make a configuration");
    let bob = config.agents.keys().next_back().cloned();
    let mut values = values(&config, bob.as_ref(), true, &Cadence::default());
    let who = "In the examples you are bob and write to alice: `cat status/me` in the mount tells who you are, \
               `ls inbox` who else takes part, and its own README.md and SKILL.md show these commands with your names.";
    values.insert("who", who.into());
    fill(SKILL, &values)
}

fn values(config: &Config, me: Option<&AgentName>, signs: bool, cadence: &Cadence) -> Values {
    let agents: Vec<&AgentName> = config.agents.keys().collect();
    let example = me.or(agents.first().copied());
    let peer = agents.iter().copied().find(|agent| Some(*agent) != example).or(example);
    let (domain, _) = config.domains.first_key_value().unzip();
    let others: Vec<String> = agents.iter().filter(|a| Some(**a) != me).map(|a| format!("`{a}`")).collect();
    let name = |agent: Option<&AgentName>| agent.map_or("<agent>".to_owned(), ToString::to_string);
    let who = match me {
        Some(me) if others.is_empty() => format!("You are `{me}`, alone so far."),
        Some(me) => format!("You are `{me}`. The others are {}.", others.join(", ")),
        None => format!(
            "You are the operator, who may act for every agent ({}) but signs for none. The examples are `{}`'s.",
            others.join(", "),
            name(example)
        ),
    };
    let sends_heartbeats = signs && me.and_then(|me| config.agents.get(me)).is_some_and(|me| me.heartbeat);
    let flag = |flag: bool| if flag { "yes" } else { "" }.to_owned();
    let limit = |limit: u64, unit: &str| match limit {
        0 => "any number".to_owned(),
        limit => format!("{limit}{unit}"),
    };
    let rate = me.and_then(|me| config.agents.get(me)?.rate_per_minute).unwrap_or(config.rate_per_minute);
    let period = |activity| cadence.period(activity).to_string();
    Values::from([
        ("me", name(example)),
        ("peer", name(peer)),
        ("who", who),
        ("signs", flag(signs)),
        ("beats", flag(sends_heartbeats)),
        ("domain", domain.cloned().unwrap_or_default()),
        ("domains", domains(config)),
        ("body_kib", (config.max_body_bytes / 1024).to_string()),
        ("refs", limit(config.max_refs as u64, "")),
        ("rate", limit(rate.into(), " a minute")),
        ("incidents", limit(config.incidents_per_minute.into(), " a minute")),
        ("turns", limit(config.turns_per_thread.into(), " an hour")),
        ("skew", config.clock_skew_seconds.to_string()),
        ("t0", period(Activity::HeadsDown)),
        ("t1", period(Activity::Active)),
        ("t2", period(Activity::Idle)),
        ("t3", period(Activity::LongIdle)),
    ])
}

/// The domains as rows of a table.
fn domains(config: &Config) -> String {
    let mut rows = String::new();
    for (domain, owners) in &config.domains {
        let owners: Vec<&str> = owners.iter().map(AgentName::as_str).collect();
        let separator = if rows.is_empty() { "" } else { "\n" };
        let _ = write!(rows, "{separator}| `{domain}` | {} |", owners.join(", "));
    }
    rows
}

fn fill(template: &str, values: &Values) -> String {
    let is_set = |name: &str| values.get(name).is_some_and(|value| !value.is_empty());
    let mut text = String::with_capacity(template.len());
    'lines: for mut line in template.split_inclusive('\n') {
        while let Some((name, wanted, rest)) = condition(line) {
            if is_set(name) != wanted {
                continue 'lines;
            }
            line = rest;
        }
        text.push_str(line);
    }
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}

/// The name of a line's condition, whether the value must be set, and the rest of the line.
fn condition(line: &str) -> Option<(&str, bool, &str)> {
    let (name, rest) = line.strip_prefix("{{")?.split_once("}}")?;
    if let Some(name) = name.strip_suffix('?') {
        return Some((name, true, rest));
    }
    Some((name.strip_suffix('!')?, false, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[agents.alice]\n[agents.bob]\nheartbeat = true\n[agents.carol]\n\
                          [domains]\nrelease = [\"alice\", \"bob\"]\n";

    fn filled(text: Text, me: Option<&str>, signs: bool) -> String {
        let me = me.map(|me| AgentName::parse(me).unwrap());
        let config = Config::parse(CONFIG).unwrap();
        fill(text.template(), &values(&config, me.as_ref(), signs, &Cadence::default()))
    }

    #[test]
    fn a_line_is_kept_by_its_condition_and_values_take_their_places() {
        let values = Values::from([("a", "x".to_owned()), ("b", String::new())]);
        let text = fill(
            "{{a?}}one {{a}}\n{{a!}}two\n{{b?}}three\n{{a?}}{{b!}}four{{b}}\nfive {{a}}{{a}}\n",
            &values,
        );
        assert_eq!(text, "one x\nfour\nfive xx\n");
    }

    #[test]
    fn every_text_is_whole_and_short_enough_for_every_reader() {
        for (name, text) in Text::ALL {
            for me in [None, Some("bob"), Some("carol")] {
                for signs in [false, true] {
                    let filled = filled(text, me, signs);
                    assert!(!filled.contains("{{"), "{name} has a value without a name:\n{filled}");
                    let limit = if name == "PROTOCOL.md" { 10_240 } else { 6_144 };
                    assert!(filled.len() <= limit, "{name} has {} bytes, {limit} at most", filled.len());
                }
            }
        }
        assert!(general_skill().len() <= 6_144);
        assert!(!general_skill().contains("{{"));
    }

    #[test]
    fn a_reader_finds_its_own_name_and_whether_its_mount_signs() {
        let readme = filled(Text::Readme, Some("bob"), true);
        assert!(readme.contains("You are `bob`. The others are `alice`, `carol`."));
        assert!(readme.contains(">> inbox/alice.jsonl") && !readme.contains("baton sign"));
        let unsigned = filled(Text::Readme, Some("bob"), false);
        assert!(unsigned.contains("baton sign --as bob"));
        let operator = filled(Text::Readme, None, false);
        assert!(operator.contains("You are the operator"));
    }

    #[test]
    fn a_skill_begins_with_front_matter_that_skills_directories_take() {
        for skill in [filled(Text::Skill, Some("bob"), true), general_skill()] {
            let front = skill.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).unwrap().0;
            let member = |name: &str| {
                let line = front.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
                line.to_owned()
            };
            assert_eq!(member("name"), "batonfs");
            // The strictest reader: at most 500 characters, on one line, nothing that YAML would take for more.
            let description = member("description");
            assert!((50..500).contains(&description.len()) && !description.contains(": "), "{description}");
        }
    }
}
