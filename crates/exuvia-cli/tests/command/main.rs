//! The command `exuvia`, run as its users run it. What the tests of the library use is used here too.

mod command;
#[cfg(unix)]
mod control;
mod copies;
#[path = "../../../../tests/it/kit/mod.rs"]
#[allow(dead_code, reason = "what only the library's tests use")]
mod kit;
mod operator;
mod records_json;
