//! Entries of decisions.jsonl. Source: PROTOCOLS section 2, invariant 7.
//!
//! One JSON object per line:
//!
//! | member | |
//! |---|---|
//! | `decision_id` | the correlation_id of the proposal's thread |
//! | `ratified_at` | ISO 8601: when the last ack came |
//! | `proposer` | handle |
//! | `acked_by` | list of handles, sorted |
//! | `decision` | what was decided: here `{subject, body}` of the proposal; any JSON in others' entries |
//! | `canonical` | `true` |
//! | `affected_domains` | list of domains, sorted; may be absent in others' entries |
//! | `domain_owners` | `{domain: [handles]}`; may be absent in others' entries |
//! | `evidence` | `{proposal: <message id>, acks: {<handle>: <message id>}}`, ids in hex; with `settled_by: "operator"` where not everyone acked; absent in others' entries |

#[cfg(test)]
mod tests;

use super::canonical;
use super::json::{Object, Value};
use super::name::AgentName;
use super::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The correlation_id of the proposal's thread.
    pub decision_id: String,
    /// When the last ack came.
    pub ratified_at: Timestamp,
    /// Who proposed it.
    pub proposer: AgentName,
    /// Who acked it.
    pub acked_by: BTreeSet<AgentName>,
    /// What was decided.
    pub decision: Value,
    /// The domains that it is about, with their owners.
    pub domains: BTreeMap<String, BTreeSet<AgentName>>,
    /// What it rests on; `None` in entries that no exchange made.
    pub evidence: Option<Evidence>,
}

/// The messages that a decision rests on, by their ids in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The proposal.
    pub proposal: String,
    /// The acks.
    pub acks: BTreeMap<AgentName, String>,
    /// Whether the operator settled it, with acks missing.
    pub settled_by_operator: bool,
}

/// The object is no entry; the sentence says which member is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecisionError(pub String);

impl Decision {
    /// The line, without newline: utf8-canonical JSON.
    pub fn to_line(&self) -> String {
        let list = |names: &BTreeSet<AgentName>| Value::Array(names.iter().map(handle).collect());
        let owners = self.domains.iter().map(|(domain, owners)| (domain.clone(), list(owners))).collect();
        let mut members = vec![
            ("decision_id", Value::String(self.decision_id.clone())),
            ("ratified_at", Value::String(self.ratified_at.to_string())),
            ("proposer", handle(&self.proposer)),
            ("acked_by", list(&self.acked_by)),
            ("decision", self.decision.clone()),
            ("canonical", Value::Bool(true)),
            ("affected_domains", Value::Array(self.domains.keys().cloned().map(Value::String).collect())),
            ("domain_owners", Value::Object(owners)),
        ];
        members.extend(self.evidence.as_ref().map(|evidence| ("evidence", evidence.to_value())));
        canonical::utf8(&object(members))
    }

    /// Reads an entry, an exchange's own or another program's.
    ///
    /// # Errors
    /// [`DecisionError`].
    pub fn from_object(entry: &Object) -> Result<Self, DecisionError> {
        let ratified_at = text(entry, "ratified_at")?;
        let decision = entry.get("decision").ok_or_else(|| missing("decision"))?;
        if entry.get("canonical") != Some(&Value::Bool(true)) {
            return fail("canonical must be true");
        }
        let mut domains: BTreeMap<String, BTreeSet<AgentName>> = BTreeMap::new();
        if let Some(affected) = entry.get("affected_domains") {
            for domain in affected.as_array().ok_or_else(|| wrong("affected_domains", "a list"))? {
                let domain = domain.as_str().ok_or_else(|| wrong("affected_domains", "a list of strings"))?;
                domains.insert(domain.to_owned(), BTreeSet::new());
            }
        }
        if let Some(owners) = entry.get("domain_owners") {
            for (domain, owners) in owners.as_object().ok_or_else(|| wrong("domain_owners", "an object"))? {
                domains.insert(domain.clone(), handles(owners, "domain_owners")?);
            }
        }
        Ok(Decision {
            decision_id: text(entry, "decision_id")?.to_owned(),
            ratified_at: Timestamp::parse(ratified_at, true)
                .ok_or_else(|| wrong("ratified_at", "ISO 8601"))?,
            proposer: name(text(entry, "proposer")?, "proposer")?,
            acked_by: handles(entry.get("acked_by").ok_or_else(|| missing("acked_by"))?, "acked_by")?,
            decision: decision.clone(),
            domains,
            evidence: entry.get("evidence").map(Evidence::from_value).transpose()?,
        })
    }
}

impl Evidence {
    fn to_value(&self) -> Value {
        let id = |(agent, id): (&AgentName, &String)| (agent.to_string(), Value::String(id.clone()));
        let mut members = vec![
            ("proposal", Value::String(self.proposal.clone())),
            ("acks", Value::Object(self.acks.iter().map(id).collect())),
        ];
        if self.settled_by_operator {
            members.push(("settled_by", Value::String("operator".to_owned())));
        }
        object(members)
    }

    fn from_value(value: &Value) -> Result<Self, DecisionError> {
        let members = value.as_object().ok_or_else(|| wrong("evidence", "an object"))?;
        let listed = members.get("acks").and_then(Value::as_object);
        let listed = listed.ok_or_else(|| wrong("evidence.acks", "an object"))?;
        let mut acks = BTreeMap::new();
        for (agent, id) in listed {
            let id = id.as_str().ok_or_else(|| wrong("evidence.acks", "an object of strings"))?;
            acks.insert(name(agent, "evidence.acks")?, id.to_owned());
        }
        let settled_by_operator = match members.get("settled_by") {
            None => false,
            Some(by) if by.as_str() == Some("operator") => true,
            Some(_) => return fail("evidence.settled_by must be \"operator\""),
        };
        Ok(Evidence { proposal: text(members, "proposal")?.to_owned(), acks, settled_by_operator })
    }
}

/// What an agent's own entry says about a decision: an entry in the form above, or a message whose members,
/// or whose body's, are such. What it does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    /// `decision_id` and `correlation_id`, as far as given.
    pub ids: Vec<&'a str>,
    /// `proposer`
    pub proposer: Option<AgentName>,
    /// `acked_by`
    pub acked_by: Option<BTreeSet<AgentName>>,
}

impl<'a> Claim<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`DecisionError`] for members of another form than an entry's.
    pub fn from_object(entry: &'a Object) -> Result<Self, DecisionError> {
        let body = entry.get("body").and_then(Value::as_object);
        let member = |name: &str| entry.get(name).or_else(|| body?.get(name));
        let mut ids = Vec::new();
        for id in ["decision_id", "correlation_id"] {
            if let Some(value) = member(id) {
                ids.push(value.as_str().ok_or_else(|| wrong(id, "a string"))?);
            }
        }
        let proposer = member("proposer").map(|proposer| {
            name(proposer.as_str().ok_or_else(|| wrong("proposer", "a string"))?, "proposer")
        });
        let acked_by = member("acked_by").map(|acked_by| handles(acked_by, "acked_by"));
        Ok(Claim { ids, proposer: proposer.transpose()?, acked_by: acked_by.transpose()? })
    }
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn handle(agent: &AgentName) -> Value {
    Value::String(agent.to_string())
}

fn text<'a>(members: &'a Object, member: &str) -> Result<&'a str, DecisionError> {
    members.get(member).ok_or_else(|| missing(member))?.as_str().ok_or_else(|| wrong(member, "a string"))
}

fn name(handle: &str, member: &str) -> Result<AgentName, DecisionError> {
    AgentName::parse(handle).map_err(|e| DecisionError(format!("{member}: {e}")))
}

fn handles(value: &Value, member: &str) -> Result<BTreeSet<AgentName>, DecisionError> {
    let listed = value.as_array().ok_or_else(|| wrong(member, "a list of handles"))?;
    let read =
        |handle: &Value| name(handle.as_str().ok_or_else(|| wrong(member, "a list of handles"))?, member);
    listed.iter().map(read).collect()
}

fn missing(member: &str) -> DecisionError {
    DecisionError(format!("{member} is missing"))
}

fn wrong(member: &str, form: &str) -> DecisionError {
    DecisionError(format!("{member} must be {form}"))
}

fn fail<T>(problem: &str) -> Result<T, DecisionError> {
    Err(DecisionError(problem.to_owned()))
}
