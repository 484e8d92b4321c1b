//! All integration tests, in one binary: see tests/README.md.

mod campaigns;
mod engine;
mod kit;
mod migration;
mod record;
mod store;
mod table;
mod tools;
