//! The FUSE adapter: turns kernel callbacks into calls on an [`Exchange`](crate::exchange::Exchange). It holds no rules.
//!
//! Read it upwards: [`tree`] says which names there are, `inodes` numbers them, `handles` remembers what is open, `crowd`
//! has the kernel forget,
//! `names`, `io`, `extended` and `locks` carry out the callbacks without knowing FUSE's replies, `adapter` replies, and [`mount`] puts it
//! on a mountpoint.

pub mod mount;
pub mod tree;

mod adapter;
mod attempt;
mod attr;
mod closing;
mod crowd;
mod extended;
mod fusermount;
mod handles;
mod inodes;
mod io;
#[cfg(target_os = "linux")]
mod locks;
mod names;

pub use mount::{MountError, MountInfo, MountSpec};
