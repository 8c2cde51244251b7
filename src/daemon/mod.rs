//! The process that holds an exchange: its lock, mounts, control socket and signals.
