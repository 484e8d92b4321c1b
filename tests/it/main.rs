//! The integration tests, one binary.

mod lifecycle;
mod types;
