//! The integration tests, one binary.

mod lifecycle;
mod model;
mod types;
