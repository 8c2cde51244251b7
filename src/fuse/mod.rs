//! Kernel callbacks -> exchange calls.
