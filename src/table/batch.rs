//! Write batches: many writes as one, without reads.

use std::sync::Arc;

use crate::error::Result;
use crate::measure::observe::Operation;
use crate::migration::core::Lease;
use crate::record::key::Key;
use crate::record::version::Version;
use crate::table::transaction::{self, Transaction};
use crate::table::typed::{Table, Typed, encode_key};

/// Writes to any number of tables, at any views, of one store: made by [`Store::batch`](crate::Store::batch), and
/// by [`Batch::commit`] all at once or not at all.
///
/// Of several writes to one key the last one counts.
#[must_use = "a batch writes nothing until it is committed"]
pub struct Batch {
    lease: Arc<Lease>,
    writes: Vec<BatchWrite>,
}

/// Sealed when the batch is committed, by the routes of that time; again if they change under it.
type BatchWrite = Box<dyn Fn(&mut Transaction) -> Result<()> + Send + Sync>;

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}

impl Batch {
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, writes: Vec::new() }
    }

    /// Adds a record. The batch keeps it until it is committed.
    pub fn put<K: Key, V: Version>(&mut self, table: &Table<K, V>, key: &K, record: V) {
        let (state, key) = (Arc::clone(table.state()), encode_key(key));
        self.writes.push(Box::new(move |tx| tx.put_bytes(&state, &key, &Typed(&record))));
    }

    /// Adds a removal.
    pub fn remove<K: Key, V: Version>(&mut self, table: &Table<K, V>, key: &K) {
        let (state, key) = (Arc::clone(table.state()), encode_key(key));
        self.writes.push(Box::new(move |tx| tx.remove_bytes(&state, &key, V::VERSION)));
    }

    /// The number of writes so far.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Makes all writes at once: readers that look at more than one of them in a transaction, and a reopen after a crash,
    /// find all or none. Durable as any write is, by the store's [`Durability`](crate::Durability).
    ///
    /// Costs one engine commit. In an open migration old code's writes keep what they cannot see, and are tried again
    /// if another writer comes between.
    ///
    /// # Errors
    ///
    /// As [`Table::put`] for each record; [`Error::Limit`](crate::Error::Limit) for more than the engine commits at once;
    /// [`Error::State`](crate::Error::State) for a table of another store. Nothing was written then.
    pub fn commit(self) -> Result<()> {
        let seal = |tx: &mut Transaction| self.writes.iter().try_for_each(|write| write(tx));
        transaction::run(&self.lease.0.shared, Operation::Batch, seal)
    }
}
