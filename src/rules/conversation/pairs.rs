//! Something kept for each unordered pair of agents.

use crate::wire::name::AgentName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A map from unordered pairs of different agents: the lesser name's row, then the greater name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Pairs<T>(BTreeMap<AgentName, BTreeMap<AgentName, T>>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Pairs(BTreeMap::new())
    }
}

impl<T> Pairs<T> {
    pub fn get(&self, a: &AgentName, b: &AgentName) -> Option<&T> {
        let (low, high) = in_order(a, b);
        self.0.get(low)?.get(high)
    }
    pub fn get_mut(&mut self, a: &AgentName, b: &AgentName) -> Option<&mut T> {
        let (low, high) = in_order(a, b);
        self.0.get_mut(low)?.get_mut(high)
    }
    /// What is kept for a pair; the default where nothing was. `None` for an agent with itself.
    pub fn entry(&mut self, a: &AgentName, b: &AgentName) -> Option<&mut T>
    where
        T: Default,
    {
        let (low, high) = in_order(a, b);
        if low == high {
            return None;
        }
        // Looked up before it is inserted: names are copied for a new pair only.
        if !self.0.get(low).is_some_and(|row| row.contains_key(high)) {
            self.0.entry(low.clone()).or_default().insert(high.clone(), T::default());
        }
        self.0.get_mut(low)?.get_mut(high)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&AgentName, &AgentName, &T)> {
        self.0.iter().flat_map(|(low, row)| row.iter().map(move |(high, kept)| (low, high, kept)))
    }
    /// What is kept for all pairs of one agent.
    pub fn of<'a>(&'a self, agent: &'a AgentName) -> impl Iterator<Item = &'a T> {
        let as_high = self.0.range(..agent).filter_map(move |(_, row)| row.get(agent));
        as_high.chain(self.0.get(agent).into_iter().flat_map(BTreeMap::values))
    }
}

/// Two agents, the lesser name first.
pub(super) fn in_order<'a>(a: &'a AgentName, b: &'a AgentName) -> (&'a AgentName, &'a AgentName) {
    if a <= b { (a, b) } else { (b, a) }
}
