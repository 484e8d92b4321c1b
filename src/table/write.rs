//! How a record is written: the rules of a view, and one engine call under the gate.
//!
//! The path of a `put`: [`rule`] decides by the route, the record is encoded and sealed outside all locks, and
//! [`TableState::gated`] makes the engine call if the route is still the same; otherwise it starts again. A transaction
//! seals by the same rules, and makes what it sealed in one commit at its end.

use std::time::Duration;

use crate::engine::{EngineResult, NamedTree, Outcome, Value};
use crate::error::{Cast, CastError, Error, Result};
use crate::form::envelope::{self, Entry, Flags};
use crate::form::lookup::{Direct, Held, Lookup};
use crate::form::resolve::{self, Form, Side};
use crate::record::lineage::{CastFailure, FailureKind, Stored};
use crate::state::route::{Fence, Found, Kind, Open, Route, TableState, fold_commit};

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
    /// Whether the bytes of `target` are read back as what they were made from.
    fn reads_back(&self, target: u32, bytes: &[u8]) -> Result<(), CastFailure>;
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
    table.shared.check_writable()?;
    table.check_floor(route, view)?;
    if route.fence == Some(Fence::Filling) {
        return Err(Error::state(
            format!("table {}", table.name),
            "it is being filled (an import, a bulk load); write when that has ended",
        ));
    }
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
        Kind::Dropped => return Err(table.dropped()),
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

/// A write that is ready to be made: one record, encoded and sealed.
pub(crate) struct Sealed<'r> {
    pub(crate) tree: &'r NamedTree,
    /// The envelope; `None` removes.
    pub(crate) value: Option<Vec<u8>>,
    /// What must still be under the key in `tree`, if the value was made from what was there.
    on: Option<Option<Value>>,
    /// The overlay's entry that goes in the same commit, if it is still this one: while folding.
    pub(crate) clears: Option<(&'r NamedTree, Value)>,
    /// Old code wrote: the backfill has to bring it forward.
    pub(crate) backlog: bool,
}

impl<'r> Sealed<'r> {
    fn plain(tree: &'r NamedTree, value: Option<Vec<u8>>) -> Self {
        Sealed { tree, value, on: None, clears: None, backlog: false }
    }
}

/// A form that old code left, for a downcast that wants it: version and bytes.
type LastForm = Option<(u32, Vec<u8>)>;

fn as_stored(last: &LastForm) -> Option<Stored<'_>> {
    last.as_ref().map(|(version, bytes)| (*version, bytes.as_slice()))
}

impl TableState {
    /// Writes one record. Adds the time waited at the gate to `waited`.
    pub(crate) fn put(&self, key: &[u8], record: &dyn Encoder, waited: &mut Duration) -> Result<()> {
        self.write(key, waited, |route| self.seal_put(route, key, record, &mut Direct))
    }

    /// Removes one record, whether or not it is there.
    pub(crate) fn remove(&self, key: &[u8], view: u32, waited: &mut Duration) -> Result<()> {
        self.write(key, waited, |route| self.seal_remove(route, key, view, &mut Direct))
    }

    /// Seals and makes one write, until no other and no flip comes between the two.
    #[inline]
    fn write(
        &self,
        key: &[u8],
        waited: &mut Duration,
        seal: impl for<'r> Fn(&'r Route) -> Result<Sealed<'r>>,
    ) -> Result<()> {
        self.shared.check_usable()?;
        loop {
            let route = self.route();
            match seal(&route).and_then(|sealed| self.make(route.epoch, key, &sealed, waited)) {
                Ok(true) => return self.shared.written(),
                Ok(false) => {}
                // What an old route led to may be gone by now, and that is no failure of the new one.
                Err(_) if !self.holds(route.epoch) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes a write in one engine call. Answers `false` if it has to be sealed again.
    #[inline]
    fn make(&self, epoch: u64, key: &[u8], sealed: &Sealed<'_>, waited: &mut Duration) -> Result<bool> {
        let Sealed { tree: named, value, on, clears, backlog } = sealed;
        let (tree, value) = (&named.tree, value.as_deref());
        let made = if let Some((overlay, old)) = clears {
            let (checks, writes) = fold_commit(overlay, named, key, old, value.map(<[u8]>::to_vec));
            let commit = || self.shared.engine.commit(&checks, &writes);
            self.gated(epoch, waited, commit)? == Some(Outcome::Applied)
        } else if let Some(old) = on {
            if *backlog {
                self.backlog.forget_written(&self.shared, &named.name)?;
            }
            let swap = || {
                let swapped = tree.compare_and_swap(key, old.as_deref(), value)?;
                // Under the gate: a close looks at the backlog once it has had that.
                if swapped && *backlog {
                    self.backlog.push(key);
                }
                Ok(swapped)
            };
            self.gated(epoch, waited, swap)? == Some(true)
        } else if let Some(value) = value {
            self.gated(epoch, waited, || tree.put(key, value))?.is_some()
        } else {
            self.gated(epoch, waited, || tree.delete(key))?.is_some()
        };
        Ok(made)
    }

    /// How a record is written by this route. Runs user code, and so under no lock.
    #[inline]
    pub(crate) fn seal_put<'r, L: Lookup>(
        &self,
        route: &'r Route,
        key: &[u8],
        record: &dyn Encoder,
        lookup: &mut L,
    ) -> Result<Sealed<'r>> {
        match rule(self, route, record.view())? {
            Rule::Settled { stored, tree } if record.drops_fields(stored) => {
                let old = lookup.get(tree, key, Held::Changing)?;
                let last = self.last_form(key, old.as_ref())?;
                let read_as = |version| self.read_as(version, record.view());
                let last = last.as_ref().map(|entry| (read_as(entry.version()), entry.main()));
                let value = self.settled_value(key, record, stored, route.active, last)?;
                Ok(Sealed { on: Some(old), ..Sealed::plain(tree, Some(value)) })
            }
            Rule::Settled { stored, tree } => {
                let value = self.settled_value(key, record, stored, route.active, None)?;
                Ok(Sealed::plain(tree, Some(value)))
            }
            Rule::To(open) => self.seal_at_to(route, open, key, record, lookup),
            Rule::From(open) => self.seal_at_from(route, open, key, record, lookup),
            Rule::Folding(open) => self.seal_folding(route, open, key, record, lookup),
        }
    }

    /// How a record is removed by this route.
    #[inline]
    pub(crate) fn seal_remove<'r, L: Lookup>(
        &self,
        route: &'r Route,
        key: &[u8],
        view: u32,
        lookup: &mut L,
    ) -> Result<Sealed<'r>> {
        self.shared.check_key(key)?;
        match rule(self, route, view)? {
            Rule::Settled { tree, .. } => Ok(Sealed::plain(tree, None)),
            Rule::To(open) | Rule::From(open) => {
                Ok(Sealed::plain(&open.overlay, Some(envelope::tombstone(key, view.min(open.to)))))
            }
            Rule::Folding(open) => {
                let clears = lookup.get(&open.overlay, key, Held::Draining)?.map(|old| (&open.overlay, old));
                Ok(Sealed { clears, ..Sealed::plain(&open.base, None) })
            }
        }
    }

    /// Appends a record's form, which is read back first if that is wanted.
    fn encode(
        &self,
        record: &dyn Encoder,
        target: u32,
        last: Option<Stored<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), CastFailure> {
        let start = out.len();
        record.encode(target, last, out)?;
        if self.checks_writes() {
            record.reads_back(target, out.get(start..).unwrap_or_default())?;
        }
        Ok(())
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
    pub(crate) fn settled_value(
        &self,
        key: &[u8],
        record: &dyn Encoder,
        stored: u32,
        active: u32,
        last: Option<Stored<'_>>,
    ) -> Result<Vec<u8>> {
        record.validate(active, last).map_err(|e| self.cast_failed(key, e))?;
        if record.view() != stored {
            self.check_survives(key, record, stored)?;
        }
        let mut value = Vec::with_capacity(256);
        envelope::start(&mut value, Flags::NONE, stored);
        self.encode(record, stored, last, &mut value).map_err(|e| self.cast_failed(key, e))?;
        envelope::finish(key, &mut value);
        self.shared.check_one_form(key, &value)?;
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

    fn seal_at_to<'r, L: Lookup>(
        &self,
        route: &Route,
        open: &'r Open,
        key: &[u8],
        record: &dyn Encoder,
        lookup: &mut L,
    ) -> Result<Sealed<'r>> {
        self.check_survives(key, record, open.to)?;
        // A type that drops fields wants the last old form; the write is then conditional on what was read.
        let (mut on, mut last) = (None, None);
        if record.drops_fields(open.from) {
            let overlay = lookup.get(&open.overlay, key, Held::Changing)?;
            last = self
                .last_from_form(open, key, overlay.clone(), || lookup.get(&open.base, key, Held::Frozen))?;
            on = Some(overlay);
        }
        let last = as_stored(&last);
        record.validate(route.active, last).map_err(|e| self.cast_failed(key, e))?;
        let (mut value, mut companion) = (Vec::with_capacity(384), Vec::new());
        if open.one_way {
            envelope::start(&mut value, Flags::NONE, open.to);
            self.encode(record, open.to, None, &mut value).map_err(|e| self.cast_failed(key, e))?;
        } else {
            companion.reserve(192);
            self.encode(record, open.from, last, &mut companion)
                .map_err(|e| self.downcast_refused(key, open, e))?;
            envelope::start_with_companion(&mut value, Flags::NONE, open.to, open.from, companion.len());
            self.encode(record, open.to, None, &mut value).map_err(|e| self.cast_failed(key, e))?;
            value.extend_from_slice(&companion);
        }
        envelope::finish(key, &mut value);
        let main = value.len().saturating_sub(companion.len() + envelope::OVERHEAD_MAX);
        self.shared.check_forms(key, &value, main, companion.len())?;
        Ok(Sealed { on, ..Sealed::plain(&open.overlay, Some(value)) })
    }

    /// Old code writes: what it cannot see becomes, or stays, the companion.
    fn seal_at_from<'r, L: Lookup>(
        &self,
        route: &Route,
        open: &'r Open,
        key: &[u8],
        record: &dyn Encoder,
        lookup: &mut L,
    ) -> Result<Sealed<'r>> {
        record.validate(route.active, None).map_err(|e| self.cast_failed(key, e))?;
        self.check_survives(key, record, open.from)?;
        let mut main = Vec::with_capacity(192);
        self.encode(record, open.from, None, &mut main).map_err(|e| self.cast_failed(key, e))?;
        let old = lookup.get(&open.overlay, key, Held::Changing)?;
        // A damaged entry holds nothing that could be kept, and to overwrite it is what its readers are told to do.
        let entry = old.clone().and_then(|value| Entry::parse(key, value).ok());
        let kept = entry.as_ref().and_then(|entry| resolve::kept_by_from_writer(entry, open.from, open.to));
        let value = envelope::seal(key, Flags::NONE, open.from, &main, kept);
        self.shared.check_forms(key, &value, main.len(), kept.map_or(0, |(_, bytes)| bytes.len()))?;
        self.shared.check_half(main.len())?;
        Ok(Sealed { on: Some(old), backlog: true, ..Sealed::plain(&open.overlay, Some(value)) })
    }

    /// A write while the overlay is folded goes to the base, and the overlay's entry goes in the same commit. Nobody adds
    /// overlay entries any more, so a key that has none is one write to the base.
    fn seal_folding<'r, L: Lookup>(
        &self,
        route: &Route,
        open: &'r Open,
        key: &[u8],
        record: &dyn Encoder,
        lookup: &mut L,
    ) -> Result<Sealed<'r>> {
        let overlay = lookup.get(&open.overlay, key, Held::Draining)?;
        let (mut on, mut last) = (None, None);
        if record.drops_fields(open.from) {
            last = self.last_from_form(open, key, overlay.clone(), || {
                let base = lookup.get(&open.base, key, Held::Changing)?;
                on = Some(base.clone());
                Ok(base)
            })?;
        }
        let value = self.settled_value(key, record, open.from, route.active, as_stored(&last))?;
        let clears = overlay.map(|old| (&open.overlay, old));
        // An entry of the overlay answers for the base too: whoever writes to the base takes it away.
        let on = on.filter(|_| clears.is_none());
        Ok(Sealed { on, clears, ..Sealed::plain(&open.base, Some(value)) })
    }

    /// The last form of a record that old code could read, for a downcast that wants it.
    fn last_from_form(
        &self,
        open: &Open,
        key: &[u8],
        overlay: Option<Value>,
        base: impl FnOnce() -> EngineResult<Option<Value>>,
    ) -> Result<LastForm> {
        match self.resolve(open, Side::From, key, overlay, base) {
            Ok(Found::Form { entry, form: Form::Companion, .. }) => {
                Ok(entry.companion().map(|(version, bytes)| (version, bytes.to_vec())))
            }
            Ok(Found::Form { entry, .. }) => {
                Ok(Some((self.read_as(entry.version(), open.from), entry.main().to_vec())))
            }
            // A one-way writer left no old form: there is nothing to hand on. Nor is there in a damaged entry, and to
            // overwrite it is what its readers are told to do.
            Ok(Found::Absent) | Err(Error::Version { .. } | Error::Corrupt { .. }) => Ok(None),
            Err(e) => Err(e),
        }
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
