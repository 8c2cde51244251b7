//! The rules, through a real mount, as programs meet them: what bash, Python and Node see, and what
//! refusals.jsonl says about it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod archive;
mod clients;
mod conversation;
mod crash;
mod credentials;
mod credentials_operator;
mod daemon;
mod delivery;
mod faults;
mod guard;
mod guard_order;
mod handoffs;
mod hardening;
mod hostile;
mod identity;
mod load;
mod locks;
mod logins;
mod logs;
mod manager;
mod memory;
mod mounting;
mod posix;
mod programs;
mod readme;
mod refresh_locks;
mod semantics;
mod send;
mod status;
mod tree;
mod tricks;
mod trust;
mod users;
