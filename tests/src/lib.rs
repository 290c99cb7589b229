//! Differential and integration tests.
