//! Running a transaction until it commits, a bounded number of times.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::Transaction;
use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::state::shared::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// How often a transaction is tried.
const TRIES_MAX: u32 = 64;
/// Tries before the first rest.
const TRIES_AT_ONCE: u32 = 3;
/// Tries that a state change overtook, after which the next one is held off.
const OVERTAKEN_MAX: u32 = 3;
/// Longest rest between two tries.
const REST_US_MAX: u64 = 10_000;

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
    let (mut waited, mut tries, mut overtaken) = (Duration::ZERO, 0, 0);
    loop {
        shared.check_usable()?;
        let hold = (overtaken >= OVERTAKEN_MAX).then(|| shared.holds.hold());
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
            overtaken += u32::from(transaction.is_overtaken());
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
        drop((transaction, hold));
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
