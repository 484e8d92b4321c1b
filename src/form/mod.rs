//! The bytes of one record: its envelope, and which of its forms answers a read.
//!
//! Pure, but for [`lookup`], which names where a read looks. Knows no catalog and no table. The way in: [`envelope`].

pub(crate) mod envelope;
pub(crate) mod lookup;
pub(crate) mod resolve;
