//! Any engine, and a way to let go of it while handles of it are alive: what closing a store stands on.
//!
//! The engine, each of its trees and each of its snapshots is reached through a slot, and only through it:
//!
//! 1. [`Closable::close`] empties every slot. A call that comes later answers `Closed`.
//! 2. A call in flight keeps what its slot held, and `close` waits for it.
//! 3. Then nobody holds the engine but `close`, which drops it, and after it the lock under which it was open.
//!
//! A slot is a pointer that is swapped: a call takes no lock. What it costs is in docs/performance.md.

use std::fs::File;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{
    Capabilities, Check, Engine, EngineResult, KeyRange, Outcome, Page, Snapshot, Tree, Value, Write,
};
use crate::error::{EngineError, EngineErrorKind};
use crate::sync::{ArcSwap, Instant, Mutex, thread};

/// How long a close waits for calls in flight: only an engine that hangs takes so long.
const CALLS_WAIT: Duration = Duration::from_secs(10);
/// Slots that are known before those that are gone are looked for.
const KNOWN_MIN: usize = 64;

/// What is dropped last: the engine, and then the lock under which it is open.
struct Held {
    engine: Arc<dyn Engine>,
    _lock: Option<File>,
}

/// What is reached through the engine, until it is emptied.
struct Slot<T>(ArcSwap<Option<(T, Arc<Held>)>>);

impl<T> Slot<T> {
    fn new(of: T, held: &Arc<Held>) -> Self {
        Self(ArcSwap::from_pointee(Some((of, Arc::clone(held)))))
    }

    #[inline]
    fn call<R>(&self, call: impl FnOnce(&T, &Arc<Held>) -> EngineResult<R>) -> EngineResult<R> {
        match &**self.0.load() {
            Some((of, held)) => call(of, held),
            None => Err(closed()),
        }
    }
}

#[cold]
fn closed() -> EngineError {
    EngineError::new(EngineErrorKind::Closed, "the store is closed")
}

#[cold]
fn in_flight() -> EngineError {
    let message = format!(
        "a call that was in flight has not ended for {} s: the directory is let go of when it ends, or with the process",
        CALLS_WAIT.as_secs()
    );
    EngineError::new(EngineErrorKind::Io, message)
}

trait Empty: Send + Sync {
    fn empty(&self);
}

impl<T: Send + Sync> Empty for Slot<T> {
    fn empty(&self) {
        self.0.store(Arc::new(None));
    }
}

/// How far closing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Closing,
    Closed,
}

struct State {
    stage: Stage,
    /// `None` from the moment at which the slots are emptied.
    held: Option<Arc<Held>>,
    /// The same, for as long as a call has it.
    last: Weak<Held>,
    /// Every slot that is in use.
    slots: Vec<Weak<dyn Empty>>,
    /// How many there may be before those that are gone are taken out.
    room: usize,
}

pub(crate) struct Closable {
    engine: Slot<()>,
    state: Mutex<State>,
    name: &'static str,
    limits: Capabilities,
}

impl Closable {
    /// `lock`: what keeps others out of the engine's directory.
    pub(crate) fn new(engine: Arc<dyn Engine>, lock: Option<File>) -> Self {
        let (name, limits) = (engine.name(), engine.capabilities());
        let held = Arc::new(Held { engine, _lock: lock });
        let engine = Slot::new((), &held);
        let last = Arc::downgrade(&held);
        let state = State { stage: Stage::Open, held: Some(held), last, slots: Vec::new(), room: KNOWN_MIN };
        Self { engine, state: Mutex::new(state), name, limits }
    }

    /// The stage so far. To one caller it is open: [`Closable::close`] is to follow.
    pub(crate) fn begin_close(&self) -> Stage {
        let mut state = self.state.lock();
        let before = state.stage;
        if before == Stage::Open {
            state.stage = Stage::Closing;
        }
        before
    }

    /// Whether the engine is gone, or about to be.
    pub(crate) fn is_let_go(&self) -> bool {
        self.state.lock().held.is_none()
    }

    /// Lets go of the engine: when this answers it is dropped, and its lock with it. An error says that a call that was
    /// in flight has not ended: both go when it does.
    pub(crate) fn close(&self) -> EngineResult<()> {
        let (slots, held) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.slots), state.held.take())
        };
        self.engine.empty();
        slots.iter().filter_map(Weak::upgrade).for_each(|slot| slot.empty());
        let result = held.map_or(Ok(()), drop_alone);
        self.state.lock().stage = Stage::Closed;
        result
    }

    /// After [`Closable::close`]: the same error, for as long as there is such a call.
    pub(crate) fn check_closed(&self) -> EngineResult<()> {
        if self.state.lock().last.strong_count() == 0 { Ok(()) } else { Err(in_flight()) }
    }

    #[inline]
    fn call<R>(&self, call: impl FnOnce(&dyn Engine) -> EngineResult<R>) -> EngineResult<R> {
        self.engine.call(|(), held| call(&*held.engine))
    }

    /// A slot for what the engine has answered, which a close finds.
    fn slot<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce(&dyn Engine) -> EngineResult<T>,
    ) -> EngineResult<Arc<Slot<T>>> {
        self.engine.call(|(), held| {
            let slot = Arc::new(Slot::new(make(&*held.engine)?, held));
            let mut state = self.state.lock();
            if state.held.is_none() {
                return Err(closed());
            }
            if state.slots.len() >= state.room {
                state.slots.retain(|slot| slot.strong_count() > 0);
                state.room = (2 * state.slots.len()).max(KNOWN_MIN);
            }
            let known: Weak<Slot<T>> = Arc::downgrade(&slot);
            state.slots.push(known);
            Ok(slot)
        })
    }
}

/// Waits until nobody else holds it, and drops it.
fn drop_alone(mut held: Arc<Held>) -> EngineResult<()> {
    let begun = Instant::now();
    let mut rest = Duration::from_micros(50);
    loop {
        match Arc::try_unwrap(held) {
            Ok(alone) => {
                drop(alone);
                return Ok(());
            }
            Err(shared) => held = shared,
        }
        if begun.elapsed() > CALLS_WAIT {
            return Err(in_flight());
        }
        thread::sleep(rest);
        rest = (rest * 2).min(Duration::from_millis(1));
    }
}

struct ClosableTree(Arc<Slot<Arc<dyn Tree>>>);

impl Tree for ClosableTree {
    #[inline]
    fn get(&self, key: &[u8]) -> EngineResult<Option<Value>> {
        self.0.call(|tree, _| tree.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> EngineResult<()> {
        self.0.call(|tree, _| tree.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> EngineResult<()> {
        self.0.call(|tree, _| tree.delete(key))
    }

    fn compare_and_swap(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> EngineResult<bool> {
        self.0.call(|tree, _| tree.compare_and_swap(key, old, new))
    }

    fn insert_if_absent(&self, key: &[u8], value: &[u8]) -> EngineResult<bool> {
        self.0.call(|tree, _| tree.insert_if_absent(key, value))
    }

    fn scan(&self, range: KeyRange<'_>, reverse: bool, limit: usize, page: &mut Page) -> EngineResult<bool> {
        self.0.call(|tree, _| tree.scan(range, reverse, limit, page))
    }
}

struct ClosableSnapshot(Arc<Slot<Arc<dyn Snapshot>>>);

impl Snapshot for ClosableSnapshot {
    fn get(&self, tree: &str, key: &[u8]) -> EngineResult<Option<Value>> {
        self.0.call(|snapshot, _| snapshot.get(tree, key))
    }

    fn scan(
        &self,
        tree: &str,
        range: KeyRange<'_>,
        reverse: bool,
        limit: usize,
        page: &mut Page,
    ) -> EngineResult<bool> {
        self.0.call(|snapshot, _| snapshot.scan(tree, range, reverse, limit, page))
    }
}

impl Engine for Closable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tree(&self, name: &str) -> EngineResult<Arc<dyn Tree>> {
        Ok(Arc::new(ClosableTree(self.slot(|engine| engine.tree(name))?)))
    }

    fn trees(&self) -> EngineResult<Vec<String>> {
        self.call(|engine| engine.trees())
    }

    fn drop_tree(&self, name: &str) -> EngineResult<()> {
        self.call(|engine| engine.drop_tree(name))
    }

    fn commit(&self, checks: &[Check], writes: &[Write]) -> EngineResult<Outcome> {
        self.call(|engine| engine.commit(checks, writes))
    }

    fn flush(&self) -> EngineResult<()> {
        self.call(|engine| engine.flush())
    }

    fn capabilities(&self) -> Capabilities {
        self.limits
    }

    fn snapshot(&self) -> EngineResult<Option<Arc<dyn Snapshot>>> {
        if !self.limits.snapshots {
            return Ok(None);
        }
        let missing = "the engine says that it has snapshots, and gave none";
        let missing = || EngineError::new(EngineErrorKind::Io, missing);
        let slot = self.slot(|engine| engine.snapshot()?.ok_or_else(missing))?;
        Ok(Some(Arc::new(ClosableSnapshot(slot))))
    }

    fn is_pressed(&self) -> bool {
        self.call(|engine| Ok(engine.is_pressed())).unwrap_or(false)
    }

    fn check_files(&self) -> EngineResult<Vec<String>> {
        self.call(|engine| engine.check_files())
    }

    fn bytes_on_disk(&self) -> EngineResult<u64> {
        self.call(|engine| engine.bytes_on_disk())
    }
}
