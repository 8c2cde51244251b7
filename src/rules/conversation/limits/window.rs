//! Counting what happened within the last minute or hour, in bounded memory.

use crate::wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How often something happened in the last `STEPS` steps of `SECONDS` each, the one under way among them.
/// Keeps at most one number a step, whatever the rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window<const SECONDS: i64, const STEPS: i64> {
    /// Steps since the epoch with their counts, rising.
    steps: VecDeque<(i64, u32)>,
}

impl<const SECONDS: i64, const STEPS: i64> Window<SECONDS, STEPS> {
    fn step(at: Timestamp) -> i64 {
        at.unix_seconds().div_euclid(SECONDS)
    }

    pub fn add(&mut self, at: Timestamp) {
        // A clock that was set back counts into the newest step: the steps stay in order.
        let step = self.steps.back().map_or(i64::MIN, |newest| newest.0).max(Self::step(at));
        while self.steps.front().is_some_and(|oldest| oldest.0 <= step - STEPS) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some(newest) if newest.0 == step => newest.1 = newest.1.saturating_add(1),
            _ => self.steps.push_back((step, 1)),
        }
    }

    pub fn count(&self, at: Timestamp) -> u32 {
        let expired = Self::step(at) - STEPS;
        let live = self.steps.iter().rev().take_while(|step| step.0 > expired);
        live.fold(0, |sum, step| sum.saturating_add(step.1))
    }

    /// From when on the count is `most` or less, if nothing more happens.
    pub fn room_at(&self, most: u32) -> Option<Timestamp> {
        let mut sum: u32 = 0;
        let last_to_go = self.steps.iter().rev().find(|step| {
            sum = sum.saturating_add(step.1);
            sum > most
        })?;
        Some(Timestamp(0).plus_seconds((last_to_go.0 + STEPS).saturating_mul(SECONDS)))
    }
}
