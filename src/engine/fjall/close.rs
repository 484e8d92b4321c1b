//! A close leaves little for the next open to read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::PersistMode;

use super::fence::Access;
use super::{CATCH_UP_WAIT, Shared, hidden};
use crate::engine::EngineResult;

/// Bytes in a memtable from which on a close writes it out: fewer are read from the journal in a moment at the next open.
const CLOSE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The longest that a close waits for that. It is for the sake of the next open only.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

impl Shared {
    /// Before the end: has large memtables written out, as an open would fill them again from the journal, record by
    /// record. What it does not get to is in the journal.
    pub(super) fn write_out_at_close(&self) -> EngineResult<()> {
        self.owned()?;
        let db = self.db()?;
        let trees = Arc::clone(&self.trees.read());
        let begun = Instant::now();
        for records in trees.values() {
            self.fence.call(Access::Write, &records.name, || {
                if hidden::memtable_bytes(&records.keyspace) < CLOSE_BYTES_MIN {
                    return Ok(false);
                }
                hidden::seal(&records.keyspace)
            })?;
        }
        for records in trees.values() {
            let waits = || Ok(hidden::sealed_memtables(&records.keyspace) > 0);
            while self.fence.call(Access::Write, &records.name, waits)? && begun.elapsed() < CLOSE_WAIT_MAX {
                std::thread::sleep(CATCH_UP_WAIT);
                // Says so if the threads that are waited for have failed.
                self.fence.call(Access::Write, "", || db.persist(PersistMode::Buffer))?;
            }
        }
        Ok(())
    }
}
