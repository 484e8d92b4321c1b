//! Every engine, under the store: what each must do, and what it does where its own library gives up.

mod choice;
mod commits;
mod conformance;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "fjall")]
mod fjall_losses;
mod full_disk;
mod memory;
mod pinned;
mod process_death;
mod sled;
mod sled_memory;
