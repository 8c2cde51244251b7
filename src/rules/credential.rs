//! Rules for credential.
