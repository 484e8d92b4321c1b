//! Tables: the user's types come in here, and stop here.
//!
//! Uses everything but the store. The way in: [`typed`] is the handle, whose calls go to [`write`] or to
//! [`route`](crate::state::route) as bytes; [`transaction`] and [`scan`] do the same for many keys.

mod atomic;
pub(crate) mod batch;
pub(crate) mod fill;
#[cfg(feature = "sled")]
pub mod import;
mod load;
pub(crate) mod materialize;
pub(crate) mod pinned;
pub(crate) mod quarantined;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod transaction;
pub(crate) mod typed;
pub(crate) mod write;
