//! The integration tests, one binary.

mod hooks;
mod lifecycle;
mod review;
mod types;
