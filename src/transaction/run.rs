//! Running a transaction until it commits, a bounded number of times.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::Transaction;
use crate::core::Shared;
use crate::error::{Error, Result};
use crate::stats::Operation;
use crate::store::Store;
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// How often a transaction is tried.
const TRIES_MAX: u32 = 64;
/// Tries before the first rest.
const TRIES_AT_ONCE: u32 = 3;
/// Longest rest between two tries.
const REST_US_MAX: u64 = 10_000;

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
    /// Nothing is locked while `body` runs. What it read is checked when it is done; if another writer came between,
    /// nothing is written and `body` runs again, after a short random rest, up to 64 times. So it may run more than
    /// once, should do nothing but read, decide and write through its argument, and may in a try that will be repeated
    /// see records that do not fit each other. An error of `body` (of any type that an [`Error`] turns into) abandons
    /// the transaction: nothing is written. It is handed on only if it was made of reads that do fit each other. A panic
    /// of `body` writes nothing either.
    ///
    /// Reads, puts and removes of single keys only: see [`Transaction`] for ranges. A put or another transaction inside
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
        run(&self.core().shared, Operation::Transaction, body)
    }
}

/// Runs `body` until its transaction commits; on a conflict again, [`TRIES_MAX`] times at most.
///
/// An [`Operation::Transaction`] is counted by its reads and each of its commits, so that the user's own work in between
/// is no latency of the store's; any other as a whole.
pub(crate) fn run<R, E: From<Error>>(
    shared: &Arc<Shared>,
    operation: Operation,
    mut body: impl FnMut(&mut Transaction) -> Result<R, E>,
) -> Result<R, E> {
    let counted = operation == Operation::Transaction;
    let mut whole = (!counted).then(|| shared.recorder.start());
    let (mut waited, mut tries) = (Duration::ZERO, 0);
    loop {
        shared.check_usable()?;
        let mut transaction = Transaction::new(shared, counted);
        let mut ended = match body(&mut transaction) {
            Ok(result) => match transaction.timed_commit(&mut waited) {
                Ok(committed) => committed.then_some(Ok(result)),
                Err(e) => Some(Err(e.into())),
            },
            Err(e) => (!transaction.is_stale()).then_some(Err(e)),
        };
        if ended.is_none() {
            shared.recorder.conflicts.fetch_add(1, Ordering::Relaxed);
            tries += 1;
            if tries == TRIES_MAX {
                ended = Some(Err(transaction.conflict().into()));
            }
        }
        if let Some(ended) = ended {
            if let Some(timer) = whole.take() {
                transaction.finish(timer, operation, waited);
            }
            return ended;
        }
        drop(transaction);
        rest(tries);
    }
}

/// Rests for a random time, longer after each try, so that those who collide do not meet again.
fn rest(tries: u32) {
    if tries < TRIES_AT_ONCE {
        thread::yield_now();
        return;
    }
    let longest_us = (8 << tries.min(16)).min(REST_US_MAX);
    // Keys of a new hash are as random as this needs.
    let random = std::hash::RandomState::new().hash_one(tries);
    thread::sleep(Duration::from_micros(random % longest_us));
}
