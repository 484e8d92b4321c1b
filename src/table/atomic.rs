//! Operations of a table that read and write one key as one: transactions on that key, and so one compare-and-swap.

use crate::error::{Error, Result};
use crate::measure::observe::Operation;
use crate::record::key::Key;
use crate::record::lineage;
use crate::record::version::Version;
use crate::state::route::Found;
use crate::table::transaction::{self, Transaction};
use crate::table::typed::{Table, Typed, encode_key};

impl<K: Key, V: Version> Table<K, V> {
    /// Replaces a record by what `change` makes of it; `None` is an absent record, before and after. Answers the new one.
    ///
    /// No write of anybody is lost: if another writer comes between, `change` runs again with what that one left. It runs
    /// under no lock. Costs one lookup and one compare-and-swap.
    ///
    /// # Errors
    ///
    /// As [`Table::get`] and [`Table::put`]; [`Error::Conflict`] if others were faster 64 times.
    pub fn update(&self, key: &K, mut change: impl FnMut(Option<V>) -> Option<V>) -> Result<Option<V>> {
        self.atomically(|tx| {
            let old = tx.get(self, key)?;
            let was_there = old.is_some();
            let new = change(old);
            match &new {
                Some(record) => tx.put(self, key, record)?,
                None if was_there => tx.remove(self, key)?,
                None => {}
            }
            Ok(new)
        })
    }

    /// Writes a record only if there is none under `key`. Answers whether it did.
    ///
    /// # Errors
    ///
    /// As [`Table::update`]. A record that is there and cannot be read (damaged, in quarantine) is not absent.
    pub fn insert_if_absent(&self, key: &K, record: &V) -> Result<bool> {
        let bytes = encode_key(key);
        self.atomically(|tx| {
            let absent = matches!(tx.find(self.state(), &bytes, V::VERSION)?, Found::Absent);
            if absent {
                tx.put_bytes(self.state(), &bytes, &Typed(record))?;
            }
            Ok(absent)
        })
    }

    /// Replaces exactly `old` by `new`; `None` is an absent record. Answers whether it did.
    ///
    /// Records are the same if their encoded bytes at this handle's view are: two views may judge differently, and so
    /// a record that was upcast is the same as one that was written so.
    ///
    /// # Errors
    ///
    /// As [`Table::update`].
    pub fn compare_and_swap(&self, key: &K, old: Option<&V>, new: Option<&V>) -> Result<bool> {
        let encoded =
            |record: &V| lineage::encoded(record).map_err(|e| self.state().cast_failed(&encode_key(key), e));
        let expected = old.map(encoded).transpose()?;
        self.atomically(|tx| {
            let found = tx.get(self, key)?.as_ref().map(encoded).transpose()?;
            if found != expected {
                return Ok(false);
            }
            match new {
                Some(record) => tx.put(self, key, record)?,
                None if found.is_some() => tx.remove(self, key)?,
                None => {}
            }
            Ok(true)
        })
    }

    /// The record with the smallest key.
    ///
    /// Costs the first page of a scan; in an open migration keys that were removed are passed over one by one.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn first(&self) -> Result<Option<(K, V)>> {
        self.peek().next().transpose()
    }

    /// The record with the largest key. Otherwise as [`Table::first`].
    ///
    /// # Errors
    ///
    /// As [`Table::scan`].
    pub fn last(&self) -> Result<Option<(K, V)>> {
        self.peek().next_back().transpose()
    }

    /// Removes the record with the smallest key and answers it: each record to one caller only.
    ///
    /// It was the first when it was looked for; a smaller key that is written at the same time is left for the next call.
    /// Costs [`Table::first`] and one compare-and-swap. Callers beside each other want the same record, and all but one
    /// of them try again: for many, give each a range of its own.
    ///
    /// # Errors
    ///
    /// As [`Table::scan`] and [`Table::update`].
    pub fn pop_first(&self) -> Result<Option<(K, V)>> {
        self.pop(Table::first)
    }

    /// Removes the record with the largest key and answers it. Otherwise as [`Table::pop_first`].
    ///
    /// # Errors
    ///
    /// As [`Table::scan`] and [`Table::update`].
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        self.pop(Table::last)
    }

    fn pop(&self, end: impl Fn(&Self) -> Result<Option<(K, V)>>) -> Result<Option<(K, V)>> {
        self.atomically(|tx| {
            let Some((key, _)) = end(self)? else {
                return Ok(None);
            };
            let Some(record) = tx.get(self, &key)? else {
                // Somebody else took it: look for the next.
                return Err(tx.give_up());
            };
            tx.remove(self, &key)?;
            Ok(Some((key, record)))
        })
    }

    fn atomically<R>(&self, body: impl FnMut(&mut Transaction) -> Result<R, Error>) -> Result<R> {
        transaction::run(&self.state().shared, Operation::Update, body)
    }
}
