//! Rules for handoff.
