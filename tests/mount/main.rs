//! The rules, through a real mount, as programs meet them: what bash, Python and Node see, and what
//! refusals.jsonl says about it.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod credentials;
mod daemon;
mod faults;
mod handoffs;
mod identity;
mod load;
mod logs;
mod semantics;
mod tricks;
mod users;
