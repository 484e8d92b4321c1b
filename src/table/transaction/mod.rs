//! Transactions: optimistic, serializable, over the engine's checked commit.
//!
//! 1. The first access to a table takes its route. An access that finds its epoch moved dooms the transaction (O6).
//! 2. A lookup is answered from the transaction's own writes, then from what it saw before, then by the engine; what the
//!    engine answers is remembered, unless nobody can change it ([`Held`](crate::form::lookup::Held)).
//! 3. A write is sealed by the same rules as a single one, outside all locks, and kept. Whatever those rules looked at is
//!    remembered like any other lookup: a put at `from` always has its overlay entry among the checks.
//! 4. Commit: the gate is taken shared, every table's epoch must be what it was, and one engine call checks that all that
//!    was seen is still there and makes all writes. A transaction on one key is one single-key call.
//! 5. On a conflict everything begins again, after a rest, a bounded number of times; if it was a state change that came
//!    between, several times, then with the next one held off (`holds`).
//!
//! User code runs in 1 to 3 only, under no lock. A crash leaves the one engine commit whole or absent; keys for the
//! backlog are pushed after it, and lost with the process like all of the backlog.

mod footprint;
mod run;

use std::sync::Arc;
use std::time::Duration;

use self::footprint::Footprint;
pub(crate) use self::run::run;
use crate::engine::{EngineResult, Outcome, Write};
use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::record::key::Key;
use crate::record::version::Version;
use crate::state::route::{Found, Kind, Route, TableState};
use crate::state::shared::Shared;
use crate::table::materialize::materialize;
use crate::table::typed::{Table, Typed, encode_key};
use crate::table::write::{Encoder, Sealed};

/// Reads and writes that happen as one, handed to the closure of [`Store::transaction`](crate::Store::transaction).
///
/// There are no ranges in it: what is checked at the end are keys, and a key that appears in a range meanwhile would go
/// unnoticed. Keep a record that every writer of the range changes too (a counter, a list of keys), and read that.
pub struct Transaction {
    shared: Arc<Shared>,
    tables: Vec<Joined>,
    footprint: Footprint,
    backlog: Vec<(usize, Vec<u8>)>,
    /// A table's epoch moved: nothing that is read from here on need fit what was read before.
    doomed: bool,
    /// Its reads and its commit are counted one by one, and not as parts of one operation.
    counted: bool,
}

struct Joined {
    state: Arc<TableState>,
    route: Arc<Route>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

impl Transaction {
    fn new(shared: &Arc<Shared>, counted: bool) -> Self {
        let (tables, footprint, backlog) = (Vec::new(), Footprint::default(), Vec::new());
        Self { shared: Arc::clone(shared), tables, footprint, backlog, doomed: false, counted }
    }

    /// The record under `key` at the table's view, as this transaction has left it.
    ///
    /// Costs what [`Table::get`] does the first time, and no lookup after that.
    ///
    /// # Errors
    ///
    /// As [`Table::get`]; [`Error::State`] for a table of another store; [`Error::Conflict`] if a migration's state
    /// changed meanwhile: hand it on, and the transaction is tried again.
    pub fn get<K: Key, V: Version>(&mut self, table: &Table<K, V>, key: &K) -> Result<Option<V>> {
        let timer = self.counted.then(|| self.shared.recorder.start());
        let state = table.state();
        let bytes = encode_key(key);
        let result = self.find(state, &bytes, V::VERSION);
        let result = result.and_then(|found| materialize(state, &bytes, found));
        if let Some(timer) = timer {
            let activity = state.activity();
            self.shared.recorder.finish(timer, Operation::Get, activity, Duration::ZERO, &state.name);
        }
        result
    }

    /// Writes a record when the transaction commits, whatever was there.
    ///
    /// # Errors
    ///
    /// As [`Table::put`]; otherwise as [`Transaction::get`].
    pub fn put<K: Key, V: Version>(&mut self, table: &Table<K, V>, key: &K, record: &V) -> Result<()> {
        self.put_bytes(table.state(), &encode_key(key), &Typed(record))
    }

    /// Removes the record under `key`, if there is one, when the transaction commits.
    ///
    /// # Errors
    ///
    /// As [`Table::remove`]; otherwise as [`Transaction::get`].
    pub fn remove<K: Key, V: Version>(&mut self, table: &Table<K, V>, key: &K) -> Result<()> {
        self.remove_bytes(table.state(), &encode_key(key), V::VERSION)
    }

    /// What is under a key, not yet decoded.
    pub(crate) fn find(&mut self, state: &Arc<TableState>, key: &[u8], view: u32) -> Result<Found> {
        let (at, route) = self.join(state)?;
        let found = state.read_once(&route, key, view, &mut self.footprint);
        self.unless_moved(at, found)
    }

    pub(crate) fn put_bytes(
        &mut self,
        state: &Arc<TableState>,
        key: &[u8],
        record: &dyn Encoder,
    ) -> Result<()> {
        let (at, route) = self.join(state)?;
        let sealed = state.seal_put(&route, key, record, &mut self.footprint);
        let sealed = self.unless_moved(at, sealed)?;
        self.keep(at, key, sealed);
        Ok(())
    }

    pub(crate) fn remove_bytes(&mut self, state: &Arc<TableState>, key: &[u8], view: u32) -> Result<()> {
        let (at, route) = self.join(state)?;
        let sealed = state.seal_remove(&route, key, view, &mut self.footprint);
        let sealed = self.unless_moved(at, sealed)?;
        self.keep(at, key, sealed);
        Ok(())
    }

    /// Gives this try up: what it was made for is not there any more.
    pub(crate) fn give_up(&mut self) -> Error {
        self.doomed = true;
        self.conflict()
    }

    /// The route by which this transaction sees a table.
    fn join(&mut self, state: &Arc<TableState>) -> Result<(usize, Arc<Route>)> {
        self.shared.check_usable()?;
        if self.doomed {
            return Err(self.conflict());
        }
        let known = self.tables.iter().enumerate().find(|(_, table)| Arc::ptr_eq(&table.state, state));
        if let Some((at, table)) = known {
            return Ok((at, Arc::clone(&table.route)));
        }
        if !Arc::ptr_eq(&state.shared, &self.shared) {
            let reason = "it is of another store; a transaction is of one store";
            return Err(Error::state(format!("table {}", state.name), reason));
        }
        let route = state.route_owned();
        self.tables.push(Joined { state: Arc::clone(state), route: Arc::clone(&route) });
        Ok((self.tables.len() - 1, route))
    }

    /// What was read or sealed, if the table's epoch is still that of the first access to it.
    fn unless_moved<T>(&mut self, at: usize, result: Result<T>) -> Result<T> {
        let moved = self.tables.get(at).is_none_or(|table| !table.state.epoch_is(table.route.epoch));
        if moved { Err(self.give_up()) } else { result }
    }

    fn keep(&mut self, at: usize, key: &[u8], sealed: Sealed<'_>) {
        if let Some((overlay, _)) = sealed.clears {
            let slot = self.footprint.slot(overlay, key);
            (slot.write, slot.clears) = (Some(None), true);
        }
        self.footprint.slot(sealed.tree, key).write = Some(sealed.value);
        if sealed.backlog {
            self.backlog.push((at, key.to_vec()));
        }
    }

    /// Makes it all happen. Answers `false` on a conflict; nothing was written then.
    fn commit(&self, waited: &mut Duration) -> Result<bool> {
        if self.doomed {
            return Ok(false);
        }
        let checks = self.footprint.slots().filter(|(.., slot)| slot.seen.is_some()).count();
        let mut writing = self.footprint.slots().filter(|(.., slot)| slot.write.is_some());
        let Some((tree, key, slot)) = writing.next() else {
            return Ok(checks <= 1 || self.under_gate(waited, || self.compare())? == Some(true));
        };
        for (at, _) in &self.backlog {
            if let Some(Joined { state, route }) = self.tables.get(*at)
                && let Kind::Open(open) = &route.kind
            {
                state.backlog.forget_written(&self.shared, &open.overlay.name)?;
            }
        }
        let made = match &slot.write {
            Some(value) if writing.next().is_none() && checks == usize::from(slot.seen.is_some()) => {
                let value = value.as_deref();
                self.under_gate(waited, || match (&slot.seen, value) {
                    (Some(seen), _) => tree.tree.compare_and_swap(key, seen.as_deref(), value),
                    (None, Some(value)) => tree.tree.put(key, value).map(|()| true),
                    (None, None) => tree.tree.delete(key).map(|()| true),
                })?
            }
            _ => {
                let (checks, writes) = (self.footprint.checks(), self.footprint.writes());
                self.check_limits(&writes)?;
                let commit = || Ok(self.shared.engine.commit(&checks, &writes)? == Outcome::Applied);
                self.under_gate(waited, commit)?
            }
        };
        if made != Some(true) {
            return Ok(false);
        }
        self.shared.written()?;
        Ok(true)
    }

    /// Whether all that was seen is there still.
    fn compare(&self) -> EngineResult<bool> {
        Ok(self.shared.engine.commit(&self.footprint.checks(), &[])? == Outcome::Applied)
    }

    /// One engine call under the gate, if no table's epoch moved.
    fn under_gate(
        &self,
        waited: &mut Duration,
        call: impl FnOnce() -> EngineResult<bool>,
    ) -> Result<Option<bool>> {
        let hold = self.shared.gate.shared();
        *waited += hold.waited;
        if !self.tables.iter().all(|table| table.state.is_at(table.route.epoch)) {
            return Ok(None);
        }
        // Under the gate, which `close` takes before its flush: no write comes after that.
        self.shared.check_usable()?;
        let made = call()?;
        if made {
            // Under the gate: a close looks at the backlog once it has had that.
            for (at, key) in &self.backlog {
                if let Some(table) = self.tables.get(*at) {
                    table.state.backlog.push(key);
                }
            }
        }
        Ok(Some(made))
    }

    /// Refuses what the engine cannot commit at once.
    fn check_limits(&self, writes: &[Write]) -> Result<()> {
        let limits = &self.shared.limits;
        if writes.len() > limits.commit_writes_max {
            let (size, limit) = (writes.len(), limits.commit_writes_max);
            return Err(Error::Limit { what: "writes in a transaction or batch", size, limit });
        }
        let bytes = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        let size = writes.iter().map(bytes).sum();
        if size > limits.commit_bytes_max {
            let limit = limits.commit_bytes_max;
            return Err(Error::Limit { what: "bytes in a transaction or batch", size, limit });
        }
        Ok(())
    }

    fn timed_commit(&self, waited: &mut Duration) -> Result<bool> {
        if !self.counted {
            return self.commit(waited);
        }
        let recorder = &self.shared.recorder;
        let (timer, mut own) = (recorder.start(), Duration::ZERO);
        let result = self.commit(&mut own);
        self.finish(timer, Operation::Transaction, own);
        result
    }

    /// Counts an operation: of the table that a migration is at work on, if there is one.
    fn finish(&self, timer: crate::measure::stats::Timer, operation: Operation, waited: Duration) {
        let states = || self.tables.iter().map(|table| &table.state);
        let busy = states().find(|state| state.activity() != crate::measure::observe::Activity::Idle);
        if let Some(state) = busy.or_else(|| states().next()) {
            self.shared.recorder.finish(timer, operation, state.activity(), waited, &state.name);
        }
    }

    /// Whether a state change came between.
    fn is_overtaken(&self) -> bool {
        self.tables.iter().any(|table| !table.state.epoch_is(table.route.epoch))
    }

    /// Whether what was read was not of one moment, so that an error made of it means nothing.
    fn is_stale(&self) -> bool {
        let seen = self.footprint.slots().filter(|(.., slot)| slot.seen.is_some()).count();
        let mut waited = Duration::ZERO;
        let mut compare = || self.under_gate(&mut waited, || self.compare());
        self.doomed || seen > 1 && matches!(compare(), Ok(None | Some(false)))
    }

    fn conflict(&self) -> Error {
        let names: Vec<String> = self.tables.iter().map(|table| table.state.name.to_string()).collect();
        Error::Conflict { subject: format!("a transaction on {}", names.join(", ")) }
    }
}
