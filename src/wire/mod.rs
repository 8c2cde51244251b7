//! The bytes that peers sign and send: canonical JSON, messages, decisions, handoffs, cards, trust lists,
//! credential identity. Pure: no I/O, no clock, no lock.

pub mod canonical;
pub mod card;
pub mod credential;
pub mod decision;
pub mod handoff;
pub mod json;
pub mod keys;
pub mod letter;
pub mod message;
pub mod name;
pub mod sidecar;
pub mod time;
pub mod trust;
