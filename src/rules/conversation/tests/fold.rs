//! The fold as a whole, over random conversations.

use super::*;
use crate::rules::conversation::presence::Activity;
use crate::wire::decision::Decision;
use proptest::prelude::*;

/// One message, or the operator.
#[derive(Debug, Clone)]
enum Step {
    Say { wait: i64, from: usize, to: Vec<usize>, kind: usize, thread: usize, extra: usize },
    Settle { thread: usize, accept: bool },
    Clear,
}

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const THREADS: [&str; 3] = ["p", "q", "r"];
const KINDS: [&str; 8] = ["proposal", "proposal", "ack", "ack", "ack", "incident", "request", "ship"];
const EXTRAS: [&str; 5] = [
    "{}",
    r#"{"affected_domains":["api"]}"#,
    r#"{"affected_domains":["ui","db"]}"#,
    r#"{"affected_domains":["db"]}"#,
    r#"{"ack_required":true,"subject":"set_tiers","body":{"T1_active":45}}"#,
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![4 => 0..60i64, 2 => 60..400i64, 1 => 400..4000i64];
    let to = proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=4);
    let say = (wait, 0..4usize, to, 0..9usize, 0..THREADS.len(), 0..EXTRAS.len());
    let say = say.prop_map(|(wait, from, to, kind, thread, extra)| Step::Say {
        wait,
        from,
        to,
        kind,
        thread,
        extra,
    });
    let settle =
        (0..THREADS.len(), any::<bool>()).prop_map(|(thread, accept)| Step::Settle { thread, accept });
    proptest::collection::vec(prop_oneof![40 => say, 1 => settle, 1 => Just(Step::Clear)], 1..80)
}

/// What was committed: when, and to whom.
type History = Vec<(Timestamp, Message, Vec<AgentName>)>;

impl Scene {
    /// Does one step: what followed, and whether it was let through.
    fn step(&mut self, step: &Step, history: &mut History) -> Result<Vec<Effect>, Option<Rule>> {
        match step {
            Step::Clear => {
                self.conversation.clear_safe_mode();
                Ok(Vec::new())
            }
            Step::Settle { thread, accept } => {
                self.conversation.settle(THREADS[*thread], *accept, self.now).map_err(|_| None)
            }
            Step::Say { wait, from, to, kind, thread, extra } => {
                self.now = self.now.plus_seconds(*wait);
                self.said += 1;
                let kind = KINDS.get(*kind).copied().unwrap_or("heartbeat");
                let extra = if kind == "proposal" || *extra == 4 { EXTRAS[*extra] } else { "{}" };
                let message = message(self.said, NAMES[*from], kind, THREADS[*thread], extra);
                let to: Vec<_> = to.iter().map(|n| agent(NAMES[*n])).collect();
                let fact = Fact { at: self.now, message: &message, to: &to, tier: self.tier };
                self.conversation
                    .check(&fact, Default::default(), &self.charter)
                    .map_err(|refusal| Some(refusal.rule))?;
                let effects = self.conversation.observe(&fact, &self.charter);
                history.push((self.now, message, to));
                Ok(effects)
            }
        }
    }
}

/// Limits that random conversations meet.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.charter.limits =
        Limits { rate_per_minute: 12, incidents_per_minute: 2, turns_per_thread: 8, ..Limits::default() };
    scene
}

/// Whose acks the last message of a history, a proposal, needs. It is the thread's `counters`th
/// counter-proposal.
fn needed(
    charter: &Charter,
    history: &[(Timestamp, Message, Vec<AgentName>)],
    counters: u32,
) -> BTreeSet<AgentName> {
    let (_, last, _) = history.last().expect("a proposal");
    let in_thread = history.iter().filter(|(_, message, _)| {
        message.message_type == "proposal" && message.correlation_id == last.correlation_id
    });
    let chain: Vec<_> = in_thread.collect();
    let chain = &chain[chain.len() - 1 - counters as usize..];
    let (mut needed, mut parties) = (BTreeSet::new(), BTreeSet::new());
    let mut domains: Vec<&str> = Vec::new();
    for (n, (_, message, to)) in chain.iter().enumerate() {
        if let Some(named) = message.object.get("affected_domains").and_then(Value::as_array) {
            domains = named.iter().filter_map(Value::as_str).collect();
        }
        let mut concerned: BTreeSet<_> =
            domains.iter().flat_map(|domain| &charter.domains[*domain]).cloned().collect();
        if message.text("subject") == Some("set_tiers") {
            concerned.extend(charter.agents.iter().cloned());
        }
        if domains.is_empty() && concerned.is_empty() {
            // Whom the one before concerned, or who got the first.
            concerned = if n > 0 { &needed | &parties } else { to.iter().cloned().collect() };
        }
        concerned.remove(&message.from);
        needed = concerned;
        parties.insert(message.from.clone());
    }
    needed
}

fn through_json(conversation: &Conversation) -> Conversation {
    let text = serde_json::to_string(conversation).expect("a snapshot");
    let read: Conversation = serde_json::from_str(&text).expect("what was written");
    assert_eq!(read, *conversation);
    assert_eq!(serde_json::to_string(&read).expect("a snapshot"), text);
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A restart from a snapshot at any moment, and ticks at any time, change neither what is refused nor
    /// what follows.
    #[test]
    fn snapshots_and_ticks_change_nothing(steps in steps(), snapshots in 1..20usize, ticks in 1..5usize) {
        let (mut plain, mut other) = (scene(), scene());
        let (mut plain_effects, mut other_effects) = (Vec::new(), Vec::new());
        let (mut history, mut other_history) = (Vec::new(), Vec::new());
        for (n, step) in steps.iter().enumerate() {
            // The operator's acts are events of their own, and come when all that was due has happened.
            if !matches!(step, Step::Say { .. }) {
                plain_effects.extend(plain.tick());
                other_effects.extend(other.tick());
            }
            if n % snapshots == 0 {
                other.conversation = through_json(&other.conversation);
            }
            if let (Step::Say { wait, .. }, 0) = (step, n % ticks) {
                for part in 1..=4 {
                    let now = other.now.plus_seconds(wait * part / 4);
                    other_effects.extend(other.conversation.tick(now));
                }
            }
            let (one, two) = (plain.step(step, &mut history), other.step(step, &mut other_history));
            prop_assert_eq!(one.as_ref().err(), two.as_ref().err(), "step {}", n);
            plain_effects.extend(one.unwrap_or_default());
            other_effects.extend(two.unwrap_or_default());
            // A refused message leaves the plain one without its tick.
            plain_effects.extend(plain.tick());
            other_effects.extend(other.tick());
            prop_assert_eq!(&plain.conversation, &other.conversation, "step {}", n);
        }
        prop_assert_eq!(plain_effects, other_effects);
        through_json(&plain.conversation);
    }

    /// Every decision rests on a proposal, the newest of its thread, and on acks in time by all whose acks it
    /// needed, judged from the history alone.
    #[test]
    fn decisions_rest_on_what_was_said(steps in steps()) {
        let mut scene = scene();
        let mut history = Vec::new();
        for step in &steps {
            let effects = scene.step(step, &mut history).unwrap_or_default();
            let Some(line) = effects.iter().find_map(|effect| match effect {
                Effect::Decided { line, .. } => Some(line),
                _ => None,
            }) else { continue };
            let entry = json::parse(line.as_bytes()).expect("JSON");
            let decision = Decision::from_object(entry.as_object().expect("an object")).expect("an entry");
            let evidence = decision.evidence.expect("evidence");
            let index = |id: &str| history.iter().position(|(_, message, _)| message.id_hex() == id);
            let proposed = index(&evidence.proposal).expect("the proposal was said");
            let (at, proposal, to) = &history[proposed];
            prop_assert_eq!(&proposal.from, &decision.proposer);
            prop_assert_eq!(&proposal.correlation_id, &decision.decision_id);
            let later = history[proposed + 1..].iter().filter(|(_, message, _)| {
                message.message_type == "proposal" && message.correlation_id == decision.decision_id
            });
            prop_assert_eq!(later.count(), 0, "a newer proposal");
            for (agent, id) in &evidence.acks {
                let (acked_at, ack, _) = &history[index(id).expect("the ack was said")];
                prop_assert_eq!((&ack.from, ack.message_type.as_str()), (agent, "ack"));
                prop_assert_eq!(&ack.correlation_id, &decision.decision_id);
                prop_assert!(*agent != decision.proposer);
                prop_assert!(*acked_at >= *at && acked_at.0 - at.0 <= 2 * 1_200_000_000);
            }
            prop_assert!(decision.acked_by.iter().eq(evidence.acks.keys()));
            let counters = scene.conversation.proposals.find(&decision.decision_id).expect("known").counters;
            let mut recipients = to.iter().filter(|other| **other != decision.proposer);
            let needed = needed(&scene.charter, &history[..=proposed], counters);
            let all = needed.iter().all(|owner| evidence.acks.contains_key(owner));
            let any = recipients.any(|other| evidence.acks.contains_key(other));
            let ratified = all && (!needed.is_empty() || any);
            prop_assert_eq!(ratified, !evidence.settled_by_operator, "{}", line);
        }
    }

    /// Tiers, judged from the history alone.
    #[test]
    fn tiers_follow_what_was_said(steps in steps(), wait in 0..4000i64) {
        let mut scene = scene();
        let mut history = Vec::new();
        for step in &steps {
            let _ = scene.step(step, &mut history);
        }
        scene.now = scene.now.plus_seconds(wait);
        scene.tick();
        let presence = &scene.conversation.presence;
        let cadence = presence.cadence();
        for (n, a) in NAMES.iter().enumerate() {
            for b in &NAMES[n + 1..] {
                let (a, b) = (agent(a), agent(b));
                let between = |(at, message, to): &(Timestamp, Message, Vec<AgentName>)| {
                    let passes = message.from == a && to.contains(&b) || message.from == b && to.contains(&a);
                    (passes && !message.is_heartbeat()).then_some(*at)
                };
                let last = history.iter().filter_map(between).max();
                let idle = last.map(|last| (scene.now.0 - last.0) / 1_000_000);
                let (active, long) = (i64::from(cadence.active) * 3, i64::from(cadence.idle) * 9);
                let by_time = match idle {
                    Some(idle) if idle < active => Activity::Active,
                    Some(idle) if idle < active + long => Activity::Idle,
                    _ => Activity::LongIdle,
                };
                let open_incident = scene.conversation.incidents.open().any(|incident| {
                    incident.from == a && incident.to.contains(&b) || incident.from == b && incident.to.contains(&a)
                });
                let pending: Vec<_> =
                    scene.conversation.proposals.all().filter(|proposal| proposal.is_pending()).collect();
                let countered = pending.iter().any(|proposal| {
                    proposal.counters > 0 && proposal.parties.contains(&a) && proposal.parties.contains(&b)
                });
                let rivals = pending.iter().filter(|proposal| proposal.proposer == a).any(|one| {
                    pending.iter().filter(|proposal| proposal.proposer == b).any(|two| {
                        one.domains.keys().any(|domain| two.domains.contains_key(domain))
                    })
                });
                let conflict = open_incident || countered || rivals;
                let tier = presence.activity(&a, &b, scene.now);
                prop_assert_eq!(tier, presence.activity(&b, &a, scene.now));
                prop_assert!(tier == by_time || conflict && tier == Activity::HeadsDown, "{:?} {:?}", tier, by_time);
                let calmed = history.iter().any(|(_, message, _)| message.message_type == "ship");
                if conflict && !calmed {
                    prop_assert_eq!(tier, Activity::HeadsDown, "{} {}", a, b);
                }
            }
        }
    }

    /// Rates and loops, judged from the history alone.
    #[test]
    fn limits_are_what_was_said(steps in steps()) {
        let mut scene = scene();
        let mut history: History = Vec::new();
        for step in &steps {
            let before = history.len();
            let verdict = scene.step(step, &mut history);
            let Step::Say { from, to, kind, thread, .. } = step else { continue };
            let from = agent(NAMES[*from]);
            let minute = |at: Timestamp| at.unix_seconds() > scene.now.unix_seconds() - 60;
            let mine = history[..before].iter().filter(|(at, message, _)| minute(*at) && message.from == from);
            let incidents = mine.clone().filter(|(_, message, _)| message.message_type == "incident");
            let kind = KINDS.get(*kind).copied().unwrap_or("heartbeat");
            let over = mine.count() >= 12 || kind == "incident" && incidents.count() >= 2;
            if kind == "incident" && to.iter().all(|n| agent(NAMES[*n]) == from) {
                // Nobody else would get it: that comes before any limit.
                prop_assert!(matches!(verdict, Err(Some(Rule::Recipient))));
                continue;
            }
            match verdict {
                Ok(_) => prop_assert!(!over),
                Err(Some(rule)) if rule != Rule::SafeMode => prop_assert_eq!(over, rule == Rule::Rate),
                Err(_) => continue,
            }
            if over || kind == "heartbeat" {
                continue;
            }
            let loops = to.iter().map(|n| agent(NAMES[*n])).filter(|other| *other != from).any(|other| {
                let mut last = None;
                let mut turns = 0;
                let said = history[..before].iter().filter(|(_, message, _)| {
                    !message.is_heartbeat() && message.correlation_id == THREADS[*thread]
                });
                for (n, (at, message, to)) in said.enumerate() {
                    // Who opened a thread has spoken to all who answer there.
                    let reaches = |a: &AgentName, b: &AgentName| message.from == *a && (n == 0 || to.contains(b));
                    if reaches(&from, &other) || reaches(&other, &from) {
                        let hour = at.unix_seconds() / 60 > scene.now.unix_seconds() / 60 - 60;
                        turns += u32::from(hour && last.as_ref().is_some_and(|last| *last != message.from));
                        last = Some(message.from.clone());
                    }
                }
                turns >= 8 && last.is_some_and(|last| last == other)
            });
            match verdict {
                Ok(_) => prop_assert!(!loops),
                Err(rule) => prop_assert_eq!(loops, rule == Some(Rule::Loop)),
            }
        }
    }
}
