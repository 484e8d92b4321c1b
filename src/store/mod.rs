//! The store: options, its directory, opening and closing it, and the administration of its tables.
//!
//! Uses everything but the copies, the socket and JSON, which stand on it. The way in: [`handle`].

mod admin;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub(crate) mod directory;
pub(crate) mod handle;
mod moments;
pub(crate) mod options;
pub(crate) mod types;
