//! The subjects that come with the harness, and their records.

#[cfg(feature = "sled")]
mod bare_sled;
mod record;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod scratch;
mod store;

#[cfg(feature = "sled")]
pub use bare_sled::{BareSled, BareSledOptions, Writes, bare_sled, decode, encode, key_of};
pub use record::{Person, PersonV1, PersonV2};
#[cfg(any(feature = "sled", feature = "fjall"))]
pub use scratch::Scratch;
#[cfg(feature = "fjall")]
pub use store::exuvia_fjall;
#[cfg(feature = "sled")]
pub use store::exuvia_sled;
pub use store::{Exuvia, exuvia_memory};
