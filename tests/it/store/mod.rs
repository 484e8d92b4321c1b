//! The store and its directory: open, close, owners, permissions, what it is given that it cannot use.

mod bad_input;
mod capacity;
mod closing;
mod descriptors;
mod golden;
mod inspection;
mod observer;
mod opening;
mod owners;
mod permissions;
mod read_only;
mod strict_inputs;
