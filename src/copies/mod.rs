//! The whole store elsewhere: copies, backups, compaction, salvage, and looks at everything.
//!
//! Stands on the store. The way in: [`copy`] makes the store again in another engine; [`backup`] and [`compact`] use it.

mod around;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub mod backup;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod compact;
pub(crate) mod copy;
pub(crate) mod inspect;
#[cfg(any(feature = "sled", feature = "fjall"))]
pub mod salvage;
