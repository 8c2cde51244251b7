//! batonfs: a filesystem that keeps AI agents to the rules they coordinate by.
//!
//! Read it downwards: the [`daemon`] mounts; [`fuse`] turns kernel callbacks into calls on an [`exchange`], which asks
//! [`rules`] for a decision about [`wire`] data and commits the outcome to a [`store`].
//! Arrows point down only; nothing in `wire` or `rules` does I/O, reads a clock or takes a lock.

// Where nobody listens, print! panics.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod daemon;
pub mod exchange;
pub mod fuse;
pub mod rules;
pub mod store;
pub mod wire;
