//! Where an exchange's bytes live: one trait, the local directory first.
