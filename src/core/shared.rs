//! What every operation needs: the engine, the gate, what is measured, and whether the handle can still be used.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Capabilities, Engine, Freezing};
use crate::envelope;
use crate::error::{Error, Result};
use crate::flusher::Flusher;
use crate::gate::Gate;
use crate::options::{Durability, Settings};
use crate::route::NamedTree;
use crate::seeded::{Bug, bug};
use crate::stats::Recorder;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, Ordering};

/// Engine, gate and statistics: what every operation needs.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    /// The same engine, if it has no snapshots of its own.
    pub(crate) freezing: Option<Arc<Freezing>>,
    pub(crate) limits: Capabilities,
    pub(crate) gate: Gate,
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
    pub(crate) fn new(engine: Arc<dyn Engine>, settings: Settings, path: Option<PathBuf>) -> Arc<Self> {
        let freezing = || Arc::new(Freezing::new(Arc::clone(&engine), settings.saved_bytes_max));
        let freezing = (!engine.capabilities().snapshots).then(freezing);
        let engine = freezing.clone().map_or(engine, |freezing| freezing as Arc<dyn Engine>);
        let recorder = Arc::new(Recorder::new(settings.observer.clone(), settings.observe_pauses_from));
        Arc::new(Self {
            limits: engine.capabilities(),
            gate: Gate::default(),
            flusher: Arc::new(Flusher::new(Arc::clone(&engine), Arc::clone(&recorder))),
            recorder,
            engine,
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
        let mut poison = self.poison.lock();
        if poison.is_none() {
            tracing::error!(target: "exuvia", reason, "store poisoned");
            *poison = Some(reason.to_owned());
        }
        self.state.store(POISONED, Ordering::Relaxed);
    }

    /// Why the handle stopped, if it did.
    pub(super) fn poisoned(&self) -> Option<Error> {
        self.poison.lock().clone().map(|reason| Error::Poisoned { reason })
    }

    /// From here on calls are refused. Answers whether they were not before.
    pub(super) fn shut(&self) -> bool {
        self.state.compare_exchange(USABLE, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.load(Ordering::Relaxed) == POISONED
    }

    pub(crate) fn flush(&self) -> Result<()> {
        if bug(Bug::FlushSkipped) {
            return Ok(());
        }
        let result = self.flusher.flush();
        if let Err(e) = &result {
            self.poison(&e.to_string());
        }
        result
    }

    /// Ends a write: durable now, or noted for the next background flush.
    #[inline]
    pub(crate) fn written(&self) -> Result<()> {
        match self.settings.durability {
            Durability::EveryWrite => self.flush(),
            Durability::Buffered { .. } => {
                self.flusher.touch();
                Ok(())
            }
        }
    }

    /// Refuses what the engine could not hold, before anything is written.
    #[inline]
    pub(crate) fn check_size(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() <= self.limits.key_bytes_max && value.len() <= self.limits.value_bytes_max {
            return Ok(());
        }
        Err(self.over_limit(key.len(), value.len()))
    }

    #[cold]
    fn over_limit(&self, key: usize, value: usize) -> Error {
        if key > self.limits.key_bytes_max {
            return Error::Limit { what: "bytes in a key", size: key, limit: self.limits.key_bytes_max };
        }
        let limit = self.limits.value_bytes_max.saturating_sub(envelope::OVERHEAD_MAX);
        Error::Limit { what: "bytes in a record (all its forms together)", size: value, limit }
    }

    /// Free bytes on the store's medium; `None` where there is no path or the system cannot tell.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        crate::medium::free_bytes(self.path.as_ref()?)
    }

    pub(crate) fn named(&self, name: &str) -> Result<NamedTree> {
        Ok(NamedTree { name: name.into(), tree: self.engine.tree(name)? })
    }
}
