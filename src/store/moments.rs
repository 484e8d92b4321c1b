//! What reads or writes at one moment: transactions and snapshots.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::state::route::TableState;
use crate::store::handle::Store;
use crate::table::snapshot::Snapshot;
use crate::table::transaction::{self, Transaction};

impl Store {
    /// Runs `body` as one: all of its reads are of one moment and all of its writes happen at that moment, or none does
    /// (serializable), across tables and views, and beside any change of a migration's state.
    ///
    /// ```
    /// use exuvia::{CastError, Error, Origin, Store, Table, Version};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Account { cents: i64 }
    /// # impl Version for Account {
    /// #     const VERSION: u32 = 1;
    /// #     type Previous = Origin;
    /// #     fn upcast(origin: Origin) -> Result<Self, CastError> { origin.never() }
    /// #     fn downcast(&self, _: Option<Origin>) -> Result<Origin, CastError> { Origin::nothing_below() }
    /// # }
    /// # fn main() -> Result<(), Error> {
    /// # let store = Store::options().open_in(std::sync::Arc::new(exuvia::engine::MemoryEngine::new()))?;
    /// let accounts: Table<String, Account> = store.table("accounts")?;
    /// # accounts.put(&"ann".to_owned(), &Account { cents: 500 })?;
    /// # accounts.put(&"bob".to_owned(), &Account { cents: 0 })?;
    /// let (ann, bob) = ("ann".to_owned(), "bob".to_owned());
    /// let paid = store.transaction::<_, Error>(|tx| {
    ///     let (Some(from), Some(to)) = (tx.get(&accounts, &ann)?, tx.get(&accounts, &bob)?) else {
    ///         return Ok(false);
    ///     };
    ///     tx.put(&accounts, &ann, &Account { cents: from.cents - 100 })?;
    ///     tx.put(&accounts, &bob, &Account { cents: to.cents + 100 })?;
    ///     Ok(true)
    /// })?;
    /// assert!(paid);
    /// # assert_eq!(accounts.get(&ann)?.map(|a| a.cents), Some(400));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Nothing is locked while `body` runs, but that a change of a migration's state waits for it, for half a second at most,
    /// if three tries were overtaken by such changes: so it comes to its end beside them if it takes less than that. What it read is checked when it is done; if another writer came between,
    /// nothing is written and `body` runs again, after a short random rest, up to 64 times. So it may run more than
    /// once, should do nothing but read, decide and write through its argument, and may in a try that will be repeated
    /// see records that do not fit each other. An error of `body` (of any type that an [`Error`] turns into) abandons
    /// the transaction: nothing is written. It is handed on only if it was made of reads that do fit each other. A panic
    /// of `body` writes nothing either.
    ///
    /// Reads, puts and removes of single keys only: see [`Transaction`](crate::Transaction) for ranges. A put or another transaction inside
    /// `body` that does not go through its argument is on its own: it happens at once, stays if this transaction fails,
    /// and conflicts with it like any other writer's.
    ///
    /// Costs the lookups, and one engine commit that compares each record read and writes each record written; one
    /// compare-and-swap if it is all of one key. A transaction that only reads writes nothing. On an engine
    /// whose [`Engine::commit`](crate::engine::Engine::commit) keeps others out, it does so for the length of that commit only.
    ///
    /// # Errors
    ///
    /// What `body` answers; [`Error::Conflict`] after 64 tries: let others finish, or touch fewer keys at once;
    /// [`Error::Limit`] for more writes than the engine commits at once; a failing engine.
    pub fn transaction<R, E: From<Error>>(
        &self,
        body: impl FnMut(&mut Transaction) -> Result<R, E>,
    ) -> Result<R, E> {
        transaction::run(&self.core().shared, Operation::Transaction, body)
    }

    /// All tables at this moment, for reads that must agree with each other and need not be the newest.
    ///
    /// # Errors
    ///
    /// [`Error::State`] on an engine that has no snapshots (sled, memory): read in a [`Store::transaction`] there.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let core = self.core();
        let tables: Vec<Arc<TableState>> = core.tables.read().values().cloned().collect();
        Snapshot::take(self.lease(), tables)
    }
}
