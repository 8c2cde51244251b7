//! Instants as the protocol writes them: ISO 8601.

use std::fmt;

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads ISO 8601 as Python's `isoformat()` and `strftime` write it: date, `T` or space, time,
    /// up to microseconds (further digits cut), then `Z`, an offset, or nothing.
    /// `None` if it is no such text. `naive_is_utc`: whether a time without offset is accepted, as UTC.
    pub fn parse(text: &str, naive_is_utc: bool) -> Option<Self> {
        let _ = (text, naive_is_utc);
        todo!()
    }
    /// Whole seconds since the epoch, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
    /// Milliseconds since the epoch, rounded down.
    pub fn unix_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    /// This instant moved by whole seconds.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

/// `2026-05-10T00:01:00.000000Z`, with microseconds only where they are not zero.
impl fmt::Display for Timestamp {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
