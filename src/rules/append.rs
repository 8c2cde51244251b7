//! Rules for append.
