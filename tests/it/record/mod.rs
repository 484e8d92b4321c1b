//! What is written of a record and of its key: types, attributes of serde, limits.

mod key_types;
mod limits;
mod serde_attributes;
