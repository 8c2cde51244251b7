//! The push parser: the same whatever the pieces, and stopped at the first impossible byte.
