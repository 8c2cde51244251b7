//! The invariants as decisions: (what is known, what is asked) -> accept or [`Refusal`].
//! Pure: no I/O, no clock, no lock. A rule's name here is the `rule` in refusals.jsonl, the row in
//! mount/SEMANTICS.md and the test's name.

mod refusal;

pub mod address;
pub mod append;
pub mod archive;
pub mod conversation;
pub mod credential;
pub mod handoff;
pub mod identity;
pub mod sidecar;
pub mod trust;

pub use refusal::{Refusal, Rule};
