//! The rules of conversations, each by name, and the fold as a whole.

mod fold;
mod incidents;
mod limits;
mod presence;
mod proposals;
mod speed;

use super::limits::{Ahead, Limits};
use super::*;
use crate::rules::Rule;
use crate::wire::json::{self, Value};

/// An exchange of four agents, and its clock.
#[derive(Clone)]
struct Scene {
    conversation: Conversation,
    charter: Charter,
    now: Timestamp,
    /// Messages so far: no two are the same.
    said: u64,
    tier: Tier,
}

/// 2026-05-10T00:00:00Z, a whole hour.
const START: Timestamp = Timestamp(1_778_371_200_000_000);

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).expect(name)
}

fn agents(names: &str) -> Vec<AgentName> {
    let mut agents: Vec<_> = names.split_whitespace().map(agent).collect();
    agents.sort();
    agents
}

/// A message with the members of `extra`, a JSON object, set.
fn message(n: u64, from: &str, message_type: &str, thread: &str, extra: &str) -> Message {
    let text = format!(
        r#"{{"timestamp":"2026-05-10T00:00:00.{n:06}Z","from":"{from}","type":"{message_type}",
            "subject":"{message_type} {n}","body":"b","correlation_id":"{thread}",
            "ack_required":{}}}"#,
        message_type == "proposal"
    );
    let parse = |text: &str| match json::parse(text.as_bytes()) {
        Ok(Value::Object(object)) => object,
        other => panic!("{other:?}: {text}"),
    };
    let mut object = parse(&text);
    object.extend(parse(extra));
    Message::from_object(object).expect(extra)
}

impl Scene {
    fn new() -> Self {
        let owners = |names: &str| agents(names).into_iter().collect();
        let charter = Charter {
            agents: agents("alice bob carol dave").into_iter().collect(),
            domains: [
                ("api".to_owned(), owners("alice carol")),
                ("db".to_owned(), owners("bob")),
                ("ui".to_owned(), owners("alice bob carol")),
            ]
            .into(),
            limits: Limits::default(),
        };
        let conversation = Conversation::default();
        Scene { conversation, charter, now: START, said: 0, tier: Tier::Attested }
    }

    /// Sets the clock: seconds since the start.
    fn at(&mut self, seconds: i64) -> &mut Self {
        self.now = START.plus_seconds(seconds);
        self
    }

    /// Writes a message: what followed, or the refusal.
    fn try_with(
        &mut self,
        from: &str,
        to: &str,
        message_type: &str,
        thread: &str,
        extra: &str,
    ) -> Result<Vec<Effect>, Refusal> {
        self.said += 1;
        let message = message(self.said, from, message_type, thread, extra);
        let fact = Fact { at: self.now, message: &message, to: &agents(to), tier: self.tier };
        self.conversation.check(&fact, Default::default(), &self.charter)?;
        Ok(self.conversation.observe(&fact, &self.charter))
    }

    /// Takes in a message that was committed, unchecked; it may be one that was taken in before.
    fn commit(&mut self, message: &Message, to: &str) -> Vec<Effect> {
        let fact = Fact { at: self.now, message, to: &agents(to), tier: self.tier };
        self.conversation.observe(&fact, &self.charter)
    }

    /// Decides about a message that stands behind others in the same write.
    fn check(&self, message: &Message, to: &str, ahead: Ahead) -> Result<(), Refusal> {
        let fact = Fact { at: self.now, message, to: &agents(to), tier: self.tier };
        self.conversation.check(&fact, ahead, &self.charter)
    }

    fn with(&mut self, from: &str, to: &str, message_type: &str, thread: &str, extra: &str) -> Vec<Effect> {
        self.try_with(from, to, message_type, thread, extra).expect(message_type)
    }

    fn say(&mut self, from: &str, to: &str, message_type: &str, thread: &str) -> Vec<Effect> {
        self.with(from, to, message_type, thread, "{}")
    }

    /// The refusal, which breaks `rule` and says `advice`.
    #[track_caller]
    fn refused(&mut self, rule: Rule, advice: &str, words: [&str; 4], extra: &str) {
        let before = self.conversation.clone();
        let [from, to, message_type, thread] = words;
        let refusal = self.try_with(from, to, message_type, thread, extra).expect_err(rule.name());
        assert_eq!(refusal.rule, rule, "{refusal}");
        assert!(refusal.advice.contains(advice), "{refusal}");
        assert!(self.conversation == before, "a refusal changes nothing");
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.conversation.tick(self.now)
    }

    /// The tier of a pair, and the periods of both, now.
    fn activity(&self, a: &str, b: &str) -> &'static str {
        self.conversation.presence.activity(&agent(a), &agent(b), self.now).as_str()
    }
}

/// The ids of what a list of effects decided, and the words of the others.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Decided { correlation_id, .. } => format!("decided {correlation_id}"),
        Effect::AddKey { agent, key_id, .. } => format!("add-key {agent} {key_id}"),
        Effect::DeactivateKey { agent, key_id } => format!("deactivate-key {agent} {key_id}"),
        Effect::CadenceSet { cadence } => format!("cadence {} {}", cadence.heads_down, cadence.active),
        Effect::Lapsed { correlation_id } => format!("lapsed {correlation_id}"),
        Effect::SafeMode { from, .. } => format!("safe-mode {from}"),
        Effect::Reciprocated { asker, acker } => format!("{asker} thanks {acker}"),
    };
    effects.iter().map(word).collect()
}

/// Those of [`words`] that are about decisions.
fn decisions(effects: &[Effect]) -> Vec<String> {
    words(effects).into_iter().filter(|word| !word.contains("thanks")).collect()
}
