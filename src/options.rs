//! How a store is opened.

#[cfg(any(feature = "sled", feature = "fjall"))]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "sled", feature = "fjall"))]
use crate::engine::EngineKind;
use crate::engine::{Engine, SAVED_BYTES_MAX};
use crate::error::Result;
use crate::migration::Budget;
use crate::observe::Observer;
use crate::store::Store;

/// When a write is safe from a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns. Concurrent writers share flushes.
    EveryWrite,
    /// At the latest `interval` after the call returned (plus the time of a flush). A killed process loses
    /// nothing that reached the system.
    Buffered {
        /// The longest time between two background flushes while something is being written.
        interval: Duration,
    },
}

impl Default for Durability {
    /// Buffered, with an interval of 500 ms.
    fn default() -> Self {
        Durability::Buffered { interval: Duration::from_millis(500) }
    }
}

/// Options of a store; made by `Store::options()`, ended by `open`, or by [`Options::open_in`].
#[must_use = "options do nothing until `open` is called"]
#[derive(Clone)]
pub struct Options {
    pub(crate) settings: Settings,
    pub(crate) cache_bytes: u64,
    pub(crate) create: bool,
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub(crate) engine: Option<EngineKind>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) budget: Budget,
    pub(crate) free_bytes_min: u64,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) observe_pauses_from: Duration,
    pub(crate) background: bool,
    pub(crate) read_only: bool,
    pub(crate) private: bool,
    /// Of old values, for a copy beside writers. Less in tests only.
    pub(crate) saved_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings {
                durability: Durability::default(),
                budget: Budget::default(),
                free_bytes_min: 256 << 20,
                observer: None,
                observe_pauses_from: Duration::from_micros(100),
                background: true,
                read_only: false,
                private: true,
                saved_bytes_max: SAVED_BYTES_MAX,
            },
            cache_bytes: 256 << 20,
            create: true,
            #[cfg(any(feature = "sled", feature = "fjall"))]
            engine: None,
        }
    }
}

impl Options {
    /// When a write is safe. Default: buffered, 500 ms.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Bytes of cache for the engine. Default: 256 MiB. While a migration is open its tables are there twice, and what of
    /// them does not fit is read from the disk (docs/performance.md has what that costs).
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The budget that migrations of this store start with. Default: pauses of 1 ms.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = budget;
        self
    }

    /// Free bytes on the medium below which a backfill pauses by itself. Default: 256 MiB. Zero: never.
    pub fn free_bytes_min(mut self, bytes: u64) -> Self {
        self.settings.free_bytes_min = bytes;
        self
    }

    /// An observer of pauses, background work and state changes. Default: none.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Some(observer);
        self
    }

    /// The shortest pause, and the shortest piece of background work, that the observer is told of. Default: 100 µs.
    pub fn observe_pauses_from(mut self, shortest: Duration) -> Self {
        self.settings.observe_pauses_from = shortest;
        self
    }

    /// Whether a missing store is created. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The engine that is to keep the store. Default: the one that keeps it already, which its `EXUVIA` file names; for
    /// a new store sled, or fjall in a program that was built without sled.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Whether anything happens by itself: backfill, fold, sweep, the flush of buffered writes. Default: yes.
    /// Without it the store is left as it is found, for tools that only look; what was begun goes on at the next
    /// open that has it.
    pub fn background(mut self, background: bool) -> Self {
        self.settings.background = background;
        self
    }

    /// Whether the store is only looked at. Default: no.
    ///
    /// Then nothing happens by itself (as with [`Options::background`]), no store and no table is made, and every write
    /// and every verb answers [`crate::Error::ReadOnly`].
    ///
    /// It is the store that is not changed; the engine below may still have to write to open its files. sled does: it
    /// finishes what a crash left half done, and refuses a directory that it cannot write to. So do the lock file and
    /// its rule that one process at a time has the store: a reader keeps writers out, and other readers.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// Whether what is made is closed to everybody but its owner. Default: yes.
    ///
    /// A directory that is made then has mode 0700, and so has the engine's in it; files of the store's own have 0600, and those
    /// that the engine makes at first. What an engine makes later has the process's modes, and lies in a closed directory.
    /// With `false` the process's umask decides on all of it. Modes of what is there already are left as they are. It
    /// holds for copies and backups of the store, too. Unix only.
    pub fn private(mut self, private: bool) -> Self {
        self.settings.private = private;
        self
    }

    /// Opens the store in a directory, which only one process at a time may do.
    ///
    /// The directory is created if it is not there, and must be empty or a store. It may be a symbolic link, which is
    /// resolved once; links inside it are refused.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Path`], [`crate::Error::Locked`], [`crate::Error::Format`] (another engine than the one asked
    /// for, an engine that this program was built without, a newer format), or damage of the catalog. Nothing on disk is changed by a refused open.
    #[cfg(any(feature = "sled", feature = "fjall"))]
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let create = self.create && !self.settings.read_only;
        let settings = self.settings();
        Store::open_directory(path.as_ref(), Options { settings, create, ..self })
    }

    /// Opens a store in an engine that was made elsewhere, for example a [`crate::engine::MemoryEngine`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Format`] if another engine wrote what it holds, or damage of the catalog.
    pub fn open_in(self, engine: Arc<dyn Engine>) -> Result<Store> {
        Store::open_engine(engine, self.settings(), None, None, true)
    }

    fn settings(&self) -> Settings {
        let background = self.settings.background && !self.settings.read_only;
        Settings { background, ..self.settings.clone() }
    }
}
