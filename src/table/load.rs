//! Bulk load: sorted records into an empty table, all or nothing. How that is made so: `fill`.

use crate::error::{Error, Result, ShowKey};
use crate::pace::Budget;
use crate::record::key::Key;
use crate::record::version::Version;
use crate::state::ledger::Event;
use crate::table::fill::Fill;
use crate::table::typed::{Table, Typed, encode_key};

impl<K: Key, V: Version> Table<K, V> {
    /// Fills the table, which must be empty, with records in ascending order of their keys, and answers how many
    /// there were. All or nothing: readers find the table empty until the load is durable, and whole from then on.
    ///
    /// Takes about as long as as many [`Table::put`]s and a flush (on sled 0.88 of it, on fjall 1.05), and leaves the store
    /// durable. fjall's own ingestion, past its journal, would take a quarter of that (0.24 by `cargo bench --bench ops
    /// --features fjall -- loads`); it is not used, as engines have no call for it yet. Other writers of this table are
    /// refused meanwhile. Every record is validated. The records are taken from `records` one at a time, and not kept in memory.
    ///
    /// ```
    /// # use exuvia::{Plain, Store, Table};
    /// # fn main() -> exuvia::Result<()> {
    /// # let store = Store::options().open_in(std::sync::Arc::new(exuvia::engine::MemoryEngine::new()))?;
    /// let squares: Table<u64, Plain<u64>> = store.table("squares")?;
    /// assert_eq!(squares.bulk_load((0..1000).map(|n| (n, Plain(n * n))))?, 1000);
    /// assert_eq!(squares.get(&30)?, Some(Plain(900)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A table that is not empty, is written in another version than this handle's, or has a migration open; a key that
    /// does not come after the one before it; a record that a [`Table::put`] would refuse; a failing engine. The table
    /// is empty then, as before.
    pub fn bulk_load(&self, records: impl IntoIterator<Item = (K, V)>) -> Result<u64> {
        let core = &self.lease().0;
        core.shared.check_writable()?;
        let mut fill = Fill::begin(core, self.state(), V::VERSION, Budget::unlimited())?;
        let mut last: Option<Vec<u8>> = None;
        for (key, record) in records {
            let key = encode_key(&key);
            if let Some(last) = last.as_ref().filter(|last| **last >= key) {
                let how = if *last == key { "is there twice" } else { "is out of order" };
                let reason = format!(
                    "bulk load: key {} {how} (it follows {}); sort the records by key, each key once; nothing was \
                     changed",
                    ShowKey(&key),
                    ShowKey(last)
                );
                return Err(Error::state(format!("table {}", self.state().name), reason));
            }
            let envelope = fill.table().settled_value(&key, &Typed(&record), V::VERSION, V::VERSION, None)?;
            // Keys ascend, so this one is not there.
            fill.append(&key, &envelope)?;
            last = Some(key);
        }
        fill.publish(Event::new("bulk load", &self.name()))
    }
}
