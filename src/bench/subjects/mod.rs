//! The subjects that come with the harness, and their records.

#[cfg(feature = "sled")]
mod bare_sled;
mod exuvia;
mod record;
#[cfg(any(feature = "sled", feature = "fjall"))]
mod scratch;

#[cfg(feature = "sled")]
pub use bare_sled::{BareSled, BareSledOptions, Writes, bare_sled, decode, encode, key_of};
#[cfg(feature = "fjall")]
pub use exuvia::exuvia_fjall;
#[cfg(feature = "sled")]
pub use exuvia::exuvia_sled;
pub use exuvia::{Exuvia, exuvia_memory};
pub use record::{Person, PersonV1, PersonV2};
#[cfg(any(feature = "sled", feature = "fjall"))]
pub use scratch::Scratch;
