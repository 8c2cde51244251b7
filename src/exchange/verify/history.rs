//! Who was trusted when: the lists by which stored lines are judged, each at its time.

use super::chain::TrustChange;
use crate::wire::trust::{Tier, TrustList};

/// The trust lists that were in force, as far as the events tell.
///
/// A key is retired from the event on that says so, and an agent has the tier that the events say, from the
/// first that tells of it; where they say nothing a line has the benefit of the doubt: the exchange let it in.
#[derive(Debug)]
pub(super) struct History {
    /// For what happened at no known time: see [`TrustList::as_history`].
    lenient: TrustList,
    /// Before the first change: every key active, every tier as the first event that tells of it had found it.
    first: TrustList,
    /// After each change, by its number.
    later: Vec<(u64, TrustList)>,
}

impl History {
    /// `changes` in order.
    pub fn new(trust: &TrustList, changes: &[TrustChange]) -> Self {
        let lenient = trust.as_history();
        let mut first = lenient.clone();
        for change in changes.iter().rev() {
            for (agent, _, was) in &change.tiers {
                if let Some(entry) = first.agents.get_mut(agent) {
                    entry.tier = was.unwrap_or(Tier::Trusted);
                }
            }
        }
        let mut list = first.clone();
        let later = changes.iter().map(|change| {
            for (id, active) in &change.keys {
                let entry = list.agents.get_mut(&id.agent);
                if let Some(key) = entry.and_then(|entry| entry.keys.iter_mut().find(|key| key.id == *id)) {
                    key.active = *active;
                }
            }
            for (agent, tier, _) in &change.tiers {
                if let Some(entry) = list.agents.get_mut(agent) {
                    entry.tier = *tier;
                }
            }
            (change.order, list.clone())
        });
        let later: Vec<_> = later.collect();
        History { lenient, first, later }
    }

    /// The list by which a commit was judged. `order`: its number, where that is known.
    pub fn at(&self, order: Option<u64>) -> &TrustList {
        let Some(order) = order else { return &self.lenient };
        match self.later.partition_point(|(change, _)| *change < order) {
            0 => &self.first,
            changes => &self.later[changes - 1].1,
        }
    }

    /// Whether all times are alike.
    pub fn is_constant(&self) -> bool {
        self.later.is_empty()
    }
}
