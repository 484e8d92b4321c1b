//! How a record is written: the rules of a view, and one engine call under the gate.
//!
//! The path of a `put`: [`rule`] decides by the route, the record is encoded and sealed outside all locks, and
//! [`TableState::gated`] makes the engine call if the route is still the same; otherwise it starts again.

use std::time::Duration;

use crate::engine::{Check, Outcome, Value, Write};
use crate::envelope::{self, Entry, Flags};
use crate::error::{Cast, CastError, Error, Result};
use crate::lineage::{CastFailure, FailureKind, Stored};
use crate::resolve::{self, Form, Side};
use crate::route::{Fence, Found, Kind, NamedTree, Open, Route, TableState};

/// A typed record, as the byte level sees it.
pub(crate) trait Encoder {
    /// The version of the record's type.
    fn view(&self) -> u32;
    /// Appends the record in `target`, which is not newer than the view.
    fn encode(&self, target: u32, last: Option<Stored<'_>>, out: &mut Vec<u8>) -> Result<(), CastFailure>;
    /// Whether a downcast to `target` and back gives the same bytes.
    fn survives(&self, target: u32) -> Result<bool, CastFailure>;
    /// The rules of `active`, if this code knows them.
    fn validate(&self, active: u32, last: Option<Stored<'_>>) -> Result<(), CastFailure>;
    /// Whether a downcast to `target` wants the last old form.
    fn drops_fields(&self, target: u32) -> bool;
}

/// How a view may write now.
enum Rule<'a> {
    /// One generation, in version `stored`.
    Settled { stored: u32, tree: &'a NamedTree },
    /// New code in an open migration.
    To(&'a Open),
    /// Old code in an open migration.
    From(&'a Open),
    /// As settled at `from`; the overlay's entry goes with it.
    Folding(&'a Open),
}

fn rule<'a>(table: &TableState, route: &'a Route, view: u32) -> Result<Rule<'a>> {
    table.check_floor(route, view)?;
    let open = match &route.kind {
        // A step of metadata only has no overlay, and its fence binds all the same.
        Kind::Settled { stored, .. } if route.fence == Some(Fence::AtTo) && view > *stored => {
            let reason = format!(
                "writes are fenced off since the rollback of its migration; resume it, or write with the code of \
                 version {stored}"
            );
            return Err(table.refuse_version(view, reason));
        }
        Kind::Settled { stored, tree } => {
            return Ok(Rule::Settled { stored: *stored, tree });
        }
        Kind::Folding(open) => return Ok(Rule::Folding(open)),
        Kind::Open(open) => open,
    };
    if view >= open.to {
        if route.fence == Some(Fence::AtTo) {
            let reason = format!(
                "writes are fenced off since the rollback of migration {}; resume it, or write with the code of \
                 version {}",
                open.migration, open.from
            );
            return Err(table.refuse_version(view, reason));
        }
        return Ok(Rule::To(open));
    }
    if view > open.from {
        let reason = format!(
            "migration {} goes from version {} to {} and skips this one: it can read, not write; write with the \
             code of either",
            open.migration, open.from, open.to
        );
        return Err(table.refuse_version(view, reason));
    }
    if route.fence == Some(Fence::BelowTo) {
        let reason = format!(
            "migration {} is being contracted: only version {} may write from here on; use a program that \
             knows it, or try again if the contract fails",
            open.migration, open.to
        );
        return Err(table.refuse_version(view, reason));
    }
    Ok(Rule::From(open))
}

impl TableState {
    /// Writes one record. Adds the time waited at the gate to `waited`.
    pub(crate) fn put(&self, key: &[u8], record: &dyn Encoder, waited: &mut Duration) -> Result<()> {
        self.shared.check_usable()?;
        loop {
            let route = self.route();
            match self.put_once(&route, key, record, waited) {
                Ok(true) => return self.shared.written(),
                Ok(false) => {}
                // What an old route led to may be gone by now, and that is no failure of the new one.
                Err(_) if !self.epoch_is(route.epoch) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Answers `false` if it has to be tried again.
    #[inline]
    fn put_once(
        &self,
        route: &Route,
        key: &[u8],
        record: &dyn Encoder,
        waited: &mut Duration,
    ) -> Result<bool> {
        match rule(self, route, record.view())? {
            Rule::Settled { stored, tree } if record.drops_fields(stored) => {
                let old = tree.tree.get(key)?;
                let last = self.last_form(key, old.as_ref())?;
                let last = last.as_ref().map(|entry| (entry.version(), entry.main()));
                let value = self.settled_value(key, record, stored, route.active, last)?;
                let swap = || tree.tree.compare_and_swap(key, old.as_deref(), Some(&value));
                Ok(self.gated(route.epoch, waited, swap)? == Some(true))
            }
            Rule::Settled { stored, tree } => {
                let value = self.settled_value(key, record, stored, route.active, None)?;
                Ok(self.gated(route.epoch, waited, || tree.tree.put(key, &value))?.is_some())
            }
            Rule::To(open) => self.put_at_to(route, open, key, record, waited),
            Rule::From(open) => self.put_at_from(route, open, key, record, waited),
            Rule::Folding(open) => {
                let read =
                    if record.drops_fields(open.from) { self.last_from_form(open, key)?.last } else { None };
                let last = read.as_ref().map(|(version, bytes)| (*version, bytes.as_slice()));
                let value = self.settled_value(key, record, open.from, route.active, last)?;
                self.write_folding(route, open, key, Some(&value), waited)
            }
        }
    }

    /// Removes one record, whether or not it is there.
    pub(crate) fn remove(&self, key: &[u8], view: u32, waited: &mut Duration) -> Result<()> {
        self.shared.check_usable()?;
        self.shared.check_size(key, &[])?;
        loop {
            let route = self.route();
            match self.remove_once(&route, key, view, waited) {
                Ok(true) => return self.shared.written(),
                Ok(false) => {}
                Err(_) if !self.epoch_is(route.epoch) => {}
                Err(e) => return Err(e),
            }
        }
    }

    #[inline]
    fn remove_once(&self, route: &Route, key: &[u8], view: u32, waited: &mut Duration) -> Result<bool> {
        match rule(self, route, view)? {
            Rule::Settled { tree, .. } => {
                Ok(self.gated(route.epoch, waited, || tree.tree.delete(key))?.is_some())
            }
            Rule::To(open) | Rule::From(open) => {
                let value = envelope::tombstone(key, view.min(open.to));
                Ok(self.gated(route.epoch, waited, || open.overlay.tree.put(key, &value))?.is_some())
            }
            Rule::Folding(open) => self.write_folding(route, open, key, None, waited),
        }
    }

    /// The record that a write to a settled table replaces, if there is one that can be read.
    fn last_form(&self, key: &[u8], old: Option<&Value>) -> Result<Option<Entry>> {
        let Some(old) = old else { return Ok(None) };
        match self.plain(key, old.clone(), 0, false) {
            Ok(Found::Form { entry, .. }) => Ok(Some(entry)),
            // A damaged record may be overwritten: that is how it is mended.
            Ok(Found::Absent) | Err(Error::Corrupt { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The envelope of a record in a table (or base) that is written in `stored`.
    #[inline]
    fn settled_value(
        &self,
        key: &[u8],
        record: &dyn Encoder,
        stored: u32,
        active: u32,
        last: Option<Stored<'_>>,
    ) -> Result<Vec<u8>> {
        record.validate(active, last).map_err(|e| self.cast_failed(key, e))?;
        self.check_survives(key, record, stored)?;
        let mut value = Vec::with_capacity(256);
        envelope::start(&mut value, Flags::NONE, stored);
        record.encode(stored, last, &mut value).map_err(|e| self.cast_failed(key, e))?;
        envelope::finish(key, &mut value);
        self.shared.check_size(key, &value)?;
        Ok(value)
    }

    /// Before `begin`, newer code may write only what the stored version can hold.
    fn check_survives(&self, key: &[u8], record: &dyn Encoder, stored: u32) -> Result<()> {
        if record.view() == stored {
            return Ok(());
        }
        if record.view() < stored {
            let reason = format!("the table is written in version {stored}; use a program that knows it");
            return Err(self.refuse_version(record.view(), reason));
        }
        if record.survives(stored).map_err(|e| self.cast_failed(key, e))? {
            return Ok(());
        }
        let reason = format!(
            "the record of key {} holds something that version {stored}, in which the table is written, cannot \
             hold; begin the migration first",
            crate::error::ShowKey(key)
        );
        Err(self.refuse_version(record.view(), reason))
    }

    fn put_at_to(
        &self,
        route: &Route,
        open: &Open,
        key: &[u8],
        record: &dyn Encoder,
        waited: &mut Duration,
    ) -> Result<bool> {
        self.check_survives(key, record, open.to)?;
        // A type that drops fields wants the last old form; the write is then conditional on what was read.
        let read = if record.drops_fields(open.from) { Some(self.last_from_form(open, key)?) } else { None };
        let last = read.as_ref().and_then(|read| read.last.as_ref().map(|(v, bytes)| (*v, bytes.as_slice())));
        record.validate(route.active, last).map_err(|e| self.cast_failed(key, e))?;
        let mut value = Vec::with_capacity(384);
        if open.one_way {
            envelope::start(&mut value, Flags::NONE, open.to);
            record.encode(open.to, None, &mut value).map_err(|e| self.cast_failed(key, e))?;
        } else {
            let mut companion = Vec::with_capacity(192);
            record
                .encode(open.from, last, &mut companion)
                .map_err(|e| self.downcast_refused(key, open, e))?;
            envelope::start_with_companion(&mut value, Flags::NONE, open.to, open.from, companion.len());
            record.encode(open.to, None, &mut value).map_err(|e| self.cast_failed(key, e))?;
            value.extend_from_slice(&companion);
        }
        envelope::finish(key, &mut value);
        self.shared.check_size(key, &value)?;
        let overlay = &open.overlay.tree;
        match read {
            None => Ok(self.gated(route.epoch, waited, || overlay.put(key, &value))?.is_some()),
            Some(LastForm { overlay: old, .. }) => {
                let swap = || overlay.compare_and_swap(key, old.as_ref().map(Entry::bytes), Some(&value));
                Ok(self.gated(route.epoch, waited, swap)? == Some(true))
            }
        }
    }

    /// Old code writes: what it cannot see becomes, or stays, the companion.
    fn put_at_from(
        &self,
        route: &Route,
        open: &Open,
        key: &[u8],
        record: &dyn Encoder,
        waited: &mut Duration,
    ) -> Result<bool> {
        record.validate(route.active, None).map_err(|e| self.cast_failed(key, e))?;
        self.check_survives(key, record, open.from)?;
        let mut main = Vec::with_capacity(192);
        record.encode(open.from, None, &mut main).map_err(|e| self.cast_failed(key, e))?;
        let old = open.overlay.tree.get(key)?;
        // A damaged entry holds nothing that could be kept, and to overwrite it is what its readers are told to do.
        let entry = old.clone().and_then(|value| Entry::parse(key, value).ok());
        let kept = entry.as_ref().and_then(|entry| resolve::kept_by_from_writer(entry, open.from, open.to));
        let value = envelope::seal(key, Flags::NONE, open.from, &main, kept);
        self.shared.check_size(key, &value)?;
        let swap = || open.overlay.tree.compare_and_swap(key, old.as_deref(), Some(&value));
        if self.gated(route.epoch, waited, swap)? != Some(true) {
            return Ok(false);
        }
        self.backlog.push(key);
        Ok(true)
    }

    /// A write while the overlay is folded: to the base, and the overlay's entry goes in the same commit. Nobody
    /// adds overlay entries any more, so a key that has none is one plain write.
    fn write_folding(
        &self,
        route: &Route,
        open: &Open,
        key: &[u8],
        value: Option<&[u8]>,
        waited: &mut Duration,
    ) -> Result<bool> {
        let Some(old) = open.overlay.tree.get(key)? else {
            let write = || match value {
                Some(value) => open.base.tree.put(key, value),
                None => open.base.tree.delete(key),
            };
            return Ok(self.gated(route.epoch, waited, write)?.is_some());
        };
        let commit = fold_commit(open, key, &old, value.map(<[u8]>::to_vec));
        let applied = self.gated(route.epoch, waited, || self.shared.engine.commit(&commit.0, &commit.1))?;
        Ok(applied == Some(Outcome::Applied))
    }

    fn last_from_form(&self, open: &Open, key: &[u8]) -> Result<LastForm> {
        let overlay = open.overlay.tree.get(key)?.map(|value| self.parse(key, value)).transpose()?;
        let value = overlay.as_ref().map(|entry| Value::from(entry.bytes()));
        let found = match self.resolve(open, Side::From, key, value, || open.base.tree.get(key)) {
            Ok(found) => found,
            // A one-way writer left no old form: there is nothing to hand on.
            Err(Error::Version { .. }) => Found::Absent,
            Err(e) => return Err(e),
        };
        let last = match found {
            Found::Form { entry, form: Form::Companion, .. } => {
                entry.companion().map(|(version, bytes)| (version, bytes.to_vec()))
            }
            Found::Form { entry, .. } => Some((entry.version(), entry.main().to_vec())),
            Found::Absent => None,
        };
        Ok(LastForm { overlay, last })
    }

    pub(crate) fn cast_failed(&self, key: &[u8], failure: CastFailure) -> Error {
        let CastFailure { kind, from, to, source } = failure;
        let table = self.name.to_string();
        match kind {
            FailureKind::Cast(cast) => Error::Cast { table, key: key.to_vec(), cast, from, to, source },
            FailureKind::Codec => {
                Error::Codec { table, key: key.to_vec(), version: from, reason: source.to_string() }
            }
            FailureKind::Unknown => {
                let reason = format!("key {}: {source}", crate::error::ShowKey(key));
                Error::Version { table, version: from, reason }
            }
        }
    }

    fn downcast_refused(&self, key: &[u8], open: &Open, mut failure: CastFailure) -> Error {
        if failure.kind == FailureKind::Cast(Cast::Downcast) {
            failure.source = CastError::new(format!(
                "{}; it could not be read after a rollback of {}, so it was not written: change the record, or \
                 begin the migration `one_way()`",
                failure.source, open.migration
            ));
        }
        self.cast_failed(key, failure)
    }
}

struct LastForm {
    overlay: Option<Entry>,
    last: Option<(u32, Vec<u8>)>,
}

/// The commit that moves one key from overlay to base: `value` to the base, the overlay's entry away, if that is
/// still `old`.
pub(crate) fn fold_commit(
    open: &Open,
    key: &[u8],
    old: &[u8],
    value: Option<Vec<u8>>,
) -> (Vec<Check>, Vec<Write>) {
    let overlay = open.overlay.name.to_string();
    let check = Check { tree: overlay.clone(), key: key.to_vec(), expected: Some(old.to_vec()) };
    let clear = Write { tree: overlay, key: key.to_vec(), value: None };
    let keep = Write { tree: open.base.name.to_string(), key: key.to_vec(), value };
    (vec![check], vec![clear, keep])
}
