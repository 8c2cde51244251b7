//! Rules for identity.
