//! Where a table's records are now, and how a read finds its answer.
//!
//! A [`Route`] is an immutable value; a flip replaces it whole. Its epoch is checked after every read and under
//! the gate before every write:
//!
//! * a read takes epoch, frontier, overlay, base, in that order, and starts again if the epoch moved (O1);
//! * a write holds the gate shared from its epoch check to the end of its engine call (O2).
//!
//! A tree that was emptied or dropped is therefore never taken for an absence: it is emptied only after a flip.

use std::sync::Arc;

use crate::engine::{Check, EngineResult, NamedTree, Value, Write};
use crate::error::{Error, Result};
use crate::form::envelope::Entry;
use crate::form::lookup::{Direct, Held, Lookup};
use crate::form::resolve::{self, Form, Side};
use crate::measure::name::Name;
use crate::measure::observe::Activity;
use crate::record::lineage::Lineage;
use crate::state::backlog::Backlog;
use crate::state::shared::Shared;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use crate::sync::{ArcSwap, Mutex, thread};

/// A table's place and rules at one epoch.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) epoch: u64,
    pub(crate) active: u32,
    pub(crate) floor: u32,
    pub(crate) alike: Option<Alike>,
    pub(crate) fence: Option<Fence>,
    pub(crate) kind: Kind,
}

/// After a contracted step of metadata only: records of the versions from `oldest` on and below `floor` are, byte for
/// byte, records of version `floor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alike {
    pub(crate) oldest: u32,
    pub(crate) floor: u32,
}

/// Writers that are refused for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Contract is verifying: nothing below `to` may be written.
    BelowTo,
    /// Rolled back with a fence: nothing of the new version may be written.
    AtTo,
    /// The table, which is empty, is being filled at once.
    Filling,
}

#[derive(Clone)]
pub(crate) enum Kind {
    /// One generation; records are written in version `stored`.
    Settled { stored: u32, tree: NamedTree },
    /// Base (frozen) and overlay.
    Open(Open),
    /// A rolled-back migration whose overlay is being folded into the base.
    Folding(Open),
    /// The table was dropped: for good, also if there is a table of its name again.
    Dropped,
}

#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) migration: Arc<str>,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) one_way: bool,
    pub(crate) base: NamedTree,
    pub(crate) overlay: NamedTree,
}

/// The commit that moves one key from overlay to base: `value` to the base, the overlay's entry away, if that is
/// still `old`. In this order: a scan that sees only the first of them must find the record in one of both.
pub(crate) fn fold_commit(
    overlay: &NamedTree,
    base: &NamedTree,
    key: &[u8],
    old: &[u8],
    value: Option<Vec<u8>>,
) -> (Vec<Check>, Vec<Write>) {
    let overlay = overlay.name.to_string();
    let check = Check { tree: overlay.clone(), key: key.to_vec(), expected: Some(old.to_vec()) };
    let clear = Write { tree: overlay, key: key.to_vec(), value: None };
    let keep = Write { tree: base.name.to_string(), key: key.to_vec(), value };
    (vec![check], vec![keep, clear])
}

/// How far the copy of the base has come, in memory. A read at `to` that misses the overlay before it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frontier {
    Start,
    /// This key and all before it.
    After(Vec<u8>),
    End,
}

impl Frontier {
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        match self {
            Frontier::Start => false,
            Frontier::After(last) => key <= last.as_slice(),
            Frontier::End => true,
        }
    }
}

/// One table, below its types.
pub(crate) struct TableState {
    pub(crate) name: Name,
    pub(crate) shared: Arc<Shared>,
    route: ArcSwap<Route>,
    epoch: AtomicU64,
    frontier: ArcSwap<Frontier>,
    activity: AtomicU8,
    /// The last [`Alike`] of a route, as one number; zero: none. A record that was read by an earlier route is no less
    /// what it says.
    alike: AtomicU64,
    /// Whether each record is read back before it is written.
    checks_writes: AtomicBool,
    pub(crate) backlog: Backlog,
    /// The newest code that a handle brought.
    pub(crate) lineage: Mutex<Option<Arc<Lineage>>>,
}

/// What a read found: the entry that answers, and which of its forms does.
pub(crate) enum Found {
    Absent,
    /// Read `form` of the entry, upcast to the view.
    Form {
        entry: Entry,
        form: Form,
        /// The version at which a merge happens.
        to: u32,
        /// The record comes forward to `to` in this read: its rules apply to it.
        validate: bool,
    },
}

/// What a point read has in hand.
pub(crate) enum Looked {
    /// The value of a settled table, not parsed yet.
    Plain(Option<Value>),
    Resolved(Found),
}

impl TableState {
    pub(crate) fn new(name: &str, shared: Arc<Shared>, route: Route) -> Self {
        let epoch = route.epoch;
        let alike = AtomicU64::new(route.alike.map_or(0, Alike::number));
        let checks_writes = AtomicBool::new(shared.settings.check_writes);
        Self {
            alike,
            checks_writes,
            name: Name::new(name),
            shared,
            route: ArcSwap::from_pointee(route),
            epoch: AtomicU64::new(epoch),
            frontier: ArcSwap::from_pointee(Frontier::Start),
            activity: AtomicU8::new(Activity::Idle as u8),
            backlog: Backlog::new(),
            lineage: Mutex::new(None),
        }
    }

    #[inline]
    pub(crate) fn route(&self) -> crate::sync::Guard<Arc<Route>> {
        self.route.load()
    }

    pub(crate) fn route_owned(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// Whether the epoch is still `epoch`, with everything read before this call ordered before the answer.
    #[inline]
    pub(crate) fn epoch_is(&self, epoch: u64) -> bool {
        fence(Ordering::Acquire);
        self.epoch.load(Ordering::Relaxed) == epoch
    }

    /// Whether what was read by a route of this epoch counts. Otherwise the caller looks again; a flip that is half-way,
    /// in a thread that has lost its processor, goes first, or the caller would spin for as long.
    #[inline]
    pub(crate) fn holds(&self, epoch: u64) -> bool {
        self.epoch_is(epoch) || {
            give_turn();
            false
        }
    }

    /// Whether the epoch is `epoch` and, while the caller holds the gate, stays it.
    #[inline]
    pub(crate) fn is_at(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch
    }

    /// Replaces the route. The one place where readers and writers are sent elsewhere; the caller holds the gate
    /// exclusively, or the table is not yet in use.
    pub(crate) fn flip(&self, route: Route) {
        let epoch = route.epoch;
        if let Some(alike) = route.alike {
            self.alike.store(alike.number(), Ordering::Release);
        }
        self.route.store(Arc::new(route));
        self.epoch.store(epoch, Ordering::Release);
    }

    pub(crate) fn frontier(&self) -> crate::sync::Guard<Arc<Frontier>> {
        self.frontier.load()
    }

    pub(crate) fn set_frontier(&self, frontier: Frontier) {
        self.frontier.store(Arc::new(frontier));
    }

    #[inline]
    pub(crate) fn activity(&self) -> Activity {
        Activity::of_code(self.activity.load(Ordering::Relaxed))
    }

    pub(crate) fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// From now on each record is read back before it is written: its types could not be examined.
    pub(crate) fn check_writes(&self) {
        self.checks_writes.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn checks_writes(&self) -> bool {
        self.checks_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn newest_code(&self) -> Option<Arc<Lineage>> {
        self.lineage.lock().clone()
    }

    /// The version as which a stored form is read at `view`: its own, or the floor if it is the same bytes.
    #[inline]
    pub(crate) fn read_as(&self, version: u32, view: u32) -> u32 {
        if version == view { version } else { self.alike_to(version, view) }
    }

    fn alike_to(&self, version: u32, view: u32) -> u32 {
        let Alike { oldest, floor } = Alike::of_number(self.alike.load(Ordering::Acquire));
        if (oldest..floor).contains(&version) && view >= floor { floor } else { version }
    }

    pub(crate) fn refuse_version(&self, version: u32, reason: impl Into<String>) -> Error {
        Error::Version { table: self.name.to_string(), version, reason: reason.into() }
    }

    #[inline]
    pub(crate) fn parse(&self, key: &[u8], value: Value) -> Result<Entry> {
        match Entry::parse(key, value) {
            Ok(entry) => Ok(entry),
            Err(damage) => Err(self.damaged(key, damage.0)),
        }
    }

    #[cold]
    pub(crate) fn damaged(&self, key: &[u8], what: &str) -> Error {
        Error::corrupt(&self.name, key, what)
    }

    pub(crate) fn dropped(&self) -> Error {
        Error::Dropped { table: self.name.to_string() }
    }

    #[inline]
    pub(crate) fn check_floor(&self, route: &Route, view: u32) -> Result<()> {
        if view >= route.floor { Ok(()) } else { Err(self.retired(route.floor, view)) }
    }

    #[cold]
    fn retired(&self, floor: u32, view: u32) -> Error {
        let reason = format!(
            "retired: a migration was contracted, and version {floor} is the oldest that can still be read; \
             use a program that knows version {floor}"
        );
        self.refuse_version(view, reason)
    }

    /// [`TableState::look`], parsed and resolved.
    #[cfg(feature = "json")]
    pub(crate) fn read(&self, key: &[u8], view: u32) -> Result<Found> {
        match self.look(key, view)? {
            Looked::Plain(None) => Ok(Found::Absent),
            Looked::Plain(Some(value)) => self.plain(key, value, 0, false),
            Looked::Resolved(found) => Ok(found),
        }
    }

    /// One point read at `view`. What a settled table holds is handed on as it is: to be decoded where it lies, and not
    /// moved from hand to hand before.
    #[inline]
    pub(crate) fn look(&self, key: &[u8], view: u32) -> Result<Looked> {
        self.shared.check_usable()?;
        loop {
            let route = self.route();
            let looked = match &route.kind {
                Kind::Settled { tree, .. } if view >= route.floor => match tree.tree.get(key) {
                    Ok(value) => Ok(Looked::Plain(value)),
                    Err(e) => Err(e.into()),
                },
                _ => self.read_once(&route, key, view, &mut Direct).map(Looked::Resolved),
            };
            if self.holds(route.epoch) {
                return looked;
            }
        }
    }

    /// One look at a key; the caller checks the epoch after it.
    #[inline]
    pub(crate) fn read_once<L: Lookup>(
        &self,
        route: &Route,
        key: &[u8],
        view: u32,
        lookup: &mut L,
    ) -> Result<Found> {
        self.check_floor(route, view)?;
        match &route.kind {
            Kind::Settled { tree, .. } => match lookup.get(tree, key, Held::Changing)? {
                None => Ok(Found::Absent),
                Some(value) => self.plain(key, value, 0, false),
            },
            Kind::Open(open) => self.read_open(open, key, view, lookup),
            Kind::Folding(open) => {
                let overlay = lookup.get(&open.overlay, key, Held::Draining)?;
                self.resolve(open, Side::From, key, overlay, || lookup.get(&open.base, key, Held::Changing))
            }
            Kind::Dropped => Err(self.dropped()),
        }
    }

    /// [`TableState::read_once`] in an open migration.
    fn read_open<L: Lookup>(&self, open: &Open, key: &[u8], view: u32, lookup: &mut L) -> Result<Found> {
        let side = open.side(view);
        let frontier = L::FRONTIER.then(|| self.frontier());
        let overlay = lookup.get(&open.overlay, key, Held::Changing)?;
        let covered = side == Side::To && frontier.is_some_and(|frontier| frontier.covers(key));
        self.resolve(open, side, key, overlay, || {
            if covered { Ok(None) } else { lookup.get(&open.base, key, Held::Frozen) }
        })
    }

    /// A record of a base or of a settled table: a tombstone is absence, a companion means nothing.
    #[inline]
    pub(crate) fn plain(&self, key: &[u8], value: Value, to: u32, validate: bool) -> Result<Found> {
        let entry = self.parse(key, value)?;
        if entry.is_absence() {
            return Ok(Found::Absent);
        }
        Ok(Found::Form { entry, form: Form::Main, to, validate })
    }

    /// Resolves an overlay lookup of an open or folding migration; `base` is asked only if it has the answer.
    pub(crate) fn resolve(
        &self,
        open: &Open,
        side: Side,
        key: &[u8],
        overlay: Option<Value>,
        base: impl FnOnce() -> EngineResult<Option<Value>>,
    ) -> Result<Found> {
        let forward = side == Side::To;
        let from_base = |value: Option<Value>| match value {
            None => Ok(Found::Absent),
            Some(value) => self.plain(key, value, open.to, forward),
        };
        let Some(value) = overlay else {
            return from_base(base()?);
        };
        let entry = self.parse(key, value)?;
        match resolve::overlay(&entry, open.from, open.to, side) {
            Form::Absent => Ok(Found::Absent),
            Form::Base => from_base(base()?),
            form @ (Form::Main | Form::Companion | Form::Merge) => {
                let validate = forward && entry.version() != open.to;
                Ok(Found::Form { entry, form, to: open.to, validate })
            }
            Form::Failed => Err(self.quarantined(key)?),
            Form::OneWay => Err(self.refuse_version(
                open.from,
                format!(
                    "key {} was written by the one-way migration {}, which keeps no older form; read it with \
                     code that knows version {}",
                    crate::error::ShowKey(key),
                    open.migration,
                    open.to
                ),
            )),
            Form::Foreign => Err(Error::corrupt(
                &self.name,
                key,
                format!("version {} is of neither side of the open migration", entry.version()),
            )),
        }
    }

    fn quarantined(&self, key: &[u8]) -> Result<Error> {
        let reason = crate::state::quarantine::reason(&self.shared, &self.name, key)?
            .unwrap_or_else(|| "the reason is not recorded".to_owned());
        Ok(Error::Quarantined { table: self.name.to_string(), key: key.to_vec(), reason })
    }

    /// Makes one engine call under the gate, if the epoch is still `epoch`; `None` if it moved. Answers the time
    /// waited at the gate too.
    #[inline]
    pub(crate) fn gated<R>(
        &self,
        epoch: u64,
        waited: &mut std::time::Duration,
        call: impl FnOnce() -> EngineResult<R>,
    ) -> Result<Option<R>> {
        let hold = self.shared.gate.shared();
        *waited += hold.waited;
        if !self.is_at(epoch) {
            return Ok(None);
        }
        // Under the gate, which `close` takes before its flush: no write comes after that.
        self.shared.check_usable()?;
        Ok(Some(call()?))
    }
}

impl Alike {
    fn number(self) -> u64 {
        u64::from(self.oldest) << 32 | u64::from(self.floor)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
    fn of_number(number: u64) -> Self {
        Alike { oldest: (number >> 32) as u32, floor: number as u32 }
    }
}

#[cold]
fn give_turn() {
    thread::yield_now();
}

impl Open {
    /// The side at which a view reads. Between `from` and `to` the old forms answer, upcast, whatever code is there: the
    /// newer ones would answer only where the code of `to` is.
    pub(crate) fn side(&self, view: u32) -> Side {
        if view >= self.to { Side::To } else { Side::From }
    }
}
