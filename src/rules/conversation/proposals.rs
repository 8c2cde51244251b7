//! Invariants 3, 4 and 7: proposals, who has to ack them, and the decisions they become.

mod refused;
mod terms;

use super::pairs::Pairs;
use super::presence::{Activity, Presence};
use super::{Charter, Effect, Fact};
use crate::wire::decision::{Decision, Evidence};
use crate::wire::json::{self, Value};
use crate::wire::name::AgentName;
use crate::wire::time::Timestamp;
use crate::wire::{canonical, message::Message};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub use terms::Act;

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Waits for acks.
    Open,
    /// All owners have acked.
    Decided,
    /// Nobody acked in time.
    Lapsed,
    /// A decision on the same domain came first.
    Overtaken,
    /// The last counter-proposal of three: if it is not acked in time, it is the operator's.
    Escalated,
    /// The operator dropped it.
    Dropped,
}

/// The newest proposal of one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its thread.
    pub correlation_id: String,
    /// Its message id in hex.
    pub id: String,
    /// Its author.
    pub proposer: AgentName,
    /// When it was committed.
    pub at: Timestamp,
    /// Until when an ack must come.
    pub due: Timestamp,
    /// `subject`
    pub subject: String,
    /// `body`: its canonical JSON.
    pub body: String,
    /// The domains it names, with their owners.
    pub domains: BTreeMap<String, BTreeSet<AgentName>>,
    /// Whose acks it needs, the proposer not among them.
    pub owners: BTreeSet<AgentName>,
    /// Whether one ack of these is enough: the proposer owns all of the domains, and these are whom it asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_is_enough: bool,
    /// Who acked, with the ack's message id in hex.
    pub acks: BTreeMap<AgentName, String>,
    /// Counter-proposals so far.
    pub counters: u32,
    /// Who has proposed in this thread since it was opened.
    pub parties: BTreeSet<AgentName>,
    /// What the exchange does itself once it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
    /// Where it stands.
    pub standing: Standing,
    /// The thread whose decision overtook it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken_by: Option<String>,
    /// Whether the thread, after this came to an end, went on to something else that asks for acks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved_on: bool,
}

/// No fourth counter-proposal.
const MOST_COUNTERS: u32 = 3;
/// How many that wait for acks or for the operator one agent may have.
const MOST_PENDING: usize = 100;
/// How many that came to an end are kept, and how many bytes of them.
const ENDED: usize = 1000;
const ENDED_BYTES: usize = 4 << 20;
/// How many periods an ack may take.
const PERIODS: i64 = 2;

impl Proposal {
    /// Whether acks, or the operator, may still decide it.
    pub fn is_pending(&self) -> bool {
        matches!(self.standing, Standing::Open | Standing::Escalated)
    }
    /// Whose acks it lacks.
    pub fn missing(&self) -> impl Iterator<Item = &AgentName> {
        self.owners.iter().filter(|owner| !self.acks.contains_key(*owner))
    }
    /// Whether `agent`'s ack is one of those it needs. The proposer is not among them.
    fn needs(&self, agent: &AgentName) -> bool {
        self.owners.contains(agent)
    }
    fn is_pending_at(&self, now: Timestamp) -> bool {
        self.is_pending() && self.standing_at(now) != Standing::Lapsed
    }
    /// Where it stands at a time, whether or not a tick has come by since it was due.
    fn standing_at(&self, now: Timestamp) -> Standing {
        match self.standing {
            Standing::Open if self.due < now => Standing::Lapsed,
            standing => standing,
        }
    }
    fn is_ratified(&self) -> bool {
        if self.one_is_enough { !self.acks.is_empty() } else { self.missing().next().is_none() }
    }
    fn bytes(&self) -> usize {
        self.correlation_id.len() + self.subject.len() + self.body.len()
    }
    fn decision(&self, at: Timestamp, settled_by_operator: bool) -> Decision {
        // The body is canonical JSON that this program wrote.
        let body = json::parse(self.body.as_bytes()).unwrap_or(Value::Null);
        let subject = Value::String(self.subject.clone());
        let decision = [("subject".to_owned(), subject), ("body".to_owned(), body)];
        Decision {
            decision_id: self.correlation_id.clone(),
            ratified_at: at,
            proposer: self.proposer.clone(),
            acked_by: self.acks.keys().cloned().collect(),
            decision: Value::Object(decision.into()),
            domains: self.domains.clone(),
            evidence: Some(Evidence {
                proposal: self.id.clone(),
                acks: self.acks.clone(),
                settled_by_operator,
            }),
        }
    }
}

/// All proposals that still matter, by correlation_id. Its serialised form is a list: those that came to an
/// end, in that order, then those that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposals {
    threads: BTreeMap<String, Proposal>,
    /// The open ones.
    due: BTreeSet<(Timestamp, String)>,
    /// Those that came to an end, the oldest first, and their bytes.
    ended: VecDeque<String>,
    ended_bytes: usize,
    /// Those that are pending, by domain and proposer.
    domains: BTreeMap<String, BTreeMap<AgentName, BTreeSet<String>>>,
    /// Those that are pending and counter another.
    contested: BTreeSet<String>,
}

/// What a proposal is about, and who has to ack it.
struct Parts {
    domains: BTreeMap<String, BTreeSet<AgentName>>,
    owners: BTreeSet<AgentName>,
    one_is_enough: bool,
}

impl Proposals {
    /// The newest proposal of each thread.
    pub fn all(&self) -> impl Iterator<Item = &Proposal> {
        self.threads.values()
    }
    /// The newest proposal of a thread, named by its correlation_id or by the proposal's id.
    pub fn find(&self, id: &str) -> Option<&Proposal> {
        self.threads.get(id).or_else(|| self.all().find(|proposal| proposal.id == id))
    }

    /// Takes in a message. Comes after [`Proposals::tick`] for its time. `presence`: as it was before.
    pub(super) fn observe(&mut self, fact: &Fact<'_>, charter: &Charter, presence: &Presence) -> Vec<Effect> {
        let message = fact.message;
        match message.message_type.as_str() {
            "proposal" => self.propose(fact, charter, presence),
            "ack" => return self.ack(fact),
            kind => {
                let asks = kind == "incident" || message.ack_required();
                let ended = asks.then(|| self.threads.get_mut(&message.correlation_id)).flatten();
                if let Some(proposal) = ended.filter(|proposal| !proposal.is_pending()) {
                    proposal.moved_on = true;
                }
            }
        }
        Vec::new()
    }

    /// Counts the open conflicts: counter-proposals between those who have proposed in the thread, and
    /// proposals of several agents on one domain.
    pub(super) fn count_disputes(&self, disputes: &mut Pairs<u32>) {
        let mut among = |agents: &[&AgentName]| {
            for (n, a) in agents.iter().enumerate() {
                for b in &agents[n + 1..] {
                    if let Some(open) = disputes.entry(a, b) {
                        *open += 1;
                    }
                }
            }
        };
        for proposers in self.domains.values().filter(|proposers| proposers.len() > 1) {
            among(&proposers.keys().collect::<Vec<_>>());
        }
        for contested in self.contested.iter().filter_map(|id| self.threads.get(id)) {
            among(&contested.parties.iter().collect::<Vec<_>>());
        }
    }

    /// Whether [`Proposals::tick`] would change anything.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due.first().is_some_and(|(due, _)| *due < now)
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.is_due(now) {
            let Some((_, correlation_id)) = self.due.pop_first() else { break };
            self.end(&correlation_id, Standing::Lapsed);
            effects.push(Effect::Lapsed { correlation_id });
        }
        effects
    }

    /// The operator settles a proposal, named by its correlation_id or its id: enters it as decided, or drops
    /// it. Use [`super::Conversation::settle`], which also puts into force what it changes.
    ///
    /// # Errors
    /// A sentence, where there is no such proposal or it is decided already.
    pub fn settle(&mut self, id: &str, accept: bool, at: Timestamp) -> Result<Vec<Effect>, String> {
        let Some(proposal) = self.find(id) else {
            return Err(format!(
                "No proposal has the correlation_id or id {id:?}; baton decisions lists them."
            ));
        };
        if proposal.standing == Standing::Decided {
            return Err(format!("The proposal {id:?} is decided; propose anew to change it."));
        }
        let correlation_id = proposal.correlation_id.clone();
        if accept {
            return Ok(self.decide(&correlation_id, at, true));
        }
        self.end(&correlation_id, Standing::Dropped);
        Ok(Vec::new())
    }

    /// Who has to ack a proposal, by what it names or, in a counter-proposal that names nothing, by what the
    /// thread was about.
    fn parts(&self, fact: &Fact<'_>, named: Option<BTreeSet<String>>, charter: &Charter) -> Parts {
        let message = fact.message;
        let before = self.threads.get(&message.correlation_id);
        let before = before.filter(|before| before.is_pending_at(fact.at));
        let domains: BTreeMap<_, _> = match (named, before) {
            (Some(named), _) => {
                let owners = |domain: &String| charter.domains.get(domain).cloned().unwrap_or_default();
                named.into_iter().map(|domain| (domain.clone(), owners(&domain))).collect()
            }
            (None, Some(before)) => before.domains.clone(),
            (None, None) => BTreeMap::new(),
        };
        let others = |agents: &mut dyn Iterator<Item = &AgentName>| -> BTreeSet<AgentName> {
            agents.filter(|agent| **agent != message.from).cloned().collect()
        };
        let mut owners = others(&mut domains.values().flatten());
        if message.text("subject") == Some("set_tiers") {
            // Periods are everybody's, whatever domains it names.
            let of_tiers = charter.domains.get("tiers").unwrap_or(&charter.agents);
            owners.extend(others(&mut of_tiers.iter()));
        }
        if !owners.is_empty() {
            return Parts { domains, owners, one_is_enough: false };
        }
        let owners = match before.filter(|_| domains.is_empty()) {
            Some(before) => others(&mut before.owners.iter().chain(&before.parties)),
            None => others(&mut fact.to.iter()),
        };
        Parts { one_is_enough: !domains.is_empty(), domains, owners }
    }

    fn propose(&mut self, fact: &Fact<'_>, charter: &Charter, presence: &Presence) {
        let message = fact.message;
        if let Some(same) = self.threads.get_mut(&message.correlation_id).filter(|p| p.id == message.id_hex())
        {
            // The same message in another log, for others: it proposes nothing new, and the acks stand.
            if same.is_pending() && (same.domains.is_empty() || same.one_is_enough) {
                same.owners.extend(fact.to.iter().filter(|agent| **agent != message.from).cloned());
            }
            return;
        }
        // What was committed is taken as it is: `check` has refused what is malformed.
        let Parts { domains, owners, one_is_enough } =
            self.parts(fact, terms::domains(message).unwrap_or_default(), charter);
        let act = Act::read(message, presence.cadence()).unwrap_or_default();
        let slowest = owners.iter().map(|owner| presence.pair_period(&message.from, owner, fact.at)).max();
        let period = slowest.unwrap_or_else(|| presence.cadence().period(Activity::LongIdle));
        let before = self.remove(&message.correlation_id).filter(Proposal::is_pending);
        let is_counter = before.as_ref().is_some_and(|before| before.proposer != message.from);
        let (counters, mut parties) =
            before.map_or_else(Default::default, |before| (before.counters, before.parties));
        let counters = counters + u32::from(is_counter);
        parties.insert(message.from.clone());
        self.insert(Proposal {
            correlation_id: message.correlation_id.clone(),
            id: message.id_hex(),
            proposer: message.from.clone(),
            at: fact.at,
            due: fact.at.plus_seconds(period * PERIODS),
            subject: message.text("subject").unwrap_or_default().to_owned(),
            body: canonical::utf8(message.body()),
            domains,
            owners,
            one_is_enough,
            acks: BTreeMap::new(),
            counters,
            parties,
            act,
            standing: if counters < MOST_COUNTERS { Standing::Open } else { Standing::Escalated },
            overtaken_by: None,
            moved_on: false,
        });
    }

    fn ack(&mut self, fact: &Fact<'_>) -> Vec<Effect> {
        let Message { from, correlation_id, .. } = fact.message;
        let Some(proposal) = self.threads.get_mut(correlation_id) else { return Vec::new() };
        if !proposal.is_pending() || !proposal.needs(from) {
            return Vec::new();
        }
        proposal.acks.entry(from.clone()).or_insert_with(|| fact.message.id_hex());
        if proposal.is_ratified() { self.decide(correlation_id, fact.at, false) } else { Vec::new() }
    }

    fn decide(&mut self, correlation_id: &str, at: Timestamp, by_operator: bool) -> Vec<Effect> {
        self.end(correlation_id, Standing::Decided);
        let Some(decided) = self.threads.get(correlation_id) else { return Vec::new() };
        let settled_by_operator = by_operator && !decided.is_ratified();
        let line = decided.decision(at, settled_by_operator).to_line();
        let mut effects = vec![Effect::Decided { correlation_id: correlation_id.to_owned(), line }];
        effects.extend(decided.act.as_ref().map(|act| act.effect(&decided.proposer)));
        let rivals = decided.domains.keys().filter_map(|domain| self.domains.get(domain));
        let rivals: BTreeSet<String> = rivals.flat_map(BTreeMap::values).flatten().cloned().collect();
        for rival in rivals {
            self.end(&rival, Standing::Overtaken);
            if let Some(overtaken) = self.threads.get_mut(&rival) {
                overtaken.overtaken_by = Some(correlation_id.to_owned());
            }
        }
        effects
    }

    /// Gives a proposal a standing that is not pending.
    fn end(&mut self, correlation_id: &str, standing: Standing) {
        if let Some(mut proposal) = self.remove(correlation_id) {
            proposal.standing = standing;
            self.insert(proposal);
        }
    }

    fn insert(&mut self, proposal: Proposal) {
        let id = proposal.correlation_id.clone();
        if proposal.is_pending() {
            for domain in proposal.domains.keys() {
                let proposers = self.domains.entry(domain.clone()).or_default();
                proposers.entry(proposal.proposer.clone()).or_default().insert(id.clone());
            }
            if proposal.counters > 0 {
                self.contested.insert(id.clone());
            }
            if proposal.standing == Standing::Open {
                self.due.insert((proposal.due, id.clone()));
            }
        } else {
            self.ended_bytes += proposal.bytes();
            self.ended.push_back(id.clone());
        }
        self.threads.insert(id, proposal);
        while self.ended.len() > ENDED || (self.ended_bytes > ENDED_BYTES && self.ended.len() > 1) {
            let Some(oldest) = self.ended.pop_front() else { break };
            if let Some(forgotten) = self.threads.remove(&oldest) {
                self.ended_bytes -= forgotten.bytes();
            }
        }
    }

    fn remove(&mut self, correlation_id: &str) -> Option<Proposal> {
        let proposal = self.threads.remove(correlation_id)?;
        if proposal.is_pending() {
            for domain in proposal.domains.keys() {
                let Some(proposers) = self.domains.get_mut(domain) else { continue };
                if let Some(threads) = proposers.get_mut(&proposal.proposer) {
                    threads.remove(correlation_id);
                }
                proposers.retain(|_, threads| !threads.is_empty());
                if proposers.is_empty() {
                    self.domains.remove(domain);
                }
            }
            self.contested.remove(correlation_id);
            self.due.remove(&(proposal.due, proposal.correlation_id.clone()));
        } else {
            self.ended_bytes -= proposal.bytes();
            self.ended.retain(|ended| ended != correlation_id);
        }
        Some(proposal)
    }
}

impl Serialize for Proposals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ended = self.ended.iter().filter_map(|id| self.threads.get(id));
        serializer.collect_seq(ended.chain(self.all().filter(|proposal| proposal.is_pending())))
    }
}

impl<'de> Deserialize<'de> for Proposals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut proposals = Proposals::default();
        for proposal in <Vec<Proposal>>::deserialize(deserializer)? {
            proposals.insert(proposal);
        }
        Ok(proposals)
    }
}
