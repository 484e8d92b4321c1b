//! What every operation needs: the engine, the gate, what is measured, and whether the handle can still be used.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Capabilities, Closable, Engine, Freezing, NamedTree};
use crate::error::{Error, Result};
use crate::form::envelope;
use crate::measure::stats::Recorder;
use crate::state::flusher::Flusher;
use crate::state::gate::Gate;
use crate::state::holds::Holds;
use crate::state::settings::{Durability, Settings};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, Ordering};

/// Engine, gate and statistics: what every operation needs.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    /// The same engine, to be let go of.
    pub(crate) closable: Arc<Closable>,
    /// The same engine, if it has no snapshots of its own.
    pub(crate) freezing: Option<Arc<Freezing>>,
    pub(crate) limits: Capabilities,
    pub(crate) gate: Gate,
    /// Transactions that state changes wait for.
    pub(crate) holds: Holds,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) settings: Settings,
    /// The store's directory; `None` for an engine that was handed in.
    pub(crate) path: Option<PathBuf>,
    state: AtomicU8,
    poison: Mutex<Option<String>>,
}

const USABLE: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;

impl Shared {
    /// `lock` keeps others out of the store's directory; it goes after the engine.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        settings: Settings,
        path: Option<PathBuf>,
        lock: Option<File>,
    ) -> Arc<Self> {
        let closable = Arc::new(Closable::new(engine, lock));
        let engine: Arc<dyn Engine> = Arc::clone(&closable) as _;
        let freezing = || Arc::new(Freezing::new(Arc::clone(&engine), settings.saved_bytes_max));
        let freezing = (!engine.capabilities().snapshots).then(freezing);
        let engine = freezing.clone().map_or(engine, |freezing| freezing as Arc<dyn Engine>);
        let recorder = Arc::new(Recorder::new(settings.observer.clone(), settings.observe_pauses_from));
        Arc::new(Self {
            limits: engine.capabilities(),
            gate: Gate::default(),
            holds: Holds::default(),
            flusher: Arc::new(Flusher::new(Arc::clone(&engine), Arc::clone(&recorder))),
            recorder,
            engine,
            closable,
            freezing,
            settings,
            path,
            state: AtomicU8::new(USABLE),
            poison: Mutex::new(None),
        })
    }

    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.state.load(Ordering::Relaxed) == USABLE { Ok(()) } else { Err(self.unusable()) }
    }

    /// [`Shared::check_usable`], before anything is written or a verb begins.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        if self.settings.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    #[cold]
    fn unusable(&self) -> Error {
        self.poisoned().unwrap_or(Error::Closed)
    }

    /// Stops all work on this handle after a failure that left the durable state unknown.
    pub(crate) fn poison(&self, reason: &str) {
        // A call that comes after the close has failed for no other reason.
        if self.closable.is_let_go() {
            return;
        }
        let mut poison = self.poison.lock();
        if poison.is_none() {
            tracing::error!(target: "exuvia", reason, "store poisoned");
            *poison = Some(reason.to_owned());
        }
        self.state.store(POISONED, Ordering::Relaxed);
    }

    /// Why the handle stopped, if it did.
    pub(crate) fn poisoned(&self) -> Option<Error> {
        self.poison.lock().clone().map(|reason| Error::Poisoned { reason })
    }

    /// From here on calls are refused. Answers whether they were not before.
    pub(crate) fn shut(&self) -> bool {
        self.state.compare_exchange(USABLE, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.load(Ordering::Relaxed) == POISONED
    }

    pub(crate) fn flush(&self) -> Result<()> {
        let result = self.flusher.flush();
        if let Err(e) = &result {
            self.poison(&e.as_reason());
        }
        result
    }

    /// The process may be ending: what was written becomes durable. Past the group flush, whose turn the caller may have.
    #[cfg(all(any(feature = "sled", feature = "fjall"), not(any(windows, exuvia_shuttle))))]
    pub(crate) fn flush_at_exit(&self) {
        if self.flusher.is_dirty()
            && self.check_writable().is_ok()
            && let Err(e) = self.engine.flush()
        {
            tracing::error!(target: "exuvia", error = %e, "the flush at the end of the process failed");
        }
    }

    /// Ends a write: durable now, or noted for the next background flush.
    #[inline]
    pub(crate) fn written(&self) -> Result<()> {
        match self.settings.durability {
            Durability::EveryWrite => match self.flush() {
                // It was made under the gate, so before the last flush of the close that came between.
                Err(Error::Closed) => Ok(()),
                flushed => flushed,
            },
            Durability::Buffered { .. } => {
                self.flusher.touch();
                Ok(())
            }
        }
    }

    /// Refuses a key that the engine could not hold, before anything is written.
    #[inline]
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        check_length("bytes in a key", key.len(), self.limits.key_bytes_max)
    }

    /// Refuses an envelope with one form that is over the limit.
    #[inline]
    pub(crate) fn check_one_form(&self, key: &[u8], envelope: &[u8]) -> Result<()> {
        self.check_key(key)?;
        let limit = self.limits.record_bytes_max.min(self.limits.value_bytes_max);
        check_length("bytes in a record", envelope.len(), limit)
    }

    /// Refuses an envelope with two forms, of so many bytes each, that is over the limit or has a form that is.
    #[inline]
    pub(crate) fn check_forms(
        &self,
        key: &[u8],
        envelope: &[u8],
        main: usize,
        companion: usize,
    ) -> Result<()> {
        self.check_key(key)?;
        let limit = self.limits.record_bytes_max.saturating_sub(envelope::OVERHEAD_MAX);
        check_length("bytes in a record", main.max(companion), limit)?;
        let what = "bytes in a record (all its forms together, while a migration is open)";
        check_length(what, envelope.len(), self.limits.value_bytes_max)
    }

    /// Refuses a form of old code that would leave no room for a new form as long as itself. What becomes of it is not known
    /// without newer code, and the backfill has to keep both.
    #[inline]
    pub(crate) fn check_half(&self, form: usize) -> Result<()> {
        let half = self.limits.record_bytes_max.min(self.limits.value_bytes_max / 2);
        let what = "bytes in a record (while a migration of its table is open, which has to keep a second form beside it)";
        check_length(what, form, half.saturating_sub(envelope::OVERHEAD_MAX))
    }

    /// Free bytes on the store's medium; `None` where there is no path or the system cannot tell.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        crate::medium::free_bytes(self.path.as_ref()?)
    }

    pub(crate) fn named(&self, name: &str) -> Result<NamedTree> {
        Ok(NamedTree { name: name.into(), tree: self.engine.tree(name)? })
    }
}

#[inline]
fn check_length(what: &'static str, size: usize, limit: usize) -> Result<()> {
    if size <= limit { Ok(()) } else { Err(Error::Limit { what, size, limit }) }
}
